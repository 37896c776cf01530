"""Hosts for `rcptgen doctor`, laid down on the host of its pages, and what it says of them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hosts import Host, Thing
from lintpages import thing
from runs import Run, called

from rcptgen.config import Qmail
from rcptgen.doctor import common_text
from rcptgen.doctor.sight import Sight

RUN = "/service/qmail-smtpd/run"
EXEC = "exec setuidgid qmaild tcpserver 0 25 /var/qmail/bin/qmail-smtpd\n"


def host(root: Path, names: Mapping[str, Thing | None] | None = None) -> Host:
    """The host of the pages with `names` in place of what stands there."""
    common = {name: thing(name, what) for name, what in tomllib.loads(common_text()).items()}
    return Host(root, {**common, **(names or {})})


def doctor(root: Path, *options: str) -> Run:
    """`rcptgen doctor --json` on the host below `root`."""
    return called("--root", root, *options, "doctor", "--json")


def codes(done: Run) -> list[str]:
    """The codes of the findings, in their order; that there is a qmail-smtpd (Q100) goes without saying."""
    return [one["code"] for one in done.json["findings"] if one["code"] != "Q100"]


def finding(done: Run, code: str) -> dict[str, Any]:
    """The one finding with a code."""
    (found,) = (one for one in done.json["findings"] if one["code"] == code)
    assert isinstance(found, dict)
    return found


def added(one: dict[str, Any]) -> list[str]:
    """The lines that a finding wants added."""
    return [line["line"] for lines in one["add"] for line in lines["lines"]]


@contextmanager
def looking(root: Path) -> Iterator[Sight]:
    """A look at the host below `root`."""
    with Sight(bytes(root), Qmail()) as sight:
        yield sight
