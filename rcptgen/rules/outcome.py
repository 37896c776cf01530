"""What the mail host does with an address, and why."""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol


class Verdict(enum.StrEnum):
    """The four things a qmail host can do with an envelope recipient."""

    # That of Enum is a function in Python, and outcomes are keys by the hundred thousand.
    __hash__ = str.__hash__

    DELIVER = "deliver"
    BOUNCE = "bounce"
    DEFER = "defer"
    REMOTE = "remote"


class Kind(enum.StrEnum):
    """What an address is; the first block only goes with `Verdict.DELIVER`."""

    __hash__ = str.__hash__

    MAILBOX = "mailbox"
    DEFAULT_DELIVERY = "default-delivery"
    FORWARD = "forward"
    ALIAS = "alias"
    PROGRAM = "program"
    DISCARD = "discard"
    CATCHALL = "catch-all"
    LIST = "list"
    VPOPMAIL = "vpopmail-mailbox"
    VALIAS = "valias"
    RELAY = "relay"

    NO_MAILBOX = "no-mailbox"
    REFUSAL = "refusal"
    DEFERRAL = "deferral"
    REMOTE = "remote"
    UNKNOWN = "unknown"


HOME_WRITABLE = "the home directory is writable"
HOME_STICKY = "the home directory is sticky"


class Lines(Protocol):
    """The lines of a file that names stand on."""

    def line(self, name: bytes) -> int:
        """The line of a name, from 1; 0 where that is not known."""
        ...


class Outcome(NamedTuple):
    """One verdict with its kind, its reason and the file and line (from 1; 0: the whole file) it rests on.

    Where `named_from` is not negative, `file` is only the beginning of a path, and the name
    that the outcome stands at completes it from that offset on: a million dot-qmail files
    then share one outcome (see `at`).  `approximate`: the real verdict hangs on something
    that the address does not show (the sender, the message, a program without a model);
    such an address is accepted and counted.  `widened`: some of the names that the rule
    stands for are known to bounce, but exact and prefix rules cannot tell them apart.
    `lines`, in the outcome of many names in one file, tells on which line each of them stands.

    A tuple: outcomes are made, hashed and compared by the hundred thousand.
    """

    verdict: Verdict
    kind: Kind
    reason: str
    file: bytes = b""
    line: int = 0
    named_from: int = -1
    approximate: bool = False
    widened: bool = False
    lines: Lines | None = None

    @property
    def accepted(self) -> bool:
        """Whether an SMTP server must take the address: delivered, or deferred by the host itself."""
        return self.verdict is Verdict.DELIVER or self.verdict is Verdict.DEFER

    def at(self, name: bytes) -> Outcome:
        """The outcome of `name` alone: with the path of its file, and the line that it stands on."""
        if self.lines is not None:
            return self._replace(line=self.lines.line(name), lines=None)
        if self.named_from < 0:
            return self
        return self._replace(file=self.file + name[self.named_from :], named_from=-1)

    def below(self, prefix: bytes) -> Outcome:
        """The same outcome for names that have lost `prefix`; their lines are not known any more."""
        if self.lines is not None:
            return self._replace(lines=None)
        if self.named_from < 0:
            return self
        left = self.named_from - len(prefix)
        if left >= 0:
            return self._replace(named_from=left)
        return self._replace(file=self.file + prefix[self.named_from :], named_from=0)

    def under(self, size: int) -> Outcome:
        """The same outcome for names that have got `size` bytes put in front; their lines are not known any more."""
        if self.lines is not None:
            return self._replace(lines=None)
        return self if self.named_from < 0 else self._replace(named_from=self.named_from + size)


def accepts(outcome: Outcome | None) -> bool:
    """Whether what a table says is an acceptance."""
    return outcome is not None and outcome.accepted
