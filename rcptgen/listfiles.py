"""The files of rules that the configuration names, as they are now: overlays, and recipients of relayed domains.

A file that cannot be read whole says nothing: whoever uses it goes on with what it said last.
What it says is never quoted where it is wrong: the file may be another's than was meant.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rcptgen.config import Extra, Relay
from rcptgen.qmail.hostfiles import Read
from rcptgen.rules.cdbproof import proved
from rcptgen.rules.cdbwalk import CdbFile, DamagedCdb
from rcptgen.rules.overlay import Collector, Listing, Rule, lines, parse, rule
from rcptgen.source.tree import Absent, FailedForNow, Refused, Regular, TooLarge
from rcptgen.targets.base import Line
from rcptgen.targets.rcptgen_ import Rcptgen
from rcptgen.targets.validrcptto import Validrcptto

LARGEST = 1 << 30
"""Bytes of a file of rules: some thirty million addresses."""

CUT_OFF = "no newline at its end: cut off?"

_OURS = re.compile(rb"[0-9a-f]{2} [a-z-]+")
"""A value in a constant database of our own (rcptgen.targets.rcptgen_)."""

_UNSPEAKABLE = re.compile(rb"[\0\n]")
"""What no recipient has that a client has given."""

Wanted = Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class ListFile:
    """One file: what it says, or `trouble`, which is why that is not known, with the line (0: none).

    `damaged`: it could be read, but cannot be what was meant.  `data` are the bytes of a sound
    file that are to be remembered, empty where nobody will.
    """

    path: bytes
    listing: Listing
    trouble: str = ""
    line: int = 0
    damaged: bool = False
    data: bytes = b""

    @property
    def why(self) -> str:
        """What is wrong, with its line."""
        return f"line {self.line}: {self.trouble}" if self.line else self.trouble


def overlay_file(path: bytes, read: Read) -> ListFile:
    """A file of `[extra]`."""
    found = _fetched(path, read)
    return found if isinstance(found, ListFile) else overlay_of(path, found)


def overlay_of(path: bytes, data: bytes) -> ListFile:
    """What a file of `[extra]` with this content says."""
    return _sound(path, data, parse(data, Collector(), patterns=True) if _ends(data) else None, keep=True)


def relay_file(relay: Relay, read: Read, wanted: Wanted, break_: bytes) -> ListFile:
    """A file of `[[relay]]`; the rules of domains that are not `wanted` are only counted."""
    path = os.fsencode(relay.file)
    data = _fetched(path, read)
    if isinstance(data, ListFile):
        return data
    if relay.format == "cdb":
        try:
            return _sound(path, data, _cdb(data, Collector(wanted), break_))
        except DamagedCdb as error:
            return ListFile(path, Listing(), error.damage, damaged=True)
    if not _ends(data):
        return _sound(path, data, None)
    if relay.format == "csv":
        return _sound(path, data, _csv(data, Collector(wanted), relay))
    return _sound(path, data, parse(data, Collector(wanted), patterns=False))


def extra_files(extra: Extra, read: Read) -> dict[bytes, ListFile]:
    """Every file of `[extra]` by its path; each is read once."""
    return {path: overlay_file(path, read) for path in map(os.fsencode, (*extra.accept_files, *extra.reject_files))}


def _fetched(path: bytes, read: Read) -> bytes | ListFile:
    """The bytes of a file, or why there are none."""
    found = read(path, limit=LARGEST)
    if isinstance(found, Regular):
        return found.data
    if isinstance(found, TooLarge):
        trouble = f"{found.size} bytes are more than a file of rules may have"
    elif isinstance(found, Absent | Refused | FailedForNow):
        trouble = os.strerror(found.errno)
    else:
        trouble = "not a regular file"
    return ListFile(path, Listing(), trouble)


def _ends(data: bytes) -> bool:
    """Whether the last line is whole."""
    return not data or data.endswith(b"\n")


def _sound(path: bytes, data: bytes, listing: Listing | None, *, keep: bool = False) -> ListFile:
    """The file, if it is what was meant; None: it is cut off."""
    if listing is None:
        return ListFile(path, Listing(), CUT_OFF, data.count(b"\n") + 1, damaged=True)
    if listing.problem:
        return ListFile(path, Listing(), listing.problem, listing.problem_line, damaged=True)
    return ListFile(path, listing, data=data if keep else b"")


# --- CSV ------------------------------------------------------------------------------------------


def _csv(data: bytes, collector: Collector, relay: Relay) -> Listing:
    """What a column says; never raises."""
    rows = csv.reader(_texts(data), delimiter=relay.delimiter, strict=True)
    column = relay.column - 1 if isinstance(relay.column, int) else -1
    header = relay.header or column < 0
    before = 0
    try:
        for row in rows:
            line, before = before + 1, rows.line_num
            if header:
                header = False
                column = _column(row, relay.column)
                if column < 0:
                    collector.bad(line, "the header has no such column, or several")
                    break
            elif len(row) > column:
                _cell(row[column].encode("latin-1").strip(), line, collector)
            elif row:
                collector.bad(line, "fewer columns than needed")
    except csv.Error as error:
        collector.bad(rows.line_num, f"not CSV: {error}")
    return collector.done()


def _texts(data: bytes) -> Iterator[str]:
    """The lines with their ends, a character for each byte."""
    for _, line in lines(data):
        yield line.decode("latin-1") + "\n"


def _column(head: list[str], wanted: int | str) -> int:
    """Which column is wanted, counted from 0; -1 where the header does not say."""
    if isinstance(wanted, int):
        return wanted - 1
    name = wanted.encode().decode("latin-1").strip().lower()
    found = [at for at, one in enumerate(head) if one.strip().lower() == name]
    return found[0] if len(found) == 1 else -1


def _cell(text: bytes, line: int, collector: Collector) -> None:
    """One cell; an empty one is somebody without an address."""
    if text:
        try:
            collector.add(rule(text, patterns=False), line)
        except ValueError as error:
            collector.bad(line, str(error))


# --- Constant databases ----------------------------------------------------------------------------


def _cdb(data: bytes, collector: Collector, break_: bytes) -> Listing:
    """What a compiled file of another host says: validrcptto.cdb, or our own.  Raises DamagedCdb.

    Its values say which: ours are a code and a kind.
    """
    opened = CdbFile(lambda at, size: data[at : at + size], len(data), "", whole=data)
    ours: bool | None = None
    reader: Rcptgen | Validrcptto = Validrcptto(break_)
    for keys, values in proved(opened):
        for key, value in zip(keys, values, strict=True):
            is_ours = key[:1] in (b"=", b"*") and _OURS.fullmatch(value) is not None
            if ours is None:
                ours = is_ours
                reader = Rcptgen(break_) if ours else reader
            elif ours and not is_ours:
                raise DamagedCdb("", "records of two formats")
            line = reader.line(key, value)
            if line is not None and line.domain is not None:
                _record(line, line.domain, collector)
    return collector.done()


def _record(line: Line, domain: bytes, collector: Collector) -> None:
    name = line.name.lower()
    if not _UNSPEAKABLE.search(name):
        collector.add(Rule(name, line.prefix, domain.lower()), 0, accepted=line.accepted)
