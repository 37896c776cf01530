"""Forwards to addresses of this host, followed to their end: what bounces there, or comes back for ever."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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

MOST_OF_LOOP = 8
"""Addresses of a loop that are named."""

MOST_REMEMBERED = 500_000
"""Files of which it is known that they forward to somebody; the names of others are followed one by one."""


class ForwardLines:
    """The forward lines of homes, followed some thousands at a time."""

    def __init__(self, host: Host, forwards: Forwards) -> None:
        self._host = host
        self._forwards = forwards
        self._waiting: list[Forwarded] = []
        self._with_lines: set[int] = set()
        self._with_dead_lines: set[bytes] = set()

    def add(self, lines: Sequence[Forwarded]) -> Iterator[Finding]:
        """Takes more lines; what is found of those that waited long enough."""
        if len(self._with_lines) < MOST_REMEMBERED:
            # Their hashes will do, and cost no path each: at worst a name is not told.
            self._with_lines.update(hash(one.file) for one in lines)
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
                self._with_dead_lines.add(one.file)
                code, text = why[one.address]
                yield Finding(code, text, one.file, one.line)

    def lead_somewhere(self, file: bytes) -> bool:
        """Whether a file is known to have forward lines, and none of them leads to nobody."""
        return hash(file) in self._with_lines and file not in self._with_dead_lines

    def _reasons(self, dead: Sequence[bytes]) -> Iterator[tuple[str, str]]:
        for address, lead in zip(dead, self._forwards.leads(dead), strict=True):
            loop = self._forwards.loop(address)
            if loop:
                yield "F102", f"the forwards go round in a loop: {_way(loop)}"
            elif lead.bounces:
                yield "F101", f"{shown(address)} bounces: {lead.outcome.reason}"
            else:
                targets = ", ".join(shown(one.address) for one in lead.forwards[:3])
                yield "F101", f"{shown(address)} leads to nobody: it is only forwarded to {targets}"


def _way(loop: Sequence[bytes]) -> str:
    """The addresses of a loop, the first ones of a long one."""
    first = " -> ".join(map(shown, loop[:MOST_OF_LOOP]))
    return first if len(loop) <= MOST_OF_LOOP else f"{first} -> ... ({len(loop) - 1} addresses)"


class DeadNames:
    """The names of domains that are only forwarded to what is dead, each file of them told once."""

    def __init__(self, forwards: Forwards, lines: ForwardLines) -> None:
        self._forwards = forwards
        self._lines = lines
        self._told: set[tuple[bytes, int]] = set()
        self._waiting: dict[bytes, Outcome] = {}

    def add(self, domain: Domain, table: Table) -> None:
        """Takes the names of one domain."""
        for outcome, names in table.groups.items():
            if is_forwarding(outcome):
                for name in names:
                    found = outcome.at(name)
                    if name and b"%" not in name and not self._lines.lead_somewhere(found.file):
                        self._waiting[name + b"@" + domain.name] = found

    def rest(self) -> Iterator[Finding]:
        """What is found of all that were taken since the last time."""
        waiting, self._waiting = self._waiting, {}
        for address in sorted(self._forwards.dead(waiting)):
            outcome = waiting[address]
            if (outcome.file, outcome.line) not in self._told:
                self._told.add((outcome.file, outcome.line))
                text = f"{shown(address)} is only forwarded to addresses of this host that bounce, and is accepted"
                yield Finding("F103", text, outcome.file, outcome.line)
