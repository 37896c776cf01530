"""One way through all domains of a host into temporary files, held back by the guard, proved, published."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from rcptgen.config import Config
from rcptgen.errors import PublishFailed, SourceFailed
from rcptgen.host import Domain, DomainKind, Host
from rcptgen.memory import Memory
from rcptgen.policy import Policy
from rcptgen.publish import guard
from rcptgen.publish.files import Publication, PublishedUnsynced
from rcptgen.publish.generation import Meta, path_key
from rcptgen.publish.packed import pack, unpack
from rcptgen.publish.staged import Staged
from rcptgen.publish.state import State
from rcptgen.publish.writer import GenerationWriter
from rcptgen.reader import State as UnitState
from rcptgen.request import MOST_LISTED, Held, Outcomes, Output, Progress, Request, Result
from rcptgen.rules.table import Table
from rcptgen.targets.base import Target, Unsayable, Widened, Writer
from rcptgen.targets.witness import Proof, Wrong, explained

STRETCH = 64
AHEAD = 3
MOST_WARNINGS = 10
HOMES_OF_A_MOUNT = 2
"""So many homes that vanish from one directory, and leave it empty, look like a lost mount."""
CATCH_ALL = b"*@"
"""Put in front of a domain whose new catch-all is held, where others stand for held removals."""


@dataclass(slots=True)
class Run:
    """What all attempts of one run share: the host, the request, and what was published last."""

    host: Host
    config: Config
    request: Request
    progress: Progress
    now: float
    targets: list[Target]
    state: State | None
    memory: Memory
    domains: list[Domain]
    result: Result

    def released(self, domain: bytes) -> bool:
        """Whether removals of `domain` go out unasked."""
        approve = self.request.approve
        return self.request.force or (approve is not None and (not approve or domain in approve))

    def is_held(self, key: bytes) -> bool:
        """Whether the last run held this; then it stays held until a person approves, however little is left of it."""
        return domain_key(key) in self.memory.held

    @property
    def limits(self) -> guard.Limits:
        """The guard's limits, as configured."""
        wanted = self.config.guard
        return guard.Limits(
            domain_loss=wanted.domain_loss,
            domain_loss_min=wanted.domain_loss_min,
            total_loss=wanted.total_loss,
            total_loss_min=wanted.total_loss_min,
            new_catchalls=wanted.new_catchalls,
        )


@dataclass(frozen=True, slots=True)
class Hold:
    """What an attempt holds beyond single suspicious domains."""

    gone: frozenset[bytes] = frozenset()
    everything: str = ""
    catchalls: bool = False


