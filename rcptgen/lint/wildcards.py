"""The wildcards of a host, ranked by what they let in."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import nsmallest

from rcptgen.rules.outcome import Outcome, Verdict
from rcptgen.rules.table import Table

MOST_NAMED = 3


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


class Wildcards:
    """Every accepted wildcard of the domains that were added."""

    def __init__(self) -> None:
        self._found: dict[tuple[bytes, bytes, int], Wildcard] = {}

    def add(self, domain: bytes, table: Table) -> None:
        """Takes those of one domain."""
        for prefix, outcome in table.prefixes.items():
            if not outcome.accepted:
                continue
            one = self._found.setdefault((prefix, outcome.file, outcome.line), Wildcard(prefix, outcome))
            one.domains += 1
            if len(one.named) < MOST_NAMED:
                one.named.append(domain)

    def catch_alls(self) -> list[Wildcard]:
        """Those that let in every name, the widest first."""
        return sorted((one for one in self._found.values() if not one.prefix), key=lambda one: one.width)

    @property
    def others(self) -> int:
        """How many stand for the names with a beginning."""
        return sum(1 for one in self._found.values() if one.prefix)

    def widest(self, most: int) -> list[Wildcard]:
        """Of the others the first `most`, the widest first."""
        return nsmallest(most, (one for one in self._found.values() if one.prefix), key=lambda one: one.width)
