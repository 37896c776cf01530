"""`rcptgen lint` as scripts and people meet it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hosts import File
from runs import Names, Run, Site, called, faults

from rcptgen.cli import run
from rcptgen.lint import Severity, pages
from rcptgen.lint.pages import common_text

pytestmark = pytest.mark.root

CLEAN: dict[str, Any] = {
    "passwd": {"joe": 1001},
    "control/me": "example.org\n",
    "control/rcpthosts": "example.org\n",
    "alias/.qmail-postmaster": "joe\n",
}
WRONG: Names = {
    **CLEAN,
    "control/locals": "example.org\n lists.example\n",
    "~joe/.qmail-x": "\nann\n",
    "~joe/.qmail-y": File("ann\n", mode=0o666),
    "~joe/.qmail-z": "# nothing\n",
}


def lint(tmp_path: Path, names: Names, *options: str) -> Run:
    return Site(tmp_path, names).run("lint", *options)


def codes(done: Run) -> list[str]:
    return [one["code"] for one in done.json["findings"]]


def test_a_clean_host_is_silent(tmp_path: Path) -> None:
    done = lint(tmp_path, CLEAN)
    assert (done.status, done.out) == (0, "")
    assert done.err == "rcptgen: 0 errors, 0 warnings, 0 notes\n"


def test_a_finding_has_place_code_sentence_and_advice(tmp_path: Path) -> None:
    done = lint(tmp_path, WRONG)
    assert done.status == 1
    place, advice = done.out.split("/home/joe/.qmail-x:1: ")[1].splitlines()[:2]
    assert place == "error H113: the first line is blank: its mail is deferred"
    assert advice == "    take the blank line away."
    assert done.err == "rcptgen: 2 errors, 1 warning, 2 notes\n"


def test_json(tmp_path: Path) -> None:
    done = lint(tmp_path, WRONG, "--json")
    assert (done.status, done.out.count("\n")) == (1, 1)
    assert done.json["version"] == 1
    assert done.json["counts"] == {"error": 2, "warning": 1, "note": 2}
    assert sorted(codes(done)) == ["C101", "D102", "H111", "H113", "H117"]
    (one,) = [one for one in done.json["findings"] if one["code"] == "C101"]
    assert one == {
        "code": "C101",
        "severity": "warning",
        "file": "/var/qmail/control/locals",
        "line": 2,
        "text": "the blank in front is a part of the entry ' lists.example'",
        "advice": pages()["C101"].advice,
    }


def test_json_of_nothing(tmp_path: Path) -> None:
    done = lint(tmp_path, CLEAN, "--json")
    assert done.json == {
        "version": 1,
        "findings": [],
        "counts": {"error": 0, "warning": 0, "note": 0},
        "rollback": None,
    }


def test_what_is_ignored_does_not_count(tmp_path: Path) -> None:
    done = lint(tmp_path, WRONG, "--json", "--ignore", "H111", "--ignore", "h113")
    assert done.status == 0
    assert done.json["counts"]["error"] == 0
    assert sorted(codes(done)) == ["C101", "D102", "H117"]


def test_an_unknown_code_is_wrong_usage(tmp_path: Path) -> None:
    assert lint(tmp_path / "a", CLEAN, "--ignore", "H999").status == 2
    done = called("lint", "--explain", "nonsense\x1b[31m")
    assert done.status == 2
    assert "\x1b" not in done.err


def test_a_page_is_shown_without_a_host() -> None:
    done = called("--root", "/", "lint", "--explain", "h113")
    assert done.status == 0
    assert done.out.startswith(pages()["H113"].text)
    assert common_text() in done.out
    assert '"~joe/.qmail-list" = "\\nann\\n"' in done.out


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    names = {
        **CLEAN,
        "~joe/.qmail-\x1b[31mRED\udcff": "ann\n",
        "~joe/.qmail-x": "|/bin/\x1b]0;title\x07\n &\u202ereversed\n",
        "control/locals": "example.org\n\x1b[2J\n",
    }
    said = lint(tmp_path / "text", names)
    assert said.status == 1
    assert not {"\x1b", "\x07", "\u202e"} & set(said.out + said.err)
    told = lint(tmp_path / "json", names, "--json")
    assert "\\u001b" not in "".join(one["text"] for one in told.json["findings"])
    (one,) = [one for one in told.json["findings"] if one["code"] == "H104"]
    assert one["file_b64"]


def test_many_of_one_code_are_counted(tmp_path: Path) -> None:
    names: dict[str, Any] = {**CLEAN, **{f"~joe/.qmail-x{number}": "\n" for number in range(130)}}
    done = lint(tmp_path, names)
    assert done.out.count("error H113: ") == 100
    assert "and 30 more of H113: the first line of a dot-qmail file is blank (--json tells them all)\n" in done.out
    assert done.err.startswith("rcptgen: 130 errors")


def test_what_cannot_be_looked_at_is_trouble(tmp_path: Path) -> None:
    site = Site(tmp_path, WRONG)
    with faults(eio=(b"/home/joe",)):
        done = site.run("lint")
    assert done.status == 2
    assert "/home/joe: not looked at: " in done.err


def test_a_host_that_does_not_start_is_for_a_person(tmp_path: Path) -> None:
    assert lint(tmp_path, {"control/rcpthosts": "example.org\n"}).status == 78


def test_severities_are_sorted_by_what_they_cost() -> None:
    assert [str(one) for one in Severity] == ["error", "warning", "note"]
    assert run(["lint", "--explain", "A101"]) == 0


def test_a_rollback_in_force_is_named(tmp_path: Path) -> None:
    site = Site(tmp_path, CLEAN)
    site.published()
    site.host.write("~joe/.qmail-new", "ann\n")
    site.published()
    assert site.run("rollback", "-t", site.output).status == 0
    assert "rcptgen: rolled back since 2" in site.run("lint").err
    assert site.run("lint", "--json").json["rollback"]["generation"] == 1
    assert site.run("resume", "-t", site.output).status == 0
    assert "rolled back" not in site.run("lint").err
    assert site.run("lint", "--json").json["rollback"] is None
