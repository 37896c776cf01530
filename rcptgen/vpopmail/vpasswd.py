"""vpasswd.cdb, the users of a domain of vpopmail's own back end (vcdb.c).

    vpasswd        name:password:uid:gid:gecos:directory:quota[:clear password]
    vpasswd.cdb    name -> password:uid:gid:gecos:directory:quota[:clear password]

Deliveries read the cdb alone.  Only where it cannot be opened is it made anew of vpasswd.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence

from rcptgen.qmail.look import Look
from rcptgen.rules.cdbwalk import CdbFile, DamagedCdb
from rcptgen.rules.names import SEPARATOR, Names
from rcptgen.source.tree import FailedForNow, NotRegular, Refused, Regular, Status, TooLarge
from rcptgen.vpopmail.assign import LONGEST_NAME
from rcptgen.vpopmail.backend import Aliases, Crash, Domain, Unavailable, User, Users
from rcptgen.vpopmail.packed import pack
from rcptgen.vpopmail.salvage import LARGEST, Record, findable
from rcptgen.vpopmail.text import atoi, c_string, is_username_valid

BOUNCE_FLAG = 0x10
"""vpopmail.h: BOUNCE_MAIL, the one bit of the gid field that deliveries look at."""

LINE = 511
"""vcdb.c: make_vpasswd_cdb reads pieces of so many bytes (MAX_BUFF_CDB)."""

FAR_APART = 5
"""vpasswd and its cdb differ by so many names, and by half, before that is suspicious."""

_BATCH = 1 << 16
_SHARES = 32
_MOST_FLAGS = 4096
_LEAST_FIELDS = 3
_TOO_LONG = re.compile(rb"(?:\A|\n)[^\n]{%d}" % (LONGEST_NAME + 1))


class VpasswdBackend:
    """The users in vpasswd.cdb; valias needs SQL."""

    checks_uid = True
    makes_directories = False

    def prepare(self) -> None:
        """Nothing is kept between runs."""

    def user(self, look: Look, domain: Domain, name: bytes) -> User | None:
        """One user, or None (vcdb.c: vauth_getpw): nobody, too, where the file is damaged or cannot be made."""
        path = domain.directory + b"/vpasswd.cdb"
        opened = _open(look, path)
        if isinstance(opened, NotRegular):
            return None
        if isinstance(opened, CdbFile):
            try:
                data = opened.get(name)
            except DamagedCdb as error:
                look.suspect(path, str(error))
                return None
            except OSError as error:
                look.failed(path, str(error))
                raise Unavailable(path, str(error)) from None
        else:
            data = next((data for key, data in _rebuilt(look, domain) if key == name), None)
        return None if data is None else _user(name, data, path)

    def users(self, look: Look, domain: Domain) -> Users:
        """All of them, the first record of each name."""
        path = domain.directory + b"/vpasswd.cdb"
        opened = _open(look, path)
        if isinstance(opened, NotRegular):
            return Users({}, (), (), path)
        if opened is None:
            rebuilt = _rebuilt(look, domain)
            return _gathered(lambda: iter(rebuilt), path)
        try:
            found = _gathered(opened.records, path)
            _lead_to_records(opened, found)
        except DamagedCdb as error:
            look.suspect(path, str(error))
            return _salvaged(look, path)
        except OSError as error:
            look.failed(path, str(error))
            raise Unavailable(path, str(error)) from None
        self._compared(look, domain, path, found)
        return found

    def alias(self, look: Look, domain: Domain, names: Iterable[bytes]) -> Sequence[bytes]:
        """None."""
        return ()

    def aliases(self, look: Look, domain: Domain) -> Aliases:
        """None."""
        return Aliases()

    @staticmethod
    def _compared(look: Look, domain: Domain, path: bytes, found: Users) -> None:
        """Tells where vpasswd is newer and holds very different numbers of names."""
        text = domain.directory + b"/vpasswd"
        newer, older = look.status(text), look.status(path)
        if not isinstance(newer, Status) or not isinstance(older, Status) or newer.mtime_ns <= older.mtime_ns:
            return
        reading = look.read(text, limit=LARGEST)
        if not isinstance(reading, Regular):
            return
        written = len({line.partition(b":")[0] for line in reading.data.splitlines() if b":" in line})
        made = sum(map(len, found.plain.values())) + len(found.others) + len(found.crashes)
        apart = abs(written - made)
        if apart >= FAR_APART and 2 * apart > max(written, made):
            look.suspect(path, f"vpasswd is newer and has {written} names, the cdb {made}")


def _open(look: Look, path: bytes) -> CdbFile | NotRegular | None:
    """The cdb as open(2) gives it; None where it must be made."""
    found = look.cdb(path)
    if isinstance(found, FailedForNow):
        raise Unavailable(path, os.strerror(found.errno))
    return found if isinstance(found, CdbFile | NotRegular) else None


def _user(name: bytes, data: bytes, file: bytes) -> User:
    """A user's record; raises Crash where it has fewer fields than vauth_getpw takes for granted."""
    fields = c_string(data).split(b":", 5)
    if len(fields) < _LEAST_FIELDS:
        raise Crash
    return User(name, atoi(fields[2]), fields[4] if len(fields) > 4 else b"", file)


