"""Where the accounts of the host come from: a passwd file, or the system's account database."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Iterable
from typing import Protocol

from rcptgen.errors import ConfigurationError, SourceFailed
from rcptgen.qmail.passwd import Account, accounts, group_id
from rcptgen.source.tree import Absent, FailedForNow, Refused, Regular

Read = Callable[[bytes], object]
_MAY_NOT_ENUMERATE = frozenset({b"sss", b"winbind", b"ldap", b"nis", b"nisplus", b"hesiod"})


class Accounts(Protocol):
    """The accounts of a host.  `file` is what a message names as their source."""

    file: bytes

    def get(self, name: bytes) -> Account | None:
        """The account called `name`, or None."""
        ...

    def all(self) -> Iterable[Account]:
        """Every account, the first of each name."""
        ...

    def group(self, name: bytes) -> int | None:
        """The number of the group called `name`, or None."""
        ...


class FileAccounts:
    """Accounts of a passwd file, groups of the group file beside it."""

    def __init__(self, file: bytes, data: bytes, groups: bytes) -> None:
        self.file = file
        self._accounts = accounts(data)
        self._groups = groups

    def get(self, name: bytes) -> Account | None:
        """The account called `name`, or None."""
        return self._accounts.get(name)

    def all(self) -> Iterable[Account]:
        """Every account, the first of each name."""
        return self._accounts.values()

    def group(self, name: bytes) -> int | None:
        """The number of the group called `name`, or None."""
        return group_id(self._groups, name)


class SystemAccounts:
    """The accounts that getpwnam(3) and getpwent(3) give on the running host."""

    file = b"the system's account database"

    def get(self, name: bytes) -> Account | None:
        """The account called `name`, or None."""
        try:
            return _account(pwd.getpwnam(os.fsdecode(name)))
        except (KeyError, ValueError):
            return None

    def all(self) -> Iterable[Account]:
        """Every account, the first of each name."""
        found: dict[bytes, Account] = {}
        for entry in pwd.getpwall():
            account = _account(entry)
            found.setdefault(account.name, account)
        return found.values()

    def group(self, name: bytes) -> int | None:
        """The number of the group called `name`, or None."""
        try:
            return grp.getgrnam(os.fsdecode(name)).gr_gid
        except (KeyError, ValueError):
            return None


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(os.fsencode(entry.pw_name), entry.pw_uid, entry.pw_gid, os.fsencode(entry.pw_dir))


def from_file(file: bytes, read: Read) -> FileAccounts:
    """The accounts of `file`; a file that is not there holds none.  Raises SourceFailed where it cannot be read."""
    data = _data(file, read)
    groups = _data(os.path.join(os.path.dirname(file), b"group"), read)
    return FileAccounts(file, data, groups)


def _data(file: bytes, read: Read) -> bytes:
    found = read(file)
    if isinstance(found, Regular):
        return found.data
    if isinstance(found, Absent):
        return b""
    if isinstance(found, FailedForNow | Refused):
        raise SourceFailed(f"{os.fsdecode(file)}: {os.strerror(found.errno)}")
    raise ConfigurationError(f"{os.fsdecode(file)}: not a readable regular file")


def of_system(read: Read, *, enumerate_: bool, catch_all: bool) -> SystemAccounts:
    """The running host's accounts.

    Raises ConfigurationError where nsswitch.conf names a source that may not enumerate,
    users/cdb has no catch-all, and the configuration does not say what to do.
    """
    if not enumerate_ and not catch_all:
        found = read(b"/etc/nsswitch.conf")
        sources = nsswitch_sources(found.data) if isinstance(found, Regular) else []
        doubtful = [one for one in sources if one in _MAY_NOT_ENUMERATE]
        if doubtful:
            raise ConfigurationError(
                f"/etc/nsswitch.conf: accounts come from {doubtful[0].decode()!r}, which may not list them all; "
                'say [qmail] accounts = "enumerate" (it does), "passwd" (only /etc/passwd counts) or a file'
            )
    return SystemAccounts()


def nsswitch_sources(data: bytes) -> list[bytes]:
    """The sources that the passwd line of nsswitch.conf names, actions in brackets left out."""
    for raw in data.split(b"\n"):
        name, colon, rest = raw.split(b"#", 1)[0].partition(b":")
        if colon and name.strip() == b"passwd":
            return [word for word in rest.split() if not word.startswith(b"[")]
    return []
