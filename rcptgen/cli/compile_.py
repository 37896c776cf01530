"""`rcptgen compile`: reads the host, builds and verifies all outputs, then renames them all."""

from __future__ import annotations

import functools
import gc
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from rcptgen.cli import Globals, named, safe, spelled, when
from rcptgen.cli.handover import left_to_watch
from rcptgen.cli.who import who
from rcptgen.compiler import Outcomes, Output, Progress, Request, Result, compile_host
from rcptgen.config import Config
from rcptgen.errors import NeedsRoot, RcptgenError, Shortage
from rcptgen.hooks import held_json, rollback_json
from rcptgen.metrics import measured
from rcptgen.publish.history import Rollback
from rcptgen.reader import SELDOM, State
from rcptgen.rules.shown import as_json, shown

PATIENCE = 1.0
REASONS_SHOWN = 8
NAMES_SHOWN = 5
UNITS_SHOWN = 10


targets_option = click.option(
    "-t",
    "--target",
    "targets",
    metavar="TARGET=PATH",
    multiple=True,
    help="Write this instead of the configured outputs.",
)
wait_option = click.option(
    "--wait", metavar="SECONDS", type=click.FloatRange(0), default=0.0, help="Wait that long for another run."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Build and verify, publish nothing.")
json_option = click.option("--json", "as_object", is_flag=True, help="One JSON object on stdout.")


@click.command("compile")
@targets_option
@dry_run_option
@click.option("--force", is_flag=True, help="Publish whatever the guard would hold or a person would have to decide.")
@click.option("--full", is_flag=True, help="Verify at every rule, not at a sample of a large host's.")
@click.option("--strict", is_flag=True, help="Publish nothing where a format cannot say a rule (status 1).")
@wait_option
@json_option
@click.pass_obj
def command(
    given: Globals,
    targets: tuple[str, ...],
    dry_run: bool,
    force: bool,
    full: bool,
    strict: bool,
    wait: float,
    as_object: bool,
) -> int:
    """Read the host and publish the list of its recipients.

    Silent when nothing changed, unless on a terminal or with -v.  Where a watch is running,
    it does the work.
    """
    given.asking = False
    given.need_root()
    config = given.config()
    outputs = requested(given, config, targets, dry_run=dry_run)
    request = Request(
        outputs=outputs,
        state=given.state(),
        dry_run=dry_run,
        force=force,
        full=full,
        strict=strict,
        wait=wait,
        reason="forced" if force else "compile",
        by=who() if force else None,
        brief=not (as_object or given.verbose or sys.stderr.isatty()),
    )
    done = left_to_watch(given, config, request, as_object=as_object, own_targets=bool(targets))
    return compiled(given, config, request, as_object=as_object) if done is None else done


def asked_for(targets: Iterable[str]) -> list[Output]:
    """The files that `-t TARGET=PATH` options name."""
    found = []
    for text in targets:
        parts = named(text)
        if parts is None:
            raise click.UsageError(f"-t {shown(os.fsencode(text))}: not TARGET=PATH or TARGET,OPTION=VALUE=PATH")
        name, options = spelled(parts[0])
        found.append(Output(name, os.path.abspath(os.fsencode(parts[1])), options=options))
    return found


def requested(given: Globals, config: Config, targets: Iterable[str], *, dry_run: bool) -> tuple[Output, ...]:
    """The outputs of this run: those of `-t`, else the configured ones."""
    found = asked_for(targets)
    if found:
        return tuple(found)
    if given.root != b"/" and not dry_run:
        raise click.UsageError("with --root, say where to write: -t TARGET=PATH, or --dry-run")
    return configured(config)


def configured(config: Config) -> tuple[Output, ...]:
    """The outputs that the configuration names."""
    return tuple(
        Output(one.target, os.fsencode(one.path), one.mode, one.wildcards, one.options) for one in config.outputs
    )


def memorable(given: Globals, what: str) -> bytes:
    """The state directory, where `what`; a usage error without one, NeedsRoot where it is shut."""
    state = given.state()
    if state is None:
        raise click.UsageError(f"{what} in the state directory: with --root, name it with --state")
    if os.path.lexists(state) and not os.access(state, os.R_OK | os.X_OK):
        raise NeedsRoot(f"{shown(state)}: {what} there, and only root may look into it")
    return state


def ordered(
    given: Globals, targets: Iterable[str], reason: str, where: str, *, dry_run: bool = False, **more: Any
) -> tuple[Config, Request]:
    """The configuration, and the request of a person whose order concerns what stands in the state directory."""
    given.asking = False
    given.need_root()
    config = given.config()
    state = memorable(given, where)
    outputs = requested(given, config, targets, dry_run=dry_run)
    return config, Request(outputs=outputs, state=state, dry_run=dry_run, reason=reason, by=who(), **more)


def compiled(given: Globals, config: Config, request: Request, *, as_object: bool) -> int:
    """Runs the compiler, and says what came of it; the live host's numbers go to the textfile of the metrics."""

    def work(progress: Progress) -> Result:
        run = functools.partial(compile_host, given.root, config, request, progress=progress)
        return measured(config, run) if given.root == b"/" and not request.dry_run else run()

    return perform(given, request, work, as_object=as_object)


def perform(given: Globals, request: Request, work: Callable[[Progress], Result], *, as_object: bool) -> int:
    """Does `work` and says what a person or a program wants to know; returns the exit status."""
    gc.set_threshold(*SELDOM)
    try:
        with progressing(given, quiet=as_object) as progress:
            result = work(progress)
    except (RcptgenError, MemoryError) as error:
        if as_object:
            status = error.status if isinstance(error, RcptgenError) else Shortage.status
            text = str(error) or "out of memory"
            click.echo(json.dumps({"version": 1, "status": status, "error": text, **_EMPTY}))
        raise
    if as_object:
        click.echo(json.dumps(as_members(result)))
    else:
        _talk(given, request, result)
    return result.status


_EMPTY: dict[str, list[Any]] = {"units": [], "held": [], "outputs": []}


@contextmanager
def progressing(given: Globals, *, quiet: bool = False) -> Iterator[Progress]:
    """A counter on a terminal, once a run takes longer than a moment."""
    if given.quiet or quiet or not sys.stderr.isatty():
        yield lambda done, whole: None
        return
    last = time.monotonic() + PATIENCE - 0.1

    def step(done: int, whole: int) -> None:
        nonlocal last
        if time.monotonic() - last > 0.1:
            last = time.monotonic()
            click.echo(f"\r{done} of {whole} domains\x1b[K", err=True, nl=False)

    try:
        yield step
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)


