"""`rcptgen diff`: its sides, its forms, its exit statuses."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
from hosts import Dir, Host, cdb_bytes
from runs import PROGRAM, Names, Site, called, command, faults

from rcptgen.compiler import Output, Request, compile_host
from rcptgen.config import Config

pytestmark = pytest.mark.root

NAMES: Names = {
    "passwd": {"joe": 1001, "ann": 1002},
    "control/me": "mail.example.org\n",
    "control/locals": "example.org\n",
    "control/virtualdomains": "shop.example:joe-shop\n",
    "control/rcpthosts": "example.org\nshop.example\nbackup.example\n",
    "~joe/Maildir/new": Dir(),
    "~joe/.qmail-list": "./Maildir/\n",
    "~joe/.qmail-shop-sales": "ann\n",
    "~joe/.qmail-shop-old": "ann\n",
    "alias/.qmail-postmaster": "joe\n",
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, NAMES)


@pytest.fixture
def changed(site: Site) -> Site:
    """Published, and changed since: a gain, a loss, another kind, a catch-all, a refusal below it."""
    site.published()
    site.host.write("~ann/.qmail-new", "joe\n")
    site.host.remove("~joe/.qmail-shop-old")
    site.host.write("~joe/.qmail-shop-default", "ann\n")
    site.host.write("~joe/.qmail-shop-spam", "|bouncesaying no\n")
    site.host.remove("~joe/.qmail-list")
    return site


def text(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


# --- the sides -----------------------------------------------------------------------------------


def test_what_was_just_published_does_not_differ(site: Site) -> None:
    site.published()
    root = site.host.root
    rules = site.top / "rules"
    rules.write_text(site.run("list").out)
    as_json = site.top / "rules.json"
    as_json.write_text(site.run("list", "--json").out)
    for old, new in (
        (site.file, root),
        (root, site.file),
        (root, root),
        (rules, root),
        (as_json, root),
        (rules, site.file),
    ):
        done = called("diff", old, new)
        assert (done.status, done.out) == (0, ""), (old, new)
        assert done.err.endswith("; 0 of 3 domains differ\n")


def test_changes_of_a_host_against_what_is_published(changed: Site) -> None:
    done = called("diff", changed.file, changed.host.root)
    assert done.status == 1
    catch_all = "forward: forwards (/home/joe/.qmail-shop-default:1); covers 1 address that had rules of their own"
    refused = "still refused: bouncesaying bounces (/home/joe/.qmail-shop-spam:1)"
    assert done.out.splitlines() == [
        "example.org",
        f"  + joe-shop-*@example.org: {catch_all}",
        "  + ann-new@example.org: forward: forwards (/home/ann/.qmail-new:1)",
        "  - joe-list@example.org: no dot-qmail file for this name (/home/joe/.qmail-default)",
        f"  ! joe-shop-spam@example.org: {refused}; hides joe-shop-*@example.org",
        "shop.example",
        f"  + *@shop.example: {catch_all}",
        f"  ! spam@shop.example: {refused}; hides *@shop.example",
    ]
    counts = "1 address and 2 wildcards gained, 1 address lost, 0 addresses changed in kind"
    assert done.err == f"rcptgen: {counts}; 2 of 3 domains differ\n"
    assert called("-q", "diff", changed.file, changed.host.root).err == ""


def test_hosts_are_compared_by_kind(site: Site, tmp_path: Path) -> None:
    other = Host(tmp_path / "other", {**NAMES, "~joe/.qmail-list": "ann\n"})
    done = called("diff", site.host.root, other.root)
    assert done.status == 1
    assert done.out.splitlines() == [
        "example.org",
        "  ~ joe-list@example.org: mailbox, now forward: forwards (/home/joe/.qmail-list:1)",
    ]
    assert called("diff", "--addresses", site.host.root, other.root).out == ""


def test_a_list_as_json_knows_kinds(site: Site) -> None:
    before = site.top / "before"
    before.write_text(site.run("list", "--json").out)
    site.host.write("~joe/.qmail-list", "ann\n")
    done = called("diff", before, site.host.root)
    assert "  ~ joe-list@example.org: mailbox, now forward" in done.out


def test_a_list_from_a_pipe(site: Site) -> None:
    new = text(site.top / "new", "joe@example.org", "!spam@shop.example", "*@shop.example")
    rules = b"joe@example.org\nann@example.org\n*@shop.example\n"
    for arguments, signs in (("-", str(new)), "--"), ((str(new), "-"), "++"):
        done = command("diff", "--addresses", *arguments, given=rules)
        assert done.returncode == 1
        wanted = [f"{signs[0]}ann@example.org", f"{signs[1]}spam@shop.example"]
        assert done.stdout.decode().splitlines() == wanted
    done = command("diff", "/dev/null", "-", given=rules)
    assert (done.returncode, done.stdout.count(b"  + ")) == (1, 3)


def test_the_configuration_is_that_of_the_host(site: Site) -> None:
    """Its break character is the one that compiled files are read with, and its policy is applied."""
    site.host.write("/etc/rcptgen.toml", '[qmail]\nbreak = "+"\n[extra]\nreject = ["ann@example.org"]\n')
    site.host.write("~joe/.qmail+x+default", "ann\n")
    site.published("--force")
    assert called("diff", site.file, site.host.root).status == 0
    mine = text(site.top / "mine.toml", "[qmail]", 'break = "+"')
    done = called("--config", mine, "diff", "--addresses", site.file, site.host.root)
    assert (done.status, done.out) == (1, "+ann@example.org\n")


def test_a_target_may_be_named(site: Site) -> None:
    site.published()
    assert called("diff", f"validrcptto={site.file}", site.file).status == 0
    rules = text(site.top / "rules", "joe@example.org")
    done = called("diff", f"validrcptto={rules}", site.file)
    assert (done.status, done.out) == (2, "")


LOSSY = {
    **NAMES,
    "~joe/.qmail-shop-default": "ann\n",
    "~joe/.qmail-shop-spam": "|bouncesaying no\n",
}


def as_it_can_say(side: str, target: str, losses: str) -> str:
    return f"rcptgen: {side} was compared as {target} can say it: {losses}\n"


@pytest.mark.parametrize(
    ("spelled", "losses"),
    [
        ("goodrcptto", "6 rules widened"),
        ("goodrcptto,form=cdb", "6 rules widened"),
        ("postfix-access,form=text", "4 rules widened"),
        ("haraka", "14 rules widened"),
        ("rcpt-map,domain=shop.example", "2 domains left out"),
        ("sql", "6 rules widened, 3 domains left out"),
    ],
)
def test_what_a_format_cannot_say_is_no_difference(tmp_path: Path, spelled: str, losses: str) -> None:
    """Between its file and a host, a list or a file of the rules themselves; options stand behind the name.

    (A file of rules has fewer to lose: refusals that refuse nothing do not stand in it.)
    """
    site = Site(tmp_path, LOSSY)
    root, rules, whole = site.host.root, site.top / "rules", site.top / "whole.cdb"
    assert site.run("compile", "-t", f"{spelled}={site.file}", "-t", f"rcptgen={whole}").status == 0
    rules.write_text(site.run("list", "--json").out)
    target = spelled.partition(",")[0]
    for other in (root, rules, f"rcptgen={whole}"):
        for side, pair in (("NEW", (f"{spelled}={site.file}", other)), ("OLD", (other, f"{spelled}={site.file}"))):
            done = called("diff", *pair)
            assert (done.status, done.out) == (0, "")
            assert f"{side} was compared as {target} can say it: " in done.err
            assert as_it_can_say(side, target, losses) in done.err or "rcptgen=" in str(other)
            assert called("-q", "diff", *pair).err == ""


def test_what_was_lost_is_told_in_json(tmp_path: Path) -> None:
    site = Site(tmp_path, LOSSY)
    site.run("compile", "-t", f"goodrcptto={site.file}")
    done = called("diff", "--json", site.host.root, f"goodrcptto={site.file}")
    head, foot = done.lines
    assert (done.status, head["old_as"], head["new_as"]) == (0, "goodrcptto", None)
    assert foot["lowered"]["old"] == {"widened": 6, "unsayable": 0, "left_out": 0}
    assert foot["lowered"]["new"] == {"widened": 0, "unsayable": 0, "left_out": 0}
    done = called("diff", "--stat", site.host.root, f"goodrcptto={site.file}")
    assert done.err == as_it_can_say("OLD", "goodrcptto", "6 rules widened")


def test_a_configured_output_is_compared_with_its_options_and_its_policy(tmp_path: Path) -> None:
    """A domain that it leaves to another checker is no difference, and nothing that verify finds wrong."""
    site = Site(tmp_path, LOSSY)
    options = 'form = "text"\nwildcards = "drop-domain"\n'
    conf = text(site.top / "c.toml", f'[[output]]\ntarget = "morevalidrcptto"\npath = "{site.file}"', options)
    assert site.run("compile", "-t", f"morevalidrcptto,form=text={site.file}").status == 0
    for word in (site.file, f"morevalidrcptto={site.file}"):
        done = called("--config", conf, "diff", word, site.host.root)
        assert done.status == 1  # it was published otherwise
        assert "  - *@example.org" in done.out
    output = Output("morevalidrcptto", bytes(site.file), wildcards="drop-domain", options={"form": "text"})
    compile_host(site.host.root, Config(), Request((output,), force=True))
    for word in (site.file, f"morevalidrcptto={site.file}"):
        done = called("--config", conf, "diff", word, site.host.root)
        assert (done.status, done.out) == (0, "")
        assert "1 domain left out" in done.err
    assert site.run("--config", conf, "verify", site.file).status == 0


def test_keys_with_capitals_that_nobody_finds_are_no_rules(tmp_path: Path) -> None:
    """The patch asks in lower case."""
    old, new = tmp_path / "old.cdb", tmp_path / "new.cdb"
    old.write_bytes(cdb_bytes([(b"Joe@example.org", b""), (b"ann@example.org", b""), (b"BOB@example.org", b"-")]))
    new.write_bytes(cdb_bytes([(b"joe@example.org", b"1"), (b"Ann@Example.org", b"1")]))
    done = called("diff", "--addresses", old, new)
    assert done.out.splitlines() == ["-ann@example.org", "+joe@example.org"]


def test_addresses_without_a_domain_are_compared_where_both_have_some(tmp_path: Path) -> None:
    old = tmp_path / "old.cdb"
    old.write_bytes(cdb_bytes([(b"postmaster", b"1"), (b"a@example.org", b"1")]))
    assert called("diff", old, text(tmp_path / "one", "a@example.org")).status == 0
    done = called("diff", old, text(tmp_path / "two", "a@example.org", "abuse"))
    assert done.out.splitlines() == ["addresses without a domain", "  + abuse", "  - postmaster"]


# --- the forms -------------------------------------------------------------------------------------


def test_addresses(changed: Site) -> None:
    done = called("diff", "--addresses", changed.file, changed.host.root)
    assert done.status == 1
    assert done.out.splitlines() == [
        "+joe-shop-*@example.org",
        "+ann-new@example.org",
        "-joe-list@example.org",
        "+*@shop.example",
    ]
    back = called("diff", "--addresses", changed.host.root, changed.file)
    assert back.out.splitlines() == [
        "-joe-shop-*@example.org",
        "-ann-new@example.org",
        "+joe-list@example.org",
        "-*@shop.example",
    ]


def test_stat(changed: Site) -> None:
    done = called("diff", "--stat", changed.file, changed.host.root)
    assert (done.status, done.err) == (1, "")
    assert done.out.splitlines() == [
        "      +2        -1        ~0  example.org",
        "      +1        -0        ~0  shop.example (a catch-all now)",
        "1 address and 2 wildcards gained, 1 address lost, 0 addresses changed in kind; 2 of 3 domains differ",
        "  gained: 3 forward",
        "  catch-alls: 1 new, 0 gone",
    ]


def test_json(changed: Site) -> None:
    done = called("diff", "--json", changed.file, changed.host.root)
    assert (done.status, done.err) == (1, "")
    head, _, new, lost, _, whole, spam, foot = done.lines
    sides = {"old": str(changed.file), "new": str(changed.host.root)}
    assert head == {"version": 1, **sides, "old_as": None, "new_as": "validrcptto"}
    assert (new["change"], new["address"], new["domain"], new["name"], new["prefix"]) == (
        "gained",
        "ann-new@example.org",
        "example.org",
        "ann-new",
        False,
    )
    assert (new["old"], new["new"]["kind"], new["new"]["file"]) == (None, "forward", "/home/ann/.qmail-new")
    assert (lost["change"], lost["address"], lost["old"]["kind"]) == ("lost", "joe-list@example.org", None)
    assert (whole["address"], whole["prefix"], whole["covers"]) == ("*@shop.example", True, 1)
    assert (spam["change"], spam["hides"]) == ("hidden", "*@shop.example")
    assert (foot["domains"], foot["differing"]) == (3, 2)
    assert foot["lowered"] == {side: {"widened": 0, "unsayable": 0, "left_out": 0} for side in ("old", "new")}
    assert foot["summary"]["gained"] == {"addresses": 1, "wildcards": 2, "kinds": {"forward": 3}}
    numbers = called("diff", "--json", "--stat", changed.file, changed.host.root).lines
    assert [one.get("domain") for one in numbers[1:-1]] == ["example.org", "shop.example"]
    assert numbers[-1] == foot


def test_a_domain_that_loses_its_catch_all_names_what_stays(tmp_path: Path) -> None:
    old = text(tmp_path / "old", "*@example.org", "bob@example.org")
    new = text(tmp_path / "new", *(f"user{number}@example.org" for number in range(7)), "x-*@example.org")
    done = called("diff", old, new)
    names = "x-*@example.org, user0@example.org, user1@example.org, user2@example.org, user3@example.org, ..."
    assert done.out.splitlines() == [
        "example.org",
        f"  - *@example.org; 7 addresses and 1 wildcard below it stay accepted by rules of their own ({names})",
        "  - bob@example.org",
    ]
    spared = [one for one in called("diff", "--json", old, new).lines if one.get("change") == "spared"]
    assert len(spared) == 8
    assert {one["under"] for one in spared} == {"*@example.org"}


def test_one_domain(changed: Site) -> None:
    for old, new in ((changed.file, changed.host.root), (changed.host.root, changed.file)):
        done = called("diff", "--domain", "EXAMPLE.org", "--addresses", old, new)
        assert done.status == 1
        assert {line[1:] for line in done.out.splitlines()} == {
            "joe-shop-*@example.org",
            "ann-new@example.org",
            "joe-list@example.org",
        }
    done = called("diff", "--domain", "backup.example", changed.file, changed.host.root)
    assert (done.status, done.out) == (0, "")
    done = called("diff", "--domain", "nosuch.example", changed.file, changed.host.root)
    assert (done.status, done.err) == (2, "rcptgen: nosuch.example is in neither of the two\n")


def test_domains_that_came_or_went(tmp_path: Path) -> None:
    old, new = text(tmp_path / "old", "a@old.example"), text(tmp_path / "new", "a@new.example")
    assert called("diff", old, new).out.splitlines() == [
        "new.example (not in OLD)",
        "  + a@new.example",
        "old.example (not in NEW)",
        "  - a@old.example",
    ]


@pytest.mark.parametrize("no_colour", [False, True])
def test_colour_only_on_a_terminal(tmp_path: Path, no_colour: bool) -> None:
    old, new = text(tmp_path / "old", "a@example.org"), text(tmp_path / "new", "b@example.org")
    master, slave = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | ({"NO_COLOR": "1"} if no_colour else {})
    try:
        arguments = [*PROGRAM, "-q", "diff", str(old), str(new)]
        subprocess.run(arguments, stdin=slave, stdout=slave, env=environment, check=False)
        said = os.read(master, 4096)
    finally:
        os.close(slave)
        os.close(master)
    assert (b"\x1b[31m- a@example.org\x1b[0m" in said) == (not no_colour)
    assert (b"\x1b[32m+ b@example.org\x1b[0m" in said) == (not no_colour)
    assert b"+ b@example.org" in said
    assert b"\x1b" not in command("diff", old, new).stdout


# --- statuses --------------------------------------------------------------------------------------


def test_exit_statuses(tmp_path: Path) -> None:
    """As diff(1): 0 same, 1 different, 2 trouble."""
    old, new = text(tmp_path / "old", "a@example.org"), text(tmp_path / "new", "b@example.org")
    assert called("diff", old, old).status == 0
    for option in ([], ["--exit-code"]):
        assert called("diff", *option, old, new).status == 1
        assert called("diff", *option, "--stat", old, new).status == 1
    assert called("diff", "--no-exit-code", old, new).status == 0
    assert called("diff", "--no-exit-code", old, tmp_path / "nosuch").status == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-", "-"], "only one side can be stdin"),
        (["--addresses", "--stat", "old", "old"], "contradicts"),
        (["--addresses", "--json", "old", "old"], "contradicts"),
        (["old"], "Missing argument"),
        (["old", "nosuch"], "nosuch: No such file or directory"),
        (["old", "empty"], "empty: an empty file is neither"),
        (["old", "bad"], "bad:2: no domain after the @"),
        (["cut.cdb", "old"], "cut.cdb"),
    ],
)
def test_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    text(tmp_path / "old", "a@example.org")
    text(tmp_path / "bad", "a@example.org", "b@")
    (tmp_path / "empty").touch()
    (tmp_path / "cut.cdb").write_bytes(cdb_bytes([(b"a@b", b"1")])[:-5])
    done = called("diff", *words)
    assert done.status == 2
    assert said in done.err
    assert "Traceback" not in done.err
    assert "bug" not in done.err


def test_a_host_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    rules = text(tmp_path / "rules", "a@example.org")
    done = called("diff", rules, tmp_path / "empty")
    assert (done.status, done.out) == (78, "")


def test_a_source_that_fails_is_no_loss(changed: Site) -> None:
    """What it says is unknown: the published rules are told, and the status says that they are not the truth."""
    root, state = changed.host.root, changed.state
    with faults(eio=(b"/home/joe",)):
        done = called("--root", root, "--state", state, "diff", "--addresses", changed.file, root)
    assert done.status == 75
    assert "-" not in {line[0] for line in done.out.splitlines()}
    assert "/home/joe" in done.err
    assert "what they say is unknown" in done.err


def test_lines_that_stand_for_many_domains_are_named(site: Site) -> None:
    site.published()
    site.host.write("control/rcpthosts", "example.org\nshop.example\nbackup.example\n.suffix.example\n")
    done = called("diff", site.file, site.host.root)
    assert done.status == 0
    assert "'.suffix.example' stands for domains that no list names" in done.err


# --- hostile names ---------------------------------------------------------------------------------


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    evil = b"\x1b[31m\x07\x9b\r\x7f\n"
    old, new = tmp_path / "old.cdb", tmp_path / "new.cdb"
    old.write_bytes(cdb_bytes([(evil + b"@" + evil, b"1"), (evil + b"-default@" + evil, b"1"), (evil, b"1")]))
    new.write_bytes(cdb_bytes([(b"@" + evil, b"1"), (b"a" + evil + b"@" + evil, b"-")]))
    bad = tmp_path / "bad"
    bad.write_bytes(b"a@" + evil.replace(b"\n", b"") + b"\n" + evil)
    gone = os.fsdecode(b"no" + evil)
    ran = [
        called("diff", old, new),
        called("diff", new, old),
        called("diff", "--stat", old, new),
        called("diff", "--addresses", old, new),
        called("diff", "--json", old, new),
        called("diff", "--json", "--stat", old, new),
        called("diff", "--domain", os.fsdecode(evil), old, new),
        called("diff", "--domain", gone, old, new),
        called("diff", gone, old),
        called("diff", f"{gone}={gone}", old),
        called("diff", bad, old),
    ]
    for one in ran:
        for said in (one.out, one.err):
            assert not {c for c in said if (ord(c) < 0x20 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0}, one
        assert "Traceback" not in one.err
        assert one.status != 70
    assert "+ *@\\x1b[31m" in ran[0].out
    for line in ran[4].out.splitlines():
        json.loads(line)
