"""Every code is reported on the bad host of its page, and not on the good one: the pages are the fixtures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lintpages import configured, lay
from runs import forked_workers

import rcptgen
from rcptgen.doctor import pages as of_doctor
from rcptgen.host import Host
from rcptgen.lint import Finding, Page, Severity, lint, pages

PACKAGE = Path(rcptgen.__file__).parent


def findings(root: Path) -> list[Finding]:
    with forked_workers(), Host.open(root, configured(root), look_at_mailboxes=False) as host:
        return list(lint(host))


@pytest.fixture(params=pages().values(), ids=list(pages()))
def page(request: pytest.FixtureRequest) -> Page:
    found: Page = request.param
    return found


@pytest.mark.root
def test_the_bad_example_has_the_finding(page: Page, tmp_path: Path) -> None:
    lay(tmp_path / "host", page.bad)
    found = [one for one in findings(tmp_path / "host") if one.code == page.code]
    assert found
    for one in found:
        assert one.file.startswith(b"/")
        assert one.text
        assert (tmp_path / "host" / one.file.decode()[1:]).is_relative_to(tmp_path)


@pytest.mark.root
def test_the_good_example_has_it_not_and_no_error(page: Page, tmp_path: Path) -> None:
    lay(tmp_path / "host", page.good)
    found = findings(tmp_path / "host")
    assert page.code not in {one.code for one in found}
    assert [one for one in found if pages()[one.code].severity is Severity.ERROR] == []


@pytest.mark.root
def test_the_common_host_is_clean(tmp_path: Path) -> None:
    lay(tmp_path / "host", "")
    assert findings(tmp_path / "host") == []


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    """A code is what a finding is made with, here or by `rcptgen doctor`."""
    used: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        used |= set(re.findall(r'"([A-Z][1-9]\d\d)"', path.read_text()))
    assert used == {*pages(), *of_doctor()}
    assert pages().keys().isdisjoint(of_doctor())


def test_pages_say_what_to_do() -> None:
    for page in pages().values():
        assert page.advice.endswith("."), page.code
        assert "\n" not in page.advice, page.code
        assert page.bad != page.good, page.code


@pytest.mark.needs("checkout")
def test_every_code_stands_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "lint.md").read_text()
    table = re.findall(r"^\| ([A-Z]\d{3}) \| ([a-z]+) \| (.+) \|$", text, re.MULTILINE)
    assert table == [(page.code, str(page.severity), page.title) for page in pages().values()]
