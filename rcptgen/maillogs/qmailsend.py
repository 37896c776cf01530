"""The log of qmail-send: netqmail, notqmail, s/qmail and their kin write the same lines.

    info msg M: bytes B from <SENDER> qp P uid U
    starting delivery D: msg M to local NAME@DOMAIN        (or: to remote)
    delivery D: success: REPORT                            (or: failure, deferral)
    bounce msg M qp P
    end msg M
    status: local 0/10 remote 0/20

D counts from 1 at each start of qmail-send; M is an inode, used again (qmail-send.c: del_start,
del_dochan, todo_do, injectbounce).  NAME has the prepend of a virtual domain in front.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from rcptgen.maillogs.events import (
    CUT,
    DEFERRED,
    FOREIGN,
    REMOTE,
    SILENT,
    UNPAIRED,
    Answer,
    Event,
    Messages,
    Recent,
    What,
)

MOST_PENDING = 100_000
"""Deliveries on their way that are remembered: qmail's own limit is concurrency, at most some hundreds."""

SPLOGGER_LINE = 799
"""splogger.c goes on in another line after so many bytes (its buf, less one)."""

_START = re.compile(rb"starting delivery (\d{1,20}): msg (\d{1,20}) to (local|remote) (\S*)")
_END = re.compile(rb"delivery (\d{1,20}): (success|failure|deferral): ")
_INFO = re.compile(rb"info msg (\d{1,20}): bytes \d+ from <\S*> qp \d+ uid (\d{1,20})")
_BOUNCE = re.compile(rb"bounce msg (\d{1,20}) qp \d+")
_IDLE = re.compile(rb"status: local 0/\d+ remote 0/\d+")
# The first words of every other line (qmail-send.c).
_OTHERS = (b"warning: ", b"alert: ", b"triple bounce: ", b"double bounce: ", b"running")
_UNSAFE = ord("_")

SAFE = bytes(
    byte if 33 <= byte <= 126 and byte != ord("%") else ord("/") if byte == ord("\n") else _UNSAFE
    for byte in range(256)
)
"""How qmail-send writes each byte of an address (qsutil.c: logsafe), for bytes.translate."""


class QmailSend(Messages):
    """One qmail-send's log; `submitters` are the uids whose messages never passed an SMTP server."""

    name = "qmail-send"

    def __init__(self, submitters: Collection[bytes] = ()) -> None:
        super().__init__()
        self._submitters = frozenset(submitters)
        self._pending: dict[bytes, Recent] = {b"local": Recent(MOST_PENDING), b"remote": Recent(MOST_PENDING)}
        self._messages = Recent(MOST_PENDING)

    def forget(self) -> None:
        """No delivery is on its way, and no message known."""
        super().forget()
        self._nothing_pending()

    def _nothing_pending(self) -> None:
        for pending in self._pending.values():
            pending.clear()
        self._messages.clear()

    def read(self, text: bytes) -> Answer:
        """What a line says."""
        if text.startswith(b"status: "):
            # Without a delivery on its way: what is still pending was cut off by a restart.
            if _IDLE.match(text) or text.startswith(b"status: exiting"):
                self._nothing_pending()
            return SILENT
        if text.startswith(b"new msg "):
            return SILENT
        if text.startswith(b"end msg "):
            return self.end(text[8:])
        if text.startswith(b"delivery "):
            return self._end(text)
        if text.startswith(b"starting delivery "):
            return self._start(text)
        return self._message(text)

    def _start(self, text: bytes) -> Answer:
        found = _START.fullmatch(text)
        if found is None:
            return FOREIGN
        delivery, message, channel, address = found.groups()
        for pending in self._pending.values():
            pending.pop(delivery, None)
        if len(text) >= SPLOGGER_LINE or b"@" not in address:
            address = b""
        self._pending[channel].put(delivery, address)
        self._messages.put(delivery, message)
        return SILENT

    def _end(self, text: bytes) -> Answer:
        found = _END.match(text)
        if found is None:
            return SILENT if text.endswith(b": report mangled, will defer") else FOREIGN
        delivery, how = found.groups()
        message = self._messages.pop(delivery, None)
        address = self._pending[b"local"].pop(delivery, None)
        if address is None:
            if self._pending[b"remote"].pop(delivery, None) is None:
                return UNPAIRED
            if how == b"failure" and message is not None:
                self.failed.put(message)
                return Event(What.FAILED_ELSEWHERE, message=message)
            return DEFERRED if how == b"deferral" else REMOTE
        if how == b"deferral":
            return DEFERRED
        if not address:
            return CUT
        if how == b"failure" and message is not None:
            self.failed.put(message)
        return Event(
            What.DELIVERED if how == b"success" else What.BOUNCED,
            address,
            local=True,
            submitted=message in self.submitted,
            unsafe=_UNSAFE in address,
            message=message or b"",
        )

    def _message(self, text: bytes) -> Answer:
        if text.startswith(b"info msg "):
            found = _INFO.match(text)
            if found is None:
                return FOREIGN
            message, uid = found.groups()
            if uid in self._submitters:
                self.submitted.put(message)
            else:
                self.submitted.pop(message, None)
            return SILENT
        if text.startswith(b"bounce msg "):
            found = _BOUNCE.match(text)
            return FOREIGN if found is None else Event(What.BOUNCE_MESSAGE, message=found[1])
        return SILENT if text.startswith(_OTHERS) else FOREIGN
