"""dot-forward: sendmail's .forward files under qmail (dot-forward 0.71).

Their lines are RFC 822 addresses, taken from right to left; `#` begins a comment line.
"""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rcptgen.programs.aliasesdb import HARD
from rcptgen.programs.shellstate import look
from rcptgen.qmail.model import Effect, Runner, Situation, Text, lowered, unknown_effect
from rcptgen.rules.outcome import Kind
from rcptgen.source.tree import Absent, NotRegular, Regular, TooLarge

LONGEST_FILE = 256 * 1024
LONGEST_ADDRESS = 1002
MOST_PROGRAMS = 64

_SYMBOLS = b".,@<>:;"
_BLANKS = b" \t\r\n"
_ENDS_ATOM = frozenset(_BLANKS + b'([."<>;:@,')
_CLOSED_BY = {0x22: 0x22, 0x5B: 0x5D}

WORD, COMMENT = b"w", b"c"
"""The kinds of tokens beside the symbols, which are their own kind."""

Token = tuple[bytes, bytes]


class Unparsable(Exception):
    """A line that is no list of addresses."""


def tokens(line: bytes) -> Iterator[Token]:
    """The tokens of a line as (kind, text) (token822.c: token822_parse); raises Unparsable."""
    at, size = 0, len(line)
    while at < size:
        byte = line[at]
        if byte in _BLANKS:
            at += 1
        elif byte in _SYMBOLS:
            yield line[at : at + 1], line[at : at + 1]
            at += 1
        elif byte in b")]":
            raise Unparsable
        elif byte == 0x28:
            at = _comment(line, at)
            yield COMMENT, b""
        elif byte in _CLOSED_BY:
            text, at = _quoted(line, at + 1, _CLOSED_BY[byte])
            yield WORD, b"[" + text + b"]" if byte == 0x5B else text
        else:
            text, at = _atom(line, at)
            yield WORD, text


def _comment(line: bytes, at: int) -> int:
    """Where a comment ends that begins at `at`; comments may be nested."""
    level = 0
    while at < len(line):
        level += (line[at] == 0x28) - (line[at] == 0x29)
        at += 2 if line[at] == 0x5C else 1
        if not level:
            return at
    raise Unparsable


def _quoted(line: bytes, at: int, end: int) -> tuple[bytes, int]:
    text = bytearray()
    while at < len(line):
        if line[at] == end:
            return bytes(text), at + 1
        if line[at] == 0x5C:
            at += 1
        text += line[at : at + 1]
        at += 1
    raise Unparsable


def _atom(line: bytes, at: int) -> tuple[bytes, int]:
    text = bytearray()
    while at < len(line) and (not text or line[at] not in _ENDS_ATOM):
        if line[at] == 0x5C:
            at += 1
        text += line[at : at + 1]
        at += 1
    return bytes(text), at


def addresses(line: bytes) -> Iterator[tuple[bytes, bool]]:
    """Every address of a line, last one first, and whether it has an `@` (dot-forward.c: parseline).

    Raises Unparsable, perhaps behind some addresses.
    """
    waiting = list(tokens(line))
    address: list[Token] = []

    def taken() -> Iterator[tuple[bytes, bool]]:
        text = b"".join(text for _, text in reversed(address))
        at = any(kind == b"@" for kind, _ in address)
        address.clear()
        if text:
            yield text, at

    word_may_follow = True
    while waiting:
        kind, text = waiting.pop()
        if kind == b">":
            yield from taken()
            while waiting and waiting[-1][0] != b"<":
                address.append(waiting.pop())
            yield from taken()
            if not waiting:
                raise Unparsable
            waiting.pop()
            while waiting and waiting[-1][0] in (COMMENT, WORD, b"@", b"."):
                waiting.pop()
            word_may_follow = False
        elif kind == WORD:
            if not word_may_follow:
                yield from taken()
            word_may_follow = False
            address.append((kind, text))
        elif kind == b",":
            yield from taken()
            word_may_follow = True
        elif kind in (b"@", b".", b"<"):
            word_may_follow = True
            address.append((kind, text))
    yield from taken()


@dataclass(slots=True)
class _Run:
    """What has happened so far."""

    ended: set[int] = field(default_factory=set)
    forwards: bool = False
    addresses: list[bytes] = field(default_factory=list)
    ran: int = 0
    direct: bool = False
    too_long: bool = False
    approximate: bool = False
    reason: str = ""


