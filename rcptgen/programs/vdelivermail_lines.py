"""What one vdelivermail process does with delivery lines: vpopmail's own rules, not qmail-local's.

Mirrors vdelivermail.c: deliver_mail, run_command, deliver_to_maildir, check_forward_deliver.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rcptgen.qmail.leads import Leads
from rcptgen.qmail.look import Look
from rcptgen.qmail.model import Effect, Shell
from rcptgen.rules.outcome import Kind
from rcptgen.source.tree import FailedForNow, NotRegular, Regular, Status, TooLarge
from rcptgen.vpopmail.text import c_string

BOUNCE = 100
DEFER = 111
STOP = 99
BOUNCES = frozenset({64, 65, 70, 76, 77, 78, 100, 112})

LONGEST_LINE = 499
"""vdelivermail.c: check_forward_deliver reads lines in pieces of so many bytes."""

LONGEST_FILE_NAME = 155
"""vdelivermail.c: FILE_SIZE, with the NUL at its end."""

LONGEST_PATH = 299
"""vdelivermail.c: AUTH_SIZE, with the NUL at its end."""

LONGEST_LOOP = 253
"""vdelivermail.c: is_loop_match compares no longer addresses."""

LONGEST_DOTQMAIL = 64 << 10
UNCHANGED = re.compile(rb"[A-Za-z0-9_.+=-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
"""Addresses that qmail-inject takes as they are; it completes others, and splits lists of them."""

MAILBOX = "vpopmail mailbox"
TOO_MUCH = "more instructions than are judged"

_RANK = {Kind.DISCARD: 0, Kind.PROGRAM: 1, Kind.FORWARD: 2, Kind.VPOPMAIL: 4}
"""Of several lines the most telling one names the kind; what is not listed ranks 3."""


@dataclass(slots=True)
class Budget:
    """What the files of a domain's users may cost: bytes to read, and programs to judge."""

    size: int = 64 << 20
    programs: int = 20_000


Loops = Callable[[bytes], bool]
"""Whether an address is the one in $DTLINE."""


