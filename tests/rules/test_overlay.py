"""Lists of rules: their grammar, their lines, and laying rules over others."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.rules import numbered
from rcptgen.rules.names import Names
from rcptgen.rules.numbered import Numbered, Numbering
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.overlay import BOM, EVERYWHERE, Collector, Listing, Rule, laid, lines, parse, rule
from rcptgen.rules.table import Table

# --- The grammar -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"Joe@A.Example", Rule(b"joe", False, b"a.example")),
        (b"list-*@a.example", Rule(b"list-", True, b"a.example")),
        (b"*@a.example", Rule(b"", True, b"a.example")),
        (b"a@b@a.example", Rule(b"a@b", False, b"a.example")),
        (b"joe blow@a.example", Rule(b"joe blow", False, b"a.example")),
        (b'"joe"@a.example', Rule(b'"joe"', False, b"a.example")),
        (b"\xff\x01@a.example", Rule(b"\xff\x01", False, b"a.example")),
        (b"joe@[127.0.0.1]", Rule(b"joe", False, b"[127.0.0.1]")),
        (b"SRS0=*", Rule(b"srs0=", True, EVERYWHERE)),
        (b"prvs=*", Rule(b"prvs=", True, EVERYWHERE)),
        (b"postmaster", Rule(b"postmaster", False, EVERYWHERE)),
        (b"a.b+c", Rule(b"a.b+c", False, EVERYWHERE)),
    ],
)
def test_rules(text: bytes, wanted: Rule) -> None:
    assert rule(text) == wanted


WRONG = [
    *(b"", b"*", b"@", b"@a.example", b"joe@", b"a*b@a.example", b"**@a.example", b"*a@a.example", b"joe@*.example"),
    *(
        b"joe@a example",
        b"joe@a\texample",
        b"joe blow",
        b"root:x:0:0",
        b"\xff",
        b"a/b c",
        b"joe\0@a.example",
        b"a\nb@c",
    ),
    *(b"joe@a.example # gone", b"x" * 1001, b"x" * 1000 + b"@a.example"),
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_rule(text: bytes) -> None:
    with pytest.raises(ValueError, match="not user@domain"):
        rule(text)


@pytest.mark.parametrize("text", [b"postmaster", b"srs0=*"])
def test_where_a_rule_has_a_domain(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"not user@domain, prefix\*@domain or \*@domain$"):
        rule(text, patterns=False)


@given(st.binary(max_size=20))
def test_any_bytes_are_a_rule_or_not(text: bytes) -> None:
    try:
        found = rule(text)
    except ValueError:
        return
    stated = found.name + (b"*" if found.prefix else b"")
    assert stated + (b"@" + found.domain if found.domain else b"") == text.lower()
    assert found.domain or found.name


# --- Files -----------------------------------------------------------------------------------------


def test_a_file() -> None:
    data = BOM + b"# comment\r\n\n joe@a.example \r\n\tAnn@a.example\nsrs0=*\njoe@a.example\n  # more\nx-*@b.example\n"
    found = parse(data, Collector(), patterns=True)
    assert (found.problem, found.rules, found.comments, found.is_blank) == ("", 5, True, False)
    mine = found.parts[b"a.example"]
    assert list(mine.accepted.names) == [b"ann", b"joe"]
    assert [mine.accepted.line(name) for name in (b"ann", b"joe", b"tom")] == [4, 3, 0]
    assert found.parts[EVERYWHERE].prefixes == {b"srs0=": (True, 5)}
    assert found.parts[b"b.example"].prefixes == {b"x-": (True, 8)}


def test_what_is_wrong_is_the_first_line_and_how_many_more() -> None:
    found = parse(b"joe@a.example\nno rule\nann@a.example\n*\n", Collector(), patterns=True)
    assert (found.problem_line, found.problem[-19:]) == (2, " (and 1 more lines)")


def test_domains_that_nobody_wants_are_counted() -> None:
    data = b"joe@a.example\nx@b.example\ny@b.example\n*@c.example\n"
    found = parse(data, Collector(lambda domain: domain == b"a.example"), patterns=True)
    assert list(found.parts) == [b"a.example"]
    assert (found.strange.count, found.strange.domains) == (3, {b"b.example": (2, 2), b"c.example": (1, 4)})
    assert found.rules == 4


@pytest.mark.parametrize("data", [b"", b"\n", b" \r\n\t\n", BOM])
def test_a_blank_file(data: bytes) -> None:
    assert parse(data, Collector(), patterns=True).is_blank
    assert not parse(data + b"\n# meant\n", Collector(), patterns=True).is_blank


@given(st.binary(max_size=60), st.integers(1, 8))
def test_lines_are_those_of_the_file(data: bytes, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rcptgen.rules.overlay._CHUNK", size)
        found = list(lines(data))
    wanted = data.removeprefix(BOM).split(b"\n")
    assert found == list(enumerate(wanted[:-1] if not wanted[-1] else wanted, 1))


words = st.lists(st.text("ab-", min_size=1, max_size=4).map(str.encode), max_size=40)


@given(words, st.integers(1, 5), st.integers(1, 4))
def test_every_name_knows_its_first_line(names: list[bytes], stretch: int, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbered, "STRETCH", stretch)
        patch.setattr(numbered, "BLOCK", block)
        taken = Numbering()
        for line, name in enumerate(names, 1):
            taken.add(name, line)
        found = taken.done()
    assert list(found.names) == sorted(set(names))
    assert len(found) == len(set(names))
    for name in [*names, b"", b"a", b"b-b", b"c"]:
        assert found.line(name) == (names.index(name) + 1 if name in names else 0)


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed(data: bytes) -> None:
    found = parse(data, Collector(), patterns=True)
    assert isinstance(found, Listing)
    assert found.is_blank == (not found.rules and not found.comments)


# --- Outcomes with lines ---------------------------------------------------------------------------


def listed() -> Outcome:
    taken = Numbering()
    for line, name in enumerate([b"joe", b"ann"], 1):
        taken.add(name, line)
    return Outcome(Verdict.DELIVER, Kind.RELAY, "listed", b"/etc/list", lines=taken.done())


def test_each_name_has_its_own_line() -> None:
    outcome = listed()
    assert outcome.at(b"ann") == Outcome(Verdict.DELIVER, Kind.RELAY, "listed", b"/etc/list", 2)
    assert outcome.at(b"tom").line == 0
    assert outcome.accepted


@pytest.mark.parametrize("moved", [lambda one: one.below(b"j"), lambda one: one.under(3)])
def test_names_that_are_moved_have_no_lines(moved: Callable[[Outcome], Outcome]) -> None:
    assert moved(listed()) == Outcome(Verdict.DELIVER, Kind.RELAY, "listed", b"/etc/list")


# --- Laying over -----------------------------------------------------------------------------------

ACCEPT = Outcome(Verdict.DELIVER, Kind.MAILBOX, "maildir", b"/home/joe/.qmail-", named_from=0)
REFUSE = Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "no dot-qmail file for this name")
FORCED = Outcome(Verdict.DELIVER, Kind.UNKNOWN, "forced")
BARRED = Outcome(Verdict.BOUNCE, Kind.REFUSAL, "barred")
spelled = st.text("ab-", max_size=4).map(str.encode)


def tables(*outcomes: Outcome) -> st.SearchStrategy[Table]:
    some = st.dictionaries(spelled, st.sampled_from(outcomes), max_size=6)
    return st.builds(Table, some, some)


@given(tables(ACCEPT, REFUSE), tables(FORCED, BARRED, REFUSE), st.lists(spelled))
def test_what_is_laid_over_decides(under: Table, over: Table, asked: list[bytes]) -> None:
    found = laid(under, over)
    known = [one.name for table in (under, over) for one in table.rules()]
    for name in {*asked, *known, *(name + b"b" for name in known)}:
        upper = over.match(name)
        assert found.match(name) == (under.match(name) if upper is None else upper)


def test_a_million_names_are_laid_over_without_being_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    many = Names(b"user%06d" % number for number in range(100_000))
    under = Table.of_groups({ACCEPT: many}, {b"": REFUSE})
    monkeypatch.setattr(Names, "__iter__", lambda self: pytest.fail("taken apart") if self is many else iter(()))
    found = laid(under, Table({}, {b"srs0=": FORCED}))
    assert found.groups[ACCEPT] is many


def test_no_names() -> None:
    assert (len(Numbered(Names(()))), Numbered(Names(())).line(b"")) == (0, 0)


ordinary = st.text("abAB#-.@* \r", max_size=8).map(str.encode)


@given(st.lists(ordinary, max_size=6))
def test_the_fast_way_says_what_the_slow_one_does(some: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in some)
    fast = parse(data, Collector(), patterns=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rcptgen.rules.overlay._ORDINARY", re.compile(b"(?!)"))
        slow = parse(data, Collector(), patterns=False)
    assert _said(fast) == _said(slow)


def _said(found: Listing) -> tuple[object, ...]:
    parts = {
        domain: ([(name, part.accepted.line(name)) for name in part.accepted.names], part.prefixes)
        for domain, part in found.parts.items()
    }
    return parts, found.rules, found.comments, found.problem, found.problem_line


def test_a_long_list_costs_its_bytes() -> None:
    """Beside the names themselves, and twice: as they are sorted, and as they are kept."""
    data = b"".join(
        b"user.number%08d@far%d.example\n" % (number * 7919 % 100_000_007, number % 3) for number in range(60_000)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rcptgen.rules.overlay.WAITING", 5000)
        patch.setattr(numbered, "STRETCH", 2000)
        patch.setattr("rcptgen.rules.overlay._CHUNK", 1 << 16)
        patch.setattr("rcptgen.rules.names.STRETCH", 2000)
        tracemalloc.start()
        try:
            found = parse(data, Collector(), patterns=False)
            kept, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert sum(len(part.accepted) for part in found.parts.values()) == 60_000
    assert kept < len(data)
    assert most < 3 * len(data)
