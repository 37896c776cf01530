"""A Look at a host that exists in memory only: fast enough for property tests."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from rcptgen.qmail.look import Look, MayWait, never_waits
from rcptgen.rules.cdbwalk import CdbFile
from rcptgen.source.tree import (
    DEFAULT_LIMIT,
    Absent,
    EntryType,
    FailedForNow,
    Failure,
    Identity,
    NotRegular,
    Reading,
    Refused,
    Regular,
    Status,
    TooLarge,
)

OWNER = Identity(89, 89)


@dataclass
class FakeLook:
    """Files by their absolute paths; directories are where files are below, and where a path ends in a slash.

    None stands for a name that is there and leads nowhere.  `locked` may not be opened or
    entered, `fixed` not be written to, and `broken` cannot be read for now.
    """

    files: Mapping[bytes, bytes | None]
    home: bytes = b"/d"
    identity: Identity = OWNER
    locked: frozenset[bytes] = frozenset()
    fixed: frozenset[bytes] = frozenset()
    broken: frozenset[bytes] = frozenset()
    times: Mapping[bytes, int] = field(default_factory=dict)
    told: list[tuple[bytes, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._directories = {b"/"}
        for path in self.files:
            where = path.rstrip(b"/") if path.endswith(b"/") else posixpath.dirname(path)
            while where not in self._directories:
                self._directories.add(where)
                where = posixpath.dirname(where)

    def path(self, name: bytes) -> bytes:
        return posixpath.join(self.home, name)

    def _at(self, name: bytes) -> tuple[bytes, Status | Failure]:
        path = posixpath.normpath(self.path(name))
        path = b"/" + path.lstrip(b"/")
        if path in self.broken:
            return path, FailedForNow(errno.EIO)
        above = posixpath.dirname(path)
        while above != b"/":
            if above in self.locked:
                return path, Refused(errno.EACCES)
            above = posixpath.dirname(above)
        if path in self._directories:
            return path, Status(stat.S_IFDIR | 0o700, *OWNER, 0, 1, 1, 0, 0)
        content = self.files.get(path)
        if content is None:
            return path, Absent(errno.ENOENT)
        if self.path(name).endswith(b"/"):
            return path, Absent(errno.ENOTDIR)
        return path, Status(stat.S_IFREG | 0o600, *OWNER, len(content), 1, 1, self.times.get(path, 0), 0)

    def read(self, name: bytes, limit: int = DEFAULT_LIMIT) -> Reading:
        path, found = self._at(name)
        if not isinstance(found, Status):
            return found
        if path in self.locked:
            return Refused(errno.EACCES)
        content = self.files.get(path)
        if stat.S_ISDIR(found.mode) or content is None:
            return NotRegular(found.mode)
        return TooLarge(len(content)) if len(content) > limit else Regular(content, found)

    def status(self, name: bytes) -> Status | Failure:
        return self._at(name)[1]

    def accessible(self, name: bytes, mode: int) -> Status | Failure:
        path, found = self._at(name)
        if isinstance(found, Status) and (path in self.locked or (mode & os.W_OK and path in self.fixed)):
            return Refused(errno.EACCES)
        return found

    def names(self, name: bytes) -> dict[bytes, EntryType] | Failure:
        path, found = self._at(name)
        if not isinstance(found, Status):
            return found
        if path in self.locked:
            return Refused(errno.EACCES)
        if not stat.S_ISDIR(found.mode):
            return Absent(errno.ENOTDIR)
        listed = {one: EntryType.DIRECTORY for one in self._directories if one != b"/"}
        listed.update({one: EntryType.REGULAR for one in self.files if not one.endswith(b"/")})
        return {posixpath.basename(one): kind for one, kind in listed.items() if posixpath.dirname(one) == path}

    def cdb(self, name: bytes) -> CdbFile | Failure | NotRegular:
        found = self.read(name, 1 << 30)
        if isinstance(found, Regular):
            data = found.data
            return CdbFile(lambda at, size: data[at : at + size], len(data), os.fsdecode(name))
        assert not isinstance(found, TooLarge)
        return found

    def apart(self) -> AbstractContextManager[MayWait]:
        return nullcontext(never_waits)

    def failed(self, path: bytes, reason: str) -> None:
        self.told.append((path, reason))

    def suspect(self, path: bytes, reason: str) -> None:
        self.told.append((path, reason))


def a_look(look: FakeLook) -> Look:
    """The same, for the type checker to see that it is one."""
    return look
