"""The domains of users/cdb, as vpopmail looks them up (vpopmail.c: vget_assign).

The record under `!HOST-` is `user NUL uid NUL gid NUL directory NUL dash NUL ext`; its user is
the real domain.  Domains are asked for by the ten thousand, so the opened file is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from rcptgen.qmail.look import Look
from rcptgen.rules.cdbwalk import CdbFile, DamagedCdb
from rcptgen.source.tree import FailedForNow, Identity
from rcptgen.vpopmail.backend import Crash, Domain, Unavailable
from rcptgen.vpopmail.text import atoi

LONGEST_NAME = 156
"""vpopmail.c: lowerit cuts what is longer."""

LONGEST_DOMAIN = 96
LONGEST_DIRECTORY = 155
MOST_KEPT = 64
_FIELDS = 4


def lowerit(text: bytes) -> bytes:
    """The text in lower case, cut to 156 bytes (vpopmail.c: lowerit)."""
    return text[:LONGEST_NAME].lower()


@dataclass(frozen=True, slots=True)
class Assigned:
    """What HOST stands for: the name vdelivermail goes on with, and the domain whose users it then asks for."""

    name: bytes
    domain: Domain | None


class Assignments:
    """users/cdb below `directory` (qmail's), opened once for every identity that asks."""

    def __init__(self, directory: bytes) -> None:
        self.file = directory.rstrip(b"/") + b"/users/cdb"
        self._opened: dict[Identity, CdbFile | None] = {}
        self._last: tuple[Identity, bytes, Assigned] | None = None

    def is_open(self, who: Identity) -> bool:
        """Whether nothing needs to be opened any more to answer `who`."""
        return who in self._opened

    def assigned(self, look: Look, host: bytes) -> Assigned:
        """What `host` stands for.

        The domain is None where no process finds it, whatever the reason (a missing, unreadable
        or damaged file is one).  A real domain in capitals is looked up once more, by its
        own name (vpopmail.c: vget_assign compares what it remembers as it is written).

        Raises Unavailable where the file cannot be read for now, Crash where its record is
        too short for vdelivermail.
        """
        name, last = lowerit(host), self._last
        # Each of the lines of a home that runs vdelivermail asks for the same domain.
        if last is not None and last[1] == name and last[0] == look.identity:
            return last[2]
        first = self._record(look, name)
        if first is None:
            return Assigned(name, None)
        given = first.name[:LONGEST_DOMAIN]
        second = first if given.lower() == first.name else self._record(look, given.lower())
        if second is None:
            return Assigned(given, None)
        asked = second.name[:LONGEST_DOMAIN]
        third = second if asked.lower() == second.name else self._record(look, asked.lower())
        if third is None:
            return Assigned(given, None)
        found = Assigned(given, Domain(asked, second.uid, second.gid, third.directory[:LONGEST_DIRECTORY]))
        self._last = look.identity, name, found
        return found

    def _record(self, look: Look, name: bytes) -> Domain | None:
        if not name:
            return None
        opened = self._open(look)
        if opened is None:
            return None
        try:
            value = opened.get(b"!" + name + b"-")
        except DamagedCdb:
            look.suspect(self.file, "damaged")
            return None
        except OSError as error:
            look.failed(self.file, str(error))
            raise Unavailable(self.file, str(error)) from None
        if value is None:
            return None
        fields = value.split(b"\0", _FIELDS)
        if len(fields) < _FIELDS:
            raise Crash
        return Domain(fields[0], atoi(fields[1]), atoi(fields[2]), fields[3])

    def _open(self, look: Look) -> CdbFile | None:
        who = look.identity
        if who not in self._opened:
            found = look.cdb(self.file)
            if isinstance(found, FailedForNow):
                raise Unavailable(self.file, "users/cdb cannot be read for now")
            if len(self._opened) >= MOST_KEPT:
                del self._opened[next(iter(self._opened))]
            self._opened[who] = found if isinstance(found, CdbFile) else None
        return self._opened[who]
