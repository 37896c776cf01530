"""The publishing lock: one holder, gone with its process, never where others could swap it."""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path

import pytest

from rcptgen.errors import Busy, PublishFailed
from rcptgen.publish.lock import lock_path, publishing_lock


def _hold_in_child(path: bytes, seconds: float) -> int:
    """The id of a child that holds the lock, once it does."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ready)
            with publishing_lock(path, 0):
                os.write(tell, b"x")
                time.sleep(seconds)
        finally:
            os._exit(0)
    os.close(tell)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    return child


def test_busy_at_once_names_the_file(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "lock")
    with publishing_lock(path, 0):
        begin = time.monotonic()
        with pytest.raises(Busy, match="lock") as caught, publishing_lock(path, 0):
            pytest.fail("two held it")
        assert time.monotonic() - begin < 0.5
    assert str(tmp_path / "lock") in str(caught.value)
    assert Busy.status == 75
    with publishing_lock(path, 0):
        pass


def test_waits_for_another_process(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "lock")
    child = _hold_in_child(path, 0.3)
    begin = time.monotonic()
    with publishing_lock(path, 10):
        assert time.monotonic() - begin > 0.1
    os.waitpid(child, 0)


def test_gives_up_after_the_wait(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "lock")
    child = _hold_in_child(path, 30)
    begin = time.monotonic()
    with pytest.raises(Busy), publishing_lock(path, 0.3):
        pytest.fail("two held it")
    assert 0.25 < time.monotonic() - begin < 5
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_released_by_the_kernel_when_killed(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "lock")
    child = _hold_in_child(path, 30)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with publishing_lock(path, 0):
        pass


def test_released_by_an_exception(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "lock")
    with pytest.raises(KeyboardInterrupt), publishing_lock(path, 0):
        raise KeyboardInterrupt
    with publishing_lock(path, 0):
        pass


def test_a_forked_worker_does_not_keep_it(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "lock")
    with publishing_lock(path, 0):
        worker = os.fork()
        if worker == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with publishing_lock(path, 0):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_mode_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        with publishing_lock(os.fsencode(tmp_path / "lock"), 0):
            pass
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600


def test_not_through_a_link(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(PublishFailed, match="symbolic link"), publishing_lock(os.fsencode(shared / "lock"), 0):
        pytest.fail("locked")
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_only_a_regular_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "lock"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(PublishFailed, match="not a lock file"), publishing_lock(os.fsencode(path), 0):
        pytest.fail("locked")


def test_directory_writable_by_others(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(PublishFailed, match="others may write"), publishing_lock(os.fsencode(open_to_all / "lock"), 0):
        pytest.fail("locked")
    open_to_all.chmod(0o1777)
    with publishing_lock(os.fsencode(open_to_all / "lock"), 0):
        pass


@pytest.mark.root
def test_lock_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    os.chown(path, 65534, 65534)
    with pytest.raises(PublishFailed, match="not a lock file of ours"), publishing_lock(os.fsencode(path), 0):
        pytest.fail("locked")


def test_directory_missing(tmp_path: Path) -> None:
    with pytest.raises(PublishFailed, match="No such file"), publishing_lock(os.fsencode(tmp_path / "no" / "lock"), 0):
        pytest.fail("locked")


def test_where_the_lock_lives(tmp_path: Path) -> None:
    state = os.fsencode(tmp_path)
    assert lock_path(state, b"/x/v.cdb") == state + b"/lock"
    assert lock_path(state + b"/absent", b"/x/v.cdb") == b"/x/.v.cdb.rcptgen-lock"
    assert lock_path(None, b"v.cdb") == b".v.cdb.rcptgen-lock"


def test_nothing_is_left_beside_an_output(tmp_path: Path) -> None:
    path = lock_path(None, bytes(tmp_path / "list.cdb"))
    with publishing_lock(path, 0):
        assert os.path.exists(path)
    assert os.listdir(tmp_path) == []
