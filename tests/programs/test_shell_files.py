"""What `test` says of files, as their owner sees them."""

from __future__ import annotations

import errno

import pytest
from fakelists import DIRECTORY, Home

from rcptgen.programs import builtin_models
from rcptgen.programs.shell import run_line
from rcptgen.qmail.model import UNKNOWN, Effect, Free, Presence, Situation, Text

FILES: dict[bytes, bytes | int] = {
    b"list/modpost": b"",
    b"list/text": b"x",
    b"list/program": b"#!/bin/sh\n",
    b"list/sub": DIRECTORY,
    b"list/odd": errno.EACCES,
}
MODES = {b"list/program": 0o755}


def run(line: str, **variables: Text) -> Effect:
    texts: dict[bytes, Text] = {b"PATH": b"/bin", b"HOME": b"/home", **{k.encode(): v for k, v in variables.items()}}
    return run_line(line.encode(), Situation(texts, lambda _: Presence.FOUND, Home(FILES, MODES)), builtin_models())


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("test -f /home/list/modpost", 0),
        ("test -f list/modpost", 0),
        ("test -e list/modpost", 0),
        ("test -s list/modpost", 1),
        ("test -s list/text", 0),
        ("test -d list/sub", 0),
        ("test -d list/modpost", 1),
        ("test -f list/sub", 1),
        ("test -f list/none", 1),
        ("test -f list/modpost/x", 1),
        ("test ! -f list/none", 0),
        ("test -f ''", 1),
        ("test -x list/program", 0),
        ("test -x list/text", 1),
        ("test -r list/text", 0),
        ("test -w list/none", 1),
        ("test -p list/text", 1),
        ("[ -f list/modpost ]", 0),
        ("test -f '/home/list/modpost' -a ! -f '/home/list/confirmpost'", 0),
        ("test -f list/none -o -d list/sub", 0),
        ("if test ! -f 'list/sublist'; then exit 5; fi", 5),
        ("if test -e list/none && exit 6; then exit 7; fi", 0),
        ('test -f "$HOME/list/text"', 0),
    ],
)
def test_tests_of_files_are_answered(line: str, status: int) -> None:
    found = run(line)
    assert found.statuses == {status}
    assert not found.approximate


@pytest.mark.parametrize(
    "line",
    [
        "test -L list/text",
        "test -t 1",
        "test -O list/text",
        "test list/text -nt list/modpost",
        "cd list; test -f text",
        'test -f "$X"',
        'test -f "$DEFAULT"',
    ],
)
def test_tests_that_nobody_can_answer(line: str) -> None:
    found = run(line, X=UNKNOWN, DEFAULT=Free())
    assert found.approximate
    assert {0, 1} <= found.statuses


def test_a_file_that_cannot_be_looked_at_for_now_is_not_taken_to_be_missing() -> None:
    situation = Situation({b"PATH": b"/bin"}, lambda _: Presence.FOUND)
    assert run_line(b"test -f list/text", situation, builtin_models()).statuses == {0, 1}


def test_an_absolute_name_means_the_same_wherever_the_shell_is() -> None:
    assert run("cd list; test -f /home/list/text").statuses == {0}
