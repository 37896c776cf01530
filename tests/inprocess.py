"""A worker without a process: the reading is done here and now, which is what a thousand small hosts need.

Identities are really taken, so only a process with one thread may use it.
"""

from __future__ import annotations

from typing import Any

import pytest

from rcptgen.config import Config
from rcptgen.qmail.judged import Settings
from rcptgen.reader import Reader
from rcptgen.worker import Worker


class InProcess(Worker):
    """Asks a Reader of this process; `asked` is what was asked, in order."""

    def __init__(
        self,
        root: bytes,
        settings: Settings,
        config: Config | None = None,
        *,
        time_limit: float = 0.0,
        record: bool = False,
    ) -> None:
        super().__init__(root, settings, config, time_limit=time_limit, record=record)
        self._reader: Reader | None = None
        self.asked: list[str] = []
        self._wanted: list[tuple[str, tuple[Any, ...]]] = []

    def start(self) -> None:
        """There is no process."""

    def ask(self, name: str, *arguments: Any) -> Any:
        """The reader's answer; what it raises goes through."""
        if self._reader is None:
            self._reader = Reader(self._session)
        self.asked.append(name)
        return getattr(self._reader, name)(*arguments)

    @property
    def runs(self) -> bool:
        """As a process would, from the first question on."""
        return self._reader is not None

    def begin(self, name: str, *arguments: Any) -> int:
        """Nothing is done before the answer is wanted."""
        self._wanted.append((name, arguments))
        return 0

    def ready(self, life: int) -> bool:
        """Never before it is asked for."""
        return False

    def finish(self, life: int) -> Any:
        """The answer to what was begun first."""
        name, arguments = self._wanted.pop(0)
        return self.ask(name, *arguments)

    def close(self) -> None:
        """Gives every descriptor back."""
        if self._reader is not None:
            for home in self._reader._homes.values():
                home.close()
            self._reader._tree.close()
            self._reader = None


def use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Host that is opened from here on reads in this process."""
    monkeypatch.setattr("rcptgen.host.Worker", InProcess)
    monkeypatch.setattr("rcptgen.unchanged.Worker", InProcess)
