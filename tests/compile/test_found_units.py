"""Homes that hang, homes that cost their worker, and homes that look different from two sides."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from runs import Names, Site, faults, forked_workers

import rcptgen.cli
from rcptgen import localspace, units
from rcptgen.errors import Shortage, SourceFailed
from rcptgen.localspace import Claim, LocalSpace
from rcptgen.qmail.environment import View
from rcptgen.qmail.hometable import HomeTable
from rcptgen.qmail.judged import Settings
from rcptgen.qmail.passwd import Account as Passwd
from rcptgen.qmail.users import Owner
from rcptgen.reader import Account, Question, Reader, Report, Session, State, WorkerLost
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table
from rcptgen.source.tree import Absent, Directory, FailedForNow, Identity, IdentityUnavailable, Refused, SourceTree
from rcptgen.units import Units
from rcptgen.worker import Silent, Worker

pytestmark = pytest.mark.root

MAIL = Outcome(Verdict.DELIVER, Kind.MAILBOX, "mbox", b"/home/x/.qmail-", 1, named_from=0)
FINE = HomeTable(Table({}, {b"": MAIL}))
NOFILES = Identity(7791, 2107)
VIEW = View(b"example.org", b"x-", b"")


def owner(home: str) -> Owner:
    return Owner(os.path.basename(home).encode(), 1001, 1001, home.encode(), b"-")


class Deaf(Worker):
    """A worker that answers nothing about some homes, and that some homes cost: without a process."""

    def __init__(self, silent: Iterable[bytes] = (), lost: Iterable[bytes] = ()) -> None:
        super().__init__(b"/", Settings())
        self.silent, self.lost = tuple(silent), tuple(lost)
        self.waits = 0
        self.asked: list[bytes] = []
        self.wanted: list[tuple[str, tuple[Any, ...]]] = []

    def ask(self, name: str, *arguments: Any) -> Any:
        things = [arguments[0]] if name == "table" else arguments[0]
        homes = [self._home(one) for one in things]
        self.asked += homes
        if any(home.startswith(self.silent) for home in homes):
            self.waits += 1
            raise Silent(name)
        if any(home.startswith(self.lost) for home in homes):
            raise WorkerLost("the worker process ended")
        answers = [self._answer(name, one) for one in things]
        return answers[0] if name == "table" else answers

    def begin(self, name: str, *arguments: Any) -> int:
        self.wanted.append((name, arguments))
        return 0

    def ready(self, life: int) -> bool:
        return False

    def finish(self, life: int) -> Any:
        name, arguments = self.wanted.pop(0)
        return self.ask(name, *arguments)

    def _home(self, one: Account | Owner | Question | tuple[Owner, Sequence[View]]) -> bytes:
        if isinstance(one, Question):
            return one.owner.home
        return one.home if isinstance(one, Account | Owner) else one[0].home

    def _answer(self, name: str, one: Any) -> Any:
        if name == "qualify":
            return True
        if name == "judge":
            return MAIL, []
        home = one.home if name == "table" else one[0].home
        return [FINE], Report(home, State.HEALTHY)


def failed(found: Units) -> set[bytes]:
    return {one.path for one in found.unhealthy() if one.state is State.FAILED}


# --- homes that do not answer ------------------------------------------------------------------


HOMES = [f"/home/u{number:03}" for number in range(150)] + [f"/dead/u{number:03}" for number in range(300)]
DEAD = {home.encode() for home in HOMES if home.startswith("/dead")}


def test_dead_mount_costs_three_waits_for_getpws_look() -> None:
    worker = Deaf(silent=[b"/dead/"])
    accounts = [Account(home.encode(), 1001) for home in HOMES]
    answers = Units(worker).qualify(accounts, NOFILES, b"/var/qmail")
    assert answers == [FailedForNow(errno.ETIMEDOUT) if one.home in DEAD else True for one in accounts]
    assert worker.waits == 3


def test_dead_mount_costs_few_waits_for_the_rules() -> None:
    worker = Deaf(silent=[b"/dead/"])
    found = Units(worker)
    owners = [owner(home) for home in HOMES]
    for at in range(0, len(owners), 64):
        found.ahead((one, (VIEW,)) for one in owners[at : at + 64])
        for one in owners[at : at + 64]:
            found.table(one, VIEW)
    assert failed(found) == DEAD
    assert {one.home for one in found.failed_owners} == DEAD
    assert len(found.reports) == len(HOMES)
    assert worker.waits == 3
    # Nobody asks again, nor about addresses.
    answers = found.judge([Question(one, b"x", b"x", b"example.org") for one in owners])
    assert [verdict.verdict is Verdict.DEFER for verdict, _ in answers] == [one.home in DEAD for one in owners]
    assert worker.waits == 3


def test_dead_mount_costs_few_waits_for_questions() -> None:
    worker = Deaf(silent=[b"/dead/"])
    questions = [Question(owner(home), b"x", b"x", b"example.org") for home in HOMES for _ in range(2)]
    answers = Units(worker).judge(questions)
    assert [found.verdict is Verdict.DEFER for found, _ in answers] == [one.owner.home in DEAD for one in questions]
    assert worker.waits == 3


def test_scattered_silence_is_paid_for_only_so_often() -> None:
    """Homes of a dead mount that all have parents of their own."""
    dead = [owner(f"/dead/{number}/u") for number in range(3000)]
    worker = Deaf(silent=[b"/dead/"])
    found = Units(worker)
    for at in range(0, len(dead), 64):
        found.ahead((one, (VIEW,)) for one in dead[at : at + 64])
        for one in dead[at : at + 64]:
            found.table(one, VIEW)
    assert failed(found) == {one.home for one in dead}
    assert worker.waits <= 2 * units.MOST_SILENCES


def test_homes_that_answered_are_still_asked_after_many_silences() -> None:
    dead = [f"/dead/{number}/u" for number in range(units.MOST_SILENCES + 5)]
    worker = Deaf(silent=[b"/dead/"])
    found = Units(worker)
    accounts = [Account(home.encode(), 1001) for home in ["/home/a", *dead, "/home/b"]]
    answers = found.qualify(accounts, NOFILES, b"/var/qmail")
    assert answers[0] is True
    # One that nothing was heard of since counts as silent too.
    assert answers[1:] == [FailedForNow(errno.ETIMEDOUT)] * (len(accounts) - 1)
    assert worker.waits == units.MOST_SILENCES
    found.ahead((owner(f"/home/{name}"), (VIEW,)) for name in "acd")
    assert found.table(owner("/home/a"), VIEW).table.prefixes[b""] is MAIL
    assert found.table(owner("/home/e"), VIEW).table.prefixes[b""] is MAIL
    assert failed(found) == set()


def test_hanging_homes_of_a_host(tmp_path: Path) -> None:
    users = {f"u{number:02}": 2000 + number for number in range(20)}
    site = Site(tmp_path, {"passwd": users, "control/me": "example.org\n", "alias/.qmail-postmaster": "u00\n"})
    site.published()
    with faults(hang=(b"/home",), time_limit=0.5):
        done = site.compile()
    assert done.status == 75
    assert done.states == {f"/home/{name}": "failed" for name in users}
    assert all(site.accepts(f"{name}@example.org") for name in users)
    assert site.accepts("postmaster@example.org")


# --- homes that cost their worker --------------------------------------------------------------


NAMES: Names = {
    "passwd": {"joe": 1001, "ann": 1002},
    "control/me": "example.org\n",
    "~joe/.qmail-list": "./Maildir/\n",
    "~ann/.qmail-news": "./Maildir/\n",
    "alias/.qmail-postmaster": "joe\n",
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, NAMES)


def test_home_that_kills_its_worker_fails_alone(site: Site) -> None:
    site.published()
    site.host.write("~ann/.qmail-new", "./Maildir/\n")
    site.host.remove("~joe/.qmail-list")
    with faults(kill=(b"/home/joe",)):
        done = site.compile()
    assert done.status == 75, done
    assert done.states == {"/home/joe": "failed"}
    assert "worker" in done.kept["/home/joe"]
    assert site.accepts("joe-list@example.org")
    assert site.accepts("ann-new@example.org")
    assert not site.accepts("ann-nosuch@example.org")


def test_home_without_memory_fails_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.published()
    site.host.write("~ann/.qmail-new", "./Maildir/\n")
    real = SourceTree.directory

    def directory(tree: SourceTree, path: bytes, **named: Any) -> Any:
        if path == b"/home/joe":
            raise MemoryError
        return real(tree, path, **named)

    monkeypatch.setattr(SourceTree, "directory", directory)
    done = site.compile()
    assert done.status == 75, done
    assert done.states == {"/home/joe": "failed"}
    assert "memory" in done.kept["/home/joe"]
    assert site.accepts("ann-new@example.org")


def test_worker_killed_once_is_no_failure(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's kill -9 in the middle of a run: another worker reads the home."""
    real = SourceTree.directory
    killed = mmap.mmap(-1, 1)  # shared with the workers, whoever they are at the time

    def directory(tree: SourceTree, path: bytes, **named: Any) -> Any:
        if path == b"/home/joe" and not killed[0]:
            killed[0] = 1
            os._exit(1)
        return real(tree, path, **named)

    monkeypatch.setattr(SourceTree, "directory", directory)
    site.published()
    assert killed[0]
    assert site.accepts("joe-list@example.org")
    assert not site.accepts("joe-nosuch@example.org")


