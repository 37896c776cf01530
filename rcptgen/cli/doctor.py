"""`rcptgen doctor`: how the SMTP server here is set up to use the list, and what is missing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

import click

from rcptgen.cli import Globals, safe
from rcptgen.cli.codes import EXPLAIN, head_line, page_of, show_page
from rcptgen.doctor import Diagnosis, Finding, Lines, Page, Severity, common_text, doctor, pages
from rcptgen.errors import UsageTrouble
from rcptgen.rules.shown import as_json, shown

_COLOURS = {Severity.OK: "green", Severity.HINT: "cyan", Severity.PROBLEM: "red"}


@click.command("doctor")
@click.option("--json", "as_object", is_flag=True, help="One JSON object.")
@EXPLAIN
@click.pass_obj
def command(given: Globals, as_object: bool, explain: str | None) -> int:
    """Say how the SMTP servers here are set up to use the lists, what is missing, and the exact lines to add.

    Scripts and settings are read as text; nothing of the host is run.  Status 0 when all is well, 1 when there are
    problems, 2 when something could not be looked at.
    """
    known = pages()
    if explain is not None:
        show_page(page_of(explain, known, "docs/doctor.md"), common_text())
        return 0
    given.need_root()
    found = doctor(given.root, given.config(), given.state())
    if as_object:
        click.echo(json.dumps(_object(found, known)))
    else:
        _as_text(found.findings, known, quiet=given.quiet)
    for path, why in found.failed.items():
        click.echo(f"rcptgen: {shown(path)}: not looked at: {safe(why)}", err=True)
    return UsageTrouble.status if found.failed else int(found.problems > 0)


def _counts(findings: Iterable[Finding], known: dict[str, Page]) -> dict[str, int]:
    counts = Counter(known[one.code].severity for one in findings)
    return {str(severity): counts[severity] for severity in Severity}


# -- JSON -----------------------------------------------------------------------------------


def _object(found: Diagnosis, known: dict[str, Page]) -> dict[str, object]:
    return {
        "version": 1,
        "findings": [_members(one, known[one.code]) for one in found.findings],
        "counts": _counts(found.findings, known),
        "failed": [{**as_json("path", path), "reason": safe(why)} for path, why in found.failed.items()],
    }


def _members(one: Finding, page: Page) -> dict[str, object]:
    place = {**as_json("file", one.file), "line": one.line}
    return {
        "code": one.code,
        "severity": str(page.severity),
        **place,
        "text": one.text,
        "advice": page.advice,
        "add": [_added(lines) for lines in one.add],
    }


def _added(one: Lines) -> dict[str, object]:
    where: dict[str, object] = {**as_json("file", one.file)} if one.file else {"file": None}
    return {**where, "where": one.where, "lines": [as_json("line", line) for line in one.lines]}


# -- text -----------------------------------------------------------------------------------


def _as_text(findings: Iterable[Finding], known: dict[str, Page], *, quiet: bool) -> None:
    told = [*findings]
    for one in told:
        page = known[one.code]
        if quiet and page.severity is not Severity.PROBLEM:
            continue
        click.echo(head_line(one.file, one.line, page, _COLOURS[page.severity], one.text))
        if page.severity is not Severity.OK:
            click.echo(f"    {page.advice}")
        for lines in one.add:
            click.echo(f"    {_where(lines)}")
            for line in lines.lines:
                click.echo(f"        {shown(line)}")
    if not quiet:
        counts = _counts(told, known)
        plural = {name: name if number == 1 or name == "ok" else f"{name}s" for name, number in counts.items()}
        click.echo("rcptgen: " + ", ".join(f"{number} {plural[name]}" for name, number in counts.items()), err=True)


def _where(lines: Lines) -> str:
    if not lines.file:
        return f"to add, {lines.where}:" if lines.where else "to run, as root:"
    return f"to add to {shown(lines.file)}{', ' + lines.where if lines.where else ''}:"
