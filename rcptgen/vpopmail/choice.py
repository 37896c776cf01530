"""Which back end a vpopmail was built with."""

from __future__ import annotations

from rcptgen.config import Config
from rcptgen.qmail.look import Look
from rcptgen.source.tree import Absent, Identity
from rcptgen.vpopmail import sql
from rcptgen.vpopmail.backend import Backend
from rcptgen.vpopmail.settings import FILES, Dialect
from rcptgen.vpopmail.vpasswd import VpasswdBackend


class Backends:
    """The configured back end, or for "auto" the one that a domain's files speak for.

    "auto" is vpasswd.cdb, but for a domain whose directory holds neither vpasswd.cdb nor
    vpasswd on a host with the settings of a database (etc/vpopmail.mysql, then
    etc/vpopmail.pgsql): such a domain's users can only be in there.  So a settings file that
    was left behind on a host of the other kind is never even read.
    """

    def __init__(self, config: Config, root: bytes) -> None:
        self._config = config
        self._root = root
        self._directory = config.vpopmail.directory.encode().rstrip(b"/")
        self._cdb = VpasswdBackend()
        self._sql: dict[Dialect, Backend] = {}
        self._settings: dict[Identity, Dialect | None] = {}

    def prepare(self) -> None:
        """See Backend.prepare; in "auto" only a database that a domain has asked for already."""
        if self._config.vpopmail.backend == "mysql":
            self._database("mysql")
        elif self._config.vpopmail.backend == "postgresql":
            self._database("postgresql")
        for backend in self._sql.values():
            backend.prepare()

    def is_stale(self) -> bool:
        """Whether a database may say something else than what was read of it."""
        return any(isinstance(one, sql.SqlBackend) and one.is_stale() for one in self._sql.values())

    def is_cdb(self, who: Identity) -> bool:
        """Whether `of` is known to answer vpasswd.cdb for every domain that `who` asks for."""
        if self._config.vpopmail.backend == "auto":
            return who in self._settings and self._settings[who] is None
        return self._config.vpopmail.backend == "cdb"

    def of(self, look: Look, directory: bytes) -> Backend:
        """The back end of the domain in `directory`."""
        match self._config.vpopmail.backend:
            case "mysql":
                return self._database("mysql")
            case "postgresql":
                return self._database("postgresql")
            case "auto":
                dialect = self._dialect(look)
                if dialect is not None and not _has_users(look, directory):
                    return self._database(dialect)
        return self._cdb

    def _dialect(self, look: Look) -> Dialect | None:
        """The database that there are settings for, as far as the owner can tell; looked up once for each."""
        who = look.identity
        if who not in self._settings:
            found: Dialect | None = None
            for dialect, name in FILES.items():
                if found is None and not isinstance(look.status(self._directory + b"/" + name), Absent):
                    found = dialect
            self._settings[who] = found
        return self._settings[who]

    def _database(self, dialect: Dialect) -> Backend:
        if dialect not in self._sql:
            self._sql[dialect] = sql.backend(self._config, self._root, dialect)
        return self._sql[dialect]


def _has_users(look: Look, directory: bytes) -> bool:
    names = (directory + b"/vpasswd.cdb", directory + b"/vpasswd")
    return any(not isinstance(look.status(name), Absent) for name in names)
