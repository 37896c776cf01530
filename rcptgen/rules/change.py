"""What a comparison of two tables tells: changes, and their numbers."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind, Outcome


class What(enum.StrEnum):
    """What becomes of a name, or of all that a wildcard stands for."""

    GAINED = "gained"
    LOST = "lost"
    CHANGED = "changed"
    """Accepted before and after, as different kinds."""
    HIDDEN = "hidden"
    """Refused before and after, but a wildcard above accepts now: no change, an exception from one."""


@dataclass(frozen=True, slots=True)
class Below:
    """Rules below a wildcard: exact names, and prefixes in ascending order."""

    names: Names
    prefixes: tuple[bytes, ...] = ()

    def __len__(self) -> int:
        return len(self.names) + len(self.prefixes)


NOTHING = Below(Names(()))


@dataclass(frozen=True, slots=True)
class Change:
    """One change; with `prefix` it is one of the wildcard `name`*, else of the name alone.

    `old` and `new` are what the tables say there (None: no rule, which refuses), with the
    file of an exact rule completed.  `hides`: the accepting wildcard that the refusal on one
    side stands before, as its prefix.  `swallows` and `spares` are only there for wildcards.
    """

    what: What
    name: bytes
    prefix: bool
    old: Outcome | None
    new: Outcome | None
    hides: bytes | None = None
    swallows: Below = NOTHING
    spares: Below = NOTHING


@dataclass(slots=True)
class Summary:
    """Changes, counted: exact names and wildcards apart, by kind, of one domain or of many.

    `opened` and `closed` are domains that became a catch-all or are none any more.
    """

    names: Counter[What] = field(default_factory=Counter)
    wildcards: Counter[What] = field(default_factory=Counter)
    gained: Counter[Kind] = field(default_factory=Counter)
    lost: Counter[Kind] = field(default_factory=Counter)
    changed: Counter[tuple[Kind, Kind]] = field(default_factory=Counter)
    opened: int = 0
    closed: int = 0

    def add(self, change: Change) -> None:
        """Counts one change more."""
        old, new, whole = change.old, change.new, change.prefix and not change.name
        (self.wildcards if change.prefix else self.names)[change.what] += 1
        if change.what is What.GAINED and new is not None:
            self.gained[new.kind] += 1
            self.opened += whole
        elif change.what is What.LOST and old is not None:
            self.lost[old.kind] += 1
            self.closed += whole
        elif change.what is What.CHANGED and old is not None and new is not None:
            self.changed[old.kind, new.kind] += 1

    def include(self, other: Summary) -> None:
        """Counts what `other` has counted."""
        self.names += other.names
        self.wildcards += other.wildcards
        self.gained += other.gained
        self.lost += other.lost
        self.changed += other.changed
        self.opened += other.opened
        self.closed += other.closed

    def count(self, what: What) -> int:
        """How many names and wildcards are `what`."""
        return self.names[what] + self.wildcards[what]

    def members(self) -> dict[str, Any]:
        """The same as JSON takes it; kinds that are not known are left out."""

        def one(what: What, kinds: Any) -> dict[str, Any]:
            return {"addresses": self.names[what], "wildcards": self.wildcards[what], "kinds": kinds}

        changed = [{"old": old, "new": new, "count": count} for (old, new), count in sorted(self.changed.items())]
        return {
            "gained": one(What.GAINED, _known(self.gained)),
            "lost": one(What.LOST, _known(self.lost)),
            "changed": one(What.CHANGED, changed),
            "catch_alls": {"new": self.opened, "gone": self.closed},
        }

    def __bool__(self) -> bool:
        return any(self.count(what) for what in (What.GAINED, What.LOST, What.CHANGED))


def _known(kinds: Counter[Kind]) -> dict[str, int]:
    return {kind.value: count for kind, count in sorted(kinds.items()) if kind is not Kind.UNKNOWN}


def summary(found: Iterable[Change]) -> Summary:
    """The changes `found`, counted."""
    counted = Summary()
    for change in found:
        counted.add(change)
    return counted
