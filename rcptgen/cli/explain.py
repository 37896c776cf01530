"""`rcptgen explain`: the whole way of one address."""

from __future__ import annotations

import json
import os

import click

from rcptgen.cli import Globals, safe, target_of
from rcptgen.cli.check import outcome_json
from rcptgen.errors import RcptgenError
from rcptgen.host import Host
from rcptgen.policy import Policy
from rcptgen.rules.shown import as_json, shown


@click.command("explain")
@click.option("--json", "as_object", is_flag=True, help="One JSON object.")
@click.argument("address")
@click.pass_obj
def command(given: Globals, as_object: bool, address: str) -> int:
    """Show the way of ADDRESS through the host: control line, owner, files tried, verdict, and the key that answers.

    Status 0 when it is accepted, 1 when it is not.
    """
    given.need_root()
    config = given.config()
    wanted = os.fsencode(address)
    with Host.open(given.root, config) as host:
        trace = host.trace(wanted)
        accepted = Policy(host).judged(wanted, trace.outcome)
    answers = [] if given.root != b"/" else _answers(wanted, given)
    if as_object:
        steps = [{"text": s.text, **as_json("file", s.file), "line": s.line} for s in trace.steps]
        members = {**as_json("address", wanted), **outcome_json(trace.outcome), "accepted": accepted}
        click.echo(json.dumps({**members, "steps": steps, "answers": answers}))
        return int(not accepted)
    for step in trace.steps:
        click.echo(f"  {_place(step.file, step.line)}{safe(step.text)}")
    outcome = trace.outcome
    click.echo(f"  {_place(outcome.file, outcome.line)}{safe(outcome.reason)}")
    click.echo(f"{outcome.verdict} ({outcome.kind}); {'accepted' if accepted else 'refused'}: {shown(wanted)}")
    for one in answers:
        click.echo(f"  {one['path']} ({one['target']}): {one['answer']}")
    return int(not accepted)


def _place(file: bytes, line: int) -> str:
    return f"{shown(file)}{f':{line}' if line else ''}: " if file else ""


def _answers(address: bytes, given: Globals) -> list[dict[str, str]]:
    """What each configured output on this machine answers, and by which key."""
    config = given.config()
    found = []
    for output in config.outputs:
        member = {"target": output.target, "path": shown(os.fsencode(output.path))}
        try:
            reader = target_of(config, None, os.fsencode(output.path)).open(os.fsencode(output.path))
        except RcptgenError as error:
            found.append({**member, "answer": str(error)})
            continue
        try:
            answer = reader.answer(address)
        finally:
            reader.close()
        key = "no key" if answer.key is None else shown(answer.key)
        found.append({**member, "answer": f"{'accepts' if answer.accepted else 'refuses'} by {key}"})
    return found
