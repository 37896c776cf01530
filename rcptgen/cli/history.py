"""`rcptgen history`: what was published, when, why, and what it changed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

import click
import msgspec

from rcptgen.cli import Globals, safe, when
from rcptgen.cli.compile_ import memorable, rolled_back
from rcptgen.generations import Difference, History, differences, held_of
from rcptgen.hooks import held_json, rollback_json
from rcptgen.publish.generation import Meta
from rcptgen.publish.history import Changes
from rcptgen.rules.change import Change, What
from rcptgen.rules.shown import as_json, shown
from rcptgen.targets.base import written

SIGNS = {What.GAINED: "+", What.LOST: "-", What.CHANGED: "~", What.HIDDEN: "!"}
TITLES = ("", "TIME", "RECORDS", "GAINED", "LOST", "KIND", "HELD", "WHY")


@click.group("history", invoke_without_command=True)
@click.option("--json", "as_object", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def command(ctx: click.Context, as_object: bool) -> int | None:
    """List the generations that are kept, the last one at the bottom; `show N` has the details of one."""
    if ctx.invoked_subcommand is not None:
        return None
    given: Globals = ctx.obj
    with History.open(memorable(given, "the history stands")) as history:
        if as_object:
            rollback = rollback_json(history.rollback)
            members = {"version": 1, "current": history.last, "rollback": rollback}
            click.echo(json.dumps({**members, "generations": [_members(meta) for meta in history.metas()]}))
        elif history.last:
            for line in _table([TITLES, *(_row(meta, history.last) for meta in history.metas())]):
                click.echo(line)
        _talk(given, history, nothing=not history.last)
    return 0


@command.command("show")
@click.option("--json", "as_object", is_flag=True, help="One JSON object on stdout.")
@click.argument("number", metavar="N", type=click.IntRange(1))
@click.pass_obj
def show(given: Globals, as_object: bool, number: int) -> int:
    """Say all that is known of generation N, and what it changed, by domain."""
    with History.open(memorable(given, "the history stands")) as history, history.generation(number) as generation:
        before = history.before(number)
        found = [] if before is None else differences(before, generation)
        if as_object:
            against = None if before is None else before.number
            domains = [_difference(one) for one in found]
            members = {"version": 1, **_members(generation.meta), "against": against}
            click.echo(json.dumps({**members, "changes_by_domain": domains}))
        else:
            for line in _details(generation.meta, None if before is None else before.number, found):
                click.echo(line)
        if before is not None:
            before.close()
        _talk(given, history)
    return 0


def _talk(given: Globals, history: History, *, nothing: bool = False) -> None:
    if given.quiet:
        return
    if nothing:
        click.echo("rcptgen: nothing was published yet", err=True)
    elif history.rollback is not None:
        click.echo(safe(f"rcptgen: {rolled_back(history.rollback)}"), err=True)
    for warning in history.warnings:
        click.echo(safe(f"rcptgen: {warning}"), err=True)


# -- JSON -----------------------------------------------------------------------------------


def _members(meta: Meta) -> dict[str, Any]:
    changes = meta.changes or Changes()
    most = [{**as_json("domain", one.domain.encode("latin-1")), **_counted(one)} for one in changes.most]
    return {
        "generation": meta.number,
        "time": meta.time,
        "reason": meta.reason,
        "by": msgspec.to_builtins(meta.by),
        "same_files": meta.same,
        "counts": meta.counts,
        "kinds": meta.kinds,
        "changes": {**_counted(changes), "domains": changes.domains, "most": most},
        "held": [held_json(held_of(one)) for one in meta.holds],
        "released": [shown(domain.encode("latin-1")) for domain in meta.released],
        "rollback": rollback_json(meta.rollback),
    }


def _counted(one: Any) -> dict[str, int]:
    return {"gained": one.gained, "lost": one.lost, "changed": one.changed}


def _difference(one: Difference) -> dict[str, Any]:
    counts = {what.value: count for what, count in one.counts.items()}
    some = [{"what": change.what.value, **as_json("rule", _rule(change, one.domain))} for change in one.some]
    return {**as_json("domain", one.domain), **counts, "sample": some}


# -- text -----------------------------------------------------------------------------------


def _row(meta: Meta, last: int) -> tuple[str, ...]:
    changes = meta.changes or Changes()
    return (
        f"{meta.number}{'*' if meta.number == last else ' '}",
        when(meta.time),
        str(meta.counts.get("records", 0)),
        f"+{changes.gained}",
        f"-{changes.lost}",
        f"~{changes.changed}",
        str(len(meta.held)),
        _why(meta),
    )


def _why(meta: Meta) -> str:
    """The reason of a generation, and the person behind it."""
    words = shown(os.fsencode(meta.reason))
    if meta.released:
        words += f" {_some([shown(one.encode('latin-1')) for one in meta.released], 3)}"
    if meta.rollback is not None:
        words += f" to {meta.rollback.number}" if meta.reason == "rollback" else " (rolled back)"
    if meta.by is not None:
        words += f" by {shown(os.fsencode(str(meta.by)))}"
    return words


def _some(names: list[str], most: int) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Columns of equal width: numbers to the right, words to the left."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if number in (1, len(TITLES) - 1) else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _details(meta: Meta, before: int | None, found: Iterable[Difference]) -> Iterator[str]:
    yield f"generation {meta.number} of {when(meta.time)}: {_why(meta)}"
    yield ", ".join(f"{count} {name}" for name, count in meta.counts.items())
    if meta.kinds:
        yield "by kind: " + ", ".join(f"{count} {kind}" for kind, count in meta.kinds.items())
    if meta.rollback is not None:
        yield shown(os.fsencode(rolled_back(meta.rollback)))
    for held in map(held_of, meta.holds):
        names = _some([shown(name) for name in held.sample], 5)
        yield f"held since {when(held.since)}: {shown(held.domain)}: {shown(os.fsencode(held.reason))} ({names})"
    changes = meta.changes or Changes()
    if before is None:
        yield f"the generation before is not kept; against it: {_sum(changes)}"
        for one in changes.most:
            yield f"{shown(one.domain.encode('latin-1'))}: {_sum(one)}"
        return
    yield f"against generation {before}:"
    for difference in found:
        counts = difference.counts
        gained, lost, changed = counts[What.GAINED], counts[What.LOST], counts[What.CHANGED]
        domain = difference.domain
        yield f"{shown(domain)}: {gained} gained, {lost} lost, {changed} of another kind"
        for change in difference.some:
            yield f"  {SIGNS[change.what]} {shown(_rule(change, domain))}"
        if sum(counts.values()) > len(difference.some):
            yield f"  and {sum(counts.values()) - len(difference.some)} more"


def _sum(one: Any) -> str:
    return f"{one.gained} gained, {one.lost} lost, {one.changed} of another kind"


def _rule(change: Change, domain: bytes) -> bytes:
    return written(change.name, change.prefix, True, domain)
