"""Real database servers for tests: MariaDB and PostgreSQL, each on a socket of its own.

A server is started when it is first wanted, as an account of the system that is not root,
listens on nothing but its socket, and ends with the run, also when that is killed: a shell
beside it waits for the end of a pipe.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rcptgen.vpopmail.settings import BadSettings, Server, mysql, postgresql

PATIENCE = 60.0
POSTGRESQL_PORT = 5432

# The server's id comes first; when nobody holds the pipe any more, it is told to end.
_KEEPER = '"$@" </dev/null & echo $!; cat >/dev/null; kill $! 2>/dev/null; wait'


class DatabaseServer(ABC):
    """One server below `place`.  `program` is what runs; subclasses say how."""

    account = ""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.data = place / "data"
        self.log = place / "log"
        self._keeper: subprocess.Popen[bytes] | None = None
        self._pid = 0

    @property
    def pids(self) -> set[int]:
        """The processes of this run that belong to the server."""
        return set() if self._keeper is None else {self._keeper.pid}

    def start(self) -> None:
        """The server runs and answers; it may have been running before."""
        if self._keeper is not None and self._alive():
            return
        self.stop()
        if not self.data.exists():
            for path in (self.data, self.place / "run", self.place / "tmp"):
                path.mkdir(mode=0o755, exist_ok=True)
                self._own(path)
            self.log.touch()
            self._own(self.log)
            self._initialise()
        with self.log.open("ab") as log:
            self._keeper = subprocess.Popen(
                ["/bin/sh", "-c", _KEEPER, "keeper", *self._command()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.place / "run",
                env=self._environment(),
                start_new_session=True,
                **self._as_account(),
            )
        assert self._keeper.stdout is not None
        self._pid = int(self._keeper.stdout.readline())
        end = time.monotonic() + PATIENCE
        while not self._answers():
            if time.monotonic() > end or not self._alive():
                said = self.log.read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"{type(self).__name__} does not start:\n{said}")
            time.sleep(0.05)

    def stop(self) -> None:
        """The server has ended."""
        if self._keeper is None:
            return
        for pipe in (self._keeper.stdin, self._keeper.stdout):
            assert pipe is not None
            pipe.close()
        try:
            self._keeper.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            self._keeper.wait(PATIENCE)
        self._keeper = None

    def kill(self) -> None:
        """The server is gone in the middle of whatever it did."""
        self.signal(signal.SIGKILL)
        end = time.monotonic() + PATIENCE
        while self._alive() and time.monotonic() < end:
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the server and all its processes."""
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
            for pid in (self._pid, *map(int, children)):
                os.kill(pid, number)

    def _alive(self) -> bool:
        try:
            return Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    def _own(self, path: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(path, self.account)

    def _as_account(self) -> dict[str, Any]:
        return {"user": self.account, "group": self.account, "extra_groups": []} if os.geteuid() == 0 else {}

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TMPDIR": str(self.place / "tmp")}

    def _run(self, command: Sequence[str | Path], *, account: bool = False, text: str | None = None) -> str:
        done: subprocess.CompletedProcess[bytes] = subprocess.run(
            [*map(str, command)],
            input=(text or "").encode(),
            capture_output=True,
            check=False,
            cwd=self.place / "run",
            env=self._environment(),
            **(self._as_account() if account else {}),
        )
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]}: {(done.stderr or done.stdout).decode(errors='replace')[-2000:]}")
        return done.stdout.decode()

    @property
    @abstractmethod
    def socket(self) -> Path:
        """The socket it listens on."""

    @abstractmethod
    def sql(self, statements: str, database: str = "") -> str:
        """What the administrator's client says to these statements."""

    @abstractmethod
    def _initialise(self) -> None:
        """Makes an empty database."""

    @abstractmethod
    def _command(self) -> list[str]:
        """What starts the server."""

    def _answers(self) -> bool:
        try:
            return "1" in self.sql("SELECT 1;")
        except RuntimeError:
            return False

    @abstractmethod
    def load(self, server: Server, dump: str) -> None:
        """A database that holds just `dump`, and its user, as the settings of the host have them."""

    @abstractmethod
    def serve(self, root: Path, directory: str = "/home/vpopmail") -> None:
        """The host below `root` reaches this server by its own settings, or by settings that are made to fit.

        A socket is linked into the tree, so that `localhost` needs no change; what would
        be reached by TCP is, since a test cannot take the ports of its machine.
        """

    def _link(self, where: Path) -> None:
        where.parent.mkdir(parents=True, exist_ok=True)
        where.unlink(missing_ok=True)
        os.link(self.socket, where)


