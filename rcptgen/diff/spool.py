"""Rules that come in any order, given back domain by domain.

A compiled file is not sorted by domain, and a list may be in any order.  What does not fit
into memory is sorted in stretches, written to a file without a name, and merged from there.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from heapq import merge
from itertools import groupby
from types import TracebackType
from typing import IO

from rcptgen.errors import Shortage
from rcptgen.publish.packed import pack, unpack
from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table

STRETCH = 100_000
"""Rules that are kept in memory."""

_SIZES = struct.Struct(">II")

Placed = tuple[bytes, Table]
"""A place, which is `@domain`, or empty for addresses without one; and the rules there."""


@lru_cache(maxsize=256)
def listed(accepted: bool, kind: Kind = Kind.UNKNOWN) -> Outcome:
    """What a list says of a rule: no more than that it accepts, as which kind, or refuses."""
    if accepted:
        return Outcome(Verdict.DELIVER, kind, "")
    return Outcome(Verdict.BOUNCE, Kind.REFUSAL, "")


class Spool:
    """Rules on their way; of two for one name, or one wildcard, the first counts, as in a cdb.

    What a rule says is kept as `packed` keeps it: accepted or not, and the kind.
    """

    def __init__(self) -> None:
        self._exact: dict[bytes, dict[bytes, Outcome]] = {}
        self._prefixes: dict[bytes, dict[bytes, Outcome]] = {}
        self._count = 0
        self._file: IO[bytes] | None = None
        self._runs: list[tuple[int, int]] = []

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, place: bytes, name: bytes, prefix: bool, outcome: Outcome) -> None:
        """Takes one rule, whose outcome is one of `listed`.

        Raises Shortage where the temporary file cannot be written.
        """
        where = self._prefixes if prefix else self._exact
        rules = where.get(place)
        if rules is None:
            rules = where[place] = {}
        rules.setdefault(name, outcome)
        self._count += 1
        if self._count >= STRETCH:
            self._spill()

    def tables(self) -> Iterator[Placed]:
        """The rules of each place, in ascending order of the places; once."""
        if not self._runs:
            yield from self._sorted()
            return
        self._spill()
        runs = [self._read(number, *bounds) for number, bounds in enumerate(self._runs)]
        for place, parts in groupby(merge(*runs, key=lambda part: part[:2]), key=lambda part: part[0]):
            yield place, _one([_unpacked(blob) for _, _, blob in parts])

    def _sorted(self) -> Iterator[Placed]:
        for place in sorted(self._exact.keys() | self._prefixes.keys()):
            yield place, Table(self._exact.pop(place, {}), self._prefixes.pop(place, {}))

    def _spill(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the spool
            start = self._file.tell()
            for place, table in self._sorted():
                blob = pack(table)
                self._file.write(_SIZES.pack(len(place), len(blob)) + place + blob)
            self._file.flush()
            self._runs.append((start, self._file.tell()))
        except OSError as error:
            raise Shortage(f"the temporary file below {tempfile.gettempdir()} cannot be written: {error}") from error
        self._count = 0

    def _read(self, number: int, at: int, end: int) -> Iterator[tuple[bytes, int, bytes]]:
        """The places of one run, the number of the run, and what is packed there."""
        assert self._file is not None
        descriptor = self._file.fileno()
        while at < end:
            place, blob = _SIZES.unpack(_bytes(descriptor, _SIZES.size, at))
            at += _SIZES.size
            data = _bytes(descriptor, place + blob, at)
            at += len(data)
            yield data[:place], number, data[place:]


def _bytes(descriptor: int, size: int, at: int) -> bytes:
    data = os.pread(descriptor, size, at)
    while len(data) < size:
        more = os.pread(descriptor, size - len(data), at + len(data))
        if not more:
            raise Shortage("the temporary file became shorter")
        data += more
    return data


def _unpacked(blob: bytes) -> Table:
    """What was packed, with the outcomes that lists have."""
    table = unpack(blob)
    groups = {listed(outcome.accepted, outcome.kind): names for outcome, names in table.groups.items()}
    prefixes = {name: listed(outcome.accepted, outcome.kind) for name, outcome in table.prefixes.items()}
    return Table.of_groups(groups, prefixes)


def _one(parts: list[Table]) -> Table:
    """The tables of one place in several runs as one; the first that has a rule counts."""
    if len(parts) == 1:
        return parts[0]
    groups: dict[Outcome, list[Names]] = {}
    prefixes: dict[bytes, Outcome] = {}
    for part in parts:
        prefixes = part.prefixes | prefixes
        for outcome, names in part.groups.items():
            others = [known for other, some in groups.items() if other != outcome for known in some]
            twice = {name for known in others for name in names.common(known)}
            groups.setdefault(outcome, []).append(names.without(twice, ()))
    return Table.of_groups({outcome: Names.union(some) for outcome, some in groups.items()}, prefixes)
