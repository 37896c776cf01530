"""What the tests of differences share."""

from __future__ import annotations

import inprocess
import pytest


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts are read without worker processes."""
    inprocess.use(monkeypatch)
