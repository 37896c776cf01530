"""Differences as a person reads them; every name and text from a file is escaped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from rcptgen.diff.told import Lost
from rcptgen.rules.change import Below, Change, Summary, What
from rcptgen.rules.outcome import Kind, Outcome
from rcptgen.rules.shown import shown

Paint = Callable[[str, What], str]
"""Text in the colour of what it tells."""

SIGNS = {What.GAINED: "+", What.LOST: "-", What.CHANGED: "~", What.HIDDEN: "!"}
SAMPLE = 5
"""Spared names of a wildcard that are shown."""


def rule(name: bytes, prefix: bool, place: bytes) -> bytes:
    """A name or a wildcard as `list` writes it."""
    return name + (b"*" if prefix else b"") + place


def title(place: bytes, *, had: bool, has: bool) -> str:
    """The line above the changes of a place."""
    text = shown(place[1:]) if place else "addresses without a domain"
    return text if had and has else f"{text} (not in {'NEW' if had else 'OLD'})"


def line(change: Change, place: bytes, paint: Paint) -> str:
    """One change."""
    head = f"{SIGNS[change.what]} {shown(rule(change.name, change.prefix, place))}"
    return "; ".join([paint(head, change.what) + _what(change), *_notes(change, place)])


def _what(change: Change) -> str:
    if change.what is What.CHANGED and change.old is not None and change.new is not None:
        return f": {change.old.kind}, now {change.new.kind}{_because(change.new)}"
    if change.what is What.HIDDEN:
        return f": still refused{_because(change.new)}"
    if change.what is What.GAINED:
        known = change.new is not None and change.new.kind is not Kind.UNKNOWN
        return (f": {change.new.kind}" if known and change.new is not None else "") + _because(change.new)
    known = change.old is not None and change.old.kind is not Kind.UNKNOWN
    return (f": was {change.old.kind}" if known and change.old is not None else "") + _because(change.new)


def _because(outcome: Outcome | None) -> str:
    """The reason of an outcome and where it stands, as far as they are known."""
    if outcome is None or not (outcome.reason or outcome.file):
        return ""
    place = f" ({shown(outcome.file)}{f':{outcome.line}' if outcome.line else ''})" if outcome.file else ""
    return f": {shown(outcome.reason.encode('utf-8', 'surrogateescape'))}{place}"


def _notes(change: Change, place: bytes) -> Iterator[str]:
    if change.hides is not None:
        wildcard = shown(rule(change.hides, True, place))
        yield f"the refusal that hid {wildcard} is gone" if change.what is What.GAINED else f"hides {wildcard}"
    if change.swallows:
        yield f"covers {_count(change.swallows)} that had rules of their own"
    if change.spares:
        names = [rule(prefix, True, place) for prefix in change.spares.prefixes[:SAMPLE]]
        names += [rule(name, False, place) for name, _ in zip(change.spares.names, range(SAMPLE), strict=False)]
        more = ", ..." if len(change.spares) > SAMPLE else ""
        still = "stay accepted by" if change.what is What.LOST else "have"
        shown_names = ", ".join(shown(name) for name in names[:SAMPLE])
        yield f"{_count(change.spares)} below it {still} rules of their own ({shown_names}{more})"


def _count(below: Below) -> str:
    return _plural(len(below.names), len(below.prefixes))


def _plural(names: int, wildcards: int) -> str:
    parts = [f"{names} address{'es' if names != 1 else ''}"] if names or not wildcards else []
    parts += [f"{wildcards} wildcard{'s' if wildcards != 1 else ''}"] if wildcards else []
    return " and ".join(parts)


def stat(found: Summary, place: bytes) -> str:
    """The numbers of one place."""
    numbers = [f"{SIGNS[what]}{found.count(what)}" for what in (What.GAINED, What.LOST, What.CHANGED)]
    opened = " (a catch-all now)" if found.opened else " (no catch-all any more)" if found.closed else ""
    return "  ".join(f"{number:>8}" for number in numbers) + f"  {title(place, had=True, has=True)}{opened}"


def total(found: Summary, places: int, differing: int) -> str:
    """The numbers of a whole comparison."""
    counts = ", ".join(
        f"{_plural(found.names[what], found.wildcards[what])} {words}"
        for what, words in ((What.GAINED, "gained"), (What.LOST, "lost"), (What.CHANGED, "changed in kind"))
    )
    return f"{counts}; {differing} of {places} domains differ"


def lowered(side: str, target: str, lost: Lost) -> str:
    """What was lost when `side` (OLD, NEW) was lowered for `target`."""
    numbers = [
        (lost.widened, "rule", "widened"),
        (lost.unsayable, "rule", "left out"),
        (lost.left_out, "domain", "left out"),
    ]
    told = ", ".join(f"{count} {what}{'s' if count != 1 else ''} {how}" for count, what, how in numbers if count)
    return f"{side} was compared as {target} can say it: {told}"


def kinds(found: Summary) -> Iterator[str]:
    """What was gained, lost and changed, by kind, as far as it is known."""
    for words, counter in (("gained", found.gained), ("lost", found.lost)):
        known = Counter({kind: count for kind, count in counter.items() if kind is not Kind.UNKNOWN})
        if known:
            yield f"  {words}: " + ", ".join(f"{count} {kind}" for kind, count in known.most_common())
    if found.changed:
        pairs = (f"{count} {old} to {new}" for (old, new), count in found.changed.most_common())
        yield "  changed: " + ", ".join(pairs)
    if found.opened or found.closed:
        yield f"  catch-alls: {found.opened} new, {found.closed} gone"
