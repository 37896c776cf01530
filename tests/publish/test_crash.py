"""Power cuts, by the order of the system calls, and kill -9 at any moment."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import parts
import pytest

from rcptgen.publish.cdb import read_cdb, write_cdb
from rcptgen.publish.files import Publication
from rcptgen.publish.lock import publishing_lock
from rcptgen.publish.state import Meta, State, path_key

CONTENTS = [[(b"%s%d@example.org" % (name, i), b"") for i in range(300)] for name in (b"one", b"another")]


def publish(top: Path, turn: int) -> None:
    """Publish one of the two contents, with lock and state, as the compiler does."""
    target = os.fsencode(top / "v.cdb")
    with publishing_lock(os.fsencode(top / "lock"), 5), State.open(os.fsencode(top / "state"), keep=2) as state:
        generation = state.current([target]) if os.path.exists(target) else None
        if generation is not None:
            generation.close()
        with state.begin() as writer, Publication() as publication:
            writer.add(b"example.org", b"%d" % (turn % 2))
            staged = publication.stage(target, 0o644)
            write_cdb(staged.fileno(), CONTENTS[turn % 2])
            staged.finish()
            writer.finish(Meta(time=turn, digests={path_key(target): staged.sha256}))
            publication.commit()
            assert state.accept(writer) is None


class Child:
    """A process that publishes in turn, as fast as it can, and tells after each time."""

    def __init__(self, top: Path, turn: int) -> None:
        self._told, tell = os.pipe()
        self.id = os.fork()
        if self.id == 0:
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.write(tell, b"x")
                while True:
                    publish(top, turn)
                    os.write(tell, b"x")
                    turn += 1
            finally:
                os._exit(1)
        os.close(tell)

    def end(self, after: int, seconds: float, number: signal.Signals) -> int:
        """Send it a signal some seconds after it has told `after` times; its wait status."""
        for _ in range(after):
            os.read(self._told, 1)
        time.sleep(seconds)
        os.kill(self.id, number)
        os.close(self._told)
        return os.waitpid(self.id, 0)[1]


def _duration(top: Path) -> float:
    """About how long a publication takes here, which hangs on what fsync costs."""
    begin = time.monotonic()
    for turn in range(4):
        publish(top, turn)
    return (time.monotonic() - begin) / 4


def test_killed_at_any_moment(tmp_path: Path) -> None:
    chance = random.Random(3)
    duration = _duration(tmp_path)
    begin = time.monotonic()
    seen = {0: 0, 1: 0}
    leftovers = 0
    for number in range(parts.rounds(200)):
        # On a disk that is busy with something else it is enough to have tried sixty times.
        if number >= 60 and time.monotonic() - begin > parts.rounds(15):
            break
        child = Child(tmp_path, number)
        assert child.end(chance.choice((1, 1, 2)), chance.uniform(0, duration), signal.SIGKILL) == signal.SIGKILL
        found = CONTENTS.index(list(read_cdb(os.fsencode(tmp_path / "v.cdb"))))
        seen[found] += 1
        leftovers += any("tmp" in name for name in os.listdir(tmp_path))
        with State.open(os.fsencode(tmp_path / "state")) as state:
            generation = state.current([os.fsencode(tmp_path / "v.cdb")])
            # Whatever was cut off: a generation of just this content is always there.
            assert generation is not None, state.warnings
            with generation:
                assert list(generation.blobs()) == [(b"example.org", b"%d" % found)]
    assert min(seen.values()) > 5
    assert leftovers > 5
    publish(tmp_path, 1)
    assert sorted(os.listdir(tmp_path)) == ["lock", "state", "v.cdb"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_by_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    chance = random.Random(4)
    duration = _duration(tmp_path)
    leftovers = 0
    for turn in range(parts.rounds(20)):
        Child(tmp_path, turn).end(1, chance.uniform(0, duration), number)
        assert list(read_cdb(os.fsencode(tmp_path / "v.cdb"))) in CONTENTS
        leftovers += any("tmp" in name for name in os.listdir(tmp_path))
    if number == signal.SIGINT:
        # Only a second thing going wrong, or an interrupt in the midst of cleaning up, leaves a file.
        assert leftovers <= parts.rounds(2)
    publish(tmp_path, 0)
    assert sorted(os.listdir(tmp_path)) == ["lock", "state", "v.cdb"]


def _trace(tmp_path: Path, call: str) -> list[str]:
    """The system calls on the files of `tmp_path` that one publication makes, in order."""
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import pathlib, test_crash; {call}"
    log = tmp_path / "strace"
    calls = (
        "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,fchmod,fchown,flock"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(parts.__file__).parent)}
    subprocess.run(
        ["strace", "-f", "-y", "-o", str(log), "-e", f"trace={calls}", sys.executable, "-B", "-c", script],
        check=True,
        env=environment,
    )
    lines = [re.sub(r"^[0-9]+ +", "", line) for line in log.read_text().splitlines() if f"{tmp_path}/" in line]
    return [line for line in lines if "/strace" not in line]


def _at(lines: list[str], pattern: str) -> list[int]:
    found = [number for number, line in enumerate(lines) if re.search(pattern, line)]
    assert found, f"no {pattern} in:\n" + "\n".join(lines)
    return found


@pytest.mark.needs("strace")
def test_the_order_that_survives_a_power_cut(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    publish(top, 0)
    lines = _trace(tmp_path, f"test_crash.publish(pathlib.Path({str(top)!r}), 1)")
    lines = [line for line in lines if "= -1" not in line]
    directory = re.escape(str(top))
    written = _at(lines, rf"^(write|pwrite64|ftruncate)\(\d+<{directory}/\.v\.cdb\.rcptgen-")[-1]
    mode = _at(lines, rf"^fchmod\(\d+<{directory}/\.v\.cdb\.rcptgen-\S*>, 0644\)")[-1]
    synced = _at(lines, rf"^fsync\(\d+<{directory}/\.v\.cdb\.rcptgen-")[-1]
    (renamed,) = _at(lines, r'^rename\w*\(.*\.v\.cdb\.rcptgen-.*"v\.cdb"')
    lasting = _at(lines, rf"^fsync\(\d+<{directory}>")[0]
    assert written < mode < synced < renamed < lasting
    # The generation is whole on disk before the outputs get their names, and named only after they have.
    rules = _at(lines, rf"^fsync\(\d+<{directory}/state/generations/\d+/rules>")[-1]
    meta = _at(lines, rf"^fsync\(\d+<{directory}/state/generations/\d+/meta\.json>")[-1]
    entry = _at(lines, rf"^fsync\(\d+<{directory}/state/generations>")[-1]
    current = _at(lines, r'^rename\w*\(.*"current"')[-1]
    current_synced = _at(lines, rf"^fsync\(\d+<{directory}/state/\.current\.tmp>")[-1]
    top_synced = _at(lines, rf"^fsync\(\d+<{directory}/state>")[-1]
    assert max(rules, meta) < entry < renamed
    assert lasting < current_synced < current < top_synced
    # The temporary file is made as a new file, never through a link.
    opened = lines[_at(lines, r"^openat\(.*\.v\.cdb\.rcptgen-")[0]]
    assert {"O_EXCL", "O_NOFOLLOW", "O_CLOEXEC", "O_RDWR", "O_CREAT"} <= set(re.findall(r"O_\w+", opened))


@pytest.mark.needs("strace")
def test_an_unchanged_output_is_not_touched(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    publish(top, 0)
    before = (top / "v.cdb").stat()
    lines = _trace(tmp_path, f"test_crash.publish(pathlib.Path({str(top)!r}), 0)")
    after = (top / "v.cdb").stat()
    assert (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns)
    assert not [line for line in lines if re.match(r'^rename\w*\(.*"v\.cdb"', line)]
