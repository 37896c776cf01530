"""What the commands share whose findings have codes: a page for each, and one line for each finding."""

from __future__ import annotations

from collections.abc import Mapping

import click

from rcptgen.cli import safe
from rcptgen.codepages import Page, SeverityT
from rcptgen.rules.shown import shown

_STAND = "Both examples stand on this host, and name what is different from it:"

EXPLAIN = click.option(
    "--explain", metavar="CODE", help="Show the page of a code, with a bad and a good example, and nothing else."
)


def page_of(code: str, known: Mapping[str, Page[SeverityT]], document: str) -> Page[SeverityT]:
    """The page of a code, in whatever case; UsageError with all codes, and where they are listed, for another word."""
    page = known.get(code.upper())
    if page is None:
        raise click.UsageError(f"{safe(code)} is no code; {document} lists them: {', '.join(known)}")
    return page


def show_page(page: Page[SeverityT], common: str) -> None:
    """Writes a page, and the host on which its examples stand."""
    click.echo(f"{page.text}\n{_STAND}\n\n```toml\n{common}```")


def head_line(file: bytes, line: int, page: Page[SeverityT], colour: str, text: str) -> str:
    """The place, how bad it is, the code, and what was found."""
    place = f"{shown(file)}:{line}" if line else shown(file)
    return f"{place}: {click.style(f'{page.severity} {page.code}', fg=colour)}: {safe(text)}"
