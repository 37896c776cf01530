"""A host's own files, read as qmail-send, qmail-lspawn and qmail-smtpd read them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Protocol

from rcptgen.config import Qmail
from rcptgen.errors import ConfigurationError, SourceFailed
from rcptgen.qmail import accounts as account_sources
from rcptgen.qmail.accounts import Accounts
from rcptgen.qmail.control import ConstMap, Entry, entries, first_line
from rcptgen.qmail.routing import RcptHosts, Routing
from rcptgen.qmail.users import Assign, DamagedUsers, UsersCdb, differences, is_made_of, parse_assign
from rcptgen.rules.cdbproof import proved
from rcptgen.rules.cdbwalk import CdbFile, DamagedCdb
from rcptgen.rules.shown import shown
from rcptgen.source.tree import Absent, FailedForNow, Identity, NotRegular, Refused, Regular, TooLarge

MOST_WARNINGS = 10
"""Disagreements of users/assign and users/cdb that a run tells of."""

LARGEST_CDB = 4 * 1024**3
LARGEST_CONTROL = 64 * 1024**2

Found = Regular | Absent | Refused | FailedForNow | NotRegular | TooLarge


class Read(Protocol):
    """Reads a file of the host, as `identity` (None: as root)."""

    def __call__(self, path: bytes, identity: Identity | None = None, limit: int = LARGEST_CONTROL) -> Found:
        """What is at `path`."""
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person should look at; `code` is that of its page (`rcptgen lint --explain CODE`)."""

    code: str
    text: str
    file: bytes
    line: int = 0


