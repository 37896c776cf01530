"""Sorting names by the million without an object for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rcptgen.rules.names import SEPARATOR, Names

SMALL = 1 << 19
_CHUNK = 1 << 16


def pack(parts: Iterable[bytes | bytearray]) -> Names:
    """The names in all `parts`, each of which is names joined by newlines.

    No name may be there twice.  Besides the names' own bytes, a few times over, it takes the
    objects of some ten thousand at a time.
    """
    given = list(parts)
    if not given:
        return Names.of_sorted(None)
    if sum(map(len, given)) <= SMALL:
        names = SEPARATOR.join(given).split(SEPARATOR)
        names.sort()
        return Names.of_sorted(SEPARATOR.join(names))
    return Names.of_sorted(SEPARATOR.join(_sorted(given, 0)))


def _lists(joined: bytes | bytearray) -> Iterator[list[bytes]]:
    start, size = 0, len(joined)
    while size - start > _CHUNK:
        end = joined.find(SEPARATOR, start + _CHUNK)
        if end < 0:
            break
        yield bytes(joined[start:end]).split(SEPARATOR)
        start = end + 1
    yield bytes(joined[start:]).split(SEPARATOR)


def _sorted(parts: list[bytearray] | list[bytes | bytearray], depth: int) -> Iterator[bytes]:
    """The names of `parts`, which share their first `depth` bytes, sorted, in pieces."""
    buckets: dict[bytes, bytearray] = {}
    while parts:
        for names in _lists(parts.pop()):
            names.sort()
            start, count = 0, len(names)
            while start < count:
                head = names[start][: depth + 1]
                end = _end(names, head, start, depth + 1)
                bucket = buckets.get(head)
                if bucket is None:
                    buckets[head] = bytearray(SEPARATOR.join(names[start:end]))
                else:
                    bucket += SEPARATOR
                    bucket += SEPARATOR.join(names[start:end])
                start = end
    for head in sorted(buckets):
        bucket = buckets.pop(head)
        if len(bucket) <= SMALL or len(head) <= depth:
            found = bytes(bucket).split(SEPARATOR)
            del bucket
            found.sort()
            yield SEPARATOR.join(found)
        else:
            shared, left = _shared(bucket, depth + 1), [bucket]
            del bucket
            yield from _sorted(left, shared)


def _end(names: list[bytes], head: bytes, start: int, size: int) -> int:
    """Where the run of names whose first `size` bytes are `head` ends."""
    low, high = start + 1, len(names)
    while low < high:
        middle = (low + high) // 2
        if names[middle][:size] == head:
            low = middle + 1
        else:
            high = middle
    return low


def _shared(joined: bytearray, depth: int) -> int:
    """How many first bytes all the names share, `depth` of them being known."""
    first = bytes(joined[: joined.find(SEPARATOR)])
    shared = len(first)
    for names in _lists(joined):
        for name in (min(names), max(names)):
            while not name.startswith(first[:shared]):
                shared -= 1
    return max(depth, shared)
