"""`rcptgen diff`: what changes for recipients from one list to another."""

from __future__ import annotations

import json
import os
import stat as modes
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import click

from rcptgen.cli import Globals, named, safe, target_of
from rcptgen.cli.check import outcome_json
from rcptgen.config import Config
from rcptgen.diff import NOWHERE, CompiledSide, Difference, HostSide, ListSide, Side, compare, terms
from rcptgen.diff import text as texts
from rcptgen.errors import SourceFailed, UsageTrouble
from rcptgen.rules.cdbwalk import HEADER
from rcptgen.rules.change import Change, Summary, What
from rcptgen.rules.outcome import Kind, Outcome
from rcptgen.rules.shown import as_json, shown
from rcptgen.targets import target_names
from rcptgen.targets.base import Target

BATCH = 500
VERSION = 1
COLOURS = {What.GAINED: "green", What.LOST: "red", What.CHANGED: "yellow", What.HIDDEN: "cyan"}


@click.command("diff")
@click.option("--stat", is_flag=True, help="Only numbers: by domain, and by kind.")
@click.option("--addresses", is_flag=True, help="Only gained (+) and lost (-) addresses and wildcards, one a line.")
@click.option("--json", "as_lines", is_flag=True, help="JSON Lines; with --stat the numbers alone.")
@click.option("--domain", metavar="D", help="Only this domain.")
@click.option(
    "--exit-code/--no-exit-code",
    default=True,
    help="End with 1 where something differs, as diff(1) does, or with 0  [default: --exit-code].",
)
@click.argument("old")
@click.argument("new")
@click.pass_context
def command(
    ctx: click.Context,
    stat: bool,
    addresses: bool,
    as_lines: bool,
    domain: str | None,
    exit_code: bool,
    old: str,
    new: str,
) -> int:
    """Say what changes for recipients from OLD to NEW: who is accepted, and as what.

    Each is a compiled file (TARGET=FILE or TARGET,OPTION=VALUE=FILE where its format is not
    plain), a list as `rcptgen list` writes it (`-` is stdin), or a directory: the host below it,
    `/` is the live one.  Rules are held against a compiled file as its format can say them.
    Status 0 when nothing changes, 1 when something does, 2 for trouble, 75 where a source of a
    host cannot be read.
    """
    given: Globals = ctx.obj
    if addresses and (stat or as_lines):
        raise click.UsageError("--addresses contradicts --stat and --json")
    if old == new == "-":
        raise click.UsageError("only one side can be stdin")
    before, after = _sides(given, old, new)
    wanted = None if domain is None else os.fsencode(domain).lower()
    sides = _Sides(old, new, before, after)
    form: _Form = _Json(sides, stat=stat) if as_lines else _Addresses() if addresses else _Text(ctx, stat=stat)
    places = differing = 0
    whole, told = Summary(), False
    _say(form.head())
    for place in compare(before, after, wanted):
        places += place.place != NOWHERE
        told = True
        counted = Summary()
        _say(form.place(place, counted))
        differing += bool(counted) and place.place != NOWHERE
        whole.include(counted)
    if wanted is not None and not told:
        raise UsageTrouble(f"{shown(wanted)} is in neither of the two")
    _say(form.foot(whole, places, differing))
    if not given.quiet and not as_lines:
        for line in (*sides.notes(), *(() if stat else (texts.total(whole, places, differing),))):
            click.echo(f"rcptgen: {line}", err=True)
    _reliable(given, before, after)
    return int(exit_code and bool(whole))


def _say(lines: Iterator[str]) -> None:
    while some := list(islice(lines, BATCH)):
        click.echo("\n".join(some))


def _reliable(given: Globals, *sides: Side) -> None:
    """Tells what the answer hangs on; raises SourceFailed where a source could not be read."""
    hosts = [side for side in sides if isinstance(side, HostSide)]
    if not given.quiet:
        for warning in (warning for host in hosts for warning in host.warnings):
            click.echo(f"rcptgen: {safe(warning)}", err=True)
    failed = [reason for host in hosts for reason in host.failed]
    if failed:
        said = "\n".join(failed)
        raise SourceFailed(
            f"{said}\nwhat they say is unknown: told was what was published last, or that all is accepted"
        )


# -- what the sides are -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sides:
    """Both sides: as they are spelled, and what they are."""

    old: str
    new: str
    before: Side
    after: Side

    def terms(self) -> tuple[Target | None, Target | None]:
        """What each was lowered for."""
        return terms(self.before, self.after), terms(self.after, self.before)

    def notes(self) -> Iterator[str]:
        """What was lost in that; complete after the last place."""
        for name, side, through in zip(("OLD", "NEW"), (self.before, self.after), self.terms(), strict=True):
            if through is not None and side.lost:
                yield texts.lowered(name, through.name, side.lost)


def _sides(given: Globals, *words: str) -> tuple[Side, Side]:
    """Both sides; files are read with the configuration of the host that they are compared with."""
    hosts = [_host(given, word) for word in words]
    config = next((config for _, config in filter(None, hosts)), None) or given.config()
    old, new = (host[0] if host is not None else _file(word, config) for word, host in zip(words, hosts, strict=True))
    return old, new


def _host(given: Globals, word: str) -> tuple[HostSide, Config] | None:
    """The host below a directory, with its own configuration unless one was named."""
    if not os.path.isdir(word):
        return None
    root = os.path.abspath(os.fsencode(word))
    own = replace(given, root=root, state_path=given.state_path if root == given.root else None)
    own.need_root()
    config = own.config()
    return HostSide(root, config, own.state()), config


