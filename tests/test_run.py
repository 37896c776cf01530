"""What a run lets go of, and what it tells, where very much of the host is in trouble at once."""

from __future__ import annotations

import time
from typing import cast

from rcptgen.cli import compile_
from rcptgen.config import Config
from rcptgen.host import Host
from rcptgen.memory import Memory
from rcptgen.publish.history import Withheld
from rcptgen.reader import Report, State
from rcptgen.request import Request, Result
from rcptgen.run import Run

MANY = 11_000


def held(name: str, check: int = 1, *, catch_all: bool = False) -> Withheld:
    return Withheld(domain=name, catch_all=catch_all, since=1.0, reason="emptied", count=9, sample=["a"], check=check)


def run_of(holds: list[Withheld], seen: list[Withheld]) -> Run:
    request = Request((), approve=frozenset(), seen=tuple(seen))
    memory = Memory(held={one.domain: one.since for one in holds}, holds=holds)
    host = cast("Host", None)
    return Run(Config(), request, 2.0, [], None, memory, Result(), host, lambda done, whole: None, [])


def test_only_what_was_shown_as_it_is_held_is_released() -> None:
    run = run_of([held("a"), held("b"), held("c")], [held("a"), held("b", 2), held("c", catch_all=True)])
    assert [run.released(name) for name in (b"a", b"b", b"c")] == [True, False, False]


def test_every_domain_of_a_large_host_is_released_in_no_time() -> None:
    holds = [held(f"d{number}.example") for number in range(MANY)]
    run = run_of(holds, list(holds))
    begun = time.process_time()
    assert all(run.released(b"d%d.example" % number) for number in range(MANY))
    assert time.process_time() - begun < 1


def test_what_many_homes_defer_is_told_in_no_time() -> None:
    units = [Report(b"/home/u%06d" % number, State.DEFERRING, "shut") for number in range(4 * MANY)]
    begun = time.process_time()
    lines = list(compile_._lines(Request(()), Result(units=units), whole=False, verbose=False))
    assert time.process_time() - begun < 1
    assert lines[-1] == f"  and {len(units) - 10} more, {len(units)} deferring in all"
