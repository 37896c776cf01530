"""The logs of patched qmail-smtpds; the plain one logs nothing.  Those styles are known:

    CHKUSER accepted rcpt: from <...> remote <...> rcpt <ADDRESS> : found existing recipient
    CHKUSER rejected rcpt: from <...> remote <...> rcpt <ADDRESS> : not existing recipient
    qlogenvelope: result=accepted code=250 reason=... rcptto=ADDRESS relay=no rcpthosts=yes ...
    qmail-smtpd: pid N Accept::RCPT::Rcpthosts_Rcptto P:ESMTP S:... H:... F:FROM T:ADDRESS
    qmail-smtpd: pid N Reject::RCPT::Failed_Rcptto P:ESMTP S:... H:... F:FROM T:ADDRESS
    qmail-smtpd: validrcptto: accepted address <ADDRESS> at IP         (drop address: refused)

They are those of chkuser (chkuser.c: chkuser_commonlog), of the combined patch around it
(qmail-smtpd.c: qsmtpdlog), of SPAMCONTROL and s/qmail (smtpdlog.c: smtp_logg), and of the text
form of validrcptto.  What relay clients sent never asked the list, and is passed over.
"""

from __future__ import annotations

import re

from rcptgen.maillogs.events import FOREIGN, SILENT, Answer, Event, What

_CHKUSER = re.compile(rb"CHKUSER ([a-z ]+): from <.*?> remote <.*?> rcpt <(.*)> : (.*)")
_ENVELOPE = re.compile(rb"qlogenvelope: result=(\S*) code=(\S*) .*? rcptto=(.*?) relay=(\S*) rcpthosts=(\S*) ")
_UNIFIED = re.compile(rb"(Accept|Reject)::([A-Z]+)::(\w+):? P:\S* S:.*? F:.*? T:(\S+)")
_VALID = re.compile(rb"validrcptto: (accepted|drop) address <(.*)> at ")
_SPOKEN = (
    b"CHKUSER ",
    b"qlogenvelope: ",
    b"qlogreceived: ",
    b"tcpserver: ",
    b"rblsmtpd: ",
    b"policy_check: ",
    b"SPF: ",
)


class QmailSmtpd:
    """One qmail-smtpd's log.  Each line says all it has to say."""

    name = "qmail-smtpd"

    def forget(self) -> None:
        """Nothing is remembered."""

    def read(self, text: bytes) -> Answer:
        """What a line says."""
        if text.startswith(b"CHKUSER "):
            return self._chkuser(text)
        if text.startswith(b"qlogenvelope: "):
            return self._envelope(text)
        if b"::" in text:
            return self._unified(text)
        if text.startswith((b"qmail-smtpd: ", b"validrcptto: ")):
            found = _VALID.search(text)
            return SILENT if found is None else _said(found[2], accepted=found[1] == b"accepted")
        return SILENT if text.startswith(_SPOKEN) else FOREIGN

    def _chkuser(self, text: bytes) -> Answer:
        found = _CHKUSER.fullmatch(text)
        if found is None:
            return SILENT
        title, address, _ = found.groups()
        if title in (b"accepted rcpt", b"accepted any rcpt"):
            return _said(address, accepted=True)
        if title == b"rejected rcpt":
            return _said(address, accepted=False)
        return SILENT

    def _envelope(self, text: bytes) -> Answer:
        found = _ENVELOPE.match(text)
        if found is None:
            return SILENT
        result, code, address, relay, _ = found.groups()
        if relay == b"yes" or not address:
            return SILENT
        if result == b"accepted":
            return _said(address, accepted=True)
        return _said(address, accepted=False) if code.startswith(b"55") else SILENT

    def _unified(self, text: bytes) -> Answer:
        found = _UNIFIED.search(text)
        if found is None:
            return SILENT if re.search(rb"(Accept|Reject)::[A-Z]+::\w", text) else FOREIGN
        action, kind, condition, address = found.groups()
        if kind != b"RCPT" or condition == b"Toomany_Rcptto":
            return SILENT
        return _said(address, accepted=action == b"Accept")


def _said(address: bytes, *, accepted: bool) -> Answer:
    if not address:
        return SILENT
    return Event(What.ADMITTED if accepted else What.TURNED_AWAY, address)
