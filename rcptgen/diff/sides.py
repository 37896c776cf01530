"""What `diff` compares: a compiled file, a list of rules as text, or a host; each told domain by domain."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Protocol

from rcptgen.compiler import workers
from rcptgen.config import Config
from rcptgen.diff.lists import read
from rcptgen.diff.spool import Spool
from rcptgen.diff.told import NOWHERE, Lost, Told, lowering, spool_lines
from rcptgen.errors import SourceFailed
from rcptgen.host import Domain, Host
from rcptgen.memory import Memory, remember
from rcptgen.overlays import extra
from rcptgen.policy import Policy
from rcptgen.publish.state import State
from rcptgen.reader import State as UnitState
from rcptgen.request import Output, target_for
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.shown import shown
from rcptgen.rules.table import Table
from rcptgen.targets.base import Target

STRETCH = 64
AHEAD = 3

_SOMEBODY = b"postmaster"
_BARE = Outcome(Verdict.DELIVER, Kind.ALIAS, "always accepted without a domain")


class Side(Protocol):
    """One side of a comparison.

    `target`: what it is compiled for, None where it is rules.  `bare`: whether it speaks of
    addresses without a domain; to be asked for once the first place has been told.  `lost`:
    what the format that it was lowered for could not say; complete after the last place.
    `compiles`: whether what it is lowered to is what the next compile publishes.
    """

    target: Target | None
    bare: bool
    lost: Lost
    compiles: bool

    def told(self, through: Target | None, domain: bytes | None) -> Iterator[Told]:
        """The rules of each place, or of `domain` alone, ascending by place; lowered for `through`, if any."""
        ...


class CompiledSide:
    """A compiled file, read back by its target."""

    compiles = False

    def __init__(self, path: bytes, target: Target) -> None:
        self.path = path
        self.target: Target | None = target
        self.bare = bool(target.bare([_SOMEBODY])[0])
        self.lost = Lost()

    def told(self, through: Target | None, domain: bytes | None) -> Iterator[Told]:
        """What the file accepts and refuses.

        Raises UsageTrouble where the target cannot read it, DamagedCdb where it breaks off.
        """
        assert self.target is not None
        reader = self.target.open(self.path)
        try:
            with Spool() as spool, lowering(through, self.lost) as lowered:
                spool_lines(reader, spool, domain)
                for place, table in spool.tables():
                    yield lowered.told(place, table)
        finally:
            reader.close()


class ListSide:
    """A list of rules as text."""

    target: Target | None = None
    compiles = False

    def __init__(self, lines: Iterable[bytes], called: str) -> None:
        self._lines, self._called = lines, called
        self.bare = False
        self.lost = Lost()

    def told(self, through: Target | None, domain: bytes | None) -> Iterator[Told]:
        """What the list says.  Raises UsageTrouble for a line that is no rule."""
        with Spool() as spool, lowering(through, self.lost) as lowered:
            read(self._lines, self._called, spool)
            for place, table in spool.tables():
                self.bare |= place == NOWHERE
                if domain is None or place == b"@" + domain:
                    yield lowered.told(place, table)


class HostSide:
    """A host: what would be published of it now, policy applied, before the guard holds anything.

    Of a source that cannot be read for now the last published rules are told, where `state`
    has them.
    """

    target: Target | None = None
    bare = compiles = True

    def __init__(self, root: bytes, config: Config, state: bytes | None) -> None:
        self._root, self._config, self._state = root, config, state
        self.lost = Lost()
        self.warnings: list[str] = []
        self.failed: list[str] = []
        """What could not be read, and why; complete after the last place."""

    def told(self, through: Target | None, domain: bytes | None) -> Iterator[Told]:
        """The host's domains, each as policy shapes it.

        Raises ConfigurationError for a host without configuration, SourceFailed for one whose
        users/cdb is damaged while nothing is known of what was published before.
        """
        config = self._config
        with ExitStack() as stack:
            host = stack.enter_context(Host.open(self._root, config, look_at_mailboxes=False, workers=workers()))
            memory = self._memory(stack)
            if host.users_damage and not memory.exists:
                raise SourceFailed(f"{shown(host.users_file)}: {host.users_damage}; qmail defers all local mail")
            self.warnings += [
                f"{shown(one.file)}:{one.line}: {shown(one.entry)!r} stands for domains that no list names"
                for one in host.uncovered()
            ]
            policy = Policy(
                host,
                published=memory.table,
                known_units=memory.units,
                prepended=memory.prepended,
                overlays=extra(host, memory.lists.blob),
            )
            lowered = stack.enter_context(lowering(through, self.lost))
            domains = [one for one in policy.domains() if domain is None or one.name == domain]
            if domain is None:
                bare = Table(dict.fromkeys(policy.bare_names(), _BARE), {})
                yield lowered.told(NOWHERE, bare)
            for one in _ahead(host, domains):
                yield lowered.told(b"@" + one.name, policy.shape(one).table)
            self.failed = [
                f"{shown(one.path)}: {one.reason}"
                for one in host.units.unhealthy()
                if one.state in (UnitState.FAILED, UnitState.SUSPECT)
            ]

    def _memory(self, stack: ExitStack) -> Memory:
        if self._state is None or not os.path.isdir(self._state):
            return Memory()
        state = stack.enter_context(State.open(self._state))
        configured = [Output(one.target, os.fsencode(one.path), options=one.options) for one in self._config.outputs]
        outputs = [(target_for(one, self._config), one.path) for one in configured]
        return remember(state, outputs, self.warnings, stack)


def _ahead(host: Host, domains: list[Domain]) -> Iterator[Domain]:
    """The domains; before each stretch the host is told what will be asked for."""
    host.ahead(domains[: AHEAD * STRETCH])
    for at in range(0, len(domains), STRETCH):
        host.ahead(domains[at + AHEAD * STRETCH : at + (AHEAD + 1) * STRETCH])
        yield from domains[at : at + STRETCH]
