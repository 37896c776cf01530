"""The programs of ezmlm-idx that take posts, bounces and moderators' replies.

What stands in the editor, bouncer, moderator and confirmer files of a list.  Each mirrors
the main function of the C file of its name in ezmlm-idx 7.2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rcptgen.programs.ezmlm_list import (
    Ended,
    Line,
    List,
    Usage,
    check_sender,
    command_line,
    ends,
    goes_on,
    hangs,
    unless_alike,
)
from rcptgen.programs.ezmlm_program import ByDefault, OfList, Says, Texts
from rcptgen.qmail.model import Effect, ProgramModel, Runner, Situation, Text
from rcptgen.rules.outcome import Kind

POSTED = ends(0, "the list takes the message")
DONE = goes_on("a list program that only cleans up")
_NAMED = goes_on("the message names the list")
COOKIE = 20

# -- ezmlm-return ----------------------------------------------------------------------------


class Return(ByDefault):
    """`ezmlm-return [-dD] dir`: takes bounces."""

    names: tuple[bytes, ...] = (b"ezmlm-return",)
    usage = Usage(b"dD", subscribers=True)

    def check(self, line: Line, of: List, situation: Situation) -> None:
        """It takes mail of the empty sender."""
        if b"SENDER" not in situation.variables:
            raise Ended(100, "ezmlm without a sender")

    def says(self, line: Line, of: List) -> ReturnSays:
        """See ByDefault."""
        return ReturnSays()


@dataclass(frozen=True, slots=True)
class ReturnSays(Says):
    """What ezmlm-return says."""

    taken = ends(99, "the list takes the bounce")
    wrong = ends(100, "not in the form of a bounce address of the list")
    crash = ends(111, "ezmlm-return crashes over the address")

    def one(self, text: bytes) -> Effect:
        """See Says."""
        receipt = text.startswith(b"receipt-")
        action = text[len(b"receipt-") :] if receipt else text
        master = action.startswith((b"m-", b"g-"))
        action = action[2:] if master else action
        if not action:
            return self.taken
        if receipt or master:
            if action.find(b"-") != COOKIE or not digits_off(action[COOKIE + 1 :]).startswith(b"-"):
                return self.wrong
            return self.taken if receipt else self.crash
        if action.startswith((b"probe-", b"warn-")) or digits_off(action).startswith(b"-"):
            return self.taken
        return self.wrong

    def texts(self) -> Texts:
        """See Says."""
        alike = unless_alike(self.taken)
        texts = Texts({b"": self.taken}, {b"": self.wrong, b"-": self.taken})
        texts.prefixes.update(dict.fromkeys((b"probe-", b"warn-", b"receipt-"), alike))
        texts.prefixes.update({b"%d" % digit: alike for digit in range(10)})
        for head in (b"m-", b"g-"):
            texts.exact[head] = alike
            texts.prefixes[head] = unless_alike(self.crash)
        return texts


def digits_off(text: bytes) -> bytes:
    """What follows the digits that a text begins with (scan_ulong.c)."""
    return text.lstrip(b"0123456789")


# -- ezmlm-moderate, ezmlm-confirm -----------------------------------------------------------

_WAITING = re.compile(rb"[0-9]+\.[0-9]+\.[a-z]{20}")


class Waiting(ByDefault):
    """A program that acts on a message that waits for somebody's reply."""

    usage = Usage(b"cCrRmM", b"tT")
    actions: tuple[bytes, ...]

    def check(self, line: Line, of: List, situation: Situation) -> None:
        """The word before DEFAULT in LOCAL must be one of the actions, in lower case."""
        if b"LOCAL" not in situation.variables:
            raise Ended(100, "a program of a list without LOCAL")
        check_sender(situation)
        local, default = situation.variables[b"LOCAL"], situation.variables.get(b"DEFAULT")
        if not isinstance(local, bytes) or not isinstance(default, bytes):
            return
        end = len(local) - len(default) - 2
        action = local[local.rfind(b"-", 0, max(end, 0)) + 1 :]
        if end < 0 or b"-" not in local[:end] or not action.startswith(self.actions):
            raise Ended(100, "not an address for replies of the list")

    def says(self, line: Line, of: List) -> WaitingSays:
        """See ByDefault."""
        return WaitingSays()


class Moderate(Waiting):
    """`ezmlm-moderate [options] dir [program]`."""

    names: tuple[bytes, ...] = (b"ezmlm-moderate",)
    actions = (b"accept-", b"reject-")


class Confirm(Waiting):
    """`ezmlm-confirm [options] dir [program]`."""

    names: tuple[bytes, ...] = (b"ezmlm-confirm",)
    actions = (b"confirm-", b"discard-")


@dataclass(frozen=True, slots=True)
class WaitingSays(Says):
    """What ezmlm-moderate and ezmlm-confirm say: TIME.PID.COOKIE, and that message must wait."""

    cookie = hangs(0, "a message that waits for this reply")
    wrong = ends(100, "not in the form of a reply address of the list")

    def one(self, text: bytes) -> Effect:
        """See Says."""
        return self.cookie if _WAITING.match(text) else self.wrong

    def texts(self) -> Texts:
        """See Says."""
        alike = unless_alike(self.cookie)
        return Texts({}, {b"": self.wrong, **{b"%d" % digit: alike for digit in range(10)}})


# -- posting ---------------------------------------------------------------------------------


class Send(OfList):
    """`ezmlm-send [options] dir`."""

    names: tuple[bytes, ...] = (b"ezmlm-send",)
    usage = Usage(b"cClLrRqQ", b"HsS", flags=(b"rewritefrom", b"replytolist"), subscribers=True)

    def answer(self, words: Sequence[bytes], line: Line, of: List, situation: Situation) -> Effect:
        """A sublist takes posts from its parent only."""
        return _sent(of)


