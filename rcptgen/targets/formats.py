"""What formats are made of: keys from rules, one domain after the other, and files of lines or records.

A target is a subclass that says what its format can express and how its consumer looks up.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, ClassVar

import msgspec

from rcptgen.errors import ConfigurationError
from rcptgen.publish.cdb import CdbWriter
from rcptgen.publish.splice import CdbSplice, Unfit
from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Outcome
from rcptgen.rules.table import Table
from rcptgen.targets.base import Answer, Batch, Line, Lowered, Reader, Says, Unsayable, Writer
from rcptgen.targets.files import CdbReader, Record, TextReader, TextWriter
from rcptgen.targets.lowering import Lowering, Said, spellable

BATCH = 20_000
"""Names of one outcome that are put in order with the other keys of their domain; more follow behind them."""

Get = Callable[[bytes], bytes | None]
"""The value under a key of a file, or None."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of a target in `[[output]]`; this one: there are none."""


class Format(ABC):
    """A target; see `Target` for what each method promises and `Form` for the attributes."""

    name: str
    options: ClassVar[type[Options]] = Options
    says: Says
    remembers = False
    hashed = False
    lone = False
    double_end = b""
    bad: re.Pattern[bytes] | None = None
    bad_domain: re.Pattern[bytes] | None = None
    newlines = False

    def __init__(self, break_: bytes = b"-", wildcards: str = "widen", given: Options | None = None) -> None:
        self.break_ = break_
        self.wildcards = wildcards
        self.given: Any = self.options() if given is None else given
        self.configure()
        if wildcards == "drop-domain" and not self.says.undecided:
            raise ConfigurationError(f"{self.name}: its consumer has no other checker: no drop-domain")

    def configure(self) -> None:  # noqa: B027 - most formats have nothing to settle
        """Settles what hangs on the options in `given`; raises ConfigurationError where they do not fit."""

    # -- what a format may say in its own way ------------------------------------------------

    def key(self, prefix: bytes, domain: bytes) -> bytes:
        """The key of a prefix; that of the whole domain for the empty one."""
        return prefix + b"@" + domain

    def keys(self, names: Iterable[bytes], domain: bytes) -> list[bytes]:
        """The keys of names, in their order."""
        at = b"@" + domain
        return [name + at for name in names]

    def exact_key(self, name: bytes, domain: bytes) -> bytes:
        """The key of one name."""
        return self.keys((name,), domain)[0]

    def refused_keys(self, names: Iterable[bytes], domain: bytes) -> list[bytes]:
        """The keys that refuse names."""
        return self.keys(names, domain)

    def refused_key(self, prefix: bytes, domain: bytes) -> bytes:
        """The key that refuses a prefix."""
        return self.key(prefix, domain)

    def value(self, outcome: Outcome) -> bytes:
        """What stands at the key of a rule."""
        return b"1" if outcome.accepted else b"-"

    def double(self, name: bytes) -> bytes | None:
        """The prefix whose key is that of `name`."""
        return None

    @abstractmethod
    def look(self, address: bytes, get: Get) -> Answer:
        """What the consumer does with `address`; it asks `get` for its keys."""

    @abstractmethod
    def line(self, key: bytes, value: bytes) -> Line | None:
        """The rule that a record states; None: none."""

    def adapt(self, said: Said) -> None:  # noqa: B027 - most consumers take keys one by one
        """Puts right what the look-up of the consumer makes of keys that stand together."""

    # -- lowering ------------------------------------------------------------------------------

    def sayable(self, local: bytes, domain: bytes) -> bool:
        """Whether the bytes of an address can stand in the file at all."""
        if self.bad_domain is not None and self.bad_domain.search(domain):
            return False
        return spellable(self, local)

    def hashes(self, name: bytes) -> Iterable[tuple[bytes, bytes]]:
        """None: most files have the names."""
        return ()

    def lower(self, domain: bytes, table: Table) -> Lowered:
        """The records that say `table` for `domain`: accepting more where they must, never less."""
        if self.bad_domain is not None and (self.bad_domain.search(domain) or b"\n" in domain):
            reason = "the format has no spelling for some bytes of the domain: left out"
            return Lowered((), [], [Unsayable(b"*@" + domain, reason, b"", 0)], left_out=True)
        said = Lowering(self, domain, table).run()
        self.adapt(said)
        return self.lowered(said)

    def lowered(self, said: Said) -> Lowered:
        """What was said of a domain, counted, with its records."""
        if said.losses and self.wildcards == "drop-domain":
            return _dropped(said)
        wildcards = sum(outcome.accepted for _, outcome in said.prefixes) + said.whole.accepted
        refusals = sum(not outcome.accepted for _, outcome in said.prefixes)
        refusals += sum(len(names) for _, names in said.refused)
        return Lowered(
            self.batches(said),
            said.widened,
            said.unsayable,
            exact=sum(len(names) for _, names in said.accepted),
            wildcards=wildcards,
            refusals=refusals + (self.says.refuse_whole and not said.whole.accepted),
            widened_more=said.widened_more,
            unsayable_more=said.unsayable_more,
            losses=said.losses,
        )

    def batches(self, said: Said) -> Iterator[Batch]:
        """The records of a domain, sorted by key but for very many names, which follow in their own order."""
        domain = said.domain
        by_value: dict[bytes, list[bytes]] = {}
        many: list[tuple[Names, bytes]] = []
        for outcome, names in said.accepted:
            value = self.value(outcome)
            if len(names) > BATCH:
                many.append((names, value))
            else:
                by_value.setdefault(value, []).extend(self.keys(names, domain))
        for outcome, refused in said.refused:
            by_value.setdefault(self.value(outcome), []).extend(self.refused_keys(refused, domain))
        for prefix, outcome in self.wilds(said):
            key = self.key if outcome.accepted else self.refused_key
            by_value.setdefault(self.value(outcome), []).append(key(prefix, domain))
        if len(by_value) <= 1:
            for value, keys in by_value.items():
                yield sorted(keys), value
        else:
            values = {key: value for value, keys in by_value.items() for key in keys}
            for value, run in groupby(sorted(values), values.__getitem__):
                yield list(run), value
        # A million names are never spelled out at once, nor put in one order with the others.
        for names, value in many:
            for some in names.stretches():
                yield self.keys(some, domain), value

    def wilds(self, said: Said) -> list[tuple[bytes, Outcome]]:
        """The prefixes to write, the whole domain among them where it must be."""
        whole = [(b"", said.whole)] if said.whole.accepted or self.says.refuse_whole else []
        return whole + said.prefixes

    def bare(self, names: Iterable[bytes]) -> Batch:
        """No records: most consumers put a domain behind an address without one before they look it up."""
        return (), b""

    # -- files ---------------------------------------------------------------------------------

    @abstractmethod
    def writer(self, descriptor: int) -> Writer:
        """What writes the file to `descriptor`."""

    def rewriter(self, descriptor: int, old: int) -> Writer:
        """As `writer`, for a file most of whose records are those of the file behind `old`."""
        return self.writer(descriptor)

    @abstractmethod
    def open(self, path: bytes | int) -> Reader:
        """The file at `path` as its consumer reads it."""


