"""The worker's side: reads homes and files, each with the identity of its owner.

A worker is a process of its own: one thread, real uid 0, which takes the identity of the
record that owns a home around each access.  It answers requests until its pipe closes.
"""

from __future__ import annotations

import enum
import errno
import gc
import os
import signal
import stat
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby
from multiprocessing.connection import Connection
from typing import Any

from rcptgen.config import Config
from rcptgen.errors import RcptgenError, Shortage
from rcptgen.programs import builtin_models
from rcptgen.programs.shell import run_line
from rcptgen.programs.shellparse import plain_command
from rcptgen.programs.vdelivermail import VDeliverMail
from rcptgen.qmail.environment import View
from rcptgen.qmail.home import Home
from rcptgen.qmail.homeleads import leads as home_leads
from rcptgen.qmail.hometable import HomeTable, home_tables
from rcptgen.qmail.hometrace import trace as home_trace
from rcptgen.qmail.judged import Settings, Step
from rcptgen.qmail.leads import Leads
from rcptgen.qmail.model import Effect, Preparing, Presence, Situation, Teller
from rcptgen.qmail.ordinary import MOST_NAMES, ordinary_home
from rcptgen.qmail.users import Owner
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.shown import shown
from rcptgen.rules.table import Table
from rcptgen.source import looked
from rcptgen.source.footprint import Footprint
from rcptgen.source.looked import Since, changed
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
from rcptgen.survey import Survey, survey

MOST_HOMES = 4096
MOST_OPEN_HOMES = 256
SELDOM = (100_000, 50, 100)
"""How often the collector of cycles looks, in a process that makes millions of objects and no cycles."""

Found = Regular | Absent | Refused | FailedForNow | NotRegular | TooLarge


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
    """One unit and its state; `path` is what it was read from, `reason` why it is not healthy.

    `seconds` is what reading it took, 0 where nobody looked at the clock.
    """

    path: bytes
    state: State
    reason: str = ""
    looked_at: bytes = b""
    """What it was read from (rcptgen.source.looked), where that is recorded."""
    seconds: float = field(default=0.0, compare=False)

    def __reduce__(self) -> tuple[type[Report], tuple[object, ...]]:
        # See Outcome.__reduce__.
        return Report, (self.path, self.state, self.reason, self.looked_at, self.seconds)


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
class Session:
    """What a worker is told once: which host to read, how it is configured."""

    root: bytes
    access: str
    settings: Settings
    config: Config = field(default_factory=Config)
    record: bool = False


NO_MEMORY = "out of memory in the worker"


class WorkerLost(Shortage):
    """The worker ended in the middle of an answer, or had no memory for it."""


