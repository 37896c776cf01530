"""How words become texts: expansion, splitting at blanks, and patterns."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rcptgen.programs.shellast import Literal, Opaque, Parameter, Substitution, Word
from rcptgen.programs.shellstate import MAX_TEXT, PID, Environment, Mixed, TooComplex, Work, look
from rcptgen.qmail.model import UNKNOWN, Free, Text

OWN = frozenset(
    b"IFS PATH PS1 PS2 PS4 PPID PWD OLDPWD OPTIND OPTERR OPTARG RANDOM SRANDOM UID EUID GROUPS HOSTNAME HOSTTYPE "
    b"MACHTYPE OSTYPE SECONDS LINENO SHELL SHELLOPTS SHLVL TERM COLUMNS LINES DIRSTACK FUNCNAME PIPESTATUS "
    b"EPOCHSECONDS EPOCHREALTIME COMP_WORDBREAKS HISTCMD MAILCHECK POSIXLY_CORRECT _".split()
)
"""Variables that one shell or another gives itself a value."""

UNTOUCHABLE = frozenset(b"IFS PPID OPTIND UID EUID GROUPS SHELLOPTS RANDOM LINENO POSIXLY_CORRECT ENV _".split())
"""Variables whose assignment fails in some shells, is lost, or changes how words are split."""

_BLANKS = re.compile(rb"[ \t\n]+")

Fragment = tuple[Text, bool]
"""A text and whether it is quoted, so neither split nor taken as a pattern."""


class ShellEnds(Exception):
    """An expansion that ends the shell: `${NAME?word}` of an unset variable."""


class Unknowable(Exception):
    """An expansion that may end the shell, or that shells disagree about."""


class Expander:
    """Expands the words of one command; `${NAME:=word}` changes `environment`."""

    __slots__ = ("bare", "environment", "last", "size", "substituted", "work")

    def __init__(self, environment: Environment, last: Text, work: Work) -> None:
        self.environment = environment
        self.last = last
        self.work = work
        self.size = 0
        self.bare: list[Free] = []
        """Variables that stand unquoted: no word at all where they are empty."""
        self.substituted = False
        """Whether a command was substituted: its status may become that of the whole."""

    def fields(self, word: Word) -> list[Text]:
        """The words that a word of a command becomes."""
        fields: list[Text] = []
        current: list[Fragment] = []
        for text, quoted in self.fragments(word, tilde=True):
            if quoted or not isinstance(text, bytes):
                # An unknown value may hold blanks or nothing at all; it is taken as one word.
                current.append((text, quoted))
                if not quoted and isinstance(text, Free):
                    self.bare.append(text)
                continue
            for index, piece in enumerate(_BLANKS.split(text)):
                if index and current:
                    fields.append(joined(current))
                    current = []
                if piece:
                    current.append((piece, False))
        if current:
            fields.append(joined(current))
        return fields

    def text(self, word: Word) -> Text:
        """The text of a word that is not split: a value, the subject of `case`."""
        return joined([(text, True) for text, _ in self.fragments(word, tilde=True)])

    def pattern(self, word: Word) -> Pattern | None:
        """A pattern of `case`, or what `%` and `#` take off; None when it is not known."""
        return compiled(self.fragments(word, tilde=False))

    def matches(self, pattern: Pattern, text: bytes) -> bool | None:
        """Whether a pattern fits the whole of a text; None where that hangs on the locale."""
        self.work.spend(len(pattern) * len(text) // 64)
        return matches(pattern, text)

    def fragments(self, word: Word, *, tilde: bool) -> list[Fragment]:
        """What the parts of a word stand for."""
        fragments: list[Fragment] = []
        for index, part in enumerate(word):
            match part:
                case Literal(text, False) if tilde and index == 0 and text.startswith(b"~"):
                    fragments += self._home(text, alone=len(word) == 1)
                case Literal(text, False) if tilde and b":~" in text:
                    raise Unknowable
                case Literal(text, quoted):
                    fragments.append((text, quoted))
                case Parameter():
                    fragments += self._parameter(part)
                case Substitution(quoted):
                    self.substituted = True
                    fragments.append((UNKNOWN, quoted))
                case Opaque():
                    raise Unknowable
        size = sum(len(text) for text, _ in fragments if isinstance(text, bytes))
        self.work.spend(size // 64)
        self.size += size
        if self.size > 4 * MAX_TEXT:
            raise TooComplex
        return fragments

    def _home(self, text: bytes, *, alone: bool) -> list[Fragment]:
        prefix, slash, rest = text.partition(b"/")
        home = self.environment.texts.get(b"HOME")
        if prefix != b"~" or home is None or not (slash or alone):
            return [(UNKNOWN, True)]
        return [(home, True), (slash + rest, False)]

    def _value(self, name: bytes) -> Text | None:
        """The value of a parameter; None where it is unset."""
        if name == b"$":
            return PID
        if name == b"?":
            return self.last
        if name == b"#" and not self.environment.arguments:
            return b"0"
        if name.isdigit() and name.strip(b"0"):
            return UNKNOWN if self.environment.arguments else None
        if not name[0:1].isalpha() and not name.startswith(b"_"):
            return UNKNOWN
        found = self.environment.texts.get(name)
        return UNKNOWN if found is None and (name in OWN or name.startswith(b"BASH")) else found

    def _parameter(self, part: Parameter) -> list[Fragment]:
        if part.name in (b"@", b"*") and not self.environment.arguments and not part.operator:
            return [(b"", True)] if part.quoted and part.name == b"*" else []
        value = self._value(part.name)
        operator = part.operator
        if operator in (b"#", b"##", b"%", b"%%"):
            return [(self._trimmed(value, operator, part.argument), part.quoted)]
        if operator == b"length":
            return [(_length(value), part.quoted)]
        if operator:
            usable = value is not None and (not operator.startswith(b":") or _filled(value))
            if usable is None:
                raise Unknowable
            if operator.endswith(b"+"):
                usable, value = not usable, b""
            if not usable:
                return self._instead(part)
        return [(b"" if value is None else value, part.quoted)]

    def _instead(self, part: Parameter) -> list[Fragment]:
        if part.operator.endswith(b"?"):
            raise ShellEnds
        fragments = self.fragments(part.argument, tilde=False)
        if part.operator.endswith(b"="):
            if part.name in UNTOUCHABLE or part.name.isdigit():
                raise Unknowable
            value = joined([(text, True) for text, _ in fragments])
            self.environment = self.environment.set(part.name, value)
            return [(value, part.quoted)]
        return [(text, quoted or part.quoted) for text, quoted in fragments] or [(b"", part.quoted)]

    def _trimmed(self, value: Text | None, operator: bytes, argument: Word) -> Text:
        if value is None:
            return b""
        pattern = self.pattern(argument)
        if not isinstance(value, bytes):
            look(value)
            return UNKNOWN
        if pattern is None:
            return UNKNOWN
        cuts = range(len(value) + 1)
        if operator in (b"%", b"##"):
            cuts = range(len(value), -1, -1)
        for cut in cuts:
            taken, left = (value[:cut], value[cut:]) if operator.startswith(b"#") else (value[cut:], value[:cut])
            self.work.spend(1)
            fits = self.matches(pattern, taken)
            if fits is None:
                return UNKNOWN
            if fits:
                return left
        return value


def _filled(value: Text) -> bool | None:
    """Whether a value is not empty."""
    if isinstance(value, bytes):
        return bool(value)
    if isinstance(value, Free):
        value.compared.add(b"")
        return True
    look(value)
    return None


def _length(value: Text | None) -> Text:
    if value is None:
        return b"0"
    if isinstance(value, bytes) and value.isascii():
        return b"%d" % len(value)
    look(value)
    return UNKNOWN


def joined(fragments: Sequence[Fragment]) -> Text:
    """The fragments as one text; unquoted patterns may become any file names."""
    whole = [(text, quoted) for text, quoted in fragments if text != b""]
    if len(whole) == 1 and not isinstance(whole[0][0], bytes):
        return whole[0][0]
    known: list[bytes] = []
    shape: list[bytes] = []
    free: list[Free] = []
    for text, quoted in whole:
        if isinstance(text, bytes):
            known.append(text)
            shape.append(b"x" if quoted else text)
        elif isinstance(text, Free):
            free.append(text)
        elif isinstance(text, Mixed):
            free += text.free
    if len(known) < len(whole):
        return Mixed(dict.fromkeys(free))
    if sum(map(len, known)) > MAX_TEXT:
        raise TooComplex
    return UNKNOWN if _may_expand(b"".join(shape)) else b"".join(known)


def _may_expand(outline: bytes) -> bool:
    """Whether the unquoted text may become file names, or several words by the braces of bash."""
    if b"*" in outline or b"?" in outline or 0 <= outline.find(b"[") < outline.rfind(b"]"):
        return True
    return 0 <= outline.find(b"{") < outline.rfind(b"}") and (b"," in outline or b".." in outline)


Element = int | frozenset[int] | None
"""A byte, a set of bytes (`?` and brackets), or any text (`*`)."""
Pattern = tuple[Element, ...]

_ANY_BYTE = frozenset(range(256))


def compiled(fragments: Sequence[Fragment]) -> Pattern | None:
    """The pattern that fragments make; None when it is not known or shells read it differently."""
    data = bytearray()
    active: list[bool] = []
    for text, quoted in fragments:
        if not isinstance(text, bytes):
            look(text)
            return None
        if not quoted and b"\\" in text:
            return None
        data += text
        active += [not quoted] * len(text)
    pattern: list[Element] = []
    last = data.rfind(b"]")
    index = 0
    while index < len(data):
        byte = data[index]
        index += 1
        if not active[index - 1] or byte not in b"*?[":
            pattern.append(byte)
        elif byte == ord("["):
            if last < index:
                pattern.append(byte)
                continue
            end = data.find(b"]", index + 1)
            if end < 0:
                return None
            chosen = _bracket(bytes(data[index:end]))
            if chosen is None or not all(active[index : end + 1]):
                return None
            pattern.append(chosen)
            index = end + 1
        elif byte == ord("?"):
            pattern.append(_ANY_BYTE)
        elif not pattern or pattern[-1] is not None:
            pattern.append(None)
    return tuple(pattern)


def _bracket(inside: bytes) -> frozenset[int] | None:
    """The bytes of `[inside]` in the C locale; None where shells may differ."""
    negated = inside.startswith(b"!")
    inside = inside[negated:]
    if not 0 < len(inside) < 256 or not inside.isascii() or re.search(rb"[\[\]^!/]", inside):
        return None
    chosen: set[int] = set()
    while inside:
        first, last = inside[0], inside[0]
        if len(inside) > 2 and inside[1] == ord("-"):
            last = inside[2]
            inside = inside[2:]
        if last < first:
            return None
        chosen.update(range(first, last + 1))
        inside = inside[1:]
    return frozenset(_ANY_BYTE - chosen) if negated else frozenset(chosen)


def constant(pattern: Pattern) -> bytes | None:
    """The one text that a pattern without special characters stands for."""
    texts = [element for element in pattern if isinstance(element, int)]
    return bytes(texts) if len(texts) == len(pattern) else None


def matches(pattern: Pattern, text: bytes) -> bool | None:
    """Whether a pattern fits the whole of a text; None where that hangs on the locale."""
    if not text.isascii() and any(isinstance(element, frozenset) for element in pattern):
        return None
    at = index = 0
    star, resume = -1, 0
    while index < len(text):
        element = pattern[at] if at < len(pattern) else -1
        if element is None:
            star, resume = at, index
            at += 1
        elif element == text[index] or (isinstance(element, frozenset) and text[index] in element):
            at += 1
            index += 1
        elif star < 0:
            return False
        else:
            resume += 1
            at, index = star + 1, resume
    return all(element is None for element in pattern[at:])
