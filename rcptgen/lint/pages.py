"""The pages of the codes: one section of pages/*.md for each, which is all there is to know about it.

    ## C101 warning: an entry begins with a blank

    What qmail makes of it, in prose.

    Do: what the administrator is to do.

    Bad:   a TOML block: a small host on which the code is reported
    Good:  the same host, mended

The hosts stand on pages/host.toml; what an example names replaces what stands there.
"""

from __future__ import annotations

import enum
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

SUBJECTS = ("control", "domains", "users", "homes", "lines", "vpopmail", "forwards", "acceptance", "lists")
"""The files below pages/, in the order in which `rcptgen lint` goes through the host."""

_SECTION = re.compile(r"^## (?=[A-Z])", re.MULTILINE)
_HEAD = re.compile(r"([A-Z]\d{3}) (error|warning|note): (.+)")
_ADVICE = re.compile(r"^Do: (.+?)\n\n", re.MULTILINE | re.DOTALL)
_EXAMPLE = re.compile(r"^(Bad|Good):\n\n```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Severity(enum.StrEnum):
    """How bad a finding is: an error loses mail or lets in what it should not, a note is nothing but worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Page:
    """One code: its title, what to do, the whole section, and its two hosts as TOML."""

    code: str
    severity: Severity
    title: str
    advice: str
    text: str
    bad: str
    good: str


@cache
def pages() -> dict[str, Page]:
    """Every page by its code, in the order of the files."""
    found: dict[str, Page] = {}
    for subject in SUBJECTS:
        for section in _SECTION.split(_text(f"{subject}.md"))[1:]:
            page = _page(section)
            if page.code in found:
                raise ValueError(f"{subject}.md: {page.code} has two pages")
            found[page.code] = page
    return found


def common_host() -> dict[str, Any]:
    """The host on which all examples stand, as a table of names."""
    return tomllib.loads(common_text())


def common_text() -> str:
    """The same as it is written."""
    return _text("host.toml")


def _text(name: str) -> str:
    return files("rcptgen.lint").joinpath("pages", name).read_text("utf-8")


def _page(section: str) -> Page:
    first = section.partition("\n")[0]
    head, advice = _HEAD.fullmatch(first), _ADVICE.search(section)
    examples = dict(_EXAMPLE.findall(section))
    if head is None or advice is None or examples.keys() != {"Bad", "Good"}:
        raise ValueError(f"not the page of a code: {first}")
    said = " ".join(advice[1].split())
    return Page(head[1], Severity(head[2]), head[3], said, section.rstrip() + "\n", examples["Bad"], examples["Good"])
