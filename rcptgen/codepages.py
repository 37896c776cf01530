"""The pages of codes: one section of a Markdown file for each, which is all there is to know about it.

    ## C101 warning: an entry begins with a blank

    What the server makes of it, in prose.

    Do: what the administrator is to do.

    Bad:   a TOML block: a small host on which the code is reported
    Good:  the same host, mended

The hosts stand on host.toml beside the pages; what an example names replaces what stands there.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Generic, TypeVar

SeverityT = TypeVar("SeverityT", bound=enum.StrEnum)

_SECTION = re.compile(r"^## (?=[A-Z])", re.MULTILINE)
_HEAD = re.compile(r"([A-Z]\d{3}) ([a-z]+): (.+)")
_ADVICE = re.compile(r"^Do: (.+?)\n\n", re.MULTILINE | re.DOTALL)
_EXAMPLE = re.compile(r"^(Bad|Good):\n\n```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Page(Generic[SeverityT]):
    """One code: its title, what to do, the whole section, and its two hosts as TOML."""

    code: str
    severity: SeverityT
    title: str
    advice: str
    text: str
    bad: str
    good: str


def read_pages(package: str, subjects: Sequence[str], severities: type[SeverityT]) -> dict[str, Page[SeverityT]]:
    """Every page below pages/ of `package` by its code, in the order of the files.  Raises ValueError for a bad one."""
    found: dict[str, Page[SeverityT]] = {}
    for subject in subjects:
        for section in _SECTION.split(text_of(package, f"{subject}.md"))[1:]:
            page = _page(section, severities)
            if page.code in found:
                raise ValueError(f"{subject}.md: {page.code} has two pages")
            found[page.code] = page
    return found


def text_of(package: str, name: str) -> str:
    """A file below pages/ of `package`."""
    return files(package).joinpath("pages", name).read_text("utf-8")


def _page(section: str, severities: type[SeverityT]) -> Page[SeverityT]:
    first = section.partition("\n")[0]
    head, advice = _HEAD.fullmatch(first), _ADVICE.search(section)
    examples = dict(_EXAMPLE.findall(section))
    if head is None or advice is None or examples.keys() != {"Bad", "Good"}:
        raise ValueError(f"not the page of a code: {first}")
    said = " ".join(advice[1].split())
    return Page(head[1], severities(head[2]), head[3], said, section.rstrip() + "\n", examples["Bad"], examples["Good"])
