"""Publishing, end to end: the same bytes again and again, other readers, and kill -9 at any moment."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import parts
import pytest
from hosts import EXAMPLE, VECTORS, Fifo, Link, cdb_bytes, load_vector
from runs import PROGRAM, Site, called, command, faults

pytestmark = pytest.mark.root

MIXED = ("alias-names-01", "local-bytes-01", "random-17", "typical-host-01")
"""Vectors with many names in one directory, and with links and odd bytes among them."""


def example(top: Path) -> Site:
    """The example host; its published files and state below `top`."""
    site = Site(top, {"control/me": "x\n", "/etc/passwd": None})
    shutil.rmtree(site.host.root)
    load_vector(EXAMPLE).materialise(site.host.root)
    return site


# --- the same bytes ----------------------------------------------------------------------------


def test_second_run_leaves_the_file_alone(tmp_path: Path) -> None:
    site = example(tmp_path)
    first = site.published()
    assert (first.output["published"], first.output["changed"]) == (True, True)
    before, status = site.content, site.file.stat()
    second = site.published()
    assert (second.output["published"], second.output["changed"]) == (True, False)
    assert (second.json["gained"], second.json["lost"]) == (0, 0)
    assert site.content == before
    after = site.file.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        status.st_ino,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
    assert os.listdir(site.state / "generations") == ["1"]


def test_same_bytes_with_and_without_a_state(tmp_path: Path) -> None:
    site = example(tmp_path)
    site.published()
    with_state = site.content
    site.file.unlink()
    assert called("--root", site.host.root, "compile", "-t", site.output).status == 0
    assert site.content == with_state


def reorder(root: Path, chance: random.Random) -> None:
    """Takes every name out of its directory and puts it back, in an order of chance: listings change, nothing else."""
    aside = root.parent / "aside"
    aside.mkdir()
    for directory, _, _ in list(os.walk(root)):
        names = os.listdir(directory)
        chance.shuffle(names)
        for here, there in ((Path(directory), aside), (aside, Path(directory))):
            for name in names:
                (here / name).rename(there / name)
    aside.rmdir()


@pytest.mark.parametrize(
    "vector", [EXAMPLE, *(VECTORS / "qmail" / f"{name}.json" for name in MIXED)], ids=lambda p: p.stem
)
def test_any_order_of_directories(tmp_path: Path, vector: Path) -> None:
    """The order in which names were made, and in which the system lists them, changes nothing."""
    contents = set()
    for number in range(3):
        root = tmp_path / f"host{number}"
        load_vector(vector).materialise(root)
        reorder(root, random.Random(number))
        target = tmp_path / f"out{number}.cdb"
        with faults(shuffle=number):
            done = called("--root", root, "compile", "--force", "-t", f"validrcptto={target}")
        assert done.status == 0, done
        contents.add(target.read_bytes())
    assert len(contents) == 1


# --- other readers -----------------------------------------------------------------------------


@pytest.mark.needs("tinycdb")
def test_tinycdb_reads_the_file(tmp_path: Path) -> None:
    site = example(tmp_path)
    site.published()
    listed = subprocess.run(["cdb", "-l", site.file], capture_output=True, check=True).stdout
    lines = listed.removesuffix(b"\n\n").split(b"\n")
    keys = [line.partition(b":")[2] for line in lines]
    assert [line.partition(b":")[0] for line in lines] == [b"+%d" % len(key) for key in keys]
    assert keys == [key for key, _ in site.records]
    assert len(keys) == site.published().output["records"] > 80
    asked = subprocess.run(["cdb", "-q", site.file, "joe@example.org"], capture_output=True, check=True)
    assert asked.stdout == b"1"
    assert subprocess.run(["cdb", "-q", site.file, "nosuch@example.org"], check=False).returncode == 100


@pytest.mark.needs("tinycdb")
def test_same_bytes_as_cdbmake(tmp_path: Path) -> None:
    site = example(tmp_path)
    site.published()
    dumped = subprocess.run(["cdb", "-d", site.file], capture_output=True, check=True).stdout
    made = tmp_path / "made.cdb"
    subprocess.run(["cdb", "-c", made], input=dumped, capture_output=True, check=True)
    assert made.read_bytes() == site.content
    assert cdb_bytes(site.records) == site.content


def test_sorted_by_domain_and_without_doubles(tmp_path: Path) -> None:
    site = example(tmp_path)
    site.published()
    keys = [key for key, _ in site.records]
    assert len(set(keys)) == len(keys)
    named = [(key.rpartition(b"@")[2], key) for key in keys if b"@" in key]
    assert named == sorted(named)
    assert [key for key in keys if b"@" not in key] == keys[len(named) :]
    assert all(value[:1] in (b"1", b"-") for _, value in site.records)


# --- the file itself ---------------------------------------------------------------------------


def test_mode_and_owner(tmp_path: Path) -> None:
    site = example(tmp_path)
    old = os.umask(0o077)
    try:
        site.published()
    finally:
        os.umask(old)
    status = site.file.stat()
    assert (status.st_mode & 0o7777, status.st_uid) == (0o644, 0)
    assert site.state.stat().st_mode & 0o7777 == 0o700


def test_two_outputs_or_none(tmp_path: Path) -> None:
    site = example(tmp_path)
    second = tmp_path / "nowhere" / "v.cdb"
    done = site.compile("-t", f"validrcptto={second}")
    assert done.status == 1
    assert not site.file.exists()
    assert site.left_over() == []
    second.parent.mkdir()
    done = site.compile("-t", f"validrcptto={second}")
    assert done.status == 0
    assert [one["published"] for one in done.json["outputs"]] == [True, True]
    assert second.read_bytes() == site.content


@pytest.mark.parametrize("thing", [Fifo(), Link("/nowhere/at/all")], ids=["fifo", "link to nothing"])
def test_target_that_is_no_file(tmp_path: Path, thing: Fifo | Link) -> None:
    site = example(tmp_path)
    if isinstance(thing, Fifo):
        os.mkfifo(site.file)
    else:
        site.file.symlink_to(os.fsdecode(thing.target))
    done = site.compile()
    assert done.status == 1
    assert str(site.file) in done.err
    assert site.left_over() == []


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    site = example(tmp_path)
    done = site.compile("--dry-run")
    assert (done.status, done.output["published"]) == (0, False)
    assert done.output["records"] > 80
    assert not site.file.exists()
    assert not site.state.exists()
    site.published()
    before = sorted(str(path) for path in site.state.rglob("*"))
    site.host.root.joinpath("home/joe/.qmail-new").write_text("./Maildir/\n")
    assert site.compile("--dry-run").json["gained"] > 0
    assert sorted(str(path) for path in site.state.rglob("*")) == before
    assert not site.accepts("joe-new@example.org")


# --- kill -9 -----------------------------------------------------------------------------------


def processes_of(mark: str) -> list[int]:
    """The processes with `mark` in their command line or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark.encode() in said:
                found.append(int(entry.name))
    return found


