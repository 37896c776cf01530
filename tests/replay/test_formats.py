"""What each program's lines mean, one by one, and what hostile logs cannot do."""

from __future__ import annotations

import gzip
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rcptgen.maillogs.events import Event, What, unquoted
from rcptgen.maillogs.logs import Logs
from rcptgen.maillogs.reading import LONGEST

QMAIL = b"""\
@400000003dc1a1b2039d4a5c starting delivery 2392: msg 93869 to local shop.example-joe@shop.example
@400000003dc1a1b203a1b2c4 status: local 1/10 remote 0/20
@400000003dc1a1b20c8e8f04 delivery 2392: success: did_1+0+0/
"""

# A line as the program's own documentation or source has it, and what it says.
SAMPLES: list[tuple[str, bytes, str, bytes]] = [
    (
        "postfix alias",
        (
            b"Sep 12 13:39:11 host postfix/local[11393]: E412470C2B8: to=<foo@host>, orig_to=<foo@bar.com>, "
            b"relay=local, delay=5, delays=1.9/0/0/3.2, dsn=2.0.0, status=sent (delivered to command: "
            b"/usr/local/bin/procmail)"
        ),
        "delivered",
        b"foo@bar.com",
    ),
    (
        "postfix before delays=",
        (
            b"Sep 12 11:58:52 host postfix/local[18444]: 8D3C671C324: to=<invalid@host>, relay=local, delay=0, "
            b'status=bounced (unknown user: "invalid")'
        ),
        "bounced",
        b"invalid@host",
    ),
    (
        "postfix pipe",
        (
            b"Feb  8 23:49:58 mail postfix/pipe[85979]: B9E532E0B: to=<userB@company.office>, relay=dovecot, "
            b"delay=0.19, delays=0.16/0/0/0.03, dsn=2.0.0, status=sent (delivered via dovecot service)"
        ),
        "delivered",
        b"userB@company.office",
    ),
    (
        "postfix with another syslog_name, long queue ids and a new time stamp",
        (
            b'2026-11-22T10:00:00.123456+01:00 mx postfix-in/lmtp[7]: 4bX0Gq5Tz1zKq: to=<"a b"@example.org>, '
            b"relay=mail.example.org[private/dovecot-lmtp], delay=0.1, dsn=2.0.0, status=sent (250 2.0.0 Saved)"
        ),
        "delivered",
        b"a b@example.org",
    ),
    (
        "postfix smtpd",
        (
            b"Nov  1 10:00:00 mx postfix/smtpd[7]: NOQUEUE: reject: RCPT from c.example[192.0.2.1]: 550 5.1.1 "
            b"<no@example.org>: Recipient address rejected: User unknown in virtual mailbox table; from=<x@y.example> "
            b"to=<no@example.org> proto=ESMTP helo=<c.example>"
        ),
        "turned-away",
        b"no@example.org",
    ),
    (
        "postfix smtp",
        (
            b"Nov  1 10:00:00 mx postfix/smtp[7]: A1B2C3: to=<joe@example.org>, relay=mail.example.org[192.0.2.1]:25, "
            b"delay=0.1, delays=0/0/0/0.1, dsn=2.0.0, status=sent (250 ok 1700000000 qp 17)"
        ),
        "handed-on",
        b"joe@example.org",
    ),
    (
        "exim, log_as_local",
        (
            b"2019-05-15 11:22:25 1hQkUr-0016NY-2h => sherene <sherene@abwinbus.example> R=virtual_user "
            b'T=dovecot_virtual_delivery C="250 2.0.0 <sherene@abwinbus.example> Saved"'
        ),
        "delivered",
        b"sherene@abwinbus.example",
    ),
    (
        "exim, a pipe with blanks",
        (
            b"2019-05-15 11:22:25 1hQkUr-0016NY-2h => |/usr/bin/autorespond d@a.example /a (d@a.example) <d@b.example> "
            b"R=virtual_aliases_nostar T=virtual_address_pipe"
        ),
        "delivered",
        b"d@b.example",
    ),
    (
        "exim, to nobody",
        b"2026-11-22 10:00:00 1rABcD-000abc-Zz => :blackhole: <joe@example.org> R=system_aliases",
        "delivered",
        b"joe@example.org",
    ),
    (
        "exim 4.97, with a zone, milliseconds and a pid",
        b"2026-11-22 10:00:00.123 +0100 [1234] 1rABcD-00000000abc-12Zz => joe@example.org R=localuser T=maildir_home",
        "delivered",
        b"joe@example.org",
    ),
    (
        "exim, unrouteable",
        b"2026-11-22 10:00:00 1rABcD-000abc-Zz ** no@example.org: Unrouteable address",
        "bounced",
        b"no@example.org",
    ),
    (
        "exim, refused in SMTP",
        (
            b"2009-07-02 08:16:42 H=a.example.net (192.0.2.9) [192.0.2.8] F=<t@h.example> rejected RCPT "
            b"<s2288@example.org>: unknown user"
        ),
        "turned-away",
        b"s2288@example.org",
    ),
    (
        "exim, over TCP",
        (
            b"2016-05-24 09:51:57 1b56Bg-0004ft-Fe => news@example.org P=<r@r.example> R=dnslookup T=remote_smtp "
            b'S=75389 H=mail.example.org [192.0.2.88] CV=yes C="250 2.0.0 accepted"'
        ),
        "handed-on",
        b"news@example.org",
    ),
    (
        "exim, LMTP over TCP",
        b"2016-05-24 09:51:57 1b56Bg-0004ft-Fe => joe@example.org R=lmtp_route T=remote_lmtp H=store [192.0.2.3]",
        "delivered",
        b"joe@example.org",
    ),
    (
        "exim in syslog",
        b"Nov 22 10:00:00 mx exim[123]: 2026-11-22 10:00:00 1b56Bg-0004ft-Fe => joe@example.org R=a T=b",
        "delivered",
        b"joe@example.org",
    ),
    (
        "chkuser",
        (
            b"@400000003dc1a1b2039d4a5c CHKUSER rejected rcpt: from <x@y.example|remoteinfo/auth:|chkuser-identify:> "
            b"remote <helo:mx|remotehostname:unknown|remotehostip:192.0.2.1> rcpt <no@example.org> : not existing "
            b"recipient"
        ),
        "turned-away",
        b"no@example.org",
    ),
    (
        "chkuser, older",
        (
            b"@400000003dc1a1b2039d4a5c CHKUSER accepted rcpt: from <x@y.example::> remote <mx:unknown:192.0.2.1> rcpt "
            b"<joe@example.org> : found existing recipient"
        ),
        "admitted",
        b"joe@example.org",
    ),
    (
        "s/qmail",
        (
            b"@400000003dc1a1b2039d4a5c qmail-smtpd: pid 123 Accept::RCPT::Rcpthosts_Rcptto P:ESMTP "
            b"S:192.0.2.1:unknown H:mx F:x@y.example T:joe@example.org"
        ),
        "admitted",
        b"joe@example.org",
    ),
]

