"""What a service manager behind NOTIFY_SOCKET hears, and that a missing or deaf one changes nothing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from manager import Manager

from rcptgen.errors import ConfigurationError
from rcptgen.watch.notify import MOST_SHOWN, Notify


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.setenv("NOTIFY_SOCKET", "notify")  # relative: the directory of a test has a long name
    found = Manager("notify")
    yield found
    found.socket.close()


@pytest.fixture
def notify(manager: Manager) -> Iterator[Notify]:
    found = Notify()
    yield found
    found.close()


def test_every_message_has_the_spelling_of_sd_notify(manager: Manager, notify: Notify) -> None:
    before = time.monotonic_ns() // 1000
    notify.extend(12.5)
    notify.ready("3 domains")
    notify.status("89 recipients")
    notify.watchdog()
    notify.reloading()
    notify.ready()
    notify.stopping()
    heard = manager.heard()
    reloading = heard.pop(4).split("\n")
    assert reloading[0] == "RELOADING=1"
    assert before <= int(reloading[1].removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert heard == [
        "EXTEND_TIMEOUT_USEC=12500000",
        "READY=1\nSTATUS=3 domains",
        "STATUS=89 recipients",
        "WATCHDOG=1",
        "READY=1",
        "STOPPING=1",
    ]


def test_a_status_is_one_line_of_bounded_length_in_utf8(manager: Manager, notify: Notify) -> None:
    notify.status("bad\nREADY=1\x1b[31m grüße 日本 \udcff")
    notify.status("ü" * 5000)
    escaped, cut = manager.heard()
    assert escaped == "STATUS=bad\\x0aREADY=1\\x1b[31m grüße 日本 \\xff"
    assert cut == "STATUS=" + "ü" * (MOST_SHOWN - 3) + "..."


def test_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"rcptgen-{os.getpid()}-{time.monotonic_ns()}"
    manager = Manager(f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    notify = Notify()
    notify.ready()
    assert manager.heard() == ["READY=1"]
    notify.close()
    manager.vanish()


def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify = Notify()
    assert not notify.wanted
    notify.ready()
    notify.stopping()
    notify.close()


def test_a_socket_that_never_was_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nothing"))
    notify = Notify()
    assert notify.wanted
    notify.ready()
    notify.watchdog()
    notify.close()


def test_a_socket_that_vanishes_and_comes_back_is_found_again(manager: Manager, notify: Notify) -> None:
    notify.watchdog()
    manager.vanish()
    notify.watchdog()
    notify.reloading()
    notify.status("lost")
    notify.ready("owed")
    manager.come_back()
    notify.status("heard")
    heard = manager.heard()
    assert heard[0].startswith("RELOADING=1\n")
    assert heard[1:] == ["READY=1\nSTATUS=owed", "STATUS=heard"]


def test_a_manager_that_does_not_listen_never_blocks_and_hears_of_ready_later(manager: Manager, notify: Notify) -> None:
    for _ in range(5000):
        notify.watchdog()
    notify.ready("at last")
    full = manager.heard()
    assert 0 < len(full) < 5000
    assert set(full) == {"WATCHDOG=1"}
    notify.watchdog()
    assert manager.heard() == ["READY=1\nSTATUS=at last", "WATCHDOG=1"]


def test_what_is_owed_is_bounded_and_ends_with_the_last_state(manager: Manager, notify: Notify) -> None:
    manager.vanish()
    for _ in range(100):
        notify.reloading()
        notify.ready()
    manager.come_back()
    notify.stopping()
    heard = [one.partition("\n")[0] for one in manager.heard()]
    assert heard == ["RELOADING=1", "READY=1"] * 2 + ["STOPPING=1"]


def test_nothing_is_said_after_close(manager: Manager, notify: Notify) -> None:
    notify.close()
    notify.close()
    notify.ready()
    assert manager.heard() == []


@pytest.mark.parametrize(
    ("microseconds", "pid", "interval"),
    [
        ("60000000", None, 30.0),
        ("60000000", "self", 30.0),
        ("60000000", "1", None),
        ("60000000", "x", None),
        ("0", None, None),
        ("-5", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_the_watchdog_interval_is_half_and_only_ours(
    monkeypatch: pytest.MonkeyPatch, microseconds: str | None, pid: str | None, interval: float | None
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(os.getpid()) if value == "self" else value)
    assert Notify().interval == interval


def test_a_missing_library_is_said_at_once_where_systemd_waits(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sdnotify", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'rcptgen\[systemd\]'"):
        Notify()
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not Notify().wanted
