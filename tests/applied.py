"""Changes as a person reads them, made to the old rules: an independent reading of what compare tells."""

from __future__ import annotations

from collections.abc import Iterable

from rcptgen.rules.change import Change, What
from rcptgen.rules.outcome import Outcome
from rcptgen.rules.table import Table


def accepted(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.accepted


def around(*given_tables: Table) -> list[bytes]:
    """Names at and beside every rule."""
    known = {rule.name for table in given_tables for rule in table.rules()} | {b""}
    return sorted({name + tail for name in known for tail in (b"", b"a", b"-", b"\n", b"zz")})


class Applied:
    """The old table with changes made to it, as a person reads them; answers as a list does."""

    def __init__(self, old: Table, found: Iterable[Change]) -> None:
        self.old = old
        self.names: dict[bytes, Change] = {}
        self.wildcards: dict[bytes, Change] = {}
        for change in found:
            where = self.wildcards if change.prefix else self.names
            assert change.name not in where, "told twice"
            where[change.name] = change
        self.folded = {
            name
            for change in self.wildcards.values()
            for below in (change.swallows, change.spares)
            for name in below.names
        }

    def accepts(self, name: bytes) -> bool:
        told = self.names.get(name)
        if told is not None:
            return told.what in (What.GAINED, What.CHANGED)
        if any(name in change.spares.names for change in self.wildcards.values()):
            return True
        own = self.old.exactly(name)
        if accepted(own):
            return True
        over = self._longest(name, self.wildcards)
        if over is None:
            return accepted(self.old.match(name))
        change = self.wildcards[over]
        below = [p for p in self.old.prefixes if name.startswith(p) and len(p) > len(over)]
        open_below = any(self.old.prefixes[p].accepted for p in below)
        if own is not None:
            return change.what is What.GAINED and not open_below
        spared = self._longest(name, [p for one in self.wildcards.values() for p in one.spares.prefixes])
        if below and (spared is None or len(max(below, key=len)) >= len(spared)):
            refused = not self.old.prefixes[max(below, key=len)].accepted
            return change.what is What.GAINED and not open_below if refused else True
        if spared is not None and len(spared) > len(over):
            return True
        return change.what in (What.GAINED, What.CHANGED)

    @staticmethod
    def _longest(name: bytes, prefixes: Iterable[bytes]) -> bytes | None:
        return max((p for p in prefixes if name.startswith(p)), key=len, default=None)
