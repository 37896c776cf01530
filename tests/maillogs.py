"""Mail logs written from known deliveries, as qmail-send, Postfix, Exim and patched qmail-smtpds write them.

A day is a list of `Delivery`; each `*_lines` function gives the lines of one program without
time stamps, and `FRAMES` puts in front what multilog, syslog and the others do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one recipient.  `fate`: delivered, bounced, deferred, or remote."""

    address: bytes
    fate: str = "delivered"
    submitted: bool = False


def logsafe(text: bytes) -> bytes:
    """As qmail-send writes what others have chosen (qsutil.c: logsafe)."""
    return b"".join(b"/" if one == 10 else b"_" if one < 33 or one > 126 or one == 37 else bytes([one]) for one in text)


# --- qmail-send --------------------------------------------------------------------------------

Rewrite = Callable[[bytes], bytes | None]
"""The name on the local channel, None for what is remote."""

REPORTS = {
    "delivered": b"success: did_1+0+0/",
    "deferred": b"deferral: Temporary_error_on_maildir_delivery._(#4.3.0)/",
    "bounced": b"failure: Sorry,_no_mailbox_here_by_that_name._(#5.1.1)/",
    "remote": b"success: 192.0.2.9_accepted_message./Remote_host_said:_250_ok/",
}
LOCAL_UID, SMTP_UID = 0, 7791


def qmail_lines(day: Sequence[Delivery], rewrite: Rewrite, chance: random.Random) -> Iterator[bytes]:
    """A day of qmail-send: many deliveries at once, inodes used again, numbers that begin again after a kill.

    What was on its way when it was killed is tried again afterwards, without a word of its message.
    """
    waiting: list[tuple[Delivery, int]] = [(one, 0) for one in day]
    under_way: dict[int, tuple[Delivery, int]] = {}
    delivery = message = 0
    yield b"status: local 0/10 remote 0/20"
    while waiting or under_way:
        if waiting and (not under_way or (len(under_way) < 10 and chance.random() < 0.6)):
            one, inode = waiting.pop(0)
            if not inode:
                message = message % 97 + 1
                inode = 1000 + message
                uid = LOCAL_UID if one.submitted else SMTP_UID
                yield b"new msg %d" % inode
                yield b"info msg %d: bytes 812 from <x@far.example> qp 31%d uid %d" % (inode, inode, uid)
            delivery += 1
            name = rewrite(one.address)
            where = b"remote " + logsafe(one.address) if name is None else b"local " + logsafe(name)
            yield b"starting delivery %d: msg %d to %s" % (delivery, inode, where)
            under_way[delivery] = (one, inode)
        elif chance.random() < 0.03:
            waiting[:0] = under_way.values()
            under_way, delivery = {}, 0
        else:
            number = chance.choice(list(under_way))
            one, inode = under_way.pop(number)
            yield b"delivery %d: %s" % (number, REPORTS[one.fate])
            if one.fate == "bounced":
                yield b"bounce msg %d qp 4%d" % (inode, inode)
            if one.fate != "deferred":
                yield b"end msg %d" % inode
        yield b"status: local %d/10 remote 0/20" % len(under_way)


# --- Others ------------------------------------------------------------------------------------


def postfix_lines(day: Sequence[Delivery], chance: random.Random) -> Iterator[tuple[bytes, bytes]]:
    """A day of Postfix, as daemon and text; what was said in SMTP is in orig_to where an alias was followed."""
    for at, one in enumerate(day):
        queue = b"%X" % (0xA00000 + at)
        if one.submitted:
            yield b"pickup", queue + b": uid=0 from=<root>"
        else:
            yield b"smtpd", queue + b": client=mail.far.example[192.0.2.7]"
        yield b"cleanup", queue + b": message-id=<%d@far.example>" % at
        yield b"qmgr", queue + b": from=<x@far.example>, size=812, nrcpt=1 (queue active)"
        daemon = chance.choice([b"local", b"virtual", b"pipe", b"lmtp"])
        to = b"to=<" + external(one.address) + b">"
        if chance.random() < 0.3:
            to = b"to=<box%d@store.example>, orig_to=<" % at + external(one.address) + b">"
        said = {
            "delivered": b"dsn=2.0.0, status=sent (delivered to maildir)",
            "deferred": b"dsn=4.2.0, status=deferred (temporary failure)",
            "bounced": b'dsn=5.1.1, status=bounced (unknown user: "x")',
            "remote": b"dsn=2.0.0, status=sent (250 2.0.0 Ok)",
        }[one.fate]
        if one.fate == "remote":
            daemon, to = b"smtp", b"to=<somebody@far.example>"
        yield daemon, queue + b": " + to + b", relay=" + daemon + b", delay=0.1, delays=0.1/0/0/0, " + said
        if one.fate == "bounced":
            yield b"bounce", queue + b": sender non-delivery notification: %X" % (0xF00000 + at)
        if one.fate != "deferred":
            yield b"qmgr", queue + b": removed"


