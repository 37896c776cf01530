"""How the SMTP servers of a host are set up to use the lists: what works, what is missing, the lines to add.

Nothing of the host is run, written or waited for: scripts and settings are read as text,
programs are searched for the names of variables and files that patches leave in them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from rcptgen.config import Config
from rcptgen.doctor import exim
from rcptgen.doctor.findings import Finding, Lines, Page, Severity, common_text, pages
from rcptgen.doctor.launches import launches
from rcptgen.doctor.lists import Lists
from rcptgen.doctor.others import Others
from rcptgen.doctor.postfix import Postfix
from rcptgen.doctor.qmail import Servers
from rcptgen.doctor.setup import configured
from rcptgen.doctor.sight import Sight
from rcptgen.doctor.vpopmail import Build

__all__ = ["Diagnosis", "Finding", "Lines", "Page", "Severity", "common_text", "doctor", "pages"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, in the order in which the host was gone through, and what could not be looked at."""

    findings: list[Finding]
    failed: dict[bytes, str]

    @property
    def problems(self) -> int:
        """How many of the findings are problems."""
        return sum(pages()[one.code].severity is Severity.PROBLEM for one in self.findings)


def doctor(root: bytes, config: Config, state: bytes | None = None) -> Diagnosis:
    """What there is to say of the host below `root`; `state` is what runs remember, where there is any.

    Raises ConfigurationError for an output whose target or options are not known, and
    SourceFailed where the accounts cannot be read.
    """
    outputs = configured(config)
    with Sight(root, config.qmail) as sight:
        started = [*launches(sight)]
        of_qmail = [one for one in started if not os.path.basename(one.program).startswith((b"qpsmtpd", b"rbldnsd"))]
        seen = Servers(sight, outputs).look(of_qmail)
        seen.take(Postfix(sight, outputs).look())
        seen.take(exim.look(sight, outputs))
        seen.take(Others(sight, outputs).look(started))
        found = Lists(sight, outputs, seen, state).findings()
        found += Build(sight, config.vpopmail).look().findings
        return Diagnosis(found, sight.failed)
