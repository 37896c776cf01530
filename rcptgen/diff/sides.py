"""What `diff` compares: a compiled file, a list of rules as text, or a host; each told domain by domain.

Where rules are held against a compiled file, they are lowered for its format first: what the
format cannot say would be no difference between the file and what is to be published.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from rcptgen.compiler import workers
from rcptgen.config import Config
from rcptgen.diff.lists import read
from rcptgen.diff.spool import Spool, listed
from rcptgen.errors import Shortage, SourceFailed
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
from rcptgen.targets.base import Line, Reader, Target

NOWHERE = b""
"""The place of addresses without a domain; that of all others is `@domain`."""

STRETCH = 64
AHEAD = 3

_WITNESS = b"rcptgen-witness-no-such-name"
_BARE = Outcome(Verdict.DELIVER, Kind.ALIAS, "always accepted without a domain")


@dataclass(frozen=True, slots=True)
class Told:
    """The rules of one place; `truth` are those they were lowered from, which know kinds and files."""

    place: bytes
    table: Table
    truth: Table | None = None


class Side(Protocol):
    """One side of a comparison.

    `target`: what it is compiled for, None where it is rules.  `bare`: whether it speaks of
    addresses without a domain; to be asked for once the first place has been told.
    """

    target: Target | None
    bare: bool

    def told(self, through: Target | None, domain: bytes | None) -> Iterator[Told]:
        """The rules of each place, or of `domain` alone, ascending by place; lowered for `through`, if any."""
        ...


class CompiledSide:
    """A compiled file, read back by its target."""

    def __init__(self, path: bytes, target: Target) -> None:
        self.path = path
        self.target: Target | None = target
        self.bare = True

    def told(self, through: Target | None, domain: bytes | None) -> Iterator[Told]:
        """What the file accepts and refuses; it is never lowered.

        Raises UsageTrouble where the target cannot read it, DamagedCdb where it breaks off.
        """
        assert self.target is not None
        reader = self.target.open(self.path)
        try:
            with Spool() as spool:
                _spool(reader, spool, domain)
                for place, table in spool.tables():
                    yield Told(place, table)
        finally:
            reader.close()


class ListSide:
    """A list of rules as text."""

    target: Target | None = None

    def __init__(self, lines: Iterable[bytes], called: str) -> None:
        self._lines, self._called = lines, called
        self.bare = False

    def told(self, through: Target | None, domain: bytes | None) -> Iterator[Told]:
        """What the list says.  Raises UsageTrouble for a line that is no rule."""
        with Spool() as spool, tempfile.TemporaryFile() as scratch:
            read(self._lines, self._called, spool)
            for place, table in spool.tables():
                self.bare |= place == NOWHERE
                if domain is None or place == b"@" + domain:
                    yield _lowered(place, table, through, scratch.fileno())


class HostSide:
    """A host: what would be published of it now, policy applied, before the guard holds anything.

    Of a source that cannot be read for now the last published rules are told, where `state`
    has them.
    """

    target: Target | None = None
    bare = True

    def __init__(self, root: bytes, config: Config, state: bytes | None) -> None:
        self._root, self._config, self._state = root, config, state
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
            scratch = stack.enter_context(tempfile.TemporaryFile()).fileno()
            domains = [one for one in policy.domains() if domain is None or one.name == domain]
            if domain is None:
                bare = Table(dict.fromkeys(policy.bare_names(), _BARE), {})
                yield _lowered(NOWHERE, bare, through, scratch)
            for one in _ahead(host, domains):
                yield _lowered(b"@" + one.name, policy.shape(one).table, through, scratch)
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


def _lowered(place: bytes, table: Table, through: Target | None, scratch: int) -> Told:
    """The rules of a place as the consumer of a file for `through` would find them there."""
    if through is None:
        return Told(place, table)
    if place:
        batches = through.lower(place[1:], table).batches
    else:
        batches = [through.bare([name for name, outcome in table.exact() if outcome.accepted])]
    try:
        os.ftruncate(scratch, 0)
        os.lseek(scratch, 0, os.SEEK_SET)
        writer = through.writer(scratch)
        for keys, value in batches:
            writer.put(keys, value)
        writer.finish()
        os.lseek(scratch, 0, os.SEEK_SET)
    except OSError as error:
        raise Shortage(f"a temporary file below {tempfile.gettempdir()} cannot be written: {error}") from error
    reader = through.open(scratch)
    try:
        with Spool() as spool:
            _spool(reader, spool, None)
            return next(
                (Told(place, found, table) for where, found in spool.tables() if where == place), _empty(place, table)
            )
    finally:
        reader.close()


def _empty(place: bytes, truth: Table) -> Told:
    return Told(place, Table({}, {}), truth)


def _spool(reader: Reader, spool: Spool, domain: bytes | None) -> None:
    """Puts every rule of a compiled file into `spool`, or those of `domain` alone."""
    accepts, refuses = listed(True), listed(False)
    add = spool.add
    wanted = None if domain is None else b"@" + domain
    here, place, capitals = None, NOWHERE, False
    for line in reader.lines():
        if line.domain != here:
            here = line.domain
            place = NOWHERE if here is None else b"@" + here.lower()
            capitals = here is not None and place[1:] != here
        if wanted is not None and place != wanted:
            continue
        name = line.name.lower()
        if (capitals or name != line.name) and not _found(reader, line):
            continue
        add(place, name, line.prefix, accepts if line.accepted else refuses)


def _found(reader: Reader, line: Line) -> bool:
    """Whether the consumer, asked in lower case, finds a rule that is written with capitals."""
    name = line.name + (_WITNESS if line.prefix else b"")
    address = name if line.domain is None else name + b"@" + line.domain
    return reader.answer(address.lower()).accepted == line.accepted
