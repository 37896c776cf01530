"""Tables of names: exact rules, and prefix rules of which the longest decides.

The space of names is whatever the caller says: the extensions of one home, the local
names of a host, the local parts of a domain.  Names are bytes, already folded by the
caller.  A million ordinary names cost their bytes, not a million objects: names that
share an outcome are kept joined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Outcome

ASKED_BEFORE_INDEX = 8
MOST_INDEXED = 50_000
"""Look-ups for which the names are searched, and names beyond which they always are."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a table; `prefix` rules stand for every name that begins with `name`, itself included."""

    name: bytes
    prefix: bool
    outcome: Outcome


class Table:
    """Exact and prefix rules over one space of names; total once it has a rule for the empty prefix."""

    __slots__ = ("_asked", "_index", "_longest", "groups", "prefixes")

    def __init__(self, exact: Mapping[bytes, Outcome], prefixes: Mapping[bytes, Outcome]) -> None:
        by_outcome: dict[Outcome, list[bytes]] = {}
        for name, outcome in exact.items():
            by_outcome.setdefault(outcome, []).append(name)
        self.groups: dict[Outcome, Names] = {outcome: Names(names) for outcome, names in by_outcome.items()}
        self.prefixes: dict[bytes, Outcome] = dict(prefixes)
        self._index: dict[bytes, Outcome] | None = None
        self._asked = 0
        self._longest = -1

    @classmethod
    def of_groups(cls, groups: Mapping[Outcome, Names], prefixes: Mapping[bytes, Outcome]) -> Table:
        """The table of names that are grouped already; no name may be in two groups."""
        table = cls({}, prefixes)
        table.groups = dict(groups)
        return table

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Table.of_groups, (self.groups, self.prefixes)

    def __len__(self) -> int:
        return sum(map(len, self.groups.values())) + len(self.prefixes)

    def exact(self) -> Iterator[tuple[bytes, Outcome]]:
        """Every exact rule; sorted within an outcome, not between them."""
        for outcome, names in self.groups.items():
            for name in names:
                yield name, outcome

    def rules(self) -> list[Rule]:
        """Every rule, in the order of their names, a prefix before the exact name of the same spelling."""
        found = [Rule(name, True, outcome) for name, outcome in self.prefixes.items()]
        found += [Rule(name, False, outcome) for name, outcome in self.exact()]
        found.sort(key=lambda rule: (rule.name, not rule.prefix))
        return found

    def covering(self, name: bytes) -> tuple[bytes, Outcome] | None:
        """The longest prefix rule that `name` begins with, or None."""
        prefixes = self.prefixes
        if len(prefixes) < 8:
            best = None
            for one in prefixes:
                if name.startswith(one) and (best is None or len(one) > len(best)):
                    best = one
            return None if best is None else (best, prefixes[best])
        if self._longest < 0:
            self._longest = max(map(len, prefixes))
        for end in range(min(len(name), self._longest), -1, -1):
            outcome = prefixes.get(name[:end])
            if outcome is not None:
                return name[:end], outcome
        return None

    def exactly(self, name: bytes) -> Outcome | None:
        """The exact rule for `name`, or None."""
        if self._index is None:
            self._asked += 1
            if self._asked <= ASKED_BEFORE_INDEX or len(self) > MOST_INDEXED:
                for outcome, names in self.groups.items():
                    if name in names:
                        return outcome
                return None
            self._index = dict(self.exact())
        return self._index.get(name)

    def match(self, name: bytes) -> Outcome | None:
        """What the table says of `name`: its exact rule, else the longest prefix rule, else None."""
        outcome = self.exactly(name)
        if outcome is not None:
            return outcome.at(name)
        covering = self.covering(name)
        return None if covering is None else covering[1]

    def restrict(self, prefix: bytes) -> Table:
        """The table of what follows `prefix` in the names that begin with it.

        The longest shorter prefix rule becomes the rule for the empty prefix, so the result
        answers every tail as this table answers `prefix` + tail.  Prefix rules name their
        files in full (`Outcome.named_from` is for exact rules).
        """
        if not prefix:
            return self
        size = len(prefix)
        exact: dict[bytes, Outcome] = {}
        for outcome, names in self.groups.items():
            moved = outcome.below(prefix)
            for name in names.beginning_with(prefix):
                exact[name[size:]] = moved
        prefixes = {p[size:]: o for p, o in self.prefixes.items() if p.startswith(prefix)}
        if b"" not in prefixes:
            covering = self.covering(prefix)
            if covering is not None:
                prefixes[b""] = covering[1]
        return Table(exact, prefixes)


def combine(left: Table, right: Table, choose: Callable[[Outcome | None, Outcome | None], Outcome | None]) -> Table:
    """The table that gives every name choose(what `left` says, what `right` says).

    Between the names of both tables' rules the two answers do not change, so it is enough
    to ask at each of them.
    """
    prefixes: dict[bytes, Outcome] = {}
    for name in left.prefixes.keys() | right.prefixes.keys():
        a, b = left.covering(name), right.covering(name)
        chosen = choose(a and a[1], b and b[1])
        if chosen is not None:
            prefixes[name] = chosen
    exact: dict[bytes, Outcome] = {}
    for table in (left, right):
        for name, _ in table.exact():
            if name not in exact:
                chosen = choose(left.match(name), right.match(name))
                if chosen is not None:
                    exact[name] = chosen
    return Table(exact, prefixes)
