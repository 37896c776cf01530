"""Whether the hash tables of a cdb lead to just the records that a walk finds; pure.

A walk and a look-up part ways where a byte of a key, a length or a slot has changed: the
walk then has a name that no look-up finds, or lacks one that they all find.  Nothing else
tells, since a cdb has no checksum.  Its slots are one, though: the sum of all of them is
known from the records alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from operator import add

from rcptgen.rules.cdbwalk import HEADER, RECORD, SLOT, CdbFile, DamagedCdb, hash_of

FEW = 6
"""Keys of one length that are hashed one by one."""

_CHUNK = 1 << 20
_TABLES = struct.Struct("<512I")
_WHOLE = (1 << 64) - 1
_FIRST = hash_of(b"").to_bytes(8, "little")
_LOW_HALF = b"\xff\xff\xff\xff\0\0\0\0"


def sum_of_hashes(keys: Sequence[bytes]) -> int:
    """The sum of the hashes of all keys (cdb_hash.c).

    Keys of one length are hashed at once, as one number with 64 bits for each of them.
    """
    by_length: dict[int, list[bytes]] = {}
    for key in keys:
        by_length.setdefault(len(key), []).append(key)
    total = 0
    for size, some in by_length.items():
        if len(some) < FEW:
            total += sum(map(hash_of, some))
            continue
        text = b"".join(some)
        hashes = int.from_bytes(_FIRST * len(some), "little")
        low_half = int.from_bytes(_LOW_HALF * len(some), "little")
        letters = bytearray(8 * len(some))
        for place in range(size):
            letters[::8] = text[place::size]
            hashes = hashes * 33 & low_half ^ int.from_bytes(letters, "little")
        # Digits in base 2**64 add up to the number itself, modulo the largest digit.
        total += hashes % _WHOLE
    return total


class Proof:
    """Takes the records of a cdb in their order, from the first on, and then its slots."""

    __slots__ = ("_hashes", "_sum", "position")

    def __init__(self, hashes: Callable[[Sequence[bytes]], int] = sum_of_hashes) -> None:
        self._hashes = hashes
        self._sum = 0
        self.position = HEADER

    def add(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Takes the next records."""
        sizes = map(RECORD.__add__, map(add, map(len, keys), map(len, values)))
        positions = list(accumulate(sizes, initial=self.position))
        self.position = positions.pop()
        self._sum += self._hashes(keys) + (sum(positions) << 32)

    def holds(self, slots: Iterator[bytes]) -> bool:
        """Whether these, whole slots at a time, are all the slots of tables that lead to these records."""
        # An empty slot is nothing but zeros.
        return (sum(int.from_bytes(some, "little") % _WHOLE for some in slots) - self._sum) % _WHOLE == 0


def proved(
    opened: CdbFile, hashes: Callable[[Sequence[bytes]], int] = sum_of_hashes
) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """As CdbFile.batches; raises DamagedCdb after the last one where look-ups do not find just these records."""
    proof = Proof(hashes)
    for keys, values in opened.batches():
        proof.add(keys, values)
        yield keys, values
    if not proof.holds(_slots(opened, proof.position)):
        raise DamagedCdb(opened.name, "damaged: its hash tables do not lead to its records")


def _slots(opened: CdbFile, start: int) -> Iterator[bytes]:
    """The slots of all hash tables, which stand behind the records, one after the other."""
    numbers = _TABLES.unpack(opened.part(0, HEADER))
    counts = numbers[1::2]
    places = list(accumulate((SLOT * count for count in counts), initial=start))
    end = places.pop()
    if any(count and at != place for at, count, place in zip(numbers[::2], counts, places, strict=True)):
        raise DamagedCdb(opened.name, "damaged: its hash tables are not where its makers put them")
    for at in range(start, end, _CHUNK):
        yield opened.part(at, min(_CHUNK, end - at))
