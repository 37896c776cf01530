"""What systemd is told: NOTIFY_SOCKET and the watchdog of a unit with `Type=notify` (sd_notify(3)).

That systemd cannot be reached, or does not listen for a while, changes nothing of what the
service does: no call here raises, none waits.
"""

from __future__ import annotations

import os
import time
import warnings
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rcptgen.errors import ConfigurationError
from rcptgen.rules.shown import safe

if TYPE_CHECKING:
    from sdnotify import SystemdNotifier

MOST_SHOWN = 400
"""Characters of a STATUS; systemd drops a message of more than 4096 bytes whole."""

MOST_OWED = 4


class Notify:
    """The way to the service manager, if there is one.

    `interval` is the seconds between two calls of `watchdog` (half of WATCHDOG_USEC, where
    WATCHDOG_PID is absent or means this process), None where no watchdog runs.  A change of
    state (READY, RELOADING, STOPPING) that could not be told goes out, in order, before the
    next message; STATUS, WATCHDOG and EXTEND_TIMEOUT_USEC are dropped: the next one says more.
    Raises ConfigurationError where systemd waits for READY and sdnotify is not installed.
    """

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self.interval = _interval(os.environ)
        self._notifier: SystemdNotifier | None = None
        self._owed: deque[str] = deque(maxlen=MOST_OWED)
        if self._address:
            self._connect()

    @property
    def wanted(self) -> bool:
        """Whether somebody asked to be told."""
        return bool(self._address)

    def ready(self, status: str = "") -> None:
        """The first publish is verified, or the reload is done."""
        self._tell("READY=1" + (f"\nSTATUS={_line(status)}" if status else ""), owed=True)

    def status(self, text: str) -> None:
        """One line for `systemctl status`; escaped, and cut to MOST_SHOWN characters."""
        self._tell(f"STATUS={_line(text)}")

    def watchdog(self) -> None:
        """The loop that does the work is alive; to be called from there, once every `interval`."""
        self._tell("WATCHDOG=1")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", owed=True)

    def stopping(self) -> None:
        """The service ends."""
        self._tell("STOPPING=1", owed=True)

    def extend(self, seconds: float) -> None:
        """A start, reload or stop may take `seconds` more from now on; to be repeated before they are over."""
        self._tell(f"EXTEND_TIMEOUT_USEC={max(0, round(seconds * 1e6))}")

    def close(self) -> None:
        """Gives the socket back; harmless when done twice."""
        self._address = ""
        self._forget()

    def _tell(self, message: str, *, owed: bool = False) -> None:
        if not self._address:
            return
        while self._owed and self._send(self._owed[0]):
            self._owed.popleft()
        if self._owed or not self._send(message):
            self._owed += [message] if owed else []

    def _send(self, message: str) -> bool:
        """Whether the message was handed over; a socket that was made anew is found again."""
        # sdnotify sends latin-1: spelled in it, the bytes are those of UTF-8.
        spelled = message.encode("utf-8", "backslashreplace").decode("latin-1")
        for _ in range(2):
            if self._notifier is None and not self._connect():
                return False
            assert self._notifier is not None
            try:
                self._notifier.notify(spelled)
            except BlockingIOError:
                return False
            except OSError:
                self._forget()
            else:
                return True
        return False

    def _connect(self) -> bool:
        try:
            from sdnotify import SystemdNotifier
        except ImportError:
            raise ConfigurationError(
                "systemd waits for a word of this service (Type=notify), which takes sdnotify: "
                "pip install 'rcptgen[systemd]'"
            ) from None
        try:
            with warnings.catch_warnings():
                # It leaves a socket that cannot be connected to the collector.
                warnings.simplefilter("ignore", ResourceWarning)
                # debug: errors come out, so that what is owed is known.
                notifier = SystemdNotifier(debug=True)
        except OSError:
            return False
        # A receiver that does not keep up must not stop the loop: sdnotify's socket would block.
        notifier.socket.setblocking(False)
        self._notifier = notifier
        return True

    def _forget(self) -> None:
        if self._notifier is not None:
            self._notifier.socket.close()
            self._notifier = None


def _interval(environ: Mapping[str, str]) -> float | None:
    """Half of WATCHDOG_USEC in seconds, as sd_watchdog_enabled(3) reads the environment."""
    try:
        pid = environ.get("WATCHDOG_PID")
        if pid is not None and int(pid) != os.getpid():
            return None
        microseconds = int(environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return microseconds / 2e6 if microseconds > 0 else None


def _line(text: str) -> str:
    shown = safe(text)
    return shown if len(shown) <= MOST_SHOWN else shown[: MOST_SHOWN - 3] + "..."
