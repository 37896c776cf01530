"""sql: a script that fills two tables, for db/user of qpsmtpd and its kin.

    domains(domain)            the domains that the list decides about
    recipients(address)        every address that is accepted there

Look-up: the domain; if it is there, the address.  A consumer of that kind knows no whole
domains: one that is accepted whole, or has a prefix, is left out, and the next checker
decides.  The script is one transaction.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from rcptgen.errors import ConfigurationError
from rcptgen.rules.outcome import Outcome
from rcptgen.targets.addresses import Addresses
from rcptgen.targets.base import Answer, Line, Lowered, Says
from rcptgen.targets.files import Record
from rcptgen.targets.formats import Get, Options
from rcptgen.targets.lowering import Said

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
DOMAIN_MARK = b"d"
END = b"');\n"


class Tables(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The names of the tables; `dialect`: how a backslash is spelled."""

    recipients: str = "recipients"
    domains: str = "domains"
    dialect: Literal["standard", "mysql"] = "standard"


class Sql(Addresses):
    """One INSERT a line."""

    name = "sql"
    options = Tables
    says = Says(refuse_whole=True, undecided=True)
    text_bad = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f-\xff]")
    foot = b"COMMIT;\n"

    def configure(self) -> None:
        """The names of the tables stand in the script as they are."""
        super().configure()
        for table in (self.given.recipients, self.given.domains):
            if not NAME.match(table):
                raise ConfigurationError(f"target sql: {table!r} is no name of a table")
        begin = "START TRANSACTION" if self.given.dialect == "mysql" else "BEGIN"
        names = (self.given.domains, self.given.recipients)
        emptied = "".join(f"DELETE FROM {one};\n" for one in names)  # noqa: S608 - names of tables, judged above
        self.head = f"{begin};\n{emptied}".encode()
        self.inserts = {
            mark: f"INSERT INTO {table} VALUES ('".encode()  # noqa: S608 - the same
            for mark, table in ((DOMAIN_MARK, self.given.domains), (self.accept, self.given.recipients))
        }

    def lowered(self, said: Said) -> Lowered:
        """A domain that is accepted whole is left out."""
        if said.whole.accepted and self.wildcards != "drop-domain":
            low = super().lowered(said)
            return replace(low, batches=(), exact=0, refusals=0, left_out=True)
        return super().lowered(said)

    def value(self, outcome: Outcome) -> bytes:
        """Which table a key belongs in."""
        return self.accept if outcome.accepted else DOMAIN_MARK

    def key(self, prefix: bytes, domain: bytes) -> bytes:
        """The bare domain."""
        return domain

    def render(self, keys: Sequence[bytes], value: bytes) -> bytes:
        """An INSERT for each key, quotes doubled."""
        insert = self.inserts[value]
        text = b"\n".join(keys).replace(b"'", b"''")
        if self.given.dialect == "mysql":
            text = text.replace(b"\\", b"\\\\")
        return insert + text.replace(b"\n", END + insert) + END

    def parse(self, line: bytes) -> Record | None:
        """The value of an INSERT."""
        for mark, insert in self.inserts.items():
            if line.startswith(insert) and line.endswith(END[:-1]):
                text = line[len(insert) : 1 - len(END)].replace(b"''", b"'")
                if self.given.dialect == "mysql":
                    text = text.replace(b"\\\\", b"\\")
                return Record(text, mark)
        raise ValueError

    def look(self, address: bytes, get: Get) -> Answer:
        """The domain; where the list has it, the address."""
        address = address.lower()
        domain = address.rpartition(b"@")[2]
        value = get(address)
        if get(domain) is None:
            return Answer(False, None, undecided=True)
        return Answer(value is not None, address if value is not None else None)

    def line(self, key: bytes, value: bytes) -> Line | None:
        """The address, or the refusal of everything else in its domain."""
        local, _, domain = key.rpartition(b"@")
        return Line(key, b"", True, False) if value == DOMAIN_MARK else Line(domain, local, False, True)
