"""From the rules of domains to published files: staged, proved, renamed together, and remembered.

What a compile and a rollback have in common: they differ in where the rules come from.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Any

from rcptgen.config import Config
from rcptgen.errors import PublishFailed
from rcptgen.ledger import Base, Entries, Ledger
from rcptgen.memory import BARE, BARE_OF_BASE, Memory
from rcptgen.publish import guard
from rcptgen.publish.files import Publication, PublishedUnsynced
from rcptgen.publish.generation import Meta, path_key
from rcptgen.publish.history import Rollback
from rcptgen.publish.packed import pack, unpack
from rcptgen.publish.rulesfile import RulesFile
from rcptgen.publish.staged import Staged
from rcptgen.publish.state import State
from rcptgen.publish.tally import EMPTY, Tally
from rcptgen.publish.writer import GenerationWriter
from rcptgen.request import MOST_LISTED, Outcomes, Output, Request, Result
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table
from rcptgen.standing import Standing, Totals
from rcptgen.targets.base import Lowered, Reader, Target, Unsayable, Writer
from rcptgen.targets.witness import SAMPLE, UNKNOWN, Proof, Wrong, explained

PROVED_OF_A_GROUP = 2
"""Names of one outcome, of a domain that is only copied, that are proved."""

POSTMASTER = b"postmaster"
_ACCEPTED = Outcome(Verdict.DELIVER, Kind.UNKNOWN, "accepted without a domain")


@dataclass(slots=True)
class Job:
    """What is published: the request, its targets, what was published last, and the result on its way."""

    config: Config
    request: Request
    now: float
    targets: list[Target]
    state: State | None
    memory: Memory
    result: Result

    @property
    def sample(self) -> int:
        """How many witnesses are enough to prove what is new in the files."""
        return SAMPLE

    @property
    def rollback(self) -> Rollback | None:
        """The rollback that is in force for this run."""
        return None if self.request.resume else self.memory.rollback


@dataclass(frozen=True, slots=True)
class Blobs:
    """The packed tables of one domain: empty where there is none."""

    live: bytes = b""
    base: bytes = b""
    published: bytes = b""


class Build:
    """Every output of a job on its way, and the generation that will remember it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.publication = Publication()
        self.generation: GenerationWriter | None = None
        self.outputs = [Outcomes(one) for one in job.request.outputs]
        self.tally = Tally()
        self.kinds: Counter[str] = Counter()
        self.domains = self.accepted = 0
        self.recording = False
        """Whether what a domain becomes is put down in `last`: in each output, and the kinds of its names."""
        self.last: tuple[tuple[Lowered, ...], tuple[tuple[str, int], ...]] = ((), ())
        self.ledger: Ledger | None = None
        """Where all domains stand, once they are published."""
        self._entries = Entries()
        self._lists: dict[str, str] = {}
        self._staged: list[Staged] = []
        self._committing = False
        self._scratch: list[int] = []
        self._descriptors: list[int] = []
        self._writers: list[Writer] = []
        self._proof = Proof(full=job.request.full, sample=job.sample)

    def close(self) -> None:
        """Removes whatever was not committed."""
        self.publication.close()
        for descriptor in self._scratch:
            os.close(descriptor)
        self._scratch = []
        self._entries.close()
        # Once the renames have begun, the files may be those of this generation: the next run finds out.
        if self.generation is not None and not self.generation.accepted and not self._committing:
            self.generation.abandon()

    def open(self, base: Base | None = None, *, rewritten: bool = False) -> None:
        """Every output has a file that can be written to, without a name or beside its target.

        `base` may be copied from, and is ours to close; with `rewritten` that is most of each file.
        """
        job = self.job
        self._entries.base = base
        for number, (one, target) in enumerate(zip(job.request.outputs, job.targets, strict=True)):
            descriptor = self._without_name() if job.request.dry_run else self._stage(one)
            self._descriptors.append(descriptor)
            old = base.descriptors[number] if base is not None and rewritten else None
            writer = target.writer(descriptor) if old is None else target.rewriter(descriptor, old)
            self._writers.append(writer)
        self.recording = self.recording and self._entries.of(self._writers)
        if job.state is not None and not job.request.dry_run:
            self.generation = job.state.begin()

    def _stage(self, one: Output) -> int:
        self._staged.append(self.publication.stage(one.path, one.mode))
        return self._staged[-1].fileno()

    def _without_name(self) -> int:
        """A file without a name: a dry run needs no right to write anywhere."""
        descriptor = os.memfd_create("rcptgen-dry-run", os.MFD_CLOEXEC)
        self._scratch.append(descriptor)
        return descriptor

    # -- the rules ----------------------------------------------------------------------------

    def emit(self, domain: bytes, live: Table | None, blob: bytes, old: Blobs, held: bytes | None = None) -> None:
        """Takes one domain in ascending order: `live` is what it is to be, `blob` the same packed.

        While a rollback is in force, what it went back to is accepted as well.  `held` is what
        a person may approve.  A domain that is in no way published any more is only counted.
        """
        rolled = self.job.rollback is not None
        table = live
        published = blob
        if rolled and old.base:
            base = unpack(old.base)
            table = base if live is None else guard.union(live, base)
            published = old.base if live is None else pack(table)
        if published != old.published:
            self.tally.add(domain, unpack(old.published) if old.published else EMPTY, table or EMPTY)
        if self.generation is not None and table is not None:
            sides = {"live": blob or None, "base": old.base or None} if rolled else {}
            self.generation.add(domain, published, held=held, **sides)
        if table is not None:
            self._write(domain, table)

    def stands(self, domain: bytes, standing: Standing) -> None:
        """Counts a domain that is what it was, and is copied (`copy`)."""
        for said, outcomes in zip(standing.said, self.outputs, strict=False):
            self._list(domain, outcomes, said)
        for counts, outcomes in zip(standing.counts, self.outputs, strict=True):
            self._count(outcomes, *counts)
        self.kinds.update(dict(standing.kinds))
        self.accepted += standing.accepted

    def total(self, totals: Totals) -> None:
        """Counts domains of which there is nothing to list, and that are copied."""
        for counts, outcomes in zip(totals.counts, self.outputs, strict=False):
            self._count(outcomes, *counts)
        self.kinds.update(totals.kinds())
        self.accepted += totals.accepted

    def prove_too(self, domain: bytes, table: Table) -> None:
        """A domain that is only copied is asked for in the new files, like those that are built."""
        self._proof.add(domain, table, most=PROVED_OF_A_GROUP)

    @property
    def base(self) -> Base | None:
        """What may be copied from."""
        return self._entries.base

    def copy(self, first: int, end: int) -> None:
        """Takes the domains number `first` up to `end` of the base as they are there; there is no rollback."""
        base = self.base
        if base is None or first >= end:
            return
        if self.generation is not None:
            self.generation.copy(base.rules, first, end, base.ledger.names[end - 1])
        self._entries.copy(base, first, end)
        self.domains += end - first

    def _write(self, domain: bytes, table: Table) -> None:
        self._proof.add(domain, table)
        self.domains += 1
        said = []
        self._entries.begin(domain)
        for target, writer, outcomes in zip(self.job.targets, self._writers, self.outputs, strict=True):
            lowered = target.lower(domain, table)
            for keys, value in lowered.batches:
                writer.put(keys, value)
            self._list(domain, outcomes, lowered)
            self._count(outcomes, lowered.exact, lowered.wildcards, lowered.refusals)
            if self.recording:
                said.append(replace(lowered, batches=()))
        self._entries.end()
        kinds: Counter[str] = Counter()
        for outcome, names in table.groups.items():
            if outcome.accepted:
                kinds[outcome.kind.value] += len(names)
        kinds.update(outcome.kind.value for outcome in table.prefixes.values() if outcome.accepted)
        self.kinds.update(kinds)
        self.accepted += kinds.total()
        if self.recording:
            self.last = tuple(said), tuple(kinds.items())

    @staticmethod
    def _list(domain: bytes, outcomes: Outcomes, lowered: Lowered) -> None:
        outcomes.widened_count += len(lowered.widened) + lowered.widened_more
        outcomes.unsayable_count += len(lowered.unsayable) + lowered.unsayable_more
        outcomes.losses += lowered.losses
        if lowered.left_out:
            outcomes.left_out.add(domain)
        if len(outcomes.widened) < MOST_LISTED:
            outcomes.widened += lowered.widened
        if len(outcomes.unsayable) < MOST_LISTED:
            outcomes.unsayable += lowered.unsayable

    @staticmethod
    def _count(outcomes: Outcomes, exact: int, wildcards: int, refusals: int) -> None:
        outcomes.exact += exact
        outcomes.wildcards += wildcards
        outcomes.refusals += refusals

    def unsayable(self, one: Unsayable) -> None:
        """Counts a rule that no output can say."""
        for outcomes in self.outputs:
            outcomes.unsayable_count += 1
            if len(outcomes.unsayable) < MOST_LISTED:
                outcomes.unsayable.append(one)

    def bare(self, names: frozenset[bytes]) -> None:
        """Takes the addresses without a domain, postmaster aside; after all domains."""
        job = self.job
        base = job.memory.base_bare if job.rollback is not None else frozenset()
        names = names | base
        if self.generation is not None:
            for key, some in ((BARE_OF_BASE, base), (BARE, names)):
                if some:
                    self.generation.add_bare(key, pack(Table(dict.fromkeys(some, _ACCEPTED), {})))
        names |= {POSTMASTER}
        self._entries.begin(None)
        for target, writer, outcomes in zip(self.job.targets, self._writers, self.outputs, strict=True):
            keys, value = target.bare(names)
            writer.put(keys, value)
            outcomes.exact += len(keys)
        self._entries.end()

    def lists(self, data: Mapping[bytes, bytes]) -> None:
        """Takes what the files of `[extra]` hold, for the next run to know."""
        self._lists = {path_key(path): blake2b(one, digest_size=16).hexdigest() for path, one in data.items()}
        if self.generation is not None:
            for path in sorted(data):
                self.generation.add_list(path, data[path])

    def written(self) -> None:
        """Every output is complete."""
        for outcomes, writer in zip(self.outputs, self._writers, strict=True):
            outcomes.records = writer.finish()
        if self.base is not None and not self.base.holds():
            raise PublishFailed("a published file was written to while it was copied from; nothing was published")

    def report(self) -> None:
        """The result has what is known before anything is published."""
        job, result = self.job, self.job.result
        result.outputs = self.outputs
        result.domains = self.domains
        result.changes = self.tally.changes()
        result.gained, result.lost = self.tally.gained, self.tally.lost
        result.rollback = job.rollback
        result.warnings += self.publication.warnings
        if job.state is not None:
            result.warnings += dict.fromkeys(job.state.warnings)

    # -- proof --------------------------------------------------------------------------------

    def _strict(self) -> None:
        """Raises PublishFailed where a format that must not lose anything has lost something."""
        for target, outcomes in zip(self.job.targets, self.outputs, strict=True):
            if target.wildcards == "refuse" and outcomes.losses:
                some = ", ".join(f"{text_of(one.rule)}: {one.reason}" for one in outcomes.widened[:5])
                raise PublishFailed(
                    f"{outcomes.output.target}: {outcomes.losses} rules cannot be said in this format ({some}); "
                    "nothing was published"
                )

    def _readers(self) -> Iterator[tuple[Target, Outcomes, Reader]]:
        """Every new file as its consumer will read it."""
        for target, descriptor, outcomes in zip(self.job.targets, self._descriptors, self.outputs, strict=True):
            reader = target.open(descriptor)
            try:
                yield target, outcomes, reader
            finally:
                reader.close()

    def prove(self) -> None:
        """Raises PublishFailed where a new file answers otherwise than the rules, or than the canaries want."""
        self.agrees()
        self.canaries()

    def agrees(self) -> None:
        """Raises PublishFailed where a new file answers otherwise than the rules."""
        self._strict()
        self.job.result.witnesses = len(self._proof)
        for target, outcomes, reader in self._readers():
            refused, accepted = self._proof.check(reader, target.sayable, outcomes.left_out)
            self._agree(outcomes, refused, "refuses {} addresses that are accepted")
            self._agree(outcomes, _unexplained(accepted, outcomes), "accepts {} addresses without saying so")

    def _agree(self, outcomes: Outcomes, wrong: list[Wrong], words: str) -> None:
        if wrong:
            some = ", ".join(text_of(one.address) for one in wrong[:5])
            raise PublishFailed(
                f"{outcomes.output.target}: the new file {words.format(len(wrong))} "
                f"({some}): this is a bug; nothing was published"
            )

    def canaries(self) -> None:
        """Raises PublishFailed where a new file answers otherwise than `[guard] must_accept` and `must_refuse` want.

        Each is asked as its consumer asks; `--force` asks none.
        """
        if self.job.request.force:
            return
        wanted = self.job.config.guard
        canaries = [(one, True) for one in wanted.must_accept] + [(one, False) for one in wanted.must_refuse]
        wrong: dict[str, None] = {}
        for _, _, reader in self._readers() if canaries else ():
            for text, accepted in canaries:
                answer = reader.answer(canary(text))
                if answer.accepted == accepted or answer.undecided:
                    continue
                if accepted:
                    wrong[f"[guard] the new list refuses {text}"] = None
                elif self._of_base(canary(text)):
                    words = f"[guard] {text} is accepted because of the rollback, until resume"
                    self.job.result.warnings.append(words)
                else:
                    wrong[f"[guard] the new list accepts {text}"] = None
        if wrong:
            raise PublishFailed("\n".join(f"{words}; nothing was published" for words in wrong))

    def _of_base(self, address: bytes) -> bool:
        """Whether a rollback that was ordered before accepts an address: then no later run may fail for it."""
        job = self.job
        if job.rollback is None or job.rollback.since == job.now:
            return False
        local, _, domain = address.lower().rpartition(b"@")
        blob = job.memory.base.blob(domain)
        found = unpack(blob).match(local) if blob is not None else None
        return found is not None and found.accepted

    # -- publishing ---------------------------------------------------------------------------

    def publish(self, known: dict[str, Any], *, must_remember: bool = False) -> None:
        """The files are in their places, and the next run builds on this generation.

        `known` are the members of its Meta that only the caller knows.  With `must_remember` nothing is
        published where the state cannot be kept.  Raises PublishFailed; PublishedUnsynced
        where all is done, but a power cut may undo it.
        """
        job = self.job
        for staged in self._staged:
            staged.finish()
        changed = any(not staged.unchanged() for staged in self._staged)
        meta = self._meta(known, same=not changed)
        if not (changed or must_remember) and self._says_nothing_new(meta) and self._same_rules():
            self._forget()
            return
        check = self.generation.check() if self.generation is not None and self.recording else None
        if self.generation is not None:
            self.generation.finish(meta)
        if must_remember and (self.generation is None or self.generation.failure is not None):
            why = self.generation.failure if self.generation is not None else "there is no state directory"
            raise PublishFailed(f"{why}; nothing was published")
        self._committing = True
        unsynced = None
        try:
            done = self.publication.commit()
        except PublishedUnsynced as error:
            unsynced, done = error, error.published
        for one, outcomes in zip(done, self.outputs, strict=True):
            outcomes.published, outcomes.changed = True, one.changed
        if self.generation is not None and job.state is not None:
            self._remember(self.generation, job.state, must=must_remember)
            if check is not None and self.generation.accepted:
                self.ledger = self._put_down(self.generation.number, check)
        if unsynced is not None:
            raise unsynced

    def _forget(self) -> None:
        """All is as it was: the generation is not kept."""
        for outcomes in self.outputs:
            outcomes.published = True
        self.job.result.generation = self.job.memory.number or 0
        if self.generation is not None:
            self.generation.abandon()
        self.publication.close()

    def _remember(self, generation: GenerationWriter, state: State, *, must: bool) -> None:
        """Makes this generation the one that the next run builds on."""
        warning = state.accept(generation)
        if warning and must:
            raise PublishFailed(f"the files are published, but this may be forgotten: {warning}")
        if warning:
            self.job.result.warnings.append(warning)
        else:
            self.job.result.generation = generation.number

    def _same_rules(self) -> bool:
        """Whether the rules are those of the last generation to the byte; only who copies from it must know."""
        if not self.recording:
            return True
        memory = self.job.memory
        check = self.generation.check() if self.generation is not None else None
        if check is None or not isinstance(memory.published, RulesFile) or memory.number is None:
            return True
        if check != memory.published.whole():
            return False
        self.ledger = self._put_down(memory.number, check)
        return True

    def _put_down(self, number: int, check: int) -> Ledger:
        """Where all domains stand in the files, as a generation of that number has them."""
        return self._entries.ledger(number, check, tuple(staged.sha256 for staged in self._staged))

    def _says_nothing_new(self, meta: Meta) -> bool:
        """Whether the state has nothing to learn from `meta`, the files being the same."""
        memory = self.job.memory
        return (
            memory.number is not None
            and memory.units == {unit.encode("latin-1") for unit in meta.units}
            and memory.held == meta.held
            and memory.holds == meta.holds
            and memory.prepended == meta.prepended.get("mode", "")
            and memory.rollback == meta.rollback
            and memory.list_digests == meta.lists
        )

    def _meta(self, known: dict[str, Any], *, same: bool) -> Meta:
        job = self.job
        outputs = zip(job.request.outputs, self._staged, strict=True)
        first = self.outputs[0]
        return Meta(
            time=job.now,
            reason=job.request.reason,
            by=job.request.by,
            same=same and job.request.by is None,
            digests={path_key(one.path): staged.sha256 for one, staged in outputs},
            counts={
                "domains": self.domains,
                "records": first.records,
                "exact": first.exact,
                "wildcards": first.wildcards,
                "refusals": first.refusals,
            },
            kinds=dict(sorted(self.kinds.items())),
            changes=self.tally.changes(),
            rollback=job.rollback,
            lists=self._lists,
            **known,
        )


