"""dnset: a zone for rbldnsd, for front ends that ask by DNS.

    HASH.example.org          an address        :127.0.0.2: is accepted, :127.0.0.3: refused
    HASH._p.example.org       joe-*@example.org, by the hash of joe-
    _any.example.org          every other name of the domain

HASH is the first 40 hex digits of the SHA-256 of the local part (the prefix) in lower case:
a label holds neither every byte nor every length.  Look-up: the address; each prefix that
ends at a break character, the longest first; `_any`; the first that exists decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from rcptgen.rules.outcome import Outcome
from rcptgen.targets.addresses import DOMAIN
from rcptgen.targets.base import Answer, Line, Prefixes, Says
from rcptgen.targets.files import Record
from rcptgen.targets.formats import Get, TextFormat

PREFIX, ANY = b"._p.", b"_any."
ACCEPT, REFUSE = b":127.0.0.2:accept", b":127.0.0.3:refuse"


class Dnset(TextFormat):
    """A line a name."""

    name = "dnset"
    says = Says(prefixes=Prefixes.BREAK, refuse_exact=True, refuse_prefix=True)
    hashed = newlines = True
    bad_domain = DOMAIN

    def key(self, prefix: bytes, domain: bytes) -> bytes:
        """HASH._p.domain, or _any.domain."""
        return _hash(prefix) + PREFIX + domain if prefix else ANY + domain

    def keys(self, names: Iterable[bytes], domain: bytes) -> list[bytes]:
        """HASH.domain."""
        end = b"." + domain
        return [_hash(name) + end for name in names]

    def hashes(self, name: bytes) -> Iterator[tuple[bytes, bytes]]:
        """HASH of the name, and of what it has up to each break character."""
        yield _hash(name), name
        cut = name.rfind(self.break_) if self.break_ else -1
        while cut >= 0:
            yield _hash(name[: cut + 1]), name[: cut + 1]
            cut = name.rfind(self.break_, 0, cut)

    def value(self, outcome: Outcome) -> bytes:
        """The address and the text of the answer."""
        return ACCEPT if outcome.accepted else REFUSE

    def tail(self, value: bytes) -> bytes:
        """The value behind a blank."""
        return b" " + value + b"\n"

    def parse(self, line: bytes) -> Record | None:
        """A name and its value."""
        key, blank, value = line.partition(b" ")
        if not blank or value not in (ACCEPT, REFUSE):
            raise ValueError
        return Record(key, value, PREFIX in key)

    def look(self, address: bytes, get: Get) -> Answer:
        """What a client of the zone does."""
        local, _, domain = address.lower().rpartition(b"@")
        keys = self.keys((local,), domain)
        cut = local.rfind(self.break_) if self.break_ else -1
        while cut >= 0:
            keys.append(self.key(local[: cut + 1], domain))
            cut = local.rfind(self.break_, 0, cut)
        for key in (*keys, self.key(b"", domain)):
            value = get(key)
            if value is not None:
                return Answer(value == ACCEPT, key)
        return Answer(False, None)

    def line(self, key: bytes, value: bytes) -> Line | None:
        """The rule; of a name only its hash is known."""
        accepted = value == ACCEPT
        if key.startswith(ANY):
            return Line(key[len(ANY) :], b"", True, accepted)
        hashed, prefix, domain = key.partition(PREFIX)
        if not prefix:
            hashed, _, domain = key.partition(b".")
        return Line(domain, hashed, bool(prefix), accepted)


def _hash(name: bytes) -> bytes:
    return hashlib.sha256(name.lower()).hexdigest()[:40].encode()