class MariaDB(DatabaseServer):
    """mariadbd."""

    account = "mysql"

    @property
    def socket(self) -> Path:
        return self.place / "run" / "s"

    def _initialise(self) -> None:
        options = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        self._run(["mariadb-install-db", "--no-defaults", f"--datadir={self.data}", *options], account=True)

    def _command(self) -> list[str]:
        return [
            _daemon("mariadbd", "/usr/sbin"),
            "--no-defaults",
            f"--datadir={self.data}",
            f"--socket={self.socket}",
            f"--pid-file={self.place / 'run' / 'pid'}",
            "--skip-networking",
            "--skip-log-bin",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-buffer-pool-size=32M",
        ]

    def sql(self, statements: str, database: str = "") -> str:
        client = ["mariadb", "--no-defaults", f"--socket={self.socket}", "--user=root", "--skip-column-names"]
        return self._run([*client, "--default-character-set=utf8mb4", database], text=statements)

    @contextlib.contextmanager
    def killed_while_it_says(self, query: str) -> Iterator[None]:
        """While the block runs, the server is killed as soon as it is seen to answer `query`."""
        asking = f"mariadb --no-defaults --socket={self.socket} --user=root -e 'SHOW FULL PROCESSLIST'"
        watch = f"until {asking} | grep -q '{query}'; do :; done; kill -9 {self._pid}"
        watcher = subprocess.Popen(["/bin/sh", "-c", watch], stdin=subprocess.DEVNULL, env=self._environment())
        try:
            yield
        finally:
            watcher.kill()
            watcher.wait()

    def load(self, server: Server, dump: str) -> None:
        self.start()
        name, user, password = (one.decode() for one in (server.database, server.user, server.password))
        self.sql(
            f"DROP DATABASE IF EXISTS `{name}`; CREATE DATABASE `{name}`; DROP USER IF EXISTS '{user}'@'localhost';"
            f"CREATE USER '{user}'@'localhost' IDENTIFIED BY '{password}';"
            f"GRANT SELECT ON `{name}`.* TO '{user}'@'localhost';"
        )
        self.sql(dump, name)

    def serve(self, root: Path, directory: str = "/home/vpopmail") -> None:
        self._link(root / "run/mysqld/mysqld.sock")


class PostgreSQL(DatabaseServer):
    """postgres."""

    account = "postgres"

    @property
    def socket(self) -> Path:
        return self.place / "run" / f".s.PGSQL.{POSTGRESQL_PORT}"

    def _initialise(self) -> None:
        options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self._run([_daemon("initdb"), f"--pgdata={self.data}", *options], account=True)
        # Whoever is not the administrator needs the password.
        access = self.data / "pg_hba.conf"
        access.write_text("local all postgres trust\nlocal all all scram-sha-256\n")

    def _command(self) -> list[str]:
        settings = (
            "listen_addresses=",
            f"port={POSTGRESQL_PORT}",
            f"unix_socket_directories={self.place / 'run'}",
            "fsync=off",
            "max_connections=20",
        )
        return [_daemon("postgres"), "-D", str(self.data), *(part for one in settings for part in ("-c", one))]

    def sql(self, statements: str, database: str = "") -> str:
        where = [f"--host={self.place / 'run'}", f"--port={POSTGRESQL_PORT}", "--username=postgres"]
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--set=ON_ERROR_STOP=1"]
        return self._run(["psql", *where, *options, f"--dbname={database or 'postgres'}"], text=statements)

    def load(self, server: Server, dump: str) -> None:
        self.start()
        name, user, password = (one.decode() for one in (server.database, server.user, server.password))
        self.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE);')
        self.sql(f'DROP ROLE IF EXISTS "{user}";')
        self.sql(f"CREATE ROLE \"{user}\" LOGIN PASSWORD '{password}';")
        self.sql(f'CREATE DATABASE "{name}" TEMPLATE template0;')
        self.sql(dump, name)
        self.sql(f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{user}";', name)

    def serve(self, root: Path, directory: str = "/home/vpopmail") -> None:
        self._link(root / "run/postgresql" / self.socket.name)
        settings = root / directory.lstrip("/") / "etc/vpopmail.pgsql"
        server = replace(postgresql(settings.read_bytes()), host=b"/run/postgresql", port=POSTGRESQL_PORT)
        fields = (server.host, b"%d" % server.port, server.user, server.password, server.database)
        text = b"|".join(fields) + b"\n"
        if text != settings.read_bytes():
            settings.write_bytes(text)  # keeps its owner and mode


def _daemon(name: str, *places: str) -> str:
    """A program that need not be on PATH."""
    for place in (*places, *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))):
        if os.access(os.path.join(place, name), os.X_OK):
            return os.path.join(place, name)
    return shutil.which(name) or ""