def test_homes_in_a_row_that_cost_their_worker_are_our_shortage() -> None:
    found = Units(Deaf(lost=[b"/bad/"]))
    for name in ("a", "b"):
        found.table(owner(f"/bad/{name}"), VIEW)
    found.table(owner("/home/fine"), VIEW)
    for name in ("c", "d"):
        found.table(owner(f"/bad/{name}"), VIEW)
    assert failed(found) == {b"/bad/a", b"/bad/b", b"/bad/c", b"/bad/d"}
    with pytest.raises(Shortage):
        found.table(owner("/bad/e"), VIEW)


def test_homes_ahead_that_cost_their_worker_are_asked_alone() -> None:
    worker = Deaf(lost=[b"/bad/"])
    found = Units(worker)
    owners = [owner("/home/a"), owner("/bad/b"), owner("/home/c")]
    found.ahead((one, (VIEW,)) for one in owners)
    assert [found.table(one, VIEW).table.prefixes[b""].verdict for one in owners] == [
        Verdict.DELIVER,
        Verdict.DEFER,
        Verdict.DELIVER,
    ]
    assert failed(found) == {b"/bad/b"}


def test_worker_that_does_not_start_is_our_shortage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Reader, "__init__", out_of_memory)
    with forked_workers():
        worker = Worker(os.fsencode(tmp_path), Settings())
        try:
            with pytest.raises(Shortage) as caught:
                worker.ask("table", owner("/home/joe"), [VIEW])
        finally:
            worker.close()
    assert not isinstance(caught.value, WorkerLost)


