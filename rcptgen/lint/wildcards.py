"""The wildcards of a host, ranked by what they let in."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import nsmallest
from operator import attrgetter

from rcptgen.rules.outcome import Outcome, Verdict
from rcptgen.rules.table import Table

MOST_NAMED = 3

_ROOM = 50
"""So many times as many as are wanted may be kept before those that are too long are let go."""


@dataclass(slots=True)
class Wildcard:
    """One file that stands for all names with a beginning, and the domains in which it does; `named` are the first."""

    prefix: bytes
    outcome: Outcome
    domains: int = 0
    named: list[bytes] = field(default_factory=list)

    @property
    def width(self) -> tuple[int, int, bytes]:
        """What sorts it before those that let in less: a shorter beginning, then more domains."""
        return len(self.prefix), -self.domains, self.outcome.file

    @property
    def why(self) -> str:
        """The reason for which its names are accepted."""
        deferred = self.outcome.verdict is Verdict.DEFER
        return f"deferred: {self.outcome.reason}" if deferred else self.outcome.reason


_Place = tuple[bytes, bytes, int]
"""A beginning, and the file and line that it rests on."""


class Wildcards:
    """The accepted wildcards of the domains that were added.

    Catch-alls are all kept.  Of the others, of which a large host has one for each user, only
    those that can still be among the `most` widest: a longer beginning comes behind every
    shorter one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._catch_alls: dict[_Place, Wildcard] = {}
        self._widest: dict[_Place, Wildcard] = {}
        self._longest: int | None = None
        self._others: set[int] = set()

    def add(self, domain: bytes, table: Table) -> None:
        """Takes those of one domain."""
        for prefix, outcome in table.prefixes.items():
            if not outcome.accepted:
                continue
            place = prefix, outcome.file, outcome.line
            if prefix:
                # They are only counted by their hashes: 64 bits do not meet by chance.
                self._others.add(hash(place))
                if self._longest is not None and len(prefix) > self._longest:
                    continue
            found = self._widest if prefix else self._catch_alls
            one = found.get(place)
            if one is None:
                one = found[place] = Wildcard(prefix, outcome)
            one.domains += 1
            if len(one.named) < MOST_NAMED:
                one.named.append(domain)
        if len(self._widest) > max(self._most, 1) * _ROOM:
            self._prune()

    def _prune(self) -> None:
        """Lets go what is too long to be among the widest, whatever comes."""
        self._longest = nsmallest(self._most, map(len, map(attrgetter("prefix"), self._widest.values())))[-1]
        self._widest = {place: one for place, one in self._widest.items() if len(one.prefix) <= self._longest}

    def catch_alls(self) -> list[Wildcard]:
        """Those that let in every name, the widest first."""
        return sorted(self._catch_alls.values(), key=lambda one: one.width)

    @property
    def others(self) -> int:
        """How many stand for the names with a beginning."""
        return len(self._others)

    def widest(self) -> list[Wildcard]:
        """Of the others the first `most`, the widest first."""
        return nsmallest(self._most, self._widest.values(), key=lambda one: one.width)