def side_by_side(*streams: Iterator[tuple[bytes, Any]]) -> Iterator[tuple[bytes, list[Any]]]:
    """Every key of the streams, which ascend, once; with it the value of each stream, None where it has none."""

    def tagged(number: int, stream: Iterator[tuple[bytes, Any]]) -> Iterator[tuple[bytes, int, Any]]:
        return ((key, number, value) for key, value in stream)

    every = merge(*(tagged(number, stream) for number, stream in enumerate(streams)), key=itemgetter(0, 1))
    for key, some in groupby(every, itemgetter(0)):
        values: list[Any] = [None] * len(streams)
        for _, number, value in some:
            values[number] = value
        yield key, values


def canary(text: str) -> bytes:
    """The address that is asked for a canary: `prefix-*@domain` stands for a name that nobody has thought of."""
    local, at, domain = os.fsencode(text).rpartition(b"@")
    return local.removesuffix(b"*") + UNKNOWN + at + domain if at and local.endswith(b"*") else os.fsencode(text)


def _unexplained(accepted: list[Wrong], outcomes: Outcomes) -> list[Wrong]:
    """The false acceptances under a key that the run does not report."""
    if not accepted or outcomes.widened_count > len(outcomes.widened):
        return []
    return explained(accepted, outcomes.widened)[1]


def text_of(name: bytes) -> str:
    """A name in a message."""
    return name.decode("ascii", "backslashreplace")
