"""users/cdb, which qmail-lspawn obeys, and users/assign, from which qmail-newu makes it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

import cdbx

from rcptgen.errors import RcptgenError
from rcptgen.rules.cdbwalk import DamagedCdb, walk_cdb

_DIGITS = re.compile(rb"[0-9]*")
_NO_ID = 0xFFFFFFFF


class DamagedUsers(RcptgenError):
    """users/cdb cannot be used: qmail-lspawn defers every local address."""


class Owner(NamedTuple):
    """Whose home answers: the account fields that qmail-lspawn hands to qmail-local."""

    user: bytes
    uid: int
    gid: int
    home: bytes
    dash: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """One record of users/cdb.  `takes_tail`: what follows a wildcard is appended to `pre`."""

    owner: Owner
    pre: bytes
    takes_tail: bool

    def extension(self, tail: bytes) -> bytes:
        """The extension of a name whose part after the wildcard is `tail`."""
        return self.pre + tail if self.takes_tail else self.pre


@dataclass(frozen=True, slots=True)
class Hit:
    """What users/cdb says of a local name; `record` is None where the record is unusable (qmail-lspawn defers)."""

    key: bytes
    wildcard: bool
    record: Record | None
    tail: bytes


@lru_cache(maxsize=65536)
def parse_record(data: bytes) -> Record | None:
    """The fields of a users/cdb value (qmail-lspawn.c: spawn); None where there are fewer than six.

    A number is its leading digits, none of them is 0.  The last field is not ended by a NUL
    in the file: qmail-lspawn appends the rest of a wildcard's name, and then the NUL.
    """
    fields = data.split(b"\0")
    if len(fields) < 6:
        return None
    user, uid, gid, home, dash, pre = fields[:6]
    return Record(Owner(user, _number(uid), _number(gid), home, dash), pre, len(fields) == 6)


def _number(text: bytes) -> int:
    match = _DIGITS.match(text)
    digits = match[0] if match else b""
    # uid_t has 32 bits; 2**32 divides 10**32, so the digits further left never count.
    return int(digits[-32:] or b"0") & 0xFFFFFFFF


class UsersCdb:
    """users/cdb, held in memory; raises DamagedUsers where qmail-lspawn would defer everything."""

    def __init__(self, data: bytes) -> None:
        # cdbx reads descriptors; a memory file keeps the bytes that were read and judged.
        self._fd = os.memfd_create("users-cdb", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(self._fd), "wb") as out:
                out.write(data)
            try:
                self._cdb = cdbx.CDB(self._fd)
                wildchars = self._cdb.get(b"")
            except OSError as error:
                raise DamagedUsers(f"not a cdb: {error}") from None
            if wildchars is None:
                raise DamagedUsers("no list of wildcard characters (the record with the empty key)")
        except BaseException:
            self._close()
            raise
        self.wildchars: bytes = wildchars
        self._data = data

    def _close(self) -> None:
        """Gives the descriptor back, once: its number may be somebody else's the next time."""
        if hasattr(self, "_cdb"):
            self._cdb.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            self._close()

    def get(self, key: bytes) -> bytes | None:
        """The first value stored under `key`; raises DamagedUsers where the file is broken at that place."""
        try:
            value: bytes | None = self._cdb.get(key)
        except OSError as error:
            raise DamagedUsers(f"damaged: {error}") from None
        return value

    def lookup(self, local: bytes) -> Hit | None:
        """The record for a local name: exact, then ever shorter wildcards (qmail-lspawn.c: nughde_get)."""
        lowered = local.lower()
        key = b"!" + lowered
        value = self.get(key + b"\0")
        if value is not None:
            return Hit(lowered, False, parse_record(value), b"")
        wildchars = self.wildchars
        for end in range(len(key), 0, -1):
            if end == 1 or key[end - 1] in wildchars:
                value = self.get(key[:end])
                if value is not None:
                    return Hit(lowered[: end - 1], True, parse_record(value), local[end - 1 :])
        return None

    def has_wildcard(self, name: bytes) -> bool:
        """Whether there is a wildcard entry for `name`, found or not."""
        return self.get(b"!" + name.lower()) is not None

    def check(self) -> None:
        """Raises DamagedUsers where the file breaks off, or a look-up misses what stands in it."""
        seen: set[bytes] = set()
        try:
            for key, value in walk_cdb(self._data):
                if key not in seen and self.get(key) != value:
                    raise DamagedUsers("its tables do not lead to all of its records")
                seen.add(key)
        except DamagedCdb as error:
            raise DamagedUsers(str(error)) from None

    def entries(self) -> Iterator[tuple[bytes, bool, bytes]]:
        """(name, wildcard, value) of every entry that a look-up can find, each name once, in file order.

        Raises DamagedUsers where the file breaks off.
        """
        seen: set[bytes] = set()
        try:
            for key, value in walk_cdb(self._data):
                if key[:1] != b"!" or key in seen:
                    continue
                seen.add(key)
                if key.endswith(b"\0"):
                    name = key[1:-1]
                    if name == name.lower() and b"\0" not in name:
                        yield name, False, value
                else:
                    name = key[1:]
                    found = not name or name[-1] in self.wildchars
                    if found and name == name.lower() and b"\0" not in name:
                        yield name, True, value
        except DamagedCdb as error:
            raise DamagedUsers(str(error)) from None


