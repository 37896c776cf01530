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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from rcptgen.config import Config
from rcptgen.errors import RcptgenError, Shortage
from rcptgen.programs import builtin_models
from rcptgen.programs.shell import run_line
from rcptgen.programs.shellparse import plain_command
from rcptgen.qmail.environment import View
from rcptgen.qmail.home import Home, Settings, Step
from rcptgen.qmail.hometable import HomeTable, home_tables
from rcptgen.qmail.model import Effect, Preparing, Presence, Situation
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
    IdentityUnavailable,
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

MOST_SILENT_SIBLINGS = 2
"""Silent homes below one directory after which the others there count as silent too: the mount is dead."""

MOST_SILENCES = 10
"""Silences of a run after which what did not answer is not asked again one by one, and after twice as many nothing."""

MOST_LOST_IN_A_ROW = 3
"""Homes in a row that cost their worker after which the trouble is taken to be ours."""

MOST_HOMES = 4096
MOST_OPEN_HOMES = 256
TABLES_KEPT = 8192
PASSING_KEPT = 192
NAMES_KEPT = 400_000
BATCH = 1000
WORTH_HELP = 32
"""Homes wanted at once from which on other workers take a share of them."""

SILENT = "the home directory does not answer"

Found = Regular | Absent | Refused | FailedForNow | NotRegular | TooLarge
_One = TypeVar("_One")
_Answer = TypeVar("_Answer")
_Home = tuple[int, bytes]
"""A home as somebody's: the uid, and the path."""


class State(enum.StrEnum):
    """The state of a unit; design and exit status hang on it."""

    HEALTHY = "healthy"
    DEFERRING = "deferring"
    FAILED = "failed"
    SUSPECT = "suspect"

    @property
    def weight(self) -> int:
        """How bad it is, for a unit that is looked at more than once."""
        return {State.HEALTHY: 0, State.DEFERRING: 1}.get(self, 2)


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
    config: Config = field(default_factory=Config)


# -- the worker's side ------------------------------------------------------------------------


