"""`rcptgen report`: one page that a person reads instead of a log."""

from __future__ import annotations

import gc
import os

import click

from rcptgen import report
from rcptgen.cli import PATH, Globals, safe
from rcptgen.cli.compile_ import progressing, requested, targets_option
from rcptgen.errors import ConfigurationError, UsageTrouble
from rcptgen.reader import SELDOM, State
from rcptgen.report import Contents, gather, require
from rcptgen.request import Request


def _mode(ctx: click.Context, option: click.Parameter, value: str) -> int:
    """Permissions as chmod takes them."""
    try:
        mode = int(value, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777 or not mode & 0o400:
        raise click.BadParameter("not an octal mode such as 0640, with which its owner may read the file")
    return mode


@click.command("report")
@click.option("--html", metavar="FILE", type=PATH, required=True, help="The page; replaced as a whole.")
@targets_option
@click.option("--no-lint", is_flag=True, help="Leave out what lint finds: it takes twice the time of the rest.")
@click.option(
    "--mode", metavar="MODE", default="0600", callback=_mode, help="Permissions of the page  [default: 0600]."
)
@click.pass_obj
def command(given: Globals, html: str, targets: tuple[str, ...], no_lint: bool, mode: int) -> int:
    """Write a page on the recipients of the host, their history, and what a person should look at.

    Compiles without publishing anything.  Status 78 when a person must decide before anything
    can be compiled (the page says what), 2 when a source could not be read.
    """
    require()
    given.need_root()
    config = given.config()
    request = Request(outputs=requested(given, config, targets, dry_run=True), state=given.state(), dry_run=True)
    gc.set_threshold(*SELDOM)
    with progressing(given) as progress:
        contents = gather(given.root, config, request, lint=not no_lint, progress=progress)
    for warning in report.write(os.path.abspath(os.fsencode(html)), contents, mode):
        if not given.quiet:
            click.echo(f"rcptgen: {safe(warning)}", err=True)
    return _status(contents)


def _status(contents: Contents) -> int:
    if contents.result.status == ConfigurationError.status:
        return ConfigurationError.status
    failed = any(one.state is State.FAILED for one in contents.result.units)
    not_looked_at = contents.findings is not None and contents.findings.failed
    return UsageTrouble.status if failed or contents.result.kept or not_looked_at else 0
