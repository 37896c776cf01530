"""Commands that are told what a run has held or published: `[guard] on_hold` and `[history] on_publish`.

A hook runs when everything is done and no lock is held, so that it may call rcptgen itself.
It cannot change what was done: that it fails is a warning.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import msgspec

from rcptgen.config import Config
from rcptgen.publish.files import PublishedUnsynced
from rcptgen.publish.history import Rollback
from rcptgen.request import Held, Request, Result
from rcptgen.rules.shown import as_json, shown

TIME_LIMIT = 60.0
"""Seconds after which a hook is killed, with all that it has started in its process group."""

HOLD = "hold"
PUBLISH = "publish"

_RUNNING = "RCPTGEN_HOOK"
"""Names the events whose hooks are running: a hook that makes rcptgen publish is not called for that again."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OUTPUT_LIMIT = 16 << 10
_CHUNK = 1 << 12


class Hooks:
    """A context after which the hooks run that `result` calls for; it must be the outermost one, around the lock.

    No hook runs for a dry run, nor where nothing was published.
    """

    def __init__(self, config: Config, request: Request, result: Result) -> None:
        self._commands = {HOLD: config.guard.on_hold, PUBLISH: config.history.on_publish}
        self._request = request
        self._result = result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        done = error is None or isinstance(error, PublishedUnsynced)
        if self._request.dry_run or not done or not any(one.published for one in self._result.outputs):
            return
        running = os.environ.get(_RUNNING, "").split()
        for event, command in self._commands.items():
            wanted = self._result.new_holds if event == HOLD else self._result.changed
            if command and wanted and event not in running:
                told = json.dumps(plan(event, self._request, self._result)).encode() + b"\n"
                self._result.warnings += run(command, event, told, running)


def plan(event: str, request: Request, result: Result) -> dict[str, Any]:
    """What a hook reads from its standard input, as one JSON object."""
    return {
        "version": 1,
        "event": event,
        "reason": request.reason,
        "by": msgspec.to_builtins(request.by),
        "generation": result.generation,
        "status": result.status,
        "gained": result.gained,
        "lost": result.lost,
        "held": [held_json(one) for one in result.held],
        "rollback": rollback_json(result.rollback),
        "outputs": [
            {
                "target": one.output.target,
                **as_json("path", one.output.path),
                "records": one.records,
                "changed": one.changed,
            }
            for one in result.outputs
        ],
    }


def held_json(one: Held) -> dict[str, Any]:
    """Something that is held, as every JSON of ours shows it."""
    return {
        **as_json("domain", one.domain),
        "catch_all": one.catch_all,
        "since": one.since,
        "reason": one.reason,
        "count": one.count,
        "sample": [shown(name) for name in one.sample],
    }


def rollback_json(one: Rollback | None) -> dict[str, Any] | None:
    """The rollback that is in force, or null."""
    if one is None:
        return None
    by = msgspec.to_builtins(one.by)
    return {"generation": one.number, "published": one.time, "since": one.since, "by": by}


def run(
    command: Sequence[str], event: str, told: bytes, running: Sequence[str] = (), *, limit: float = TIME_LIMIT
) -> list[str]:
    """Runs one hook with `told` on its stdin; the warnings it gives rise to, the first of its output with them.

    It gets no shell, a clean environment, the root directory, and a session of its own.  What it
    leaves running in the background is left alone, unless it takes longer than `limit` itself.
    """
    name = f"[{'guard' if event == HOLD else 'history'}] on_{event}"
    environment = {"PATH": _PATH, "LC_ALL": "C.UTF-8", _RUNNING: " ".join([*running, event])}
    stdin = os.memfd_create("rcptgen-plan", os.MFD_CLOEXEC)
    try:
        with open(stdin, "wb", closefd=False) as out:
            out.write(told)
        os.lseek(stdin, 0, os.SEEK_SET)
        try:
            process = subprocess.Popen(
                list(command),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            return [f"{name}: cannot run {command[0]}: {error.strerror}"]
    finally:
        os.close(stdin)
    with process:
        said, in_time = _listen(process, limit)
        if not in_time:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    lines = [f"{name}: {shown(line)}" for line in said.splitlines()]
    return [*_failures(name, process.returncode, in_time, limit), *lines]


def _failures(name: str, status: int, in_time: bool, limit: float) -> Iterator[str]:
    if not in_time:
        yield f"{name}: killed, since it did not end within {limit:.0f} seconds"
    elif status < 0:
        yield f"{name}: ended by signal {-status}"
    elif status:
        yield f"{name}: ended with status {status}"


def _listen(process: subprocess.Popen[bytes], limit: float) -> tuple[bytes, bool]:
    """The first of what the process writes, and whether it ends before `limit`; a child of its may hold the pipe."""
    assert process.stdout is not None
    said = bytearray()
    end = time.monotonic() + limit
    os.set_blocking(process.stdout.fileno(), False)
    with selectors.DefaultSelector() as selector:
        ended = os.pidfd_open(process.pid)
        try:
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            while time.monotonic() < end:
                ready = [key.fileobj for key, _ in selector.select(max(end - time.monotonic(), 0))]
                if process.stdout in ready and not _take(process.stdout.fileno(), said):
                    selector.unregister(process.stdout)
                elif ended in ready and process.stdout not in ready:
                    process.wait()
                    return bytes(said), True
        finally:
            os.close(ended)
    return bytes(said), False


def _take(descriptor: int, said: bytearray) -> bool:
    """Reads what is there, keeps the first of it, and says whether there may be more."""
    part = os.read(descriptor, _CHUNK)
    said += part[: max(_OUTPUT_LIMIT - len(said), 0)]
    return bool(part)
