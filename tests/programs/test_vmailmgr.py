"""vdeliver: records of all versions, the default user, expiry, settings, programs, and tables that are damaged."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable

import pytest
from fakelists import DIRECTORY, Home
from hosts import cdb_bytes
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rcptgen.programs import builtin_models
from rcptgen.programs import vmailmgr as module
from rcptgen.programs.shell import run_line
from rcptgen.programs.vmailmgr_table import NEVER, PAGE, Record, record, signed_hash
from rcptgen.qmail.model import UNKNOWN, Effect, Effects, Free, Presence, Situation, Text
from rcptgen.rules.cdbwalk import walk_cdb
from rcptgen.rules.outcome import Kind

MODELS = builtin_models()
SET: dict[bytes, Text] = dict.fromkeys((b"USER", b"HOST", b"SENDER", b"UFLINE", b"RPLINE", b"DTLINE"), UNKNOWN)


def numbers(expiry: bytes = b"-") -> bytes:
    return b"-\0-\0-\0-\0001\0" + expiry + b"\0"


def base(directory: bytes = b"", forwards: Iterable[bytes] = (), expiry: bytes = b"-") -> bytes:
    return b"pass\0" + directory + b"\0" + b"".join(one + b"\0" for one in forwards) + b"\0me\0" + numbers(expiry)


def mailbox(name: bytes, expiry: bytes = b"-", flags: bytes = b"\x08\1\x0a\1") -> bytes:
    return b"\2" + flags + b"\0" + base(b"./users/" + name, expiry=expiry)


def alias(*forwards: bytes) -> bytes:
    return b"\2\x08\1\x0a\0\0" + base(forwards=forwards)


def table(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A cdb whose hash takes bytes for signed characters."""
    return cdb_bytes(pairs, signed=True)


USERS = [
    (b"mary", mailbox(b"mary")),
    (b"first.last", mailbox(b"mary")),
    ("zoé".encode(), mailbox(b"mary")),
    (b"sales", alias(b"mary", b"x@far.example")),
    (b"nobody", alias()),
    (b"off", mailbox(b"mary", flags=b"\x08\0\x0a\1")),
    (b"late", mailbox(b"mary", expiry=b"5")),
    (b"gone", mailbox(b"nowhere")),
    (b"Caps", mailbox(b"mary")),
    (b"twice", mailbox(b"mary", expiry=b"0")),
    (b"twice", mailbox(b"mary")),
    (b"broken", b"\3x"),
    (b"empty", b""),
    (b"old", b":pass:./users/mary"),
    (b"oldf", b":pass:&mary,x@far.example"),
    (b"oldbad", b":pass"),
    (b"long", alias(b"x" * 1100)),
    (b"me", alias(b"mary@")),
    (b"", mailbox(b"mary")),
]
MAILDIR: dict[bytes, bytes | int] = {b"users/mary/tmp": DIRECTORY, b"users/mary/new": DIRECTORY}


def files(pairs: Iterable[tuple[bytes, bytes]] = USERS, **more: bytes | int) -> dict[bytes, bytes | int]:
    found: dict[bytes, bytes | int] = {b"passwd.cdb": table(pairs), **MAILDIR}
    return found | {b".vmailmgr/" + name.encode().replace(b"_", b"-"): data for name, data in more.items()}


def run(ext: Text, home: Home | dict[bytes, bytes | int], line: str = "vdeliver", **variables: Text) -> Effect:
    look = home if isinstance(home, Home) else Home(home)
    texts: dict[bytes, Text] = {**SET, b"EXT": ext, b"HOME": b"/home", b"PATH": b"/bin"}
    texts |= {name.encode(): text for name, text in variables.items()}
    return run_line(line.encode(), Situation(texts, lambda _: Presence.FOUND, look), MODELS)


def status(ext: bytes, home: Home | dict[bytes, bytes | int], line: str = "vdeliver") -> int:
    found = run(ext, home, line)
    assert not found.approximate
    (one,) = found.statuses
    return one


def every(home: Home | dict[bytes, bytes | int], line: str = "vdeliver") -> Effects:
    free = Free(choices={})
    run(free, home, line)
    assert free.choices is not None
    (effects,) = free.choices.values()
    return effects


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, Kind.MAILBOX) for name in (b"mary", b"MARY", b"First.Last", "zoé".encode(), "ZOé".encode(), b"old")),
        *((name, Kind.ALIAS) for name in (b"sales", b"oldf", b"Sales")),
        *((name, Kind.DISCARD) for name in (b"nobody", b"off")),
    ],
)
def test_users_that_are_there(name: bytes, kind: Kind) -> None:
    found = run(name, files())
    assert found.statuses == {0}
    assert (found.kind, found.file) == (kind, b"/home/passwd.cdb")


