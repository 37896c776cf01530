"""Ways in which a list once shrank although something had only gone missing for a while."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from runs import Names, Site, faults

from rcptgen.errors import PublishFailed
from rcptgen.publish import files

pytestmark = pytest.mark.root

USERS = {f"u{number}": 2000 + number for number in range(10)}
ALIASES = {f"alias/.qmail-a{number}": "u1\n" for number in range(40)}
HOST: Names = {
    "passwd": USERS,
    "control/me": "example.org\n",
    "users/assign": "=boss:u1:2001:2001:/home/u1:::\n.\n",
    **ALIASES,
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    found = Site(tmp_path, HOST)
    found.published()
    return found


def lose_the_mount(site: Site) -> None:
    os.rename(site.host.root / "home", site.host.root / "away")
    (site.host.root / "home").mkdir()


def test_a_hold_outlives_a_run_with_a_damaged_users_cdb(site: Site) -> None:
    lose_the_mount(site)
    assert site.compile().status == 3
    whole = (site.host.root / "var/qmail/users/cdb").read_bytes()
    (site.host.root / "var/qmail/users/cdb").write_bytes(whole[:1000])
    assert site.compile().status == 75
    (site.host.root / "var/qmail/users/cdb").write_bytes(whole)
    done = site.compile()
    assert done.status == 3
    assert list(done.held) == ["example.org"]
    assert site.accepts("u2@example.org")


def test_a_hold_outlives_a_run_with_a_mount_that_fails(site: Site) -> None:
    lose_the_mount(site)
    first = site.compile()
    assert first.status == 3
    os.rmdir(site.host.root / "home")
    os.rename(site.host.root / "away", site.host.root / "home")
    with faults(looks=tuple(f"/home/{name}".encode() for name in USERS)):
        failing = site.compile()
    assert failing.status == 75
    assert failing.held["example.org"]["since"] == first.held["example.org"]["since"]
    lose_the_mount(site)
    done = site.compile()
    assert done.status == 3
    assert site.accepts("u2@example.org")


def test_what_was_held_and_came_back_is_held_no_more(site: Site) -> None:
    lose_the_mount(site)
    assert site.compile().status == 3
    os.rmdir(site.host.root / "home")
    os.rename(site.host.root / "away", site.host.root / "home")
    done = site.compile()
    assert (done.status, done.held) == (0, {})


def test_a_catch_all_stands_for_more_than_one_name(tmp_path: Path) -> None:
    """Twenty domains with nothing but a .qmail-default; users/cdb, which gives them their owner, is lost."""
    domains = [f"d{number}.example" for number in range(20)]
    site = Site(
        tmp_path,
        {
            "passwd": {"mail": 2000},
            "control/me": "example.org\n",
            "control/virtualdomains": "".join(f"{name}:{name}\n" for name in domains),
            "users/assign": "".join(f"+{name}-:mail:2000:2000:/home/{name}:-::\n" for name in domains) + ".\n",
            **{f"/home/{name}/.qmail-default": "./Mailbox\n" for name in domains},
            **ALIASES,
        },
    )
    site.published()
    os.unlink(site.host.root / "var/qmail/users/cdb")
    done = site.compile()
    assert done.status == 3
    assert set(domains) <= set(done.held)
    assert site.accepts("anybody@d7.example")


def test_a_new_claim_to_a_home_that_fails_is_accepted(tmp_path: Path) -> None:
    """Two entries of users/assign share a home; the second comes while the home cannot be read."""
    shared = {"/home/vm/.qmail-x": "./Mailbox\n"}
    entry = "={}:mail:2000:2000:/home/vm:-:x:\n"
    site = Site(
        tmp_path,
        {
            "passwd": {"mail": 2000},
            "control/me": "example.org\n",
            "users/assign": entry.format("a") + ".\n",
            "alias/.qmail-postmaster": "a\n",
            **shared,
        },
    )
    site.published()
    site.host.write("users/assign", entry.format("a") + entry.format("b") + ".\n")
    site.host.newu()
    with faults(eio=(b"/home/vm",)):
        done = site.compile()
    assert done.status == 75
    assert site.accepts("a@example.org")
    assert site.accepts("b@example.org")
    assert not site.accepts("c@example.org")


def test_a_directory_that_cannot_be_synced_costs_no_memory(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are new then, and the next run must know them as its own."""
    site.host.write("alias/.qmail-new", "u1\n")

    def unsynced(done: object) -> tuple[bytes, OSError]:
        return b"/out", OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(files, "_sync_directories", unsynced)
        failed = site.compile()
    assert failed.status == PublishFailed.status
    assert site.accepts("new@example.org")
    done = site.compile()
    assert done.status == 0
    assert not any("the state is not used" in warning for warning in done.json["warnings"])