def external(address: bytes) -> bytes:
    """An address as SMTP writes it."""
    local, _, domain = address.rpartition(b"@")
    plain = all(chr(one).isalnum() or one in b"!#$%&'*+-/=?^_`{|}~." or one > 127 for one in local)
    if plain and local and not local.startswith(b".") and not local.endswith(b".") and b".." not in local:
        return address
    return b'"' + local.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"@' + domain


def exim_lines(day: Sequence[Delivery], chance: random.Random) -> Iterator[bytes]:
    """A day of Exim's main log."""
    for at, one in enumerate(day):
        message = b"1rABcD-%06d-Zz" % at if at % 2 else b"1rABcD-%011d-12Zz" % at
        source = b"U=root P=local" if one.submitted else b"H=mail.far.example [192.0.2.7] P=esmtp"
        yield message + b" <= x@far.example " + source + b" S=812"
        address = external(one.address)
        local = address.rpartition(b"@")[0]
        router = b"R=localuser T=maildir_home"
        shown = chance.choice([address, local + b" <" + address + b">", b"box@store.example <" + address + b">"])
        if one.fate == "delivered":
            yield message + b" " + chance.choice([b"=>", b"->"]) + b" " + shown + b" " + router
        elif one.fate == "bounced":
            yield message + b" ** " + address + b" R=localuser: Unrouteable address"
            yield b"1rZZzz-%06d-00 <= <> R=" % at + message + b" U=exim P=local S=1812"
        elif one.fate == "deferred":
            yield message + b" == " + address + b" " + router + b" defer (-1): mailbox is locked"
        else:
            yield message + b" => somebody@far.example R=dnslookup T=remote_smtp H=mx.far.example [192.0.2.9]"
        if one.fate != "deferred":
            yield message + b" Completed"


def smtpd_lines(day: Sequence[Delivery], chance: random.Random) -> Iterator[bytes]:
    """A day of patched qmail-smtpds: `delivered` was taken, `bounced` was refused."""
    for one in day:
        taken = one.fate == "delivered"
        yield chance.choice([_chkuser, _envelope, _unified, _text])(one.address, taken)


def _chkuser(address: bytes, taken: bool) -> bytes:
    title, why = (b"accepted", b"found existing") if taken else (b"rejected", b"not existing")
    head = b"CHKUSER " + title + b" rcpt: from <x@far.example|remoteinfo/auth:|chkuser-identify:> remote "
    return (
        head
        + b"<helo:mx|remotehostname:unknown|remotehostip:192.0.2.7> rcpt <"
        + address
        + b"> : "
        + why
        + b" recipient"
    )


def _envelope(address: bytes, taken: bool) -> bytes:
    head = b"result=accepted code=250 reason=rcptto" if taken else b"result=rejected code=550 reason=chkuser"
    return (
        b"qlogenvelope: " + head + b" detail=nomailbox helo=mail.far.example mailfrom=x@far.example rcptto="
        + address + b" relay=no rcpthosts=yes size= authuser= authtype= encrypted= sslverified=no pid=17"
    )  # fmt: skip


def _unified(address: bytes, taken: bool) -> bytes:
    what = b"Accept::RCPT::Recipients_Cdb" if taken else b"Reject::RCPT::Failed_Rcptto"
    return b"qmail-smtpd: pid 17 " + what + b" P:ESMTP S:192.0.2.7:unknown H:mail F:x@far.example T:" + address


def _text(address: bytes, taken: bool) -> bytes:
    what = b"accepted" if taken else b"drop"
    return b"qmail-smtpd: validrcptto: " + what + b" address <" + address + b"> at 192.0.2.7"


# --- What stands in front ----------------------------------------------------------------------

Frame = Callable[[int, bytes], bytes]
START = 1_700_000_000


def _clock(at: int) -> bytes:
    return b"%02d:%02d:%02d" % (at // 3600 % 24, at // 60 % 60, at % 60)


FRAMES: dict[str, Frame] = {
    "multilog": lambda at, line: b"@40000000%08x%08x " % (START + at, at) + line,
    "tai64nlocal": lambda at, line: b"2026-11-22 " + _clock(at) + b".%09d " % at + line,
    "splogger": lambda at, line: b"%d.%06d " % (START + at, at) + line,
    "syslog": lambda at, line: b"Nov 22 " + _clock(at) + b" mail qmail: %d.%06d " % (START + at, at) + line,
    "rsyslog": lambda at, line: b"2026-11-22T" + _clock(at) + b".123456+01:00 mail qmail-send[17]: " + line,
    "plain": lambda at, line: line,
}
"""How qmail's programs are logged."""


def postfix_frame(at: int, line: tuple[bytes, bytes]) -> bytes:
    """syslog's or Postfix's own maillog_file."""
    daemon, text = line
    return b"Nov 22 " + _clock(at) + b" mail postfix/" + daemon + b"[%d]: " % (100 + at % 7) + text


def exim_frame(at: int, line: bytes) -> bytes:
    """Exim's own time stamp."""
    return b"2026-11-22 " + _clock(at) + b" " + line


def text(lines: Iterator[bytes], frame: Frame) -> bytes:
    """A whole log."""
    return b"".join(frame(at, line) + b"\n" for at, line in enumerate(lines))
