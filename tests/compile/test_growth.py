"""What a compile does grows as the host does, and no faster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import FrameType

import pytest
from inprocess import use

from rcptgen.cli import run

pytestmark = pytest.mark.root

MKTREE = Path(__file__).parents[1] / "bench" / "mktree.py"


def calls(root: Path, file: Path) -> int:
    """How many times a compile of `root` enters one of our functions, or takes one more from one of our generators."""
    count = 0

    def called(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        if event == "call" and "/rcptgen/" in frame.f_code.co_filename:
            count += 1

    sys.setprofile(called)
    try:
        assert run(["-q", "--root", str(root), "compile", "-t", f"validrcptto={file}"]) == 0
    finally:
        sys.setprofile(None)
    return count


def test_a_domain_costs_the_same_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)
    use(monkeypatch)
    found = []
    for domains in (100, 400, 700):
        root = tmp_path / str(domains)
        size = ["--domains", str(domains), "--mailboxes", str(3 * domains), "--zipf", "0"]
        subprocess.run([sys.executable, str(MKTREE), str(root), *size], check=True, capture_output=True)
        found.append(calls(root, tmp_path / f"{domains}.cdb"))
    assert found[2] - found[1] < 1.1 * (found[1] - found[0]), found
