"""A constant database made of another one: what has not changed is copied, and its hash tables are moved along.

The bytes are those that CdbWriter makes of the same records.  A record that is kept stands in
the same slot as before as long as its table has as many records; only the position that is
written there changes, by the same number for all records of a stretch.  So nothing is asked,
hashed or put in its place again but what is new, and the tables that it comes into.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from rcptgen.errors import PublishFailed
from rcptgen.publish.alike import alike
from rcptgen.publish.paths import why
from rcptgen.rules.cdbwalk import HEADER, RECORD, SLOT, CdbFile, DamagedCdb, hash_of

LARGEST = 1 << 31
"""Bytes from which a position takes the bit that tells, while slots are compared, which are beyond a place."""

ASKED = 200
"""Records that are new, or gone, of which as many are looked up in the finished file."""

_CHUNK = 1 << 20
_SLOTS = 1 << 12
"""Slots that are moved at a time: numbers of that size stay in the processor's cache."""

_LENGTHS = struct.Struct("<II")
_TABLES = struct.Struct("<512I")
_WHOLE = (1 << 64) - 1
_ONES = int.from_bytes(b"\0\0\0\0\1\0\0\0" * _SLOTS, "little")
"""A one in the position of every slot."""


class Unfit(Exception):
    """The old file is not laid out as makers lay one out, or is too large."""


class _Stretch(NamedTuple):
    """Records of the old file that are kept: from where to where, by how much they move, and how many they are."""

    start: int
    end: int
    shift: int
    records: int


@dataclass(frozen=True, slots=True)
class _Record:
    """A record of the old file that is gone, or a new one of this file."""

    position: int
    key: bytes
    value: bytes

    @property
    def slot(self) -> int:
        """What stands for it in its hash table."""
        return hash_of(self.key) | self.position << 32


