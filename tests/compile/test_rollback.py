"""Back to an earlier generation: nothing that it accepted is refused until a resume, and additions go on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from runs import Names, Run, Site, called, faults

pytestmark = pytest.mark.root

MAILDIR = "./Maildir/\n"


def name_of(number: int) -> str:
    return f"n{number:02}@shop.example"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A virtual domain of ten names; three of them went and one came with the second publication."""
    names: Names = {
        "passwd": {"joe": 1001},
        "control/me": "example.org\n",
        "control/virtualdomains": "shop.example:joe-shop\n",
        "alias/.qmail-postmaster": "joe\n",
        **{f"~joe/.qmail-shop-n{number:02}": MAILDIR for number in range(10)},
    }
    found = Site(tmp_path, names)
    found.published()
    lose(found, 0, 1, 2)
    add(found, "new")
    found.published()
    return found


def lose(site: Site, *numbers: int) -> None:
    for number in numbers:
        site.host.remove(f"~joe/.qmail-shop-n{number:02}")


def add(site: Site, name: str) -> None:
    site.host.write(f"~joe/.qmail-shop-{name}", MAILDIR)


def run(site: Site, command: str, *options: str) -> Run:
    return site.run(command, "--json", "-t", site.output, *options)


def rolled_back(site: Site, *options: str) -> Run:
    done = run(site, "rollback", *options)
    assert done.status == 0, done
    return done


def history(site: Site) -> dict[str, Any]:
    return site.run("history", "--json").json


def accepted(site: Site) -> set[int]:
    """Which of the ten names the published file accepts."""
    return {number for number in range(10) if site.accepts(name_of(number))}


def test_back_to_the_generation_before(site: Site) -> None:
    assert accepted(site) == set(range(3, 10))
    done = rolled_back(site)
    assert done.json["rollback"]["generation"] == 1
    assert (done.json["gained"], done.json["lost"]) == (6, 0)  # and the same three below example.org
    assert accepted(site) == set(range(10))
    # What came since then is not refused either.
    assert site.accepts("new@shop.example")
    last = history(site)["generations"][-1]
    assert (last["reason"], last["by"]["uid"]) == ("rollback", os.getuid())
    assert last["rollback"]["generation"] == 1


def test_compiles_go_on_while_rolled_back(site: Site) -> None:
    rolled_back(site)
    quiet = site.compile()
    assert quiet.status == 3
    assert not quiet.output["changed"]
    add(site, "newer")
    lose(site, 3)
    done = site.compile()
    assert (done.status, done.held) == (3, {})
    assert site.accepts("newer@shop.example")
    assert accepted(site) == set(range(10))
    # A name that is newer than what was gone back to may go.
    site.host.remove("~joe/.qmail-shop-newer")
    assert site.compile().status == 3
    assert not site.accepts("newer@shop.example")
    assert site.run("compile", "-t", site.output).err.count("rcptgen resume") == 1


def test_resume_publishes_the_host(site: Site) -> None:
    before = site.content
    rolled_back(site)
    assert site.compile().status == 3
    done = run(site, "resume")
    assert (done.status, done.held, done.json["rollback"]) == (0, {}, None)
    assert site.content == before
    assert site.published().json["rollback"] is None
    assert [one["reason"] for one in history(site)["generations"]] == ["compile", "compile", "rollback", "resume"]


def test_what_the_rollback_added_trips_no_limit_but_real_losses_do(site: Site) -> None:
    """Of seven names six are lost: held, with a rollback in between or not."""
    rolled_back(site)
    lose(site, *range(3, 9))
    done = site.compile()
    assert done.status == 3
    assert done.held["shop.example"]["sample"] == [f"n{number:02}" for number in range(3, 9)]
    done = run(site, "resume")
    assert (done.status, list(done.held)) == (3, ["shop.example"])
    # The three that only the rollback had kept are gone, the six that nobody has approved are not.
    assert accepted(site) == set(range(3, 10))
    assert site.approve().status == 0
    assert accepted(site) == {9}


def test_losses_that_resume_itself_finds_are_guarded(site: Site) -> None:
    rolled_back(site)
    lose(site, *range(3, 9))
    done = run(site, "resume")
    assert (done.status, list(done.held)) == (3, ["shop.example"])
    assert accepted(site) == set(range(3, 10))


