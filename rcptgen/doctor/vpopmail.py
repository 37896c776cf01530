"""How vpopmail was built, as far as its files betray it, beside `[vpopmail]` of the configuration.

    include/vpopmail_config.h    what configure has settled: USE_MYSQL, VALIAS, MANY_DOMAINS, QMAIL_EXT ...
    bin/vdelivermail             its statements for the database, and files that it names
    etc/lib_deps                 the libraries that programs are linked with
    etc/vpopmail.mysql, .pgsql   where a database is; such a file may have been left behind
    domains/*/vpasswd            so may these

Of the first three the first that knows counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from rcptgen.config import Vpopmail
from rcptgen.doctor.findings import Lines, Seen
from rcptgen.doctor.setup import toml_text
from rcptgen.doctor.sight import Sight
from rcptgen.rules.shown import shown
from rcptgen.vpopmail.settings import FILES

HEADER, LIBRARIES, PROGRAM = b"/include/vpopmail_config.h", b"/etc/lib_deps", b"/bin/vdelivermail"

MOST_DOMAINS = 1000

_DEFINED = re.compile(rb"^[ \t]*#[ \t]*define[ \t]+([A-Z_]+)(?:[ \t]+(\S+))?", re.MULTILINE)
_STRINGS = {
    "mysql": re.compile(rb"lib(?:mysqlclient|mariadb)(?:_r)?\.so|mysql_real_connect"),
    "postgresql": re.compile(rb"libpq\.so|PQconnectdb"),
    "cdb": re.compile(rb"vpasswd\.cdb"),
    "valias": re.compile(rb"(?i:select valias_line)"),
    "many": re.compile(rb"(?i:where pw_name ?= ?['\"]%s['\"] and pw_domain)"),
    "one": re.compile(rb"(?i:where pw_name ?= ?['\"]%s['\"]) {,4}\0"),
    "default_delivery": re.compile(rb"%s/control/defaultdelivery\0"),
}
_LINKED = {"mysql": re.compile(rb"-l(?:mysqlclient|mariadb)\b"), "postgresql": re.compile(rb"-lpq\b")}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one file says of a key of `[vpopmail]`."""

    key: str
    value: str | bool
    file: bytes
    line: int
    why: str


