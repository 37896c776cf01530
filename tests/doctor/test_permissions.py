"""Who may read a list: uid, the one gid, every directory on the way, links followed."""

from __future__ import annotations

from pathlib import Path

import pytest
from doctored import codes, doctor, finding, host
from hosts import Dir, File, Link, Thing, cdb_bytes

pytestmark = pytest.mark.root

QMAILD, NOFILES = 7791, 2108
CDB = cdb_bytes([(b"joe@example.org", b"1")])
LIST = "control/validrcptto.cdb"


@pytest.mark.parametrize(
    ("names", "barred"),
    [
        ({LIST: File(CDB, mode=0o644)}, ""),
        ({LIST: File(CDB, mode=0o600)}, "/var/qmail/control/validrcptto.cdb"),
        ({LIST: File(CDB, mode=0o640, gid=NOFILES)}, ""),
        ({LIST: File(CDB, mode=0o640, gid=2107)}, "/var/qmail/control/validrcptto.cdb"),
        ({LIST: File(CDB, mode=0o400, uid=QMAILD)}, ""),
        ({LIST: File(CDB, mode=0o044, uid=QMAILD)}, "/var/qmail/control/validrcptto.cdb"),
        ({"control": Dir(mode=0o750)}, "/var/qmail/control"),
        ({"control": Dir(mode=0o750, gid=NOFILES)}, ""),
        ({"control": Dir(mode=0o751)}, ""),
        ({"/var/qmail": Dir(mode=0o700)}, "/var/qmail"),
        ({LIST: Link("/secret/list.cdb"), "/secret": Dir(mode=0o700), "/secret/list.cdb": File(CDB)}, "link"),
        ({LIST: Link("/open/list.cdb"), "/open/list.cdb": File(CDB)}, ""),
    ],
)
def test_the_first_thing_that_keeps_the_account_out_is_named(
    names: dict[str, Thing], barred: str, tmp_path: Path
) -> None:
    done = doctor(host(tmp_path / "host", names).root)
    if not barred:
        assert (codes(done), done.status) == (["R100"], 0)
        return
    assert (codes(done), done.status) == (["R106"], 1)
    (add,) = finding(done, "R106")["add"]
    where = "/var/qmail/control/validrcptto.cdb" if barred == "link" else barred
    letter = "x" if where in ("/var/qmail", "/var/qmail/control") else "r"
    assert add["lines"] == [{"line": f"chmod o+{letter} {where}"}]


def test_root_may_read_everything(tmp_path: Path) -> None:
    names: dict[str, Thing | None] = {
        LIST: File(CDB, mode=0),
        "/service/qmail-smtpd/run": "export VALIDRCPTTO_CDB=/var/qmail/control/validrcptto.cdb\n"
        "exec tcpserver 0 25 /var/qmail/bin/qmail-smtpd\n",
    }
    assert codes(doctor(host(tmp_path / "host", names).root)) == ["R100"]


def test_a_mode_that_is_configured_is_to_be_changed_there(tmp_path: Path) -> None:
    toml = f'[[output]]\ntarget = "validrcptto"\npath = "/var/qmail/{LIST}"\nmode = 0o600\n'
    laid = host(tmp_path / "host", {LIST: File(CDB, mode=0o600), "/etc/rcptgen.toml": toml})
    commands, settings = finding(doctor(laid.root), "R106")["add"]
    assert commands["file"] is None
    assert (settings["file"], settings["lines"]) == ("/etc/rcptgen.toml", [{"line": "mode = 0o644"}])


def test_an_account_that_does_not_exist_and_numbers(tmp_path: Path) -> None:
    run = "export VALIDRCPTTO_CDB=/var/qmail/control/validrcptto.cdb\nexec tcpserver -u {} -g {} 0 25 {}\n"
    smtpd = "/var/qmail/bin/qmail-smtpd"
    for user, group, wanted in (
        ("4711", "4712", ["R106"]),
        ("4711", "2107", ["R100"]),
        ("9" * 5000, "1", ["Q117", "R100"]),
        ("nobody2", "nofiles", ["Q117", "R100"]),
    ):
        names: dict[str, Thing | None] = {
            LIST: File(CDB, mode=0o640, gid=2107),
            "/service/qmail-smtpd/run": run.format(user, group, smtpd),
        }
        assert codes(doctor(host(tmp_path / user[:9] / group, names).root)) == wanted
