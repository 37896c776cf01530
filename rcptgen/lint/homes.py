"""Homes and their dot-qmail files: what the survey of each saw, and which files no address ever reaches."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Container, Iterator, Sequence
from itertools import islice

from rcptgen.host import Host
from rcptgen.lint.forwards import ForwardLines
from rcptgen.localspace import Claim, LocalSpace
from rcptgen.qmail.dotqmail import DEFAULT, safe_extension
from rcptgen.qmail.homewalk import is_default
from rcptgen.qmail.hostfiles import Finding
from rcptgen.reader import Report, State
from rcptgen.rules.shown import shown
from rcptgen.survey import VDELIVERMAIL, Survey

STRETCH = 100
MOST_CLAIMS = 64
"""Claims to one home with which each of its files is compared; with more no file is called unreachable."""

STEM = b".qmail"


def homes(host: Host, lines: ForwardLines) -> Iterator[Finding]:
    """Every home that owns names, once for each identity that reads it, however many entries lead to it."""
    if host.users_damage:
        return
    space = host.space()
    of_vpopmail: set[bytes] = set()
    for surveys, claims in _surveyed(host, space):
        unreached = _unreached(host, space, surveys, claims)
        yield from unreached.values()
        yield from dict.fromkeys(one for home in surveys for one in _of_home(host, home, claims, unreached))
        for home in surveys:
            if VDELIVERMAIL in home.programs:
                of_vpopmail.add(home.home)
            yield from lines.add([one for one in home.forwards if one.file not in unreached])
    yield from lines.rest()
    yield from _without_assignment(host, space, of_vpopmail)


def _by_home(space: LocalSpace) -> dict[bytes, list[tuple[bytes, bool]]]:
    """The claims to each home, as their names and whether they are wildcards: an object each would be many."""
    found: dict[bytes, list[tuple[bytes, bool]]] = {}
    for claim in space.claims_below(b""):
        if claim.fixed is None:
            known = found.setdefault(claim.owner.home.rstrip(b"/"), [])
            if len(known) <= MOST_CLAIMS:
                known.append((claim.name, claim.wildcard))
    return found


def _surveyed(host: Host, space: LocalSpace) -> Iterator[tuple[list[Survey], list[Claim]]]:
    """Every home with its surveys, one for each identity, and its claims, some at a time."""
    rest = iter(_by_home(space).values())
    while stretch := list(islice(rest, STRETCH)):
        some = [[space.claimed(name, wildcard) for name, wildcard in names] for names in stretch]
        owners = [list({(one.owner.uid, one.owner.gid): one.owner for one in claims}.values()) for claims in some]
        surveys = host.units.surveys([one for each in owners for one in each])
        for claims, each in zip(some, owners, strict=True):
            yield list(islice(surveys, len(each))), claims


def _of_home(host: Host, home: Survey, claims: Sequence[Claim], unreached: Container[bytes]) -> Iterator[Finding]:
    if home.failed:
        host.units.note(Report(home.home, State.FAILED, home.failed))
    yield from _without_their_name(home)
    for one in home.findings:
        if one.file not in unreached:
            yield _with_entry(host, one, claims)


def _unreached(
    host: Host, space: LocalSpace, surveys: Sequence[Survey], claims: Sequence[Claim]
) -> dict[bytes, Finding]:
    """The files that no address reaches, by their paths."""
    found: dict[bytes, Finding] = {}
    if len(claims) > MOST_CLAIMS:
        return found
    meant: Sequence[Claim] = claims
    virtual: list[bytes] = []
    if any(one.wildcard and not one.name for one in claims):
        # What is alias-x to the account alias is meant to be x to everybody: only that counts,
        # but for what a virtual domain such as example.com:alias-x asks for.
        alias = os.fsencode(host.config.qmail.alias + host.config.qmail.break_)
        meant = [one for one in claims if one.name != alias]
        virtual = _of_virtual_domains(host, alias)
    for home in surveys:
        for name in home.names:
            path = home.home.rstrip(b"/") + b"/" + name
            counting = claims if virtual and _begins_so(name[len(STEM) + 1 :], virtual) else meant
            why = None if path in found else _why_unreached(space, name, counting)
            if why is not None:
                found[path] = Finding(why[0], why[1], path)
    return found


def _of_virtual_domains(host: Host, alias: bytes) -> list[bytes]:
    """How the extensions begin that virtual domains ask of the account alias by its name, sorted."""
    values = {entry.value.lower() + b"-" for entry in host.routing.virtualdomains if entry.value}
    return sorted({safe_extension(value[len(alias) :], b"-") for value in values if value.startswith(alias)})


def _begins_so(extension: bytes, beginnings: Sequence[bytes]) -> bool:
    """Whether the file of an extension is for names that begin in one of these ways, which are sorted."""
    own = extension[: -len(DEFAULT)] if is_default(extension) else None
    if own is not None:
        at = bisect_left(beginnings, own)
        if at < len(beginnings) and beginnings[at].startswith(own):
            return True
    ends = (bisect_left(beginnings, extension[:end]) for end in range(len(extension) + 1))
    return any(at < len(beginnings) and beginnings[at] == extension[:end] for end, at in enumerate(ends))


def _without_their_name(home: Survey) -> Iterator[Finding]:
    """Default files for what follows a name and a dash, where nothing is there for the name itself."""
    names = set(home.names)
    ending = b"-" + DEFAULT
    for name in home.names:
        itself = name.removesuffix(ending)
        if itself in (name, STEM) or itself in names:
            continue
        parts = itself.split(b"-")
        if not any(b"-".join(parts[:count]) + ending in names for count in range(1, len(parts))):
            text = f"no file {shown(itself)}: the name without a dash behind it bounces"
            yield Finding("H108", text, home.home.rstrip(b"/") + b"/" + name)


def _with_entry(host: Host, found: Finding, claims: Sequence[Claim]) -> Finding:
    """A finding; that of a home which cannot be entered at the line that leads there, where that is what is wrong."""
    first = claims[0]
    if not found.file.startswith(b"/"):
        text = f"the home {shown(found.file)!r} is not an absolute path: everything bounces"
        return Finding("U108", text, *_entry(host, first))
    domain = first.owner.user + b"-"
    if found.code == "H103" and first.file == host.users_file and b"." in domain and first.name == domain:
        text = f"the directory {shown(found.file)} of the domain {shown(first.owner.user)}: {found.text}"
        return Finding("V102", text, *_entry(host, first))
    return found


def _entry(host: Host, claim: Claim) -> tuple[bytes, int]:
    """The file and line that make a claim."""
    if claim.file != host.users_file:
        account = host.accounts.get(claim.owner.user)
        return host.accounts.file, account.line if account is not None else 0
    line = host.files.assigned_at(claim.name, claim.wildcard)
    return (host.directory + b"/users/assign", line) if line else (host.users_file, 0)


def _without_assignment(host: Host, space: LocalSpace, of_vpopmail: set[bytes]) -> Iterator[Finding]:
    """Virtual domains that come to a vdelivermail which will not find their users (vpopmail.c: vget_assign)."""
    file = host.routing.virtualdomains_file
    for entry in host.routing.virtualdomains if of_vpopmail else ():
        domain = entry.key
        if not entry.value or not domain or b"@" in domain or domain.startswith(b"."):
            continue
        claim = space.claim(entry.value + b"-")
        if claim.owner.home not in of_vpopmail or host.routing.locals_.get(domain) is not None:
            continue
        if host.users is None or not host.users.has_wildcard(domain + b"-"):
            text = f"users/cdb has no +{shown(domain)}-, under which vdelivermail looks for the users of that domain"
            yield Finding("V101", text, file, entry.line)


def _why_unreached(space: LocalSpace, name: bytes, claims: Sequence[Claim]) -> tuple[str, str] | None:
    """Why no address reaches the dot-qmail file `name`: a code and a text; None where one does."""
    rest = name[len(STEM) :]
    hidden: Claim | None = None
    misspelt = None
    for claim in claims:
        dash = claim.owner.dash
        if not rest.startswith(dash):
            continue
        extension = rest[len(dash) :]
        if extension != safe_extension(extension, dash):
            misspelt = _misspelt(extension)
            continue
        answer = _answers(space, claim, extension)
        if answer is None:
            continue
        if answer.owner.home == claim.owner.home:
            return None
        hidden = answer
    if hidden is not None:
        whose = f"the home {shown(hidden.owner.home)}" if hidden.fixed is None else "nobody who could get mail"
        return "H107", f"the names that it is for belong to {whose}, by {shown(hidden.name)!r}"
    if misspelt is not None:
        return misspelt
    wanted = ", ".join(sorted({repr(shown(STEM + claim.owner.dash + claim.pre)) for claim in claims})[:3])
    return "H106", f"no entry leads to this name: those for this home ask for names that begin with {wanted}"


def _misspelt(extension: bytes) -> tuple[str, str]:
    if extension != extension.lower():
        return "H104", "the name has a capital: qmail-local looks for names in small letters only"
    return "H105", "the name has a dot: qmail-local looks for a colon where the address has one"


def _answers(space: LocalSpace, claim: Claim, extension: bytes) -> Claim | None:
    """Who gets the mail that the file of an extension is for, if `claim` could; None where it could not."""
    pre = safe_extension(claim.pre, claim.owner.dash)
    default = is_default(extension)
    prefix = extension[: -len(DEFAULT)] if default else extension
    if not (claim.wildcard and claim.takes_tail):
        matches = extension == pre or (default and pre.startswith(prefix))
        return claim if matches else None
    if default and pre.startswith(prefix):
        return claim
    if not extension.startswith(pre):
        return None
    tail = claim.name + extension[len(pre) :]
    if not default:
        return _either(space, tail, claim)
    below = claim.name + prefix[len(pre) :]
    # Any claim to a part of what is below may lead back here: then the file is reached.
    for one in islice(space.claims_below(below), MOST_CLAIMS):
        if one.owner.home == claim.owner.home:
            return claim
    return next(space.claims_below(below))


def _either(space: LocalSpace, name: bytes, claim: Claim) -> Claim:
    """Who has the name, with dots or with colons in it."""
    found = space.claim(name.replace(b":", b"."))
    if found.owner.home != claim.owner.home and b":" in name:
        return space.claim(name)
    return found
