"""A footprint as bytes: what one unit was read from, small enough to be kept for every home of a host.

Left out is what may wait (Entry.may_wait): whoever keeps these looks at such paths again with
the next full look, and not before.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

import msgspec

from rcptgen.source.footprint import RACY_NS, Entry, Footprint, What, unchanged
from rcptgen.source.tree import Directory, SourceTree, Status


class Since(enum.IntEnum):
    """What has happened to a unit since it was looked at; a greater number is worse."""

    SAME = 0
    YOUNG = 1
    """It looks the same, but was changed so shortly before the look that this proves nothing."""
    OTHER = 2


_Row = tuple[bytes, int, int, int, int, int, int]
_Packed = tuple[int, list[_Row]]
_LISTING = int(What.LISTING)


def pack(footprint: Footprint, home: bytes, looked_at_ns: int) -> bytes:
    """The footprint of a look that began at `looked_at_ns`; paths below `home` are kept without it."""
    inside = home.rstrip(b"/") + b"/"
    size = len(inside)
    rows: list[_Row] = []
    for path, what, device, inode, length, mtime_ns, ctime_ns, may_wait in footprint:
        if not may_wait:
            name = path[size:] if path.startswith(inside) and len(path) > size else path
            rows.append((name, int(what), device, inode, length, mtime_ns, ctime_ns))
    return msgspec.msgpack.encode((looked_at_ns, rows))


def unpack(packed: bytes, home: bytes) -> tuple[int, list[Entry]]:
    """When the look began, and what it saw; what `pack` made, with the same `home`."""
    looked_at_ns, rows = msgspec.msgpack.decode(packed, type=_Packed)
    return looked_at_ns, list(_entries(rows, home.rstrip(b"/") + b"/"))


def paths_of(packed: bytes, home: bytes) -> Iterator[tuple[bytes, bool]]:
    """The paths alone, each with whether it was a directory that was listed; there are very many."""
    inside = home.rstrip(b"/") + b"/"
    for row in msgspec.msgpack.decode(packed, type=_Packed)[1]:
        name = row[0]
        yield name if name.startswith(b"/") else inside + name, row[1] == _LISTING


def _entries(rows: list[_Row], inside: bytes) -> Iterator[Entry]:
    for name, what, device, inode, length, mtime_ns, ctime_ns in rows:
        path = name if name.startswith(b"/") else inside + name
        yield Entry(path, What(what), device, inode, length, mtime_ns, ctime_ns, False)


def changed(tree: SourceTree, home: bytes, packed: bytes) -> Since:
    """Whether anything that was looked at is not what it was, for whoever looks now.

    Names in the home are looked up from its directory: a host has some hundred thousand of them.
    """
    looked_at_ns, rows = msgspec.msgpack.decode(packed, type=_Packed)
    inside = home.rstrip(b"/") + b"/"
    directory: Directory | None = None
    worst = Since.SAME
    try:
        for name, what, *numbers in rows:
            path = name if name.startswith(b"/") else inside + name
            if path is not name and b"/" not in name:
                if directory is None:
                    opened = tree.directory(home)
                    if not isinstance(opened, Directory):
                        return Since.OTHER
                    directory = opened
                found = directory.child_status(name)
            else:
                found = tree.status(path)
            device, inode, length, mtime_ns, ctime_ns = numbers
            entry = Entry(path, What(what), device, inode, length, mtime_ns, ctime_ns, False)
            status = found if isinstance(found, Status) else None
            if not unchanged(entry, status, looked_at_ns):
                if status is None or not unchanged(entry, status, status.ctime_ns + RACY_NS):
                    return Since.OTHER
                worst = Since.YOUNG
    finally:
        if directory is not None:
            directory.close()
    return worst
