"""What the service says: one line an event on stderr, as journald or a plain file wants it.

Python's logging does the work; here are the form of a line and a handler that never holds the
service up.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import stat
import time
from typing import Final

from rcptgen.rules.shown import safe

LOGGER: Final = "rcptgen"
MOST_BYTES = 4000
"""Of one line; a pipe that is ready takes 4096 bytes at once (PIPE_BUF)."""

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def setup(*, quiet: bool = False, verbose: bool = False, descriptor: int = 2) -> logging.Logger:
    """The logger `rcptgen`, whose lines go to `descriptor` and nowhere else.

    Ordinary events are `info`, what a person should look at `warning` or `error`, what only helps to find a
    fault `debug` (with `verbose`).  `quiet` leaves the errors.  To be called once a process; a second call replaces
    the first.  What watchdog has to say comes out too, from its warnings on.
    """
    handler = Handler(descriptor)
    handler.setFormatter(Formatter(journal=is_journal(descriptor)))
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
    for name, least in ((LOGGER, level), ("watchdog", max(level, logging.WARNING))):
        logger = logging.getLogger(name)
        for old in [one for one in logger.handlers if isinstance(one, Handler)]:
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.setLevel(least)
        logger.propagate = False
    return logging.getLogger(LOGGER)


def is_journal(descriptor: int) -> bool:
    """Whether journald reads `descriptor`: JOURNAL_STREAM has its device and inode (systemd.exec(5)).

    A service whose stderr was led elsewhere inherits the variable all the same.
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class Formatter(logging.Formatter):
    """One event as a line without control characters: `<6>text` for the journal, else after the local time.

    The lines of a traceback follow, each in the same form.
    """

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """The line, or lines, without the last line end."""
        front = self._front(record)
        lines = [record.getMessage()]
        if record.exc_info:
            lines += [f"  {line}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(_cut(front + safe(line)) for line in lines)

    def _front(self, record: logging.LogRecord) -> str:
        if self._journal:
            priority = next((number for least, number in _PRIORITIES if record.levelno >= least), 7)
            return f"<{priority}>"
        moment = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created))
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return f"{moment} {level}"


class Handler(logging.Handler):
    """Writes to a descriptor what it takes at once, and drops the rest: the mail matters more than the log.

    When lines were dropped, the next one that goes out is followed by their number.  A
    descriptor that is closed, or whose reader is gone, is no trouble either.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one event, if it can be done now."""
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - logging's own rule: an event that cannot be formatted stops nobody
            text = self._unformatted(record)
        for line in text.split("\n"):
            self._line(line)

    def _unformatted(self, record: logging.LogRecord) -> str:
        known = logging.LogRecord(
            record.name, record.levelno, record.pathname, record.lineno, "%r with %r", (record.msg, record.args), None
        )
        return self.format(known)

    def _line(self, line: str) -> None:
        if not _write(self._descriptor, line):
            self._dropped += 1
        elif self._dropped:
            words = f"{self._dropped} lines before this one could not be written"
            lost = logging.makeLogRecord({"levelno": logging.WARNING, "levelname": "WARNING", "msg": words})
            if _write(self._descriptor, self.format(lost)):
                self._dropped = 0


def _write(descriptor: int, line: str) -> bool:
    """Whether the line went out; never waits.

    O_NONBLOCK would be set for all who share the open file, a shell's terminal among them.
    """
    data = line.encode("utf-8", "backslashreplace") + b"\n"
    try:
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            with socket.socket(fileno=os.dup(descriptor)) as shared:
                return shared.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) == len(data)
        ready = select.poll()
        ready.register(descriptor, select.POLLOUT)
        if not any(events & select.POLLOUT for _, events in ready.poll(0)):
            return False
        return os.write(descriptor, data) == len(data)
    except OSError:
        return False


def _cut(line: str) -> str:
    data = line.encode("utf-8", "backslashreplace")
    return line if len(data) <= MOST_BYTES else data[: MOST_BYTES - 3].decode("utf-8", "ignore") + "..."
