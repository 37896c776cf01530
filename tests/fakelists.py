"""A home with directories, for models that look at lists and mailboxes: a table of files, nothing on any disk."""

from __future__ import annotations

import errno
import os
import stat

from fakehome import Files

from rcptgen.source.tree import DEFAULT_LIMIT, Absent, EntryType, Failure, NotRegular, Reading, Refused, Status

DIRECTORY = b"<directory>"


class Home(Files):
    """Files and directories: those on the way to a file, and those whose content is DIRECTORY."""

    def __init__(self, files: dict[bytes, bytes | int], modes: dict[bytes, int] | None = None) -> None:
        directories = {name: data for name, data in files.items() if data == DIRECTORY}
        super().__init__({name: data for name, data in files.items() if name not in directories}, modes)
        self.directories = {b"/", self.home, *map(self.path, directories)}
        for path in [*self.files, *self.directories]:
            while path != b"/":
                path = os.path.dirname(path)
                self.directories.add(path)
        self.hidden: set[bytes] = set()
        """Paths that the owner may not read, or enter."""

    def status(self, name: bytes) -> Status | Failure:
        path = self.path(name)
        if path in self.directories:
            return Status(stat.S_IFDIR | 0o755, 0, 0, 0, 1, 1, 0, 0)
        if len(os.path.basename(path)) > 255:
            return Absent(errno.ENAMETOOLONG)
        if os.path.dirname(path) in self.files:
            return Absent(errno.ENOTDIR)
        found = self.files.get(path)
        if isinstance(found, int):
            return Status(stat.S_IFREG, 0, 0, 0, 1, 1, 0, 0) if found == errno.EACCES else Absent(found)
        return super().status(name)

    def accessible(self, name: bytes, mode: int) -> Status | Failure:
        found = self.status(name)
        if self.path(name) in self.hidden:
            return Refused(errno.EACCES)
        if isinstance(found, Status) and mode & os.X_OK and not found.mode & 0o111:
            return Refused(errno.EACCES)
        return found

    def read(self, name: bytes, limit: int = DEFAULT_LIMIT) -> Reading:
        if self.path(name) in self.directories:
            return NotRegular(stat.S_IFDIR)
        return super().read(name, limit)

    def names(self, name: bytes) -> dict[bytes, EntryType] | Failure:
        path = self.path(name)
        if path not in self.directories:
            return Absent(errno.ENOENT)
        found = {os.path.basename(one): EntryType.REGULAR for one in self.files if os.path.dirname(one) == path}
        below = {one for one in self.directories if os.path.dirname(one) == path and one != b"/"}
        return found | {os.path.basename(one): EntryType.DIRECTORY for one in below}
