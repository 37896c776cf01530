"""Rspamd: a map for two multimap rules of type rcpt, one by address and one by domain.

A set map: a key a line, in lower case.  Rspamd asks it for the whole result of its filter:
`email:addr` gives user@domain, `email:domain` the domain.
"""

from __future__ import annotations

from rcptgen.targets.addresses import Lines
from rcptgen.targets.base import Answer


class RspamdMap(Lines):
    """A line is an address, or a bare domain that is accepted whole."""

    name = "rspamd-map"
    whole = b""

    def judged(self, key: bytes, value: bytes) -> Answer:
        """Any hit is valid."""
        return Answer(True, key)
