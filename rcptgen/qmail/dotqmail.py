"""dot-qmail files: their instructions, and what qmail-local makes of them one after the other."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from rcptgen.qmail.model import Effect
from rcptgen.rules.outcome import Kind, Outcome, Verdict

BOUNCE_STATUSES = frozenset({100, 64, 65, 70, 76, 77, 78, 112})
LONGEST_FORWARD = 1002
MOST_LINES = 1000
DEFAULT = b"default"


class Action(enum.Enum):
    """What an instruction line asks for."""

    MBOX = "mbox"
    MAILDIR = "maildir"
    PROGRAM = "program"
    FORWARD = "forward"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line that acts.  `forward_only`: the x bit or an earlier +list forbids files and programs here."""

    action: Action
    text: bytes
    line: int
    forward_only: bool


@dataclass(frozen=True, slots=True)
class Instructions:
    """A whole file.  `blank_first`: qmail-local defers; `is_list`: a +list line was seen.

    `too_many`: there are more than MOST_LINES lines that act, and none is kept.
    """

    lines: tuple[Instruction, ...]
    blank_first: bool = False
    is_list: bool = False
    too_many: bool = False

    @property
    def has_mailbox(self) -> bool:
        """Whether a line asks for a file or a maildir."""
        return any(one.action in (Action.MBOX, Action.MAILDIR) for one in self.lines)


def safe_extension(extension: bytes, dash: bytes) -> bytes:
    """The extension as it becomes part of a file name (qmail-local.c: main): lower case, dots turned into colons.

    Repeated slashes are one to the kernel, and one after a dash that ends in a slash is none.
    """
    safe = extension.lower().replace(b".", b":")
    if b"/" in safe:
        while b"//" in safe:
            safe = safe.replace(b"//", b"/")
        if dash.endswith(b"/"):
            safe = safe.removeprefix(b"/")
    return safe


def parse(data: bytes, *, forward_only: bool) -> Instructions:
    """The instructions of a dot-qmail file (qmail-local.c: main); `forward_only` is its owner x bit.

    Blanks and tabs go from the end of a line; a NUL ends the text of a line.
    """
    if not data.endswith(b"\n"):
        data += b"\n"
    found: list[Instruction] = []
    is_list = False
    for number, raw in enumerate(data[:-1].split(b"\n"), 1):
        # The C code trims the whole line, NULs and what follows them included, and acts
        # on the C string that is left.
        text = raw.rstrip(b" \t").split(b"\0", 1)[0]
        # Where a NUL ends the text, the last character of the *line* still tells a maildir.
        last = raw.rstrip(b" \t")[-1:]
        if not text:
            if number == 1:
                return Instructions((), blank_first=True)
            continue
        first = text[:1]
        if first == b"#":
            continue
        if first == b"+":
            if text == b"+list":
                forward_only = is_list = True
            continue
        if first in b"./":
            action = Action.MAILDIR if last == b"/" else Action.MBOX
        elif first == b"|":
            action, text = Action.PROGRAM, text[1:]
        else:
            action = Action.FORWARD
            text = text.removeprefix(b"&")
        if len(found) == MOST_LINES:
            return Instructions((), too_many=True)
        found.append(Instruction(action, text, number, forward_only))
    return Instructions(tuple(found), is_list=is_list)


_RANK = {Kind.DISCARD: 0, Kind.PROGRAM: 1, Kind.FORWARD: 2, Kind.ALIAS: 2, Kind.MAILBOX: 4}
"""Of several instructions the most telling one names the kind; what is not listed ranks 3."""


@dataclass(slots=True)
class _Paths:
    """The ways a sequence can end, first of each."""

    delivered: Outcome | None = None
    bounced: Outcome | None = None
    deferred: Outcome | None = None
    approximate: bool = False
    widened: bool = False


