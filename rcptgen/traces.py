"""What qmail-send and qmail-lspawn look up for one address, told to a person: tried, found, and not found."""

from __future__ import annotations

from collections.abc import Iterator

from rcptgen.qmail.judged import Step
from rcptgen.qmail.passwd import Account
from rcptgen.qmail.routing import Local, Remote, Routing, domain_keys
from rcptgen.qmail.users import Hit, UsersCdb
from rcptgen.rules.shown import shown


def named(name: bytes) -> str:
    """A name in a sentence."""
    return f"'{shown(name)}'"


def route_steps(routing: Routing, address: bytes, route: Local | Remote) -> Iterator[Step]:
    """What qmail-send tried to get from `address` to `route` (qmail-send.c: rewrite)."""
    control = routing.directory + b"/control/"
    whole = address
    if b"@" not in address:
        whole = address + b"@" + routing.envnoathost
        yield Step(f"no domain: taken for {named(whole)}", control + b"envnoathost")
    meant = routing.percent(address)
    if meant != whole:
        hacked = routing.percenthack.get(whole.rpartition(b"@")[2])
        yield Step(f"percent hack: means {named(meant)}", control + b"percenthack", hacked.line if hacked else 0)
    host = meant.rpartition(b"@")[2]
    if routing.locals_.get(host) is None:
        yield Step(f"{named(host)} is not local", routing.locals_file, found=False)
        file = routing.virtualdomains_file
        for key in (meant, *domain_keys(host)):
            if routing.virtualdomains.get(key) is not None:
                break
            yield Step(f"no entry {named(key)}", file, found=False)
    if isinstance(route, Local):
        yield Step(f"local name {named(route.name)}", route.file, route.line)


def users_steps(users: UsersCdb, local: bytes, hit: Hit | None, file: bytes) -> Iterator[Step]:
    """The keys of users/cdb that qmail-lspawn tried before `hit` (qmail-lspawn.c: nughde_get)."""
    lowered = local.lower()
    if hit is None or hit.wildcard:
        yield Step(f"no exact entry {named(lowered)}", file, found=False)
        shortest = -1 if hit is None else len(hit.key)
        for end in range(len(lowered), shortest, -1):
            if not end or lowered[end - 1] in users.wildchars:
                yield Step(f"no wildcard entry {named(lowered[:end])}", file, found=False)
    if hit is not None:
        yield Step(f"{'wildcard' if hit.wildcard else 'exact'} entry {named(hit.key)}", file)


def no_user(name: bytes, account: Account | None, file: bytes) -> Step:
    """Why qmail-getpw passes over a name (qmail-getpw.c: userext)."""
    if account is None:
        return Step(f"no account {named(name)}", file, found=False)
    why = "is root's number" if not account.uid else "does not own its home, or qmail-getpw cannot see it"
    return Step(f"account {named(name)} {why}: no user", file, account.line, found=False)
