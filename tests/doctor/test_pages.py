"""Every code is reported on the bad host of its page, and not on the good one: the pages are the fixtures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lintpages import lay
from runs import Run, called, forked_workers

from rcptgen.doctor import Page, Severity, common_text, pages

pytestmark = pytest.mark.root


def diagnosed(root: Path, example: str) -> Run:
    lay(root, example, common_text())
    return called("--root", root, "doctor", "--json")


def codes(done: Run) -> list[str]:
    return [one["code"] for one in done.json["findings"]]


OF_A_STATE = {"R109"}
"""What is only known with a state directory: below."""


@pytest.fixture(params=[one for one in pages().values() if one.code not in OF_A_STATE], ids=lambda one: one.code)
def page(request: pytest.FixtureRequest) -> Page:
    found: Page = request.param
    return found


def test_the_bad_example_has_the_finding(page: Page, tmp_path: Path) -> None:
    done = diagnosed(tmp_path / "host", page.bad)
    said = [one for one in done.json["findings"] if one["code"] == page.code]
    assert bool(said) == (page.severity is not Severity.OK), codes(done)
    assert done.status == int(any(one["severity"] == "problem" for one in done.json["findings"]))
    assert done.json["failed"] == []
    for one in said:
        assert one["file"].startswith("/") or one["file"].startswith("the system's")
        assert one["text"]


def test_the_good_example_has_it_not_and_no_problem(page: Page, tmp_path: Path) -> None:
    done = diagnosed(tmp_path / "host", page.good)
    assert (page.code in codes(done)) == (page.severity is Severity.OK), done.json
    assert [one for one in done.json["findings"] if one["severity"] == "problem"] == []
    assert done.status == 0


def test_the_common_host_is_well(tmp_path: Path) -> None:
    done = diagnosed(tmp_path / "host", "")
    assert (codes(done), done.status) == (["Q100", "R100"], 0)


def test_a_file_that_was_not_published_is_told_from_one_that_was(tmp_path: Path) -> None:
    host, state = tmp_path / "host", tmp_path / "state"
    file = lay(host, pages()["R109"].good, common_text()).path("control/validrcptto.cdb")
    with forked_workers():
        done = called("--root", host, "--state", state, "compile", "-t", f"validrcptto={file}")
    assert done.status == 0
    assert codes(called("--root", host, "--state", state, "doctor", "--json")) == ["Q100", "R100"]
    file.write_bytes(
        lay(tmp_path / "bad", pages()["R109"].bad, common_text()).path("control/validrcptto.cdb").read_bytes()
    )
    assert codes(called("--root", host, "--state", state, "doctor", "--json")) == ["Q100", "R109"]


def test_pages_say_what_to_do() -> None:
    for page in pages().values():
        assert page.advice.endswith("."), page.code
        assert page.bad != page.good, page.code


@pytest.mark.needs("checkout")
def test_every_code_stands_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    table = re.findall(r"^\| ([A-Z]\d{3}) \| ([a-z]+) \| (.+) \|$", text, re.MULTILINE)
    assert table == [(page.code, str(page.severity), page.title) for page in pages().values()]
