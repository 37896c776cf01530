"""vpasswd.cdb, the users of a domain of vpopmail's own back end (vcdb.c).

    vpasswd        name:password:uid:gid:gecos:directory:quota[:clear password]
    vpasswd.cdb    name -> password:uid:gid:gecos:directory:quota[:clear password]

Deliveries read the cdb alone.  Only where it cannot be opened is it made anew of vpasswd.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence

from rcptgen.qmail.look import Look
from rcptgen.rules.cdbproof import proved
from rcptgen.rules.cdbwalk import CdbFile, DamagedCdb
from rcptgen.source.tree import FailedForNow, NotRegular, Refused, Regular, Status, TooLarge
from rcptgen.vpopmail.backend import Aliases, Domain, Unavailable, User, Users
from rcptgen.vpopmail.gathered import gathered, in_batches, user_of
from rcptgen.vpopmail.salvage import LARGEST, Record, findable
from rcptgen.vpopmail.text import c_string

LINE = 511
"""vcdb.c: make_vpasswd_cdb reads pieces of so many bytes (MAX_BUFF_CDB)."""

FAR_APART = 5
"""vpasswd and its cdb differ by so many names, and by half, before that is suspicious."""


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
                look.suspect(path, error.damage)
                return None
            except OSError as error:
                look.failed(path, str(error))
                raise Unavailable(path, str(error)) from None
        else:
            data = next((data for key, data in _rebuilt(look, domain) if key == name), None)
        return None if data is None else user_of(name, data, path)

    def users(self, look: Look, domain: Domain) -> Users:
        """All of them, the first record of each name."""
        path = domain.directory + b"/vpasswd.cdb"
        opened = _open(look, path)
        if isinstance(opened, NotRegular):
            return Users({}, (), (), path)
        if opened is None:
            rebuilt = _rebuilt(look, domain)
            return gathered(lambda: in_batches(rebuilt), path)
        try:
            found = gathered(lambda: proved(opened), path)
        except DamagedCdb as error:
            look.suspect(path, error.damage)
            return _salvaged(look, path)
        except OSError as error:
            look.failed(path, str(error))
            raise Unavailable(path, str(error)) from None
        self._compared(look, domain, opened, path, found)
        return found

    def alias(self, look: Look, domain: Domain, names: Iterable[bytes]) -> Sequence[bytes]:
        """None."""
        return ()

    def aliases(self, look: Look, domain: Domain) -> Aliases:
        """None."""
        return Aliases()

    @staticmethod
    def _compared(look: Look, domain: Domain, opened: CdbFile, path: bytes, found: Users) -> None:
        """Tells where vpasswd is newer and holds very different numbers of names."""
        text = domain.directory + b"/vpasswd"
        newer, made_at = look.status(text), opened.mtime_ns
        if made_at is None and isinstance(older := look.status(path), Status):
            made_at = older.mtime_ns
        if not isinstance(newer, Status) or made_at is None or newer.mtime_ns <= made_at:
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


# -- what is there, whole or damaged -------------------------------------------------------------


def _salvaged(look: Look, path: bytes) -> Users:
    """The users that look-ups in a damaged cdb still find."""
    reading = look.read(path, limit=LARGEST)
    if not isinstance(reading, Regular):
        reason = "damaged, and cannot be searched for what is left"
        look.failed(path, reason)
        raise Unavailable(path, reason)
    return gathered(lambda: in_batches(findable(reading.data)), path)


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
