"""Whether the mailboxes that lines of a dot-qmail file name could be written."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager

from rcptgen.qmail.dotqmail import Action, Instruction
from rcptgen.source.tree import Absent, FailedForNow, SourceTree, Status

MOST_LINKS = 40


class Mailboxes:
    """The mailboxes of one home, looked at as its owner; `failed` is told of what cannot be read for now."""

    def __init__(
        self,
        tree: SourceTree,
        home: bytes,
        as_owner: Callable[[], AbstractContextManager[None]],
        failed: Callable[[FailedForNow], None],
    ) -> None:
        self._tree = tree
        self._home = home
        self._as_owner = as_owner
        self._failed = failed

    def deliverable(self, one: Instruction) -> bool:
        """Whether an mbox or maildir could be written (qmail-local.c: mailfile, maildir_child)."""
        path = os.path.join(self._home, one.text)
        with self._as_owner():
            if one.action is Action.MAILDIR:
                return all(self._directory_for(path + b"/" + part) for part in (b"tmp", b"new"))
            found = self._tree.accessible(path, os.W_OK)
            if isinstance(found, Status):
                # A fifo without a reader and a socket give ENXIO, a directory EISDIR.
                return stat.S_ISREG(found.mode) or stat.S_ISCHR(found.mode) or stat.S_ISBLK(found.mode)
            if isinstance(found, FailedForNow):
                self._failed(found)
            return isinstance(found, Absent) and found.errno == errno.ENOENT and self._can_create(path)

    def _can_create(self, path: bytes) -> bool:
        """Whether a file that is not there can be made: a link to nothing is followed."""
        for _ in range(MOST_LINKS):
            target = self._tree.link(path)
            if target is None:
                return not path.endswith(b"/") and self._directory_for(os.path.dirname(path))
            path = os.path.join(os.path.dirname(path), target)
        return False

    def _directory_for(self, path: bytes) -> bool:
        found = self._tree.accessible(path, os.W_OK | os.X_OK)
        if isinstance(found, FailedForNow):
            self._failed(found)
        return isinstance(found, Status) and stat.S_ISDIR(found.mode)
