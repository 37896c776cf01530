"""OpenSMTPD: a table of mailaddr for `match ... rcpt-to <table>`.

Look-up (mailaddr_match in to.c): without regard to case, any entry that matches: user@domain
or @domain, where the domain may have wildcards; an entry without the sub-address delimiter
(`+`) also matches the address without what follows its first one.  There are no refusals;
another `match` rule may take what none matched.
"""

from __future__ import annotations

import re

from rcptgen.targets.addresses import one_character
from rcptgen.targets.base import Says
from rcptgen.targets.extended import Extended
from rcptgen.targets.formats import Options


class Delimiter(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`sub_addr_delim`: as in smtpd.conf."""

    sub_addr_delim: str = "+"


class Opensmtpd(Extended):
    """A table file, an entry a line."""

    name = "opensmtpd"
    options = Delimiter
    says = Says(undecided=True)
    # A key of a table file ends at a blank or a colon; # begins a comment.
    text_bad = re.compile(rb"[\x00-\x09\x0b-\x20:\x7f-\xff]|^#", re.MULTILINE)

    def configure(self) -> None:
        """The server's own setting."""
        super().configure()
        self.extend(one_character(self.given.sub_addr_delim, "sub_addr_delim"))