class Reader:
    """Does the reading.  One of these lives in each worker."""

    def __init__(self, session: _Session) -> None:
        self._tree = SourceTree(session.root, access=session.access, record=False)  # type: ignore[arg-type]
        self._settings = session.settings
        self._models = builtin_models(
            session.config, root=session.root, look_at_mailboxes=session.settings.look_at_mailboxes
        )
        self._preparing = [model for model in self._models.values() if isinstance(model, Preparing)]
        self._hanging: set[bytes] = set()
        self._programs: dict[tuple[Identity, bytes], Presence] = {}
        self._homes: OrderedDict[tuple[bytes, int, int, bytes], Home] = OrderedDict()
        self._open: OrderedDict[tuple[bytes, int, int, bytes], Home] = OrderedDict()

    def _run_line(self, line: bytes, situation: Situation) -> Effect:
        return run_line(line, situation, self._models)

    def _opened(self, owner: Owner) -> Home:
        return Home(
            self._tree,
            owner,
            self._settings,
            self._run_line,
            plain=self._is_plain,
            hanging=self._hanging,
            programs=self._programs,
        )

    def _is_plain(self, line: bytes) -> bool:
        words = plain_command(line)
        return words is not None and words[0].rpartition(b"/")[2] in self._models

    def _home(self, owner: Owner) -> Home:
        key = (owner.user, owner.uid, owner.gid, owner.home)
        home = self._homes.get(key)
        if home is None:
            home = self._homes[key] = self._opened(owner)
            if len(self._homes) > MOST_HOMES:
                oldest, dropped = self._homes.popitem(last=False)
                dropped.close()
                self._open.pop(oldest, None)
        else:
            self._homes.move_to_end(key)
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
        try:
            with self._tree.acting_as(identity):
                answers = [self._qualifies(account, directory) for account in accounts]
        except IdentityUnavailable as error:
            # qmail-getpw is not even started then: qmail-lspawn defers.
            cause = error.__cause__
            number = cause.errno if isinstance(cause, OSError) else None
            return [FailedForNow(number or errno.EAGAIN)] * len(accounts)
        for answer in answers:
            _no_shortage(answer, "looking at homes")
        return answers

    def _qualifies(self, account: Account, directory: bytes) -> bool | FailedForNow:
        if not account.home:
            # stat(2) finds nothing under an empty path, in whatever directory.
            return False
        found = self._tree.status(os.path.join(directory, account.home))
        return found if isinstance(found, FailedForNow) else isinstance(found, Status) and found.uid == account.uid

    def emptied(self, directories: Sequence[bytes]) -> list[bytes]:
        """Those of the directories that show nothing: what a lost mount leaves.  One that fails shows nothing."""
        return [path for path in directories if not self._names(path)]

    def _names(self, path: bytes) -> bool:
        """Whether a directory shows any names."""
        directory = self._tree.directory(path)
        _no_shortage(directory, "looking at directories")
        if not isinstance(directory, Directory):
            return False
        with directory:
            names = directory.names()
        _no_shortage(names, "looking at directories")
        return isinstance(names, list) and bool(names)

    def mounted(self, paths: Sequence[bytes]) -> list[bytes]:
        """Those of the paths that are not mount points (as os.path.ismount has it); one that fails is none."""
        return [path for path in paths if not self._is_mount(path)]

    def _is_mount(self, path: bytes) -> bool:
        path = path.rstrip(b"/") or b"/"
        if not path.startswith(b"/") or self._tree.link(path) is not None:
            return False
        here, above = self._tree.status(path), self._tree.status(os.path.join(path, b".."))
        _no_shortage(here, "looking at mount points")
        _no_shortage(above, "looking at mount points")
        if not isinstance(here, Status) or not isinstance(above, Status):
            return False
        return here.device != above.device or here.inode == above.inode

    def table(self, owner: Owner, views: Sequence[View]) -> tuple[list[HomeTable], Report]:
        """The rules of one home in each view, and its state; one table where the view does not matter.

        Nothing of it is kept: the tables are the parent's to keep.
        """
        for model in self._preparing:
            model.prepare()
        home = self._opened(owner)
        try:
            found = home_tables(home, owner.dash, views)
            return found, self._report(owner, home, found[0].table)
        finally:
            home.close()

    def tables(self, wanted: Sequence[tuple[Owner, Sequence[View]]]) -> list[tuple[list[HomeTable], Report]]:
        """The rules of several homes."""
        return [self.table(owner, views) for owner, views in wanted]

    def sizes(self, owners: Sequence[Owner]) -> list[int]:
        """How many dot-qmail files each home has; none where that cannot be seen."""
        found = []
        for owner in owners:
            home = self._opened(owner)
            try:
                found.append(len(home.listing() or ()))
            except IdentityUnavailable:
                found.append(0)
            finally:
                home.close()
        return found

    def _report(self, owner: Owner, home: Home, table: Table) -> Report:
        if home.failure is not None:
            return Report(owner.home, State.FAILED, os.strerror(home.failure.errno))
        for trouble in sorted(home.troubles, key=lambda one: not one.failed):
            state = State.FAILED if trouble.failed else State.SUSPECT
            return Report(owner.home, state, f"{shown(trouble.path)}: {trouble.reason}")
        of_home = home.state()
        if of_home is not None and of_home.verdict is Verdict.DEFER:
            return Report(owner.home, State.DEFERRING, of_home.reason)
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


def _no_shortage(found: object, doing: str) -> None:
    """Raises Shortage where a look failed for want of something of our own."""
    if isinstance(found, FailedForNow) and found.shortage:
        raise Shortage(f"{doing}: {os.strerror(found.errno)}")


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
        except RcptgenError as error:
            answer = error
        except MemoryError:
            answer = WorkerLost(NO_MEMORY)
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise
            answer = Shortage(f"the worker: {os.strerror(error.errno or 0)}")
        try:
            try:
                pipe.send(answer)
            except MemoryError:
                pipe.send(WorkerLost(NO_MEMORY))
        except OSError:
            # Whoever asked was killed, or gave up.
            return


# -- the parent's side --------------------------------------------------------------------------


NO_MEMORY = "out of memory in the worker"


class WorkerLost(Shortage):
    """The worker ended in the middle of an answer, or had no memory for it."""


class Silent(Exception):
    """The worker gave no answer in time; it was killed."""


def _why(error: Exception) -> str:
    return f" ({error})" if str(error) else ""


