"""What changes for recipients from one list, compiled file or host to another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rcptgen.diff.sides import NOWHERE, CompiledSide, HostSide, ListSide, Side, Told
from rcptgen.rules.compare import Change, accepts, changes
from rcptgen.rules.outcome import Outcome
from rcptgen.rules.table import Table

__all__ = ["NOWHERE", "CompiledSide", "Difference", "HostSide", "ListSide", "Side", "compare"]

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


def compare(old: Side, new: Side, domain: bytes | None = None) -> Iterator[Difference]:
    """Every place of either side, ascending, or `domain` alone; also those where nothing changes.

    Addresses without a domain are compared where both sides speak of any.
    """
    for before, after in _pairs(old.told(new.target, domain), new.told(old.target, domain)):
        one = before or after
        assert one is not None
        if one.place == NOWHERE and not (old.bare and new.bare):
            continue
        found = changes(before.table if before else _NOTHING, after.table if after else _NOTHING)
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
    if change.prefix:
        covering = truth.covering(change.name)
        known = covering[1] if covering is not None else None
    else:
        known = truth.match(change.name)
    return known if accepts(known) == accepts(outcome) else outcome
