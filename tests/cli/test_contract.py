"""What scripts rely on: exit statuses, the two streams, JSON, silence, locks, and what a person must decide."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hosts import Dir, Fifo, File, Host, Thing
from runs import PROGRAM, Names, Site, called, command

from rcptgen import __version__

NAMES: Names = {
    "passwd": {"joe": 1001, "ann": 1002},
    "control/me": "mail.example.org\n",
    "control/locals": "example.org\n",
    "control/virtualdomains": "shop.example:joe-shop\n",
    "~joe/.qmail-list": "ann\n",
    "~joe/.qmail-b\udce4r": "ann\n",
    "~joe/.qmail-shop-default": "ann\n",
    "~joe/.qmail-shop-x-default": "|bouncesaying no\n",
    "~joe/.qmail-shop-test-default": "ann\n",
    "alias/.qmail-postmaster": "joe\n",
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, NAMES)


# --- compile -----------------------------------------------------------------------------------


@pytest.mark.root
def test_compile_json(site: Site) -> None:
    done = site.compile()
    assert (done.status, done.err) == (0, "")
    assert done.out.count("\n") == 1
    assert {"status", "units", "held", "outputs"} <= set(done.json)
    assert (done.json["status"], done.json["units"], done.json["held"]) == (0, [], [])
    output = done.output
    assert {"target", "path", "records", "published", "widened", "unsayable"} <= set(output)
    assert (output["target"], output["path"]) == ("validrcptto", str(site.file))
    assert output["records"] == len(site.records)
    assert (output["exact"], output["wildcards"], output["refusals"]) == (
        sum(not rule.startswith(("!", "*")) and "*" not in rule for rule in site.rules),
        sum("*" in rule and not rule.startswith("!") for rule in site.rules),
        sum(rule.startswith("!") for rule in site.rules),
    )
    for one in output["unsayable"]:
        assert {"rule", "reason", "file", "line"} <= set(one)


@pytest.mark.root
def test_compile_json_of_what_is_widened(tmp_path: Path) -> None:
    """A name that ends in -default, and one that is not UTF-8."""
    site = Site(
        tmp_path,
        {
            "passwd": {"joe": 1001},
            "control/me": "example.org\n",
            "users/assign": "=x-default:joe:1001:1001:/home/joe:::\n=\udce4-default:joe:1001:1001:/home/joe:::\n.\n",
        },
    )
    widened = {one["key"]: one for one in site.published().output["widened"]}
    assert {"key", "rule", "reason", "file", "line"} <= set(widened["x-default@example.org"])
    assert widened["x-default@example.org"]["rule"] == "x-default@example.org"
    assert "key_b64" not in widened["x-default@example.org"]
    (odd,) = [one for one in widened.values() if "key_b64" in one]
    assert odd["key"] == "\\xe4-default@example.org"
    assert odd["key_b64"] == "5C1kZWZhdWx0QGV4YW1wbGUub3Jn"
    assert site.accepts("x-anything@example.org")


@pytest.mark.root
def test_streams_and_silence(site: Site) -> None:
    """A first run says what it did, on stderr; nothing new says nothing; a change says what changed."""
    arguments = ["compile", "-t", site.output]
    first = site.run(*arguments)
    assert (first.status, first.out) == (0, "")
    head = re.escape(f"{site.file} (validrcptto): published: ")
    numbers = r"\d+ records for 2 domains: \d+ exact, \d+ wildcards, \d+ refusals\n"
    assert re.match(head + numbers, first.err)
    for options in ([], ["-q"]):
        assert site.run(*options, *arguments).err == ""
    assert ": unchanged: " in site.run("-v", *arguments).err
    site.host.write("~ann/.qmail-new", "joe\n")
    changed = site.run(*arguments)
    assert "  since the last publish: 1 recipients gained, 0 lost\n" in changed.err
    site.host.write("~ann/.qmail-newer", "joe\n")
    assert site.run("-q", *arguments).err == ""
    assert site.accepts("ann-newer@example.org")


@pytest.mark.root
@pytest.mark.parametrize("no_colour", [False, True])
def test_summary_on_a_terminal(site: Site, no_colour: bool) -> None:
    master, slave = pty.openpty()
    heard = bytearray()

    def listen() -> None:
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:
                return
            if not part:
                return
            heard.extend(part)

    listener = threading.Thread(target=listen)
    listener.start()
    environment = {**os.environ, "TERM": "xterm", **({"NO_COLOR": "1"} if no_colour else {})}
    environment = environment if no_colour else {k: v for k, v in environment.items() if k != "NO_COLOR"}
    arguments = ["--root", str(site.host.root), "--state", str(site.state), "compile", "-t", site.output]
    try:
        statuses = [
            subprocess.run(
                [*PROGRAM, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment, check=False
            ).returncode
            for _ in range(2)
        ]
    finally:
        os.close(slave)
        listener.join(10)
        os.close(master)
    assert statuses == [0, 0]
    said = heard.decode()
    # A person sees a summary of each run, also where nothing changed.
    assert ": published: " in said
    assert ": unchanged: " in said
    assert "witnesses agree" in said
    if no_colour:
        assert "\x1b" not in said


@pytest.mark.root
@pytest.mark.parametrize("words", [["compile"], ["approve"]])
def test_lock(site: Site, words: list[str]) -> None:
    site.published()
    arguments = ["--root", str(site.host.root), "--state", str(site.state), *words, "--json", "-t", site.output]
    lock = os.open(site.state / "lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        busy = called(*arguments)
        assert busy.status == 75
        assert busy.json["status"] == 75
        assert "another run is publishing" in busy.err
        assert called(*arguments, "--wait", "0.3").status == 75
        # A dry run publishes nothing, and waits for nobody.
        if words == ["compile"]:
            assert called(*arguments, "--dry-run").status == 0
        timer = threading.Timer(0.5, fcntl.flock, (lock, fcntl.LOCK_UN))
        timer.start()
        assert called(*arguments, "--wait", "20").status == 0
        timer.join()
    finally:
        os.close(lock)


@pytest.mark.root
def test_force_waits_for_the_lock_too(site: Site) -> None:
    site.published()
    lock = os.open(site.state / "lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert site.compile("--force").status == 75
    finally:
        os.close(lock)


# --- wrong usage -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Usage: rcptgen"),
        (["nosuch"], "nosuch"),
        (["--nosuch", "check", "a@b"], "--nosuch"),
        (["check"], "ADDRESS"),
        (["check", "--nosuch", "a@b"], "--nosuch"),
        (["explain"], "ADDRESS"),
        (["explain", "a@b", "c@d"], "c@d"),
        (["compile"], "-t TARGET=PATH, or --dry-run"),
        (["compile", "-t", "validrcptto"], "not TARGET=PATH"),
        (["compile", "-t", "validrcptto="], "not TARGET=PATH"),
        (["compile", "-t", "x=y", "extra"], "extra"),
        (["compile", "--wait", "soon", "--dry-run"], "--wait"),
        (["compile", "--wait", "-1", "--dry-run"], "--wait"),
        (["approve"], "--state"),
        (["dump"], "FILE"),
        (["query", "x.cdb"], "ADDRESS"),
        (["verify", "--target", "nosuch", "x.cdb"], "nosuch"),
        (["-q", "-v", "check", "a@b"], "contradict"),
    ],
)
def test_wrong_usage(tmp_path: Path, words: list[str], said: str) -> None:
    Host(tmp_path / "host", {"control/me": "example.org\n"})
    done = called("--root", tmp_path / "host", *words)
    assert done.status == 2
    assert done.out == "" or words == []
    assert said in done.out + done.err
    assert "Traceback" not in done.err


def test_root_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "nosuch", tmp_path / "file"):
        done = called("--root", root, "check", "a@b")
        assert (done.status, done.out) == (2, "")
        assert str(root) in done.err


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["-h"], ["compile", "--help"], ["check", "-h"]])
def test_help_goes_to_stdout(words: list[str]) -> None:
    done = called(*words)
    assert (done.status, done.err) == (0, "")
    assert done.out == f"rcptgen, version {__version__}\n" if words == ["--version"] else "Usage: rcptgen" in done.out


# --- a person must decide: 78 ------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gaurd]\n", "unknown section [gaurd]; the nearest known one is 'guard'"),
        ('[qmail]\nbrake = "-"\n', "unknown key 'brake' in [qmail]; the nearest known one is 'break'"),
        (
            '[[output]]\ntarget = "x"\npath = "/x"\nmod = 1\n',
            "unknown key 'mod' in [output]; the nearest known one is 'mode'",
        ),
        ("[qmail]\nbreak = 5\n", "break"),
        ('[policy]\nprepended = "maybe"\n', "prepended"),
        ("[qmail\n", "not a TOML file"),
        ("\udcff", "not a TOML file"),
    ],
)
def test_configuration_that_is_wrong(site: Site, text: str, said: str) -> None:
    site.host.write("/etc/rcptgen.toml", text)
    for words in (["check", "joe@example.org"], ["compile", "-t", site.output], ["list"]):
        done = site.run(*words)
        assert (done.status, done.out) == (78, "")
        assert done.err.startswith("rcptgen: /etc/rcptgen.toml: ")
        assert said in done.err
    assert not site.file.exists()


@pytest.mark.root
def test_every_unknown_key_is_named(site: Site) -> None:
    site.host.write("/etc/rcptgen.toml", '[qmail]\nbrake = "-"\nalais = "x"\n[extra]\nacept = []\n')
    assert site.run("list").err.splitlines() == [
        "rcptgen: /etc/rcptgen.toml: unknown key 'brake' in [qmail]; the nearest known one is 'break'",
        "rcptgen: /etc/rcptgen.toml: unknown key 'alais' in [qmail]; the nearest known one is 'alias'",
        "rcptgen: /etc/rcptgen.toml: unknown key 'acept' in [extra]; the nearest known one is 'accept'",
    ]


@pytest.mark.root
def test_configuration_given_by_name(site: Site) -> None:
    file = site.top / "my.toml"
    assert called("--config", file, "--root", site.host.root, "list").status == 78
    file.write_text('[extra]\naccept = ["new@example.org"]\n')
    done = called("--config", file, "--root", site.host.root, "list")
    assert done.status == 0
    assert "new@example.org" in done.out.splitlines()


@pytest.mark.root
def test_unknown_target(site: Site) -> None:
    done = site.run("compile", "-t", f"nosuch={site.file}")
    assert done.status in (2, 78)
    assert "known are csv, db_load, " in done.err


@pytest.mark.root
@pytest.mark.parametrize("words", [["compile"], ["compile", "--json"]])
def test_lines_that_stand_for_many_domains(site: Site, words: list[str]) -> None:
    site.host.write("control/virtualdomains", "shop.example:joe-shop\n.suffix.example:joe\n:ann\n")
    done = site.run(*words, "-t", site.output)
    assert done.status == 78
    said = done.json["problems"] if "--json" in words else done.err.splitlines()
    assert len([line for line in said if "virtualdomains:2: '.suffix.example' stands for domains" in line]) == 1
    assert len([line for line in said if "virtualdomains:3: 'the empty entry' stands for domains" in line]) == 1
    assert "suffix_domains" in said[0]
    assert not site.file.exists()
    assert site.run(*words, "--force", "-t", site.output).status == 0
    # Named, the domains are written, and nobody has to decide any more.
    site.host.write("/etc/rcptgen.toml", '[policy]\nsuffix_domains = ["a.suffix.example", "other.example"]\n')
    site.published()
    assert site.accepts("anybody@a.suffix.example") == site.accepts("ann@a.suffix.example")


# --- hosts that are not whole ------------------------------------------------------------------


def bad(tmp_path: Path, names: dict[str, Thing | None]) -> tuple[Any, Any]:
    site = Site(tmp_path, {**NAMES, **names})
    return site.compile(), site.run("check", "joe@example.org")


@pytest.mark.root
@pytest.mark.parametrize(
    ("names", "status", "said"),
    [
        ({"control/me": None, "control/locals": None}, 78, "/var/qmail/control: neither locals nor me"),
        ({"control/locals": File("example.org\n", mode=0o600)}, 78, "/var/qmail/control/locals: "),
        ({"control/virtualdomains": File("", mode=0)}, 78, "/var/qmail/control/virtualdomains: "),
        ({"control/locals": Dir()}, 78, "/var/qmail/control/locals: "),
        ({"control/me": Fifo()}, 78, "/var/qmail/control/me: "),
        ({"control/rcpthosts": Fifo()}, 78, "/var/qmail/control/rcpthosts: "),
        ({"control/percenthack": Dir()}, 78, "/var/qmail/control/percenthack: "),
        (
            {"control/rcpthosts": "a.example\n", "control/morercpthosts.cdb": b"nonsense"},
            75,
            "/var/qmail/control/morercpthosts.cdb: ",
        ),
    ],
)
def test_bad_host(tmp_path: Path, names: dict[str, Thing | None], status: int, said: str) -> None:
    for done in bad(tmp_path, names):
        assert done.status == status
        assert done.err.count("\n") == 1
        assert done.err.startswith("rcptgen: ")
        assert said in done.err
    assert not (tmp_path / "out" / "validrcptto.cdb").exists()


@pytest.mark.root
def test_no_control_directory_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = called("--root", tmp_path / "empty", "compile", "--dry-run")
    assert done.status == 78
    assert "/var/qmail/control" in done.err
    (tmp_path / "empty" / "var").mkdir()
    (tmp_path / "empty" / "var" / "qmail").write_text("")
    done = called("--root", tmp_path / "empty", "compile", "--dry-run")
    assert done.status == 78
    assert "/var/qmail" in done.err


@pytest.mark.root
def test_bad_host_leaves_the_old_file(site: Site) -> None:
    site.published()
    before = site.content
    site.host.remove("control/locals")
    site.host.remove("control/me")
    assert site.compile().status == 78
    assert site.content == before
    assert site.compile("--force").status == 78
    assert site.content == before


# --- without root ------------------------------------------------------------------------------

NOBODY: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}


@functools.cache
def nobodys_python() -> tuple[list[str], dict[str, str]]:
    """A Python that an ordinary user may run here, and the environment in which it finds rcptgen."""
    paths = ":".join(path for path in sys.path if path)
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    for candidate in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        trial = [candidate, "-c", "import cdbx, click, filelock, msgspec, rcptgen.cli"]
        try:
            done = subprocess.run(trial, env=environment, cwd="/", capture_output=True, check=False, **NOBODY)
        except OSError:
            continue
        if done.returncode == 0:
            return [candidate, "-P", "-m", "rcptgen"], environment
    return [], {}


def as_nobody(*arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[bytes]:
    program, environment = nobodys_python()
    if not program:
        pytest.skip("no Python here that other users may run")
    return command(*arguments, program=program, env=environment, cwd="/", **NOBODY)


@pytest.mark.root
def test_live_host_needs_root() -> None:
    for words in (["check", "a@b"], ["compile"], ["explain", "a@b"], ["list"], ["approve"]):
        done = as_nobody(*words)
        assert (done.returncode, done.stdout) == (77, b""), done
        assert b"root" in done.stderr


@pytest.mark.root
def test_tree_without_root(site: Site) -> None:
    """Modes are judged from their bits; the verdicts are those that root finds."""
    site.host.write("~joe/.qmail-shut", File("ann\n", mode=0, uid=1001))
    site.host.write("~ann/.qmail-open", File("joe\n", mode=0o666))
    addresses = [
        "joe-list@example.org",
        "joe-shut@example.org",
        "ann-open@example.org",
        "nosuch@example.org",
        "a@shop.example",
    ]
    root = site.run("check", *addresses)
    done = as_nobody("--root", site.host.root, "check", *addresses)
    assert done.returncode == 1
    assert done.stdout.decode() == root.out
    assert [line.split("\t")[0] for line in root.out.splitlines()] == ["deliver", "defer", "defer", "bounce", "deliver"]
    # The run says so once.
    assert done.stderr.count(b"mode bits") == 1
    site.published()
    out = site.top / "nobody"
    out.mkdir()
    os.chown(out, 65534, 65534)
    done = as_nobody("--root", site.host.root, "--state", out / "state", "compile", "-t", f"validrcptto={out}/v.cdb")
    assert done.returncode == 0, done
    assert (out / "v.cdb").read_bytes() == site.content
    assert (out / "v.cdb").stat().st_uid == 65534


@pytest.mark.root
def test_home_that_only_its_owner_may_enter(site: Site) -> None:
    """Not even its names can be read without root: said, or accepted, but never taken for empty."""
    site.host.path("~joe").chmod(0o700)
    assert site.run("check", "joe-list@example.org").out.startswith("deliver")
    out = site.top / "nobody"
    out.mkdir()
    os.chown(out, 65534, 65534)
    done = as_nobody("--root", site.host.root, "compile", "--json", "-t", f"validrcptto={out}/v.cdb")
    assert done.returncode in (0, 75), done
    site.file = out / "v.cdb"
    assert site.accepts("joe-list@example.org")
    assert site.accepts("joe@example.org")
    assert site.accepts("anything@shop.example")


# --- odd surroundings --------------------------------------------------------------------------


@pytest.mark.root
def test_stdout_that_is_closed(site: Site) -> None:
    """`rcptgen check ... | head -1`: no word about it."""
    given = b"joe-list@example.org\n" * 50_000
    read, write = os.pipe()
    process = subprocess.Popen(
        [*PROGRAM, "--root", str(site.host.root), "check", "-"],
        stdin=subprocess.PIPE,
        stdout=write,
        stderr=subprocess.PIPE,
    )
    os.close(write)
    os.close(read)
    _, said = process.communicate(given, timeout=30)
    assert (process.returncode, said) == (141, b"")


def shell(line: str, site: Site, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A line of /bin/sh with `rcptgen` for the program on this host."""
    program = " ".join([*PROGRAM, "--root", str(site.host.root), "--state", str(site.state)])
    line = line.replace("rcptgen", program).replace("OUTPUT", site.output)
    return subprocess.run(["sh", "-c", line], capture_output=True, check=False, timeout=60, **options)