class CdbSplice:
    """The file behind `descriptor` on its way to being a cdb, mostly of records of the cdb `old`, a descriptor too.

    Raises Unfit where that cannot be made from `old`.  Of `old` it is believed that it is
    sound and does not change; nothing else is: `finish` proves that what was copied is equal,
    and that the tables lead to all of it.
    """

    def __init__(self, descriptor: int, old: int) -> None:
        self._descriptor, self._old = descriptor, old
        self._old_size = os.fstat(old).st_size
        header = os.pread(old, HEADER, 0)
        if len(header) != HEADER or self._old_size >= LARGEST // 2:
            raise Unfit
        numbers = _TABLES.unpack(header)
        self._slots = numbers[1::2]
        self._end = self._old_size - SLOT * sum(self._slots)
        places = list(accumulate((SLOT * count for count in self._slots), initial=self._end))
        if self._end < HEADER or any(
            count and at != place for at, place, count in zip(numbers[::2], places, self._slots, strict=False)
        ):
            raise Unfit
        self._places = places
        self._stretches: list[_Stretch] = []
        self._added: list[_Record] = []
        self._instead: tuple[int, int] | None = None
        self._fresh: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._waiting = 0
        self._position = HEADER
        self._lazy: tuple[int, int] | None = None
        """Records that are yet to be copied, from where to where; else what is yet to be written is in `_parts`."""
        self.count = 0
        try:
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, HEADER, os.SEEK_SET)
        except OSError as error:
            raise _failed(error) from error

    # -- records -------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Where the next record will stand."""
        self._settle()
        return self._position

    def copy(self, old: int, start: int, size: int, count: int) -> None:
        """Appends the `count` records that stand at `start` of the old file."""
        self._settle()
        if size:
            self._keep(start, size, count)

    def instead(self, start: int, size: int) -> None:
        """What `put` appends from now on takes the place of these records of the old file, and may be some of them."""
        self._settle()
        self._instead = start, size

    def put(self, keys: Sequence[bytes], value: bytes) -> None:
        """Appends a record with `value` for each of `keys`, in their order."""
        if self._instead is not None:
            self._fresh += [(key, value) for key in keys]
            return
        for key in keys:
            self._add(key, value)

    def _keep(self, start: int, size: int, count: int) -> None:
        shift = self._position - start
        last = self._stretches[-1] if self._stretches else None
        if last is not None and start < last.end:
            raise ValueError("records must be copied in ascending order")
        if last is not None and last.end == start and last.shift == shift:
            self._stretches[-1] = _Stretch(last.start, start + size, shift, last.records + count)
        else:
            self._stretches.append(_Stretch(start, start + size, shift, count))
        self._grow(size, count)
        if self._lazy is not None and self._lazy[1] == start and last is not None and last.shift == shift:
            self._lazy = self._lazy[0], start + size
            return
        self._flush()
        self._lazy = start, start + size

    def _add(self, key: bytes, value: bytes) -> None:
        self._added.append(_Record(self._position, key, value))
        data = _LENGTHS.pack(len(key), len(value)) + key + value
        self._grow(len(data), 1)
        self._hold(data)

    def _grow(self, size: int, count: int) -> None:
        self._position += size
        self.count += count
        if self._position + 2 * SLOT * self.count >= LARGEST:
            raise PublishFailed(f"the cdb would grow beyond {LARGEST} bytes at once; nothing of it is published")

    def _settle(self) -> None:
        """Writes what was put in the place of old records, keeping those that are the same."""
        if self._instead is None:
            return
        (start, size), fresh = self._instead, self._fresh
        self._instead, self._fresh = None, []
        old = list(self._records(start, start + size))
        for kept, of_old, of_fresh in alike([(one.key, one.value) for one in old], fresh):
            if kept:
                first, last = old[of_old.start], old[of_old.stop - 1]
                end = last.position + RECORD + len(last.key) + len(last.value)
                self._keep(first.position, end - first.position, len(of_old))
            else:
                for at in of_fresh:
                    self._add(*fresh[at])

    def _records(self, start: int, end: int) -> Iterator[_Record]:
        """The records of the old file from `start` to `end`."""
        data = self._read(self._old, start, end - start)
        at = 0
        while at < len(data):
            keys, values = _LENGTHS.unpack_from(data, at)
            key = at + RECORD
            yield _Record(start + at, data[key : key + keys], data[key + keys : key + keys + values])
            at = key + keys + values

    # -- bytes -----------------------------------------------------------------------------------

    def _read(self, descriptor: int, start: int, size: int) -> bytes:
        try:
            data = os.pread(descriptor, size, start)
        except OSError as error:
            raise _failed(error) from error
        if len(data) != size:
            raise PublishFailed("cannot write a cdb: the published file became shorter; nothing of it is published")
        return data

    def _hold(self, data: bytes) -> None:
        if self._lazy is not None or self._waiting >= _CHUNK:
            self._flush()
        self._parts.append(data)
        self._waiting += len(data)

    def _flush(self) -> None:
        if self._lazy is not None:
            (start, end), self._lazy = self._lazy, None
            self._transfer(start, end)
        elif self._parts:
            data, self._parts, self._waiting = b"".join(self._parts), [], 0
            self._write(memoryview(data))

    def _write(self, view: memoryview) -> None:
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise _failed(error) from error

    def _transfer(self, start: int, end: int) -> None:
        buffer = memoryview(bytearray(min(_CHUNK, end - start)))
        for at in range(start, end, _CHUNK):
            some = buffer[: min(_CHUNK, end - at)]
            self._fill(self._old, some, at)
            self._write(some)

    @staticmethod
    def _fill(descriptor: int, view: memoryview, start: int) -> None:
        try:
            got = os.preadv(descriptor, [view], start)
        except OSError as error:
            raise _failed(error) from error
        if got != len(view):
            raise PublishFailed("cannot write a cdb: a file became shorter; nothing of it is published")

    # -- hash tables -------------------------------------------------------------------------------

    def finish(self) -> int:
        """The file is a whole cdb, and proved; returns how many records it has.  Raises PublishFailed."""
        self._settle()
        self._flush()
        removed = [one for start, end in self._gaps() for one in self._records(start, end)]
        tables = {hash_of(one.key) & 255 for one in (*self._added, *removed)}
        moves = self._moves()
        gone = {one.position for one in removed}
        fresh: dict[int, list[int]] = {}
        for one in self._added:
            fresh.setdefault(hash_of(one.key) & 255, []).append(one.slot)
        header: list[int] = []
        at, before = self._position, 0
        for table in range(256):
            count = self._slots[table]
            old = self._read(self._old, self._places[table], SLOT * count)
            before += _total(old)
            new = self._made(old, gone, fresh.get(table, [])) if table in tables else _moved(old, moves)
            header += (at, len(new) // SLOT)
            self._hold(new)
            at += len(new)
        self._flush()
        try:
            os.pwrite(self._descriptor, _TABLES.pack(*header), 0)
        except OSError as error:
            raise _failed(error) from error
        wanted = before + sum(one.slot for one in self._added) - sum(one.slot for one in removed)
        wanted += sum(one.records * one.shift << 32 for one in self._stretches)
        self._prove(at, wanted)
        return self.count

    def _gaps(self) -> Iterator[tuple[int, int]]:
        """Where the old file has records that are not kept."""
        at = HEADER
        for one in self._stretches:
            if at < one.start:
                yield at, one.start
            at = one.end
        if at < self._end:
            yield at, self._end

    def _moves(self) -> list[tuple[int, int]]:
        """From which place on slots move by how much more than those before."""
        moves, shift = [], 0
        for one in self._stretches:
            if one.shift != shift:
                moves.append((one.start, one.shift - shift))
                shift = one.shift
        return moves

    def _made(self, old: bytes, gone: set[int], fresh: list[int]) -> bytes:
        """A table that has other records than before."""
        starts = [one.start for one in self._stretches]
        slots = list(fresh)
        for hashed, position in _LENGTHS.iter_unpack(old):
            if position and position not in gone:
                shift = self._stretches[bisect_right(starts, position) - 1].shift
                slots.append(position + shift << 32 | hashed)
        # The position is the upper half: the order of the file, in which makers fill their tables.
        slots.sort()
        size = 2 * len(slots)
        made = [0] * size
        for slot in slots:
            at = ((slot & 0xFFFFFFFF) >> 8) % size
            while made[at]:
                at = at + 1 if at + 1 < size else 0
            made[at] = slot
        return struct.pack(f"<{size}Q", *made)

    # -- proof -------------------------------------------------------------------------------------

    def _prove(self, size: int, wanted: int) -> None:
        """Raises PublishFailed unless what was copied is equal, and the tables lead to all records."""
        there = 0
        for at in range(self._position, size, _SLOTS * SLOT):
            there += _total(self._read(self._descriptor, at, min(_SLOTS * SLOT, size - at)))
        if (there - wanted) % _WHOLE:
            raise _wrong("its hash tables do not lead to its records")
        for stretch in self._stretches:
            self._compare(stretch)
        file = CdbFile(lambda start, wanted: os.pread(self._descriptor, wanted, start), size, "the new file")
        try:
            for one in self._added[:: max(1, len(self._added) // ASKED)]:
                if file.get(one.key) is None:
                    raise _wrong("a new record is not found")
        except DamagedCdb as error:
            raise _wrong(error.damage) from error

    def _compare(self, stretch: _Stretch) -> None:
        """Raises PublishFailed unless the records of a stretch are byte by byte what they are in the old file."""
        size = min(_CHUNK, stretch.end - stretch.start)
        one, other = bytearray(size), bytearray(size)
        for at in range(stretch.start, stretch.end, _CHUNK):
            if stretch.end - at < size:
                del one[stretch.end - at :], other[stretch.end - at :]
            self._fill(self._old, memoryview(one), at)
            self._fill(self._descriptor, memoryview(other), at + stretch.shift)
            if one != other:
                raise _wrong("what was copied is not what it was copied from")


def _moved(slots: bytes, moves: Sequence[tuple[int, int]]) -> bytes:
    """A table whose records stand elsewhere: from each place on (as it was) by so much more."""
    if not moves:
        return slots
    parts = []
    for at in range(0, len(slots), _SLOTS * SLOT):
        some = slots[at : at + _SLOTS * SLOT]
        ones = _ONES >> 8 * (_SLOTS * SLOT - len(some))
        number = moved = int.from_bytes(some, "little")
        for place, shift in moves:
            # The highest bit of a slot is set by this in those that point to this place, or beyond; empty ones do not.
            moved += ((number + ones * (LARGEST - place) >> 31) & ones) * shift
        parts.append(moved.to_bytes(len(some), "little"))
    return b"".join(parts)


def _total(slots: bytes) -> int:
    """What the slots add up to, as numbers of 64 bits, modulo the largest of these."""
    size = len(slots)
    number = int.from_bytes(slots, "little")
    # Halves that are put upon each other keep their sum, modulo what 64 bits hold: far quicker than a division.
    while size > 256:
        size = size // 16 * 8
        number = (number >> 8 * size) + (number & ((1 << 8 * size) - 1))
    return number % _WHOLE


def _failed(error: OSError) -> PublishFailed:
    return PublishFailed(f"cannot write a cdb: {why(error)}")


def _wrong(words: str) -> PublishFailed:
    return PublishFailed(f"the new cdb was not made as it should be ({words}): this is a bug; nothing was published")
