"""The repository stands alone, and what it says of itself is true."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

import rcptgen

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = Path(rcptgen.__file__).resolve().parent

pytestmark = pytest.mark.needs("checkout")


def tracked() -> list[Path]:
    """Every file that git knows; without git, every file that .gitignore does not name."""
    if shutil.which("git"):
        known = subprocess.run(["git", "-C", str(CHECKOUT), "ls-files", "-z"], capture_output=True, check=False)
        if known.returncode == 0 and known.stdout:
            names = [CHECKOUT / os.fsdecode(name) for name in known.stdout.split(b"\0") if name]
            return [name for name in names if name.is_file()]
    ignored = [line.strip("/") for line in (CHECKOUT / ".gitignore").read_text().split()]
    return [
        path
        for path in CHECKOUT.rglob("*")
        if path.is_file() and not any(part == ".git" or Path(part).match(i) for part in path.parts for i in ignored)
    ]


def own_lines() -> Iterator[tuple[str, str]]:
    """`file:line` and text of every line that was written here (the copies were not)."""
    for path in tracked():
        name = str(path.relative_to(CHECKOUT))
        if name.startswith("tests/vectors/") or name == "tests/bench/mktree.py":
            continue
        text = path.read_bytes()
        if b"\0" not in text:
            for number, line in enumerate(text.decode().splitlines(), 1):
                yield f"{name}:{number}", line


# Split, so that they do not find themselves.
FOREIGN = {
    "a path of somebody's machine": r"/wo" r"rk/|/ro" r"ot/\.|/tm" r"p/\w",
    "a neighbour of the checkout": r"\.\./sha" r"red",
    "a package registry": r"py" r"pi\.org|python" r"hosted|deb\.deb" r"ian\.org|registry\.np" r"mjs",
    "the way it was written": r"(?i)\bprom"
    r"pts?\b(?!\()|\b(this|earlier|previous|my|our) ses"
    r"sion\b|\bassis"
    r"tants?\b",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_nothing_foreign_is_mentioned(what: str) -> None:
    pattern = re.compile(FOREIGN[what])
    allowed = {"a neighbour of the checkout": "tests/test_copies.py:"}.get(what, "\0")
    found = [where for where, line in own_lines() if pattern.search(line) and not where.startswith(allowed)]
    assert found == []


def test_one_version() -> None:
    assert importlib.metadata.version("rcptgen") == rcptgen.__version__


def test_changelog_begins_with_this_version() -> None:
    changelog = CHECKOUT / "CHANGELOG.md"
    if not changelog.exists():
        pytest.skip("there is no CHANGELOG.md yet")
    first = re.search(r"^## *\[?v?(\d[^\s\]]*)", changelog.read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] == rcptgen.__version__


def readme_commands() -> list[list[str]]:
    """The words of every command line in the README's code blocks."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", (CHECKOUT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ").removeprefix("# ") for block in blocks for line in block.splitlines()]
    return [line.split() for line in lines if line.startswith(("rcptgen ", "script/"))]


def test_readme_begins_with_the_example() -> None:
    if not (CHECKOUT / "README.md").read_text():
        pytest.skip("README.md is empty yet")
    assert readme_commands()[0] == ["script/run-example"]


def test_readme_names_scripts_that_exist() -> None:
    scripts = {words[0] for words in readme_commands() if words[0].startswith("script/")}
    assert [name for name in scripts if not os.access(CHECKOUT / name, os.X_OK)] == []


def test_readme_names_commands_that_exist() -> None:
    value_options = {"--config", "--root", "--state"}
    used = set()
    for words in readme_commands():
        if words[0] == "rcptgen":
            rest = words[1:]
            while rest and rest[0].startswith("-"):
                rest = rest[2:] if rest[0] in value_options else rest[1:]
            if rest:
                used.add(rest[0])
    program = Path(sysconfig.get_path("scripts")) / "rcptgen"
    for command in sorted(used):
        done = subprocess.run([str(program), command, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"rcptgen {command}: {done.stderr}"


@pytest.mark.needs("wheel")
def test_the_wheel_holds_every_module() -> None:
    source = CHECKOUT / "rcptgen"
    wanted = {str(path.relative_to(source)) for path in tracked() if path.is_relative_to(source)}
    have = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*") if path.is_file()}
    assert sorted(wanted - have) == []


def test_scripts_are_executable_and_sound() -> None:
    for path in [*(CHECKOUT / "script").iterdir(), CHECKOUT / ".ci" / "run"]:
        first = path.read_text().partition("\n")[0]
        assert first.startswith("#!") == os.access(path, os.X_OK), path
        if path.suffix == ".py":
            compile(path.read_text(), path, "exec")
        else:
            assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0


def test_the_tests_see_what_is_installed() -> None:
    assert sys.flags.safe_path or os.environ.get("RCPTGEN_TEST_WHEEL") != "1"
