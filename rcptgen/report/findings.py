"""What lint finds, gathered by code: a host may have a million findings."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field

from rcptgen.config import Config
from rcptgen.host import Host
from rcptgen.lint import Finding, Page, Severity, lint, pages
from rcptgen.reader import Report, State

EXAMPLES = 5

_ORDER = list(Severity)


@dataclass(slots=True)
class OfCode:
    """All findings of one code; `some` are the first."""

    page: Page
    count: int = 0
    some: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class Findings:
    """What lint found, the worst first, and the sources that it could not look at."""

    codes: list[OfCode] = field(default_factory=list)
    counts: Counter[Severity] = field(default_factory=Counter)
    failed: list[Report] = field(default_factory=list)


def find(root: str | bytes | os.PathLike[str], config: Config, workers: int) -> Findings:
    """Lints the host below `root`.  Raises what Host.open raises."""
    known = pages()
    by_code: dict[str, OfCode] = {}
    found = Findings()
    with Host.open(root, config, look_at_mailboxes=False, workers=workers) as host:
        for one in lint(host):
            page = known[one.code]
            of_code = by_code.setdefault(one.code, OfCode(page))
            of_code.count += 1
            if len(of_code.some) < EXAMPLES:
                of_code.some.append(one)
            found.counts[page.severity] += 1
        found.failed = [one for one in host.units.unhealthy() if one.state is State.FAILED]
    found.codes = sorted(by_code.values(), key=lambda one: (_ORDER.index(one.page.severity), one.page.code))
    return found
