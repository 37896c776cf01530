"""The socket through which a running watch is asked to look now (`rcptgen trigger`, `compile` from cron).

One line each way, JSON, over a unix socket that only root may connect to:

    {"version": 1, "domains": [BASE64...], "wait": true, "job": {...} or null}
    {"version": 1, "status": 0, "text": "...", "other": ""}

The client's half is rcptgen.watch.ask.
"""

from __future__ import annotations

import errno
import hashlib
import os
import selectors
import socket
import stat
import struct
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count

import msgspec

from rcptgen.config import Config
from rcptgen.errors import Busy, ConfigurationError, PublishFailed
from rcptgen.publish.lock import publishing_lock
from rcptgen.publish.paths import Place, ours, reach, why, writable_by_others
from rcptgen.request import Output
from rcptgen.rules.shown import shown

VERSION = 1
MOST_CLIENTS = 64
MOST_BYTES = 1 << 16
"""Bytes of a request with its line end; a client with more to name asks for everything."""

MOST_SAID = 1000
"""Characters of an answer's text."""

TIME_TO_ASK = 5.0
"""Seconds after which a client that has not asked yet makes room for another."""

SOCKET_IN_STATE = b"trigger.sock"
_LOCK = b".lock"
_MOST_ADDRESS = 107
_BACKLOG = 64


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a watch, or a compile, would publish: its outputs, its state directory, a digest of its configuration."""

    outputs: tuple[tuple[str, bytes, int], ...]
    state: bytes | None
    settings: str

    @classmethod
    def of(cls, config: Config, outputs: Iterable[Output], state: bytes | None) -> Job:
        """The job of a run with this configuration."""
        settings = hashlib.sha256(msgspec.json.encode(config)).hexdigest()
        return cls(outputs=tuple((o.target, o.path, o.mode) for o in outputs), state=state, settings=settings)

    def difference(self, other: Job) -> str:
        """Why the one cannot stand for the other; empty where it can."""
        if (self.outputs, self.state) != (other.outputs, other.state):
            return "output"
        return "" if self.settings == other.settings else "configuration"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a client sends; no domains: all.  With a `job` only a watch that does the same takes it."""

    version: int = VERSION
    domains: tuple[bytes, ...] = ()
    wait: bool = False
    job: Job | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a client that waits gets: an exit status, and a line for a person.

    `other`: the watch does not take the request, since it has another version of this program,
    another configuration or another output.
    """

    version: int = VERSION
    status: int = 0
    text: str = ""
    other: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: the domains (none: all), and whether `Server.answer` to its token is waited for."""

    token: int
    domains: tuple[bytes, ...]
    wait: bool


@dataclass(slots=True)
class _Client:
    socket: socket.socket
    token: int
    since: float
    data: bytes = b""
    asked: bool = False


