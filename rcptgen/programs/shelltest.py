"""`test` and `[`: what they say of texts that are known, and of those that are not.

Up to three arguments are told apart by their number, as POSIX has it; longer
expressions are read with the grammar that dash, busybox and bash share, and given
up where an argument could be taken for an operator.

    or      := and ('-o' and)*
    and     := not ('-a' not)*
    not     := '!' not | primary
    primary := '(' or ')' | text binary text | unary text | text
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence

from rcptgen.programs.shellstate import VARIABLE_TEST, ShellPid, VagueStatus, look
from rcptgen.qmail.look import NO_LOOK, Look
from rcptgen.qmail.model import Free, Text, Unknown
from rcptgen.source.tree import FailedForNow, Failure, Status

FILE_TEST = "test of a file"
MAX_ARGUMENTS = 64
MAX_DEPTH = 16

_FILE_UNARY = frozenset(b"-" + bytes([letter]) for letter in b"bcdefghkprsuwxGLOS")
_FILE_BINARY = frozenset({b"-nt", b"-ot", b"-ef"})
_NUMBERS = frozenset({b"-eq", b"-ne", b"-gt", b"-ge", b"-lt", b"-le"})
_BINARY = frozenset({b"=", b"==", b"!="}) | _FILE_BINARY | _NUMBERS
_UNARY = frozenset({b"-n", b"-z"}) | _FILE_UNARY
# What holds of every status but 0.
_FAILED = {(b"-gt", b"0"): True, (b"-ge", b"1"): True, (b"-lt", b"1"): False, (b"-le", b"0"): False}
_NUMBER = re.compile(rb"-?[0-9]{1,18}")
_ODD_NUMBER = re.compile(rb"[ \t]*[-+]?[0-9]+[ \t]*")


_ACCESS = {b"-r": os.R_OK, b"-w": os.W_OK, b"-x": os.X_OK}
_STATUS: dict[bytes, Callable[[Status], bool]] = {
    b"-e": lambda status: True,
    b"-f": lambda status: stat.S_ISREG(status.mode),
    b"-d": lambda status: stat.S_ISDIR(status.mode),
    b"-p": lambda status: stat.S_ISFIFO(status.mode),
    b"-b": lambda status: stat.S_ISBLK(status.mode),
    b"-c": lambda status: stat.S_ISCHR(status.mode),
    b"-S": lambda status: stat.S_ISSOCK(status.mode),
    b"-s": lambda status: status.size > 0,
}
"""The tests of a file that are answered; of others nobody knows."""


class _Refused(Exception):
    """`test` says that it does not understand: status 2."""


class _Undecided(Exception):
    """Shells may answer in any way."""


class Test:
    """One evaluation; `doubt` says why an answer is None.

    Files are looked at with `look`; `moved`: the working directory is not the home.
    """

    __slots__ = ("_look", "_moved", "differs", "doubt")

    def __init__(self, look_at: Look = NO_LOOK, *, moved: bool = False) -> None:
        self._look = look_at
        self._moved = moved
        self.doubt = ""
        self.differs = False
        """Whether some shell refuses what others answer."""

    def statuses(self, arguments: Sequence[Text]) -> frozenset[int]:
        """The statuses that `test` may end with."""
        try:
            answer = self._by_number(list(arguments))
        except _Refused:
            return frozenset({2})
        except _Undecided:
            for one in arguments:
                if not isinstance(one, bytes):
                    self.doubt = look(one)
            self.doubt = self.doubt or "test that shells read differently"
            return frozenset({0, 1, 2})
        statuses = {0, 1} if answer is None else {0 if answer else 1}
        if self.differs:
            self.doubt = self.doubt or "test that shells read differently"
            statuses.add(2)
        return frozenset(statuses)

    def _by_number(self, arguments: list[Text]) -> bool | None:
        match arguments:
            case []:
                return False
            case [one]:
                return self._filled(one)
            case [b"!", one]:
                return _negated(self._filled(one))
            case [bytes(operator), one]:
                return self._unary(operator, one)
            case [left, bytes(operator), right] if operator in _BINARY:
                return self._binary(left, operator, right)
            case [left, b"-a", right]:
                return _both(self._filled(left), self._filled(right))
            case [left, b"-o", right]:
                return _negated(_both(_negated(self._filled(left)), _negated(self._filled(right))))
            case [b"!", one, two]:
                return _negated(self._by_number([one, two]))
            case [b"(", one, b")"]:
                return self._filled(one)
            case [bytes(), bytes(operator), bytes()] if not operator.startswith((b"-", b"<", b">", b"\\", b"=")):
                raise _Refused
            case [b"!" | b"(", b"!" | b"(", _, _, *_] | [b"(", _, _, b")"]:
                raise _Undecided  # dash, busybox and coreutils each read some of these in ways of their own
            case [b"!", one, two, three]:
                return _negated(self._by_number([one, two, three]))
        if len(arguments) < 4 or len(arguments) > MAX_ARGUMENTS:
            raise _Undecided
        answer, rest = self._or(arguments, 0)
        if rest and all(isinstance(one, bytes) and (_harmless(one) or one in _BINARY) for one in arguments):
            raise _Refused
        if rest:
            raise _Undecided
        return answer

    # Longer expressions: each method takes what it understands off the front.

    def _or(self, arguments: list[Text], depth: int) -> tuple[bool | None, list[Text]]:
        answer, rest = self._and(arguments, depth)
        while rest and rest[0] == b"-o":
            other, rest = self._and(rest[1:], depth)
            answer = _negated(_both(_negated(answer), _negated(other)))
        return answer, rest

    def _and(self, arguments: list[Text], depth: int) -> tuple[bool | None, list[Text]]:
        answer, rest = self._not(arguments, depth)
        while rest and rest[0] == b"-a":
            other, rest = self._not(rest[1:], depth)
            answer = _both(answer, other)
        return answer, rest

    def _not(self, arguments: list[Text], depth: int) -> tuple[bool | None, list[Text]]:
        if depth > MAX_DEPTH:
            raise _Undecided
        match arguments:
            case [b"!", _, *_]:
                answer, rest = self._not(arguments[1:], depth + 1)
                return _negated(answer), rest
            case [b"(", _, *_]:
                answer, rest = self._or(arguments[1:], depth + 1)
                if not rest or rest[0] != b")":
                    raise _Undecided
                return answer, rest[1:]
            case [left, bytes(operator), right, *rest] if operator in _BINARY and _harmless(left) and _harmless(right):
                return self._binary(left, operator, right), rest
            case [bytes(operator), one, *rest] if operator in _UNARY and _harmless(one):
                return self._unary(operator, one), rest
            case [one, *rest] if _harmless(one):
                return self._filled(one), rest
        raise _Undecided

    def _filled(self, text: Text) -> bool | None:
        if isinstance(text, bytes):
            return bool(text)
        if isinstance(text, Free):
            text.compared.add(b"")
            return True
        if isinstance(text, (ShellPid, VagueStatus)):
            return True
        self.doubt = look(text)
        return None

    def _unary(self, operator: bytes, text: Text) -> bool | None:
        if operator == b"-n":
            return self._filled(text)
        if operator == b"-z":
            return _negated(self._filled(text))
        if operator in _FILE_UNARY:
            self.doubt = FILE_TEST
            return self._file(operator, text) if isinstance(text, bytes) else None
        # bash knows more operators than dash: -a, -o, -v, -N, -R.
        if isinstance(text, bytes) and not re.fullmatch(rb"-[a-zA-Z]", operator):
            raise _Refused
        raise _Undecided

    def _file(self, operator: bytes, name: bytes) -> bool | None:
        """What is said of a file, as the owner sees it."""
        if not name.startswith(b"/") and (self._moved or not name):
            return None if name else False
        if operator in _ACCESS:
            return _answer(self._look.accessible(name, _ACCESS[operator]), lambda status: True)
        if operator in _STATUS:
            return _answer(self._look.status(name), _STATUS[operator])
        return None

    def _binary(self, left: Text, operator: bytes, right: Text) -> bool | None:
        if operator in _FILE_BINARY:
            self.doubt = FILE_TEST
            return None
        if operator in _NUMBERS:
            return self._number(left, operator, right)
        self.differs |= operator == b"=="
        answer = self._same(left, right)
        return _negated(answer) if operator == b"!=" else answer

    def _same(self, left: Text, right: Text) -> bool | None:
        if isinstance(left, bytes) and isinstance(right, bytes):
            return left == right
        if isinstance(left, bytes):
            left, right = right, left
        if isinstance(left, Free) and isinstance(right, bytes):
            left.compared.add(right)
            return False
        if isinstance(left, VagueStatus) and isinstance(right, bytes):
            return _vague_is(left, right)
        # Two unknown texts; variables may share one Free without holding one text.
        self.doubt = look(left)
        if not isinstance(right, bytes) and (look(right) == VARIABLE_TEST):
            self.doubt = VARIABLE_TEST
        return None

    def _number(self, left: Text, operator: bytes, right: Text) -> bool | None:
        if isinstance(left, bytes) and isinstance(right, bytes):
            for text in (left, right):
                if not _NUMBER.fullmatch(text):
                    if _ODD_NUMBER.fullmatch(text):
                        raise _Undecided
                    raise _Refused
            one, two = int(left), int(right)
            answers = {b"-eq": one == two, b"-ne": one != two, b"-gt": one > two, b"-ge": one >= two}
            return answers.get(operator, one < two or (operator == b"-le" and one == two))
        if isinstance(left, VagueStatus) and isinstance(right, bytes):
            if operator in (b"-eq", b"-ne"):
                answer = _vague_is(left, right)
                return _negated(answer) if operator == b"-ne" else answer
            if (operator, right) in _FAILED:
                return _FAILED[operator, right]
        raise _Undecided


def _answer(found: Status | Failure, holds: Callable[[Status], bool]) -> bool | None:
    if isinstance(found, Status):
        return holds(found)
    return None if isinstance(found, FailedForNow) else False


def _vague_is(status: VagueStatus, text: bytes) -> bool | None:
    """Whether `$?` is `text`; a failure is certainly no success and nothing that ends a delivery well."""
    if text in (b"0", b"99") or not text.isdigit():
        return False
    return None


def _harmless(text: Text) -> bool:
    """Whether nobody takes a text for an operator; what a variable holds is taken to be none."""
    if isinstance(text, bytes):
        return text not in (b"!", b"(", b")", b"<", b">") and text not in _BINARY and not re.match(rb"-[^0-9]", text)
    return isinstance(text, (Free, Unknown))


def _negated(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def _both(left: bool | None, right: bool | None) -> bool | None:
    if left is False or right is False:
        return False
    return None if left is None or right is None else True
