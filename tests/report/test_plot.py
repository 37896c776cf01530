"""The plots: axes that hold their values, marks in their places."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.report.plot import HEIGHT, MOST_TICKS, WIDTH, Point, plot, scale


@pytest.mark.parametrize(
    ("least", "most", "wanted"),
    [
        (0, 0, (0, 1, 1)),
        (89, 351, (0, 400, 100)),
        (7, 7, (7, 8, 1)),
        (1_147_243, 1_147_301, (1_147_240, 1_147_320, 20)),
        (0, 3, (0, 3, 1)),
    ],
)
def test_scale(least: int, most: int, wanted: tuple[int, int, int]) -> None:
    assert scale(least, most) == wanted


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_scale_holds_its_values(one: int, other: int) -> None:
    least, most = sorted((one, other))
    low, high, step = scale(least, most)
    assert low <= least <= most <= high
    assert (high - low) % step == low % step == 0
    assert 1 <= (high - low) // step <= MOST_TICKS
    assert re.fullmatch("[125]0*", str(step))


_POINTS = st.lists(st.builds(Point, *[st.integers(0, 10**7)] * 4), min_size=1, max_size=60)


@given(_POINTS)
def test_marks_stand_in_the_plot(points: list[Point]) -> None:
    made = plot(points)
    assert [mark.number for mark in made.marks] == [point.number for point in points]
    assert made.marks[-1].labelled
    for mark, point in zip(made.marks, points, strict=True):
        assert 0 <= mark.y <= 100
        assert 0 < mark.x < 100
        assert bool(mark.gained) == bool(point.gained)
        assert 0 <= mark.gained <= 100
        assert 0 <= mark.lost <= 100
    places = [tuple(map(float, one.split())) for one in re.split("[ML]", made.line)[1:]]
    assert len(places) == 2 * len(points)
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)
    assert [tick.at for tick in made.ticks] == sorted((tick.at for tick in made.ticks), reverse=True)
