"""Where each domain stands in the files that were published last, so that it can be copied from there."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Self

from rcptgen.publish.rulesfile import RulesFile
from rcptgen.targets.base import Copier, Writer

Place = tuple[int, int, int, int, int]


@dataclass(slots=True)
class Extents:
    """One file: where its first domain begins, and how many bytes and records each takes; behind all the bare names."""

    head: int
    sizes: array[int] = field(default_factory=lambda: array("Q"))
    counts: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, size: int, count: int) -> None:
        """The next domain takes so much."""
        self.sizes.append(size)
        self.counts.append(count)

    def take(self, other: Extents, first: int, end: int) -> None:
        """The next domains are some of another file, as they are there."""
        self.sizes += other.sizes[first:end]
        self.counts += other.counts[first:end]

    def starts(self) -> array[int]:
        """Where each begins."""
        return array("Q", list(accumulate(self.sizes, initial=self.head))[:-1])


@dataclass(slots=True)
class Ledger:
    """The files of generation `number`: the domains in them, in ascending order, and where these stand in each.

    `check` is the CRC-32 of the generation's rules, which have the same domains; `digests`
    are the SHA-256 of the files, in their order.  A number alone does not tell a generation
    from another: who loses the state directory counts from 1 again.
    """

    number: int
    names: list[bytes]
    files: list[Extents]
    check: int
    digests: tuple[str, ...]

    def at(self, domain: bytes) -> int | None:
        """The number of a domain."""
        found = self.before(domain)
        return found if found < len(self.names) and self.names[found] == domain else None

    def before(self, domain: bytes) -> int:
        """How many domains stand before this one, or before its place."""
        return bisect_left(self.names, domain)


class Base:
    """The files that a ledger tells of, open for reading, and the rules behind them."""

    def __init__(self, ledger: Ledger, rules: RulesFile, places: list[Place]) -> None:
        self.ledger, self.rules, self.places = ledger, rules, places
        self.descriptors: list[int] = []
        self.starts = [one.starts() for one in ledger.files]

    @classmethod
    def open(cls, ledger: Ledger, rules: object, paths: list[bytes], places: list[Place]) -> Self | None:
        """The published files at `paths`, which were proved to be those of the ledger when they stood at `places`."""
        if not isinstance(rules, RulesFile) or len(rules) != len(ledger.names) or len(paths) != len(ledger.files):
            return None
        base = cls(ledger, rules, places)
        try:
            for path in paths:
                base.descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY))
        except OSError:
            base.close()
            return None
        if not base.holds():
            base.close()
            return None
        return base

    def records(self, standing: Container[bytes]) -> int:
        """How many records of the largest file are those of domains that are not standing."""
        others = [at for at, name in enumerate(self.ledger.names) if name not in standing]
        return max((sum(map(one.counts.__getitem__, others)) for one in self.ledger.files), default=0)

    def holds(self) -> bool:
        """Whether nobody has written to the files since."""
        return places_of(self.descriptors) == self.places

    def close(self) -> None:
        """Gives the files back; harmless when done twice."""
        while self.descriptors:
            os.close(self.descriptors.pop())


class Entries:
    """What is put down of files on their way: where each domain stands in them; and what is copied from the base."""

    def __init__(self) -> None:
        self.base: Base | None = None
        self._names: list[bytes] = []
        self._writers: list[Copier] = []
        self._extents: list[Extents] = []
        self._before: list[tuple[int, int]] = []

    def of(self, writers: Sequence[Writer]) -> bool:
        """Whether all of these writers can tell where they are; else nothing is put down."""
        copiers = [one for one in writers if isinstance(one, Copier)]
        if len(copiers) == len(writers):
            self._writers = copiers
            self._extents = [Extents(one.position) for one in copiers]
        return bool(self._writers)

    def close(self) -> None:
        """Gives the base back."""
        if self.base is not None:
            self.base.close()

    def copy(self, base: Base, first: int, end: int) -> None:
        """The next domains are those number `first` up to `end` of the base, and are copied."""
        self._names += base.ledger.names[first:end]
        files = zip(self._writers, base.descriptors, base.ledger.files, base.starts, self._extents, strict=True)
        for writer, old, extents, starts, mine in files:
            writer.copy(old, starts[first], sum(extents.sizes[first:end]), sum(extents.counts[first:end]))
            mine.take(extents, first, end)

    def begin(self, domain: bytes | None) -> None:
        """A domain is put next; None: all that has no domain, the last of all."""
        if not self._writers:
            return
        self._before = [(one.position, one.count) for one in self._writers]
        if domain is not None:
            self._names.append(domain)
        base = self.base
        at = None if base is None else len(base.ledger.names) if domain is None else base.ledger.at(domain)
        if base is not None and at is not None:
            for writer, extents, starts in zip(self._writers, base.ledger.files, base.starts, strict=True):
                writer.instead(starts[at], extents.sizes[at])

    def end(self) -> None:
        """It was put."""
        for writer, extents, (start, had) in zip(self._writers, self._extents, self._before, strict=True):
            end = writer.position
            extents.add(end - start, writer.count - had)

    def ledger(self, number: int, check: int, digests: tuple[str, ...]) -> Ledger:
        """What was put down, for the generation of that number with these rules and files (see Ledger)."""
        return Ledger(number, self._names, self._extents, check, digests)


def places_of(files: Sequence[bytes | int]) -> list[Place] | None:
    """What tells each file from all others, and from itself once it was written to; None where one is not there."""
    try:
        found = [os.stat(one) for one in files]
    except OSError:
        return None
    return [(one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in found]
