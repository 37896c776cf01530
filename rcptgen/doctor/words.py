"""Shell text as simple commands of words: as much of sh(1) as run scripts are written in, and nothing of it is run.

    script   = command { (";" | "&" | "|" | "&&" | "||" | newline) command }
    word     = { letters | '...' | "..." | $NAME | ${NAME} | ${NAME:-word} | `...` | $(...) | \\x }

Reserved words, parentheses and braces only divide commands: every branch counts as taken.
Redirections and here-documents are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

LONGEST = 1 << 16
"""Bytes of a script beyond which the rest is not looked at."""

RESERVED = frozenset(b"if then else elif fi while until do done case esac in for { } ( ) ! function".split())

Lookup = Callable[[bytes], bytes | None]


@dataclass(slots=True)
class Word:
    """One word: `text` with quotes taken off; `known` is false where a part of it is only known when it is run."""

    text: bytes = b""
    known: bool = True
    quoted: bool = False


@dataclass(slots=True)
class Command:
    """One simple command, on `line` (from 1) of its file."""

    line: int
    words: list[Word] = field(default_factory=list)


_BLANK = re.compile(rb"(?:[ \t\r]|\\\n)+")
_COMMENT = re.compile(rb"#[^\n]*")
_HERE = re.compile(rb"<<-?[ \t]*['\"\\]?([A-Za-z_][A-Za-z0-9_]*)['\"]?")
_REDIRECTION = re.compile(rb"[0-9]*(?:>>|>&|<&|>\||<>|>|<)")
_SEPARATOR = re.compile(rb"&&|\|\||;;|[;&|\n()]")
_PLAIN = re.compile(rb"[^ \t\r\n;&|()<>'\"\\`$]+")
_NAME = re.compile(rb"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?::?[-=]([^}'\"`$\\]*))?\})")
_OTHER = re.compile(rb"\$(?:\{[^}]{0,256}\}|[0-9@*#?!$-])")
_INSIDE_QUOTES = re.compile(rb"[^\"\\`$]+")


def commands(script: bytes, value: Lookup, substituted: Lookup) -> Iterator[Command]:
    """The commands of a script, in its order, each as soon as its end is seen.

    `value` gives a variable as it then is (None: not known), `substituted` what a command in
    backquotes writes.  Whoever takes a command may so change what the next one is made of.
    """
    return _Scanner(script[:LONGEST], value, substituted).commands()


class _Scanner:
    def __init__(self, script: bytes, value: Lookup, substituted: Lookup) -> None:
        self._text = script
        self._at = 0
        self._value = value
        self._substituted = substituted
        self._here: list[bytes] = []
        self._counted = 0
        self._line = 1

    def commands(self) -> Iterator[Command]:
        command = Command(1)
        while self._at < len(self._text):
            if self._skipped(_BLANK) or self._skipped(_COMMENT):
                continue
            if found := self._take(_HERE):
                self._here.append(found[1])
            elif self._take(_REDIRECTION):
                self._skipped(_BLANK)
                self._word()
            elif found := self._take(_SEPARATOR):
                if found[0] == b"\n":
                    self._pass_documents()
                if command.words:
                    yield command
                command = Command(1)
            else:
                line = self._here_line()
                word = self._word()
                if not command.words and not word.quoted and word.text in RESERVED:
                    continue
                command.line = command.line if command.words else line
                command.words.append(word)
        if command.words:
            yield command

    def _here_line(self) -> int:
        self._line += self._text.count(b"\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _skipped(self, pattern: re.Pattern[bytes]) -> bool:
        return self._take(pattern) is not None

    def _pass_documents(self) -> None:
        """Goes behind the here-documents that the line has announced."""
        for end in self._here:
            found = re.compile(rb"^\t*" + re.escape(end) + rb"$", re.MULTILINE).search(self._text, self._at)
            self._at = len(self._text) if found is None else found.end()
        self._here.clear()

    def _word(self) -> Word:
        word = Word()
        begun = self._at
        while self._at < len(self._text):
            if found := self._take(_PLAIN):
                word.text += found[0]
            elif self._text.startswith(b"'", self._at):
                self._single(word)
            elif self._text.startswith(b'"', self._at):
                self._double(word)
            elif self._text.startswith(b"\\\n", self._at):
                self._at += 2
            elif self._text.startswith(b"\\", self._at):
                word.text += self._text[self._at + 1 : self._at + 2]
                word.quoted = True
                self._at += 2
            elif not self._expansion(word):
                break
        if self._at == begun:
            self._at += 1  # a character that begins nothing: never stand still
        return word

    def _single(self, word: Word) -> None:
        end = self._text.find(b"'", self._at + 1)
        end = len(self._text) if end < 0 else end
        word.text += self._text[self._at + 1 : end]
        word.quoted = True
        self._at = end + 1

    def _double(self, word: Word) -> None:
        word.quoted = True
        self._at += 1
        while self._at < len(self._text):
            if found := self._take(_INSIDE_QUOTES):
                word.text += found[0]
            elif self._text.startswith(b'"', self._at):
                self._at += 1
                return
            elif self._text.startswith(b"\\", self._at):
                escaped = self._text[self._at + 1 : self._at + 2]
                word.text += escaped if escaped in b'"\\$`' else b"" if escaped == b"\n" else b"\\" + escaped
                self._at += 2
            elif not self._expansion(word):
                word.text += self._text[self._at : self._at + 1]
                self._at += 1

    def _expansion(self, word: Word) -> bool:
        """Takes what begins with `$` or a backquote; false where there is nothing of that kind."""
        if self._text.startswith(b"`", self._at):
            return self._command(word, self._at + 1, b"`")
        if self._text.startswith(b"$(", self._at):
            return self._command(word, self._at + 2, b")")
        if found := self._take(_NAME):
            value = self._value(found[1] or found[2])
            if not value and found[3] is not None:
                value = found[3]
            self._add(word, value, found[0])
        elif found := self._take(_OTHER):
            self._add(word, None, found[0])
        elif self._text.startswith(b"$", self._at):
            word.text += b"$"
            self._at += 1
        else:
            return False
        return True

    def _command(self, word: Word, begin: int, closing: bytes) -> bool:
        end = self._text.find(closing, begin)
        end = len(self._text) if end < 0 else end
        self._add(word, self._substituted(self._text[begin:end]), self._text[self._at : end + 1])
        self._at = end + 1
        return True

    @staticmethod
    def _add(word: Word, value: bytes | None, written: bytes) -> None:
        if len(word.text) > LONGEST:
            value = None
        word.known = word.known and value is not None
        word.text += written if value is None else value
