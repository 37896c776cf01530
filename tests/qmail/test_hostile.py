"""Parsers meet bytes that nobody meant: they answer, or raise the project's own error, and soon."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hosts import BadAssign, assign_records, cdb_bytes, qmail_newu
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.errors import RcptgenError
from rcptgen.overlays import Overlays
from rcptgen.qmail.control import ConstMap, Entry, entries, first_line
from rcptgen.qmail.dotqmail import outcome, parse, safe_extension
from rcptgen.qmail.model import Effect
from rcptgen.qmail.passwd import Account, accounts, group_id
from rcptgen.qmail.routing import Local, Remote, Routing
from rcptgen.qmail.users import (
    Assignment,
    DamagedUsers,
    UsersCdb,
    differences,
    is_made_of,
    parse_assign,
    parse_record,
)
from rcptgen.rules.outcome import Kind, Verdict

# --- Control files -----------------------------------------------------------------------------


def control_by_hand(data: bytes) -> list[bytes]:
    """control.c: control_readfile, byte by byte."""
    found = []
    if data and not data.endswith(b"\n"):
        data += b"\n"
    while data:
        line, _, data = data.partition(b"\n")
        while line and line[-1:] in (b" ", b"\t", b"\n"):
            line = line[:-1]
        if line and line[:1] != b"#" and line[:1] != b"\0":
            found += line.split(b"\0")
    return found


control_bytes = st.text("ab #\t\n\0\r:", max_size=30).map(str.encode)


@given(control_bytes)
def test_control_files_are_read_as_control_c_reads_them(data: bytes) -> None:
    found = entries(data)
    assert [one.text for one in found] == control_by_hand(data)
    lines = data.split(b"\n")
    assert all(one.text in lines[one.line - 1] for one in found)
    assert b"\n" not in first_line(data)
    assert data.startswith(first_line(data))


@given(control_bytes, st.booleans())
def test_a_map_has_the_last_of_equal_keys(data: bytes, colon: bool) -> None:
    found = ConstMap(entries(data), colon=colon)
    wanted: dict[bytes, tuple[bytes, int]] = {}
    for one in entries(data):
        if not colon:
            wanted[one.text.lower()] = (b"", one.line)
        elif b":" in one.text:
            key, _, value = one.text.partition(b":")
            wanted[key.lower()] = (value, one.line)
    assert {one.key: (one.value, one.line) for one in found} == wanted
    for key, (value, line) in wanted.items():
        hit = found.get(key.upper())
        assert hit is not None
        assert (hit.value, hit.line) == (value, line)
    assert len(found) + len(found.replaced) == sum(not colon or b":" in one.text for one in entries(data))


# --- Rewriting ---------------------------------------------------------------------------------

words = st.text("ab.@%", max_size=8).map(str.encode)


def rewrite_by_hand(routing: Routing, address: bytes) -> tuple[bytes, bytes] | bytes:
    """qmail-send.c: rewrite over plain dictionaries: (local name, host), or the host it is remote for."""
    locals_ = {one.key for one in routing.locals_}
    virtual = {one.key: one.value for one in routing.virtualdomains}
    hacked = {one.key for one in routing.percenthack}
    at = address.rfind(b"@")
    if at < 0:
        # The whole of envnoathost is the domain here, one in it or not.
        at = len(address)
        address = address + b"@" + routing.envnoathost
    while address[at + 1 :].lower() in hacked:
        j = address[:at].rfind(b"%")
        if j < 0:
            break
        address = address[:j] + b"@" + address[j + 1 : at]
        at = j
    at = address.rfind(b"@")
    host = address[at + 1 :]
    if host.lower() in locals_:
        return address[:at], host
    for i in range(len(address) + 1):
        if i in (0, at + 1, len(address)) or (i > at and address[i : i + 1] == b"."):
            value = virtual.get(address[i:].lower())
            if value is not None:
                return (value + b"-" + address[:at], host) if value else host
    return host


@given(
    st.lists(words, max_size=3),
    st.lists(st.tuples(words, st.sampled_from([b"", b"joe", b"x:y"])), max_size=5),
    st.lists(words, max_size=2),
    words,
    st.lists(st.one_of(words, st.text("abAB.@%", max_size=12).map(str.encode)), min_size=1),
)
def test_addresses_go_where_qmail_send_sends_them(
    locals_: list[bytes],
    virtual: list[tuple[bytes, bytes]],
    hacked: list[bytes],
    envnoathost: bytes,
    addresses: list[bytes],
) -> None:
    routing = Routing(
        directory=b"/var/qmail",
        locals_=ConstMap([Entry(one, 1) for one in locals_], colon=False),
        locals_file=b"locals",
        virtualdomains=ConstMap([Entry(key + b":" + value, 1) for key, value in virtual], colon=True),
        percenthack=ConstMap([Entry(one, 1) for one in hacked], colon=False),
        envnoathost=envnoathost,
    )
    for address in addresses:
        wanted = rewrite_by_hand(routing, address)
        found = routing.route(address)
        if isinstance(wanted, tuple):
            assert isinstance(found, Local)
            assert (found.name, found.host) == wanted
        else:
            assert isinstance(found, Remote)
            assert found.host == wanted


# --- Accounts ----------------------------------------------------------------------------------


@given(st.one_of(st.binary(max_size=80), st.text("ab:1-+# \n\0", max_size=60).map(str.encode)))
def test_any_passwd_gives_accounts(data: bytes) -> None:
    found = accounts(data)
    for name, account in found.items():
        assert account.name == name
        assert 0 <= account.uid <= 0xFFFFFFFF
        assert 0 <= account.gid <= 0xFFFFFFFF
        assert b"\0" not in name + account.home
        assert b":" not in name + account.home
        assert name[:1] not in (b"+", b"-", b"#") or not name
        assert name in data.split(b"\n")[account.line - 1]


@pytest.mark.parametrize(
    ("line", "account"),
    [
        ("joe:x:1001:100:Joe:/home/joe:/bin/sh", Account(b"joe", 1001, 100, b"/home/joe", 1)),
        ("  joe:x:1001:100", Account(b"joe", 1001, 100, b"", 1)),
        ("joe:x: 1001:100::/h", Account(b"joe", 1001, 100, b"/h", 1)),
        ("joe:x:4294967296:1::/h", None),
        ("joe:x:4294967295:1::/h", Account(b"joe", 0xFFFFFFFF, 1, b"/h", 1)),
        (f"joe:x:{'0' * 5000}8:{'0' * 5000}7::/h", Account(b"joe", 8, 7, b"/h", 1)),
        (f"joe:x:{'9' * 5000}:1::/h", None),
        ("joe:x:-1:1::/h", None),
        ("joe:x:100x:1::/h", None),
        ("joe:x::1::/h", None),
        ("joe:x", None),
        ("#joe:x:1:1::/h", None),
        ("+joe:x:1:1::/h", None),
        ("-joe:x:1:1::/h", None),
        ("", None),
    ],
)
def test_lines_of_passwd(line: str, account: Account | None) -> None:
    assert accounts(line.encode()) == ({} if account is None else {account.name: account})


def test_numbers_of_any_length_are_numbers() -> None:
    long = b"1" * 5000
    record = parse_record(b"joe\0" + long + b"\0" + b"0" * 5000 + b"7\0/h\0-\0")
    assert record is not None
    assert record.owner.uid == int("1" * 40) & 0xFFFFFFFF
    assert record.owner.gid == 7
    assert group_id(b"qmail:x:" + long + b":\n", b"qmail") is None
    assert group_id(b"# c\n qmail:x:2107:\nqmail:x:1:\n", b"qmail") == 2107


# --- users/cdb ---------------------------------------------------------------------------------

assigned = st.builds(
    "{}{}:{}:\n".format,
    st.sampled_from("==+++#"),
    st.text("aAb-.", max_size=4),
    st.sampled_from(["joe:1:1:/home/joe:-:a-", "ann:2:2:/home/ann::", "x:0:0:::y", "s:1:1:/h:-"]),
)


def nughde_get(records: list[tuple[bytes, bytes]], local: bytes) -> tuple[bytes, bytes] | None:
    """qmail-lspawn.c: nughde_get over the records of qmail-newu: (what is stored, what is appended to it)."""
    first: dict[bytes, bytes] = {}
    for key, value in records:
        first.setdefault(key, value)
    wildchars = first[b""]
    lower = b"!" + local.lower() + b"\0"
    if lower in first:
        return first[lower], b""
    lower = lower[:-1]
    for size in range(len(lower), 0, -1):
        if (size == 1 or lower[size - 1] in wildchars) and lower[:size] in first:
            return first[lower[:size]], local[size - 1 :]
    return None


@given(st.lists(assigned, max_size=8), st.lists(st.text("aAb-.", max_size=6), min_size=1))
def test_every_assignment_is_found_as_qmail_lspawn_finds_it(lines: list[str], asked: list[str]) -> None:
    text = ("".join(lines) + ".\n").encode()
    try:
        records = assign_records(text)
    except BadAssign:
        assert parse_assign(text).problem
        return
    parsed = parse_assign(text)
    assert not parsed.problem
    assert parsed.wildchars == records[-1][1]
    stored = [(b"!" + one.name + (b"" if one.wildcard else b"\0"), one.value) for one in parsed.assignments]
    assert stored == records[:-1]
    cdb = UsersCdb(qmail_newu(text))
    names = [one.encode() for one in asked] + [one.name + tail for one in parsed.assignments for tail in (b"", b"-A")]
    reachable = {(name, wildcard): value for name, wildcard, value in cdb.entries()}
    assert is_made_of(cdb, text) == (len(reachable) == len(parsed.assignments))
    assert not (is_made_of(cdb, text) and list(differences(parsed, cdb)))
    assert not is_made_of(cdb, b"=somebody:else:1:1:/:-::\n" + text)
    for name in names:
        wanted, hit = nughde_get(records, name), cdb.lookup(name)
        if wanted is None:
            assert hit is None
            continue
        assert hit is not None
        assert (hit.record, hit.tail) == (parse_record(wanted[0]), wanted[1])
        assert reachable[hit.key, hit.wildcard] == wanted[0]


@given(st.binary(max_size=120))
def test_any_users_assign_is_parsed_or_has_a_problem(data: bytes) -> None:
    found = parse_assign(data)
    assert all(isinstance(one, Assignment) for one in found.assignments)
    try:
        records = assign_records(data)
    except BadAssign as error:
        assert found.problem
        assert f"line {found.problem_line}:" in str(error)
    else:
        assert not found.problem
        assert len(found.assignments) == len(records) - 1


GOOD = qmail_newu(b"=joe:joe:1:1:/home/joe:-::\n+joe-:joe:1:1:/home/joe:-::\n+:alias:2:2:/a:-::\n.\n")


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=12),
    st.integers(0, len(GOOD)),
    st.lists(st.binary(max_size=6), max_size=4),
)
def test_a_damaged_users_cdb_answers_or_is_damaged(
    changes: list[tuple[int, int]], size: int, asked: list[bytes]
) -> None:
    data = bytearray(GOOD)
    for at, byte in changes:
        data[at] = byte
    cut = bytes(data if size % 3 else data[:size])
    begun = time.process_time()
    try:
        cdb = UsersCdb(cut)
        for name, _, value in cdb.entries():
            parse_record(value)
            cdb.lookup(name)
    except DamagedUsers:
        pass
    else:
        for name in [b"joe", b"joe-list", *asked]:
            try:
                cdb.lookup(name)
            except DamagedUsers:
                pass
    assert time.process_time() - begun < 2


@given(st.binary(max_size=60))
def test_any_record_is_read_or_has_too_few_fields(data: bytes) -> None:
    found = parse_record(data)
    assert (found is None) == (data.count(b"\0") < 5)
    if found is not None:
        assert found.owner.user == data.split(b"\0")[0]
        assert 0 <= found.owner.uid <= 0xFFFFFFFF


def test_a_users_cdb_without_the_empty_key_is_damaged() -> None:
    with pytest.raises(DamagedUsers, match="no list of wildcard characters"):
        UsersCdb(cdb_bytes([(b"!joe\0", b"joe\x001\x001\0/home/joe\0-\0")]))


def test_a_record_of_users_cdb_that_no_look_up_finds_is_damage() -> None:
    whole = qmail_newu(b"=joe:joe:1:1:/home/joe:-::\n=ann:ann:2:2:/home/ann:-::\n.\n")
    UsersCdb(whole).check()
    for key in (b"!joe\0", b"!ann\0"):
        for changed in (b"?" + key[1:], key[:-1] + b"x", b"!" + key[1:].upper()):
            cdb = UsersCdb(whole.replace(key, changed))
            with pytest.raises(DamagedUsers):
                cdb.check()


# --- dot-qmail files ---------------------------------------------------------------------------


@given(
    st.one_of(st.binary(max_size=60), st.text("./|&#+list \t\n\0x", max_size=40).map(str.encode)),
    st.booleans(),
    st.booleans(),
    st.frozensets(st.sampled_from([0, 1, 99, 100, 111, -1]), min_size=1),
)
def test_any_dot_qmail_file_has_an_outcome(data: bytes, x_bit: bool, there: bool, statuses: frozenset[int]) -> None:
    instructions = parse(data, forward_only=x_bit)
    found = outcome(
        instructions,
        b"/home/joe/.qmail",
        mailbox=lambda one: there,
        program=lambda line: Effect(statuses, Kind.PROGRAM, "program"),
    )
    assert found.verdict is not Verdict.REMOTE
    assert 0 <= found.line <= data.count(b"\n") + 1
    assert all(b"\0" not in one.text for one in instructions.lines)
    if instructions.blank_first:
        assert (found.verdict, found.line) == (Verdict.DEFER, 1)


@given(st.binary(max_size=40), st.binary(max_size=3))
def test_the_safe_extension_is_safe_already(extension: bytes, dash: bytes) -> None:
    found = safe_extension(extension, dash)
    assert safe_extension(found, dash) == found
    assert b"." not in found
    assert b"//" not in found
    assert found == found.lower()


# --- Overlays ----------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=12), max_size=3), st.text(max_size=12))
def test_any_overlay_is_taken_or_named(accept: list[str], reject: str) -> None:
    try:
        overlays = Overlays(tuple(accept), (reject,))
    except RcptgenError as error:
        assert str(error).startswith("[extra] ")
        assert error.status == 78
    else:
        text = reject.encode("utf-8", "surrogateescape").lower()
        local, _, domain = text.rpartition(b"@") if b"@" in text else (text, b"", b"any.example")
        found = overlays.match(local.removesuffix(b"*"), domain)
        assert found is not None
        assert not found.accepted


# --- Time --------------------------------------------------------------------------------------

LONG = 50_000


@pytest.mark.parametrize(
    "work",
    [
        lambda: entries(b"\0" * LONG + b"a" + b" \t" * LONG + b"\n" * LONG),
        lambda: accounts((b"\t" * LONG + b"a:x:" + b" " * LONG + b"1:1\n") * 3),
        lambda: parse_assign(b":" * LONG + b"\n" * LONG),
        lambda: parse(b" \t" * LONG + b"\0" * LONG + b"|" * LONG, forward_only=True),
        lambda: safe_extension(b"/" * LONG + b"a//" * LONG, b"-"),
        lambda: parse_record(b"\0" * LONG),
    ],
    ids=["control", "passwd", "assign", "dot-qmail", "slashes", "record"],
)
def test_long_lines_take_no_long_time(work: Callable[[], object]) -> None:
    begun = time.process_time()
    work()
    assert time.process_time() - begun < 2
