"""What holds for every test: its own directory, nothing left behind, and loud skips.

Each test runs with the working directory, HOME and TMPDIR in its own `tmp_path`, which
everybody may enter (homes are read as their owners).  It fails when it

* writes anywhere else (what this process does itself is seen, not what its children do),
* leaves a thread, a child process, or an open file of its directory behind,
* ends with another identity, umask or working directory than it began with.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import coverage
import hypothesis
import parts
import pytest
from databases import Databases, running

import rcptgen

CHECKOUT = Path(__file__).resolve().parent.parent
GRACE = 2.0  # seconds that a thread or child may take to end after its test
BASETEMP = pytest.StashKey[Path]()
SKIPPED = pytest.StashKey[dict[str, str]]()


def _lock_of_its_own() -> None:
    """Gives a forked child a lock that nobody holds.

    coverage saves its data at os._exit in a child too, and waits for ever where another thread,
    which the child does not have, held the collector's lock at the moment of the fork.
    """
    collector: Any = getattr(coverage.Coverage.current(), "_collector", None)
    if collector is not None and collector.data_lock is not None:
        collector.data_lock = threading.Lock()


os.register_at_fork(after_in_child=_lock_of_its_own)
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(CHECKOUT / ".hypothesis"))
hypothesis.settings.register_profile("ordinary", deadline=None, print_blob=True)
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("ordinary"), derandomize=True, database=None
)
hypothesis.settings.register_profile(
    "long", parent=hypothesis.settings.get_profile("ordinary"), max_examples=parts.rounds(100)
)
hypothesis.settings.load_profile("long" if parts.factor() > 1 else "ci" if os.environ.get("CI") else "ordinary")


# --- The run -----------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Refuses to begin a run that could not prove what it must; gives it a directory all may enter."""
    if os.environ.get("RCPTGEN_TEST_WHEEL") == "1" and (fault := parts.missing("wheel")):
        raise pytest.UsageError(f"RCPTGEN_TEST_WHEEL=1, but {fault}")
    for name in parts.required():
        try:
            fault = parts.missing(name)
        except LookupError as error:
            raise pytest.UsageError(f"RCPTGEN_REQUIRE: {error}") from None
        if fault:
            raise pytest.UsageError(f"RCPTGEN_REQUIRE asks for {name}: {fault}")
    config.stash[SKIPPED] = {}
    # Not the directory that pytest shares between runs: each new run shuts that to other
    # accounts, also for the runs that are still going.
    if config.option.basetemp is None:
        config.stash[BASETEMP] = Path(tempfile.mkdtemp(prefix="rcptgen-test-")).resolve()
        config.option.basetemp = config.stash[BASETEMP] / "t"
        config.stash[BASETEMP].chmod(0o755)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Takes the run's directory away, unless there is a failure to look at."""
    base = session.config.stash.get(BASETEMP, None)
    if base is not None and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        shutil.rmtree(base, ignore_errors=True)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Says what is tested and which parts this machine has."""
    have = [name for name in parts.PARTS if not parts.missing(name)]
    profile = hypothesis.settings.get_current_profile_name()
    return [f"rcptgen {rcptgen.__version__}: {rcptgen.__file__}", f"parts: {', '.join(have)}; hypothesis: {profile}"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Announces every skipped part once, with the number of tests, and every other skip."""
    tests: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        tests[reason] = tests.get(reason, 0) + 1
    for reason, count in sorted(tests.items()):
        mark = "" if reason.startswith("SKIPPED PART: ") else "SKIPPED: "
        terminalreporter.write_line(f"{mark}{reason} ({count} tests)", yellow=True)


# --- Parts -------------------------------------------------------------------------------------


def _need(name: str) -> None:
    if fault := parts.missing(name):
        if name in parts.required():
            pytest.fail(f"RCPTGEN_REQUIRE asks for {name}: {fault}", pytrace=False)
        pytest.skip(f"SKIPPED PART: {name}: {fault}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test whose parts are missing: `@pytest.mark.needs("strace")`, `@pytest.mark.root`."""
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            _need(name)
    if item.get_closest_marker("root") is not None:
        _need("root")


@pytest.fixture
def part() -> Callable[[str], None]:
    """`part("tinycdb")` skips the test, loudly, where the machine lacks that part."""
    return _need


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """The database servers of this run, each started when a test first wants it."""
    found = Databases(tmp_path_factory.mktemp("databases"))
    yield found
    found.close()


# --- Guards ------------------------------------------------------------------------------------

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# What the audit events that change the file system name: (path, directory descriptor) positions.
PATH_EVENTS: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.mkdir": ((0, 2),),
    "os.rmdir": ((0, 1),),
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
}


