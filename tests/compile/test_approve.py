"""What a person approves goes, and nothing else: not what went since he looked."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest
from hosts import remove
from runs import PROGRAM, Names, Site

pytestmark = pytest.mark.root

MAILDIR = "./Maildir/\n"
DOMAINS = ("a", "b", "c")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Three virtual domains of twenty names each, in homes of their own; local domains do not have them."""
    names: Names = {
        "passwd": {name: 2000 + number for number, name in enumerate(DOMAINS)},
        "control/me": "example.org\n",
        "control/locals": "",
        "control/virtualdomains": "".join(f"{name}.example:{name}\n" for name in DOMAINS),
        **{f"~{name}/.qmail-n{number:02}": MAILDIR for name in DOMAINS for number in range(20)},
    }
    found = Site(tmp_path, names)
    found.published()
    return found


def lose(site: Site, name: str, *numbers: int) -> None:
    for number in numbers:
        site.host.remove(f"~{name}/.qmail-n{number:02}")


def accepted(site: Site, name: str) -> set[int]:
    return {number for number in range(20) if site.accepts(f"n{number:02}@{name}.example")}


def open_all(site: Site, names: list[str]) -> None:
    for name in names:
        site.host.write(f"~{name}/.qmail-default", MAILDIR)


# --- nothing else --------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False])
def test_what_went_since_is_judged_as_ever(site: Site, named: bool) -> None:
    """Twelve of twenty are held; when they are approved, six of the other eight have gone, too."""
    lose(site, "a", *range(12))
    assert site.compile().held["a.example"]["count"] == 12
    lose(site, "a", *range(12, 18))
    done = site.approve(*(["a.example"] if named else []))
    assert done.status == 3
    assert done.json["released"] == ["a.example"]
    assert done.held["a.example"]["reason"] == "6 of 8 names would go"
    assert accepted(site, "a") == set(range(12, 20))
    # Those are a question of their own.
    assert site.approve("a.example").status == 0
    assert accepted(site, "a") == {18, 19}


def test_a_compile_in_between_asks_anew(site: Site) -> None:
    lose(site, "a", *range(12))
    site.compile()
    lose(site, "a", *range(12, 18))
    assert site.compile().held["a.example"]["count"] == 18
    done = site.approve("a.example")
    assert (done.status, done.json["lost"]) == (0, 18)
    assert accepted(site, "a") == {18, 19}


def test_few_more_go_with_it(site: Site) -> None:
    """Three of eight are no reason to hold anything."""
    lose(site, "a", *range(12))
    site.compile()
    lose(site, "a", *range(12, 15))
    assert site.approve().status == 0
    assert accepted(site, "a") == set(range(15, 20))


def test_names_that_came_back_stay(site: Site) -> None:
    lose(site, "a", *range(12))
    site.compile()
    site.host.write("~a/.qmail-n00", MAILDIR)
    assert site.approve().status == 0
    assert accepted(site, "a") == {0, *range(12, 20)}


@pytest.mark.parametrize("options", [(), ("a.example",)])
def test_other_domains_are_not_approved(site: Site, options: tuple[str, ...]) -> None:
    lose(site, "a", *range(12))
    site.compile()
    lose(site, "b", *range(15))
    done = site.approve(*options)
    assert (done.status, list(done.held)) == (3, ["b.example"])
    assert (accepted(site, "a"), accepted(site, "b")) == (set(range(12, 20)), set(range(20)))


def test_a_mount_that_is_lost_meanwhile(site: Site) -> None:
    lose(site, "a", *range(12))
    site.compile()
    for name in DOMAINS:
        remove(site.host.root / "home" / name)
    done = site.approve()
    assert (done.status, sorted(done.held)) == (3, [f"{name}.example" for name in DOMAINS])
    assert accepted(site, "a") == set(range(12, 20))
    assert accepted(site, "b") == accepted(site, "c") == set(range(20))


def test_a_domain_that_is_named_before_anything_is_held(site: Site) -> None:
    """As a script does that has just removed them."""
    lose(site, "a", *range(15))
    lose(site, "b", *range(15))
    done = site.approve("a.example")
    assert (done.status, list(done.held)) == (3, ["b.example"])
    assert accepted(site, "a") == set(range(15, 20))


def test_a_domain_that_goes_whole(site: Site) -> None:
    """Held for some of its names; then it is gone from virtualdomains, as it may."""
    lose(site, "a", *range(12))
    site.compile()
    site.host.write("control/virtualdomains", "b.example:b\nc.example:c\n")
    done = site.compile()
    assert (done.status, list(done.held)) == (3, ["a.example"])
    assert accepted(site, "a") == set(range(20))
    assert site.approve("a.example").status == 0
    assert accepted(site, "a") == set()
    assert accepted(site, "b") == set(range(20))


