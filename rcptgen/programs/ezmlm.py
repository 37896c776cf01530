"""The programs of ezmlm-idx that answer requests: what stands in the manager file of a list.

They go by $DEFAULT, what follows the name of the list and its dash.  Each mirrors the main
function of the C file of its name in ezmlm-idx 7.2; what hangs on the sender, the message,
a cookie or the archive's being empty may end either way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rcptgen.programs.ezmlm_list import Ended, Line, List, Usage, check_sender, ends, goes_on, hangs, unless_alike
from rcptgen.programs.ezmlm_program import ByDefault, Says, Texts
from rcptgen.qmail.model import Effect, Situation
from rcptgen.rules.outcome import Kind

PASSED_ON = goes_on("not for this program of the list")
ANSWERED = ends(99, "the list answers")
MANAGED = ends(0, "the list answers")


# -- ezmlm-get -------------------------------------------------------------------------------


class Get(ByDefault):
    """`ezmlm-get [options] dir [digestcode]`."""

    names: tuple[bytes, ...] = (b"ezmlm-get",)
    usage = Usage(
        b"bBcCpPsS",
        b"f",
        read=(b"digformat", b"copylines"),
        flags=(b"omitbottom", b"subgetonly", b"indexed", b"archived"),
        subscribers=True,
    )

    def answer(self, words: Sequence[bytes], line: Line, of: List, situation: Situation) -> Effect:
        """Without DEFAULT (in the editor file) or LOCAL it makes a digest."""
        if situation.variables.get(b"LOCAL"):
            if b"DEFAULT" in situation.variables:
                return super().answer(words, line, of, situation)
            check_sender(situation)
        made = self.says(line, of).digest
        return made if 100 in made.statuses else PASSED_ON

    def says(self, line: Line, of: List) -> GetSays:
        """See ByDefault."""
        code = line.rest[0] if line.rest else of.line(b"digestcode") or None
        return GetSays(
            code=None if code is None else code.lower(),
            digest=ANSWERED if of.flag(b"archived") else ends(100, "the list is not archived"),
            archive=_archive(line, of, indexed=True),
            index=_archive(line, of, indexed=of.flag(b"indexed")),
        )


def _archive(line: Line, of: List, *, indexed: bool) -> Effect:
    """What a command for the archive comes to, in the order of the program's tests."""
    if line.last(b"cC") == b"C":
        return ends(100, "no commands for the archive of this list")
    given, only = line.last(b"pP"), line.last(b"sS")
    try:
        public = given == b"p" if given else not of.flag(b"modgetonly") and of.flag(b"public")
        if not public:
            moderated = of.line(b"remote") is not None
            return hangs(99, "the archive is for moderators") if moderated else ends(100, "the archive is not public")
        if not of.flag(b"archived"):
            return ends(100, "the list is not archived")
        if only == b"s" if only else of.flag(b"subgetonly"):
            return hangs(99, "the archive is for subscribers")
        if not indexed:
            return ends(100, "the list is not indexed")
        return ANSWERED if of.number(b"num") else hangs(99, "the archive is empty")
    except Ended as ended:
        return ended.effect


@dataclass(frozen=True, slots=True)
class GetSays(Says):
    """What ezmlm-get says; the code of digests is in lower case."""

    code: bytes | None
    digest: Effect
    archive: Effect
    index: Effect

    wrong = ends(100, "not the digest code of the list")

    def one(self, text: bytes) -> Effect:
        """See Says."""
        action = text.lower()
        if action.startswith(b"dig"):
            # The three bytes are gone from here on: `digget` is `get`.
            action = action[3:]
            if action.startswith((b"-", b".")):
                right = self.code is not None and action[1:].startswith(self.code)
                return self.digest if right else self.wrong
        if action == b"digest" or action.startswith(b"get"):
            return self.archive
        return self.index if action.startswith((b"index", b"thread")) else PASSED_ON

    def texts(self) -> Texts:
        """See Says."""
        texts = Texts({}, {b"": PASSED_ON, b"dig-": self.wrong, b"dig.": self.wrong})
        if self.code is not None:
            texts.prefixes.update({b"dig-" + self.code: self.digest, b"dig." + self.code: self.digest})
        for head in (b"", b"dig"):
            texts.prefixes.update(
                {head + b"get": self.archive, head + b"index": self.index, head + b"thread": self.index}
            )
        texts.exact[b"digdigest"] = self.archive
        return texts


