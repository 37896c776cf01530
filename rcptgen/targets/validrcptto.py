"""validrcptto.cdb for the later qmail-smtpd patch, which can say nearly everything.

Look-up: the address in lower case; then, cutting the local part at each break character
from the right, `LEFT-default@domain`; then `@domain`.  The first key that exists decides,
and a value that begins with `-` refuses.  An address without `@` is only looked up whole.
"""

from __future__ import annotations

from collections.abc import Iterable

from rcptgen.targets.base import Answer, Batch, Line, Prefixes, Says
from rcptgen.targets.formats import CdbFormat, Get

DEFAULT = b"default"
# Readers such as Postfix stumble over an empty value, so an acceptance has one.
ACCEPT = b"1"
REFUSE = b"-"


class Validrcptto(CdbFormat):
    """Writer and reader of validrcptto.cdb for a qmail-smtpd with the break character `break_`."""

    name = "validrcptto"
    says = Says(prefixes=Prefixes.BREAK, refuse_exact=True, refuse_prefix=True)
    remembers = True
    lone = True

    def configure(self) -> None:
        """A name that ends in -default has the key of its prefix."""
        self.double_end = self.break_ + DEFAULT if self.break_ else b""

    def key(self, prefix: bytes, domain: bytes) -> bytes:
        """PREFIX-default@domain, or @domain."""
        return prefix + DEFAULT + b"@" + domain if prefix else b"@" + domain

    def double(self, name: bytes) -> bytes | None:
        """What stands in front of -default."""
        return name[: -len(DEFAULT)]

    def bare(self, names: Iterable[bytes]) -> Batch:
        """The records for addresses without a domain, which are looked up whole."""
        return sorted(names), ACCEPT

    def look(self, address: bytes, get: Get) -> Answer:
        """What qmail-smtpd does with `address`."""
        key = address = address.lower()
        value = get(key)
        local, at, domain = address.rpartition(b"@")
        cut = len(local)
        while value is None and at and self.break_:
            cut = local.rfind(self.break_, 0, cut)
            if cut < 0:
                break
            key = local[: cut + 1] + DEFAULT + b"@" + domain
            value = get(key)
        if value is None and at:
            key = b"@" + domain
            value = get(key)
        return Answer(False, None) if value is None else Answer(not value.startswith(REFUSE), key)

    def line(self, key: bytes, value: bytes) -> Line | None:
        """The rule that a record states."""
        local, at, domain = key.rpartition(b"@")
        accepted = not value.startswith(REFUSE)
        if not at:
            return Line(None, key, False, accepted)
        if not local:
            return Line(domain, b"", True, accepted)
        if self.double_end and local.endswith(self.double_end):
            return Line(domain, local[: -len(DEFAULT)], True, accepted)
        return Line(domain, local, False, accepted)
