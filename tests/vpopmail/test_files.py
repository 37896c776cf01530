"""users/cdb, vpasswd.cdb and vpasswd as vpopmail reads them, whole or damaged."""

from __future__ import annotations

import random
import struct

import pytest
from fakelook import FakeLook
from hosts import cdb_bytes
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.qmail.look import Look
from rcptgen.rules.cdbwalk import CdbFile, DamagedCdb
from rcptgen.rules.names import Names
from rcptgen.vpopmail.assign import Assigned, Assignments
from rcptgen.vpopmail.backend import Crash, Domain, Unavailable, User, Users
from rcptgen.vpopmail.gathered import gathered, in_batches, user_of
from rcptgen.vpopmail.packed import SMALL, pack
from rcptgen.vpopmail.salvage import findable
from rcptgen.vpopmail.text import all_valid, atoi, is_username_valid
from rcptgen.vpopmail.vpasswd import VpasswdBackend

USERS = b"/var/qmail/users/cdb"
DOMAIN = Domain(b"example.org", 89, 89, b"/d")
CDB, TEXT = b"/d/vpasswd.cdb", b"/d/vpasswd"
BACKEND = VpasswdBackend()


def record(name: bytes, gid: bytes = b"0", parent: bytes = b"/d/") -> bytes:
    return b"pw:1:" + gid + b":gecos:" + parent + name + b":NOQUOTA"


def assign(name: bytes, uid: bytes = b"89", directory: bytes = b"/d") -> bytes:
    return b"\0".join((name, uid, b"89", directory, b"-", b""))


# -- texts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"", 0),
        (b"16x", 16),
        (b" \t\v16", 16),
        (b"+16", 16),
        (b"-1", -1),
        (b"- 1", 0),
        (b"0x10", 0),
        (b"010", 10),
        (b"4294967312", 16),
        (b"2147483648", -2147483648),
        (b"0" * 5000 + b"16", 16),
        (b"9223372036854775807", -1),
        (b"9" * 5000, -1),
        (b"-" + b"9" * 5000, 0),
    ],
)
def test_numbers_are_read_as_atoi_does(text: bytes, number: int) -> None:
    assert atoi(text) == number


def test_the_bytes_that_a_name_may_have() -> None:
    valid = bytes(one for one in range(256) if is_username_valid(bytes((one,))))
    assert valid == b"!#$&'*+-./0123456789=?ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz{|}~"
    assert is_username_valid(b"")
    assert all_valid(b"a\nb")
    assert not all_valid(b"a\nb c")


# -- names by the million ---------------------------------------------------------------------------


@given(st.lists(st.sets(st.binary(max_size=4).filter(lambda name: b"\n" not in name), min_size=1), max_size=4))
def test_packed_names_are_sorted_and_joined(parts: list[set[bytes]]) -> None:
    seen: set[bytes] = set()
    disjoint = []
    for part in parts:
        if part - seen:
            disjoint.append(sorted(part - seen, reverse=True))
        seen |= part
    found = pack(b"\n".join(names) for names in disjoint)
    assert list(found) == sorted(seen)
    assert len(found) == len(seen)
    assert [name for piece in found.stretches() for name in piece] == sorted(seen)


