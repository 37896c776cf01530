"""`rcptgen list`: the rules as text."""

from __future__ import annotations

import json
import os

import click

from rcptgen.cli import Globals
from rcptgen.cli.check import outcome_json
from rcptgen.host import Domain, Host
from rcptgen.policy import Policy
from rcptgen.rules.shown import as_json, shown
from rcptgen.targets.base import rule_text


@click.command("list")
@click.option("--domain", metavar="D", help="Only this domain.")
@click.option("--json", "as_lines", is_flag=True, help="JSON Lines, with the reason and the file of each rule.")
@click.pass_obj
def command(given: Globals, domain: str | None, as_lines: bool) -> int:
    """Write the rules: user@domain, prefix-*@domain, *@domain, refusals with `!` in front."""
    given.need_root()
    with Host.open(given.root, given.config(), look_at_mailboxes=False) as host:
        policy = Policy(host)
        given.tell(policy.troubles)
        domains = policy.domains()
        if domain is not None:
            name = os.fsencode(domain).lower()
            domains = [one for one in domains if one.name == name]
            if not domains:
                click.echo(f"rcptgen: {shown(name)} is no domain of this host", err=True)
                return 1
        for one in domains:
            _list(policy, one, as_lines)
    return 0


def _list(policy: Policy, domain: Domain, as_lines: bool) -> None:
    for rule in policy.shape(domain).table.rules():
        text = rule_text(rule.name, rule.prefix, rule.outcome, domain.name)
        if not as_lines:
            click.echo(shown(text))
            continue
        outcome = rule.outcome if rule.prefix else rule.outcome.at(rule.name)
        members = {**as_json("rule", text), **as_json("domain", domain.name), **as_json("name", rule.name)}
        extra = {"prefix": rule.prefix, "accepted": outcome.accepted}
        click.echo(json.dumps({**members, **extra, **outcome_json(outcome)}))
