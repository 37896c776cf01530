"""Postfix: an access(5) table for check_recipient_access.

Look-up: `user@domain`, then the domain and (as parent_domain_matches_subdomains is by
default) every domain above it.  So each domain gets a key, that an open domain above it
does not open it.  An acceptance is DUNNO: it ends the look-up, and the restrictions behind
it still decide; OK would permit relaying.
"""

from __future__ import annotations

from typing import ClassVar

from rcptgen.rules.outcome import Outcome
from rcptgen.targets.addresses import Addresses, Form
from rcptgen.targets.base import Answer, Says, Widened
from rcptgen.targets.formats import Get, Options
from rcptgen.targets.lowering import Said
from rcptgen.targets.postfix import EIGHT_BIT, TEXT


class PostfixAccess(Addresses):
    """A cdb, or (`form = "text"`) the source of postmap and of texthash."""

    name = "postfix-access"
    options: ClassVar[type[Options]] = Form
    says = Says(refuse_exact=True, refuse_whole=True, undecided=True)
    whole = b""
    accept = b"DUNNO"
    refuse = b"550 5.1.1 User unknown"
    text_bad = TEXT
    cdb_bad = EIGHT_BIT
    bad_domain = EIGHT_BIT
    above = "the key of an open domain stands for the domains below it that have no key of their own"

    def value(self, outcome: Outcome) -> bytes:
        """The action."""
        return self.accept if outcome.accepted else self.refuse

    def adapt(self, said: Said) -> None:
        """An open domain opens what is below it."""
        if said.whole.accepted:
            found = said.whole
            said.widened.append(Widened(b"", b"*@" + said.domain, self.above, found.file, found.line))

    def look(self, address: bytes, get: Get) -> Answer:
        """The address, its domain, and every domain above."""
        address = address.lower()
        _, at, domain = address.rpartition(b"@")
        value = get(address)
        if value is not None:
            return self.judged(address, value)
        step = ""
        while at and domain:
            value = get(domain)
            if value is not None:
                found = self.judged(domain, value)
                return Answer(found.accepted, domain, step=step)
            domain, step = domain.partition(b".")[2], self.above
        return self.unlisted(address)
