"""A database that goes away takes nothing with it: what was published for its domains stays."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from databases import Databases
from hosts import load_vectors

from rcptgen.compiler import Output, Request, compile_host
from rcptgen.config import Config
from rcptgen.targets import target

pytestmark = [pytest.mark.root, pytest.mark.needs("mariadb")]

USERS = 100_000


@contextlib.contextmanager
def published(tmp_path: Path, databases: Databases) -> Iterator[tuple[Path, Config, Request]]:
    """A host with a large table, compiled once with a state."""
    (vector,) = (one for one in load_vectors("vpopmail") if one.name == "vp-mysql-01")
    root = tmp_path / "root"
    vector.materialise(root)
    assert vector.sql is not None
    rows = (
        f"('user{n}','example.org','x',1,0,'','/home/vpopmail/domains/example.org/user{n}','')" for n in range(USERS)
    )
    columns = "(pw_name, pw_domain, pw_passwd, pw_uid, pw_gid, pw_gecos, pw_dir, pw_shell)"
    more = f"INSERT INTO vpopmail {columns} VALUES {','.join(rows)};"  # noqa: S608 - our own numbers
    databases.provide(root, "mysql", vector.sql["dump"] + more)
    config = msgspec.convert(vector.settings, Config)
    output = Output("validrcptto", os.fsencode(tmp_path / "validrcptto.cdb"))
    request = Request((output,), state=os.fsencode(tmp_path / "state"), force=True)
    first = compile_host(root, config, request)
    assert first.units == []
    assert first.status == 0
    yield root, config, replace(request, force=False)
    databases.mariadb.start()


def answers(request: Request) -> dict[bytes, bool]:
    with contextlib.closing(target("validrcptto").open(request.outputs[0].path)) as reader:
        asked = [b"user0@example.org", b"user99999@example.org", b"user100000@example.org", b"nobody@example.org"]
        return {address: reader.answer(address).accepted for address in asked}


WANTED = {
    b"user0@example.org": True,
    b"user99999@example.org": True,
    b"user100000@example.org": False,
    b"nobody@example.org": False,
}


@pytest.mark.parametrize("when", ["in the middle", "before"])
def test_the_published_rules_of_a_lost_database_stay(tmp_path: Path, databases: Databases, when: str) -> None:
    with published(tmp_path, databases) as (root, config, request):
        assert answers(request) == WANTED
        before = Path(os.fsdecode(request.outputs[0].path)).read_bytes()
        if when == "before":
            databases.mariadb.stop()
            result = compile_host(root, config, request)
        else:
            with databases.mariadb.killed_while_it_says("SELECT pw_name, pw_domain"):
                result = compile_host(root, config, request)
        assert result.status == 75
        assert any("mysql server localhost" in reason for reason in result.kept.values())
        assert not result.lost
        assert answers(request) == WANTED
        assert Path(os.fsdecode(request.outputs[0].path)).read_bytes() == before