def test_approve_while_rolled_back(site: Site) -> None:
    """What is approved goes with the resume: until then nothing of the earlier generation does."""
    rolled_back(site)
    lose(site, *range(3, 9))
    assert site.compile().held
    done = site.approve("shop.example")
    assert (done.status, done.held) == (3, {})
    assert accepted(site) == set(range(10))
    assert run(site, "resume").status == 0
    assert accepted(site) == {9}


def test_a_hold_from_before_outlives_the_rollback(site: Site) -> None:
    lose(site, *range(3, 9))
    first = site.compile()
    assert first.status == 3
    done = rolled_back(site, "1")
    assert accepted(site) == set(range(10))
    assert history(site)["generations"][-1]["held"] == history(site)["generations"][-2]["held"] != []
    assert done.json["rollback"]["generation"] == 1
    again = site.compile()
    assert again.held["shop.example"] == first.held["shop.example"]
    assert run(site, "resume").held["shop.example"] == first.held["shop.example"]
    assert site.approve().status == 0
    assert accepted(site) == {9}


def test_force_does_not_end_a_rollback(site: Site) -> None:
    rolled_back(site)
    assert site.compile("--force").status == 3
    assert accepted(site) == set(range(10))


def test_a_domain_that_is_gone(site: Site) -> None:
    site.host.write("control/virtualdomains", "other.example:joe-shop\n")
    assert site.approve("shop.example").status == 0
    assert accepted(site) == set()
    rolled_back(site, "1")
    assert site.compile().status == 3
    assert accepted(site) == set(range(10))
    assert site.accepts("new@other.example")
    assert run(site, "resume").status == 0
    assert accepted(site) == set()


def test_refusals_hide_nothing_that_either_list_accepts(tmp_path: Path) -> None:
    """The earlier list has a catch-all with a refusal below it, the present one a name in its place."""
    site = Site(
        tmp_path,
        {
            "passwd": {"joe": 1001},
            "control/me": "example.org\n",
            "control/virtualdomains": "shop.example:joe-shop\n",
            "alias/.qmail-postmaster": "joe\n",
            "~joe/.qmail-shop-default": MAILDIR,
            "~joe/.qmail-shop-a-default": "|bouncesaying no\n",
            "~joe/.qmail-shop-spam": "|bouncesaying no\n",
        },
    )
    site.published()
    site.host.remove("~joe/.qmail-shop-default")
    site.host.write("~joe/.qmail-shop-spam", MAILDIR)
    site.host.write("~joe/.qmail-shop-a-b-default", MAILDIR)
    assert site.approve("shop.example", "example.org").status == 0
    rolled_back(site)
    for address, wanted in {
        "anybody@shop.example": True,
        "spam@shop.example": True,
        "a-x@shop.example": False,
        "a-b-x@shop.example": True,
    }.items():
        assert site.accepts(address) is wanted, address
    assert site.compile().status == 3
    assert not site.accepts("a-x@shop.example")


def test_bare_names_are_kept_too(tmp_path: Path) -> None:
    """Addresses without a domain, by option those of envnoathost."""
    names: Names = {
        "passwd": {"joe": 1001},
        "control/me": "example.org\n",
        "/etc/rcptgen.toml": "[policy]\nenvnoathost_names = true\n",
        **{f"alias/.qmail-a{number}": "joe\n" for number in range(9)},
    }
    site = Site(tmp_path, names)
    site.published()
    site.host.remove("alias/.qmail-a0")
    site.published()
    assert not site.accepts("a0")
    rolled_back(site)
    assert site.accepts("a0")
    site.host.write("/etc/rcptgen.toml", "")
    assert site.compile().status == 3
    assert site.accepts("a0")
    assert not site.accepts("nobody")
    assert run(site, "resume").status == 0
    assert not site.accepts("a1")


def test_held_names_are_held_without_a_domain_too(tmp_path: Path) -> None:
    names: Names = {
        "passwd": {"joe": 1001},
        "control/me": "example.org\n",
        "/etc/rcptgen.toml": "[policy]\nenvnoathost_names = true\n",
        **{f"alias/.qmail-a{number:02}": "joe\n" for number in range(40)},
    }
    site = Site(tmp_path, names)
    site.published()
    for number in range(38):
        site.host.remove(f"alias/.qmail-a{number:02}")
    assert site.compile().status == 3
    assert site.accepts("a00@example.org")
    assert site.accepts("a00")


