"""The grammar of one line of /bin/sh, as far as dash, busybox and bash agree on it.

    list     := and-or ((';' | '&') and-or)* [';' | '&']
    and-or   := pipeline (('&&' | '||') pipeline)*
    pipeline := ['!'] command ('|' command)*
    command  := simple | ( '(' list ')' | '{' list '}' | if | case | for | while | until ) redirection*

All shells parse a line to its end before they run any of it, so one error in it
means that nothing runs.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rcptgen.programs.shellast import (
    AndOr,
    Assignment,
    Case,
    Command,
    Group,
    If,
    List,
    Literal,
    Loop,
    Pipeline,
    Redirected,
    Redirection,
    Simple,
    Subshell,
    Word,
)
from rcptgen.programs.shellscan import NAME, Scanner, ShellSyntaxError, Unsupported

MAX_LINE = 1 << 17
"""Linux refuses to start a program with an argument of this size (MAX_ARG_STRLEN)."""

LONGEST_PLAIN = 1024
_CONSTANT = re.compile(rb"[A-Za-z0-9_./@%+,:=-]*")
"""Unquoted text that no shell expands."""

_REDIRECTION = re.compile(rb"[0-9]*(<<-?|<>|<&|<|>>|>\||>&|>)")
_ASSIGNMENT = re.compile(rb"([A-Za-z_][A-Za-z0-9_]*)=")
_FOREIGN_ASSIGNMENT = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*(\+=|\[[^ \t\n;&|]*=)")
_FUNCTION = re.compile(rb"\([ \t]*\)")

_CLOSING = frozenset({b"then", b"else", b"elif", b"fi", b"do", b"done", b"esac", b"}", b"in"})
# Reserved in some shells, ordinary command names in others.
_FOREIGN_WORDS = frozenset({b"[[", b"function", b"select", b"coproc", b"time"})


def parse(line: bytes) -> List | None:
    """The line as a tree; None when there is nothing to run.

    Raises ShellSyntaxError where no shell takes the line, Unsupported where that
    cannot be told.
    """
    if len(line) >= MAX_LINE:
        raise Unsupported
    return _Parser(line).line()


@lru_cache(maxsize=4096)
def plain_command(line: bytes) -> tuple[bytes, ...] | None:
    """The words of a line that is one program, called by its path, and constant words; else None.

    Most lines of a mail host are of this sort, and the same ones over and over.
    """
    words = one_command(line)
    if words is None or words[0] is None or b"/" not in words[0]:
        return None
    known = tuple(word for word in words if word is not None)
    return known if len(known) == len(words) else None


@lru_cache(maxsize=4096)
def one_command(line: bytes) -> tuple[bytes | None, ...] | None:
    """The words of a line that is one simple command and nothing else, None for words that are not constant."""
    if len(line) > LONGEST_PLAIN:
        return None
    try:
        tree = parse(line)
    except (ShellSyntaxError, Unsupported):
        return None
    match tree:
        case List(
            items=(AndOr(first=Pipeline(negated=False, commands=(Simple() as command,)), rest=(), background=False),)
        ):
            pass
        case _:
            return None
    if command.assignments or command.redirections or not command.words:
        return None
    return tuple(map(_constant, command.words))


def _constant(word: Word) -> bytes | None:
    if not all(isinstance(part, Literal) and (part.quoted or _CONSTANT.fullmatch(part.text)) for part in word):
        return None
    return b"".join(part.text for part in word if isinstance(part, Literal))


class _Parser(Scanner):
    __slots__ = ()

    def line(self) -> List | None:
        self.skip()
        if self.pos == len(self.data):
            return None
        tree = self.list()
        if self.pos < len(self.data):
            raise ShellSyntaxError
        return tree

    def substituted(self) -> None:
        self.list()

    def starts_command(self) -> bool:
        operator = self.operator()
        if operator:
            return operator in (b"(", b"<", b">")
        return self.pos < len(self.data) and self.bare() not in _CLOSING

    def list(self) -> List:
        items: list[AndOr] = []
        while self.starts_command():
            first = self.pipeline()
            rest: list[tuple[bytes, Pipeline]] = []
            while (operator := self.operator()) in (b"&&", b"||"):
                self.take(operator)
                rest.append((operator, self.pipeline()))
            background = self.take(b"&")
            items.append(AndOr(first, tuple(rest), background))
            if not background and not self.take(b";"):
                break
        if not items:
            raise ShellSyntaxError
        return List(tuple(items))

    def pipeline(self) -> Pipeline:
        negated = self.take_word(b"!")
        if negated and (self.bare() == b"!" or not self.starts_command()):
            raise Unsupported  # bash takes several, and one before nothing; dash and busybox do not
        commands = [self.command()]
        while self.take(b"|"):
            if self.bare() == b"!":
                raise ShellSyntaxError
            commands.append(self.command())
        return Pipeline(negated, tuple(commands))

    def command(self) -> Command:
        if not self.starts_command():
            raise ShellSyntaxError
        word = self.bare()
        if word in _FOREIGN_WORDS or self.data.startswith(b"((", self.pos):
            raise Unsupported
        self.enter()
        command: Command
        if self.take(b"("):
            command = Subshell(self.list())
            self.need(b")")
        elif self.take_word(b"{"):
            command = Group(self.list())
            self.need_word(b"}")
        elif self.take_word(b"if"):
            command = self.conditional()
        elif self.take_word(b"case"):
            command = self.case()
        elif word in (b"while", b"until", b"for"):
            command = self.loop()
        else:
            command = self.simple()
        self.depth -= 1
        if isinstance(command, Simple):
            return command
        redirections: list[Redirection] = []
        while found := _REDIRECTION.match(self.data, self.pos):
            redirections.append(self.redirection(found))
        return Redirected(command, tuple(redirections)) if redirections else command

    def conditional(self) -> If:
        branches: list[tuple[List, List]] = []
        while True:
            condition = self.list()
            self.need_word(b"then")
            branches.append((condition, self.list()))
            if not self.take_word(b"elif"):
                break
        otherwise = self.list() if self.take_word(b"else") else None
        self.need_word(b"fi")
        return If(tuple(branches), otherwise)

    def case(self) -> Case:
        subject = self.word()
        self.skip()
        self.need_word(b"in")
        arms: list[tuple[tuple[Word, ...], List | None]] = []
        while not self.take_word(b"esac"):
            self.take(b"(")
            patterns = [self.word()]
            self.skip()
            while self.take(b"|"):
                patterns.append(self.word())
                self.skip()
            self.need(b")")
            if self.data.startswith(b";&", self.pos):
                raise Unsupported
            body = None if self.operator() == b";;" or self.bare() == b"esac" else self.list()
            arms.append((tuple(patterns), body))
            last = not self.take(b";;")
            if self.operator() == b"&":
                raise Unsupported  # `;&` and `;;&` of bash
            if last:
                self.need_word(b"esac")
                break
        return Case(subject, tuple(arms))

    def loop(self) -> Loop:
        if self.take_word(b"for"):
            if not re.fullmatch(NAME, self.bare()):
                raise Unsupported  # every shell has its own opinion
            self.word()
            self.skip()
            if self.take_word(b"in"):
                while self.pos < len(self.data) and not self.operator():
                    self.word()
                    self.skip()
                self.need(b";")
            else:
                self.take(b";")
        else:
            self.pos += len(self.bare())
            self.skip()
            self.list()
        self.need_word(b"do")
        self.list()
        self.need_word(b"done")
        return Loop()

    def simple(self) -> Simple:
        begin = self.pos
        assignments: list[Assignment] = []
        words: list[Word] = []
        redirections: list[Redirection] = []
        while self.pos < len(self.data):
            if found := _REDIRECTION.match(self.data, self.pos):
                redirections.append(self.redirection(found))
                continue
            if self.operator():
                break
            assigned = None if words else _ASSIGNMENT.match(self.data, self.pos)
            if not words and _FOREIGN_ASSIGNMENT.match(self.data, self.pos):
                raise Unsupported
            if assigned:
                self.pos = assigned.end()
                assignments.append(Assignment(assigned[1], self.word(empty=True)))
                if self.char() == b"(":
                    raise Unsupported  # an array of bash
            else:
                start = self.pos
                words.append(self.word())
                if self.char() in (b"<", b">") and self.data.startswith(b"{", start):
                    raise Unsupported  # {name}>file of bash
            self.skip()
        if len(words) == 1 and not assignments and not redirections and _FUNCTION.match(self.data, self.pos):
            raise Unsupported  # a function
        return Simple(tuple(assignments), tuple(words), tuple(redirections), self.pos - begin)

    def redirection(self, found: re.Match[bytes]) -> Redirection:
        operator = found[1]
        if operator.startswith(b"<<"):
            raise Unsupported
        self.pos = found.end()
        self.skip()
        target = self.word()
        self.skip()
        if operator.endswith(b"&"):
            texts = [part.text for part in target if isinstance(part, Literal)]
            if len(texts) != len(target) or not re.fullmatch(rb"[0-9]+|-", b"".join(texts)):
                raise Unsupported
        return Redirection(operator, target)
