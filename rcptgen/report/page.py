"""The page: everything that a template shows goes through one gate that escapes it (Jinja2 does the rest)."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from rcptgen import __version__
from rcptgen.errors import ConfigurationError
from rcptgen.publish.generation import Meta
from rcptgen.publish.history import Changes
from rcptgen.reader import State
from rcptgen.report.census import COLUMNS, MOST_WILDCARDS, DomainRow
from rcptgen.report.contents import Contents
from rcptgen.report.plot import Plot, Point, plot
from rcptgen.request import MOST_LISTED
from rcptgen.rules.change import Change, What
from rcptgen.rules.outcome import Kind
from rcptgen.rules.shown import safe, shown
from rcptgen.targets.base import written

if TYPE_CHECKING:
    from jinja2 import Environment

LARGEST = 25
MOST_HELD = 50
MOST_UNITS = 20
MOST_BYTES_OF_DOMAINS = 2_000_000
"""Of the table that has every domain."""

ROW_BYTES = 100
"""What a row of that table takes beside the domain's name, about."""

SIGNS = {What.GAINED: "+", What.LOST: "−", What.CHANGED: "~", What.HIDDEN: "!"}  # noqa: RUF001 - a minus sign
CLASSES = ("local", "virtual", "relay", "gone")


def require() -> None:
    """Raises ConfigurationError where Jinja2 is not installed: to be asked before any work."""
    try:
        import jinja2  # noqa: F401 - only asked for
    except ImportError:
        raise ConfigurationError("the report takes Jinja2: pip install 'rcptgen[report]'") from None


def rendered(contents: Contents) -> Iterator[str]:
    """The page in pieces.  The same contents give the same page."""
    style = _text("page.css")
    values = {
        "c": contents,
        "r": contents.result,
        "version": __version__,
        "style": style,
        "style_hash": base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        "columns": COLUMNS,
        "every": list(_bounded(contents.census.rows)),
        "classes": [one for one in CLASSES if contents.result.classes.get(one)],
        "kinds": _kinds(contents),
        "plot": _plot(contents),
        "units": _units(contents),
        "elsewhere": contents.root != b"/",
        "State": State,
        "most_listed": MOST_LISTED,
        "limits": {"largest": LARGEST, "wildcards": MOST_WILDCARDS, "held": MOST_HELD, "units": MOST_UNITS},
    }
    return _environment().get_template("page.html").generate(values)


def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    made = Environment(
        autoescape=True,
        finalize=_finished,
        loader=FunctionLoader(_text),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        when=_when, number=_number, changes=_changes, change=_change, seconds=_seconds, latin=_latin, records=_records
    )
    return made


def _text(name: str) -> str:
    return files("rcptgen.report").joinpath("templates", name).read_text("utf-8")


def _finished(value: Any) -> Any:
    """Every value on its way to the page: bytes and text as a person may see them, before HTML escapes them."""
    if isinstance(value, bytes):
        return shown(value)
    if isinstance(value, str) and not (hasattr(value, "__html__") or value.isprintable()):
        return safe(value)
    return value


# -- filters ----------------------------------------------------------------------------------


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _number(value: int) -> str:
    """Digits in threes, as nobody misreads them."""
    return f"{value:,}"


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _latin(name: str) -> bytes:
    """A name of the history, where each character stands for a byte."""
    return name.encode("latin-1")


def _changes(meta: Meta) -> Changes:
    return meta.changes or Changes()


def _records(meta: Meta) -> int:
    """Those of the first output; an older version may not have counted them."""
    return meta.counts.get("records", 0)


def _change(change: Change, domain: bytes) -> bytes:
    """A rule that came or went, with its sign."""
    return SIGNS[change.what].encode() + b" " + written(change.name, change.prefix, True, domain)


# -- numbers ----------------------------------------------------------------------------------


def _bounded(rows: Iterable[DomainRow]) -> Iterator[DomainRow]:
    """The domains in their order, until the table is too large for a page."""
    size = 0
    for row in rows:
        size += ROW_BYTES + len(row.name)
        if size > MOST_BYTES_OF_DOMAINS:
            return
        yield row


def _kinds(contents: Contents) -> list[tuple[str, dict[str, int], int]]:
    """Of each kind its recipients by class of domain, and in all; the most frequent kind first."""
    by_kind: dict[str, dict[str, int]] = {}
    for (of_class, kind), count in contents.result.recipients.items():
        by_kind.setdefault(kind, {})[of_class] = count
    order = {str(kind): number for number, kind in enumerate(Kind)}
    found = [(kind, counts, sum(counts.values())) for kind, counts in by_kind.items()]
    return sorted(found, key=lambda one: (-one[2], order.get(one[0], len(order))))


def _plot(contents: Contents) -> Plot | None:
    points = []
    for meta in contents.runs:
        changes = _changes(meta)
        # Beside the first of all, which gained everything, nothing else could be seen.
        gained = changes.gained if meta.number > 1 else 0
        points.append(Point(meta.number, _records(meta), gained, changes.lost))
    return plot(points) if points else None


def _units(contents: Contents) -> list[Any]:
    """The sources that are not healthy, the worst first."""
    return sorted(contents.result.units, key=lambda one: (-one.state.weight, one.path))
