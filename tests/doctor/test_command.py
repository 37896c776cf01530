"""`rcptgen doctor` as scripts and people meet it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from doctored import EXEC, RUN, codes, doctor, finding, host
from runs import called

from rcptgen.doctor import common_text, pages

pytestmark = pytest.mark.root

LIST = "/var/qmail/control/validrcptto.cdb"


def test_a_person_reads_place_severity_code_advice_and_lines(tmp_path: Path) -> None:
    done = called("--root", host(tmp_path / "host", {RUN: EXEC}).root, "doctor")
    assert done.out.splitlines() == [
        f"{RUN}:1: ok Q100: /var/qmail/bin/qmail-smtpd runs as qmaild; in it: validrcptto.cdb, RCPTCHECK",
        f"{RUN}:1: problem Q101: /var/qmail/bin/qmail-smtpd can look recipients up, and VALIDRCPTTO_CDB is not set",
        f"    {pages()['Q101'].advice}",
        f"    to add to {RUN}, above line 1:",
        f"        export VALIDRCPTTO_CDB={LIST}",
    ]
    assert (done.status, done.err) == (1, "rcptgen: 1 ok, 0 hints, 1 problem\n")


def test_what_works_is_one_line(tmp_path: Path) -> None:
    laid = host(tmp_path / "host")
    os.utime(laid.path(LIST), (1_700_000_000, 1_700_000_000))
    done = called("--root", laid.root, "doctor")
    written = time.strftime("%Y-%m-%d %H:%M", time.localtime(1_700_000_000))
    said = f"{RUN}:2: ok R100: qmail-smtpd uses {LIST} (validrcptto) as qmaild; written {written}"
    assert done.out.splitlines()[1:] == [said]
    assert (done.status, done.err) == (0, "rcptgen: 2 ok, 0 hints, 0 problems\n")


def test_quiet_tells_problems_alone(tmp_path: Path) -> None:
    well = called("--root", host(tmp_path / "well").root, "-q", "doctor")
    assert (well.status, well.out, well.err) == (0, "", "")
    ill = called("--root", host(tmp_path / "ill", {RUN: EXEC}).root, "-q", "doctor")
    assert (ill.status, ill.err) == (1, "")
    assert "Q101" in ill.out


def test_json(tmp_path: Path) -> None:
    done = doctor(host(tmp_path / "host", {RUN: EXEC}).root)
    assert done.json == {
        "version": 1,
        "findings": [
            {
                "code": "Q100",
                "severity": "ok",
                "file": RUN,
                "line": 1,
                "text": "/var/qmail/bin/qmail-smtpd runs as qmaild; in it: validrcptto.cdb, RCPTCHECK",
                "advice": "nothing.",
                "add": [],
            },
            {
                "code": "Q101",
                "severity": "problem",
                "file": RUN,
                "line": 1,
                "text": "/var/qmail/bin/qmail-smtpd can look recipients up, and VALIDRCPTTO_CDB is not set",
                "advice": pages()["Q101"].advice,
                "add": [
                    {"file": RUN, "where": "above line 1", "lines": [{"line": f"export VALIDRCPTTO_CDB={LIST}"}]},
                ],
            },
        ],
        "counts": {"ok": 1, "hint": 0, "problem": 1},
        "failed": [],
    }


def test_json_of_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    run = b"export VALIDRCPTTO_CDB=/var/qmail/control/\xff.cdb\n" + EXEC.encode()
    (add,) = finding(doctor(host(tmp_path / "host", {RUN: run}).root), "R108")["add"]
    assert add["lines"][2] == {"line": 'path = "/var/qmail/control/\\\\xff.cdb"'}


def test_the_page_of_a_code() -> None:
    done = called("doctor", "--explain", "q101")
    assert done.status == 0
    assert pages()["Q101"].text in done.out
    assert common_text() in done.out


def test_a_code_that_is_none() -> None:
    done = called("doctor", "--explain", "C101")
    assert (done.status, done.out) == (2, "")
    assert "docs/doctor.md" in done.err


def test_an_output_that_cannot_be_is_status_78(tmp_path: Path) -> None:
    toml = '[[output]]\ntarget = "validrcpto"\npath = "/x"\n'
    done = doctor(host(tmp_path / "host", {"/etc/rcptgen.toml": toml}).root)
    assert (done.status, done.out) == (78, "")


def test_the_configuration_of_the_command_line_is_the_one_that_counts(tmp_path: Path) -> None:
    laid = host(tmp_path / "host")
    (tmp_path / "other.toml").write_text('[[output]]\ntarget = "validrcptto"\npath = "/elsewhere.cdb"\n')
    done = doctor(laid.root, "--config", str(tmp_path / "other.toml"))
    assert codes(done) == ["R108", "R101"]


def test_without_root_the_live_host_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    live = called("doctor")
    assert (live.status, live.out) == (77, "")
    below = called("--root", host(tmp_path / "host").root, "doctor")
    assert below.status == 0
    assert "judged from the mode bits" in below.err
