"""Lists of rules: what `list` writes is read back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.diff.lists import read
from rcptgen.diff.spool import Spool, listed
from rcptgen.errors import UsageTrouble
from rcptgen.rules.outcome import Kind
from rcptgen.rules.shown import as_json, shown
from rcptgen.targets.base import written

Rules = set[tuple[bytes, bytes, bool, bool, Kind]]


def rules(*lines: bytes) -> Rules:
    with Spool() as spool:
        read(lines, "rules", spool)
        return {
            (place, rule.name, rule.prefix, rule.outcome.accepted, rule.outcome.kind)
            for place, table in spool.tables()
            for rule in table.rules()
        }


DOMAIN = b"@example.org"


@pytest.mark.parametrize(
    ("line", "name", "prefix", "accepted"),
    [
        (b"joe@example.org\n", b"joe", False, True),
        (b"Joe@Example.ORG\r\n", b"joe", False, True),
        (b"joe-*@example.org", b"joe-", True, True),
        (b"*@example.org", b"", True, True),
        (b"!*@example.org", b"", True, False),
        (b"!joe-spam@example.org", b"joe-spam", False, False),
        (b"@example.org", b"", False, True),
        (b"a@b@example.org", b"a@b", False, True),
        (b"a b@example.org", b"a b", False, True),
        (b"\\x1b[31m@example.org", b"\x1b[31m", False, True),
        (b"\\xe4@example.org", b"\xe4", False, True),
        (b"\\u202e@example.org", "\u202e".encode(), False, True),
        (b"\\x41\\n\\u0041@example.org", b"\\x41\\n\\u0041", False, True),
        ("\u65e5@example.org".encode(), "\u65e5".encode(), False, True),
    ],
)
def test_a_line(line: bytes, name: bytes, prefix: bool, accepted: bool) -> None:
    kind = Kind.UNKNOWN if accepted else Kind.REFUSAL
    assert rules(line) == {(DOMAIN, name, prefix, accepted, kind)}


def test_addresses_without_a_domain() -> None:
    assert rules(b"postmaster\n") == {(b"", b"postmaster", False, True, Kind.UNKNOWN)}


def test_lines_that_say_nothing() -> None:
    assert rules(b"\n", b"# a list\n", b"  \n", b"\r\n") == set()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"*\n", "is not user@domain"),
        (b"!\n", "is not user@domain"),
        (b"joe@\n", "no domain"),
        (b"a\0b@example.org", "no list of rules"),
        (b"x" * 2_000_000 + b"@example.org", "no list of rules"),
        (b'{"rule": 1}', "without the members"),
        (b"{}}", "neither a rule nor JSON"),
        (b'{"accepted": true, "prefix": false, "name": "a"}', "without 'domain'"),
        (b'{"accepted": true, "prefix": false, "domain": "d", "name": "", "name_b64": "?"}', "not base64"),
        (b'{"accepted": true, "prefix": false, "domain": "d", "name": "a", "kind": "fish"}', "fish"),
    ],
)
def test_what_is_no_rule_is_named_with_its_line(line: bytes, said: str) -> None:
    with pytest.raises(UsageTrouble, match=r"^rules:2: ") as raised:
        rules(b"joe@example.org", line)
    assert said in str(raised.value)


names = st.binary(max_size=6).map(bytes.lower)


@given(st.text("ab-.+\u00e4\u202e\x1b", max_size=6).map(str.lower), st.booleans(), st.booleans())
def test_what_list_writes_is_read_back(text: str, prefix: bool, accepted: bool) -> None:
    name = text.encode()
    ((place, found, was_prefix, was_accepted, _),) = rules(
        shown(written(name, prefix, accepted, b"d.example")).encode()
    )
    assert (place, found, was_prefix, was_accepted) == (b"@d.example", name, prefix, accepted)


@given(names, names, st.booleans(), st.booleans(), st.sampled_from([Kind.MAILBOX, Kind.LIST, Kind.CATCHALL]))
def test_what_list_writes_as_json_is_read_back_whatever_the_name(
    name: bytes, domain: bytes, prefix: bool, accepted: bool, kind: Kind
) -> None:
    members = {"accepted": accepted, "prefix": prefix, "kind": kind, **as_json("name", name)}
    line = json.dumps({**members, **as_json("domain", domain)}).encode()
    assert rules(line) == {(b"@" + domain, name, prefix, accepted, listed(accepted, kind).kind)}
