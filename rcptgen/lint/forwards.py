"""Forwards to addresses of this host, followed to their end: what bounces there, or comes back for ever."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rcptgen.forwards import Forwards
from rcptgen.host import Domain, Host
from rcptgen.qmail.homeleads import is_forwarding
from rcptgen.qmail.hostfiles import Finding
from rcptgen.qmail.leads import Forwarded
from rcptgen.qmail.routing import Local
from rcptgen.rules.outcome import Outcome
from rcptgen.rules.shown import shown
from rcptgen.rules.table import Table

MOST_WAITING = 5000
"""Forward lines that are followed together."""


class ForwardLines:
    """The forward lines of homes, followed some thousands at a time."""

    def __init__(self, host: Host, forwards: Forwards) -> None:
        self._host = host
        self._forwards = forwards
        self._waiting: list[Forwarded] = []

    def add(self, lines: Iterable[Forwarded]) -> Iterator[Finding]:
        """Takes more lines; what is found of those that waited long enough."""
        self._waiting += (one for one in lines if isinstance(self._host.routing.route(one.address), Local))
        if len(self._waiting) >= MOST_WAITING:
            yield from self.rest()

    def rest(self) -> Iterator[Finding]:
        """What is found of all that wait."""
        lines, self._waiting = self._waiting, []
        dead = sorted(self._forwards.dead(dict.fromkeys(one.address for one in lines)))
        why = dict(zip(dead, self._reasons(dead), strict=True))
        for one in lines:
            if one.address in why:
                code, text = why[one.address]
                yield Finding(code, text, one.file, one.line)

    def _reasons(self, dead: Sequence[bytes]) -> Iterator[tuple[str, str]]:
        for address, lead in zip(dead, self._forwards.leads(dead), strict=True):
            loop = self._forwards.loop(address)
            if loop:
                yield "F102", f"the forwards go round in a loop: {' -> '.join(map(shown, loop))}"
            elif lead.bounces:
                yield "F101", f"{shown(address)} bounces: {lead.outcome.reason}"
            else:
                targets = ", ".join(shown(one.address) for one in lead.forwards[:3])
                yield "F101", f"{shown(address)} leads to nobody: it is only forwarded to {targets}"


class DeadNames:
    """The names of domains that are only forwarded to what is dead, each file of them told once."""

    def __init__(self, forwards: Forwards) -> None:
        self._forwards = forwards
        self._told: set[tuple[bytes, int]] = set()
        self._waiting: dict[bytes, Outcome] = {}

    def add(self, domain: Domain, table: Table) -> None:
        """Takes the names of one domain."""
        for outcome, names in table.groups.items():
            if is_forwarding(outcome):
                for name in names:
                    if name and b"%" not in name:
                        self._waiting[name + b"@" + domain.name] = outcome.at(name)

    def rest(self) -> Iterator[Finding]:
        """What is found of all that were taken since the last time."""
        waiting, self._waiting = self._waiting, {}
        for address in sorted(self._forwards.dead(waiting)):
            outcome = waiting[address]
            if (outcome.file, outcome.line) not in self._told:
                self._told.add((outcome.file, outcome.line))
                text = f"{shown(address)} is only forwarded to addresses of this host that bounce, and is accepted"
                yield Finding("F103", text, outcome.file, outcome.line)