class Delivery:
    """One process: its working directory, and the ways it can have ended so far.

    No line is carried out any more once it has ended for certain.  `made` is a user's
    directory that was not there: the process has made it, with a maildir in it.  `preamble`
    is put in front of the lines of programs, to set variables.
    """

    def __init__(
        self,
        look: Look,
        shell: Shell,
        loops: Loops,
        budget: Budget,
        *,
        look_at_mailboxes: bool = True,
        leads: Leads | None = None,
    ) -> None:
        self.look = look
        self.directory = look.home
        self.going = True
        self.made = b""
        self.preamble = b""
        self._shell = shell
        self._loops = loops
        self._leads = leads
        self._budget = budget
        self._look_at_mailboxes = look_at_mailboxes
        self._statuses: set[int] = set()
        self._approximate = False
        self._widened = False
        self._kind = Kind.DISCARD
        self._reason = "no instruction delivers: accepted and thrown away"
        self._where = (b"", 0)
        self._refusal = ""
        self._refused_at = (b"", 0)

    def effect(self, kind: Kind | None = None) -> Effect:
        """The effect of all of it; whoever has not ended ends with success.  `kind` names a success."""
        statuses = frozenset(self._statuses | {0} if self.going else self._statuses)
        approximate = self._approximate and len(statuses) > 1
        if statuses.isdisjoint((0, STOP)):
            return Effect(statuses, Kind.PROGRAM, self._refusal, approximate, self._widened, *self._refused_at)
        return Effect(statuses, kind or self._kind, self._reason, approximate, self._widened, *self._where)

    def ends(self, status: int, reason: str, where: tuple[bytes, int] = (b"", 0)) -> None:
        """The process ends with `status`."""
        self._statuses.add(status)
        self.going = False
        if status in (0, STOP):
            return
        if not self._refusal:
            self._refusal, self._refused_at = reason, where

    def unjudged(self, reason: str, where: tuple[bytes, int]) -> None:
        """Nobody knows how the process ends."""
        self._statuses |= {0, BOUNCE, DEFER}
        self._approximate = True
        self.going = False
        self.takes(Kind.UNKNOWN, reason, where)

    def takes(self, kind: Kind, reason: str, where: tuple[bytes, int]) -> None:
        """A delivery of this kind is one of those that a success stands for."""
        if self._leads is not None and kind in (Kind.VPOPMAIL, Kind.UNKNOWN):
            self._leads.elsewhere(reason)
        if _RANK.get(kind, 3) > _RANK.get(self._kind, 3):
            self._kind, self._reason, self._where = kind, reason, where

    def changes_to(self, path: bytes) -> None:
        """chdir, of which nobody asks whether it worked."""
        directory = self._path(path)
        if directory == self.made or enterable(self.look, directory):
            self.directory = directory

    def _path(self, name: bytes) -> bytes:
        return os.path.join(self.directory, name)

    def line(self, text: bytes, where: tuple[bytes, int] = (b"", 0)) -> None:
        """One line, without its newline (vdelivermail.c: deliver_mail)."""
        if not self.going or text.startswith(b"#"):
            return
        if self._loops(text.removeprefix(b"&")):
            self.ends(BOUNCE, "mail is looping", where)
        elif text.startswith(b"|"):
            self._program(text.lstrip(b" |"), where)
        elif text.startswith((b".", b"/")):
            if not text.endswith(b"/"):
                self.ends(DEFER, "vdelivermail delivers to no mbox", where)
            elif self._maildir(text):
                self.takes(Kind.VPOPMAIL, MAILBOX, where)
            else:
                self.ends(DEFER, "no maildir to deliver to", where)
        else:
            # qmail-inject takes any text, and none.
            self.takes(Kind.FORWARD, "forwards", where)
            if self._leads is not None:
                address = text.removeprefix(b"&")
                self._leads.forward(address if UNCHANGED.fullmatch(address) else None, where)

    def _program(self, line: bytes, where: tuple[bytes, int]) -> None:
        self._budget.programs -= 1
        if self._budget.programs < 0:
            self.unjudged(TOO_MUCH, where)
            return
        effect = self._shell(self.preamble + line)
        statuses = {_ending(one) for one in effect.statuses}
        self._approximate |= effect.approximate
        self._widened |= effect.widened
        rests_on = (effect.file, effect.line) if effect.file else where
        if statuses - {0, STOP} and not self._refusal:
            self._refusal, self._refused_at = effect.reason, rests_on
        if statuses & {0, STOP}:
            self.takes(effect.kind, effect.reason, rests_on)
        self._statuses |= statuses - {0}
        self.going = 0 in statuses

    def _maildir(self, path: bytes) -> bool:
        """Whether a file could be made in it (vdelivermail.c: deliver_to_maildir)."""
        if len(path) + len(b"tmp/") >= LONGEST_FILE_NAME:
            return False
        if not self._look_at_mailboxes:
            return True
        return all(self._writable(self._path(path + part)) for part in (b"tmp", b"new"))

    def _writable(self, path: bytes) -> bool:
        if self.made and os.path.normpath(path).startswith(os.path.normpath(self.made) + b"/Maildir/"):
            return True
        found = self.look.accessible(path, os.W_OK | os.X_OK)
        return isinstance(found, Status) and stat.S_ISDIR(found.mode)

    def file_of(self, directory: bytes, names: Sequence[bytes]) -> bool:
        """Carries out the first of the files `names` in `directory` that can be opened.

        False where there is none, or an empty one (vdelivermail.c: check_forward_deliver).
        Where the directory cannot be entered, those in the working directory count.
        """
        self.changes_to(directory)
        if self.made:
            return False
        for name in names:
            path = self._path(name)
            found = self.look.read(path, limit=min(LONGEST_DOTQMAIL, self._budget.size))
            if isinstance(found, Regular):
                self._budget.size -= len(found.data)
                return self._lines(found.data, path)
            if isinstance(found, TooLarge):
                self.unjudged(TOO_MUCH, (path, 0))
                return True
            if isinstance(found, FailedForNow):
                self.ends(DEFER, "the file cannot be read for now", (path, 0))
                return True
            if isinstance(found, NotRegular):
                if stat.S_ISFIFO(found.mode):
                    self.ends(DEFER, "a fifo, which nobody writes to", (path, 0))
                    return True
                return False
        return False

    def default_delivery(self, path: bytes) -> bool:
        """Carries out the lines of control/defaultdelivery, up to one that names vdelivermail.

        False where no line is left, or that one is there (vdelivermail.c of sagredo-dev:
        check_default_delivery).
        """
        reading = self.look.read(path, limit=LONGEST_DOTQMAIL)
        if isinstance(reading, FailedForNow):
            self.ends(DEFER, "the file cannot be read for now", (path, 0))
            return True
        if not isinstance(reading, Regular):
            return False
        found = False
        for number, piece in _pieces(reading.data):
            text = c_string(piece)
            if text.startswith(b"#"):
                continue
            if b"vdelivermail" in text:
                return False
            found = True
            self.line(text, (path, number))
            if not self.going:
                break
        return found

    def _lines(self, data: bytes, path: bytes) -> bool:
        found = False
        for number, piece in _pieces(data):
            found = True
            self.line(c_string(piece), (path, number))
            if not self.going:
                break
        return found


def _ending(status: int) -> int:
    """What vdelivermail makes of the end of a program (vdelivermail.c: run_command)."""
    if status in (0, STOP):
        return status
    return BOUNCE if status in BOUNCES else DEFER


def _pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """What fgets gives: numbered lines, in pieces where they are too long, without their newlines."""
    start, number = 0, 1
    while start < len(data):
        end = data.find(b"\n", start, start + LONGEST_LINE)
        if end >= 0:
            yield number, data[start:end]
            start = end + 1
            number += 1
        else:
            yield number, data[start : start + LONGEST_LINE]
            start += LONGEST_LINE


def enterable(look: Look, path: bytes) -> bool:
    """Whether it is a directory that the owner may change to."""
    found = look.accessible(path, os.X_OK)
    return isinstance(found, Status) and stat.S_ISDIR(found.mode)
