"""The vectors and the tree generator are copies; they stay what they were copied from."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ORIGINALS = HERE.parent.parent / "shared"  # ../shared, seen from the checkout


def files_below(top: Path) -> dict[str, bytes]:
    """Every file below a directory, by its path from there; a single file stands for itself."""
    if top.is_file():
        return {top.name: top.read_bytes()}
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("what", ["vectors", "bench/mktree.py"])
def test_copy_is_equal_to_its_original(what: str) -> None:
    original, copy = ORIGINALS / what, HERE / what
    if not original.exists():
        pytest.skip("SKIPPED PART: originals: nothing to compare the copies with beside this checkout")
    wanted, found = files_below(original), files_below(copy)
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []
