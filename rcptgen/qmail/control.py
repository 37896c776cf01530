"""Control files, as control.c and constmap.c read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

TRAILING = b" \t\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a list file, with the line it stands on."""

    text: bytes
    line: int


def entries(data: bytes) -> list[Entry]:
    """The entries of a list file, in order (control.c: control_readfile).

    Blanks go from the end of a line only; a line that is then empty, or that begins with
    `#` or NUL, is dropped; a NUL inside a line ends one entry and begins another.
    """
    found = []
    for number, raw in enumerate(data.split(b"\n"), 1):
        line = raw.rstrip(TRAILING)
        if line and line[0] not in b"#\0":
            found += [Entry(text, number) for text in line.split(b"\0")]
    return found


def first_line(data: bytes) -> bytes:
    """The value of a one-line file (control.c: control_readline): no comments, an empty file is an empty value."""
    return data.split(b"\n", 1)[0].rstrip(TRAILING)


@dataclass(frozen=True, slots=True)
class Mapped:
    """The entry that answers for a key: the value after its colon (empty in a map without colons)."""

    key: bytes
    value: bytes
    line: int


class ConstMap:
    """Entries as a look-up table (constmap.c): keys without regard to ASCII case, the last of equal keys wins."""

    __slots__ = ("_entries", "replaced")

    def __init__(self, listed: list[Entry], *, colon: bool) -> None:
        self._entries: dict[bytes, Mapped] = {}
        self.replaced: list[Mapped] = []
        for entry in listed:
            key, found, value = entry.text.partition(b":") if colon else (entry.text, b":", b"")
            if not found:
                continue
            folded = key.lower()
            if folded in self._entries:
                self.replaced.append(self._entries.pop(folded))
            self._entries[folded] = Mapped(folded, value, entry.line)

    def get(self, key: bytes) -> Mapped | None:
        """The entry for `key`, or None."""
        return self._entries.get(key.lower())

    def __iter__(self) -> Iterator[Mapped]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)
