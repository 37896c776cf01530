"""What is read and judged together, its state, and the worker process that does the reading.

Homes are read by a process of its own: one thread, real uid 0, which takes the identity
of the record that owns a home around each access.  The parent never changes identity; it
asks over a pipe, kills a worker that gives no sign of life for TIME_LIMIT seconds, and
starts another.
"""

from __future__ import annotations

import enum
import errno
import os
import signal
import socket
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from rcptgen.errors import Shortage
from rcptgen.programs import builtin_models
from rcptgen.programs.shell import run_line
from rcptgen.qmail.home import Home, HomeTable, Settings, Step
from rcptgen.qmail.model import Effect, Situation
from rcptgen.qmail.users import Owner
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.shown import shown
from rcptgen.rules.table import Table
from rcptgen.source.outcomes import SHORTAGES
from rcptgen.source.tree import (
    Absent,
    Directory,
    FailedForNow,
    Identity,
    NotRegular,
    Refused,
    Regular,
    SourceTree,
    Status,
    TooLarge,
)

TIME_LIMIT = 30.0
SIGN_OF_LIFE = 0.002
"""The share of processor time below which a worker that does not answer counts as hanging."""

MOST_ROUNDS = 20
"""Time limits after which a worker is killed even while it works: nobody's files may hold up the others for ever."""

MOST_OPEN_HOMES = 256
TABLES_KEPT = 8192
NAMES_KEPT = 400_000
BATCH = 1000

Found = Regular | Absent | Refused | FailedForNow | NotRegular | TooLarge


class State(enum.StrEnum):
    """The state of a unit; design and exit status hang on it."""

    HEALTHY = "healthy"
    DEFERRING = "deferring"
    FAILED = "failed"
    SUSPECT = "suspect"


@dataclass(frozen=True, slots=True)
class Report:
    """One unit and its state; `path` is what it was read from, `reason` why it is not healthy."""

    path: bytes
    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """One address for one home: whose it is, its extension and local name in their own case, its domain."""

    owner: Owner
    extension: bytes
    local: bytes
    host: bytes

    def __reduce__(self) -> tuple[type[Question], tuple[object, ...]]:
        # See Outcome.__reduce__.
        return Question, (self.owner, self.extension, self.local, self.host)


@dataclass(frozen=True, slots=True)
class Account:
    """An account to be looked at as qmail-getpw does: is the home there, and its own?"""

    home: bytes
    uid: int


@dataclass(frozen=True, slots=True)
class _Session:
    root: bytes
    access: str
    settings: Settings


# -- the worker's side ------------------------------------------------------------------------


class Reader:
    """Does the reading.  One of these lives in each worker."""

    def __init__(self, session: _Session) -> None:
        self._tree = SourceTree(session.root, access=session.access, record=False)  # type: ignore[arg-type]
        self._settings = session.settings
        self._models = builtin_models()
        self._homes: dict[tuple[bytes, int, int, bytes], Home] = {}
        self._open: OrderedDict[tuple[bytes, int, int, bytes], Home] = OrderedDict()

    def _run_line(self, line: bytes, situation: Situation) -> Effect:
        return run_line(line, situation, self._models)

    def _home(self, owner: Owner) -> Home:
        key = (owner.user, owner.uid, owner.gid, owner.home)
        home = self._homes.get(key)
        if home is None:
            home = self._homes[key] = Home(self._tree, owner, self._settings, self._run_line)
        if key in self._open:
            self._open.move_to_end(key)
        else:
            self._open[key] = home
            if len(self._open) > MOST_OPEN_HOMES:
                self._open.popitem(last=False)[1].close()
        return home

    def read(self, path: bytes, identity: Identity | None, limit: int) -> Found:
        """The file at `path`, read as `identity` (None: as root)."""
        if identity is None:
            return self._tree.read(path, limit=limit)
        with self._tree.acting_as(identity):
            return self._tree.read(path, limit=limit)

    def qualify(self, accounts: Sequence[Account], identity: Identity, directory: bytes) -> list[bool | FailedForNow]:
        """For each account whether its home is there and its own (qmail-getpw.c: userext)."""
        answers: list[bool | FailedForNow] = []
        with self._tree.acting_as(identity):
            for account in accounts:
                if not account.home:
                    # stat(2) finds nothing under an empty path, in whatever directory.
                    answers.append(False)
                    continue
                found = self._tree.status(os.path.join(directory, account.home))
                if isinstance(found, FailedForNow):
                    answers.append(found)
                else:
                    answers.append(isinstance(found, Status) and found.uid == account.uid)
        for answer in answers:
            if isinstance(answer, FailedForNow) and answer.shortage:
                raise Shortage(f"looking at homes: {os.strerror(answer.errno)}")
        return answers

    def emptied(self, directories: Sequence[bytes]) -> list[bytes]:
        """Those of the directories that are not there or hold nothing: what a lost mount leaves."""
        found = []
        for path in directories:
            directory = self._tree.directory(path)
            if isinstance(directory, Directory):
                with directory:
                    if not directory.names():
                        found.append(path)
            elif isinstance(directory, Absent):
                found.append(path)
        return found

    def table(self, owner: Owner, host: bytes | None) -> tuple[HomeTable, Report]:
        """The rules of one home, and its state.  Nothing of it is kept: the table is the parent's to keep."""
        home = Home(self._tree, owner, self._settings, self._run_line)
        try:
            found = home.table(owner.dash, host)
            return found, self._report(owner, home, found.table)
        finally:
            home.close()

    def tables(self, owners: Sequence[Owner]) -> list[tuple[HomeTable, Report]]:
        """The rules of several homes, as they serve every domain."""
        return [self.table(owner, None) for owner in owners]

    def _report(self, owner: Owner, home: Home, table: Table) -> Report:
        if home.failure is not None:
            return Report(owner.home, State.FAILED, os.strerror(home.failure.errno))
        state = home.state()
        if state is not None and state.verdict is Verdict.DEFER:
            return Report(owner.home, State.DEFERRING, state.reason)
        deferred = [outcome.at(next(iter(names))) for outcome, names in table.groups.items()]
        for outcome in [*deferred, *table.prefixes.values()]:
            if outcome.verdict is Verdict.DEFER:
                return Report(owner.home, State.DEFERRING, f"{shown(outcome.file)}: {outcome.reason}")
        return Report(owner.home, State.HEALTHY)

    def judge(self, questions: Sequence[Question], explain: bool) -> list[tuple[Outcome, list[Step]]]:
        """What the homes do with the addresses, with the steps on the way where they are wanted."""
        answers = []
        for one in questions:
            steps: list[Step] = []
            home = self._home(one.owner)
            found = home.judge(one.owner.dash, one.extension, one.local, one.host, steps if explain else None)
            answers.append((found, steps))
        return answers


