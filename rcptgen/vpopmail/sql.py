"""vpopmail's users and aliases in MySQL or PostgreSQL.

A single address costs a query or a few, on a connection that is kept; a whole table costs
one streamed query for all domains (`prepare`), or one a table where each domain has its own.

Every method first reads the settings file as the home's owner, since a vdelivermail that
cannot read it defers.  The connection is made as that owner; for `prepare`, to which no
owner belongs, as the owner of vpopmail's directory: root's own rights never count at a
server that goes by the user who connects (MySQL's unix_socket, PostgreSQL's peer).

What differs from asking for each name: MySQL's collations may take two different ASCII
letters as equal (utf8_lithuanian_ci: i and y); the table of a domain knows of case, blanks
at the end and accents alone.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from rcptgen.config import Config
from rcptgen.qmail.look import Look
from rcptgen.rules.shown import shown
from rcptgen.source.identity import Acting, Actor
from rcptgen.source.resolve import Found, Resolver
from rcptgen.source.tree import FailedForNow, Identity, IdentityUnavailable, Regular, SourceTree, Status
from rcptgen.vpopmail.backend import Aliases, Crash, Domain, Noticed, Unavailable, User, Users
from rcptgen.vpopmail.settings import FILES, BadSettings, Dialect, Server, parse
from rcptgen.vpopmail.sqlrows import AliasRows, NoTable, Session, Snapshot, Trouble, UserRows, user_of
from rcptgen.vpopmail.text import c_string

RETRY = 5.0
"""Seconds after which a server that did not answer is asked again."""

MOST_ASKED = 10_000
"""Names of a run, at most, that the server is asked to compare; what is beyond them is accepted."""

MOST_TABLES = 100_000
MOST_SERVERS = 4
SETTINGS_LIMIT = 1 << 16
SUN_PATH = 107

SOCKETS = (
    b"/run/mysqld/mysqld.sock",
    b"/var/run/mysqld/mysqld.sock",
    b"/var/lib/mysql/mysql.sock",
    b"/run/mysql/mysql.sock",
)
"""Where MySQL's library may look for `localhost`: Debian's place, Red Hat's, SUSE's.