def _sent(of: List) -> Effect:
    if of.lines(b"headerkeep") is None and of.lines(b"headerremove") is None:
        return ends(100, "the list has no headerremove")
    return POSTED if of.line(b"sublist") is None else hangs(0, "a sublist takes posts from its parent")


class Store(OfList):
    """`ezmlm-store [options] dir`: keeps a post for moderation, or sends it."""

    names: tuple[bytes, ...] = (b"ezmlm-store",)
    usage = Usage(b"bBmMpPsSyYcCrR", flags=(b"modpostonly", b"confirmpost"), subscribers=True)

    def answer(self, words: Sequence[bytes], line: Line, of: List, situation: Situation) -> Effect:
        """Without moderation it is ezmlm-send."""
        check_sender_of_store(situation)
        given, only = line.last(b"yY"), line.last(b"pP")
        confirmed = given == b"y" if given else of.flag(b"confirmpost")
        if of.line(b"modpost") is None and not confirmed:
            return _sent(of)
        if not of.holds(b"mod/unconfirmed" if confirmed else b"mod/pending"):
            return ends(111, "the list has no place for messages that wait")
        moderators = only == b"P" if only else of.flag(b"modpostonly")
        return hangs(0, "only moderators may post") if moderators else POSTED


def check_sender_of_store(situation: Situation) -> None:
    """ezmlm-store minds no sender without a host, nor none at all."""
    if situation.variables.get(b"SENDER") in (b"", b"#@[]"):
        raise Ended(100, "ezmlm does not answer to bounces")


class Gate(OfList):
    """`ezmlm-gate [options] dir [database ...]`: posts of some are sent, others stored."""

    names: tuple[bytes, ...] = (b"ezmlm-gate",)
    usage = Usage(b"cCrRQmMpPsSyY0", b"q", subscribers=True)

    def answer(self, words: Sequence[bytes], line: Line, of: List, situation: Situation) -> Effect:
        """What ezmlm-store makes of a stranger."""
        only = line.last(b"pP")
        moderators = only == b"P" if only else of.flag(b"modpostonly")
        if b"0" in line.letters:
            return POSTED
        if b"q" in line.texts:
            return hangs(0, "a command of the list decides about posts")
        if moderators and of.line(b"modpost") is not None:
            return hangs(0, "only moderators may post")
        return _sent(of)


class Reject(OfList):
    """`ezmlm-reject [options] [dir]`: the message must name the list, which is taken for granted."""

    names: tuple[bytes, ...] = (b"ezmlm-reject",)
    usage = Usage(b"bBcCfFhHqQsStT", read=(b"msgsize", b"mimekeep", b"mimeremove", b"mimereject", b"headerreject"))

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """Without dir there is no list to be opened."""
        known = [word for word in words if isinstance(word, bytes)]
        try:
            if len(known) == len(words) and command_line(known, self.usage).directory is None:
                check_sender_of_store(situation)
                return _NAMED
        except Ended as ended:
            return ended.effect
        return super().run(words, situation, execute)

    def answer(self, words: Sequence[bytes], line: Line, of: List, situation: Situation) -> Effect:
        """Goes on."""
        check_sender_of_store(situation)
        return _NAMED


class CheckSub(OfList):
    """`ezmlm-checksub [-nN] dir [database ...]`: refuses who is not, or with -n who is, in a database."""

    names: tuple[bytes, ...] = (b"ezmlm-checksub",)
    usage = Usage(b"nN", b"m", subscribers=True)

    def answer(self, words: Sequence[bytes], line: Line, of: List, situation: Situation) -> Effect:
        """Nobody is in an empty database."""
        anybody = not line.rest or any(of.anybody(name) for name in line.rest)
        if line.last(b"nN") == b"n":
            return hangs(0, "some senders are denied") if anybody else goes_on("no sender is denied")
        return hangs(0, "only subscribers may post")


class Either(OfList):
    """A program that only tells something about the sender or the list: 0 or 99."""

    names: tuple[bytes, ...] = (b"ezmlm-issubn", b"ezmlm-tstdig")
    usage = Usage(b"nN", numbers=b"kmt")

    def answer(self, words: Sequence[bytes], line: Line, of: List, situation: Situation) -> Effect:
        """Either way."""
        return Effect(frozenset({0, 99}), Kind.LIST, "a question about the sender or the list", approximate=True)


class Housekeeping(OfList):
    """A program that does something with the list and goes on."""

    def __init__(self, name: bytes, usage: Usage) -> None:
        self.names = (name,)
        self.usage = usage

    def answer(self, words: Sequence[bytes], line: Line, of: List, situation: Situation) -> Effect:
        """Goes on."""
        return DONE


class Weed:
    """`ezmlm-weed`: drops automatic answers (99), which are no mail that anybody misses."""

    names: tuple[bytes, ...] = (b"ezmlm-weed",)

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """Goes on."""
        return goes_on("ezmlm-weed goes on")


POSTING: tuple[ProgramModel, ...] = (
    *(Return(), Moderate(), Confirm(), Send(), Store(), Gate(), Reject(), CheckSub(), Either(), Weed()),
    Housekeeping(b"ezmlm-clean", Usage(b"mMrR", read=(b"modtime",))),
    Housekeeping(
        b"ezmlm-warn", Usage(b"dD", numbers=b"lt", read=(b"copylines",), flags=(b"nowarn",), subscribers=True)
    ),
    Housekeeping(b"ezmlm-archive", Usage(b"cCsSFT", numbers=b"ft")),
    Housekeeping(b"ezmlm-limit", Usage(b"dDF", b"f", b"nt")),
    Housekeeping(b"ezmlm-idx", Usage(b"dDF", numbers=b"f")),
)
"""The programs of this file."""
