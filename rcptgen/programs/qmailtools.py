"""The programs that qmail brings for use in dot-qmail files.

Each mirrors the C file of its name.  They start their children with execvp: one that
cannot be started has exited 100, or 111 where the trouble is temporary.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rcptgen.qmail.model import SIGNALLED, Effect, Runner, Situation, Text
from rcptgen.rules.outcome import Kind

LONGEST_ADDRESS = 1002
"""qmail-queue.c (ADDR): a longer one, and the message is refused for good."""


def _ends(status: int, reason: str, kind: Kind = Kind.PROGRAM) -> Effect:
    return Effect(frozenset({status}), kind, reason)


def _mapped(child: Effect, succeeded: int, reason: str, kind: Kind = Kind.PROGRAM) -> Effect:
    """What bouncesaying, except and condredirect make of their child: temporary trouble stays, failure goes on."""
    statuses = {succeeded if status == 0 else 111 if status in (111, SIGNALLED) else 0 for status in child.statuses}
    if statuses == {111}:
        reason = "temporary trouble of a child"
    elif succeeded not in statuses:
        reason = "condition does not hold"
    if succeeded not in statuses or statuses == {111}:
        kind = Kind.PROGRAM
    if child.approximate and len(statuses) > 1:
        reason = child.reason
    return Effect(frozenset(statuses), kind, reason, child.approximate and _open(child, statuses))


def _open(child: Effect, statuses: Iterable[int]) -> bool:
    """Whether a status hangs on what is unknown about the child."""
    return len(set(statuses)) > 1 or len(child.statuses) == 1


class BounceSaying:
    """`bouncesaying error [program [arg ...]]` (bouncesaying.c: main)."""

    names: tuple[bytes, ...] = (b"bouncesaying",)
    tells_leads = True

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """Bounces, unless the program fails."""
        if len(words) == 1:
            return _ends(100, "usage of bouncesaying")
        if len(words) == 2:
            return _ends(100, "bouncesaying bounces")
        return _mapped(execute(words[2:]), 100, "bouncesaying bounces")


class Except:
    """`except program [arg ...]` (except.c: main)."""

    names: tuple[bytes, ...] = (b"except",)
    tells_leads = True

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """Bounces where the program succeeds."""
        if len(words) == 1:
            return _ends(100, "usage of except")
        return _mapped(execute(words[1:]), 100, "except bounces")


class CondRedirect:
    """`condredirect newaddress program [arg ...]` (condredirect.c: main)."""

    names: tuple[bytes, ...] = (b"condredirect",)
    tells_leads = True

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """Forwards and stops where the program succeeds."""
        if len(words) < 3:
            return _ends(100, "usage of condredirect")
        child = execute(words[2:])
        for name in (b"SENDER", b"DTLINE"):
            if name not in situation.variables:
                return _mapped(child, 100, "condredirect without its variables")
        if _too_long(words[1:2]):
            return _mapped(child, 100, "address too long for qmail-queue")
        if situation.leads is not None:
            # The case of letters in the address may decide: where the child fails counts, too.
            situation.leads.forward(words[1])
        return _queued(_mapped(child, 99, "condredirect forwards", Kind.FORWARD), situation)


class Forward:
    """`forward address ...` (forward.c: main)."""

    names: tuple[bytes, ...] = (b"forward",)
    tells_leads = True

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """Forwards and goes on."""
        for name in (b"NEWSENDER", b"DTLINE"):
            if name not in situation.variables:
                return _ends(100, "forward without its variables")
        if _too_long(words[1:]):
            return _ends(100, "address too long for qmail-queue")
        if len(words) == 1:
            return _queued(_ends(0, "forward to nobody"), situation)
        if situation.leads is not None:
            situation.leads.forward_all(words[1:])
        return _queued(_ends(0, "forward forwards", Kind.FORWARD), situation)


class Preline:
    """`preline [-frdFRD] program [arg ...]` (preline.c: main)."""

    names: tuple[bytes, ...] = (b"preline",)
    tells_leads = True

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """Ends as its program does."""
        rest = list(words[1:])
        for name in (b"UFLINE", b"RPLINE", b"DTLINE"):
            if name not in situation.variables:
                return _ends(100, "preline without its variables")
        while rest and isinstance(rest[0], bytes) and rest[0].startswith(b"-") and rest[0] != b"-":
            option = rest.pop(0)
            if option == b"--":
                break
            if isinstance(option, bytes) and not re.fullmatch(rb"-[frdFRD]+", option):
                return _ends(100, "usage of preline")
        if not rest:
            return _ends(100, "usage of preline")
        child = execute(rest)
        return replace(child, statuses=frozenset(111 if one == SIGNALLED else one for one in child.statuses))


class QReceipt:
    """`qreceipt deliveryaddress` (qreceipt.c: main)."""

    names: tuple[bytes, ...] = (b"qreceipt",)
    tells_leads = True

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """Goes on; only a field that asks for a receipt and cannot be read would bounce."""
        if len(words) == 1 or b"SENDER" not in situation.variables:
            return _ends(100, "usage of qreceipt")
        return _ends(0, "qreceipt goes on")


def _too_long(addresses: Iterable[Text]) -> bool:
    """Whether qmail-queue refuses an address; one that is not known is taken to be short."""
    return any(isinstance(address, bytes) and len(address) > LONGEST_ADDRESS for address in addresses)


def _queued(effect: Effect, situation: Situation) -> Effect:
    """What becomes of a forward that another program queues (qmail.c: setup_qqargs)."""
    if b"QMAILQUEUE" not in situation.variables:
        return effect
    return Effect(effect.statuses | {100, 111}, effect.kind, "program without a model", approximate=True)
