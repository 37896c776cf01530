"""All users of a vpasswd.cdb, sorted by what is to be told of them.

A host has a million of them, and nearly all are alike: those are taken some hundreds at a
time, by a few operations on lists and joined texts.  What is out of the ordinary is taken
one by one.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import compress, islice

from rcptgen.rules.names import SEPARATOR, Names
from rcptgen.vpopmail.assign import LONGEST_NAME
from rcptgen.vpopmail.backend import Crash, User, Users
from rcptgen.vpopmail.packed import pack
from rcptgen.vpopmail.text import all_valid, atoi, c_string, is_username_valid

BOUNCE_FLAG = 0x10
"""vpopmail.h: BOUNCE_MAIL, the one bit of the gid field that deliveries look at."""

Batch = tuple[list[bytes], list[bytes]]
"""Names, and the records that stand under them."""

_AT_ONCE = 1 << 16
_SHARES = 32
_MOST_FLAGS = 4096
_FEW = 20
_LEAST_FIELDS = 3
FIELDS_OF_USER = 5
BETWEEN = b":" + SEPARATOR + b":"
_NO_NAMES = (b"", b".", b"..")
"""What never is the last part of the path of a directory of one's own."""


def user_of(name: bytes, data: bytes, file: bytes) -> User:
    """A user's record; raises Crash where it has fewer fields than vauth_getpw takes for granted."""
    fields = c_string(data).split(b":", 5)
    if len(fields) < _LEAST_FIELDS:
        raise Crash
    return User(name, atoi(fields[2]), fields[4] if len(fields) > 4 else b"", file)


def gathered(walk: Callable[[], Iterable[Batch]], path: bytes, *, bulk: bool = True) -> Users:
    """The users among all the records, the first of each name.

    Names that are there twice are rare: the records are walked a second time for them only.
    A million names cost their bytes and eight more each while this lasts.  Without `bulk`
    all are taken one by one.
    """
    found = _Sorted(path, bulk=bulk)
    repeated = found.take(walk())
    if repeated:
        found = _Sorted(path, bulk=bulk)
        found.take(_first_only(walk(), repeated))
    return found.users()


def in_batches(records: Iterable[tuple[bytes, bytes]]) -> Iterator[Batch]:
    """Single records, a thousand together."""
    rest = iter(records)
    while some := list(islice(rest, 1000)):
        yield [key for key, _ in some], [data for _, data in some]


def _first_only(batches: Iterable[Batch], repeated: set[int]) -> Iterator[Batch]:
    seen: set[bytes] = set()
    for keys, values in batches:
        kept: Batch = ([], [])
        for key, data in zip(keys, values, strict=True):
            if hash(key) in repeated:
                if key in seen:
                    continue
                seen.add(key)
            kept[0].append(key)
            kept[1].append(data)
        if kept[0]:
            yield kept