@pytest.mark.parametrize("head", [b"", b"someuser-with-a-long-beginning"])
def test_very_many_names_are_sorted_bucket_by_bucket(head: bytes) -> None:
    names = [head + b"%d" % number for number in range(SMALL // 3)] + [head, head + b"1" * 150]
    assert sum(map(len, names)) > SMALL
    random.Random(1).shuffle(names)
    half = len(names) // 2
    found = pack([b"\n".join(names[:half]), bytearray(b"\n".join(names[half:]))])
    assert found.joined == b"\n".join(sorted(names))
    assert len(found) == len(names)


def test_no_names_and_the_empty_name_are_not_the_same() -> None:
    assert len(pack([])) == 0
    assert list(pack([b""])) == [b""]
    assert list(Names.of_sorted(b"\na")) == [b"", b"a"]


# -- users/cdb --------------------------------------------------------------------------------------


def test_a_domain_is_what_its_own_line_says() -> None:
    cdb = cdb_bytes([(b"!alias.example-", assign(b"example.org", directory=b"/other")), (b"", b"-")])
    look = FakeLook({USERS: cdb})
    found = Assignments(b"/var/qmail").assigned(look, b"ALIAS.example")
    assert found == Assigned(b"example.org", Domain(b"example.org", 89, 89, b"/other"))


def test_a_real_domain_in_capitals_is_looked_up_by_its_own_name() -> None:
    lines = [(b"!alias.example-", assign(b"Example.org")), (b"!example.org-", assign(b"Example.org", b"90", b"/own"))]
    found = Assignments(b"/var/qmail").assigned(FakeLook({USERS: cdb_bytes(lines)}), b"alias.example")
    assert found == Assigned(b"Example.org", Domain(b"Example.org", 90, 89, b"/own"))
    found = Assignments(b"/var/qmail").assigned(FakeLook({USERS: cdb_bytes(lines[:1])}), b"alias.example")
    assert found == Assigned(b"Example.org", None)


@pytest.mark.parametrize("content", [None, b"", cdb_bytes([]), cdb_bytes([(b"!example.org-", assign(b"x"))])[:2060]])
def test_a_domain_that_is_not_found_is_unknown(content: bytes | None) -> None:
    look = FakeLook({} if content is None else {USERS: content})
    assert Assignments(b"/var/qmail").assigned(look, b"example.org") == Assigned(b"example.org", None)


def test_users_cdb_is_opened_once_for_each_identity() -> None:
    look = FakeLook({USERS: cdb_bytes([(b"!example.org-", assign(b"example.org"))])})
    assignments = Assignments(b"/var/qmail")
    first = assignments.assigned(look, b"example.org")
    assert assignments.assigned(FakeLook({}), b"example.org") == first
    other = FakeLook({}, identity=look.identity._replace(uid=90))
    assert assignments.assigned(other, b"example.org").domain is None


def test_a_users_cdb_that_cannot_be_read_for_now_is_no_empty_one() -> None:
    look = FakeLook({USERS: b""}, broken=frozenset({USERS}))
    with pytest.raises(Unavailable):
        Assignments(b"/var/qmail").assigned(look, b"example.org")


def test_a_record_with_too_few_fields_is_none_to_go_by() -> None:
    look = FakeLook({USERS: cdb_bytes([(b"!example.org-", b"example.org\x0089")])})
    with pytest.raises(Crash):
        Assignments(b"/var/qmail").assigned(look, b"example.org")


# -- vpasswd.cdb ------------------------------------------------------------------------------------


def names_of(found: Users) -> set[bytes]:
    plain = {name for names in found.plain.values() for name in names}
    return plain | {user.name for user in found.others} | set(found.crashes)


def test_the_users_of_a_healthy_cdb() -> None:
    records = [
        (b"joe", record(b"joe")),
        (b"ann", record(b"ann")),
        (b"deep", record(b"deep", parent=b"/d/0/")),
        (b"shut", record(b"shut", b"16")),
        (b"else", b"pw:1:5:gecos:/d/joe:"),
        (b"a/b", record(b"a/b")),
        (b".", record(b".")),
        (b"short", b"pw:1"),
        (b"Cap", record(b"Cap")),
        (b"x" * 157, record(b"x" * 157)),
        (b"a\nb", record(b"a\nb")),
        (b"nul", b"pw\0:1:0:gecos:/d/nul:"),
        (b"", record(b"")),
    ]
    look = FakeLook({CDB: cdb_bytes(records)})
    found = BACKEND.users(look, DOMAIN)
    assert {parent: list(names) for parent, names in found.plain.items()} == {
        b"/d": [b"ann", b"joe"],
        b"/d/0": [b"deep"],
    }
    assert sorted(found.others, key=lambda user: user.name) == [
        User(b"", 0, b"/d/", CDB),
        User(b".", 0, b"/d/.", CDB),
        User(b"a/b", 0, b"/d/a/b", CDB),
        User(b"else", 5, b"/d/joe", CDB),
        User(b"shut", 16, b"/d/shut", CDB),
    ]
    assert sorted(found.crashes) == [b"nul", b"short"]
    assert not look.told


def test_the_first_of_several_records_counts() -> None:
    records = [(b"joe", record(b"joe", b"16")), (b"ann", record(b"ann")), (b"joe", record(b"joe")), (b"ann", b"")]
    look = FakeLook({CDB: cdb_bytes(records)})
    found = BACKEND.users(look, DOMAIN)
    assert names_of(found) == {b"joe", b"ann"}
    assert found.others == [User(b"joe", 16, b"/d/joe", CDB)]
    assert BACKEND.user(look, DOMAIN, b"joe") == found.others[0]


_TEXTS = st.one_of(
    st.sampled_from(
        [b"ann", b"joe", b"a-b", b"Cap", b"a/b", b".", b"..", b"", b"a\nb", b"x" * 156, b"x" * 157, b"\xe4"]
    ),
    st.binary(max_size=3),
)
_FIELD = st.one_of(
    st.sampled_from([b"", b"0", b"16", b"17x", b"-1", b"pw", b"/d/", b"\0", b"\n", b":", b":\n:", b"\n:0:0"]),
    st.binary(max_size=3),
)


@st.composite
def _records(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A record as they are, or with something about it that is not."""
    key = draw(_TEXTS)
    if draw(st.integers(0, 3)) == 0:
        return key, b":".join(draw(st.lists(_FIELD, max_size=8)))
    name = key if draw(st.integers(0, 3)) else draw(_TEXTS)
    parent = draw(st.sampled_from([b"/d/", b"/d/0/", b"/d", b"", b"/", b"d/"]))
    data = record(name, draw(st.sampled_from([b"0", b"0", b"1", b"16", b"x"])), parent)
    return key, data + draw(st.sampled_from([b"", b"", b"", b":", b":clear", b":a:b", b"\0"]))


def told_of(found: Users) -> tuple[object, ...]:
    plain = {parent: list(names) for parent, names in found.plain.items()}
    return plain, {user.name: user for user in found.others}, sorted(found.crashes), found.file


@given(st.lists(_records(), max_size=12), st.booleans())
def test_users_that_are_taken_together_are_those_that_are_taken_one_by_one(
    records: list[tuple[bytes, bytes]], alike: bool
) -> None:
    if alike:
        records += [(b"u%d" % number, record(b"u%d" % number)) for number in range(20)]
    together = gathered(lambda: [([key for key, _ in records], [data for _, data in records])] if records else [], CDB)
    one_by_one = gathered(lambda: in_batches(records), CDB, bulk=False)
    assert told_of(together) == told_of(one_by_one)
    wanted: dict[bytes, bytes] = {}
    for key, data in records:
        wanted.setdefault(key, data)
    for user in (*one_by_one.others, *(user_of(name, wanted[name], CDB) for name in plain_of(one_by_one))):
        assert user == user_of(user.name, wanted[user.name], CDB)
    assert names_of(together) == {
        key for key in wanted if key == key.lower() and len(key) <= 156 and is_username_valid(key)
    }


def plain_of(found: Users) -> list[bytes]:
    return [name for names in found.plain.values() for name in names]


@given(st.data())
def test_records_come_in_batches_as_they_come_one_by_one(data: st.DataObject) -> None:
    records = [(b"k%d" % number, b"v" * data.draw(st.sampled_from([0, 1, 300_000, 1_100_000]))) for number in range(4)]
    whole = bytearray(cdb_bytes(records))
    for at in data.draw(st.lists(st.integers(0, 60) | st.integers(2040, 2060), max_size=2)):
        whole[at] = data.draw(st.integers(0, 255))
    whole = whole[: len(whole) - data.draw(st.sampled_from([0, 0, 1, 40, 300_000]))]
    content = bytes(whole)
    opened = CdbFile(lambda at, size: content[at : at + size], len(content), "cdb")

    def walked() -> tuple[list[tuple[bytes, bytes]], str]:
        found: list[tuple[bytes, bytes]] = []
        try:
            found.extend(opened.records())
        except DamagedCdb as error:
            return found, str(error)
        return found, ""

    found, damage = walked()
    if content == cdb_bytes(records):
        assert found == records
    position, rest = 2048, iter(found)
    for key, value in rest:
        sizes = struct.pack("<II", len(key), len(value))
        assert content[position:].startswith(sizes + key + value)
        position += 8 + len(key) + len(value)
    if not damage and found:
        starts = struct.unpack("<512I", content[:2048])
        assert position == min(at for at, slots in zip(starts[::2], starts[1::2], strict=True) if slots)


def test_very_many_users_and_repeated_names_among_them() -> None:
    names = [b"user%d" % number for number in range(70_000)]
    records = [(name, record(name, parent=b"/d/%d/" % (number % 3))) for number, name in enumerate(names)]
    twice = [*records, (names[5], b"short"), (names[69_999], record(b"else"))]
    for given_records in (records, twice):
        found = BACKEND.users(FakeLook({CDB: cdb_bytes(given_records)}), DOMAIN)
        assert sorted(found.plain) == [b"/d/0", b"/d/1", b"/d/2"]
        assert sorted(name for part in found.plain.values() for name in part) == sorted(names)
        assert not found.others
        assert not found.crashes


@pytest.mark.parametrize("content", [b"", b"x", bytes(2048), bytes(5000), b"\xff" * 3000])
def test_a_file_that_is_no_cdb_has_no_users_and_is_told(content: bytes) -> None:
    look = FakeLook({CDB: content, TEXT: b"joe:" + record(b"joe") + b"\n"})
    assert not names_of(BACKEND.users(look, DOMAIN))
    assert [path for path, _ in look.told] == [CDB]


def test_of_a_damaged_cdb_what_look_ups_find_is_left() -> None:
    whole = cdb_bytes([(b"u%d" % number, record(b"u%d" % number)) for number in range(100)])
    for size in range(2048, len(whole), 97):
        look = FakeLook({CDB: whole[:size]})
        found = names_of(BACKEND.users(look, DOMAIN))
        wanted = {b"u%d" % number for number in range(100) if BACKEND.user(look, DOMAIN, b"u%d" % number)}
        assert found == wanted
        assert look.told


def test_a_cdb_whose_tables_were_never_written_is_damaged() -> None:
    whole = cdb_bytes([(b"joe", record(b"joe"))])
    look = FakeLook({CDB: whole[:-16] + bytes(16)})
    assert not names_of(BACKEND.users(look, DOMAIN))
    assert BACKEND.user(look, DOMAIN, b"joe") is None
    assert look.told


@given(st.data())
def test_no_damage_breaks_anything(data: st.DataObject) -> None:
    whole = bytearray(cdb_bytes([(b"u%d" % number, record(b"u%d" % number)) for number in range(20)]))
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=6)):
        whole[at] = data.draw(st.integers(0, 255))
    look = FakeLook({CDB: bytes(whole[: data.draw(st.integers(0, len(whole)))])})
    found = {name for name, _ in findable(look.files[CDB] or b"")}
    for name in (b"u1", b"u2", b"u19", b"v"):
        try:
            user = BACKEND.user(look, DOMAIN, name)
        except Crash:
            continue
        assert (user is not None) == (name in found)
    BACKEND.users(look, DOMAIN)


@given(st.data())
def test_damage_that_hides_a_user_is_told(data: st.DataObject) -> None:
    names = [b"u%d" % number for number in range(20)]
    whole = cdb_bytes([(name, record(name)) for name in names])
    at, patch = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.binary(min_size=1, max_size=8))
    look = FakeLook({CDB: whole[:at] + patch + whole[at + len(patch) :]})
    found = names_of(BACKEND.users(look, DOMAIN))
    told = list(look.told)
    for name in names:
        try:
            user = BACKEND.user(look, DOMAIN, name)
        except Crash:
            continue
        assert (user is not None) == (name in found) or told
        assert user is not None or told


@pytest.mark.parametrize("name", [b"u0", b"u7", b"u19"])
def test_a_key_that_has_changed_is_damage(name: bytes) -> None:
    whole = cdb_bytes([(b"u%d" % number, record(b"u%d" % number)) for number in range(20)])
    look = FakeLook({CDB: whole.replace(name + b"pw", b"q" + name[1:] + b"pw")})
    found = names_of(BACKEND.users(look, DOMAIN))
    assert found == {b"u%d" % number for number in range(20)} - {name}
    assert [path for path, _ in look.told] == [CDB]


def test_a_cdb_that_cannot_be_read_for_now_is_no_empty_one() -> None:
    look = FakeLook({CDB: b""}, broken=frozenset({CDB}))
    with pytest.raises(Unavailable):
        BACKEND.users(look, DOMAIN)
    with pytest.raises(Unavailable):
        BACKEND.user(look, DOMAIN, b"joe")


def test_a_directory_in_place_of_the_cdb_has_no_users() -> None:
    look = FakeLook({CDB + b"/": b"", TEXT: b"joe:" + record(b"joe") + b"\n"})
    assert not names_of(BACKEND.users(look, DOMAIN))
    assert BACKEND.user(look, DOMAIN, b"joe") is None


@pytest.mark.parametrize(("newer", "count", "told"), [(1, 10, True), (1, 5, False), (0, 10, False), (1, 4, False)])
def test_a_newer_vpasswd_with_very_different_names_is_told(newer: int, count: int, told: bool) -> None:
    text = b"".join(b"u%d:" % number + record(b"u") + b"\n" for number in range(count))
    cdb = cdb_bytes([(b"u%d" % number, record(b"u%d" % number)) for number in range(4)])
    look = FakeLook({CDB: cdb, TEXT: text}, times={TEXT: newer})
    assert len(names_of(BACKEND.users(look, DOMAIN))) == 4
    assert bool(look.told) == told


# -- vpasswd ----------------------------------------------------------------------------------------


def test_a_missing_cdb_is_made_of_vpasswd() -> None:
    lines = [
        b"joe:" + record(b"joe"),
        b"no colon",
        b"joe:" + record(b"joe", b"16"),
        b"Cap:" + record(b"Cap"),
        b":" + record(b""),
        b"n\0ul:" + record(b"n"),
        b"long:" + b"x" * 600 + b"tail:" + record(b"tail"),
        b"lost:" + record(b"lost"),
    ]
    look: Look = FakeLook({TEXT: b"\n".join(lines)})
    found = BACKEND.users(look, DOMAIN)
    assert names_of(found) == {b"joe", b"", b"n", b"long", b"x" * 94 + b"tail"}
    assert found.crashes == [b"long"]
    assert BACKEND.user(look, DOMAIN, b"joe") == User(b"joe", 0, b"/d/joe", CDB)
    assert BACKEND.user(look, DOMAIN, b"lost") is None
    with pytest.raises(Crash):
        BACKEND.user(look, DOMAIN, b"long")


def test_an_unreadable_cdb_is_replaced_where_the_directory_can_be_written_to() -> None:
    files = {CDB: cdb_bytes([]), TEXT: b"joe:" + record(b"joe") + b"\n"}
    assert BACKEND.user(FakeLook(files, locked=frozenset({CDB})), DOMAIN, b"joe") is not None
    for fixed in (b"/d", b"/d/cdb.tmp"):
        look = FakeLook({**files, b"/d/cdb.tmp": b""}, locked=frozenset({CDB}), fixed=frozenset({fixed}))
        assert BACKEND.user(look, DOMAIN, b"joe") is None
        assert not names_of(BACKEND.users(look, DOMAIN))


def test_without_cdb_and_vpasswd_there_are_no_users() -> None:
    look = FakeLook({b"/d/": b""})
    assert BACKEND.user(look, DOMAIN, b"joe") is None
    assert not names_of(BACKEND.users(look, DOMAIN))
    assert not look.told


@given(st.lists(st.sampled_from([b"a:", b"joe", b":", b"\n", b"\0", b"x" * 511, b"pw:1:0:g:/d/joe:q", b"\xff"])))
def test_the_users_of_any_vpasswd_are_those_that_look_ups_find(parts: list[bytes]) -> None:
    look = FakeLook({TEXT: b"".join(parts)})
    found = BACKEND.users(look, DOMAIN)
    crashed = set(found.crashes)
    for name in names_of(found) | {b"joe", b"a", b""}:
        if name in crashed:
            with pytest.raises(Crash):
                BACKEND.user(look, DOMAIN, name)
        else:
            assert (BACKEND.user(look, DOMAIN, name) is not None) == (name in names_of(found))