class Worker:
    """One worker process and the pipe to it; starts again by itself after a kill."""

    def __init__(
        self, root: bytes, settings: Settings, config: Config | None = None, *, time_limit: float = TIME_LIMIT
    ) -> None:
        self._session = _Session(root, "auto", settings, config or Config())
        self._time_limit = time_limit
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection[Any, Any] | None = None
        self._begun = ""

    def ask(self, name: str, *arguments: Any) -> Any:
        """The worker's answer.

        Raises Silent where there is none in time, WorkerLost where it ended or had no memory
        for it, and the RcptgenError that is its answer: Shortage where it ran out of something.
        """
        self.begin(name, *arguments)
        return self.finish()

    def begin(self, name: str, *arguments: Any) -> None:
        """Asks, and leaves the worker to it; `finish` must come next.  Raises Shortage where no worker starts."""
        if self._pipe is None:
            self._start()
        self._send(name, arguments)

    def finish(self) -> Any:
        """The answer to what was begun; see `ask`."""
        try:
            answer = self._receive()
        except (EOFError, OSError) as error:
            self._kill()
            raise WorkerLost(f"the worker process ended while it read the host{_why(error)}") from None
        if isinstance(answer, WorkerLost):
            self._kill()
        if isinstance(answer, RcptgenError):
            raise answer
        return answer

    def _exchange(self, name: str, arguments: tuple[Any, ...]) -> Any:
        self._send(name, arguments)
        return self._receive()

    def _send(self, name: str, arguments: tuple[Any, ...]) -> None:
        assert self._pipe is not None
        self._begun = name
        try:
            self._pipe.send((name, arguments))
        except OSError:
            # It has ended; `_receive` will find out.
            pass

    def _receive(self) -> Any:
        assert self._pipe is not None
        worked = self._worked()
        rounds = 0
        while not self._pipe.poll(self._time_limit):
            # A large home takes long, a dead mount does nothing at all.
            rounds += 1
            before, worked = worked, self._worked()
            if worked - before < SIGN_OF_LIFE * self._time_limit or rounds >= MOST_ROUNDS:
                self._kill()
                raise Silent(self._begun)
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
        try:
            answer = self._exchange("open", (self._session,))
        except (EOFError, OSError, Silent) as error:
            self._kill()
            raise Shortage(f"the worker process did not start{_why(error)}") from None
        if isinstance(answer, RcptgenError):
            self._kill()
            raise Shortage(str(answer)) if isinstance(answer, WorkerLost) else answer

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
    """

    worker: Worker
    helpers: Sequence[Worker] = ()
    reports: dict[bytes, Report] = field(default_factory=dict)
    failed_owners: dict[Owner, Report] = field(default_factory=dict)
    suspect_owners: dict[Owner, Report] = field(default_factory=dict)
    _tables: OrderedDict[tuple[Owner, View | None], HomeTable] = field(default_factory=OrderedDict)
    _passing: OrderedDict[tuple[Owner, View], HomeTable] = field(default_factory=OrderedDict)
    _names: int = 0
    _pending: list[tuple[Worker, Sequence[tuple[Owner, Sequence[View]]]]] = field(default_factory=list)
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
        known = self.reports.get(report.path)
        if known is None or known.state.weight <= report.state.weight:
            self.reports[report.path] = report

    def table(self, owner: Owner, view: View, others: Sequence[View] = ()) -> HomeTable:
        """The rules of a home as `view` shows them.  A home that cannot be read for now defers everything.

        `others` are views of the same home that will be asked for later: it is read once for all.
        """
        known = self._known(owner, view)
        if known is None and self._pending:
            self.collect()
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

    def ahead(self, wanted: Iterable[tuple[Owner, Sequence[View]]]) -> None:
        """Begins to read homes that will be wanted next, in one go; what does not answer is left to `table`."""
        self.collect()
        unanswered = self._unanswered
        asked: dict[Owner, list[View]] = {}
        for owner, views in wanted:
            if self._known(owner, views[0]) is None and unanswered.reason(_home_of(owner)) is None:
                asked.setdefault(owner, []).extend(views)
        if len(asked) < 2:
            return
        workers = [self.worker, *self.helpers] if len(asked) >= WORTH_HELP else [self.worker]
        items = list(asked.items())
        for at, worker in enumerate(workers):
            share = items[at :: len(workers)]
            worker.begin("tables", share)
            self._pending.append((worker, share))

    def collect(self) -> None:
        """Takes what was asked for ahead."""
        pending, self._pending = self._pending, []
        unanswered = self._unanswered
        for worker, asked in pending:
            homes = [_home_of(owner) for owner, _ in asked]
            try:
                answers = worker.finish()
            except Silent:
                unanswered.silent(homes)
                continue
            except WorkerLost:
                continue
            unanswered.answered()
            unanswered.heard(homes)
            for (owner, views), (found, report) in zip(asked, answers, strict=True):
                self._take(owner, views, found, report)

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


def _home_of(owner: Owner) -> _Home:
    return owner.uid, owner.home


def _unread(owner: Owner, reason: str) -> tuple[list[HomeTable], Report]:
    """What stands for the rules of a home that cannot be read for now: it defers everything."""
    everything = Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, owner.home)
    return [HomeTable(Table({}, {b"": everything}))], Report(owner.home, State.FAILED, reason)
