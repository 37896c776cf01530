"""rcptgen's own constant database: every rule, with what the host does and the code that other checkers know it by.

For keys and look-up see `stated`.  The value is a code of two hex digits (those of
qmail-deliverabled, 00: no), a blank, and the kind.
"""

from __future__ import annotations

from rcptgen.rules.outcome import HOME_STICKY, HOME_WRITABLE, Kind, Outcome, Verdict
from rcptgen.targets.formats import CdbFormat
from rcptgen.targets.stated import Stated

REFUSED = b"00"
NORMAL = b"f1"
COMMAND = b"12"
CODES = {
    Kind.CATCHALL: b"f4",
    Kind.VPOPMAIL: b"f5",
    Kind.VALIAS: b"f3",
    Kind.PROGRAM: COMMAND,
    Kind.LIST: COMMAND,
    Kind.UNKNOWN: COMMAND,
    Kind.RELAY: b"ff",
}
DEFERRED = {HOME_WRITABLE: b"21", HOME_STICKY: b"22"}
PERMISSION = b"11"


class Rcptgen(Stated, CdbFormat):
    """Lossless."""

    name = "rcptgen"

    def accepts(self, value: bytes) -> bool:
        """Whether the code is another than REFUSED."""
        return not value.startswith(REFUSED)

    def value(self, outcome: Outcome) -> bytes:
        """The code and the kind."""
        return code_of(outcome) + b" " + outcome.kind.value.encode()


def code_of(outcome: Outcome) -> bytes:
    """The code of qmail-deliverabled for an outcome; REFUSED for what is not accepted."""
    if not outcome.accepted:
        return REFUSED
    if outcome.verdict is Verdict.DEFER:
        return DEFERRED.get(outcome.reason, PERMISSION)
    return CODES.get(outcome.kind, NORMAL)