# Lines that say nothing of this host's recipients.
SILENT = [
    (
        b"Nov  1 10:00:00 mx postfix/smtpd[7]: NOQUEUE: reject: RCPT from c[192.0.2.1]: 554 5.7.1 Service unavailable; "
        b"Client host [192.0.2.1] blocked using x; from=<x@y.example> to=<joe@example.org> proto=ESMTP helo=<c>"
    ),
    b"Nov  1 10:00:00 mx postfix/verify[7]: A1: to=<joe@example.org>, relay=x, delay=1, status=deliverable (ok)",
    (
        b"@400000003dc1a1b2039d4a5c qlogenvelope: result=accepted code=250 reason=rcptto helo=h "
        b"mailfrom=x@y.example rcptto=z@far.example relay=yes rcpthosts=no size= authuser=u"
    ),
    b"@400000003dc1a1b2039d4a5c CHKUSER relaying rcpt: from <x> remote <h> rcpt <z@far.example> : client allowed",
    b"@400000003dc1a1b2039d4a5c tcpserver: ok 17 :192.0.2.1:25 :192.0.2.7::4711",
    b"@400000003dc1a1b2039d4a5c warning: trouble opening local/3/1234; will try again later",
    b"2026-11-22 10:00:00 1rABcD-000abc-Zz *> joe@example.org R=a T=b",
    b"2026-11-22 10:00:00 Start queue run: pid=229876",
    b"2026-11-22 10:00:00 1rABcD-000abc-Zz Completed",
]