# -- all users --------------------------------------------------------------------------------


def _gathered(walk: Callable[[], Iterator[Record]], path: bytes) -> Users:
    """The users among all the records, the first of each name.

    Names that are there twice are rare: the records are walked a second time for them only.
    A million names cost their bytes and eight more each while this lasts.
    """
    found = _Sorted(path)
    repeated = found.take(walk())
    if repeated:
        found = _Sorted(path)
        found.take(_first_only(walk(), repeated))
    return found.users()


def _first_only(records: Iterable[Record], repeated: set[int]) -> Iterator[Record]:
    seen: set[bytes] = set()
    for record in records:
        if hash(record[0]) in repeated:
            if record[0] in seen:
                continue
            seen.add(record[0])
        yield record


class _Sorted:
    """Records by what is to be told of them."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._others: list[User] = []
        self._crashes: list[bytes] = []
        self._open: set[bytes] = set()
        self._plain: dict[bytes, list[bytes]] = {}
        self._joined: dict[bytes, list[bytes | None]] = {}

    def take(self, records: Iterator[Record]) -> set[int]:
        """Takes all the records, and gives the hashes of names that may be there twice."""
        shares: list[array[int]] = []
        repeated: set[int] = set()
        while True:
            keys = self._batch(itertools.islice(records, _BATCH))
            if len(keys) < _BATCH and not shares:
                # All of it at once: every domain but the largest.
                if len(set(keys)) != len(keys):
                    repeated.update(_twice(map(hash, keys)))
                return repeated
            shares = shares or [array("q") for _ in range(_SHARES)]
            adders = [share.append for share in shares]
            for hashed in map(hash, keys):
                adders[hashed % _SHARES](hashed)
            if not keys:
                break
            for parent, names in self._plain.items():
                if names:
                    self._joined.setdefault(parent, []).append(_joined(names))
                    names.clear()
        for share in shares:
            if len(set(share)) != len(share):
                repeated.update(_twice(share))
        return repeated

    def _batch(self, records: Iterable[Record]) -> list[bytes]:
        """Takes some records, and gives their keys."""
        keys: list[bytes] = []
        add, get, open_, nul = keys.append, self._plain.get, self._open, b"\0"
        for key, data in records:
            add(key)
            fields = data.split(b":", 5)
            if len(fields) > 4 and fields[2] in open_ and nul not in data:
                directory = fields[4]
                if directory.endswith(key):
                    names = get(directory[: -len(key)])
                    if names is not None:
                        names.append(key)
                        continue
            self._odd_one(key, data, fields)
        return keys

    def _odd_one(self, key: bytes, data: bytes, fields: list[bytes]) -> None:
        """Takes a record that is the first of its sort, or one of its own."""
        if not _may_be_asked_for(key):
            return
        try:
            user = _user(key, data, self._path)
        except Crash:
            self._crashes.append(key)
            return
        parent, slash, name = user.directory.rpartition(b"/")
        if user.gid & BOUNCE_FLAG or not slash or not name or name != key:
            self._others.append(user)
            return
        if len(self._open) < _MOST_FLAGS and b"\0" not in data:
            self._open.add(fields[2])
        self._plain.setdefault(parent + slash, []).append(key)

    def users(self) -> Users:
        """All that was taken."""
        plain: dict[bytes, Names] = {}
        for parent in list(self._plain):
            parts = self._joined.pop(parent, [])
            listed = self._plain.pop(parent)
            if listed:
                parts.append(_joined(listed))
            names = pack(part for part in parts if part is not None)
            if len(names):
                plain[parent[:-1]] = names
        return Users(plain, self._others, self._crashes, self._path)


def _twice(hashes: Iterable[int]) -> set[int]:
    seen: set[int] = set()
    repeated: set[int] = set()
    for one in hashes:
        (repeated if one in seen else seen).add(one)
    return repeated


def _joined(names: list[bytes]) -> bytes | None:
    """The names that a look-up may ask for, joined by newlines; None where there are none."""
    joined = SEPARATOR.join(names)
    if joined.count(SEPARATOR) == len(names) - 1 and joined.lower() == joined and not _TOO_LONG.search(joined):
        return joined
    asked = [name for name in names if _may_be_asked_for(name)]
    return SEPARATOR.join(asked) if asked else None


def _may_be_asked_for(name: bytes) -> bool:
    return len(name) <= LONGEST_NAME and name.lower() == name and is_username_valid(name)


def _lead_to_records(opened: CdbFile, found: Users) -> None:
    """Raises DamagedCdb where the hash tables do not lead to records that are there (blocks of zeros, say)."""
    for names in itertools.islice(found.plain.values(), 1):
        if opened.get((names.joined or b"").rpartition(SEPARATOR)[2]) is None:
            raise DamagedCdb(f"{opened.name}: damaged: a name that it holds cannot be found")


def _salvaged(look: Look, path: bytes) -> Users:
    """The users that look-ups in a damaged cdb still find."""
    reading = look.read(path, limit=LARGEST)
    if not isinstance(reading, Regular):
        reason = "damaged, and cannot be searched for what is left"
        look.failed(path, reason)
        raise Unavailable(path, reason)
    return _gathered(lambda: findable(reading.data), path)


# -- where there is no cdb ----------------------------------------------------------------------


def _rebuilt(look: Look, domain: Domain) -> list[Record]:
    """The records of the cdb that would be made of vpasswd (vcdb.c: make_vpasswd_cdb), the first of each name.

    None where it cannot be made: that takes vpasswd, and a directory to write to.
    """
    path, made = domain.directory + b"/vpasswd", domain.directory + b"/cdb.tmp"
    reading = look.read(path, limit=LARGEST)
    if isinstance(reading, FailedForNow):
        raise Unavailable(path, os.strerror(reading.errno))
    if isinstance(reading, TooLarge):
        look.failed(path, "too large to be judged")
        raise Unavailable(path, "too large to be judged")
    if not isinstance(reading, Regular):
        return []
    if not isinstance(look.accessible(domain.directory, os.W_OK | os.X_OK), Status):
        return []
    left_over = look.accessible(made, os.W_OK)
    if isinstance(left_over, Refused) or (isinstance(left_over, Status) and stat.S_ISDIR(left_over.mode)):
        return []
    found: dict[bytes, bytes] = {}
    for line in _lines(reading.data):
        key, colon, data = line.partition(b":")
        # A line without a colon takes what an earlier line has left behind it, under a key with a newline in it.
        if colon:
            found.setdefault(c_string(key), c_string(data))
    return list(found.items())


def _lines(data: bytes) -> Iterator[bytes]:
    """The lines as fgets gives them, without their newlines; the last one is lost unless it ends."""
    start, size = 0, len(data)
    while start < size:
        end = data.find(b"\n", start, start + LINE)
        if end >= 0:
            yield data[start:end]
            start = end + 1
        elif start + LINE <= size:
            # Too long for the buffer: what vdelivermail does then is undefined, and this what 5.6 was seen to do.
            yield data[start : start + LINE]
            start += LINE
        else:
            return
