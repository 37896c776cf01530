"""The parent's side of one worker process: the pipe to it, its time limit, its death."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from typing import Any

from rcptgen.config import Config
from rcptgen.errors import RcptgenError, Shortage
from rcptgen.qmail.judged import Settings
from rcptgen.reader import Session, WorkerLost

TIME_LIMIT = 30.0
SIGN_OF_LIFE = 0.002
"""The share of processor time below which a worker that does not answer counts as hanging."""

MOST_ROUNDS = 20
"""Time limits after which a worker is killed even while it works: nobody's files may hold up the others for ever."""


class Silent(Exception):
    """The worker gave no answer in time; it was killed."""


def _why(error: Exception) -> str:
    return f" ({error})" if str(error) else ""


class Worker:
    """One worker process and the pipe to it; starts again by itself after a kill."""

    def __init__(
        self,
        root: bytes,
        settings: Settings,
        config: Config | None = None,
        *,
        time_limit: float = TIME_LIMIT,
        record: bool = False,
    ) -> None:
        self._session = Session(root, "auto", settings, config or Config(), record)
        self._time_limit = time_limit
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection[Any, Any] | None = None
        self._begun = ""
        self._greeted = False
        self._life = 0

    def ask(self, name: str, *arguments: Any) -> Any:
        """The worker's answer.

        Raises Silent where there is none in time, WorkerLost where it ended or had no memory
        for it, and the RcptgenError that is its answer: Shortage where it ran out of something.
        """
        return self.finish(self.begin(name, *arguments))

    def begin(self, name: str, *arguments: Any) -> int:
        """Asks, and leaves the worker to it: `finish`, in the order of what was begun, takes the answer.

        Returns what `finish` is to be given.  Raises Shortage where no worker starts.
        """
        self.start()
        self._greet()
        self._send(name, arguments)
        return self._life

    def ready(self, life: int) -> bool:
        """Whether `finish` would not have to wait."""
        if self._pipe is None or life != self._life:
            return True
        try:
            return self._pipe.poll(0)
        except OSError:
            return True

    def finish(self, life: int) -> Any:
        """The answer to what was begun first; see `ask`.  WorkerLost, too, where the worker was killed since."""
        if self._pipe is None or life != self._life:
            raise WorkerLost("the worker process was killed over something else")
        try:
            answer = self._receive()
        except (EOFError, OSError) as error:
            self._kill()
            raise WorkerLost(f"the worker process ended while it read the host{_why(error)}") from None
        if isinstance(answer, WorkerLost):
            self._kill()
        if isinstance(answer, RcptgenError):
            raise answer
        return answer

    def _send(self, name: str, arguments: tuple[Any, ...]) -> None:
        assert self._pipe is not None
        self._begun = name
        try:
            self._pipe.send((name, arguments))
        except OSError:
            # It has ended; `_receive` will find out.
            pass

    def _receive(self) -> Any:
        assert self._pipe is not None
        worked = self._worked()
        rounds = 0
        while not self._pipe.poll(self._time_limit):
            # A large home takes long, a dead mount does nothing at all.
            rounds += 1
            before, worked = worked, self._worked()
            if worked - before < SIGN_OF_LIFE * self._time_limit or rounds >= MOST_ROUNDS:
                self._kill()
                raise Silent(self._begun)
        return self._pipe.recv()

    def _worked(self) -> float:
        """The seconds of processor time that the worker has used."""
        assert self._process is not None
        try:
            with open(f"/proc/{self._process.pid}/stat", "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def runs(self) -> bool:
        """Whether there is a process that knows what it was asked for."""
        return self._pipe is not None

    @property
    def was_lost(self) -> bool:
        """Whether a process was killed, or ended, and what it knew with it."""
        return self._life > 0

    def start(self) -> None:
        """The process is on its way, if it was not: what it takes to start need not be waited for."""
        if self._pipe is not None:
            return
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise Shortage(f"cannot start a worker: {os.strerror(error.errno or errno.EIO)}") from None
        # Isolated: neither the environment nor the working directory can feed code to root.
        # The package is imported from where we run from.
        path = [place for place in sys.path if place]
        code = f"import sys; sys.path[:0] = {path!r}; from rcptgen.reader import serve; serve({theirs.fileno()})"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
            )
        except OSError as error:
            ours.close()
            raise Shortage(f"cannot start a worker: {os.strerror(error.errno or errno.EIO)}") from None
        finally:
            theirs.close()
        self._pipe = Connection(ours.detach())
        self._greeted = False
        self._send("open", (self._session,))

    def _greet(self) -> None:
        """Waits until the process is able to answer."""
        if self._greeted:
            return
        try:
            answer = self._receive()
        except (EOFError, OSError, Silent) as error:
            self._kill()
            raise Shortage(f"the worker process did not start{_why(error)}") from None
        if isinstance(answer, RcptgenError):
            self._kill()
            raise Shortage(str(answer)) if isinstance(answer, WorkerLost) else answer
        self._greeted = True

    def _kill(self) -> None:
        self._life += 1
        if self._process is not None:
            self._process.kill()
            try:
                self._process.wait(0.5)
            except subprocess.TimeoutExpired:
                # Stuck in the kernel (a dead NFS server): it goes when the call returns.
                pass
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def close(self) -> None:
        """Ends the worker."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._process is not None:
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._kill()
            self._process = None