RECIPIENTS = {What.DELIVERED, What.HANDED_ON, What.BOUNCED, What.ADMITTED, What.TURNED_AWAY}


def events(tmp_path: Path, log: bytes) -> tuple[list[Event], Logs]:
    path = tmp_path / "log"
    path.write_bytes(log)
    logs = Logs([os.fsencode(path)])
    return [event for event, _, _ in logs.events()], logs


@pytest.mark.parametrize(("line", "what", "address"), [one[1:] for one in SAMPLES], ids=[one[0] for one in SAMPLES])
def test_lines_as_the_programs_write_them(tmp_path: Path, line: bytes, what: str, address: bytes) -> None:
    found, logs = events(tmp_path, line + b"\n")
    assert [(str(one.what), one.address) for one in found] == [(what, address)]
    assert logs.statistics.troubles == []


@pytest.mark.parametrize("line", SILENT)
def test_lines_that_say_nothing(tmp_path: Path, line: bytes) -> None:
    found, logs = events(tmp_path, line + b"\n")
    assert (found, logs.statistics.unknown_lines) == ([], 0)


def test_qmail_pairs_beginning_and_end(tmp_path: Path) -> None:
    found, _ = events(tmp_path, QMAIL)
    assert [(one.what, one.address, one.local) for one in found] == [
        (What.DELIVERED, b"shop.example-joe@shop.example", True)
    ]


def test_a_number_that_is_used_again_means_the_later_delivery(tmp_path: Path) -> None:
    found, _ = events(
        tmp_path,
        b"starting delivery 1: msg 5 to local a@b\nstarting delivery 1: msg 6 to remote c@d\ndelivery 1: success: x/\n"
        b"delivery 1: success: x/\n",
    )
    assert [one.what for one in found] == [What.REMOTE, What.UNPAIRED]


def test_nothing_is_under_way_after_a_start(tmp_path: Path) -> None:
    found, _ = events(
        tmp_path,
        b"starting delivery 1: msg 5 to local a@b\nstatus: local 0/10 remote 0/20\ndelivery 1: success: x/\n",
    )
    assert [one.what for one in found] == [What.UNPAIRED]


def test_two_hosts_in_one_syslog(tmp_path: Path) -> None:
    """Delivery numbers are each host's own."""
    lines = [
        b"a qmail: 1700000000.000001 starting delivery 1: msg 5 to local a@b",
        b"c qmail: 1700000000.000002 starting delivery 1: msg 5 to local c@d",
        b"a qmail: 1700000000.000003 delivery 1: success: did_1+0+0/",
        b"c qmail: 1700000000.000004 delivery 1: failure: no/",
    ]
    found, _ = events(tmp_path, b"".join(b"Nov  2 10:00:00 " + line + b"\n" for line in lines))
    assert [(one.what, one.address) for one in found] == [(What.DELIVERED, b"a@b"), (What.BOUNCED, b"c@d")]


def test_a_recipient_that_splogger_cut(tmp_path: Path) -> None:
    """It goes on in another line after 799 bytes; such a recipient is not judged."""
    long = b"starting delivery 1: msg 5 to local " + b"x" * 2000 + b"@example.org"
    head = b"Nov  2 10:00:00 a qmail: 1700000000.000001"
    lines = [head + b" " + long[:799], *(head + b"+" + long[at : at + 799] for at in (799, 1598))]
    found, logs = events(tmp_path, b"\n".join([*lines, head + b" delivery 1: success: x/"]) + b"\n")
    assert [one.what for one in found] == [What.CUT]
    assert logs.statistics.unknown_lines == 0