Not the directory for everybody's temporary files, the place of MySQL's own builds: anybody
may put a socket there while the server is down.  A host that uses it can say so in vpopmail.mysql.
"""

USERS = b"vpopmail"
NAMELESS = b"users"
_UNDERSCORES = bytes.maketrans(b".-", b"__")
_POSTGRESQL_NAME = 63

_Answer = TypeVar("_Answer")


def backend(config: Config, root: bytes = b"/", dialect: Dialect | None = None) -> SqlBackend:
    """The back end of a host that keeps its users in a database; `dialect` where the configuration does not say it."""
    named = config.vpopmail.backend
    if named in ("mysql", "postgresql"):
        dialect = "mysql" if named == "mysql" else "postgresql"
    if dialect is None:
        raise ValueError("no database is configured")
    return SqlBackend(config, root, dialect)


class SqlBackend:
    """See backend.Backend."""

    makes_directories = True

    def __init__(self, config: Config, root: bytes, dialect: Dialect) -> None:
        self.dialect = dialect
        self.checks_uid = dialect == "mysql"
        self.directory = config.vpopmail.directory.encode().rstrip(b"/") or b"/"
        self.file = os.path.join(self.directory, FILES[dialect])
        self.many = config.vpopmail.many_domains
        self.valias = config.vpopmail.valias
        self._qmail_ext = config.vpopmail.qmail_ext
        self._root = root
        self._connect = _driver(dialect)
        self._session: Session | None = None
        self._server: Server | None = None
        self._failures: dict[Server, tuple[float, str]] = {}
        self._snapshots: dict[Server, Snapshot | Trouble] = {}
        self._marks: dict[Server, bytes] = {}
        self._readers: dict[Server, Identity] = {}

    # -- what may be asked --------------------------------------------------------------------

    def prepare(self) -> None:
        """Reads everything, once until `refresh`; a failure shows when the users of a domain are asked for.

        Reads the settings as root, since nobody's home is being looked at yet; nothing of
        them is passed on, and each home's owner must be able to read them too.
        """
        if self._snapshots:
            return
        with SourceTree(self._root, record=False) as tree:
            found = tree.read(self.file, limit=SETTINGS_LIMIT)
            owner = tree.status(self.directory)
            if not isinstance(found, Regular) or not isinstance(owner, Status):
                return
            try:
                server = parse(self.dialect, found.data)
            except BadSettings:
                return
            self._load(server, Identity(owner.uid, owner.gid))

    def refresh(self) -> None:
        """Forgets what was read."""
        self._snapshots.clear()
        self._failures.clear()

    def is_stale(self) -> bool:
        """Whether a database may say something else than what was read of it; True where nobody can tell.

        One that could not be read is stale once it can be, one that cannot be asked any more is.
        """
        return any(self._mark(server) != self._marks.get(server, b"") for server in self._snapshots)

    def _mark(self, server: Server) -> bytes:
        """The mark of a server now; empty where it cannot be asked, another text each time where it has none."""
        was_read = isinstance(self._snapshots[server], Snapshot)
        try:
            mark = self._connected(server, self._readers[server]).mark()
        except (Trouble, NoTable):
            self.close()
            return b"gone" if was_read else b""
        return mark or b"unknown"

    def close(self) -> None:
        """The connection is given back."""
        if self._session is not None:
            self._session.close()
            self._session = self._server = None

    def user(self, look: Look, domain: Domain, name: bytes) -> User | None:
        """See backend.Backend (vauth_getpw)."""
        server = self._settings(look)
        table, place = self._place(domain)
        if not _sayable(name, place or b""):
            return None
        try:
            found = self._asked(look, server, lambda session: session.user(table, name, place))
        except NoTable:
            look.suspect(self.file, f"{server.name}: there is no table {shown(table)}")
            return None
        return None if found is None else user_of(name, *found, self.file)

    def users(self, look: Look, domain: Domain) -> Users:
        """See backend.Backend."""
        server = self._settings(look)
        snapshot = self._snapshot(look, server)
        table, place = self._place(domain)
        if not snapshot.has(table):
            look.suspect(self.file, f"{server.name}: there is no table {shown(table)}")
            return Users({}, (), file=self.file)
        key = table if place is None else snapshot.folding(table, b"pw_domain").asked(place)
        rows = snapshot.users.get(key, UserRows(self.file))
        return rows.users(lambda name: self.user(look, domain, name))

    def alias(self, look: Look, domain: Domain, names: Iterable[bytes]) -> Sequence[bytes]:
        """See backend.Backend (valias_select)."""
        if self.valias is False:
            return ()
        server = self._settings(look)
        try:
            for name in names:
                if not _sayable(name, domain.name):
                    continue
                found = self._asked(look, server, functools.partial(_alias, name, domain.name))
                if found:
                    return [self._line(one) for one in found]
        except NoTable:
            # vdelivermail makes the table, and goes on: nobody has made an alias yet.
            return ()
        return ()

    def aliases(self, look: Look, domain: Domain) -> Aliases:
        """See backend.Backend."""
        if self.valias is False:
            return Aliases(file=self.file)
        server = self._settings(look)
        snapshot = self._snapshot(look, server)
        if not snapshot.has(b"valias", b"alias"):
            return Aliases(file=self.file)
        rows = snapshot.aliases.get(snapshot.folding(b"valias", b"domain").asked(domain.name))
        return Aliases(rows.lines() if rows is not None else {}, self.file)

    # -- the settings -------------------------------------------------------------------------

    def _settings(self, look: Look) -> Server:
        """Where the owner would connect to.  Raises Unavailable."""
        found = look.read(self.file, SETTINGS_LIMIT)
        if isinstance(found, FailedForNow):
            raise Unavailable(self.file, os.strerror(found.errno), self._noticed())
        if not isinstance(found, Regular):
            raise Unavailable(self.file, "the settings of the database cannot be read", self._noticed(settings=False))
        try:
            return parse(self.dialect, found.data)
        except BadSettings as error:
            look.suspect(self.file, str(error))
            raise Unavailable(self.file, str(error), self._noticed()) from None

    def _noticed(self, *, settings: bool = True) -> Noticed:
        """What vdelivermail makes of a database that does not answer, or of settings that it cannot read.

        vdelivermail.c: main looks at the error after valias, and after a user without an
        extension; vpgsql.c: valias_select keeps it to itself, and what follows finds the
        connection open.
        """
        if self.valias is True:
            return Noticed.NONE if self.dialect == "postgresql" and settings else Noticed.ALL
        return Noticed.UNDASHED if self.valias is False and self._qmail_ext else Noticed.ALL

    def _place(self, domain: Domain) -> tuple[bytes, bytes | None]:
        """The table of a domain's users, and the pw_domain where that matters (vauth_munch_domain)."""
        name = domain.name.lower()
        if self.many:
            return USERS, name
        table = name.translate(_UNDERSCORES) or NAMELESS
        return (table[:_POSTGRESQL_NAME] if self.dialect == "postgresql" else table), None

    def _line(self, line: bytes | None) -> bytes:
        if line is None and self.dialect == "mysql":
            raise Crash
        return c_string(line or b"")

    # -- the server ---------------------------------------------------------------------------

    def _asked(self, look: Look, server: Server, ask: Callable[[Session], _Answer]) -> _Answer:
        """What the server answers.  A connection that was kept may have gone: then there is a second one."""
        since, reason = self._failures.get(server, (0.0, ""))
        if reason and time.monotonic() - since < RETRY:
            raise self._failed(look, server, reason)
        while True:
            kept = self._session is not None and self._server == server
            start = time.monotonic()
            try:
                return ask(self._connected(server, look.identity))
            except Trouble as trouble:
                if not trouble.refused:
                    self.close()
                    # One that has gone says so at once; one that says nothing has had its time.
                    if kept and time.monotonic() - start < RETRY:
                        continue
                self._failures[server] = (time.monotonic(), trouble.reason)
                raise self._failed(look, server, trouble.reason) from None

    def _failed(self, look: Look, server: Server, reason: str) -> Unavailable:
        look.failed(self.file, f"{server.name}: {reason}")
        return Unavailable(server.name.encode(), reason, self._noticed())

    def _connected(self, server: Server, identity: Identity) -> Session:
        if self._session is None or self._server != server:
            self.close()
            with _connecting_as(identity), self._socket(server) as socket:
                self._session = self._connect(server, socket)
            self._server = server
        return self._session

    @contextlib.contextmanager
    def _socket(self, server: Server) -> Iterator[str]:
        """What this process connects to for a socket of the host: below the root, whatever links say; or nothing."""
        if not server.socket and (server.dialect != "mysql" or server.host != b"localhost"):
            yield ""
            return
        paths = (server.socket,) if server.socket else SOCKETS
        resolver = Resolver(self._root, Actor(), openat2=True)
        found = None
        try:
            for path in paths:
                found = _socket_at(resolver, path, server)
                if found is not None:
                    direct = not resolver.alternate and len(path) + 20 < SUN_PATH
                    yield os.fsdecode(path) if direct else f"/proc/self/fd/{found.fd}"
                    return
        finally:
            resolver.close()
            if found is not None:
                found.close()
        raise Trouble("there is no socket " + " or ".join(map(shown, paths)))

    # -- everything at once -------------------------------------------------------------------

    def _snapshot(self, look: Look, server: Server) -> Snapshot:
        if server not in self._snapshots:
            self._load(server, look.identity)
        found = self._snapshots[server]
        if isinstance(found, Trouble):
            raise self._failed(look, server, found.reason)
        return found

    def _load(self, server: Server, identity: Identity) -> None:
        self.close()  # what was kept may have gone
        if len(self._snapshots) >= MOST_SERVERS:
            self._snapshots.clear()
        self._readers[server] = identity
        try:
            session = self._connected(server, identity)
            # Before anything is read: what is written meanwhile shows afterwards.
            self._marks[server] = session.mark() or b""
            try:
                self._snapshots[server] = self._read(session)
            except NoTable as error:
                # It was there a moment ago.
                raise Trouble(f"a table has gone: {error}") from None
        except Trouble as trouble:
            self.close()
            self._marks[server] = b""
            self._snapshots[server] = Trouble(trouble.reason)

    def _read(self, session: Session) -> Snapshot:
        session.begin()
        found = Snapshot(self.file, columns=session.columns())
        tables = [table for table, column in found.columns if column == b"pw_name"]
        if len(tables) > MOST_TABLES:
            raise Trouble(f"more than {MOST_TABLES} tables of users")
        for table in tables:
            if not self.many or table == USERS:
                found.take_users(table, session.users(table, domains=self.many), domains=self.many)
        if self.valias is not False and found.has(b"valias", b"alias"):
            found.take_aliases(session.aliases())
        for number, (table, name, place) in enumerate(found.doubtful_users):
            row = session.user(table, name, place) if number < MOST_ASKED else (0, b"")
            if row is not None:
                found.users.setdefault(table if place is None else place, UserRows(self.file)).add(name, *row)
        for number, (name, place) in enumerate(found.doubtful_aliases):
            for line in session.alias(name, place) if number < MOST_ASKED else [b"#"]:
                found.aliases.setdefault(place, AliasRows()).add(name, c_string(line or b""))
        session.end()
        return found


