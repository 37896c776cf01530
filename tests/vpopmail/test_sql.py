"""vpopmail's users and aliases, asked of real database servers."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest
from databases import Databases, DatabaseServer, settings_of
from hosts import load_vectors

from rcptgen.compiler import Output, Request, compile_host
from rcptgen.config import Config, Vpopmail
from rcptgen.qmail.look import NoLook
from rcptgen.reader import State
from rcptgen.source.tree import DEFAULT_LIMIT, Identity, Reading, SourceTree
from rcptgen.targets import target
from rcptgen.vpopmail.backend import Domain, Noticed, Unavailable, User, Users
from rcptgen.vpopmail.sql import backend
from rcptgen.vpopmail.sqlrows import Value

if TYPE_CHECKING:
    from rcptgen.vpopmail.sql_mysql import MySQL
    from rcptgen.vpopmail.sql_postgresql import PostgreSQL

DOMAINS = "/home/vpopmail/domains"
OWNER = Identity(89, 89)
MYSQL = "localhost|0|vpopuser|Invented-Db-Pass|vpopmail\n"
PGSQL = "127.0.0.1|5432|vpopuser|Invented-Db-Pass|vpopmail\n"
USER_COLUMNS = (
    "pw_name {0}(64) NOT NULL, {1} pw_passwd {0}(128), pw_uid int, pw_gid int, pw_gecos {0}(64), pw_dir {0}(160), "
    "pw_shell {0}(20)"
)
TABLE_OF_ALL = "CREATE TABLE vpopmail (" + USER_COLUMNS + ", PRIMARY KEY (pw_name, pw_domain));"
TABLE = TABLE_OF_ALL.format("char", "pw_domain char(96) NOT NULL,")
PG_TABLE = TABLE_OF_ALL.format("varchar", "pw_domain varchar(96) NOT NULL,")
ALIASES = "CREATE TABLE valias (alias {0}(32) NOT NULL, domain {0}(96) NOT NULL, valias_line text NOT NULL);"
INDEXED_ALIASES = (
    ALIASES + "CREATE INDEX valias_idx ON valias (alias, domain); INSERT INTO valias VALUES "
    "('info', 'example.org', '&joe@elsewhere.example')"
    + ", ('other', 'example.org', '&x@elsewhere.example')" * 5000
    + ";"
)
INSERT = "INSERT INTO vpopmail (pw_name, pw_domain, pw_gid, pw_dir) VALUES "

pytestmark = pytest.mark.root


def example(name: bytes = b"example.org") -> Domain:
    return Domain(name, 89, 89, os.fsencode(f"{DOMAINS}/example.org"))


def row(name: str, domain: str = "example.org", gid: str = "0", directory: str | None = "") -> str:
    where = f"{DOMAINS}/{domain}/{name}" if directory == "" else directory
    said = "NULL" if where is None else f"'{where}'"
    return INSERT + f"('{name}', '{domain}', {gid}, {said});"


class OwnersEyes(NoLook):
    """A look that reads as the owner, and remembers what it is told."""

    def __init__(self, tree: SourceTree, identity: Identity) -> None:
        self.identity = identity
        self.told: list[tuple[str, bool]] = []
        self._tree = tree

    def read(self, name: bytes, limit: int = DEFAULT_LIMIT) -> Reading:
        with self._tree.acting_as(self.identity):
            return self._tree.read(name, limit=limit)

    def failed(self, path: bytes, reason: str) -> None:
        self.told.append((f"{os.fsdecode(path)}: {reason}", True))

    def suspect(self, path: bytes, reason: str) -> None:
        self.told.append((f"{os.fsdecode(path)}: {reason}", False))


class Asked:
    """A host with a database, its back end, and what the look was told."""

    def __init__(self, root: Path, config: Config, server: DatabaseServer, owner: Identity = OWNER) -> None:
        self.root = root
        self.server = server
        self.config = config
        self.backend = backend(config, bytes(root))
        self.tree = SourceTree(bytes(root), record=False)
        self.look = OwnersEyes(self.tree, owner)

    @property
    def failed(self) -> list[str]:
        return [what for what, failed in self.look.told if failed]

    @property
    def suspect(self) -> list[str]:
        return [what for what, failed in self.look.told if not failed]

    def close(self) -> None:
        self.backend.close()
        self.tree.close()

    def users(self, domain: Domain | None = None) -> dict[bytes, Seen | None]:
        """All users, as both ways of asking agree about them."""
        domain = domain or example()
        self.backend.refresh()
        self.backend.prepare()
        listed = as_dict(self.backend.users(self.look, domain))
        assert {name: seen(self.backend.user(self.look, domain, name)) for name in listed} == listed
        return listed


Seen = tuple[bool, bytes]
"""Of a user: whether it is locked, and its directory.  Other flags are not kept."""


def seen(user: User | None) -> Seen | None:
    return None if user is None else (bool(user.gid & 0x10), user.directory)


def as_dict(users: Users) -> dict[bytes, Seen | None]:
    found = {name: User(name, 0, parent + b"/" + name) for parent, names in users.plain.items() for name in names}
    for one in users.others:
        assert one.name not in found
        found[one.name] = one
    return {name: seen(one) for name, one in found.items()}


Make = Callable[..., Asked]


@pytest.fixture
def make(tmp_path: Path, databases: Databases) -> Iterator[Make]:
    made: list[Asked] = []

    def one(
        dialect: str, dump: str, *, serve: bool = True, mode: int = 0o640, owner: Identity = OWNER, **settings: object
    ) -> Asked:
        root = tmp_path / f"root{len(made)}"
        etc = root / "home/vpopmail/etc"
        etc.mkdir(parents=True)
        mysql = dialect == "mysql"
        file = etc / ("vpopmail.mysql" if mysql else "vpopmail.pgsql")
        file.write_text(MYSQL if mysql else PGSQL)
        os.chown(file, *owner)
        file.chmod(mode)
        os.chown(etc.parent, *owner)
        server: DatabaseServer = databases.mariadb if mysql else databases.postgresql
        server.load(settings_of(root, dialect), dump)
        if serve:
            server.serve(root)
        config = Config(vpopmail=Vpopmail(backend="mysql" if mysql else "postgresql", **settings))  # type: ignore[arg-type]
        made.append(Asked(root, config, server, owner))
        return made[-1]

    yield one
    for each in made:
        each.close()


def lines_of(asked: Asked, names: Iterable[bytes], domain: Domain | None = None) -> list[bytes]:
    return list(asked.backend.alias(asked.look, domain or example(), names))


def test_a_host_without_a_database_loads_no_driver() -> None:
    code = "import sys, rcptgen.units; assert not {'pymysql', 'psycopg'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.needs("mariadb")
class TestMySQL:
    def test_names_compare_as_the_server_compares_them(self, make: Make) -> None:
        rows = row("joe") + row("Capital") + row("josé") + row("weiß") + row("joe", "other.example")
        asked = make("mysql", TABLE.replace(");", ") CHARSET utf8mb4 COLLATE utf8mb4_general_ci;") + rows)
        found = asked.users()
        # general_ci has one letter for one letter, so that weiss is somebody else.
        assert sorted(found) == [b"capital", b"joe", b"jose", b"weis"]

    def test_a_binary_collation_compares_bytes(self, make: Make) -> None:
        columns = TABLE.replace(");", ") CHARSET utf8mb4 COLLATE utf8mb4_bin;")
        asked = make("mysql", columns + row("joe") + row("Capital") + row("josé"))
        assert sorted(asked.users()) == [b"joe"]
        assert asked.backend.user(asked.look, example(), b"capital") is None

    def test_a_domain_in_capitals_is_the_same_domain(self, make: Make) -> None:
        asked = make("mysql", TABLE + row("joe", "EXAMPLE.org") + row("ann"))
        assert sorted(asked.users()) == [b"ann", b"joe"]
        assert sorted(asked.users(example(b"Example.ORG"))) == [b"ann", b"joe"]

    def test_null_is_no_flags_and_no_directory(self, make: Make) -> None:
        asked = make("mysql", TABLE + row("joe", gid="NULL", directory=None) + row("shut", gid="16"))
        assert asked.users() == {
            b"joe": (False, b""),
            b"shut": (True, os.fsencode(f"{DOMAINS}/example.org/shut")),
        }

    def test_one_table_for_each_domain(self, make: Make) -> None:
        columns = USER_COLUMNS.format("char", "")
        table = f"CREATE TABLE my_shop_example ({columns}); CREATE TABLE example_org ({columns});"
        rows = "INSERT INTO my_shop_example (pw_name, pw_dir) VALUES ('boss', '/x/boss'), ('Joe', NULL);"
        asked = make("mysql", table + rows, many_domains=False)
        assert sorted(asked.users(example(b"my-shop.example"))) == [b"boss", b"joe"]
        assert not asked.users()
        assert not asked.suspect

    def test_a_missing_table_has_no_users_and_is_suspect(self, make: Make) -> None:
        asked = make("mysql", "CREATE TABLE x (y int);")
        assert asked.backend.user(asked.look, example(), b"joe") is None
        assert len(asked.suspect) == 1
        assert not asked.users()
        assert "there is no table vpopmail" in asked.suspect[-1]

    def test_aliases_come_in_the_order_of_their_rows(self, make: Make) -> None:
        rows = (
            "INSERT INTO valias VALUES ('Info', 'example.org', '&b@x'), ('info ', 'EXAMPLE.ORG', '&a@x'), "
            "('Andrè', 'example.org', '#');"
        )
        asked = make("mysql", TABLE + ALIASES.format("char") + rows, valias=True)
        assert lines_of(asked, [b"none", b"info", b"andre"]) == [b"&b@x", b"&a@x"]
        asked.backend.prepare()
        assert asked.backend.aliases(asked.look, example()).lines == {b"info": [b"&b@x", b"&a@x"], b"andre": [b"#"]}

    @pytest.mark.parametrize("valias", ["auto", True])
    def test_no_valias_table_is_no_trouble(self, make: Make, valias: Literal["auto"] | bool) -> None:
        asked = make("mysql", TABLE + row("joe"), valias=valias)
        asked.backend.prepare()
        assert not lines_of(asked, [b"joe"])
        assert not asked.backend.aliases(asked.look, example()).lines
        assert not asked.suspect

    def test_no_socket_fails_and_names_the_server(self, make: Make) -> None:
        asked = make("mysql", TABLE, serve=False, valias=False, qmail_ext=True)
        with pytest.raises(Unavailable) as caught:
            asked.backend.user(asked.look, example(), b"joe")
        assert caught.value.noticed is Noticed.UNDASHED
        assert "mysql server localhost:0: there is no socket" in asked.failed[0]
        asked.backend.prepare()
        with pytest.raises(Unavailable):
            asked.backend.users(asked.look, example())

    def test_a_wrong_password_fails(self, make: Make) -> None:
        asked = make("mysql", TABLE + row("joe"))
        settings = asked.root / "home/vpopmail/etc/vpopmail.mysql"
        settings.write_text(MYSQL.replace("Invented", "Forgotten"))
        with pytest.raises(Unavailable, match="Access denied"):
            asked.backend.user(asked.look, example(), b"joe")
        assert "Forgotten" not in asked.failed[0]

    def test_a_server_that_goes_by_who_connects_sees_the_owner_and_never_root(self, make: Make) -> None:
        nobody = Identity(65534, 65534)
        asked = make("mysql", TABLE + row("joe"), owner=nobody)
        users = "CREATE OR REPLACE USER {0}@localhost IDENTIFIED VIA unix_socket; GRANT SELECT ON *.* TO {0}@localhost;"
        asked.server.sql(users.format("nobody") + users.format("superuser"))
        asked.server.sql("ALTER USER root@localhost IDENTIFIED VIA unix_socket OR mysql_native_password;")
        settings = asked.root / "home/vpopmail/etc/vpopmail.mysql"
        settings.write_text(MYSQL.replace("vpopuser", "nobody"))
        assert sorted(asked.users()) == [b"joe"]
        settings.write_text(MYSQL.replace("vpopuser", "root"))
        asked.backend.refresh()
        asked.backend.prepare()
        for ask in (asked.backend.users, asked.backend.aliases):
            with pytest.raises(Unavailable, match="Access denied"):
                ask(asked.look, example())
        with pytest.raises(Unavailable, match="Access denied"):
            asked.backend.user(asked.look, example(), b"joe")

    def test_a_missing_driver_is_a_failure_that_names_the_extra(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(sys.modules, "rcptgen.vpopmail.sql_mysql", raising=False)
        monkeypatch.setitem(sys.modules, "pymysql", None)
        asked = make("mysql", TABLE + row("joe"))
        with pytest.raises(Unavailable, match=r"pip install 'rcptgen\[mysql\]'"):
            asked.backend.user(asked.look, example(), b"joe")
        assert asked.failed

    def test_a_link_to_a_socket_leads_nowhere_outside_the_root(self, make: Make) -> None:
        asked = make("mysql", TABLE + row("joe"))
        here = asked.root / "run/mysqld/mysqld.sock"
        here.unlink()
        here.symlink_to(asked.server.socket)
        with pytest.raises(Unavailable, match="there is no socket"):
            asked.backend.user(asked.look, example(), b"joe")
        here.unlink()
        os.link(asked.server.socket, asked.root / "run/s")
        here.symlink_to("/run/s")
        asked.backend.refresh()
        assert asked.backend.user(asked.look, example(), b"joe") is not None

    def test_settings_that_the_owner_cannot_read_are_a_deferral_and_no_failure(self, make: Make) -> None:
        asked = make("mysql", TABLE + row("joe"), mode=0o600)
        os.chown(asked.root / "home/vpopmail/etc/vpopmail.mysql", 0, 0)
        asked.backend.prepare()
        for ask in (asked.backend.users, asked.backend.aliases):
            with pytest.raises(Unavailable):
                ask(asked.look, example())
        assert not asked.failed

    def test_settings_with_too_few_fields_are_suspect(self, make: Make) -> None:
        asked = make("mysql", TABLE)
        (asked.root / "home/vpopmail/etc/vpopmail.mysql").write_text("localhost|0|x\n")
        with pytest.raises(Unavailable):
            asked.backend.user(asked.look, example(), b"joe")
        assert len(asked.suspect) == 1

    def test_a_connection_that_has_gone_is_made_again(self, make: Make) -> None:
        asked = make("mysql", TABLE + row("joe"))
        assert asked.backend.user(asked.look, example(), b"joe") is not None
        asked.server.kill()
        asked.server.start()
        asked.server.serve(asked.root)
        assert asked.backend.user(asked.look, example(), b"joe") is not None
        assert not asked.failed

    def test_a_server_that_says_nothing_is_a_failure(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        from rcptgen.vpopmail import sql_mysql

        monkeypatch.setattr(sql_mysql, "READ_TIMEOUT", 0.3)
        says_nothing(make("mysql", TABLE + row("joe")))

    def test_a_server_that_goes_while_it_is_read_is_a_failure_and_no_short_list(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = make("mysql", many(TABLE))
        with monkeypatch.context() as patched:
            from rcptgen.vpopmail.sql_mysql import MySQL

            killing(patched, MySQL, asked.server, 2000)
            asked.backend.prepare()
        with pytest.raises(Unavailable, match="Lost connection"):
            asked.backend.users(asked.look, example())
        assert "mysql server localhost:0" in asked.failed[0]
        asked.server.start()
        asked.server.serve(asked.root)
        asked.backend.refresh()
        asked.backend.prepare()
        (names,) = asked.backend.users(asked.look, example()).plain.values()
        assert len(names) == 200_000

    def test_one_address_is_one_query_by_the_index(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        from rcptgen.vpopmail.sql_mysql import MySQL

        asked = make("mysql", many(TABLE, 20_000) + INDEXED_ALIASES.format("char") + "ANALYZE TABLE vpopmail, valias;")
        asked.users()
        queries: list[str] = []
        rows = MySQL._rows

        def noted(session: MySQL, query: str) -> list[tuple[Any, ...]]:
            queries.append(query)
            return rows(session, query)

        monkeypatch.setattr(MySQL, "_rows", noted)
        assert asked.backend.user(asked.look, example(), b"user777") is not None
        assert lines_of(asked, [b"info"]) == [b"&joe@elsewhere.example"]
        user, alias = (query for query in queries if " WHERE " in query)
        for query, table in ((user, "vpopmail"), (alias, "valias")):
            plan = asked.server.sql(f"EXPLAIN FORMAT=JSON {query}", "vpopmail")
            assert f'"table_name": "{table}"' in plan.replace("\\n", "\n")
            assert '"access_type": "ALL"' not in plan
            assert '"key": "' in plan

    def test_a_hundred_thousand_users_are_one_query(self, make: Make) -> None:
        asked = make("mysql", many(TABLE, 100_000))
        asked.server.sql("SET GLOBAL log_output = 'TABLE'; TRUNCATE mysql.general_log; SET GLOBAL general_log = ON;")
        before = time.monotonic()
        asked.backend.prepare()
        took = time.monotonic() - before
        asked.server.sql("SET GLOBAL general_log = OFF;")
        logged = asked.server.sql("SELECT COUNT(*) FROM mysql.general_log WHERE argument LIKE 'SELECT pw_name%';")
        assert logged.strip() == "1"
        assert took < 10
        (names,) = asked.backend.users(asked.look, example()).plain.values()
        assert len(names) == 100_000


@pytest.mark.needs("mariadb")
def test_a_server_that_goes_while_a_host_is_compiled_costs_only_its_own_domains(
    tmp_path: Path, databases: Databases
) -> None:
    (vector,) = (one for one in load_vectors("vpopmail") if one.name == "vp-mysql-01")
    root, file = tmp_path / "root", bytes(tmp_path / "validrcptto.cdb")
    vector.materialise(root)
    assert vector.sql is not None
    databases.provide(root, "mysql", vector.sql["dump"] + many("", 200_000))
    config = msgspec.convert(vector.settings, Config)
    request = Request((Output("validrcptto", file),), force=True)
    with databases.mariadb.killed_while_it_says("SELECT pw_name, pw_domain"):
        result = compile_host(root, config, request)
    failed = [one for one in result.units if one.state is State.FAILED]
    assert {one.path for one in failed} == {
        os.fsencode(f"{DOMAINS}/{name}") for name in ("example.org", "other.example")
    }
    for one in failed:
        assert "mysql server localhost:0: Lost connection" in one.reason
    # Without a server and without older output, nobody of those domains is refused.
    with contextlib.closing(target("validrcptto").open(file)) as reader:
        assert reader.answer(b"nobody@example.org").accepted
    databases.mariadb.start()
    databases.mariadb.serve(root)
    again = compile_host(root, config, request)
    assert not [one for one in again.units if one.state is State.FAILED]
    with contextlib.closing(target("validrcptto").open(file)) as reader:
        assert reader.answer(b"user199999@example.org").accepted
        assert not reader.answer(b"nobody@example.org").accepted


@pytest.mark.needs("postgresql")
class TestPostgreSQL:
    def test_names_compare_exactly(self, make: Make) -> None:
        rows = row("joe") + row("Capital") + row("trail ") + row("x", "EXAMPLE.org") + row(r"back\\slash")
        asked = make("postgresql", PG_TABLE + rows + row("nil", gid="NULL", directory=None))
        assert sorted(asked.users()) == [rb"back\\slash", b"joe", b"nil", b"trail "]
        assert not asked.backend.checks_uid

    def test_aliases_compare_the_domain_as_it_is_written(self, make: Make) -> None:
        rows = "INSERT INTO valias VALUES ('info', 'Example.org', E'a\\tb\\\\'), ('info', 'example.org', '&a@x');"
        asked = make("postgresql", PG_TABLE + ALIASES.format("varchar") + rows, valias=True)
        asked.backend.prepare()
        for name, lines in ((b"Example.org", [b"a\tb\\"]), (b"example.org", [b"&a@x"])):
            assert lines_of(asked, [b"info"], example(name)) == lines
            assert asked.backend.aliases(asked.look, example(name)).lines == {b"info": lines}

    def test_one_table_for_each_domain(self, make: Make) -> None:
        table = f"CREATE TABLE my_shop_example ({USER_COLUMNS.format('varchar', '')});"
        rows = "INSERT INTO my_shop_example (pw_name, pw_dir) VALUES ('boss', '/x/boss');"
        asked = make("postgresql", table + rows, many_domains=False)
        assert sorted(asked.users(example(b"my-shop.example"))) == [b"boss"]
        assert not asked.users()
        assert "there is no table example_org" in asked.suspect[0]

    def test_no_socket_is_nobodys_fault_but_noticed_by_nobody(self, make: Make) -> None:
        asked = make("postgresql", PG_TABLE, valias=True)
        (asked.root / "run/postgresql/.s.PGSQL.5432").unlink()
        with pytest.raises(Unavailable) as caught:
            asked.backend.user(asked.look, example(), b"joe")
        assert caught.value.noticed is Noticed.NONE
        assert "postgresql server /run/postgresql:5432: there is no socket" in asked.failed[0]

    def test_a_server_that_says_nothing_is_a_failure(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        from rcptgen.vpopmail import sql_postgresql

        monkeypatch.setattr(sql_postgresql, "READ_TIMEOUT", 0.3)
        monkeypatch.setattr(sql_postgresql, "CONNECT_TIMEOUT", 2)
        says_nothing(make("postgresql", PG_TABLE + row("joe")))

    def test_a_server_that_goes_while_it_is_read_is_a_failure_and_no_short_list(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = make("postgresql", many(PG_TABLE))
        from rcptgen.vpopmail.sql_postgresql import PostgreSQL

        killing(monkeypatch, PostgreSQL, asked.server, 2000)
        asked.backend.prepare()
        with pytest.raises(Unavailable):
            asked.backend.users(asked.look, example())
        assert "postgresql server /run/postgresql:5432" in asked.failed[0]

    def test_one_address_is_one_query_by_the_index(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        from rcptgen.vpopmail.sql_postgresql import PostgreSQL

        asked = make("pgsql", many(PG_TABLE, 20_000) + INDEXED_ALIASES.format("varchar") + "ANALYZE;")
        asked.users()
        plans: list[str] = []
        rows = PostgreSQL._rows

        def explained(session: PostgreSQL, query: bytes, names: Any = None) -> list[tuple[Any, ...]]:
            if b" WHERE " in query:
                plans.append("\n".join(bytes(line).decode() for (line,) in rows(session, b"EXPLAIN " + query, names)))
            return rows(session, query, names)

        monkeypatch.setattr(PostgreSQL, "_rows", explained)
        assert asked.backend.user(asked.look, example(), b"user777") is not None
        assert lines_of(asked, [b"info"]) == [b"&joe@elsewhere.example"]
        user, alias = plans
        assert "Index Scan using vpopmail_pkey on vpopmail" in user
        assert "Index Scan using valias_idx on valias" in alias

    def test_a_hundred_thousand_users_are_read_at_once(self, make: Make) -> None:
        asked = make("postgresql", many(PG_TABLE, 100_000))
        before = time.monotonic()
        asked.backend.prepare()
        assert time.monotonic() - before < 10
        (names,) = asked.backend.users(asked.look, example()).plain.values()
        assert len(names) == 100_000


def many(table: str, count: int = 200_000) -> str:
    """A table of many users of one domain."""
    values = (f"('user{number}','example.org',0,'{DOMAINS}/example.org/user{number}')" for number in range(count))
    return table + INSERT + ",".join(values) + ";"


def says_nothing(asked: Asked) -> None:
    assert asked.backend.user(asked.look, example(), b"joe") is not None
    asked.server.signal(signal.SIGSTOP)
    try:
        asked.backend.refresh()
        asked.backend.prepare()
        with pytest.raises(Unavailable):
            asked.backend.users(asked.look, example())
        before = time.monotonic()
        for _ in range(100):
            with pytest.raises(Unavailable):
                asked.backend.user(asked.look, example(), b"joe")
        assert time.monotonic() - before < 8
    finally:
        gc.collect()  # a driver's errors hold half-made connections, for which the server would wait a minute
        asked.server.signal(signal.SIGCONT)
    assert asked.failed


def killing(
    monkeypatch: pytest.MonkeyPatch, session: type[MySQL | PostgreSQL], server: DatabaseServer, after: int
) -> None:
    """Whoever streams users loses the server after so many rows."""
    users = session.users

    def streamed(self: MySQL | PostgreSQL, table: bytes, *, domains: bool) -> Iterator[tuple[Value, ...]]:
        for number, one in enumerate(users(self, table, domains=domains)):  # type: ignore[arg-type]
            if number == after:
                server.kill()
            yield one

    monkeypatch.setattr(session, "users", streamed)
