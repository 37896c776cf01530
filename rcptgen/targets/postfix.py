"""Postfix: a table for relay_recipient_maps.

Look-up with an empty recipient_delimiter: `user@domain`, then `@domain`; queries are folded
to lower case.  Any hit means a valid recipient, whatever the value, so nothing can be
refused below an acceptance; the value must not be empty.
"""

from __future__ import annotations

import re
from typing import ClassVar

from rcptgen.targets.addresses import Addresses, Form
from rcptgen.targets.base import Answer
from rcptgen.targets.formats import Options

# Postfix folds the case of what is not ASCII, too, and asks nothing for what is not UTF-8.
EIGHT_BIT = re.compile(rb"[\x00\x80-\xff]")
# postmap takes quotes for its own, a leading # for a comment.
TEXT = re.compile(rb'[\x00-\x09\x0b-\x20"\x7f-\xff]|^#', re.MULTILINE)


class Postfix(Addresses):
    """A cdb, or (`form = "text"`) the source of postmap and of texthash."""

    name = "postfix"
    options: ClassVar[type[Options]] = Form
    lone = True
    accept = b"OK"
    text_bad = TEXT
    cdb_bad = EIGHT_BIT
    bad_domain = EIGHT_BIT

    def value(self, outcome: object) -> bytes:
        """Anything but nothing."""
        return self.accept

    def judged(self, key: bytes, value: bytes) -> Answer:
        """Any hit is valid."""
        return Answer(True, key)
