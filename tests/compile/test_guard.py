"""The guard: additions go out, what looks like an accident is held until a person approves."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from hosts import Host, cdb_bytes, remove
from runs import Names, Run, Site, called

pytestmark = pytest.mark.root

USERS = {f"user{number:02}": 2000 + number for number in range(12)}
MAILDIR = "./Maildir/\n"


def domain_of(name: str, count: int, owner: str = "user00") -> dict[str, str]:
    """The dot-qmail files of a virtual domain with `count` names, n00@ and so on."""
    return {f"~{owner}/.qmail-{name}-n{number:02}": MAILDIR for number in range(count)}


def virtual(*names: str, owner: str = "user00") -> str:
    return "".join(f"{name}.example:{owner}-{name}\n" for name in names)


def site_of(tmp_path: Path, names: Names) -> Site:
    """A host with a postmaster, published once."""
    site = Site(tmp_path, {"control/me": "example.org\n", "alias/.qmail-postmaster": "user00\n", **names})
    site.published()
    return site


def shop(tmp_path: Path, count: int = 10) -> Site:
    """A host with one virtual domain of `count` names."""
    return site_of(
        tmp_path,
        {"passwd": {"user00": 2000}, "control/virtualdomains": virtual("shop"), **domain_of("shop", count)},
    )


def lose(site: Site, name: str, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        site.host.remove(f"~user00/.qmail-{name}-n{number:02}")


def accepted(site: Site, domain: str) -> list[str]:
    """The local parts that the published file accepts at a domain."""
    rules = (rule.removesuffix(f"@{domain}") for rule in site.rules if rule.endswith(f"@{domain}"))
    return sorted(rule for rule in rules if not rule.startswith("!"))


def holds(done: Run, *domains: str) -> bool:
    return done.status == 3 and sorted(done.held) == sorted(domains)


# --- one domain --------------------------------------------------------------------------------


def test_held_names_of_one_domain(tmp_path: Path) -> None:
    site = shop(tmp_path)
    lose(site, "shop", 6)
    site.host.write("~user00/.qmail-shop-new", MAILDIR)
    before = time.time()
    done = site.compile()
    assert holds(done, "shop.example")
    assert done.output["published"]
    # The addition goes out, not one name goes.
    assert accepted(site, "shop.example") == sorted(["new", *(f"n{number:02}" for number in range(10))])
    held = done.held["shop.example"]
    assert held["count"] == 6
    assert held["reason"] == "6 of 10 names would go"
    assert held["sample"] == [f"n{number:02}" for number in range(6)]
    assert before <= held["since"] <= time.time()


def test_held_is_said(tmp_path: Path) -> None:
    site = shop(tmp_path)
    lose(site, "shop", 6)
    done = site.run("compile", "-t", site.output)
    assert done.status == 3
    assert done.out == ""
    assert (
        "shop.example: 6 of 10 names would go (n00, n01, n02, n03, n04, ...); release: rcptgen approve shop.example\n"
        in done.err
    )


@pytest.mark.parametrize(
    ("names", "lost", "held"),
    [
        (10, 5, False),  # not more than half
        (9, 5, True),
        (7, 4, False),  # more than half, but fewer than five
        (4, 4, True),  # emptied
        (3, 3, True),
        (2, 2, False),  # emptied of fewer than three
    ],
)
def test_limits_of_one_domain(tmp_path: Path, names: int, lost: int, held: bool) -> None:
    site = shop(tmp_path, names)
    lose(site, "shop", lost)
    done = site.compile()
    assert (done.status == 3) == held
    assert len(accepted(site, "shop.example")) == (names if held else names - lost)


def test_since_stays_and_held_names_stay(tmp_path: Path) -> None:
    site = shop(tmp_path)
    lose(site, "shop", 6)
    first = site.compile()
    inode = site.file.stat().st_ino
    again = site.compile()
    assert holds(again, "shop.example")
    assert again.held["shop.example"] == first.held["shop.example"]
    assert site.file.stat().st_ino == inode
    # Names that come back are no longer held; when all are back, nothing is.
    for number in range(6):
        site.host.write(f"~user00/.qmail-shop-n{number:02}", MAILDIR)
    done = site.compile()
    assert (done.status, done.held) == (0, {})


def test_additions_do_not_release_what_is_held(tmp_path: Path) -> None:
    """Six of ten are suspicious, six of twenty would not be: but nobody has approved."""
    site = shop(tmp_path)
    lose(site, "shop", 6)
    site.compile()
    for number in range(50, 60):
        site.host.write(f"~user00/.qmail-shop-n{number}", MAILDIR)
    for _ in range(2):
        done = site.compile()
        assert holds(done, "shop.example")
        assert len(accepted(site, "shop.example")) == 20
        assert done.held["shop.example"]["count"] == 6


def test_approve_and_force_release(tmp_path: Path) -> None:
    site = shop(tmp_path)
    lose(site, "shop", 6)
    assert holds(site.compile(), "shop.example")
    assert holds(site.approve("other.example"), "shop.example")
    done = site.approve("SHOP.example")
    assert (done.status, done.held) == (0, {})
    assert done.json["lost"] == 6
    assert accepted(site, "shop.example") == ["n06", "n07", "n08", "n09"]
    lose(site, "shop", 4, 6)
    assert holds(site.compile(), "shop.example")
    assert site.compile("--force").status == 0
    assert accepted(site, "shop.example") == []


def test_refusal_below_a_catch_all_is_no_loss(tmp_path: Path) -> None:
    """Names that the catch-all still takes are not lost."""
    site = shop(tmp_path)
    site.host.write("~user00/.qmail-shop-default", MAILDIR)
    site.published()
    lose(site, "shop", 10)
    done = site.published()
    assert done.json["lost"] == 0


def test_lost_catch_all_with_its_names(tmp_path: Path) -> None:
    """What is held keeps its refusals: a held catch-all opens nothing that was shut."""
    site = shop(tmp_path)
    site.host.write("~user00/.qmail-shop-default", MAILDIR)
    site.host.write("~user00/.qmail-shop-spam", "|bouncesaying no\n")
    site.published()
    lose(site, "shop", 10)
    site.host.remove("~user00/.qmail-shop-default")
    assert "shop.example" in site.compile().held
    assert site.accepts("anybody@shop.example")
    assert not site.accepts("spam@shop.example")


# --- homes that are gone -----------------------------------------------------------------------


def empty(directory: Path) -> None:
    for entry in directory.iterdir():
        remove(entry) if entry.is_dir() else entry.unlink()


def test_unmounted_homes(tmp_path: Path) -> None:
    site = site_of(
        tmp_path,
        {"passwd": USERS, "control/virtualdomains": virtual("shop"), **domain_of("shop", 4)},
    )
    before = site.rules
    empty(site.host.root / "home")
    site.host.write("alias/.qmail-new", "postmaster\n")
    done = site.compile()
    assert holds(done, "example.org", "shop.example")
    assert site.rules == before | {"new@example.org", "alias-new@example.org"}
    # The list is as right as before when the homes are back.
    for name, uid in USERS.items():
        (site.host.root / "home" / name).mkdir()
        os.chown(site.host.root / "home" / name, uid, uid)
    for name in domain_of("shop", 4):
        site.host.write(name, MAILDIR)
    assert site.published().held == {}
    assert site.rules == before | {"new@example.org", "alias-new@example.org"}


def test_emptied_alias(tmp_path: Path) -> None:
    names = {f"alias/.qmail-n{number:02}": "user00\n" for number in range(8)}
    site = site_of(tmp_path, {"passwd": {"user00": 2000}, **names})
    before = site.rules
    empty(site.host.path("alias"))
    site.host.write("~user00/.qmail-new", MAILDIR)
    assert holds(site.compile(), "example.org")
    assert site.rules == before | {"user00-new@example.org"}


# --- domains that are gone ---------------------------------------------------------------------

SEVEN = tuple("abcdefg")


def seven(tmp_path: Path) -> Site:
    """Seven virtual domains of three names each, in virtualdomains alone."""
    files: dict[str, str] = {}
    for name in SEVEN:
        files |= domain_of(name, 3)
    return site_of(tmp_path, {"passwd": {"user00": 2000}, "control/virtualdomains": virtual(*SEVEN), **files})


def domains(site: Site) -> set[str]:
    return {rule.rpartition("@")[2].removesuffix(".example") for rule in site.rules if rule.endswith(".example")}


def test_domain_removed_on_purpose(tmp_path: Path) -> None:
    site = seven(tmp_path)
    site.host.write("control/virtualdomains", virtual(*"abcdef"))
    done = site.published()
    assert done.held == {}
    assert done.json["lost"] == 3
    assert domains(site) == set("abcdef")


def test_five_domains_removed(tmp_path: Path) -> None:
    site = seven(tmp_path)
    site.host.write("control/virtualdomains", virtual("a", "b"))
    site.published()
    assert domains(site) == {"a", "b"}


def test_six_domains_removed(tmp_path: Path) -> None:
    site = seven(tmp_path)
    site.host.write("control/virtualdomains", virtual("a", "new"))
    site.host.write("~user00/.qmail-new-x", MAILDIR)
    done = site.compile()
    assert holds(done, *(f"{name}.example" for name in "bcdefg"))
    assert domains(site) == {*SEVEN, "new"}
    assert done.held["b.example"]["count"] == 3
    # One is approved: that one goes, and the other five are not on purpose by now being five.
    done = site.approve("c.example")
    assert holds(done, *(f"{name}.example" for name in "bdefg"))
    assert domains(site) == {*"abdefg", "new"}
    done = site.compile()
    assert holds(done, *(f"{name}.example" for name in "bdefg"))
    assert domains(site) == {*"abdefg", "new"}
    assert site.approve().status == 0
    assert domains(site) == {"a", "new"}


def test_one_percent_of_the_domains_may_go(tmp_path: Path) -> None:
    """On a host with 700 domains that is seven."""
    names = [f"d{number:03}" for number in range(700)]
    listed = "".join(f"{name}.example:user00-all\n" for name in names)
    site = site_of(
        tmp_path,
        {"passwd": {"user00": 2000}, "control/virtualdomains": listed, "~user00/.qmail-all-x": MAILDIR},
    )
    site.host.write("control/virtualdomains", "".join(f"{name}.example:user00-all\n" for name in names[7:]))
    assert site.published().json["lost"] == 7
    site.host.write("control/virtualdomains", "".join(f"{name}.example:user00-all\n" for name in names[14:]))
    # Of 693 it is six.
    assert len(site.compile().held) == 7


@pytest.mark.parametrize("content", ["a.example:user00-a\nb.exam", ""], ids=["cut in a line", "empty"])
def test_truncated_virtualdomains(tmp_path: Path, content: str) -> None:
    site = seven(tmp_path)
    before = site.rules
    site.host.write("control/virtualdomains", content)
    site.host.write("alias/.qmail-new", "user00\n")
    done = site.compile()
    assert done.status == 3
    assert set(done.held) >= {f"{name}.example" for name in "cdefg"}
    assert site.rules >= before | {"new@example.org"}


@pytest.mark.parametrize(
    "content", [virtual(*"abcdef") + "g.example:user", None], ids=["cut in a value", "the file is gone"]
)
def test_virtualdomains_cut_or_gone(tmp_path: Path, content: str | None) -> None:
    """Where few domains are gone, but the file is not whole."""
    site = seven(tmp_path)
    site.host.write("control/virtualdomains", virtual("a", "b"))
    site.approve()
    if content is None:
        site.host.remove("control/virtualdomains")
        for _ in range(2):
            assert holds(site.compile(), "a.example", "b.example")
            assert domains(site) == {"a", "b"}
    else:
        site.host.write("control/virtualdomains", "a.example:user00-a")
        for _ in range(2):
            assert holds(site.compile(), "b.example")
            assert domains(site) == {"a", "b"}
    assert site.approve().status == 0
    assert domains(site) == ({"a"} if content else set())


def test_truncated_locals(tmp_path: Path) -> None:
    site = site_of(tmp_path, {"passwd": USERS, "control/locals": "example.org\nexample.net\n"})
    before = site.rules
    site.host.write("control/locals", "example.org\nexampl")
    done = site.compile()
    assert holds(done, "example.net")
    assert site.rules >= before
    site.host.write("control/locals", "")
    done = site.compile()
    assert set(done.held) >= {"example.org", "example.net"}
    assert site.rules >= before


@pytest.fixture
def half_gone(tmp_path: Path) -> Site:
    """A domain that is gone from virtualdomains, but `qmail-newu` was not told: hardly on purpose."""
    assign = "+a.example-:user00:2000:2000:/home/user00:-:a-:\n.\n"
    names: Names = {
        "passwd": {"user00": 2000},
        "users/assign": assign,
        "control/virtualdomains": "a.example:a.example\n" + virtual("b"),
        **domain_of("a", 3),
        **domain_of("b", 3),
    }
    site = site_of(tmp_path, names)
    site.host.write("control/virtualdomains", virtual("b"))
    assert holds(site.compile(), "a.example")
    assert domains(site) == {"a", "b"}
    return site


def test_domain_that_users_still_has(half_gone: Site) -> None:
    assert holds(half_gone.compile(), "a.example")
    assert half_gone.approve("a.example").status == 0
    assert domains(half_gone) == {"b"}


def test_domain_that_leaves_users_a_moment_later(half_gone: Site) -> None:
    """Removed on purpose, seen in the middle: nobody has to approve that."""
    site = half_gone
    site.host.write("users/assign", ".\n")
    site.host.newu()
    done = site.compile()
    assert done.status == 0
    assert not done.held
    assert domains(site) == {"b"}


def test_domain_that_leaves_users_while_a_control_file_is_cut_off(half_gone: Site) -> None:
    site = half_gone
    site.host.write("control/virtualdomains", "b.example:user")
    site.host.write("users/assign", ".\n")
    site.host.newu()
    assert "a.example" in site.compile().held
    # Since then it is held for more than what users/cdb had.
    site.host.write("control/virtualdomains", virtual("b"))
    assert "a.example" in site.compile().held


# --- all names ---------------------------------------------------------------------------------


def thin(tmp_path: Path) -> Site:
    """Twenty domains of twenty names each."""
    names = [f"t{number:02}" for number in range(20)]
    files: dict[str, str] = {}
    for name in names:
        files |= domain_of(name, 20)
    return site_of(tmp_path, {"passwd": {"user00": 2000}, "control/virtualdomains": virtual(*names), **files})


def test_losses_spread_thin(tmp_path: Path) -> None:
    site = thin(tmp_path)
    before = site.rules
    for number in range(20):
        lose(site, f"t{number:02}", 3)
    site.host.write("~user00/.qmail-t00-new", MAILDIR)
    done = site.compile()
    # 60 names, and the same 60 under their prepended names in the local domain.
    assert done.status == 3
    assert set(done.held) == {"example.org", *(f"t{number:02}.example" for number in range(20))}
    assert done.held["t07.example"]["count"] == 3
    assert "names would go" in done.held["t07.example"]["reason"]
    assert site.rules == before | {"new@t00.example", "user00-t00-new@example.org"}
    # What is approved goes; the others are held although few enough are left.
    done = site.approve("example.org", *(f"t{number:02}.example" for number in range(15)))
    assert holds(done, *(f"t{number:02}.example" for number in range(15, 20)))
    done = site.compile()
    assert holds(done, *(f"t{number:02}.example" for number in range(15, 20)))
    assert not site.accepts("n00@t14.example")
    assert site.accepts("n00@t15.example")


def test_few_losses_spread_thin(tmp_path: Path) -> None:
    site = thin(tmp_path)
    for number in range(20):
        lose(site, f"t{number:02}", 1)
    done = site.published()
    assert done.json["lost"] == 40


def test_approved_loss_does_not_hold_others(tmp_path: Path) -> None:
    site = site_of(
        tmp_path,
        {
            "passwd": {"user00": 2000, "user01": 2001},
            "control/virtualdomains": virtual("big", owner="user01") + virtual("small"),
            "users/assign": "+user01:nobody:65534:65534:/nonexistent::x:\n"
            "+big-:user01:2001:2001:/home/user01:-:big-:\n.\n",
            "control/rcpthosts": "example.org\n",
            **domain_of("small", 20),
        },
    )
    assert site.accepts("n00@small.example")
    # (the large domain is made by hand: one directory of names, reached by one entry)
    site.host.write("control/virtualdomains", "big.example:big\n" + virtual("small"))
    for name in domain_of("big", 90, owner="user01"):
        site.host.write(name, MAILDIR)
    site.approve()
    assert site.accepts("n89@big.example")
    for name in domain_of("big", 90, owner="user01"):
        site.host.remove(name)
    lose(site, "small", 1)
    done = site.approve("big.example", "example.org")
    assert (done.status, done.held) == (0, {})
    assert accepted(site, "big.example") == []
    assert not site.accepts("n00@small.example")


# --- domains that are only relayed ---------------------------------------------------------------


@pytest.mark.parametrize("damage", [None, "", "example.org\nrelayed.exam"], ids=["gone", "empty", "half written"])
def test_relayed_domains_stay_where_their_list_was_lost(tmp_path: Path, damage: str | None) -> None:
    site = site_of(tmp_path, {"control/rcpthosts": "example.org\nrelayed.example\n"})
    assert site.accepts("a@relayed.example")
    if damage is None:
        site.host.remove("control/rcpthosts")
    else:
        site.host.write("control/rcpthosts", damage)
    for _ in range(2):
        assert holds(site.compile(), "relayed.example")
        assert site.accepts("a@relayed.example")
    assert site.approve("relayed.example").status == 0
    assert not site.accepts("a@relayed.example")


def test_relayed_domains_stay_where_their_database_was_lost(tmp_path: Path) -> None:
    more = cdb_bytes([(b"one.example", b""), (b"two.example", b"")])
    names: Names = {"control/rcpthosts": "example.org\n", "control/morercpthosts.cdb": more}
    site = site_of(tmp_path, names)
    site.host.remove("control/morercpthosts.cdb")
    assert holds(site.compile(), "one.example", "two.example")
    site.host.write("control/morercpthosts.cdb", more.replace(b"two.", b"twi."))
    assert site.compile().status == 75
    assert site.accepts("a@two.example")
    site.host.write("control/morercpthosts.cdb", more)
    site.published()


def test_a_relayed_domain_is_taken_out_of_its_list_on_purpose(tmp_path: Path) -> None:
    site = site_of(tmp_path, {"control/rcpthosts": "example.org\nrelayed.example\n"})
    site.host.write("control/rcpthosts", "example.org\n")
    site.published()
    assert not site.accepts("a@relayed.example")


# --- catch-alls --------------------------------------------------------------------------------


def eleven(tmp_path: Path) -> tuple[Site, list[str]]:
    names = [f"c{number:02}" for number in range(11)]
    files: dict[str, str] = {}
    for name in names:
        files |= domain_of(name, 1)
    return site_of(tmp_path, {"passwd": {"user00": 2000}, "control/virtualdomains": virtual(*names), **files}), names


def test_ten_new_catch_alls(tmp_path: Path) -> None:
    site, names = eleven(tmp_path)
    for name in names[:10]:
        site.host.write(f"~user00/.qmail-{name}-default", MAILDIR)
    assert site.published().held == {}
    assert site.accepts("anybody@c00.example")


def test_eleven_new_catch_alls(tmp_path: Path) -> None:
    site, names = eleven(tmp_path)
    for name in names:
        site.host.write(f"~user00/.qmail-{name}-default", MAILDIR)
    site.host.write("~user00/.qmail-c00-new", MAILDIR)
    done = site.compile()
    assert holds(done, *(f"{name}.example" for name in names))
    assert done.held["c00.example"]["reason"] == "a new catch-all, one of too many at once"
    assert (done.held["c00.example"]["count"], done.held["c00.example"]["sample"]) == (1, ["*"])
    # Exact rules stay, new names come.
    assert accepted(site, "c00.example") == ["n00", "new"]
    assert accepted(site, "c01.example") == ["n00"]
    again = site.compile()
    assert again.held == done.held
    # One is approved; that leaves ten, which nobody has approved.
    done = site.approve("c05.example")
    assert holds(done, *(f"{name}.example" for name in names if name != "c05"))
    assert site.accepts("anybody@c05.example")
    done = site.compile()
    assert holds(done, *(f"{name}.example" for name in names if name != "c05"))
    assert not site.accepts("anybody@c06.example")
    assert site.accepts("anybody@c05.example")
    assert site.approve().status == 0
    assert all(site.accepts(f"anybody@{name}.example") for name in names)


# --- the first publish -------------------------------------------------------------------------


def test_first_publish_of_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, {"control/locals": "", "control/me": "example.org\n"})
    done = site.compile()
    assert done.status == 1
    assert "no address at all" in done.err + " ".join(done.json["problems"])
    assert not done.output["published"]
    assert not site.file.exists()
    assert site.left_over() == []
    assert site.compile().status == 1
    assert site.compile("--force").status == 0
    assert site.rules == {"postmaster"}


def test_first_publish_with_a_domain_without_names(tmp_path: Path) -> None:
    names: Names = {
        "passwd": {"user00": 2000},
        "control/me": "example.org\n",
        "control/virtualdomains": virtual("shop", "empty"),
        "~user00/.qmail-shop-x": MAILDIR,
    }
    site = Site(tmp_path, names)
    done = site.compile()
    assert done.status == 1
    assert done.json["problems"] == ["no name of empty.example would be accepted; --force publishes that"]
    assert not site.file.exists()
    said = site.run("compile", "-t", site.output)
    assert said.status == 1
    assert "no name of empty.example would be accepted" in said.err
    assert site.compile("--dry-run").status == 1
    site.host.write("~user00/.qmail-empty-x", MAILDIR)
    site.published()


def test_later_domain_without_names(tmp_path: Path) -> None:
    """After the first publish a domain may begin empty."""
    site = shop(tmp_path)
    site.host.write("control/virtualdomains", virtual("shop", "empty"))
    assert site.published().held == {}


# --- what the guard remembers ------------------------------------------------------------------


def spoil_state(site: Site, how: str) -> None:
    if how == "lost":
        shutil.rmtree(site.state)
    elif how == "another file":
        other = Site(site.top / "other", {"passwd": {"user00": 2000}, "control/me": "other.example\n"})
        other.published()
        shutil.rmtree(site.state)
        shutil.copytree(other.state, site.state)
    elif how == "current damaged":
        (site.state / "current").write_text("no number\n")
        for generation in (site.state / "generations").iterdir():
            (generation / "meta.json").write_text("{")
    elif how == "blobs damaged":
        for generation in (site.state / "generations").iterdir():
            rules = generation / "rules"
            data = bytearray(rules.read_bytes())
            for at in range(40, len(data) - 120):
                data[at] ^= 0xFF
            rules.write_bytes(data)
    elif how == "cut":
        for generation in (site.state / "generations").iterdir():
            os.truncate(generation / "rules", 30)


@pytest.mark.parametrize("how", ["lost", "another file", "current damaged", "blobs damaged", "cut"])
def test_state_that_cannot_be_used(tmp_path: Path, how: str) -> None:
    """Then the published file itself says what was published."""
    site = shop(tmp_path)
    spoil_state(site, how)
    lose(site, "shop", 6)
    site.host.write("~user00/.qmail-shop-new", MAILDIR)
    done = site.compile()
    assert holds(done, "shop.example"), done
    assert done.held["shop.example"]["count"] == 6
    assert len(accepted(site, "shop.example")) == 11
    # From here on the state is whole again.
    again = site.compile()
    assert again.held["shop.example"]["since"] == done.held["shop.example"]["since"]
    assert again.json["warnings"] == []
    assert site.approve().status == 0
    assert len(accepted(site, "shop.example")) == 5


def test_somebody_replaced_the_published_file(tmp_path: Path) -> None:
    """What SMTP servers have seen last is what counts, not what we remember."""
    site = shop(tmp_path)
    other = shop(tmp_path / "other", 9)
    site.file.write_bytes(other.content)
    lose(site, "shop", 5)
    # Five of the nine that stand in the file (of ten it would not be more than half).
    done = site.compile()
    assert holds(done, "shop.example")
    assert done.held["shop.example"]["count"] == 5
    assert any("not those of generation" in one for one in done.json["warnings"])


def test_published_file_that_is_no_cdb(tmp_path: Path) -> None:
    site = shop(tmp_path)
    site.file.write_bytes(b"nonsense")
    lose(site, "shop", 10)
    done = site.compile()
    # Nothing to compare with: this is a first publish, which refuses a domain without names.
    assert done.status == 1
    assert site.content == b"nonsense"
    assert any("cannot be compared with" in one for one in done.json["warnings"])


def test_deleted_file_is_published_again(tmp_path: Path) -> None:
    site = shop(tmp_path)
    before = site.content
    site.file.unlink()
    assert site.compile().output["changed"]
    assert site.content == before


def test_state_that_cannot_be_written(tmp_path: Path) -> None:
    """The list is worth more than our memory: published, with a warning."""
    site = Site(tmp_path, {"passwd": {"user00": 2000}, "control/me": "example.org\n"})
    site.state = Path("/proc/rcptgen-state")
    done = site.compile()
    assert done.status == 0
    assert site.accepts("user00@example.org")
    assert any("/proc/rcptgen-state" in one for one in done.json["warnings"])
    # The published file is the memory.
    host: Host = site.host
    for number in range(9):
        host.write(f"alias/.qmail-n{number}", "user00\n")
    site.compile()
    empty(host.path("alias"))
    assert holds(site.compile(), "example.org")


def test_state_that_others_may_read(tmp_path: Path) -> None:
    """It holds every address: a person must shut it first."""
    site = Site(tmp_path, {"passwd": {"user00": 2000}, "control/me": "example.org\n"})
    site.state.mkdir(mode=0o755)
    site.state.chmod(0o755)
    done = site.compile()
    assert done.status == 78
    assert str(site.state) in done.err
    assert not site.file.exists()


def test_without_a_state_every_run_is_the_first(tmp_path: Path) -> None:
    site = shop(tmp_path)
    lose(site, "shop", 6)
    done = called("--root", site.host.root, "compile", "--json", "-t", site.output)
    assert (done.status, done.held) == (0, {})
    assert len(accepted(site, "shop.example")) == 4


# --- canaries and limits of one's own ----------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('must_accept = ["nosuch@example.org"]', "refuses nosuch@example.org"),
        ('must_refuse = ["n00@shop.example"]', "accepts n00@shop.example"),
        ('must_be_mounted = ["/home"]', "not mounted: /home"),
    ],
)
def test_canaries(tmp_path: Path, line: str, word: str) -> None:
    site = shop(tmp_path)
    before = site.content
    site.host.write("~user00/.qmail-shop-new", MAILDIR)
    site.host.write("/etc/rcptgen.toml", f"[guard]\n{line}\n")
    done = site.compile()
    assert done.status == 1
    assert word in done.err
    assert site.content == before
    assert site.compile("--force").status == 0
    assert site.content != before


def test_limits_of_the_configuration(tmp_path: Path) -> None:
    site = shop(tmp_path)
    site.host.write("/etc/rcptgen.toml", "[guard]\ndomain_loss = 0.1\ndomain_loss_min = 2\n")
    lose(site, "shop", 2)
    # (and the same names with `user00-shop-` in front, in the local domain)
    assert holds(site.compile(), "shop.example", "example.org")
    site.host.write("/etc/rcptgen.toml", "[guard]\ndomain_loss = 0.9\n")
    # What is held stays held, whatever the limits are by now.
    assert holds(site.compile(), "shop.example", "example.org")
