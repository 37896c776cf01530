"""`rcptgen resume`: ends a rollback."""

from __future__ import annotations

import click

from rcptgen.cli import Globals
from rcptgen.cli.compile_ import compiled, json_option, memorable, requested, targets_option, wait_option
from rcptgen.cli.who import who
from rcptgen.request import Request


@click.command("resume")
@targets_option
@click.option("--dry-run", is_flag=True, help="Build and verify, publish nothing.")
@wait_option
@json_option
@click.pass_obj
def command(given: Globals, targets: tuple[str, ...], dry_run: bool, wait: float, as_object: bool) -> int:
    """End a rollback: read the host, and publish it as if there had been none.

    What only the rollback had kept goes; what the host itself has lost is guarded as ever.
    """
    given.asking = False
    given.need_root()
    config = given.config()
    state = memorable(given, "the rollback stands")
    request = Request(
        outputs=requested(given, config, targets, dry_run=dry_run),
        state=state,
        dry_run=dry_run,
        resume=True,
        wait=wait,
        reason="resume",
        by=who(),
    )
    return compiled(given, config, request, as_object=as_object)