# -- ezmlm-split -----------------------------------------------------------------------------


class Split(ByDefault):
    """`ezmlm-split [-dD] dir [splitfile]`: hands subscriptions on to sublists."""

    names: tuple[bytes, ...] = (b"ezmlm-split",)
    usage = Usage(b"dD")

    def answer(self, words: Sequence[bytes], line: Line, of: List, situation: Situation) -> Effect:
        """With -D it only prints what it would do."""
        return PASSED_ON if line.last(b"dD") == b"D" else super().answer(words, line, of, situation)

    def says(self, line: Line, of: List) -> SplitSays:
        """See ByDefault."""
        data = of.raw(line.rest[0] if line.rest else b"split")
        sublists = any(b":" in one and not one.startswith(b"#") for one in (data or b"").split(b"\n"))
        handed = Effect(frozenset({0, 99}), Kind.LIST, "a sublist may be meant", approximate=True)
        return SplitSays(handed if sublists else PASSED_ON)


@dataclass(frozen=True, slots=True)
class SplitSays(Says):
    """What ezmlm-split says."""

    subscription: Effect

    wrong = ends(100, "the target is no address")

    def one(self, text: bytes) -> Effect:
        """See Says."""
        action, dash, target = text.partition(b"-")
        if action.lower() not in (b"subscribe", b"unsubscribe"):
            return PASSED_ON
        return self.wrong if dash and b"=" not in target and b"@" not in target else self.subscription

    def texts(self) -> Texts:
        """See Says."""
        texts = Texts({}, {b"": PASSED_ON})
        for action in (b"subscribe", b"unsubscribe"):
            texts.exact[action] = self.subscription
            texts.exact[action + b"-"] = self.wrong
            texts.prefixes[action + b"-"] = unless_alike(self.subscription)
        return texts


# -- ezmlm-request ---------------------------------------------------------------------------


class Request(ByDefault):
    """`ezmlm-request [-f lists.cf] dir`."""

    names: tuple[bytes, ...] = (b"ezmlm-request",)
    usage = Usage(b"", b"fF", read=(b"copylines",))

    def answer(self, words: Sequence[bytes], line: Line, of: List, situation: Situation) -> Effect:
        """With -f it serves all lists of a file, at an address of its own."""
        if line.texts:
            check_sender(situation, 99)
            return hangs(99, "a command in the message is carried out")
        return super().answer(words, line, of, situation)

    def check(self, line: Line, of: List, situation: Situation) -> None:
        """It leaves what is not for it to others before it looks at the sender."""

    def says(self, line: Line, of: List) -> RequestSays:
        """See ByDefault."""
        kept = of.lines(b"headerkeep") is not None or of.lines(b"headerremove") is not None
        return RequestSays(ANSWERED if kept else ends(100, "the list has no headerremove"))


@dataclass(frozen=True, slots=True)
class RequestSays(Says):
    """What ezmlm-request says."""

    answered: Effect

    def one(self, text: bytes) -> Effect:
        """See Says."""
        if not text.lower().startswith(b"request"):
            return PASSED_ON
        if text[len(b"request") :].startswith(b"return") and 100 not in self.answered.statuses:
            return PASSED_ON
        return self.answered

    def texts(self) -> Texts:
        """See Says."""
        alike = unless_alike(self.answered)
        return Texts({}, {b"": PASSED_ON, b"request": self.answered, b"requestreturn": alike})


# -- ezmlm-manage ----------------------------------------------------------------------------

DATABASES = (b"digest", b"allow", b"deny")
_COOKIES = (b"tc.", b"rc.", b"vc.", b"wc.")
_COOKIE = re.compile(rb"[trvw]c\.[0-9]+\.[a-z]{20}")
_EDITED = re.compile(rb"ed\.[0-9]+\.[A-Za-z_]+\.[a-z]{20}")