def missing_mariadb() -> str:
    """Why there is no MariaDB to test with."""
    if not _daemon("mariadbd", "/usr/sbin") or not shutil.which("mariadb-install-db") or not shutil.which("mariadb"):
        return "no mariadbd (Debian: apt-get install mariadb-server)"
    return _missing_driver("pymysql", "mysql")


def missing_postgresql() -> str:
    """Why there is no PostgreSQL to test with."""
    if not all(_daemon(name) for name in ("postgres", "initdb")) or not shutil.which("psql"):
        return "no postgres (Debian: apt-get install postgresql)"
    return _missing_driver("psycopg", "postgresql")


def _missing_driver(module: str, extra: str) -> str:
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, check=False)
    return "" if done.returncode == 0 else f"no {module} that works: pip install 'rcptgen[{extra}]'"


class Databases:
    """The servers of one run; none is started before it is wanted."""

    def __init__(self, place: Path) -> None:
        self.mariadb = MariaDB(place / "m")
        self.postgresql = PostgreSQL(place / "p")
        place.chmod(0o755)  # the servers run as accounts of their own
        for server in (self.mariadb, self.postgresql):
            server.place.mkdir(mode=0o755)
        RUNNING.append(self)

    @property
    def pids(self) -> set[int]:
        """The processes of this run that belong to them."""
        return self.mariadb.pids | self.postgresql.pids

    def provide(self, root: Path, dialect: str, dump: str) -> None:
        """The database that a vector's tree, laid down below `root`, names: with its content, where it is reachable.

        Settings of another server than the distribution's own (a closed port, a socket that is not
        there) are those of a server that does not answer.
        """
        try:
            wanted = settings_of(root, dialect)
        except (OSError, BadSettings):
            return
        where = (wanted.host, wanted.port, wanted.socket)
        if dialect == "mysql" and where == (b"localhost", 0, b""):
            self.mariadb.load(wanted, dump)
            self.mariadb.serve(root)
        elif dialect == "postgresql" and where in ((b"127.0.0.1", 5432, b""), (b"localhost", 5432, b"")):
            self.postgresql.load(wanted, dump)
            self.postgresql.serve(root)

    def close(self) -> None:
        """All have ended."""
        for server in (self.mariadb, self.postgresql):
            server.stop()
        RUNNING.remove(self)


RUNNING: list[Databases] = []


def running() -> Iterator[int]:
    """The processes that are no test's own, and stay until the run ends."""
    for one in RUNNING:
        yield from one.pids


def settings_of(root: Path, dialect: str, directory: str = "/home/vpopmail") -> Server:
    """What the host below `root` says of its database."""
    etc = root / directory.lstrip("/") / "etc"
    if dialect == "mysql":
        return mysql((etc / "vpopmail.mysql").read_bytes())
    return postgresql((etc / "vpopmail.pgsql").read_bytes())
