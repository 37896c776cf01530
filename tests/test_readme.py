"""What README.md says is true: its commands, its examples, its tables."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from hosts import load_vector

from rcptgen.cli import COMMANDS, cli
from rcptgen.config import parse

TOP = Path(__file__).parent.parent
README = TOP / "README.md"
EXAMPLE = Path(__file__).parent / "examples" / "host.json"

pytestmark = pytest.mark.skipif(not README.exists(), reason="the wheel is tested without the checkout's README")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    load_vector(EXAMPLE).materialise(tmp_path / "host")
    return tmp_path / "host"


def test_the_first_screen_shows_what_the_example_host_gives(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "validrcptto.cdb"
    run = CliRunner()
    compiled = run.invoke(
        cli, ["--root", str(root), "-v", "compile", "-t", f"validrcptto={file}"], obj=None, standalone_mode=False
    )
    dumped = run.invoke(cli, ["dump", str(file)], standalone_mode=False).stdout.splitlines()
    shown = blocks("console")[0].splitlines()
    summary = next(line for line in shown if "published:" in line)
    assert summary.partition(": ")[2] in compiled.output
    rules = [line for line in shown if "@" in line and not line.startswith("$")]
    assert len(rules) >= 5
    assert [line for line in dumped if line in rules] == rules


def test_the_library_example_runs(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = (block for block in blocks("python") if "import rcptgen" in block)
    names = {"root": os.fspath(root), "file": tmp_path / "list.cdb"}
    exec(compile(example, "README.md", "exec"), names)  # noqa: S102 - the example is ours
    said = capsys.readouterr().out.splitlines()
    assert "local example.org" in said
    assert said[-4:] == ["deliver", "no dot-qmail file for this name", "mailbox", "0 89"]


def test_the_configuration_example_is_valid() -> None:
    (example,) = blocks("toml")
    config = parse(example.encode(), "README.md")
    assert config.outputs[0].path == tomllib.loads(example)["output"][0]["path"]


def test_every_command_stands_in_the_table() -> None:
    table = re.findall(r"^\| `([a-z-]+)[ `]", README.read_text(), re.MULTILINE)
    assert sorted(table) == sorted(COMMANDS)


def test_every_exit_status_stands_in_the_table() -> None:
    statuses = re.findall(r"^\| ([0-9]+) \|", README.read_text(), re.MULTILINE)
    assert statuses == ["0", "1", "2", "3", "75", "77", "78", "130"]
