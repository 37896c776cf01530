"""Whatever stands where a setting is looked for: nothing is waited for, run, or read outside the root."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from doctored import EXEC, RUN, codes, doctor, finding, host
from hosts import Dir, Fifo, File, Host, Link, Thing, cdb_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import called

from rcptgen.config import Config, Output
from rcptgen.doctor import doctor as diagnose
from rcptgen.doctor.setup import configured, lines_for

pytestmark = pytest.mark.root

PLACES = (
    *(RUN, "bin/qmail-smtpd", "control/validrcptto.cdb", "control/smtpplugins", "control/recipients"),
    *("/etc/postfix/main.cf", "/etc/postfix/master.cf", "/etc/exim4/exim4.conf", "/etc/smtpd.conf"),
    *("/etc/qpsmtpd/plugins", "/etc/haraka/config/plugins", "/etc/mail/sendmail.cf", "/etc/crontab"),
    *("/etc/rspamd/local.d/multimap.conf", "/etc/default/rbldnsd", "/etc/inetd.conf", "/etc/xinetd.conf"),
    *("/etc/systemd/system/x.service", "/etc/tcp.smtp", "/etc/tcp.smtp.cdb", "/home/vpopmail/bin/vdelivermail"),
    *("/home/vpopmail/include/vpopmail_config.h", "/home/vpopmail/etc/lib_deps"),
)
ODD: dict[str, Thing] = {
    "fifo": Fifo(),
    "directory": Dir(),
    "loop": Link("/loop"),
    "dangling": Link("/nowhere"),
    "noise": bytes(range(256)) * 40,
    "one line": b"x" * 300_000,
    "long": b"service x {\na=$a $a -o { a = \n" * 9000,
    "nothing": "",
}


@pytest.mark.parametrize("what", ODD)
def test_odd_things_in_every_place(what: str, tmp_path: Path) -> None:
    laid = host(tmp_path / "host", {**dict.fromkeys(PLACES, ODD[what]), "/loop": Link("/loop")})
    begun = time.monotonic()
    done = doctor(laid.root)
    assert done.status in (0, 1), done.err
    assert time.monotonic() - begun < 30


def test_a_device_and_a_file_that_seems_endless(tmp_path: Path) -> None:
    laid = host(tmp_path / "host", {"/etc/postfix/main.cf": None})
    os.mknod(laid.path("/dev-zero"), 0o20666, os.makedev(1, 5))
    (laid.root / "etc/postfix").mkdir()
    (laid.root / "etc/postfix/main.cf").symlink_to("/dev-zero")
    smtpd = laid.path("bin/qmail-smtpd")
    os.truncate(smtpd, 20 << 30)
    assert codes(doctor(laid.root)) == ["R100"]


MORE = ["more than 200 servers are started"]


@pytest.mark.parametrize(
    ("run", "others", "failed"),
    [
        (". ./run\n" * 1000, {}, []),
        (
            "/a/qmail-smtpd\n" * 3000,
            {"/a/qmail-smtpd": File("#!/bin/sh\n" + "/b/qmail-smtpd\n" * 3000, mode=0o755)},
            MORE,
        ),
        ("envdir /env /v/qmail-smtpd\n" * 2000, {f"/env/V{number}": "x" * 100_000 for number in range(50)}, MORE),
        (". /x\n" * 30, {"/x": "${" * 30_000}, []),
    ],
    ids=["reads itself in", "starts scripts that start scripts", "reads many variables many times", "never ends"],
)
def test_scripts_that_multiply(run: str, others: dict[str, Thing], failed: list[str], tmp_path: Path) -> None:
    laid = host(tmp_path / "host", {RUN: run, **others})
    begun = time.monotonic()
    done = doctor(laid.root)
    assert time.monotonic() - begun < 30
    assert [one["reason"] for one in done.json["failed"]] == failed
    assert done.status == (2 if failed else 1)


def test_postfix_settings_that_multiply(tmp_path: Path) -> None:
    """Long values for many services, and a list that is named again and again."""
    value = "a = cdb:/x\nx = " + "$a," * 20_000
    lists = "".join(f"{name} = $x $x\n" for name in ("relay_recipient_maps", "local_recipient_maps", "mynetworks"))
    restrictions = "smtpd_recipient_restrictions = " + "check_recipient_access cdb:/x " * 20_000
    laid = host(
        tmp_path / "host",
        {
            "/etc/postfix/main.cf": f"{value}\n{lists}{restrictions}\n",
            "/etc/postfix/master.cf": "".join(f"{port} inet n - y - - smtpd\n" for port in range(1000, 6000)),
        },
    )
    begun = time.monotonic()
    done = doctor(laid.root)
    assert time.monotonic() - begun < 30
    assert (done.status, done.json["failed"]) == (
        2,
        [{"path": "/etc/postfix/master.cf", "reason": "more than 50 services are smtpd"}],
    )


def test_what_a_script_names_is_shown_escaped(tmp_path: Path) -> None:
    bad = "/var/\x1b[31mred\x07/list.cdb"
    laid = host(tmp_path / "host", {RUN: f"export VALIDRCPTTO_CDB='{bad}' VALIDRCPTTO_LIMIT='\x1b'\n{EXEC}"})
    done = called("--root", laid.root, "doctor")
    assert done.status == 1
    assert "/var/\\x1b[31mred\\x07/list.cdb" in done.out
    assert not {"\x1b", "\x07"} & {*done.out, *done.err}


def test_commands_to_run_are_quoted(tmp_path: Path) -> None:
    list_ = "/var/qmail/control/a b;reboot.cdb"
    toml = f'[[output]]\ntarget = "validrcptto"\npath = "{list_}"\n'
    laid = host(
        tmp_path / "host",
        {
            RUN: f"export VALIDRCPTTO_CDB='{list_}'\n{EXEC}",
            "/etc/rcptgen.toml": toml,
            list_: File(cdb_bytes([(b"joe@example.org", b"1")]), mode=0o600),
        },
    )
    (lines,) = finding(doctor(laid.root), "R106")["add"]
    assert lines["lines"] == [{"line": "chmod o+r '/var/qmail/control/a b;reboot.cdb'"}]


@pytest.mark.parametrize("way", ["/../../../outside", "../../../../../outside"])
def test_links_stay_below_the_root(way: str, tmp_path: Path) -> None:
    """A service, a binary and a list that are links lead to places of the host, never of this machine."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "run").write_text(f"export VALIDRCPTTO_CDB=/outside.cdb\n{EXEC}")
    (tmp_path / "outside" / "qmail-smtpd").write_bytes(b"\0MOREVALIDRCPTTO_CDB\0")
    laid = host(
        tmp_path / "host",
        {RUN: None, "/service/away": Link(way), "bin/qmail-smtpd": Link(f"{way}/qmail-smtpd")},
    )
    assert codes(doctor(laid.root)) == ["R101"]
    # The same names below the root are what they lead to.
    (laid.root / "outside").mkdir()
    laid.write("/outside/run", f"export VALIDRCPTTO_CDB=/var/qmail/control/validrcptto.cdb\n{EXEC}")
    laid.write("/outside/qmail-smtpd", File(b"\0VALIDRCPTTO_CDB\0", mode=0o755))
    assert codes(doctor(laid.root)) == ["R100"]