class Build:
    """What is to be said of vpopmail's build."""

    def __init__(self, sight: Sight, settings: Vpopmail) -> None:
        self._sight = sight
        self._settings = settings
        self._home = os.fsencode(settings.directory.rstrip("/"))

    def look(self) -> Seen:
        """Everything; nothing where there is no vpopmail."""
        seen = Seen.nothing()
        account = self._sight.accounts.get(b"vpopmail")
        if account is not None and account.home.rstrip(b"/") != self._home and self._is_home(account.home.rstrip(b"/")):
            text = f"vpopmail's home is {shown(account.home)}, and [vpopmail] directory is {shown(self._home)}"
            line = b"directory = " + toml_text(account.home)
            add = Lines(b"/etc/rcptgen.toml", "in [vpopmail]", (line,))
            seen.say("B106", text, self._sight.accounts.file, account.line, [add])
            self._home = account.home.rstrip(b"/")
        if not self._is_home(self._home):
            return seen
        evidence = [*self._header(), *self._program(), *self._libraries()]
        self._left_behind(seen, next((one for one in evidence if one.key == "backend"), None))
        known: dict[str, Evidence] = {}
        for one in evidence:
            known.setdefault(one.key, one)
        different = [one for one in known.values() if self._differs(one, known)]
        for one in different:
            self._say(seen, one)
        if evidence and not different and not seen.findings:
            text = "what is known of its build is what [vpopmail] says: "
            seen.say("B100", text + ", ".join(f"{one.key} {_toml(one.value)}" for one in known.values()), self._home)
        return seen

    def _is_home(self, home: bytes) -> bool:
        return any(self._sight.status(home + one) is not None for one in (HEADER, LIBRARIES, PROGRAM))

    # -- evidence ------------------------------------------------------------------------------

    def _header(self) -> Iterator[Evidence]:
        file = self._home + HEADER
        text = self._sight.text(file)
        if text is None:
            return
        defined = {match[1]: text.count(b"\n", 0, match.start()) + 1 for match in _DEFINED.finditer(text)}
        backend = next((name for macro, name in _MACROS.items() if macro in defined), "cdb")
        lined = next((defined[macro] for macro in _MACROS if macro in defined), 0)
        yield Evidence("backend", backend, file, lined, "")
        for macro, key in _SWITCHES.items():
            why = f"{macro.decode()} is {'' if macro in defined else 'not '}defined"
            yield Evidence(key, macro in defined, file, defined.get(macro, 0), why)

    def _program(self) -> Iterator[Evidence]:
        file = self._home + PROGRAM
        if self._sight.status(file) is None:
            return
        found = self._sight.strings(file, _STRINGS)
        backends = [one for one in ("mysql", "postgresql", "cdb") if one in found]
        if backends:
            yield Evidence("backend", backends[0], file, 0, "its strings")
        if backends and backends[0] != "cdb":
            yield Evidence("valias", "valias" in found, file, 0, "its statements for the database")
            if ("many" in found) != ("one" in found):
                yield Evidence("many_domains", "many" in found, file, 0, "its statements for the database")
        if found:
            why = "whether it names control/defaultdelivery"
            yield Evidence("default_delivery", "default_delivery" in found, file, 0, why)

    def _libraries(self) -> Iterator[Evidence]:
        file = self._home + LIBRARIES
        for number, line in self._sight.lines(file):
            for name, pattern in _LINKED.items():
                if pattern.search(line):
                    yield Evidence("backend", name, file, number, "the library that it is linked with")
                    return

    def _left_behind(self, seen: Seen, built: Evidence | None) -> None:
        """With backend = "auto": what was left of another back end, and makes some domains that one's."""
        settings = self._settings_file()
        if built is None or self._settings.backend != "auto" or settings is None:
            return
        add = Lines(b"/etc/rcptgen.toml", "in [vpopmail]", (b"backend = " + toml_text(str(built.value).encode()),))
        if built.value == "cdb":
            seen.say("B107", "the settings of a database, and vpopmail was built without one", settings, 0, [add])
            return
        for file in self._vpasswds():
            text = f"vpopmail was built with backend {built.value}, and this domain's users are taken from its vpasswd"
            seen.say("B108", text, file, 0, [add])
            break

    def _settings_file(self) -> bytes | None:
        home = os.fsencode(self._settings.directory.rstrip("/"))
        there = (home + b"/" + file for file in FILES.values())
        return next((file for file in there if self._sight.status(file) is not None), None)

    def _vpasswds(self) -> Iterator[bytes]:
        """The vpasswd files of domains at their usual places: domains/DOMAIN, and below domains/0 and its like."""
        top = self._home + b"/domains"
        hashed = [top + b"/" + name for name in self._sight.names(top)[:MOST_DOMAINS] if len(name) == 1]
        for directory in (top, *hashed):
            for name in self._sight.names(directory)[:MOST_DOMAINS]:
                for file in (b"vpasswd.cdb", b"vpasswd"):
                    path = directory + b"/" + name + b"/" + file
                    if self._sight.status(path) is not None:
                        yield path

    # -- beside the configuration --------------------------------------------------------------

    def _differs(self, one: Evidence, known: dict[str, Evidence]) -> bool:
        settings = self._settings
        backend = known["backend"].value if "backend" in known else settings.backend
        if one.key == "backend":
            # With auto and its settings left behind, a cdb is what domains with a vpasswd are all the same.
            auto = self._settings.backend == "auto"
            return one.value != self._effective_backend() and not (auto and one.value == "cdb")
        if one.key in ("valias", "many_domains") and backend == "cdb":
            return False  # only a database has tables
        if one.key == "valias":
            return one.value != (settings.valias if settings.valias != "auto" else backend != "cdb")
        return bool(one.value != getattr(settings, one.key))

    def _effective_backend(self) -> str:
        """The back end that the configuration comes to: with `auto` a database where its settings are."""
        if self._settings.backend != "auto":
            return self._settings.backend
        home = os.fsencode(self._settings.directory.rstrip("/"))
        there = [name for name, file in FILES.items() if self._sight.status(home + b"/" + file) is not None]
        # Without its settings auto is vpasswd.cdb; with them a domain that has a vpasswd is one, too.
        return there[0] if there else "cdb"

    def _say(self, seen: Seen, one: Evidence) -> None:
        stands = self._effective_backend() if one.key == "backend" else _toml(getattr(self._settings, one.key))
        why = f" ({one.why})" if one.why else ""
        text = f"vpopmail was built with {one.key} {_toml(one.value)}{why}, and [vpopmail] has {stands}"
        add = Lines(b"/etc/rcptgen.toml", "in [vpopmail]", (f"{one.key} = {_toml(one.value, quoted=True)}".encode(),))
        seen.say(_CODES[one.key], text, one.file, one.line, [add])


_MACROS = {b"USE_MYSQL": "mysql", b"USE_POSTGRES": "postgresql"}
_SWITCHES = {b"VALIAS": "valias", b"MANY_DOMAINS": "many_domains", b"QMAIL_EXT": "qmail_ext"}
_CODES = {"backend": "B101", "valias": "B102", "many_domains": "B103", "qmail_ext": "B104", "default_delivery": "B105"}


def _toml(value: object, *, quoted: bool = False) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if quoted else str(value)