class _Sorted:
    """Records by what is to be told of them."""

    def __init__(self, path: bytes, *, bulk: bool) -> None:
        self._path = path
        self._in_bulk = bulk
        self._others: list[User] = []
        self._crashes: list[bytes] = []
        self._open: set[bytes] = set()
        self._plain: dict[bytes, list[bytes]] = {}
        self._joined: dict[bytes, list[bytes | bytearray]] = {}

    def take(self, batches: Iterable[Batch]) -> set[int]:
        """Takes all the records, and gives the hashes of names that may be there twice."""
        shares: list[array[int]] = []
        repeated: set[int] = set()
        held: list[bytes] = []
        for keys, values in batches:
            held += keys
            if self._in_bulk:
                self._bulk(keys, values)
            else:
                self._one_by_one(zip(keys, values, strict=True))
            if len(held) >= _AT_ONCE:
                shares = shares or [array("q") for _ in range(_SHARES)]
                _share_out(held, shares)
                held.clear()
                self._join()
        if not shares:
            # All of it at once: every domain but the largest.
            if len(set(held)) != len(held):
                repeated.update(_twice(map(hash, held)))
            return repeated
        _share_out(held, shares)
        for share in shares:
            if len(set(share)) != len(share):
                repeated.update(_twice(share))
        return repeated

    def _join(self) -> None:
        """Keeps what was taken so far as bytes."""
        for parent, names in self._plain.items():
            if names:
                self._joined.setdefault(parent, []).append(SEPARATOR.join(names))
                names.clear()

    def _bulk(self, keys: list[bytes], values: list[bytes]) -> None:
        """Takes all the records: the ordinary ones at once."""
        if not are_ordinary(keys, SEPARATOR.join(keys)):
            apart = [number for number, key in enumerate(keys) if not _is_ordinary(key)]
            keys, values = self._without(apart, keys, values)
        text = b"".join(values)
        if b"\0" in text or SEPARATOR in text:
            apart = [number for number, one in enumerate(values) if b"\0" in one or SEPARATOR in one]
            keys, values = self._without(apart, keys, values)
        if not keys:
            return
        # No record holds a newline: where all have as many fields, those between two records stand in their places.
        width = values[0].count(b":") + 2
        fields = BETWEEN.join(values).split(b":")
        if (
            width > FIELDS_OF_USER
            and len(fields) == len(keys) * width - 1
            and fields[width - 1 :: width].count(SEPARATOR) == len(keys) - 1
        ):
            flags, directories = fields[2::width], fields[4::width]
        else:
            apart = [number for number, one in enumerate(values) if one.count(b":") < FIELDS_OF_USER - 1]
            keys, values = self._without(apart, keys, values)
            split = [one.split(b":", FIELDS_OF_USER) for one in values]
            flags, directories = [one[2] for one in split], [one[4] for one in split]
        shut = self._shut(flags)
        if shut:
            apart = [number for number, one in enumerate(flags) if one in shut]
            keys, _, flags, directories = self._without(apart, keys, values, flags, directories)
        if keys:
            self._below(keys, flags, directories)

    def _without(self, apart: list[int], *columns: list[bytes]) -> list[list[bytes]]:
        """What is left of names, records, and more that belongs to them; those whose numbers are given are taken."""
        self._one_by_one((columns[0][number], columns[1][number]) for number in apart)
        if len(apart) > _FEW:
            open_ = [True] * len(columns[0])
            for number in apart:
                open_[number] = False
            return [list(compress(column, open_)) for column in columns]
        left = [column.copy() for column in columns]
        for number in reversed(apart):
            for column in left:
                del column[number]
        return left

    def _shut(self, flags: list[bytes]) -> set[bytes]:
        """Those of the gid fields that have the bounce flag."""
        unknown = set(flags) - self._open
        if not unknown:
            return unknown
        shut = {one for one in unknown if atoi(one) & BOUNCE_FLAG}
        if len(self._open) < _MOST_FLAGS:
            self._open |= unknown - shut
        return shut

    def _below(self, keys: list[bytes], flags: list[bytes], directories: list[bytes]) -> None:
        """Takes users without the flag, whose names are ordinary, by their directories."""
        parent = directories[0].removesuffix(keys[0])
        if parent.endswith(b"/") and SEPARATOR.join(directories) == parent + (SEPARATOR + parent).join(keys):
            names = self._plain.setdefault(parent, [])
            names += keys
            return
        heads = [directory[: -len(key)] for key, directory in zip(keys, directories, strict=True)]
        new = set(heads).difference(self._plain)
        if all(map(bytes.endswith, directories, keys)) and all(one.endswith(b"/") for one in new):
            for one in new:
                self._plain[one] = []
            plain = self._plain
            for one, key in zip(heads, keys, strict=True):
                plain[one].append(key)
            return
        for key, flag, directory in zip(keys, flags, directories, strict=True):
            self._in_its_place(User(key, atoi(flag), directory, self._path))

    def _one_by_one(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        for key, data in records:
            if not _may_be_asked_for(key):
                continue
            try:
                self._in_its_place(user_of(key, data, self._path))
            except Crash:
                self._crashes.append(key)

    def _in_its_place(self, user: User) -> None:
        parent, slash, name = user.directory.rpartition(b"/")
        if user.gid & BOUNCE_FLAG or not slash or name in _NO_NAMES or name != user.name:
            self._others.append(user)
        else:
            self._plain.setdefault(parent + slash, []).append(user.name)

    def users(self) -> Users:
        """All that was taken."""
        plain: dict[bytes, Names] = {}
        for parent in list(self._plain):
            parts = self._joined.pop(parent, [])
            listed = self._plain.pop(parent)
            if not parts:
                listed.sort()
                plain[parent[:-1]] = Names.of_sorted(SEPARATOR.join(listed))
                continue
            if listed:
                parts.append(SEPARATOR.join(listed))
            plain[parent[:-1]] = pack(parts)
        return Users(plain, self._others, self._crashes, self._path)


def _share_out(keys: list[bytes], shares: list[array[int]]) -> None:
    adders = [share.append for share in shares]
    for hashed in map(hash, keys):
        adders[hashed % _SHARES](hashed)


def _twice(hashes: Iterable[int]) -> set[int]:
    seen: set[int] = set()
    repeated: set[int] = set()
    for one in hashes:
        (repeated if one in seen else seen).add(one)
    return repeated


def are_ordinary(names: list[bytes], joined: bytes) -> bool:
    """Whether all names can be asked for, and be the last part of a path; the same as `_is_ordinary` of each."""
    framed = SEPARATOR + joined + SEPARATOR
    return (
        joined.count(SEPARATOR) == len(names) - 1
        and not (b"/" in joined or b"\n\n" in framed or b"\n.\n" in framed or b"\n..\n" in framed)
        and joined.lower() == joined
        and all_valid(joined)
        and max(map(len, names)) <= LONGEST_NAME
    )


def _is_ordinary(name: bytes) -> bool:
    return _may_be_asked_for(name) and b"/" not in name and name not in _NO_NAMES


def _may_be_asked_for(name: bytes) -> bool:
    return len(name) <= LONGEST_NAME and name.lower() == name and is_username_valid(name)
