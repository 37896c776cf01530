"""Tables against the simplest thing that could work: a dictionary, and the longest prefix that fits."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Rule, Table, combine

OUTCOMES = [
    Outcome(Verdict.DELIVER, Kind.MAILBOX, "maildir", b"/home/joe/.qmail", 1),
    Outcome(Verdict.DELIVER, Kind.FORWARD, "forwards", b"/home/joe/.qmail-", 2, named_from=0),
    Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "no dot-qmail file for this name", b"/home/joe/.qmail-default"),
    Outcome(Verdict.DEFER, Kind.DEFERRAL, "the file is writable", b"/home/joe/.qmail-a", named_from=1),
]
PLAIN = [one for one in OUTCOMES if one.named_from < 0]

names = st.text("ab-\n", max_size=5).map(str.encode)
exact_rules = st.dictionaries(names, st.sampled_from(OUTCOMES), max_size=12)
prefix_rules = st.dictionaries(names, st.sampled_from(PLAIN), max_size=12)
tables = st.builds(Table, exact_rules, prefix_rules)


def reference(exact: dict[bytes, Outcome], prefixes: dict[bytes, Outcome], name: bytes) -> Outcome | None:
    if name in exact:
        return exact[name].at(name)
    fitting = [prefix for prefix in prefixes if name.startswith(prefix)]
    return prefixes[max(fitting, key=len)] if fitting else None


@given(exact_rules, prefix_rules, st.lists(names))
def test_a_name_gets_its_exact_rule_or_else_the_longest_prefix(
    exact: dict[bytes, Outcome], prefixes: dict[bytes, Outcome], wanted: list[bytes]
) -> None:
    table = Table(exact, prefixes)
    for name in [*wanted, *exact, *prefixes]:
        assert table.match(name) == reference(exact, prefixes, name)
        assert table.exactly(name) == exact.get(name)
        fitting = [prefix for prefix in prefixes if name.startswith(prefix)]
        longest = max(fitting, key=len, default=None)
        assert table.covering(name) == (None if longest is None else (longest, prefixes[longest]))


@given(exact_rules, prefix_rules)
def test_every_rule_comes_back_in_order(exact: dict[bytes, Outcome], prefixes: dict[bytes, Outcome]) -> None:
    table = Table(exact, prefixes)
    assert len(table) == len(exact) + len(prefixes)
    assert dict(table.exact()) == exact
    wanted = [Rule(n, True, o) for n, o in prefixes.items()] + [Rule(n, False, o) for n, o in exact.items()]
    assert table.rules() == sorted(wanted, key=lambda rule: (rule.name, not rule.prefix))


@given(exact_rules, prefix_rules)
def test_groups_make_the_same_table(exact: dict[bytes, Outcome], prefixes: dict[bytes, Outcome]) -> None:
    table = Table(exact, prefixes)
    assert Table.of_groups(table.groups, prefixes).rules() == table.rules()


@given(tables, names, st.lists(names))
def test_restricted_to_a_prefix_it_answers_the_tails(table: Table, prefix: bytes, tails: list[bytes]) -> None:
    restricted = table.restrict(prefix)
    known = [rule.name[len(prefix) :] for rule in table.rules() if rule.name.startswith(prefix)]
    for tail in [b"", *tails, *known]:
        assert restricted.match(tail) == table.match(prefix + tail)


@given(tables, names, names, st.lists(names))
def test_restricting_twice_is_restricting_once(table: Table, one: bytes, two: bytes, tails: list[bytes]) -> None:
    for tail in [b"", *tails]:
        assert table.restrict(one).restrict(two).match(tail) == table.restrict(one + two).match(tail)


Choose = Callable[[Outcome | None, Outcome | None], Outcome | None]


def prefer_left(left: Outcome | None, right: Outcome | None) -> Outcome | None:
    return left or right


def prefer_accepted(left: Outcome | None, right: Outcome | None) -> Outcome | None:
    return left if left and left.accepted else right or left


@given(tables, tables, st.sampled_from([prefer_left, prefer_accepted]), st.lists(names))
def test_combined_tables_answer_name_by_name(left: Table, right: Table, choose: Choose, wanted: list[bytes]) -> None:
    both = combine(left, right, choose)
    known = [rule.name + tail for table in (left, right) for rule in table.rules() for tail in (b"", b"a", b"\n")]
    for name in [*wanted, *known]:
        assert both.match(name) == choose(left.match(name), right.match(name))


# --- Names -------------------------------------------------------------------------------------


@given(st.lists(names), names)
def test_names_are_a_sorted_set(given_names: list[bytes], asked: bytes) -> None:
    found = Names(given_names)
    wanted = set(given_names)
    assert len(found) == found.count == len(wanted)
    ordinary = sorted(name for name in wanted if b"\n" not in name)
    assert list(found) == ordinary + sorted(wanted - set(ordinary))
    assert (asked in found) == (asked in wanted)
    assert all(name in found for name in wanted)
    begins = [name for name in found if name.startswith(asked)]
    assert list(found.beginning_with(asked)) == begins


@pytest.mark.parametrize(
    ("held", "joined", "odd"),
    [
        ([], None, ()),
        ([b""], b"", ()),
        ([b"", b"a"], b"\na", ()),
        ([b"b", b"a", b"b"], b"a\nb", ()),
        ([b"\n"], None, (b"\n",)),
        ([b"a\nb", b"c"], b"c", (b"a\nb",)),
    ],
)
def test_names_keep_those_with_a_newline_apart(held: list[bytes], joined: bytes | None, odd: tuple[bytes, ...]) -> None:
    found = Names(held)
    assert (found.joined, found.odd) == (joined, odd)
    assert sorted(found.beginning_with(b"")) == sorted(set(held))
    assert (b"" in found) == (b"" in held)


def test_a_newline_in_a_question_never_finds_two_names() -> None:
    found = Names([b"a", b"b"])
    assert b"a\nb" not in found
    assert list(found.beginning_with(b"a\n")) == []


def test_a_million_names_cost_bytes_and_not_objects() -> None:
    count, size = 1_000_000, 12
    outcome = OUTCOMES[0]
    exact = {b"user-%07d" % number: outcome for number in range(count)}
    begun = time.process_time()
    tracemalloc.start()
    try:
        table = Table(exact, {})
        retained, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert retained <= count * (size + 40)
    assert len(table) == count
    assert len(table.restrict(b"user-09")) == count // 10
    assert b"user-0999999" in table.groups[outcome]
    assert b"user-1000000" not in table.groups[outcome]
    assert time.process_time() - begun < 30
