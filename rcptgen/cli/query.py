"""`rcptgen query`: what the consumer of a compiled file would answer."""

from __future__ import annotations

import os

import click

from rcptgen.cli import PATH, Globals
from rcptgen.rules.shown import shown
from rcptgen.targets import target as target_called
from rcptgen.targets import target_names


@click.command("query")
@click.option("--target", default="validrcptto", type=click.Choice(target_names()), help="The file's format.")
@click.argument("file", type=PATH)
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.pass_obj
def command(given: Globals, target: str, file: str, addresses: tuple[str, ...]) -> int:
    """Say what the consumer of the compiled FILE answers to each ADDRESS, and by which key.

    Status 0 when all are accepted, 1 when some are refused.
    """
    reader = target_called(target, break_=given.config().qmail.break_.encode()).open(os.fsencode(file))
    refused = False
    try:
        for address in map(os.fsencode, addresses):
            answer = reader.answer(address)
            refused |= not answer.accepted
            key = "no key" if answer.key is None else shown(answer.key)
            click.echo(f"{'accept' if answer.accepted else 'refuse'}\t{shown(address)}\t{key}")
    finally:
        reader.close()
    return int(refused)
