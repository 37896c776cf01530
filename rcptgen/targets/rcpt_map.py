"""A map for the qpsmtpd plugin rcpt_map, which has one file for each domain.

Look-up, without regard to case, for addresses of its domain only: a line `address CODE
message`; without one the plugin's `default`.  That is not in the file: a first comment says
what it must be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rcptgen.errors import ConfigurationError
from rcptgen.rules.outcome import Outcome
from rcptgen.rules.table import Table
from rcptgen.targets.addresses import Addresses
from rcptgen.targets.base import Answer, Batch, Line, Lowered, Says
from rcptgen.targets.files import Record
from rcptgen.targets.formats import Get, Options
from rcptgen.targets.lowering import Said

DEFAULT = b"# default="


class Domain(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`domain`: the one that the file is for."""

    domain: str = ""


class RcptMap(Addresses):
    """DECLINED lets the plugins behind it decide, as rcpt_ok must; DENY refuses."""

    name = "rcpt-map"
    options = Domain
    says = Says(refuse_exact=True, refuse_whole=True, undecided=True)
    # Without a message the plugin would take the end of the line for a part of the code.
    accept = b"DECLINED a recipient"
    refuse = b"DENY No such user."

    def configure(self) -> None:
        """The file's domain."""
        super().configure()
        self.domain = self.given.domain.lower().encode()
        if not self.domain:
            raise ConfigurationError('target rcpt-map: its option domain = "..." says which domain the file is for')

    def sayable(self, local: bytes, domain: bytes) -> bool:
        """Whether an address is of the domain, and fits a line."""
        return domain == self.domain and super().sayable(local, domain)

    def lower(self, domain: bytes, table: Table) -> Lowered:
        """The lines of the one domain; of others there are none."""
        return super().lower(domain, table) if domain == self.domain else Lowered((), [], [], left_out=True)

    def value(self, outcome: Outcome) -> bytes:
        """A code of qpsmtpd and a message."""
        return self.accept if outcome.accepted else self.refuse

    def key(self, prefix: bytes, domain: bytes) -> bytes:
        """The comment that says what the plugin's default must be."""
        return DEFAULT

    def batches(self, said: Said) -> Iterator[Batch]:
        """The comment comes first."""
        yield [DEFAULT], self.value(said.whole)
        yield from super().batches(said)

    def wilds(self, said: Said) -> list[tuple[bytes, Outcome]]:
        """The domain is in the comment."""
        return []

    def render(self, keys: Sequence[bytes], value: bytes) -> bytes:
        """A line for each key; the comment is spelled as the plugin's own argument."""
        if DEFAULT in keys:
            return DEFAULT + value.replace(b" ", b"=", 1).replace(b" ", b"_") + b"\n"
        return super().render(keys, value)

    def look(self, address: bytes, get: Get) -> Answer:
        """The address, then the default."""
        address = address.lower()
        if address.rpartition(b"@")[2] != self.domain:
            return self.unlisted(address)
        for key in (address, DEFAULT):
            value = get(key)
            if value is not None:
                return Answer(not value.startswith(b"DENY"), key)
        return Answer(False, None)

    def line(self, key: bytes, value: bytes) -> Line | None:
        """The rule that a line states."""
        accepted = not value.startswith(b"DENY")
        if key == DEFAULT:
            return Line(self.domain, b"", True, accepted)
        return Line(self.domain, key.rpartition(b"@")[0], False, accepted)

    def parse(self, line: bytes) -> Record | None:
        """An address and a code, or the comment."""
        if line.startswith(DEFAULT):
            return Record(DEFAULT, line[len(DEFAULT) :], wild=True)
        return super().parse(line)
