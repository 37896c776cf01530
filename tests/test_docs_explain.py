"""docs/explain.md is what the command prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hosts import load_vector
from runs import called

TOP = Path(__file__).parent.parent
PAGE = TOP / "docs" / "explain.md"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not PAGE.exists(), reason="the wheel is tested without the checkout's docs"),
]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The example's host, compiled, and the words before the address."""
    load_vector(TOP / "tests" / "examples" / "host.json").materialise(tmp_path / "host")
    output = ["-t", f"validrcptto={tmp_path}/validrcptto.cdb"]
    assert called("--root", tmp_path / "host", "-q", "compile", *output).status == 0
    return ["--root", str(tmp_path / "host"), "explain", *output]


def test_the_example_is_what_is_printed(words: list[str], tmp_path: Path) -> None:
    (block,) = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    line, _, printed = block.partition("\n")
    assert line == "$ rcptgen --root host explain --follow -t validrcptto=validrcptto.cdb abuse@example.org"
    done = called(*words, "--follow", "abuse@example.org")
    assert done.status == 0
    assert done.out.replace(f"{tmp_path}/", "") == printed


def test_every_member_stands_in_the_table(words: list[str]) -> None:
    rows = re.findall(r"^\| (`[^|]*?) \| ", PAGE.read_text().partition("## `--json`")[2], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z]+)`", row)}
    members = called(*words, "--follow", "--json", "abuse@example.org").json
    assert set(members) == named
    text = PAGE.read_text()
    for inner in ("steps", "forwards", "answers", "followed"):
        assert all(f"`{name}`" in text for one in members[inner] for name in one)
