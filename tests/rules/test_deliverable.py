"""The numbers of Qmail::Deliverable."""

from __future__ import annotations

import pytest

from rcptgen.rules.deliverable import deliverable_code
from rcptgen.rules.outcome import HOME_STICKY, HOME_WRITABLE, Kind, Outcome, Verdict


@pytest.mark.parametrize(
    ("verdict", "kind", "reason", "code"),
    [
        (Verdict.BOUNCE, Kind.NO_MAILBOX, "", 0x00),
        (Verdict.REMOTE, Kind.REMOTE, "", 0xFF),
        (Verdict.DELIVER, Kind.RELAY, "relayed", 0xFF),
        (Verdict.DEFER, Kind.DEFERRAL, "the file is writable", 0x11),
        (Verdict.DEFER, Kind.DEFERRAL, HOME_WRITABLE, 0x21),
        (Verdict.DEFER, Kind.DEFERRAL, HOME_STICKY, 0x22),
        (Verdict.DELIVER, Kind.PROGRAM, "", 0x12),
        (Verdict.DELIVER, Kind.LIST, "", 0x14),
        (Verdict.DELIVER, Kind.MAILBOX, "", 0xF1),
        (Verdict.DELIVER, Kind.DEFAULT_DELIVERY, "", 0xF1),
        (Verdict.DELIVER, Kind.FORWARD, "", 0xF1),
        (Verdict.DELIVER, Kind.ALIAS, "", 0xF1),
        (Verdict.DELIVER, Kind.VALIAS, "", 0xF3),
        (Verdict.DELIVER, Kind.CATCHALL, "", 0xF4),
        (Verdict.DELIVER, Kind.VPOPMAIL, "", 0xF5),
    ],
)
def test_every_outcome_has_its_number(verdict: Verdict, kind: Kind, reason: str, code: int) -> None:
    assert deliverable_code(Outcome(verdict, kind, reason)) == code


def test_accepted_and_refused_are_never_mixed_up() -> None:
    for kind in Kind:
        assert deliverable_code(Outcome(Verdict.BOUNCE, kind, "")) == 0
        assert deliverable_code(Outcome(Verdict.DELIVER, kind, "")) not in (0x00, 0x11, 0x21, 0x22, 0x2F, 0xFE)
