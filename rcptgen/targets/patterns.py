"""Files of regular expressions of which the first that matches decides: everything can be said.

Within a domain exact names come first, then prefixes, the longest first, then the domain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from rcptgen.targets.base import Answer, Batch, Line, Prefixes, Says
from rcptgen.targets.files import Record
from rcptgen.targets.formats import Get, TextFormat
from rcptgen.targets.lowering import Said

_ODD = re.compile(rb"[^A-Za-z0-9_=-]")
_SPELLED = re.compile(rb"\\x([0-9a-f]{2})|\\(.)", re.DOTALL)


def escaped(name: bytes) -> bytes:
    """`name` as a regular expression that matches nothing else; neither blanks nor quotes nor slashes are left."""
    return _ODD.sub(_spelled, name)


def _spelled(found: re.Match[bytes]) -> bytes:
    return rb"\." if found[0] == b"." else rb"\x%02x" % found[0][0]


def meant(pattern: bytes) -> bytes:
    """The name that `escaped` made `pattern` of."""
    return _SPELLED.sub(lambda found: bytes([int(found[1], 16)]) if found[1] else found[2], pattern)


class Patterns(TextFormat):
    """Base: a key is a whole pattern, `begin` and `end` included; a value is what a match does."""

    says = Says(prefixes=Prefixes.ANY, refuse_exact=True, refuse_prefix=True, refuse_whole=True, undecided=True)
    remembers = True
    newlines = True
    begin = b"/^"
    end = b"$/"
    whole = b"/"
    """In front of the pattern of a whole domain."""
    accept = b"DUNNO"

    def asked(self, name: bytes) -> bytes:
        """The local part as the consumer compares it."""
        return name

    def unasked(self, name: bytes) -> bytes:
        """The local part that is compared as `name`."""
        return name

    def beginning(self, prefix: bytes) -> bytes:
        """What matches `prefix` where a local part begins."""
        return escaped(prefix)

    def key(self, prefix: bytes, domain: bytes) -> bytes:
        """The pattern of a prefix, or of the whole domain."""
        at = b"@" + escaped(domain) + self.end
        return self.begin + self.beginning(prefix) + b".*" + at if prefix else self.whole + at

    def keys(self, names: Iterable[bytes], domain: bytes) -> list[bytes]:
        """The patterns of names."""
        at = b"@" + escaped(domain) + self.end
        return [self.begin + escaped(self.asked(name)) + at for name in names]

    def batches(self, said: Said) -> Iterator[Batch]:
        """The most specific patterns first: the first that matches decides."""
        domain = said.domain
        for outcome, names in sorted(said.accepted, key=lambda pair: self.value(pair[0])):
            for some in names.stretches():
                yield self.keys(some, domain), self.value(outcome)
        for outcome, refused in said.refused:
            yield self.keys(sorted(refused), domain), self.value(outcome)
        for prefix, outcome in sorted(said.prefixes, key=lambda pair: (-len(pair[0]), pair[0])):
            yield [self.key(prefix, domain)], self.value(outcome)
        yield [self.key(b"", domain)], self.value(said.whole)

    def split(self, line: bytes) -> tuple[bytes, bytes]:
        """The pattern and the value of a line."""
        key, _, value = line.partition(b" ")
        return key, value

    def parse(self, line: bytes) -> Record | None:
        """A pattern and what a match of it does."""
        if not line or line.startswith(b"#"):
            return None
        key, value = self.split(line)
        if not key.endswith(self.end) or not key.startswith((self.begin, self.whole)):
            raise ValueError
        return Record(key, value, not key.startswith(self.begin) or b".*@" in key)

    def look(self, address: bytes, get: Get) -> Answer:
        """The first pattern of the file that matches."""
        local, at, domain = address.rpartition(b"@")
        if not at:
            return Answer(False, None, undecided=True)
        local, domain = local.lower(), domain.lower()
        keys = [self.exact_key(local, domain)]
        keys += [self.key(local[:cut], domain) for cut in range(len(local), -1, -1)]
        for key in keys:
            value = get(key)
            if value is not None and self._matches(key, self.asked(local) + b"@" + domain):
                return Answer(value == self.accept, key)
        return Answer(False, None, undecided=True)

    def _matches(self, key: bytes, address: bytes) -> bool:
        """A pattern is more than its spelling: it must match as a regular expression does."""
        return _compiled(key.removeprefix(b"/").removesuffix(b"/").replace(rb"\z", rb"\Z")).search(address) is not None

    def line(self, key: bytes, value: bytes) -> Line | None:
        """The rule that a pattern states."""
        text = key.removesuffix(self.end)
        if not text.startswith(self.begin):
            return Line(meant(text[len(self.whole) + 1 :]), b"", True, value == self.accept)
        local, _, domain = text[len(self.begin) :].rpartition(b"@")
        name = local.removesuffix(b".*")
        return Line(meant(domain), self.unasked(meant(name)), name != local, value == self.accept)


@lru_cache(maxsize=4096)
def _compiled(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)
