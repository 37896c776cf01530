"""Haraka: config/host_list_regex for rcpt_to.in_host_list, which knows domains only.

Each line is a regular expression, taken without regard to case and anchored at both ends.
"""

from __future__ import annotations

from rcptgen.targets.addresses import Lines
from rcptgen.targets.base import Answer, Line, Says
from rcptgen.targets.formats import Get


class Haraka(Lines):
    """A domain a line, its dots escaped."""

    name = "haraka"
    says = Says(exact=False)

    def key(self, prefix: bytes, domain: bytes) -> bytes:
        """The domain as a regular expression."""
        return domain.replace(b".", rb"\.")

    def look(self, address: bytes, get: Get) -> Answer:
        """The domain."""
        key = self.key(b"", address.lower().rpartition(b"@")[2])
        return Answer(False, None) if get(key) is None else Answer(True, key)

    def line(self, key: bytes, value: bytes) -> Line | None:
        """The domain that a line states."""
        return Line(key.replace(rb"\.", b"."), b"", True, True)
