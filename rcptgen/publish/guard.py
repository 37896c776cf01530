"""A shrinking list is suspicious: what goes is compared with what was published, and may be held."""

from __future__ import annotations

from dataclasses import dataclass

from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table, combine

SAMPLE = 20


@dataclass(frozen=True, slots=True)
class Limits:
    """When removals are held: shares of what was published, and the least number that counts."""

    domain_loss: float = 0.50
    domain_loss_min: int = 5
    emptied_min: int = 3
    total_loss: float = 0.05
    total_loss_min: int = 50
    gone_domains: int = 5
    gone_share: float = 0.01
    new_catchalls: int = 10


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one domain: accepted rules before and after, gained and lost; some of the lost ones.

    `opens`: it becomes a catch-all; `was_whole`: it was one, which stands for more names than one.
    """

    before: int
    after: int
    gained: int
    lost: int
    sample: tuple[bytes, ...]
    opens: bool
    was_whole: bool = False

    def suspicious(self, limits: Limits) -> str:
        """Why the losses of this domain alone must be held, or an empty text."""
        if self.lost and not self.after and self.was_whole:
            return "emptied: it was a catch-all, and nothing of it would be left"
        if self.lost and not self.after and self.before >= limits.emptied_min:
            return f"emptied: all of its {self.before} names would go"
        if self.lost >= limits.domain_loss_min and self.lost > limits.domain_loss * self.before:
            return f"{self.lost} of {self.before} names would go"
        return ""


def accepted_rules(table: Table) -> int:
    """How many rules of `table` accept."""
    count = sum(len(names) for outcome, names in table.groups.items() if outcome.accepted)
    return count + sum(outcome.accepted for outcome in table.prefixes.values())


def compare(old: Table, new: Table) -> Change:
    """What `new` changes for the addresses of `old`, by effect: a name that a wildcard still covers is not lost."""
    lost, sample = _missing(old, new)
    gained, _ = _missing(new, old)
    rules = (accepted_rules(old), accepted_rules(new))
    return Change(*rules, gained, lost, tuple(sample), opens(old, new), _whole(old))


def opens(old: Table, new: Table) -> bool:
    """Whether a domain becomes a catch-all."""
    return _whole(new) and not _whole(old)


def _missing(one: Table, other: Table) -> tuple[int, list[bytes]]:
    count = 0
    sample: list[bytes] = []
    for name, outcome in one.prefixes.items():
        covering = other.covering(name)
        if outcome.accepted and not (covering and covering[1].accepted):
            count += 1
            if len(sample) < SAMPLE:
                sample.append(name + b"*")
    accepted = [names for outcome, names in other.groups.items() if outcome.accepted]
    for outcome, names in one.groups.items():
        if not outcome.accepted:
            continue
        for name in names.minus(accepted):
            found = other.match(name)
            if found is None or not found.accepted:
                count += 1
                if len(sample) < SAMPLE:
                    sample.append(name)
    return count, sorted(sample)


def _whole(table: Table) -> bool:
    base = table.prefixes.get(b"")
    return base is not None and base.accepted


def _either(one: Outcome | None, other: Outcome | None) -> Outcome | None:
    if one is not None and one.accepted:
        return one
    return other if other is not None and other.accepted else one or other


def union(new: Table, old: Table) -> Table:
    """The table that accepts what either does: additions are taken, removals held.

    A million names that one table or both accept are not looked at one by one.
    """
    prefixes = combine(Table({}, new.prefixes), Table({}, old.prefixes), _either).prefixes
    parts: dict[Outcome, list[Names]] = {o: [names] for o, names in new.groups.items() if o.accepted}
    have = [names for some in parts.values() for names in some]
    for outcome, names in old.groups.items():
        if outcome.accepted and (rest := names.less(have)):
            parts.setdefault(outcome, []).append(rest)
    refused: dict[bytes, Outcome] = {}
    for one, other in ((new, old), (old, new)):
        for outcome, names in one.groups.items():
            for name in names if not outcome.accepted else ():
                exactly = other.exactly(name)
                chosen = _either(new.match(name), old.match(name))
                if chosen is not None and not (exactly is not None and exactly.accepted):
                    refused[name] = chosen
    for outcome, names in Table(refused, {}).groups.items():
        parts.setdefault(outcome, []).append(names)
    return Table.of_groups({outcome: Names.union(some) for outcome, some in parts.items()}, prefixes)


def both(one: Table, other: Table) -> Table:
    """The table that accepts what either table alone would accept as well."""

    def choose(left: Outcome | None, right: Outcome | None) -> Outcome | None:
        if left is not None and not left.accepted:
            return left
        return left if right is not None and right.accepted else right

    return combine(one, other, choose)


def closed(new: Table, old: Table) -> Table:
    """`new` without its catch-all, and with what `old` accepts: for a domain that must not open unasked."""
    base = Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "the new catch-all is held")
    return union(Table.of_groups(new.groups, {**new.prefixes, b"": base}), old)
