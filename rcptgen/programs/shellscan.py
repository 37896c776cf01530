"""The tokens of a line of /bin/sh: operators, words, and what words are made of."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from rcptgen.programs.shellast import Literal, Opaque, Parameter, Part, Substitution, Word

MAX_DEPTH = 32
"""Constructs within constructs; deeper ones are not followed."""


MAX_TOKENS = 4096
"""Words, quotes and operators of a line; a longer one is not followed."""


class ShellSyntaxError(Exception):
    """Every shell refuses the line: status 2, nothing is run."""


class Unsupported(Exception):
    """Shells differ here, or the construct is not modelled."""


NAME = rb"[A-Za-z_][A-Za-z0-9_]*"
_BLANKS = re.compile(rb"[ \t]*")
_PLAIN = re.compile(rb"[^ \t\n;&|()<>'\"\\$`]+")
_BRACE_PLAIN = re.compile(rb"[^}\n'\"\\$`]+")
_QUOTED_PLAIN = re.compile(rb"[^\"\\$`\n]+")
_OPERATOR = re.compile(rb"&&|\|\||;;|[;&|()<>]")
_FOREIGN = re.compile(rb"&>|\|&(?!&)|[0-9]*<<<|[0-9]*[<>]\(")
_ARITHMETIC = re.compile(rb"[()'\"\\`]")
_BACKQUOTE = re.compile(rb"`(?:[^`\\]|\\.)*`", re.DOTALL)
_PARAMETER = re.compile(rb"\$(" + NAME + rb"|[0-9@*#?$!-])")
_BRACED = re.compile(rb"\$\{(" + NAME + rb"|[0-9]+|[@*#?$!-])\}")
_LENGTH = re.compile(rb"\$\{#(" + NAME + rb")\}")
_OPERATED = re.compile(rb"\$\{(" + NAME + rb"|[0-9]+)(:?[-=+?]|##?|%%?)")


class Scanner(ABC):
    """A position in a line; what it takes it also consumes."""

    __slots__ = ("data", "depth", "pos", "tokens")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.pos = 0
        self.depth = 0
        self.tokens = 0

    def skip(self) -> None:
        """Goes to the next token; a comment reaches to the end of the line."""
        self.count()
        self.pos = _BLANKS.match(self.data, self.pos).end()  # type: ignore[union-attr]
        if self.char() == b"#":
            self.pos = len(self.data)
        elif self.char() == b"\n" or _FOREIGN.match(self.data, self.pos):
            raise Unsupported

    def count(self) -> None:
        """Takes note of one more token."""
        self.tokens += 1
        if self.tokens > MAX_TOKENS:
            raise Unsupported

    def char(self, offset: int = 0) -> bytes:
        """The byte here; empty at the end."""
        return self.data[self.pos + offset : self.pos + offset + 1]

    def operator(self) -> bytes:
        """The operator that stands here, if one does."""
        found = _OPERATOR.match(self.data, self.pos)
        return found[0] if found else b""

    def take(self, operator: bytes) -> bool:
        """Consumes the operator and what is blank behind it, if it is there."""
        if self.operator() != operator:
            return False
        self.pos += len(operator)
        self.skip()
        return True

    def need(self, operator: bytes) -> None:
        """Consumes the operator, which must stand here."""
        if not self.take(operator):
            raise ShellSyntaxError

    def bare(self) -> bytes:
        """The next word where none of it is quoted or expanded: only such a word can be reserved."""
        found = _PLAIN.match(self.data, self.pos)
        if not found or self.data[found.end() : found.end() + 1] in (b"'", b'"', b"\\", b"$", b"`"):
            return b""
        return found[0]

    def take_word(self, word: bytes) -> bool:
        """Consumes the reserved word and the blanks behind it, if it is there."""
        if self.bare() != word:
            return False
        self.pos += len(word)
        self.skip()
        return True

    def need_word(self, word: bytes) -> None:
        """Consumes the reserved word, which must stand here."""
        if not self.take_word(word):
            raise ShellSyntaxError

    def enter(self) -> None:
        """Goes one construct deeper."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unsupported

    def word(self, *, empty: bool = False) -> Word:
        """The word that stands here, without the blanks behind it."""
        parts: list[Part] = []
        while self.pos < len(self.data):
            if found := _PLAIN.match(self.data, self.pos):
                parts.append(Literal(found[0], quoted=False))
                self.pos = found.end()
            elif not self.special(parts):
                break
        if not parts and not empty:
            raise ShellSyntaxError
        return tuple(parts)

    def special(self, parts: list[Part]) -> bool:
        """Takes a quote or an expansion outside double quotes; False when there is none."""
        self.count()
        char = self.char()
        if char == b"'":
            end = self.data.find(b"'", self.pos + 1)
            if end < 0:
                raise ShellSyntaxError
            parts.append(Literal(self.data[self.pos + 1 : end], quoted=True))
            self.pos = end + 1
        elif char == b'"':
            self.double_quotes(parts)
        elif char == b"\\":
            if self.char(1) == b"\n":
                raise Unsupported
            parts.append(Literal(self.char(1) or b"\\", quoted=True))
            self.pos = min(self.pos + 2, len(self.data))
        elif char == b"$":
            parts.append(self.dollar(quoted=False))
        elif char == b"`":
            parts.append(self.backquote(quoted=False))
        else:
            return False
        return True

    def double_quotes(self, parts: list[Part]) -> None:
        """What stands between double quotes."""
        self.pos += 1
        found_before = len(parts)
        while (char := self.char()) != b'"':
            self.count()
            if found := _QUOTED_PLAIN.match(self.data, self.pos):
                parts.append(Literal(found[0], quoted=True))
                self.pos = found.end()
            elif char == b"\\":
                escaped = self.char(1)
                if escaped == b"\n":
                    raise Unsupported
                parts.append(Literal(escaped if escaped in (b"$", b"`", b'"', b"\\") else b"\\" + escaped, quoted=True))
                self.pos += 2
            elif char == b"$":
                parts.append(self.dollar(quoted=True))
            elif char == b"`":
                parts.append(self.backquote(quoted=True))
            elif char == b"\n":
                raise Unsupported
            else:
                raise ShellSyntaxError
        self.pos += 1
        if len(parts) == found_before:
            parts.append(Literal(b"", quoted=True))

    def dollar(self, *, quoted: bool) -> Part:
        """The expansion that a dollar begins, or the dollar."""
        if found := _PARAMETER.match(self.data, self.pos) or _BRACED.match(self.data, self.pos):
            self.pos = found.end()
            return Parameter(found[1], quoted)
        if found := _LENGTH.match(self.data, self.pos):
            self.pos = found.end()
            return Parameter(found[1], quoted, b"length")
        if found := _OPERATED.match(self.data, self.pos):
            self.pos = found.end()
            return Parameter(found[1], quoted, found[2], self.brace_word(quoted=quoted))
        following = self.char(1)
        if following == b"{":
            end = self.data.find(b"}", self.pos)
            if end < 0:
                raise ShellSyntaxError
            if re.search(rb"['\"\\$`{]", self.data[self.pos + 2 : end]):
                raise Unsupported
            self.pos = end + 1
            return Opaque(quoted)
        if following == b"(":
            return self.substitution(quoted=quoted)
        if following == b"[" or (not quoted and following in (b"'", b'"')):
            raise Unsupported
        self.pos += 1
        return Literal(b"$", quoted=True)

    def brace_word(self, *, quoted: bool) -> Word:
        """The argument of `${NAME-argument}`, up to and with its brace."""
        self.enter()
        parts: list[Part] = []
        while (char := self.char()) != b"}":
            self.count()
            if found := _BRACE_PLAIN.match(self.data, self.pos):
                parts.append(Literal(found[0], quoted=False))
                self.pos = found.end()
            elif not char:
                raise ShellSyntaxError
            elif char == b"\n" or (quoted and char in b"'\"\\"):
                raise Unsupported  # what quotes mean within quotes differs
            elif quoted:
                parts.append(self.dollar(quoted=True) if char == b"$" else self.backquote(quoted=True))
            else:
                self.special(parts)
        self.pos += 1
        self.depth -= 1
        return tuple(parts)

    @abstractmethod
    def substituted(self) -> None:
        """Takes the commands of a substitution; for the parser, which knows lists, to say how."""

    def substitution(self, *, quoted: bool) -> Part:
        """`$(list)`; the list is parsed with the line."""
        if self.data.startswith(b"$((", self.pos):
            return self.arithmetic(quoted=quoted)
        self.enter()
        self.pos += 2
        self.skip()
        if self.char() != b")":
            self.substituted()
        if self.char() != b")":
            raise ShellSyntaxError
        self.pos += 1
        self.depth -= 1
        return Substitution(quoted)

    def arithmetic(self, *, quoted: bool) -> Part:
        """`$((expression))`, skipped."""
        depth = 0
        for found in _ARITHMETIC.finditer(self.data, self.pos):
            if found[0] == b"(":
                depth += 1
            elif found[0] == b")":
                depth -= 1
                if depth == 1 and self.data[found.end() : found.end() + 1] != b")":
                    break  # `$( (list) )` written together, which dash takes for arithmetic
                if depth == 0:
                    self.pos = found.end()
                    return Opaque(quoted)
            else:
                break
        raise Unsupported

    def backquote(self, *, quoted: bool) -> Part:
        """Commands in backquotes; bash looks at their syntax only when it runs them."""
        found = _BACKQUOTE.match(self.data, self.pos)
        if not found:
            raise ShellSyntaxError
        self.pos = found.end()
        return Substitution(quoted)