def assert_no_process(mark: str) -> None:
    """The worker notices that nobody listens any more, and ends."""
    end = time.monotonic() + 10
    while found := processes_of(mark):
        assert time.monotonic() < end, found
        time.sleep(0.01)


class Killing:
    """A host that changes between two configurations while its compiler is killed, and killed again."""

    def __init__(self, top: Path) -> None:
        self.site = site = Site(
            top,
            {
                "passwd": {"joe": 1001, **{f"u{number:03}": 2000 + number for number in range(40)}},
                "control/me": "example.org\n",
                "control/locals": "example.org\nexample.net\n",
                **{f"~joe/.qmail-n{number:03}": "./Maildir/\n" for number in range(100)},
            },
        )
        self.contents: list[bytes] = []
        for turn in (1, 0):
            self.turn(turn)
            site.published()
            self.contents.insert(0, site.content)
        assert self.contents[0] != self.contents[1]
        self.mark = f"RCPTGEN_TEST_MARK={os.getpid()}-{time.monotonic_ns()}"
        name, _, value = self.mark.partition("=")
        self.environment = {**os.environ, name: value}
        self.arguments = [
            *PROGRAM,
            "--root",
            str(site.host.root),
            "--state",
            str(site.state),
            "compile",
            "-t",
            site.output,
        ]

    def turn(self, number: int) -> None:
        if number:
            self.site.host.write("~joe/.qmail-other", "./Maildir/\n")
        else:
            self.site.host.remove("~joe/.qmail-other")

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        )

    def loop(self, times: int) -> None:
        site = self.site
        chance = random.Random(11)
        begin = time.monotonic()
        assert self.start().communicate()[1] == b""
        duration = time.monotonic() - begin
        seen = {"old": 0, "new": 0, "left": 0, "ended": 0}
        for number in range(times):
            # On a machine that is busy with something else it is enough to have tried twenty-five times.
            both = seen["old"] >= 3 and seen["new"] >= 1
            if times < 200 and number >= 25 and both and time.monotonic() - begin > 15:
                break
            turn = (number + 1) % 2
            self.turn(turn)
            before = site.content
            process = self.start()
            # Chance around a delay that closes in on the rename from both sides, however busy the machine is.
            time.sleep(duration * chance.uniform(0.5, 1.2))
            process.kill()
            _, said = process.communicate()
            assert said == b"" or process.returncode == 0 or b"published" in said
            assert process.returncode in (0, -signal.SIGKILL)
            content = site.content
            assert content in self.contents
            renamed = content == self.contents[turn] and content != before
            seen["new" if renamed else "old"] += 1
            duration *= 0.9 if renamed else 1.1
            seen["left"] += bool(site.left_over())
            seen["ended"] += process.returncode == 0
        assert_no_process(self.mark)
        # The next run cleans up, and publishes what is on disk now.
        for turn in (0, 1):
            self.turn(turn)
            process = self.start()
            _, said = process.communicate()
            assert process.returncode == 0, said
            assert site.content == self.contents[turn]
        assert site.left_over() == []
        assert sorted(os.listdir(site.file.parent)) == ["validrcptto.cdb"]
        assert all(name.isdigit() for name in os.listdir(site.state / "generations"))
        # The loop has met both sides of the rename.
        assert seen["old"] >= 3, seen
        assert seen["new"] >= 1, seen