def test_mail_submitted_on_the_machine(tmp_path: Path) -> None:
    """Known until Postfix is done with it; what local(8) forwards was never asked for in SMTP either."""
    lines = [
        b"pickup[1]: A1: uid=0 from=<root>",
        b"local[1]: A1: to=<a@b>, relay=local, delay=1, status=sent (forwarded as A2)",
        b"local[1]: A2: to=<c@d>, relay=local, delay=1, status=sent (ok)",
        b"qmgr[1]: A1: removed",
        b"local[1]: A1: to=<e@f>, relay=local, delay=1, status=sent (ok)",
    ]
    found, _ = events(tmp_path, b"".join(b"Nov  2 10:00:00 mx postfix/" + line + b"\n" for line in lines))
    assert [one.submitted for one in found] == [True, True, False]


# --- What is not known -------------------------------------------------------------------------


def test_an_unknown_format_is_named_and_not_guessed(tmp_path: Path) -> None:
    found, logs = events(tmp_path, b"\x1b[31mto=<joe@example.org> status=sent\nstat=Sent\n")
    assert found == []
    (trouble,) = logs.statistics.troubles
    assert (
        trouble
        == f"{tmp_path}/log:1: not a mail log that is known (2 lines): '\\x1b[31mto=<joe@example.org> status=sent'"
    )


def test_other_programs_in_a_known_log_are_counted_by_name(tmp_path: Path) -> None:
    others = b"".join(b"Nov  2 10:00:0%d mx dovecot: imap-login: x\n" % at for at in range(3))
    sendmail = b"Nov  2 10:00:00 mx sendmail[7]: xA1: to=<joe@example.org>, delay=1, stat=Sent\n"
    found, logs = events(tmp_path, others + sendmail + SAMPLES[0][1] + b"\n")
    assert len(found) == 1
    assert {one.program: (one.count, one.line) for one in logs.statistics.unknown.values()} == {
        b"dovecot": (3, 1),
        b"sendmail": (1, 4),
    }
    assert logs.statistics.troubles == []


@pytest.mark.parametrize("head", [b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"\x1f\x9d"])
def test_other_compressions_are_named(tmp_path: Path, head: bytes) -> None:
    _, logs = events(tmp_path, head + b"x" * 50)
    assert "compressed with" in logs.statistics.troubles[0]


