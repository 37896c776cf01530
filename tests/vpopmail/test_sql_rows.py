"""What is kept of a database's rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.vpopmail import sqlrows
from rcptgen.vpopmail.backend import User, Users
from rcptgen.vpopmail.sqlrows import AliasRows, Folding, Snapshot, Trouble, UserRows, Value, user_of

CASELESS = Folding(case=True, blanks=True)

names = st.sampled_from(
    [b"joe", b"ann", b"ann.b", b"a-b", b"x", b"", b"two words", b"Joe", b"\xc3\xa9a", b"a\nb", b"a\0b"]
)
values = st.one_of(names, st.none(), st.integers(-5, 20), st.binary(max_size=4))
domains = st.sampled_from([b"x.example", b"X.example ", b"y.example", None])
directories = st.one_of(values, st.builds(lambda parent, name: parent + b"/" + name, names, names))


def listed(users: Users) -> list[User]:
    plain = [User(name, 0, parent + b"/" + name) for parent, found in users.plain.items() for name in found]
    return [*plain, *(User(one.name, one.gid, one.directory) for one in users.others)]


@given(st.lists(st.tuples(values, domains, values, directories)))
def test_what_is_kept_is_what_asking_for_each_name_finds(rows: list[tuple[Value, Value, Value, Value]]) -> None:
    snapshot = Snapshot(columns={(b"vpopmail", b"pw_name"): CASELESS, (b"vpopmail", b"pw_domain"): CASELESS})
    snapshot.take_users(b"vpopmail", rows, domains=True)
    for place, kept in snapshot.users.items():

        def found(name: bytes, place: bytes = place) -> User | None:
            for stored, domain, gid, directory in rows:
                text = sqlrows.text_of(stored) if not isinstance(stored, bytes) else stored
                where = CASELESS.asked(sqlrows.text_of(domain))
                if where == place and CASELESS.asked(text) == name:
                    return user_of(name, gid, directory)
            return None

        users = listed(kept.users(found))
        assert len({one.name for one in users}) == len(users)
        for one in users:
            wanted = found(one.name)
            assert wanted is not None
            assert (one.gid & 0x10, one.directory) == (wanted.gid & 0x10, wanted.directory)


def test_ordinary_users_cost_their_names() -> None:
    rows = UserRows()
    for name in (b"a", b"b"):
        assert rows.add(name, 0, b"/d/" + name) == 2
    rows.add(b"c", 16, b"/d/c")
    rows.add(b"d", 0, b"/d/other")
    users = rows.users(lambda name: None)
    assert list(users.plain[b"/d"]) == [b"a", b"b"]
    assert [one.name for one in users.others] == [b"c", b"d"]


def test_of_two_rows_of_a_name_the_server_says_which_counts() -> None:
    rows = UserRows()
    for directory in (b"/d/a", b"/e/a", b"/d/b"):
        rows.add(directory[-1:], 0, directory)
    users = rows.users(lambda name: User(name, 16, b"/f"))
    assert {parent: list(found) for parent, found in users.plain.items()} == {b"/d": [b"b"]}
    assert users.others == [User(b"a", 16, b"/f")]


@pytest.mark.parametrize(
    "stored, key, spellings",
    [
        (b"joe", b"joe", []),
        (b"Joe ", b"joe", []),
        ("josé".encode(), None, [b"jose"]),
        ("josé".encode("latin-1"), None, [b"jose"]),
        ("Straße".encode(), None, [b"strase", b"strasse"]),
        (b"jo\x01e", None, [b"joe"]),
        ("ЖЖ".encode(), None, []),
    ],
)
def test_only_the_server_can_say_what_a_name_with_accents_equals(
    stored: bytes, key: bytes | None, spellings: list[bytes]
) -> None:
    assert CASELESS.key(stored) == key
    if key is None:
        assert CASELESS.spellings(stored) == spellings
        assert not Folding().spellings(stored)


@given(st.binary(max_size=30), st.booleans(), st.booleans())
def test_no_name_is_too_much(stored: bytes, case: bool, blanks: bool) -> None:
    folding = Folding(case, blanks)
    key = folding.key(stored)
    assert key is None or (key == key.lower() and folding.asked(stored) == folding.asked(key))
    assert len(folding.spellings(stored)) <= sqlrows.MOST_SPELLINGS


@given(st.lists(st.tuples(st.binary(max_size=5), st.binary(max_size=5))))
def test_aliases_are_kept_as_they_come(rows: list[tuple[bytes, bytes]]) -> None:
    kept = AliasRows()
    wanted: dict[bytes, list[bytes]] = {}
    for key, line in rows:
        kept.add(key, line)
        wanted.setdefault(key, []).append(line)
    assert kept.lines() == wanted


def test_a_server_that_sends_without_end_is_no_list_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlrows, "MOST_ROWS", 1000)

    def rows() -> object:
        while True:
            yield b"joe", b"example.org", 0, b"/d/joe"

    with pytest.raises(Trouble, match="more than 1000 rows"):
        Snapshot().take_users(b"vpopmail", rows(), domains=True)  # type: ignore[arg-type]
