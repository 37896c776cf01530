"""What the host accepts: domains that accept nothing, or everything, and the widest wildcards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import nsmallest

from rcptgen.host import Domain, DomainKind, Host
from rcptgen.policy import Policy
from rcptgen.qmail.hostfiles import Finding
from rcptgen.rules.outcome import Outcome
from rcptgen.rules.shown import shown
from rcptgen.rules.table import Table

STRETCH = 64
MOST_WILDCARDS = 20
MOST_NAMED = 3


@dataclass(slots=True)
class _Wildcard:
    """One file that stands for all names with a beginning, and the domains in which it does."""

    prefix: bytes
    outcome: Outcome
    domains: int = 0
    named: list[bytes] = field(default_factory=list)

    @property
    def width(self) -> tuple[int, int, bytes]:
        """What sorts it before those that let in less: a shorter beginning, then more domains."""
        return len(self.prefix), -self.domains, self.outcome.file


def accepting(host: Host) -> Iterator[Finding]:
    """The domains in turn, and at the end the wildcards by what they let in."""
    policy = Policy(host)
    found: dict[tuple[bytes, bytes, int], _Wildcard] = {}
    domains = [one for one in host.domains() if one.kind is not DomainKind.RELAY]
    host.ahead(domains[:STRETCH])
    for at in range(0, len(domains), STRETCH):
        host.ahead(domains[at + STRETCH : at + 2 * STRETCH])
        for domain in domains[at : at + STRETCH]:
            table = policy.shape(domain).table
            if not host.users_damage:
                yield from _of_domain(domain, table)
            _count(found, domain, table)
    for report in host.units.suspect_owners.values():
        yield Finding("V109", report.reason, report.path)
    yield from _wildcards(found)


def _of_domain(domain: Domain, table: Table) -> Iterator[Finding]:
    accepting = [one for one in (*table.prefixes.values(), *table.groups) if one.accepted]
    if not any(one.file != domain.file for one in accepting):
        # In a domain of locals the empty local part is always delivered, to nobody.
        yield Finding("D112", f"{shown(domain.name)} accepts no address", domain.file, domain.line)
        return
    postmaster = table.match(b"postmaster")
    if postmaster is None or not postmaster.accepted:
        yield Finding("D113", f"mail for postmaster@{shown(domain.name)} bounces", domain.file, domain.line)


def _count(found: dict[tuple[bytes, bytes, int], _Wildcard], domain: Domain, table: Table) -> None:
    for prefix, outcome in table.prefixes.items():
        if not outcome.accepted:
            continue
        one = found.setdefault((prefix, outcome.file, outcome.line), _Wildcard(prefix, outcome))
        one.domains += 1
        if len(one.named) < MOST_NAMED:
            one.named.append(domain.name)


def _wildcards(found: dict[tuple[bytes, bytes, int], _Wildcard]) -> Iterator[Finding]:
    """Catch-alls, all of them; of the other wildcards those that let in most."""
    catchalls = sorted((one for one in found.values() if not one.prefix), key=lambda one: one.width)
    for one in catchalls:
        text = f"every name is accepted in {_where(one)} ({one.outcome.reason})"
        yield Finding("A101", text, one.outcome.file, one.outcome.line)
    others = [one for one in found.values() if one.prefix]
    for rank, one in enumerate(nsmallest(MOST_WILDCARDS, others, key=lambda one: one.width), 1):
        text = f"{shown(one.prefix)}* is accepted in {_where(one)}: number {rank} of {len(others)} wildcards"
        yield Finding("A102", f"{text} ({one.outcome.reason})", one.outcome.file, one.outcome.line)


def _where(one: _Wildcard) -> str:
    names = ", ".join(shown(name) for name in one.named)
    return names + (f" and {one.domains - len(one.named)} more domains" if one.domains > len(one.named) else "")
