"""`rcptgen trigger`: asks a running watch to look now."""

from __future__ import annotations

import os

import click

from rcptgen.cli import Globals, safe
from rcptgen.watch.ask import NotRunning, ask
from rcptgen.watch.trigger import socket_path

PATIENCE = "120"
"""Seconds that a bare `--wait` waits."""


class _Optional(click.Command):
    """`--wait` alone does not take the next word as its value: that is a domain."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        spelled = [f"--wait={PATIENCE}" if one == "--wait" else one for one in args[:end]]
        return super().parse_args(ctx, spelled + args[end:])


@click.command("trigger", cls=_Optional)
@click.option(
    "--wait",
    metavar="[=SECONDS]",
    type=click.FloatRange(0),
    help=f"Return when it is live, at the latest after that long  [without =SECONDS: {PATIENCE}].",
)
@click.argument("domains", metavar="[DOMAIN]...", nargs=-1)
@click.pass_obj
def command(given: Globals, wait: float | None, domains: tuple[str, ...]) -> int:
    """Ask a running watch to look now, at each DOMAIN or at everything.

    Ends at once with 0 when the watch has taken the request; with --wait when what was asked
    for is live, with the watch's own status.  75: no watch is running, or not in time.
    """
    given.asking = False
    path = socket_path(given.root, given.state(), given.config())
    if path is None:
        raise NotRunning("no watch is running: with --root it listens in its state directory; name that with --state")
    reply = ask(path, [os.fsencode(one).lower() for one in domains], wait=wait)
    if reply.text and (reply.status or given.verbose):
        click.echo(f"rcptgen: {safe(reply.text)}", err=True)
    return reply.status
