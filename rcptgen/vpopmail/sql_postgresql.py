"""Asking PostgreSQL, through psycopg.

Nothing imports this module before a host is known to need it: the driver is an extra.

Texts go out and come in as the bytes that the database holds: nothing is converted.
"""

from __future__ import annotations

import re
import select
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.adapt import Dumper

from rcptgen.rules.shown import shown
from rcptgen.vpopmail.settings import Server
from rcptgen.vpopmail.sqlrows import Folding, NoTable, Trouble, Value

CONNECT_TIMEOUT = 5
READ_TIMEOUT = 20.0
"""How long the server may say nothing; less than what a worker may, which would be killed."""


class _Name(bytes):
    """A text to be sent as it is, of a type that the server finds out."""


class _AsItIs(Dumper):
    oid = 0

    def dump(self, obj: bytes) -> bytes:
        return obj


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that does not wait for ever."""

    def wait(self, gen: Any, *_: Any, **__: Any) -> Any:
        """Runs what the driver has to do; see psycopg's own."""
        try:
            wanted = next(gen)
            while True:
                poll = select.poll()
                poll.register(self.pgconn.socket, (wanted & 1 and select.POLLIN) | (wanted & 2 and select.POLLOUT))
                events = poll.poll(READ_TIMEOUT * 1000)
                if not events:
                    raise psycopg.OperationalError(f"no answer for {READ_TIMEOUT:g} seconds")
                # Whatever else has happened shows when it is read.
                ready = (1 if events[0][1] & ~select.POLLOUT else 0) | (2 if events[0][1] & select.POLLOUT else 0)
                wanted = gen.send(ready & wanted or wanted)
        except StopIteration as end:
            return end.value