class Attempt:
    """One way through all domains into temporary files."""

    def __init__(self, run: Run, hold: Hold) -> None:
        self.run = run
        self.hold = hold
        memory = run.memory
        self.policy = Policy(run.host, published=memory.table, known_units=memory.units, prepended=memory.prepended)
        self.publication = Publication()
        self.generation: GenerationWriter | None = None
        self.outputs = [Outcomes(one) for one in run.request.outputs]
        self.staged: list[Staged] = []
        self.committing = False
        self.scratch: list[int] = []
        self.descriptors: list[int] = []
        self.writers: list[Writer] = []
        self.proof = Proof(full=run.request.full)
        self.held: list[Held] = []
        self.since: dict[str, float] = {}
        self.before = self.lost = self.suspect = self.lost_on_purpose = 0
        self.let_go = self.gained = self.approximate = 0
        self.opened: list[bytes] = []
        self.empty: list[bytes] = []
        self.accepted = 0

    def close(self) -> None:
        """Removes whatever was not committed."""
        self.publication.close()
        for descriptor in self.scratch:
            os.close(descriptor)
        self.scratch = []
        # Once the renames have begun, the files may be those of this generation: the next run finds out.
        if self.generation is not None and not self.generation.accepted and not self.committing:
            self.generation.abandon()

    # -- building ---------------------------------------------------------------------------

    def build(self) -> Hold | None:
        """Writes every output; what the next pass must hold where this one turns out to let go too much."""
        run = self.run
        for one, target in zip(run.request.outputs, run.targets, strict=True):
            descriptor = self._scratch() if run.request.dry_run else self._stage(one)
            self.descriptors.append(descriptor)
            self.writers.append(target.writer(descriptor))
        if run.state is not None and not run.request.dry_run:
            self.generation = run.state.begin()
        for number, (domain, old) in enumerate(self._merged()):
            run.progress(number, len(run.domains))
            if isinstance(domain, bytes):
                self._gone(domain, old)
            else:
                self._domain(domain, old)
        self._bare()
        for outcomes, writer in zip(self.outputs, self.writers, strict=True):
            outcomes.records = writer.finish()
        return self._next()

    def _stage(self, one: Output) -> int:
        self.staged.append(self.publication.stage(one.path, one.mode))
        return self.staged[-1].fileno()

    def _scratch(self) -> int:
        """A file without a name: a dry run needs no right to write anywhere."""
        descriptor = os.memfd_create("rcptgen-dry-run", os.MFD_CLOEXEC)
        self.scratch.append(descriptor)
        return descriptor

    def _merged(self) -> Iterator[tuple[Domain | bytes, bytes]]:
        """Every domain of the host and of the memory, in ascending order, with its published blob."""
        new = self._told()
        current = next(new, None)
        for name, blob in self.run.memory.blobs():
            while current is not None and current.name < name:
                yield current, b""
                current = next(new, None)
            if current is not None and current.name == name:
                yield current, blob
                current = next(new, None)
            else:
                yield name, blob
        while current is not None:
            yield current, b""
            current = next(new, None)

    def _told(self) -> Iterator[Domain]:
        """The host's domains; before each stretch the host is told what will be asked for."""
        domains = self.run.domains
        host = self.run.host
        for at in range(0, AHEAD * STRETCH, STRETCH):
            host.ahead(domains[at : at + STRETCH])
        for at in range(0, len(domains), STRETCH):
            # The next stretches are read while this one is built.
            host.ahead(domains[at + AHEAD * STRETCH : at + (AHEAD + 1) * STRETCH])
            yield from domains[at : at + STRETCH]

    def _gone(self, domain: bytes, blob: bytes) -> None:
        """A published domain that the host no longer has."""
        old = unpack(blob)
        count = guard.accepted_rules(old)
        run = self.run
        if run.released(domain) or not (domain in self.hold.gone or self.hold.everything):
            self.lost_on_purpose += count
            return
        reason = self.hold.everything or "the domain is gone from the configuration, but hardly on purpose"
        self._hold(domain, reason, count, ())
        self._emit(domain, old, blob)

    def _domain(self, domain: Domain, old_blob: bytes) -> None:
        shaped = self.policy.shape(domain)
        table, run, name = shaped.table, self.run, domain.name
        blob = pack(table)
        for one in shaped.unsayable:
            self._unsayable(Unsayable(one.rule + b"@" + name, one.reason, one.file, one.line))
        if old_blob and old_blob != blob:
            old = unpack(old_blob)
            change = guard.compare(old, table)
            self.gained += change.gained
            self.lost += change.lost
            self.before += change.before
            reason = ""
            if not run.released(name):
                self.suspect += change.lost
                reason = change.suspicious(run.limits)
                if change.lost and shaped.suspect:
                    reason = shaped.suspect
                if change.lost and not reason:
                    reason = self.hold.everything
                if change.lost and not reason and run.is_held(name):
                    reason = f"{change.lost} of {change.before} names would go, not approved since they were held"
                if change.opens:
                    self.opened.append(name)
                    if self.hold.catchalls or run.is_held(CATCH_ALL + name):
                        table = guard.closed(table, old)
                        why = "a new catch-all, one of too many at once"
                        self._hold(name, why, 1, (b"*",), key=CATCH_ALL + name)
            if reason:
                table = guard.union(table, old)
                self._hold(name, reason, change.lost, change.sample)
            else:
                self.let_go += change.lost
            blob = pack(table)
        elif old_blob:
            self.before += guard.accepted_rules(table)
        else:
            self.gained += guard.accepted_rules(table)
        self.approximate += sum(len(names) for outcome, names in table.groups.items() if outcome.approximate)
        self.approximate += sum(outcome.approximate for outcome in table.prefixes.values())
        if domain.kind is not DomainKind.RELAY and not _accepts(table):
            self.empty.append(name)
        self._emit(name, table, blob)

    def _emit(self, domain: bytes, table: Table, blob: bytes) -> None:
        if self.generation is not None:
            self.generation.add(domain, blob)
        self.proof.add(domain, table)
        self.run.result.domains += 1
        for target, writer, outcomes in zip(self.run.targets, self.writers, self.outputs, strict=True):
            lowered = target.lower(domain, table)
            for keys, value in lowered.batches:
                writer.put(keys, value)
            outcomes.widened_count += len(lowered.widened) + lowered.widened_more
            outcomes.unsayable_count += len(lowered.unsayable) + lowered.unsayable_more
            outcomes.losses += lowered.losses
            if lowered.left_out:
                outcomes.left_out.add(domain)
            if len(outcomes.widened) < MOST_LISTED:
                outcomes.widened += lowered.widened
            if len(outcomes.unsayable) < MOST_LISTED:
                outcomes.unsayable += lowered.unsayable
            outcomes.exact += lowered.exact
            outcomes.wildcards += lowered.wildcards
            outcomes.refusals += lowered.refusals
        self.accepted += guard.accepted_rules(table)

    def _unsayable(self, one: Unsayable) -> None:
        for outcomes in self.outputs:
            outcomes.unsayable_count += 1
            if len(outcomes.unsayable) < MOST_LISTED:
                outcomes.unsayable.append(one)

    def _bare(self) -> None:
        """Addresses without a domain: postmaster, and by option the exact names of envnoathost."""
        run = self.run
        host = run.host
        names = {b"postmaster"}
        domain = host.routing.envnoathost.lower()
        rules = host.rules(domain)
        if run.config.policy.envnoathost_names and rules.prepend is not None:
            table, _ = rules.table()
            names |= {name for name, outcome in table.exact() if name and outcome.accepted}
        for target, writer, outcomes in zip(run.targets, self.writers, self.outputs, strict=True):
            keys, value = target.bare(names)
            writer.put(keys, value)
            outcomes.exact += len(keys)
            found = rules.match(b"postmaster")
            if keys and not found.accepted and not host.users_damage:
                reason = "postmaster is always accepted without a domain"
                outcomes.widened.append(Widened(b"postmaster", b"postmaster", reason, found.file, found.line))
                outcomes.widened_count += 1

    def _hold(
        self, domain: bytes, reason: str, count: int, sample: tuple[bytes, ...], *, key: bytes | None = None
    ) -> None:
        name = domain_key(domain if key is None else key)
        since = self.run.memory.held.get(name, self.run.now)
        self.held.append(Held(domain, since, reason, count, sample))
        self.since[name] = since

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
        if (everything, catchalls) == (self.hold.everything, self.hold.catchalls):
            return None
        run.result.domains = 0
        return Hold(self.hold.gone, everything, catchalls)

    def _emptied(self) -> str:
        """Whether homes that were read for the last publication are gone with all that stood beside them."""
        run = self.run
        gone: dict[bytes, int] = {}
        for path in run.memory.units - run.host.units.reports.keys():
            if b"\0" in path:
                continue  # a claim, see Policy.claims
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
        result.outputs = self.outputs
        result.units = run.host.units.unhealthy()
        result.units_read = len(run.host.units.reports)
        result.held = self.held
        result.kept = self.policy.kept
        result.approximate = self.approximate
        result.gained, result.lost = self.gained, self.let_go + self.lost_on_purpose
        result.warnings += self.publication.warnings
        if run.state is not None:
            result.warnings += run.state.warnings
        found = list(islice(run.host.files.assign_warnings(), MOST_WARNINGS + 1))
        result.warnings += [
            f"{os.fsdecode(one.file)}{f':{one.line}' if one.line else ''}: {one.text}" for one in found[:MOST_WARNINGS]
        ]
        if len(found) > MOST_WARNINGS:
            result.warnings.append("and more of this kind: run qmail-newu")
        self._strict()
        self._prove()
        self._canaries()
        result.status = self._status()
        if result.first and not run.request.force and self._refused_first():
            result.status = PublishFailed.status
            return
        if run.request.dry_run:
            return
        self._publish()

    def _refused_first(self) -> bool:
        problems = self.run.result.problems
        if not self.accepted:
            problems.append("no address at all would be accepted; --force publishes that")
        for domain in self.empty[:20]:
            problems.append(f"no name of {text_of(domain)} would be accepted; --force publishes that")
        return bool(problems)

    def _status(self) -> int:
        failed = any(one.state in (UnitState.FAILED, UnitState.SUSPECT) for one in self.run.result.units)
        if failed or self.policy.kept:
            return SourceFailed.status
        return 3 if self.held else 0

    def _strict(self) -> None:
        """Raises PublishFailed where a format that must not lose anything has lost something."""
        for target, outcomes in zip(self.run.targets, self.outputs, strict=True):
            if target.wildcards == "refuse" and outcomes.losses:
                shown = ", ".join(f"{text_of(one.rule)}: {one.reason}" for one in outcomes.widened[:5])
                raise PublishFailed(
                    f"{outcomes.output.target}: {outcomes.losses} rules cannot be said in this format ({shown}); "
                    "nothing was published"
                )

    def _prove(self) -> None:
        result = self.run.result
        result.witnesses = len(self.proof)
        for target, descriptor, outcomes in zip(self.run.targets, self.descriptors, self.outputs, strict=True):
            reader = target.open(descriptor)
            try:
                refused, accepted = self.proof.check(reader, target.sayable, outcomes.left_out)
            finally:
                reader.close()
            if refused:
                shown = ", ".join(text_of(one.address) for one in refused[:5])
                raise PublishFailed(
                    f"{outcomes.output.target}: the new file refuses {len(refused)} addresses that are accepted "
                    f"({shown}): this is a bug; nothing was published"
                )
            unexplained = _unexplained(accepted, outcomes)
            if unexplained:
                shown = ", ".join(text_of(one.address) for one in unexplained[:5])
                raise PublishFailed(
                    f"{outcomes.output.target}: the new file accepts {len(unexplained)} addresses without saying so "
                    f"({shown}): this is a bug; nothing was published"
                )

    def _canaries(self) -> None:
        """`[guard] must_accept` and `must_refuse`."""
        wanted = self.run.config.guard
        if self.run.request.force:
            return
        canaries = [(one, True) for one in wanted.must_accept] + [(one, False) for one in wanted.must_refuse]
        for target, descriptor in zip(self.run.targets, self.descriptors, strict=True):
            reader = target.open(descriptor)
            try:
                for text, accepted in canaries:
                    answer = reader.answer(os.fsencode(text))
                    if answer.accepted != accepted and not answer.undecided:
                        what = "refuses" if accepted else "accepts"
                        raise PublishFailed(f"[guard] the new list {what} {text}; nothing was published")
            finally:
                reader.close()

    def _publish(self) -> None:
        run = self.run
        for staged in self.staged:
            staged.finish()
        if self.generation is not None:
            self.generation.finish(self._meta())
        self.committing = True
        unsynced = None
        try:
            done = self.publication.commit()
        except PublishedUnsynced as error:
            unsynced, done = error, error.published
        for one, outcomes in zip(done, self.outputs, strict=True):
            outcomes.published, outcomes.changed = True, one.changed
        if self.generation is not None and run.state is not None:
            self._remember(self.generation, run.state)
        if unsynced is not None:
            raise unsynced

    def _remember(self, generation: GenerationWriter, state: State) -> None:
        """Makes this generation the one that the next run builds on, unless it says nothing new."""
        if not self.run.result.changed and self._same_memory():
            generation.abandon()
            return
        warning = state.accept(generation)
        if warning:
            self.run.result.warnings.append(warning)

    def _same_memory(self) -> bool:
        """Whether the state has nothing new to remember."""
        memory = self.run.memory
        return (
            memory.from_state
            and memory.units == self._units()
            and memory.held == self.since
            and memory.prepended == self.policy.prepended
        )

    def _units(self) -> frozenset[bytes]:
        """The homes and claims that the published rules come from, read or kept.

        What is gone is only forgotten in a run that could see everything and held nothing.
        """
        reports = self.run.host.units.reports.values()
        read = {one.path for one in reports if one.state in (UnitState.HEALTHY, UnitState.DEFERRING)}
        known = read | self.policy.claims
        if self.since or self._troubled():
            known |= self.run.memory.units
        return frozenset(known | (self.run.memory.units & self.policy.kept.keys()))

    def _troubled(self) -> bool:
        """Whether rules of this run come from the memory, wholly or in part."""
        return bool(self.policy.kept or self.run.host.users_damage)

    def _carry(self) -> None:
        """What was held stays held through a run in which it cannot be seen whether it still would go."""
        if not self._troubled():
            return
        for name, since in self.run.memory.held.items():
            domain = name.encode("latin-1")
            bare = domain.removeprefix(CATCH_ALL)
            if name not in self.since and not self.run.released(bare):
                self.since[name] = since
                self.held.append(Held(bare, since, "held before; its sources cannot be read now", 0, ()))

    def _meta(self) -> Meta:
        outputs = zip(self.run.request.outputs, self.staged, strict=True)
        first = self.outputs[0]
        return Meta(
            time=self.run.now,
            reason=self.run.request.reason,
            digests={path_key(one.path): staged.sha256 for one, staged in outputs},
            counts={
                "domains": self.run.result.domains,
                "exact": first.exact,
                "wildcards": first.wildcards,
                "refusals": first.refusals,
            },
            units=sorted(unit.decode("latin-1") for unit in self._units()),
            held=self.since,
            prepended={"mode": self.policy.prepended},
        )


def _unexplained(accepted: list[Wrong], outcomes: Outcomes) -> list[Wrong]:
    """The false acceptances under a key that the run does not report."""
    if outcomes.widened_count > len(outcomes.widened):
        return []
    return explained(accepted, outcomes.widened)[1]


def _accepts(table: Table) -> bool:
    """Whether any name but the empty one is accepted."""
    if any(outcome.accepted for outcome in table.prefixes.values()):
        return True
    return any(outcome.accepted and (len(names) > 1 or b"" not in names) for outcome, names in table.groups.items())


def domain_key(domain: bytes) -> str:
    """A domain as text that stands for its bytes one by one."""
    return domain.decode("latin-1")


def text_of(name: bytes) -> str:
    """A name in a message."""
    return name.decode("ascii", "backslashreplace")
