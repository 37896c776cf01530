"""Names that stand on lines of a file: a million of them cost their bytes, and four more for the line of each."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

from rcptgen.rules.names import SEPARATOR, STRETCH, Names

BLOCK = 128
"""Names that are taken apart to find one of them."""

_MARK = 9
"""Bytes that stand behind a name while it is sorted: a NUL, which no name holds, and the line in hex."""


class Numbering:
    """Takes names and their lines in any order; no name holds a NUL or a newline."""

    __slots__ = ("_parts", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._parts: list[Names] = []

    def add(self, name: bytes, line: int) -> None:
        """One more."""
        self._waiting.append(b"%b\0%08x" % (name, line))
        if len(self._waiting) >= STRETCH:
            self.settle()

    def settle(self) -> None:
        """What was added costs no more than its bytes."""
        if self._waiting:
            self._parts.append(Names(self._waiting))
            self._waiting = []

    def done(self) -> Numbered:
        """All that was added."""
        self.settle()
        return Numbered(Names.union(self._parts) if self._parts else Names(()))


class Numbered:
    """A set of names, each with the line that it stands on first; lines count from 1, 0 is none."""

    __slots__ = ("_firsts", "_lines", "_starts", "names")

    def __init__(self, marked: Names) -> None:
        """`marked` are the names as Numbering marks them."""
        self._lines, self._starts, self._firsts = array("I"), array("Q"), array("Q")
        parts: list[bytes] = []
        start, last = 0, None
        for some in marked.stretches():
            names: list[bytes] = []
            for one in some:
                name = one[:-_MARK]
                if name != last:
                    names.append(name)
                    self._lines.append(int(one[-8:], 16))
                    last = name
            first = len(self._lines) - len(names)
            for at in range(0, len(names), BLOCK):
                parts.append(SEPARATOR.join(names[at : at + BLOCK]))
                self._starts.append(start)
                self._firsts.append(first + at)
                start += len(parts[-1]) + 1
        self.names = Names.of_sorted(SEPARATOR.join(parts) if parts else None)

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def first_line(self) -> int:
        """The first of all lines; 0 without any."""
        return min(self._lines, default=0)

    def line(self, name: bytes) -> int:
        """The line of a name; 0 where it is none of these."""
        joined = self.names.joined
        if joined is None:
            return 0
        block = bisect_right(range(len(self._starts)), name, key=self._first) - 1
        if block < 0:
            return 0
        end = self._starts[block + 1] - 1 if block + 1 < len(self._starts) else len(joined)
        names = joined[self._starts[block] : end].split(SEPARATOR)
        at = bisect_left(names, name)
        return self._lines[self._firsts[block] + at] if at < len(names) and names[at] == name else 0

    def _first(self, block: int) -> bytes:
        """The first name of a block."""
        joined = self.names.joined
        assert joined is not None
        start = self._starts[block]
        end = joined.find(SEPARATOR, start)
        return joined[start : len(joined) if end < 0 else end]
