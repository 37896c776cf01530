"""Autoresponders, list managers and a maildir writer that dot-qmail files run.

Only what their sources say is modelled: how a wrong command line or a missing file ends, and
what an address is.  What the message and the moment decide is left open.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from rcptgen.programs.shellstate import NO_MODEL, look
from rcptgen.qmail.model import Effect, Runner, Situation, Text, unknown_effect
from rcptgen.rules.outcome import Kind
from rcptgen.source.tree import Status

UNKNOWN_WORDS = "program with arguments that nobody knows"

_MAILMAN = frozenset(b"admin bounces confirm join leave post owner request subscribe unsubscribe".split())
_WRAPPED = frozenset(b"post mailcmd mailowner majordomo resend request-answer new-list digest".split())
"""What Mailman 2.0 and majordomo run by programs that are both called wrapper."""


def _ends(status: int, reason: str, kind: Kind = Kind.PROGRAM) -> Effect:
    return Effect(frozenset({status}), kind, reason)


def _known(words: Sequence[Text]) -> list[bytes] | None:
    """The words, or None where one of them is not known."""
    for word in words:
        if not isinstance(word, bytes):
            look(word)
            return None
    return [word for word in words if isinstance(word, bytes)]


class Autorespond:
    """`autorespond time num message dir [flag [from]]`, as qmailadmin writes it (autorespond.c: main, 2.0).

    Without its message it ends with 111; it refuses nothing but its own replies, and goes on after them all.
    """

    names: tuple[bytes, ...] = (b"autorespond",)

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """Answers, perhaps, and goes on."""
        if not 5 <= len(words) <= 7:
            return _ends(111, "usage of autorespond")
        message = words[3]
        if not isinstance(message, bytes):
            look(message)
            return unknown_effect(UNKNOWN_WORDS)
        found = situation.look.accessible(message, os.R_OK)
        if not isinstance(found, Status) or stat.S_ISDIR(found.mode):
            return _ends(111, "autorespond cannot read its message")
        return Effect(frozenset({0, 100, 111}), Kind.PROGRAM, "autorespond answers", approximate=True)


class Mailman:
    """`mailman command list` (Mailman 2.1, src/mail-wrapper.c: main; scripts/post), and older wrappers.

    The errors of Mailman, an unknown list among them, are statuses after which qmail tries again.
    """

    names: tuple[bytes, ...] = (b"mailman", b"mail-wrapper", b"wrapper")

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """Hands the message to the list manager."""
        known = _known(words)
        if known is None:
            return unknown_effect(UNKNOWN_WORDS, Kind.LIST)
        if known[0].rpartition(b"/")[2] == b"wrapper":
            of_lists = bool(known[1:]) and known[1] in _WRAPPED
            return unknown_effect("a list manager" if of_lists else NO_MODEL, Kind.LIST if of_lists else Kind.PROGRAM)
        if len(known) < 2:
            return _ends(5, "usage of mailman's wrapper")
        if known[1] not in _MAILMAN:
            return _ends(6, "illegal command for mailman's wrapper")
        if len(known) < 3:
            return _ends(1, "mailman without a list")
        return Effect(frozenset({0, 111}), Kind.LIST, "mailman takes the message", approximate=True)


class Safecat:
    """`safecat tempdir destdir` (safecat 1.13, safecat.c: main)."""

    names: tuple[bytes, ...] = (b"safecat",)

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """Writes the message into a directory and goes on."""
        if len(words) != 3:
            return _ends(100, "usage of safecat")
        known = _known(words)
        if known is None:
            return unknown_effect(UNKNOWN_WORDS, Kind.MAILBOX)
        for name in known[1:]:
            found = situation.look.accessible(name, os.W_OK | os.X_OK)
            if not isinstance(found, Status) or not stat.S_ISDIR(found.mode) or not found.mode & stat.S_IWUSR:
                return _ends(111, "safecat cannot write to its directory")
        return _ends(0, "safecat writes the message", Kind.MAILBOX)
