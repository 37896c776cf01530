"""A rollback that is killed, or that the disk fails: the file is whole, and the history says what is in it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import parts
import pytest
from runs import Names, Run, Site

from rcptgen.config import Config
from rcptgen.errors import PublishFailed, RcptgenError
from rcptgen.generations import History
from rcptgen.publish.cdb import read_cdb
from rcptgen.publish.files import PublishedUnsynced
from rcptgen.publish.history import Who
from rcptgen.request import Output, Request, Result
from rcptgen.rollback import roll_back

pytestmark = pytest.mark.root

STEPS = ("open", "write", "fsync", "fchmod", "rename", "unlink", "mkdir", "chmod", "rmdir")
"""The calls that change something on the disk, and fsync."""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Two publications: ten names, then seven of them and a new one."""
    names: Names = {
        "passwd": {"joe": 1001},
        "control/me": "example.org\n",
        "control/locals": "",
        "control/virtualdomains": "shop.example:joe\n",
        **{f"~joe/.qmail-n{number:02}": "./Maildir/\n" for number in range(10)},
    }
    found = Site(tmp_path, names)
    found.published()
    for number in range(3):
        found.host.remove(f"~joe/.qmail-n{number:02}")
    found.host.write("~joe/.qmail-new", "./Maildir/\n")
    found.published()
    return found


def asked(site: Site, **more: Any) -> Request:
    output = Output("validrcptto", os.fsencode(site.file))
    return Request((output,), state=os.fsencode(site.state), reason="rollback", by=Who(uid=0), **more)


def back(site: Site, **more: Any) -> Result:
    return roll_back(Config(), asked(site, **more), 1)


