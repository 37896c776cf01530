"""What on a host is wrong or wasteful: findings with a place, a code and a sentence.

Each code has a page (pages/*.md): what it means, what to do, and a host on which it is
reported beside one on which it is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from rcptgen.forwards import Forwards
from rcptgen.host import Host
from rcptgen.lint.accepting import accepting
from rcptgen.lint.control import control_files
from rcptgen.lint.domains import control_domains
from rcptgen.lint.forwards import DeadNames, ForwardLines
from rcptgen.lint.homes import homes
from rcptgen.lint.lists import files_of_rules
from rcptgen.lint.pages import Page, Severity, pages
from rcptgen.lint.running import control_files_in_force
from rcptgen.lint.users import users
from rcptgen.qmail.hostfiles import Finding

__all__ = ["Finding", "Page", "Severity", "lint", "pages"]


def lint(host: Host, ignore: Collection[str] = ()) -> Iterator[Finding]:
    """Every finding but those of the codes to `ignore`, one after the other, as the host is gone through.

    The order is that of the checks; within a file that of its lines.
    """
    forwards = Forwards(host)
    lines = ForwardLines(host, forwards)
    checks = (
        control_files(host),
        control_domains(host),
        control_files_in_force(host),
        users(host),
        homes(host, lines),
        accepting(host, DeadNames(forwards, lines)),
        files_of_rules(host),
    )
    for check in checks:
        for found in check:
            if found.code not in ignore:
                yield found
