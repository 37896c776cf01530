"""Exim: a cdb for the look-up type cdb*@.

Look-up: the address as it is given (so `${lc:...}` belongs around it), then `*@domain`, then
`*`.  The value says accept or refuse; not found is a refusal of the look-up's default.
"""

from __future__ import annotations

import re
from typing import ClassVar

from rcptgen.rules.outcome import Outcome
from rcptgen.targets.addresses import Addresses, Form
from rcptgen.targets.base import Says
from rcptgen.targets.files import Record
from rcptgen.targets.formats import Options


class Exim(Addresses):
    """A cdb, or (`form = "text"`) the source of an lsearch*@."""

    name = "exim"
    options: ClassVar[type[Options]] = Form
    says = Says(refuse_exact=True)
    whole = b"*@"
    accept = b"accept"
    refuse = b"refuse"
    # The address *@domain has the key of the domain; a cdb can hold every other byte.
    cdb_bad = re.compile(rb"^\*$|\x00", re.MULTILINE)
    # lsearch: a key ends at a blank or a colon, quotes and backslashes are its own, # begins a comment.
    text_bad = re.compile(rb'[\x00-\x09\x0b-\x20:"\\#\x7f]|^\*$', re.MULTILINE)

    def value(self, outcome: Outcome) -> bytes:
        """accept or refuse."""
        return self.accept if outcome.accepted else self.refuse

    def tail(self, value: bytes) -> bytes:
        """A colon in front of the value."""
        return b": " + value + b"\n"

    def parse(self, line: bytes) -> Record | None:
        """A key, a colon, the value."""
        if not line.strip() or line.startswith(b"#"):
            return None
        key, _, value = line.partition(b":")
        return Record(key, value.strip())
