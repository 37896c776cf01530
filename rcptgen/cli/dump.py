"""`rcptgen dump`: what a compiled file holds."""

from __future__ import annotations

import os

import click

from rcptgen.cli import PATH, Globals
from rcptgen.rules.shown import shown
from rcptgen.targets import target as target_called
from rcptgen.targets import target_names


@click.command("dump")
@click.option("--target", default="validrcptto", type=click.Choice(target_names()), help="The file's format.")
@click.argument("file", type=PATH)
@click.pass_obj
def command(given: Globals, target: str, file: str) -> int:
    """Write every rule in the compiled FILE, in its order, as `list` writes rules."""
    reader = target_called(target, break_=given.config().qmail.break_.encode()).open(os.fsencode(file))
    try:
        for line in reader.lines():
            click.echo(shown(line.text))
    finally:
        reader.close()
    return 0
