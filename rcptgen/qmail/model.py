"""What a model of a delivery program is given, and what it answers."""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from rcptgen.qmail.leads import Leads
from rcptgen.qmail.look import NO_LOOK, Look
from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind

SIGNALLED = -1
"""The status that stands for death by a signal."""

ANY_STATUS = frozenset({0, 1, 99, 100, 111})
"""What a program that nobody has a model of may end with: one status of each sort that qmail-local tells apart."""


QMAIL_PROGRAMS = frozenset(
    b"bouncesaying except condredirect forward preline qreceipt maildir2mbox maildirmake maildirwatch mailsubj qbiff "
    b"datemail elq pinq predate qmail-inject qmail-queue qmail-local qmail-remote sendmail".split()
)
"""Programs that come with qmail: a host that runs qmail has them, below its bin directory and on its PATH."""


class Presence(enum.Enum):
    """What the shell finds when it looks for a command."""

    FOUND = 0
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127
    FAILED = 111


class Unknown:
    """A text that only the message, its sender or the moment decides."""

    __slots__ = ()


UNKNOWN = Unknown()


@dataclass(frozen=True, slots=True)
class Effect:
    """The exit statuses a command may end with, what it then is, and why.

    `kind` and `reason` tell what a success is (a program, a forward, a list) and why, `file`
    and `line` what a model rests it on, where that is not the dot-qmail file itself.  An
    `approximate` effect hangs on what nobody can see beforehand; a `widened` one stands for
    texts of which some are known to be refused.
    """

    statuses: frozenset[int]
    kind: Kind
    reason: str
    approximate: bool = False
    widened: bool = False
    file: bytes = b""
    line: int = 0


class Effects:
    """A command's effect for every text of one variable, the case of ASCII letters ignored.

    `groups` holds exact texts, `prefixes` effects for all that begins so, of which the
    longest counts; there is one for the empty prefix.  All texts are in lower case, and none is in two groups.
    """

    __slots__ = ("_index", "groups", "prefixes")

    def __init__(self, groups: Mapping[Effect, Names], prefixes: Mapping[bytes, Effect]) -> None:
        assert b"" in prefixes, "a command has an effect for every text"
        self.groups = dict(groups)
        self.prefixes = dict(prefixes)
        self._index: dict[bytes, Effect] | None = None

    @classmethod
    def of(cls, exact: Mapping[bytes, Effect], prefixes: Mapping[bytes, Effect]) -> Effects:
        """The effects of texts that are not grouped yet."""
        groups: dict[Effect, list[bytes]] = {}
        for text, effect in exact.items():
            groups.setdefault(effect, []).append(text)
        return cls({effect: Names(texts) for effect, texts in groups.items()}, prefixes)

    def exactly(self, text: bytes) -> Effect | None:
        """The effect of the exact text, or None."""
        if self._index is None:
            self._index = {one: effect for effect, texts in self.groups.items() for one in texts}
        return self._index.get(text)

    def covering(self, text: bytes) -> Effect:
        """The effect of the longest prefix that `text` begins with."""
        prefixes = self.prefixes
        if len(prefixes) < 8:
            return prefixes[max((one for one in prefixes if text.startswith(one)), key=len)]
        return next(prefixes[text[:end]] for end in range(len(text), -1, -1) if text[:end] in prefixes)

    def match(self, text: bytes) -> Effect:
        """The effect of a text in lower case."""
        found = self.exactly(text)
        return self.covering(text) if found is None else found

    def below(self, head: bytes) -> Effects:
        """The effects of what follows `head` in the texts that begin with it."""
        if not head:
            return self
        size = len(head)
        groups = {
            effect: Names(text[size:] for text in texts.beginning_with(head)) for effect, texts in self.groups.items()
        }
        prefixes = {one[size:]: effect for one, effect in self.prefixes.items() if one.startswith(head)}
        prefixes.setdefault(b"", self.covering(head))
        return Effects({effect: texts for effect, texts in groups.items() if len(texts)}, prefixes)


@dataclass(eq=False, slots=True)
class Free:
    """A variable that may hold any text (the extension under a -default file).

    `lowered`: its text in lower case where that is known, and only the case of letters is not.
    A model that compares the whole of it with a constant adds the constant to `compared`
    and takes the texts as different; the caller then runs it again with each constant.
    A model that looks at it in any other way sets `opaque` and answers as for UNKNOWN.
    A model that knows its effect for every text answers by `effect_of`, which keeps the table
    in `choices` (where there are `choices`); the caller then runs the lines again for each
    of its effects, told in `chosen`.  `looked`: a model went by the text, whatever its case.
    """

    compared: set[bytes] = field(default_factory=set)
    opaque: bool = False
    lowered: bytes | None = None
    choices: dict[Hashable, Effects] | None = None
    chosen: Mapping[Hashable, Effect] = field(default_factory=dict)
    looked: bool = False

    @property
    def touched(self) -> bool:
        """Whether anything hangs on what the text is."""
        return self.opaque or self.looked or bool(self.compared) or bool(self.choices)