# --- states that do not agree ------------------------------------------------------------------


@pytest.mark.parametrize("first", State)
@pytest.mark.parametrize("second", State)
def test_worse_state_of_a_path_stays(first: State, second: State) -> None:
    found = Units(Deaf())
    for state in (first, second):
        found.note(Report(b"/home/shared", state, state.value))
    worst = {state.weight: state for state in (first, second)}
    assert found.reports[b"/home/shared"].state is worst[max(worst)]


def test_shared_home_that_fails_for_one_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assign = "+a-:joe:1001:1001:/home/joe:-::\n+b-:joe:1001:1002:/home/joe:-::\n.\n"
    site = Site(tmp_path, {**NAMES, "users/assign": assign})
    real = Reader.table

    def table(reader: Reader, one: Owner, views: Sequence[View]) -> tuple[list[HomeTable], Report]:
        found, report = real(reader, one, views)
        if one.home == b"/home/joe" and one.gid == 1001 and one.dash:
            report = Report(one.home, State.FAILED, "Stale file handle")
        return found, report

    monkeypatch.setattr(Reader, "table", table)
    done = site.compile()
    assert done.status == 75
    assert done.states == {"/home/joe": "failed"}


# --- looks at directories and mounts -----------------------------------------------------------


def reader(root: Path) -> Reader:
    return Reader(Session(os.fsencode(root), "auto", Settings()))


def test_directories_that_cannot_be_listed_count_as_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("full", "empty", "refused", "failed", "closed"):
        (tmp_path / name).mkdir()
        if name != "empty":
            (tmp_path / name / "file").touch()
    real_names, real_directory = Directory.names, SourceTree.directory
    answers: dict[bytes, Any] = {b"/refused": Refused(errno.EACCES), b"/failed": FailedForNow(errno.EIO)}

    def names(directory: Directory, **named: Any) -> Any:
        return answers.get(directory.path) or real_names(directory, **named)

    def directory(tree: SourceTree, path: bytes, **named: Any) -> Any:
        return FailedForNow(errno.ESTALE) if path == b"/closed" else real_directory(tree, path, **named)

    monkeypatch.setattr(Directory, "names", names)
    monkeypatch.setattr(SourceTree, "directory", directory)
    asked = [b"/full", b"/empty", b"/refused", b"/failed", b"/closed", b"/absent"]
    assert reader(tmp_path).emptied(asked) == asked[1:]


