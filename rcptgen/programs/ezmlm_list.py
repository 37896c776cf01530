"""A list directory as the programs of ezmlm-idx open it: options, letters, flags and settings."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rcptgen.qmail.look import Look
from rcptgen.qmail.model import UNKNOWN, Effect, Situation, Text
from rcptgen.rules.outcome import Kind
from rcptgen.source.tree import Absent, Regular, Status

DEFAULT_SETTINGS = b"/etc/ezmlm/default"
"""Where settings are looked for that neither the list nor the directory its ezmlmrc names has (altpath.c, conf-etc)."""

_LETTERS = {
    b"archived": b"a",
    b"modgetonly": b"b",
    b"ezmlmrc": b"c",
    b"digest": b"d",
    b"prefix": b"f",
    b"subgetonly": b"g",
    b"nosubconfirm": b"h",
    b"threaded": b"i",
    b"nounsubconfirm": b"j",
    b"deny": b"k",
    b"modcanlist": b"l",
    b"modpost": b"m",
    b"modcanedit": b"n",
    b"modpostonly": b"o",
    b"public": b"p",
    b"remote": b"r",
    b"modsub": b"s",
    b"addtrailer": b"t",
    b"subpostonly": b"u",
    b"nowarn": b"w",
    b"mimeremove": b"x",
    b"confirmpost": b"y",
}
"""config.c: the flags that a letter stands for."""


_NAMES_ONLY = frozenset({b"outlocal", b"outhost", b"Mailbox"})


class Ended(Exception):
    """The program has ended early, and always does."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.effect = ends(status, reason)


class NotMade(Ended):
    """The directory is none that ezmlm-make has made, or made whole: it counts as a list that delivers."""

    def __init__(self) -> None:
        super().__init__(100, "a directory with nothing of a list in it but its names")
        self.effect = hangs(0, str(self))


def ends(status: int, reason: str) -> Effect:
    """A program of a list ends so, whoever sends what."""
    return Effect(frozenset({status}), Kind.LIST, reason)


def goes_on(reason: str) -> Effect:
    """A program that leaves the answer to the lines after it."""
    return Effect(frozenset({0}), Kind.PROGRAM, reason)


def hangs(status: int, reason: str) -> Effect:
    """It ends with `status` or refuses: that hangs on what nobody sees in the address."""
    return Effect(frozenset({status, 100}), Kind.LIST, reason, approximate=True)


