"""What homes are judged by, and what is found of a dot-qmail file."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rcptgen.qmail.dotqmail import Action, Instructions
from rcptgen.rules.outcome import Kind, Outcome, Verdict

NO_LINES = Instructions(())

FORWARDS = re.compile(rb"((?:#[^\n\0]*\n)*)(?:&?[A-Za-z0-9_][^\n\0]{0,1000}(?:\n|\Z))+")
"""A file of comments, and then of nothing but forwards to addresses that are not too long."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How qmail was built and started, as far as homes are concerned.

    With `look_at_mailboxes` False, mbox and maildir lines count as deliverable without a
    look at the disk: deferred or delivered, they are accepted either way.  Only where a
    later line bounces it matters, and they are looked at all the same.
    """

    forbidden_modes: int = 0o002
    default_delivery: bytes = b"./Mailbox"
    alias_user: bytes = b"alias"
    path: bytes = b"/var/qmail/bin:/usr/local/bin:/usr/bin:/bin"
    qmail_bin: bytes = b"/var/qmail/bin"
    look_at_mailboxes: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was looked at on the way to a verdict.

    `quoted` is the text of the line; `found` is False for what was tried and is not there.
    """

    text: str
    file: bytes = b""
    line: int = 0
    quoted: bytes = b""
    found: bool = True


@dataclass(frozen=True, slots=True)
class Trouble:
    """A source behind a program that cannot be read for now (`failed`) or is damaged, and why."""

    path: bytes
    reason: str
    failed: bool


@dataclass(slots=True)
class Judged:
    """A dot-qmail file that exists: its outcome where no variable can change that, else its instructions.

    An outcome without a file rests on this one: many files share it.  `size` and `work` are
    what reading it and one run of its lines cost.
    """

    file: bytes
    instructions: Instructions
    fixed: Outcome | None = None
    default_delivery: bool = False
    size: int = 0
    work: int = 0

    def answer(self) -> Outcome | None:
        """The outcome where no variable can change that, with its file."""
        fixed = self.fixed
        return fixed if fixed is None or fixed.file else fixed._replace(file=self.file)


def work_of(instructions: Instructions) -> int:
    """What it takes to run the lines of a file: ten times as much for what is no forward."""
    return sum(1 if one.action is Action.FORWARD else 10 for one in instructions.lines)


def deferral(reason: str, file: bytes) -> Outcome:
    """qmail-local tries again later."""
    return Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, file)


def settled(found: Outcome) -> Judged:
    """A file of which the outcome is known, whatever it holds."""
    return Judged(found.file, NO_LINES, found)
