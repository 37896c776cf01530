"""Who owns which local name: users/assign, users/cdb, and the accounts of the system."""

from __future__ import annotations

from collections.abc import Iterator

from rcptgen.host import Host
from rcptgen.localspace import GETPW_USERLEN
from rcptgen.qmail.hostfiles import LARGEST_CDB, Finding
from rcptgen.qmail.passwd import Account
from rcptgen.qmail.users import Assign, Assignment, parse_assign, parse_record, usable_ids
from rcptgen.rules.shown import shown
from rcptgen.source.tree import Regular

PEOPLE = 1000
"""From here on, as login.defs has it, uids are people's: other accounts, and qmail's own, are not meant to get mail."""

NOBODYS = 60000
MOST_HIDDEN = 3


def users(host: Host) -> Iterator[Finding]:
    """Where users/assign and the accounts are not what qmail-lspawn and qmail-getpw make of them."""
    if host.users_damage:
        text = f"users/cdb cannot be used ({host.users_damage}): qmail-lspawn defers all local mail"
        yield Finding("U110", text, host.users_file)
    yield from host.files.assign_warnings()
    file = host.directory + b"/users/assign"
    found = host.units.read(file, limit=LARGEST_CDB)
    if isinstance(found, Regular):
        lines = found.data.split(b"\n")
        assign = parse_assign(found.data)
        if not assign.problem:
            yield from _behind_the_end(file, lines)
        yield from _assignments(file, assign, lines)
    yield from _accounts(host)


def _behind_the_end(file: bytes, lines: list[bytes]) -> Iterator[Finding]:
    """Lines that stand below the one with the dot."""
    end = next(at for at, line in enumerate(lines) if line.startswith(b"."))
    for at in range(end + 1, len(lines)):
        if lines[at].strip():
            text = f"the dot of line {end + 1} ends the file: this and what follows is not read"
            yield Finding("U109", text, file, at + 1)
            return


def _assignments(file: bytes, assign: Assign, lines: list[bytes]) -> Iterator[Finding]:
    """The lines one by one (qmail-newu.c: main)."""
    first: dict[tuple[bytes, bool], int] = {}
    wildchars = assign.wildchars
    for one in assign.assignments:
        what = shown(one.written)
        earlier = first.setdefault((one.name, one.wildcard), one.line)
        if earlier != one.line:
            text = f"{what!r} stands in line {earlier} already: the first one wins"
            yield Finding("U105", text, file, one.line)
        if one.wildcard and one.name and one.name[-1] not in wildchars:
            text = f"the wildcard {what!r} ends in a capital: it is stored in small letters and never found"
            yield Finding("U104", text, file, one.line)
        sign = lines[one.line - 1][:1]
        if sign not in (b"=", b"+"):
            text = f"a line that begins with {shown(sign)!r} is no comment: it is the entry {'=' + what!r}"
            yield Finding("U106", text, file, one.line)
        yield from _fields(file, one)


def _fields(file: bytes, one: Assignment) -> Iterator[Finding]:
    record = parse_record(one.value)
    if record is None:
        return
    owner = record.owner
    if not usable_ids(owner):
        text = f"{shown(one.written)!r} has uid {owner.uid}: qmail-lspawn defers its mail"
        yield Finding("U107", text, file, one.line)


def _accounts(host: Host) -> Iterator[Finding]:
    """The accounts that qmail-getpw will not find (qmail-getpw.c: userext)."""
    if host.users_damage:
        return
    file = host.accounts.file
    space = host.space()
    if space.alias().fixed is not None:
        fixed = space.alias().fixed
        assert fixed is not None
        text = f"{fixed.reason}: all mail that belongs to no user is deferred"
        yield Finding("U111", text, fixed.file, fixed.line)
    hidden: dict[bytes, list[Account]] = {}
    for account in host.accounts.all():
        if not PEOPLE <= account.uid < NOBODYS or account.home.startswith(host.directory):
            continue
        claim = space.claim(account.name)
        if account.name != account.name.lower():
            text = f"no address finds the account {shown(account.name)}: names are lowered before they are looked up"
            yield Finding("U113", text, file, account.line)
        elif len(account.name) >= GETPW_USERLEN:
            text = f"no address finds the account {shown(account.name)}: qmail-getpw looks at no name as long as that"
            yield Finding("U113", text, file, account.line)
        elif claim.file == host.users_file:
            if claim.wildcard and claim.owner.home != account.home:
                hidden.setdefault(claim.name, []).append(account)
        elif claim.name != account.name or claim.wildcard:
            text = (
                f"{shown(account.name)} is no user for qmail: its home {shown(account.home)} is missing or not its own"
            )
            yield Finding("U114", text, file, account.line)
    yield from _hidden(host, hidden)


def _hidden(host: Host, hidden: dict[bytes, list[Account]]) -> Iterator[Finding]:
    for wildcard, accounts in hidden.items():
        names = ", ".join(shown(one.name) for one in accounts[:MOST_HIDDEN])
        more = f" and {len(accounts) - MOST_HIDDEN} more" if len(accounts) > MOST_HIDDEN else ""
        text = f"the wildcard {shown(wildcard)!r} takes the mail of the accounts {names}{more}"
        line = host.files.assigned_at(wildcard, True)
        yield Finding("U112", text, host.directory + b"/users/assign" if line else host.users_file, line)