@dataclass(frozen=True, slots=True)
class Assignment:
    """One line of users/assign: `name` is lowered for the look-up, `written` is as it stands."""

    name: bytes
    written: bytes
    wildcard: bool
    value: bytes
    line: int


@dataclass(frozen=True, slots=True)
class Assign:
    """users/assign as qmail-newu takes it; with a `problem` it would have left the old users/cdb alone."""

    assignments: tuple[Assignment, ...]
    problem: str
    problem_line: int

    @property
    def wildchars(self) -> bytes:
        """The last characters of the wildcards as they are written, in order of appearance."""
        found = bytearray()
        for one in self.assignments:
            if one.wildcard and one.written and one.written[-1] not in found:
                found.append(one.written[-1])
        return bytes(found)


class Assignments:
    """users/assign, line by line up to the dot line (qmail-newu.c: main).

    After the last assignment `problem` says why qmail-newu refuses the file, if it does, and
    `problem_line` where.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.problem = ""
        self.problem_line = 0

    def __iter__(self) -> Iterator[Assignment]:
        number = 0
        for number, ended in enumerate(BytesIO(self._data), 1):
            if ended.startswith(b"."):
                return
            if not ended.endswith(b"\n"):
                number -= 1
                break
            line = ended[:-1]
            name, colon, rest = line.partition(b":")
            fields = rest.split(b":")
            if b"\0" in line:
                self.problem = "a NUL in the line"
            elif not colon or not name:
                self.problem = "no name before a colon"
            elif len(fields) < 7:
                self.problem = "fewer than six fields, each ended by a colon"
            if self.problem:
                self.problem_line = number
                return
            yield Assignment(name[1:].lower(), name[1:], name[:1] == b"+", b"\0".join(fields[:6]), number)
        self.problem, self.problem_line = "no line with a dot at the end", number + 1


def parse_assign(data: bytes) -> Assign:
    """All assignments of users/assign at once."""
    lines = Assignments(data)
    return Assign(tuple(lines), lines.problem, lines.problem_line)


def is_made_of(cdb: UsersCdb, data: bytes) -> bool:
    """Whether users/cdb holds just what qmail-newu makes of this users/assign; millions of lines are not kept."""
    lines = Assignments(data)
    wanted = sum(hash((one.name, one.wildcard, one.value)) for one in lines)
    return not lines.problem and wanted == sum(map(hash, cdb.entries()))


def differences(assign: Assign, cdb: UsersCdb) -> Iterator[tuple[bytes, int, str]]:
    """Where users/cdb is not what qmail-newu would make of users/assign: (name, line or 0, what differs)."""
    wanted: dict[tuple[bytes, bool], Assignment] = {}
    for one in assign.assignments:
        wanted.setdefault((one.name, one.wildcard), one)
    seen: set[tuple[bytes, bool]] = set()
    for name, wildcard, value in cdb.entries():
        seen.add((name, wildcard))
        line = wanted.get((name, wildcard))
        if line is None:
            yield name, 0, "is in users/cdb only"
        elif line.value != value:
            yield name, line.line, "differs in users/cdb"
    wildchars = assign.wildchars
    for (name, wildcard), line in wanted.items():
        reachable = not wildcard or not name or name[-1] in wildchars
        if (name, wildcard) not in seen and reachable:
            yield name, line.line, "is in users/assign only"


def usable_ids(owner: Owner) -> bool:
    """Whether qmail-lspawn can become the owner: not root, and no number that setuid(2) refuses."""
    return owner.uid != 0 and owner.uid != _NO_ID and owner.gid != _NO_ID