@pytest.mark.parametrize(
    "name", [b"x", b"", b"mary-x", b"first:last", "ZOÉ".encode(), b"late", b"twice", b"Caps", b"caps", b"empty"]
)
def test_users_that_are_not(name: bytes) -> None:
    assert status(name, files()) == 100


def test_mail_that_cannot_be_stored_or_queued_defers() -> None:
    assert status(b"gone", files()) == 111
    assert status(b"long", files()) == 111
    assert status(b"me", files()) == 111
    assert status(b"me", files() | {b"/var/qmail/control/me": b"mail.example.org\n"}) == 0
    home = Home(files())
    home.hidden.add(b"/home/users/mary/new")
    assert status(b"mary", home) == 111


def test_the_default_user_takes_what_is_not_there() -> None:
    caught = files([*USERS, (b"+", mailbox(b"mary"))])
    for name in (b"x", b"", b"broken", b"oldbad", b"caps"):
        assert run(name, caught) == Effect(frozenset({0}), Kind.CATCHALL, "a virtual user", file=b"/home/passwd.cdb")
    assert run(b"+", caught).kind is Kind.MAILBOX
    assert status(b"late", caught) == 100
    assert run(b"x", files([(b"+", alias(b"x@far.example"))])).kind is Kind.CATCHALL
    assert run(b"x", files([(b"+", alias())])).kind is Kind.DISCARD
    assert status(b"x", files([(b"+", mailbox(b"mary", expiry=b"1"))])) == 100
    named = files([(b"catch", mailbox(b"mary"))], default_username=b" Catch \n")
    assert run(b"x", named).kind is Kind.CATCHALL
    assert run(b"+", named).kind is Kind.CATCHALL
    assert status(b"x", files([(b"catch", mailbox(b"mary"))], default_username=b"\ncatch\n")) == 100


def test_expiry_is_compared_with_the_clock() -> None:
    soon = int(time.time())
    assert status(b"a", files([(b"a", mailbox(b"mary", expiry=b"%d" % (soon + 1000)))])) == 0
    assert status(b"a", files([(b"a", mailbox(b"mary", expiry=b"%d" % (soon - 10)))])) == 100


def test_settings() -> None:
    other = files(password_file=b"sub/table\n") | {b"sub/table.cdb": table([(b"ann", mailbox(b"mary"))])}
    assert status(b"ann", other) == 0
    assert status(b"mary", other) == 100
    assert status(b"ann", files() | {b"/etc/vmailmgr/password-file": b"t", b"t.cdb": other[b"sub/table.cdb"]}) == 0


@pytest.mark.parametrize(
    ("script", "ended"),
    [
        (b"#!/bin/sh\nexit 0\n", 0),
        (b"#!/bin/sh\n# why\n\nexit 100\n", 100),
        (b"#! /bin/sh\ntrue\nexit 1", 1),
        (b"#!/bin/sh\nexit 99\n", 99),
        (b"#!/bin/sh\nfalse\n", 1),
        (b"#!/bin/sh\n", 0),
    ],
)
def test_programs_that_can_be_told(script: bytes, ended: int) -> None:
    for name in (b"vdeliver-predeliver", b"vdeliver-postdeliver"):
        home = files() | {b".vmailmgr/" + name: script}
        assert status(b"mary", Home(home)) == 0, "not executable"
        assert status(b"mary", Home(home, {b".vmailmgr/" + name: 0o755})) == ended
        assert status(b"x", Home(home, {b".vmailmgr/" + name: 0o755})) == 100
        option = "vdeliver --no-" + name.decode().removeprefix("vdeliver-")
        assert status(b"mary", Home(home, {b".vmailmgr/" + name: 0o755}), option) == 0


@pytest.mark.parametrize(
    "script", [b"#!/bin/sh\nexit $X\n", b"#!/usr/bin/perl\nexit 1\n", b"", b"#!/bin/sh\nif true\nthen exit 1\nfi\n"]
)
def test_programs_that_cannot_be_told(script: bytes) -> None:
    path = b"/etc/vmailmgr/vdeliver-predeliver"
    found = run(b"mary", Home(files() | {path: script}, {path: 0o755}))
    assert found.approximate
    assert found.kind is Kind.MAILBOX
    assert {0, 100} <= found.statuses


