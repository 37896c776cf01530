"""Lists of addresses: single ones and whole domains, in a constant database or as lines of text.

Most consumers read no more than that.  What differs is how a domain is spelled, what the
value is, and which bytes a line can hold.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from rcptgen.errors import ConfigurationError
from rcptgen.publish.cdb import CdbWriter
from rcptgen.targets.base import Answer, Line, Reader, Says, Writer
from rcptgen.targets.files import CdbReader, Record
from rcptgen.targets.formats import Get, Options, TextFormat, rewritten_cdb

WORDS = re.compile(rb"[\x00-\x09\x0b-\x20\x7f]|^#", re.MULTILINE)
"""What a line of words cannot hold; names are joined by newlines."""

DOMAIN = re.compile(rb"[^A-Za-z0-9._-]")


class Form(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`form`: a constant database, or text."""

    form: Literal["cdb", "text"] = "cdb"


class TextForm(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`form`: text, or a constant database."""

    form: Literal["cdb", "text"] = "text"


class Addresses(TextFormat):
    """Base: `whole` and a domain is the key of a whole domain."""

    options: ClassVar[type[Options]] = Options
    says = Says()
    whole = b"@"
    accept = b"1"
    refuse = b"-"
    text_bad: re.Pattern[bytes] | None = WORDS
    cdb_bad: re.Pattern[bytes] | None = None

    def configure(self) -> None:
        """A constant database takes every byte, a line does not."""
        self.is_cdb = getattr(self.given, "form", "text") == "cdb"
        self.bad = self.cdb_bad if self.is_cdb else self.text_bad
        self.newlines = self.is_cdb
        if not self.is_cdb:
            self.bad_domain = DOMAIN

    def key(self, prefix: bytes, domain: bytes) -> bytes:
        """The key of the whole domain."""
        return self.whole + domain if not prefix else super().key(prefix, domain)

    def look(self, address: bytes, get: Get) -> Answer:
        """The address in lower case, then the domain."""
        address = address.lower()
        _, at, domain = address.rpartition(b"@")
        for key in (address, self.whole + domain) if at else (address,):
            value = get(key)
            if value is not None:
                return self.judged(key, value)
        return self.unlisted(address)

    def judged(self, key: bytes, value: bytes) -> Answer:
        """What a key that was found means."""
        return Answer(value != self.refuse, key)

    def unlisted(self, address: bytes) -> Answer:
        """What no key at all means."""
        return Answer(False, None, undecided=self.says.undecided)

    def line(self, key: bytes, value: bytes) -> Line | None:
        """The rule that a record states."""
        accepted = self.judged(key, value).accepted
        local, at, domain = key.rpartition(b"@")
        if not at:
            return None if self.whole else Line(key, b"", True, accepted)
        if local + at == self.whole:
            return Line(domain, b"", True, accepted)
        return Line(domain, local, False, accepted)

    def tail(self, value: bytes) -> bytes:
        """The value, behind a blank."""
        return b" " + value + b"\n"

    def parse(self, line: bytes) -> Record | None:
        """A word, and what stands behind it."""
        if not line.strip() or line.startswith(b"#"):
            return None
        key, _, value = line.partition(b" ")
        return Record(key, value.strip())

    def writer(self, descriptor: int) -> Writer:
        """A cdb, or lines."""
        return CdbWriter(descriptor) if self.is_cdb else super().writer(descriptor)

    def rewriter(self, descriptor: int, old: int) -> Writer:
        """The same, made of another one."""
        return rewritten_cdb(descriptor, old) if self.is_cdb else super().rewriter(descriptor, old)

    def open(self, path: bytes | int) -> Reader:
        """The file at `path`.  Raises UsageTrouble where it is none."""
        return CdbReader(path, self.look, self.line) if self.is_cdb else super().open(path)


class Lines(Addresses):
    """Base of lists without values: a line is the key."""

    def tail(self, value: bytes) -> bytes:
        """Nothing but the newline."""
        return b"\n"

    def parse(self, line: bytes) -> Record | None:
        """The whole line."""
        return None if not line.strip() or line.startswith(b"#") else Record(line, self.accept)


def one_character(text: str, key: str) -> bytes:
    """An option that is one character or none.  Raises ConfigurationError."""
    if len(text.encode()) > 1:
        raise ConfigurationError(f"{key} is one character, or empty for none")
    return text.encode()
