"""When a look is due, whatever happens when."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.watch.mounts import Mounts
from rcptgen.watch.pace import Pace

MOMENTS = st.lists(st.floats(0, 1.5), max_size=60)


def test_nothing_touched_nothing_due() -> None:
    assert Pace().due() == math.inf


def test_a_change_is_looked_at_after_a_moment_of_quiet() -> None:
    pace = Pace(quiet=0.2)
    pace.changed(10.0)
    pace.changed(10.1)
    assert pace.due() == pytest.approx(10.3)


@given(MOMENTS, st.floats(0, 3))
def test_no_storm_delays_a_look_beyond_its_patience(gaps: list[float], took: float) -> None:
    pace = Pace(quiet=0.2, patience=2.0, rest=5.0)
    now, first, rested = 0.0, None, 0.0
    for gap in gaps:
        now += gap
        if pace.due() <= now:
            assert first is not None
            pace.begins(now)
            pace.ends(now, took)
            rested, first = now + 5 * took, None
        pace.changed(now)
        first = now if first is None else first
        assert pace.due() <= max(first + 2.0, rested)
        assert pace.due() >= rested


@given(MOMENTS, st.floats(0.01, 3))
def test_looks_keep_their_distance(gaps: list[float], took: float) -> None:
    pace = Pace()
    now, last = 0.0, -math.inf
    for gap in gaps:
        now += gap
        pace.changed(now)
        if pace.due() <= now:
            assert now >= last + 5 * took
            pace.begins(now)
            pace.ends(now, took)
            last = now


def test_a_second_look_comes_though_nothing_else_happens() -> None:
    pace = Pace(quiet=0.2)
    pace.changed(10.0)
    pace.look_again(12.0)
    assert pace.due() == pytest.approx(10.2)
    pace.begins(10.2)
    pace.ends(10.2, 0.01)
    assert pace.due() == 12.0
    pace.begins(12.0)
    assert pace.due() == math.inf


def test_what_is_touched_during_a_look_is_looked_at_afterwards() -> None:
    pace = Pace()
    pace.changed(1.0)
    pace.begins(1.2)
    pace.changed(1.3)
    pace.ends(1.5, 0.3)
    assert pace.due() == pytest.approx(1.5 + 5 * 0.3)


MOUNTINFO = rb"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /home rw shared:2 - nfs4 server:/home rw
31 30 0:41 / /home/fast\040disk rw - xfs /dev/vdb rw
32 22 0:42 / /mnt rw - tmpfs tmpfs rw
33 22 0:43 / /mnt rw - fuse.sshfs far: rw
"""


@pytest.mark.parametrize(
    ("path", "events"),
    [
        (b"/", True),
        (b"/var/qmail/control", True),
        (b"/home", False),
        (b"/home/joe", False),
        (b"/homestead", True),
        (b"/home/fast disk/joe", True),
        (b"/mnt/x", False),
    ],
)
def test_file_systems_of_others_have_no_events(path: bytes, events: bool) -> None:
    assert Mounts(MOUNTINFO).has_events(path) == events


def test_this_machine_has_mounts() -> None:
    assert Mounts.now().type_of(b"/proc/self") == "proc"
    assert Mounts.now().has_events(b"/etc")
