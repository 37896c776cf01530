"""`rcptgen approve`: shows what is held, releases it, and publishes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence

import click

from rcptgen.cli import Globals, when
from rcptgen.cli.compile_ import (
    compiled,
    json_option,
    memorable,
    ordered,
    rolled_back,
    targets_option,
    wait_option,
)
from rcptgen.generations import History, held_of
from rcptgen.hooks import held_json, rollback_json
from rcptgen.publish.history import Rollback, Withheld
from rcptgen.request import HOLDING
from rcptgen.rules.shown import shown

STANDS = "what is held stands"


@click.command("approve")
@targets_option
@click.option("--plan", "--dry-run", "plan", is_flag=True, help="Only show what is held.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask on a terminal.")
@wait_option
@json_option
@click.argument("domains", metavar="[DOMAIN]...", nargs=-1)
@click.pass_obj
def command(
    given: Globals,
    targets: tuple[str, ...],
    plan: bool,
    yes: bool,
    wait: float,
    as_object: bool,
    domains: tuple[str, ...],
) -> int:
    """Release what the guard holds, of each DOMAIN or of all, and publish.

    On a terminal and without a DOMAIN, what is held is shown first, and you are asked.  Only
    what was held by the last run is released: what has gone since then is judged as ever.
    A DOMAIN of which nothing is held is approved as it is found now.
    """
    names = frozenset(os.fsencode(one).lower() for one in domains)
    given.asking = False
    with History.open(memorable(given, STANDS)) as history:
        holds = [one for one in history.holds if not names or held_of(one).domain in names]
        rollback = history.rollback
    if plan:
        return _shown(holds, rollback, as_object)
    asks = not (names or yes or as_object) and sys.stdin.isatty() and sys.stderr.isatty()
    if asks:
        _shown(holds, rollback, False)
        if not holds or not click.confirm("Release all of it?", err=True):
            return HOLDING if holds else 0
    seen = tuple(holds) if asks else None
    config, request = ordered(given, targets, "approved", STANDS, approve=names, seen=seen, wait=wait)
    return compiled(given, config, request, as_object=as_object)


def _shown(holds: Sequence[Withheld], rollback: Rollback | None, as_object: bool) -> int:
    """The plan, on stdout; the status says whether anything is held."""
    if as_object:
        held = [held_json(held_of(one)) for one in holds]
        click.echo(json.dumps({"version": 1, "held": held, "rollback": rollback_json(rollback)}))
    else:
        for line in _lines(holds, rollback):
            click.echo(line)
    return HOLDING if holds else 0


def _lines(holds: Sequence[Withheld], rollback: Rollback | None) -> Iterator[str]:
    if rollback is not None:
        yield shown(os.fsencode(rolled_back(rollback)))
    if not holds:
        yield "nothing is held"
    for one in map(held_of, holds):
        domain = shown(one.domain)
        yield f"{domain}: held since {when(one.since)}: {shown(os.fsencode(one.reason))}"
        sign = "+" if one.catch_all else "-"
        yield from (f"  {sign} {shown(name)}@{domain}" for name in one.sample)
        if one.count > len(one.sample):
            yield f"  and {one.count - len(one.sample)} more"