class WriteGuard:
    """Remembers writes outside the allowed directories; audit hooks cannot be taken away, so there is one."""

    def __init__(self) -> None:
        self.beginnings: tuple[str, ...] = ()  # of paths that may be written
        self.on = False
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, mode, flags = arguments
            # os.open has no mode here, and does not tell which directory a relative path is
            # below: only what is wrong for every directory is called wrong.
            if isinstance(path, int):
                return
            if flags & WRITING and not (mode is None and not os.fsdecode(path).startswith("/")):
                self._look(event, path, None)
        elif event in PATH_EVENTS:
            for path_at, fd_at in PATH_EVENTS[event]:
                self._look(event, arguments[path_at], None if fd_at is None else arguments[fd_at])

    def _look(self, event: str, path: Any, directory: Any) -> None:
        if isinstance(path, int) or path is None:
            return
        self.on = False  # what follows opens and reads itself
        try:
            name = os.fsdecode(path)
            if not name.startswith("/"):
                given = isinstance(directory, int) and directory >= 0
                relative_to = f"/proc/self/fd/{directory}" if given else "/proc/self/cwd"
                name = os.path.join(os.readlink(relative_to), name)
            if name.startswith(self.beginnings) and "/../" not in name:
                return
            where = os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
            fine = where.startswith(("/dev/", "/proc/")) or "/__pycache__" in where
            if not fine and not f"{where}/".startswith(self.beginnings):
                self.seen.append(f"{event} {where}")
        except OSError:
            return
        finally:
            self.on = True


WRITES = WriteGuard()
sys.addaudithook(WRITES)


def _children() -> set[int]:
    """The ids of this process's children that still run."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found.update(int(pid) for pid in (task / "children").read_text(encoding="ascii").split())
    return {pid for pid in found if _state(pid) not in ("Z", "X", "")}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _open_below(directory: Path) -> set[str]:
    """The open files of this process below a directory, as `descriptor path`."""
    found: set[str] = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            where = os.readlink(f"/proc/self/fd/{fd}")
            if where == str(directory) or where.startswith(f"{directory}/"):
                found.add(f"{fd} {where}")
    return found


def _gone(left: Callable[[], set[Any]]) -> set[Any]:
    """What is still left after a while."""
    end = time.monotonic() + GRACE
    while (still := left()) and time.monotonic() < end:
        time.sleep(0.01)
    return still


def _identity() -> tuple[Any, ...]:
    umask = os.umask(0)
    os.umask(umask)
    return os.getresuid(), os.getresgid(), sorted(os.getgroups()), umask


@pytest.fixture(scope="session", autouse=True)
def _everybody_may_enter(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    base.chmod(0o755)
    if "PYTEST_XDIST_WORKER" in os.environ:
        base.parent.chmod(0o755)  # of all workers


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """The test's own directory, which everybody may enter: homes below it are read as their owners."""
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture(autouse=True)
def _guards(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    threads, children, identity = set(threading.enumerate()), _children(), _identity()
    WRITES.beginnings = (
        f"{tmp_path_factory.getbasetemp().resolve()}/",
        f"{os.environ['HYPOTHESIS_STORAGE_DIRECTORY']}/",
    )
    WRITES.seen.clear()
    WRITES.on = True
    yield
    WRITES.on = False
    faults = [f"wrote outside its directory: {what}" for what in dict.fromkeys(WRITES.seen)]
    if _identity() != identity:
        faults.append(f"ended as {_identity()}, began as {identity} (uids, gids, groups, umask)")
    faults += [f"left a thread: {thread!r}" for thread in _gone(lambda: set(threading.enumerate()) - threads)]
    for pid in _gone(lambda: _children() - children - set(running())):
        faults.append(f"left a child process: {pid}")
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if _open_below(tmp_path):
        gc.collect()
        faults += [f"left a file open: {what}" for what in sorted(_open_below(tmp_path))]
    if faults:
        pytest.fail("\n".join(["this test left something behind", *faults]), pytrace=False)
