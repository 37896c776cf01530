"""What compare says of two tables, against a reading of it that shares nothing with it."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from applied import Applied, accepted, around
from hypothesis import example, given
from hypothesis import strategies as st

from rcptgen.publish.guard import accepted_rules
from rcptgen.publish.tally import unlike
from rcptgen.rules.change import Summary, What, summary
from rcptgen.rules.compare import changes
from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table

MAILBOX = Outcome(Verdict.DELIVER, Kind.MAILBOX, "maildir", b"/home/joe/.qmail", 1)
FORWARD = Outcome(Verdict.DELIVER, Kind.FORWARD, "forwards", b"/home/joe/.qmail-", 2, named_from=0)
CATCHALL = Outcome(Verdict.DELIVER, Kind.CATCHALL, "catch-all")
DEFERS = Outcome(Verdict.DEFER, Kind.DEFERRAL, "the home directory is writable", b"/home/joe")
LISTED = Outcome(Verdict.DELIVER, Kind.UNKNOWN, "in the list")
REFUSED = Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "no dot-qmail file for this name")
LOCKED = Outcome(Verdict.BOUNCE, Kind.REFUSAL, "locked")
ELSEWHERE = Outcome(Verdict.REMOTE, Kind.REMOTE, "remote")
OUTCOMES = [MAILBOX, FORWARD, CATCHALL, DEFERS, LISTED, REFUSED, LOCKED, ELSEWHERE]
PLAIN = [one for one in OUTCOMES if one.named_from < 0]

names = st.text("ab-\n", max_size=4).map(str.encode)
tables = st.builds(
    Table,
    st.dictionaries(names, st.sampled_from(OUTCOMES), max_size=8),
    st.dictionaries(names, st.sampled_from(PLAIN), max_size=8),
)


@given(tables, tables)
@example(Table({b"b": LOCKED}, {b"a": MAILBOX}), Table({}, {b"": MAILBOX}))
def test_applied_to_the_old_table_the_changes_give_the_new_one(old: Table, new: Table) -> None:
    applied = Applied(old, changes(old, new))
    for name in around(old, new):
        assert applied.accepts(name) == accepted(new.match(name)), name


@given(tables, tables)
def test_what_one_side_alone_accepts_is_told_or_stands_under_a_wildcard_that_is(old: Table, new: Table) -> None:
    found = list(changes(old, new))
    for name in around(old, new):
        before, after = accepted(old.match(name)), accepted(new.match(name))
        if before != after:
            what = What.LOST if before else What.GAINED
            told = [c for c in found if c.what is what and (name.startswith(c.name) if c.prefix else name == c.name)]
            assert told, name


@given(tables)
@example(Table({b"a%db" % n: MAILBOX for n in range(40)}, {b"a%d" % n: CATCHALL for n in range(0, 40, 2)}))
def test_a_table_that_is_all_new_or_all_gone_is_counted_without_a_comparison(table: Table) -> None:
    empty = Table({}, {})
    come, gone = summary(changes(empty, table)), summary(changes(table, empty))
    assert unlike(table) == come.count(What.GAINED)
    assert accepted_rules(table) == gone.count(What.LOST)
    assert not any((come.count(What.LOST), come.count(What.CHANGED), gone.count(What.GAINED), gone.count(What.CHANGED)))


@given(tables, tables)
def test_every_change_is_true(old: Table, new: Table) -> None:
    for change in changes(old, new):
        if change.prefix:
            before, after = old.covering(change.name), new.covering(change.name)
            assert (change.old, change.new) == (before and before[1], after and after[1])
        else:
            assert (change.old, change.new) == (old.match(change.name), new.match(change.name))
            assert not change.swallows
            assert not change.spares
        sides = (accepted(change.old), accepted(change.new))
        assert (
            sides
            == {
                What.GAINED: (False, True),
                What.LOST: (True, False),
                What.CHANGED: (True, True),
                What.HIDDEN: (False, False),
            }[change.what]
        )
        if change.hides is not None:
            hiding = old if change.what is What.GAINED else new
            assert hiding.prefixes[change.hides].accepted
            assert change.name.startswith(change.hides)
        if change.what is What.HIDDEN:
            assert change.hides is not None
        for name in change.swallows.names:
            assert accepted(old.exactly(name))
            assert not accepted(new.exactly(name))
        for name in [*change.swallows.names, *change.spares.names]:
            assert name.startswith(change.name)
            assert accepted(new.match(name))
        for name in change.spares.names:
            assert accepted(new.exactly(name))


def kind(outcome: Outcome) -> Kind | None:
    return None if outcome.kind is Kind.UNKNOWN else outcome.kind


@given(tables, tables)
def test_another_kind_is_told_unless_a_wildcard_that_changes_explains_it(old: Table, new: Table) -> None:
    applied = Applied(old, changes(old, new))
    for name in around(old, new):
        before, after = old.match(name), new.match(name)
        if before is None or after is None or not (before.accepted and after.accepted):
            continue
        if kind(before) is None or kind(after) is None or before.kind is after.kind:
            assert name not in applied.names
        else:
            assert name in applied.names or any(name.startswith(wildcard) for wildcard in applied.wildcards)


@given(tables)
def test_a_table_does_not_differ_from_itself(table: Table) -> None:
    assert list(changes(table, table)) == []
    spelled = Table(
        {name: table.match(name) or REFUSED for name in around(table)},
        {**{rule.name + b"a": (table.covering(rule.name + b"a") or (b"", REFUSED))[1] for rule in table.rules()}}
        | table.prefixes,
    )
    assert list(changes(table, spelled)) == []
    assert list(changes(spelled, table)) == []


@given(tables, tables)
def test_no_change_is_the_same_effect(old: Table, new: Table) -> None:
    same = all(accepted(old.match(name)) == accepted(new.match(name)) for name in around(old, new))
    found = summary(changes(old, new))
    if not same:
        assert found
    assert bool(found) == any(found.count(what) for what in What if what is not What.HIDDEN)


@given(tables, tables)
def test_the_order_is_wildcards_then_names(old: Table, new: Table) -> None:
    found = [change for change in changes(old, new) if b"\n" not in change.name]
    assert found == sorted(found, key=lambda change: (not change.prefix, change.name))


# --- what an administrator expects to read -------------------------------------------------------


def told(old: Table, new: Table) -> list[str]:
    """The changes, as short lines."""
    lines = []
    for change in changes(old, new):
        text = f"{change.what} {change.name.decode()}{'*' if change.prefix else ''}"
        if change.hides is not None:
            text += f" hides {change.hides.decode()}*"
        if change.swallows:
            text += f" swallows {len(change.swallows)}"
        if change.spares:
            text += f" spares {len(change.spares)}"
        lines.append(text)
    return lines


TEN_THOUSAND = {b"user%04d" % number: MAILBOX for number in range(10_000)}


def test_an_address_that_a_wildcard_still_covers_is_no_loss() -> None:
    old = Table({b"joe-a": LISTED, b"ann": LISTED}, {b"joe-": LISTED})
    assert told(old, Table({}, {b"joe-": LISTED})) == ["lost ann"]
    assert told(old, Table({b"ann": LISTED}, {b"joe-": LISTED})) == []


def test_it_is_a_change_in_kind_where_both_are_known() -> None:
    old, new = Table({b"joe": MAILBOX}, {b"": CATCHALL}), Table({}, {b"": CATCHALL})
    assert told(old, new) == ["changed joe"]
    assert told(old, Table({}, {b"": LISTED})) == []


def test_a_domain_that_became_a_catch_all_is_one_line() -> None:
    whole = Table({}, {b"": CATCHALL})
    refused = {b"": REFUSED, b"user00": REFUSED}
    assert told(Table(TEN_THOUSAND, refused), whole) == ["gained * swallows 10000"]
    assert told(Table(TEN_THOUSAND, refused), Table(TEN_THOUSAND, whole.prefixes)) == ["gained *"]
    assert told(Table({}, {}), Table(TEN_THOUSAND, whole.prefixes)) == ["gained * spares 10000"]


def test_a_catch_all_that_goes_names_what_is_lost_with_it() -> None:
    whole = {b"": CATCHALL}
    assert told(Table(TEN_THOUSAND, whole), Table(TEN_THOUSAND, {b"": REFUSED})) == ["lost *"]
    assert told(Table({}, whole), Table(TEN_THOUSAND, {})) == ["lost * spares 10000"]
    assert told(Table({b"ann": MAILBOX, b"joe": MAILBOX}, whole), Table({b"joe": MAILBOX}, {})) == [
        "lost *",
        "lost ann",
    ]


def test_a_refusal_that_hides_a_wildcard_is_named() -> None:
    whole, spam = {b"": CATCHALL}, {b"": CATCHALL, b"spam-": REFUSED}
    assert told(Table({}, whole), Table({b"ann": LOCKED}, whole)) == ["lost ann hides *"]
    assert told(Table({}, whole), Table({}, spam)) == ["lost spam-* hides *"]
    assert told(Table({}, {}), Table({b"ann": LOCKED}, spam)) == [
        "gained *",
        "hidden spam-* hides *",
        "hidden ann hides *",
    ]
    assert told(Table({b"ann": LOCKED}, spam), Table({}, whole)) == ["gained spam-* hides *", "gained ann hides *"]


def test_a_domain_that_is_relayed_now_is_one_line() -> None:
    relayed = Outcome(Verdict.DELIVER, Kind.RELAY, "relayed")
    assert told(Table(TEN_THOUSAND, {b"": CATCHALL}), Table({}, {b"": relayed})) == ["changed * swallows 10000"]


def test_an_exact_outcome_comes_with_its_file() -> None:
    (change,) = changes(Table({}, {}), Table({b"list": FORWARD}, {}))
    assert change.new is not None
    assert change.new.file == b"/home/joe/.qmail-list"


# --- summaries -----------------------------------------------------------------------------------


@given(tables, tables, tables)
def test_summaries_add_up(one: Table, two: Table, three: Table) -> None:
    first, second = list(changes(one, two)), list(changes(two, three))
    both = Summary()
    both.include(summary(first))
    both.include(summary(second))
    assert both == summary([*first, *second])
    for what in What:
        assert both.count(what) == sum(change.what is what for change in [*first, *second])
    assert sum(both.gained.values()) == both.count(What.GAINED)
    assert sum(both.lost.values()) == both.count(What.LOST)
    assert sum(both.changed.values()) == both.count(What.CHANGED)


def test_a_summary_counts_kinds_and_catch_alls() -> None:
    old = Table({b"ann": MAILBOX, b"joe": MAILBOX, b"joe-x": FORWARD}, {b"": REFUSED})
    new = Table({b"joe": FORWARD, b"bob": MAILBOX}, {b"": REFUSED, b"joe-": DEFERS})
    found = summary(changes(old, new))
    assert found.names == {What.LOST: 1, What.GAINED: 1, What.CHANGED: 1}
    assert found.wildcards == {What.GAINED: 1}
    assert found.gained == {Kind.MAILBOX: 1, Kind.DEFERRAL: 1}
    assert found.lost == {Kind.MAILBOX: 1}
    assert found.changed == {(Kind.MAILBOX, Kind.FORWARD): 1}
    assert (found.opened, found.closed) == (0, 0)
    whole = Table({}, {b"": CATCHALL})
    assert summary(changes(old, whole)).opened == summary(changes(whole, old)).closed == 1


# --- a million names -----------------------------------------------------------------------------


def test_what_is_equal_makes_no_objects() -> None:
    count = 1_000_000
    joined = b"\n".join(b"user-%07d" % number for number in range(count))
    more = joined + b"\nuser-%07d" % count
    forwards = Names([b"list-%04d" % number for number in range(1000)])
    old = Table.of_groups({MAILBOX: Names.of_sorted(joined), FORWARD: forwards}, {b"": REFUSED})
    same = Table.of_groups({CATCHALL: forwards, LISTED: Names.of_sorted(more)}, {})
    begun = time.process_time()
    tracemalloc.start()
    try:
        found = list(changes(old, same))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [(change.what, change.name) for change in found if change.what is What.GAINED] == [
        (What.GAINED, b"user-%07d" % count)
    ]
    assert len(found) == 1001
    assert peak < 6 * len(joined)
    assert time.process_time() - begun < 120


def test_a_table_of_very_many_groups_is_not_searched_for_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of as many homes, each with a file of its own: the local domain of a large host."""
    asked = 0
    contains = Names.__contains__

    def counted(names: Names, name: bytes) -> bool:
        nonlocal asked
        asked += 1
        return contains(names, name)

    monkeypatch.setattr(Names, "__contains__", counted)
    exact = {b"%04d" % n: MAILBOX._replace(file=b"/home/%04d" % n) for n in range(2000)}
    found = list(changes(Table({}, {}), Table(exact, {b"%04d-" % n: MAILBOX for n in range(100)})))
    assert len(found) == 2100
    assert asked <= 2 * len(found)
