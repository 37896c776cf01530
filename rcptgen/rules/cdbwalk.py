"""Walking the bytes of a constant database, trusting none of them; pure.

    file    = 256 x (position, slots)   records   256 hash tables of slots x (hash, position)
    record  = key length, value length, key, value        (all numbers 32 bit, little-endian)

Published files, users/cdb and vpasswd.cdb may be truncated, overwritten or made by a mail
user.  Every step goes forward and stays inside the file, so the walk ends.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import ClassVar

from rcptgen.errors import RcptgenError

HEADER = 2048
RECORD = 8
SLOT = 8

RECORD_LIMIT = 16 << 20
"""A record larger than this is taken for damage when it is read."""

MOST_STEPS = 1 << 16
"""Slots that one look-up goes through; half of those that a maker writes are empty."""

_CHUNK = 1 << 20
_BATCH = 1 << 18
_LENGTHS = struct.Struct("<II")
_TABLES = struct.Struct("<512I")
_STARTS = int.from_bytes(b"\xff\xff\xff\xff\0\0\0\0" * 256, "little")
_LAST = 64 * 255
_ALL_BUT_LAST = (1 << _LAST) - 1


class DamagedCdb(RcptgenError):
    """The file is not a whole cdb, or could not be read to its end; what it says is unknown, not empty.

    `damage` says what is wrong without naming the file.
    """

    status: ClassVar[int] = 2

    def __init__(self, name: str, damage: str) -> None:
        super().__init__(f"{name}: {damage}" if name else damage)
        self.damage = damage


def hash_of(key: bytes) -> int:
    """The hash of a key (cdb_hash.c)."""
    h = 5381
    for byte in key:
        h = (h * 33 & 0xFFFFFFFF) ^ byte
    return h


class CdbFile:
    """A file as a reader of cdbs takes it: look-ups look at nothing but what they need (cdb_seek.c).

    `fetch` gives the bytes at a position, fewer where the file ends; `mtime_ns` is when it was
    written, where that is known; `whole` all of its bytes, where they are at hand.
    """

    __slots__ = ("_fetch", "_whole", "mtime_ns", "name", "size")

    def __init__(
        self,
        fetch: Callable[[int, int], bytes],
        size: int,
        name: str,
        mtime_ns: int | None = None,
        *,
        whole: bytes = b"",
    ) -> None:
        self._fetch = fetch
        self._whole = whole
        self.size = size
        self.mtime_ns = mtime_ns
        self.name = name

    def get(self, key: bytes, hash_of: Callable[[bytes], int] = hash_of) -> bytes | None:
        """The first value stored under `key`; raises DamagedCdb where the look-up runs into the end of the file."""
        hashed = hash_of(key)
        start, slots = self._numbers(8 * (hashed & 255))
        for step in range(min(slots, MOST_STEPS)):
            stored, position = self._numbers(start + SLOT * (((hashed >> 8) % slots + step) % slots))
            if not position:
                return None
            if stored != hashed:
                continue
            keys, values = self._numbers(position)
            if keys == len(key) and self._bytes(position + RECORD, keys) == key:
                return self._bytes(position + RECORD + keys, values)
        if slots > MOST_STEPS:
            raise DamagedCdb(self.name, "damaged: a hash table without an empty slot")
        return None

    def _numbers(self, position: int) -> tuple[int, int]:
        if position + RECORD <= len(self._whole):
            first, second = _LENGTHS.unpack_from(self._whole, position)
            return first, second
        first, second = _LENGTHS.unpack(self._bytes(position, RECORD))
        return first, second

    def _bytes(self, position: int, size: int) -> bytes:
        if size > RECORD_LIMIT:
            raise DamagedCdb(self.name, f"damaged: a record of {size} bytes")
        data = self._fetch(position, size)
        if len(data) != size:
            raise DamagedCdb(self.name, f"truncated or damaged: it ends at byte {position + len(data)}")
        return data

    def part(self, position: int, size: int) -> bytes:
        """The bytes there; raises DamagedCdb where the file ends before, or they are too many for a record."""
        return self._bytes(position, size)

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value), in the order of the file; raises DamagedCdb where that is no whole cdb."""
        return walk(self._fetch, self.size, self.name)

    def batches(self) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """The same, as the keys and the values of some thousand records at a time."""
        return batches(self._fetch, self.size, self.name)


