"""What is written in the control files, against how control.c and constmap.c read it."""

from __future__ import annotations

from collections.abc import Iterator

from rcptgen.host import Host
from rcptgen.qmail.control import first_line
from rcptgen.qmail.hostfiles import Finding
from rcptgen.rules.shown import shown
from rcptgen.source.tree import Regular

LISTS = (b"locals", b"virtualdomains", b"rcpthosts", b"morercpthosts", b"percenthack", b"smtproutes")
MAPS = (b"virtualdomains", b"smtproutes")
"""Of those the ones with a colon in each line."""

SINGLE = (b"me", b"envnoathost")
"""Files of which the first line is the value."""

_NO_SUFFIXES = (b"locals", b"percenthack")


def control_files(host: Host) -> Iterator[Finding]:
    """Lines of control files that qmail reads in another way than they look."""
    for name in LISTS:
        data = _data(host, name)
        if data is not None:
            yield from _List(host.directory + b"/control/" + name, name).findings(data)
    for name in SINGLE:
        data = _data(host, name)
        if data is not None:
            yield from _single(host.directory + b"/control/" + name, data)


def _data(host: Host, name: bytes) -> bytes | None:
    found = host.units.read(host.directory + b"/control/" + name)
    return found.data if isinstance(found, Regular) else None


def _single(file: bytes, data: bytes) -> Iterator[Finding]:
    """A file with one value (control.c: control_readline)."""
    first, _, rest = data.partition(b"\n")
    if first.rstrip(b" \t").endswith(b"\r"):
        yield Finding("C102", "the value ends in a carriage return", file, 1)
    if first[:1] in (b"#", b" ", b"\t") or not first.strip() or rest.strip():
        text = f"the value is the first line as it stands: {shown(first_line(data))!r}"
        yield Finding("C109", text, file, 1)


class _List:
    """One list file."""

    def __init__(self, file: bytes, name: bytes) -> None:
        self._file = file
        self._name = name
        self._seen: dict[bytes, tuple[int, bytes]] = {}

    def findings(self, data: bytes) -> Iterator[Finding]:
        """What is wrong with it, by line."""
        for number, raw in enumerate(data.split(b"\n"), 1):
            for code, text in self._line(number, raw):
                yield Finding(code, text, self._file, number)
        if self._name == b"locals" and not self._seen:
            text = "there is no entry: the value of control/me is not local either, and no domain is"
            yield Finding("C108", text, self._file)

    def _line(self, number: int, raw: bytes) -> Iterator[tuple[str, str]]:
        if b"\0" in raw:
            yield "C107", "a NUL ends one entry and begins another"
            return
        line = raw.rstrip(b" \t")
        if line.endswith(b"\r"):
            yield "C102", f"the carriage return is a part of the entry {shown(line)!r}"
            line = line.rstrip(b"\r \t")
        if not line or line.startswith(b"#"):
            return
        colon = b":" if self._name in MAPS else b""
        key, found, value = line.partition(colon) if colon else (line, b":", b"")
        if not found and self._name == b"virtualdomains":
            yield "C105", f"{shown(line)!r} has no colon: the line is ignored"
            return
        yield from self._entry(key, value)
        yield from self._twice(number, key.lower(), value)

    def _entry(self, key: bytes, value: bytes) -> Iterator[tuple[str, str]]:
        if key[:1] in (b" ", b"\t"):
            yield "C101", f"the blank in front is a part of the entry {shown(key)!r}"
        if b"#" in key or b"#" in value:
            yield "C103", f"what follows the # is a part of the entry {shown(key)!r}, not a comment"
        elif self._name in MAPS and (key != key.rstrip(b" \t") or value != value.lstrip(b" \t")):
            yield "C106", f"the blank beside the colon is a part of what stands there: {shown(key)!r}, {shown(value)!r}"
        elif b" " in key.strip() or b"\t" in key.strip() or b"," in key:
            yield "C111", f"{shown(key)!r} is one entry: no domain has a blank or a comma in its name"
        if b"*" in key:
            yield "C110", f"the * in {shown(key)!r} is a character like any other"
        elif self._name in _NO_SUFFIXES and (b"@" in key or key.startswith(b".")):
            what = "an address" if b"@" in key else "a suffix"
            yield "C110", f"{shown(key)!r}: {shown(self._name)} compares whole domains, so {what} never matches"
        elif self._name.endswith(b"rcpthosts") and b"@" in key:
            yield "C110", f"{shown(key)!r}: rcpthosts compares domains, so an address never matches"

    def _twice(self, number: int, key: bytes, value: bytes) -> Iterator[tuple[str, str]]:
        before = self._seen.get(key)
        self._seen[key] = number, value
        if before is None:
            return
        if before[1] != value:
            yield "C104", f"{shown(key)!r} stands in line {before[0]} with another value: this line wins, the last"
        else:
            yield "C112", f"{shown(key)!r} stands in line {before[0]} already"
