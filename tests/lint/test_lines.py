"""Lines of dot-qmail files are looked at as far as a message comes, and no further."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hosts import File, Host
from runs import forked_workers

from rcptgen.host import Host as Opened
from rcptgen.lint import lint
from rcptgen.programs.shellcalls import calls, plain_words
from rcptgen.programs.shellscan import ShellSyntaxError

HOST: dict[str, Any] = {
    "passwd": {"joe": 1001},
    "control/me": "example.org\n",
    "control/rcpthosts": "example.org\n",
    "alias/.qmail-postmaster": "joe\n",
    "/usr/bin/spamc": File("#!/bin/sh\n", mode=0o755),
    "/usr/bin/odd": File("#!/bin/sh\n", mode=0o755),
    "/usr/bin/data": File("", mode=0o644),
}
LINES = {
    "|exit 99\n|false\n": [],
    "|true\n|false\n": [("L108", 2)],
    "|/usr/bin/odd && exit 99 || exit 0\n|false\n": [("L106", 1), ("L108", 2)],
    "|exit 100\n./nodir/\n": [("L109", 1)],
    "./Mailbox\n|exit 100\n": [("L110", 2)],
    "./nodir/\n|exit 100\n": [("L104", 1)],
    "|/usr/bin/spamc | /usr/bin/odd\n": [("L106", 1)],
    "|/usr/bin/data\n": [("L105", 1)],
    "|bouncesaying no /usr/bin/none\n": [("L105", 1)],
    "|if /usr/bin/none; then exit 0; fi\n": [("L105", 1)],
    "+list\nann@far.example\n|true\n": [("H114", 3)],
    "&|true\n": [("L103", 1), ("F101", 1), ("F103", 1)],
    "ann@far.example, bob@far.example\n": [("L103", 1)],
    '"ann b"@far.example\n': [],
    "&ann@far.example\n": [],
    "ann@far.example\n\nbob@far.example\n": [],
    "joe-nosuch\nann@far.example\n": [("F101", 1)],
    "|forward joe-nosuch@example.org\n": [("F103", 1)],
    "|forward joe-nosuch@example.org ann@far.example\n": [],
    "# &\nann@far.example\n": [],
}


@pytest.mark.root
@pytest.mark.parametrize("content", LINES)
def test_lines(content: str, tmp_path: Path) -> None:
    laid = Host(tmp_path / "host", {**HOST, "~joe/.qmail-x": content})
    with forked_workers(), Opened.open(laid.root, look_at_mailboxes=False) as host:
        found = [(one.code, one.line) for one in lint(host)]
    assert found == LINES[content]


def test_commands_of_a_line() -> None:
    assert calls(b"a | b && c; (d); { e; } & if f; then g; else h; fi") == tuple(
        letter.encode() for letter in "abcdefgh"
    )
    assert calls(b"preline -f except 'x y' z") == (b"preline", b"except", b"x y")
    assert calls(b"$X y; `z`; exec -a b c; exec d") == (b"exec", b"d")
    assert calls(b"case $EXT in a) b;; esac > c") == (b"b",)
    assert calls(b"") == ()
    with pytest.raises(ShellSyntaxError):
        calls(b"if")


def test_plain_words() -> None:
    assert plain_words(b" a 'b c' \"\"") == (b"a", b"b c", b"")
    for line in (b"a $X", b"a | b", b"a; b", b"a && b", b"X=1 a", b"a *", b"(a)", b"'"):
        assert plain_words(line) is None