def unless_alike(effect: Effect) -> Effect:
    """Stands for texts of which some are refused that look no different to exact and prefix rules."""
    return Effect(effect.statuses, effect.kind, effect.reason, effect.approximate, True, effect.file, effect.line)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a program takes on its line and reads of its list before it does anything (getconfopt.c).

    `letters` are options without an argument, `texts` and `numbers` those with one.  `read`
    are the settings that an option stands for, `flags` the flag files.
    """

    letters: bytes = b""
    texts: bytes = b""
    numbers: bytes = b""
    read: tuple[bytes, ...] = ()
    flags: tuple[bytes, ...] = ()
    subscribers: bool = False
    """Whether it opens the subscriber database first (subdb.c: initsub)."""


@dataclass(frozen=True, slots=True)
class Line:
    """A command line taken apart: the letters of its options in their order, what is left behind DIR."""

    letters: bytes
    texts: Mapping[bytes, bytes]
    directory: bytes | None
    rest: tuple[bytes, ...]
    version: bool = False

    def last(self, letters: bytes) -> bytes:
        """The last given of some options that exclude each other; empty without any."""
        return next((bytes((one,)) for one in reversed(self.letters) if one in letters), b"")


def command_line(words: Sequence[bytes], usage: Usage) -> Line:
    """The line, read as getconfopt.c: count, parse; raises Ended where that ends with the usage."""
    letters = bytearray()
    texts: dict[bytes, bytes] = {}
    version = False
    at = 1
    while at < len(words) and words[at].startswith(b"-"):
        word = words[at]
        at += 1
        if word in (b"-", b"--"):
            break
        for index in range(1, len(word)):
            letter = word[index : index + 1]
            if letter in b"vV":
                version = True
            elif letter in usage.letters:
                letters += letter
            elif letter in usage.texts or letter in usage.numbers:
                text = word[index + 1 :]
                if not text:
                    if at >= len(words):
                        raise Ended(100, "usage of an ezmlm program")
                    text = words[at]
                    at += 1
                if letter in usage.numbers and text.strip(b"0123456789"):
                    raise Ended(100, "usage of an ezmlm program")
                texts[letter] = text
                break
            else:
                raise Ended(100, "usage of an ezmlm program")
    directory = words[at] if at < len(words) else None
    return Line(bytes(letters), texts, directory, tuple(words[at + 1 :]), version)


@dataclass(slots=True)
class List:
    """An open list; every method raises Ended where the program would have ended."""

    look: Look
    directory: bytes
    letters: Mapping[bytes, bool] = field(default_factory=dict)
    elsewhere: tuple[bytes, ...] = (DEFAULT_SETTINGS,)

    @classmethod
    def open(cls, look: Look, directory: bytes | None) -> List:
        """The list in `directory` (config.c: startup)."""
        if directory is None:
            raise Ended(100, "usage of an ezmlm program")
        found = look.accessible(directory, os.X_OK)
        if not directory or not isinstance(found, Status) or not stat.S_ISDIR(found.mode):
            raise Ended(111, "the list's directory cannot be entered")
        opened = cls(look, directory)
        # Where the settings of others are looked for is known only after these two.
        opened.letters = opened._letters()
        if opened._slurp(opened._path(b"key")) is None:
            # Every program would refuse.  A list that has lost its key does; a directory that
            # never was one is more likely on its way to be one than closed for good.
            names = look.names(directory)
            if isinstance(names, dict) and {b"outlocal", b"outhost"} <= names.keys() <= _NAMES_ONLY:
                raise NotMade
            raise Ended(100, "the list has no key")
        named = (opened._slurp(opened._path(b"ezmlmrc")) or b"").partition(b"\n")[0].partition(b"\0")[0]
        if named:
            opened.elsewhere = (named, DEFAULT_SETTINGS)
        for name in (b"outhost", b"outlocal"):
            if opened.lines(name) is None:
                raise Ended(100, "the list has no " + name.decode())
        return opened

    def _path(self, name: bytes) -> bytes:
        return os.path.join(self.directory, name)

    def _letters(self) -> dict[bytes, bool]:
        """The letters of older releases (config.c: load_flags)."""
        given = self.line(b"flags")
        if given is None:
            lines = self.lines(b"config") or []
            given = next((line[2:] for line in lines if line.startswith(b"F:")), b"")
        letters = [bytes((one,)) for one in given]
        return {one.lower(): one.islower() for one in letters if one.isalpha()}

    def _slurp(self, path: bytes) -> bytes | None:
        """A whole file, None where there is none (slurp.c)."""
        found = self.look.read(path)
        if isinstance(found, Regular):
            return found.data
        if isinstance(found, Absent) and found.errno == errno.ENOENT:
            return None
        raise Ended(111, "a setting of the list cannot be read")

    def raw(self, name: bytes) -> bytes | None:
        """A file of the list itself, whole; None where there is none."""
        return self._slurp(self._path(name))

    def lines(self, name: bytes) -> list[bytes] | None:
        """The lines of a setting that are neither empty nor comments; None without the file (getconf.c: getconf)."""
        data = self._slurp(self._path(name))
        for other in self.elsewhere:
            if data is None:
                data = self._slurp(os.path.join(self.directory, other, name))
        if data is None:
            return None
        kept = (line.rstrip(b" \t") for line in data.split(b"\n"))
        return [part for line in kept if line and not line.startswith(b"#") for part in line.split(b"\0")]

    def line(self, name: bytes) -> bytes | None:
        """The first line of a setting, empty where it has none; None without the file (getconf_line)."""
        found = self.lines(name)
        return None if found is None else found[0] if found else b""

    def number(self, name: bytes) -> int:
        """The number that a setting begins with, 0 without one (getconf_ulong)."""
        digits = (self.line(name) or b"")[:20]
        return int(digits[: len(digits) - len(digits.lstrip(b"0123456789"))] or b"0")

    def flag(self, name: bytes) -> bool:
        """Whether a flag is set: by its letter where one is given, else by its file (getconf_isset)."""
        given = self.letters.get(_LETTERS.get(name, b""))
        return self.there(name) if given is None else given

    def there(self, name: bytes) -> bool:
        """Whether there is anything of that name (wrap_stat.c)."""
        found = self.look.status(self._path(name))
        if isinstance(found, Status):
            return True
        if isinstance(found, Absent) and found.errno == errno.ENOENT:
            return False
        raise Ended(111, "a flag of the list cannot be looked at")

    def holds(self, name: bytes) -> bool:
        """Whether a directory of the list takes new files."""
        found = self.look.accessible(self._path(name), os.W_OK | os.X_OK)
        return isinstance(found, Status) and stat.S_ISDIR(found.mode)

    def anybody(self, database: bytes) -> bool:
        """Whether a database of addresses below the list may hold any (sub-std.c)."""
        if database.strip(b"./") and not self._filled(os.path.join(self._path(database), b"subscribers")):
            return self.there(b"subdb") or self.there(b"sql")
        return True

    def _filled(self, path: bytes) -> bool:
        names = self.look.names(path)
        return bool(names) if isinstance(names, dict) else not isinstance(names, Absent)


def opened(words: Sequence[bytes], usage: Usage, look: Look) -> tuple[Line, List]:
    """The line and the list it names, with all that is read before the program looks at the address."""
    line = command_line(words, usage)
    found = List.open(look, line.directory)
    for name in usage.read:
        found.lines(name)
    for name in usage.flags:
        found.flag(name)
    if line.version:
        raise Ended(0, "ezmlm tells its version")
    if usage.subscribers and found.raw(b"subdb") is None:
        found.raw(b"sql")
    return line, found


def check_sender(situation: Situation, status: int = 100) -> None:
    """Ends the program where the sender is known, and is nobody that an answer could go to (sender.c)."""
    sender: Text | None = situation.variables.get(b"SENDER", UNKNOWN)
    if b"SENDER" not in situation.variables:
        raise Ended(status, "ezmlm without a sender")
    if isinstance(sender, bytes) and (b"@" not in sender or sender == b"#@[]"):
        raise Ended(status, "ezmlm does not answer to bounces")