class Copy:
    """The published files and the state of a site, to be laid down again and again."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.places = [site.state, site.file.parent]
        for place in self.places:
            shutil.copytree(place, site.top / "kept" / place.name)
        self.before = site.content
        back(site)
        self.after = site.content
        assert self.after != self.before
        self.again()

    def again(self) -> None:
        for place in self.places:
            shutil.rmtree(place)
            shutil.copytree(self.site.top / "kept" / place.name, place)


def judged(site: Site, copy: Copy) -> bool:
    """Whether the rollback is in force; fails unless the file is whole and the history true."""
    list(read_cdb(os.fsencode(site.file)))
    assert site.content in (copy.before, copy.after)
    digest = hashlib.sha256(site.content).hexdigest()
    with History.open(os.fsencode(site.state)) as history:
        metas = list(history.metas())
        assert history.last == metas[-1].number
        assert [meta.reason for meta in metas] in (["compile", "compile"], ["compile", "compile", "rollback"])
        # What stands last in the history is what is published.
        assert list(metas[-1].digests.values()) == [digest]
        assert (history.rollback is not None) == (metas[-1].reason == "rollback") == (site.content == copy.after)
        for number in history.numbers():
            with history.generation(number) as generation:
                generation.check()
        return history.rollback is not None


def goes_on(site: Site, *, rolled_back: bool) -> None:
    """The next compile obeys what is in force, and leaves nothing behind."""
    site.host.write("~joe/.qmail-newer", "./Maildir/\n")
    done = site.compile()
    assert done.status == (3 if rolled_back else 0)
    assert site.accepts("newer@shop.example")
    assert site.accepts("new@shop.example")
    assert site.accepts("n00@shop.example") is rolled_back
    assert site.left_over() == []
    site.host.remove("~joe/.qmail-newer")


# --- kill -9 -------------------------------------------------------------------------------------


def killed(work: Callable[[], object], turn: int, *, after: bool) -> bool:
    """Does `work` in a process that is killed before (or after) its `turn`th step; whether it came that far."""
    child = os.fork()
    if child == 0:
        try:
            _die(turn, after=after)
            work()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


def _die(turn: int, *, after: bool) -> None:
    """From now on the `turn`th step of this process (not of a worker) is its last one."""
    doomed, taken = os.getpid(), 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **names: Any) -> Any:
            nonlocal taken
            taken += os.getpid() == doomed
            last = taken == turn and os.getpid() == doomed
            if last and not after:
                os.kill(doomed, signal.SIGKILL)
            try:
                return real(*arguments, **names)
            finally:
                if last:
                    os.kill(doomed, signal.SIGKILL)

        return call

    for name in STEPS:
        setattr(os, name, dying(getattr(os, name)))


@pytest.mark.parametrize("after", [False, True], ids=["before a step", "after a step"])
def test_killed_at_every_step(site: Site, after: bool) -> None:
    copy = Copy(site)
    seen = {True: 0, False: 0}
    turn = 1
    while killed(lambda: back(site), turn, after=after):
        rolled_back = judged(site, copy)
        seen[rolled_back] += 1
        # What comes next is the same for most steps; a long run looks at each.
        if turn % 8 == 0 or parts.factor() > 1:
            goes_on(site, rolled_back=rolled_back)
        copy.again()
        turn += 1
    assert min(seen.values()) >= 3, seen
    assert judged(site, copy)


def test_killed_resume_at_every_step(site: Site) -> None:
    """The same for the way forward: rolled back, or not."""
    back(site)
    copy = [site.content]
    kept = site.top / "kept"
    for place in (site.state, site.file.parent):
        shutil.copytree(place, kept / place.name)
    assert resume(site).status == 0
    copy.append(site.content)
    seen = [0, 0]
    for turn in range(1, 1000, 1 if parts.factor() > 1 else 5):
        for place in (site.state, site.file.parent):
            shutil.rmtree(place)
            shutil.copytree(kept / place.name, place)
        if not killed(lambda: resume(site), turn, after=False):
            break
        found = copy.index(site.content)
        seen[found] += 1
        with History.open(os.fsencode(site.state)) as history:
            assert (history.rollback is None) == (found == 1)
        assert site.compile().status == (0 if found else 3)
        assert site.accepts("n00@shop.example") is not bool(found)
    else:
        pytest.fail("does not end")
    assert min(seen) >= 1


def resume(site: Site) -> Run:
    return site.run("resume", "--json", "-t", site.output, "--wait", "30")


# --- a disk that fails ---------------------------------------------------------------------------


@contextmanager
def failing(name: str, turn: int, number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The `turn`th call of os.NAME, and for a full disk every one after it, fails; yields how many there were."""
    real = getattr(os, name)
    calls = [0]

    def call(*arguments: Any, **names: Any) -> Any:
        calls[0] += 1
        if calls[0] == turn or (calls[0] > turn and number == errno.ENOSPC):
            raise OSError(number, os.strerror(number))
        return real(*arguments, **names)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, call)
        yield calls


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("name", ["open", "write", "fsync", "fchmod", "rename", "mkdir", "chmod"])
def test_every_call_fails(site: Site, name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Copy(site)
    for turn in range(1, 1000):
        error: RcptgenError | None = None
        with failing(name, turn, number, monkeypatch) as calls:
            try:
                back(site)
            except RcptgenError as caught:
                error = caught
        if calls[0] < turn:
            break
        rolled_back = judged(site, copy)
        # It never says that it was done when it was not, nor the other way round.
        done = error is None or isinstance(error, PublishedUnsynced) or "are published" in str(error)
        assert rolled_back == done, (turn, error)
        assert error is None or str(error)
        if turn % 8 == 0 or parts.factor() > 1:
            goes_on(site, rolled_back=rolled_back)
        copy.again()
    else:
        pytest.fail("does not end")
    assert error is None


def test_a_state_that_cannot_be_kept_is_no_rollback(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compile publishes all the same; but a rollback that is forgotten would be a surprise."""
    before = site.content
    with failing("mkdir", 1, errno.ENOSPC, monkeypatch), pytest.raises(PublishFailed, match="nothing was published"):
        back(site)
    assert site.content == before


def test_a_full_state_while_rolled_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles cannot remember what they publish, but the order stands in what is there."""
    back(site)
    for name in ("x1", "x2"):
        site.host.write(f"~joe/.qmail-{name}", "./Maildir/\n")
        with failing("mkdir", 1, errno.ENOSPC, monkeypatch):
            done = site.compile()
        assert done.status == 3
        assert any("cannot be kept" in one for one in done.json["warnings"])
        assert site.accepts(f"{name}@shop.example")
        assert site.accepts("n00@shop.example")
    assert site.compile().status == 3
    assert resume(site).status in (0, 3)


# --- compiles beside it --------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["rollback", "resume", "approve"])
def test_one_lock_for_all(site: Site, command: str) -> None:
    lock = os.open(site.state / "lock", os.O_RDWR)
    before = site.content
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = site.run(command, "--json", "-t", site.output)
        assert (done.status, done.json["status"]) == (75, 75)
        assert "another run is publishing" in done.err
    finally:
        os.close(lock)
    assert site.content == before


def beside(work: Callable[[], object]) -> int:
    """A process that does `work`; its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def mix(site: Site, rounds: int) -> None:
    """Compiles, rollbacks and resumes at once, some of them killed; the host gains names all the while."""
    chance = random.Random(7)
    newest = -1
    for number in range(rounds):
        site.host.write(f"~joe/.qmail-m{number}", "./Maildir/\n")
        works: list[Callable[[], object]] = [
            lambda: site.compile("--wait", "30"),
            lambda: site.compile("--wait", "30"),
            lambda: back(site, wait=30.0, force=True),
            lambda: resume(site),
        ]
        chosen = [works[0], *chance.sample(works[1:], 2)]
        chance.shuffle(chosen)
        children = [beside(work) for work in chosen]
        time.sleep(chance.uniform(0, 0.3))
        doomed = chance.choice(children)
        os.kill(doomed, signal.SIGKILL)
        assert all(os.waitpid(child, 0)[1] in (0, signal.SIGKILL) for child in children)
        list(read_cdb(os.fsencode(site.file)))
        # Names that are on the host, and were published once, are always accepted.
        assert all(site.accepts(f"m{one}@shop.example") for one in range(newest + 1))
        done = site.compile()
        assert done.status in (0, 3)
        newest = number
        told(site, done)
    assert site.left_over() == []


def told(site: Site, done: Run) -> None:
    """What the history has last is what is published, and what the compile said of it."""
    with History.open(os.fsencode(site.state)) as history:
        last = list(history.metas())[-1]
        assert list(last.digests.values()) == [hashlib.sha256(site.content).hexdigest()]
        assert (history.rollback is not None) == (done.json["rollback"] is not None) == (done.status == 3)
        assert site.accepts("n00@shop.example") is (history.rollback is not None)
        numbers = history.numbers()
    assert numbers == sorted(numbers)


def test_compiles_and_resumes_beside_it(site: Site) -> None:
    mix(site, 4)


@pytest.mark.slow
def test_compiles_and_resumes_beside_it_for_long(site: Site) -> None:
    mix(site, parts.rounds(40))
