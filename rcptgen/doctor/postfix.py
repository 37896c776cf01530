"""Postfix: main.cf and master.cf, and which of their tables are lists of recipients.

    main.cf     name = value; a line that begins with a blank goes on with the one before; # comments
    master.cf   service type private unpriv chroot wakeup maxproc command -o name=value ...
    values      $name, ${name} and $(name) stand for other parameters; commas and blanks divide

Tables are opened before smtpd changes its root and its account, so neither matters to them;
those behind `proxy:` are opened by proxymap, with its root.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from rcptgen.doctor.findings import ROOT, Lines, Seen, Use
from rcptgen.doctor.setup import POSTFIX, Configured, quoted
from rcptgen.doctor.sight import Sight
from rcptgen.rules.shown import shown

HOME = b"/etc/postfix"
MAIN, MASTER = HOME + b"/main.cf", HOME + b"/master.cf"
MOST_EXPANSIONS = 8
MOST_EXPANDED = 1 << 16
"""Bytes of a value that are looked at, and that are put in for names in it: parameters may double each other."""

MOST_SERVICES = 50
"""An smtpd further down in master.cf is said not to have been looked at."""

RECIPIENT_MAPS = (b"relay_recipient_maps", b"local_recipient_maps", b"virtual_mailbox_maps")
RESTRICTIONS = (
    b"smtpd_recipient_restrictions",
    b"smtpd_relay_restrictions",
    b"smtpd_client_restrictions",
    b"smtpd_helo_restrictions",
    b"smtpd_sender_restrictions",
    b"smtpd_data_restrictions",
)
MAPS_KINDS = {b"cdb": "postfix,form=cdb", b"texthash": "postfix,form=text"}
ACCESS_KINDS = {b"cdb": "postfix-access,form=cdb", b"texthash": "postfix-access,form=text", b"pcre": "postfix-pcre"}
BUILT = {b"lmdb": "text", b"hash": "text", b"btree": "text"}
"""Types that postmap builds from the text of a list; the file with the suffix is its own."""

SUFFIX = {b"cdb": b".cdb", b"lmdb": b".lmdb", b"hash": b".db", b"btree": b".db"}
MODULES = frozenset({b"cdb", b"pcre", b"lmdb"})
"""Types that Debian has in packages of their own."""

_REFERENCE = re.compile(rb"\$(?:([A-Za-z0-9_]+)|\{([A-Za-z0-9_]+)\}|\(([A-Za-z0-9_]+)\))")
_TABLE = re.compile(rb"(?<![a-z0-9_-])(proxy:)?([a-z][a-z0-9_-]*):(/[^\s,{}]+)")
_DIVIDERS = re.compile(rb"[\s,]+")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter's value as it is written, and where."""

    value: bytes
    file: bytes
    line: int


@dataclass(frozen=True, slots=True)
class Table:
    """A table that a parameter names; `proxied` where proxymap opens it."""

    type: bytes
    path: bytes
    proxied: bool
    parameter: Parameter


@dataclass(frozen=True, slots=True)
class Service:
    """An smtpd of master.cf, with the parameters that hold for it."""

    name: bytes
    parameters: dict[bytes, Parameter]

    def value(self, name: bytes) -> bytes:
        """A parameter with others put in for their names; empty where it is not set."""
        found = self.parameters.get(name)
        text = b"" if found is None else found.value[:MOST_EXPANDED]
        left = MOST_EXPANDED

        def referred(match: re.Match[bytes]) -> bytes:
            nonlocal left
            other = self.parameters.get(match[1] or match[2] or match[3])
            left -= 0 if other is None else len(other.value)
            return other.value if other is not None and left > 0 else b""

        for _ in range(MOST_EXPANSIONS):
            expanded = _REFERENCE.sub(referred, text)
            if expanded == text:
                break
            text = expanded
        return text

    def tables(self, name: bytes) -> Iterator[Table]:
        """The tables that a parameter names, in their order."""
        parameter = self.parameters.get(name)
        for proxy, kind, path in _TABLE.findall(self.value(name)):
            if parameter is not None:
                yield Table(kind, os.path.normpath(path), bool(proxy), parameter)