def test_killed_at_any_moment(tmp_path: Path) -> None:
    Killing(tmp_path).loop(40)


@pytest.mark.slow
def test_killed_two_hundred_times(tmp_path: Path) -> None:
    Killing(tmp_path).loop(max(200, parts.rounds(20)))


def test_killed_while_the_worker_is_busy(tmp_path: Path) -> None:
    """A worker that nobody listens to any more ends without a word."""
    site = example(tmp_path)
    with faults(slow=(b"/home/joe",)) as started:
        code = started.program
    mark = f"RCPTGEN_TEST_MARK={os.getpid()}-{time.monotonic_ns()}"
    name, _, value = mark.partition("=")
    process = subprocess.Popen(
        [*code, "--root", str(site.host.root), "compile", "-t", site.output],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, name: value},
    )
    end = time.monotonic() + 20
    while len(processes_of(mark)) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.5)
    process.kill()
    # stderr stays open until the worker has gone too.
    out, said = process.communicate(timeout=20)
    assert (out, said) == (b"", b"")
    assert_no_process(mark)
    assert not site.file.exists()


# --- interrupted -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    site = example(tmp_path)
    site.published()
    before, inode = site.content, site.file.stat().st_ino
    site.host.root.joinpath("home/joe/.qmail-new").write_text("./Maildir/\n")
    with faults(slow=(b"/home/joe/.qmail-new",), seconds=4) as started:
        code = started.program
    # Who was started in the background ignores SIGINT, and so would what is started here.
    before_us = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*code, "--root", str(site.host.root), "--state", str(site.state), "compile", "--json", "-t", site.output],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    signal.signal(signal.SIGINT, before_us)
    end = time.monotonic() + 20
    # (the temporary file is there: the run is in the midst of it)
    while not site.left_over():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(number)
    out, said = process.communicate(timeout=20)
    if number == signal.SIGINT:
        assert (process.returncode, out, said.strip()) == (130, b"", b"rcptgen: interrupted")
        assert site.left_over() == []
    else:
        assert process.returncode == -number
    assert (site.content, site.file.stat().st_ino) == (before, inode)
    site.published()
    assert site.left_over() == []
    assert site.accepts("joe-new@example.org")


# --- the lock ----------------------------------------------------------------------------------


def test_two_runs_at_once(tmp_path: Path) -> None:
    """Also when they are the first: neither has a state directory yet."""
    site = example(tmp_path)
    with faults(slow=(b"/home/joe",)) as started:
        code = started.program
    arguments = ["--root", str(site.host.root), "--state", str(site.state), "compile", "--json", "-t", site.output]
    process = subprocess.Popen([*code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + 20
    while not (site.state / "lock").exists() and not list(site.file.parent.glob(".*lock")):
        assert time.monotonic() < end
        time.sleep(0.005)
    time.sleep(0.1)
    busy = command(*arguments)
    assert busy.returncode == 75
    assert b"another run" in busy.stderr
    assert json.loads(busy.stdout)["status"] == 75
    waited = command(*arguments, "--wait", "30")
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, waited.returncode) == (0, 0)
    assert json.loads(out)["outputs"][0]["changed"]
    assert not json.loads(waited.stdout)["outputs"][0]["changed"]