class Mute(Worker):
    """A worker that never answers."""

    def ask(self, name: str, *arguments: Any) -> Any:
        raise Silent(name)


@pytest.mark.parametrize("question", ["emptied", "mounted"])
def test_silence_about_directories_is_trouble_for_all(question: str) -> None:
    found = Units(Mute(b"/", Settings()))
    assert getattr(found, question)([b"/home", b"/mnt"]) == [b"/home", b"/mnt"]


def test_mount_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [b"/", b"/proc", b"/proc/", b"/usr/bin", b"/proc/self", b"/etc/passwd", b"/nowhere", b"proc"]
    away = {one for one in asked if not os.path.ismount(one)} | {b"proc"}
    assert b"/proc" not in away
    live = reader(Path("/"))
    assert live.mounted(asked) == [one for one in asked if one in away]
    (tmp_path / "proc").mkdir()
    (tmp_path / "link").symlink_to("proc")
    assert reader(tmp_path).mounted([b"/", b"/proc", b"/link"]) == [b"/proc", b"/link"]
    for number in (errno.EIO, errno.ENOENT):
        answer: Any = FailedForNow(number) if number == errno.EIO else Absent(number)
        monkeypatch.setattr(SourceTree, "status", lambda tree, path, answer=answer: answer)
        assert live.mounted([b"/proc"]) == [b"/proc"]


# --- identities, memory ------------------------------------------------------------------------


def without_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    def acting_as(tree: SourceTree, identity: Identity) -> Any:
        raise IdentityUnavailable("uid 7791 cannot be taken") from PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(SourceTree, "acting_as", acting_as)


def test_getpws_identity_that_cannot_be_taken_defers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_identity(monkeypatch)
    answers = reader(tmp_path).qualify([Account(b"/home/joe", 1001), Account(b"", 1002)], NOFILES, b"/var/qmail")
    assert answers == [FailedForNow(errno.EPERM)] * 2


def test_errors_of_the_worker_are_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_identity(monkeypatch)
    with forked_workers():
        worker = Worker(os.fsencode(tmp_path), Settings())
        try:
            with pytest.raises(SourceFailed, match="cannot be taken"):
                worker.ask("read", b"/file", NOFILES, 1000)
            assert isinstance(worker.ask("read", b"/file", None, 1000), Absent)
        finally:
            worker.close()


def test_homes_kept_by_the_worker_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rcptgen.reader.MOST_HOMES", 10)
    monkeypatch.setattr("rcptgen.reader.MOST_OPEN_HOMES", 20)
    found = reader(tmp_path)
    for number in range(50):
        found.judge([Question(owner(f"/home/u{number % 30}"), b"x", b"x", b"example.org")], False)
    assert len(found._homes) == 10
    assert found._open.keys() <= found._homes.keys()


def test_own_lack_of_memory_is_no_bug(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(rcptgen.cli._Lazy, "invoke", out_of_memory)
    done = site.run("compile", "-t", site.output)
    assert done.err == "rcptgen: out of memory\n"
    assert done.status in (1, 2)
    monkeypatch.undo()
    monkeypatch.setattr("rcptgen.cli.compile_.compile_host", out_of_memory)
    done = site.run("compile", "-t", site.output)
    assert (done.status, done.err) == (1, "rcptgen: out of memory\n")


# --- spellings ---------------------------------------------------------------------------------


def test_spellings_of_one_claim_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localspace, "MOST_SPELLINGS", 100)
    names = [b"n%03d:a:b:c:d" % number for number in range(50)]
    alias = Passwd(b"alias", 7790, 2108, b"/var/qmail/alias")
    views = []
    for order in (names, names[::-1]):
        space = LocalSpace(None, {}, alias, break_=b"-", users_file=b"users/cdb", passwd_file=b"passwd")
        table = Table(dict.fromkeys(order, MAIL), {b"": MAIL, b"p:": MAIL})

        def table_of(claim: Claim, table: Table = table) -> HomeTable:
            return HomeTable(table)

        views.append(space.flatten(b"", table_of))
    (first, unsayable), (second, other) = views
    # 100 = 7 names with 14 spellings more than the two plain ones, and two to spare.
    assert len(dict(first.exact())) == 7 * 16 + 43 * 2
    assert {one.rule for one in unsayable} == set(names[7:])
    assert dict(first.exact()) == dict(second.exact())
    assert unsayable == other
    assert first.prefixes.keys() == {b"", b"p:", b"p."}
