"""What was published last, as far as this run may rely on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from rcptgen.errors import RcptgenError
from rcptgen.ledger import Ledger
from rcptgen.publish.generation import Generation, Orders, path_key
from rcptgen.publish.history import Rollback, Withheld
from rcptgen.publish.packed import pack, unpack
from rcptgen.publish.rulesfile import DamagedState, RulesFile
from rcptgen.publish.state import State
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table
from rcptgen.targets.base import Reader, Target


class Rules(Protocol):
    """Packed tables by domain."""

    def blobs(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (domain, packed table) in ascending order of the domains."""
        ...

    def blob(self, domain: bytes) -> bytes | None:
        """The packed table of one domain, or None."""
        ...


class Tables:
    """Packed tables that are held in memory."""

    def __init__(self, blobs: dict[bytes, bytes]) -> None:
        self._blobs = blobs

    def blobs(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (domain, packed table) in ascending order of the domains."""
        return iter(sorted(self._blobs.items()))

    def blob(self, domain: bytes) -> bytes | None:
        """The packed table of one domain, or None."""
        return self._blobs.get(domain)


NOTHING = Tables({})

BARE_OF_BASE = b"base"
BARE = b"published"
"""Under these keys stand the names that are accepted without a domain: of what was gone back to, and in all."""


@dataclass(slots=True)
class Memory:
    """The rules of the last publication by domain; the homes they came from; what was held since when.

    `exists` is False where nothing was published before: a first publish.  `live` are the rules
    that the guard compares with, `published` those that the files hold; they differ while
    `rollback` is in force, by what `base` adds.  `held_tables` are the tables that a person
    is asked to approve.  `bare` are the names that were accepted without a domain, `base_bare`
    those of them that `base` had.
    `lists` are the files of `[extra]` by their paths, as their rules were published, `list_digests`
    a digest of each.  `number` is that of the generation behind all this; None: there is only the published file.
    `digests` are those of the files as it published them (see Meta); `is_ledgers`: whether
    its rules are those that the ledger of this process was made with.
    """

    exists: bool = False
    number: int | None = None
    units: frozenset[bytes] = frozenset()
    held: dict[str, float] = field(default_factory=dict)
    holds: list[Withheld] = field(default_factory=list)
    prepended: str = ""
    rollback: Rollback | None = None
    bare: frozenset[bytes] = frozenset()
    base_bare: frozenset[bytes] = frozenset()
    live: Rules = NOTHING
    published: Rules = NOTHING
    base: Rules = NOTHING
    held_tables: Rules = NOTHING
    lists: Rules = NOTHING
    list_digests: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    is_ledgers: bool = False

    def table(self, domain: bytes) -> Table | None:
        """What was published for `domain` without any rollback, or None."""
        return _table(self.live, domain)

    def held_table(self, domain: bytes) -> Table | None:
        """What `domain` would have become last time, had nothing of it been held; None where that is not known."""
        return _table(self.held_tables, domain)

    @classmethod
    def of_generation(cls, generation: Generation, *, is_ledgers: bool = False) -> Memory:
        """The memory that a generation of the state directory holds."""
        meta = generation.meta
        live: Rules | None = generation.live if meta.rollback is not None else generation.rules
        return cls(
            exists=True,
            number=generation.number,
            units=frozenset(unit.encode("latin-1") for unit in meta.units),
            held=dict(meta.held),
            holds=list(meta.holds),
            prepended=meta.prepended.get("mode", ""),
            rollback=meta.rollback,
            bare=_names(generation.bare, BARE),
            base_bare=_names(generation.bare, BARE_OF_BASE),
            live=live or NOTHING,
            published=generation.rules,
            base=generation.base or NOTHING,
            held_tables=generation.held or NOTHING,
            lists=generation.lists or NOTHING,
            list_digests=dict(meta.lists),
            digests=dict(meta.digests),
            is_ledgers=is_ledgers,
        )

    @classmethod
    def of_file(cls, reader: Reader) -> Memory:
        """The memory that a published file itself is: for a first run with a state directory."""
        exact: dict[bytes, dict[bytes, Outcome]] = {}
        prefixes: dict[bytes, dict[bytes, Outcome]] = {}
        bare: set[bytes] = set()
        accept = Outcome(Verdict.DELIVER, Kind.UNKNOWN, "as it was published")
        refuse = Outcome(Verdict.BOUNCE, Kind.REFUSAL, "as it was published")
        for line in reader.lines():
            if line.domain is not None:
                where = prefixes if line.prefix else exact
                where.setdefault(line.domain.lower(), {})[line.name.lower()] = accept if line.accepted else refuse
            elif line.accepted:
                bare.add(line.name)
        domains = exact.keys() | prefixes.keys()
        rules = Tables({one: pack(Table(exact.get(one, {}), prefixes.get(one, {}))) for one in domains})
        return cls(exists=bool(domains), bare=frozenset(bare), live=rules, published=rules)


def _table(rules: Rules, domain: bytes) -> Table | None:
    blob = rules.blob(domain)
    return None if blob is None else unpack(blob)


def _names(rules: RulesFile | None, key: bytes) -> frozenset[bytes]:
    table = None if rules is None else _table(rules, key)
    return frozenset() if table is None else exact_names(table)


def exact_names(table: Table) -> frozenset[bytes]:
    """The exact names that are accepted, without the empty one."""
    return frozenset(name for name, outcome in table.exact() if name and outcome.accepted)


def remember(
    state: State | None,
    files: Sequence[tuple[Target, bytes]],
    warnings: list[str],
    stack: ExitStack,
    ledger: Ledger | None = None,
) -> Memory:
    """What was published last: from the state where it made the files, else from the first of the files that can tell.

    Without a state directory nothing is remembered.  What a person has ordered (a rollback)
    and what waits for one (held removals) is remembered even where the files are not those of
    the state.  What was opened stays open as long as `stack`; why something was not used is
    added to `warnings`.  `ledger` is that of the last publication of this very process, if any.
    """
    if state is None:
        return Memory()
    found = _last_generation(state, [path for _, path in files], warnings, ledger)
    if found is not None:
        generation, is_ledgers = found
        return Memory.of_generation(stack.enter_context(generation), is_ledgers=is_ledgers)
    memory = _of_files(files, warnings)
    orders = state.orders()
    if orders is not None:
        _obey(stack.enter_context(orders), memory)
    return memory


def _obey(orders: Orders, memory: Memory) -> None:
    """Takes over what was held, the rollback that was in force, and what the files of `[extra]` held."""
    meta = orders.meta
    memory.held, memory.holds = dict(meta.held), list(meta.holds)
    memory.held_tables = orders.held or NOTHING
    memory.lists = orders.lists or NOTHING
    memory.rollback = meta.rollback
    if meta.rollback is None:
        return
    # Where what was gone back to is damaged, all that is published counts as that.
    memory.base = orders.base or memory.published
    bare = orders.bare.blob(BARE_OF_BASE) if orders.bare is not None else None
    memory.base_bare = memory.bare if bare is None else exact_names(unpack(bare))


def _of_files(files: Sequence[tuple[Target, bytes]], warnings: list[str]) -> Memory:
    """The memory that the first readable one of the published files is."""
    for target, path in files:
        if not target.remembers or not os.path.exists(path):
            continue
        try:
            reader = target.open(path)
            try:
                return Memory.of_file(reader)
            finally:
                reader.close()
        except RcptgenError as error:
            warnings.append(f"the published file cannot be compared with: {error}")
    return Memory()


def _last_generation(
    state: State, paths: list[bytes], warnings: list[str], ledger: Ledger | None
) -> tuple[Generation, bool] | None:
    """The undamaged generation that made the published files, and whether its rules are those of the ledger."""
    found = _matching(state, paths)
    if found is None:
        return None
    try:
        # All of it now: damage must show before anything is built on it.
        return found, found.check(ledger.check if ledger is not None and ledger.number == found.number else None)
    except DamagedState as error:
        found.close()
        warnings.append(f"{os.fsdecode(state.path)}: {error}; the state is not used")
        return None


def _matching(state: State, paths: list[bytes]) -> Generation | None:
    """The generation of the published files; an output that is new in the configuration does not count."""
    named = state.current()
    if named is not None:
        if named.matches(path for path in paths if path_key(path) in named.meta.digests):
            return named
        named.close()
    return state.current(paths)
