"""`rcptgen dump`: what a compiled file holds."""

from __future__ import annotations

import os

import click

from rcptgen.cli import PATH, TARGET, Globals, target_of
from rcptgen.rules.shown import shown


@click.command("dump")
@TARGET
@click.argument("file", type=PATH)
@click.pass_obj
def command(given: Globals, target: str | None, file: str) -> int:
    """Write every rule in the compiled FILE, in its order, as `list` writes rules."""
    reader = target_of(given.config(), target, os.fsencode(file)).open(os.fsencode(file))
    try:
        for line in reader.lines():
            click.echo(shown(line.text))
    finally:
        reader.close()
    return 0
