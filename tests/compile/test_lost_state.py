"""A state that is lost, damaged, or not that of the files: the guard and what persons have ordered outlive it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import Names, Site

pytestmark = pytest.mark.root

MAILDIR = "./Maildir/\n"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    names: Names = {
        "passwd": {"joe": 1001},
        "control/me": "example.org\n",
        "control/locals": "",
        "control/virtualdomains": "shop.example:joe\n",
        **{f"~joe/.qmail-n{number:02}": MAILDIR for number in range(20)},
    }
    found = Site(tmp_path, names)
    found.published()
    return found


def lose(site: Site, *numbers: int) -> None:
    for number in numbers:
        site.host.remove(f"~joe/.qmail-n{number:02}")


def accepted(site: Site) -> set[int]:
    return {number for number in range(20) if site.accepts(f"n{number:02}@shop.example")}


def removed(site: Site) -> None:
    shutil.rmtree(site.state)


def of_another_version(site: Site) -> None:
    for path in site.state.glob("generations/*/meta.json"):
        path.write_text(path.read_text().replace('"format":1', '"format":9'))


def without_a_name(site: Site) -> None:
    (site.state / "current").unlink()


def damaged(site: Site) -> None:
    for path in site.state.glob("generations/*/rules"):
        path.write_bytes(path.read_bytes()[:-1])


LOSSES = [removed, of_another_version, without_a_name, damaged]


@pytest.mark.parametrize("spoil", LOSSES)
def test_the_published_file_is_the_memory(site: Site, spoil: Callable[[Site], None]) -> None:
    spoil(site)
    lose(site, *range(12))
    site.host.write("~joe/.qmail-new", MAILDIR)
    for _ in range(2):
        done = site.compile()
        assert (done.status, list(done.held)) == (3, ["shop.example"])
        assert accepted(site) == set(range(20))
        assert site.accepts("new@shop.example")
    assert site.approve("shop.example").status == 0
    assert accepted(site) == set(range(12, 20))


@pytest.mark.parametrize("spoil", LOSSES)
def test_a_hold_whose_state_is_lost(site: Site, spoil: Callable[[Site], None]) -> None:
    lose(site, *range(12))
    site.compile()
    spoil(site)
    assert site.compile().status == 3
    assert accepted(site) == set(range(20))


def test_a_hold_outlives_files_that_are_not_those_of_the_state(site: Site) -> None:
    """Twelve of 20 are held; by 30 new names they would be few, but nobody has approved."""
    kept = site.content
    lose(site, *range(12))
    first = site.compile()
    for number in range(30):
        site.host.write(f"~joe/.qmail-m{number}", MAILDIR)
    site.compile()
    site.file.write_bytes(kept)
    done = site.compile()
    assert done.status == 3
    assert done.held["shop.example"]["since"] == first.held["shop.example"]["since"]
    assert accepted(site) == set(range(20))
    assert site.compile().status == 3
    assert site.approve().status == 0
    assert accepted(site) == set(range(12, 20))


@pytest.mark.parametrize("spoil", [removed, of_another_version])
def test_a_rollback_whose_state_is_lost(site: Site, spoil: Callable[[Site], None]) -> None:
    """Nobody knows of the order any more; what it kept goes only as the guard lets it go."""
    lose(site, *range(12))
    assert site.compile("--force").status == 0
    assert site.run("rollback", "-t", site.output).status == 0
    spoil(site)
    done = site.compile()
    assert (done.status, list(done.held), done.json["rollback"]) == (3, ["shop.example"], None)
    assert accepted(site) == set(range(20))


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('must_accept = ["N00@SHOP.Example", "*@shop.example"]', "refuses *@shop.example"),
        ('must_refuse = ["*@shop.example", "N0*@shop.example", "n19@Shop.example"]', "accepts n19@Shop.example"),
        ('must_accept = ["postmaster", "a@shop.example", "b@shop.example"]', "refuses b@shop.example"),
    ],
    ids=["a wildcard", "any case", "all of them are told"],
)
def test_canaries_are_asked_as_the_consumer_asks(site: Site, line: str, word: str) -> None:
    before = site.content
    site.host.write("~joe/.qmail-new", MAILDIR)
    site.host.write("/etc/rcptgen.toml", f"[guard]\n{line}\n")
    done = site.compile()
    assert (done.status, site.content) == (1, before)
    assert word in done.err
    assert done.err.count("[guard]") == line.count("a@") + 1


def test_canary_of_a_new_catch_all(site: Site) -> None:
    site.host.write("/etc/rcptgen.toml", '[guard]\nmust_refuse = ["*@shop.example"]\n')
    site.published()
    site.host.write("~joe/.qmail-default", MAILDIR)
    assert site.compile().status == 1
    assert not site.accepts("anybody@shop.example")
    site.host.remove("~joe/.qmail-default")
    site.published()