class Server:
    """The listening socket at `path` and its clients: one descriptor for a selectors loop, and nothing that waits.

    Register the server itself for EVENT_READ; when it is readable, `requests` gives what was
    asked since.  At most MOST_CLIENTS are connected at a time, root and our own user alone; one
    that goes away is forgotten.  `job` may be replaced when the configuration is read again.

    Raises Busy where another watch holds the path (for as long as it lives, however it ends), and
    ConfigurationError where the socket cannot be made, or others could replace it.
    """

    def __init__(self, path: bytes, job: Job | None = None) -> None:
        self.path = path
        self.job = job
        self._clients: dict[int, _Client] = {}
        self._tokens = count(1)
        self._stack = ExitStack()
        try:
            place = _directory(path)
            self._stack.callback(place.close)
            self._stack.enter_context(_only_one(path))
            self._socket = self._listen(place)
            self._selector = selectors.EpollSelector()
            self._stack.callback(self._selector.close)
            self._selector.register(self._socket, selectors.EVENT_READ)
            # Given up for a moment where descriptors run out: a connection that cannot be taken keeps the loop awake.
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self._stack.callback(self._give_up_spare)
        except BaseException:
            self._stack.close()
            raise

    def _listen(self, place: Place) -> socket.socket:
        try:
            with suppress(FileNotFoundError):
                present = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
                if not stat.S_ISSOCK(present.st_mode):
                    raise ConfigurationError(f"{shown(self.path)}: is there and is no socket; remove it")
                # We hold the lock: nobody listens there.
                os.unlink(place.name, dir_fd=place.directory)
            made = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            # Linux gives the name the mode that the socket has before: there is no moment in which others may connect.
            os.fchmod(made.fileno(), 0o600)
            made.bind(address(self.path, place.directory))
            self._stack.callback(_remove, place)
            made.listen(_BACKLOG)
        except OSError as error:
            raise ConfigurationError(f"[watch] socket {shown(self.path)}: {why(error)}") from error
        return made

    def fileno(self) -> int:
        """A descriptor that is readable when `requests` has something to do."""
        return self._selector.fileno()

    def requests(self) -> list[Asked]:
        """What was asked since the last call, in the order of asking."""
        found = []
        for key, _ in self._selector.select(0):
            if key.fileobj is self._socket:
                self._accept()
            else:
                asked = self._read(key.data)
                if asked is not None:
                    found.append(asked)
        return found

    def answer(self, token: int, status: int, text: str) -> None:
        """Tells the client behind `token`, if it still waits, with what exit status and words it ends."""
        client = self._clients.get(token)
        if client is not None:
            self._reply(client, Reply(status=status, text=text[:MOST_SAID]))

    def close(self) -> None:
        """The socket is gone, and every client sees the end; harmless when done twice."""
        for client in list(self._clients.values()):
            self._forget(client)
        self._stack.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- clients ------------------------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(MOST_CLIENTS):
            try:
                made, _name = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._turn_away()
                return
            made.setblocking(False)
            client = _Client(made, next(self._tokens), time.monotonic())
            self._clients[client.token] = client
            self._selector.register(made, selectors.EVENT_READ, client)
            if peer(made) not in (0, os.geteuid()):
                self._forget(client)
            elif len(self._clients) > MOST_CLIENTS and not self._make_room(client):
                self._reply(client, Reply(status=Busy.status, text="too many are waiting already"))

    def _turn_away(self) -> None:
        self._give_up_spare()
        with suppress(OSError):
            self._socket.accept()[0].close()
        # Another thread may have been faster; then the next connection has to wait.
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _give_up_spare(self) -> None:
        spare, self._spare = self._spare, -1
        if spare >= 0:
            os.close(spare)

    def _make_room(self, newest: _Client) -> bool:
        """Forgets those that were slow to ask; whether there were any."""
        limit = newest.since - TIME_TO_ASK
        slow = [one for one in self._clients.values() if not one.asked and one.since < limit]
        for one in slow:
            self._forget(one)
        return bool(slow)

    def _read(self, client: _Client) -> Asked | None:
        if client.token not in self._clients:
            return None
        try:
            data = client.socket.recv(MOST_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        client.data += data
        line, end, more = client.data.partition(b"\n")
        if client.asked or not data or more or len(client.data) > MOST_BYTES:
            self._forget(client)
            return None
        return self._ask(client, line) if end else None

    def _ask(self, client: _Client, line: bytes) -> Asked | None:
        try:
            request = msgspec.json.decode(line, type=Request)
        except (msgspec.DecodeError, RecursionError):
            request = Request(version=0)
        other = self._difference(request)
        if other:
            self._reply(client, Reply(status=Busy.status, other=other, text=f"the watch has another {other}"))
            return None
        client.asked, client.data = True, b""
        if not request.wait:
            self._forget(client)
        return Asked(client.token, request.domains, request.wait)

    def _difference(self, request: Request) -> str:
        """Why the request is none for this watch; empty where it is."""
        if request.version != VERSION:
            return "version"
        return self.job.difference(request.job) if self.job and request.job else ""

    def _reply(self, client: _Client, reply: Reply) -> None:
        # A line fits into the buffer of a socket that nothing was sent through.
        with suppress(OSError):
            client.socket.send(msgspec.json.encode(reply) + b"\n", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        self._forget(client)

    def _forget(self, client: _Client) -> None:
        if self._clients.pop(client.token, None) is not None:
            self._selector.unregister(client.socket)
            client.socket.close()


def socket_path(root: bytes, state: bytes | None, config: Config) -> bytes | None:
    """Where a watch of the host below `root` listens: as configured, for another root in its state directory if any."""
    if root == b"/":
        return os.fsencode(config.watch.socket)
    return None if state is None else os.path.join(state, SOCKET_IN_STATE)


def address(path: bytes, directory: int) -> bytes:
    """`path` as the address of a socket: these are short, so a long one goes through the open directory."""
    if len(path) <= _MOST_ADDRESS:
        return path
    return b"/proc/self/fd/%d/%s" % (directory, os.path.basename(path))


def peer(connected: socket.socket) -> int:
    """The uid at the other end, as the kernel saw it when the connection was made, or listened for."""
    found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", found)
    assert isinstance(uid, int)
    return uid


def _directory(path: bytes) -> Place:
    """The place of the socket, its directory made (0700) where it is missing and safe from others."""
    try:
        try:
            place = reach(path)
        except FileNotFoundError:
            _make_directory(os.path.dirname(path))
            place = reach(path)
        status = os.fstat(place.directory)
        if ours(status) and not writable_by_others(status):
            return place
        place.close()
    except OSError as error:
        raise ConfigurationError(f"[watch] socket {shown(path)}: {why(error)}") from error
    except PublishFailed as error:
        raise ConfigurationError(f"[watch] socket: {error}") from error
    raise ConfigurationError(
        f"[watch] socket {shown(path)}: others could replace it; its directory must belong to root and be closed to "
        "their writing"
    )


def _make_directory(path: bytes) -> None:
    place = reach(path)
    try:
        if ours(os.fstat(place.directory)) and not writable_by_others(os.fstat(place.directory)):
            os.mkdir(place.name, 0o700, dir_fd=place.directory)
    finally:
        place.close()


def _only_one(path: bytes) -> ExitStack:
    """The lock of a watch, held; the kernel takes it back when the process ends."""
    with ExitStack() as stack:
        try:
            stack.enter_context(publishing_lock(path + _LOCK, 0.0))
        except Busy:
            raise Busy(f"another watch is running ({shown(path)})") from None
        except PublishFailed as error:
            raise ConfigurationError(f"[watch] socket: {error}") from error
        return stack.pop_all()


def _remove(place: Place) -> None:
    with suppress(OSError):
        os.unlink(place.name, dir_fd=place.directory)
