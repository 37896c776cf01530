"""Exim's main log, after date and time:

    MSGID <= sender H=... P=esmtp ...                    (P=local: from this machine)
    MSGID => joe <joe@example.org> R=localuser T=maildir_home
    MSGID -> other@example.org R=... T=...               (another recipient of the same delivery)
    MSGID ** nosuch@example.org R=...: Unrouteable address
    MSGID == joe@example.org R=... T=... defer (-1): ...
    H=c [ip] F=<sender> rejected RCPT <nosuch@example.org>: reason

The recipient that the SMTP client gave stands in angle brackets where it is not the address
delivered to (deliver.c: string_log_address).  `*>` was not delivered (-N), `>>` was handed on.
"""

from __future__ import annotations

import re

from rcptgen.maillogs.events import DEFERRED, FOREIGN, SILENT, Answer, Event, Messages, What, unquoted

_ID = rb"[0-9A-Za-z]{6}-(?:[0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4})"
_LINE = re.compile(rb"(?:\[\d+\] )?(" + _ID + rb") (<=|=>|->|>>|\*>|\*\*|==|Completed)(?: (.*))?", re.DOTALL)
_OTHER = re.compile(rb"(?:\[\d+\] )?" + _ID + rb" ")
# What ends the address: the first of the fields that may follow it.
_FIELD = re.compile(rb" (?:F=<|P=<|R=|T=|Q=|I=|H=|X=|C=|S=|U=|ST=|DN=)|$", re.DOTALL)
_REASON = re.compile(rb" (?:F=<|P=<|R=|T=|Q=|I=|H=|X=|C=|S=|U=|ST=|DN=)|: |$", re.DOTALL)
_REFERENCE = re.compile(rb" R=(" + _ID + rb")(?: |$)")
# The first words of lines without a message (exim.c, daemon.c, smtp_in.c).
_OTHERS = (
    b"H=", b"SMTP ", b"TLS ", b"Start queue run", b"End queue run", b"exim ", b"cwd=", b"no host name found ",
    b"no IP address found ", b"unexpected ", b"Warning: ", b"U=", b"I=", b"[", b"dovecot_", b"login ", b"plain ",
    b"refused connection", b"daemon ", b"SIGHUP ", b"pid ", b"auth", b"fixed_", b"Connection ", b"rejected ",
)  # fmt: skip
_UNSAFE = ord("\\")


class Exim(Messages):
    """One host's Exim."""

    name = "Exim"

    def read(self, text: bytes) -> Answer:
        """What a line says, without its date and time."""
        found = _LINE.match(text)
        if found is None:
            refused = text.partition(b" rejected RCPT <")[2].partition(b">")[0]
            if b"@" in refused:
                return Event(What.TURNED_AWAY, unquoted(refused))
            return SILENT if _OTHER.match(text) or text.startswith(_OTHERS) else FOREIGN
        message, flag, rest = found.groups()
        if flag == b"<=":
            return self._arrived(message, rest or b"")
        if flag == b"Completed":
            return self.end(message)
        if flag == b"*>":
            return SILENT
        if flag == b"==":
            return DEFERRED
        return self._recipient(message, flag, rest or b"")

    def _arrived(self, message: bytes, rest: bytes) -> Answer:
        if b" P=local" in rest:
            self.submitted.put(message)
        if rest.startswith(b"<> "):
            found = _REFERENCE.search(rest)
            if found is not None:
                return Event(What.BOUNCE_MESSAGE, message=found[1])
        return SILENT

    def _recipient(self, message: bytes, flag: bytes, rest: bytes) -> Answer:
        end = (_REASON if flag == b"**" else _FIELD).search(rest)
        assert end is not None  # the end of the line at the latest
        fields = rest[end.start() :]
        address = _original(rest[: end.start()])
        if address is None:
            return SILENT
        if flag == b"**":
            what = What.BOUNCED
        elif flag == b">>" or (b" H=" in fields and b"lmtp" not in fields.partition(b" H=")[0].lower()):
            what = What.HANDED_ON
        else:
            what = What.DELIVERED
        unsafe = _UNSAFE in address
        return Event(what, address, submitted=message in self.submitted, unsafe=unsafe, message=message)


def _original(text: bytes) -> bytes | None:
    """The recipient of `joe@d`, `joe <joe@d>` or `|/bin/x (b@d) <joe@d>`; None where none of them is an address."""
    if text.endswith(b">"):
        _, bracket, inside = text[:-1].rpartition(b"<")
        if bracket and b"@" in inside:
            return unquoted(inside)
    if b"@" not in text or text.startswith((b"|", b"/", b">")):
        return None
    return unquoted(text)
