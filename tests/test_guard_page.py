"""What docs/guard.md shows is what the example host gives, line by line."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from hosts import EXAMPLE, load_vector
from runs import Site

from rcptgen.cli import who as who_module
from rcptgen.config import parse

PAGE = Path(__file__).resolve().parent.parent / "docs" / "guard.md"

pytestmark = pytest.mark.needs("checkout")

TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")
MOMENT = "2026-11-22 16:43"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def answer(site: Site, command: str) -> str:
    """What a command of the page writes, as the page shows it."""
    program, *words = command.split()
    if program == "rm":
        for word in words:
            (site.host.root / word).unlink()
        return ""
    assert program == "rcptgen"
    if words[0] in ("compile", "rollback", "resume") or words[:2] == ["approve", "club.example"]:
        words[1:1] = ["-t", site.output]
    done = site.run(*(str(site.file) if word == "validrcptto.cdb" else word for word in words))
    assert done.status in (0, 1, 3)
    said = TIME.sub(MOMENT, (done.out + done.err).replace(str(site.file), "validrcptto.cdb"))
    return "\n".join(line.rstrip() for line in said.splitlines() if "(validrcptto)" not in line or "published" in line)


@pytest.mark.root
def test_the_page_shows_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(who_module, "_login", lambda: None)
    site = Site(tmp_path, {"control/me": "x\n", "/etc/passwd": None})
    shutil.rmtree(site.host.root)
    load_vector(EXAMPLE).materialise(site.host.root)
    told, happened = [], []
    for block in blocks("console"):
        lines = block.splitlines()
        told += lines
        for command in [line for line in lines if line.startswith("# ")]:
            happened += [command, *filter(None, answer(site, command.removeprefix("# ")).splitlines())]
    assert told == happened


def test_the_configuration_is_valid() -> None:
    first, second = (parse(block.encode(), "guard.md") for block in blocks("toml"))
    assert first.guard.must_refuse[-1] == "*@example.org"
    assert second.guard.on_hold[0].startswith("/")
    assert second.history.on_publish
