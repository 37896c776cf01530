"""What holds for every target: nothing accepted is refused, every false acceptance is reported, nothing is injected."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import cdbx
import hypothesis
import pytest
from everytarget import (
    ACCEPT,
    DOMAINS,
    HOSTILE,
    LOSSLESS,
    REFUSE,
    VARIANTS,
    accepts,
    beside,
    called,
    compiled,
    tables,
)
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.errors import ConfigurationError, UsageTrouble
from rcptgen.rules.table import Table
from rcptgen.targets import target, target_names
from rcptgen.targets.extended import Extended
from rcptgen.targets.patterns import Patterns, escaped, meant
from rcptgen.targets.witness import Proof, Wrong, explained

every = pytest.mark.parametrize("variant", VARIANTS, ids=called)
rules_of = st.fixed_dictionaries(dict.fromkeys(DOMAINS, tables))
Variant = tuple[str, dict[str, Any]]


@every
@hypothesis.settings(max_examples=25)
@given(rules=rules_of)
def test_no_false_refusal_and_every_false_acceptance_is_reported(variant: Variant, rules: dict[bytes, Table]) -> None:
    name, options = variant
    with compiled(name, rules, options) as found:
        asked = [(local, domain) for domain in DOMAINS for local in beside(rules[domain])]
        answers = list(found.reader.answers([local + b"@" + domain for local, domain in asked]))
        let_in = []
        for (local, domain), answer in zip(asked, answers, strict=True):
            wanted = accepts(rules[domain], local)
            if domain in found.left_out or answer.accepted == wanted:
                continue
            if wanted:
                assert not found.target.sayable(local, domain), (local, domain)
            else:
                let_in.append(Wrong(local + b"@" + domain, True, answer.key, answer.step))
        assert explained(let_in, found.widened)[1] == []
        unsaid = [one for one in found.unsayable if not one.rule.startswith(b"!")]
        for one in unsaid:
            local, _, domain = one.rule.rpartition(b"@")
            assert not local or not found.target.sayable(local, domain), one


@every
@hypothesis.settings(max_examples=25)
@given(table=tables)
@hypothesis.example(table=Table({}, {b"a": ACCEPT, b"-a": ACCEPT}))
def test_what_is_reported_really_lets_something_in(variant: Variant, table: Table) -> None:
    name, options = variant
    with compiled(name, {DOMAINS[0]: table}, options) as found:
        asked = [local for local in beside(table) if not accepts(table, local)]
        answers = found.reader.answers([local + b"@" + DOMAINS[0] for local in asked])
        let_in = {key for answer in answers if answer.accepted for key in (answer.key, answer.step)}
        below: set[bytes | str] = {
            "the key of an open domain stands for the domains below it that have no key of their own"
        }
        if isinstance(found.target, Extended) and accepts(table, b"rcptgen-no-such-name"):
            return  # a domain that is open but for some: which key lets these in hangs on their extensions
        reported: set[Any] = {one.key or one.reason for one in found.widened} - below
        if name == "morevalidrcptto":  # what begins with - may be accepted by a prefix that is -, too
            reported = {key for key in reported if not key.startswith(b"-")}
        assert reported <= let_in or found.left_out


@every
@hypothesis.settings(max_examples=20)
@given(rules=rules_of)
def test_a_file_is_its_readers_own_and_says_the_same_again(variant: Variant, rules: dict[bytes, Table]) -> None:
    """The rules that the file states, as `dump` shows them, are no others than those it answers by."""
    name, options = variant
    if name == "dnset":
        return  # shows hashes
    with compiled(name, rules, options) as found:
        for line in found.reader.lines():
            assert line.domain in DOMAINS
            local = line.name + (b"rcptgen-no-such-name" if line.prefix else b"")
            if name == "morevalidrcptto" and (local.startswith(b"-") or line.name.startswith(b"-")):
                continue  # an address that begins with - looks like a refusal
            if name in ("rspamd-map", "opensmtpd") and line.prefix:
                local = b"rcptgen-no-such-name"
            answer = found.reader.answer(local + b"@" + line.domain)
            exactly_said = line.prefix or line.accepted or name in LOSSLESS
            assert answer.accepted == line.accepted or not exactly_said, line


@pytest.mark.parametrize("name", LOSSLESS)
@hypothesis.settings(max_examples=25)
@given(rules=rules_of)
def test_the_lossless_ones_answer_as_the_rules_do(name: str, rules: dict[bytes, Table]) -> None:
    with compiled(name, rules) as found:
        for one in found.widened:
            local, _, domain = one.rule.removeprefix(b"!").rpartition(b"@")
            assert not found.target.sayable(local, domain), one
        for domain in DOMAINS:
            for local in beside(rules[domain]):
                address = local + b"@" + domain
                answer = found.reader.answer(address)
                wrong = Wrong(address, True, answer.key)
                unsaid = not found.target.sayable(local, domain) or explained([wrong], found.widened)[0]
                assert unsaid or answer.accepted == accepts(rules[domain], local), address


@hypothesis.settings(max_examples=20)
@given(rules=rules_of, pair=st.tuples(st.sampled_from(VARIANTS), st.sampled_from(VARIANTS)))
def test_two_targets_say_the_same_up_to_what_they_report(
    rules: dict[bytes, Table], pair: tuple[Variant, Variant]
) -> None:
    (one_name, one_options), (other_name, other_options) = pair
    asked = [local + b"@" + domain for domain in DOMAINS for local in beside(rules[domain])]
    with compiled(one_name, rules, one_options) as one, compiled(other_name, rules, other_options) as other:
        pairs = zip(asked, one.reader.answers(asked), other.reader.answers(asked), strict=True)
        for address, a, b in pairs:
            if a.accepted == b.accepted:
                continue
            local, _, domain = address.rpartition(b"@")
            wider, narrower, answer = (one, other, a) if a.accepted else (other, one, b)
            left = domain in one.left_out | other.left_out
            unsaid = not narrower.target.sayable(local, domain)
            said = explained([Wrong(address, True, answer.key, answer.step)], wider.widened)[0]
            assert left or unsaid or said, address


# --- Patterns, as a plain reader of regular expressions takes them -------------------------------


@pytest.mark.parametrize("name", ["exim-wildlsearch", "postfix-pcre", "rcpt-regexp"])
@hypothesis.settings(max_examples=25)
@given(rules=rules_of)
def test_the_first_pattern_that_matches_decides(name: str, rules: dict[bytes, Table]) -> None:
    with compiled(name, rules) as found:
        lines = found.content.split(b"\n")
        patterns = []
        for line in lines:
            pattern, blank, value = line.partition(b": " if name == "exim-wildlsearch" else b" ")
            if blank and pattern != b"if":
                text = pattern.strip(b"/").replace(rb"\z", rb"\Z")
                patterns.append((re.compile(text, re.IGNORECASE | re.DOTALL), value))
        for domain in DOMAINS:
            for local in beside(rules[domain]):
                if not found.target.sayable(local, domain):
                    continue
                spelt = found.target.asked(local) if isinstance(found.target, Patterns) else local
                address = spelt.upper() + b"@" + domain
                first = next((value for pattern, value in patterns if pattern.search(address)), b"none")
                reported = [one.rule for one in found.widened if one.key]
                assert reported or (first in (b"accept", b"DUNNO", b"DECLINED")) == accepts(rules[domain], local), (
                    address
                )


@given(name=st.binary())
def test_an_escaped_name_matches_itself_alone(name: bytes) -> None:
    assert re.fullmatch(escaped(name), name)
    assert meant(escaped(name)) == name
    assert not re.search(rb"[\s:#\"'/$^*]", escaped(name))


# --- Files of lines ------------------------------------------------------------------------------


@every
def test_hostile_names_stay_on_their_line(variant: Variant) -> None:
    """Every record is one that the rules have; nothing that a name holds becomes a record of its own."""
    name, options = variant
    hostile = [text.lower().encode("latin-1") for text in HOSTILE]
    rules = {b"example.org": Table(dict.fromkeys([*hostile, b"joe"], ACCEPT), {})}
    with compiled(name, rules, options) as found:
        if b"example.org" in found.left_out or name in ("haraka", "dnset"):
            return
        shown = {line.name for line in found.reader.lines() if not line.prefix and line.accepted}
        assert shown <= {*hostile, b"joe"}
        assert b"joe" in shown
        unsaid = {one.rule.removesuffix(b"@example.org") for one in found.unsayable}
        missing = {one for one in hostile if one not in shown}
        assert missing <= unsaid | {one for one in hostile if one.startswith(b"-") and name == "morevalidrcptto"} | {
            one for one in hostile if name == "sqmail" and one.endswith(b"-")
        } | {one for one in hostile if name == "validrcptto" and one.endswith(b"-default")}


@every
def test_a_hostile_domain_is_said_or_left_out(variant: Variant) -> None:
    name, options = variant
    table = Table({b"joe": ACCEPT}, {})
    for domain in (b"a b", b"a\nb.example", b"x*", b"a'b", b"a:b", b"#x", b"\xff", b"a@b"):
        with compiled(name, {domain: table, b"example.org": table}, options) as found:
            said = {line.domain for line in found.reader.lines()}
            assert said <= {domain, b"example.org"} or name == "dnset" or b"@" in domain
            assert domain not in found.left_out or found.unsayable or name == "rcpt-map"


def test_a_text_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x00\x01\n joe\n")
    for name in ("csv", "json", "dnset", "sql", "db_load", "ldif", "postfix-pcre", "rcpt-regexp", "sendmail-access"):
        with pytest.raises(UsageTrouble), closing(target(name).open(os.fsencode(tmp_path / "x"))) as reader:
            list(reader.lines())
    with compiled("json", {b"example.org": Table({b"joe": ACCEPT}, {})}) as found:
        (tmp_path / "cut").write_bytes(found.content[:-5])
    with pytest.raises(UsageTrouble, match="cut off"):
        target("json").open(os.fsencode(tmp_path / "cut"))


# --- What each can be told -----------------------------------------------------------------------


def test_options_are_judged() -> None:
    with pytest.raises(ConfigurationError, match="unknown option 'extm'; the nearest one is 'extn'"):
        target("goodrcptto-qpsmtpd", options={"extm": "-"})
    with pytest.raises(ConfigurationError, match="unknown option 'form'; it has none"):
        target("validrcptto", options={"form": "cdb"})
    with pytest.raises(ConfigurationError, match="target postfix: Invalid enum value 'dbm'"):
        target("postfix", options={"form": "dbm"})
    with pytest.raises(ConfigurationError, match="extn is one character"):
        target("goodrcptto-qpsmtpd", options={"extn": "ab"})
    with pytest.raises(ConfigurationError, match="no name of a table"):
        target("sql", options={"domains": "x; DROP TABLE y"})
    with pytest.raises(ConfigurationError, match="which domain the file is for"):
        target("rcpt-map")
    with pytest.raises(ConfigurationError, match="no drop-domain"):
        target("goodrcptto", wildcards="drop-domain")


def test_each_target_is_imported_when_it_is_asked_for() -> None:
    code = (
        "import sys; from rcptgen.targets import target; target('validrcptto');"
        "print([m for m in sys.modules if m.startswith('rcptgen.targets.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.strip("[]\n").replace("'", "").split(", "))
    assert loaded == {f"rcptgen.targets.{one}" for one in ("base", "files", "formats", "lowering", "validrcptto")}


@pytest.mark.parametrize("name", ["morevalidrcptto", "postfix-access"])
def test_a_domain_that_cannot_be_said_is_left_to_another_checker(name: str) -> None:
    lossy = Table({b"joe": ACCEPT}, {b"joe-": ACCEPT})
    plain = Table({b"joe": ACCEPT}, {b"joe-": REFUSE})
    with compiled(name, {b"a.example": lossy, b"b.example": plain}, wildcards="drop-domain") as found:
        assert found.left_out == {b"a.example"}
        assert [one.rule for one in found.unsayable] == [b"joe-*@a.example"]
        assert found.reader.answer(b"joe@a.example").undecided
        assert found.reader.answer(b"joe@b.example").accepted
        assert not found.reader.answer(b"joe-x@b.example").accepted


# --- Other programs read them --------------------------------------------------------------------


@pytest.mark.needs("tinycdb")
def test_a_cdb_is_read_by_cdb(tmp_path: Path) -> None:
    with compiled("exim", {b"example.org": Table({b"joe": ACCEPT, b"spam": REFUSE}, {b"": ACCEPT})}) as found:
        (tmp_path / "x.cdb").write_bytes(found.content)
    for key, value in (("joe@example.org", "accept"), ("*@example.org", "accept"), ("spam@example.org", "refuse")):
        done = subprocess.run(["cdb", "-q", tmp_path / "x.cdb", key], capture_output=True, text=True, check=True)
        assert done.stdout == value


def test_the_script_of_sql_runs() -> None:
    hostile = [text.lower().encode("latin-1") for text in HOSTILE]
    rules = {b"example.org": Table(dict.fromkeys(hostile, ACCEPT), {}), b"open.example": Table({}, {b"": ACCEPT})}
    with compiled("sql", rules) as found:
        base = sqlite3.connect(":memory:")
        base.executescript("CREATE TABLE domains (domain TEXT); CREATE TABLE recipients (address TEXT);")
        base.executescript(found.content.decode("ascii"))
        rows = {row[0].encode() for row in base.execute("SELECT address FROM recipients")}
        said = {one + b"@example.org" for one in hostile if found.target.sayable(one, b"example.org")}
        assert rows == said
        assert [row[0] for row in base.execute("SELECT domain FROM domains")] == ["example.org"]
        base.close()


def test_the_values_of_our_own_say_what_the_host_does() -> None:
    with compiled("rcptgen", {b"example.org": Table({b"joe": ACCEPT, b"spam": REFUSE}, {b"": ACCEPT})}) as found:
        cdb = cdbx.CDB(found.descriptor, mmap=False)
        assert cdb.get(b"=joe@example.org") == b"f1 mailbox"
        assert cdb.get(b"=spam@example.org") == b"00 no-mailbox"
        cdb.close()


def test_a_proof_asks_the_neighbours_too() -> None:
    proof = Proof()
    proof.add(b"example.org", Table({}, {b"": ACCEPT}))
    with compiled("validrcptto", {b"rcptgen-witness.example.org": Table({}, {b"": ACCEPT})}) as found:
        refused, accepted = proof.check(found.reader)
        assert accepted
        assert refused
    assert len(target_names(["of-others"])) == len(target_names()) + 1


MANY = """
import os, sys
from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table
from rcptgen.targets import target
from rcptgen.targets.witness import Proof

