"""Postfix: a pcre table for check_recipient_access; lossless.

The first pattern that matches decides; those of a domain stand between `if` and `endif`, so
that an address is only compared with the names of its own.  Postfix asks for an address in
quotes where SMTP needs them, and the last pattern of the domain answers that: so names are
written as they are quoted.  DUNNO ends the search: what
stands behind it in the restrictions still decides.  As relay_recipient_maps the file would
accept everything: there any result is a hit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rcptgen.rules.outcome import Outcome
from rcptgen.targets.base import Batch
from rcptgen.targets.files import Record
from rcptgen.targets.lowering import Said
from rcptgen.targets.patterns import Patterns, escaped
from rcptgen.targets.postfix import EIGHT_BIT

IF, ENDIF = b"if ", b"endif"
_QUOTED = re.compile(rb'\A\Z|\A\.|\.\Z|\.\.|[\x00-\x20\x7f<>()\[\]\\,;:"@]')
_ESCAPED = re.compile(rb'[\r\n"\\]')
_UNESCAPED = re.compile(rb'\\([\r\n"\\])')


class PostfixPcre(Patterns):
    """Lines `/PATTERN/ ACTION`."""

    name = "postfix-pcre"
    # With SMTPUTF8 patterns are of characters, otherwise of bytes: these are left out.
    bad = EIGHT_BIT
    bad_domain = EIGHT_BIT
    refuse = b"550 5.1.1 User unknown"

    def asked(self, name: bytes) -> bytes:
        """As quote_821_local makes it."""
        if not _QUOTED.search(name):
            return name
        return b'"' + _ESCAPED.sub(rb"\\\g<0>", name) + b'"'

    def unasked(self, name: bytes) -> bytes:
        """Without quotes and their escapes."""
        inner = name.removeprefix(b'"?')
        if inner == name and not name.startswith(b'"'):
            return name
        return _UNESCAPED.sub(rb"\1", inner.removeprefix(b'"').removesuffix(b'"') if inner == name else inner)

    def beginning(self, prefix: bytes) -> bytes:
        """What follows the prefix may be the reason for quotes."""
        return b'"?' + escaped(_ESCAPED.sub(rb"\\\g<0>", prefix))

    def value(self, outcome: Outcome) -> bytes:
        """The action."""
        return self.accept if outcome.accepted else self.refuse

    def tail(self, value: bytes) -> bytes:
        """The action, behind a blank."""
        return b" " + value + b"\n" if value else b"\n"

    def batches(self, said: Said) -> Iterator[Batch]:
        """The patterns between `if` and `endif`."""
        yield [IF + self.key(b"", said.domain)], b""
        yield from super().batches(said)
        yield [ENDIF], b""

    def parse(self, line: bytes) -> Record | None:
        """A pattern; the blocks only make the search shorter."""
        return None if line.startswith(IF) or line == ENDIF else super().parse(line)