# --- which generation ----------------------------------------------------------------------------


def test_the_generation_before_is_one_with_another_list(tmp_path: Path) -> None:
    """A run that only learns something (here: a hold) makes a generation, but no other list."""
    names: Names = {
        "passwd": {"joe": 1001},
        "control/me": "example.org\n",
        "control/virtualdomains": "shop.example:shop\n",
        "users/assign": "+joe:nobody:65534:65534:/nonexistent::x:\n+shop-:joe:1001:1001:/home/joe:-:shop-:\n.\n",
        "/etc/rcptgen.toml": '[policy]\nprepended = "refuse"\n',
        **{f"~joe/.qmail-shop-n{number:02}": MAILDIR for number in range(10)},
    }
    site = Site(tmp_path, names)
    site.published()
    add(site, "new")
    site.published()
    # Each run learns of more that is held; the last of them is kept.
    for numbers in (range(6), [6], [7]):
        lose(site, *numbers)
        assert site.compile().status == 3
    told = history(site)["generations"]
    assert [(one["generation"], one["same_files"]) for one in told] == [(1, False), (2, False), (5, True)]
    assert told[-1]["held"][0]["count"] == 8
    assert rolled_back(site).json["rollback"]["generation"] == 1


def test_named_generations(site: Site) -> None:
    missing = run(site, "rollback", "7")
    assert (missing.status, missing.json["status"]) == (2, 2)
    assert "there are: 1, 2" in missing.err
    assert run(site, "rollback", "0").status == 2
    # The present one: from now on nothing goes.
    assert rolled_back(site, "2").json["rollback"]["generation"] == 2
    lose(site, 5)
    assert site.compile().status == 3
    assert accepted(site) == set(range(3, 10))


def test_rolled_back_twice(site: Site) -> None:
    rolled_back(site)
    before = site.content
    assert run(site, "rollback").status == 2
    assert "name the generation" in run(site, "rollback").err
    assert site.content == before
    # Generation 3 was published while rolled back to 1: it has all that was accepted then.
    rolled_back(site, "2")
    assert site.compile().status == 3
    assert accepted(site) == set(range(3, 10))
    rolled_back(site, "3")
    assert accepted(site) == set(range(10))


def test_nothing_to_go_back_to(tmp_path: Path) -> None:
    site = Site(tmp_path, {"control/me": "example.org\n", "alias/.qmail-postmaster": "root@example.com\n"})
    for _ in range(2):
        done = run(site, "rollback")
        assert (done.status, "nothing to go back to" in done.err) == (2, True)
    assert not site.state.exists()
    site.published()
    assert "no generation with another list" in run(site, "rollback").err
    assert run(site, "resume").status == 1
    assert "no rollback is in force" in run(site, "resume").err


def test_without_a_state_directory(site: Site) -> None:
    for command in (["rollback"], ["resume"], ["history"], ["approve"]):
        done = called("--root", site.host.root, *command)
        assert done.status == 2
        assert "--state" in done.err


def test_dry_run(site: Site) -> None:
    before, generations = site.content, os.listdir(site.state / "generations")
    done = run(site, "rollback", "--dry-run")
    assert (done.status, done.json["gained"], done.output["published"]) == (0, 6, False)
    assert (site.content, os.listdir(site.state / "generations")) == (before, generations)
    rolled_back(site)
    before = site.content
    done = run(site, "resume", "--dry-run")
    assert (done.status, done.json["lost"]) == (0, 6)
    assert site.content == before
    assert history(site)["rollback"]["generation"] == 1


def test_outlives_the_history(site: Site) -> None:
    """What was gone back to is kept, however many generations are made on top of it."""
    site.host.write("/etc/rcptgen.toml", "[history]\nkeep = 2\n")
    rolled_back(site)
    for number in range(4):
        add(site, f"x{number}")
        assert site.compile().status == 3
    assert [one["generation"] for one in history(site)["generations"]] == [6, 7]
    assert accepted(site) == set(range(10))
    assert run(site, "rollback", "1").status == 2


# --- never a surprise ----------------------------------------------------------------------------


