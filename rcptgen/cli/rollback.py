"""`rcptgen rollback`: what an earlier generation accepted is accepted again."""

from __future__ import annotations

import click

from rcptgen.cli import Globals
from rcptgen.cli.compile_ import dry_run_option, json_option, ordered, perform, targets_option, wait_option
from rcptgen.rollback import roll_back


@click.command("rollback")
@targets_option
@dry_run_option
@click.option("--force", is_flag=True, help="Overwrite files that were replaced by hand; ask no canaries.")
@wait_option
@json_option
@click.argument("number", metavar="[N]", type=click.IntRange(1), required=False)
@click.pass_obj
def command(
    given: Globals,
    targets: tuple[str, ...],
    dry_run: bool,
    force: bool,
    wait: float,
    as_object: bool,
    number: int | None,
) -> int:
    """Publish all that generation N accepted besides what is published, and keep it until `resume`.

    Without N the last generation with another list.  Compiles go on: additions go out,
    nothing that generation N accepts goes, and they end with status 3.  The host is not read.
    """
    config, request = ordered(given, targets, "rollback", "the history stands", dry_run=dry_run, force=force, wait=wait)
    return perform(given, request, lambda progress: roll_back(config, request, number), as_object=as_object)
