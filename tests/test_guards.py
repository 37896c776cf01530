"""The guards and skips of conftest.py do what they promise; seen from outside, in runs of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import coverage
import pytest

HERE = Path(__file__).resolve().parent

OFFENDERS = """
import os, threading, time
from pathlib import Path

def test_write(): Path({outside!r} + ".txt").touch()
def test_mkdir(): os.mkdir({outside!r})
def test_thread(): threading.Thread(target=time.sleep, args=(3,)).start()
def test_child(): os.posix_spawn("/bin/sleep", ["sleep", "60"], {{}})
def test_file(): os.open("x", os.O_CREAT)
def test_umask(): os.umask(0)
"""

GOOD = """
import os, tempfile, pytest

def test_mode(tmp_path): assert os.stat(".").st_mode & 0o777 == 0o755
def test_temporary(tmp_path): assert tempfile.mkdtemp().startswith(str(tmp_path))
def test_fixture(part): part("wheel")
@pytest.mark.needs("wheel")
def test_mark(): raise AssertionError
"""


def run(code: str, tmp_path: Path, **environment: str) -> tuple[int, str]:
    """Exit status and output of pytest for `code`, beside this conftest.py, with a tmp directory of its own."""
    for name in ("conftest.py", "parts.py", "databases.py", "mailservers.py"):
        (tmp_path / name).symlink_to(HERE / name)
    (tmp_path / "test_it.py").write_text(code)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\nmarkers =\n    needs(part): parts\n")
    (tmp_path / "t").mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RCPTGEN_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "test_it.py"],
        env={**clean, "TMPDIR": str(tmp_path / "t"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_what_a_test_leaves_behind_fails_it(tmp_path: Path) -> None:
    status, said = run(OFFENDERS.format(outside=str(tmp_path / "elsewhere")), tmp_path)
    assert status == 1
    assert "6 passed, 6 errors" in said
    assert "wrote outside its directory: open " in said
    assert f"wrote outside its directory: os.mkdir {tmp_path}/elsewhere" in said
    assert "left a thread: " in said
    assert "left a child process: " in said
    assert "left a file open: " in said
    assert "ended as " in said


def test_skipped_parts_are_announced_and_nothing_is_left(tmp_path: Path) -> None:
    status, said = run(GOOD, tmp_path)
    assert status == 0
    assert "2 passed, 2 skipped" in said
    assert "SKIPPED PART: wheel: the checkout is tested, not the wheel (script/test builds one) (2 tests)" in said
    assert list((tmp_path / "t").iterdir()) == []


def test_a_required_part_that_is_missing_ends_the_run(tmp_path: Path) -> None:
    status, said = run(GOOD, tmp_path, RCPTGEN_REQUIRE="checkout,wheel")
    assert status == 4
    assert "RCPTGEN_REQUIRE asks for wheel: the checkout is tested" in said


def test_a_required_part_that_nobody_knows_ends_the_run(tmp_path: Path) -> None:
    status, said = run(GOOD, tmp_path, RCPTGEN_REQUIRE="unicorn")
    assert status == 4
    assert "no part is called 'unicorn'" in said


def test_everybody_may_enter_the_directory_of_a_test(tmp_path: Path) -> None:
    top = next(path for path in tmp_path.parents if path.name.startswith("rcptgen-test-"))
    for path in [tmp_path, *tmp_path.parents]:
        assert path.stat().st_mode & 0o055 == 0o055 or path in top.parents, path


def test_a_forked_child_does_not_wait_for_the_lock_of_a_thread_that_it_does_not_have() -> None:
    collector: Any = getattr(coverage.Coverage.current(), "_collector", None)
    if collector is None or collector.data_lock is None:
        pytest.skip("nothing is measured")
    with collector.data_lock:
        child = os.fork()
        if not child:
            signal.alarm(20)
            os._exit(0)  # saves what was measured: coverage has patched it
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
