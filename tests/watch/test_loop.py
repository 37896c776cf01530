"""The loop of the service with a compiler, a manager and clients that are none: no process, no host."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rcptgen.errors import PublishFailed
from rcptgen.keeper import Paths, Unit
from rcptgen.publish.history import Rollback
from rcptgen.request import Result
from rcptgen.watch import service
from rcptgen.watch.pace import Pace
from rcptgen.watch.service import Service, Times
from rcptgen.watch.trigger import Asked

HOME = b"/home"
SOON = 20.0


@dataclass
class Compiler:
    """Notes what it is asked for; `fails` is raised by the next looks, one by one."""

    fails: list[Exception] = field(default_factory=list)
    asked: list[object] = field(default_factory=list)
    result: Result = field(default_factory=Result)
    changed: set[Unit] = field(default_factory=set)
    fresh: list[tuple[Unit, Paths]] = field(default_factory=list)

    def everything(self, reason: str) -> Result:
        self.asked.append(reason)
        if self.fails:
            raise self.fails.pop()
        self.fresh = [(HOME, Paths((), (HOME,)))]
        return self.result

    def touched(self, units: set[Unit], reason: str) -> Result | None:
        self.asked.append(frozenset(units))
        if self.fails:
            raise self.fails.pop()
        self.fresh = [(unit, Paths((), (HOME,))) for unit in units]
        return None

    def read(self) -> tuple[list[tuple[Unit, Paths]], list[Unit]]:
        found, self.fresh = self.fresh, []
        return found, []

    def swept(self, units: Iterable[Unit] | None = None) -> set[Unit]:
        return set(self.changed) if units is None else self.changed & set(units)

    def moved(self, units: Iterable[Unit]) -> set[Unit]:
        return set()

    def databases(self) -> set[Unit]:
        return set()

    def polled(self) -> set[Unit]:
        return set()

    def units_of(self, domains: Sequence[bytes]) -> set[Unit]:
        return {HOME}


@dataclass
class Manager:
    """Notes what it is told."""

    interval: float | None = None
    told: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def ready(self, status: str = "") -> None:
        self.told.append("ready")
        self.said.append(status)

    def status(self, text: str) -> None:
        self.said.append(text)

    def watchdog(self) -> None:
        self.told.append("watchdog")

    def reloading(self) -> None:
        self.told.append("reloading")

    def stopping(self) -> None:
        self.told.append("stopping")

    def extend(self, seconds: float) -> None:
        self.told.append("extend")


class Clients:
    """Those who ask: what is put into `asked`, after a byte into the pipe."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe2(os.O_NONBLOCK)
        self.asked: list[Asked] = []
        self.answers: list[tuple[int, int]] = []

    def fileno(self) -> int:
        return self.out

    def requests(self) -> list[Asked]:
        try:
            os.read(self.out, 100)
        except BlockingIOError:
            return []
        found, self.asked = self.asked, []
        return found

    def answer(self, token: int, status: int, text: str) -> None:
        self.answers.append((token, status))

    def ask(self) -> None:
        self.asked.append(Asked(1, (), wait=True))
        os.write(self.into, b"!")

    def close(self) -> None:
        os.close(self.out)
        os.close(self.into)


class Loop:
    """A service below a directory; `run` takes what is to happen, in another thread, one after the other."""

    def __init__(self, root: Path) -> None:
        (root / "home").mkdir()
        self.root = root
        self.compiler, self.manager, self.clients = Compiler(), Manager(), Clients()
        self.service = Service(
            root=bytes(root),
            compiler=self.compiler,
            manager=self.manager,
            requests=self.clients,
            times=Times(sweep=3600),
            pace=Pace(quiet=0.01, patience=0.1, rest=0.0),
        )
        self.wrong: list[AssertionError] = []

    def run(self, *steps: Callable[[], object]) -> int:
        """The exit status, after all steps (one that answers False is waited for) and a SIGTERM."""

        def act() -> None:
            try:
                for step in (lambda: "ready" in self.manager.told, *steps):
                    end = time.monotonic() + SOON
                    while step() is False:
                        assert time.monotonic() < end, "never came about"
                        time.sleep(0.01)
            except AssertionError as error:
                self.wrong.append(error)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        acting = threading.Thread(target=act)
        acting.start()
        try:
            return self.service.run()
        finally:
            acting.join()
            assert not self.wrong, (self.wrong, self.compiler.asked)

    def saw(self, what: object, times: int = 1) -> Callable[[], bool]:
        return lambda: self.compiler.asked.count(what) >= times


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    found = Loop(tmp_path)
    yield found
    found.clients.close()


