"""Tables as they are kept between runs, and what the guard makes of two of them."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.publish import guard
from rcptgen.publish.guard import Change, Limits
from rcptgen.publish.packed import pack, unpack
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table

ACCEPT = Outcome(Verdict.DELIVER, Kind.MAILBOX, "maildir", b"/home/joe/.qmail", 1)
REFUSE = Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "no dot-qmail file for this name")
OUTCOMES = [
    ACCEPT,
    REFUSE,
    Outcome(Verdict.DELIVER, Kind.MAILBOX, "mbox", b"/home/ann/.qmail-", named_from=0),
    Outcome(Verdict.DEFER, Kind.DEFERRAL, "sticky"),
    Outcome(Verdict.BOUNCE, Kind.REFUSAL, "bouncesaying"),
]

names = st.text("ab-\n", max_size=4).map(str.encode)
rules = st.dictionaries(names, st.sampled_from(OUTCOMES), max_size=10)
tables = st.builds(Table, rules, rules.map(lambda d: {n: o for n, o in d.items() if o.named_from < 0}))


def accepts(table: Table, name: bytes) -> bool:
    found = table.match(name)
    return found is not None and found.accepted


def around(*given_tables: Table) -> list[bytes]:
    """Names at and beside every rule."""
    known = {rule.name for table in given_tables for rule in table.rules()} | {b""}
    return [name + tail for name in sorted(known) for tail in (b"", b"a", b"-", b"zz")]


# --- packed ------------------------------------------------------------------------------------


@given(tables)
def test_unpacked_it_accepts_the_same_and_knows_the_kinds(table: Table) -> None:
    again = unpack(pack(table))
    assert len(again) == len(table)
    for name in around(table):
        before, after = table.match(name), again.match(name)
        assert (before is None) == (after is None)
        if before and after:
            assert (before.accepted, before.kind) == (after.accepted, after.kind)
    assert pack(again) == pack(table)


@given(rules, rules, st.randoms(use_true_random=False))
def test_equal_rules_give_equal_bytes(
    exact: dict[bytes, Outcome], prefixes: dict[bytes, Outcome], chance: random.Random
) -> None:
    def shuffled(given_rules: dict[bytes, Outcome]) -> dict[bytes, Outcome]:
        items = list(given_rules.items())
        chance.shuffle(items)
        return dict(items)

    assert pack(Table(shuffled(exact), shuffled(prefixes))) == pack(Table(exact, prefixes))


def test_where_a_rule_came_from_is_not_kept() -> None:
    elsewhere = Outcome(Verdict.DELIVER, Kind.MAILBOX, "mbox", b"/home/ann/.qmail", 7)
    assert pack(Table({b"a": ACCEPT, b"b": elsewhere}, {})) == pack(Table({b"a": elsewhere, b"b": ACCEPT}, {}))
    assert pack(Table({b"a": ACCEPT}, {})) != pack(Table({b"a": REFUSE}, {}))
    assert pack(Table({b"a": ACCEPT}, {})) != pack(Table({}, {b"a": ACCEPT}))


@given(st.binary(max_size=40))
def test_other_bytes_are_a_value_error_or_a_table(data: bytes) -> None:
    try:
        assert len(unpack(data)) >= 0
    except ValueError:
        pass


@pytest.mark.parametrize(
    "data", [b"", b"x", msgspec.msgpack.encode(([], [], [])), msgspec.msgpack.encode(([(True, "none", None, [])], []))]
)
def test_bytes_that_pack_did_not_make_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a packed table|is not a valid Kind"):
        unpack(data)


# --- the guard ---------------------------------------------------------------------------------


@given(tables, tables)
def test_a_union_accepts_what_either_accepts(new: Table, old: Table) -> None:
    both = guard.union(new, old)
    for name in around(new, old):
        assert accepts(both, name) == (accepts(new, name) or accepts(old, name))


@given(tables, tables)
def test_a_closed_domain_takes_all_but_the_new_catch_all(new: Table, old: Table) -> None:
    closed = guard.closed(new, old)
    shut = Table({n: o.at(n) for n, o in new.exact()}, {n: o for n, o in new.prefixes.items() if n})
    for name in around(new, old):
        assert accepts(closed, name) == (accepts(shut, name) or accepts(old, name))


@given(tables)
def test_nothing_changes_between_equal_tables(table: Table) -> None:
    count = sum(rule.outcome.accepted for rule in table.rules())
    assert guard.accepted_rules(table) == count
    base = table.prefixes.get(b"")
    whole = base is not None and base.accepted
    assert guard.compare(table, table) == Change(count, count, 0, 0, (), False, whole)
    assert guard.compare(table, unpack(pack(table))) == Change(count, count, 0, 0, (), False, whole)


@given(tables, tables)
def test_gains_are_the_losses_of_the_way_back(old: Table, new: Table) -> None:
    there, back = guard.compare(old, new), guard.compare(new, old)
    assert (there.gained, there.lost, there.before, there.after) == (back.lost, back.gained, back.after, back.before)
    assert len(there.sample) == min(there.lost, guard.SAMPLE)
    for text in there.sample:
        name = text.removesuffix(b"*")
        assert accepts(old, name) or text != name
    assert not guard.compare(old, guard.union(new, old)).lost


def test_a_name_that_a_wildcard_still_covers_is_not_lost() -> None:
    old = Table({b"joe-a": ACCEPT, b"ann": ACCEPT}, {b"": REFUSE})
    new = Table({}, {b"": REFUSE, b"joe-": ACCEPT})
    assert guard.compare(old, new) == Change(2, 1, 1, 1, (b"ann",), False)
    assert guard.compare(new, old) == Change(1, 2, 1, 1, (b"joe-*",), False)


def test_a_new_catch_all_opens_a_domain_once() -> None:
    shut, opened = Table({b"a": ACCEPT}, {b"": REFUSE}), Table({}, {b"": ACCEPT})
    assert guard.compare(shut, opened).opens
    assert not guard.compare(opened, opened).opens
    assert not guard.compare(opened, shut).opens
    assert guard.compare(Table({}, {}), opened).opens


@pytest.mark.parametrize(
    ("before", "lost", "after", "why"),
    [
        (10, 6, 4, "6 of 10 names would go"),
        (10, 5, 5, ""),
        (8, 4, 4, ""),
        (5, 5, 0, "emptied: all of its 5 names would go"),
        (3, 3, 0, "emptied: all of its 3 names would go"),
        (2, 2, 0, ""),
        (4, 3, 1, ""),
        (0, 0, 0, ""),
    ],
)
def test_what_is_suspicious(before: int, lost: int, after: int, why: str) -> None:
    assert Change(before, after, 0, lost, (), False).suspicious(Limits()) == why


@given(tables, tables)
def test_both_accepts_what_either_would_accept_as_well(one: Table, other: Table) -> None:
    found = guard.both(one, other)
    for name in around(one, other):
        assert accepts(found, name) == (accepts(one, name) and accepts(other, name)), name


@given(tables, tables)
def test_union_tells_what_the_new_table_says_first(new: Table, old: Table) -> None:
    """The kinds are those of the new table where that accepts, else of the old one."""
    found = guard.union(new, old)
    for rule in found.rules():
        if rule.prefix:
            continue
        told = found.match(rule.name)
        mine, theirs = new.match(rule.name), old.match(rule.name)
        assert told in (mine, theirs)
        if new.exactly(rule.name) is not None and accepts(new, rule.name):
            assert told == mine
    assert pack(guard.union(new, new)) == pack(new)