class DotForward:
    """`dot-forward [-nN] file ...` (dot-forward.c: main, try, gotaddr, run).

    Ends with 99 where a file forwards the message or pipes it, with 0 where all files are missing
    or empty, or one names the user himself.
    """

    names: tuple[bytes, ...] = (b"dot-forward",)
    tells_leads = True

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """Goes by the first file that holds an address."""
        rest = list(words[1:])
        dry = False
        while rest and isinstance(rest[0], bytes) and rest[0].startswith(b"-") and rest[0] != b"-":
            option = rest.pop(0)
            if option == b"--":
                break
            assert isinstance(option, bytes)
            if option[1:].strip(b"nN"):
                return Effect(frozenset({100}), Kind.PROGRAM, "usage of dot-forward")
            dry = option.endswith(b"n")
        run = _Run()
        for name in rest:
            if not isinstance(name, bytes):
                look(name)
                return unknown_effect("dot-forward with arguments that nobody knows", Kind.FORWARD)
            found = situation.look.read(name, LONGEST_FILE)
            if isinstance(found, Absent) and found.errno == errno.ENOENT:
                continue
            if isinstance(found, NotRegular) and not stat.S_ISDIR(found.mode):
                continue
            if isinstance(found, TooLarge):
                return unknown_effect("dot-forward with a large file", Kind.FORWARD)
            path = situation.look.path(name)
            if not isinstance(found, Regular):
                return _effect(run, 111, Kind.PROGRAM, "dot-forward cannot read its file", path)
            effect = self._file(found.data, path, run, situation, dry=dry)
            if effect is not None:
                return effect
        return _effect(run, 0, Kind.PROGRAM, "dot-forward goes on")

    def _file(self, data: bytes, path: bytes, run: _Run, situation: Situation, *, dry: bool) -> Effect | None:
        """What one file comes to, or None where it is empty."""
        user = situation.variables.get(b"USER", b"")
        for line in re.findall(rb"[^\n]*\n|[^\n]+", data):
            if line.startswith(b"#"):
                continue
            try:
                for address, at in addresses(line):
                    own = _same(address, user, situation.variables.get(b"HOST", b"") if at else None)
                    if own is None:
                        return unknown_effect("dot-forward with an unknown user or host", Kind.FORWARD)
                    if own:
                        run.direct = True
                    elif not at and address.startswith(b"/"):
                        return _effect(run, 111, Kind.PROGRAM, "dot-forward does not write to files", path)
                    elif not at and address.startswith(b"|"):
                        if not self._program(address[1:], run, situation, dry=dry):
                            return _effect(run, None, Kind.PROGRAM, run.reason, path)
                    else:
                        run.forwards = True
                        run.addresses.append(address)
                        run.too_long |= len(address.partition(b"\0")[0]) > LONGEST_ADDRESS
            except Unparsable:
                return _effect(run, 111, Kind.PROGRAM, "dot-forward cannot parse a line", path)
        if run.too_long and not dry:
            return _effect(run, 100, Kind.PROGRAM, "address too long for qmail-queue", path)
        if run.direct:
            if situation.leads is not None:
                situation.leads.elsewhere("dot-forward leaves the message to its user")
            return _effect(run, 0, Kind.PROGRAM, "dot-forward goes on", path)
        if run.forwards or run.ran:
            if situation.leads is not None:
                situation.leads.forward_all([] if dry else run.addresses)
            kind = Kind.FORWARD if run.forwards else Kind.PROGRAM
            return _effect(
                run, 99, kind, "dot-forward forwards" if run.forwards else "dot-forward runs a program", path
            )
        return None

    def _program(self, line: bytes, run: _Run, situation: Situation, *, dry: bool) -> bool:
        """Runs a program; whether it may go on behind it."""
        run.ran += 1
        if dry:
            return True
        if run.ran > MOST_PROGRAMS:
            effect = unknown_effect("dot-forward with many programs")
        else:
            effect = situation.shell(line.partition(b"\0")[0])
        run.ended |= {100 if status in HARD else 111 for status in effect.statuses if status}
        run.approximate |= effect.approximate
        run.reason = run.reason or f"dot-forward runs a program: {effect.reason}"
        return 0 in effect.statuses


def _same(address: bytes, user: Text, host: Text | None) -> bool | None:
    """Whether an address is the user's own, in any case (case_diffb.c); None where nobody knows."""
    whole = lowered(user)
    if whole is None:
        look(user)
        return None
    if host is not None:
        domain = lowered(host)
        if domain is None:
            look(host)
            return None
        whole += b"@" + domain
    return address.lower() == whole


def _effect(run: _Run, status: int | None, kind: Kind, reason: str, path: bytes = b"") -> Effect:
    statuses = frozenset(run.ended if status is None else run.ended | {status})
    approximate = run.approximate and len(statuses) > 1
    return Effect(statuses, kind, run.reason if approximate else reason, approximate, file=path)
