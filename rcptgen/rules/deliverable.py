"""Outcomes as the numbers of Qmail::Deliverable, which other checkers of recipients speak."""

from __future__ import annotations

from rcptgen.rules.outcome import HOME_STICKY, HOME_WRITABLE, Kind, Outcome, Verdict

REFUSED = 0x00
TEMPORARY = 0x11
TEMPORARY_HOME = {HOME_WRITABLE: 0x21, HOME_STICKY: 0x22}
COMMAND = 0x12
LIST = 0x14
ORDINARY = 0xF1
NOT_LOCAL = 0xFF

_CODES = {
    Kind.PROGRAM: COMMAND,
    Kind.LIST: LIST,
    Kind.VALIAS: 0xF3,
    Kind.CATCHALL: 0xF4,
    Kind.VPOPMAIL: 0xF5,
    Kind.RELAY: NOT_LOCAL,
}


def deliverable_code(outcome: Outcome) -> int:
    """The number that Qmail::Deliverable would give an address of this outcome (Deliverable.pm).

    What it does not know (the default delivery, a program without a model that is accepted)
    gets the number of what comes nearest.  0x13, 0xf2 and 0xf6 are special cases of 0x12 and
    0xf5 that it tells apart, and that nobody who reads the numbers does.
    """
    if outcome.verdict is Verdict.BOUNCE:
        return REFUSED
    if outcome.verdict is Verdict.REMOTE:
        return NOT_LOCAL
    if outcome.verdict is Verdict.DEFER:
        return TEMPORARY_HOME.get(outcome.reason, TEMPORARY)
    return _CODES.get(outcome.kind, ORDINARY)
