"""What every target shares: the ways a rule can be lowered, and what a reader must answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rcptgen.rules.outcome import Outcome
from rcptgen.rules.table import Table

Batch = tuple[Sequence[bytes], bytes]
"""Keys, in the order of the file, and the value that all of them have."""


@dataclass(frozen=True, slots=True)
class Widened:
    """A key that accepts more than the rules do: which, for which rule (as `list` writes it), and why."""

    key: bytes
    rule: bytes
    reason: str
    file: bytes
    line: int


@dataclass(frozen=True, slots=True)
class Unsayable:
    """A rule that the format cannot say and that is not widened either."""

    rule: bytes
    reason: str
    file: bytes
    line: int


@dataclass(slots=True)
class Lowered:
    """One domain in the terms of a target; `batches` are made as they are asked for, once."""

    batches: Iterable[Batch]
    widened: list[Widened]
    unsayable: list[Unsayable]
    exact: int = 0
    wildcards: int = 0
    refusals: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a consumer does with an address, and the key that answered (None: none did)."""

    accepted: bool
    key: bytes | None


@dataclass(frozen=True, slots=True)
class Line:
    """One rule read back from a compiled file; an empty `name` of a prefix rule stands for the whole domain.

    `domain` is None for an address without one.
    """

    domain: bytes | None
    name: bytes
    prefix: bool
    accepted: bool

    @property
    def text(self) -> bytes:
        """The rule as `list` writes it."""
        return written(self.name, self.prefix, self.accepted, self.domain)


class Reader(Protocol):
    """A compiled file, opened, as its consumer looks into it."""

    def answer(self, address: bytes) -> Answer:
        """What the consumer does with `address`."""
        ...

    def lines(self) -> Iterator[Line]:
        """Every rule in the file, in its order."""
        ...

    def close(self) -> None:
        """Gives the file back."""
        ...


class Writer(Protocol):
    """A file on its way."""

    def put(self, keys: Sequence[bytes], value: bytes) -> None:
        """Appends a record for each key.  Raises PublishFailed where they cannot be written."""
        ...

    def finish(self) -> int:
        """The file is whole; returns how many records it has."""
        ...


class Target(Protocol):
    """One output format."""

    name: str

    def lower(self, domain: bytes, table: Table) -> Lowered:
        """The records that say `table` for `domain`: accepting more where they must, never less."""
        ...

    def bare(self, names: Iterable[bytes]) -> Batch:
        """The records for addresses without a domain."""
        ...

    def writer(self, descriptor: int) -> Writer:
        """What writes the file to `descriptor`, from records in ascending order of domains."""
        ...

    def open(self, path: bytes | int) -> Reader:
        """The file at `path` (or open as a descriptor) as its consumer reads it."""
        ...


def written(name: bytes, prefix: bool, accepted: bool, domain: bytes | None) -> bytes:
    """A rule as a person writes it: user@domain, prefix-*@domain, *@domain, refusals with `!` in front."""
    text = name + (b"*" if prefix else b"")
    if domain is not None:
        text += b"@" + domain
    return text if accepted else b"!" + text


def rule_text(name: bytes, prefix: bool, outcome: Outcome, domain: bytes) -> bytes:
    """The rule of a table as a person writes it."""
    return written(name, prefix, outcome.accepted, domain)