class Reader:
    """Does the reading.  One of these lives in each worker."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._tree = SourceTree(session.root, access=session.access, record=session.record)  # type: ignore[arg-type]
        self._settings = session.settings
        self._common = Footprint()
        self._common_since = time.time_ns()
        self._use_models()
        self._hanging: set[bytes] = set()
        self._programs: dict[tuple[Identity, bytes], Presence] = {}
        self._homes: OrderedDict[tuple[bytes, int, int, bytes], Home] = OrderedDict()
        self._open: OrderedDict[tuple[bytes, int, int, bytes], Home] = OrderedDict()

    def _use_models(self) -> None:
        """Every program has a new model, which has not read anything."""
        self._models = builtin_models(
            self._session.config, root=self._session.root, look_at_mailboxes=self._settings.look_at_mailboxes
        )
        self._preparing = [model for model in self._models.values() if isinstance(model, Preparing)]
        delivers = self._models.get(b"vdelivermail")
        self._domains = delivers.ordinary() if isinstance(delivers, VDeliverMail) else None
        self._tellers = {name: model for name, model in self._models.items() if isinstance(model, Teller)}

    def _run_line(self, line: bytes, situation: Situation) -> Effect:
        return run_line(line, situation, self._models)

    def _opened(self, owner: Owner) -> Home:
        return Home(
            self._tree,
            owner,
            self._settings,
            self._run_line,
            plain=self._is_plain,
            tellers=self._teller,
            hanging=self._hanging,
            programs=self._programs,
        )

    def _is_plain(self, line: bytes) -> bool:
        words = plain_command(line)
        return words is not None and words[0].rpartition(b"/")[2] in self._models

    def _teller(self, line: bytes) -> tuple[tuple[bytes, ...], Teller] | None:
        words = plain_command(line)
        model = None if words is None else self._tellers.get(words[0].rpartition(b"/")[2])
        return (words, model) if words is not None and model is not None and model.tells(words) else None

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
        with nullcontext() if identity is None else self._tree.acting_as(identity):
            found = self._tree.read(path, limit=limit)
        # At once: what is judged next leaves nothing of what was looked at.
        self._set_aside()
        return found

    def qualify(self, accounts: Sequence[Account], identity: Identity, directory: bytes) -> list[bool | FailedForNow]:
        """For each account whether its home is there and its own (qmail-getpw.c: userext)."""
        self._set_aside()
        try:
            with self._tree.acting_as(identity):
                answers = [self._qualifies(account, directory) for account in accounts]
            # Nothing but the owner of a home counts, and that is asked again each time.
            self._tree.take_footprint()
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
        self._set_aside()
        try:
            return [path for path in directories if not self._names(path)]
        finally:
            self._tree.take_footprint()

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
        self._set_aside()
        try:
            return [path for path in paths if not self._is_mount(path)]
        finally:
            self._tree.take_footprint()

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
        self._set_aside()
        began, begun = time.time_ns(), time.monotonic()
        home = self._opened(owner)
        try:
            found = home_tables(home, owner.dash, views)
            report = self._report(owner, home, found[0].table)
        finally:
            home.close()
        seen = looked.pack(self._tree.take_footprint(), owner.home, began) if self._tree.record else b""
        return found, replace(report, looked_at=seen, seconds=time.monotonic() - begun)

    def _set_aside(self) -> None:
        """What was looked at since the last home was is nobody's own."""
        if self._tree.record and len(self._tree.footprint):
            self._common.merge(self._tree.take_footprint())

    def common(self) -> bytes:
        """All that was looked at so far, but for homes (rcptgen.source.looked)."""
        self._set_aside()
        return looked.pack(self._common, b"/", self._common_since)

    def refresh(self) -> None:
        """Nothing that was read for several homes at once is taken for what is there now."""
        self._use_models()
        self._programs.clear()
        for home in self._homes.values():
            home.close()
        self._homes.clear()
        self._open.clear()
        # The control files are not read anew by that: what is known of them still counts.
        self._set_aside()

    def is_stale(self) -> bool:
        """Whether a database says something else than what was read of it, or may."""
        return any(model.is_stale() for model in self._preparing)

    def changed(self, units: Sequence[tuple[Identity | None, bytes, bytes]]) -> list[Since]:
        """For each unit (whose eyes, its home, what it was read from) whether any of that is not what it was."""
        found = [self._changed(*one) for one in units]
        self._tree.take_footprint()
        return found

    def _changed(self, identity: Identity | None, home: bytes, looked_at: bytes) -> Since:
        try:
            with nullcontext() if identity is None else self._tree.acting_as(identity):
                return changed(self._tree, home, looked_at)
        except IdentityUnavailable:
            return Since.YOUNG

    def tables(self, wanted: Sequence[tuple[Owner, Sequence[View]]]) -> list[tuple[list[HomeTable], Report]]:
        """The rules of several homes.

        An identity is taken once for those that follow each other and are the same owner's, and
        given back before any home that is not of the ordinary kind is read.
        """
        for model in self._preparing:
            model.prepare()
        self._set_aside()
        found: list[tuple[list[HomeTable], Report] | None] = []
        for identity, homes in groupby(wanted, lambda one: Identity(one[0].uid, one[0].gid)):
            some = list(homes)
            try:
                with self._tree.acting_as(identity):
                    found += [self._tried(identity, owner, views) for owner, views in some]
            except IdentityUnavailable:
                found += [None] * len(some)
        return [answer or self.table(owner, views) for answer, (owner, views) in zip(found, wanted, strict=True)]

    def _tried(self, identity: Identity, owner: Owner, views: Sequence[View]) -> tuple[list[HomeTable], Report] | None:
        """As `_ordinary`; a home that is none is looked at from the beginning by whoever reads it."""
        answer = self._ordinary(identity, owner, views)
        if answer is None and self._tree.record:
            self._tree.take_footprint()
        return answer

    def _ordinary(
        self, identity: Identity, owner: Owner, views: Sequence[View]
    ) -> tuple[list[HomeTable], Report] | None:
        """As `table`, for a home of the ordinary kind, while the identity is taken; None for another."""
        domains = self._domains
        if domains is None or not domains.usable or len(views) != 1:
            return None
        began = time.time_ns()
        home = ordinary_home(self._tree, owner, self._settings)
        if home is None:
            return None
        try:
            words = [self._delivers(line, identity) for line in (home.default, *(line for _, line in home.programs))]
            known = [one for one in words if one is not None]
            kind = Kind.ALIAS if owner.user == self._settings.alias_user else Kind.FORWARD
            table = domains.table(home, identity, kind, views[0], known) if len(known) == len(words) else None
        except MemoryError:
            table = None
        finally:
            home.entered.close()
        if table is None:
            return None
        seen = looked.pack(self._tree.take_footprint(), owner.home, began) if self._tree.record else b""
        return [table], Report(owner.home, State.HEALTHY, looked_at=seen)

    def _delivers(self, line: bytes, identity: Identity) -> tuple[bytes, ...] | None:
        """The words of a line that is vdelivermail, known to be there, and nothing else."""
        words = plain_command(line)
        if words is None or len(words) != 3 or not words[0].startswith(b"/"):
            return None
        model = self._models.get(words[0].rpartition(b"/")[2])
        there = self._programs.get((identity, words[0])) is Presence.FOUND
        if self._tree.record and there:
            # Each home has what it was judged by in its own footprint.
            found = self._tree.accessible(words[0], os.X_OK)
            there = isinstance(found, Status) and stat.S_ISREG(found.mode)
        return words if there and isinstance(model, VDeliverMail) else None

    def sizes(self, owners: Sequence[Owner]) -> list[int]:
        """How many dot-qmail files each home has; none where that cannot be seen."""
        found: list[int] = []
        for identity, homes in groupby(owners, lambda one: Identity(one.uid, one.gid)):
            some = list(homes)
            try:
                with self._tree.acting_as(identity):
                    sizes = [self._size(owner) for owner in some]
            except IdentityUnavailable:
                sizes = [0] * len(some)
            found += [self._full_size(owner) if size is None else size for owner, size in zip(some, sizes, strict=True)]
        return found

    def _size(self, owner: Owner) -> int | None:
        """How many dot-qmail files an ordinary home has, while its identity is taken; None for another."""
        entered = self._tree.enter(owner.home, most=MOST_NAMES) if owner.home.startswith(b"/") else None
        if entered is None:
            return None
        entered.close()
        return sum(name.startswith(b".qmail") for name in entered.names)

    def _full_size(self, owner: Owner) -> int:
        home = self._opened(owner)
        try:
            return len(home.listing() or ())
        except IdentityUnavailable:
            return 0
        finally:
            home.close()

    def surveys(self, owners: Sequence[Owner]) -> list[Survey]:
        """What a person should look at in each home."""
        return [self._surveyed(owner) for owner in owners]

    def _surveyed(self, owner: Owner) -> Survey:
        home = self._opened(owner)
        try:
            return survey(home, self._models)
        finally:
            home.close()

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
            if explain:
                found = home_trace(home, one.owner.dash, one.extension, one.local, one.host, steps)
            else:
                found = home.judge(one.owner.dash, one.extension, one.local, one.host)
            answers.append((found, steps))
        # What one address takes is never all that its home is read from.
        self._tree.take_footprint()
        return answers

    def leads(self, questions: Sequence[Question], whole: bool) -> list[tuple[Outcome, Leads]]:
        """What the homes do with the addresses, and where their mail goes."""
        return [
            home_leads(self._home(one.owner), one.owner.dash, one.extension, one.local, one.host, whole=whole)
            for one in questions
        ]


def _no_shortage(found: object, doing: str) -> None:
    """Raises Shortage where a look failed for want of something of our own."""
    if isinstance(found, FailedForNow) and found.shortage:
        raise Shortage(f"{doing}: {os.strerror(found.errno)}")


def serve(descriptor: int) -> None:
    """The worker: answers requests from `descriptor` until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o077)
    # What is made here is handed on, or dropped at once: looking for cycles in it costs a tenth of the time.
    gc.set_threshold(*SELDOM)
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
