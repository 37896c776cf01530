"""`rcptgen explain`: the whole way of one address."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

import click

from rcptgen.cli import Globals, safe
from rcptgen.cli.check import outcome_json
from rcptgen.cli.compile_ import asked_for, configured
from rcptgen.explain import Explained, FileAnswer, Followed, Match, answers, explain, follow, held_since
from rcptgen.forwards import DEAD, Forwards
from rcptgen.host import Host
from rcptgen.policy import Policy
from rcptgen.qmail.judged import Step
from rcptgen.rules.shown import as_json, shown
from rcptgen.targets import target_names


@click.command("explain")
@click.option("--follow", "following", is_flag=True, help="Follow forwards over this host to their end.")
@click.option(
    "-t",
    "--target",
    "targets",
    metavar="TARGET=PATH",
    multiple=True,
    help="Ask this file instead of the configured outputs.",
)
@click.option("--json", "as_object", is_flag=True, help="One JSON object.")
@click.argument("address")
@click.pass_obj
def command(given: Globals, following: bool, targets: tuple[str, ...], as_object: bool, address: str) -> int:
    """Show the way of ADDRESS: control line, owner, files tried, lines run, policy, and the keys that answer.

    Status 0 when it is accepted, 1 when it is not.
    """
    given.need_root()
    config = given.config()
    asked = asked_for(targets)
    if not asked and given.root == b"/":
        asked = [*configured(config)]
    known = target_names(config.plugins.targets)
    for one in asked:
        if one.target not in known:
            name = shown(os.fsencode(one.target))
            raise click.UsageError(f"no target is called {name!r}; known are {', '.join(known)}")
    with Host.open(given.root, config) as host:
        policy = Policy(host)
        given.tell(policy.troubles)
        first = explain(host, policy, os.fsencode(address))
        found = answers(policy, first, asked, held_since(given.state()) if asked else {})
        behind = follow(host, policy, first) if following else ()
        forwards = Forwards(host) if following else None
        dead = forwards is not None and not first.lead.bounces and forwards.is_dead(first.address)
        if as_object:
            more = {"dead": dead, "followed": [_followed(one) for one in behind]} if following else {}
            members = {"version": 1, **_members(first), **more, "answers": [_answer(one) for one in found]}
            click.echo(json.dumps(members))
        else:
            _write(first, behind, found, dead=dead)
    return int(not first.accepted)


# -- JSON -----------------------------------------------------------------------------------


def _members(one: Explained) -> dict[str, Any]:
    outcome = one.trace.outcome
    return {
        **as_json("address", one.address),
        **outcome_json(outcome),
        "approximate": outcome.approximate,
        "accepted": one.accepted,
        "policy": one.policy,
        "steps": [_step(step) for step in one.trace.steps],
        "forwards": [
            {**as_json("address", each.address), **as_json("file", each.file), "line": each.line}
            for each in one.lead.forwards
        ],
        "other": one.lead.other,
    }


def _step(one: Step) -> dict[str, Any]:
    place = {**as_json("file", one.file), "line": one.line, **as_json("quoted", one.quoted)}
    return {"text": safe(one.text), "found": one.found, **place}


def _followed(one: Followed) -> dict[str, Any]:
    loop = [as_json("address", each) for each in one.loop]
    told = as_json("address", one.address) if one.explained is None else _members(one.explained)
    return {"depth": one.depth, **told, "note": one.note, "loop": loop}


def _answer(one: FileAnswer) -> dict[str, Any]:
    key = as_json("key", one.answer.key) if one.answer is not None and one.answer.key is not None else {"key": None}
    return {
        "target": one.output.target,
        **as_json("path", one.output.path),
        "accepted": None if one.answer is None else one.answer.accepted,
        **key,
        "match": one.match.value,
        "standing": one.standing.value,
        "why": safe(one.why),
    }


# -- text -----------------------------------------------------------------------------------


def _write(first: Explained, behind: Iterable[Followed], found: Sequence[FileAnswer], *, dead: bool) -> None:
    _explained(first, "")
    for one in behind:
        indent = "    " * one.depth
        if one.explained is not None:
            click.echo(f"{indent}-> {shown(one.address)}")
            _explained(one.explained, indent)
        elif one.loop:
            click.echo(f"{indent}{' -> '.join(map(shown, one.loop))}: {one.note}")
        else:
            click.echo(f"{indent}{shown(one.address)}: {one.note}")
    if dead:
        click.echo(f"{shown(first.address)}: {DEAD}")
    for answer in found:
        click.echo(f"{shown(answer.output.path)} ({answer.output.target}): {_said(answer)}")


def _explained(one: Explained, indent: str) -> None:
    """Writes one way; behind a forward (`indent` is not empty) nobody asks what SMTP would accept."""
    for step in one.trace.steps:
        line = f"{indent}  {_place(step.file, step.line)}{safe(step.text)}"
        click.echo(line if step.found else click.style(line, dim=True))
        if step.quoted:
            click.echo(f"{indent}      | {shown(step.quoted)}")
    outcome = one.trace.outcome
    said = "" if indent else "; accepted" if one.accepted else "; refused"
    click.echo(f"{indent}{outcome.verdict} ({outcome.kind}){said}: {shown(one.address)}")
    if one.policy and not indent:
        click.echo(f"  policy: {one.policy}")


def _place(file: bytes, line: int) -> str:
    return f"{shown(file)}{f':{line}' if line else ''}: " if file else ""


def _said(one: FileAnswer) -> str:
    if one.answer is None:
        return safe(one.why)
    does = "accepts" if one.answer.accepted else "refuses"
    if one.match is Match.NONE:
        by = "no key of the address, of a prefix or of its domain"
    else:
        name = "key" if one.match is Match.CATCHALL else f"{one.match} key"
        by = f"by the {'catch-all ' if one.match is Match.CATCHALL else ''}{name} {shown(one.answer.key or b'')}"
    why = f": {safe(one.why)}" if one.why else ""
    return f"{does}, {by}; {one.standing}{why}"
