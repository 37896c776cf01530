"""dot-forward, autorespond, mailman's wrapper and safecat, as their sources have them; filters."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

import pytest
from fakehome import Files, situation, start
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.programs import builtin_models
from rcptgen.programs.dotforward import Unparsable, addresses
from rcptgen.programs.filters import FILTERS
from rcptgen.qmail.model import UNKNOWN, Effect, Free, Presence, Situation, Text
from rcptgen.rules.outcome import Kind
from rcptgen.source.tree import Absent, Failure, Refused, Status


class Home(Files):
    """A home in which all files may be read, and directories are the names given."""

    def __init__(self, files: dict[bytes, bytes | int], directories: tuple[bytes, ...] = ()) -> None:
        super().__init__(files)
        self.directories = {self.path(name) for name in directories}

    def accessible(self, name: bytes, mode: int) -> Status | Failure:
        path = self.path(name)
        if path in self.directories:
            return Status(stat.S_IFDIR | 0o755, 0, 0, 0, 1, 1, 0, 0)
        if path not in self.files:
            return Absent(errno.ENOENT)
        return self.status(name) if mode == os.R_OK else Refused(errno.EACCES)


def run(line: bytes, files: dict[bytes, bytes | int] | None = None, *more: Text, **variables: Text) -> Effect:
    words: list[Text] = [*line.split(), *more]
    assert isinstance(words[0], bytes)
    home = Home(files or {}, (b"new", b"tmp"))
    texts: dict[str, Text] = {"USER": b"joe", "HOST": b"h.example"}
    return builtin_models()[words[0].rpartition(b"/")[2]].run(words, situation(home, **texts | variables), start)


FORWARDS = {
    b"": 0,
    b"# x@y\n\n": 0,
    b"x@y": 99,
    b"\\joe, x@y\n": 0,
    b"JOE\n": 0,
    b"Joe@H.example": 0,
    b"joe@other": 99,
    b"Joe Cool <x@y> (at work)\n": 99,
    b"()": 0,
    b"<>": 0,
    b"/var/mail/joe": 111,
    b"/var/mail@host": 99,
    b":include:/list\n": 111,
    b'x@y, "|exit 0"': 99,
    b'"|exit 0"\n': 99,
    b'"|exit 100"\nx@y': 100,
    b'"|exit 77"': 100,
    b'"|exit 99"': 111,
    b'"|exit 1", "|exit 100"': 100,
    b"x@y (": 111,
    b"x@y\n)": 111,
    b"x@y>": 111,
    b"x" * 1003 + b"@y": 100,
}


@pytest.mark.parametrize("content", FORWARDS, ids=range(len(FORWARDS)))
def test_dot_forward_goes_by_the_addresses(content: bytes) -> None:
    effect = run(b"dot-forward .forward", {b".forward": content})
    assert effect.statuses == {FORWARDS[content]}
    assert not effect.approximate


def test_dot_forward_and_its_files() -> None:
    assert run(b"dot-forward").statuses == {0}
    assert run(b"dot-forward -x f").statuses == {100}
    assert run(b"dot-forward none").statuses == {0}
    assert run(b"dot-forward none f", {b"f": b"x@y"}).statuses == {99}
    assert run(b"dot-forward e f", {b"e": b"#\n", b"f": b"x@y"}).kind is Kind.FORWARD
    assert run(b"dot-forward own f", {b"own": b"joe", b"f": b"x@y"}).statuses == {0}
    assert run(b"dot-forward -- -f", {b"-f": b"x@y"}).statuses == {99}
    assert run(b"dot-forward -n f", {b"f": b'"|exit 100"'}).statuses == {99}
    for number in (errno.EACCES, errno.EISDIR, errno.EIO):
        assert run(b"dot-forward f", {b"f": number}).statuses == {111}
    assert run(b"dot-forward f", {b"f": errno.EPIPE}).statuses == {0}


def test_dot_forward_with_what_nobody_knows() -> None:
    vague = run(b"dot-forward f", {b"f": b'"|what"'})
    assert (vague.statuses, vague.approximate) == (frozenset({99, 100, 111}), True)
    assert run(b"dot-forward", {}, UNKNOWN).approximate
    assert run(b"dot-forward f", {b"f": bytes(1 << 20)}).approximate
    host = Free()
    assert run(b"dot-forward f", {b"f": b"joe@h"}, HOST=host).approximate
    assert host.opaque
    assert run(b"dot-forward f", {b"f": b"joe@h"}, HOST=Free(lowered=b"h")).statuses == {0}
    assert run(b"dot-forward f", {b"f": b"joe"}, USER=UNKNOWN).approximate
    assert run(b"dot-forward f", {b"f": b'"|exit 0",' * 99}).approximate


@given(
    st.binary()
    | st.lists(st.sampled_from([b"a", b'"', b"(", b")", b"<", b">", b"\\", b"@", b",", b"|x"])).map(b"".join)
)
def test_any_line_of_a_forward_file_can_be_read(line: bytes) -> None:
    try:
        found = list(addresses(line))
    except Unparsable:
        found = []
    assert all(text for text, _ in found)
    run(b"dot-forward f", {b"f": line.replace(b"|", b"")})


def test_autorespond() -> None:
    message: dict[bytes, bytes | int] = {b"vac/message": b"From: joe\n\nAway.\n"}
    answers = run(b"/usr/bin/autorespond 86400 3 vac/message vac", message)
    assert (answers.statuses, answers.kind, answers.approximate) == (frozenset({0, 100, 111}), Kind.PROGRAM, True)
    assert run(b"autorespond 86400 3 vac/none vac", message).statuses == {111}
    assert run(b"autorespond 86400 3 new vac", message).statuses == {111}
    assert run(b"autorespond 86400 3 vac/message", message).statuses == {111}
    assert run(b"autorespond 1 2 vac/message vac 1 + more", message).statuses == {111}
    assert run(b"autorespond 1 2", message, UNKNOWN, b"vac").approximate


def test_mailman() -> None:
    posted = run(b"/usr/lib/mailman/mail/mailman post staff")
    assert (posted.statuses, posted.kind) == (frozenset({0, 111}), Kind.LIST)
    assert run(b"mailman").statuses == {5}
    assert run(b"mailman mailcmd staff").statuses == {6}
    assert run(b"mailman post").statuses == {1}
    assert run(b"mailman post", {}, UNKNOWN).kind is Kind.LIST


def test_a_wrapper_of_lists_is_one() -> None:
    assert run(b"/usr/lib/majordomo/wrapper resend -l staff staff-list").kind is Kind.LIST
    assert run(b"/home/mailman/mail/wrapper post staff").kind is Kind.LIST
    assert run(b"/opt/wrapper x").kind is Kind.PROGRAM
    assert run(b"/opt/wrapper").approximate


def test_safecat() -> None:
    assert run(b"safecat tmp new") == Effect(frozenset({0}), Kind.MAILBOX, "safecat writes the message")
    assert run(b"safecat tmp none").statuses == {111}
    assert run(b"safecat f new", {b"f": b""}).statuses == {111}
    assert run(b"safecat tmp").statuses == {100}
    assert run(b"safecat tmp", {}, UNKNOWN).approximate


# --- programs that go by the message ---------------------------------------------------------------


@pytest.mark.parametrize("name", [name for one in FILTERS for name in one.names], ids=os.fsdecode)
def test_what_goes_by_the_message_delivers_and_says_so(name: bytes) -> None:
    found = builtin_models()[name].run([name, b"x"], Situation({}, lambda command: Presence.FOUND), _nothing)
    assert found.approximate
    assert {0, 100} <= found.statuses
    assert "goes by the message" in found.reason


def _nothing(words: Sequence[Text]) -> Effect:
    raise AssertionError("starts nothing")
