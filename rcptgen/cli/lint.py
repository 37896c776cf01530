"""`rcptgen lint`: what is wrong or wasteful on the host, and what to do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import click

from rcptgen.cli import Globals, safe
from rcptgen.cli.codes import EXPLAIN, head_line, page_of, show_page
from rcptgen.cli.compile_ import rolled_back
from rcptgen.compiler import workers
from rcptgen.errors import UsageTrouble
from rcptgen.generations import History
from rcptgen.hooks import rollback_json
from rcptgen.host import Host
from rcptgen.lint import Finding, Page, Severity, lint, pages
from rcptgen.lint.pages import common_text
from rcptgen.publish.history import Rollback
from rcptgen.reader import State
from rcptgen.rules.shown import as_json, shown

DOCUMENT = "docs/lint.md"
MOST_OF_ONE = 100
"""Findings of one code that are told one by one to a person."""

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


@click.command("lint")
@click.option("--json", "as_object", is_flag=True, help="One JSON object.")
@click.option("--ignore", metavar="CODE", multiple=True, help="Leave out what has this code; may be given again.")
@EXPLAIN
@click.pass_obj
def command(given: Globals, as_object: bool, ignore: tuple[str, ...], explain: str | None) -> int:
    """Say what is wrong or wasteful on the host: file and line, a code, and what to do.

    Status 1 when there are errors, 0 when there are none, 2 when something could not be looked at.
    """
    known = pages()
    if explain is not None:
        show_page(page_of(explain, known, DOCUMENT), common_text())
        return 0
    ignored = {page_of(code, known, DOCUMENT).code for code in ignore}
    given.need_root()
    counts: Counter[Severity] = Counter()
    rollback = _rollback(given.state())
    with Host.open(given.root, given.config(), look_at_mailboxes=False, workers=workers()) as host:
        found = _counted(lint(host, ignored), known, counts)
        if as_object:
            _as_object(found, known, counts, rollback)
        else:
            _as_text(found, known, counts, quiet=given.quiet)
        failed = [one for one in host.units.unhealthy() if one.state is State.FAILED]
    if rollback is not None and not as_object:
        click.echo(f"rcptgen: {safe(rolled_back(rollback))}", err=True)
    for one in failed:
        click.echo(f"rcptgen: {shown(one.path)}: not looked at: {safe(one.reason)}", err=True)
    return UsageTrouble.status if failed else int(counts[Severity.ERROR] > 0)


def _rollback(state: bytes | None) -> Rollback | None:
    """The rollback that is in force: until it ends, what the findings are about changes less than one would expect."""
    if state is None:
        return None
    with History.open(state) as history:
        return history.rollback


def _counted(findings: Iterator[Finding], known: dict[str, Page], counts: Counter[Severity]) -> Iterator[Finding]:
    for one in findings:
        counts[known[one.code].severity] += 1
        yield one


def _as_text(findings: Iterator[Finding], known: dict[str, Page], counts: Counter[Severity], *, quiet: bool) -> None:
    told: Counter[str] = Counter()
    for one in findings:
        page = known[one.code]
        told[one.code] += 1
        if told[one.code] > MOST_OF_ONE:
            continue
        head = head_line(one.file, one.line, page, _COLOURS[page.severity], one.text)
        click.echo(f"{head}\n    {page.advice}")
    for code, number in told.items():
        if number > MOST_OF_ONE:
            click.echo(f"and {number - MOST_OF_ONE} more of {code}: {known[code].title} (--json tells them all)")
    if not quiet:
        summary = ", ".join(f"{counts[one]} {one}{'' if counts[one] == 1 else 's'}" for one in Severity)
        click.echo(f"rcptgen: {summary}", err=True)


def _as_object(
    findings: Iterator[Finding], known: dict[str, Page], counts: Counter[Severity], rollback: Rollback | None
) -> None:
    """One object, written as it is found: a host may have a million findings."""
    between = '{"version": 1, "findings": ['
    for one in findings:
        click.echo(between + json.dumps(_members(one, known[one.code])), nl=False)
        between = ", "
    start = between if between != ", " else ""
    rest = {"counts": {str(s): counts[s] for s in Severity}, "rollback": rollback_json(rollback)}
    click.echo(f"{start}], {json.dumps(rest)[1:]}")


def _members(one: Finding, page: Page) -> dict[str, object]:
    place = {**as_json("file", one.file), "line": one.line}
    return {"code": one.code, "severity": str(page.severity), **place, "text": safe(one.text), "advice": page.advice}
