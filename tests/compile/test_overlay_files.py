"""Files of rules that `[extra]` names: what is published of them, and what of one that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hosts import Dir, Fifo, Link, Thing
from runs import Names, Run, Site, faults

pytestmark = pytest.mark.root

ACCEPT, REJECT = "/etc/mail/accept", "/etc/mail/reject"
CONFIG = f'[extra]\naccept_files = ["{ACCEPT}"]\nreject_files = ["{REJECT}"]\n'

ACCEPTS = (
    "# kept elsewhere\r\nFred@Example.org\r\nnews-*@example.org\r\n\r\n*@srs.example\r\npostmaster\r\nbounce-*\r\n"
)
REJECTS = "joe@example.org\nnews-old-*@example.org\nspamtrap\n"

NAMES: Names = {
    "passwd": {"joe": 1001, "ann": 1002, "spamtrap": 1003},
    "control/me": "mail.example.org\n",
    "control/locals": "example.org\n",
    "control/virtualdomains": "shop.example:ann-shop\n",
    "~ann/.qmail-shop-orders": "./Maildir/\n",
    "alias/.qmail-postmaster": "ann\n",
    "/etc/rcptgen.toml": CONFIG,
    ACCEPT: ACCEPTS,
    REJECT: REJECTS,
}

WANTED = {
    "fred@example.org": True,
    "fred@shop.example": False,
    "news-1@example.org": True,
    "news-old-1@example.org": False,
    "anybody@srs.example": True,
    "postmaster@shop.example": True,
    "postmaster@srs.example": True,
    "bounce-1@shop.example": True,
    "bounce-1@example.org": True,
    "joe@example.org": False,
    "spamtrap@example.org": False,
    "ann@example.org": True,
    "orders@shop.example": True,
    "nosuch@shop.example": False,
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, NAMES)


def answers(site: Site) -> dict[str, bool]:
    return {address: site.accepts(address) for address in WANTED}


def add_elsewhere(site: Site) -> None:
    site.host.write("~ann/.qmail-new", "./Maildir/\n")


def assert_kept(site: Site, done: Run, path: str, state: str, reason: str) -> None:
    """The last rules of the file are in force, what is new elsewhere is out, and the run says so."""
    assert done.status == 75, done
    assert answers(site) == WANTED
    assert site.accepts("ann-new@example.org")
    assert done.states == {path: state}
    assert reason in done.kept[path]
    assert done.held == {}


def test_what_the_files_say_comes_last(site: Site) -> None:
    done = site.published()
    assert answers(site) == WANTED
    assert (done.states, done.kept) == ({}, {})
    assert site.run("verify", "--full", "--target", "validrcptto", site.file).status == 0


# --- Files that cannot be used ------------------------------------------------------------------


def vanished(site: Site, path: str) -> None:
    site.host.path(path).unlink()


def a_directory(site: Site, path: str) -> None:
    vanished(site, path)
    site.host.path(path).mkdir()


def without_its_directory(site: Site, path: str) -> None:
    """As an unmounted file system leaves it."""
    for name in (ACCEPT, REJECT):
        if name != path:
            site.host.write("/etc/other", site.host.path(name).read_bytes())
            vanished(site, name)
            site.host.write(name, Link("/etc/other"))
    vanished(site, path)
    site.host.write(path, Link("/mnt/lost"))


def a_fifo(site: Site, path: str) -> None:
    vanished(site, path)
    os.mkfifo(site.host.path(path))


def cut_off(site: Site, path: str) -> None:
    data = site.host.path(path).read_bytes()
    site.host.path(path).write_bytes(data[:-4])


def emptied(site: Site, path: str) -> None:
    site.host.path(path).write_bytes(b"")


def blanked(site: Site, path: str) -> None:
    site.host.path(path).write_bytes(b"\n \r\n")


def zeros(site: Site, path: str) -> None:
    """What a crash leaves of a file whose size was written before its data."""
    site.host.path(path).write_bytes(b"\0" * site.host.path(path).stat().st_size)


def a_bad_line(site: Site, path: str) -> None:
    with site.host.path(path).open("ab") as file:
        file.write(b"one@two three\n")


TROUBLES: list[tuple[Callable[[Site, str], None], str, str]] = [
    (vanished, "failed", "No such file"),
    (a_directory, "failed", "not a regular file"),
    (without_its_directory, "failed", "No such file"),
    (a_fifo, "failed", "not a regular file"),
    (cut_off, "suspect", "no newline at its end: cut off?"),
    (emptied, "suspect", "it is empty, and was not"),
    (blanked, "suspect", "it is empty, and was not"),
    (zeros, "suspect", "no newline at its end: cut off?"),
    (a_bad_line, "suspect", "not user@domain, prefix*@domain or *@domain"),
]


@pytest.mark.parametrize("path", [ACCEPT, REJECT])
@pytest.mark.parametrize(("spoil", "state", "reason"), TROUBLES)
def test_the_last_rules_of_a_file_in_trouble_stay(
    site: Site, spoil: Callable[[Site, str], None], state: str, reason: str, path: str
) -> None:
    site.published()
    add_elsewhere(site)
    spoil(site, path)
    assert_kept(site, site.compile(), path, state, reason)
    # Not for one run only: each generation remembers it for the next.
    site.host.write("~ann/.qmail-newer", "./Maildir/\n")
    assert_kept(site, site.compile(), path, state, reason)
    assert site.accepts("ann-newer@example.org")


@pytest.mark.parametrize("path", [ACCEPT, REJECT])
def test_a_file_that_gives_an_error(site: Site, path: str) -> None:
    site.published()
    add_elsewhere(site)
    with faults(eio=(path.encode(),)):
        assert_kept(site, site.compile(), path, "failed", "Input/output error")


def test_a_file_that_hangs(site: Site) -> None:
    site.published()
    add_elsewhere(site)
    with faults(time_limit=1.0, hang=(ACCEPT.encode(),)):
        assert_kept(site, site.compile(), ACCEPT, "failed", "Connection timed out")


def test_the_line_is_named_and_not_quoted(site: Site) -> None:
    site.published()
    site.host.path(ACCEPT).write_bytes(b"a@example.org\nroot:$y$secret:1\nx y@z\nb@@\n")
    done = site.compile()
    assert done.kept[ACCEPT].startswith("line 2: ")
    assert done.kept[ACCEPT].endswith(" (and 1 more lines)")
    assert "secret" not in done.out + done.err


def test_what_is_mended_is_used_again(site: Site) -> None:
    site.published()
    vanished(site, ACCEPT)
    assert site.compile().status == 75
    site.host.write(ACCEPT, "fred@example.org\nnew@example.org\n")
    done = site.published()
    assert done.states == {}
    assert site.accepts("new@example.org")
    assert not site.accepts("news-1@example.org")


def test_a_comment_says_that_a_file_is_meant_to_be_empty(site: Site) -> None:
    site.published()
    site.host.write(ACCEPT, "# nothing any more\n")
    site.host.write(REJECT, "# nothing any more\n")
    done = site.published()
    assert not site.accepts("news-1@example.org")
    assert site.accepts("joe@example.org")
    assert done.states == {}


MANY = "".join(f"user{number}@example.org\n" for number in range(10))


@pytest.mark.parametrize(("left", "kept"), [(9, False), (5, False), (4, True), (1, True)])
@pytest.mark.parametrize("path", [ACCEPT, REJECT])
def test_most_rules_of_a_file_gone_is_hardly_meant(site: Site, path: str, left: int, kept: bool) -> None:
    """Each domain may lose too little of its names for the guard to see it."""
    site.host.write("/etc/rcptgen.toml", CONFIG + "[guard]\ndomain_loss_min = 5\n")
    for number in range(100):
        site.host.write(f"alias/.qmail-more{number}", "&joe@far.example\n")
    site.host.write(path, MANY)
    site.published()
    site.host.write(path, "".join(MANY.splitlines(keepends=True)[:left]))
    done = site.compile()
    assert not done.held
    if kept and path == ACCEPT:
        assert (done.status, done.states) == (75, {ACCEPT: "suspect"})
        assert f"{10 - left} of its 10 rules are gone" in done.kept[ACCEPT]
        assert site.accepts("user9@example.org")
        assert site.compile("--force").status == 0
    else:
        assert done.status == 0
    assert site.accepts("user9@example.org") is False
    assert site.published().states == {}


def test_force_takes_an_emptied_file_for_what_it_is(site: Site) -> None:
    site.published()
    emptied(site, ACCEPT)
    assert site.compile("--force").status == 0
    assert not site.accepts("fred@example.org")
    # And that is what is known of it from then on.
    assert site.published().states == {}


def test_force_keeps_the_rules_of_a_file_that_has_vanished(site: Site) -> None:
    site.published()
    vanished(site, ACCEPT)
    assert site.compile("--force").status == 75
    assert answers(site) == WANTED


@pytest.mark.parametrize("path", [ACCEPT, REJECT])
@pytest.mark.parametrize("spoil", [vanished, cut_off, a_bad_line])
def test_nothing_is_published_while_nothing_is_known_of_a_file(
    site: Site, spoil: Callable[[Site, str], None], path: str
) -> None:
    spoil(site, path)
    done = site.compile()
    assert (done.status, site.file.exists()) == (75, False)
    assert path in done.err
    assert site.compile("--force").status == 75
    assert site.accepts("ann@example.org")


def test_a_new_file_that_cannot_be_used_stops_the_run(site: Site) -> None:
    site.host.write("/etc/rcptgen.toml", f'[extra]\nreject_files = ["{REJECT}"]\n')
    site.published()
    before = site.content
    site.host.write("/etc/rcptgen.toml", CONFIG)
    vanished(site, ACCEPT)
    add_elsewhere(site)
    assert site.compile().status == 75
    assert site.content == before


def test_without_a_state_nothing_is_known(site: Site) -> None:
    site.published()
    before = site.content
    for path in sorted(site.state.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    vanished(site, ACCEPT)
    assert site.compile().status == 75
    assert site.content == before


def test_a_list_that_was_replaced_by_hand_does_not_take_the_rules_away(site: Site) -> None:
    site.published()
    vanished(site, ACCEPT)
    other = site.top / "other.cdb"
    other.write_bytes(site.content)
    site.host.write("~ann/.qmail-x", "./Maildir/\n")
    site.file.write_bytes(site.content + b"")
    assert site.compile().status == 75
    assert answers(site) == WANTED


def test_rules_are_known_after_a_rollback(site: Site) -> None:
    site.published()
    add_elsewhere(site)
    site.published()
    assert site.run("rollback", "-t", site.output).status == 0
    vanished(site, ACCEPT)
    assert site.compile().status == 75
    assert answers(site) == WANTED
    assert site.run("resume", "-t", site.output).status == 75
    assert answers(site) == WANTED


def test_a_file_that_is_no_longer_named_has_no_say(site: Site) -> None:
    site.published()
    vanished(site, ACCEPT)
    site.host.write("/etc/rcptgen.toml", f'[extra]\nreject_files = ["{REJECT}"]\n')
    site.published()
    assert not site.accepts("fred@example.org")


def test_what_is_remembered_is_what_the_file_said_last(site: Site) -> None:
    """A rule that changes nothing now is remembered for when it does."""
    site.published()
    site.host.write(ACCEPT, ACCEPTS + "ann@example.org\n")
    site.published()
    vanished(site, ACCEPT)
    site.host.write("~ann/.qmail", "|bouncesaying gone\n")
    assert site.compile().status == 75
    assert site.accepts("ann@example.org")


def test_diff_knows_what_the_file_said_last(site: Site) -> None:
    site.published()
    vanished(site, ACCEPT)
    done = site.run("diff", site.file, site.host.root)
    assert "fred@example.org" not in done.out
    assert f"{ACCEPT}: No such file" in done.err


# --- Where they are told of ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "place", "status"),
    [
        ("fred@example.org", f"[extra] accept_files ({ACCEPT}:2)", 0),
        ("news-5@example.org", f"[extra] accept_files ({ACCEPT}:3)", 0),
        ("bounce-5@shop.example", f"[extra] accept_files ({ACCEPT}:7)", 0),
        ("joe@example.org", f"[extra] reject_files ({REJECT}:1)", 1),
        ("spamtrap@example.org", f"[extra] reject_files ({REJECT}:3)", 1),
    ],
)
def test_explain_names_file_and_line(site: Site, address: str, place: str, status: int) -> None:
    site.published()
    done = site.run("explain", address)
    assert place in done.out
    assert done.status == status


def test_list_names_file_and_line(site: Site) -> None:
    found = {one["rule"]: (one["file"], one["line"]) for one in site.run("list", "--json").lines}
    assert found["fred@example.org"] == (ACCEPT, 2)
    assert found["news-*@example.org"] == (ACCEPT, 3)
    assert found["*@srs.example"] == (ACCEPT, 5)
    assert found["postmaster@shop.example"] == (ACCEPT, 6)
    assert found["bounce-*@shop.example"] == (ACCEPT, 7)
    assert found["!joe@example.org"] == (REJECT, 1)


def test_what_the_format_widens_is_named_with_file_and_line(site: Site) -> None:
    site.host.write(ACCEPT, "# SRS\nsrs0=*\n")
    done = site.published()
    found = {(one["rule"], one["key"], one["file"], one["line"]) for one in done.output["widened"]}
    assert ("srs0=*@shop.example", "@shop.example", ACCEPT, 2) in found


@pytest.mark.parametrize("thing", [Dir(), Fifo()])
def test_commands_that_only_look_say_that_a_file_cannot_be_used(site: Site, thing: Thing) -> None:
    vanished(site, ACCEPT)
    site.host.write(ACCEPT, thing)
    for arguments in (("list",), ("check", "ann@example.org"), ("explain", "ann@example.org")):
        done = site.run(*arguments)
        assert done.status == 0
        assert f"{ACCEPT}: not a regular file" in done.err
    done = site.run("lint")
    assert (done.status, f"{ACCEPT}: not looked at: not a regular file" in done.err) == (2, True)