def test_file_replaced_by_hand(site: Site) -> None:
    shutil.copy(site.file, site.top / "old")
    add(site, "newest")
    site.published()
    shutil.copy(site.top / "old", site.file)
    before = site.content
    done = run(site, "rollback", "1")
    assert done.status == 1
    assert "replaced by hand" in done.err
    assert site.content == before
    done = run(site, "rollback", "--force", "1")
    assert done.status == 0
    assert accepted(site) == set(range(10))
    # What the file had that was put there is still accepted; what only the list before had is not known to it.
    assert site.accepts("new@shop.example")
    assert site.compile().status == 3
    assert site.accepts("newest@shop.example")


def test_file_replaced_by_hand_while_rolled_back(site: Site) -> None:
    """The order stands: it is not bound to the files."""
    shutil.copy(site.file, site.top / "old")
    rolled_back(site)
    shutil.copy(site.top / "old", site.file)
    assert accepted(site) == set(range(3, 10))
    done = site.compile()
    assert done.status == 3
    assert done.json["rollback"]["generation"] == 1
    assert accepted(site) == set(range(10))
    assert run(site, "resume").status == 0
    assert accepted(site) == set(range(3, 10))


def test_file_that_is_not_of_the_history(site: Site) -> None:
    other = site.top / "out" / "other.cdb"
    other.write_bytes(b"mine")
    done = site.run("rollback", "-t", f"validrcptto={other}", "1")
    assert (done.status, other.read_bytes()) == (1, b"mine")


@pytest.mark.parametrize("name", ["rules", "meta.json"])
def test_damaged_generation_is_not_gone_back_to(site: Site, name: str) -> None:
    path = site.state / "generations" / "1" / name
    path.write_bytes(path.read_bytes()[:-20])
    before = site.content
    done = run(site, "rollback", "1")
    assert done.status in (1, 2)
    assert "generation 1" in done.err
    assert site.content == before
    assert history(site)["rollback"] is None


@pytest.mark.parametrize("name", ["rules", "live", "base"])
def test_damage_while_rolled_back_refuses_nothing(site: Site, name: str) -> None:
    """Whichever file of the last generation is lost: the published file and the others hold what must not go."""
    rolled_back(site)
    path = site.state / "generations" / "3" / name
    path.write_bytes(path.read_bytes()[:-20])
    add(site, "newer")
    done = site.compile()
    assert done.status == 3
    assert any("generation 3" in one for one in done.json["warnings"])
    assert accepted(site) == set(range(10))
    assert site.accepts("newer@shop.example")
    # It is kept again as it should be, and so is the end of it.
    assert site.compile().json["rollback"]["generation"] == 1
    assert accepted(site) == set(range(10))
    run(site, "resume")
    site.approve()
    assert accepted(site) == set(range(3, 10))


def test_a_source_that_fails_while_rolled_back(site: Site) -> None:
    rolled_back(site)
    with faults(eio=(b"/home/joe",)):
        assert site.compile().status == 75
    assert accepted(site) == set(range(10))
    with faults(eio=(b"/home/joe",)):
        assert run(site, "resume").status == 75
    assert accepted(site) == set(range(3, 10))


def test_rollback_does_not_need_the_host(site: Site) -> None:
    shutil.rmtree(site.host.root / "var")
    assert site.compile().status not in (0, 3)
    rolled_back(site)
    assert accepted(site) == set(range(10))
    assert site.accepts("new@shop.example")


def test_resume_that_fails_changes_nothing(site: Site) -> None:
    rolled_back(site)
    before = site.content
    os.rename(site.host.root / "var", site.host.root / "away")
    assert run(site, "resume").status not in (0, 3)
    os.rename(site.host.root / "away", site.host.root / "var")
    assert site.content == before
    assert history(site)["rollback"]["generation"] == 1


# --- canaries ------------------------------------------------------------------------------------


def test_canaries_of_a_rollback(site: Site) -> None:
    """It is refused like any list; what was forced then stops no later run."""
    site.host.write("/etc/rcptgen.toml", f'[guard]\nmust_refuse = ["{name_of(0)}"]\n')
    before = site.content
    done = run(site, "rollback")
    assert done.status == 1
    assert f"accepts {name_of(0)}" in done.err
    assert site.content == before
    rolled_back(site, "--force")
    add(site, "newer")
    done = site.compile()
    assert done.status == 3
    assert any("because of the rollback" in one for one in done.json["warnings"])
    assert site.accepts("newer@shop.example")
    add(site, "n00")
    assert run(site, "resume").status == 1