class CdbFormat(Format):
    """A constant database."""

    newlines = True

    def writer(self, descriptor: int) -> Writer:
        """A cdb of the records, in their order."""
        return CdbWriter(descriptor)

    def rewriter(self, descriptor: int, old: int) -> Writer:
        """The same, made of another one."""
        return rewritten_cdb(descriptor, old)

    def open(self, path: bytes | int) -> Reader:
        """The cdb at `path`.  Raises UsageTrouble where it is none."""
        return CdbReader(path, self.look, self.line)


class TextFormat(Format):
    """A file of lines, each a key and what its value adds in front and behind."""

    head = b""
    foot = b""

    def render(self, keys: Sequence[bytes], value: bytes) -> bytes:
        """The lines of `keys`, ended."""
        tail = self.tail(value)
        return tail.join(keys) + tail

    def tail(self, value: bytes) -> bytes:
        """What stands behind a key, the newline included."""
        return b"\n"

    @abstractmethod
    def parse(self, line: bytes) -> Record | None:
        """The record that a line (without its newline) holds; None: a comment.  Raises ValueError."""

    def writer(self, descriptor: int) -> Writer:
        """The lines of the records, in their order."""
        return TextWriter(descriptor, self.render, self.head, self.foot)

    def open(self, path: bytes | int) -> Reader:
        """The file at `path`.  Raises UsageTrouble where it cannot be read or is another's."""
        return TextReader(path, self.name, self.parse, self.look, self.line, self.head, self.foot)


def rewritten_cdb(descriptor: int, old: int) -> Writer:
    """What writes a cdb, most of whose records are those of the cdb behind `old`."""
    try:
        return CdbSplice(descriptor, old)
    except Unfit:
        return CdbWriter(descriptor)


def _dropped(said: Said) -> Lowered:
    """A domain that is left to another checker, with what the format could not say of it."""
    reason = "left out, so that another checker decides: "
    rules = [Unsayable(one.rule, reason + one.reason, one.file, one.line) for one in said.widened if one.key]
    return Lowered((), [], rules + said.unsayable, unsayable_more=said.widened_more, left_out=True)