name, file, names = sys.argv[1:]
accept = Outcome(Verdict.DELIVER, Kind.VPOPMAIL, "a mailbox")
table = Table.of_groups({accept: Names.of_sorted(open(names, "rb").read())}, {})
chosen, proof = target(name), Proof()
descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
writer = chosen.writer(descriptor)
for keys, value in chosen.lower(b"big.example", table).batches:
    writer.put(keys, value)
records = writer.finish()
proof.add(b"big.example", table)
reader = chosen.open(descriptor)
wrong = proof.check(reader, chosen.sayable)
reader.close()
size = open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]
print(records, len(wrong[0]), len(wrong[1]), int(size) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["validrcptto", "rcptgen", "json", "text", "postfix", "postfix-pcre", "ldif", "dnset"])
def test_a_million_names_are_written_and_proved_in_little_memory(name: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(b"\n".join(b"user%07d" % number for number in range(1_100_000)))
    done = subprocess.run(
        [sys.executable, "-c", MANY, name, tmp_path / "file", tmp_path / "names"],
        capture_output=True,
        text=True,
        check=True,
    )
    records, refused, accepted, size = map(int, done.stdout.split())
    assert records in (1_100_000, 1_100_001)  # some say of the domain that it is closed
    assert (refused, accepted) == (0, 0)
    assert size < 100
