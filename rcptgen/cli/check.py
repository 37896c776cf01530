"""`rcptgen check`: what the host does with addresses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import click

from rcptgen.cli import Globals, safe
from rcptgen.host import Host
from rcptgen.policy import Policy
from rcptgen.rules.outcome import Outcome, Verdict
from rcptgen.rules.shown import as_json, shown

BATCH = 2000


@click.command("check")
@click.option("--json", "as_lines", is_flag=True, help="JSON Lines.")
@click.option("--null", is_flag=True, help="Addresses on stdin end with NUL instead of a newline.")
@click.argument("addresses", metavar="ADDRESS... | -", nargs=-1, required=True)
@click.pass_obj
def command(given: Globals, as_lines: bool, null: bool, addresses: tuple[str, ...]) -> int:
    """Say what the host does with each ADDRESS now: deliver, bounce, defer or remote.

    `-` reads one address a line from stdin.  Status 0 when none bounces, 1 when some do.
    """
    given.need_root()
    end = b"\0" if null else b"\n"
    batches = _from_stdin(end) if addresses == ("-",) else _batches([os.fsencode(one) for one in addresses])
    bounced = False
    with Host.open(given.root, given.config()) as host:
        policy = Policy(host)
        given.tell(policy.troubles)
        for batch in batches:
            lines = []
            for address, outcome in zip(batch, host.decide_many(batch), strict=True):
                accepted = policy.judged(address, outcome)
                bounced |= outcome.verdict is Verdict.BOUNCE
                lines.append(_json(address, outcome, accepted) if as_lines else _text(address, outcome))
            click.echo("\n".join(lines))
    return int(bounced)


def _from_stdin(end: bytes) -> Iterator[Sequence[bytes]]:
    """What has come so far is answered at once: the other end may wait for it."""
    rest = b""
    while chunk := os.read(0, 1 << 16):
        *whole, rest = (rest + chunk).split(end)
        yield from _batches(whole)
    if rest:
        yield [rest]


def _batches(wanted: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for at in range(0, len(wanted), BATCH):
        yield wanted[at : at + BATCH]


def _text(address: bytes, outcome: Outcome) -> str:
    return f"{outcome.verdict}\t{shown(address)}\t{_reason(outcome.reason)}"


@lru_cache(maxsize=1024)
def _reason(text: str) -> str:
    return safe(text)


def _json(address: bytes, outcome: Outcome, accepted: bool) -> str:
    return json.dumps({**as_json("address", address), **outcome_json(outcome), "accepted": accepted})


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The members that describe an outcome."""
    return {
        "verdict": outcome.verdict.value,
        "kind": outcome.kind.value,
        "reason": outcome.reason,
        **as_json("file", outcome.file),
        "line": outcome.line,
    }
