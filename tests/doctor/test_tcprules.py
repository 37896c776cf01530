"""tcpserver's rules, in the cdb that it reads and in the text beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from doctored import RUN, codes, doctor, finding, host, looking
from hosts import Thing, cdb_bytes

from rcptgen.doctor import tcprules

RULES = "exec setuidgid qmaild tcpserver -x /etc/tcp.smtp.cdb 0 25 /var/qmail/bin/qmail-smtpd\n"
TEXT = """# who may relay
127.:allow,RELAYCLIENT=""
192.0.2.1-9:allow,A="1"
10.:allow,A='x"y',B=|z|
66.6.6.6:deny
=mx.example:allow,A=//
broken
:allow,VALIDRCPTTO_CDB="/list.cdb"
"""


def rules(tmp_path: Path, records: list[tuple[bytes, bytes]], text: str = TEXT) -> tcprules.Rules | None:
    laid = host(tmp_path / "host", {"/etc/tcp.smtp.cdb": cdb_bytes(records), "/etc/tcp.smtp": text})
    with looking(laid.root) as sight:
        return tcprules.read(sight, b"/etc/tcp.smtp.cdb")


def test_the_cdb_is_what_counts_and_the_text_has_the_lines(tmp_path: Path) -> None:
    records = [
        (b"127.", b"+RELAYCLIENT=\0"),
        (b"192.0.2.1", b"+A=1\0"),
        (b"10.", b'+A=x"y\0+B=z\0'),
        (b"66.6.6.6", b"D"),
        (b"=mx.example", b"+A=\0"),
        (b"odd", b"?+A=1\0"),
        (b"", b"+VALIDRCPTTO_CDB=/list.cdb\0"),
        (b"", b"D"),
    ]
    found = rules(tmp_path, records)
    assert found is not None
    assert {one.address: (one.environment, one.deny, one.line) for one in found.rules.values()} == {
        b"127.": ({b"RELAYCLIENT": b""}, False, 2),
        b"192.0.2.1": ({b"A": b"1"}, False, 0),
        b"10.": ({b"A": b'x"y', b"B": b"z"}, False, 4),
        b"66.6.6.6": ({}, True, 5),
        b"=mx.example": ({b"A": b""}, False, 6),
        b"odd": ({}, False, 0),
        b"": ({b"VALIDRCPTTO_CDB": b"/list.cdb"}, False, 8),
    }
    assert found.stale == []
    assert found.place(found.rules[b"10."]) == (b"/etc/tcp.smtp", 4)
    assert found.place(found.rules[b"192.0.2.1"]) == (b"/etc/tcp.smtp.cdb", 0)


def test_rules_that_differ_are_stale(tmp_path: Path) -> None:
    found = rules(tmp_path, [(b"127.", b""), (b"", b"+VALIDRCPTTO_CDB=/list.cdb\0")])
    assert found is not None
    assert [one.address for one in found.stale] == [b"127.", b"10.", b"66.6.6.6", b"=mx.example"]


@pytest.mark.root
@pytest.mark.parametrize(
    ("default", "wanted"),
    [
        (b"+VALIDRCPTTO_CDB=/var/qmail/control/validrcptto.cdb\0", ["R100"]),
        (b"+VALIDRCPTTO_CDB=\0", ["Q103", "Q101"]),
        (b"+RELAYCLIENT=\0", ["Q106", "Q101"]),
        (b"D", ["Q101"]),
    ],
)
def test_the_rule_for_all_others(default: bytes, wanted: list[str], tmp_path: Path) -> None:
    names: dict[str, Thing | None] = {RUN: RULES, "/etc/tcp.smtp.cdb": cdb_bytes([(b"", default)])}
    laid = host(tmp_path / "host", names)
    assert codes(doctor(laid.root)) == wanted


@pytest.mark.root
def test_a_damaged_cdb_of_rules_says_nothing(tmp_path: Path) -> None:
    laid = host(tmp_path / "host", {RUN: RULES, "/etc/tcp.smtp.cdb": b"\0" * 100})
    assert codes(doctor(laid.root)) == ["Q101"]
    assert finding(doctor(laid.root), "Q101")["file"] == RUN