class PostgreSQL:
    """A session; see sqlrows.Session.  `socket`: the directory of the socket for this process, if there is one."""

    def __init__(self, server: Server, socket: str) -> None:
        """Connects; raises Trouble."""
        self._connection = _connect(server, socket)
        self._connection.adapters.register_dumper(_Name, _AsItIs)
        try:
            self._rows(b"SET default_transaction_read_only = on")
        except BaseException:
            self.close()
            raise

    def columns(self) -> dict[tuple[bytes, bytes], Folding]:
        """See sqlrows.Session: varchar compares exactly, char knows no blanks at the end, citext no case."""
        found = self._rows(
            b"SELECT table_name::text, column_name::text, data_type::text, udt_name::text "
            b"FROM information_schema.columns WHERE table_schema = ANY (current_schemas(false)) "
            b"AND column_name IN ('pw_name', 'pw_domain', 'alias', 'domain')"
        )
        return {
            (_bytes(table), _bytes(column)): Folding(_bytes(name) == b"citext", _bytes(kind) == b"character")
            for table, column, kind, name in found
        }

    def user(self, table: bytes, name: bytes, domain: bytes | None) -> tuple[Value, Value] | None:
        """See sqlrows.Session (vpgsql.h: USER_SELECT)."""
        query = b"SELECT pw_gid, pw_dir FROM " + _identifier(table).replace(b"%", b"%%") + b" WHERE pw_name = %s"
        names = [_Name(name)]
        if domain is not None:
            query += b" AND pw_domain = %s"
            names.append(_Name(domain))
        found = self._rows(query + b" LIMIT 1", names)
        return (_value(found[0][0]), _value(found[0][1])) if found else None

    def alias(self, name: bytes, domain: bytes) -> list[bytes | None]:
        """See sqlrows.Session (vpgsql.c: valias_select, where NULL is an empty line)."""
        query = b"SELECT valias_line FROM valias WHERE alias = %s AND domain = %s"
        return [_bytes(row[0]) for row in self._rows(query, [_Name(name), _Name(domain)])]

    def begin(self) -> None:
        """See sqlrows.Session."""
        self._rows(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def end(self) -> None:
        """See sqlrows.Session."""
        self._rows(b"COMMIT")

    def mark(self) -> bytes | None:
        """See sqlrows.Session: the numbers of rows that were ever written; they come a moment late."""
        found = self._rows(
            b"SELECT relid::text, n_tup_ins::text, n_tup_upd::text, n_tup_del::text FROM pg_stat_user_tables "
            b"WHERE schemaname = ANY (current_schemas(false)) AND relid IN (SELECT attrelid FROM pg_attribute "
            b"WHERE attname IN ('pw_name', 'valias_line') AND NOT attisdropped) ORDER BY relid"
        )
        return repr(found).encode() if found else None

    def users(self, table: bytes, *, domains: bool) -> Iterator[tuple[Value, Value, Value, Value]]:
        """See sqlrows.Session."""
        place = b"pw_domain" if domains else b"NULL"
        for row in self._stream(b"SELECT pw_name, " + place + b", pw_gid, pw_dir FROM " + _identifier(table), 4):
            yield row[0], row[1], row[2], row[3]

    def aliases(self) -> Iterator[tuple[Value, Value, Value]]:
        """See sqlrows.Session."""
        for row in self._stream(b"SELECT alias, domain, valias_line FROM valias", 3):
            yield row[0], row[1], row[2]

    def close(self) -> None:
        """See sqlrows.Session."""
        try:
            self._connection.close()
        except Exception:  # noqa: BLE001, S110 - it is as good as closed
            pass

    def _rows(self, query: bytes, names: list[_Name] | None = None) -> list[tuple[Any, ...]]:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(query, names)
                return cursor.fetchall() if cursor.description is not None else []
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise _trouble(error) from None

    def _stream(self, query: bytes, columns: int) -> Iterator[list[bytes | None]]:
        """The rows of a query by COPY, which streams, and leaves values as they are."""
        try:
            with self._connection.cursor() as cursor, cursor.copy(b"COPY (" + query + b") TO STDOUT") as copy:
                try:
                    for line in copy:
                        row = _copied(bytes(line))
                        if len(row) != columns:
                            raise Trouble("a row of another shape than was asked for")
                        yield row
                except BaseException:
                    # What is not read would be read first, however much a server sends.
                    self.close()
                    raise
        except (MemoryError, Trouble):
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise _trouble(error) from None


def _connect(server: Server, socket: str) -> _Connection:
    """The driver's connection."""
    options: dict[str, Any] = {"sslmode": server.sslmode.decode("ascii", "replace")} if server.sslmode else {}
    try:
        # No password file: it would be root's.
        return _Connection.connect(
            host=socket or server.host.decode("ascii"),
            port=server.port,
            user=server.user.decode(),
            password=server.password.decode(),
            dbname=server.database.decode(),
            client_encoding="SQL_ASCII",
            connect_timeout=CONNECT_TIMEOUT,
            application_name="rcptgen",
            passfile="/dev/null",
            autocommit=True,
            prepare_threshold=None,
            **options,
        )
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a driver fed by a server that nobody vouches for raises anything
        trouble = _trouble(error)
    # Not in the handler: whoever keeps what is raised would keep the driver's half-made connection with it.
    raise trouble


_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_MEANT = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def _copied(line: bytes) -> list[bytes | None]:
    """One line of COPY's text format."""
    fields: list[bytes] = line.removesuffix(b"\n").split(b"\t")
    if b"\\" not in line:
        return list(fields)
    return [None if one == rb"\N" else _ESCAPE.sub(lambda found: _MEANT.get(found[1], found[1]), one) for one in fields]


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value or b"")


def _value(value: Any) -> Value:
    return value if value is None or isinstance(value, int) else _bytes(value)


def _identifier(name: bytes) -> bytes:
    if b"\0" in name or not name:
        raise NoTable(name)
    return b'"' + name.replace(b'"', b'""') + b'"'


def _trouble(error: Exception) -> Exception:
    """What an error of the driver means."""
    if isinstance(error, psycopg.errors.UndefinedTable):
        return NoTable(str(error))
    said = " ".join(str(error).split()) or type(error).__name__
    state = getattr(error, "sqlstate", None) or ""
    # Classes 08, 53 and 57: the connection, resources, and a server that is being ended.
    refused = bool(state) and state[:2] not in ("08", "53", "57", "58", "XX")
    return Trouble(shown(said.encode("utf-8", "backslashreplace"))[:300], refused=refused)
