"""The real watch, as a process of its own, on a small host of watched.laid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hosts import Thing
from runs import PROGRAM, Run, called, forked_workers
from watched import Edits, laid

from rcptgen.publish.cdb import read_cdb
from rcptgen.targets import target
from rcptgen.watch.ask import ask
from rcptgen.watch.trigger import SOCKET_IN_STATE

LONG = 60.0
"""Seconds that anything may take on a machine that does much else."""

CONFIGURATION = """
[watch]
debounce = 0.05
max_delay = 0.5
rest = 0.0
sweep = {sweep}
[guard]
domain_loss = 1.0
total_loss = 1.0
"""

_LIMITED = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
ready, make_ready = os.pipe()
mapped, make_mapped = os.pipe()
helper = os.fork()
if helper == 0:
    os.read(ready, 1)
    for kind in ("uid_map", "gid_map"):
        with open(f"/proc/{os.getppid()}/{kind}", "w") as file:
            file.write("0 0 4294967295")
    os.write(make_mapped, b"!")
    os._exit(0)
if libc.unshare(0x10000000):
    sys.exit(99)
os.write(make_ready, b"!")
os.read(mapped, 1)
os.waitpid(helper, 0)
with open("/proc/sys/user/max_inotify_watches", "w") as file:
    file.write(sys.argv[1])
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Runs a program in a user namespace of its own, all users in it, in which there are so many inotify watches."""


def limited(watches: int) -> list[str]:
    """What to put in front of a program that is to get no more inotify watches than these."""
    return [sys.executable, "-c", _LIMITED, str(watches)]


class Watching:
    """A host, and what a watch of it publishes and says."""

    def __init__(self, top: Path, more: dict[str, Thing] | None = None, *, sweep: float = 3600) -> None:
        self.top = top
        self.host = laid(top / "host", more)
        self.edits = Edits(self.host)
        self.state = top / "state"
        self.file = top / "out" / "validrcptto.cdb"
        self.file.parent.mkdir()
        self.output = f"validrcptto={self.file}"
        self.log = top / "log"
        self.log.touch()
        self.config = top / "rcptgen.toml"
        self.config.write_text(CONFIGURATION.format(sweep=sweep))
        self.process: subprocess.Popen[bytes] | None = None

    # -- the process -------------------------------------------------------------------------------

    def start(self, *, before: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> None:
        """The watch is being started."""
        arguments = [*before, *PROGRAM, *map(str, self.common()), "watch", "-t", self.output]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stderr=log, env={**os.environ, **(environment or {})}
            )

    def common(self) -> list[str | Path]:
        """The options of every command."""
        return ["--root", self.host.root, "--state", self.state, "--config", self.config]

    @contextmanager
    def running(self, *, before: Sequence[str] = ()) -> Iterator[None]:
        """The watch runs, has published, and ends well afterwards."""
        self.start(before=before)
        try:
            self.until(self.is_watching)
            self.looked()
            yield
        except BaseException:
            self.kill()
            raise
        assert self.stop() == 0, self.said

    def is_watching(self) -> bool:
        """Whether the first look is over; fails where there will be none."""
        assert self.process is not None
        assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.said}"
        return self.file.exists() and "published" in self.said

    def signal(self, number: int) -> None:
        """The watch gets a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """The exit status after SIGTERM."""
        self.signal(signal.SIGTERM)
        assert self.process is not None
        try:
            return self.process.wait(LONG)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """Whatever of it still runs does not."""
        if self.process is not None and self.process.poll() is None:
            for pid in self.workers():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    def workers(self) -> set[int]:
        """The processes that read the host."""
        assert self.process is not None
        try:
            found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        except OSError:
            return set()
        return {int(pid) for pid in found.split()}

    @contextmanager
    def held_up(self, old: set[int]) -> Iterator[None]:
        """A worker that is none of `old` is stopped as soon as there is one: what goes on goes on afterwards."""
        self.until(lambda: bool(self.workers() - old))
        stopped = self.workers() - old
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    # -- what it does ------------------------------------------------------------------------------

    def until(self, condition: Callable[[], bool], why: str = "") -> None:
        """Waits for a condition."""
        end = time.monotonic() + LONG
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"{why or 'it'} never came about; {self.said}")
            time.sleep(0.02)

    @property
    def said(self) -> str:
        """All that the watch wrote."""
        return self.log.read_text()

    def accepts(self, address: str) -> bool:
        """Whether an SMTP server with the published file takes the address."""
        reader = target("validrcptto").open(os.fsencode(self.file))
        try:
            return reader.answer(os.fsencode(address)).accepted
        finally:
            reader.close()

    def becomes(self, address: str, accepted: bool) -> None:
        """Waits until that is what is published."""
        self.until(lambda: self.accepts(address) == accepted, f"{address} {accepted}")

    def looked(self) -> int:
        """Asks for a look at everything that was touched; what the watch answers."""
        return ask(os.fsencode(self.state / os.fsdecode(SOCKET_IN_STATE)), wait=LONG).status

    def run(self, *arguments: str) -> Run:
        """A command beside the watch, which may be publishing at the moment."""
        end = time.monotonic() + LONG
        while True:
            with forked_workers():
                done = called(*self.common(), *arguments)
            if "another run is publishing" not in done.err or time.monotonic() > end:
                return done

    def fresh(self) -> bytes:
        """What a compile that remembers nothing makes of the host as it is now."""
        file = self.top / "fresh.cdb"
        with forked_workers():
            done = called(
                "--root", self.host.root, "--config", self.config, "compile", "--force", "-t", f"validrcptto={file}"
            )
        assert done.status in (0, 75), done
        return file.read_bytes()

    def difference(self) -> str:
        """What is published, and would not be by a fresh compile, and the other way round."""
        fresh = self.fresh()
        if self.file.read_bytes() == fresh:
            return ""
        now, wanted = (set(read_cdb(os.fsencode(one))) for one in (self.file, self.top / "fresh.cdb"))
        return f"too many: {sorted(now - wanted)}; missing: {sorted(wanted - now)}\n{self.said}"

    def ends_true(self) -> None:
        """After a look the published file is that of a fresh compile."""
        self.looked()
        assert self.difference() == ""