def test_the_administrators_program_comes_first() -> None:
    first, second = b"/etc/vmailmgr/vdeliver-predeliver", b".vmailmgr/vdeliver-predeliver"
    home = Home(
        files() | {first: b"#!/bin/sh\nexit 99\n", second: b"#!/bin/sh\nexit 100\n"}, {first: 0o755, second: 0o755}
    )
    assert run(b"mary", home).kind is Kind.DISCARD
    assert status(b"mary", home) == 99


@pytest.mark.parametrize(
    ("line", "ended"),
    [
        *((f"vdeliver {options}", 0) for options in ("-DFrdR", "--quiet -", "--", "-h", "--help x", "-D -h")),
        *((f"vdeliver {options}", 1) for options in ("-Z", "x", "-- x", "--no", "--quiet=1", "-Dq")),
    ],
)
def test_options(line: str, ended: int) -> None:
    assert status(b"mary", files(), line) == ended


def test_variables_that_are_missing() -> None:
    assert run(b"mary", files(), "unset DTLINE; vdeliver").statuses == {100}
    assert run(b"mary", files(), "unset HOME; vdeliver").statuses == {1}
    assert run(b"mary", files(), HOME=b"/none").statuses == {1}
    assert run(UNKNOWN, files()).approximate
    assert run(b"mary", files(), 'vdeliver "$X"', X=UNKNOWN).approximate


# -- damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "ended"),
    [
        (errno.ENOENT, 100),
        (errno.EACCES, 100),
        (errno.EISDIR, 111),
        (b"", 111),
        (b"real:x:./users/real\n" * 400, 111),
        (table(USERS)[:2048], 100),
        (table(USERS)[:100], 100),
        (b"\0", 100),
        (b"\xff" * 5000, 111),
    ],
)
def test_a_table_that_is_missing_or_damaged_is_suspect(data: bytes | int, ended: int) -> None:
    home = Home({b"passwd.cdb": data, **MAILDIR})
    assert status(b"mary", home) == ended
    assert b"suspect /home/passwd.cdb" in home.said
    home = Home({b"passwd.cdb": data, **MAILDIR})
    assert every(home).match(b"mary").statuses == {ended}
    assert b"suspect /home/passwd.cdb" in home.said


def test_a_table_that_cannot_be_read_for_now_defers() -> None:
    assert status(b"mary", Home({b"passwd.cdb": errno.EIO})) == 111
    broken = Home(files(password_file=b"unreadable") | {b"unreadable.cdb": table(USERS)})
    assert status(b"mary", broken) == 111
    assert every(broken).match(b"mary").statuses == {111}
    assert b"failed /home/unreadable.cdb" in broken.said


def test_a_table_that_is_as_it_should_be_is_not_suspect() -> None:
    home = Home(files())
    status(b"x", home)
    every(home)
    assert home.said == []


@settings(max_examples=200)
@example(2632, b"Q", False)
@given(st.integers(0, len(table(USERS))), st.binary(min_size=1, max_size=8), st.booleans())
def test_damage_never_refuses_what_is_delivered(at: int, patch: bytes, cut: bool) -> None:
    whole = table(USERS)
    data = whole[:at] if cut else whole[:at] + patch + whole[at + len(patch) :]
    home = Home({b"passwd.cdb": data, **MAILDIR})
    found = every(home)
    for name, _ in USERS:
        one = run(name.lower(), home)
        said = found.match(name.lower())
        assert said.statuses != {100} or one.statuses == {100} or home.said


# -- records ---------------------------------------------------------------------------------

NOTHING = numbers()


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"\1" + base(b"d"), Record(b"d", b"", NEVER)),
        (b"\2\0" + base(b"d", [b"a", b"b"]), Record(b"d", b"a\0b", NEVER)),
        (b"\2\x08\0\x08\1\0" + base(b"d"), Record(b"d", b"", NEVER)),
        (b"\2\x08\0\0" + base(b"d"), Record(b"", b"", NEVER)),
        (b"\2\x0a\0\0" + base(b"d", expiry=b"7"), Record(b"", b"", 7)),
        (b"\2\x02\1\0" + base(b"d"), None),
        (b"\2\x08", None),
        (b"\2", None),
        (b"\3" + base(b"d"), None),
        (b"", None),
        (base(b"d"), None),
        (b"\1" + base(b"d")[:-1], None),
        (b"\1" + base(b"d") + b"\0", None),
        (b"\1" + base(b"d", expiry=b"x"), None),
        (b"\1" + base(b"d", expiry=b""), Record(b"d", b"", 0)),
        (b"\1" + base(b"d", expiry=b" -5"), Record(b"d", b"", NEVER)),
        (b"\1" + base(b"d", expiry=b"4294967297"), Record(b"d", b"", 1)),
        (b"\1" + base(b"d", expiry=b"9" * 5000), Record(b"d", b"", int(b"9" * 40) & NEVER)),
        (b"\1" + base(b"d", expiry=b"5-"), None),
        (b":p:/d", Record(b"/d", b"", NEVER)),
        (b":p:a,b", Record(b"", b"a\0b", NEVER)),
        (b":p:", Record(b"", b"", NEVER)),
        (b":p\0:a", None),
    ],
)
def test_records(data: bytes, wanted: Record | None) -> None:
    assert record(data) == wanted


