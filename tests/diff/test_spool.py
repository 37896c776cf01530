"""Rules in any order come back domain by domain, whatever fits into memory."""

from __future__ import annotations

import errno
import os
import tempfile
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rcptgen.diff import spool as module
from rcptgen.diff.spool import Spool, listed
from rcptgen.errors import Shortage
from rcptgen.rules.outcome import Kind, Outcome

places = st.sampled_from([b"", b"@", b"@a.example", b"@b.example", b"@\n"])
outcomes = st.builds(listed, st.booleans(), st.sampled_from([Kind.UNKNOWN, Kind.MAILBOX, Kind.LIST]))
rules = st.tuples(places, st.text("ab-\n", max_size=3).map(str.encode), st.booleans(), outcomes)


@pytest.fixture(params=[100_000, 3])
def _stretch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRETCH", request.param)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rules, max_size=40))
@pytest.mark.usefixtures("_stretch")
def test_rules_come_back_by_place_and_the_first_counts(given_rules: list[tuple[bytes, bytes, bool, Outcome]]) -> None:
    wanted: dict[tuple[bytes, bytes, bool], Outcome] = {}
    with Spool() as spool:
        for place, name, prefix, outcome in given_rules:
            wanted.setdefault((place, name, prefix), outcome)
            spool.add(place, name, prefix, outcome)
        found = list(spool.tables())
    assert [place for place, _ in found] == sorted({place for place, _, _ in wanted})
    assert {(place, rule.name, rule.prefix): rule.outcome for place, table in found for rule in table.rules()} == wanted
    assert sum(len(table) for _, table in found) == len(wanted)


def test_nothing_gives_nothing() -> None:
    with Spool() as spool:
        assert list(spool.tables()) == []


def test_many_rules_are_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRETCH", 1000)
    count, accepts = 20_000, listed(True)
    tracemalloc.start()
    try:
        with Spool() as spool:
            for number in range(count):
                spool.add(b"@%d.example" % (number * 7919 % 200), b"user-%d" % number, False, accepts)
            names = sum(len(table) for _, table in spool.tables())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert names == count
    assert peak < 1_500_000


def test_a_full_disk_is_a_shortage(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    monkeypatch.setattr(module, "STRETCH", 1)
    with Spool() as spool, pytest.raises(Shortage, match="No space left"):
        spool.add(b"", b"a", False, listed(True))
