"""What /bin/sh finds where a line of a dot-qmail file runs a command."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager

from rcptgen.qmail.judged import Settings
from rcptgen.qmail.model import QMAIL_PROGRAMS, Presence
from rcptgen.source.tree import Absent, FailedForNow, Identity, SourceTree, Status

MOST_PROGRAMS = 4096
"""Programs that are remembered because other homes may run the same."""

Programs = dict[tuple[Identity, bytes], Presence]
"""What is known of programs: who looks for them, and their paths."""


class Commands:
    """The commands of one home, looked for as its owner; `failed` is told of what cannot be read for now.

    `programs` is shared by all homes of a run.
    """

    def __init__(
        self,
        tree: SourceTree,
        home: bytes,
        identity: Identity,
        settings: Settings,
        programs: Programs,
        as_owner: Callable[[], AbstractContextManager[None]],
        failed: Callable[[FailedForNow], None],
    ) -> None:
        self._tree = tree
        self._home = home
        self._identity = identity
        self._settings = settings
        self._programs = programs
        self._as_owner = as_owner
        self._failed = failed
        self._presences: dict[bytes, Presence] = {}

    def presence(self, command: bytes) -> Presence:
        """What /bin/sh finds for `command` as the owner, in the home, with qmail's PATH."""
        if command not in self._presences:
            with self._as_owner():
                self._presences[command] = self._look_for(command)
        return self._presences[command]

    def _look_for(self, command: bytes) -> Presence:
        if b"/" in command:
            directory, _, name = command.rpartition(b"/")
            if directory == self._settings.qmail_bin and name in QMAIL_PROGRAMS:
                return Presence.FOUND
            return self._program(os.path.join(self._home, command))
        best = Presence.NOT_FOUND
        for directory in self._settings.path.split(b":"):
            found = self._program(os.path.join(self._home, directory, command))
            if found in (Presence.FOUND, Presence.FAILED):
                return found
            if found is Presence.NOT_EXECUTABLE:
                best = found
        return best

    def _program(self, path: bytes) -> Presence:
        """What is at an absolute path; many homes ask for the same few."""
        key = (self._identity, path)
        known = self._programs.get(key)
        if known is None or self._tree.record:
            known = self._look_at(path)
            # A failure is noted for each home that meets it.
            if known is not Presence.FAILED and len(self._programs) < MOST_PROGRAMS:
                self._programs[key] = known
        return known

    def _look_at(self, path: bytes) -> Presence:
        found = self._tree.accessible(path, os.X_OK)
        if isinstance(found, Status):
            return Presence.FOUND if stat.S_ISREG(found.mode) else Presence.NOT_EXECUTABLE
        if isinstance(found, FailedForNow):
            self._failed(found)
            return Presence.FAILED
        return Presence.NOT_FOUND if isinstance(found, Absent) else Presence.NOT_EXECUTABLE