@pytest.mark.root
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full"])
def test_compile_with_closed_streams(site: Site, closed: str) -> None:
    """As some cron and some wrappers start programs; no file of ours gets their numbers."""
    done = shell(f"rcptgen compile -t OUTPUT {closed}", site)
    assert (done.returncode, done.stdout) == (0, b""), done
    assert b"Traceback" not in done.stderr
    assert site.accepts("joe-list@example.org")
    assert (done.stderr.count(b"published") == 1) == ("2>" not in closed)
    expected = site.content
    site.file.unlink()
    site.published()
    assert site.content == expected


@pytest.mark.root
def test_check_with_closed_streams(site: Site) -> None:
    assert shell("rcptgen check joe-list@example.org <&-", site).returncode == 0
    assert shell("rcptgen check - <&-", site).returncode in (0, 2)
    for closed in (">&-", ">/dev/full"):
        done = shell(f"rcptgen check joe-list@example.org {closed}", site)
        # An answer that nobody gets is no answer.
        assert done.returncode == 2
        assert done.stderr.startswith(b"rcptgen: cannot write the answer: ")
        assert done.stderr.count(b"\n") == 1
    done = shell("rcptgen check joe-list@example.org 2>&-", site)
    assert (done.returncode, done.stdout[:8]) == (0, b"deliver\t")


