"""What is published for a unit in each of its states, and with which exit status the run ends.

The table of the states, row by row.  Every test also adds an address elsewhere on the host:
whatever is wrong with one home, that one must go out (save where nothing may go out).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hosts import Dir, Host, qmail_newu
from runs import Names, Site, faults

pytestmark = pytest.mark.root

NAMES: Names = {
    "passwd": {"joe": 1001, "ann": 1002},
    "control/me": "mail.example.org\n",
    "control/locals": "example.org\n",
    "control/virtualdomains": "shop.example:joe-shop\n",
    "control/rcpthosts": "example.org\nshop.example\n",
    "~joe/.qmail-list": "./Maildir/\n",
    "~joe/.qmail-old": "|bouncesaying 'not here any more'\n",
    # A catch-all with a refusal below it.
    "~joe/.qmail-shop-default": "./Maildir/\n",
    "~joe/.qmail-shop-spam": "|bouncesaying no\n",
    "~ann/.qmail-news": "./Maildir/\n",
    "alias/.qmail-postmaster": "joe\n",
}

JOES = {
    "joe@example.org": True,
    "joe-list@example.org": True,
    "joe-old@example.org": False,
    "joe-nosuch@example.org": False,
    "orders@shop.example": True,
    "spam@shop.example": False,
}
"""What the healthy host does with addresses that only joe's home decides."""

ELSEWHERE = {
    "ann@example.org": True,
    "ann-news@example.org": True,
    "ann-nosuch@example.org": False,
    "postmaster@example.org": True,
    "nobody-here@example.org": False,
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, NAMES)


def answers(site: Site, wanted: dict[str, bool]) -> dict[str, bool]:
    return {address: site.accepts(address) for address in wanted}


def add_elsewhere(site: Site) -> None:
    site.host.write("~ann/.qmail-new", "./Maildir/\n")
    assert not site.file.exists() or not site.accepts("ann-new@example.org")


def assert_elsewhere(site: Site) -> None:
    """Everybody else's mail is untouched, and the addition is out."""
    assert answers(site, ELSEWHERE) == ELSEWHERE
    assert site.accepts("ann-new@example.org")


# --- healthy -----------------------------------------------------------------------------------


def test_healthy(site: Site) -> None:
    done = site.published()
    assert (done.states, done.kept, done.held) == ({}, {}, {})
    assert answers(site, JOES | ELSEWHERE) == JOES | ELSEWHERE
    add_elsewhere(site)
    done = site.published()
    assert_elsewhere(site)
    assert (done.json["gained"], done.json["lost"]) == (1, 0)


# --- deferring ---------------------------------------------------------------------------------


def shut(host: Host) -> None:
    host.path("~joe").chmod(0)


def writable_for_all(host: Host) -> None:
    host.path("~joe").chmod(0o757)


def sticky(host: Host) -> None:
    host.path("~joe").chmod(0o1755)


@pytest.mark.parametrize("earlier", [True, False], ids=["published", "new"])
@pytest.mark.parametrize("spoil", [shut, writable_for_all, sticky])
def test_deferring_home(site: Site, spoil: Callable[[Host], None], earlier: bool) -> None:
    if earlier:
        site.published()
    add_elsewhere(site)
    spoil(site.host)
    done = site.published()
    # What qmail says: it defers all of joe's mail, so all of it is accepted.
    assert answers(site, JOES) == dict.fromkeys(JOES, True)
    assert_elsewhere(site)
    assert (done.states, done.kept, done.held) == ({"/home/joe": "deferring"}, {}, {})
    assert site.run("check", "joe-nosuch@example.org").out.startswith("defer\t")


def test_deferring_file(site: Site) -> None:
    """A first line that is blank: qmail-local defers the mail of that file, of no other."""
    site.published()
    add_elsewhere(site)
    site.host.write("~joe/.qmail-old", "\n./Maildir/\n")
    done = site.published()
    assert answers(site, JOES) == JOES | {"joe-old@example.org": True}
    assert_elsewhere(site)
    assert (done.states, done.kept, done.held) == ({"/home/joe": "deferring"}, {}, {})
    (unit,) = done.json["units"]
    assert "/home/joe/.qmail-old" in unit["reason"]


def test_deferring_is_said_and_goes_away(site: Site) -> None:
    shut(site.host)
    done = site.run("compile", "-t", site.output)
    assert done.status == 0
    assert "  deferring: /home/joe: cannot enter the home directory: Permission denied\n" in done.err
    site.host.path("~joe").chmod(0o755)
    done = site.published()
    assert done.states == {}
    assert answers(site, JOES) == JOES


def test_many_deferring_homes_are_counted_not_listed(tmp_path: Path) -> None:
    users = {f"u{number:03}": 2000 + number for number in range(60)}
    homes = {f"~{name}": Dir(mode=0) for name in users}
    site = Site(tmp_path, {"passwd": users, "control/me": "example.org\n", **homes})
    done = site.run("compile", "-t", site.output)
    assert done.status == 0
    assert done.err.count("  deferring: ") == 10
    assert "  and 50 more, 60 deferring in all\n" in done.err
    assert len(site.compile().states) == 60
    assert site.run("-v", "compile", "-t", site.output).err.count("  deferring: ") == 60


