"""The table of a vmailmgr domain: what vdeliver finds in a cdb that may be anything.

    record  = 2 (flag value)* 0 base | 1 base | ':' password ':' rest
    base    = password 0 directory 0 (forward 0)* 0 personal 0 (number 0){6}

vpwentry: from_ver2.cc, from_ver1.cc, from_old.cc, decode.cc; cdb++: cdb_get.cc, cdb_reader.cc.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, starmap

from rcptgen.qmail.look import Look
from rcptgen.rules.cdbproof import proved, sum_of_hashes
from rcptgen.rules.cdbwalk import CdbFile, DamagedCdb
from rcptgen.source.tree import FailedForNow, NotRegular, Regular

NEVER = 0xFFFFFFFF
PAGE = 4096
MOST_READ = 64 << 20
"""A damaged table up to this size is looked at as vdeliver maps it."""

_NUMBER = rb"[ \t\n\v\f\r]*(?:-[0-9]*|[0-9]*)\0"
_RECORD = re.compile(
    rb"(?:\x01|\x02(?P<flags>(?:[\x08\x0a].)*)\0)"
    rb"[^\0]*\0(?P<directory>[^\0]*)\0(?P<forwards>(?:[^\0]+\0)*)\0[^\0]*\0"
    rb"(?:" + _NUMBER + rb"){5}(?P<expiry>" + _NUMBER + rb")",
    re.DOTALL,
)


CRASH = "vdeliver crashes over the table"
UNREADABLE = "the table of the virtual users cannot be read"


class Damaged(Exception):
    """There is no answer: vdeliver would read where there is nothing, and die, or the table cannot be read at all."""


@dataclass(frozen=True, slots=True)
class Record:
    """A user: the directory of the mailbox that mail goes to (empty without one), forwards parted by zero bytes."""

    mailbox: bytes
    forwards: bytes
    expiry: int


def record(data: bytes) -> Record | None:
    """What a value of the table says; None where vdeliver cannot read it."""
    if data.startswith(b":"):
        return _oldest(data.partition(b"\0")[0])
    found = _RECORD.fullmatch(data)
    if found is None:
        return None
    flags, directory, forwards, expiry = found.group("flags", "directory", "forwards", "expiry")
    mailbox = True
    if flags:
        given = dict(zip(flags[::2], flags[1::2], strict=True))
        mailbox = all(given.values())
    return Record(directory if mailbox else b"", forwards[:-1], _number(expiry))


def _oldest(text: bytes) -> Record | None:
    """The form in which a record is a line of a passwd file."""
    _, colon, rest = text[1:].partition(b":")
    if not colon:
        return None
    if rest.startswith((b".", b"/")):
        return Record(rest, b"", NEVER)
    return Record(b"", rest.removeprefix(b"&").replace(b",", b"\0"), NEVER)


def _number(text: bytes) -> int:
    """A number of 32 bits, of which more digits keep the lower ones (strtou.c)."""
    digits = text[:-1].lstrip(b" \t\n\v\f\r")
    if digits.startswith(b"-"):
        return NEVER
    # Leading digits that leave nothing in 32 bits need not be read: 2**32 divides 10**32.
    return int(digits[-32:] or b"0") & 0xFFFFFFFF


def signed_hash(key: bytes) -> int:
    """The hash of a key whose bytes are signed characters (cdb++: internal.h)."""
    h = 5381
    for byte in key:
        h = (h * 33 & 0xFFFFFFFF) ^ (byte if byte < 128 else byte | 0xFFFFFF00)
    return h


def _sum_of_hashes(keys: Sequence[bytes]) -> int:
    # Only in bytes beyond ASCII do the two hashes differ.
    return sum_of_hashes(keys) if b"".join(keys).isascii() else sum(map(signed_hash, keys))


@dataclass(slots=True)
class Table:
    """The open table; `damaged` once it has been found to be."""

    path: bytes
    look: Look
    cdb: CdbFile | None
    crashes: bool = False
    damaged: bool = field(default=False)
    _mapped: CdbFile | None = None

    @classmethod
    def open(cls, look: Look, path: bytes) -> Table | FailedForNow:
        """The table in `path`: without one, or one that cannot be read, vdeliver finds nobody."""
        found = look.cdb(path)
        full = look.path(path)
        if isinstance(found, FailedForNow):
            return found
        if isinstance(found, CdbFile):
            return cls(full, look, found)
        look.suspect(full, "the table of the virtual users is missing or cannot be read")
        # What is no file is not mapped, and the pointer to nowhere is followed all the same.
        return cls(full, look, None, crashes=isinstance(found, NotRegular), damaged=True)

    def get(self, name: bytes) -> Record | None:
        """A user by name; raises Damaged where vdeliver dies."""
        if self.crashes:
            raise Damaged(CRASH)
        if self.cdb is None:
            return None
        key = name.lower()
        try:
            data = self.cdb.get(key, signed_hash)
        except DamagedCdb:
            data = self._get_mapped(key)
        except OSError as error:
            raise self._failed(error) from None
        return None if data is None else record(data)

    def _get_mapped(self, key: bytes) -> bytes | None:
        """A look-up that leaves the file: the rest of its last page is zero, and behind that is nothing."""
        self._suspect()
        if self._mapped is None:
            found = self.look.read(self.path, MOST_READ)
            data = found.data if isinstance(found, Regular) else b""
            size = -(-len(data) // PAGE) * PAGE

            def fetch(position: int, wanted: int) -> bytes:
                return data[position : position + wanted] + bytes(
                    max(0, min(size, position + wanted) - max(position, len(data)))
                )

            self._mapped = CdbFile(fetch, size, "")
        try:
            return self._mapped.get(key, signed_hash)
        except DamagedCdb:
            raise Damaged(CRASH) from None

    def records(self) -> Iterator[tuple[bytes, Record]]:
        """Every user that can be found, once; `damaged` tells at the end whether the walk got through."""
        if self.cdb is None:
            return
        seen: set[bytes] = set()
        try:
            for key, data in chain.from_iterable(starmap(zip, proved(self.cdb, _sum_of_hashes))):
                if not key or key in seen or key != key.lower():
                    continue
                seen.add(key)
                found = record(data)
                if found is not None:
                    yield key, found
        except DamagedCdb:
            self._suspect()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> Damaged:
        self.damaged = True
        self.look.failed(self.path, f"{UNREADABLE}: {os.strerror(error.errno or errno.EIO)}")
        return Damaged(UNREADABLE)

    def _suspect(self) -> None:
        if not self.damaged:
            self.damaged = True
            self.look.suspect(self.path, "the table of the virtual users is damaged")
