"""The history: what was published, when, why and by whom, and what each publication changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Self

from rcptgen.build import side_by_side
from rcptgen.errors import UsageTrouble
from rcptgen.publish.generation import Generation, Meta
from rcptgen.publish.history import Rollback, Withheld
from rcptgen.publish.packed import unpack
from rcptgen.publish.state import State
from rcptgen.publish.tally import EMPTY
from rcptgen.request import Held
from rcptgen.rules.change import Change, What
from rcptgen.rules.compare import changes

SAMPLE = 10
"""Changes of one domain that are named one by one."""


@dataclass(slots=True)
class Difference:
    """What became of one domain from one generation to the next; `some` are the first changes."""

    domain: bytes
    counts: dict[What, int] = field(default_factory=lambda: dict.fromkeys(What, 0))
    some: list[Change] = field(default_factory=list)

    def add(self, change: Change) -> None:
        """Counts one change more."""
        self.counts[change.what] += 1
        if len(self.some) < SAMPLE:
            self.some.append(change)


class History:
    """The generations that were published, as far as they are kept.  No lock is wanted: one that goes is passed over.

    `warnings` says what could not be read; `last` is the number of the last one, 0 without any.
    """

    def __init__(self, state: State | None) -> None:
        self._state = state
        self._stack = ExitStack()
        self.last = 0
        self.rollback: Rollback | None = None
        self.holds: list[Withheld] = []
        if state is None:
            return
        self._stack.enter_context(state)
        standing = state.standing()
        if standing is not None:
            with standing:
                self.last = standing.number
                self.rollback = standing.meta.rollback
                self.holds = standing.meta.holds

    @classmethod
    def open(cls, path: bytes) -> Self:
        """The history that the state directory `path` has; nothing is made where there is none."""
        return cls(State.open(path) if os.path.isdir(path) else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def warnings(self) -> list[str]:
        """What could not be read, and why."""
        return [] if self._state is None else list(dict.fromkeys(self._state.warnings))

    def numbers(self) -> list[int]:
        """The numbers of what was published, in ascending order; what was only written is none of it."""
        return [] if self._state is None else [one for one in self._state.generations() if one <= self.last]

    def metas(self) -> Iterator[Meta]:
        """What is known of each, in ascending order."""
        for number in self.numbers():
            generation = self._opened(number)
            if generation is not None:
                with generation:
                    yield generation.meta

    def generation(self, number: int) -> Generation:
        """One of them; UsageTrouble where it is not there, or cannot be read."""
        found = self._opened(number) if number in self.numbers() else None
        if found is None:
            known = ", ".join(map(str, self.numbers())) or "none"
            raise UsageTrouble(f"there is no generation {number} that can be read; there are: {known}")
        return found

    def before(self, number: int) -> Generation | None:
        """The one before `number`, if it is still there."""
        earlier = [one for one in self.numbers() if one < number]
        return self._opened(earlier[-1]) if earlier else None

    def _opened(self, number: int) -> Generation | None:
        return None if self._state is None else self._state.generation(number)


def differences(old: Generation, new: Generation) -> Iterator[Difference]:
    """What changed from one generation to another, by domain, in ascending order.

    Raises DamagedState where one of them breaks off.
    """
    for domain, (before, after) in side_by_side(old.blobs(), new.blobs()):
        if before == after:
            continue
        found = Difference(domain)
        for change in changes(unpack(before) if before else EMPTY, unpack(after) if after else EMPTY):
            found.add(change)
        if found.some:
            yield found


def held_of(one: Withheld) -> Held:
    """Something that was held, as a run tells it."""
    sample = tuple(name.encode("latin-1") for name in one.sample)
    return Held(one.domain.encode("latin-1"), one.since, one.reason, one.count, sample, one.catch_all)
