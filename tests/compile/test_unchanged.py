"""Runs in which nothing has changed look at metadata alone, and write nothing; any doubt makes them read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inprocess
import pytest
from hosts import Dir, File
from runs import Names, Site

from rcptgen import unchanged
from rcptgen.compiler import Output, Request, Result, compile_host
from rcptgen.config import Config, Extra, Guard, Policy, Relay
from rcptgen.source import footprint

pytestmark = pytest.mark.root

HOST: Names = {
    "passwd": {"joe": 1001, "ann": 1002},
    "control/me": "mail.example\n",
    "control/locals": "mail.example\n",
    "control/rcpthosts": "mail.example\nfar.example\n",
    "/etc/accept": "fred@mail.example\n",
    "/etc/relay": "joe@far.example\n",
    "~joe": Dir(),
    "~joe/.qmail-x": "&x@far.example\n",
    "alias/.qmail-postmaster": "admin@far.example\n",
}
CONFIG = Config(
    extra=Extra(accept_files=("/etc/accept",)), policy=Policy(relay="file"), relay=(Relay(file="/etc/relay"),)
)
READING = {"table", "tables", "read", "sizes", "judge"}


class Runs:
    """A host, compiled as cron does it; `asked` is what the last run asked its workers for."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site = Site(top, HOST)
        self.asked: list[str] = []
        self.config = CONFIG
        made = inprocess.InProcess.ask

        def ask(worker: inprocess.InProcess, name: str, *arguments: object) -> object:
            self.asked.append(name)
            return made(worker, name, *arguments)

        monkeypatch.setattr(inprocess.InProcess, "ask", ask)

    def compile(self, **more: Any) -> Result:
        self.asked.clear()
        outputs = (Output("validrcptto", bytes(self.site.file)),)
        state = bytes(self.site.state)
        return compile_host(self.site.host.root, self.config, Request(outputs, state=state, **{"brief": True, **more}))

    def settled(self) -> Result:
        """The first run after nothing was changed for a while."""
        newest = max(os.lstat(path).st_ctime_ns for path in self.site.host.root.rglob("*"))
        time.sleep(max(0.0, (newest + footprint.RACY_NS - time.time_ns()) / 1e9 + 0.01))
        return self.compile()

    @property
    def has_read(self) -> bool:
        """Whether the last run read the host."""
        return not READING.isdisjoint(self.asked)

    def files(self) -> dict[str, tuple[int, int]]:
        """Every file that runs leave, with what would tell of another one; locks aside, which some versions cut."""
        places = [self.site.file, *(one for one in self.site.state.rglob("*") if one.name != "lock")]
        return {str(one): (one.lstat().st_ino, one.lstat().st_mtime_ns) for one in places}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    inprocess.use(monkeypatch)
    monkeypatch.setattr(footprint, "RACY_NS", 20_000_000)
    found = Runs(tmp_path, monkeypatch)
    found.compile()
    assert found.has_read
    found.settled()
    return found


def test_nothing_is_read_and_nothing_written(runs: Runs) -> None:
    before = runs.files()
    result = runs.compile()
    assert not runs.has_read
    assert runs.files() == before
    assert (result.status, result.changed, result.outputs[0].published) == (0, False, True)


def test_the_numbers_are_those_of_the_run_before(runs: Runs) -> None:
    full, brief = runs.compile(brief=False), runs.compile()
    assert not runs.has_read
    assert brief.outputs[0].exact == full.outputs[0].exact > 0
    assert (brief.domains, brief.recipients, brief.classes) == (full.domains, full.recipients, full.classes)


CHANGES: dict[str, Callable[[Runs], object]] = {
    "a dot-qmail file": lambda runs: runs.site.host.write("~joe/.qmail-y", "&y@far.example\n"),
    "its content": lambda runs: runs.site.host.path("~joe/.qmail-x").write_text("&z@far.example\n"),
    "a mode": lambda runs: runs.site.host.path("~joe/.qmail-x").chmod(0o666),
    "a home": lambda runs: runs.site.host.path("~joe/.qmail-x").parent.rename(runs.site.host.root / "home/away"),
    "a home's owner": lambda runs: os.chown(runs.site.host.path("~ann/x").parent, 0, 0),
    "a control file": lambda runs: runs.site.host.write("control/locals", "mail.example\nother.example\n"),
    "an account": lambda runs: runs.site.host.write("/etc/passwd", File("", mode=0o644)),
    "the published file": lambda runs: runs.site.file.write_bytes(runs.site.file.read_bytes()),
    "the published file is gone": lambda runs: runs.site.file.unlink(),
    "what was left is cut": lambda runs: os.truncate(runs.site.state / "inputs", 100),
    "what was left is damaged": lambda runs: flip(runs.site.state / "inputs"),
    "what was left is gone": lambda runs: (runs.site.state / "inputs").unlink(),
    "the generation": lambda runs: (runs.site.state / "current").write_text("99\n"),
    "a file of overlays": lambda runs: runs.site.host.path("/etc/accept").write_text("# no\nfred@mail.example\n"),
    "a file of overlays is gone": lambda runs: runs.site.host.remove("/etc/accept"),
    "a file of recipients": lambda runs: runs.site.host.path("/etc/relay").write_text("ann@far.example\n"),
    "the configuration": lambda runs: setattr(runs, "config", Config(guard=Guard(domain_loss=0.25))),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_any_change_makes_it_read(runs: Runs, change: Callable[[Runs], object]) -> None:
    change(runs)
    runs.compile()
    assert runs.has_read


@pytest.mark.parametrize("option", ["force", "full", "dry_run"])
def test_who_asks_for_more_gets_more(runs: Runs, option: str) -> None:
    runs.compile(**{option: True})
    assert runs.has_read
    runs.compile(brief=False)
    assert runs.has_read


@pytest.mark.parametrize("later", [-10.0, unchanged.AT_MOST + 1])
def test_a_clock_that_went_back_and_an_old_look_are_not_believed(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, later: float
) -> None:
    now = time.time()
    monkeypatch.setattr("rcptgen.unchanged.time.time", lambda: now + later)
    runs.compile()
    assert runs.has_read


def test_what_was_changed_a_moment_ago_is_read_again_until_it_has_settled(runs: Runs) -> None:
    runs.site.host.path("~joe/.qmail-x").write_text("&one@far.example\n")
    runs.compile()
    assert runs.has_read
    runs.settled()
    runs.compile()
    assert not runs.has_read


def test_a_run_with_something_held_leaves_nothing(runs: Runs) -> None:
    for number in range(20):
        runs.site.host.write(f"~joe/.qmail-n{number}", "&x@far.example\n")
    runs.compile()
    for number in range(20):
        runs.site.host.remove(f"~joe/.qmail-n{number}")
    assert runs.compile().status == 3
    assert not (runs.site.state / "inputs").exists()
    runs.settled()
    assert runs.has_read


def test_a_worker_that_was_lost_leaves_nothing(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had looked at for everybody is not known any more."""
    monkeypatch.setattr(inprocess.InProcess, "was_lost", property(lambda worker: True))
    runs.site.host.path("~joe/.qmail-x").write_text("&lost@far.example\n")
    assert runs.compile().status == 0
    assert not (runs.site.state / "inputs").exists()