def logical_lines(sight: Sight, file: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines of main.cf or master.cf, continued ones as one, with the number of their first."""
    held: list[bytes] = []
    begun = 0
    for number, line in enumerate((sight.text(file) or b"").split(b"\n"), 1):
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        if line[:1] in b" \t" and held:
            held.append(line.strip())
            continue
        if held:
            yield begun, b" ".join(held)
        held, begun = [line.strip()], number
    if held:
        yield begun, b" ".join(held)


def main_parameters(sight: Sight) -> dict[bytes, Parameter]:
    """The parameters of main.cf; the last of several counts."""
    found = {}
    for number, line in logical_lines(sight, MAIN):
        name, equals, value = line.partition(b"=")
        if equals:
            found[name.strip()] = Parameter(value.strip(), MAIN, number)
    return found


def services(sight: Sight, parameters: dict[bytes, Parameter]) -> Iterator[Service]:
    """Every smtpd that master.cf starts for the network, those for submission aside."""
    for number, line in logical_lines(sight, MASTER):
        words = line.split()
        if len(words) < 8 or words[1] not in (b"inet", b"pass") or words[7] != b"smtpd":
            continue
        if words[0].rpartition(b":")[2] in (b"submission", b"submissions", b"smtps", b"587", b"465"):
            continue
        own = dict(parameters)
        for name, value in _overrides(b" ".join(words[8:])):
            own[name] = Parameter(value, MASTER, number)
        yield Service(words[0], own)


_OVERRIDE = re.compile(rb"-o\s*(?:\{\s*([A-Za-z0-9_]+)\s*=([^{}]*)\}|([A-Za-z0-9_]+)=(\S*))")


def _overrides(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    for match in _OVERRIDE.finditer(text):
        yield (match[1], match[2].strip()) if match[1] else (match[3], match[4])


def proxymap_is_jailed(sight: Sight) -> bool:
    """Whether master.cf gives proxymap a root of its own."""
    for _, line in logical_lines(sight, MASTER):
        words = line.split()
        if len(words) >= 8 and words[7] == b"proxymap":
            return words[4] == b"y"
    return False


class Postfix:
    """What is to be said of Postfix."""

    def __init__(self, sight: Sight, outputs: Sequence[Configured]) -> None:
        self._sight = sight
        self._outputs = {one.path: one for one in outputs}
        self._seen = Seen.nothing()

    def look(self) -> Seen:
        """Everything; nothing where there is no main.cf."""
        if self._sight.text(MAIN) is None:
            return self._seen
        self._seen.servers[POSTFIX] = MAIN
        parameters = main_parameters(self._sight)
        found = [*islice(services(self._sight, parameters), MOST_SERVICES + 1)] or [Service(b"smtp", parameters)]
        if len(found) > MOST_SERVICES:
            self._sight.failed[MASTER] = f"more than {MOST_SERVICES} services are smtpd"
            found.pop()
        said: set[tuple[bytes, int, bytes]] = set()
        for service in found:
            for table, kinds in self._lists(service):
                key = (table.parameter.file, table.parameter.line, table.path)
                if key not in said:
                    said.add(key)
                    self._table(service, table, kinds)
        return self._seen

    def _lists(self, service: Service) -> Iterator[tuple[Table, dict[bytes, str]]]:
        """The tables of recipients, and the kinds of list that each type may be there."""
        for name in RECIPIENT_MAPS:
            tables = [*service.tables(name)]
            ours = [one for one in tables if self._ours(one)]
            # relay_recipient_maps is for nothing else; where none of its tables is ours, that is to be said.
            for table in ours or (tables if name == b"relay_recipient_maps" else ()):
                yield table, MAPS_KINDS
        for name in RESTRICTIONS:
            parameter = service.parameters.get(name)
            words = [one for one in _DIVIDERS.split(service.value(name)) if one]
            permitted = False
            for number, word in enumerate(words[1:], 1):
                permitted = permitted or words[number - 1] == b"permit"
                match = _TABLE.fullmatch(word)
                if match is None or parameter is None or words[number - 1] != b"check_recipient_access":
                    continue
                table = Table(match[2], os.path.normpath(match[3]), bool(match[1]), parameter)
                if permitted:
                    self._unasked("P105", f"{shown(word)} stands behind permit and is never asked", table)
                elif self._ours(table):
                    yield table, ACCESS_KINDS

    def _ours(self, table: Table) -> Configured | None:
        """The list of ours that a table is; others have their own business here."""
        return next((self._outputs[path] for path in self._paths(table) if path in self._outputs), None)

    def _unasked(self, code: str, text: str, table: Table, add: Iterable[Lines] = ()) -> None:
        """A list of ours is named so that it is not asked; nothing else is to be said of it."""
        found = self._ours(table)
        if found is not None:
            self._seen.say(code, text, table.parameter.file, table.parameter.line, add)
            self._seen.told.add(found.kind)

    def _paths(self, table: Table) -> tuple[bytes, ...]:
        return (table.path + SUFFIX.get(table.type, b""), table.path)

    def _table(self, service: Service, table: Table, kinds: dict[bytes, str]) -> None:
        place = (table.parameter.file, table.parameter.line)
        opened, written = self._paths(table)
        if table.type == b"cdb" and opened not in self._outputs and written in self._outputs:
            text = f"cdb:{shown(written)} is the file {shown(opened)}: Postfix puts .cdb behind the name"
            add = Lines(place[0], f"in line {place[1]}", (b"cdb:" + written.removesuffix(b".cdb"),))
            self._unasked("P107", text, table, [add])
            return
        if kinds is MAPS_KINDS and table.type in (b"pcre", b"regexp"):
            text = f"{table.type.decode()}:{shown(table.path)}: any line that matches accepts, one that says 550, too"
            self._seen.say("P103", text, *place)
            self._seen.told.add("postfix-pcre")
            return
        if table.proxied and proxymap_is_jailed(self._sight):
            self._unasked("P108", f"proxymap has a root of its own, and {shown(opened)} is not below it", table)
            return
        delimiter = service.value(b"recipient_delimiter")
        if delimiter and table.type not in (b"pcre", b"regexp"):
            at = service.parameters[b"recipient_delimiter"]
            text = f"recipient_delimiter = {shown(delimiter)}: joe stands for every joe{shown(delimiter[:1])}..., too"
            add = Lines(at.file, f"in place of line {at.line}", (b"recipient_delimiter =",))
            if at.file == MASTER:
                add = Lines(at.file, f"in the service of line {at.line}", (b"-o recipient_delimiter=",))
            self._seen.say("P104", text, at.file, at.line, [add])
        self._module(table)
        if table.type in BUILT and written in self._outputs:
            self._built(table, opened, written)
            return
        kind = kinds.get(table.type) or table.type.decode("ascii")
        self._seen.uses.append(Use(POSTFIX, frozenset({kind}), opened, *place, ROOT))

    def _built(self, table: Table, opened: bytes, written: bytes) -> None:
        """A table that postmap makes of a list's text: it must be as new as that."""
        place = (table.parameter.file, table.parameter.line)
        lag = self._sight.lag(opened, written)
        if lag:
            command = Lines(b"", "", (b"postmap " + table.type + b":" + quoted(written),))
            self._seen.say("P109", lag, *place, [command])
        self._seen.uses.append(Use(POSTFIX, frozenset(), written, *place, ROOT))

    def _module(self, table: Table) -> None:
        """On Debian some types come in packages of their own, which dynamicmaps.cf lists."""
        listed = [self._sight.text(HOME + b"/dynamicmaps.cf")]
        if listed[0] is None or table.type not in MODULES:
            return
        below = HOME + b"/dynamicmaps.cf.d"
        listed += [self._sight.text(below + b"/" + name) for name in self._sight.names(below)]
        if not any(line.startswith(table.type) for text in listed if text for line in text.split(b"\n")):
            package = b"postfix-" + table.type
            text = f"{shown(HOME)}/dynamicmaps.cf has no table type {table.type.decode()}"
            command = Lines(b"", "", (b"apt-get install " + package,))
            self._seen.say("P106", text, table.parameter.file, table.parameter.line, [command])
