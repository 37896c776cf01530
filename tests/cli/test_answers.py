"""The commands that answer questions: check, explain, list, dump, query, verify."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest
from hosts import Dir, Fifo, cdb_bytes
from runs import PROGRAM, Names, Site, called, command, faults

pytestmark = pytest.mark.root

NAMES: Names = {
    "passwd": {"joe": 1001, "ann": 1002},
    "control/me": "mail.example.org\n",
    "control/locals": "example.org\n",
    "control/virtualdomains": "shop.example:joe-shop\n",
    "control/rcpthosts": "example.org\nshop.example\nbackup.example\n",
    "~joe/Maildir/tmp": Dir(),
    "~joe/Maildir/new": Dir(),
    "~joe/.qmail-list": "./Maildir/\n",
    "~joe/.qmail-b\udce4r": "ann\n",
    "~joe/.qmail-shop-default": "ann\n",
    "~joe/.qmail-shop-spam": "|bouncesaying no\n",
    "alias/.qmail-postmaster": "joe\n",
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, NAMES)


def asked(site: Site, *arguments: str | bytes, given: bytes = b"") -> tuple[int, list[str]]:
    """Status and lines of a check by the real program; it must say nothing on stderr."""
    done = command("--root", site.host.root, "check", *arguments, given=given)
    assert done.stderr == b""
    return done.returncode, done.stdout.decode().splitlines()


# --- check -------------------------------------------------------------------------------------


def test_check_verdicts_in_the_order_given(site: Site) -> None:
    done = site.run(
        "check",
        "spam@shop.example",
        "joe-list@example.org",
        "a@elsewhere.example",
        "x@backup.example",
        "a@shop.example",
    )
    assert done.status == 1
    assert done.err == ""
    assert [line.split("\t")[:2] for line in done.out.splitlines()] == [
        ["bounce", "spam@shop.example"],
        ["deliver", "joe-list@example.org"],
        ["remote", "a@elsewhere.example"],
        ["remote", "x@backup.example"],
        ["deliver", "a@shop.example"],
    ]
    assert all(len(line.split("\t")) == 3 for line in done.out.splitlines())


@pytest.mark.parametrize(
    ("addresses", "status"),
    [
        (["joe-list@example.org"], 0),
        (["joe-list@example.org", "nosuch@example.org"], 1),
        (["a@elsewhere.example"], 0),  # remote is no bounce
        (["nosuch@example.org", "joe-list@example.org"], 1),
    ],
)
def test_check_status(site: Site, addresses: list[str], status: int) -> None:
    assert site.run("check", *addresses).status == status


def test_check_defers(site: Site) -> None:
    site.host.path("~joe").chmod(0)
    done = site.run("check", "joe@example.org")
    assert done.status == 0
    assert done.out.startswith("defer\tjoe@example.org\t")


def test_check_json(site: Site) -> None:
    done = site.run("check", "--json", "joe-list@example.org", "spam@shop.example", "x@backup.example", "x@e.example")
    assert done.status == 1
    listed, spam, backup, remote = done.lines
    members = {"address", "verdict", "kind", "reason", "file", "line", "accepted"}
    assert [set(line) for line in done.lines] == [members] * 4
    assert (listed["verdict"], listed["accepted"]) == ("deliver", True)
    assert (listed["file"], listed["line"]) == ("/home/joe/.qmail-list", 1)
    assert (spam["verdict"], spam["accepted"], spam["file"]) == ("bounce", False, "/home/joe/.qmail-shop-spam")
    # `accepted` comes after policy: this one is relayed, that one is not.
    assert (backup["verdict"], backup["accepted"]) == ("remote", True)
    assert (remote["verdict"], remote["accepted"]) == ("remote", False)


def test_check_json_of_an_address_that_is_not_utf8(site: Site) -> None:
    address = b"joe-b\xe4r@example.org"
    done = command("--root", site.host.root, "check", "--json", address)
    line = json.loads(done.stdout)
    assert base64.b64decode(line["address_b64"]) == address
    assert line["address"] == "joe-b\\xe4r@example.org"
    assert (line["verdict"], base64.b64decode(line["file_b64"])) == ("deliver", b"/home/joe/.qmail-b\xe4r")
    assert done.stdout.isascii()


def test_check_overlays_are_policy(site: Site) -> None:
    site.host.write("/etc/rcptgen.toml", '[extra]\naccept = ["new@example.org"]\nreject = ["joe-*@example.org"]\n')
    done = site.run("check", "--json", "new@example.org", "joe-list@example.org")
    assert [(line["verdict"], line["accepted"]) for line in done.lines] == [("bounce", True), ("deliver", False)]
    assert done.status == 1


def test_check_reads_stdin(site: Site) -> None:
    status, lines = asked(site, "-", given=b"joe-list@example.org\nnosuch@example.org\n\nann@example.org")
    assert status == 1
    assert [line.split("\t")[:2] for line in lines] == [
        ["deliver", "joe-list@example.org"],
        ["bounce", "nosuch@example.org"],
        ["remote", ""],
        ["deliver", "ann@example.org"],
    ]


def test_check_of_no_address(site: Site) -> None:
    assert asked(site, "-") == (0, [])


def test_check_null(site: Site) -> None:
    status, lines = asked(site, "--null", "-", given=b"joe-list@example.org\0a\nb@example.org\0nosuch@example.org\0")
    assert status == 1
    assert [line.split("\t")[:2] for line in lines] == [
        ["deliver", "joe-list@example.org"],
        ["bounce", "a\\x0ab@example.org"],
        ["bounce", "nosuch@example.org"],
    ]


def test_check_many_keeps_the_order(site: Site) -> None:
    """More than one batch, and more than one read of a pipe."""
    wanted = [
        f"{'joe-list' if number % 3 else 'nosuch'}@{'EXAMPLE' if number % 2 else 'example'}.org"
        for number in range(9001)
    ]
    wanted = [f"{number}.{address}" if number % 5 == 0 else address for number, address in enumerate(wanted)]
    status, lines = asked(site, "-", given="\n".join(wanted).encode())
    assert status == 1
    assert [line.split("\t")[1] for line in lines] == wanted
    for address, line in zip(wanted, lines, strict=True):
        assert line.startswith("deliver" if address.startswith("joe-list@") else "bounce"), line


def test_check_addresses_that_begin_with_a_dash(site: Site) -> None:
    site.host.write("alias/.qmail-default", "joe\n")
    done = site.run("check", "--", "-x@example.org", "--json")
    assert done.status == 0
    assert [line.split("\t")[1] for line in done.out.splitlines()] == ["-x@example.org", "--json"]
    done = site.run("check", "-x@example.org")
    assert (done.status, done.out) == (2, "")


def test_check_odd_addresses(site: Site) -> None:
    """With a NUL, very long, without an @, with several: an answer, never a failure."""
    odd = [
        b"a\0b@example.org",
        b"x" * 200_000 + b"@example.org",
        b"joe",
        b"@",
        b"@example.org",
        b"joe@x@example.org",
        b"\xff\xfe",
    ]
    done = command("--root", site.host.root, "check", "--json", "-", given=b"\n".join(odd))
    assert done.stderr == b""
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["verdict"] for line in lines] == [
        "bounce",
        "bounce",
        "remote",
        "remote",
        "deliver",
        "bounce",
        "remote",
    ]
    long = site.run("check", "y" * 100_000 + "@example.org")
    assert (long.status, long.err) == (1, "")


# --- explain -----------------------------------------------------------------------------------


def test_explain(site: Site) -> None:
    done = site.run("explain", "orders@shop.example")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert "  /var/qmail/control/virtualdomains:1: local name 'joe-shop-orders'" in lines
    assert any("/etc/passwd:" in line and "account 'joe'" in line for line in lines)
    assert any("/home/joe/.qmail-shop-default" in line for line in lines)
    assert lines[-1] == "deliver (forward); accepted: orders@shop.example"


def test_explain_json(site: Site) -> None:
    done = site.run("explain", "--json", "spam@shop.example")
    assert done.status == 1
    assert {"version", "address", "verdict", "kind", "reason", "file", "line", "accepted", "steps"} <= set(done.json)
    assert (done.json["verdict"], done.json["accepted"]) == ("bounce", False)
    assert done.json["file"] == "/home/joe/.qmail-shop-spam"
    assert all({"text", "file", "line"} <= set(step) for step in done.json["steps"])


@pytest.mark.parametrize("address", ["", "x" * 100_000, "\x1b[31m@example.org", "joe", "a\u202eb@example.org"])
def test_explain_of_anything(site: Site, address: str) -> None:
    done = site.run("explain", address)
    assert done.status in (0, 1, 2)
    assert "Traceback" not in done.err
    assert "\x1b" not in done.out + done.err
    assert "\u202e" not in done.out + done.err


# --- list --------------------------------------------------------------------------------------


def test_list(site: Site) -> None:
    done = site.run("list", "--domain", "SHOP.example")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == ["*@shop.example", "!spam@shop.example"]
    everything = site.run("list")
    assert {"joe-list@example.org", "*@shop.example", "*@backup.example"} <= set(everything.out.splitlines())
    assert done.out in everything.out


def test_list_json(site: Site) -> None:
    whole, spam = site.run("list", "--json", "--domain", "shop.example").lines
    assert (whole["rule"], whole["name"], whole["prefix"], whole["accepted"]) == ("*@shop.example", "", True, True)
    assert (spam["rule"], spam["name"], spam["prefix"], spam["accepted"]) == (
        "!spam@shop.example",
        "spam",
        False,
        False,
    )
    assert spam["file"] == "/home/joe/.qmail-shop-spam"
    assert {"domain", "verdict", "kind", "reason", "line"} <= set(spam)


def test_list_of_a_foreign_domain(site: Site) -> None:
    done = site.run("list", "--domain", "nosuch.example")
    assert (done.status, done.out) == (1, "")
    assert done.err == "rcptgen: nosuch.example is no domain of this host\n"


# --- dump and query ----------------------------------------------------------------------------


def test_dump_and_query(site: Site) -> None:
    site.published()
    dumped = called("dump", site.file)
    assert (dumped.status, dumped.err) == (0, "")
    assert {"*@backup.example", "*@shop.example", "!spam@shop.example", "postmaster"} <= set(dumped.out.splitlines())
    done = called("query", site.file, "spam@shop.example", "any@shop.example", "Joe-List@Example.ORG", "no@example.org")
    assert (done.status, done.err) == (1, "")
    assert done.out.splitlines() == [
        "refuse\tspam@shop.example\tspam@shop.example",
        "accept\tany@shop.example\t@shop.example",
        "accept\tJoe-List@Example.ORG\tjoe-list@example.org",
        "refuse\tno@example.org\tno key",
    ]
    assert called("query", site.file, "--", "any@shop.example").status == 0


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"\xff" * 5000, cdb_bytes([(b"a@b", b"1")])[:-5]],
    ids=["empty", "text", "ones", "cut"],
)
@pytest.mark.parametrize(
    "words", [["dump"], ["query"], ["verify", "--target", "validrcptto"]], ids=lambda words: words[0]
)
def test_file_that_is_no_cdb(site: Site, words: list[str], content: bytes) -> None:
    """Never an answer out of nothing."""
    path = site.top / "bad.cdb"
    path.write_bytes(content)
    done = site.run(*words, path, *(["joe@example.org"] if words == ["query"] else []))
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith("rcptgen: ")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
def test_file_that_cannot_be_read(site: Site, kind: str) -> None:
    path = site.top / "bad.cdb"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        path = site.host.write("/pipe", Fifo())
    for words in (["dump", str(path)], ["query", str(path), "joe@example.org"], ["verify", str(path)]):
        done = site.run(*words)
        assert (done.status, done.out) == (2, ""), done
        assert str(path) in done.err or "not a" in done.err


# --- verify ------------------------------------------------------------------------------------


def rewritten(site: Site, change: dict[bytes, bytes | None]) -> Path:
    """The published file with records changed, added or (None) left out."""
    records = dict(site.records) | {key: value for key, value in change.items() if value is not None}
    path = site.top / "changed.cdb"
    path.write_bytes(cdb_bytes([(key, value) for key, value in records.items() if change.get(key, b"") is not None]))
    return path


def test_verify_proves_what_compile_wrote(site: Site) -> None:
    site.published()
    done = site.run("verify", "--target", "validrcptto", site.file)
    assert (done.status, done.out) == (0, "")
    assert ": 0 false refusals, 0 false acceptances" in done.err
    assert site.run("-q", "verify", site.file).err == ""
    assert site.run("verify", "--full", site.file).status == 0


def test_verify_finds_a_refusal(site: Site) -> None:
    site.published()
    done = site.run("verify", rewritten(site, {b"joe-list@example.org": None}))
    assert done.status == 1
    assert "refused\tjoe-list@example.org\tthe host accepts it" in done.out.splitlines()
    done = site.run("verify", rewritten(site, {b"@shop.example": None}))
    assert done.status == 1
    assert all(line.startswith("refused\t") and "@shop.example\t" in line for line in done.out.splitlines())


def test_verify_finds_an_acceptance(site: Site) -> None:
    site.published()
    for value in (b"1", None):
        done = site.run("verify", rewritten(site, {b"spam@shop.example": value}))
        assert done.status == 1
        assert "accepted\tspam@shop.example\tthe host refuses it" in done.out.splitlines()
    done = site.run("verify", rewritten(site, {b"@example.org": b"1"}))
    assert done.status == 1
    assert "false acceptances" in done.err


def test_verify_of_yesterdays_file(site: Site) -> None:
    site.published()
    site.host.remove("~joe/.qmail-list")
    site.host.write("~ann/.qmail-new", "joe\n")
    done = site.run("verify", site.file)
    assert done.status == 1
    assert "accepted\tjoe-list@example.org\tthe host refuses it" in done.out.splitlines()
    assert "refused\tann-new@example.org\tthe host accepts it" in done.out.splitlines()


def test_verify_with_a_failed_source(site: Site) -> None:
    """What a home says that cannot be read is unknown: no proof, and no finding either."""
    site.published()
    with faults(eio=(b"/home/joe",)):
        done = site.run("verify", site.file)
    assert done.status == 75
    assert "/home/joe" in done.err


# --- what a terminal or a log gets to see ------------------------------------------------------


def control_characters(text: str) -> set[str]:
    return {one for one in text if (ord(one) < 0x20 and one not in "\n\t") or 0x7F <= ord(one) < 0xA0}


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    evil = "\x1b[31m\x07\udc9b\r\x7f"
    names: Names = {
        "passwd": {"joe": 1001},
        "control/me": "example.org\n",
        "control/virtualdomains": f"shop{evil}.example:joe-{evil}\ngone.example:joe\n",
        "control/rcpthosts": f"example.org\nback{evil}.example\n",
        f"~joe/.qmail-{evil}": "./Maildir/\n",
        f"~joe/.qmail-{evil}-x": f"|bouncesaying '{evil}'\n",
        f"~joe/.qmail-{evil}-y": f"|{evil}\n",
        f"~joe/.qmail-{evil}-z": f"&{evil}@{evil}\n|exit 100\n",
        f"~joe/.qmail-{evil}-d": "\n",
        f"~joe/.qmail-sub{evil}/x": "./Maildir/\n",
        f"~joe/.qmail-{evil}-default": f"./{evil}/\n",
        "~joe/.qmail-gone": "./Maildir/\n",
        "users/assign": f"={evil}:joe:1001:1001:/home/{evil}:::\n+{evil}-:joe:1001\n",
        "users/cdb": None,
    }
    site = Site(tmp_path, names)
    address = os.fsdecode(f"{evil}-x@example.org".encode("utf-8", "surrogateescape"))
    other = os.fsdecode(f"{evil}-y@shop{evil}.example".encode("utf-8", "surrogateescape"))
    ran = [
        site.run("-v", "compile", "--force", "-t", site.output),
        site.run("check", address, other),
        site.run("check", "--json", address, other),
        site.run("explain", address),
        site.run("explain", "--json", other),
        site.run("list"),
        site.run("list", "--json"),
        site.run("list", "--domain", evil),
        called("dump", site.file),
        called("query", site.file, address, other),
        site.run("-v", "verify", site.file),
        site.run("-v", "verify", tmp_path / f"no{evil}"),
        called("query", tmp_path / f"no{evil}", address),
        site.run(evil),
        site.run("check", f"--{evil}", "joe"),
        site.run("compile", "-t", evil),
        site.run("compile", "-t", f"{evil}={site.file}"),
        site.run("compile", "-t", f"validrcptto={tmp_path}/{evil}/v.cdb"),
        called("--root", f"{tmp_path}/{evil}", "check", "joe"),
        called("--config", f"{tmp_path}/{evil}", "--root", site.host.root, "check", "joe"),
    ]
    site.host.write("control/virtualdomains", f"gone.example:joe\n.suffix{evil}.example:joe\n")
    site.host.write("control/rcpthosts", f".suffix{evil}.example\n")
    ran.append(site.run("compile", "-t", site.output))
    assert ran[-1].status == 78
    site.host.write("control/virtualdomains", "gone.example:joe\n")
    site.host.write("control/rcpthosts", "gone.example\n")
    for name in list(site.host.path("~joe").iterdir()):
        site.host.remove("~joe/" + name.name)
    ran.append(site.run("-v", "compile", "-t", site.output))
    assert ran[-1].status == 3
    site.host.write("/etc/rcptgen.toml", '[qmail]\n"brek\\u001b[31m" = "-"\n')
    ran.append(site.run("check", "joe"))
    assert ran[-1].status == 78
    for one in ran:
        assert control_characters(one.out) == set(), one
        assert control_characters(one.err) == set(), one
        assert "Traceback" not in one.err
        assert one.status != 70
    assert "\\x1b[31m" in ran[1].out
    assert "\\x1b[31m" in ran[5].out


def test_names_that_the_locale_cannot_spell(site: Site) -> None:
    site.host.write("~joe/.qmail-\u65e5\u672c", "ann\n")
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = command("--root", site.host.root, "list", "--domain", "example.org", env=environment)
    assert done.returncode == 0
    assert b"joe-\\u65e5\\u672c@example.org" in done.stdout.splitlines()


def test_check_answers_while_it_is_asked(site: Site) -> None:
    """A program may hold the conversation address by address."""
    arguments = [*PROGRAM, "--root", str(site.host.root), "check", "-"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for name, verdict in (("joe", b"deliver"), ("joe-list", b"deliver"), ("joe-x", b"bounce")):
            running.stdin.write(f"{name}@example.org\n".encode())
            running.stdin.flush()
            assert running.stdout.readline().split(b"\t")[0] == verdict
        running.stdin.close()
    assert running.returncode == 1
