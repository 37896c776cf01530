"""validrcptto.cdb: what is written, against the look-up of the patched qmail-smtpd.c done by hand.

The look-up (a dictionary stands for the cdb): the address in lower case; then, cutting the
local part at each break character from the right, LEFT-default@domain; then @domain.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.errors import ConfigurationError, UsageTrouble
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table
from rcptgen.targets import target, target_names
from rcptgen.targets.base import Answer, Line, Lowered, Unsayable, Widened, rule_text
from rcptgen.targets.validrcptto import Validrcptto
from rcptgen.targets.witness import Proof, Wrong

ACCEPT = Outcome(Verdict.DELIVER, Kind.MAILBOX, "maildir", b"/home/joe/.qmail", 1)
NAMED = Outcome(Verdict.DELIVER, Kind.FORWARD, "forwards", b"/home/joe/.qmail-", 2, named_from=0)
DEFER = Outcome(Verdict.DEFER, Kind.DEFERRAL, "the file is writable", b"/home/ann/.qmail")
REFUSE = Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "no dot-qmail file for this name", b"/home/joe/.qmail-default")
WIDE = Outcome(Verdict.DELIVER, Kind.UNKNOWN, "accepted as a whole", b"/home/joe", widened=True)
DOMAIN = b"example"

Record = tuple[bytes, bytes]
BREAKS = [b"-", b"+", b""]

parts = st.sampled_from(["a", "b", "default", "-", "-", "-default", "+", "+default", ".", "@"])
names = st.lists(parts, max_size=5).map("".join).map(str.encode)
outcomes = st.sampled_from([ACCEPT, NAMED, DEFER, REFUSE, REFUSE, REFUSE])
prefix_outcomes = st.sampled_from([ACCEPT, DEFER, REFUSE, REFUSE])
ends = st.sampled_from([b"", b"", b"-", b"-", b"+"])
prefixes = st.one_of(st.just(b""), st.builds(lambda name, end: name + end, names, ends))
tables = st.builds(
    Table,
    st.dictionaries(st.one_of(names, st.just(b"")), outcomes, max_size=7),
    st.dictionaries(prefixes, prefix_outcomes, max_size=5),
)
wide_tables = st.builds(
    Table,
    st.dictionaries(names, st.sampled_from([ACCEPT, REFUSE, WIDE]), max_size=5),
    st.dictionaries(prefixes, st.sampled_from([ACCEPT, REFUSE, WIDE]), max_size=4),
)


def look_up(records: dict[bytes, bytes], address: bytes, break_: bytes) -> Answer:
    address = address.lower()
    if address in records:
        return Answer(not records[address].startswith(b"-"), address)
    local, at, domain = address.rpartition(b"@")
    if not at:
        return Answer(False, None)
    for cut in range(len(local), 0, -1):
        if break_ and local[cut - 1 : cut] == break_:
            key = local[:cut] + b"default@" + domain
            if key in records:
                return Answer(not records[key].startswith(b"-"), key)
    key = b"@" + domain
    if key in records:
        return Answer(not records[key].startswith(b"-"), key)
    return Answer(False, None)


@dataclass
class Low(Lowered):
    """With its records in a list, to be looked at more than once."""

    records: list[Record] = field(default_factory=list)


def lowered(table: Table, break_: bytes = b"-") -> Low:
    low = Validrcptto(break_).lower(DOMAIN, table)
    records = [(key, value) for keys, value in low.batches for key in keys]
    return Low((), low.widened, low.unsayable, low.exact, low.wildcards, low.refusals, records=records)


def accepts(table: Table, name: bytes) -> bool:
    found = table.match(name)
    return found is not None and found.accepted


def witnesses(table: Table) -> list[bytes]:
    """Names at, above, beside and below every rule, the empty one left out."""
    known = {rule.name for rule in table.rules()}
    known |= {name[:end] for name in known for end in range(len(name))}
    tails = (b"", b"z", b"-", b"-z", b"z-z", b"-default", b"default", b"+z", b"a", b"-a-z")
    return sorted({name + tail for name in known | {b""} for tail in tails} - {b""})


def widened_keys(low: Lowered) -> set[bytes]:
    return {one.key for one in low.widened}


# --- the reader --------------------------------------------------------------------------------


def written(where: Path, records: list[Record]) -> bytes:
    path = os.fsencode(where / "validrcptto.cdb")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        writer = Validrcptto().writer(fd)
        for key, value in records:
            writer.put([key], value)
        assert writer.finish() == len(records)
    finally:
        os.close(fd)
    return path


keys = st.one_of(
    st.builds(lambda name, domain: name + b"@" + domain, names, st.sampled_from([b"example", b"b.example", b""])),
    names,
)


@pytest.mark.parametrize("break_", BREAKS)
@hypothesis.settings(max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@given(
    records=st.dictionaries(keys, st.sampled_from([b"", b"1", b"-", b"-no", b"OK-"]), max_size=8),
    asked=st.lists(keys, min_size=1, max_size=12),
)
def test_the_reader_looks_up_as_the_patch_does(
    tmp_path: Path, break_: bytes, records: dict[bytes, bytes], asked: list[bytes]
) -> None:
    reader = Validrcptto(break_).open(written(tmp_path, sorted(records.items())))
    try:
        for address in [*asked, *records, *(one.upper() for one in asked)]:
            assert reader.answer(address) == look_up(records, address, break_)
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("address", "accepted", "key"),
    [
        ("joe@example", True, "joe@example"),
        ("JOE@EXAMPLE", True, "joe@example"),
        ("joe-list-@example", True, "joe-list-default@example"),
        ("joe-list-a-b@example", True, "joe-list-default@example"),
        ("joe-list@example", False, "joe-default@example"),
        ("joe-list-no@example", False, "joe-list-no@example"),
        ("ann@example", False, None),
        ("ann@shop.example", True, "@shop.example"),
        ("a@b@shop.example", True, "@shop.example"),
        ("@shop.example", True, "@shop.example"),
        ("postmaster", True, "postmaster"),
        ("ann", False, None),
        ("default@example", False, None),
        ("", False, None),
    ],
)
def test_the_first_key_that_exists_decides(tmp_path: Path, address: str, accepted: bool, key: str | None) -> None:
    records = [
        (b"@shop.example", b"1"),
        (b"joe-default@example", b"-"),
        (b"joe-list-default@example", b"1"),
        (b"joe-list-no@example", b"-"),
        (b"joe@example", b""),
        (b"postmaster", b"1"),
    ]
    reader = target("validrcptto").open(written(tmp_path, records))
    try:
        assert reader.answer(address.encode()) == Answer(accepted, None if key is None else key.encode())
        assert list(reader.lines()) == [
            Line(b"shop.example", b"", True, True),
            Line(b"example", b"joe-", True, False),
            Line(b"example", b"joe-list-", True, True),
            Line(b"example", b"joe-list-no", False, False),
            Line(b"example", b"joe", False, True),
            Line(None, b"postmaster", False, True),
        ]
        texts = [line.text for line in reader.lines()]
        assert texts[:3] == [b"*@shop.example", b"!joe-*@example", b"joe-list-*@example"]
    finally:
        reader.close()


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"joe@example\n")
    with pytest.raises(UsageTrouble, match="not a cdb"):
        target("validrcptto").open(os.fsencode(tmp_path / "text"))
    with pytest.raises(UsageTrouble, match="No such file"):
        target("validrcptto").open(os.fsencode(tmp_path / "absent"))


def test_an_unknown_target_names_the_known_ones() -> None:
    assert "validrcptto" in target_names()
    with pytest.raises(ConfigurationError, match="'qmail'; known are csv, db_load, "):
        target("qmail")


# --- lowering: what must always hold -----------------------------------------------------------


@pytest.mark.parametrize("break_", BREAKS)
@hypothesis.settings(max_examples=250)
@given(table=tables)
def test_nothing_is_refused_wrongly_and_every_false_acceptance_is_named(break_: bytes, table: Table) -> None:
    low = lowered(table, break_)
    records = dict(low.records)
    reported = widened_keys(low)
    for name in witnesses(table):
        answer = look_up(records, name + b"@" + DOMAIN, break_)
        if accepts(table, name):
            assert answer.accepted, name
        elif answer.accepted:
            assert answer.key in reported, name


@pytest.mark.parametrize("break_", BREAKS)
@hypothesis.settings(max_examples=250)
@given(table=tables)
def test_keys_are_sorted_and_single_and_values_are_never_empty(break_: bytes, table: Table) -> None:
    low = lowered(table, break_)
    written_keys = [key for key, _ in low.records]
    assert written_keys == sorted(set(written_keys))
    assert {value for _, value in low.records} <= {b"1", b"-"}
    assert low.exact + low.wildcards + low.refusals == len(low.records)
    assert low.refusals == sum(value == b"-" for _, value in low.records)
    assert all(key.endswith(b"@" + DOMAIN) for key in written_keys)


@pytest.mark.parametrize("break_", BREAKS)
@hypothesis.settings(max_examples=250)
@given(table=tables)
def test_no_key_is_widened_that_need_not_be(break_: bytes, table: Table) -> None:
    """Refusing what a widened key answers would refuse an accepted name."""
    low = lowered(table, break_)
    records = dict(low.records)
    accepted = [name for name in witnesses(table) if accepts(table, name)]
    for one in low.widened:
        assert records.get(one.key) == b"1", one
        flipped = {**records, one.key: b"-"}
        broken = [name for name in accepted if not look_up(flipped, name + b"@" + DOMAIN, break_).accepted]
        assert broken, one


@pytest.mark.parametrize("break_", BREAKS)
@hypothesis.settings(max_examples=250)
@given(table=tables)
def test_a_widened_rule_really_lets_something_in(break_: bytes, table: Table) -> None:
    low = lowered(table, break_)
    records = dict(low.records)
    let_in = {
        answer.key
        for name in witnesses(table)
        if not accepts(table, name) and (answer := look_up(records, name + b"@" + DOMAIN, break_)).accepted
    }
    assert widened_keys(low) <= let_in


@pytest.mark.parametrize("break_", BREAKS)
@hypothesis.settings(max_examples=200)
@given(table=tables)
def test_refusals_stand_only_where_they_hide_an_acceptance(break_: bytes, table: Table) -> None:
    low = lowered(table, break_)
    records = dict(low.records)
    for key, value in low.records:
        if value == b"-":
            without = {other: said for other, said in records.items() if other != key}
            assert look_up(without, key, break_).accepted, key
            local = key.removesuffix(b"@" + DOMAIN)
            if break_ and local.endswith(break_ + b"default"):
                prefix = local.removesuffix(b"default")
                covering = table.covering(prefix)
                assert covering is None or not covering[1].accepted, key


@pytest.mark.parametrize("break_", BREAKS)
@hypothesis.settings(max_examples=200)
@given(table=tables)
def test_the_empty_local_part_never_writes_the_key_of_the_domain(break_: bytes, table: Table) -> None:
    without = Table({n: o.at(n) for n, o in table.exact() if n}, table.prefixes)
    low, other = lowered(table, break_), lowered(without, break_)
    assert low.records == other.records
    empty = table.exactly(b"")
    if empty is not None and empty.accepted != look_up(dict(low.records), b"@" + DOMAIN, break_).accepted:
        found = empty.at(b"")
        rule = b"@example" if empty.accepted else b"!@example"
        reason = "the key of the empty local part is the key of the whole domain"
        assert low.unsayable == [Unsayable(rule, reason, found.file, found.line)]
    else:
        assert low.unsayable == []


@hypothesis.settings(max_examples=200)
@given(table=wide_tables)
def test_rules_that_are_wide_themselves_are_named(table: Table) -> None:
    """`widened` outcomes: some names below the rule bounce, and only whoever made the rule knows which."""
    low = lowered(table)
    records = dict(low.records)
    for rule in table.rules():
        if rule.outcome is WIDE and (rule.name or rule.prefix):
            text = rule_text(rule.name, rule.prefix, rule.outcome, DOMAIN)
            reports = [one for one in low.widened if one.rule == text]
            assert reports, rule
            assert all(records.get(one.key) == b"1" for one in reports), rule


@hypothesis.settings(max_examples=150)
@given(table=tables)
def test_a_proof_finds_the_same_as_the_look_up(table: Table) -> None:
    low = lowered(table)
    records = dict(low.records)

    class Reader:
        def answer(self, address: bytes) -> Answer:
            return look_up(records, address, b"-")

        def answers(self, addresses: Sequence[bytes]) -> Iterator[Answer]:
            return map(self.answer, addresses)

        def lines(self) -> Iterator[Line]:
            return iter(())

        def close(self) -> None:
            return None

    proof = Proof(full=True)
    proof.add(DOMAIN, table)
    refused, accepted = proof.check(Reader())
    assert refused == []
    assert {one.key for one in accepted} <= widened_keys(low)
    first = next((address for address in records if records[address] == b"1" and not address.startswith(b"@")), None)
    if first is not None and accepts(table, first.removesuffix(b"@example")):
        records[first] = b"-"
        assert Wrong(first, False, first) in proof.check(Reader())[0]


# --- lowering: cases to read -------------------------------------------------------------------

RULES = {"!": REFUSE, "": ACCEPT}


def table_of(*texts: str) -> Table:
    """`user`, `prefix*` and `*` are accepted, with `!` in front refused."""
    exact: dict[bytes, Outcome] = {}
    found: dict[bytes, Outcome] = {}
    for text in texts:
        name = text.removeprefix("!")
        outcome = REFUSE if text != name else ACCEPT
        (found if name.endswith("*") else exact)[name.removesuffix("*").encode()] = outcome
    return Table(exact, found)


@pytest.mark.parametrize(
    ("rules", "records", "widened"),
    [
        ("joe ann !*", "ann@ joe@", ""),
        ("joe !joe-* joe-list-* !*", "joe-list-default@ joe@", ""),
        ("joe * !joe-* joe-list !ann", "!ann@ !joe-default@ @ joe-list@ joe@", ""),
        ("!joe !joe-*", "", ""),
        # A catch-all, and the mailbox news-default is locked: its key would refuse all of news-*.
        ("* !news-default", "@", "@: !news-default"),
        ("news-* !news-default !*", "news-default@", "news-default@: !news-default"),
        # Accepting the name accepts the prefix.
        ("news-default !*", "news-default@", "news-default@: news-default"),
        ("news-default news-* !*", "news-default@", ""),
        ("news-default !news-* *", "@ news-default@", "news-default@: news-default"),
        ("news-default !news-a !*", "!news-a@ news-default@", "news-default@: news-default"),
        # A prefix that does not end at a break character.
        ("foo* !*", "@", "@: foo*"),
        ("joe-foo* !*", "joe-default@", "joe-default@: joe-foo*"),
        ("joe-foo* joe-* !*", "joe-default@", ""),
        ("foo* !bar-* !*", "!bar-default@ @", "@: foo*"),
        ("joe-foo* bar* !*", "@", "@: bar* @: joe-foo*"),
        ("* !joe-foo*", "@", "@: !joe-foo*"),
        ("* !joe-* !joe-foo*", "!joe-default@ @", ""),
        ("default !*", "default@", ""),
        ("", "", ""),
    ],
)
def test_what_is_written(rules: str, records: str, widened: str) -> None:
    low = lowered(table_of(*rules.split()))
    text = sorted(("!" if value == b"-" else "") + key.decode().removesuffix("example") for key, value in low.records)
    assert text == sorted(records.split())
    names_ = sorted(f"{one.key.decode().removesuffix('example')}: {one.rule.decode()[:-8]}" for one in low.widened)
    assert " ".join(names_) == widened


def test_a_report_names_file_and_line() -> None:
    low = lowered(Table({b"news-default": NAMED}, {}))
    reason = "a name that ends in -default has the key of its prefix"
    assert low.widened == [
        Widened(b"news-default@example", b"news-default@example", reason, b"/home/joe/.qmail-news-default", 2)
    ]


def test_another_break_character() -> None:
    table = table_of("joe+*", "!*", "ann-*")
    low = lowered(table, b"+")
    assert [key for key, _ in low.records] == [b"@example", b"joe+default@example"]
    assert widened_keys(low) == {b"@example"}
    assert [key for key, _ in lowered(table, b"").records] == [b"@example"]


def test_addresses_without_a_domain_are_looked_up_whole() -> None:
    assert Validrcptto().bare([b"postmaster", b"joe"]) == ([b"joe", b"postmaster"], b"1")
