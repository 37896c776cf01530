"""The systemd units: right, hardened, and installed as this installation needs them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from parts import CHECKOUT
from runs import Names, Site, called, command

from rcptgen.cli.install_units import SERVICES, SQL_TCP, UNITS

SHIPPED = Path(str(files("rcptgen"))) / "systemd"
EXPOSURE = 15
"""Tenths: 1.5 in the words of systemd-analyze."""

EXPOSURE_WITH_SQL = 21

NAMES: Names = {"passwd": {"joe": 1001}, "control/me": "mail.example\n", "~joe/.qmail-list": "./Mailbox\n"}


def settings(text: str) -> dict[str, list[str]]:
    """Every setting of a unit with its values."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def verified(path: Path) -> list[str]:
    """What systemd has to say against a unit."""
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, check=False)
    return [line for line in done.stderr.decode().splitlines() if path.name in line or str(path.parent) in line]


def exposed(path: Path, limit: int) -> str:
    """What systemd's judgement of a service was, if it is worse than `limit`."""
    words = ["systemd-analyze", "security", "--offline=yes", f"--threshold={limit}", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def test_every_unit_is_shipped() -> None:
    assert sorted(one.name for one in SHIPPED.iterdir()) == sorted([*UNITS, SQL_TCP])


@pytest.mark.needs("systemd")
@pytest.mark.parametrize("unit", UNITS)
def test_units_are_right(unit: str) -> None:
    assert verified(SHIPPED / unit) == []


@pytest.mark.needs("systemd")
@pytest.mark.parametrize("unit", SERVICES)
def test_services_stay_hardened(unit: str, tmp_path: Path) -> None:
    assert exposed(SHIPPED / unit, EXPOSURE) == ""
    # With the drop-in at the end, as systemd reads it.
    whole = tmp_path / unit
    whole.write_text((SHIPPED / unit).read_text() + (SHIPPED / SQL_TCP).read_text())
    assert verified(whole) == []
    assert exposed(whole, EXPOSURE_WITH_SQL) == ""


def test_both_services_have_the_same_hardening() -> None:
    def hardening(unit: str) -> str:
        return (SHIPPED / unit).read_text().partition("# --- Hardening")[2].partition("[Install]")[0].strip()

    one, two = map(hardening, SERVICES)
    assert one == two != ""


def test_the_watch_says_when_it_is_ready_and_is_watched() -> None:
    found = settings((SHIPPED / "rcptgen-watch.service").read_text())
    wanted = {
        "Type": "notify",
        "NotifyAccess": "main",
        "ExecReload": "/bin/kill -HUP $MAINPID",
        "Restart": "on-failure",
        "RuntimeDirectory": "rcptgen",
        "RuntimeDirectoryMode": "0700",
        "ExecStart": "/usr/bin/python3 -I -m rcptgen watch",
    }
    assert {name: found[name] for name in wanted} == {name: [value] for name, value in wanted.items()}
    assert {"WatchdogSec", "TimeoutStartSec"} <= found.keys()


@pytest.mark.needs("root")
def test_a_compile_needs_no_more_than_the_unit_lets_it(tmp_path: Path) -> None:
    """The capabilities: a home that only root can list is judged; without DAC_READ_SEARCH it is accepted whole."""
    site = Site(tmp_path, NAMES)
    (site.host.root / "home/joe").chmod(0o300)
    found = settings((SHIPPED / "rcptgen.service").read_text())["CapabilityBoundingSet"][0].split()
    whole = _rules(site, [])
    assert "joe-list@mail.example" in whole
    assert not any(rule.startswith("joe-*@") for rule in whole)
    assert _rules(site, found) == whole
    fewer = _rules(site, [one for one in found if one != "CAP_DAC_READ_SEARCH"])
    assert "joe-*@mail.example" in fewer


def _rules(site: Site, capabilities: list[str]) -> set[str]:
    """The rules that a compile with no other capabilities than these (none: all) writes."""
    kept = ",".join("+" + one.removeprefix("CAP_").lower() for one in capabilities)
    program = [sys.executable, "-P", "-m", "rcptgen"]
    if kept:
        program = ["setpriv", f"--bounding-set=-all,{kept}", "--inh-caps=-all", "--no-new-privs", *program]
    done = command("--root", site.host.root, "compile", "-t", site.output, program=program)
    assert done.returncode == 0, done.stderr
    return site.rules


@pytest.mark.needs("root", "strace", "systemd")
def test_a_compile_calls_nothing_that_the_unit_forbids(tmp_path: Path) -> None:
    site = Site(tmp_path, NAMES)
    trace = tmp_path / "trace"
    program = ["strace", "-f", "-qq", "-o", str(trace), sys.executable, "-P", "-m", "rcptgen"]
    done = command("--root", site.host.root, "--state", site.state, "compile", "-t", site.output, program=program)
    assert done.returncode == 0, done.stderr
    called_ = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(errors="replace"), re.MULTILINE))
    allowed = _calls("@default")
    for value in settings((SHIPPED / "rcptgen.service").read_text())["SystemCallFilter"]:
        for name in value.lstrip("~").split():
            allowed = allowed - _calls(name) if value.startswith("~") else allowed | _calls(name)
    assert len(called_) > 20
    assert called_ - allowed == set()


def _calls(name: str) -> set[str]:
    """The system calls of a set of systemd's, the sets in it taken apart."""
    if not name.startswith("@"):
        return {name}
    done = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    lines = [line.strip() for line in done.stdout.splitlines()[1:]]
    return set().union(*(_calls(line) for line in lines if line and not line.startswith("#")))


