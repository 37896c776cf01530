"""csv: a table for people, spreadsheets and programs of their own; a header, then one rule a line.

    name,kind of rule,domain,action,what it is

`rule` is `exact`, `prefix` (every name that begins with it) or `domain`.  Lossless: the most
specific rule decides, an exact name before the longest prefix before the domain.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from rcptgen.rules.outcome import Outcome
from rcptgen.targets.files import Record
from rcptgen.targets.formats import TextFormat
from rcptgen.targets.stated import EXACT, PREFIX, Stated

_PLAIN = re.compile(rb"^=([A-Za-z0-9._+-]+)@([A-Za-z0-9.-]+)$", re.MULTILINE)
_ALL_PLAIN = re.compile(rb"(?:=[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+\n)+")


class Rules(Stated, TextFormat):
    """Base of the texts that state the rules."""

    def accepts(self, value: bytes) -> bool:
        """Whether the action is `accept`."""
        return value.startswith(b"accept")

    def value(self, outcome: Outcome) -> bytes:
        """The action and the kind of a rule."""
        return (b"accept," if outcome.accepted else b"refuse,") + outcome.kind.value.encode()


def parted(key: bytes) -> tuple[bytes, str, bytes]:
    """The name, the sort of rule and the domain (empty: none) of an inner key."""
    local, at, domain = key[1:].rpartition(b"@")
    if not at:
        return domain, "exact", b""
    sort = "exact" if key.startswith(EXACT) else "prefix" if local else "domain"
    return local, sort, domain


def joined(name: bytes, sort: str, domain: bytes) -> bytes:
    """The inner key of a name, a sort of rule and a domain.  Raises ValueError for another sort."""
    if sort not in ("exact", "prefix", "domain"):
        raise ValueError(f"no sort of rule is called {sort!r}")
    mark = EXACT if sort == "exact" else PREFIX
    return mark + name + b"@" + domain if domain else mark + name


def plainly(keys: Sequence[bytes], template: bytes) -> bytes | None:
    """A line for each key, where none needs an escape: `template` has \\1 for the name and \\2 for the domain.

    None: some do, or are no single names.  A million names are not taken apart one by one.
    """
    text = b"\n".join(keys) + b"\n"
    return _PLAIN.sub(template, text) if _ALL_PLAIN.fullmatch(text) else None


class Csv(Rules):
    """Rules as comma-separated values, in UTF-8."""

    name = "csv"
    head = b"name,rule,domain,action,kind\r\n"
    # A byte that is no printable character would be read as a break of the line, or as nothing.
    bad = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f-\xff]")
    bad_domain = re.compile(rb"[\x00-\x1f\x7f-\xff]")

    def render(self, keys: Sequence[bytes], value: bytes) -> bytes:
        """One line for each key."""
        lines = plainly(keys, rb"\1,exact,\2," + value + b"\r")
        if lines is not None:
            return lines
        action, _, kind = value.decode("ascii").partition(",")
        text = io.StringIO()
        rows = csv.writer(text)
        for key in keys:
            name, sort, domain = parted(key)
            rows.writerow((name.decode("ascii"), sort, domain.decode("ascii"), action, kind))
        return text.getvalue().encode("ascii")

    def parse(self, line: bytes) -> Record | None:
        """The rule that a line states."""
        try:
            name, sort, domain, action, kind = next(csv.reader([line.rstrip(b"\r").decode("ascii")], strict=True))
        except (csv.Error, StopIteration) as error:
            raise ValueError(str(error)) from None
        return Record(joined(name.encode(), sort, domain.encode()), f"{action},{kind}".encode(), sort != "exact")
