"""Looking at a host: below its root, bounded, without waiting for anything, and running nothing of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from rcptgen.config import Qmail
from rcptgen.doctor.findings import ROOT, Who
from rcptgen.qmail import accounts as account_sources
from rcptgen.qmail.accounts import Accounts, SystemAccounts
from rcptgen.rules.shown import shown
from rcptgen.source.tree import (
    Absent,
    FailedForNow,
    Identity,
    Refused,
    Regular,
    SourceTree,
    Status,
)

LARGEST_TEXT = 1 << 20
"""Bytes of a script or a configuration file; what is larger is none."""

LARGEST_KEPT = 1 << 16
"""Bytes of a text that is not read again when it is asked for again."""

LARGEST_PROGRAM = 64 << 20
"""Bytes of a program that are gone through for its strings."""

MOST_NAMES = 5000
"""Entries of one directory that are looked at."""

_CHUNK = 1 << 20
_LONGEST_STRING = 256
_MOST_DIGITS = 10


@dataclass(frozen=True, slots=True)
class Barrier:
    """What keeps an account from a file: the path that refuses it, and whether that is a directory on the way."""

    path: bytes
    directory: bool


class Sight:
    """The host below `root`, for one look at it; close it, or use it as a context.

    Permissions are judged from mode bits, for one uid and one gid as setuidgid leaves them.
    `failed` gathers what could not be looked at for now, and why.
    """

    def __init__(self, root: bytes, qmail: Qmail) -> None:
        self.root = root
        self.qmail = os.fsencode(qmail.directory.rstrip("/"))
        self.failed: dict[bytes, str] = {}
        self._tree = SourceTree(root, access="bits", record=False)
        self._texts: dict[bytes, bytes | None] = {}
        self._called: dict[int, str] = {}
        self.accounts: Accounts = SystemAccounts()
        if qmail.accounts.startswith("/"):
            self.accounts = account_sources.from_file(os.fsencode(qmail.accounts), self._tree.read)
        elif root != b"/" or qmail.accounts == "passwd":
            self.accounts = account_sources.from_file(b"/etc/passwd", self._tree.read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tree.close()

    def machine_path(self, path: bytes) -> bytes:
        """A path of the host as it is called on this machine."""
        return path if self.root == b"/" else self.root.rstrip(b"/") + path

    def status(self, path: bytes) -> Status | None:
        """What is there, links followed; None where nothing is."""
        found = self._tree.status(path)
        if isinstance(found, Status):
            return found
        self._note(path, found)
        return None

    def text(self, path: bytes) -> bytes | None:
        """The content of a small regular file; None where there is none."""
        if path in self._texts:
            return self._texts[path]
        found = self._tree.read(path, limit=LARGEST_TEXT)
        self._note(path, found)
        data = found.data if isinstance(found, Regular) else None
        if data is None or len(data) <= LARGEST_KEPT:
            self._texts[path] = data
        return data

    def lines(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The lines of a small regular file that are not blank, without blanks at either end, numbered from 1."""
        for number, line in enumerate((self.text(path) or b"").split(b"\n"), 1):
            if line.strip():
                yield number, line.strip()

    def names(self, path: bytes) -> list[bytes]:
        """The names in a directory, sorted; none where there is none."""
        found = self._tree.directory(path)
        if isinstance(found, Absent | Refused | FailedForNow):
            self._note(path, found)
            return []
        try:
            names = found.names(most=MOST_NAMES)
        finally:
            found.close()
        if isinstance(names, Refused | FailedForNow):
            self._note(path, names)
            return []
        return sorted(name for name, _ in names)

    def link(self, path: bytes) -> bytes | None:
        """Where a symbolic link leads, as it is written."""
        return self._tree.link(path)

    def file(self, path: bytes) -> int | None:
        """A regular file of any size, open; None where there is none.  The descriptor is the caller's to close."""
        found = self._tree.descriptor(path)
        if isinstance(found, int):
            return found
        self._note(path, found)
        return None

    def strings(self, path: bytes, wanted: Mapping[str, re.Pattern[bytes]]) -> set[str]:
        """Which of the patterns, none of which matches more than 256 bytes, are found in a program."""
        descriptor = self.file(path)
        found: set[str] = set()
        if descriptor is None:
            return found
        try:
            kept = b""
            for at in range(0, LARGEST_PROGRAM, _CHUNK):
                chunk = os.pread(descriptor, _CHUNK, at)
                if not chunk:
                    break
                window = kept + chunk
                found |= {name for name, pattern in wanted.items() if name not in found and pattern.search(window)}
                kept = window[-_LONGEST_STRING:]
        except OSError as error:
            self.failed[path] = error.strerror or str(error)
        finally:
            os.close(descriptor)
        return found

    def lag(self, made: bytes, source: bytes) -> str:
        """How a file that is made of another one lags behind it, in words; empty where it does not."""
        new, old = self.status(source), self.status(made)
        if new is None or (old is not None and old.mtime_ns >= new.mtime_ns):
            return ""
        return f"{shown(made)} " + ("is not there" if old is None else f"is older than {shown(source)}")

    def barrier(self, path: bytes, who: Who, wanted: int = os.R_OK) -> Barrier | None:
        """What keeps `who` from having R_OK or X_OK of a file that is there; None where nothing does."""
        if who.identity is None or not who.identity.uid:
            return None
        with self._tree.acting_as(who.identity):
            if not isinstance(self._tree.accessible(path, wanted), Refused):
                return None
            for end, byte in enumerate(path):
                above = path[:end] or b"/"
                if byte == 0x2F and isinstance(self._tree.directory(above), Refused):
                    return Barrier(above, True)
        return Barrier(path, False)

    def account(self, name: bytes, group: bytes = b"") -> Who | None:
        """The account called `name` with its own group or another, or by their numbers; None where there is none."""
        found = self.accounts.get(name)
        number = _number(name)
        if found is None and number is None:
            return None
        uid = found.uid if found is not None else number or 0
        gid = found.gid if found is not None else uid
        if group:
            numbered = _number(group)
            named = self.accounts.group(group) if numbered is None else numbered
            gid = gid if named is None else named
        if found is not None:
            self._called[uid] = shown(name)
        return Who(self._called.get(uid, f"uid {uid}"), Identity(uid, gid)) if uid else ROOT

    def _note(self, path: bytes, found: object) -> None:
        """Remembers what could not be looked at; that nothing is there is an answer."""
        if isinstance(found, Refused | FailedForNow):
            self.failed[path] = os.strerror(found.errno)


def _number(text: bytes) -> int | None:
    """A uid or gid as digits; None for what is none."""
    return int(text) if text.isdigit() and len(text) <= _MOST_DIGITS else None