# -- JSON -----------------------------------------------------------------------------------


def as_members(result: Result) -> dict[str, Any]:
    """The result as the JSON object of the contract."""
    return {
        "version": 1,
        "status": result.status,
        "problems": result.problems,
        "warnings": [shown(os.fsencode(one)) for one in result.warnings],
        "domains": result.domains,
        "gained": result.gained,
        "lost": result.lost,
        "approximate": result.approximate,
        "witnesses": result.witnesses,
        "seconds": round(result.seconds, 3),
        "units": [
            {**as_json("path", one.path), "state": one.state.value, "reason": one.reason} for one in result.units
        ],
        "kept": [{**as_json("path", path), "reason": reason} for path, reason in sorted(result.kept.items())],
        "held": [held_json(one) for one in result.held],
        "released": [shown(domain) for domain in result.released],
        "rollback": rollback_json(result.rollback),
        "generation": result.generation,
        "changed_kind": 0 if result.changes is None else result.changes.changed,
        "outputs": [_output(one) for one in result.outputs],
    }


def _output(one: Outcomes) -> dict[str, Any]:
    return {
        "target": one.output.target,
        **as_json("path", one.output.path),
        "records": one.records,
        "published": one.published,
        "changed": one.changed,
        "exact": one.exact,
        "wildcards": one.wildcards,
        "refusals": one.refusals,
        "widened_count": one.widened_count,
        "unsayable_count": one.unsayable_count,
        "left_out": [shown(domain) for domain in sorted(one.left_out)],
        "widened": [
            {
                **as_json("key", w.key),
                **as_json("rule", w.rule),
                "reason": w.reason,
                **as_json("file", w.file),
                "line": w.line,
            }
            for w in one.widened
        ],
        "unsayable": [
            {**as_json("rule", u.rule), "reason": u.reason, **as_json("file", u.file), "line": u.line}
            for u in one.unsayable
        ],
    }


