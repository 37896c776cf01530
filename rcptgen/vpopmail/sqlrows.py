"""What a database says of all domains, kept small, and how its columns compare names."""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from rcptgen.rules.names import Names
from rcptgen.vpopmail.backend import User, Users
from rcptgen.vpopmail.packed import pack
from rcptgen.vpopmail.text import atoi, c_string

BOUNCE = 0x10
"""The bit of pw_gid that makes vdelivermail bounce (BOUNCE_MAIL)."""

MOST_ROWS = 20_000_000
"""Rows of a run beyond which something else than a list of users is being read."""

MOST_BYTES = 1 << 30
"""Bytes kept of a run; the server is the mail system's, not ours."""

OBJECT = 200
"""Bytes, about, of what is kept as an object."""

FIELD = 200
"""The bytes of a column that vdelivermail takes (vmysql.c: SMALL_BUFF)."""

Value = bytes | int | None


class Trouble(Exception):
    """The server cannot be asked for now, or said something that no vpopmail database says.

    `refused`: it did answer, and refused to do what it was asked; the session can go on.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.refused = refused


class NoTable(Exception):
    """There is no such table, which to vdelivermail is one without rows."""


class Session(Protocol):
    """A connection.  Every method raises Trouble; the session is then good for nothing but `close`, unless `refused`.

    Texts come as the bytes that the columns hold.  `domain` is None in the layout of one
    table for each domain.  NoTable is raised where a table is not there.
    """

    def columns(self) -> dict[tuple[bytes, bytes], Folding]:
        """How the name columns (pw_name, pw_domain, alias, domain) of each table compare."""
        ...

    def user(self, table: bytes, name: bytes, domain: bytes | None) -> tuple[Value, Value] | None:
        """pw_gid and pw_dir of the row that vdelivermail's own query finds first, or None."""
        ...

    def alias(self, name: bytes, domain: bytes) -> list[bytes | None]:
        """The lines of an alias, in the server's order."""
        ...

    def begin(self) -> None:
        """What is streamed from now on is of one moment."""
        ...

    def users(self, table: bytes, *, domains: bool) -> Iterator[tuple[Value, Value, Value, Value]]:
        """All rows of a table: pw_name, pw_domain (empty where there are no `domains`), pw_gid, pw_dir."""
        ...

    def aliases(self) -> Iterator[tuple[Value, Value, Value]]:
        """All rows of valias: alias, domain, line."""
        ...

    def end(self) -> None:
        """The moment is over."""
        ...

    def mark(self) -> bytes | None:
        """What is another text once any row of the tables was written, where the server can say that cheaply."""
        ...

    def close(self) -> None:
        """The connection is given back; never raises."""
        ...


_LOWER = re.compile(rb"[!-@\[-~]*(?: +[!-@\[-~]+)*")  # printable, no capitals, no blank at the end
_ASCII = re.compile(rb"[ -~]*")
_SPELT = {
    "ß": ("s", "ss"),
    "æ": ("ae", "a"),
    "œ": ("oe", "o"),
    "ø": ("o",),
    "đ": ("d",),
    "ð": ("d",),
    "ł": ("l",),
    "ħ": ("h",),
    "\u0131": ("i",),
    "þ": ("th",),
}
MOST_SPELLINGS = 8


@dataclass(frozen=True, slots=True)
class Folding:
    """How a column compares: whether letters' case, and blanks at the end, make no difference."""

    case: bool = False
    blanks: bool = False

    def asked(self, name: bytes) -> bytes:
        """The key under which rows that equal `name` are kept."""
        name = name.lower() if self.case else name
        return name.rstrip(b" ") if self.blanks else name

    def key(self, stored: bytes) -> bytes | None:
        """The name in lower case that finds a row; None where none does, or where only the server can say."""
        if _LOWER.fullmatch(stored):
            return stored
        key = self.asked(stored)
        return key if _ASCII.fullmatch(key) and key == key.lower() else None

    def spellings(self, stored: bytes) -> list[bytes]:
        """The ASCII names in lower case that the server may take as equal to a name that is not ASCII."""
        if not self.case:
            return []
        try:
            text = stored.decode("utf-8")
        except UnicodeDecodeError:
            text = stored.decode("latin-1")
        found = [""]
        for one in unicodedata.normalize("NFKD", text.lower()):
            if unicodedata.combining(one) or unicodedata.category(one) in ("Cc", "Cf"):
                continue
            ways = _SPELT.get(one, (one,))
            found = [head + way for head in found for way in ways][:MOST_SPELLINGS]
        keys = (self.asked(one.encode("ascii", "replace")) for one in found if one.isascii())
        return [key for key in dict.fromkeys(keys) if len(key) <= FIELD]


