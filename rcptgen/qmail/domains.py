"""Which domains the control files speak of, and which lines no list of domains covers."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from rcptgen.qmail.routing import RcptHosts, Routing


class DomainKind(enum.StrEnum):
    """How the host treats a domain."""

    LOCAL = "local"
    VIRTUAL = "virtual"
    RELAY = "relay"


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain the list speaks of, in lower case, with the control line that brings it in."""

    name: bytes
    kind: DomainKind
    file: bytes
    line: int


@dataclass(frozen=True, slots=True)
class Uncovered:
    """A control line that stands for domains which no list names."""

    entry: bytes
    file: bytes
    line: int


@dataclass(frozen=True, slots=True)
class Override:
    """A user@domain entry of virtualdomains: `value` for the one local part, empty for remote."""

    local: bytes
    value: bytes
    line: int


def overrides(routing: Routing) -> dict[bytes, list[Override]]:
    """The user@domain entries of virtualdomains by domain."""
    found: dict[bytes, list[Override]] = {}
    for entry in routing.virtualdomains:
        local, at, host = entry.key.rpartition(b"@")
        if at:
            found.setdefault(host, []).append(Override(local, entry.value, entry.line))
    return found


def domains(routing: Routing, rcpthosts: RcptHosts, suffix_domains: Sequence[bytes]) -> list[Domain]:
    """Every domain the list speaks of, sorted: locals, virtual domains, and what rcpthosts lets in.

    `suffix_domains` are those that the administrator names for `.suffix` and catch-all lines.
    """
    found: dict[bytes, Domain] = {}
    single = overrides(routing)

    def add(name: bytes, file: bytes, line: int) -> None:
        if name in found or b"@" in name:
            return
        entry = routing.virtual(None, name)
        if entry is not None and entry.value:
            found[name] = Domain(name, DomainKind.VIRTUAL, routing.virtualdomains_file, entry.line)
        elif name in single:
            found[name] = Domain(name, DomainKind.VIRTUAL, file, line)
        elif rcpthosts.listed is not None:
            allowed = rcpthosts.allows(name)
            if allowed is not None:
                found[name] = Domain(name, DomainKind.RELAY, *allowed)

    for entry in routing.locals_:
        if b"@" not in entry.key:  # a domain is what follows the last one
            found[entry.key] = Domain(entry.key, DomainKind.LOCAL, routing.locals_file, entry.line)
    for entry in routing.virtualdomains:
        if entry.key and (not entry.key.startswith(b".") or b"@" in entry.key):
            add(entry.key.rpartition(b"@")[2], routing.virtualdomains_file, entry.line)
    for domain, file, line in rcpthosts.domains():
        if not domain.startswith(b"."):
            add(domain, file, line)
    for name in suffix_domains:
        add(name, b"", 0)
    return [found[name] for name in sorted(found)]


def uncovered(routing: Routing, rcpthosts: RcptHosts, suffix_domains: Sequence[bytes]) -> list[Uncovered]:
    """The `.suffix` and catch-all lines for which neither rcpthosts nor `suffix_domains` names the domains."""
    suffixes = [(d, f, n) for d, f, n in rcpthosts.domains() if d.startswith(b".")]
    found = [Uncovered(d, f, n) for d, f, n in suffixes if not any(name.endswith(d) for name in suffix_domains)]
    for entry in routing.virtualdomains:
        key = entry.key
        if (key and not key.startswith(b".")) or b"@" in key or not entry.value:
            continue
        if any(routing.virtual(None, name) == entry for name in suffix_domains):
            continue
        open_ended = rcpthosts.listed is None or any(
            suffix.endswith(key) or key.endswith(suffix) for suffix, _, _ in suffixes
        )
        if open_ended:
            found.append(Uncovered(key, routing.virtualdomains_file, entry.line))
    return found
