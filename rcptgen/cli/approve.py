"""`rcptgen approve`: releases held removals, and publishes."""

from __future__ import annotations

import os

import click

from rcptgen.cli import Globals
from rcptgen.cli.compile_ import perform, requested
from rcptgen.compiler import Request


@click.command("approve")
@click.option(
    "-t",
    "--target",
    "targets",
    metavar="TARGET=PATH",
    multiple=True,
    help="The outputs, where they are not the configured ones.",
)
@click.option(
    "--wait", metavar="SECONDS", type=click.FloatRange(0), default=0.0, help="Wait that long for another run."
)
@click.option("--json", "as_object", is_flag=True, help="One JSON object on stdout.")
@click.argument("domains", metavar="[DOMAIN]...", nargs=-1)
@click.pass_obj
def command(given: Globals, targets: tuple[str, ...], wait: float, as_object: bool, domains: tuple[str, ...]) -> int:
    """Release what the guard holds, of each DOMAIN or of all, and publish.

    What the guard would hold elsewhere stays held.
    """
    given.asking = False
    given.need_root()
    config = given.config()
    if given.state() is None:
        raise click.UsageError("what is held stands in the state directory: with --root, name it with --state")
    request = Request(
        outputs=requested(given, config, targets, dry_run=False),
        state=given.state(),
        approve=frozenset(os.fsencode(one).lower() for one in domains),
        wait=wait,
        reason="approved",
    )
    return perform(given, config, request, as_object=as_object)