def _file(word: str, config: Config) -> Side:
    if word == "-":
        return ListSide(sys.stdin.buffer, "stdin")
    spelled, rest = named(word) or ("", word)
    if spelled.partition(",")[0] not in target_names(config.plugins.targets):
        spelled, rest = "", word
    path = os.fsencode(rest)
    name = spelled or _format(path, config)
    if name is None:
        return ListSide(_lines(path), shown(path))
    return CompiledSide(path, target_of(config, name, path))


def _format(path: bytes, config: Config) -> str | None:
    """The target that the file at `path` was compiled for; None where it is text.

    Raises UsageTrouble for a file without content: it is rather cut off than an empty list.
    """
    for output in config.outputs:
        if os.path.abspath(path) == os.fsencode(output.path):
            return output.target
    try:
        if not modes.S_ISREG(os.stat(path).st_mode):
            return None  # a pipe or a device is read once, from its beginning
        with open(path, "rb") as file:
            head = file.read(HEADER)
    except OSError as error:
        raise UsageTrouble(f"{shown(path)}: {error.strerror}") from None
    if not head:
        raise UsageTrouble(
            f"{shown(path)}: an empty file is neither a compiled file nor a list (/dev/null is an empty list)"
        )
    return "validrcptto" if b"\0" in head else None


def _lines(path: bytes) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            yield from file
    except OSError as error:
        raise UsageTrouble(f"{shown(path)}: {error.strerror}") from None


# -- how it is told -----------------------------------------------------------------------------------


class _Form:
    """One way to tell differences, line by line; `place` counts what it tells."""

    def head(self) -> Iterator[str]:
        return iter(())

    def place(self, found: Difference, counted: Summary) -> Iterator[str]:
        for change in found.changes:
            counted.add(change)
            yield from self.change(change, found.place)

    def change(self, change: Change, place: bytes) -> Iterator[str]:
        return iter(())

    def foot(self, whole: Summary, places: int, differing: int) -> Iterator[str]:
        return iter(())


class _Addresses(_Form):
    def change(self, change: Change, place: bytes) -> Iterator[str]:
        if change.what in (What.GAINED, What.LOST):
            yield texts.SIGNS[change.what] + shown(texts.rule(change.name, change.prefix, place))


class _Text(_Form):
    def __init__(self, ctx: click.Context, *, stat: bool) -> None:
        self._stat = stat
        self._coloured = ctx.color is not False and sys.stdout.isatty()

    def place(self, found: Difference, counted: Summary) -> Iterator[str]:
        told = False
        for line in super().place(found, counted):
            if not told:
                yield texts.title(found.place, had=found.had, has=found.has)
                told = True
            yield line
        if self._stat and counted:
            yield texts.stat(counted, found.place)

    def change(self, change: Change, place: bytes) -> Iterator[str]:
        if not self._stat:
            yield "  " + texts.line(change, place, self._paint)

    def foot(self, whole: Summary, places: int, differing: int) -> Iterator[str]:
        if self._stat:
            yield texts.total(whole, places, differing)
            yield from texts.kinds(whole)

    def _paint(self, text: str, what: What) -> str:
        return click.style(text, fg=COLOURS[what]) if self._coloured else text


class _Json(_Form):
    def __init__(self, sides: _Sides, *, stat: bool) -> None:
        self._stat = stat
        self._sides = sides

    def head(self) -> Iterator[str]:
        sides = {**as_json("old", os.fsencode(self._sides.old)), **as_json("new", os.fsencode(self._sides.new))}
        old, new = (None if through is None else through.name for through in self._sides.terms())
        yield json.dumps({"version": VERSION, **sides, "old_as": old, "new_as": new})

    def place(self, found: Difference, counted: Summary) -> Iterator[str]:
        yield from super().place(found, counted)
        if self._stat and counted:
            domain = {"domain": None} if found.place == NOWHERE else as_json("domain", found.place[1:])
            yield json.dumps({**domain, "in_old": found.had, "in_new": found.has, **counted.members()})

    def change(self, change: Change, place: bytes) -> Iterator[str]:
        if self._stat:
            return
        address = texts.rule(change.name, change.prefix, place)
        hides = {"hides": None} if change.hides is None else as_json("hides", texts.rule(change.hides, True, place))
        members: dict[str, Any] = {"change": change.what.value, **_address(change.name, change.prefix, place)}
        yield json.dumps(
            {
                **members,
                "old": _outcome(change.old),
                "new": _outcome(change.new),
                **hides,
                "covers": len(change.swallows),
            }
        )
        spared = [(name, True) for name in change.spares.prefixes]
        for name, prefix in (*spared, *((name, False) for name in change.spares.names)):
            yield json.dumps({"change": "spared", **_address(name, prefix, place), **as_json("under", address)})

    def foot(self, whole: Summary, places: int, differing: int) -> Iterator[str]:
        lowered = {"old": asdict(self._sides.before.lost), "new": asdict(self._sides.after.lost)}
        numbers = {"domains": places, "differing": differing, "summary": whole.members()}
        yield json.dumps({**numbers, "lowered": lowered})


def _address(name: bytes, prefix: bool, place: bytes) -> dict[str, Any]:
    domain = {"domain": None} if place == NOWHERE else as_json("domain", place[1:])
    return {**as_json("address", texts.rule(name, prefix, place)), **domain, **as_json("name", name), "prefix": prefix}


def _outcome(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    members = outcome_json(outcome)
    return {**members, "kind": None} if outcome.kind is Kind.UNKNOWN else members
