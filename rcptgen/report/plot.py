"""Where the marks of the plots stand; the template draws them as SVG.

A drawing library that a root process would have to load for two small plots is not worth
its weight: plotly's is 3 MB of JavaScript a page, matplotlib brings numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 1000, 100
"""The space in which the line is drawn; it is stretched to the place that it has."""

MOST_TICKS = 4
LABELS = 5
_STEPS = (1, 2, 5, 10)


@dataclass(frozen=True, slots=True)
class Tick:
    """A line across the plot: its height in percent from the top, and what it stands for."""

    at: float
    value: int


@dataclass(frozen=True, slots=True)
class Mark:
    """One publication: its number, and the places in percent of width and height.

    `gained` and `lost` are heights of bars in percent of the half that they have; `labelled`
    says that there is room for its number below.
    """

    number: int
    x: float
    y: float
    gained: float
    lost: float
    labelled: bool


@dataclass(frozen=True, slots=True)
class Plot:
    """Totals as a line of steps (`line` is an SVG path), and what came and went as bars below."""

    marks: list[Mark]
    ticks: list[Tick]
    line: str
    zero: bool
    most: int


@dataclass(frozen=True, slots=True)
class Point:
    """What one publication brings to the plot."""

    number: int
    total: int
    gained: int
    lost: int


def plot(points: Sequence[Point]) -> Plot:
    """The places of everything; there must be a point."""
    totals = [one.total for one in points]
    low, high, step = scale(min(totals), max(totals))
    most = max(max(one.gained, one.lost) for one in points)
    every = math.ceil(len(points) / LABELS)
    marks = []
    for at, one in enumerate(points):
        marks.append(
            Mark(
                one.number,
                x=_rounded((at + 0.5) / len(points) * 100),
                y=_rounded(_height(one.total, low, high)),
                gained=_bar(one.gained, most),
                lost=_bar(one.lost, most),
                # The last one always, and then back in even steps.
                labelled=(len(points) - 1 - at) % every == 0,
            )
        )
    ticks = [Tick(_rounded(_height(value, low, high)), value) for value in range(low, high + 1, step)]
    return Plot(marks, ticks, _steps(marks), low == 0, most)


def scale(least: int, most: int) -> tuple[int, int, int]:
    """The ends of an axis for values from `least` to `most`, and the step between its lines: 1, 2 or 5 of a decade.

    The axis begins at zero where that costs at most half of it.
    """
    if least <= (most - least) * 2:
        least = 0
    span = max(most - least, 1)
    decade = 10 ** max(math.floor(math.log10(span)) - 1, 0)
    while True:
        for factor in _STEPS:
            step = decade * factor
            low, high = least // step * step, -(-most // step) * step
            if high == low:
                high += step
            if (high - low) // step <= MOST_TICKS:
                return low, high, step
        decade *= 10


def _height(value: int, low: int, high: int) -> float:
    return 100 - (value - low) / (high - low) * 100


def _bar(value: int, most: int) -> float:
    """What is not nothing can be seen."""
    return max(_rounded(value / most * 100), 3.0) if value else 0.0


def _steps(marks: Sequence[Mark]) -> str:
    """A list stays as it is until the next publication."""
    edges = [_rounded(at / len(marks) * WIDTH) for at in range(len(marks) + 1)]
    parts: list[str] = []
    for left, right, mark in zip(edges, edges[1:], marks, strict=False):
        y = _rounded(mark.y * HEIGHT / 100)
        parts.append(f"{'L' if parts else 'M'}{left} {y}L{right} {y}")
    return "".join(parts)


def _rounded(number: float) -> float:
    return round(number, 2)
