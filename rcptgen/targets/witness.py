"""Proof of a compiled file: addresses at the boundary of every rule, and what must be answered to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

from rcptgen.rules.table import Table
from rcptgen.targets.base import Line, Reader, Widened

SAMPLE = 20_000
SPARSE = 512
AROUND = 6
"""Witnesses of one exact rule."""

UNKNOWN = b"rcptgen-witness-no-such-name"
NEIGHBOUR = b"rcptgen-witness."
"""In front of a domain: one that no host has."""

ASKED = 200_000
"""Witnesses that a reader is asked about at a time."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """An address that a file answers otherwise than the rules; `key` is the one that answered, in which `step`."""

    address: bytes
    accepted: bool
    key: bytes | None
    step: str = ""


@dataclass(slots=True)
class Proof:
    """The witnesses of one run.  Above `sample` of them only every SPARSE-th rule gives some, unless `full`."""

    full: bool = False
    sample: int = SAMPLE
    _wanted: list[tuple[bytes, bool]] = field(default_factory=list)
    _rules: int = 0

    def add(self, domain: bytes, table: Table, *, most: int | None = None) -> None:
        """Takes the witnesses of one domain, of at most so many rules of an outcome."""
        for address, local in self._addresses(domain, table, most):
            found = table.match(local.lower())
            self._wanted.append((address, found is not None and found.accepted))
        if self.full or len(self._wanted) < SAMPLE:
            self._wanted.append((UNKNOWN + b"@" + NEIGHBOUR + domain, False))

    def add_lines(self, domain: bytes, table: Table | None, lines: Iterable[Line]) -> None:
        """Takes what a file itself holds of a domain (None: it is no domain of the host) as witnesses."""
        for line in lines:
            local = line.name + (UNKNOWN if line.prefix else b"")
            if local:
                found = table.match(local.lower()) if table is not None else None
                self._wanted.append((local + b"@" + domain, found is not None and found.accepted))

    def _addresses(self, domain: bytes, table: Table, most: int | None) -> Iterator[tuple[bytes, bytes]]:
        at = b"@" + domain
        yield UNKNOWN + at, UNKNOWN
        for name, prefix in self._boundaries(table, most):
            for local in _around(name, prefix):
                if local:
                    yield local + at, local

    def _boundaries(self, table: Table, most: int | None) -> Iterator[tuple[bytes, bool]]:
        for name in islice(self._taken(table.prefixes, len(table.prefixes)), most):
            yield name, True
        for names in table.groups.values():
            for name in islice(self._taken(names, names.count), most):
                yield name, False

    def _taken(self, names: Iterable[bytes], count: int) -> Iterable[bytes]:
        """Those of `count` names that are used."""
        before = self._rules
        self._rules += count
        if self.full:
            return names
        missing = self.sample - len(self._wanted)
        wanted = -(-missing // AROUND) if missing > 0 else 0
        first = -before % SPARSE
        if wanted >= count:
            return names
        if first + wanted >= count:
            # Most groups of a large host: their names need not be taken apart.
            return islice(names, wanted) if wanted else ()
        return chain(islice(names, wanted), islice(names, first + wanted, None, SPARSE))

    def __len__(self) -> int:
        return len(self._wanted)

    def check(
        self, reader: Reader, sayable: Callable[[bytes, bytes], bool] | None = None, left_out: Collection[bytes] = ()
    ) -> tuple[list[Wrong], list[Wrong]]:
        """The false refusals and the false acceptances of a compiled file.

        Nothing is asked of the domains in `left_out`; an address that is not `sayable` is no
        false refusal.
        """
        refused: list[Wrong] = []
        accepted: list[Wrong] = []
        for at in range(0, len(self._wanted), ASKED):
            wanted = self._wanted[at : at + ASKED]
            if left_out:
                wanted = [one for one in wanted if not _of(one[0], left_out)]
            answers = reader.answers([address for address, _ in wanted])
            for (address, expected), answer in zip(wanted, answers, strict=True):
                if answer.accepted == expected:
                    continue
                if not expected:
                    accepted.append(Wrong(address, True, answer.key, answer.step))
                    continue
                local, _, domain = address.lower().rpartition(b"@")
                if sayable is None or sayable(local, domain):
                    refused.append(Wrong(address, False, answer.key))
        return refused, accepted


def _of(address: bytes, domains: Collection[bytes]) -> bool:
    """Whether an address is of one of `domains`, or of the neighbour of one."""
    domain = address.rpartition(b"@")[2]
    return domain in domains or domain.removeprefix(NEIGHBOUR) in domains


def explained(wrong: Iterable[Wrong], widened: Iterable[Widened]) -> tuple[list[Wrong], list[Wrong]]:
    """The false acceptances that `widened` reports, and the others."""
    keys: set[bytes | None] = set()
    steps: set[str] = set()
    for one in widened:
        if one.key:
            keys.add(one.key)
        else:
            steps.add(one.reason)
    known: list[Wrong] = []
    unknown: list[Wrong] = []
    for found in wrong:
        (known if found.key in keys or (found.step and found.step in steps) else unknown).append(found)
    return known, unknown


def _around(name: bytes, prefix: bool) -> Iterator[bytes]:
    """Local parts at and beside a rule: itself, upper case, shorter, longer, with extensions."""
    yield name
    yield name.upper()
    yield name[:-1]
    yield name + b"x"
    yield name + b"-"
    yield name + b"-x"
    if prefix:
        yield name + b"x-default"
        yield name + b"default"
