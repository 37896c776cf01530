"""Formats that state the rules themselves: any name, any prefix, accepted or refused.

Keys are a mark and the rule: `=user@domain`, `*prefix@domain`, `*@domain`.  Look-up: the
address in lower case, then every prefix of the local part, the longest first; the first key
that exists decides.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator

from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.targets.base import Answer, Batch, Line, Prefixes, Says
from rcptgen.targets.formats import Format, Get

EXACT, PREFIX = b"=", b"*"
POSTMASTER = Outcome(Verdict.DELIVER, Kind.MAILBOX, "an address without a domain")


class Stated(Format):
    """Base of what is lossless but for bytes that it cannot spell."""

    remembers = True
    says = Says(prefixes=Prefixes.ANY, refuse_exact=True, refuse_prefix=True)

    @abstractmethod
    def accepts(self, value: bytes) -> bool:
        """Whether a value accepts."""

    def key(self, prefix: bytes, domain: bytes) -> bytes:
        """*PREFIX@domain."""
        return PREFIX + prefix + b"@" + domain

    def keys(self, names: Iterable[bytes], domain: bytes) -> list[bytes]:
        """=user@domain."""
        at = b"@" + domain
        return [EXACT + name + at for name in names]

    def bare(self, names: Iterable[bytes]) -> Batch:
        """Addresses without a domain are names, too."""
        return [EXACT + name for name in sorted(names)], self.value(POSTMASTER)

    def look(self, address: bytes, get: Get) -> Answer:
        """The first key that exists decides."""
        for key in _inner_keys(address.lower()):
            value = get(key)
            if value is not None:
                return Answer(self.accepts(value), key)
        return Answer(False, None)

    def line(self, key: bytes, value: bytes) -> Line | None:
        """The rule that a record states."""
        local, at, domain = key[1:].rpartition(b"@")
        if not at:
            return Line(None, domain, False, self.accepts(value))
        return Line(domain, local, key.startswith(PREFIX), self.accepts(value))


def _inner_keys(address: bytes) -> Iterator[bytes]:
    yield EXACT + address
    local, at, domain = address.rpartition(b"@")
    if at:
        for cut in range(len(local), -1, -1):
            yield PREFIX + local[:cut] + b"@" + domain