def user_of(name: bytes, gid: Value, directory: Value, file: bytes = b"") -> User:
    """One row as vdelivermail takes it (vauth_getpw): no pw_gid is 0, no pw_dir is empty."""
    number = gid if isinstance(gid, int) else atoi(gid or b"")
    return User(name, number, text_of(directory)[:FIELD], file)


def text_of(value: Value) -> bytes:
    """A column as a C string; NULL is empty."""
    if isinstance(value, int):
        return b"%d" % value
    return c_string(value or b"")


class UserRows:
    """The users of one domain.

    Those whose directory is a parent's, a slash and their name, and who may have mail, are
    kept joined by parent; all others as they are.
    """

    __slots__ = ("_file", "others", "plain")

    def __init__(self, file: bytes = b"") -> None:
        self._file = file
        self.plain: dict[bytes, bytearray] = {}
        self.others: list[User] = []

    def add(self, key: bytes, gid: Value, directory: Value) -> int:
        """Adds a row that is found by `key`; returns about how many bytes it costs."""
        user = user_of(key, gid, directory, self._file)
        if not key or user.gid & BOUNCE or not user.directory.endswith(b"/" + key):
            self.others.append(user)
            return len(key) + len(user.directory) + OBJECT
        parent = user.directory[: -len(key) - 1]
        joined = self.plain.get(parent)
        if joined is None:
            joined = self.plain[parent] = bytearray()
        joined += key
        joined += b"\n"
        return len(key) + 1

    def users(self, again: Callable[[bytes], User | None]) -> Users:
        """All of them, each name once; for one that several rows have, `again` tells the row that counts."""
        parts: list[bytes | bytearray] = [joined[:-1] for joined in self.plain.values()]
        every = pack([*parts, *(one.name for one in self.others)])
        twice = dict.fromkeys(_repeated(every))
        if not twice:
            plain = {parent: pack([part]) for parent, part in zip(self.plain, parts, strict=True)}
            return Users(plain, tuple(self.others), file=self._file)
        names = {parent: bytes(part).split(b"\n") for parent, part in zip(self.plain, parts, strict=True)}
        kept = {parent: Names(one for one in found if one not in twice) for parent, found in names.items()}
        others = [one for one in self.others if one.name not in twice]
        others += (one for one in map(again, twice) if one is not None)
        return Users({parent: found for parent, found in kept.items() if len(found)}, others, file=self._file)


def _repeated(names: Names) -> Iterator[bytes]:
    """The names that are there more than once."""
    before: bytes | None = None
    for some in names.stretches():
        for one in some:
            if one == before:
                yield one
            before = one


_SIZES = struct.Struct("=II")


class AliasRows:
    """The aliases of one domain: pairs of an alias and a line, in the order of the rows."""

    __slots__ = ("_packed",)

    def __init__(self) -> None:
        self._packed = bytearray()

    def add(self, key: bytes, line: bytes) -> int:
        """Adds a row; returns how many bytes it costs."""
        self._packed += _SIZES.pack(len(key), len(line)) + key + line
        return _SIZES.size + len(key) + len(line)

    def lines(self) -> dict[bytes, list[bytes]]:
        """The lines by alias."""
        found: dict[bytes, list[bytes]] = {}
        at, packed = 0, bytes(self._packed)
        while at < len(packed):
            keys, size = _SIZES.unpack_from(packed, at)
            at += _SIZES.size
            found.setdefault(packed[at : at + keys], []).append(packed[at + keys : at + keys + size])
            at += keys + size
        return found


