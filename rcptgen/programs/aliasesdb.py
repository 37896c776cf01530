"""The database of fastforward: what one of its keys comes to, and which keys there are.

    key = ":" target          data = (command NUL)*
    key = "?" target          data = the owner's address
    command = "&" address  |  ("." or "/") path of a list file  |  ("|" or "!") shell line

A target is `user@host`, `@host` or `user@`, in lower case.  A list file holds commands of
the first two sorts.  The owner of the database may be anybody: every step is counted.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, starmap

from rcptgen.qmail.look import Look
from rcptgen.qmail.model import Effect, Text
from rcptgen.rules.cdbproof import proved
from rcptgen.rules.cdbwalk import CdbFile
from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind
from rcptgen.source.tree import NotRegular, Regular, TooLarge

HARD = frozenset({100, 64, 65, 70, 76, 77, 78, 112})
"""The statuses with which a program refuses for good (fastforward.c: doprogram; the same as qmail-local's)."""

LONGEST_LIST = 16 << 20
LONGEST_FORWARD = 900
MOST_STEPS = 200_000
MOST_PASSES = 24

_BY_BYTES = 64
_BY_PROGRAM = 20
_ONLY_FORWARDS = re.compile(rb"(?:&[^\0]*\0)*[^\0]*", re.DOTALL)

Starter = Callable[[Sequence[Text]], Effect]


class TooMuch(Exception):
    """Following the aliases any further would take too long."""


class Steps:
    """How much may still be followed."""

    __slots__ = ("left",)

    def __init__(self, left: int = MOST_STEPS) -> None:
        self.left = left

    def spend(self, amount: int) -> None:
        """Takes note of some steps; raises TooMuch where there are none left."""
        self.left -= amount
        if self.left < 0:
            raise TooMuch


@dataclass(frozen=True, slots=True)
class Gathered:
    """What gathering a target's commands comes to.

    `ended`: the statuses with which that may end at once; `goes_on`: whether it may come to
    its end, and the message be forwarded; `plain`: no program and no list file was on the way.
    `reason` says what ends it, or what is not known.
    """

    ended: frozenset[int]
    goes_on: bool
    plain: bool = True
    kind: Kind = Kind.ALIAS
    approximate: bool = False
    reason: str = ""
    file: bytes = b""


class Gathering:
    """One run of fastforward behind its first look-up (fastforward.c: dodata, dofile, dorecip, doprogram)."""

    def __init__(
        self, database: CdbFile, look: Look, shell: Callable[[bytes], Effect], start: Starter, steps: Steps
    ) -> None:
        self._database = database
        self._look = look
        self._shell = shell
        self._start = start
        self._steps = steps
        self._todo: list[bytes] = []
        self.forwards: list[bytes] = []
        """The addresses that the message is forwarded to, if it comes to that."""
        self._ended: set[int] = set()
        self._plain = True
        self._kind = Kind.ALIAS
        self._approximate = False
        self._reason = ""
        self._file = b""

    def run(self, address: bytes, data: bytes) -> Gathered:
        """What becomes of `address`, whose target holds `data`; raises TooMuch, DamagedCdb, OSError."""
        done = {address}
        goes_on = self._commands(data, programs=True)
        while goes_on and self._todo:
            one = self._todo.pop()
            self._steps.spend(1)
            if one in done:
                continue
            done.add(one)
            goes_on = self._recipient(one[1:]) if one[:1] == b"&" else self._list(one)
        return Gathered(
            frozenset(self._ended),
            goes_on,
            self._plain,
            self._kind,
            self._approximate,
            self._reason,
            b"" if goes_on else self._file,
        )

    def _commands(self, data: bytes, *, programs: bool) -> bool:
        """Takes up all commands in `data`; whether it goes on behind them."""
        self._steps.spend(1 + len(data) // _BY_BYTES)
        for one in data.split(b"\0")[:-1]:
            first = one[:1]
            if first in (b".", b"/") or (first == b"&" and len(one) < LONGEST_FORWARD):
                self._todo.append(one)
            elif programs and first in (b"|", b"!") and not self._program(first, one[1:]):
                return False
        return True

    def _recipient(self, address: bytes) -> bool:
        lower = address.lower()
        if self._database.get(b"?" + lower) is None:
            data = self._database.get(b":" + lower)
            if data is not None:
                return self._commands(data, programs=True)
        self.forwards.append(address)
        return True

    def _list(self, path: bytes) -> bool:
        self._plain = False
        found = self._look.read(path, LONGEST_LIST)
        if isinstance(found, TooLarge):
            self._unknown("list file too large to be read")
            return True
        if isinstance(found, Regular):
            if found.status.mode & 0o444 == 0o444:
                return self._commands(found.data, programs=False)
        elif isinstance(found, NotRegular) and not stat.S_ISDIR(found.mode) and found.mode & 0o444 == 0o444:
            return True  # a fifo that nobody writes to, /dev/null
        self._ended.add(111)
        self._file = self._look.path(path)
        self._reason = "fastforward cannot read a list file"
        return False

    def _program(self, first: bytes, line: bytes) -> bool:
        self._plain = False
        self._steps.spend(_BY_PROGRAM)
        effect = self._start((b"preline", b"sh", b"-c", line)) if first == b"!" else self._shell(line)
        self._ended |= {100 if status in HARD else 111 for status in effect.statuses if status}
        if effect.approximate:
            self._approximate = True
            self._reason = self._reason or effect.reason
        if effect.kind is Kind.LIST:
            self._kind = Kind.LIST
        if 0 in effect.statuses:
            return True
        self._reason = self._reason or f"fastforward runs a program: {effect.reason}"
        return False

    def _unknown(self, reason: str) -> None:
        self._ended |= {100, 111}
        self._approximate = True
        self._reason = self._reason or reason


@dataclass(frozen=True, slots=True)
class Aliases:
    """All targets of a database with an `@`, by what follows the last one.

    `plain` targets lead to nothing but addresses, whatever these lead to; `odd` ones may
    come to a program or a list file, on some way.
    """

    plain: Mapping[bytes, Names]
    odd: Mapping[bytes, Names]


def read_aliases(database: CdbFile) -> Aliases:
    """Every target that a look-up could find; raises DamagedCdb, OSError, and TooMuch for a tangle of aliases."""
    plain: dict[bytes, list[bytes]] = {}
    odd: set[bytes] = set()
    for key, data in chain.from_iterable(starmap(zip, proved(database))):
        # What is looked up is in lower case and comes from the environment.
        if key[:1] != b":" or key != key.lower() or b"\0" in key:
            continue
        if _ONLY_FORWARDS.fullmatch(data):
            user, at, host = key[1:].rpartition(b"@")
            if at:
                plain.setdefault(host, []).append(user)
        else:
            odd.add(key[1:])
    if odd:
        _spread(database, odd)
    by_host: dict[bytes, list[bytes]] = {}
    for name in odd:
        user, at, host = name.rpartition(b"@")
        if at:
            by_host.setdefault(host, []).append(user)
    for host, users in by_host.items():
        if host in plain:
            out = set(users)
            plain[host] = [user for user in plain[host] if user not in out]
    return Aliases({host: Names(plain.pop(host)) for host in list(plain)}, {h: Names(u) for h, u in by_host.items()})


def _spread(database: CdbFile, odd: set[bytes]) -> None:
    """Adds every target from which the aliases lead to an odd one."""
    for _ in range(MOST_PASSES):
        before = len(odd)
        for key, data in database.records():
            if (
                key[:1] == b":"
                and key[1:] not in odd
                and any(one[:1] == b"&" and one[1:].lower() in odd for one in data.split(b"\0"))
            ):
                odd.add(key[1:])
        if len(odd) == before:
            return
    raise TooMuch