def test_missing_and_unreadable_logs_do_not_hide_the_others(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_bytes(QMAIL)
    logs = Logs([os.fsencode(one) for one in (tmp_path / "no\x1bsuch", tmp_path, good)])
    assert len(list(logs.events())) == 1
    assert [one.rpartition(": ")[2] for one in logs.statistics.troubles] == [
        "No such file or directory",
        "Is a directory",
    ]
    assert "\x1b" not in logs.statistics.troubles[0]


@pytest.mark.parametrize("keep", [30, 400, 900])
def test_a_truncated_archive_is_read_as_far_as_it_goes(tmp_path: Path, keep: int) -> None:
    lines = b"".join(QMAIL.replace(b"2392", b"%d" % random.Random(at).getrandbits(40)) for at in range(300))
    found, logs = events(tmp_path, gzip.compress(lines)[:keep])
    assert len(found) < 300
    assert (len(found) > 0) == (keep > 30)
    (trouble,) = logs.statistics.troubles
    assert "breaks off" in trouble


def test_garbage_in_the_middle_of_an_archive(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(QMAIL * 2000))
    packed[len(packed) // 2 :: 7] = b"\xff" * len(packed[len(packed) // 2 :: 7])
    _, logs = events(tmp_path, bytes(packed))
    assert "breaks off" in logs.statistics.troubles[0]


# --- Hostile logs ------------------------------------------------------------------------------


def test_lines_of_any_length(tmp_path: Path) -> None:
    huge = b"starting delivery 1: msg 5 to local " + b"x" * 3_000_000 + b"@b\n"
    found, logs = events(tmp_path, huge + QMAIL + b"y" * (LONGEST + 1) + b"\n" + QMAIL + b"z" * 1_000_000)
    assert [one.what for one in found] == [What.DELIVERED] * 2
    assert (logs.statistics.overlong, logs.statistics.unknown, logs.statistics.troubles) == (3, {}, [])
    assert logs.statistics.lines == 9


def test_an_archive_of_one_endless_line_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(200):
            file.write(bytes(1 << 20))
    code = (
        "import os, resource, sys\n"
        "from rcptgen.maillogs.logs import Logs\n"
        "resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))\n"
        "logs = Logs([os.fsencode(sys.argv[1])]); assert list(logs.events()) == []\n"
        "assert logs.statistics.overlong == 1\n"
        "assert 'not a mail log that is known (1 lines): a line of more than' in logs.statistics.troubles[0]\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([one[1] for one in SAMPLES] + SILENT + QMAIL.splitlines()),
            st.builds(
                lambda line, at, put: line[: at % (len(line) + 1)] + put + line[at % (len(line) + 1) :],
                st.sampled_from([one[1] for one in SAMPLES] + SILENT + QMAIL.splitlines()),
                st.integers(0, 400),
                st.binary(max_size=4),
            ),
        ),
        max_size=12,
    )
)
def test_nothing_makes_a_parser_raise(lines: list[bytes]) -> None:
    """Nor makes it answer with what is no address."""
    logs = Logs([])
    for line in lines:
        for part in line.split(b"\n"):
            _, said = logs._read(part)
            if isinstance(said, Event) and said.address:
                assert said.what in RECIPIENTS
                assert said.address in part or unquoted(said.address) == said.address


@pytest.mark.parametrize(
    "line",
    [
        b"Nov  1 10:00:00 mx postfix/smtp[1]: A: to=<" + b"a>, " * 9000 + b" status=sent",
        b"Nov  1 10:00:00 mx postfix/smtpd[1]: A: reject: RCPT from " + b": 550 " * 9000,
        b"2026-11-22 10:00:00 1rABcD-000abc-Zz => " + b"x <" * 15000,
        b"2026-11-22 10:00:00 " + b"rejected RCPT <" * 4000,
        b"@400000003dc1a1b2039d4a5c CHKUSER rejected rcpt: from <" + b"> remote <" * 6000,
        b"@400000003dc1a1b2039d4a5c qlogenvelope: result=a code=5 " + b" rcptto=" * 7000,
        b"@400000003dc1a1b2039d4a5c Accept::RCPT::x P:a S:" + b" F: T:" * 9000,
        b"@400000003dc1a1b2039d4a5c Accept::RCPT::x P:a S:" + b" F:" * 20000,
    ],
    ids=range(8),
)
def test_no_line_takes_long(tmp_path: Path, line: bytes) -> None:
    """Patterns that look again from everywhere would take minutes for a line that a stranger wrote."""
    assert len(line) <= LONGEST
    begun = time.process_time()
    events(tmp_path, line + b"\n")
    assert time.process_time() - begun < 0.5


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Deliveries that never end, and messages that are never done with, on ever more hosts."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        for at in range(120_000):
            file.write(b"starting delivery %d: msg %d to local %020d@example.org\n" % (at, at, at))
            file.write(b"Nov  1 10:00:00 mx%d postfix/pickup[1]: %X: uid=0 from=<root>\n" % (at // 20, at))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert list(Logs([os.fsencode(path)]).events()) == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (b"joe@example.org", b"joe@example.org"),
        (b'"a b"@example.org', b"a b@example.org"),
        (b'"a\\"b\\\\"@example.org', b'a"b\\@example.org'),
        (b'"a@b"@example.org', b"a@b@example.org"),
        (b'"@example.org', b'"@example.org'),
        (b'""@example.org', b"@example.org"),
        (b'"a\\"@example.org', b"a\\@example.org"),
    ],
)
def test_quoted_local_parts(written: bytes, meant: bytes) -> None:
    assert unquoted(written) == meant
