"""config/rcpt_regexp of the qpsmtpd plugin rcpt_regexp: the first pattern that matches decides; lossless.

DECLINED lets the plugins behind it decide, as rcpt_ok must; DENY refuses.  An address that
nothing matches is declined, too, so every domain has a last pattern of its own.
"""

from __future__ import annotations

from rcptgen.rules.outcome import Outcome
from rcptgen.targets.patterns import Patterns


class RcptRegexp(Patterns):
    """Lines `/PATTERN/ CODE message`."""

    name = "rcpt-regexp"
    end = rb"\z/"
    accept = b"DECLINED"

    def value(self, outcome: Outcome) -> bytes:
        """The code and the message."""
        return self.accept if outcome.accepted else b"DENY No such user."

    def tail(self, value: bytes) -> bytes:
        """Code and message, behind a blank."""
        return b" " + value + b"\n"
