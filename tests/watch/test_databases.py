"""Users in a database behind a running watch: rows that come and go, a server that goes away and comes back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from databases import Databases, DatabaseServer, settings_of
from watched import DOMAINS, VPOPMAIL
from watching import Watching

pytestmark = pytest.mark.root

SETTINGS = {"mysql": "localhost|0|vpopuser|Invented-Db-Pass|vpopmail\n"}
SETTINGS["postgresql"] = "127.0.0.1|5432|vpopuser|Invented-Db-Pass|vpopmail\n"
FILES = {"mysql": "vpopmail.mysql", "postgresql": "vpopmail.pgsql"}
TABLE = (
    "CREATE TABLE vpopmail (pw_name varchar(64) NOT NULL, pw_domain varchar(96) NOT NULL, pw_passwd varchar(128), "
    "pw_uid int, pw_gid int, pw_gecos varchar(64), pw_dir varchar(160), pw_shell varchar(20), "
    "PRIMARY KEY (pw_name, pw_domain));"
)
INSERT = "INSERT INTO vpopmail (pw_name, pw_domain, pw_gid, pw_dir) VALUES "
DATABASE = "vpopmail"
NEVER = 3600.0
OFTEN = 1.0


def row(name: str, domain: str = "one.example") -> str:
    """A new user."""
    return INSERT + f"('{name}', '{domain}', 0, '{DOMAINS}/{domain}/{name}');"


class Asking:
    """A watch of a host whose users are in a database."""

    def __init__(self, top: Path, databases: Databases, dialect: str, poll: float) -> None:
        self.watching = Watching(top)
        root = top / "host"
        settings = root / "home/vpopmail/etc" / FILES[dialect]
        settings.parent.mkdir()
        settings.write_text(SETTINGS[dialect])
        for path in (settings.parent, settings):
            os.chown(path, VPOPMAIL, VPOPMAIL)
        settings.chmod(0o640)
        for domain in ("one.example", "two.example"):
            (root / DOMAINS.lstrip("/") / domain / "vpasswd.cdb").unlink()
        text = self.watching.config.read_text().replace("[watch]", f"[watch]\nsql_poll = {poll}")
        self.watching.config.write_text(f'{text}[vpopmail]\nbackend = "{dialect}"\n')
        self.server: DatabaseServer = databases.mariadb if dialect == "mysql" else databases.postgresql
        self.server.load(settings_of(root, dialect), TABLE + row("ann") + row("bob") + row("tom", "two.example"))
        self.server.serve(root)

    def starts(self) -> None:
        """The server is there, and behind its socket in the tree."""
        self.server.start()
        self.server.serve(Path(self.watching.host.root))

    def says(self, statement: str) -> None:
        """Somebody writes to the database."""
        self.server.sql(statement, DATABASE)


@pytest.fixture(
    params=[
        pytest.param("mysql", marks=pytest.mark.needs("mariadb")),
        pytest.param("postgresql", marks=pytest.mark.needs("postgresql")),
    ]
)
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_rows_are_noticed_by_a_poll(tmp_path: Path, databases: Databases, dialect: str) -> None:
    asking = Asking(tmp_path / "top", databases, dialect, OFTEN)
    watching = asking.watching
    with watching.running():
        assert watching.accepts("ann@one.example")
        assert not watching.accepts("eve@one.example")
        asking.says(row("eve"))
        watching.becomes("eve@one.example", True)
        asking.says("DELETE FROM vpopmail WHERE pw_name = 'bob';")
        watching.becomes("bob@one.example", False)
        asking.says("UPDATE vpopmail SET pw_gid = 16 WHERE pw_name = 'ann';")
        watching.becomes("ann@one.example", False)
        watching.ends_true()


def test_rows_are_noticed_when_somebody_says_so(tmp_path: Path, databases: Databases, dialect: str) -> None:
    asking = Asking(tmp_path / "top", databases, dialect, NEVER)
    watching = asking.watching
    with watching.running():
        for number in range(3):
            asking.says(row(f"eve{number}"))
            assert watching.looked() == 0
            assert watching.accepts(f"eve{number}@one.example")
        asking.says("DELETE FROM vpopmail WHERE pw_name = 'eve1';")
        watching.looked()
        assert not watching.accepts("eve1@one.example")
        watching.ends_true()


def test_a_server_that_goes_away_and_comes_back(tmp_path: Path, databases: Databases, dialect: str) -> None:
    """What was published stays, whatever else changes meanwhile; what has changed in it is caught up with."""
    asking = Asking(tmp_path / "top", databases, dialect, OFTEN)
    watching = asking.watching
    try:
        with watching.running():
            asking.server.stop()
            assert watching.looked() == 75
            watching.edits.written("~joe/.qmail-new", "./Maildir/\n")
            watching.becomes("joe-new@mail.example", True)
            for name, accepted in (("ann", True), ("bob", True), ("eve", False)):
                assert watching.accepts(f"{name}@one.example") == accepted
            assert "server" in watching.said
            asking.starts()
            asking.says(row("eve"))
            asking.says("DELETE FROM vpopmail WHERE pw_name = 'bob';")
            watching.becomes("eve@one.example", True)
            watching.becomes("bob@one.example", False)
            assert watching.accepts("ann@one.example")
            assert watching.looked() == 0
            watching.ends_true()
    finally:
        asking.starts()


def test_a_server_that_is_killed_while_rows_come(tmp_path: Path, databases: Databases, dialect: str) -> None:
    """Nobody is lost on the way, and everything is there in the end."""
    asking = Asking(tmp_path / "top", databases, dialect, OFTEN)
    watching = asking.watching
    try:
        with watching.running():
            for number in range(3):
                asking.says(row(f"eve{number}"))
                asking.server.kill()
                watching.looked()
                assert watching.accepts("ann@one.example")
                assert all(watching.accepts(f"eve{one}@one.example") for one in range(number))
                asking.server.stop()
                asking.starts()
                watching.becomes(f"eve{number}@one.example", True)
            watching.ends_true()
    finally:
        asking.starts()
