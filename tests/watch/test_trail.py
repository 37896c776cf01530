"""The way of a path: the same whether its directory was gone through before or not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rcptgen.watch.trail import Trails

names = st.sampled_from(["a", "b", ".", "..", ""])
paths = st.lists(names, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
entries = st.one_of(st.just("dir"), st.just("file"), paths, paths.map(lambda path: path[1:] or "b"))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(paths, entries), max_size=8), st.lists(paths, min_size=1, max_size=8))
def test_a_way_hangs_on_no_other(laid: list[tuple[str, str]], asked: list[str]) -> None:
    with tempfile.TemporaryDirectory() as top:
        for path, what in laid:
            place = Path(os.path.normpath(f"{top}/{os.path.normpath(path)}"))
            if place.parent.is_dir() and not place.parent.is_symlink() and not os.path.lexists(place):
                if what == "dir":
                    place.mkdir()
                elif what == "file":
                    place.touch()
                else:
                    place.symlink_to(what)
        root = os.fsencode(top)
        shared = Trails(root)
        for path in asked:
            # A slash at the end is gone through step by step, and means nothing more.
            assert shared.of(path.encode()) == Trails(root).of(path.encode() + b"/")
