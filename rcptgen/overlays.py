"""`[extra]`: what is accepted or refused whatever the host does with it, applied last.

A longer name beats a shorter prefix, an exact name every prefix.  Of equal names that of one
domain beats that of all domains, then a refusal an acceptance, then the configuration a file,
and the first file the others.  A file that cannot be used says what it said when it was
published last.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from rcptgen.config import Guard
from rcptgen.errors import ConfigurationError
from rcptgen.host import Host
from rcptgen.listfiles import ListFile, overlay_of
from rcptgen.reader import Report, State
from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.overlay import EVERYWHERE, Collector, Listing, laid, rule, table
from rcptgen.rules.table import Table

MOST_KEPT = 64
"""Layers of domains that are kept, for those who ask address by address."""

EMPTIED = "it is empty, and was not when it was published last; a line of comment in it says that it is meant"

ACCEPT, REJECT = "accept", "reject"

Remembered = Callable[[bytes], bytes | None]
"""What a file held when its rules were published last, by its path; None where they never were."""


@dataclass(frozen=True, slots=True)
class Source:
    """Rules of one origin: the key of `[extra]` that brings them in, and the file if it is one."""

    key: str
    listing: Listing
    file: bytes = b""

    def outcome(self) -> Outcome:
        """What its names come to, without the line of each."""
        if self.key.startswith(ACCEPT):
            return Outcome(Verdict.DELIVER, Kind.UNKNOWN, f"[extra] {self.key}", self.file)
        return Outcome(Verdict.BOUNCE, Kind.REFUSAL, f"[extra] {self.key}", self.file)


class Overlays:
    """All overlays.  Raises ConfigurationError for a text of the configuration that is no rule."""

    def __init__(self, accept: Iterable[str], reject: Iterable[str], files: Iterable[Source] = ()) -> None:
        stated = [_stated(REJECT, reject), *(one for one in files if one.key.startswith(REJECT))]
        stated += [_stated(ACCEPT, accept), *(one for one in files if one.key.startswith(ACCEPT))]
        self._sources = [one for one in stated if one.listing.parts]
        self._layers: dict[tuple[bytes, bool], Table | None] = {}

    def match(self, local: bytes, domain: bytes, *, ours: bool = True) -> Outcome | None:
        """What the overlays say of an address, or None.

        `ours`: whether the domain is one of the host's, to which the rules for all domains apply.
        """
        layer = self.layer(domain, ours=ours)
        return None if layer is None else layer.match(local)

    def domains(self) -> set[bytes]:
        """The domains that overlays speak of by name."""
        return {domain for one in self._sources for domain in one.listing.parts} - {EVERYWHERE}

    def apply(self, table: Table, domain: bytes, *, ours: bool = True) -> Table:
        """`table` with the overlays of `domain` on top: a prefix takes everything below it."""
        layer = self.layer(domain, ours=ours)
        return table if layer is None else laid(table, layer)

    def layer(self, domain: bytes, *, ours: bool = True) -> Table | None:
        """What is laid over the rules of a domain; None where that is nothing."""
        if not any(domain in one.listing.parts for one in self._sources):
            domain = EVERYWHERE
        key = domain, ours
        if key not in self._layers:
            if len(self._layers) >= MOST_KEPT:
                self._layers.clear()
            self._layers[key] = self._laid_out(domain, ours=ours)
        return self._layers[key]

    def _laid_out(self, domain: bytes, *, ours: bool) -> Table | None:
        groups: list[tuple[Outcome, Names]] = []
        prefixes: dict[bytes, Outcome] = {}
        places = [domain] if domain != EVERYWHERE else []
        for place in [*places, EVERYWHERE] if ours else places:
            for one in self._sources:
                part = one.listing.parts.get(place)
                if part is None:
                    continue
                found = one.outcome()
                groups.append((found._replace(lines=part.accepted), part.accepted.names))
                for name, (_, line) in part.prefixes.items():
                    prefixes.setdefault(name, found._replace(line=line))
        laid_out = table(groups, prefixes)
        return laid_out if len(laid_out) else None

    def digest(self, domain: bytes) -> bytes:
        """What tells that the overlays of one of the host's domains are others; empty without any.

        The lines of single names do not count: whoever puts a line into a file would change all others.
        """
        layer = self.layer(domain)
        if layer is None:
            return b""
        found = blake2b(repr(sorted(layer.prefixes.items())).encode(), digest_size=16)
        for outcome, names in layer.groups.items():
            found.update(repr((outcome.accepted, outcome.file, len(names), names.odd)).encode())
            found.update(names.joined or b"")
        return found.digest()


def _stated(key: str, texts: Iterable[str]) -> Source:
    """The rules that the configuration itself states."""
    found = Collector()
    for text in texts:
        try:
            found.add(rule(os.fsencode(text)), 0)
        except ValueError as error:
            quoted = os.fsencode(text).decode("ascii", "backslashreplace")
            raise ConfigurationError(f"[extra] {key}: {quoted!r} is {error}") from None
    return Source(key, found.done())


@dataclass(slots=True)
class Extra:
    """The overlays of a run.

    `data` is what each file in use holds, by path, for the next run to remember; `kept` are
    the files of which the last published rules are used, `lacking` those of which nothing is
    known at all, each with the reason.
    """

    overlays: Overlays
    data: dict[bytes, bytes] = field(default_factory=dict)
    kept: dict[bytes, str] = field(default_factory=dict)
    lacking: dict[bytes, str] = field(default_factory=dict)


def extra(host: Host, remembered: Remembered = lambda path: None, *, forced: bool = False) -> Extra:
    """The overlays of a host; a file that cannot be used, or is in doubt, says what is `remembered` of it.

    `forced`: a person says that what is in doubt is meant.
    """
    wanted = host.config.extra
    accepting = set(map(os.fsencode, wanted.accept_files))
    data: dict[bytes, bytes] = {}
    kept: dict[bytes, str] = {}
    lacking: dict[bytes, str] = {}
    listings: dict[bytes, Listing] = {}
    for path, one in host.extra_files.items():
        before = None if forced and not one.trouble else _before(one, remembered)
        why = one.why
        if before is not None and not why:
            limits = host.config.guard if path in accepting else None
            why = _doubt(before.listing, one.listing, limits)
            if why:
                host.units.note(Report(path, State.SUSPECT, why))
        if one.trouble and before is None:
            lacking[path] = why
            continue
        if before is not None and why:
            kept[path] = why
            one = before
        data[path], listings[path] = one.data, one.listing
    sources = [
        Source(f"{key}_files", listings[path], path)
        for key, paths in ((REJECT, wanted.reject_files), (ACCEPT, wanted.accept_files))
        for path in map(os.fsencode, paths)
        if path in listings
    ]
    return Extra(Overlays(wanted.accept, wanted.reject, sources), data, kept, lacking)


def _before(one: ListFile, remembered: Remembered) -> ListFile | None:
    """What a file said when it was published last; None where that is not known, or what it says now."""
    old = remembered(one.path)
    if old is None or (old == one.data and not one.trouble):
        return None
    found = overlay_of(one.path, old)
    # What another version took for rules is not known to this one.
    return None if found.trouble else found


def _doubt(before: Listing, now: Listing, limits: Guard | None) -> str:
    """Why a sound file is hardly what was meant; `limits`: those for a file whose rules accept.

    Half-written files end with a line now and then: the guard looks at domains, and each may have lost little.
    """
    if now.is_blank and before.rules:
        return EMPTIED
    lost = before.rules - now.rules
    if limits is None or not now.rules or lost < limits.domain_loss_min or lost <= limits.domain_loss * before.rules:
        return ""
    return f"{lost} of its {before.rules} rules are gone since it was published last; compile --force takes it as it is"