def serve(descriptor: int) -> None:
    """The worker: answers requests from `descriptor` until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o077)
    pipe: Connection[Any, Any] = Connection(descriptor)
    reader: Reader | None = None
    while True:
        try:
            name, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            if name == "open":
                reader = Reader(*arguments)
                answer: Any = None
            else:
                assert reader is not None
                answer = getattr(reader, name)(*arguments)
        except Shortage as error:
            answer = error
        except MemoryError:
            answer = Shortage("out of memory in the worker")
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise
            answer = Shortage(f"the worker: {os.strerror(error.errno or 0)}")
        try:
            pipe.send(answer)
        except OSError:
            # Whoever asked was killed, or gave up.
            return


# -- the parent's side --------------------------------------------------------------------------


class Silent(Exception):
    """The worker gave no answer in time; it was killed."""


class Worker:
    """One worker process and the pipe to it; starts again by itself after a kill."""

    def __init__(self, root: bytes, settings: Settings, *, time_limit: float = TIME_LIMIT) -> None:
        self._session = _Session(root, "auto", settings)
        self._time_limit = time_limit
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection[Any, Any] | None = None

    def ask(self, name: str, *arguments: Any) -> Any:
        """The worker's answer.  Raises Silent where there is none in time, Shortage where it ran out of something."""
        try:
            if self._pipe is None:
                self._start()
            answer = self._exchange(name, arguments)
        except (EOFError, OSError) as error:
            self._kill()
            raise Shortage(f"the worker process ended while it read the host ({error})") from None
        if isinstance(answer, Shortage):
            raise answer
        return answer

    def _exchange(self, name: str, arguments: tuple[Any, ...]) -> Any:
        assert self._pipe is not None
        self._pipe.send((name, arguments))
        worked = self._worked()
        rounds = 0
        while not self._pipe.poll(self._time_limit):
            # A large home takes long, a dead mount does nothing at all.
            rounds += 1
            before, worked = worked, self._worked()
            if worked - before < SIGN_OF_LIFE * self._time_limit or rounds >= MOST_ROUNDS:
                self._kill()
                raise Silent(name)
        return self._pipe.recv()

    def _worked(self) -> float:
        """The seconds of processor time that the worker has used."""
        assert self._process is not None
        try:
            with open(f"/proc/{self._process.pid}/stat", "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _start(self) -> None:
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise Shortage(f"cannot start a worker: {os.strerror(error.errno or errno.EIO)}") from None
        # Isolated: neither the environment nor the working directory can feed code to root.
        # The package is imported from where we run from.
        path = [place for place in sys.path if place]
        code = f"import sys; sys.path[:0] = {path!r}; from rcptgen.units import serve; serve({theirs.fileno()})"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
            )
        except OSError as error:
            ours.close()
            raise Shortage(f"cannot start a worker: {os.strerror(error.errno or errno.EIO)}") from None
        finally:
            theirs.close()
        self._pipe = Connection(ours.detach())
        self._exchange("open", (self._session,))

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            try:
                self._process.wait(0.5)
            except subprocess.TimeoutExpired:
                # Stuck in the kernel (a dead NFS server): it goes when the call returns.
                pass
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def close(self) -> None:
        """Ends the worker."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._process is not None:
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._kill()
            self._process = None


@dataclass(slots=True)
class Units:
    """What has been read of a host, by unit; asks the worker for what has not."""

    worker: Worker
    reports: dict[bytes, Report] = field(default_factory=dict)
    failed_owners: dict[Owner, Report] = field(default_factory=dict)
    _tables: OrderedDict[tuple[Owner, bytes | None], HomeTable] = field(default_factory=OrderedDict)
    _names: int = 0
    _silent: set[tuple[int, bytes]] = field(default_factory=set)

    def read(self, path: bytes, identity: Identity | None = None, limit: int = 64 * 1024 * 1024) -> Found:
        """The file at `path`, as `identity` (None: as root); a hang is a failure for now."""
        try:
            found: Found = self.worker.ask("read", path, identity, limit)
        except Silent:
            return FailedForNow(errno.ETIMEDOUT)
        if isinstance(found, FailedForNow) and found.shortage:
            raise Shortage(f"{os.fsdecode(path)}: {os.strerror(found.errno)}")
        return found

    def qualify(self, accounts: Sequence[Account], identity: Identity, directory: bytes) -> list[bool | FailedForNow]:
        """For each account whether it is a user for qmail-getpw."""
        answers: list[bool | FailedForNow] = []
        for batch in _batches(accounts):
            try:
                answers += self.worker.ask("qualify", batch, identity, directory)
            except Silent:
                answers += [self._qualify_one(one, identity, directory) for one in batch]
        return answers

    def _qualify_one(self, account: Account, identity: Identity, directory: bytes) -> bool | FailedForNow:
        key = (account.uid, account.home)
        if key not in self._silent:
            try:
                answer: bool | FailedForNow = self.worker.ask("qualify", [account], identity, directory)[0]
                return answer
            except Silent:
                self._silent.add(key)
        return FailedForNow(errno.ETIMEDOUT)

    def emptied(self, directories: Sequence[bytes]) -> list[bytes]:
        """Those of the directories that are not there or hold nothing."""
        try:
            found: list[bytes] = self.worker.ask("emptied", directories)
        except Silent:
            return []
        return found

    def note(self, report: Report) -> None:
        """Records the state of a unit; healthy ones are only counted by their number."""
        self.reports[report.path] = report

    def table(self, owner: Owner, host: bytes) -> Table:
        """The rules of a home as `host` sees them.  A home that cannot be read for now defers everything."""
        for key in ((owner, None), (owner, host)):
            known = self._tables.get(key)
            if known is not None:
                self._tables.move_to_end(key)
                if not known.host_matters or key[1] is not None:
                    return known.table
        asked: bytes | None = None if (owner, None) not in self._tables else host
        found = self._ask(owner, asked)
        if found.host_matters and asked is None:
            found = self._ask(owner, host)
        return found.table

    def ahead(self, owners: Iterable[Owner]) -> None:
        """Reads homes that will be wanted next in one go; what does not answer is left to `table`."""
        wanted = [owner for owner in dict.fromkeys(owners) if (owner, None) not in self._tables]
        if len(wanted) < 2 or any((owner.uid, owner.home) in self._silent for owner in wanted):
            return
        try:
            answers = self.worker.ask("tables", wanted)
        except Silent:
            return
        for owner, (found, report) in zip(wanted, answers, strict=True):
            self._take(owner, None, found, report)

    def host_matters(self, owner: Owner) -> bool:
        """Whether the rules of a home, read already, differ between domains."""
        known = self._tables.get((owner, None))
        return known is None or known.host_matters

    def _ask(self, owner: Owner, host: bytes | None) -> HomeTable:
        key = (owner.uid, owner.home)
        reason = "the home directory does not answer"
        report = Report(owner.home, State.FAILED, reason)
        found = HomeTable(Table({}, {b"": Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, owner.home)}), False)
        if key not in self._silent:
            try:
                found, report = self.worker.ask("table", owner, host)
            except Silent:
                self._silent.add(key)
        self._take(owner, host, found, report)
        return found

    def _take(self, owner: Owner, host: bytes | None, found: HomeTable, report: Report) -> None:
        self.note(report)
        if report.state is State.FAILED:
            self.failed_owners[owner] = report
        self._tables[owner, host] = found
        self._names += len(found.table)
        while len(self._tables) > 1 and (len(self._tables) > TABLES_KEPT or self._names > NAMES_KEPT):
            _, dropped = self._tables.popitem(last=False)
            self._names -= len(dropped.table)

    def judge(self, questions: Sequence[Question], *, explain: bool = False) -> list[tuple[Outcome, list[Step]]]:
        """What the homes do with the addresses, in the order of the questions."""
        answers: list[tuple[Outcome, list[Step]]] = []
        for batch in _batches(questions):
            if not self._silent.isdisjoint((one.owner.uid, one.owner.home) for one in batch):
                answers += [self._judge_one(one, explain) for one in batch]
                continue
            try:
                answers += self.worker.ask("judge", batch, explain)
            except Silent:
                answers += [self._judge_one(one, explain) for one in batch]
        return answers

    def _judge_one(self, one: Question, explain: bool) -> tuple[Outcome, list[Step]]:
        key = (one.owner.uid, one.owner.home)
        if key not in self._silent:
            try:
                answer: tuple[Outcome, list[Step]] = self.worker.ask("judge", [one], explain)[0]
                return answer
            except Silent:
                self._silent.add(key)
        return Outcome(Verdict.DEFER, Kind.DEFERRAL, "the home directory does not answer", one.owner.home), []

    @property
    def any_failed(self) -> bool:
        """Whether any source could not be read for now."""
        return any(one.state is State.FAILED for one in self.reports.values())

    def unhealthy(self) -> list[Report]:
        """The reports of units that are not healthy, by path."""
        return sorted(
            (one for one in self.reports.values() if one.state is not State.HEALTHY), key=lambda one: one.path
        )


def _batches(things: Sequence[Any]) -> Iterable[Sequence[Any]]:
    for at in range(0, len(things), BATCH):
        yield things[at : at + BATCH]
