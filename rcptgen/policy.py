"""What the administrator wants beyond the truth: relays, prepended names, dead forwards, overlays, kept rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rcptgen.deadforwards import DeadForwards, drops
from rcptgen.forwards import DEAD
from rcptgen.host import Domain, DomainKind, DomainRules, Flats, Host
from rcptgen.localspace import STRETCH, Claim, Unsayable
from rcptgen.overlays import Extra, extra
from rcptgen.publish.guard import union
from rcptgen.qmail.hometable import HomeTable
from rcptgen.relays import Relays, relayed
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.shown import shown
from rcptgen.rules.table import Table

PREPENDED_LIMIT = 100_000
PREPENDED_BACK = 80_000
"""`auto` goes to one prefix rule a domain above the first number and comes back below the second."""

OWNER_LIMIT = 2_000_000
"""Names of one owner times domains in locals, above which the owner is one prefix rule."""

MOST_NAMED = 5
"""Domains that a warning names."""

ACCEPTED_FOR_NOW = "accepted, since the host itself tries again later"

IN_DOUBT = "forwards that look dead, while other names are held or cannot be read"

Published = Callable[[bytes], Table | None]


@dataclass(frozen=True, slots=True)
class Shaped:
    """One domain as it is to be published; `suspect`: why what it no longer has may be there all the same."""

    domain: Domain
    table: Table
    unsayable: list[Unsayable]
    suspect: str = ""


class Policy:
    """The policy of one run.

    `published` gives what was published last for a domain, `known_units` the homes it was
    made from: the rules of a home that cannot be read for now are kept from there, and a
    claim that was never published is accepted whole.  `claims` are those of this run, each
    a home, a NUL and the name it claims (with `*` behind a wildcard): two claims may share
    a home, and only one of them be new.  `prepended` was the mode of the last
    run, if any; after `prepare` it is the mode of this one (`settled`: the same, without another
    count).  With `hold_forwards` a domain that loses names as dead forwards is suspect.
    `overlays` are those of the run (None: as they are on disk), `forced`: a person says that
    an emptied file is meant.
    """

    def __init__(
        self,
        host: Host,
        *,
        published: Published = lambda domain: None,
        known_units: frozenset[bytes] = frozenset(),
        prepended: str = "",
        settled: bool = False,
        hold_forwards: bool = False,
        overlays: Extra | None = None,
        forced: bool = False,
    ) -> None:
        self.host = host
        self._settings = host.config.policy
        self._published = published
        self._known_units = known_units
        self.prepended = prepended
        self._settled = settled
        self.extra = overlays or extra(host, forced=forced)
        self._overlays = self.extra.overlays
        self._relays = Relays(host, known_units, forced=forced) if self._settings.relay == "file" else None
        self.kept: dict[bytes, str] = dict(self.extra.kept)
        if self._relays is not None:
            # Known, be it that nothing of it was published: the next run must know that, too.
            self.kept |= {path: why for path, why in self._relays.troubles.items() if path in known_units}
        self.unlisted: list[bytes] = []
        """The relayed domains that no file names, of those that were shaped."""
        self.claims: set[bytes] = set()
        self.last_claims: list[bytes] = []
        """The claims of the domain that was shaped last."""
        self._local_claims: list[bytes] = []
        self.last_kept = False
        """Whether the domain that was shaped last has rules that could not be read now."""
        self._locals = sum(1 for one in host.domains() if one.kind is DomainKind.LOCAL)
        self._prepended: dict[bytes, Claim] = {}
        self._prepared = False
        self._suspect = ""
        self._flats: Flats = {}
        self._dead = DeadForwards(host) if self._settings.dead_forwards == "reject" else None
        self._hold_forwards = hold_forwards

    @property
    def drops_forwards(self) -> bool:
        """Whether dead forwards are refused."""
        return self._dead is not None

    # -- prepended names --------------------------------------------------------------------

    def prepare(self) -> None:
        """Settles how names such as example.com-joe in local domains are written."""
        if self._prepared:
            return
        self._prepared = True
        host = self.host
        if host.users_damage or not self._locals:
            return
        self._prepended = host.prepended
        mode = self._settings.prepended
        if mode == "auto":
            limit = PREPENDED_BACK if self.prepended == "prefix" else PREPENDED_LIMIT
            if not (self._settled and self.prepended):
                self.prepended = "prefix" if self._prepended_keys(limit) > limit else "exact"
        else:
            self.prepended = mode

    def _prepended_keys(self, limit: int) -> int:
        """About how many keys the prepended names make in the local domains, or something above `limit`.

        Counted are the dot-qmail files: programs that go by the domain of an address know no
        names of other domains.
        """
        units = self.host.units
        count = len(self._prepended) * self._locals
        claims = [self._prepended[name] for name in sorted(self._prepended)]
        for at in range(0, len(claims), STRETCH):
            if count > limit:
                break
            owners = [claim.owner for claim in claims[at : at + STRETCH] if claim.fixed is None]
            count += sum(size + 1 for size in units.sizes(owners)) * self._locals
        return count

    def _skip(self, domain: Domain) -> Callable[[Claim], Outcome | None]:
        """What stands for a whole claim in a domain's view."""
        local = domain.kind is DomainKind.LOCAL

        def skip(claim: Claim) -> Outcome | None:
            if not local or not claim.wildcard:
                return None
            if claim.name in self._prepended and self.prepended != "exact":
                if self.prepended == "refuse":
                    reason = "[policy] prepended refuses these names"
                    return Outcome(Verdict.BOUNCE, Kind.REFUSAL, reason, claim.file)
                reason = "names with a virtual domain in front are accepted as a whole"
                return Outcome(Verdict.DELIVER, Kind.UNKNOWN, reason, claim.file, widened=True)
            return None

        return skip

    def _oversized(self, domain: Domain) -> Callable[[Claim, HomeTable], Outcome | None]:
        """What stands for an owner with too many names for all local domains."""
        local = domain.kind is DomainKind.LOCAL and self._locals > 1

        def oversized(claim: Claim, table: HomeTable) -> Outcome | None:
            if not local or not claim.wildcard or len(table) * self._locals <= OWNER_LIMIT:
                return None
            reason = "one owner's names times the local domains are too many: accepted as a whole"
            return Outcome(Verdict.DELIVER, Kind.UNKNOWN, reason, claim.owner.home, widened=True)

        return oversized

    # -- kept rules ---------------------------------------------------------------------------

    def _kept(self, domain: Domain) -> Callable[[Claim, bytes], Table | None]:
        """The published rules of a home that cannot be read for now."""

        def kept(claim: Claim, relative: bytes) -> Table | None:
            units = self.host.units
            report = units.failed_owners.get(claim.owner)
            suspect = units.suspect_owners.get(claim.owner)
            if suspect is not None:
                self._suspect = suspect.reason
            home = claim.owner.home if not claim.failed else claim.file
            key = home + b"\0" + claim.name + (b"*" if claim.wildcard else b"")
            self.last_claims.append(key)
            if report is None and not claim.failed:
                self.claims.add(key)
                return None
            self.last_kept = True
            path = claim.owner.home if report is not None else claim.file
            report = report or self.host.units.reports.get(path)
            self.kept[path] = report.reason if report is not None else "the home cannot be looked at"
            old = self._published(domain.name) if key in self._known_units else None
            if old is not None:
                self.claims.add(key)
                return old.restrict(relative) if claim.wildcard else _only(old, relative)
            reason = "the source failed and nothing of it was published before: accepted"
            return Table({}, {b"": Outcome(Verdict.DELIVER, Kind.UNKNOWN, reason, path, approximate=True)})

        return kept

    def _suspect_overrides(self, domain: Domain) -> None:
        """What user@domain entries lead to may be in trouble, too."""
        units = self.host.units
        if not units.any_held_back:
            return
        for one in self.host.overrides(domain.name):
            owner = self.host.space().claim(one.value + b"-" + one.local).owner
            report = units.suspect_owners.get(owner) or units.failed_owners.get(owner)
            if one.value and report is not None:
                self._suspect = report.reason

    # -- one domain ---------------------------------------------------------------------------

    def shape(self, domain: Domain) -> Shaped:
        """The rules of `domain` as they are to be published."""
        self.prepare()
        self._suspect = ""
        self.last_claims, self.last_kept = [], False
        rules = self.host.rules(domain.name)
        if self.host.users_damage and domain.kind is not DomainKind.RELAY:
            table = self._published(domain.name)
            unsayable: list[Unsayable] = []
            if table is None:
                table, unsayable = rules.table()
        else:
            shared = self._flats if domain.kind is DomainKind.LOCAL else None
            table, unsayable = rules.table(self._skip(domain), self._kept(domain), shared, self._oversized(domain))
            self._suspect_overrides(domain)
        if domain.kind is DomainKind.LOCAL:
            # Those of a domain whose rules are another one's are that other one's.
            self.last_claims = self._local_claims = self.last_claims or self._local_claims
        table = self._relayed(table, domain)
        if self._dead is not None and domain.kind is not DomainKind.RELAY and not self.host.users_damage:
            table = self._dead.apply(table, domain.name)
            published = self._published(domain.name) if self._hold_forwards else None
            if published is not None and drops(table, published):
                self._suspect = self._suspect or IN_DOUBT
        table, more = self._percent(rules, table, domain)
        table = self._overlays.apply(table, domain.name, ours=self._is_ours(domain.name))
        return Shaped(domain, table, unsayable + more, self._suspect)

    def _is_ours(self, domain: bytes) -> bool:
        """Whether this host takes mail for a domain, be it to send it on."""
        host = self.host
        at_home = host.rules(domain).prepend is not None or bool(host.overrides(domain))
        return at_home or self._relay(domain) is not None

    def domains(self) -> list[Domain]:
        """The domains to publish, sorted: the host's, and those that only the overlays name."""
        found = {one.name: one for one in self.host.domains()}
        for name in self._overlays.domains():
            found.setdefault(name, Domain(name, DomainKind.RELAY, b"", 0))
        return [found[name] for name in sorted(found)]

    @property
    def troubles(self) -> dict[bytes, str]:
        """The files of rules that cannot be used and of which nothing is remembered here, with the reason."""
        return {**self.extra.lacking, **(self._relays.troubles if self._relays is not None else {})}

    def relay_warnings(self) -> list[str]:
        """What a person should know of the files of `[[relay]]`, once every domain was shaped."""
        if self._relays is None:
            return []
        said = [
            f"{shown(path)}: {_counted(count, 'rule')} for domains that this host does not relay to"
            for path, count in self._relays.strange_counts()
        ]
        some = self.unlisted
        if some:
            names = ", ".join(map(shown, some[:MOST_NAMED])) + (", ..." if len(some) > MOST_NAMED else "")
            known = f"no recipients are known of {_counted(len(some), 'relayed domain')}"
            said.append(f"{known}, accepted whole: {names}")
        return said

    def bare_names(self) -> set[bytes]:
        """The addresses without a domain that are published: postmaster, and by option the names of envnoathost."""
        rules = self.host.rules(self.host.routing.envnoathost.lower())
        if not self._settings.envnoathost_names or rules.prepend is None:
            return {b"postmaster"}
        table, _ = rules.table()
        return {b"postmaster"} | {name for name, outcome in table.exact() if name and outcome.accepted}

    def judged(self, address: bytes, outcome: Outcome) -> bool:
        """Whether policy accepts an address that the host does `outcome` to.

        Names that are only accepted or refused as a whole because of their number
        (`prepended = "auto"`) are judged one by one.
        """
        return self.ruling(address, outcome)[0]

    def ruling(self, address: bytes, outcome: Outcome) -> tuple[bool, str]:
        """What `judged` says, and what it goes by besides the outcome: empty where that is nothing."""
        local, at, domain = address.lower().rpartition(b"@")
        if at:
            forced = self._overlays.match(local, domain, ours=self._is_ours(domain))
            if forced is not None:
                return forced.accepted, forced.reason + _place(forced)
            if b"%" in local and self.host.rules(domain).percent_hacked:
                widened = self._settings.percenthack == "widen"
                return widened, '[policy] percenthack = "widen"' if widened else '[policy] percenthack = "refuse"'
            if self._settings.prepended in ("prefix", "refuse") and self.host.routing.locals_.get(domain) is not None:
                self.prepare()
                claim = self.host.space().claim(local)
                if claim.wildcard and claim.name in self._prepended:
                    prefix = self._settings.prepended == "prefix"
                    return prefix, '[policy] prepended = "prefix"' if prefix else '[policy] prepended = "refuse"'
        if outcome.verdict is Verdict.REMOTE:
            return self._relays_to(local, domain) if at else (False, "remote, and not in rcpthosts")
        if self._dead is not None and self._dead.refuses(address, outcome):
            return False, f'[policy] dead_forwards = "reject": {DEAD}'
        return outcome.accepted, ACCEPTED_FOR_NOW if outcome.verdict is Verdict.DEFER else ""

    def _relays_to(self, local: bytes, domain: bytes) -> tuple[bool, str]:
        """Whether an address that is remote is accepted, and why."""
        if self._relay(domain) is None:
            return False, "remote, and not in rcpthosts"
        listed = self._recipients(domain)
        found = None if listed is None else listed.match(local)
        if found is None:
            return True, "relayed: its domain is in rcpthosts"
        return found.accepted, found.reason + _place(found)

    def _recipients(self, domain: bytes) -> Table | None:
        """Whom the files of `[[relay]]` list of a relayed domain; None where all are accepted.

        What a file that cannot be used had of it when it was published last is kept.
        """
        if self._relays is None:
            return None
        found = self._relays.recipients(domain)
        self.claims.update(found.claims)
        self.last_claims += found.claims
        if not found.kept:
            return found.table
        self.last_kept = True
        old = self._published(domain)
        return old if old is None or found.table is None else union(found.table, old)

    def _relay(self, domain: bytes) -> Outcome | None:
        """The outcome for what this host only relays to `domain`; None where it does not."""
        rcpthosts = self.host.rcpthosts
        allowed = rcpthosts.allows(domain) if rcpthosts.listed is not None else None
        if allowed is None:
            return None
        return Outcome(Verdict.DELIVER, Kind.RELAY, "relayed", *allowed)

    def _relayed(self, table: Table, domain: Domain) -> Table:
        """`table` with what is remote turned into what policy makes of it."""
        outcomes = [*table.groups, *table.prefixes.values()]
        if not any(outcome.verdict is Verdict.REMOTE for outcome in outcomes):
            return table
        relay = self._relay(domain.name)
        if relay is not None and self._relays is not None:
            listed = self._recipients(domain.name)
            if listed is not None:
                return relayed(table, listed)
            self.unlisted.append(domain.name)

        def turned(outcome: Outcome) -> Outcome:
            if outcome.verdict is not Verdict.REMOTE:
                return outcome
            if relay is not None:
                return relay
            return outcome._replace(verdict=Verdict.BOUNCE, reason="remote, and not in rcpthosts")

        exact = {name: turned(outcome.at(name)) for name, outcome in table.exact()}
        return Table(exact, {name: turned(outcome) for name, outcome in table.prefixes.items()})

    def _percent(self, rules: DomainRules, table: Table, domain: Domain) -> tuple[Table, list[Unsayable]]:
        """What becomes of local parts with a `%` at a percent-hacked domain."""
        if not rules.percent_hacked:
            return table, []
        file = self.host.directory + b"/control/percenthack"
        entry = self.host.routing.percenthack.get(domain.name)
        line = entry.line if entry is not None else 0
        if self._settings.percenthack == "refuse":
            reason = "percent-hacked addresses mean other domains: not written"
            return table, [Unsayable(b"*%*", reason, file, line)]
        reason = "percent-hacked addresses mean other domains: the domain is accepted whole"
        whole = Outcome(Verdict.DELIVER, Kind.UNKNOWN, reason, file, line, widened=True)
        # A refused prefix would refuse the percent-hacked names below it, too.
        exact = {n: o.at(n) for n, o in table.exact() if o.accepted or b"%" not in n}
        prefixes = {n: o for n, o in table.prefixes.items() if o.accepted}
        return Table(exact, {**prefixes, b"": whole}), []


def _only(table: Table, name: bytes) -> Table:
    found = table.match(name)
    return Table({}, {} if found is None else {b"": found})


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def _place(outcome: Outcome) -> str:
    """Where an outcome stands, as it is put behind its reason."""
    if not outcome.file:
        return ""
    return f" ({shown(outcome.file)}{f':{outcome.line}' if outcome.line else ''})"
