"""What a run of the compiler is asked for, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rcptgen.config import Config
from rcptgen.publish.history import Changes, Rollback, Who, Withheld
from rcptgen.reader import Report
from rcptgen.rules.table import Table
from rcptgen.targets import target
from rcptgen.targets.base import Target, Unsayable, Widened

MOST_LISTED = 100_000
"""Widened and unsayable rules that are kept one by one; beyond, they are only counted."""

MOST_SLOW = 20
"""Units that are named for the time they took."""

HOLDING = 3
"""The exit status of a run that published, but holds removals or catch-alls, or is rolled back."""

Progress = Callable[[int, int], None]
"""Told now and then: domains done, domains in all."""


class Census(Protocol):
    """Somebody who looks at every domain as it is to be published (a rollback left aside)."""

    def begin(self) -> None:
        """The domains come, each once, in ascending order; what came before this call does not count."""
        ...

    def add(self, domain: bytes, kind: str, table: Table) -> None:
        """One domain; `kind` is its class, as in `Result.classes`."""
        ...


@dataclass(frozen=True, slots=True)
class Output:
    """One file to publish: a target's name and options, a path of this machine, a mode; see `Target.wildcards`."""

    target: str
    path: bytes
    mode: int = 0o644
    wildcards: str = "widen"
    options: Mapping[str, Any] = field(default_factory=dict)


def target_for(output: Output, config: Config, *, strict: bool = False) -> Target:
    """The target of an output, with its options.  Raises ConfigurationError where there is no such target or option."""
    return target(
        output.target,
        break_=config.qmail.break_.encode(),
        wildcards="refuse" if strict else output.wildcards,
        options=output.options,
        plugins=config.plugins.targets,
    )


@dataclass(frozen=True, slots=True)
class Request:
    """What one run of the compiler is asked for.

    `approve` releases held removals: None for none, an empty set for all that was held by the
    last run; `seen` are those that a person was shown, where he was: nothing else is released.
    `resume` ends a rollback.  `state` is the state directory, None for none: nothing
    is then remembered, and every run is the first.  `by` is who asks, where a person does.
    `strict` publishes nothing where a format cannot say a rule.  `brief`: where nothing has
    changed, nobody wants the result to say more than that.
    """

    outputs: tuple[Output, ...]
    state: bytes | None = None
    dry_run: bool = False
    force: bool = False
    full: bool = False
    strict: bool = False
    brief: bool = False
    approve: frozenset[bytes] | None = None
    seen: tuple[Withheld, ...] | None = None
    resume: bool = False
    wait: float = 0.0
    reason: str = "compile"
    by: Who | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Removals, or a new catch-all, that are not published until a person approves."""

    domain: bytes
    since: float
    reason: str
    count: int
    sample: tuple[bytes, ...]
    catch_all: bool = False


@dataclass(slots=True)
class Outcomes:
    """What became of one output.

    `losses` are the widenings that the format is to blame for; of the domains `left_out` it says nothing.
    """

    output: Output
    records: int = 0
    published: bool = False
    changed: bool = False
    exact: int = 0
    wildcards: int = 0
    refusals: int = 0
    widened: list[Widened] = field(default_factory=list)
    unsayable: list[Unsayable] = field(default_factory=list)
    widened_count: int = 0
    unsayable_count: int = 0
    losses: int = 0
    left_out: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class Result:
    """The whole of a run; `status` is the exit status.

    `rollback` is the one that is in force after it; `generation` the number that the history
    has for it, 0 where there was nothing to remember.  `released` are the domains whose removals went
    out because a person approved.  `recipients` counts the accepted rules by the class of their domain
    and their kind, `classes` the domains: local, virtual, relay, and gone for what is only held.
    `slowest` are the units that took longest to read, with the seconds, the slowest one first.
    """

    status: int = 0
    outputs: list[Outcomes] = field(default_factory=list)
    units: list[Report] = field(default_factory=list)
    units_read: int = 0
    slowest: list[tuple[bytes, float]] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    kept: dict[bytes, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    domains: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    recipients: dict[tuple[str, str], int] = field(default_factory=dict)
    gained: int = 0
    lost: int = 0
    approximate: int = 0
    first: bool = False
    changes: Changes | None = None
    rollback: Rollback | None = None
    generation: int = 0
    released: list[bytes] = field(default_factory=list)
    new_holds: bool = False
    witnesses: int = 0
    seconds: float = 0.0

    @property
    def rolled_back_since(self) -> float:
        """When the rollback in force was ordered, 0 without one."""
        return self.rollback.since if self.rollback is not None else 0.0

    @property
    def changed(self) -> bool:
        """Whether any file was replaced."""
        return any(one.changed for one in self.outputs)