@given(st.binary(max_size=40), st.sampled_from([b"", b"\1", b"\2", b":", b"\2\x08"]))
def test_any_bytes_are_read_or_not(data: bytes, start: bytes) -> None:
    assert record(start + data) is None or start + data


def by_the_letter(data: bytes) -> Record | None:
    """The same once more, as decode.cc steps through it."""
    if not data or data[0] not in (1, 2) or data[-1] != 0:
        return None
    at, end, flags = 1, len(data), {8: 1, 10: 1}
    if data[0] == 2:
        while True:
            if at >= end:
                return None
            flag, at = data[at], at + 1
            if not flag:
                break
            if at >= end or flag not in flags:
                return None
            flags[flag], at = data[at], at + 1

    def text() -> bytes:
        nonlocal at
        start, at = at, data.index(b"\0", at) + 1
        return data[start : at - 1]

    if at >= end:
        return None
    text()
    if at >= end:
        return None
    directory = text()
    if at >= end:
        return None
    forwards = []
    while at < end and data[at]:
        forwards.append(text())
    if at >= end:
        return None
    at += 1
    fields = []
    for _ in range(7):
        if at >= end:
            return None
        fields.append(text())
    values = []
    for field in fields[1:]:
        digits = field.lstrip(b" \t\n\v\f\r")
        minus = digits.startswith(b"-")
        if digits.removeprefix(b"-").strip(b"0123456789"):
            return None
        values.append(NEVER if minus else int(digits or b"0") & NEVER)
    if at != end:
        return None
    return Record(directory if flags[8] and flags[10] else b"", b"\0".join(forwards), values[-1])


pieces = st.sampled_from(
    [b"\0", b"\0", b"\0", b"\x08", b"\x0a", b"\1", b"\2", b"x", b"7", b"-", b" ", base(b"d", [b"f"]), NOTHING]
)


@settings(max_examples=500)
@given(st.sampled_from([b"\1", b"\2"]), st.lists(pieces, max_size=12).map(b"".join))
@example(b"\2", b"\x08\0\0" + base(b"d"))
def test_records_are_read_as_their_source_does(version: bytes, rest: bytes) -> None:
    assert record(version + rest) == by_the_letter(version + rest)


# -- tables ----------------------------------------------------------------------------------

names = st.sampled_from([name.lower() for name, _ in USERS] + [b"x", b"+", b"mary-x", b"catch"]) | st.binary(max_size=4)


@settings(max_examples=300)
@given(st.lists(st.sampled_from([*USERS, (b"+", mailbox(b"mary")), (b"+", alias()), (b"x", mailbox(b"gone"))])), names)
def test_the_table_says_what_is_said_of_each_name(pairs: list[tuple[bytes, bytes]], name: bytes) -> None:
    home = files(pairs)
    assert every(home).match(name.lower()) == run(name, home)


def test_mailboxes_beyond_a_number_are_taken_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CHECKED", 1)
    found = every(files([(b"a", mailbox(b"none")), (b"b", mailbox(b"none"))]))
    assert found.match(b"a").statuses == {111}
    assert found.match(b"b").statuses == {0}


def test_users_of_one_sort_share_one_effect() -> None:
    found = every(files([(b"u%d" % number, mailbox(b"mary")) for number in range(500)]))
    assert len(found.groups) == 1


def test_the_hash_is_that_of_signed_characters() -> None:
    data = table([("zoé".encode(), b"x")])
    assert list(walk_cdb(data)) == [("zoé".encode(), b"x")]
    assert signed_hash(b"a") == (5381 * 33) ^ 97
    assert signed_hash(b"\xff") == ((5381 * 33) ^ 0xFFFFFFFF) & 0xFFFFFFFF
    assert len(data) < PAGE
