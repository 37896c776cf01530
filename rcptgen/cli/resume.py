"""`rcptgen resume`: ends a rollback."""

from __future__ import annotations

import click

from rcptgen.cli import Globals
from rcptgen.cli.compile_ import compiled, dry_run_option, json_option, ordered, targets_option, wait_option


@click.command("resume")
@targets_option
@dry_run_option
@wait_option
@json_option
@click.pass_obj
def command(given: Globals, targets: tuple[str, ...], dry_run: bool, wait: float, as_object: bool) -> int:
    """End a rollback: read the host, and publish it as if there had been none.

    What only the rollback had kept goes; what the host itself has lost is guarded as ever.
    """
    config, request = ordered(given, targets, "resume", "the rollback stands", dry_run=dry_run, resume=True, wait=wait)
    return compiled(given, config, request, as_object=as_object)