def _alias(name: bytes, domain: bytes, session: Session) -> list[bytes | None]:
    return session.alias(name, domain)


def _sayable(*names: bytes) -> bool:
    """Whether C strings can be so."""
    return not any(b"\0" in name for name in names)


def _socket_at(resolver: Resolver, path: bytes, server: Server) -> Found | None:
    """The socket, or for PostgreSQL the directory that holds it, not being a link that could lead out of the root."""
    try:
        found = resolver.locate(path, directory=server.dialect == "postgresql")
    except (OSError, ValueError):
        return None
    try:
        status = found.stat
        if server.dialect == "postgresql":
            status = os.stat(f".s.PGSQL.{server.port}", dir_fd=found.fd, follow_symlinks=False)
        if stat.S_ISSOCK(status.st_mode):
            return found
    except OSError:
        pass
    found.close()
    return None


@contextlib.contextmanager
def _connecting_as(identity: Identity) -> Iterator[None]:
    """The process has the identity, where it has root's and is able to take another."""
    if os.geteuid() != 0 or identity.uid == 0 or not (actor := Actor()).switches:
        yield
        return
    try:
        with Acting(actor, identity):
            yield
    except IdentityUnavailable as error:
        raise Trouble(str(error)) from None


def _driver(dialect: Dialect) -> Callable[[Server, str], Session]:
    """What makes a session; the driver is loaded only where it is needed.

    Mail users cannot always read where Python keeps its modules, and this may be called
    while the process has the identity of one.  So it is loaded as root, like every other
    module, and at once with what it would load by itself later.
    """
    taken = os.geteuid()
    try:
        if os.getuid() == 0:
            os.seteuid(0)
        codecs.lookup("idna")
        if dialect == "mysql":
            from rcptgen.vpopmail.sql_mysql import MySQL

            return MySQL
        from rcptgen.vpopmail.sql_postgresql import PostgreSQL

        return PostgreSQL
    except (ImportError, OSError) as error:
        reason = f"the driver is missing ({error}): pip install 'rcptgen[{dialect}]'"
    finally:
        if taken != os.geteuid():
            os.seteuid(taken)

    def missing(server: Server, socket: str) -> Session:
        raise Trouble(reason)

    return missing