@pytest.mark.root
def test_surroundings_change_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """umask, locale, TMPDIR, the directory one stands in, and what PYTHONPATH offers."""
    site.published()
    expected = site.content
    evil = site.top / "evil"
    evil.mkdir()
    for name in ("rcptgen", "json", "click", "msgspec"):
        (evil / f"{name}.py").write_text("raise SystemExit('loaded from where it must not be')\n")
    gone = site.top / "gone"
    gone.mkdir()
    lines = [
        "umask 777; rcptgen compile -t OUTPUT",
        "LC_ALL=C LANG=C rcptgen compile -t OUTPUT",
        "TMPDIR=/nonexistent HOME=/nonexistent rcptgen compile -t OUTPUT",
        f"cd {evil}; rcptgen compile -t OUTPUT",
        f"cd {gone}; rmdir {gone}; rcptgen compile -t OUTPUT",
    ]
    for line in lines:
        site.file.unlink()
        done = shell(line, site)
        assert done.returncode == 0, (line, done)
        assert site.content == expected
        assert site.file.stat().st_mode & 0o7777 == 0o644


@pytest.mark.root
@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 20])
def test_few_descriptors(site: Site, number: int) -> None:
    """With so few open files nothing is published, or everything."""
    site.published()
    before = site.content
    site.host.write("~ann/.qmail-new", "joe\n")
    done = shell(f"ulimit -n {number}; rcptgen compile --json -t OUTPUT", site)
    if done.returncode == 0:
        assert site.accepts("ann-new@example.org")
    elif b"rcptgen: " in done.stderr:
        assert done.returncode == 1, done
        assert b"Traceback" not in done.stderr
        assert site.content == before
    else:
        # Python itself could not start, or not import.
        assert done.returncode in (1, 70, 127, 126)
        assert site.content == before
    assert site.left_over() == []


@pytest.mark.root
def test_file_size_limit(site: Site) -> None:
    site.published()
    before = site.content
    site.host.write("~ann/.qmail-new", "joe\n")
    done = shell("ulimit -f 1; rcptgen compile -t OUTPUT", site)
    assert done.returncode in (0, 1)
    if done.returncode == 1:
        assert b"File too large" in done.stderr
        assert site.content == before
    assert site.left_over() == []


@pytest.mark.root
def test_json_of_a_run_that_failed(site: Site) -> None:
    done = site.run("compile", "--json", "-t", f"validrcptto={site.top}/nosuch/v.cdb")
    assert done.status == 1
    assert {"status", "units", "held", "outputs"} <= set(done.json)
    assert done.json["status"] == 1
    assert "nosuch" in json.dumps(done.json)
