"""The log of Postfix, by the daemon that wrote the line:

    pickup      QUEUEID: uid=0 from=<root>
    local       QUEUEID: to=<joe@host>, orig_to=<joe@example.org>, relay=local, ..., status=sent (...)
    smtpd       NOQUEUE: reject: RCPT from c[ip]: 550 5.1.1 <x@d>: Recipient address rejected: User unknown ...; ...
    bounce      QUEUEID: sender non-delivery notification: QUEUEID
    qmgr        QUEUEID: removed

orig_to is what the SMTP client said, before aliases and virtual_alias_maps (log_adhoc.c).
"""

from __future__ import annotations

import re

from rcptgen.maillogs.events import DEFERRED, REMOTE, SILENT, Answer, Event, Messages, What, unquoted

DAEMONS = frozenset(
    b"anvil bounce cleanup defer discard dnsblog error flush lmtp local master oqmgr pickup pipe postalias postdrop "
    b"postfix-script postlogd postmap postqueue postscreen postsuper proxymap proxywrite qmgr qmqpd relay retry scache "
    b"script sendmail showq smtp smtpd smtps spawn submission submissions tlsmgr tlsproxy trace trivial-rewrite verify "
    b"virtual".split()
)

_PICKUP = re.compile(rb"(\w+): uid=\d+ from=<")
_FORWARDED = re.compile(rb"forwarded as (\w+)")
_NOTICE = re.compile(rb"(\w+): sender non-delivery notification: ")
_REMOVED = b": removed"
_FILTERS = (b"127.0.0.1[", b"localhost[", b"[127.0.0.1]", b"[::1]", b"::1[")
_UNSAFE = ord("?")


class Postfix(Messages):
    """One host's Postfix."""

    name = "Postfix"

    def read(self, text: bytes) -> Answer:
        """Lines come with the daemon in front, as `daemon NUL text`: see `of`."""
        daemon, _, text = text.partition(b"\0")
        if b" status=" in text:
            return self._status(daemon, text)
        if daemon == b"pickup":
            found = _PICKUP.match(text)
            if found is not None:
                self.submitted.put(found[1])
        elif daemon in (b"qmgr", b"oqmgr"):
            if text.endswith(_REMOVED):
                return self.end(text[: -len(_REMOVED)])
        elif daemon == b"bounce":
            found = _NOTICE.match(text)
            if found is not None:
                return Event(What.BOUNCE_MESSAGE, message=found[1])
        elif b": reject: RCPT from " in text:
            return self._refused(text)
        return SILENT

    # Strangers choose addresses and greetings: lines are cut at fixed words, in their order.

    def _refused(self, text: bytes) -> Answer:
        head, _, rest = text.partition(b": Recipient address rejected: ")
        reason, _, rest = rest.partition(b"; ")
        address = rest.partition(b" to=<")[2].partition(b"> proto=")[0]
        if not address or b"unknown" not in reason.lower() or not head.partition(b"]: ")[2].startswith(b"5"):
            return SILENT
        return Event(What.TURNED_AWAY, unquoted(address))

    def _status(self, daemon: bytes, text: bytes) -> Answer:
        message, _, rest = text.partition(b": to=<")
        address, _, rest = rest.partition(b">, ")
        if rest.startswith(b"orig_to=<"):
            original, _, rest = rest.removeprefix(b"orig_to=<").partition(b">, ")
            address = original or address
        if not rest.startswith(b"relay="):
            return SILENT
        address = unquoted(address)
        relay = rest.removeprefix(b"relay=")
        status, _, reason = rest.partition(b" status=")[2].partition(b" (")
        if status == b"deferred":
            return DEFERRED
        if status not in (b"sent", b"bounced"):
            return SILENT  # a probe (deliverable, undeliverable), or of a soft bounce
        what = What.BOUNCED
        if status == b"bounced":
            self.failed.put(message)
        else:
            what = What.DELIVERED
            if daemon in (b"smtp", b"relay"):
                if relay.startswith(_FILTERS):
                    return REMOTE  # a content filter of this machine; the message comes back
                what = What.HANDED_ON
            further = _FORWARDED.match(reason)
            if further is not None:
                self.submitted.put(further[1])
        return Event(what, address, submitted=message in self.submitted, unsafe=_UNSAFE in address, message=message)


def of(tag: bytes, text: bytes) -> bytes | None:
    """The line as Postfix.read wants it, where the syslog tag is of a Postfix (`postfix/smtpd`, `postfix-in/smtp`)."""
    name, slash, daemon = tag.rpartition(b"/")
    if not slash or not name or daemon not in DAEMONS:
        return None
    return daemon + b"\0" + text