def outcome(
    instructions: Instructions,
    file: bytes,
    *,
    mailbox: Callable[[Instruction], bool],
    program: Callable[[bytes], Effect],
    forward_kind: Kind = Kind.FORWARD,
    reached: Callable[[Instruction], None] | None = None,
) -> Outcome:
    """What the instructions do to a message, in order (qmail-local.c: main, mailprogram, mailforward).

    `mailbox` says whether an mbox or maildir line can be delivered to; `program` gives the
    effect of a program line; `reached` is called with every line, in time.  Where several
    endings are possible, delivery wins over deferral over bounce: what cannot be known
    counts as delivering.
    """
    if instructions.blank_first:
        return Outcome(Verdict.DEFER, Kind.DEFERRAL, "the first line is blank", file, 1)
    if instructions.too_many:
        text = "too many lines to be judged"
        return Outcome(Verdict.DELIVER, Kind.UNKNOWN, text, file, approximate=True, widened=True)
    paths = _Paths()
    kind, reason, where = Kind.DISCARD, "no instruction delivers: accepted and thrown away", (file, 0)
    too_long = 0

    def deliver() -> None:
        if paths.delivered is not None:
            return
        if too_long:
            text = "forwards to an address that is too long"
            paths.bounced = paths.bounced or Outcome(Verdict.BOUNCE, Kind.REFUSAL, text, file, too_long)
        else:
            paths.delivered = Outcome(Verdict.DELIVER, kind, reason, *where)

    for one in instructions.lines:
        if reached is not None:
            reached(one)
        if one.action is Action.FORWARD:
            if len(one.text) > LONGEST_FORWARD and not too_long:
                too_long = one.line
            if _RANK[forward_kind] > _RANK.get(kind, 3):
                kind, reason, where = forward_kind, "forwards", (file, one.line)
            continue
        what = "program" if one.action is Action.PROGRAM else "file"
        if one.forward_only:
            text = f"{what} delivery, but the x bit (or +list) is set"
            paths.deferred = paths.deferred or Outcome(Verdict.DEFER, Kind.DEFERRAL, text, file, one.line)
            break
        if one.action is not Action.PROGRAM:
            if not mailbox(one):
                text = f"{one.action.value} cannot be delivered to"
                paths.deferred = paths.deferred or Outcome(Verdict.DEFER, Kind.DEFERRAL, text, file, one.line)
                break
            if kind is not Kind.MAILBOX:
                kind, reason, where = Kind.MAILBOX, one.action.value, (file, one.line)
            continue
        effect = program(one.text)
        statuses = effect.statuses
        paths.approximate |= effect.approximate
        paths.widened |= effect.widened
        rests_on = (effect.file, effect.line) if effect.file else (file, one.line)
        bounces = statuses & BOUNCE_STATUSES
        if bounces and paths.bounced is None:
            paths.bounced = Outcome(Verdict.BOUNCE, Kind.REFUSAL, effect.reason, *rests_on)
        if statuses - BOUNCE_STATUSES - {0, 99} and paths.deferred is None:
            paths.deferred = Outcome(Verdict.DEFER, Kind.DEFERRAL, effect.reason, *rests_on)
        if (0 in statuses or 99 in statuses) and _RANK.get(effect.kind, 3) > _RANK.get(kind, 3):
            kind, reason, where = effect.kind, effect.reason, rests_on
        if 99 in statuses:
            deliver()
        if 0 not in statuses:
            break
    else:
        deliver()
    return _worst_case(paths, is_list=instructions.is_list)


def _worst_case(paths: _Paths, *, is_list: bool) -> Outcome:
    if paths.delivered is not None:
        found = paths.delivered
        if is_list and found.kind in (Kind.FORWARD, Kind.ALIAS):
            found = found._replace(kind=Kind.LIST)
        if paths.approximate and (paths.bounced or paths.deferred):
            found = found._replace(approximate=True)
        return found._replace(widened=True) if paths.widened else found
    found_or_none = paths.deferred or paths.bounced
    assert found_or_none is not None, "every sequence ends somewhere"
    if paths.deferred is not None and (paths.bounced is not None or paths.widened):
        return paths.deferred._replace(approximate=paths.bounced is not None, widened=paths.widened)
    return found_or_none
