"""rcptgen's own constant database: every rule, with what the host does and the code that other checkers know it by.

Keys are `=` and an address, and `*`, a prefix and `@domain`; the value is a code of two hex
digits (those of qmail-deliverabled, 00: no), a blank, and the kind.  Look-up: the address
in lower case, then every prefix of the local part, the longest first; the first key decides.
"""

from __future__ import annotations

from collections.abc import Iterable

from rcptgen.rules.outcome import HOME_STICKY, HOME_WRITABLE, Kind, Outcome, Verdict
from rcptgen.targets.base import Answer, Batch, Line, Prefixes, Says
from rcptgen.targets.formats import CdbFormat, Get
from rcptgen.targets.listing import EXACT, PREFIX, inner_keys

REFUSED = b"00"
NORMAL = b"f1"
COMMAND = b"12"
CODES = {
    Kind.CATCHALL: b"f4",
    Kind.VPOPMAIL: b"f5",
    Kind.VALIAS: b"f3",
    Kind.PROGRAM: COMMAND,
    Kind.LIST: COMMAND,
    Kind.UNKNOWN: COMMAND,
    Kind.RELAY: b"ff",
}
DEFERRED = {HOME_WRITABLE: b"21", HOME_STICKY: b"22"}
PERMISSION = b"11"


class Rcptgen(CdbFormat):
    """Lossless."""

    name = "rcptgen"
    says = Says(prefixes=Prefixes.ANY, refuse_exact=True, refuse_prefix=True)

    def key(self, prefix: bytes, domain: bytes) -> bytes:
        """*PREFIX@domain."""
        return PREFIX + prefix + b"@" + domain

    def keys(self, names: Iterable[bytes], domain: bytes) -> list[bytes]:
        """=user@domain."""
        at = b"@" + domain
        return [EXACT + name + at for name in names]

    def value(self, outcome: Outcome) -> bytes:
        """The code and the kind."""
        return code_of(outcome) + b" " + outcome.kind.value.encode()

    def bare(self, names: Iterable[bytes]) -> Batch:
        """Addresses without a domain are looked up whole."""
        return [EXACT + name for name in sorted(names)], NORMAL + b" " + Kind.MAILBOX.value.encode()

    def look(self, address: bytes, get: Get) -> Answer:
        """The first key that exists decides."""
        for key in inner_keys(address.lower()):
            value = get(key)
            if value is not None:
                return Answer(not value.startswith(REFUSED), key)
        return Answer(False, None)

    def line(self, key: bytes, value: bytes) -> Line | None:
        """The rule that a record states."""
        local, at, domain = key[1:].rpartition(b"@")
        accepted = not value.startswith(REFUSED)
        return Line(domain if at else None, local if at else key[1:], key.startswith(PREFIX), accepted)


def code_of(outcome: Outcome) -> bytes:
    """The code of qmail-deliverabled for an outcome; REFUSED for what is not accepted."""
    if not outcome.accepted:
        return REFUSED
    if outcome.verdict is Verdict.DEFER:
        return DEFERRED.get(outcome.reason, PERMISSION)
    return CODES.get(outcome.kind, NORMAL)
