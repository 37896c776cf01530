"""What is read and judged together, and its state; asks the worker processes for it.

The parent never changes identity; it asks over a pipe, kills a worker that gives no sign
of life for TIME_LIMIT seconds, and starts another.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rcptgen.errors import Shortage
from rcptgen.qmail.environment import View
from rcptgen.qmail.hometable import HomeTable
from rcptgen.qmail.judged import Step
from rcptgen.qmail.leads import Leads
from rcptgen.qmail.users import Owner
from rcptgen.reader import Account, Found, Question, Report, State, WorkerLost
from rcptgen.reports import Reports
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.shown import shown
from rcptgen.rules.table import Table
from rcptgen.source.looked import Since
from rcptgen.source.tree import FailedForNow, Identity
from rcptgen.survey import Survey
from rcptgen.worker import Silent, Worker

MOST_SILENT_SIBLINGS = 2
"""Silent homes below one directory after which the others there count as silent too: the mount is dead."""

MOST_SILENCES = 10
"""Silences of a run after which what did not answer is not asked again one by one, and after twice as many nothing."""

MOST_LOST_IN_A_ROW = 3
"""Homes in a row that cost their worker after which the trouble is taken to be ours."""

TABLES_KEPT = 8192
PASSING_KEPT = 512
NAMES_KEPT = 400_000
BATCH = 1000
SURVEYED = 100
MOST_PENDING = 4
SMALL_REQUEST = 24 << 10
"""Requests that a worker may have before it, and the bytes from which a request waits until there are none."""

CALLS_BETWEEN_LOOKS = 8
"""Tables that are given out between looks at what the workers have written: a look costs as much as a table."""

WORTH_HELP = 32
"""Homes wanted at once from which on other workers take a share of them."""

NOTICED = 0.001
"""Seconds that a unit must take to be remembered for them."""

SILENT = "the home directory does not answer"

_One = TypeVar("_One")
_Answer = TypeVar("_Answer")
_Home = tuple[int, bytes]
"""A home as somebody's: the uid, and the path."""


@dataclass(slots=True)
class _Unanswered:
    """The homes that are asked nothing any more, and why: a dead mount must not cost a time limit for each of them."""

    _reasons: dict[_Home, str] = field(default_factory=dict)
    _below: dict[bytes, set[bytes]] = field(default_factory=dict)
    _doubtful: set[_Home] = field(default_factory=set)
    _silences: int = 0
    _in_a_row: set[bytes] = field(default_factory=set)

    def reason(self, home: _Home) -> str | None:
        """Why a home is not asked; None where it is."""
        if not self._reasons and not self._silences:
            return None
        known = self._reasons.get(home)
        if known is not None:
            return known
        parent = _parent(home[1])
        if len(self._below.get(parent, ())) >= MOST_SILENT_SIBLINGS:
            return f"the home directory was not asked: others below {shown(parent)} do not answer"
        if self._silences >= (MOST_SILENCES if home in self._doubtful else 2 * MOST_SILENCES):
            return "the home directory was not asked: too many others do not answer"
        return None

    def silent(self, homes: Iterable[_Home]) -> None:
        """These homes were asked in one go, and there was no answer."""
        self._silences += 1
        asked = set(homes)
        if len(asked) > 1:
            self._doubtful |= asked
            return
        for home in asked:
            self._reasons[home] = SILENT
            self._below.setdefault(_parent(home[1]), set()).add(home[1])

    def heard(self, homes: Iterable[_Home]) -> None:
        """These homes have answered, alone or together."""
        if self._doubtful:
            self._doubtful.difference_update(homes)

    def lost(self, home: _Home, error: WorkerLost) -> None:
        """A home cost its worker twice.  Raises Shortage where each one does."""
        self._in_a_row.add(home[1])
        if len(self._in_a_row) >= MOST_LOST_IN_A_ROW:
            raise Shortage(str(error)) from error
        self._reasons[home] = f"the home directory cannot be read: {error}"

    def answered(self) -> None:
        """Some home was read: the worker is able to."""
        self._in_a_row.clear()


def _parent(path: bytes) -> bytes:
    return os.path.dirname(path.rstrip(b"/"))


