"""Asking a running watch: the client's half of rcptgen.watch.trigger."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec

from rcptgen.errors import Busy, NeedsRoot, RcptgenError
from rcptgen.publish.paths import drop, why
from rcptgen.rules.shown import shown
from rcptgen.watch.trigger import MOST_BYTES, Job, Reply, Request, address, peer

TIME_TO_CONNECT = 1
"""Seconds that the caller may be held up where the watch does not even take connections."""

_MOST_REPLY = 1 << 16


class NotRunning(RcptgenError):
    """No watch listens, or it ended before it answered."""

    status = 75


def running(path: bytes) -> bool:
    """Whether a watch of root's or ours listens at `path`."""
    try:
        with _connected(path):
            return True
    except RcptgenError:
        return False


def ask(path: bytes, domains: Iterable[bytes] = (), *, wait: float | None = None, job: Job | None = None) -> Reply:
    """The watch at `path` has been asked to look now, at `domains` or at all.

    Without `wait` it returns as soon as the request is handed over, within TIME_TO_CONNECT seconds;
    with it, in seconds, when the watch says that what was asked for is live: the Reply is its word.
    With a `job` a watch that does another one refuses (`Reply.other`); that takes a `wait`.

    Raises NotRunning, Busy where the watch does not take the request or does not answer in
    time, NeedsRoot where we may not connect.
    """
    request = Request(domains=tuple(domains), wait=wait is not None, job=job)
    line = msgspec.json.encode(request) + b"\n"
    if len(line) > MOST_BYTES:
        line = msgspec.json.encode(Request(wait=wait is not None, job=job)) + b"\n"
    with _connected(path) as connected:
        try:
            connected.sendall(line)
        except TimeoutError:
            raise Busy("the watch does not take requests") from None
        except OSError as error:
            raise NotRunning(f"the watch has just ended ({why(error)})") from None
        return Reply() if wait is None else _reply(connected, time.monotonic() + wait, wait)


@contextmanager
def _connected(path: bytes) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        # The kernel's own limit: a unix socket whose queue is full otherwise blocks, or fails at once.
        limit = struct.pack("ll", TIME_TO_CONNECT, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        _connect(made, path)
        if peer(made) not in (0, os.geteuid()):
            raise NotRunning(f"{shown(path)}: whoever listens there is not root")
        made.settimeout(TIME_TO_CONNECT)
        yield made


def _connect(made: socket.socket, path: bytes) -> None:
    try:
        directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            made.connect(address(path, directory))
        finally:
            drop(directory)
    except BlockingIOError:
        raise Busy("the watch does not take requests") from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise NeedsRoot(f"{shown(path)}: only root may ask the watch") from None
        raise NotRunning(f"no watch is running ({shown(path)}: {why(error)})") from None


def _reply(connected: socket.socket, end: float, wait: float) -> Reply:
    data = b""
    while not data.endswith(b"\n"):
        left = end - time.monotonic()
        try:
            connected.settimeout(max(left, 0.001))
            more = connected.recv(_MOST_REPLY)
        except TimeoutError:
            raise Busy(f"not live within {wait:g} s; the watch goes on with it") from None
        except OSError:
            more = b""
        data += more
        if not more or len(data) > _MOST_REPLY:
            raise NotRunning("the watch ended before it answered")
    try:
        return msgspec.json.decode(data, type=Reply)
    except msgspec.DecodeError:
        raise NotRunning("what answers is no watch of this version") from None
