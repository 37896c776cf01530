"""What a line of a mail log says of a recipient."""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol


class What(enum.StrEnum):
    """What became of a recipient, as far as one log knows."""

    DELIVERED = "delivered"
    HANDED_ON = "handed-on"
    """The next server took it; what became of it there stands in that server's log."""
    BOUNCED = "bounced"
    ADMITTED = "admitted"
    """An SMTP server took the recipient; the delivery is another line, perhaps of another log."""
    TURNED_AWAY = "turned-away"
    """An SMTP server refused the recipient."""
    BOUNCE_MESSAGE = "bounce-message"
    """A bounce went out for the message; it has no recipient."""
    ENDED = "ended"
    """A message of which a recipient failed is done with: its name may mean another one now."""
    FAILED_ELSEWHERE = "failed-elsewhere"
    """A recipient of the message failed that no list of this host speaks of."""
    DEFERRED = "deferred"
    REMOTE = "remote"
    UNPAIRED = "unpaired"
    """The end of a delivery whose beginning the log does not have."""
    CUT = "cut"
    """The recipient was too long for the log."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a line says.

    `local`: the address is the name on qmail's local channel, with the prepend of a virtual
    domain still in front.  `submitted`: the message came from this machine, not by SMTP.
    `unsafe`: the log writes some bytes of addresses as another character, and the address
    has that character.  `message` names the message within its log, where bounces are
    counted by message.
    """

    what: What
    address: bytes = b""
    local: bool = False
    submitted: bool = False
    unsafe: bool = False
    message: bytes = b""


class Silent:
    """The answer to a line that a format knows, and that says nothing of recipients."""


class Foreign:
    """The answer to a line that is not of a format."""


SILENT = Silent()
FOREIGN = Foreign()
DEFERRED = Event(What.DEFERRED)
REMOTE = Event(What.REMOTE)
UNPAIRED = Event(What.UNPAIRED)
CUT = Event(What.CUT)

Answer = Event | Silent | Foreign


class Format(Protocol):
    """The log of one program; it remembers what later lines refer to, within bounds."""

    name: str

    def read(self, text: bytes) -> Answer:
        """What a line says, without the time stamp that syslog or multilog put in front."""
        ...

    def forget(self) -> None:
        """Another log begins: nothing that was read belongs to what follows."""
        ...


class Recent(OrderedDict[bytes, bytes]):
    """Remembers at most `limit` entries: what was put in first goes first."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def put(self, key: bytes, value: bytes = b"") -> None:
        """`key` stands for `value` now."""
        self[key] = value
        if len(self) > self._limit:
            self.popitem(last=False)


MOST_MESSAGES = 200_000
"""Messages that a format remembers something of."""


class Messages:
    """What the formats remember of messages: those from this machine, and those with a failed recipient."""

    def __init__(self) -> None:
        self.submitted = Recent(MOST_MESSAGES)
        self.failed = Recent(MOST_MESSAGES)

    def forget(self) -> None:
        """No message is known."""
        self.submitted.clear()
        self.failed.clear()

    def end(self, message: bytes) -> Answer:
        """The message is done with."""
        self.submitted.pop(message, None)
        return Event(What.ENDED, message=message) if self.failed.pop(message, None) is not None else SILENT


def unquoted(address: bytes) -> bytes:
    """An address as the envelope has it: without the quotes and backslashes of RFC 5321 around its local part."""
    local, at, domain = address.rpartition(b"@")
    if not at or not (len(local) > 1 and local.startswith(b'"') and local.endswith(b'"')):
        return address
    found = bytearray()
    inside = iter(local[1:-1])
    for byte in inside:
        found.append(next(inside, byte) if byte == 0x5C else byte)
    return bytes(found) + at + domain
