"""The pages of lint's codes (pages/*.md); see rcptgen.codepages for what a page is."""

from __future__ import annotations

import enum
import tomllib
from functools import cache
from typing import Any

from rcptgen import codepages

SUBJECTS = ("control", "domains", "users", "homes", "lines", "vpopmail", "forwards", "acceptance", "lists")
"""The files below pages/, in the order in which `rcptgen lint` goes through the host."""


class Severity(enum.StrEnum):
    """How bad a finding is: an error loses mail or lets in what it should not, a note is nothing but worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


Page = codepages.Page[Severity]


@cache
def pages() -> dict[str, Page]:
    """Every page by its code, in the order of the files."""
    return codepages.read_pages("rcptgen.lint", SUBJECTS, Severity)


def common_host() -> dict[str, Any]:
    """The host on which all examples stand, as a table of names."""
    return tomllib.loads(common_text())


def common_text() -> str:
    """The same as it is written."""
    return codepages.text_of("rcptgen.lint", "host.toml")
