"""The way of one address through a home, told line by line to a person."""

from __future__ import annotations

from dataclasses import replace

from rcptgen.qmail.dotqmail import Action, Instruction, parse, safe_extension
from rcptgen.qmail.environment import Variables
from rcptgen.qmail.home import LONGEST_FILE, Home
from rcptgen.qmail.judged import Judged, Step
from rcptgen.qmail.leads import Leads
from rcptgen.rules.outcome import Outcome
from rcptgen.rules.shown import shown
from rcptgen.source.tree import EntryType, IdentityUnavailable, Regular

_DOES = {Action.MBOX: "delivers to an mbox", Action.MAILDIR: "delivers to a maildir", Action.PROGRAM: "runs a program"}


def trace(home: Home, dash: bytes, extension: bytes, local: bytes, host: bytes, steps: list[Step]) -> Outcome:
    """What Home.judge says, with every file tried and every line that is reached added to `steps`.

    Whatever is quoted was read as the owner of the home.
    """
    outcome = home.judge(dash, extension, local, host, steps)
    if home.state() is None:
        try:
            _lines(home, dash, extension, local, host, steps)
        except IdentityUnavailable:
            return home.without_identity()
    seen = any((step.file, step.line) == (outcome.file, outcome.line) for step in steps)
    quoted = b"" if seen else _quoted(home, outcome.file, outcome.line)
    steps.append(Step(outcome.reason, outcome.file, outcome.line, quoted))
    return outcome


def _quoted(home: Home, file: bytes, line: int) -> bytes:
    """The text of a line, if the owner may read it."""
    if not line:
        return b""
    found = home.look.read(file, LONGEST_FILE)
    lines = found.data.split(b"\n") if isinstance(found, Regular) else []
    return lines[line - 1] if line <= len(lines) else b""


def _lines(home: Home, dash: bytes, extension: bytes, local: bytes, host: bytes, steps: list[Step]) -> None:
    """What each line comes to that is reached."""
    judged, default_at = home.search(b".qmail" + dash, safe_extension(extension, dash), None)
    if judged is None and dash:
        return
    written, forward_only, whole = _written(home, judged)
    if written is None:
        return
    if whole:
        steps.append(Step("the default delivery of qmail-start", whole, 0, written))
    file = whole or (judged.file if judged is not None else b"")
    text = written.split(b"\n")
    default = extension[default_at:] if default_at >= 0 else None
    settings = home.settings
    variables = Variables.known(settings.path, home.user, home.home, local, host, extension, default)
    noted = Leads(file=file)

    def hear(said: str, where: bytes, line: int) -> None:
        if steps[-1].text.partition(": ")[2] == said.partition(": ")[2]:
            # A line that is one program comes to the same.
            return
        quoted = _quoted(home, where, line)
        steps.append(Step(said, where or file, line if where or whole else noted.line, quoted))

    def reached(one: Instruction) -> None:
        noted.line = one.line
        forwards = one.action is Action.FORWARD
        does = f"forwards to {shown(one.text)}" if forwards else _DOES[one.action]
        steps.append(Step(does, file, 0 if whole else one.line, text[one.line - 1]))

    def mailbox(one: Instruction) -> bool:
        found = home.mailboxes.deliverable(one)
        if not found:
            steps[-1] = replace(steps[-1], text="cannot be delivered to", found=False)
        return found

    noted.hear = hear
    read = Judged(file, parse(written, forward_only=forward_only))
    home.ending(read, variables, mailbox, noted, reached)


def _written(home: Home, judged: Judged | None) -> tuple[bytes | None, bool, bytes]:
    """The lines that stand for a file (None: there is nothing to be read), its x bit, and for which empty file."""
    if judged is None:
        return home.settings.default_delivery, False, home.home
    with home.as_owner():
        found = home.content(judged.file[len(home.path(b"")) :], EntryType.UNKNOWN)
    if not isinstance(found, Regular):
        return None, False, b""
    if not found.data:
        return home.settings.default_delivery, False, judged.file
    return found.data, bool(found.status.mode & 0o100), b""
