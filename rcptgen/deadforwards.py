"""`[policy] dead_forwards = "reject"`: names that are only forwarded to addresses of this host that bounce."""

from __future__ import annotations

from rcptgen.forwards import DEAD, Forwards
from rcptgen.host import Host
from rcptgen.qmail.dotqmail import safe_extension
from rcptgen.qmail.homeleads import is_forwarding
from rcptgen.qmail.hometable import HomeTable
from rcptgen.qmail.routing import Local
from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind, Outcome, Verdict, accepts
from rcptgen.rules.table import Table

SAMPLES = (b"zzyzx", b"qqxqq7", b"x0x0x0")
"""Ends of names that nobody has: what a prefix rule says of one of them it says of all names that have no rule."""


class DeadForwards:
    """Takes dead forwards out of the tables of a host.

    An exact name goes where it is dead.  A prefix goes as a whole where its targets are the
    same for every name below it; where they are not it stays, as nobody can tell its names.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._forwards = Forwards(host)

    def apply(self, table: Table, domain: bytes) -> Table:
        """`table`, the rules of `domain`, with refusals for what is dead."""
        groups: dict[Outcome, list[Names]] = {}
        for outcome, names in table.groups.items():
            dead = self._dead(names, domain) if is_forwarding(outcome) else set()
            if dead:
                groups.setdefault(_refused(outcome), []).append(Names(dead))
                names = names.without(dead, ())
            if len(names):
                groups.setdefault(outcome, []).append(names)
        prefixes = {
            prefix: _refused(outcome) if self._is_dead(table, prefix, outcome, domain) else outcome
            for prefix, outcome in table.prefixes.items()
        }
        return Table.of_groups({outcome: Names.union(parts) for outcome, parts in groups.items()}, prefixes)

    def _dead(self, names: Names, domain: bytes) -> set[bytes]:
        at = b"@" + domain
        hacked = self._host.rules(domain).percent_hacked
        dead: set[bytes] = set()
        for some in names.stretches():
            # A percent-hacked name means an address elsewhere, the empty one nobody.
            found = self._forwards.dead(name + at for name in some if name and not (hacked and b"%" in name))
            dead.update(one[: -len(at)] for one in found)
        return dead

    def _is_dead(self, table: Table, prefix: bytes, outcome: Outcome, domain: bytes) -> bool:
        """Whether every name that has only this prefix rule is dead, by the same targets."""
        if not is_forwarding(outcome):
            return False
        for tail in SAMPLES:
            name = prefix + tail
            covering = table.covering(name)
            if covering is not None and covering[0] == prefix and table.exactly(name) is None:
                break
        else:
            return False
        address = name + b"@" + domain
        if not self._forwards.is_dead(address) or self._forwards.varies(address):
            return False
        (found,) = self._forwards.leads((address,))
        return _same(found.outcome, outcome)

    def refuses(self, address: bytes, outcome: Outcome) -> bool:
        """Whether `apply` takes away an address that the host does `outcome` to."""
        address = address.lower()
        local, at, domain = address.rpartition(b"@")
        if not at or not is_forwarding(outcome) or not self._forwards.is_dead(address):
            return False
        route = self._host.routing.route(address)
        if not isinstance(route, Local):
            return False
        claim = self._host.space().claim(route.name)
        table = self._host.rules(domain).home_table(claim)
        extension = claim.extension(route.name)
        if not is_forwarding(table.match(extension, claim.owner.dash)):
            return False
        named = not claim.wildcard or any(one.local == local for one in self._host.overrides(domain))
        return named or not self._forwards.varies(address) or _has_name(table, extension, claim.owner.dash)


def drops(table: Table, published: Table) -> bool:
    """Whether `table`, as `apply` has made it, refuses as dead what `published` accepts."""
    dead = [names for outcome, names in table.groups.items() if outcome.reason == DEAD]
    if any(accepts(published.match(name)) for names in dead for name in names):
        return True
    prefixes = [prefix for prefix, outcome in table.prefixes.items() if outcome.reason == DEAD]
    covering = filter(None, map(published.covering, prefixes))
    return any(outcome.accepted for _, outcome in covering)


def _refused(outcome: Outcome) -> Outcome:
    return outcome._replace(verdict=Verdict.BOUNCE, kind=Kind.REFUSAL, reason=DEAD)


def _same(one: Outcome, other: Outcome) -> bool:
    return (one.verdict, one.kind, one.file, one.line) == (other.verdict, other.kind, other.file, other.line)


def _has_name(table: HomeTable, extension: bytes, dash: bytes) -> bool:
    """Whether the home has a rule for this very extension."""
    safe = safe_extension(extension, dash)
    if table.table.exactly(safe) is not None:
        return True
    covering = table.table.covering(safe)
    if covering is None or covering[0] not in table.split:
        return False
    size = len(covering[0])
    tail = table.tails.get(extension[:size].lower())
    return tail is not None and tail.exactly(extension[size:].lower()) is not None
