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

_UNIFIED = re.compile(rb"\b(Accept|Reject)::([A-Z]+)::(\w+)")
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
        if text.startswith(_SPOKEN):
            return SILENT
        if b"::" in text and (found := _UNIFIED.search(text)):
            return self._unified(text, *found.groups())
        if text.startswith((b"qmail-smtpd: ", b"validrcptto: ")):
            return self._valid(text)
        return FOREIGN

    # What strangers sent stands in these lines: they are cut at fixed words, from the end where
    # a sender or a greeting could hold the word, and never matched by patterns that try again.

    def _chkuser(self, text: bytes) -> Answer:
        title = text.removeprefix(b"CHKUSER ").partition(b": from <")[0]
        address = text.rpartition(b"> : ")[0].rpartition(b"> rcpt <")[2]
        if title in (b"accepted rcpt", b"accepted any rcpt"):
            return _said(address, accepted=True)
        if title == b"rejected rcpt":
            return _said(address, accepted=False)
        return SILENT

    def _envelope(self, text: bytes) -> Answer:
        result, _, rest = text.removeprefix(b"qlogenvelope: result=").partition(b" code=")
        address, _, last = rest.rpartition(b" rcptto=")[2].partition(b" relay=")
        if last.startswith(b"yes "):
            return SILENT
        if result == b"accepted":
            return _said(address, accepted=True)
        return _said(address, accepted=False) if rest.startswith(b"55") else SILENT

    def _unified(self, text: bytes, action: bytes, kind: bytes, condition: bytes) -> Answer:
        if kind != b"RCPT" or condition == b"Toomany_Rcptto":
            return SILENT
        address = text.rpartition(b" T:")[2].partition(b" ")[0]
        return _said(address, accepted=action == b"Accept")

    def _valid(self, text: bytes) -> Answer:
        what, _, rest = text.partition(b"validrcptto: ")[2].partition(b" address <")
        if what not in (b"accepted", b"drop"):
            return SILENT
        return _said(rest.rpartition(b"> at ")[0], accepted=what == b"accepted")


def _said(address: bytes, *, accepted: bool) -> Answer:
    if not address:
        return SILENT
    return Event(What.ADMITTED if accepted else What.TURNED_AWAY, address)
