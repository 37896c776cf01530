"""Programs that go by the message or its sender: they are known, and what they decide is not.

Mail for their addresses is accepted, as for a program without a model; what differs is that
the verdict says why.  maildrop (maildrop/main.C) and procmail end with what a recipe says,
dovecot-lda and deliver with EX_TEMPFAIL or a bounce over quota, spamc's wrappers with 0 or
99.  srsfilter and srsreverse (Mail::SRS) refuse an address that is no SRS address only when
the sender is empty: for a bounce that comes back.
"""

from __future__ import annotations

from collections.abc import Sequence

from rcptgen.qmail.model import Effect, Runner, Situation, Text, unknown_effect
from rcptgen.rules.outcome import Kind


class Filter:
    """One of them, by its names."""

    def __init__(self, kind: Kind, *names: bytes) -> None:
        self.names: tuple[bytes, ...] = names
        self._kind = kind

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """Delivers, as far as the address goes."""
        return unknown_effect(f"{self.names[0].decode()} goes by the message", self._kind)


FILTERS = (
    Filter(Kind.PROGRAM, b"maildrop", b"maildrop-qmail"),
    Filter(Kind.PROGRAM, b"procmail"),
    Filter(Kind.PROGRAM, b"dovecot-lda", b"deliver"),
    Filter(Kind.PROGRAM, b"deliverquota"),
    Filter(Kind.PROGRAM, b"spamc", b"ifspamh", b"spamassassin"),
    Filter(Kind.PROGRAM, b"vacation", b"qmail-autoresponder"),
    Filter(Kind.FORWARD, b"srsfilter", b"srsreverse"),
)
