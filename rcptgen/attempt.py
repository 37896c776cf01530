"""One way through all domains of a host into temporary files, held back by the guard, proved, published."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from heapq import nlargest
from zlib import crc32

from rcptgen.build import POSTMASTER, Blobs, Build, side_by_side, text_of
from rcptgen.errors import PublishFailed, SourceFailed
from rcptgen.host import Domain, DomainKind
from rcptgen.ledger import Base
from rcptgen.memory import exact_names
from rcptgen.policy import Policy, Shaped
from rcptgen.publish import guard
from rcptgen.publish.history import Withheld, clean
from rcptgen.publish.packed import pack, unpack
from rcptgen.publish.tally import EMPTY
from rcptgen.qmail.hostfiles import MOST_WARNINGS
from rcptgen.reader import State as UnitState
from rcptgen.request import HOLDING, MOST_SLOW, Held
from rcptgen.rules.table import Table
from rcptgen.run import CATCH_ALL, Hold, Run, domain_key
from rcptgen.standing import Standing, Standings, check_of, listed
from rcptgen.targets.base import Unsayable, Widened

STRETCH = 64
AHEAD = 3
_NOT_PACKED = b"\0"
"""Stands for the packed table of a domain that nothing is compared with and nobody remembers."""

MOST_REWRITTEN = 64
"""Domains that are built anew up to which the files are made of the published ones."""

MOST_RECORDS = 250_000
"""Records of these domains up to which that is so: each is compared in memory, some 300 bytes for one."""

PROVED = 32
"""Domains, of those that are only copied, that are proved each time."""

HOMES_OF_A_MOUNT = 2
"""So many homes that vanish from one directory, and leave it empty, look like a lost mount."""


class Attempt:
    """One way through all domains into temporary files."""

    def __init__(self, run: Run, hold: Hold) -> None:
        self.run = run
        self.hold = hold
        memory = run.memory
        self.policy = Policy(
            run.host,
            published=memory.table,
            known_units=memory.units,
            prepended=memory.prepended,
            settled=run.standings is not None and run.standings.settled,
            hold_forwards=hold.forwards,
            overlays=run.extra,
            forced=run.request.force,
        )
        self.out = Build(run)
        self.out.recording = run.standings is not None and run.rollback is None
        self.held: list[Held] = []
        self.holds: list[Withheld] = []
        self.since: dict[str, float] = {}
        self.before = self.lost = self.suspect = self.approximate = 0
        self.opened: list[bytes] = []
        self.empty: list[bytes] = []
        self.released: list[bytes] = []
        host = run.host
        self.bare_domain = host.routing.envnoathost.lower() if run.config.policy.envnoathost_names else None
        if self.bare_domain is not None and host.rules(self.bare_domain).prepend is None:
            self.bare_domain = None
        self.bare: frozenset[bytes] = frozenset()
        self.standing: set[bytes] = set()
        """The domains that nothing is known of yet that speaks against copying them from what is published."""
        self.asked = b""
        self.classes: Counter[str] = Counter()
        self.recipients: Counter[tuple[str, str]] = Counter()

    def close(self) -> None:
        """Removes whatever was not committed."""
        self.out.close()

    # -- building ---------------------------------------------------------------------------

    def build(self) -> Hold | None:
        """Writes every output; what the next pass must hold where this one turns out to let go too much."""
        with self._distrust():
            return self._built()

    def _built(self) -> Hold | None:
        run = self.run
        self.policy.prepare()
        if run.standings is not None:
            run.standings.shaped_as(self.policy.prepended, run.extra.kept)
        if run.census is not None:
            run.census.begin()
        self._open()
        if self.out.base is not None and run.standings is not None and run.standings.settled:
            self._few(self.out.base, run.standings)
        else:
            self._all()
        self._bare()
        self.out.lists(run.extra.data)
        self.out.written()
        return self._next()

    @contextmanager
    def _distrust(self) -> Iterator[None]:
        """What fails in here may do so because of what was copied: the next run then copies nothing."""
        try:
            yield
        except Exception:
            if self.run.standings is not None:
                self.run.standings.ledger = None
            raise

    def _open(self) -> None:
        """Every output is open, and what is published where something of it can be copied."""
        run, standings = self.run, self.run.standings
        if standings is not None and standings.ledger is not None and run.ledger is None:
            # Another run has published since, and may have seen what was not looked at here yet.
            standings.ledger = None
            run.host.units.forget({owner.home for owner in run.host.units.looked_at})
        usable = standings is not None and not (run.rollback or run.request.full or self.hold.everything)
        base = run.base() if usable else None
        if standings is not None:
            standings.copied = base is not None
        if base is not None and standings is not None:
            self.standing = standings.standing().intersection(base.ledger.names)
            self.standing -= {key.encode("latin-1").removeprefix(CATCH_ALL) for key in run.memory.held}
        anew = sum(one.name not in self.standing for one in run.domains)
        rewritten = anew <= MOST_REWRITTEN and base is not None and base.records(self.standing) <= MOST_RECORDS
        self.out.open(base, rewritten=rewritten)

    def _few(self, base: Base, standings: Standings) -> None:
        """Takes a few domains one by one, and what stands between them as it is."""
        run, names = self.run, base.ledger.names
        told = {one.name: one for one in run.domains}
        standing = self.standing.intersection(told)
        plain = {name for name in standing if standings.known[name].plain}
        totals = standings.totals(plain)
        run.host.ahead(one for name, one in told.items() if name not in standing)
        at = 0
        for name in sorted({name for name in (*told, *names) if name not in plain}):
            if name in standing:
                self._stands(told[name], standings.known[name])
                continue
            end = base.ledger.before(name)
            self.out.copy(at, end)
            at = end + (end < len(names) and names[end] == name)
            run.progress(at, len(names))
            live = run.memory.live.blob(name) or b""
            old = Blobs(live, b"", live)
            if name in told:
                self._domain(told[name], old)
            else:
                self._gone(name, old)
        self.out.copy(at, len(names))
        self._sample(base, standing)
        self.out.total(totals)
        self.classes.update(totals.classes)
        self.recipients.update(totals.recipients)
        self.before += totals.accepted
        self.approximate += totals.approximate
        self.policy.claims.update(claim for name in plain for claim in standings.known[name].claims)

    def _sample(self, base: Base, standing: set[bytes]) -> None:
        """Some of the domains that are only copied are proved all the same, others each time."""
        names = base.ledger.names
        step = max(1, len(names) // PROVED)
        for name in names[base.ledger.number % step :: step]:
            blob = base.rules.blob(name) if name in standing else None
            if blob is not None:
                self.out.prove_too(name, unpack(blob))

    def _all(self) -> None:
        """Takes every domain."""
        run, memory = self.run, self.run.memory
        told = ((one.name, one) for one in self._told())
        # Without a rollback what is published is what the guard compares with.
        published = memory.published.blobs() if memory.rollback is not None else iter(())
        base = memory.base.blobs() if run.rollback is not None else iter(())
        done = 0
        for name, (domain, live, below, last) in side_by_side(told, memory.live.blobs(), base, published):
            run.progress(done, len(run.domains))
            old = Blobs(live or b"", below or b"", (last if memory.rollback is not None else live) or b"")
            if domain is None:
                self._gone(name, old)
            else:
                self._domain(domain, old)
                done += 1

    def _told(self) -> Iterator[Domain]:
        """The host's domains; before each stretch the host is told what will be asked for."""
        domains = self.run.domains
        for at in range(0, AHEAD * STRETCH, STRETCH):
            self._ahead(domains[at : at + STRETCH])
        for at in range(0, len(domains), STRETCH):
            # The next stretches are read while this one is built.
            self._ahead(domains[at + AHEAD * STRETCH : at + (AHEAD + 1) * STRETCH])
            yield from domains[at : at + STRETCH]

    def _ahead(self, domains: Sequence[Domain]) -> None:
        """Tells the host which domains will be asked for; what stands will not be."""
        self.run.host.ahead(one for one in domains if one.name not in self.standing)

    def _gone(self, domain: bytes, old: Blobs) -> None:
        """A published domain that the host no longer has."""
        run = self.run
        if not old.live:
            self._emit(domain, None, b"", old)
            return
        table = unpack(old.live)
        left = run.approved(domain, table)
        count = guard.accepted_rules(left)
        if left is not table:
            self._let_go(domain)
        if not ((domain in self.hold.gone or self.hold.everything) and count):
            self._emit(domain, None, b"", old)
            return
        reason = self.hold.everything or self.hold.gone[domain]
        asked = pack(EMPTY)
        self._hold(Held(domain, self._since(domain), reason, count, ()), asked)
        blob = old.live if left is table else pack(left)
        self._count(domain, "gone", left)
        self._emit(domain, left, blob, old, asked)

    def _domain(self, domain: Domain, old: Blobs) -> None:
        standing = self._standing(domain.name, old)
        if standing is not None:
            self._stands(domain, standing)
            return
        shaped = self.policy.shape(domain)
        table, name = shaped.table, domain.name
        remembered = bool(old.live) or self.out.generation is not None or self.run.standings is not None
        blob = pack(table) if remembered else _NOT_PACKED
        asked = self._asked(name)
        for one in _unsayable(shaped):
            self.out.unsayable(one)
        if old.live and old.live != blob:
            guarded = self._guarded(name, unpack(old.live), table, shaped.suspect)
            if guarded is not table:
                asked, table, blob = self.asked, guarded, pack(guarded)
        elif old.live:
            self.before += guard.accepted_rules(table)
        self.approximate += _approximate(table)
        if _is_empty(domain, table):
            self.empty.append(name)
        self._count(name, domain.kind.value, table)
        self._emit(name, table, blob, old, asked)
        if self.run.standings is not None:
            sound = table is shaped.table and asked is None and not shaped.suspect and not self.policy.last_kept
            self._remember(self.run.standings, shaped, blob if sound else None)

    def _standing(self, name: bytes, old: Blobs) -> Standing | None:
        """The domain as it was built last, copied, if nothing of it has changed nor is in question."""
        run, base = self.run, self.out.base
        if run.standings is None or base is None or name not in self.standing:
            return None
        standing, at = run.standings.of(name, old.live), base.ledger.at(name)
        if standing is None or at is None:
            return None
        self.out.copy(at, at + 1)
        return standing

    def _stands(self, domain: Domain, standing: Standing) -> None:
        """Counts one domain that is as it was built last."""
        name, kind = domain.name, domain.kind.value
        self.classes[kind] += 1
        for what, count in standing.kinds:
            self.recipients[kind, what] += count
        self.before += standing.accepted
        self.approximate += standing.approximate
        self.policy.claims.update(standing.claims)
        if standing.empty:
            self.empty.append(name)
        for one in standing.unsayable:
            self.out.unsayable(one)
        self.out.stands(name, standing)

    def _remember(self, standings: Standings, shaped: Shaped, blob: bytes | None) -> None:
        """Puts down what a domain was built to, where it may be built the same way again without a look."""
        name, policy = shaped.domain.name, self.policy
        claims = tuple(policy.last_claims)
        signature = standings.signatures.get(name)
        if blob is None or signature is None or not self.out.recording or name == self.bare_domain:
            standings.drop(name, None if blob is None or self.run.rollback is not None else check_of(blob))
            return
        said, kinds = self.out.last
        table = shaped.table
        standings.put(
            name,
            Standing(
                signature=signature,
                kind=shaped.domain.kind.value,
                claims=claims,
                check=check_of(blob),
                unsayable=tuple(_unsayable(shaped)),
                counts=tuple((one.exact, one.wildcards, one.refusals) for one in said),
                said=listed(said),
                kinds=kinds,
                approximate=_approximate(table),
                empty=_is_empty(shaped.domain, table),
            ),
        )

    def _count(self, name: bytes, kind: str, table: Table) -> None:
        """Takes the accepted rules of a domain of this kind into the numbers of the run."""
        if self.run.census is not None:
            self.run.census.add(name, kind, table)
        self.classes[kind] += 1
        for outcome, names in table.groups.items():
            if outcome.accepted:
                self.recipients[kind, outcome.kind.value] += len(names)
        for outcome in table.prefixes.values():
            if outcome.accepted:
                self.recipients[kind, outcome.kind.value] += 1

    def _emit(self, name: bytes, table: Table | None, blob: bytes, old: Blobs, asked: bytes | None = None) -> None:
        """One domain as it is published without any rollback; `asked`: what a person may approve."""
        if table is not None and name == self.bare_domain:
            self.bare = exact_names(table)
        self.out.emit(name, table, blob, old, asked)

    def _guarded(self, name: bytes, published: Table, table: Table, suspect: str) -> Table:
        """`table` with what must not go yet, and without a catch-all that must not come yet."""
        run = self.run
        old = run.approved(name, published)
        if old is not published and guard.compare(published, table).lost:
            self._let_go(name)
        change = guard.compare(old, table)
        self.lost += change.lost
        self.before += guard.accepted_rules(published)
        forced = old is EMPTY
        reason = ""
        if not forced:
            self.suspect += change.lost
            reason = self._suspicious(name, change, suspect)
        self.asked = pack(table)
        if guard.opens(published, table):
            table = self._opened(name, table, old)
        if reason:
            self._hold(Held(name, self._since(name), reason, change.lost, change.sample), self.asked)
            return guard.union(table, old)
        return table

    def _opened(self, name: bytes, table: Table, old: Table) -> Table:
        """`table`, which makes the domain a catch-all, or what is published until a person approves that."""
        run, key = self.run, CATCH_ALL + name
        if run.released(name, key):
            self._let_go(name)
            return table
        self.opened.append(name)
        if not (self.hold.catchalls or run.is_held(key)):
            return table
        words = "a new catch-all, one of too many at once"
        # Who approves removals does not approve the catch-all, nor the loss of what only that would cover.
        self.asked = pack(guard.both(old, table))
        self._hold(Held(name, self._since(key), words, 1, (b"*",), catch_all=True), pack(table))
        return guard.closed(table, old)

    def _suspicious(self, name: bytes, change: guard.Change, suspect: str) -> str:
        """Why the losses of a domain are held, or an empty text."""
        if not change.lost:
            return ""
        reason = suspect or change.suspicious(self.run.limits) or self.hold.everything
        if not reason and self.run.is_held(name) and not self.run.released(name):
            reason = f"{change.lost} of {change.before} names would go, not approved since they were held"
        return reason

    def _let_go(self, domain: bytes) -> None:
        """Remembers a domain of which a person has let something go."""
        if self.run.request.approve is not None and domain not in self.released[-1:]:
            self.released.append(domain)

    def _asked(self, domain: bytes) -> bytes | None:
        """What a person was last asked to approve: the question stays as long as it may not have been answered."""
        return self.run.memory.held_tables.blob(domain) if self.run.is_held(domain) else None

    def _bare(self) -> None:
        """Addresses without a domain: postmaster, and by option the exact names of envnoathost."""
        run = self.run
        found = run.host.rules(run.host.routing.envnoathost.lower()).match(POSTMASTER)
        self.out.bare(self.bare)
        if not found.accepted and not run.host.users_damage:
            reason = "postmaster is always accepted without a domain"
            for outcomes in self.out.outputs:
                outcomes.widened.append(Widened(POSTMASTER, POSTMASTER, reason, found.file, found.line))
                outcomes.widened_count += 1

    def _since(self, key: bytes) -> float:
        return self.run.memory.held.get(domain_key(key), self.run.now)

    def _hold(self, one: Held, asked: bytes) -> None:
        """Remembers what is held; `asked` is the table that a person is to approve."""
        self.held.append(one)
        self.since[domain_key(CATCH_ALL + one.domain if one.catch_all else one.domain)] = one.since
        sample = [domain_key(name) for name in one.sample]
        self.holds.append(
            Withheld(
                domain=domain_key(one.domain),
                catch_all=one.catch_all,
                since=one.since,
                reason=clean(one.reason),
                count=one.count,
                sample=sample,
                check=crc32(asked),
            )
        )

    def _next(self) -> Hold | None:
        """The holds that the totals call for, if this pass did not have them."""
        run, limits = self.run, self.run.limits
        if not run.memory.exists or run.request.force:
            return None
        everything, catchalls = self.hold.everything, self.hold.catchalls
        if not everything and self.lost:
            everything = self._emptied()
        lost = self.suspect
        if not everything and lost >= limits.total_loss_min and lost > limits.total_loss * self.before:
            everything = f"{lost} of all {self.before} names would go"
        if not catchalls and len(self.opened) > limits.new_catchalls:
            catchalls = True
        # What a forward leads to may bounce only because of what is held, or cannot be read.
        doubt = bool(self.held or everything or run.host.units.any_held_back)
        forwards = self.hold.forwards or (self.policy.drops_forwards and doubt)
        hold = Hold(self.hold.gone, everything, catchalls, forwards)
        return None if hold == self.hold else hold

    def _emptied(self) -> str:
        """Whether homes that were read for the last publication are gone with all that stood beside them."""
        run = self.run
        gone: dict[bytes, int] = {}
        reports = run.host.units.reports
        for path in run.memory.units:
            if path in reports or b"\0" in path:
                continue  # with a NUL: a claim, see Policy.claims
            parent = os.path.dirname(path.rstrip(b"/"))
            gone[parent] = gone.get(parent, 0) + 1
        several = sorted(parent for parent, count in gone.items() if count >= HOMES_OF_A_MOUNT)
        empty = run.host.units.emptied(several) if several else []
        if not empty:
            return ""
        return f"{gone[empty[0]]} homes are gone and {text_of(empty[0])} is empty: a lost mount?"

    # -- publishing ---------------------------------------------------------------------------

    def finish(self) -> None:
        """Proves every output, and publishes unless it is a dry run or a first publish that must not be."""
        run, result = self.run, self.run.result
        self._carry()
        self.out.report()
        result.units = run.host.units.unhealthy()
        result.units_read = len(run.host.units.reports)
        result.slowest = nlargest(MOST_SLOW, run.host.units.seconds.items(), key=lambda one: one[1])
        result.held = self.held
        result.released = self.released
        known = {(one.domain, one.catch_all): one.check for one in run.memory.holds}
        result.new_holds = any(known.get((one.domain, one.catch_all)) != one.check for one in self.holds)
        result.kept = self.policy.kept
        result.approximate = self.approximate
        result.classes, result.recipients = dict(self.classes), dict(self.recipients)
        found = run.host.files.first_assign_warnings
        result.warnings += [
            f"{os.fsdecode(one.file)}{f':{one.line}' if one.line else ''}: {one.text}" for one in found[:MOST_WARNINGS]
        ]
        if len(found) > MOST_WARNINGS:
            result.warnings.append("and more of this kind: run qmail-newu")
        result.warnings += self.policy.relay_warnings()
        with self._distrust():
            self.out.agrees()
        self.out.canaries()
        result.status = self._status()
        if result.first and not run.request.force and self._refused_first():
            result.status = PublishFailed.status
            return
        if run.request.dry_run:
            return
        self._publish()

    def _refused_first(self) -> bool:
        problems = self.run.result.problems
        if not self.out.accepted:
            problems.append("no address at all would be accepted; --force publishes that")
        for domain in self.empty[:20]:
            problems.append(f"no name of {text_of(domain)} would be accepted; --force publishes that")
        return bool(problems)

    def _status(self) -> int:
        failed = any(one.state in (UnitState.FAILED, UnitState.SUSPECT) for one in self.run.result.units)
        if failed or self.policy.kept:
            return SourceFailed.status
        return HOLDING if self.held or self.run.rollback is not None else 0

    def _publish(self) -> None:
        self.out.publish(
            {
                "units": sorted(unit.decode("latin-1") for unit in self._units()),
                "held": self.since,
                "holds": self.holds,
                "released": [domain_key(name) for name in self.released],
                "prepended": {"mode": self.policy.prepended},
            },
            must_remember=self.run.request.resume,
        )
        if self.run.standings is not None and self.out.ledger is not None:
            self.run.standings.published(self.out.ledger)

    def _units(self) -> set[bytes]:
        """The homes and claims that the published rules come from, read or kept.

        What is gone is only forgotten in a run that could see everything and held nothing.
        """
        reports, before = self.run.host.units.reports.values(), self.run.memory.units
        known = {one.path for one in reports if one.state in (UnitState.HEALTHY, UnitState.DEFERRING)}
        # In place: there may be millions.
        known |= self.policy.claims
        known |= before if self.since or self._troubled() else before & self.policy.kept.keys()
        return known

    def _troubled(self) -> bool:
        """Whether rules of this run come from the memory, wholly or in part."""
        return bool(self.policy.kept or self.run.host.users_damage)

    def _carry(self) -> None:
        """What was held stays held through a run in which it cannot be seen whether it still would go."""
        if not self._troubled():
            return
        memory = self.run.memory
        asked = {(one.domain, one.catch_all): one for one in memory.holds}
        for name, since in memory.held.items():
            key = name.encode("latin-1")
            domain = key.removeprefix(CATCH_ALL)
            if name not in self.since and not self.run.released(domain, key):
                reason = "held before; its sources cannot be read now"
                self.since[name] = since
                self.held.append(Held(domain, since, reason, 0, (), catch_all=domain != key))
                self.holds += filter(None, [asked.get((domain_key(domain), domain != key))])


def _unsayable(shaped: Shaped) -> list[Unsayable]:
    """What names cannot spell of a domain, with the domain."""
    domain = b"@" + shaped.domain.name
    return [Unsayable(one.rule + domain, one.reason, one.file, one.line) for one in shaped.unsayable]


def _approximate(table: Table) -> int:
    """How many rules hang on what an address does not show."""
    names = sum(len(names) for outcome, names in table.groups.items() if outcome.approximate)
    return names + sum(outcome.approximate for outcome in table.prefixes.values())


def _is_empty(domain: Domain, table: Table) -> bool:
    """Whether nobody is accepted at a domain that is the host's own."""
    return domain.kind is not DomainKind.RELAY and not _accepts(table)


def _accepts(table: Table) -> bool:
    """Whether any name but the empty one is accepted."""
    if any(outcome.accepted for outcome in table.prefixes.values()):
        return True
    return any(outcome.accepted and (len(names) > 1 or b"" not in names) for outcome, names in table.groups.items())
