"""Domains: what locals, virtualdomains, rcpthosts and percenthack say of them, taken together."""

from __future__ import annotations

from collections.abc import Iterator

from rcptgen.host import Host
from rcptgen.qmail.control import ConstMap, Mapped, entries, first_line
from rcptgen.qmail.hostfiles import Finding
from rcptgen.qmail.routing import domain_keys
from rcptgen.rules.shown import shown
from rcptgen.source.tree import Regular

LOCALHOST = b"localhost"


def control_domains(host: Host) -> Iterator[Finding]:
    """Domains that are let in and have no home, or have one and are not let in, or have two."""
    if host.rcpthosts.listed is None:
        text = "there is no rcpthosts: qmail-smtpd takes mail for every domain of the world"
        yield Finding("D105", text, host.rcpthosts.file)
    else:
        yield from _without_home(host)
        yield from _not_let_in(host)
    yield from _compiled_in_time(host)
    yield from _virtual(host)
    yield from _own_name(host)
    for entry in host.routing.percenthack:
        text = f"mail for x%y@{shown(entry.key)} goes to x@y, whatever y is, past rcpthosts"
        yield Finding("D106", text, host.directory + b"/control/percenthack", entry.line)
    for one in host.uncovered():
        text = f"{shown(one.entry)!r} stands for domains that no list names: they are not in the compiled list"
        yield Finding("D107", text, one.file, one.line)


def _own_name(host: Host) -> Iterator[Finding]:
    """The name in me, which stands behind bounces and addresses without a domain."""
    file = host.directory + b"/control/me"
    found = host.units.read(file)
    if isinstance(found, Regular):
        name = first_line(found.data)
        if host.rules(name).prepend is None:
            text = f"{shown(name)} is neither local nor virtual: double bounces for postmaster go to another host"
            yield Finding("D114", text, file, 1)


def _without_home(host: Host) -> Iterator[Finding]:
    routing = host.routing
    routes = _routes(host)
    for name, file, line in host.rcpthosts.domains():
        if name.startswith(b".") or routing.locals_.get(name) is not None or host.overrides(name):
            continue
        entry = routing.virtual(None, name)
        if entry is not None and entry.value:
            continue
        if not any(routes.get(key) is not None for key in domain_keys(name)):
            yield Finding("D101", f"{shown(name)} is let in, and is neither local nor virtual nor routed", file, line)


def _routes(host: Host) -> ConstMap:
    found = host.units.read(host.directory + b"/control/smtproutes")
    return ConstMap(entries(found.data) if isinstance(found, Regular) else [], colon=True)


def _not_let_in(host: Host) -> Iterator[Finding]:
    routing, rcpthosts = host.routing, host.rcpthosts
    for entry in routing.locals_:
        if entry.key and entry.key != LOCALHOST and rcpthosts.allows(entry.key) is None:
            text = f"{shown(entry.key)} is local and not in rcpthosts: mail for it is refused when it comes by SMTP"
            yield Finding("D102", text, routing.locals_file, entry.line)
    for entry in routing.virtualdomains:
        domain = entry.key.rpartition(b"@")[2]
        if entry.value and domain and not domain.startswith(b".") and rcpthosts.allows(domain) is None:
            text = f"{shown(domain)} is virtual and not in rcpthosts: mail for it is refused when it comes by SMTP"
            yield Finding("D103", text, routing.virtualdomains_file, entry.line)


def _compiled_in_time(host: Host) -> Iterator[Finding]:
    """morercpthosts, against the cdb that qmail-newmrh makes of it."""
    text_file = host.directory + b"/control/morercpthosts"
    written, made = host.units.read(text_file), host.units.read(text_file + b".cdb")
    if not isinstance(written, Regular):
        return
    if not isinstance(made, Regular):
        yield Finding("D110", "morercpthosts has no cdb: qmail-smtpd does not look at it", text_file)
        return
    listed = {entry.text.lower() for entry in entries(written.data)}
    if host.rcpthosts.listed is not None and listed != set(host.rcpthosts.more_keys):
        yield Finding("D110", "morercpthosts.cdb holds other domains than morercpthosts", text_file)


def _virtual(host: Host) -> Iterator[Finding]:
    routing = host.routing
    file = routing.virtualdomains_file
    for entry in routing.virtualdomains:
        local, at, domain = entry.key.rpartition(b"@")
        here = routing.locals_.get(domain)
        if here is not None and at:
            text = f"{shown(domain)} is local: the line for {shown(local + at + domain)} is never looked at"
            yield Finding("D108", text, file, entry.line)
        elif here is not None:
            text = f"{shown(domain)} is local as well ({shown(routing.locals_file)}:{here.line}), and locals wins"
            yield Finding("D104", text, file, entry.line)
        elif not entry.value and not at and not _hides(host, entry):
            text = f"the empty value for {shown(entry.key)!r} hides no other line, so the line does nothing"
            yield Finding("D109", text, file, entry.line)


def _hides(host: Host, entry: Mapped) -> bool:
    """Whether a less specific entry would answer for what `entry` takes out."""
    keys = host.routing.virtualdomains
    return any(keys.get(key) is not None for key in domain_keys(entry.key) if key != entry.key)
