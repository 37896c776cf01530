"""What the host accepts: domains that accept nothing, or everything, and the widest wildcards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rcptgen.host import Domain, DomainKind, Host
from rcptgen.lint.forwards import DeadNames
from rcptgen.lint.wildcards import Wildcard, Wildcards
from rcptgen.policy import Policy, Shaped
from rcptgen.qmail.hostfiles import Finding
from rcptgen.rules.outcome import Outcome
from rcptgen.rules.shown import shown
from rcptgen.rules.table import Table

STRETCH = 64
MOST_WILDCARDS = 20


_Place = tuple[str, bytes, int]
"""A reason, and the file and line that it rests on."""


@dataclass(slots=True)
class _Widened:
    """The rules that accept more than is delivered for one reason: the first, and how many there are."""

    first: bytes
    rules: int = 0


def accepting(host: Host, dead: DeadNames) -> Iterator[Finding]:
    """The domains in turn, and at the end the wildcards by what they let in."""
    policy = Policy(host)
    found = Wildcards(MOST_WILDCARDS)
    widened: dict[_Place, _Widened] = {}
    domains = [one for one in host.domains() if one.kind is not DomainKind.RELAY]
    host.ahead(domains[:STRETCH])
    for at in range(0, len(domains), STRETCH):
        host.ahead(domains[at + STRETCH : at + 2 * STRETCH])
        for domain in domains[at : at + STRETCH]:
            shaped = policy.shape(domain)
            if not host.users_damage:
                yield from _of_domain(domain, shaped.table)
            yield from _not_written(shaped)
            found.add(domain.name, shaped.table)
            _count_widened(widened, domain, shaped.table)
            dead.add(domain, shaped.table)
        yield from dead.rest()
    yield from _damaged(host)
    for (reason, file, line), one in widened.items():
        yield Finding("A104", f"{_counted(one)} accepted that may bounce: {reason}", file, line)
    yield from _wildcards(found)


def _damaged(host: Host) -> Iterator[Finding]:
    for path, reason in sorted({(one.path, one.reason) for one in host.units.suspect_owners.values()}):
        place, _, why = reason.partition(": ")
        yield Finding("V109", why if why.startswith(place) else reason, path)


def _not_written(shaped: Shaped) -> Iterator[Finding]:
    """What a list of names cannot say."""
    for one in shaped.unsayable:
        rule = shown(one.rule + b"@" + shaped.domain.name)
        yield Finding("A103", f"{rule} is not in the list: {one.reason}", one.file, one.line)


def _count_widened(found: dict[_Place, _Widened], domain: Domain, table: Table) -> None:
    """The rules that accept more than is delivered, by what they rest on; catch-alls are told of anyway."""
    for prefix, outcome in table.prefixes.items():
        if prefix and outcome.widened and outcome.accepted:
            found.setdefault(_place(outcome), _Widened(prefix + b"*@" + domain.name)).rules += 1
    for outcome, names in table.groups.items():
        if outcome.widened and outcome.accepted:
            for name in names:
                found.setdefault(_place(outcome.at(name)), _Widened(name + b"@" + domain.name)).rules += 1


def _place(outcome: Outcome) -> _Place:
    return outcome.reason, outcome.file, outcome.line


def _counted(one: _Widened) -> str:
    more = f" and {one.rules - 1} more rules" if one.rules > 1 else ""
    return f"{shown(one.first)}{more} {'are' if more else 'is'}"


def _of_domain(domain: Domain, table: Table) -> Iterator[Finding]:
    accepting = [one for one in (*table.prefixes.values(), *table.groups) if one.accepted]
    if not any(one.file != domain.file for one in accepting):
        # In a domain of locals the empty local part is always delivered, to nobody.
        yield Finding("D112", f"{shown(domain.name)} accepts no address", domain.file, domain.line)
        return
    postmaster = table.match(b"postmaster")
    if postmaster is None or not postmaster.accepted:
        yield Finding("D113", f"mail for postmaster@{shown(domain.name)} bounces", domain.file, domain.line)


def _wildcards(found: Wildcards) -> Iterator[Finding]:
    """Catch-alls, all of them; of the other wildcards those that let in most."""
    for one in found.catch_alls():
        text = f"every name is accepted in {_where(one)} ({one.why})"
        yield Finding("A101", text, one.outcome.file, one.outcome.line)
    count = found.others
    for rank, one in enumerate(found.widest(), 1):
        text = f"{shown(one.prefix)}* is accepted in {_where(one)}: number {rank} of {count} wildcards"
        yield Finding("A102", f"{text} ({one.why})", one.outcome.file, one.outcome.line)


def _where(one: Wildcard) -> str:
    names = ", ".join(shown(name) for name in one.named)
    return names + (f" and {one.domains - len(one.named)} more domains" if one.domains > len(one.named) else "")
