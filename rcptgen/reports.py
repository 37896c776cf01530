"""What became of each unit of a run."""

from __future__ import annotations

from collections import UserDict

from rcptgen.reader import Report, State


class Reports(UserDict[bytes, Report]):
    """The newest report of each unit, by path.

    `held_back` holds the paths of those that could not be read for now, or are damaged: it is
    asked about for each of a host's domains, and must not cost a look at all its units.
    """

    def __init__(self) -> None:
        self.held_back: set[bytes] = set()
        super().__init__()

    def __setitem__(self, path: bytes, report: Report) -> None:
        super().__setitem__(path, report)
        if report.state in (State.FAILED, State.SUSPECT):
            self.held_back.add(path)
        else:
            self.held_back.discard(path)

    def __delitem__(self, path: bytes) -> None:
        super().__delitem__(path)
        self.held_back.discard(path)