# --- failed sources ----------------------------------------------------------------------------


def assert_failed(site: Site, reason: str) -> None:
    """joe's rules are those that were published; the addition elsewhere is out."""
    done = site.compile()
    assert done.status == 75
    assert done.output["published"]
    assert done.states == {"/home/joe": "failed"}
    assert list(done.kept) == ["/home/joe"]
    assert reason in done.kept["/home/joe"]
    assert done.held == {}
    assert answers(site, JOES) == JOES
    assert_elsewhere(site)
    # Again, with nothing new: the same file, and the same status until the home is back.
    before = site.file.stat().st_ino
    done = site.run("compile", "-t", site.output)
    assert done.status == 75
    assert re.search(rf"^  failed: /home/joe: .*{reason}", done.err, re.MULTILINE)
    assert re.search(rf"^  kept as published: /home/joe: .*{reason}", done.err, re.MULTILINE)
    assert site.file.stat().st_ino == before


def test_home_with_io_error_keeps_its_published_rules(site: Site) -> None:
    site.published()
    add_elsewhere(site)
    # What a home that cannot be read says now counts for nothing, be it more or less.
    site.host.remove("~joe/.qmail-list")
    site.host.write("~joe/.qmail-more", "./Maildir/\n")
    with faults(eio=(b"/home/joe",)):
        assert_failed(site, "Input/output error")
    assert not site.accepts("joe-more@example.org")
    done = site.published()
    assert done.json["lost"] == 1
    assert answers(site, JOES) == JOES | {"joe-list@example.org": False}
    assert site.accepts("joe-more@example.org")


def test_io_error_of_one_file_keeps_the_home(site: Site) -> None:
    site.published()
    add_elsewhere(site)
    with faults(eio=(b"/home/joe/.qmail-old",)):
        assert_failed(site, "Input/output error")


def test_io_error_of_getpws_look(site: Site) -> None:
    """qmail-getpw itself cannot look at the home: not even whether joe is a user is known."""
    site.published()
    add_elsewhere(site)
    with faults(looks=(b"/home/joe",)):
        assert_failed(site, "the home directory of 'joe' cannot be looked at: Input/output error")
        asked = site.run("check", "joe@example.org", "ann@example.org")
    assert [line.split("\t")[0] for line in asked.out.splitlines()] == ["defer", "deliver"]


def test_hanging_home(site: Site) -> None:
    site.published()
    add_elsewhere(site)
    with faults(hang=(b"/home/joe",), time_limit=0.7):
        assert_failed(site, "the home directory does not answer")


@pytest.mark.parametrize("fault", [{"eio": (b"/home/joe",)}, {"looks": (b"/home/joe",)}], ids=["read", "look"])
def test_failed_and_never_published_is_accepted_whole(site: Site, fault: dict[str, Any]) -> None:
    with faults(**fault):
        done = site.compile()
        assert done.status == 75
        assert done.states == {"/home/joe": "failed"}
        assert list(done.kept) == ["/home/joe"]
        assert answers(site, JOES) == dict.fromkeys(JOES, True)
        assert answers(site, ELSEWHERE) == ELSEWHERE
        # It does not turn into "published rules" by having been published like that.
        assert site.compile().status == 75
    site.published()
    assert answers(site, JOES) == JOES


def test_new_account_with_io_error_is_accepted_whole(site: Site) -> None:
    """On a host that was published long ago."""
    site.published()
    passwd = site.host.path("/etc/passwd")
    passwd.write_text(passwd.read_text() + "tom:x:1003:1003::/home/tom:/bin/sh\n")
    (site.host.root / "home" / "tom").mkdir()
    os.chown(site.host.root / "home" / "tom", 1003, 1003)
    with faults(eio=(b"/home/tom",)):
        done = site.compile()
    assert done.status == 75
    assert list(done.kept) == ["/home/tom"]
    assert site.accepts("tom@example.org")
    assert site.accepts("tom-anything@example.org")
    assert answers(site, JOES | ELSEWHERE) == JOES | ELSEWHERE


def test_failed_alias_home(site: Site) -> None:
    """~alias answers for every name that nobody owns: its published rules stay, refusals too."""
    site.published()
    add_elsewhere(site)
    site.host.remove("alias/.qmail-postmaster")
    with faults(eio=(b"/var/qmail/alias",)):
        done = site.compile()
    assert done.status == 75
    assert list(done.kept) == ["/var/qmail/alias"]
    assert answers(site, JOES) == JOES
    assert_elsewhere(site)


def test_failed_and_removed_at_once(site: Site) -> None:
    """While joe's home fails, a removal in ann's goes its way."""
    site.published()
    site.host.remove("~ann/.qmail-news")
    with faults(eio=(b"/home/joe",)):
        assert site.compile().status == 75
    assert answers(site, JOES) == JOES
    assert not site.accepts("ann-news@example.org")


