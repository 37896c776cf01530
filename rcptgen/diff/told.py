"""The rules of one place as they are compared: read from a compiled file, or lowered for one first.

Where rules are held against a compiled file, they are lowered for its format: what the
format cannot say would be no difference between the file and what is to be published.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rcptgen.diff.spool import Spool, listed
from rcptgen.errors import Shortage
from rcptgen.rules.table import Table
from rcptgen.targets.base import Line, Reader, Target

NOWHERE = b""
"""The place of addresses without a domain; that of all others is `@domain`."""

_WITNESS = b"rcptgen-witness-no-such-name"


@dataclass(frozen=True, slots=True)
class Told:
    """The rules of one place; `truth` are those they were lowered from, which know kinds and files."""

    place: bytes
    table: Table
    truth: Table | None = None


def named(target: Target, *sides: Told | None) -> list[Told | None]:
    """The sides with the names of those rules that one of them knows, for a file of `target` that has hashes.

    What only such a file holds keeps its hash.
    """
    names: dict[bytes, bytes] = {}  # by hash
    for truth in (one.truth for one in sides if one is not None):
        for rule in () if truth is None else truth.rules():
            names.update(target.hashes(rule.name))

    def table(hashed: Table) -> Table:
        exact = {names.get(name, name): outcome for name, outcome in hashed.exact()}
        return Table(exact, {names.get(name, name): outcome for name, outcome in hashed.prefixes.items()})

    return [one and replace(one, table=table(one.table)) for one in sides]


@dataclass(slots=True)
class Lost:
    """What a format could not say of the rules that were lowered for it.

    `widened` and `unsayable` are numbers of rules, `left_out` of domains: see `Lowered`.
    The empty local part is not counted: where there is a catch-all, nearly no format has it.
    """

    widened: int = 0
    unsayable: int = 0
    left_out: int = 0

    def __bool__(self) -> bool:
        return bool(self.widened or self.unsayable or self.left_out)


class Lowering:
    """Tells rules as the consumer of a file for `through` would find them; as they are, where that is None."""

    def __init__(self, through: Target | None, scratch: int, lost: Lost) -> None:
        self._through, self._scratch, self._lost = through, scratch, lost

    def told(self, place: bytes, table: Table) -> Told:
        """The rules of a place.  Raises Shortage where the temporary file `scratch` cannot be written."""
        if self._through is None:
            return Told(place, table)
        self._write(self._through, place, table)
        reader = self._through.open(self._scratch)
        try:
            with Spool() as spool:
                spool_lines(reader, spool, None)
                found = dict(spool.tables())
        finally:
            reader.close()
        return Told(place, found.get(place, Table({}, {})), table)

    def _write(self, through: Target, place: bytes, table: Table) -> None:
        if place:
            lowered = through.lower(place[1:], table)
            batches = lowered.batches
            self._lost.widened += lowered.losses
            unsayable = sum(one.rule.lstrip(b"!") != place for one in lowered.unsayable)
            self._lost.unsayable += unsayable + lowered.unsayable_more
            self._lost.left_out += lowered.left_out
        else:
            batches = [through.bare([name for name, outcome in table.exact() if outcome.accepted])]
        try:
            os.ftruncate(self._scratch, 0)
            os.lseek(self._scratch, 0, os.SEEK_SET)
            writer = through.writer(self._scratch)
            for keys, value in batches:
                writer.put(keys, value)
            writer.finish()
            os.lseek(self._scratch, 0, os.SEEK_SET)
        except OSError as error:
            reason = f"a temporary file below {tempfile.gettempdir()} cannot be written: {error}"
            raise Shortage(reason) from error


@contextmanager
def lowering(through: Target | None, lost: Lost) -> Iterator[Lowering]:
    """A Lowering with a temporary file of its own, which adds to `lost` what the format cannot say."""
    with tempfile.TemporaryFile() as scratch:
        yield Lowering(through, scratch.fileno(), lost)


def spool_lines(reader: Reader, spool: Spool, domain: bytes | None) -> None:
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
