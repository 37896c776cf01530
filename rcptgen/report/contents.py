"""What the report tells: a compile that publishes nothing, the history, and what lint finds."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from heapq import nsmallest

import msgspec

from rcptgen.compiler import compile_host, workers
from rcptgen.config import Config
from rcptgen.errors import PublishFailed
from rcptgen.generations import Difference, History, differences, held_of
from rcptgen.publish.generation import Meta
from rcptgen.publish.history import Rollback
from rcptgen.publish.rulesfile import DamagedState
from rcptgen.report.census import DomainCensus
from rcptgen.report.findings import Findings, find
from rcptgen.request import Held, Outcomes, Progress, Request, Result
from rcptgen.source.tree import Regular, SourceTree

MOST_RUNS = 50
MOST_AFFECTED = 10
MOST_REASONS = 20
EXAMPLES = 5


@dataclass(slots=True)
class Reason:
    """The rules that one output cannot say for one reason; `some` are the first of them."""

    reason: str
    count: int = 0
    some: list[tuple[bytes, bytes, bytes, int]] = field(default_factory=list)
    """A rule, the key that stands for it (empty where none does), and the file and line it rests on."""


@dataclass(slots=True)
class Loss:
    """What one output says otherwise than the host, the most frequent reasons first; `more` are not named.

    `partly`: there are so many rules that not all of them have told their reason.
    """

    outcomes: Outcomes
    partly: bool
    widened: list[Reason] = field(default_factory=list)
    unsayable: list[Reason] = field(default_factory=list)
    more: int = 0


@dataclass(slots=True)
class Contents:
    """All that the page shows, in the terms of the modules that know it.

    `trouble`: why a compile would publish nothing at all; `result` then has no numbers.
    `held` and `rollback` are those of the compile, else those of the history.  `runs` are the
    last publications in ascending order, `forgotten` counts the ones before.  `findings` is
    None where nobody asked for them.  `latest` are the domains that the last
    publication changed most.
    """

    name: bytes
    root: bytes
    time: float
    result: Result
    census: DomainCensus
    trouble: list[str] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    runs: list[Meta] = field(default_factory=list)
    forgotten: int = 0
    held: list[Held] = field(default_factory=list)
    rollback: Rollback | None = None
    latest: list[Difference] = field(default_factory=list)
    latest_more: int = 0
    findings: Findings | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0


def gather(
    root: str | bytes | os.PathLike[str],
    config: Config,
    request: Request,
    *,
    lint: bool = True,
    progress: Progress = lambda done, whole: None,
) -> Contents:
    """Everything for the page; nothing is published, whatever `request` says.

    Raises RcptgenError where the host cannot be read at all; that nothing could be published
    for another reason is told on the page.
    """
    begun = time.monotonic()
    place = os.path.abspath(os.fsencode(root))
    found = Contents(_name(place, config), place, time.time(), Result(), DomainCensus())
    with History(None) if request.state is None else History.open(request.state) as history:
        _look_back(history, found)
    _compiled(found, root, config, request, progress)
    found.losses = [_loss(one) for one in found.result.outputs]
    if lint:
        found.findings = find(root, config, workers())
    found.seconds = time.monotonic() - begun
    return found


def _name(root: bytes, config: Config) -> bytes:
    """What the host calls itself."""
    file = os.path.join(os.fsencode(config.qmail.directory), b"control/me")
    me = SourceTree(root, access="bits", record=False).read(file)
    return me.data.partition(b"\n")[0].strip() if isinstance(me, Regular) else b""


def _compiled(
    found: Contents,
    root: str | bytes | os.PathLike[str],
    config: Config,
    request: Request,
    progress: Progress,
) -> None:
    """A compile that publishes nothing; what would keep it from publishing is trouble."""
    dry = replace(request, dry_run=True)
    try:
        found.result = compile_host(root, config, dry, progress=progress, census=found.census)
    except PublishFailed as error:
        # Numbers of a list that would not be published are no numbers.
        found.trouble, found.census = str(error).split("\n"), DomainCensus()
        found.result.status = error.status
        return
    found.trouble = found.result.problems
    if found.result.outputs and found.census.rows:
        found.held, found.rollback = found.result.held, found.result.rollback


# -- what was ---------------------------------------------------------------------------------


def _look_back(history: History, found: Contents) -> None:
    metas: deque[Meta] = deque(maxlen=MOST_RUNS)
    count = 0
    for meta in history.metas():
        count += 1
        # The units of a large host are many, and the page does not name them.
        metas.append(msgspec.structs.replace(meta, units=[], held={}))
    found.runs, found.forgotten = list(metas), count - len(metas)
    found.held, found.rollback = [held_of(one) for one in history.holds], history.rollback
    try:
        _latest(history, found)
    except DamagedState as error:
        found.warnings.append(str(error))
    found.warnings += history.warnings


def _latest(history: History, found: Contents) -> None:
    """What the last publication changed, domain by domain."""
    before = history.before(history.last) if history.last else None
    if before is None:
        return
    most: list[Difference] = []
    count = 0
    with before, history.generation(history.last) as generation:
        for one in differences(before, generation):
            count += 1
            most.append(one)
            if len(most) > 4 * MOST_AFFECTED:
                most = _most(most)
    found.latest = _most(most)
    found.latest_more = count - len(found.latest)


def _most(some: Sequence[Difference]) -> list[Difference]:
    return nsmallest(MOST_AFFECTED, some, key=lambda one: (-sum(one.counts.values()), one.domain))


# -- what an output cannot say ------------------------------------------------------------------


def _loss(outcomes: Outcomes) -> Loss:
    widened = _reasons([(one.reason, (one.rule, one.key, one.file, one.line)) for one in outcomes.widened])
    left = _reasons([(one.reason, (one.rule, b"", one.file, one.line)) for one in outcomes.unsayable])
    more = len(widened[MOST_REASONS:]) + len(left[MOST_REASONS:])
    partly = outcomes.widened_count > len(outcomes.widened) or outcomes.unsayable_count > len(outcomes.unsayable)
    # One by one they have the size of the host, and the page does not name them.
    outcomes.widened, outcomes.unsayable = [], []
    return Loss(outcomes, partly, widened[:MOST_REASONS], left[:MOST_REASONS], more)


def _reasons(rules: list[tuple[str, tuple[bytes, bytes, bytes, int]]]) -> list[Reason]:
    found: dict[str, Reason] = {}
    for reason, rule in rules:
        one = found.setdefault(reason, Reason(reason))
        one.count += 1
        if len(one.some) < EXAMPLES:
            one.some.append(rule)
    return sorted(found.values(), key=lambda one: (-one.count, one.reason))