@dataclass(slots=True)
class Snapshot:
    """All that the database said at one moment.

    `users` is by domain, or by table where each domain has its own; `aliases` by domain.
    `doubtful` are the rows whose names only the server can compare: (table, domain or None,
    spelling), to be asked for one by one.  `columns` are those of the tables that are there,
    `file` is what users and aliases are said to come from.
    """

    file: bytes = b""
    users: dict[bytes, UserRows] = field(default_factory=dict)
    aliases: dict[bytes, AliasRows] = field(default_factory=dict)
    columns: Mapping[tuple[bytes, bytes], Folding] = field(default_factory=dict)
    doubtful_users: dict[tuple[bytes, bytes, bytes | None], None] = field(default_factory=dict)
    doubtful_aliases: dict[tuple[bytes, bytes], None] = field(default_factory=dict)
    rows: int = 0
    size: int = 0

    def folding(self, table: bytes, column: bytes) -> Folding:
        """How a column compares."""
        return self.columns.get((table, column), Folding())

    def has(self, table: bytes, column: bytes = b"pw_name") -> bool:
        """Whether a table is there."""
        return (table, column) in self.columns

    def take_users(self, table: bytes, rows: Iterable[tuple[Value, Value, Value, Value]], *, domains: bool) -> None:
        """Keeps the rows of a table of users."""
        names, places = self.folding(table, b"pw_name"), _Keys(self.folding(table, b"pw_domain"))
        kept = self.users.setdefault(table, UserRows(self.file)) if not domains else None
        for name, domain, gid, directory in rows:
            stored = name if isinstance(name, bytes) else text_of(name)
            key = names.key(stored)
            place = places.of(domain) if domains else None
            found = kept
            if found is None:
                if place is None:
                    continue
                found = self.users.get(place)
                if found is None:
                    found = self.users[place] = UserRows(self.file)
            if key is not None:
                self._count(found.add(key, gid, directory))
                continue
            spellings = names.spellings(stored)
            for one in spellings:
                self.doubtful_users[table, one, place] = None
            self._count(OBJECT * len(spellings))

    def take_aliases(self, rows: Iterable[tuple[Value, Value, Value]]) -> None:
        """Keeps the rows of valias."""
        names, places = self.folding(b"valias", b"alias"), _Keys(self.folding(b"valias", b"domain"))
        for name, domain, line in rows:
            place = places.of(domain)
            if place is None:
                continue
            stored = text_of(name)
            key = names.key(stored)
            if key is not None:
                found = self.aliases.get(place)
                if found is None:
                    found = self.aliases[place] = AliasRows()
                self._count(found.add(key, text_of(line)))
                continue
            spellings = names.spellings(stored)
            for one in spellings:
                self.doubtful_aliases[one, place] = None
            self._count(OBJECT * len(spellings))

    def _count(self, size: int) -> None:
        self.rows += 1
        self.size += size
        if self.rows > MOST_ROWS or self.size > MOST_BYTES:
            raise Trouble(f"more than {MOST_ROWS} rows or {MOST_BYTES} bytes of names")


class _Keys:
    """The keys of a column that holds few different texts."""

    MOST = 100_000

    __slots__ = ("_folding", "_known")

    def __init__(self, folding: Folding) -> None:
        self._folding = folding
        self._known: dict[Value, bytes | None] = {}

    def of(self, value: Value) -> bytes | None:
        """The key of a domain; None where no domain name finds it."""
        try:
            return self._known[value]
        except KeyError:
            stored = text_of(value)
            folding = self._folding
            key = folding.key(stored) if folding.case else folding.asked(stored)
            if key is None:
                # A host has few such domains, if any: what may be meant is taken as meant.
                key = next(iter(folding.spellings(stored)), None)
            if len(self._known) >= self.MOST:
                self._known.clear()
            self._known[value] = key
            return key
