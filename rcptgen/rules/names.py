"""Sets of names that cost their bytes, not an object for each.

A million names of a domain are read, moved, compared and written without ever being
taken apart all at once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from heapq import merge
from itertools import chain, groupby, islice

SEPARATOR = b"\n"

STRETCH = 20_000
"""Names that are taken apart at a time."""

SEARCHED = 1 << 16
"""Bytes up to which joined names are searched from their beginning."""

FEWER = 20
"""So many times fewer names are looked up among the others, instead of walking both."""


class Names:
    """A sorted set of names, kept as one string of bytes where that is possible."""

    __slots__ = ("_joined", "_odd", "count")

    def __init__(self, names: Iterable[bytes]) -> None:
        ordinary: list[bytes] = []
        odd: list[bytes] = []
        for name in set(names):
            (odd if SEPARATOR in name else ordinary).append(name)
        ordinary.sort()
        self.count = len(ordinary) + len(odd)
        self._odd = tuple(sorted(odd))
        self._joined = SEPARATOR.join(ordinary) if ordinary else None

    @classmethod
    def of_sorted(cls, joined: bytes | None, odd: Sequence[bytes] = ()) -> Names:
        """The names of a text in which they are sorted, different, and joined by newlines (None: no names).

        `odd` are those with a newline, sorted.
        """
        # Made for every domain: without sorting nothing.
        made = cls.__new__(cls)
        made._joined = joined
        made._odd = tuple(odd)
        made.count = len(made._odd) + (0 if joined is None else joined.count(SEPARATOR) + 1)
        return made

    @classmethod
    def union(cls, parts: Sequence[Names]) -> Names:
        """The names of all parts."""
        if len(parts) == 1:
            return parts[0]
        if sum(part.count for part in parts) <= STRETCH:
            return cls(name for part in parts for name in part)
        ordinary = (part.ordinary() for part in parts)
        odd = sorted({name for part in parts for name in part.odd})
        return cls.of_sorted(_joined(name for name, _ in groupby(merge(*ordinary))), odd)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Names.of_sorted, (self._joined, self._odd)

    @property
    def joined(self) -> bytes | None:
        """The ordinary names, sorted and joined by newlines; None where there are none."""
        return self._joined

    @property
    def odd(self) -> tuple[bytes, ...]:
        """The names that hold a newline, sorted."""
        return self._odd

    @property
    def has_empty(self) -> bool:
        """Whether the empty name is one of them: it would be the first."""
        joined = self._joined
        return joined is not None and joined[:1] in (b"", SEPARATOR)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[bytes]:
        return chain(self.ordinary(), self._odd) if self._odd else self.ordinary()

    def ordinary(self) -> Iterator[bytes]:
        """The names without a newline, sorted."""
        joined = self._joined
        if joined is None:
            return iter(())
        if self.count <= STRETCH:
            return iter(joined.split(SEPARATOR))
        return (name for some in self._stretches(joined) for name in some)

    def stretches(self) -> Iterator[list[bytes]]:
        """All names, some thousands at a time."""
        if self._joined is not None:
            yield from self._stretches(self._joined)
        if self._odd:
            yield list(self._odd)

    def _stretches(self, joined: bytes) -> Iterator[list[bytes]]:
        step = max(len(joined) * STRETCH // max(self.count, 1), 1)
        at = 0
        while at <= len(joined):
            end = joined.find(SEPARATOR, at + step)
            end = len(joined) if end < 0 else end
            yield joined[at:end].split(SEPARATOR)
            at = end + 1

    def beginning_with(self, prefix: bytes) -> Iterator[bytes]:
        """Every name that begins with `prefix`, without splitting the others."""
        if self._joined is not None:
            if not prefix:
                yield from self.ordinary()
            else:
                yield from self._slice(prefix)
        for name in self._odd:
            if name.startswith(prefix):
                yield name

    def _slice(self, prefix: bytes) -> Iterator[bytes]:
        assert self._joined is not None
        if SEPARATOR in prefix:
            return
        mark = SEPARATOR + prefix
        if self._joined.startswith(prefix):
            start = 0
        else:
            start = self._joined.find(mark) + 1
            if not start:
                return
        yield from self._joined[start : self._end(mark, start)].split(SEPARATOR)

    def _end(self, mark: bytes, start: int) -> int:
        """Where the run of names that begin with `mark` ends (they are sorted, so they stand together)."""
        assert self._joined is not None
        last = self._joined.rfind(mark, start)
        end = self._joined.find(SEPARATOR, last + 1 if last >= 0 else start)
        return len(self._joined) if end < 0 else end

    def with_end(self, end: bytes) -> list[bytes]:
        """Every name with `end` behind it; for few names, or a stretch of them."""
        joined = self._joined
        if joined is None or SEPARATOR in end:
            return [name + end for name in self]
        found = (joined.replace(SEPARATOR, end + SEPARATOR) + end).split(SEPARATOR)
        return found + [name + end for name in self._odd] if self._odd else found

    def ending_with(self, end: bytes) -> list[bytes]:
        """Every name that ends with `end`."""
        found = [name for name in self._odd if name.endswith(end)]
        joined = self._joined
        if joined is not None and (joined.endswith(end) or end + SEPARATOR in joined):
            found += [name for name in self.ordinary() if name.endswith(end)]
        return found

    def __contains__(self, name: bytes) -> bool:
        if SEPARATOR in name:
            at = bisect_left(self._odd, name)
            return at < len(self._odd) and self._odd[at] == name
        joined = self._joined
        if joined is None:
            return False
        if len(joined) <= SEARCHED:
            size = len(name)
            if joined.startswith(name) and joined[size : size + 1] in (b"", SEPARATOR):
                return True
            return SEPARATOR + name + SEPARATOR in joined or joined.endswith(SEPARATOR + name)
        return self._found(joined, name)

    @staticmethod
    def _found(joined: bytes, name: bytes) -> bool:
        """The same by halves."""
        low, high = 0, len(joined)
        while low < high:
            middle = joined.rfind(SEPARATOR, low, (low + high) // 2) + 1 or low
            end = joined.find(SEPARATOR, middle)
            end = len(joined) if end < 0 else end
            here = joined[middle:end]
            if here == name:
                return True
            if here < name:
                low = end + 1
            else:
                high = middle
        return False

    def without(self, names: Collection[bytes], prefixes: Collection[bytes]) -> Names:
        """These names but for `names`, and for all that begin with one of `prefixes`."""
        out = {name for prefix in prefixes for name in self.beginning_with(prefix)}
        if len(names) > self.count:
            out |= {name for name in self if name in names}
        else:
            out |= {name for name in names if name in self}
        if not out:
            return self
        odd = [name for name in self._odd if name not in out]
        return Names.of_sorted(_joined(name for name in self.ordinary() if name not in out), odd)

    def minus(self, others: Sequence[Names]) -> Iterator[bytes]:
        """The names that none of `others` has."""
        if any(self._joined == other.joined and self._odd == other.odd for other in others):
            return
        theirs = merge(*(other.ordinary() for other in others))
        there = next(theirs, None)
        for name in self.ordinary():
            while there is not None and there < name:
                there = next(theirs, None)
            if there != name:
                yield name
        yield from (name for name in self._odd if not any(name in other.odd for other in others))

    def less(self, others: Sequence[Names]) -> Names:
        """These names but for those that one of `others` has."""
        rest = self.minus(others)
        parts = []
        while some := list(islice(rest, STRETCH)):
            parts.append(Names(some))
        return Names.union(parts) if parts else Names(())

    def common(self, other: Names) -> Iterator[bytes]:
        """The names that `other` has, too."""
        few, many = (self, other) if self.count <= other.count else (other, self)
        if few.count * FEWER < many.count:
            yield from (name for name in few if name in many)
            return
        theirs = many.ordinary()
        there = next(theirs, None)
        for name in few.ordinary():
            while there is not None and there < name:
                there = next(theirs, None)
            if there == name:
                yield name
        yield from (name for name in few.odd if name in many)

    def below(self, beginning: bytes) -> Names:
        """These names with `beginning` put in front of each."""
        if not beginning:
            return self
        joined = self._joined
        if joined is not None:
            joined = beginning + joined.replace(SEPARATOR, SEPARATOR + beginning)
        return Names.of_sorted(joined, [beginning + name for name in self._odd])


def _joined(names: Iterator[bytes]) -> bytes | None:
    """Names in their order, joined; taken a stretch at a time."""
    parts: list[bytes] = []
    while some := list(islice(names, STRETCH)):
        parts.append(SEPARATOR.join(some))
    return SEPARATOR.join(parts) if parts else None