def test_what_happens_is_read(loop: Loop) -> None:
    new = loop.root / "home" / ".qmail-x"
    assert loop.run(lambda: new.write_text("x"), loop.saw(frozenset({HOME}))) == 0
    assert loop.compiler.asked[0] == "start"
    assert loop.manager.told[-1] == "stopping"


def test_a_clock_that_goes_back(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    true = time.time

    def back() -> None:
        monkeypatch.setattr("rcptgen.watch.service.time.time", lambda: true() - 3600)
        (loop.root / "home" / "any").touch()  # wakes it, and nobody wants to know

    assert loop.run(back, loop.saw("clock")) == 0
    assert loop.compiler.asked.count("clock") == 1


def test_a_look_at_everything_that_fails_is_tried_again(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "RETRY", 0.1)

    def fail() -> None:
        loop.compiler.fails = [PublishFailed("full")]
        os.kill(os.getpid(), signal.SIGHUP)

    assert loop.run(fail, loop.saw("hangup"), lambda: len(loop.compiler.asked) >= 3) == 0
    assert loop.manager.told.count("ready") >= 2


def test_a_look_that_fails_keeps_what_was_touched(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "RETRY", 0.1)
    touched = frozenset({HOME})

    def fail() -> None:
        loop.compiler.fails = [PublishFailed("full")]
        (loop.root / "home" / ".qmail-x").write_text("x")

    assert loop.run(fail, loop.saw(touched, 2)) == 0


def test_who_asks_hears_of_the_look_after(loop: Loop) -> None:
    loop.compiler.result.status = 3
    assert loop.run(loop.clients.ask, lambda: bool(loop.clients.answers)) == 0
    assert loop.clients.answers == [(1, 3)]


def test_the_status_names_a_rollback_in_force(loop: Loop) -> None:
    loop.compiler.result.rollback = Rollback(number=7, time=0.0, since=86400.0)
    assert loop.run(loop.clients.ask, lambda: bool(loop.clients.answers)) == 0
    assert all(", rolled back since 1970-01-0" in one for one in loop.manager.said)


def test_who_asks_is_looked_at_twice(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """vpopmail tells of a deletion before it deletes, perhaps where nothing tells of changes."""
    monkeypatch.setattr(service, "SECOND_LOOK", 0.3)

    def delete() -> None:
        loop.compiler.changed = {HOME}

    steps = (loop.clients.ask, lambda: bool(loop.clients.answers), delete, loop.saw(frozenset({HOME})))
    assert loop.run(*steps) == 0


def test_changes_elsewhere_do_not_put_the_second_look_off(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SECOND_LOOK", 0.3)
    monkeypatch.setattr(loop.compiler, "units_of", lambda domains: {b"/elsewhere"})
    loop.compiler.changed = {b"/elsewhere"}
    count = iter(range(1000))

    def busy() -> bool:
        (loop.root / "home" / f".qmail-{next(count)}").touch()
        time.sleep(0.05)
        return sum(isinstance(one, frozenset) and b"/elsewhere" in one for one in loop.compiler.asked) >= 2

    assert loop.run(loop.clients.ask, busy) == 0


def test_what_looks_young_for_ever_settles(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stamps of the future: once more, and then with the sweeps."""
    monkeypatch.setattr(service, "SECOND_LOOK", 0.1)
    loop.compiler.changed = {HOME}
    end = time.monotonic() + 2
    assert loop.run(loop.saw(frozenset({HOME})), lambda: time.monotonic() > end) == 0
    assert loop.compiler.asked.count(frozenset({HOME})) == 1


def test_the_same_trouble_is_said_once(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.compiler.result.warnings = ["a damaged file"]

    def hangup() -> None:
        os.kill(os.getpid(), signal.SIGHUP)

    assert loop.run(hangup, loop.saw("hangup")) == 0
    assert caplog.text.count("a damaged file") == 1