def test_nothing_is_run_and_nothing_is_written(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    program = File(f"#!/bin/sh\n: > {ran}\n", mode=0o755)
    laid = host(
        tmp_path / "host",
        {
            "bin/qmail-smtpd": program,
            "/usr/bin/id": program,
            RUN: f"A=`: > {ran}`\n. /etc/conf\n" + EXEC,
            "/etc/conf": f": > {ran}\n",
        },
    )
    before = {path: path.lstat().st_mtime_ns for path in laid.root.rglob("*")}
    seen: list[str] = []
    armed = True

    def hook(event: str, _: tuple[Any, ...]) -> None:
        if armed and event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.fork"):
            seen.append(event)

    sys.addaudithook(hook)
    doctor(laid.root)
    armed = False
    assert (seen, ran.exists()) == ([], False)
    assert {path: path.lstat().st_mtime_ns for path in laid.root.rglob("*")} == before


def test_what_cannot_be_read_for_now_is_named_and_is_status_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laid = host(tmp_path / "host")
    read = os.read

    def failing(descriptor: int, size: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/qmail-smtpd/run"):
            raise OSError(5, "Input/output error")
        return read(descriptor, size)

    monkeypatch.setattr("os.read", failing)
    done = doctor(laid.root)
    assert done.status == 2
    assert done.json["failed"] == [{"path": "/service/qmail-smtpd/run", "reason": "Input/output error"}]
    assert "/service/qmail-smtpd/run: not looked at: Input/output error" in done.err


WORDS = st.sampled_from(
    [
        *(b"relay_recipient_maps = ", b"cdb:/var/qmail/control/validrcptto", b"$", b"{", b"}", b"\n", b"\n ", b","),
        *(b"check_recipient_access ", b"smtp inet n - y - - smtpd -o a=b", b"proxy:", b"table x file:/x", b"rcpt_ok"),
        *(b"service smtp {", b"server = qmail-smtpd", b"[Service]", b"ExecStart=qmail-smtpd", b"exec ", b"env A=1 "),
        *(
            b"tcpserver -x /etc/tcp.smtp.cdb -u ",
            b"qmail-smtpd",
            b':allow,RELAYCLIENT=""',
            b"[rcpt]\nx",
            b"\0",
            b"\xff",
        ),
    ]
)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Host:
    made = tmp_path_factory.mktemp("noise")
    made.chmod(0o755)
    return host(made / "host", dict.fromkeys(PLACES, ""))


@settings(max_examples=30)
@given(text=st.lists(WORDS, max_size=30).map(b"".join) | st.binary(max_size=300))
def test_no_text_in_any_place_is_a_bug(text: bytes, noisy: Host) -> None:
    for name in PLACES:
        noisy.path(name).write_bytes(text)
    found = diagnose(bytes(noisy.root), Config())
    assert all(one.text.isprintable() for one in found.findings)
    assert found.failed == {}


@pytest.mark.parametrize(
    ("run", "line"),
    [
        (EXEC, "export VALIDRCPTTO_CDB='/etc/a b;reboot.cdb'"),
        (f"#!/usr/bin/execlineb -P\n{EXEC}", 'export VALIDRCPTTO_CDB "/etc/a b;reboot.cdb"'),
        (EXEC.replace("exec", "exec envdir /env"), "echo '/etc/a b;reboot.cdb' > /env/VALIDRCPTTO_CDB"),
    ],
    ids=["shell", "execline", "envdir"],
)
def test_a_path_stays_one_word_of_a_line_to_add(run: str, line: str, tmp_path: Path) -> None:
    toml = '[[output]]\ntarget = "validrcptto"\npath = "/etc/a b;reboot.cdb"\n'
    laid = host(tmp_path / "host", {RUN: run, "/etc/rcptgen.toml": toml, "/env/NO": ""})
    (lines,) = finding(doctor(laid.root), "Q101")["add"]
    assert [one["line"] for one in lines["lines"]] == [line]


@pytest.mark.parametrize("name", ["sqmail", "sendmail-access", "dnset", "validrcptto"])
def test_a_path_is_one_word_of_a_command(name: str) -> None:
    (one,) = configured(Config(output=(Output(target=name, path="/etc/a b;reboot"),)))
    lines = lines_for(one)
    assert lines is not None
    assert b"'/etc/a b;reboot'" in b"\n".join(lines.lines)