class Derived(Unknown):
    """A text made from one that is free: `before`, what follows `without` in it, `after`.

    Whoever does not look into it may take it for UNKNOWN; who does leaves a trace in
    `looked`.  Where the free text does not begin with `without`, no command is ever run with it.
    """

    __slots__ = ("_after", "_before", "_without", "free", "looked")

    def __init__(self, free: Free, before: bytes, without: bytes, after: bytes = b"") -> None:
        self.free = free
        self.looked = False
        self._before = before
        self._without = without
        self._after = after

    @property
    def before(self) -> bytes:
        """What stands in front, in lower case."""
        self.looked = True
        return self._before

    @property
    def without(self) -> bytes:
        """The beginning of the free text that is left out, in lower case."""
        self.looked = True
        return self._without

    @property
    def after(self) -> bytes:
        """What stands behind, in lower case."""
        self.looked = True
        return self._after


Text = bytes | Unknown | Free


class View(NamedTuple):
    """From where a home is looked at: the domain of the addresses (in lower case), and their local names.

    A local name is `name` and what follows `pre` in the extension; `name` is None where the
    extension says nothing about it.
    """

    host: bytes
    name: bytes | None
    pre: bytes


def unknown_effect(reason: str, kind: Kind = Kind.PROGRAM) -> Effect:
    """What stands for a command of which nobody knows how it ends."""
    return Effect(ANY_STATUS, kind, reason, approximate=True)


def lowered(text: Text | None) -> bytes | None:
    """A text in lower case where at most the case of its letters is open; None where more is."""
    if isinstance(text, bytes):
        return text.lower()
    if isinstance(text, Free) and text.lowered is not None:
        text.looked = True
        return text.lowered
    return None


def effect_of(
    text: Text, command: Hashable, one: Callable[[bytes], Effect], every: Callable[[], Effects], reason: str
) -> Effect:
    """The effect of a command that goes by one variable and knows all of its texts.

    `one` answers for a known text (or one of which only the case of letters is open: then in
    lower case), `every` gives the whole table.  `command` tells this command, with all that
    it goes by besides, from others of the same lines; `reason` is for a text that nobody knows.
    """
    if isinstance(text, bytes):
        return one(text)
    if isinstance(text, Free):
        known = lowered(text)
        if known is not None:
            return one(known)
        if text.choices is None:
            text.opaque = True
        elif command in text.chosen:
            return text.chosen[command]
        elif command not in text.choices:
            text.choices[command] = every()
    return unknown_effect(reason)


def unknown_line(line: bytes) -> Effect:
    """Stands in where no line can be run."""
    return unknown_effect("a line that is not run here")


class Shell(Protocol):
    """`/bin/sh -c`, as a program starts it for a line of its own."""

    def __call__(self, line: bytes) -> Effect:
        """The effect of the line, with the variables of whoever starts it."""
        ...


@dataclass(frozen=True, slots=True)
class Situation:
    """Where a command runs: the variables that qmail-local sets, and the look-up of commands.

    `presence` takes a command as written (with or without a slash) and answers for the
    owner's identity, home and qmail's PATH.  Variables that are not in `variables` are unset.
    `look` shows the host as the command would see it; `shell` runs a line of its own.
    `leads`, where there is one, is told where the message goes (see ProgramModel).
    """

    variables: Mapping[bytes, Text]
    presence: Callable[[bytes], Presence]
    look: Look = NO_LOOK
    shell: Shell = unknown_line
    leads: Leads | None = None


Runner = Callable[[Sequence[Text]], Effect]
"""Runs a command given as its words (as execvp would) and answers with its effect."""


class ProgramModel(Protocol):
    """A model of one delivery program, found by the last part of the command's path.

    One with an attribute `tells_leads` that is true tells `Situation.leads` all that takes the
    message, but for what its children take; where the mail of any other goes nobody knows.
    """

    names: tuple[bytes, ...]

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """The effect of the command `words` (its own name first); `execute` runs a command that it starts itself."""
        ...


class NotTold(Exception):
    """What a Teller does not know: the line has to be run."""


class Told(Protocol):
    """One command, known for every address of one view of a home.

    Both may raise NotTold; then nothing has been said.
    """

    def every(self) -> Effects:
        """The effects of every extension, as `effect_of` keeps them."""
        ...

    def one(self, text: bytes) -> Effect:
        """The effect of one extension in lower case, as the shell ends with it."""
        ...


@runtime_checkable
class Teller(Protocol):
    """A model that goes by $EXT and $HOST alone, so that a line which is this command needs no shell to be judged.

    Thousands of homes hold the same line.  What a Teller says of it is what `run` comes to
    when it is asked once for each variable that is open.
    """

    def tells(self, words: Sequence[bytes]) -> bool:
        """Whether the command, its own name first, hangs on the address, and `told` knows it."""
        ...

    def told(self, words: Sequence[bytes], look: Look, view: View) -> Told:
        """What it does in one home, for the addresses of one view."""
        ...


@runtime_checkable
class Preparing(Protocol):
    """A model that reads something for all homes at once."""

    def prepare(self) -> None:
        """Called as root, before the table of each home is asked for; cheap where all is read already."""
        ...

    def is_stale(self) -> bool:
        """Whether what `prepare` has read may not be what is there now."""
        ...
