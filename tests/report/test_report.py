"""`rcptgen report`: the numbers of compile, history and lint, nothing unescaped, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hosts import Dir, File
from reportpages import Page, integer
from runs import Names, Run, Site, faults, forked_workers

from rcptgen.config import Config
from rcptgen.lint import pages
from rcptgen.report import gather, rendered, write
from rcptgen.report.census import DomainRow
from rcptgen.request import Output, Request

MAILDIR = "./Maildir/\n"
NAMES: Names = {
    "passwd": {"joe": 1001, "ann": 1002},
    "control/me": "mail.example.org\n",
    "control/locals": "example.org\n",
    "control/virtualdomains": "shop.example:joe-shop\nall.example:ann-all\n",
    "control/rcpthosts": "example.org\nshop.example\nall.example\nbackup.example\n",
    "users/assign": "=x-default:joe:1001:1001:/home/joe:::\n.\n",
    **{f"~joe/.qmail-shop-n{number:02}": MAILDIR for number in range(12)},
    "~joe/.qmail-shop-news-default": "ann\n",
    "~ann/.qmail-all-default": "&joe@elsewhere.example\n",
    "~ann/.qmail-blank": "\n./Maildir/\n",
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, NAMES)


def reported(site: Site, *options: str, status: int = 0) -> Page:
    """The page of the site as it is."""
    file = site.top / "page.html"
    done = site.run("report", "--html", str(file), "-t", site.output, *options)
    assert (done.status, done.out) == (status, ""), done
    return Page(file.read_text())


def changed_thrice(site: Site) -> None:
    site.published()
    site.host.write("~joe/.qmail-shop-new", MAILDIR)
    site.host.write("~joe/.qmail-shop-n00", "ann\n")
    site.published()
    for number in range(1, 12):
        site.host.remove(f"~joe/.qmail-shop-n{number:02}")
    assert site.compile().status == 3


# --- the numbers -------------------------------------------------------------------------------


@pytest.mark.root
def test_numbers_are_those_of_compile(site: Site) -> None:
    changed_thrice(site)
    page, told = reported(site), site.compile("--dry-run")
    output, (row,) = told.output, page.tables["Outputs"].body
    assert {name.lower(): integer(row[name]) for name in ("Records", "Exact", "Wildcards", "Refusals")} == {
        name: output[name] for name in ("records", "exact", "wildcards", "refusals")
    }
    assert (row["Target"], row["File"]) == ("validrcptto", str(site.file))
    assert integer(row["Widened"]) == output["widened_count"] > 0
    assert integer(row["Left out"]) == output["unsayable_count"] > 0
    assert page.figures["Domains"] == told.json["domains"] == 4
    kinds = page.tables["Accepted rules by what becomes of the mail, and by the class of the domain"].body
    *rows, whole = kinds
    assert sum(integer(one["All"]) for one in rows) == integer(whole["All"]) == page.figures["Recipients"]
    domains = page.tables["All domains; an empty cell is a zero"].body
    assert sum(integer(one["Accepted"]) for one in domains) == integer(whole["All"])
    by_class: Counter[str] = Counter()
    for one in domains:
        columns = ("Mailboxes", "Aliases", "Forwards", "Lists", "Others")
        assert integer(one["Accepted"]) == sum(integer(one[column]) for column in columns)
        by_class[one["Class"].capitalize()] += integer(one["Accepted"])
    assert {name: integer(whole[name]) for name in by_class} == by_class
    assert {one["Domain"]: one["Any name"] for one in domains} == {
        "example.org": "",
        "shop.example": "",
        "all.example": "yes",
        "backup.example": "yes",
    }


@pytest.mark.root
def test_what_is_widened_has_its_place(site: Site) -> None:
    page, told = reported(site), site.compile("--dry-run")
    wanted = Counter(one["reason"] for one in told.output["widened"])
    assert {one for one in page.summaries if " widened: " in one} == {
        f"{count} widened: {reason}" for reason, count in wanted.items()
    }
    rules = page.tables["The first of them, and the keys that stand for them"].body
    assert {(one["Rule"], one["Key that stands for it"], one["Rests on"]) for one in rules} == {
        (one["rule"], one["key"], f"{one['file']}:{one['line']}".removesuffix(":0")) for one in told.output["widened"]
    }
    left = page.tables["The first of them, for which no key stands"].body
    assert {("Rule", "@example.org"), ("Rests on", "/var/qmail/control/locals:1")} <= set(left[0].items())


@pytest.mark.root
def test_numbers_are_those_of_history(site: Site) -> None:
    changed_thrice(site)
    assert site.run("rollback", "1", "-t", site.output).status in (0, 3)
    page, told = reported(site), site.run("history", "--json").json
    (table,) = [one for caption, one in page.tables.items() if caption.startswith("Publications")]
    rows = {integer(one["No."]): one for one in table.body}
    assert list(rows) == [4, 3, 2, 1]
    for one in told["generations"]:
        row = rows[one["generation"]]
        assert integer(row["Records"]) == one["counts"]["records"]
        assert [integer(row[name]) for name in ("Gained", "Lost", "Other kind")] == [
            one["changes"][name] for name in ("gained", "lost", "changed")
        ]
        assert integer(row["Held"]) == len(one["held"])
        assert row["Why"].startswith(one["reason"])
    assert "rollback to 1 by " in rows[4]["Why"]
    assert any("Rolled back since" in note and "publication 1" in note for note in page.notes)
    marks = [(tag, value) for tag, name, value in page.attributes if tag == "circle" and name == "cx"]
    assert len(marks) == 4


@pytest.mark.root
def test_what_is_held_and_what_comes_next(site: Site) -> None:
    changed_thrice(site)
    site.host.write("~ann/.qmail-later", MAILDIR)
    page = reported(site)
    rows = page.tables["Removals, and new catch-alls, that wait for approval"].body
    held = site.compile("--dry-run").json["held"]
    assert [(one["Domain"], integer(one["Names"]), one["Why"]) for one in rows] == [
        (one["domain"], one["count"], one["reason"]) for one in held
    ]
    count = sum(one["count"] for one in held)
    assert any(note.startswith(f"{count} changes are held in {len(held)} domain") for note in page.notes)
    assert any("the next compile adds 1 recipient, takes 0 away" in note for note in page.notes)
    published = site.content
    assert site.compile("--dry-run").json["gained"] == 1
    assert (site.content, len(site.run("history", "--json").json["generations"])) == (published, 3)


@pytest.mark.root
def test_what_the_last_publication_changed(site: Site) -> None:
    site.published()
    site.host.write("~joe/.qmail-shop-new", MAILDIR)
    site.host.remove("~joe/.qmail-shop-n01")
    site.published()
    page = reported(site)
    assert {"+ new@shop.example", "− n01@shop.example"} <= set(page.notes)  # noqa: RUF001 - a minus sign
    assert "The published list is what the host says now." in page.notes


@pytest.mark.root
def test_findings_are_those_of_lint(site: Site) -> None:
    told = site.run("lint", "--json").json
    page = reported(site)
    counts = ", ".join(f"{number} {name}{'' if number == 1 else 's'}" for name, number in told["counts"].items())
    assert f"Lint\n{counts};" in page.text
    titles = {code: f"{one.severity} {code} {one.title}" for code, one in pages().items()}
    by_code = Counter(one["code"] for one in told["findings"])
    wanted = {titles[code] + (f" ({count})" if count > 1 else "") for code, count in by_code.items()}
    assert {one for one in page.summaries if one.startswith(("error", "warning", "note"))} == wanted
    first = told["findings"][0]
    assert first["text"] in page.text
    assert first["advice"] in page.text
    bare = reported(site, "--no-lint")
    assert "Lint" not in bare.text


@pytest.mark.root
def test_wildcards_are_ranked(site: Site) -> None:
    page = reported(site)
    catch_alls = page.tables["Catch-alls: a stranger's guess is as good as a name"].body
    assert {(one["Lets in"], one["In"], one["Rests on"]) for one in catch_alls} == {
        ("any name", "all.example", "/home/ann/.qmail-all-default:1"),
        ("any name", "backup.example", "/var/qmail/control/rcpthosts:4"),
    }
    others = page.tables["Names with a beginning, the shortest beginning first"].body
    assert [one["Lets in"] for one in others] == sorted((one["Lets in"] for one in others), key=len)
    assert ("news-*", "shop.example") in {(one["Lets in"], one["In"]) for one in others}


@pytest.mark.root
def test_the_slowest_source_is_named(site: Site) -> None:
    with faults(slow=(b"/home/ann",)):
        page = reported(site, "--no-lint")
    first = page.tables["The sources that took longest to read"].body[0]
    assert first["Source"] == "/home/ann"
    assert float(first["Seconds"]) > 0.001


# --- the page ----------------------------------------------------------------------------------


def sound(page: Page) -> None:
    """Nothing is fetched, nothing can run, every link leads to a place on the page."""
    assert not re.search(r"url\(|@import|expression", page.style)
    places = set(page.values("id"))
    for link in page.values("href"):
        assert link.removeprefix("#") in places
    assert len(places) == len(page.values("id"))
    assert "://" not in page.source
    (policy,) = [value for value in page.values("content") if value.startswith("default-src")]
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert all(one.caption for one in page.tables.values())
    assert bool(page.values("scope")) == bool(page.tables)
    for character in page.source:
        assert character.isprintable() or character == "\n", repr(character)


@pytest.mark.root
def test_a_page_is_sound(site: Site) -> None:
    changed_thrice(site)
    sound(reported(site))


HOSTILE = "<script>alert(1)<!--\"'&amp;{{7*7}}]]>\x1b[2J\u202e\udcff"


@pytest.mark.root
def test_hostile_names_are_only_names(tmp_path: Path) -> None:
    """Each name of a host can be chosen by somebody: domains, files, lines, homes, what is held."""
    odd = HOSTILE.lower()
    file = HOSTILE.replace(".", ":").lower()
    passwd = f"joe:x:1001:1001::/home/{HOSTILE.replace(':', '')}:/bin/sh\nann:x:1002:1002::/home/ann:/bin/sh\n"
    site = Site(
        tmp_path,
        {
            "passwd": "alias:x:7790:2108::/var/qmail/alias:/bin/true\nroot:x:0:0::/root:/bin/sh\n" + passwd,
            "control/me": HOSTILE + "\n",
            "control/locals": "example.org\n",
            "control/virtualdomains": f"{odd}.example:joe-v\nall{odd}.example:joe-w\n",
            "control/rcpthosts": f"example.org\n{odd}.relay\n",
            "alias": Dir(uid=7790, gid=2108, mode=0o755),
            "~joe": Dir(),
            "~ann": Dir(mode=0o777),
            **{f"~joe/.qmail-v-{file}{number}": MAILDIR for number in range(9)},
            f"~joe/.qmail-v-{file}-default": MAILDIR,
            "~joe/.qmail-w-default": f"|{HOSTILE}\n",
            f"~joe/.qmail-{file}": f"|/bin/{HOSTILE}\n&{HOSTILE}\r\n",
            f"~joe/.qmail-a{file}": File("\n", mode=0o644),
            f"~joe/.qmail-b{file}": "|bouncesaying <b>no</b>\n",
        },
    )
    site.compile("--force")
    for number in range(9):
        site.host.remove(f"~joe/.qmail-v-{file}{number}")
    assert site.compile().json["held"]
    site.host.write(f"~joe/.qmail-later{file}", MAILDIR)
    page = reported(site)
    sound(page)
    assert "{{7*7}}" in page.text
    assert "<script>alert(1)<!--" in page.text
    assert "\\x1b[2J" in page.text
    assert "\\u202e" in page.text
    names = {one["Domain"] for one in page.tables["All domains; an empty cell is a zero"].body}
    assert any(name.startswith("<script>alert(1)<!--\"'&amp;{{7*7}}]]>\\x1b[2j\\u202e\\xff") for name in names), names
    for table in ("Removals, and new catch-alls, that wait for approval", "Sources that are not healthy"):
        assert page.tables[table].body


@pytest.mark.root
def test_the_same_contents_give_the_same_page(site: Site) -> None:
    changed_thrice(site)
    request = Request((Output("validrcptto", os.fsencode(site.file)),), state=os.fsencode(site.state))

    def page() -> str:
        with forked_workers():
            found = gather(site.host.root, Config(), request)
        found.time = found.seconds = found.result.seconds = 0.0
        found.result.slowest = []
        return "".join(rendered(found))

    assert page() == page()


@pytest.mark.root
def test_a_large_page_is_bounded(site: Site) -> None:
    with forked_workers():
        found = gather(site.host.root, Config(), Request((Output("validrcptto", b"/nowhere"),)), lint=False)
    row = found.census.rows[0]
    found.census.rows = [replace(row, name=b"domain-%06d.example.org" % number) for number in range(25_000)]
    text = "".join(rendered(found))
    page = Page(text)
    assert len(text.encode()) < 3_000_000
    every = page.tables["Every domain, by name; an empty cell is a zero"].body
    assert len(page.tables["The 25 domains with most accepted rules; an empty cell is a zero"].body) == 25
    assert 15_000 < len(every) < 25_000
    assert f"and {25_000 - len(every):,} more: rcptgen list" in page.text
    found.census.rows = [DomainRow(b"d" * 250, "virtual", (1,) * 5, 0, False)] * 10_000
    assert len("".join(rendered(found)).encode()) < 3_000_000


# --- the command -------------------------------------------------------------------------------


@pytest.mark.root
def test_the_file_is_private_and_replaced_whole(site: Site) -> None:
    file = site.top / "page.html"
    reported(site)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.stat().st_ino
    reported(site, "--mode", "0644")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert file.stat().st_ino != before
    assert [name for name in os.listdir(site.top) if name.endswith(".tmp")] == []
    content = file.read_bytes()
    site.top.chmod(0o777)
    done = site.run("report", "--html", str(file), "-t", site.output)
    site.top.chmod(0o755)
    assert (done.status, file.read_bytes()) == (2, content)
    assert "writable by others" in done.err


@pytest.mark.parametrize("mode", ["9", "01777", "rw", "0040", "-1", ""])
def test_modes_that_are_none(site: Site, mode: str) -> None:
    done = site.run("report", "--html", "x", f"--mode={mode}")
    assert done.status == 2
    assert "not an octal mode" in done.err


def test_without_jinja(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    done = site.run("report", "--html", str(site.top / "page.html"))
    assert (done.status, done.out) == (78, "")
    assert "pip install 'rcptgen[report]'" in done.err
    assert not (site.top / "page.html").exists()


def test_what_a_person_must_decide_is_on_the_page(site: Site) -> None:
    site.host.write("control/virtualdomains", ".other.example:joe-shop\n")
    site.host.remove("control/rcpthosts")
    page = reported(site, status=78)
    assert any("A compile now would publish nothing" in note and ".other.example" in note for note in page.notes)
    assert "Recipients of mail.example.org" in page.text
    assert "All domains; an empty cell is a zero" not in page.tables
    sound(page)


@pytest.mark.root
def test_a_canary_that_dies_is_on_the_page(site: Site) -> None:
    site.host.write("/etc/rcptgen.toml", '[guard]\nmust_accept = ["nobody@example.org"]\n')
    page = reported(site)
    assert any("the new list refuses nobody@example.org" in note for note in page.notes)
    assert "Outputs" not in page.tables


@pytest.mark.root
def test_a_source_that_fails_is_on_the_page(site: Site) -> None:
    site.published()
    with faults(eio=(b"/home/joe",)):
        page = reported(site, status=2)
    assert any("could not be read, or looked damaged" in note for note in page.notes)
    states = {one["Source"]: one["State"] for one in page.tables["Sources that are not healthy"].body}
    assert (states["/home/joe"], states["/home/ann"]) == ("failed", "deferring")
    assert "/home/joe" in {one["Source"] for one in page.tables["Sources whose last published rules count"].body}


def test_nothing_published_yet(site: Site) -> None:
    page = reported(site)
    assert "No publication is known here." in page.text
    assert any("nothing was published yet" in note for note in page.notes)


def test_a_target_that_cannot_be_written(site: Site) -> None:
    done: Run = site.run("report", "--html", str(site.top), "-t", site.output)
    assert done.status == 2
    assert "not a regular file" in done.err


def test_write_is_whole_or_not_at_all(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with forked_workers():
        found = gather(site.host.root, Config(), Request((Output("validrcptto", b"/nowhere"),)), lint=False)
    file = site.top / "page.html"
    file.write_text("old")

    def broken(number: int) -> str:
        raise RuntimeError("in the middle")

    monkeypatch.setattr("rcptgen.report.page._seconds", broken)
    with pytest.raises(RuntimeError, match="in the middle"):
        write(os.fsencode(file), found)
    assert file.read_text() == "old"
    assert os.listdir(site.top).count("page.html") == 1
