"""Outcomes: what is accepted, and how one outcome names the files of many names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.shown import as_json, shown

names = st.binary(max_size=6)


def named(file: bytes, at: int) -> Outcome:
    return Outcome(Verdict.DELIVER, Kind.FORWARD, "forwards", file, 1, named_from=at)


@pytest.mark.parametrize(
    ("verdict", "accepted"),
    [(Verdict.DELIVER, True), (Verdict.DEFER, True), (Verdict.BOUNCE, False), (Verdict.REMOTE, False)],
)
def test_deferred_mail_is_taken(verdict: Verdict, accepted: bool) -> None:
    assert Outcome(verdict, Kind.UNKNOWN, "").accepted is accepted


def test_a_name_completes_the_path() -> None:
    found = named(b"/home/joe/.qmail-", 0).at(b"list")
    assert (found.file, found.named_from) == (b"/home/joe/.qmail-list", -1)
    assert found.at(b"other") is found


@given(names, names, st.integers(0, 6))
def test_below_and_at_give_the_file_that_at_alone_gives(prefix: bytes, tail: bytes, at: int) -> None:
    outcome = named(b"/home/joe/.qmail-", at)
    assert outcome.below(prefix).at(tail) == outcome.at(prefix + tail)


@given(names, names, st.integers(0, 6))
def test_under_and_at_give_the_file_that_at_alone_gives(prefix: bytes, name: bytes, at: int) -> None:
    outcome = named(b"/home/joe/.qmail-", at)
    assert outcome.under(len(prefix)).at(prefix + name) == outcome.at(name)


@given(names, names, st.integers(0, 6))
def test_under_takes_below_back(prefix: bytes, tail: bytes, at: int) -> None:
    outcome = named(b"/x", at)
    assert outcome.below(prefix).under(len(prefix)).at(prefix + tail) == outcome.at(prefix + tail)
    assert outcome.below(prefix).below(tail).at(b"z") == outcome.below(prefix + tail).at(b"z")


def test_a_fixed_file_is_left_alone() -> None:
    outcome = Outcome(Verdict.DELIVER, Kind.MAILBOX, "maildir", b"/home/joe/.qmail", 1)
    assert outcome.at(b"a") is outcome.below(b"a") is outcome.under(3) is outcome


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"joe", "joe"),
        ("j\xf6e".encode(), "j\xf6e"),
        (b"j\xf6e", "j\\xf6e"),
        (b"\x1b[31m", "\\x1b[31m"),
        (b"a\nb\0", "a\\x0ab\\x00"),
        ("\u202e".encode(), "\\u202e"),
        ("\U000e0001".encode(), "\\U000e0001"),
    ],
)
def test_nothing_reaches_a_terminal_unescaped(data: bytes, text: str) -> None:
    assert shown(data) == text


@given(st.binary())
def test_what_is_shown_is_one_printable_line(data: bytes) -> None:
    assert shown(data).isprintable()


def test_json_has_the_exact_bytes_beside_a_text_that_lost_some() -> None:
    assert as_json("address", "j\xf6e@example".encode()) == {"address": "j\xf6e@example"}
    assert as_json("address", b"j\xf6e") == {"address": "j\\xf6e", "address_b64": "avZl"}