class HostFiles:
    """What control, users/cdb and the accounts say.

    `users` is None where users/cdb is not there; `users_damage` says why it cannot be used
    as a whole, and `damaged_users` then answers for what is left of it, if anything.
    `present` are the control files that were found.  `cut_off`: locals or virtualdomains
    ends in the middle of a line, or is empty, as a half-written file would; `relays_cut_off`:
    rcpthosts does.  Raises ConfigurationError where qmail-send would not start, SourceFailed
    where a file cannot be read for now.
    """

    def __init__(self, directory: bytes, qmail: Qmail, read: Read, *, alternate_root: bool) -> None:
        self.directory = directory
        self.present: list[bytes] = []
        self.cut_off = self.relays_cut_off = False
        self._read = read
        self._assign_lines: dict[tuple[bytes, bool], int] | None = None
        self._read_users()
        self.accounts = self._accounts(qmail.accounts, alternate_root)
        self._send_identity = self.identity(b"qmails", b"qmail")
        self.routing = self._routing()
        self.rcpthosts = self._rcpthosts()

    def _read_users(self) -> None:
        self.users_file = self.directory + b"/users/cdb"
        self.users: UsersCdb | None = None
        self.damaged_users: UsersCdb | None = None
        self.users_damage = ""
        found = self._read(self.users_file, limit=LARGEST_CDB)
        if isinstance(found, Regular):
            try:
                self.users = UsersCdb(found.data)
                self.users.check()
            except DamagedUsers as error:
                self.damaged_users = self.users
                self.users, self.users_damage = None, str(error)
        elif not (isinstance(found, Absent) and found.errno == errno.ENOENT):
            reason = os.strerror(found.errno) if hasattr(found, "errno") else "not a regular file"
            self.users_damage = reason

    def _accounts(self, chosen: str, alternate_root: bool) -> Accounts:
        if chosen.startswith("/"):
            return account_sources.from_file(os.fsencode(chosen), self._read)
        if alternate_root or chosen == "passwd":
            return account_sources.from_file(b"/etc/passwd", self._read)
        catch_all = self.users is not None and self.users.has_wildcard(b"")
        return account_sources.of_system(self._read, enumerate_=chosen == "enumerate", catch_all=catch_all)

    def identity(self, user: bytes, group: bytes) -> Identity | None:
        """The account `user` in the group `group`, as one of qmail's programs runs; None where there is none."""
        account = self.accounts.get(user)
        if account is None or not account.uid:
            return None
        number = self.accounts.group(group)
        return Identity(account.uid, account.gid if number is None else number)

    def _control(self, name: bytes, reader: str = "qmail-send") -> bytes | None:
        """A control file's bytes as its reader gets them; None where there is no such file.

        qmail-send reads as qmails; what others read is read as root.
        """
        path = self.directory + b"/control/" + name
        found = self._read(path, self._send_identity if reader == "qmail-send" else None)
        if isinstance(found, Regular):
            self.present.append(path)
            if not found.data.endswith(b"\n"):
                self.cut_off |= name in (b"locals", b"virtualdomains")
                self.relays_cut_off |= name == b"rcpthosts"
            return found.data
        if isinstance(found, Absent) and found.errno == errno.ENOENT:
            return None
        if isinstance(found, FailedForNow):
            raise SourceFailed(f"{shown(path)}: {os.strerror(found.errno)}; nothing is known about this host for now")
        reason = "not a readable regular file"
        if isinstance(found, Refused):
            reason = "it may not be read by qmails" if reader == "qmail-send" else os.strerror(found.errno)
        elif isinstance(found, Absent):
            reason = os.strerror(found.errno)
        raise ConfigurationError(f"{shown(path)}: {reason}; {reader} does not start")

    def _routing(self) -> Routing:
        """The control files of qmail-send (qmail-send.c: getcontrols)."""
        control = self.directory + b"/control"
        me = self._control(b"me")
        listed = self._control(b"locals")
        if listed is not None:
            locals_, locals_file = entries(listed), control + b"/locals"
        elif me is not None:
            locals_, locals_file = [Entry(first_line(me), 1)], control + b"/me"
        else:
            raise ConfigurationError(f"{shown(control)}: neither locals nor me: qmail-send does not start on this host")
        noathost = self._control(b"envnoathost")
        if noathost is None:
            noathost = me if me is not None else b"envnoathost"
        virtual = self._control(b"virtualdomains")
        percent = self._control(b"percenthack")
        return Routing(
            directory=self.directory,
            locals_=ConstMap(locals_, colon=False),
            locals_file=locals_file,
            virtualdomains=ConstMap(entries(virtual or b""), colon=True),
            percenthack=ConstMap(entries(percent or b""), colon=False),
            envnoathost=first_line(noathost),
        )

    def _rcpthosts(self) -> RcptHosts:
        """control/rcpthosts and morercpthosts.cdb (rcpthosts.c: rcpthosts_init)."""
        file = self.directory + b"/control/rcpthosts"
        more_file = self.directory + b"/control/morercpthosts.cdb"
        data = self._control(b"rcpthosts", "qmail-smtpd")
        listed = None if data is None else ConstMap(entries(data), colon=False)
        more: frozenset[bytes] = frozenset()
        found = self._read(more_file, limit=LARGEST_CDB) if listed is not None else Absent(errno.ENOENT)
        if isinstance(found, Regular):
            more = self._more_domains(more_file, found.data)
            self.present.append(more_file)
        elif not (isinstance(found, Absent) and found.errno == errno.ENOENT):
            raise SourceFailed(f"{shown(more_file)}: cannot be read; qmail-smtpd defers everything")
        return RcptHosts(listed, more.__contains__, tuple(sorted(more)), file, more_file)

    def _more_domains(self, file: bytes, data: bytes) -> frozenset[bytes]:
        opened = CdbFile(lambda at, size: data[at : at + size], len(data), "")
        try:
            return frozenset(key for keys, _ in proved(opened) for key in keys if key == key.lower())
        except DamagedCdb as error:
            raise SourceFailed(f"{shown(file)}: {error.damage}; the domains it lists are not known") from None

    def assign(self) -> Assign | None:
        """users/assign as it stands, for provenance; None where it is not there."""
        data = self._assign()
        return None if data is None else parse_assign(data)

    def _assign(self) -> bytes | None:
        found = self._read(self.directory + b"/users/assign", limit=LARGEST_CDB)
        return found.data if isinstance(found, Regular) else None

    def assigned_at(self, name: bytes, wildcard: bool) -> int:
        """The line of users/assign from which the entry of users/cdb for `name` was made; 0 where it has none."""
        if self._assign_lines is None:
            assign = self.assign()
            self._assign_lines = {}
            for one in assign.assignments if assign is not None else ():
                self._assign_lines.setdefault((one.name, one.wildcard), one.line)
        return self._assign_lines.get((name, wildcard), 0)

    @cached_property
    def first_assign_warnings(self) -> list[Finding]:
        """The first of `assign_warnings`: enough for a person to see what is wrong."""
        return list(islice(self.assign_warnings(), MOST_WARNINGS + 1))

    def assign_warnings(self) -> Iterator[Finding]:
        """Where users/assign and users/cdb disagree; qmail obeys users/cdb."""
        file = self.directory + b"/users/assign"
        data = self._assign()
        if data is None or (self.users is not None and is_made_of(self.users, data)):
            return
        assign = parse_assign(data)
        if assign.problem:
            text = f"qmail-newu refuses this file ({assign.problem}) and leaves users/cdb as it is"
            yield Finding("U103", text, file, assign.problem_line)
        if self.users is None and not self.users_damage:
            yield Finding("U101", "users/assign has no users/cdb: qmail does not look at it", file)
        elif self.users is not None and not assign.problem:
            for name, line, what in differences(assign, self.users):
                text = f"{shown(name)!r} {what}; qmail obeys users/cdb"
                yield Finding("U102", text, file, line)
