"""Directories and files of the ordinary kind, asked for in as few calls as there can be.

A host has ten thousand homes with a handful of small files each.  What is given here is what
SourceTree would give; wherever anything is out of the ordinary it is nothing at all, and
whoever asked then goes the full way, which finds out what it is.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable

from rcptgen.source import kernel
from rcptgen.source.footprint import What
from rcptgen.source.resolve import READ, close

Seen = Callable[[bytes, What, os.stat_result], None]

DIRECT = READ | os.O_NOFOLLOW
_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()


def direct(name: bytes, directory: int, limit: int) -> tuple[bytes, os.stat_result] | None:
    """The file by its name alone, and its status; None where anything is unusual: the full way then finds out what."""
    try:
        fd = os.open(name, DIRECT, dir_fd=directory)
        try:
            before = os.fstat(fd)
            size = before.st_size
            if size > limit or not stat.S_ISREG(before.st_mode):
                return None
            data = os.read(fd, size + 1)
            after = os.fstat(fd)
        finally:
            os.close(fd)
    except (OSError, ValueError, MemoryError):
        return None
    if len(data) != size or after.st_size != size or after.st_mtime_ns != before.st_mtime_ns:
        return None
    return data, before


class Entered:
    """An open directory that whoever looks may list: `regular` are its regular files, `names` all it holds.

    That it may be searched, too, is only known once a file in it was read.  Close it.
    """

    __slots__ = ("_fd", "_seen", "names", "regular", "status")

    def __init__(self, fd: int, most: int, seen: Seen | None = None) -> None:
        """Raises OSError where it cannot be listed, and ValueError for more names than `most`.

        `seen` is told of everything that is looked at: the name, or nothing for the directory itself.
        """
        self._fd = fd
        self._seen = seen
        self.status = os.fstat(fd)
        if seen is not None:
            seen(b"", What.LISTING, self.status)
        regular: list[bytes] = []
        others: list[bytes] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                kept = regular if entry.is_file(follow_symlinks=False) else others
                kept.append(entry.name.encode(_ENCODING, _ERRORS))
                if len(kept) > most:
                    raise ValueError("more names than were wanted")
        self.regular = regular
        self.names = {*regular, *others}

    def read(self, name: bytes, limit: int) -> tuple[bytes, os.stat_result] | None:
        """One of the regular files, and its status; see `direct`."""
        found = direct(name, self._fd, limit)
        if self._seen is not None and found is not None:
            self._seen(name, What.FILE, found[1])
        return found

    def child(self, name: bytes) -> os.stat_result | None:
        """The status of a name in it that is no link."""
        try:
            found = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except (OSError, ValueError):
            return None
        if self._seen is not None:
            self._seen(name, What.STATUS, found)
        return None if stat.S_ISLNK(found.st_mode) else found

    def may_change(self) -> bool:
        """Whether whoever looks may make and remove names in it."""
        return kernel.refusal(self._fd, os.W_OK | os.X_OK) == 0

    def close(self) -> None:
        """The descriptor is given back."""
        close(self._fd)
