"""Asking MySQL or MariaDB, through PyMySQL.

Nothing imports this module before a host is known to need it: the driver is an extra.

The server compares: a name is sent as a literal, and so compared by the collation of the
column, as in vdelivermail's own query.  Results come unconverted, as the bytes of the column.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any

import pymysql
from pymysql.cursors import SSCursor

from rcptgen.rules.shown import shown
from rcptgen.vpopmail.settings import Server
from rcptgen.vpopmail.sqlrows import Folding, NoTable, Trouble, Value

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 20.0
"""How long the server may say nothing; less than what a worker may, which would be killed."""

_NO_TABLE = frozenset({1146, 1059, 1103})  # not there; no name that a table could have
_COLLATION = re.compile(r"[a-z0-9]+_[a-z0-9_]+")
_AT_ONCE = 1000

codecs.lookup("cp1252")  # what the driver takes for MySQL's latin1


class MySQL:
    """A session; see sqlrows.Session.  `socket`: where the socket is for this process, if there is one."""

    def __init__(self, server: Server, socket: str) -> None:
        """Connects; raises Trouble."""
        self._connection: Any = _connect(server, socket)
        try:
            self._rows("SET character_set_results = NULL")
            try:
                self._rows("SET SESSION TRANSACTION READ ONLY")
            except Trouble as error:
                if not error.refused:
                    raise
                # A server too old to know it.  Nothing but SELECT is ever sent.
        except BaseException:
            self.close()
            raise

    def columns(self) -> dict[tuple[bytes, bytes], Folding]:
        """See sqlrows.Session; how a collation compares is asked of the server itself."""
        found = self._rows(
            "SELECT TABLE_NAME, COLUMN_NAME, COLLATION_NAME FROM information_schema.COLUMNS "
            "WHERE TABLE_SCHEMA = DATABASE() AND COLUMN_NAME IN ('pw_name', 'pw_domain', 'alias', 'domain')"
        )
        foldings = {collation: self._folding(collation) for collation in {row[2] for row in found}}
        return {(bytes(table), bytes(column).lower()): foldings[collation] for table, column, collation in found}

    def _folding(self, collation: bytes | None) -> Folding:
        name = (collation or b"").decode("latin-1")
        charset = name.partition("_")[0]
        if collation is None or name == "binary":
            return Folding()
        a, capital, blank = (f"CONVERT('{text}' USING {charset}) COLLATE {name}" for text in ("a", "A", "a "))
        if _COLLATION.fullmatch(name):
            try:
                ((case, blanks),) = self._rows(f"SELECT {a} = {capital}, {a} = {blank}")
                return Folding(case == b"1", blanks == b"1")
            except Trouble as error:
                if not error.refused:
                    raise
        # Nobody is refused for a collation that cannot be named.
        return Folding(case=True, blanks=True)

    def user(self, table: bytes, name: bytes, domain: bytes | None) -> tuple[Value, Value] | None:
        """See sqlrows.Session (vmysql.h: USER_SELECT)."""
        where = f"pw_name = {_literal(name)}"
        if domain is not None:
            where += f" AND pw_domain = {_literal(domain)}"
        query = f"SELECT pw_gid, pw_dir FROM {_identifier(table)} WHERE {where} LIMIT 1"  # noqa: S608 - in hexadecimal
        found = self._rows(query)
        return (found[0][0], found[0][1]) if found else None

    def alias(self, name: bytes, domain: bytes) -> list[bytes | None]:
        """See sqlrows.Session (vmysql.c: valias_select)."""
        where = f"alias = {_literal(name)} AND domain = {_literal(domain)}"
        query = f"SELECT valias_line FROM valias WHERE {where}"  # noqa: S608 - in hexadecimal
        return [row[0] for row in self._rows(query)]

    def begin(self) -> None:
        """See sqlrows.Session."""
        self._rows("START TRANSACTION WITH CONSISTENT SNAPSHOT")

    def end(self) -> None:
        """See sqlrows.Session."""
        self._rows("COMMIT")

    def mark(self) -> bytes | None:
        """See sqlrows.Session: the times at which tables were written, if they are known and long enough ago.

        InnoDB forgets them when the server starts.  A time is a second: what was written in
        this one may be written again without a sign of it.
        """
        try:
            # MySQL 8 would answer with what it knew a day ago; MariaDB does not know the variable.
            self._rows("SET SESSION information_schema_stats_expiry = 0")
        except Trouble as error:
            if not error.refused:
                raise
        found = self._rows(
            "SELECT TABLE_NAME, CREATE_TIME, UPDATE_TIME, UPDATE_TIME > NOW() - INTERVAL 2 SECOND "
            "FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() "
            "AND TABLE_NAME IN (SELECT TABLE_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() "
            "AND COLUMN_NAME IN ('pw_name', 'valias_line')) ORDER BY TABLE_NAME"
        )
        if not found or any(updated is None or recent != b"0" for _, _, updated, recent in found):
            return None
        return repr([(table, created, updated) for table, created, updated, _ in found]).encode()

    def users(self, table: bytes, *, domains: bool) -> Iterator[tuple[Value, Value, Value, Value]]:
        """See sqlrows.Session."""
        place = "pw_domain" if domains else "NULL"
        query = f"SELECT pw_name, {place}, pw_gid, pw_dir FROM {_identifier(table)}"  # noqa: S608 - quoted
        yield from self._stream(query)

    def aliases(self) -> Iterator[tuple[Value, Value, Value]]:
        """See sqlrows.Session."""
        yield from self._stream("SELECT alias, domain, valias_line FROM valias")

    def close(self) -> None:
        """See sqlrows.Session."""
        try:
            self._connection.close()
        except Exception:  # noqa: BLE001, S110 - it is as good as closed
            pass

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(query)
                return list(cursor.fetchall())
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise _trouble(error) from None

    def _stream(self, query: str) -> Iterator[tuple[Any, ...]]:
        cursor: Any = None
        done = False
        try:
            cursor = self._connection.cursor(SSCursor)
            cursor.execute(query)
            while rows := cursor.fetchmany(_AT_ONCE):
                yield from rows
            done = True
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise _trouble(error) from None
        finally:
            if not done:
                self._abandon(cursor)

    def _abandon(self, cursor: Any) -> None:
        """Leaves a result unread: the driver would read all of it first, however much a server sends."""
        result = getattr(cursor, "_result", None)
        if result is not None:
            result.unbuffered_active = False
        if cursor is not None:
            cursor.connection = None
        self._connection._force_close()


def _connect(server: Server, socket: str) -> Any:
    """The driver's connection."""
    try:
        # What the settings say is bytes, and no encoding of ours.  No file is ever sent to
        # the server, which is not ours either, and none of root's option files is read.
        return pymysql.connect(
            host=server.host.decode("ascii"),
            port=server.port or 3306,
            unix_socket=socket or None,
            ssl_disabled=bool(socket),
            user=server.user,
            password=server.password,
            database=server.database,
            charset="latin1",
            use_unicode=False,
            conv={},
            autocommit=True,
            local_infile=False,
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            write_timeout=READ_TIMEOUT,
            program_name="rcptgen",
        )
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a driver fed by a server that nobody vouches for raises anything
        trouble = _trouble(error)
    # Not in the handler: whoever keeps what is raised would keep the driver's half-made connection with it.
    raise trouble


def _literal(text: bytes) -> str:
    """A string of any bytes; its coercibility lets the column's collation decide, as a quoted one's."""
    return f"_latin1 X'{text.hex()}'"


def _identifier(name: bytes) -> str:
    try:
        return "`" + name.decode("ascii").replace("`", "``") + "`"
    except UnicodeDecodeError:
        raise NoTable(name) from None


def _trouble(error: Exception) -> Exception:
    """What an error of the driver means."""
    number = error.args[0] if isinstance(error, pymysql.err.MySQLError) and error.args else None
    if number in _NO_TABLE:
        return NoTable(str(number))
    said = str(error.args[1]) if isinstance(number, int) and len(error.args) > 1 else f"{type(error).__name__}: {error}"
    # Errors of the client have numbers from 2000 to 2999: those are about the connection.
    refused = isinstance(number, int) and not 2000 <= number < 3000 and number not in _GONE
    return Trouble(shown(said.encode("utf-8", "backslashreplace"))[:300], refused=refused)


_GONE = frozenset({1040, 1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1317, 1927, 4031})
"""Errors of a server that is full, or that ends itself or the connection."""
