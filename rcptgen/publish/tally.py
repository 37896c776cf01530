"""What a publication changes, counted while it is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import nlargest

from rcptgen.publish.guard import accepted_rules
from rcptgen.publish.history import MOST_AFFECTED, Changes, DomainChange
from rcptgen.rules.change import What, summary
from rcptgen.rules.compare import changes
from rcptgen.rules.table import Table

EMPTY = Table({}, {})

SEARCHED = 8
"""Wildcards up to which names are searched for what they cover; beyond, each name is looked at."""


@dataclass(slots=True)
class Tally:
    """What the publication changes, against the one before."""

    gained: int = 0
    lost: int = 0
    changed: int = 0
    domains: int = 0
    _most: list[DomainChange] = field(default_factory=list)

    def add(self, domain: bytes, old: Table, new: Table) -> None:
        """Counts one domain."""
        name = domain.decode("latin-1")
        if not len(old) or not len(new):
            # A million names that are all new are not looked at one by one.
            one = DomainChange(domain=name, gained=unlike(new), lost=accepted_rules(old))
        else:
            found = summary(changes(old, new))
            gained, lost = found.count(What.GAINED), found.count(What.LOST)
            one = DomainChange(domain=name, gained=gained, lost=lost, changed=found.count(What.CHANGED))
        if one.gained or one.lost or one.changed:
            self.gained += one.gained
            self.lost += one.lost
            self.changed += one.changed
            self.domains += 1
            self._most.append(one)
            if len(self._most) > 2 * MOST_AFFECTED:
                self._most = self.most()

    def most(self) -> list[DomainChange]:
        """The domains that change most; of equal ones the first."""
        return nlargest(MOST_AFFECTED, self._most, key=lambda one: one.gained + one.lost + one.changed)

    def changes(self) -> Changes:
        """All of it, of bounded size."""
        return Changes(gained=self.gained, lost=self.lost, changed=self.changed, domains=self.domains, most=self.most())


def unlike(new: Table) -> int:
    """How much is gained by a table where there was none: what an accepting wildcard covers goes without saying."""
    wild = [prefix for prefix, outcome in new.prefixes.items() if outcome.accepted]
    count = accepted_rules(new)
    if not wild:
        return count
    count -= sum(bool(prefix) and _covered(new, prefix[:-1]) for prefix in wild)
    outermost: list[bytes] = []
    for prefix in sorted(wild):
        if not outermost or not prefix.startswith(outermost[-1]):
            outermost.append(prefix)
    for outcome, names in new.groups.items():
        if outcome.accepted:
            few = len(outermost) <= SEARCHED
            below = (name for prefix in outermost for name in names.beginning_with(prefix)) if few else iter(names)
            count -= sum(_covered(new, name) for name in below)
    return count


def _covered(table: Table, name: bytes) -> bool:
    """Whether a wildcard accepts `name`."""
    found = table.covering(name)
    return found is not None and found[1].accepted
