"""What every target shares: the ways a rule can be lowered, and what a reader must answer."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rcptgen.rules.outcome import Outcome
from rcptgen.rules.table import Table

Batch = tuple[Sequence[bytes], bytes]
"""Keys, in the order of the file, and the value that all of them have."""

MOST_LISTED = 100_000
"""Widened and unsayable rules of one domain that are kept one by one; beyond, they are only counted."""


class Prefixes(enum.Enum):
    """The prefixes that a format can say, beside the empty one (a whole domain)."""

    NONE = "none"
    FIRST = "those that end at their first break character"
    BREAK = "those that end at a break character"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Says:
    """What a format can express; what it cannot is widened, see `lowering`.

    `exact`: single addresses.  `prefixes`: see `Prefixes`.  `refuse_exact`, `refuse_prefix`:
    an exception below something that is accepted.  `refuse_whole`: a domain's unknown names
    are only refused where the file says so, and for the others another checker decides
    (`undecided`: the file can leave a domain to it).
    """

    exact: bool = True
    prefixes: Prefixes = Prefixes.NONE
    refuse_exact: bool = False
    refuse_prefix: bool = False
    refuse_whole: bool = False
    undecided: bool = False


@dataclass(frozen=True, slots=True)
class Widened:
    """A key that accepts more than the rules do: which, for which rule (as `list` writes it), and why.

    An empty `key`: not one key, but a step of the consumer's look-up, which `reason` names (`Answer.step`).
    """

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
    """One domain in the terms of a target; `batches` are made as they are asked for, once.

    `widened_more` and `unsayable_more` count what is beyond MOST_LISTED.  `losses` are the
    widenings that the format is to blame for, not the rules.  `left_out`: the file says
    nothing of the domain, and its consumer has another checker or refuses it.
    """

    batches: Iterable[Batch]
    widened: list[Widened]
    unsayable: list[Unsayable]
    exact: int = 0
    wildcards: int = 0
    refusals: int = 0
    widened_more: int = 0
    unsayable_more: int = 0
    losses: int = 0
    left_out: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a consumer does with an address, and the key that answered (None: none did).

    `undecided`: the consumer asks its next checker.  `step`: a step of the look-up that
    takes in more than the key says (an extension cut off, a sub-domain).
    """

    accepted: bool
    key: bytes | None
    undecided: bool = False
    step: str = ""


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

    def answers(self, addresses: Sequence[bytes]) -> Iterator[Answer]:
        """The same for many, in their order; the file is read through once where it has no index."""
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


@runtime_checkable
class Copier(Writer, Protocol):
    """A writer that can take records as they stand in another file of its format."""

    count: int
    """How many records there are so far."""

    @property
    def position(self) -> int:
        """Where the next record will stand."""
        ...

    def copy(self, old: int, start: int, size: int, count: int) -> None:
        """Appends the `count` records that take `size` bytes at `start` of the file behind the descriptor `old`."""
        ...

    def instead(self, start: int, size: int) -> None:
        """What is put next, until `position` is asked for, takes the place of these records of the other file."""
        ...


class Target(Protocol):
    """One output format, with its options and its policy for what it cannot say."""

    name: str
    wildcards: str
    """What becomes of rules that the format cannot say.

    `widen`; `drop-domain` leaves a domain with losses out; `refuse` publishes nothing then.
    """

    remembers: bool
    """Whether a file states the rules it was made from, so that a later run may be compared with it."""

    hashed: bool
    """Whether a file has hashes for names."""

    def sayable(self, local: bytes, domain: bytes) -> bool:
        """Whether the bytes of an address can stand in the file at all."""
        ...

    def hashes(self, name: bytes) -> Iterable[tuple[bytes, bytes]]:
        """Where a file has hashes: what a Line has for `name` and for each prefix of it, and these."""
        ...

    def lower(self, domain: bytes, table: Table) -> Lowered:
        """The records that say `table` for `domain`: accepting more where they must, never less."""
        ...

    def bare(self, names: Iterable[bytes]) -> Batch:
        """The records for addresses without a domain."""
        ...

    def writer(self, descriptor: int) -> Writer:
        """What writes the file to `descriptor`, from records in ascending order of domains."""
        ...

    def rewriter(self, descriptor: int, old: int) -> Writer:
        """As `writer`, for a file most of whose records are those of the file behind the descriptor `old`."""
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
