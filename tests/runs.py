"""Runs of the command line on a small host, for tests.

* `Site` is a host with a state directory and a published file; its methods are commands,
  called in this process, and answer with a `Run`.
* `command` starts the real program as a process of its own.
* `faults` makes the worker process meet what cannot be made on an ordinary disk: a home that
  gives EIO, one that hangs, too few descriptors, a kill.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hosts import Host, Thing

from rcptgen import reader, worker
from rcptgen.cli import run
from rcptgen.publish.cdb import read_cdb
from rcptgen.targets import target

HERE = Path(__file__).resolve().parent
PROGRAM = [sys.executable, "-P", "-m", "rcptgen"]

Names = Mapping[str, Thing | Mapping[str, int | str] | None]


@dataclass(frozen=True, slots=True)
class Run:
    """What a command did: its exit status, and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON Lines on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def held(self) -> dict[str, dict[str, Any]]:
        """What is held, by domain."""
        return {one["domain"]: one for one in self.json["held"]}

    @property
    def kept(self) -> dict[str, str]:
        """Why the rules of a path were kept as published, by path."""
        return {one["path"]: one["reason"] for one in self.json["kept"]}

    @property
    def states(self) -> dict[str, str]:
        """The state of every unit that is not healthy, by path."""
        return {one["path"]: one["state"] for one in self.json["units"]}

    @property
    def output(self) -> dict[str, Any]:
        """What became of the one output."""
        (found,) = self.json["outputs"]
        assert isinstance(found, dict)
        return found


def called(*arguments: str | os.PathLike[str]) -> Run:
    """The command line `arguments`, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = run([os.fspath(one) for one in arguments])
    return Run(status, out.getvalue(), err.getvalue())


def command(
    *arguments: str | bytes | os.PathLike[str], given: bytes = b"", program: Sequence[str] = PROGRAM, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """The real program with `arguments`, and `given` on its stdin; it ends by itself."""
    return subprocess.run([*program, *arguments], input=given, capture_output=True, check=False, timeout=60, **options)


class Site:
    """A host below `top`/host that is compiled into `top`/out/validrcptto.cdb, with `top`/state between the runs."""

    def __init__(self, top: Path, names: Names) -> None:
        self.top = top
        self.host = Host(top / "host", names)
        self.state = top / "state"
        self.file = top / "out" / "validrcptto.cdb"
        self.file.parent.mkdir(exist_ok=True)
        self.output = f"validrcptto={self.file}"

    def run(self, *arguments: str | os.PathLike[str]) -> Run:
        """Any command on this host."""
        with forked_workers():
            return called("--root", self.host.root, "--state", self.state, *arguments)

    def compile(self, *options: str) -> Run:
        """`rcptgen compile --json`."""
        return self.run("compile", "--json", "-t", self.output, *options)

    def published(self, *options: str) -> Run:
        """A compile that must end with status 0."""
        done = self.compile(*options)
        assert done.status == 0, done
        return done

    def approve(self, *domains: str) -> Run:
        """`rcptgen approve --json`."""
        return self.run("approve", "--json", "-t", self.output, *domains)

    @property
    def rules(self) -> set[str]:
        """The rules in the published file, as `dump` writes them."""
        return set(called("dump", self.file).out.splitlines())

    @property
    def content(self) -> bytes:
        """The published file."""
        return self.file.read_bytes()

    @property
    def records(self) -> list[tuple[bytes, bytes]]:
        """The records of the published file, in its order."""
        return list(read_cdb(os.fsencode(self.file)))

    def accepts(self, address: str) -> bool:
        """Whether an SMTP server with the published file takes the address."""
        reader = target("validrcptto").open(os.fsencode(self.file))
        try:
            return reader.answer(os.fsencode(address)).accepted
        finally:
            reader.close()

    def left_over(self) -> list[str]:
        """Every temporary file beside the published one."""
        return [name for name in os.listdir(self.file.parent) if name.endswith(".tmp")]


# --- Workers without a start of Python -----------------------------------------------------------


class Forked:
    """A worker that is a fork of this process: what it does is the same, and a hundred runs take seconds."""

    def __init__(self, arguments: list[str], *, pass_fds: list[int], **_: Any) -> None:
        (pipe,) = pass_fds
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            return
        try:
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.closerange(3, pipe)
            os.closerange(pipe + 1, min(1 << 16, os.sysconf("SC_OPEN_MAX")))
            os.chdir("/")
            reader.serve(pipe)
        finally:
            os._exit(1)

    def wait(self, timeout: float | None = None) -> None:
        end = time.monotonic() + (60 if timeout is None else timeout)
        while os.waitpid(self.pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("worker", timeout or 60)
            time.sleep(0.0005)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def _starting(start: Callable[..., Any]) -> types.SimpleNamespace:
    """What stands for the module subprocess in worker."""
    return types.SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired)


@contextmanager
def forked_workers() -> Iterator[None]:
    """Workers are forks, unless something else has been arranged for them."""
    with pytest.MonkeyPatch.context() as patch:
        if vars(worker)["subprocess"] is subprocess:
            patch.setattr(worker, "subprocess", _starting(Forked))
        yield


# --- Faults in the worker ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """A program whose workers meet faults."""

    faults: dict[str, Any]

    @property
    def program(self) -> list[str]:
        """What stands for `rcptgen` on a command line."""
        code = (
            f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
            "from runs import faults\n"
            "from rcptgen.cli import main\n"
            f"with faults(**{self.faults!r}):\n"
            "    main()\n"
        )
        return [sys.executable, "-c", code]


@contextmanager
def faults(*, time_limit: float | None = None, **wanted: Any) -> Iterator[Started]:
    """Every worker that is started within meets the faults `wanted`; see `faulty.install`.

    `time_limit` replaces the seconds that the parent waits for a worker.  What it answers
    starts the real program as a process of its own that meets the same.
    """

    def start(arguments: list[str], **options: Any) -> subprocess.Popen[bytes]:
        *head, code = arguments
        mark = "from rcptgen.reader import serve;"
        assert mark in code
        prepared = code.replace(mark, f"import faulty; faulty.install(**{wanted!r}); {mark}")
        return subprocess.Popen([*head, prepared], **options)

    ordinary = worker.Worker.__init__

    def limited(self: worker.Worker, root: bytes, *told: Any, **given: Any) -> None:
        ordinary(self, root, *told, **(given if time_limit is None else {"time_limit": time_limit}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "subprocess", _starting(start))
        patch.setattr(worker.Worker, "__init__", limited)
        yield Started(wanted)