# -- text -----------------------------------------------------------------------------------


def _talk(given: Globals, request: Request, result: Result) -> None:
    for problem in result.problems:
        click.echo(f"rcptgen: {safe(problem)}", err=True)
    if given.quiet:
        return
    whole = given.verbose or sys.stderr.isatty() or request.dry_run
    if not (whole or result.changed or result.status):
        return
    for line in _lines(request, result, whole=whole, verbose=given.verbose):
        click.echo(safe(line), err=True)


def _lines(request: Request, result: Result, *, whole: bool, verbose: bool) -> Iterator[str]:
    for one in result.outputs:
        what = "not published"
        if request.dry_run:
            what = "dry run, nothing written"
        elif one.published:
            what = "published" if one.changed else "unchanged"
        yield (
            f"{shown(one.output.path)} ({one.output.target}): {what}: {one.records} records for {result.domains} "
            f"domains: {one.exact} exact, {one.wildcards} wildcards, {one.refusals} refusals"
        )
        if whole:
            yield from _losses("widened", one.widened_count, [w.reason for w in one.widened])
            if one.left_out:
                yield f"  {len(one.left_out)} domains left out"
            yield from _losses("unsayable", one.unsayable_count, [u.reason for u in one.unsayable])
        if verbose:
            for widened in one.widened:
                place = _place(widened.file, widened.line)
                yield f"  widened: {shown(widened.key)} for {shown(widened.rule)}: {place}{widened.reason}"
            for left in one.unsayable:
                yield f"  unsayable: {shown(left.rule)}: {_place(left.file, left.line)}{left.reason}"
    if whole and result.approximate:
        yield f"  {result.approximate} rules hang on the sender, the message or an unknown program: accepted"
    if not result.first and (result.gained or result.lost):
        yield f"  since the last publish: {result.gained} recipients gained, {result.lost} lost"
    deferring = [unit for unit in result.units if unit.state is State.DEFERRING]
    passed_over = frozenset(() if verbose else deferring[UNITS_SHOWN:])
    for unit in result.units:
        if unit not in passed_over:
            yield f"  {unit.state}: {shown(unit.path)}: {unit.reason}"
    if passed_over:
        yield f"  and {len(passed_over)} more, {len(deferring)} deferring in all"
    for path, reason in sorted(result.kept.items()):
        yield f"  kept as published: {shown(path)}: {reason}"
    if result.rollback is not None:
        yield f"  {rolled_back(result.rollback)}"
    for held in result.held:
        since = when(held.since)
        names = ", ".join(shown(name) for name in held.sample[:NAMES_SHOWN])
        more = f" ({names}{', ...' if held.count > NAMES_SHOWN else ''})" if names else ""
        domain = shown(held.domain)
        yield f"  held since {since}: {domain}: {held.reason}{more}; release: rcptgen approve {domain}"
    for warning in result.warnings:
        yield f"  warning: {shown(os.fsencode(warning))}"
    if whole:
        yield f"  {result.units_read} sources read, {result.witnesses} witnesses agree, {result.seconds:.2f} s"


def rolled_back(one: Rollback) -> str:
    """Since when, to what and by whom there is a rollback."""
    by = f" by {one.by}" if one.by is not None else ""
    return (
        f"rolled back since {when(one.since)}{by}: nothing that generation {one.number} of {when(one.time)} accepts "
        "is refused, until: rcptgen resume"
    )


def _losses(what: str, count: int, reasons: list[str]) -> Iterator[str]:
    if not count:
        return
    for reason, times in Counter(reasons).most_common(REASONS_SHOWN):
        yield f"  {times} {what}: {reason}"


def _place(file: bytes, line: int) -> str:
    return f"{shown(file)}{f':{line}' if line else ''}: " if file else ""
