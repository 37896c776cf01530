"""Exim: a file for nwildlsearch, whose keys are regular expressions; lossless.

nwildlsearch, not wildlsearch: that one would expand what stands in the lines.
"""

from __future__ import annotations

from rcptgen.rules.outcome import Outcome
from rcptgen.targets.patterns import Patterns


class EximWildlsearch(Patterns):
    """Lines `^PATTERN$: accept`."""

    name = "exim-wildlsearch"
    begin = b"^"
    end = b"$"
    whole = b"^.*"
    accept = b"accept"

    def value(self, outcome: Outcome) -> bytes:
        """accept or refuse."""
        return b"accept" if outcome.accepted else b"refuse"

    def tail(self, value: bytes) -> bytes:
        """A colon and the value."""
        return b": " + value + b"\n"

    def split(self, line: bytes) -> tuple[bytes, bytes]:
        """A key ends at its colon."""
        key, _, value = line.partition(b": ")
        return key, value