@dataclass(slots=True)
class Units:
    """What has been read of a host, by unit; asks the worker for what has not.

    `helpers` are other workers that take their share where very many homes are wanted.
    `seconds` are those that reading took, for the units that took more than NOTICED.
    """

    worker: Worker
    helpers: Sequence[Worker] = ()
    reports: Reports = field(default_factory=Reports)
    seconds: dict[bytes, float] = field(default_factory=dict)
    failed_owners: dict[Owner, Report] = field(default_factory=dict)
    looked_at: dict[Owner, bytes] = field(default_factory=dict)
    suspect_owners: dict[Owner, Report] = field(default_factory=dict)
    _tables: OrderedDict[tuple[Owner, View | None], HomeTable] = field(default_factory=OrderedDict)
    _passing: OrderedDict[tuple[Owner, View], HomeTable] = field(default_factory=OrderedDict)
    _names: int = 0
    _calls: int = 0
    _pending: deque[tuple[Worker, int, Sequence[tuple[Owner, Sequence[View]]]]] = field(default_factory=deque)
    _asked: set[tuple[Owner, View]] = field(default_factory=set)
    _unanswered: _Unanswered = field(default_factory=_Unanswered)

    def read(self, path: bytes, identity: Identity | None = None, limit: int = 64 * 1024 * 1024) -> Found:
        """The file at `path`, as `identity` (None: as root); a hang is a failure for now."""
        self.collect()
        try:
            found: Found = self.worker.ask("read", path, identity, limit)
        except Silent:
            return FailedForNow(errno.ETIMEDOUT)
        if isinstance(found, FailedForNow) and found.shortage:
            raise Shortage(f"{os.fsdecode(path)}: {os.strerror(found.errno)}")
        return found

    def qualify(self, accounts: Sequence[Account], identity: Identity, directory: bytes) -> list[bool | FailedForNow]:
        """For each account whether it is a user for qmail-getpw."""

        def ask(some: Sequence[Account]) -> list[bool | FailedForNow]:
            found: list[bool | FailedForNow] = self.worker.ask("qualify", some, identity, directory)
            return found

        self.collect()
        answers: list[bool | FailedForNow] = []
        for batch in _batches(accounts):
            answers += self._each(
                batch, lambda one: (one.uid, one.home), ask, lambda one, reason: FailedForNow(errno.ETIMEDOUT)
            )
        return answers

    def _each(
        self,
        things: Sequence[_One],
        home_of: Callable[[_One], _Home],
        ask: Callable[[Sequence[_One]], list[_Answer]],
        instead: Callable[[_One, str], _Answer],
    ) -> list[_Answer]:
        """What `ask` answers: in one go, else one by one; `instead` takes the place of what a home does not answer."""
        unanswered = self._unanswered
        reasons = [unanswered.reason(home_of(one)) for one in things]
        asked = [one for one, reason in zip(things, reasons, strict=True) if reason is None]
        try:
            found = iter(ask(asked) if asked else [])
        except Silent:
            unanswered.silent(map(home_of, asked))
            return [answer for one in things for answer in self._each([one], home_of, ask, instead)]
        unanswered.heard(map(home_of, asked))
        return [
            next(found) if reason is None else instead(one, reason) for one, reason in zip(things, reasons, strict=True)
        ]

    def emptied(self, directories: Sequence[bytes]) -> list[bytes]:
        """Those of the directories that show nothing; all of them where there is no answer."""
        return self._or_all("emptied", directories)

    def mounted(self, paths: Sequence[bytes]) -> list[bytes]:
        """Those of the paths that are not mount points; all of them where there is no answer."""
        return self._or_all("mounted", paths)

    def _or_all(self, name: str, paths: Sequence[bytes]) -> list[bytes]:
        self.collect()
        try:
            found: list[bytes] = self.worker.ask(name, paths)
        except Silent:
            return list(paths)
        return found

    def note(self, report: Report) -> None:
        """Records the state of a unit; of several that one path is found in, the worst."""
        if report.seconds > NOTICED:
            self.seconds[report.path] = self.seconds.get(report.path, 0.0) + report.seconds
        known = self.reports.get(report.path)
        if known is None or known.state.weight <= report.state.weight:
            self.reports[report.path] = report

    def table(self, owner: Owner, view: View, others: Sequence[View] = ()) -> HomeTable:
        """The rules of a home as `view` shows them.  A home that cannot be read for now defers everything.

        `others` are views of the same home that will be asked for later: it is read once for all.
        """
        known = self._known(owner, view)
        if self._pending:
            self._calls += 1
            if known is None or self._calls % CALLS_BETWEEN_LOOKS == 0:
                self._drain()
        while known is None and self._pending:
            self._collect_first()
            known = self._known(owner, view)
        if known is None:
            views = (view, *(one for one in others if one != view))
            ((found, report),) = self._each([owner], _home_of, lambda _: [self._asked_twice(owner, views)], _unread)
            self._take(owner, views, found, report)
            known = found[0]
        return known

    def _known(self, owner: Owner, view: View) -> HomeTable | None:
        passing = self._passing.get((owner, view))
        if passing is not None:
            return passing
        for key in ((owner, None), (owner, view)):
            known = self._tables.get(key)
            if known is not None:
                self._tables.move_to_end(key)
                return known
        return None

    def sizes(self, owners: Sequence[Owner]) -> list[int]:
        """How many dot-qmail files each home has; none where there is no answer."""

        def ask(some: Sequence[Owner]) -> list[int]:
            found: list[int] = self.worker.ask("sizes", some)
            return found

        self.collect()
        return self._each(owners, _home_of, ask, lambda owner, reason: 0)

    def surveys(self, owners: Sequence[Owner]) -> Iterator[Survey]:
        """What a person should look at in each home, in their order; nothing is known of one that does not answer."""

        def ask(some: Sequence[Owner]) -> list[Survey]:
            found: list[Survey] = self.worker.ask("surveys", some)
            return found

        for at in range(0, len(owners), SURVEYED):
            self.collect()
            some = owners[at : at + SURVEYED]
            yield from self._each(some, _home_of, ask, lambda owner, reason: Survey(owner.home, failed=reason))

    def ahead(self, wanted: Iterable[tuple[Owner, Sequence[View]]]) -> None:
        """Begins to read homes that will be wanted next, in one go; what does not answer is left to `table`."""
        self._drain()
        unanswered = self._unanswered
        asked: dict[Owner, list[View]] = {}
        for owner, views in wanted:
            known = (owner, views[0]) in self._asked or self._known(owner, views[0]) is not None
            if not known and unanswered.reason(_home_of(owner)) is None:
                asked.setdefault(owner, []).extend(views)
        if len(asked) < 2:
            return
        workers = [self.worker, *self.helpers] if len(asked) >= WORTH_HELP else [self.worker]
        if len(self._pending) >= MOST_PENDING * len(workers) or sum(map(_size, asked.items())) > SMALL_REQUEST:
            # Neither side may fill the pipe while the other one writes to it.
            self.collect()
        items = list(asked.items())
        self._asked.update((owner, view) for owner, views in items for view in views)
        for at, worker in enumerate(workers):
            share = items[at :: len(workers)]
            self._pending.append((worker, worker.begin("tables", share), share))

    def _drain(self) -> None:
        """Takes what was asked for ahead and is there."""
        while self._pending and self._pending[0][0].ready(self._pending[0][1]):
            self._collect_first()

    def collect(self) -> None:
        """Takes all that was asked for ahead."""
        while self._pending:
            self._collect_first()

    def _collect_first(self) -> None:
        worker, life, asked = self._pending.popleft()
        self._asked.difference_update((owner, view) for owner, views in asked for view in views)
        homes = [_home_of(owner) for owner, _ in asked]
        unanswered = self._unanswered
        try:
            answers = worker.finish(life)
        except Silent:
            unanswered.silent(homes)
            return
        except WorkerLost:
            return
        unanswered.answered()
        unanswered.heard(homes)
        for (owner, views), (found, report) in zip(asked, answers, strict=True):
            self._take(owner, views, found, report)

    def forget(self, homes: Collection[bytes]) -> None:
        """These homes are read again when they are asked for, and whatever several homes share with them."""
        self.collect()
        for owners in (self.looked_at, self.failed_owners, self.suspect_owners):
            for owner in [one for one in owners if one.home in homes]:
                del owners[owner]
        for key in [one for one in self._tables if one[0].home in homes]:
            self._names -= len(self._tables.pop(key))
        for passing in [one for one in self._passing if one[0].home in homes]:
            del self._passing[passing]
        for home in homes:
            self.reports.pop(home, None)
        self._unanswered = _Unanswered()
        for worker in (self.worker, *self.helpers):
            if worker.runs:
                worker.ask("refresh")

    def common(self) -> list[bytes]:
        """What everything but the homes was read from, as each worker has it (rcptgen.source.looked)."""
        self.collect()
        return [worker.ask("common") for worker in (self.worker, *self.helpers) if worker.runs]

    @property
    def forgetful(self) -> bool:
        """Whether `common` may lack something: a worker was lost, and what it had looked at with it."""
        return any(worker.was_lost for worker in (self.worker, *self.helpers))

    def is_stale(self) -> bool:
        """Whether a database says something else than what was read of it, or may."""
        self.collect()
        try:
            found: bool = self.worker.ask("is_stale")
        except Silent:
            return True
        return found

    def changed(self, units: Sequence[tuple[Identity | None, bytes, bytes]]) -> list[Since]:
        """For each unit (whose eyes, its home, what it was read from) whether any of that is not what it was.

        What does not answer counts as changed: reading it will say why.
        """

        def ask(some: Sequence[tuple[Identity | None, bytes, bytes]]) -> list[Since]:
            found: list[Since] = self.worker.ask("changed", some)
            return found

        self.collect()
        answers: list[Since] = []
        for batch in _batches(units):
            answers += self._each(
                batch, lambda one: (one[0].uid if one[0] else 0, one[1]), ask, lambda one, reason: Since.OTHER
            )
        return answers

    def close(self) -> None:
        """Ends the workers."""
        for worker in (self.worker, *self.helpers):
            worker.close()

    def _asked_twice(self, owner: Owner, views: Sequence[View]) -> tuple[list[HomeTable], Report]:
        """The rules of a home, by another worker where the first one is lost over it."""
        try:
            answer: tuple[list[HomeTable], Report] = self.worker.ask("table", owner, views)
        except WorkerLost:
            try:
                answer = self.worker.ask("table", owner, views)
            except WorkerLost as error:
                home = _home_of(owner)
                self._unanswered.lost(home, error)
                return _unread(owner, self._unanswered.reason(home) or str(error))
        self._unanswered.answered()
        return answer

    def _take(self, owner: Owner, views: Sequence[View], found: Sequence[HomeTable], report: Report) -> None:
        self.note(report)
        if report.looked_at:
            self.looked_at[owner] = report.looked_at
        if report.state is State.FAILED:
            self.failed_owners[owner] = report
        elif report.state is State.SUSPECT:
            self.suspect_owners[owner] = report
        if len(views) == 1 and found[0].view_matters:
            # Of one domain, and asked for once, or a few times in a row.
            self._passing[owner, views[0]] = found[0]
            while len(self._passing) > PASSING_KEPT:
                self._passing.popitem(last=False)
            return
        for view, table in zip(views, found, strict=False):
            self._tables[owner, view if table.view_matters else None] = table
            self._names += len(table)
        while len(self._tables) > len(found) and (len(self._tables) > TABLES_KEPT or self._names > NAMES_KEPT):
            _, dropped = self._tables.popitem(last=False)
            self._names -= len(dropped)

    def judge(self, questions: Sequence[Question], *, explain: bool = False) -> list[tuple[Outcome, list[Step]]]:
        """What the homes do with the addresses, in the order of the questions."""

        def ask(some: Sequence[Question]) -> list[tuple[Outcome, list[Step]]]:
            found: list[tuple[Outcome, list[Step]]] = self.worker.ask("judge", some, explain)
            return found

        self.collect()
        answers: list[tuple[Outcome, list[Step]]] = []
        for batch in _batches(questions):
            answers += self._each(
                batch,
                lambda one: _home_of(one.owner),
                ask,
                lambda one, reason: (Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, one.owner.home), []),
            )
        return answers

    def leads(self, questions: Sequence[Question], *, whole: bool) -> list[tuple[Outcome, Leads]]:
        """What the homes do with the addresses and where their mail goes, in the order of the questions."""

        def ask(some: Sequence[Question]) -> list[tuple[Outcome, Leads]]:
            found: list[tuple[Outcome, Leads]] = self.worker.ask("leads", some, whole)
            return found

        def instead(one: Question, reason: str) -> tuple[Outcome, Leads]:
            return Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, one.owner.home), Leads(other=reason)

        self.collect()
        answers: list[tuple[Outcome, Leads]] = []
        for batch in _batches(questions):
            answers += self._each(batch, lambda one: _home_of(one.owner), ask, instead)
        return answers

    @property
    def any_held_back(self) -> bool:
        """Whether any source could not be read for now, or is damaged: each domain then keeps what it had."""
        return bool(self.reports.held_back)

    def unhealthy(self) -> list[Report]:
        """The reports of units that are not healthy, by path."""
        return sorted(
            (one for one in self.reports.values() if one.state is not State.HEALTHY), key=lambda one: one.path
        )


def _batches(things: Sequence[Any]) -> Iterable[Sequence[Any]]:
    for at in range(0, len(things), BATCH):
        yield things[at : at + BATCH]


def _size(wanted: tuple[Owner, Sequence[View]]) -> int:
    """About how many bytes a request for a home takes."""
    owner, views = wanted
    return 128 + len(owner.user) + len(owner.home) + sum(64 + len(one.host) + len(one.name or b"") for one in views)


def _home_of(owner: Owner) -> _Home:
    return owner.uid, owner.home


def _unread(owner: Owner, reason: str) -> tuple[list[HomeTable], Report]:
    """What stands for the rules of a home that cannot be read for now: it defers everything."""
    everything = Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, owner.home)
    return [HomeTable(Table({}, {b"": everything}))], Report(owner.home, State.FAILED, reason)
