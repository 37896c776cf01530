"""What vdelivermail asks of vpopmail's data, wherever they are kept."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rcptgen.qmail.look import Look
from rcptgen.rules.names import Names


class Noticed(enum.Enum):
    """For which names vdelivermail notices that it cannot ask, and defers; the others are unknown users to it."""

    ALL = "all"
    UNDASHED = "those without a dash"
    NONE = "none"


class Unavailable(Exception):
    """The data cannot be asked for now; `source` (a server, a file) and `reason` say what and why.

    The look has been told already, so that nothing is refused because of it.  `noticed` is
    what vdelivermail itself makes of it, for whoever wants to tell.
    """

    def __init__(self, source: bytes, reason: str, noticed: Noticed = Noticed.ALL) -> None:
        super().__init__(reason)
        self.source = source
        self.reason = reason
        self.noticed = noticed


class Crash(Exception):
    """vdelivermail dies over the record (fewer fields than it needs), or cannot go on: it defers."""


@dataclass(frozen=True, slots=True)
class Domain:
    """What users/cdb says of the domain of an address (vpopmail.c: vget_assign).

    `name` is the real domain, in its own case; `directory` the one in the line of the
    address's own domain.
    """

    name: bytes
    uid: int
    gid: int
    directory: bytes


@dataclass(frozen=True, slots=True)
class User:
    """One user: the gid field as a number, with the bounce flag in it, and the directory field.

    `file` is what it was read from.
    """

    name: bytes
    gid: int
    directory: bytes
    file: bytes = b""


@dataclass(frozen=True, slots=True)
class Users:
    """All users of a domain, each name once and as a look-up in lower case would find it.

    `plain` holds those without the bounce flag whose directory is the key, a slash and their
    name; a million of them cost their bytes.  `others` are all the rest, `crashes` the names
    whose records kill vdelivermail.  `file` is what it was read from.
    """

    plain: Mapping[bytes, Names]
    others: Sequence[User]
    crashes: Sequence[bytes] = ()
    file: bytes = b""


@dataclass(frozen=True, slots=True)
class Aliases:
    """All valias rows of a domain by alias, as a look-up in lower case would find them."""

    lines: Mapping[bytes, Sequence[bytes]] = field(default_factory=dict)
    file: bytes = b""


class Backend(Protocol):
    """One kind of storage.

    Every method raises Unavailable where the data cannot be read for now.  Names are given
    in lower case, cut to 156 bytes.
    """

    checks_uid: bool
    """Whether a process of another uid than the domain's finds no user at all."""

    makes_directories: bool
    """Whether an empty directory field is filled in on delivery (SQL) instead of bouncing (cdb)."""

    def prepare(self) -> None:
        """Called outside any change of identity, before the tables of homes are asked for."""
        ...

    def user(self, look: Look, domain: Domain, name: bytes) -> User | None:
        """One user, or None; raises Crash where vdelivermail dies over the record."""
        ...

    def users(self, look: Look, domain: Domain) -> Users:
        """All of them."""
        ...

    def alias(self, look: Look, domain: Domain, names: Iterable[bytes]) -> Sequence[bytes]:
        """The lines of the first of `names` that has any; empty where valias is not built in."""
        ...

    def aliases(self, look: Look, domain: Domain) -> Aliases:
        """All of them."""
        ...
