"""ldif: entries with a mailLocalAddress, for ldapadd and slapadd.

A consumer asks for (mailLocalAddress=user@domain), then (mailLocalAddress=@domain).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

from rcptgen.targets.addresses import Lines
from rcptgen.targets.files import Record
from rcptgen.targets.formats import Options

_DN = re.compile(rb'[,+"\\<>;=#\x00 ]')
_SAFE = re.compile(rb"[!-9;=-~][ -~]*")
ATTRIBUTE = b"mailLocalAddress:"


class Base(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`base`: the entry that all stand below."""

    base: str = "ou=recipients"


class Ldif(Lines):
    """One entry an address; values that are no plain text are in base64."""

    name = "ldif"
    options = Base
    head = b"version: 1\n"
    lone = True
    text_bad = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f-\xff]")  # an IA5 string

    def configure(self) -> None:
        """The base of every name."""
        super().configure()
        self.base = self.given.base.encode()

    def render(self, keys: Sequence[bytes], value: bytes) -> bytes:
        """An entry for each key."""
        return b"".join(self._entry(key) for key in keys)

    def _entry(self, key: bytes) -> bytes:
        named = _DN.sub(lambda found: b"\\%02x" % found[0][0], key)
        return (
            b"\n"
            + _attribute(b"dn:", b"uid=" + named + b"," + self.base)
            + b"objectClass: account\nobjectClass: inetLocalMailRecipient\n"
            + _attribute(b"uid:", key)
            + _attribute(ATTRIBUTE, key)
        )

    def parse(self, line: bytes) -> Record | None:
        """The address of an entry."""
        if not line.startswith(ATTRIBUTE):
            return None
        rest = line[len(ATTRIBUTE) :]
        if rest.startswith(b": "):
            return Record(base64.b64decode(rest[2:], validate=True), self.accept)
        return Record(rest.removeprefix(b" "), self.accept)


def _attribute(name: bytes, value: bytes) -> bytes:
    if _SAFE.fullmatch(value) and not value.endswith(b" "):
        return name + b" " + value + b"\n"
    return name + b": " + base64.b64encode(value) + b"\n"