class Manage(ByDefault):
    """`ezmlm-manage [options] dir`."""

    names: tuple[bytes, ...] = (b"ezmlm-manage",)
    usage = Usage(
        b"aAbBcCdDeEfFlLmMnNsSqQuU",
        read=(b"copylines", b"modsub", b"remote"),
        flags=(b"omitbottom", b"modcanedit", b"modcanlist", b"nosubconfirm", b"nounsubconfirm", b"public"),
        subscribers=True,
    )

    def says(self, line: Line, of: List) -> ManageSays:
        """See ByDefault."""
        remote = of.line(b"remote") is not None
        listed, edited = line.last(b"lL"), line.last(b"dDeE")
        lists = listed == b"l" if listed else of.flag(b"modcanlist")
        edits = edited in (b"d", b"e") if edited else of.flag(b"modcanedit")
        return ManageSays(
            public=of.flag(b"public"),
            remote=remote,
            lists=lists and (remote or of.line(b"modsub") is not None),
            logs=lists and remote,
            edits=edits and remote,
            gets=line.last(b"cC") != b"C",
        )


@dataclass(frozen=True, slots=True)
class ManageSays(Says):
    """What ezmlm-manage says; `remote`: moderators may do what others may not."""

    public: bool
    remote: bool
    lists: bool
    logs: bool
    edits: bool
    gets: bool

    address = ends(100, "no such address of the list")
    private = ends(100, "the list is not public")
    unavailable = ends(100, "command not available")
    moderators = hangs(0, "the command is for moderators")
    cookie = hangs(0, "the cookie decides")

    def one(self, text: bytes) -> Effect:
        """See Says."""
        action, denied = text, False
        for database in DATABASES:
            if text.lower().startswith(database):
                if text[len(database) : len(database) + 1] != b"-":
                    return self.address
                action, denied = text[len(database) + 1 :], database == b"deny"
                break
        action = action.partition(b"-")[0]
        if not self.public and action.lower() != b"help":
            return self.moderators if self.remote else self.private
        if denied:
            return self.moderators if self.remote else self.unavailable
        return self._command(action)

    def _command(self, action: bytes) -> Effect:
        """What becomes of a command that is let through (do_subscribe to do_help)."""
        lower = action.lower()
        if action.startswith(_COOKIES):
            if self.remote:
                return self.moderators
            return self.cookie if _COOKIE.fullmatch(action) else ends(100, "no cookie of the list")
        if lower in (b"list", b"listn"):
            return self.moderators if self.lists else self.unavailable
        if lower.startswith(b"log"):
            return self.moderators if self.logs else self.unavailable
        if lower.startswith(b"edit"):
            return self._edit(lower[len(b"edit") :])
        if action.startswith(b"ed."):
            return self.cookie if _EDITED.fullmatch(action) else ends(100, "no cookie of the list")
        return self.unavailable if lower.startswith(b"get") and not self.gets else MANAGED

    def _edit(self, rest: bytes) -> Effect:
        if not self.edits:
            return self.unavailable
        if rest and (not rest.startswith(b".") or not re.fullmatch(rb"[a-z_]*", rest[1:])):
            return ends(100, "no text of the list")
        return self.moderators

    def texts(self) -> Texts:
        """See Says."""
        texts = self._database(denied=False)
        for database in DATABASES:
            texts.prefixes[database] = self.address
            texts.below(database + b"-", self._database(denied=database == b"deny"))
        return texts

    def _database(self, *, denied: bool) -> Texts:
        """The commands for one database of addresses."""
        help_ = MANAGED
        if denied:
            help_ = self.moderators if self.remote else self.unavailable
        if denied or not self.public:
            base = help_ if self.public else self.moderators if self.remote else self.private
            texts = Texts({}, {b"": base})
            texts.command(b"help", help_)
            return texts
        texts = Texts({}, {b"": MANAGED})
        # In capitals these are unknown words, and answered.
        for cookie in (*_COOKIES, b"ed."):
            texts.prefixes[cookie] = unless_alike(MANAGED)
        for name in (b"list", b"listn"):
            texts.command(name, self.moderators if self.lists else self.unavailable)
        texts.prefixes[b"log"] = self.moderators if self.logs else self.unavailable
        texts.prefixes[b"edit"] = self._edit(b"x")
        if self.edits:
            texts.command(b"edit", self.moderators)
            texts.prefixes[b"edit."] = unless_alike(self.moderators)
        if not self.gets:
            texts.prefixes[b"get"] = self.unavailable
        return texts


MANAGER: tuple[ByDefault, ...] = (Get(), Split(), Request(), Manage())
"""The programs of this file."""
