"""A home as its administrator should look at it: what in its dot-qmail files defers, is lost or is not what it seems.

Done by the worker, as the owner of the home; nothing here decides about an address.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field

from rcptgen.programs.commonmistakes import domain_files, hidden_mailboxes, older_database, vdelivermail_line
from rcptgen.programs.shellbuiltins import ORDINARY, PROGRAMS, SPECIAL
from rcptgen.programs.shellcalls import calls, plain_words
from rcptgen.programs.shellscan import ShellSyntaxError
from rcptgen.qmail.dotqmail import Action, Instruction, Instructions, parse
from rcptgen.qmail.environment import Variables
from rcptgen.qmail.home import Home
from rcptgen.qmail.hostfiles import Finding
from rcptgen.qmail.judged import Judged
from rcptgen.qmail.leads import Forwarded
from rcptgen.qmail.model import QMAIL_PROGRAMS, Presence, ProgramModel
from rcptgen.rules.outcome import HOME_STICKY, HOME_WRITABLE, Outcome, Verdict
from rcptgen.rules.shown import shown
from rcptgen.source.tree import (
    Absent,
    EntryType,
    FailedForNow,
    IdentityUnavailable,
    NotRegular,
    Reading,
    Refused,
    Regular,
    TooLarge,
)

_BOUNCING = Instruction(Action.PROGRAM, b"exit 100", 0, forward_only=False)
"""A line behind another one tells whether any message comes so far: one that ends with 99 stops before it."""

MOST_FINDINGS = 1000
"""Of one home; what comes then is not looked at, and that is told."""

X_BIT = 0o100
_SUSPICIOUS = re.compile(rb"[\r \t~<,]|^&(?:[|./]|$)", re.MULTILINE)
"""In a file without any of this every forward looks like an address."""

VDELIVERMAIL = b"vdelivermail"
FASTFORWARD = b"fastforward"
_ALWAYS = frozenset({*SPECIAL, *ORDINARY, *PROGRAMS, *QMAIL_PROGRAMS, b"export"})


@dataclass(slots=True)
class Survey:
    """What was seen of one home.

    `names` are those of its dot-qmail files, whatever they hold, directories left out;
    `forwards` the lines in them that name an address, `programs` the last parts of the paths
    of what their lines run.  `failed` says why nothing, or not all, is known.
    """

    home: bytes
    names: list[bytes] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    forwards: list[Forwarded] = field(default_factory=list)
    programs: set[bytes] = field(default_factory=set)
    failed: str = ""


def survey(home: Home, models: Mapping[bytes, ProgramModel]) -> Survey:
    """What a person should look at in a home; `models` are the programs that are known."""
    found = Survey(home.home)
    try:
        state = home.state()
        if state is not None:
            code = {HOME_WRITABLE: "H101", HOME_STICKY: "H102"}.get(state.reason, "H103")
            what = "everything bounces" if state.verdict is Verdict.BOUNCE else "all its mail is deferred"
            found.findings.append(Finding(code, f"{state.reason}: {what}", home.home))
            return found
        listing = home.listing()
        if listing is None:
            found.failed = "the home directory cannot be listed"
            return found
        _Surveyor(home, models, found).run(listing)
    except IdentityUnavailable:
        found.failed = "its identity cannot be taken"
    return found


class _Surveyor:
    """One run through the dot-qmail files of a home."""

    def __init__(self, home: Home, models: Mapping[bytes, ProgramModel], found: Survey) -> None:
        self._home = home
        self._models = models
        self._found = found

    def run(self, listing: Mapping[bytes, EntryType]) -> None:
        """Looks at every dot-qmail file."""
        home, found = self._home, self._found
        names = sorted(name for name in listing if name == b".qmail" or name.startswith(b".qmail-"))
        home.acting = True
        try:
            with home.tree.acting_as(home.identity):
                for name in names:
                    if len(found.findings) >= MOST_FINDINGS:
                        found.failed = f"more than {MOST_FINDINGS} findings: the files from {shown(name)} on"
                        return
                    content = home.content(name, listing[name])
                    if not _may_be_directory(content, listing[name]):
                        found.names.append(name)
                    found.findings += self._file(name, content)
                if VDELIVERMAIL in found.programs:
                    found.findings += domain_files(home.tree, home.home)
                    found.findings += hidden_mailboxes(home.tree, home.home, found.names)
        finally:
            home.acting = False

    def _file(self, name: bytes, content: Reading) -> Iterator[Finding]:
        home = self._home
        if home.only_forwards(content) is not None:
            assert isinstance(content, Regular)
            path = home.path(name)
            yield from self._forwards(path, content.data)
            lines = parse(content.data, forward_only=False).lines
            self._found.forwards += (Forwarded(one.text, path, one.line) for one in lines)
            return
        path = home.path(name)
        if isinstance(content, Regular):
            yield from self._content(path, content)
        elif isinstance(content, FailedForNow):
            home.note_failure(content)
            self._found.failed = f"{shown(path)}: {os.strerror(content.errno)}"
        else:
            yield from _unread(path, content)

    def _content(self, path: bytes, content: Regular) -> Iterator[Finding]:
        home = self._home
        if content.status.mode & home.settings.forbidden_modes:
            yield Finding("H111", "others may write to the file: its mail is deferred", path)
            return
        if not content.data:
            return
        instructions = parse(content.data, forward_only=bool(content.status.mode & X_BIT))
        if instructions.blank_first:
            yield Finding("H113", "the first line is blank: its mail is deferred", path, 1)
            return
        if instructions.too_many:
            yield Finding("H116", "the file has more lines than are judged: its addresses are accepted", path)
            return
        if not instructions.lines:
            yield Finding("H117", "no line of the file does anything: its mail is accepted and thrown away", path)
            return
        yield from self._forwards(path, content.data)
        yield from self._instructions(path, instructions)

    def _forwards(self, path: bytes, data: bytes) -> Iterator[Finding]:
        """Lines that are other than they look."""
        if _SUSPICIOUS.search(data) is None:
            return
        for number, raw in enumerate(data.split(b"\n"), 1):
            line = raw.rstrip(b" \t")
            if line.endswith(b"\r"):
                text = f"the carriage return is a part of the line {shown(line)!r}"
                yield Finding("L101", text, path, number)
            elif line[:1] in (b" ", b"\t"):
                if line.lstrip()[:1] in (b"|", b".", b"/", b"&", b"#"):
                    text = f"the blank in front makes a forward of the line {shown(line)!r}"
                    yield Finding("L102", text, path, number)
            elif line[:1] not in (b"#", b"|", b".", b"/", b"+") and _no_address(line):
                text = f"{shown(line)!r} is a forward to what is no address"
                yield Finding("L103", text, path, number)

    def _instructions(self, path: bytes, instructions: Instructions) -> Iterator[Finding]:
        """What becomes of a message, line by line, as far as it comes."""
        delivered = False
        for one in instructions.lines:
            if one.action is Action.FORWARD:
                self._found.forwards.append(Forwarded(one.text, path, one.line))
                delivered = True
                continue
            what = "program" if one.action is Action.PROGRAM else "file"
            if one.forward_only:
                text = f"a {what} line in a file with the x bit, or below +list: mail is deferred here"
                yield Finding("H114", text, path, one.line)
                return
            if one.action is not Action.PROGRAM:
                if not self._home.mailboxes.deliverable(one):
                    text = f"nothing can be written to {shown(one.text)!r}: mail is deferred here"
                    yield Finding("L104", text, path, one.line)
                    return
                delivered = True
                continue
            ended = yield from self._program(path, one, delivered=delivered)
            if ended:
                return
            delivered = True

    def _program(self, path: bytes, one: Instruction, *, delivered: bool) -> Generator[Finding, None, bool]:
        """One program line; whether no message comes beyond it."""
        home = self._home
        try:
            commands = calls(one.text)
        except ShellSyntaxError:
            yield Finding("L107", f"no shell takes the line {shown(one.text)!r}: mail is deferred here", path, one.line)
            return True
        missing = yield from self._commands(path, one, commands)
        words = plain_words(one.text)
        if words is not None and words[0].rpartition(b"/")[2] == VDELIVERMAIL:
            said = list(vdelivermail_line(words))
            yield from (Finding(code, text, path, one.line) for code, text in said)
            return bool(said)
        if words is not None and words[0].rpartition(b"/")[2] == FASTFORWARD:
            text = older_database(home.tree, home.path(b""), words)
            if text:
                yield Finding("L111", text, path, one.line)
        outcome = self._outcome(one)
        if outcome is None:
            return False
        if outcome.verdict is Verdict.DEFER:
            if not missing:
                text = f"the line {shown(one.text)!r} defers every message ({outcome.reason})"
                yield Finding("L108", text, path, one.line)
            return True
        if outcome.verdict is Verdict.BOUNCE:
            if delivered:
                text = f"{outcome.reason}: what the lines above have delivered is bounced as well"
                yield Finding("L110", text, path, one.line)
            else:
                yield Finding("L109", f"everything that comes here bounces ({outcome.reason})", path, one.line)
            return True
        beyond = self._outcome(one, _BOUNCING)
        return beyond is not None and beyond.verdict is Verdict.DELIVER and not beyond.approximate

    def _outcome(self, *lines: Instruction) -> Outcome | None:
        """What lines come to by themselves; None where that hangs on the address."""
        home = self._home
        variables = Variables.free(home.settings.path, home.user, home.home)
        outcome = home.outcome(Judged(b"", Instructions(lines)), variables)
        return None if variables.touched else outcome

    def _commands(self, path: bytes, one: Instruction, commands: tuple[bytes, ...]) -> Generator[Finding, None, bool]:
        """The programs of a line, against what is on the host; whether one of them is missing."""
        missing = False
        for command in commands:
            base = command.rpartition(b"/")[2]
            self._found.programs.add(base)
            if base == command and base in _ALWAYS:
                continue
            presence = self._home.commands.presence(command)
            if presence is Presence.NOT_FOUND or presence is Presence.NOT_EXECUTABLE:
                missing = True
                what = "is not there" if presence is Presence.NOT_FOUND else "cannot be executed by the owner"
                yield Finding("L105", f"the program {shown(command)!r} {what}", path, one.line)
            elif base not in self._models and base not in PROGRAMS and base not in QMAIL_PROGRAMS:
                text = f"{shown(command)!r} has no model: what it would refuse is accepted"
                yield Finding("L106", text, path, one.line)
        return missing


def _may_be_directory(content: Reading, entry: EntryType) -> bool:
    """Whether names with a slash may lead through it."""
    if isinstance(content, NotRegular):
        return stat.S_ISDIR(content.mode)
    return isinstance(content, Refused | FailedForNow) and entry is not EntryType.REGULAR


def _unread(path: bytes, content: Reading) -> Iterator[Finding]:
    """A name that leads to no file."""
    if isinstance(content, Refused):
        yield Finding("H112", "the owner may not read the file: its mail is deferred", path)
    elif isinstance(content, NotRegular) and not stat.S_ISDIR(content.mode):
        yield Finding("H115", "no regular file: qmail-local passes over it", path)
    elif isinstance(content, Absent):
        yield Finding("H115", "a link to nothing: qmail-local passes over it", path)
    elif isinstance(content, TooLarge):
        text = f"the file has {content.size} bytes, too many to be judged: its addresses are accepted"
        yield Finding("H116", text, path)


def _no_address(line: bytes) -> bool:
    """Whether a forward is what somebody else would mean a file, a list or a comment by."""
    text = line.removeprefix(b"&")
    if not text:
        return line == b"&"
    odd = text.startswith((b"~", b" ", b"\t", b"|", b".", b"/"))
    return odd or b"<" in text or b"," in text or (b" " in text and b'"' not in text)
