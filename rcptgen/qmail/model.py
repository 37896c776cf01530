"""What a model of a delivery program is given, and what it answers."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

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


@dataclass(eq=False, slots=True)
class Free:
    """A variable that may hold any text (the extension under a -default file).

    A model that compares the whole of it with a constant adds the constant to `compared`
    and takes the texts as different; the caller then runs it again with each constant.
    A model that looks at it in any other way sets `opaque` and answers as for UNKNOWN.
    """

    compared: set[bytes] = field(default_factory=set)
    opaque: bool = False


Text = bytes | Unknown | Free


@dataclass(frozen=True, slots=True)
class Situation:
    """Where a command runs: the variables that qmail-local sets, and the look-up of commands.

    `presence` takes a command as written (with or without a slash) and answers for the
    owner's identity, home and qmail's PATH.  Variables that are not in `variables` are unset.
    """

    variables: Mapping[bytes, Text]
    presence: Callable[[bytes], Presence]


@dataclass(frozen=True, slots=True)
class Effect:
    """The exit statuses a command may end with, what it then is, and why.

    `kind` and `reason` tell what a success is (a program, a forward, a list) and why; an
    `approximate` effect hangs on what nobody can see beforehand.
    """

    statuses: frozenset[int]
    kind: Kind
    reason: str
    approximate: bool = False


Runner = Callable[[Sequence[Text]], Effect]
"""Runs a command given as its words (as execvp would) and answers with its effect."""


class ProgramModel(Protocol):
    """A model of one delivery program, found by the last part of the command's path."""

    names: tuple[bytes, ...]

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """The effect of the command `words` (its own name first); `execute` runs a command that it starts itself."""
        ...
