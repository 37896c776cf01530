"""The helpers that lay hosts down: what they promise, and that users/cdb is qmail-newu's."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cdbx
import pytest
from hosts import (
    EXAMPLE,
    VECTORS,
    BadAssign,
    BadTree,
    Dir,
    Fifo,
    File,
    Host,
    Link,
    Vector,
    assign_records,
    load_vector,
    load_vectors,
    materialise,
    qmail_newu,
    remove,
    vector_address,
)

FOLDERS = sorted(path.name for path in VECTORS.iterdir() if path.is_dir())
ALL = [vector for folder in FOLDERS for vector in load_vectors(folder)]
# Here users/assign was changed after users/cdb was made, on purpose.
STALE = {"assign-stale-01", "random-2", "random-28"}


def with_both() -> list[Vector]:
    """Every vector, and the example host, that holds a users/assign and the users/cdb made of it."""
    return [
        v
        for v in [*ALL, load_vector(EXAMPLE)]
        if v.name not in STALE and v.content("/var/qmail/users/cdb") and v.content("/var/qmail/users/assign")
    ]


@pytest.mark.parametrize("vector", with_both(), ids=lambda v: v.name)
def test_newu_makes_the_bytes_of_the_real_one(vector: Vector) -> None:
    assign, cdb = vector.content("/var/qmail/users/assign"), vector.content("/var/qmail/users/cdb")
    assert assign is not None
    assert qmail_newu(assign) == cdb


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "line 1: the file ends without"),
        (b"=joe:joe:1:1:/home/joe:::\n", "line 2: the file ends without"),
        (b"=joe:joe:1:1:/home/joe:::", "line 1: the file ends without"),
        (b"\n.\n", "line 1: no name"),
        (b":joe:1:1:/home/joe:::\n.\n", "line 1: no name"),
        (b"=joe\n.\n", "line 1: no name"),
        (b"=joe:joe:1:1:/home/joe::\n.\n", "line 1: needs six"),
        (b"=a:a:1:1:/:::\n=j\0e:joe:1:1:/home/joe:::\n.\n", "line 2: a NUL"),
    ],
)
def test_newu_refuses(text: bytes, complaint: str) -> None:
    with pytest.raises(BadAssign, match=complaint):
        qmail_newu(text)


def test_newu_keeps_order_and_duplicates_and_stops_at_the_dot() -> None:
    text = b"=Joe:a:1:1:/a:::rest\n#x:b:2:2:/b:::\n+Y-:c:3:3:/c:-:y:\n+:d:4:4:/d:-::\n=joe:e:5:5:/e:::\n.end\n+no\n"
    assert assign_records(text) == [
        (b"!joe\0", b"a\x001\x001\0/a\0\0"),
        (b"!x\0", b"b\x002\x002\0/b\0\0"),
        (b"!y-", b"c\x003\x003\0/c\0-\0y"),
        (b"!", b"d\x004\x004\0/d\0-\0"),
        (b"!joe\0", b"e\x005\x005\0/e\0\0"),
        (b"", b"-"),
    ]
    assert assign_records(b".") == [(b"", b"")]


def test_newu_is_a_database_that_others_read(tmp_path: Path) -> None:
    lines = b"".join(b"+u%d-:u:%d:1:/h:-::\n" % (i, i) for i in range(1, 2000))
    path = tmp_path / "cdb"
    path.write_bytes(qmail_newu(lines + b".\n"))
    with path.open("rb") as file:
        cdb = cdbx.CDB(file)
        assert cdb.get(b"!u1999-") == b"u\x001999\x001\0/h\0-\0"
        assert cdb.get(b"") == b"-"
        assert len(cdb) == 2000


def test_newu_is_a_database_that_tinycdb_reads(part: Callable[[str], None], tmp_path: Path) -> None:
    part("tinycdb")
    (tmp_path / "cdb").write_bytes(qmail_newu(b"=joe:joe:1:1:/home/joe:::\n.\n"))
    done = subprocess.run(["cdb", "-d", "cdb"], capture_output=True, check=True)
    assert done.stdout == b"+5,19:!joe\0->joe\x001\x001\0/home/joe\0\0\n+0,0:->\n\n"


@pytest.mark.parametrize("folder", FOLDERS)
def test_vectors_can_be_laid_down(folder: str, tmp_path: Path) -> None:
    for vector in load_vectors(folder):
        root = tmp_path / vector.name
        unowned = vector.materialise(root)
        assert vector.probes
        assert (unowned == []) == (os.geteuid() == 0)
        for entry in vector.tree:
            if "path" in entry:
                found = os.lstat(f"{root}{entry['path']}")
                if not unowned:
                    assert (found.st_uid, found.st_gid) == (entry.get("uid", 0), entry.get("gid", 0))
                kind = entry.get("type", "file")
                if kind != "symlink":
                    assert stat.S_IMODE(found.st_mode) == int(entry.get("mode", "0755" if kind == "dir" else "0644"), 8)
        remove(root)


def test_addresses_are_bytes() -> None:
    assert vector_address({"address": "Zoë@x"}) == b"Zo\xc3\xab@x"
    assert vector_address({"address_b64": "6UB4"}) == b"\xe9@x"


@pytest.mark.root
def test_owners_and_modes_come_last(tmp_path: Path) -> None:
    tree = [
        {"path": "/a/b/secret", "text": "x", "mode": "4000", "uid": 7, "gid": 8},
        {"path": "/a/b", "type": "dir", "mode": "0000", "uid": 5, "gid": 6},
        {"path": "/a/dev", "type": "char", "major": 1, "minor": 3},
        {"path": "/a/sock", "type": "socket", "mode": "0600", "uid": 5},
    ]
    assert materialise(tree, tmp_path / "r") == []
    inner, outer, parent = (os.lstat(tmp_path / "r" / p) for p in ("a/b/secret", "a/b", "a"))
    assert (stat.S_IMODE(inner.st_mode), inner.st_uid, inner.st_gid) == (0o4000, 7, 8)
    assert (stat.S_IMODE(outer.st_mode), outer.st_uid, outer.st_gid) == (0, 5, 6)
    assert (stat.S_IMODE(parent.st_mode), parent.st_uid, parent.st_gid) == (0o755, 0, 0)
    assert os.lstat(tmp_path / "r/a/dev").st_rdev == os.makedev(1, 3)
    assert stat.S_ISSOCK(os.lstat(tmp_path / "r/a/sock").st_mode)


@pytest.mark.parametrize(
    "tree",
    [
        [{"path": "/a/../b"}],
        [{"path": "a"}],
        [{"path": "/a"}, {"path": "/a"}],
        [{"path": "/a", "type": "symlink", "target": "/etc"}, {"path": "/a/b"}],
        [{"path": "/a", "type": "device"}],
    ],
)
def test_odd_trees_are_refused(tree: list[dict[str, str]], tmp_path: Path) -> None:
    with pytest.raises(BadTree):
        materialise(tree, tmp_path / "r")


def test_host_in_an_administrators_words(tmp_path: Path) -> None:
    host = Host(
        tmp_path / "host",
        {
            "passwd": {"joe": 1001, "web": "web:x:33:34::/srv/web:/bin/false"},
            "control/me": "mail.example.org\n",
            "users/assign": "=info:joe:1001:1001:/home/joe:-:info:\n.\n",
            "alias/.qmail-postmaster": "&joe\n",
            "~joe/.qmail": "./Maildir/\n",
            "~joe/Maildir/new": Dir(mode=0o700),
            "~joe/.qmail-x": File(b"\xff", mode=0o666, uid=0),
            "~joe/.qmail-l": Link("/etc/passwd"),
            "~web/.qmail-f": Fifo(),
            "/etc/group": None,
        },
    )
    assert host.path("control/me") == tmp_path / "host/var/qmail/control/me"
    assert host.path("users/cdb").read_bytes() == qmail_newu(host.path("users/assign").read_bytes())
    assert b"\njoe:x:1001:1001::/home/joe:/bin/sh\nweb:" in (host.root / "etc/passwd").read_bytes()
    assert not (host.root / "etc/group").exists()
    assert host.path("~joe/.qmail-l").readlink() == Path("/etc/passwd")
    if os.geteuid() == 0:
        wanted = {
            "alias": (7790, 2108),
            "alias/.qmail-postmaster": (7790, 2108),
            "~joe": (1001, 1001),
            "~joe/Maildir": (1001, 1001),
            "~joe/.qmail-x": (0, 1001),
            "~web": (33, 34),
            "/srv": (0, 0),
        }
        owners = {name: host.path(name).lstat() for name in wanted}
        assert {name: (found.st_uid, found.st_gid) for name, found in owners.items()} == wanted
    host.write("users/assign", ".\n")
    host.newu()
    assert host.path("users/cdb").read_bytes() == qmail_newu(b".\n")
    host.write("~web/a/b", "x")
    assert host.path("~web/a").stat().st_uid == (33 if os.geteuid() == 0 else os.geteuid())
    host.remove("~joe")
    assert not host.path("~joe").exists()


@pytest.mark.parametrize("name", ["joe/.qmail", "~ghost/.qmail", "qmail/me"])
def test_host_refuses_names_that_lead_nowhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadTree):
        Host(tmp_path / "host", {name: "x"})


def test_hosts_is_a_program_too(tmp_path: Path) -> None:
    program = [sys.executable, "-I", str(Path(__file__).with_name("hosts.py")), str(EXAMPLE), "there"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert (tmp_path / "there/var/qmail/control/me").read_text() == "mail.example.org\n"
    assert ("without root" in done.stderr) == (os.geteuid() != 0)
    assert subprocess.run(program, capture_output=True, check=False).returncode == 1
