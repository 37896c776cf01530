"""The ranking of wildcards does not hang on how many it could keep."""

from __future__ import annotations

import random

import pytest

from rcptgen.lint.wildcards import Wildcards
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table


def outcome(file: bytes, verdict: Verdict = Verdict.DELIVER) -> Outcome:
    return Outcome(verdict, Kind.FORWARD, "forwards", file)


@pytest.mark.parametrize("seed", range(5))
def test_the_widest_of_many(seed: int) -> None:
    chance = random.Random(seed)
    domains = []
    for number in range(400):
        names = {b"p" * chance.randint(1, 30) + b"%d-" % chance.randint(0, 40) for _ in range(8)}
        table = Table({}, {name: outcome(b"/home/" + name[-4:]) for name in names})
        domains.append((b"d%d.example" % number, table))
    small, whole = Wildcards(3), Wildcards(1_000_000)
    for name, table in domains:
        small.add(name, table)
        whole.add(name, table)
    assert small.others == whole.others == len(whole.widest())
    assert [(one.prefix, one.domains, one.named) for one in small.widest()] == [
        (one.prefix, one.domains, one.named) for one in whole.widest()[:3]
    ]


def test_refusals_are_none_and_catch_alls_are_apart() -> None:
    found = Wildcards(5)
    found.add(b"a.example", Table({}, {b"": outcome(b"/x"), b"no-": outcome(b"/y", Verdict.BOUNCE)}))
    found.add(b"b.example", Table({}, {b"": outcome(b"/x"), b"joe-": outcome(b"/z", Verdict.DEFER)}))
    assert [(one.domains, one.named) for one in found.catch_alls()] == [(2, [b"a.example", b"b.example"])]
    assert [(one.prefix, one.why) for one in found.widest()] == [(b"joe-", "deferred: forwards")]
    assert found.others == 1
