"""What was read is what is watched: every path looked at, with what tells whether it is still the same.

An entry takes about 160 bytes with its path, and a microsecond where reading a small file
takes eight: a million files are 160 MB and a second.  Who reads that many for one answer,
and does not watch them, switches it off.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rcptgen.source.outcomes import Status

RACY_NS = 2_000_000_000
"""How much older than the look a change must be to be seen by its time stamp at all (git's rule for its index)."""


class What(enum.IntEnum):
    """What was learnt of a path; a greater number says more."""

    ABSENT = 0
    STATUS = 1
    LISTING = 2
    FILE = 3


class Entry(NamedTuple):
    """One path of the host; the five numbers are zero where it was absent or out of reach.

    `may_wait`: no change of this path can turn a bounce into an acceptance.
    """

    path: bytes
    what: What
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    may_wait: bool


_Numbers = tuple[int, int, int, int, int, int, bool]
_PACKED = struct.Struct("<BQQqqq?")


class Footprint:
    """Entries by path.  Two looks at one path are kept as one: see `add`."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        # Packed, as a tuple of numbers is three times as large; a time stamp of a user's
        # making may not fit (beyond the year 2262), and stays a tuple.
        self._kept: dict[bytes, bytes | _Numbers] = {}

    def add(self, path: bytes, what: What, status: Status | None, may_wait: bool) -> None:
        """The path is recorded; without a status as absent.

        Seen twice, the first sight stays, so that a change between the two shows as a change;
        the greater `what` stays where something was there, and may_wait only if both say so.
        """
        new: bytes | _Numbers
        if status is None:
            new = _PACKED.pack(0, 0, 0, 0, 0, 0, may_wait)
        else:
            _, _, _, size, device, inode, mtime_ns, ctime_ns = status
            try:
                new = _PACKED.pack(what, device, inode, size, mtime_ns, ctime_ns, may_wait)
            except struct.error:
                new = (what, device, inode, size, mtime_ns, ctime_ns, may_wait)
        old = self._kept.setdefault(path, new)
        if old is not new:
            self._kept[path] = _both(old, new)

    def merge(self, other: Footprint) -> None:
        """All entries of `other` are added, as later looks."""
        for path, new in other._kept.items():
            old = self._kept.setdefault(path, new)
            if old is not new:
                self._kept[path] = _both(old, new)

    def let_wait(self, paths: Iterable[bytes]) -> None:
        """Those of the paths that are recorded may wait."""
        for path in paths:
            kept = self._kept.get(path)
            if kept is not None:
                waits = (*_numbers(kept)[:6], True)
                self._kept[path] = _PACKED.pack(*waits) if isinstance(kept, bytes) else waits

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, path: bytes) -> bool:
        return path in self._kept

    def __getitem__(self, path: bytes) -> Entry:
        numbers = _numbers(self._kept[path])
        return Entry(path, What(numbers[0]), *numbers[1:])

    def __iter__(self) -> Iterator[Entry]:
        for path in sorted(self._kept):
            yield self[path]


def _numbers(kept: bytes | _Numbers) -> _Numbers:
    return _PACKED.unpack(kept) if isinstance(kept, bytes) else kept


def _both(first: bytes | _Numbers, second: bytes | _Numbers) -> bytes | _Numbers:
    old, new = _numbers(first), _numbers(second)
    what = max(old[0], new[0]) if old[0] != What.ABSENT else old[0]
    both = (what, *old[1:6], old[6] and new[6])
    return _PACKED.pack(*both) if isinstance(first, bytes) else both


def unchanged(entry: Entry, status: Status | None, looked_at_ns: int) -> bool:
    """Whether a path is what it was when the look that began at `looked_at_ns` recorded it.

    `status` is that of now, asked for with the same identity, None where it is absent or
    refused.  A change less than two seconds before the look may have been followed by one
    with the same time stamp, so it counts as changed; so does one from the future.
    """
    if entry.what is What.ABSENT or status is None:
        return entry.what is What.ABSENT and status is None
    return (
        entry.device == status.device
        and entry.inode == status.inode
        and entry.size == status.size
        and entry.mtime_ns == status.mtime_ns
        and entry.ctime_ns == status.ctime_ns
        and status.ctime_ns + RACY_NS <= looked_at_ns
    )
