"""How vpopmail is told where its database is: etc/vpopmail.mysql and etc/vpopmail.pgsql.

    vpopmail.mysql   host|port or /socket|user|password|database      a second such line is for updates
    vpopmail.pgsql   host|port|user|password|database                 an empty field takes vpopmail's default

Lines that begin with `#` and empty lines are skipped.  Neither parser trusts a byte of what it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rcptgen.vpopmail.text import atoi

Dialect = Literal["mysql", "postgresql"]

FILES: dict[Dialect, bytes] = {"mysql": b"etc/vpopmail.mysql", "postgresql": b"etc/vpopmail.pgsql"}
"""The settings files, below vpopmail's directory."""

LINE = 255
"""What fgets takes at once of a line: the rest of a longer one counts as the next line."""

_SEPARATORS = re.compile(rb"[|\n]")
_LINES = re.compile(rb"[^\n]*\n|[^\n]+")
_OPTION = re.compile(rb"([^=\s]+)\s*=\s*")


class BadSettings(Exception):
    """The file does not say where the database is (load_connection_info gives up)."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where a database is, and as whom to ask it.

    `socket` is a path of the host: MySQL's socket, or the directory with PostgreSQL's; empty
    for one that TCP reaches.  MySQL's `localhost` without a socket means the socket that its
    library was built for.
    """

    dialect: Dialect
    host: bytes
    port: int
    socket: bytes
    user: bytes
    password: bytes
    database: bytes
    sslmode: bytes = b""

    @property
    def name(self) -> str:
        """The server as it is called in messages."""
        where = self.socket or self.host
        return f"{self.dialect} server {where.decode('ascii', 'backslashreplace')}:{self.port}"


def parse(dialect: Dialect, content: bytes) -> Server:
    """The server that a settings file names; raises BadSettings."""
    return mysql(content) if dialect == "mysql" else postgresql(content)


def mysql(content: bytes) -> Server:
    """What vdelivermail connects to (vmysql.c: load_connection_info, vauth_open_update).

    Builds without replication use the line for updates for everything, if there is one.
    """
    lines = _lines(content)
    server = None
    for line in (next(lines, None), next(lines, None)):
        if line is not None:
            server = _mysql_line(line)
    if server is None:
        raise BadSettings("no line with settings")
    return server


def _mysql_line(line: bytes) -> Server:
    # strtok: separators in a row count as one, so that no field can be empty.
    fields = [field for field in _SEPARATORS.split(line) if field]
    if len(fields) < 5:
        raise BadSettings("a line with fewer than five fields")
    host, where, user, password, database = fields[:5]
    named = where.startswith(b"/")
    # libmysqlclient looks at a socket only where the host is called so, in lower case.
    socket = where if named and host == b"localhost" else b""
    return Server("mysql", host, 0 if named else atoi(where), socket, user, password, database)


def postgresql(content: bytes) -> Server:
    """What vdelivermail connects to (vpgsql.c: load_connection_info, vauth_open).

    The fields go into a connection string without quotes, so that a blank or a backslash in
    them means what it means to libpq (fe-connect.c: conninfo_parse).
    """
    line = next(_lines(content), None)
    if line is None:
        raise BadSettings("no line with settings")
    fields = line.split(b"|", 4)
    if len(fields) < 5 or b"\n" not in fields[4]:
        raise BadSettings("a line with fewer than five fields, or without its newline")
    fields[4] = fields[4].partition(b"\n")[0]
    defaults = (b"localhost", b"0", b"postgres", b"", b"vpopmail")
    host, port, user, password, database = (one or other for one, other in zip(fields, defaults, strict=True))
    said = b"host=%s port=%d user=%s" % (host, atoi(port), user)
    if password:
        said += b" password=" + password
    options = _conninfo(said + b" dbname=" + database)
    where = options.get(b"host", b"")
    socket = where if where.startswith(b"/") else b""
    if b"/" in where and (not socket or b"," in where):
        raise BadSettings("a host that is neither a name nor a directory")
    return Server(
        "postgresql",
        where,
        atoi(options.get(b"port", b"")),
        socket,
        options.get(b"user", b""),
        options.get(b"password", b""),
        options.get(b"dbname", b""),
        options.get(b"sslmode", b""),
    )


def _lines(content: bytes) -> Iterator[bytes]:
    """The lines that count, as fgets into 256 bytes gives them: C strings, newline and all."""
    for whole in _LINES.findall(content):
        for at in range(0, len(whole), LINE):
            piece = whole[at : at + LINE].partition(b"\0")[0]
            if not piece.startswith((b"#", b"\n")):
                yield piece


_BLANKS = b" \t\n\v\f\r"


def _conninfo(text: bytes) -> dict[bytes, bytes]:
    """The options of a connection string; the last of several of one name counts."""
    options: dict[bytes, bytes] = {}
    at = 0
    while True:
        while at < len(text) and text[at] in _BLANKS:
            at += 1
        if at >= len(text):
            return options
        found = _OPTION.match(text, at)
        if found is None:
            raise BadSettings("a connection string that libpq does not take")
        at = found.end()
        value = bytearray()
        quoted = text[at : at + 1] == b"'"
        at += quoted
        while at < len(text) and not (text[at] == 0x27 if quoted else text[at] in _BLANKS):
            if text[at] == 0x5C and at + 1 < len(text):
                at += 1
            value.append(text[at])
            at += 1
        if quoted:
            if at >= len(text):
                raise BadSettings("a connection string with an open quote")
            at += 1
        options[found[1]] = bytes(value)
