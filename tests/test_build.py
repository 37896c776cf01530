"""From tables to files: random lists, gone back to and on again, with every name that either accepts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import rounds

from rcptgen.build import Blobs, Build, Job, canary, side_by_side
from rcptgen.config import Config, parse
from rcptgen.errors import ConfigurationError
from rcptgen.generations import History, differences
from rcptgen.memory import remember
from rcptgen.publish.packed import pack, unpack
from rcptgen.publish.state import State
from rcptgen.request import Output, Request, Result
from rcptgen.rollback import roll_back
from rcptgen.rules.change import What
from rcptgen.rules.compare import changes
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table
from rcptgen.targets import target
from rcptgen.targets.base import Target
from rcptgen.targets.witness import UNKNOWN

MAILBOX = Outcome(Verdict.DELIVER, Kind.MAILBOX, "maildir")
ALIAS = Outcome(Verdict.DELIVER, Kind.ALIAS, "alias")
REFUSED = Outcome(Verdict.BOUNCE, Kind.REFUSAL, "bouncesaying")

names = st.text("ab-", max_size=4).map(str.encode)
rules = st.dictionaries(names, st.sampled_from([MAILBOX, ALIAS, REFUSED]), max_size=6)
tables = st.builds(Table, st.dictionaries(names.filter(bool), st.sampled_from([MAILBOX, ALIAS, REFUSED])), rules)
lists = st.dictionaries(st.sampled_from([b"a.example", b"b.example", b"c.example"]), tables, max_size=3)

Lists = dict[bytes, Table]


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", os.fstat)


def accepts(table: Table | None, name: bytes) -> bool:
    found = None if table is None else table.match(name)
    return found is not None and found.accepted


def addresses(*some: Lists) -> Iterator[tuple[bytes, bytes]]:
    """Domains, and names at and beside every rule that one of the lists has there."""
    for domain in sorted({domain for one in some for domain in one}):
        known = {rule.name for one in some if domain in one for rule in one[domain].rules()} | {b""}
        yield from ((domain, name + tail) for name in sorted(known) for tail in (b"", b"a", b"-", b"-b") if name + tail)


def publish(request: Request, tables_of: Lists) -> None:
    """A compile of a host that has these tables; nothing is guarded."""
    assert request.state is not None
    targets: list[Target] = [target("validrcptto")]
    with State.open(request.state) as state, ExitStack() as stack:
        result = Result()
        memory = remember(state, [(targets[0], request.outputs[0].path)], result.warnings, stack)
        build = Build(Job(Config(), request, 1.0, targets, state, memory, result))
        stack.callback(build.close)
        build.open()
        mine = ((domain, tables_of[domain]) for domain in sorted(tables_of))
        for domain, (table, base, last) in side_by_side(mine, memory.base.blobs(), memory.published.blobs()):
            build.emit(domain, table, b"" if table is None else pack(table), Blobs(b"", base or b"", last or b""))
        build.bare(frozenset())
        build.written()
        build.report()
        build.prove()
        build.publish({"prepended": {"mode": ""}})


@settings(max_examples=rounds(60), deadline=None)
@given(lists, lists, lists)
def test_gone_back_to_any_list_and_on_again(first: Lists, second: Lists, third: Lists) -> None:
    with tempfile.TemporaryDirectory() as top:
        path = os.fsencode(Path(top) / "v.cdb")
        request = Request((Output("validrcptto", path),), state=os.fsencode(Path(top) / "state"))
        publish(request, first)
        publish(request, second)
        old = Path(os.fsdecode(path)).read_bytes()
        roll_back(Config(), request, 1)
        judge(path, first, second)
        publish(request, third)
        judge(path, first, third)
        published_is_told(request)
        publish(Request(request.outputs, state=request.state, resume=True), second)
        assert Path(os.fsdecode(path)).read_bytes() == old


def judge(path: bytes, *either: Lists) -> None:
    """Nothing that one of the lists accepts is refused (what else is accepted has been proved to be reported)."""
    reader = target("validrcptto").open(path)
    try:
        for domain, name in addresses(*either):
            if any(accepts(one.get(domain), name) for one in either):
                assert reader.answer(name + b"@" + domain).accepted, (domain, name)
    finally:
        reader.close()


def published_is_told(request: Request) -> None:
    """Each generation's changes are those between it and the one before, domain by domain."""
    assert request.state is not None
    with History.open(request.state) as history:
        for number in history.numbers()[1:]:
            before = history.before(number)
            assert before is not None
            with before, history.generation(number) as generation:
                found = list(differences(before, generation))
                told = generation.meta.changes
                assert told is not None
                assert sum(one.counts[What.GAINED] for one in found) == told.gained
                blobs = dict(before.blobs())
                for domain, blob in generation.blobs():
                    old = unpack(blobs.get(domain, pack(Table({}, {}))))
                    named = domain in [one.domain for one in found]
                    assert named == bool(list(changes(old, unpack(blob))))


def test_side_by_side() -> None:
    found = side_by_side(iter([(b"a", 1), (b"c", 3)]), iter([]), iter([(b"a", 7), (b"b", 8)]))
    assert list(found) == [(b"a", [1, None, 7]), (b"b", [None, None, 8]), (b"c", [3, None, None])]


# --- canaries ------------------------------------------------------------------------------------


def test_canary_addresses() -> None:
    assert canary("Joe@Example.ORG") == b"Joe@Example.ORG"
    assert canary("*@example.org") == UNKNOWN + b"@example.org"
    assert canary("joe-*@example.org") == b"joe-" + UNKNOWN + b"@example.org"
    assert canary("postmaster") == b"postmaster"


@pytest.mark.parametrize("text", ["", "@", "joe@", "@example.org", "jo*e@example.org", "joe@*", "a b@c", "a\\u001b@c"])
def test_what_is_no_canary(text: str) -> None:
    for key in ("must_accept", "must_refuse"):
        with pytest.raises(ConfigurationError):
            parse(f'[guard]\n{key} = ["{text}"]\n'.encode(), "test")