def test_two_failed_homes(site: Site) -> None:
    site.published()
    before = site.content
    site.host.write("alias/.qmail-new", "ann\n")
    with faults(hang=(b"/home/joe",), eio=(b"/home/ann",), time_limit=0.7):
        done = site.compile()
    assert done.status == 75
    assert done.states == {"/home/joe": "failed", "/home/ann": "failed"}
    assert answers(site, JOES | ELSEWHERE) == JOES | ELSEWHERE
    assert site.content != before
    assert site.accepts("new@example.org")


def test_failed_control_file(site: Site) -> None:
    site.published()
    before = site.content
    with faults(eio=(b"/var/qmail/control/virtualdomains",)):
        done = site.compile()
    assert done.status == 75
    assert "/var/qmail/control/virtualdomains: Input/output error" in done.err
    assert site.content == before


# --- users/cdb ---------------------------------------------------------------------------------

ASSIGN = "+club.example-:joe:1001:1001:/home/joe:-:shop-:\n=info:ann:1002:1002:/home/ann:::\n.\n"


@pytest.fixture
def assigned(tmp_path: Path) -> Site:
    return Site(tmp_path, {**NAMES, "users/assign": ASSIGN})


def cut_users(site: Site) -> None:
    whole = qmail_newu(ASSIGN.encode())
    site.host.write("users/cdb", whole[:-20])


def test_damaged_users_keeps_all_published_rules(assigned: Site) -> None:
    assigned.published()
    before = assigned.rules
    assert assigned.accepts("info@example.org")
    cut_users(assigned)
    add_elsewhere(assigned)
    done = assigned.compile()
    assert done.status == 75
    assert done.states == {"/var/qmail/users/cdb": "suspect"}
    assert done.held == {}
    # As a whole: not even the addition in ann's home is known to be one.
    assert assigned.rules == before
    assigned.host.newu()
    done = assigned.published()
    assert assigned.rules == before | {"ann-new@example.org"}


def test_damaged_users_and_a_new_domain(assigned: Site) -> None:
    """Additions are published all the same: qmail defers its mail, so it is accepted."""
    assigned.published()
    before = assigned.rules
    cut_users(assigned)
    assigned.host.write("control/virtualdomains", "shop.example:joe-shop\nnew.example:ann\n")
    assert assigned.compile().status == 75
    assert assigned.rules == before | {"*@new.example"}


def test_damaged_users_and_a_domain_that_is_gone(assigned: Site) -> None:
    assigned.published()
    before = assigned.rules
    cut_users(assigned)
    assigned.host.write("control/virtualdomains", "")
    assigned.host.write("control/rcpthosts", "example.org\n")
    done = assigned.compile()
    assert done.status == 75
    assert list(done.held) == ["shop.example"]
    assert assigned.rules == before


def test_damaged_users_at_first(assigned: Site) -> None:
    cut_users(assigned)
    done = assigned.compile()
    assert done.status == 75
    assert "/var/qmail/users/cdb" in done.err
    assert "--force" in done.err
    assert not assigned.file.exists()
    done = assigned.compile("--force")
    assert done.status == 75
    assert done.states == {"/var/qmail/users/cdb": "suspect"}
    assert assigned.rules == {"*@example.org", "*@shop.example", "postmaster"}


@pytest.mark.parametrize("content", [b"", b"\0" * 2000, b"\xff" * 4096], ids=["empty", "zeros", "ones"])
def test_damage_of_users_in_other_ways(assigned: Site, content: bytes) -> None:
    assigned.published()
    before = assigned.content
    assigned.host.write("users/cdb", content)
    assert assigned.compile().status == 75
    assert assigned.content == before
    # The verdict is that of the real programs all the same: nothing can be looked up.
    if not content:
        assert assigned.run("check", "ann@example.org").out.startswith("defer\t")


# --- our own shortage --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        *({"spare": number} for number in range(4)),
        {"kill": (b"/home/joe", b"/home/ann", b"/var/qmail/alias")},
        {"kill": (b"/var/qmail",)},
    ],
    ids=["no descriptor", "one", "two", "three", "killed in every home", "killed at the control files"],
)
def test_shortage_publishes_nothing(site: Site, fault: dict[str, Any]) -> None:
    site.published()
    before, inode = site.content, site.file.stat().st_ino
    add_elsewhere(site)
    with faults(**fault):
        done = site.compile()
        # For a command that answers questions it is trouble, not a "no".
        asked = site.run("check", "joe-list@example.org")
    assert done.status == 1, done
    assert done.json["status"] == 1
    assert done.json["outputs"] == []
    assert "Traceback" not in done.err
    assert done.err.count("\n") == 1
    assert (site.content, site.file.stat().st_ino) == (before, inode)
    assert site.left_over() == []
    assert (asked.status, asked.out) in [(2, ""), (0, "deliver\tjoe-list@example.org\tmaildir\n")]
    site.published()
    assert_elsewhere(site)


def test_killed_worker_is_no_answer(site: Site) -> None:
    with faults(kill=(b"/home/joe",)):
        asked = site.run("check", "ann@example.org", "joe@example.org")
    assert (asked.status, asked.out) == (2, "")
    assert "worker" in asked.err
