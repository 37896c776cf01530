"""`rcptgen query`: what the consumer of a compiled file would answer."""

from __future__ import annotations

import os

import click

from rcptgen.cli import PATH, TARGET, Globals, target_of
from rcptgen.rules.shown import shown


@click.command("query")
@TARGET
@click.argument("file", type=PATH)
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.pass_obj
def command(given: Globals, target: str | None, file: str, addresses: tuple[str, ...]) -> int:
    """Say what the consumer of the compiled FILE answers to each ADDRESS, and by which key.

    Undecided: the consumer asks another checker.  Status 0 when all are accepted, 1 when some are not.
    """
    reader = target_of(given.config(), target, os.fsencode(file)).open(os.fsencode(file))
    refused = False
    try:
        for address in map(os.fsencode, addresses):
            answer = reader.answer(address)
            refused |= not answer.accepted
            key = "no key" if answer.key is None else shown(answer.key)
            said = "accept" if answer.accepted else "undecided" if answer.undecided else "refuse"
            click.echo(f"{said}\t{shown(address)}\t{key}")
    finally:
        reader.close()
    return int(refused)
