"""What look-ups still find in a cdb that is damaged (cdb_seek.c), by way of its hash tables."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from rcptgen.rules.cdbwalk import HEADER, RECORD, SLOT, hash_of

LARGEST = 64 << 20
"""Files that are searched, and texts that are read."""

MOST_STEPS = 4_000_000
"""Slots that are looked at in all: hash tables may overlap, and may be full of one hash."""

LONGEST_KEY = 156
LONGEST_VALUE = 2048
"""What a look-up may ask for, and the buffer that the record is read into (vcdb.c: vauth_getpw)."""

Record = tuple[bytes, bytes]

_PAIR = struct.Struct("<II")


def findable(data: bytes) -> Iterator[Record]:
    """Every (key, value) that a look-up of the key finds, each key once.

    Ends early, with names left out, where the file takes too many steps.
    """
    steps = MOST_STEPS
    seen: set[bytes] = set()
    for number in range(min(HEADER, len(data)) // SLOT):
        start, slots = _PAIR.unpack_from(data, SLOT * number)
        for at in range(start, min(start + SLOT * slots, len(data) - SLOT + 1), SLOT):
            steps -= 1
            hashed, position = _PAIR.unpack_from(data, at)
            if not position or hashed & 255 != number:
                continue
            key = _key(data, position)
            if key is None or key in seen or hash_of(key) != hashed:
                continue
            seen.add(key)
            value, taken = _get(data, key, hashed, start, slots, steps)
            steps -= taken
            if steps < 0:
                return
            if value is not None:
                yield key, value
        if steps < 0:
            return


def _key(data: bytes, position: int) -> bytes | None:
    if position + RECORD > len(data):
        return None
    keys, _ = _PAIR.unpack_from(data, position)
    if keys > LONGEST_KEY:
        return None
    key = data[position + RECORD : position + RECORD + keys]
    return key if len(key) == keys else None


def _get(data: bytes, key: bytes, hashed: int, start: int, slots: int, most: int) -> tuple[bytes | None, int]:
    """The value that a look-up comes to, and the slots that it took."""
    for step in range(min(slots, most + 1)):
        at = start + SLOT * (((hashed >> 8) % slots + step) % slots)
        if at + SLOT > len(data):
            return None, step
        stored, position = _PAIR.unpack_from(data, at)
        if not position:
            return None, step
        if stored != hashed:
            continue
        if _key(data, position) == key:
            _, values = _PAIR.unpack_from(data, position)
            start = position + RECORD + len(key)
            whole = start + values <= len(data)
            return (data[start : start + min(values, LONGEST_VALUE)] if whole else None), step
    return None, slots
