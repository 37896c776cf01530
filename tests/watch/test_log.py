"""The lines of the service, for journald and for a plain file, and that no log ever holds it up."""

from __future__ import annotations

import logging
import os
import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rcptgen.watch import log


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    loggers = [logging.getLogger(name) for name in (log.LOGGER, "watchdog")]
    before = [(one, one.level, one.propagate) for one in loggers]
    yield
    for logger, level, propagate in before:
        logger.handlers = [one for one in logger.handlers if not isinstance(one, log.Handler)]
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """A pipe: what reads it, what writes it."""
    with ExitStack() as stack:
        found = os.pipe()
        for end in found:
            stack.callback(_close, end)
        os.set_blocking(found[0], False)
        yield found


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        # The test closed it.
        pass


def name_in_environment(monkeypatch: pytest.MonkeyPatch, descriptor: int) -> None:
    status = os.fstat(descriptor)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")


def test_lines_for_the_journal_have_a_priority_and_no_time(
    ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = ends
    name_in_environment(monkeypatch, writer)
    logger = log.setup(verbose=True, descriptor=writer)
    logger.debug("debug")
    logger.info("published %d records", 89)
    logger.warning("bad\nname \x1b[31m \udcff ü")
    logger.error("error")
    logger.critical("critical")
    assert os.read(reader, 4096).decode().splitlines() == [
        "<7>debug",
        "<6>published 89 records",
        "<4>bad\\x0aname \\x1b[31m \\xff ü",
        "<3>error",
        "<2>critical",
    ]


def test_other_lines_have_the_local_time(ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XXX-5:30")
    time.tzset()
    reader, writer = ends
    logger = log.setup(descriptor=writer)
    logger.info("published")
    logger.warning("held")
    published, held = os.read(reader, 4096).decode().splitlines()
    monkeypatch.delenv("TZ")
    time.tzset()
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0530"
    assert re.fullmatch(f"{moment} published", published)
    assert re.fullmatch(f"{moment} warning: held", held)


def test_a_stream_of_another_file_is_not_the_journal(
    ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with open(tmp_path / "log", "w") as file:
        name_in_environment(monkeypatch, ends[1])
        assert log.is_journal(ends[1])
        assert not log.is_journal(file.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", "nonsense")
    assert not log.is_journal(ends[1])
    assert not log.is_journal(999)


@pytest.mark.parametrize(
    ("options", "heard"),
    [({}, ["info", "error"]), ({"quiet": True}, ["error"]), ({"verbose": True}, ["debug", "info", "error"])],
)
def test_how_much_is_said(ends: tuple[int, int], options: dict[str, bool], heard: list[str]) -> None:
    reader, writer = ends
    logger = log.setup(descriptor=writer, **options)
    logger.debug("debug")
    logger.info("info")
    logger.error("error")
    assert [line.split()[-1] for line in os.read(reader, 4096).decode().splitlines()] == heard


def test_setup_again_says_nothing_twice_and_watchdog_is_heard(ends: tuple[int, int]) -> None:
    reader, writer = ends
    log.setup(descriptor=writer)
    log.setup(descriptor=writer).info("once")
    watchdog = logging.getLogger("watchdog.observers.inotify")
    watchdog.info("chatter")
    watchdog.warning("overflow")
    assert [line.split()[-1] for line in os.read(reader, 4096).decode().splitlines()] == ["once", "overflow"]


def test_a_traceback_is_lines_of_the_same_form(ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = ends
    name_in_environment(monkeypatch, writer)
    logger = log.setup(descriptor=writer)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("a bug")
    lines = os.read(reader, 4096).decode().splitlines()
    assert lines[:2] == ["<3>a bug", "<3>  Traceback (most recent call last):"]
    assert all(line.startswith("<3>  ") for line in lines[1:])
    assert "  ValueError: two" in lines[-2]


def test_a_message_that_cannot_be_made_is_said_all_the_same(ends: tuple[int, int]) -> None:
    reader, writer = ends
    log.setup(descriptor=writer).info("%d of them", "many")
    assert os.read(reader, 4096).decode().rstrip().endswith("'%d of them' with ('many',)")


def test_a_long_line_is_cut(ends: tuple[int, int]) -> None:
    reader, writer = ends
    log.setup(descriptor=writer).info("ü" * 10000)
    (line,) = os.read(reader, 1 << 16).decode().splitlines()
    assert line.endswith("üüü...")
    assert log.MOST_BYTES - 4 <= len(line.encode()) <= log.MOST_BYTES


def test_a_full_pipe_stops_nobody_and_what_was_lost_is_counted(ends: tuple[int, int]) -> None:
    reader, writer = ends
    logger = log.setup(descriptor=writer)
    for number in range(3000):
        logger.info("line %d %s", number, "x" * 100)
    written = _all(reader).splitlines()
    assert 0 < len(written) < 3000
    logger.info("again")
    again, lost = _all(reader).splitlines()
    assert again.endswith(" again")
    assert lost.endswith(f" warning: {3000 - len(written)} lines before this one could not be written")
    logger.info("as before")
    assert len(_all(reader).splitlines()) == 1


def _all(reader: int) -> str:
    data = b""
    while select.select([reader], [], [], 0)[0]:
        data += os.read(reader, 1 << 16)
    return data.decode()


def test_a_full_socket_stops_nobody() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        logger = log.setup(descriptor=ours.fileno())
        for _ in range(1000):  # more than the buffers of a socket hold: one that waits would wait for ever
            logger.info("x" * 1000)
        assert os.get_blocking(ours.fileno())  # others may share it
        assert theirs.recv(10)


def test_a_reader_that_is_gone_stops_nobody(ends: tuple[int, int]) -> None:
    reader, writer = ends
    logger = log.setup(descriptor=writer)
    os.close(reader)
    logger.info("nobody reads")
    os.close(writer)
    logger.info("closed")
    logger.error("still")


def test_a_plain_file_is_written(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w") as file:
        log.setup(descriptor=file.fileno()).info("published")
    assert (tmp_path / "log").read_text().endswith(" published\n")