def walk_cdb(data: bytes | memoryview, *, called: str = "cdb") -> Iterator[tuple[bytes, bytes]]:
    """Every (key, value) of the cdb that `data` holds; as `read_cdb`, without touching a file.

    `called` names it in messages.
    """

    def fetch(position: int, size: int) -> bytes:
        return bytes(data[position : position + size])

    return walk(fetch, len(data), called)


def walk(fetch: Callable[[int, int], bytes], size: int, called: str) -> Iterator[tuple[bytes, bytes]]:
    """Walk the records from the header to the first hash table; every step goes forward, so it ends."""
    for keys, values in batches(fetch, size, called):
        yield from zip(keys, values, strict=True)


def batches(fetch: Callable[[int, int], bytes], size: int, called: str) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """As `walk`, in lists of keys and lists of their values: nobody is asked once for every record."""
    end, slots = bounds(fetch(0, HEADER), size, called)
    unpack = _LENGTHS.unpack_from
    position, seen = HEADER, 0
    while position < end:
        wanted = min(_CHUNK, end - position)
        chunk = fetch(position, wanted)
        if len(chunk) != wanted:
            raise DamagedCdb(called, "became shorter while it was read")
        at, found = 0, True
        while found:
            keys: list[bytes] = []
            values: list[bytes] = []
            add_key, add_value = keys.append, values.append
            limit = min(at + _BATCH, wanted - RECORD + 1)
            while at < limit:
                key_size, value_size = unpack(chunk, at)
                key = at + RECORD
                value = key + key_size
                stop = value + value_size
                if stop > wanted:
                    break
                add_key(chunk[key:value])
                add_value(chunk[value:stop])
                at = stop
            found = bool(keys)
            if found:
                seen += len(keys)
                yield keys, values
        if not at:
            # A record that is larger than a chunk, or damage.
            one, data = _large(fetch, position, end, called)
            yield [one], [data]
            at = RECORD + len(one) + len(data)
            seen += 1
        if seen > slots:
            raise DamagedCdb(called, "damaged: more records than its hash tables can point to")
        position += at


def _large(fetch: Callable[[int, int], bytes], position: int, end: int, called: str) -> tuple[bytes, bytes]:
    if position + RECORD > end:
        raise DamagedCdb(called, f"damaged: the records end in the middle of one (byte {position})")
    lengths = fetch(position, RECORD)
    if len(lengths) != RECORD:
        raise DamagedCdb(called, "became shorter while it was read")
    keys, values = _LENGTHS.unpack(lengths)
    if position + RECORD + keys + values > end:
        raise DamagedCdb(called, f"damaged: the record at byte {position} reaches beyond the records")
    if keys + values > RECORD_LIMIT:
        raise DamagedCdb(called, f"damaged, or not ours: the record at byte {position} has {keys + values} bytes")
    body = fetch(position + RECORD, keys + values)
    if len(body) != keys + values:
        raise DamagedCdb(called, "became shorter while it was read")
    return body[:keys], body[keys:]


def bounds(header: bytes, size: int, called: str) -> tuple[int, int]:
    """Where the records end, and how many slots the hash tables have."""
    if len(header) < HEADER:
        raise DamagedCdb(called, f"{len(header)} bytes are too few for a cdb; truncated, or not a cdb")
    # Tables that follow one upon the other, as makers write them, are told by sums of the whole header, seen as
    # numbers of 64 bits: this is done for every domain of a host.
    both = int.from_bytes(header, "little")
    places = both & _STARTS
    ends = places + ((both >> 32 & _STARTS) << 3)
    if ends & _ALL_BUT_LAST == places >> 64:
        end, last = places & 0xFFFFFFFF, ends >> _LAST
        if HEADER <= end < last <= size:
            return end, (last - end) // SLOT
    numbers = _TABLES.unpack(header)
    starts, slots = numbers[::2], numbers[1::2]
    total = sum(slots)
    if not total:
        # A header of zeros is a file that was never written, not an empty one: makers point every table at its end.
        if size != HEADER or set(starts) != {HEADER}:
            raise DamagedCdb(called, "damaged: no hash tables")
        return HEADER, 0
    tables = [(at, count) for at, count in zip(starts, slots, strict=True) if count]
    end = min(at for at, _ in tables)
    if end < HEADER or any(at + count * SLOT > size for at, count in tables):
        raise DamagedCdb(called, f"truncated or damaged: a hash table lies outside its {size} bytes")
    # Tables that overlap would let a small file claim room for any number of records.
    if total * SLOT > size - end:
        raise DamagedCdb(called, "damaged: its hash tables overlap")
    return end, total
