"""What two lists of records have in common, in stretches; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

MOST_STRETCHES = 32
"""Stretches that are told apart; where there are more, all between the first and the last difference is new."""


def alike(
    old: Sequence[tuple[bytes, bytes]], fresh: Sequence[tuple[bytes, bytes]]
) -> Iterator[tuple[bool, range, range]]:
    """Both lists in stretches, in the order of `fresh`: whether a stretch is in both, and where in each."""
    head, most = 0, min(len(old), len(fresh))
    while head < most and old[head] == fresh[head]:
        head += 1
    tail = 0
    while tail < most - head and old[-1 - tail] == fresh[-1 - tail]:
        tail += 1
    last, end = len(old) - tail, len(fresh) - tail
    yield from _some(True, range(head), range(head))
    yield from _between(old, fresh, range(head, last), range(head, end))
    yield from _some(True, range(last, len(old)), range(end, len(fresh)))


def _between(
    old: Sequence[tuple[bytes, bytes]], fresh: Sequence[tuple[bytes, bytes]], of_old: range, of_fresh: range
) -> Iterator[tuple[bool, range, range]]:
    """The same for what is between the first and the last difference."""
    places = {old[at]: at for at in of_old}
    found: list[tuple[bool, range, range]] = []
    after = of_old.start
    for at in of_fresh:
        place = places.get(fresh[at], -1) if len(places) == len(of_old) else -1
        kept = place >= after
        if kept:
            after = place + 1
        last = found[-1] if found else None
        if last is not None and last[0] == kept and (not kept or last[1].stop == place):
            found[-1] = kept, range(last[1].start, place + 1), range(last[2].start, at + 1)
        else:
            found.append((kept, range(place, place + 1), range(at, at + 1)))
    if len(found) > MOST_STRETCHES:
        found = [(False, range(0), of_fresh)]
    yield from found


def _some(kept: bool, of_old: range, of_fresh: range) -> Iterator[tuple[bool, range, range]]:
    if of_fresh:
        yield kept, of_old, of_fresh