# -- install-units ----------------------------------------------------------------------------


def installed(top: Path, *options: str, config: str = "") -> dict[str, str]:
    """What `install-units` puts below `top`/units."""
    (top / "units").mkdir(exist_ok=True)
    (top / "rcptgen.toml").write_text(config)
    done = called("--config", top / "rcptgen.toml", "install-units", "--dir", top / "units", *options)
    assert (done.status, done.out) == (0, "")
    found = (top / "units").rglob("*.*")
    return {str(path.relative_to(top / "units")): path.read_text() for path in found if path.is_file()}


def test_they_run_this_python_alone(tmp_path: Path) -> None:
    found, config = installed(tmp_path), str(tmp_path / "rcptgen.toml")
    assert sorted(found) == sorted(UNITS)
    for unit, verb in (("rcptgen.service", "compile"), ("rcptgen-watch.service", "watch")):
        (start,) = settings(found[unit])["ExecStart"]
        assert shlex.split(start) == [sys.executable, "-I", "-m", "rcptgen", "--config", config, verb]
    assert config in settings(found["rcptgen.path"])["PathChanged"]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "units").iterdir()} == {0o644}


@pytest.mark.needs("systemd")
def test_what_is_installed_is_right_and_as_hardened(tmp_path: Path) -> None:
    found = installed(tmp_path, "--sql-tcp", config='[metrics]\ntextfile = "/var/lib/some where/rcptgen.prom"\n')
    assert sorted(found) == sorted([*UNITS, *(f"{one}.d/{SQL_TCP}" for one in SERVICES)])
    for unit in UNITS:
        assert verified(tmp_path / "units" / unit) == []
    for unit in SERVICES:
        assert exposed(tmp_path / "units" / unit, EXPOSURE_WITH_SQL) == ""


def test_they_may_write_where_the_configuration_says(tmp_path: Path) -> None:
    config = """
        [qmail]
        directory = "/opt/q%mail"
        [metrics]
        textfile = "/srv/node exporter/rcptgen.prom"
        [[output]]
        target = "validrcptto"
        path = "/opt/q%mail/control/validrcptto.cdb"
        [[output]]
        target = "validrcptto"
        path = '/srv/a "b\\c/second.cdb'
    """
    found = installed(tmp_path, config=config)
    for unit in SERVICES:
        read = settings(found[unit])
        writable = r'/opt/q%%mail/control "/srv/a \"b\\c" "-/srv/node exporter"'
        assert read["ReadWritePaths"] == [writable]
        assert read["ConditionPathIsDirectory"] == ["/opt/q%%mail/control"]
    assert "/opt/q%%mail/users/cdb" in settings(found["rcptgen.path"])["PathChanged"]
    assert "/var/qmail" not in "".join(found.values())


def test_what_a_unit_cannot_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rcptgen.toml").write_text('[qmail]\ndirectory = "/opt/a\\nExecStart=evil"\n')
    done = called("--config", tmp_path / "rcptgen.toml", "install-units", "--dir", tmp_path)
    assert (done.status, os.listdir(tmp_path)) == (78, ["rcptgen.toml"])
    assert "a unit file cannot name this" in done.err


def test_a_second_time_nothing_changes(tmp_path: Path) -> None:
    installed(tmp_path)
    path = tmp_path / "units" / "rcptgen.timer"
    inode = path.stat().st_ino
    (tmp_path / "units" / "rcptgen.path").write_text("edited\n")
    done = called("--config", tmp_path / "rcptgen.toml", "install-units", "--dir", tmp_path / "units")
    assert [line for line in done.err.splitlines() if line.endswith("installed")] == [
        f"{tmp_path}/units/rcptgen.path: installed"
    ]
    assert path.stat().st_ino == inode


def test_print_writes_nothing(tmp_path: Path) -> None:
    done = called("install-units", "--print", "--sql-tcp", "--dir", tmp_path)
    assert done.status == 0
    assert os.listdir(tmp_path) == []
    heads = re.findall(rf"^# {re.escape(str(tmp_path))}/(\S+)$", done.out, re.MULTILINE)
    assert heads == [*UNITS, *(f"{one}.d/{SQL_TCP}" for one in SERVICES)]
    assert f"ExecStart={sys.executable} -I -m rcptgen watch" in done.out


def test_below_another_root_they_go_there(tmp_path: Path) -> None:
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    assert called("--root", tmp_path, "install-units").status == 0
    assert sorted(os.listdir(tmp_path / "etc/systemd/system")) == sorted(UNITS)


def test_wrong_usage(tmp_path: Path) -> None:
    assert called("--state", tmp_path, "install-units", "--print").status == 2
    assert called("install-units", "--dir", tmp_path / "nowhere").status == 1


def test_a_missing_library_and_a_python_of_others_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(0o777)
    (theirs / "python3").touch()
    monkeypatch.setitem(sys.modules, "sdnotify", None)
    monkeypatch.setattr(sys, "executable", str(theirs / "python3"))
    done = called("install-units", "--dir", tmp_path)
    assert done.status == 0
    assert "pip install 'rcptgen[systemd]'" in done.err
    assert f"{theirs}/python3: others than root can replace it" in done.err


@pytest.mark.needs("checkout")
def test_the_package_has_the_units_of_the_repository() -> None:
    for path in (CHECKOUT / "systemd").iterdir():
        assert (SHIPPED / path.name).read_text() == path.read_text()
