"""`rcptgen verify`: proves a compiled file against the host."""

from __future__ import annotations

import os

import click

from rcptgen.cli import PATH, TARGET, Globals, target_of
from rcptgen.errors import SourceFailed
from rcptgen.host import Host
from rcptgen.policy import Policy
from rcptgen.reader import State
from rcptgen.rules.shown import shown
from rcptgen.targets.base import Line, Widened
from rcptgen.targets.witness import Proof, explained

MOST_SHOWN = 20


@click.command("verify")
@TARGET
@click.option("--full", is_flag=True, help="Ask at every rule, not at a sample of a large host's.")
@click.argument("file", type=PATH)
@click.pass_obj
def command(given: Globals, target: str | None, full: bool, file: str) -> int:
    """Ask the compiled FILE for addresses at the boundary of every rule of the host.

    And for everything that stands in it.  Status 0 when it refuses none that is accepted, and
    accepts no other than the format makes it.
    """
    given.need_root()
    config = given.config()
    chosen = target_of(config, target, os.fsencode(file))
    reader = chosen.open(os.fsencode(file))
    proof = Proof(full=full)
    widened: list[Widened] = []
    left_out: set[bytes] = set()
    lines: dict[bytes, list[Line]] = {}
    try:
        for line in reader.lines():
            if line.domain is not None:
                lines.setdefault(line.domain.lower(), []).append(line)
        with Host.open(given.root, config, look_at_mailboxes=False) as host:
            policy = Policy(host)
            for domain in policy.domains():
                shaped = policy.shape(domain)
                proof.add(domain.name, shaped.table)
                proof.add_lines(domain.name, shaped.table, lines.pop(domain.name, ()))
                lowered = chosen.lower(domain.name, shaped.table)
                widened += lowered.widened
                if lowered.left_out:
                    left_out.add(domain.name)
            failed = [one for one in host.units.unhealthy() if one.state in (State.FAILED, State.SUSPECT)]
            if failed:
                said = "\n".join(f"{shown(one.path)}: {one.reason}" for one in failed)
                raise SourceFailed(f"{said}\nnothing can be proved while that is so")
        for name, left in lines.items():
            proof.add_lines(name, None, left)
        refused, accepted = proof.check(reader, chosen.sayable, left_out)
    finally:
        reader.close()
    for one in refused[:MOST_SHOWN]:
        click.echo(f"refused\t{shown(one.address)}\tthe host accepts it")
    known, unexplained = explained(accepted, widened)
    reasons = {one.key: one.reason for one in widened}
    for one in unexplained[:MOST_SHOWN]:
        click.echo(f"accepted\t{shown(one.address)}\tthe host refuses it")
    for one in known if given.verbose else ():
        click.echo(f"accepted\t{shown(one.address)}\t{reasons.get(one.key or b'', one.step)}")
    if not given.quiet:
        click.echo(
            f"{len(proof)} addresses asked: {len(refused)} false refusals, {len(unexplained)} false acceptances, "
            f"{len(known)} acceptances that the format cannot avoid",
            err=True,
        )
    return int(bool(refused or unexplained))
