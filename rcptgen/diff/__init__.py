"""What changes for recipients from one list, compiled file or host to another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rcptgen.diff.sides import CompiledSide, HostSide, ListSide, Side
from rcptgen.diff.told import NOWHERE, Told, named
from rcptgen.rules.change import Change, What
from rcptgen.rules.compare import changes
from rcptgen.rules.outcome import Outcome, accepts
from rcptgen.rules.table import Table
from rcptgen.targets.base import Target

__all__ = ["NOWHERE", "CompiledSide", "Difference", "HostSide", "ListSide", "Side", "compare", "terms"]

_NOTHING = Table({}, {})


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes in one place (`@domain`, or empty: addresses without a domain).

    `had`, `has`: whether the sides speak of the place at all.  `changes` are made as they are
    taken, once.
    """

    place: bytes
    had: bool
    has: bool
    changes: Iterator[Change]


def terms(side: Side, other: Side) -> Target | None:
    """The target that `side` is lowered for before it is held against `other`; None: it is told as it is.

    Rules are lowered for the format of a compiled file, and so is a file that states the
    rules it was made from: what the other's format cannot say would be no difference.
    """
    own, through = side.target, other.target
    if own is None or through is None:
        return through
    return through if own.remembers and own.name != through.name else None


def compare(old: Side, new: Side, domain: bytes | None = None) -> Iterator[Difference]:
    """Every place of either side, ascending, or `domain` alone; also those where nothing changes.

    Each side is told in its `terms`.  Addresses without a domain are compared where both sides speak of any.
    """
    hashed = next((one for one in (terms(old, new), terms(new, old)) if one is not None and one.hashed), None)
    for before, after in _pairs(old.told(terms(old, new), domain), new.told(terms(new, old), domain)):
        if hashed is not None:
            before, after = named(hashed, before, after)
        one = before or after
        assert one is not None
        if one.place == NOWHERE and not (old.bare and new.bare):
            continue
        found = changes(before.table if before else _NOTHING, after.table if after else _NOTHING)
        if before is not None and after is not None:
            if not new.compiles:
                found = _without_agreed(found, What.GAINED, before, after)
            if not old.compiles:
                found = _without_agreed(found, What.LOST, after, before)
        yield Difference(one.place, before is not None, after is not None, _explained(found, before, after))


def _pairs(old: Iterator[Told], new: Iterator[Told]) -> Iterator[tuple[Told | None, Told | None]]:
    """The places of both sides, side by side."""
    before, after = next(old, None), next(new, None)
    while before is not None or after is not None:
        if after is None or (before is not None and before.place < after.place):
            yield before, None
            before = next(old, None)
        elif before is None or after.place < before.place:
            yield None, after
            after = next(new, None)
        else:
            yield before, after
            before, after = next(old, None), next(new, None)


def _without_agreed(found: Iterator[Change], what: What, file: Told, rules: Told) -> Iterator[Change]:
    """The changes without those of `what` that both sides refuse: the rules in so many words, or by one further up.

    A list or a file need not state a refusal that hides nothing.  Lowered, the one further up
    may be lost, where a file made from all the rules refuses the name itself.
    """
    for one in found:
        if one.what is not what or not _agreed(one, file, rules):
            yield one
        elif what is What.GAINED:
            # What a wildcard that is none would have spared is gained by itself.
            spared = [(name, True) for name in one.spares.prefixes]
            for name, prefix in (*spared, *((name, False) for name in one.spares.names)):
                old, new = _said(file.table, name, prefix), _own(rules.table, name, prefix)
                yield Change(what, name, prefix, old, new)


def _agreed(change: Change, file: Told, rules: Told) -> bool:
    """Whether the file has a refusal of its own where the rules refuse, and only their lowering does not say so."""
    name, prefix = change.name, change.prefix
    if rules.truth is None or _own(rules.table, name, prefix) is not None:
        return False
    return _refused(_own(file.table, name, prefix)) and not accepts(_said(rules.truth, name, prefix))


def _own(table: Table, name: bytes, prefix: bool) -> Outcome | None:
    """The rule of its own that a table has for a name, or for a wildcard."""
    return table.prefixes.get(name) if prefix else table.exactly(name)


def _refused(outcome: Outcome | None) -> bool:
    return outcome is not None and not outcome.accepted


def _said(table: Table, name: bytes, prefix: bool) -> Outcome | None:
    """What a table says of a name, or of what a wildcard stands for."""
    if not prefix:
        return table.match(name)
    covering = table.covering(name)
    return None if covering is None else covering[1]


def _explained(found: Iterator[Change], old: Told | None, new: Told | None) -> Iterator[Change]:
    """The changes with what is known beyond acceptance: kinds, reasons and files of the rules that were lowered."""
    before = None if old is None else old.truth
    after = None if new is None else new.truth
    if before is None and after is None:
        return found
    return (replace(one, old=_true(before, one, one.old), new=_true(after, one, one.new)) for one in found)


def _true(truth: Table | None, change: Change, outcome: Outcome | None) -> Outcome | None:
    """What the rules say where a format says `outcome`; the format's word, where it is wider than they are."""
    if truth is None:
        return outcome
    known = _said(truth, change.name, change.prefix)
    return known if accepts(known) == accepts(outcome) else outcome
