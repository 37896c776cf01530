"""When to compile: soon after the last change, late enough after the last compile."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    """Times are seconds of a clock that never goes back.

    A look waits for `quiet` seconds without another change, but never longer than
    `patience` after the first; and after a compile that took a while, for `rest` times as
    long, so that a storm of changes costs a sixth of a processor and no more.
    """

    quiet: float = 0.2
    patience: float = 2.0
    rest: float = 5.0
    _first: float = math.inf
    _last: float = math.inf
    rested: float = -math.inf
    """The moment before which no look begins."""
    _second: float = math.inf

    def changed(self, now: float) -> None:
        """Something was touched."""
        self._first = min(self._first, now)
        self._last = now

    def asked(self, now: float) -> None:
        """Somebody wants a look as soon as the last one allows."""
        self._first = min(self._first, now - self.patience)
        self._last = now

    def look_again(self, at: float) -> None:
        """Whatever happens until then, there is to be a look at that time."""
        self._second = at if math.isinf(self._second) else max(self._second, at)

    def due(self) -> float:
        """When the next look is due; infinitely late where nothing was touched."""
        if math.isinf(self._first):
            wanted = self._second
        else:
            wanted = min(self._last + self.quiet, self._first + self.patience, self._second)
        return max(wanted, self.rested)

    def begins(self, now: float) -> None:
        """A look begins: it will see all that was touched before."""
        self._first = self._last = math.inf
        if self._second <= now:
            self._second = math.inf

    def ends(self, now: float, seconds: float) -> None:
        """A look that took `seconds` has ended."""
        self.rested = now + self.rest * seconds
