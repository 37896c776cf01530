"""Sendmail: the source of an access map (makemap hash access < FILE), with To: entries.

Look-up (as cf/README has it; not tried): `To:user@domain`, then `To:domain` and every
domain above it.  So each domain gets an entry.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rcptgen.targets.files import Record
from rcptgen.targets.formats import Options
from rcptgen.targets.postfix_access import PostfixAccess

TAG = b"To:"


class SendmailAccess(PostfixAccess):
    """To: entries: RELAY accepts, an ERROR: refuses."""

    name = "sendmail-access"
    options = Options
    accept = b"RELAY"
    refuse = b'ERROR:5.1.1:"550 User unknown"'
    text_bad = re.compile(rb'[\x00-\x09\x0b-\x20"\x7f-\xff]', re.MULTILINE)

    def render(self, keys: Sequence[bytes], value: bytes) -> bytes:
        """To:KEY, a TAB, the action."""
        tail = b"\t" + value + b"\n"
        return TAG + (tail + TAG).join(keys) + tail

    def parse(self, line: bytes) -> Record | None:
        """A key behind its tag, and the action."""
        key, tab, value = line.partition(b"\t")
        if not key.startswith(TAG) or not tab:
            raise ValueError
        return Record(key[len(TAG) :], value)