def test_approving_removals_opens_nothing(tmp_path: Path) -> None:
    """Eleven new catch-alls are held; what a domain may lose is another question than what it may take."""
    names = [f"d{number:02}" for number in range(11)]
    site = Site(
        tmp_path,
        {
            "passwd": {name: 2000 + number for number, name in enumerate(names)},
            "control/me": "example.org\n",
            "control/locals": "",
            "control/virtualdomains": "".join(f"{name}.example:{name}\n" for name in names),
            **{f"~{name}/.qmail-n{number:02}": MAILDIR for name in names for number in range(9)},
        },
    )
    site.published()
    for number in range(8):
        site.host.remove(f"~d00/.qmail-n{number:02}")
    assert list(site.compile().held) == ["d00.example"]
    open_all(site, names)
    site.host.remove("~d00/.qmail-n08")
    done = site.approve("d00.example")
    assert done.status == 3
    assert all(one["catch_all"] for one in done.json["held"])
    assert len(done.held) == 11
    assert not site.accepts("anybody@d00.example")
    assert not site.accepts("n00@d00.example")
    # Now one of them is approved, and that one opens.
    done = site.approve("d07.example")
    assert (done.status, len(done.held)) == (3, 10)
    assert site.accepts("anybody@d07.example")
    assert not site.accepts("anybody@d08.example")
    assert done.json["released"] == ["d07.example"]
    assert site.approve().status == 0
    assert all(site.accepts(f"anybody@{name}.example") for name in names)


def test_who_approved_and_what(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "a\x1bnn")
    lose(site, "a", *range(12))
    site.compile()
    site.approve("a.example")
    lose(site, "b", *range(12))
    site.compile("--force")
    told = site.run("history", "--json").json["generations"]
    approved, forced = told[-2:]
    assert (approved["reason"], approved["released"]) == ("approved", ["a.example"])
    assert (forced["reason"], forced["released"]) == ("forced", [])
    for one in (approved, forced):
        assert one["by"]["uid"] == os.getuid()
        assert one["by"]["sudo_user"] == "a\x1bnn"
    table = site.run("history").out
    assert "\x1b" not in table
    assert "sudo by a\\x1bnn" in table
    assert "approved a.example by " in table


# --- the plan ------------------------------------------------------------------------------------


def test_plan(site: Site) -> None:
    assert site.run("approve", "--plan").out == "nothing is held\n"
    lose(site, "a", *range(12))
    lose(site, "b", *range(20))
    site.compile()
    before = site.content
    done = site.run("approve", "--plan")
    assert done.status == 3
    lines = done.out.splitlines()
    assert lines[0].startswith("a.example: held since 20")
    assert lines[0].endswith(": 12 of 20 names would go")
    assert lines[1] == "  - n00@a.example"
    assert len([line for line in lines if line.endswith("@b.example")]) == 20
    assert not any("@a.example" in line for line in site.run("approve", "--dry-run", "B.example").out.splitlines())
    told = site.run("approve", "--plan", "--json").json
    assert [(one["domain"], one["count"]) for one in told["held"]] == [("a.example", 12), ("b.example", 20)]
    assert site.content == before


def on_a_terminal(site: Site, answer: bytes, meanwhile: list[int]) -> tuple[int, str, bytes]:
    """`rcptgen approve` on a terminal, which answers once it is asked; after some more names have gone.

    Answers with its status, the plan, and what it said on the terminal.
    """
    master, slave = pty.openpty()
    arguments = ["--root", str(site.host.root), "--state", str(site.state), "approve", "-t", site.output]
    process = subprocess.Popen([*PROGRAM, *arguments], stdin=slave, stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    heard = b""
    try:
        while b"[y/N]" not in heard:
            heard += os.read(master, 4096)
        if meanwhile:
            lose(site, "a", *meanwhile)
            site.compile()
        os.write(master, answer)
        assert process.stdout is not None
        shown = process.stdout.read().decode()
        status = process.wait(timeout=60)
        return status, shown, heard + os.read(master, 65536)
    finally:
        os.close(master)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.parametrize(
    ("answer", "meanwhile", "status", "left"),
    [
        (b"n\n", [], 3, set(range(20))),
        (b"y\n", [], 0, set(range(12, 20))),
        (b"y\n", [12, 13, 14], 3, set(range(20))),
    ],
    ids=["no", "yes", "yes to what has changed"],
)
def test_asked_on_a_terminal(site: Site, answer: bytes, meanwhile: list[int], status: int, left: set[int]) -> None:
    lose(site, "a", *range(12))
    site.compile()
    done, shown, said = on_a_terminal(site, answer, meanwhile)
    assert "12 of 20 names would go" in shown
    assert (done, accepted(site, "a")) == (status, left)
    assert (b"has changed since it was shown" in said) == bool(meanwhile)
