"""Small hosts with the verdicts an administrator expects, asked through both engines.

A case is a table as hosts.Host takes it, and what becomes of addresses: `deliver`, `bounce`,
`defer` or `remote`, and after a blank the kind where that says more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hosts import Host as Laid

from rcptgen.config import Config
from rcptgen.host import Host
from rcptgen.rules.outcome import Outcome

MAIL = "./Mailbox\n"


@dataclass(frozen=True, slots=True)
class Case:
    """One rule: a host, and its answers."""

    name: str
    table: Mapping[str, Any]
    answers: Mapping[str | bytes, str]
    config: Config = field(default_factory=Config)


def said(outcome: Outcome, wanted: str) -> str:
    """The outcome in the words of `wanted`."""
    return f"{outcome.verdict} {outcome.kind}" if " " in wanted else str(outcome.verdict)


def judge(tmp_path: Path, case: Case) -> list[str]:
    """Where decide() or rules() do not give the case's answers."""
    table = {"control/me": "mail.example\n", **case.table}
    laid = Laid(tmp_path / "host", table)
    wanted = {a if isinstance(a, bytes) else a.encode(): answer for a, answer in case.answers.items()}
    wrong = []
    with Host.open(laid.root, case.config) as host:
        for address, answer, decided in zip(wanted, wanted.values(), host.decide_many(list(wanted)), strict=True):
            if said(decided, answer) != answer:
                wrong.append(f"decide({address!r}) is {decided}, should be {answer}")
            local, at, domain = address.rpartition(b"@")
            matched = host.rules(domain).match(local)
            if at and said(matched, answer) != answer:
                wrong.append(f"rules({domain!r}).match({local!r}) is {matched}, should be {answer}")
    return wrong
