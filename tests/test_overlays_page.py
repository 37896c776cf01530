"""docs/overlays.md: its configurations are taken, its rules are rules, and what it says of formats is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from everytarget import compiled

from rcptgen.config import Config, parse
from rcptgen.overlays import Overlays
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.overlay import Collector, Listing
from rcptgen.rules.overlay import parse as rules_of
from rcptgen.rules.table import Table
from rcptgen.targets import target

PAGE = (Path(__file__).parent.parent / "docs" / "overlays.md").read_text("utf-8")
BLOCKS = [(lang, text) for lang, text in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]
CONFIGURATIONS = [text for lang, text in BLOCKS if lang == "toml"]
LISTS = [text for lang, text in BLOCKS if not lang]

CLOSED = Table(
    {b"joe": Outcome(Verdict.DELIVER, Kind.MAILBOX, "")}, {b"": Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "")}
)


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_configurations(text: str) -> None:
    assert parse(text.encode(), "overlays.md") != Config()


def listed(text: str) -> Listing:
    return rules_of(text.encode(), Collector(), patterns=True)


@pytest.mark.parametrize("text", LISTS)
def test_lists_of_rules(text: str) -> None:
    found = listed(text)
    assert found.problem == ""
    assert found.rules


@pytest.mark.parametrize(
    "address",
    [
        b"SRS0=HHH=TT=far.example=fred@example.org",
        b"SRS1=HHH=far.example==HHH=TT=far.example=fred@example.org",
        b"srs0-HHH=TT=far.example=fred@example.org",
        b"prvs=0123456789=fred@example.org",
        b"SRS0=HHH=TT=far.example=fred@srs.example.org",
    ],
)
def test_rewritten_senders_are_let_in(address: bytes) -> None:
    stated = tuple(line for text in LISTS for line in text.splitlines() if not line.startswith("#"))
    local, _, domain = address.lower().rpartition(b"@")
    found = Overlays(stated, ()).match(local, domain)
    assert found is not None
    assert found.accepted


def lossless() -> list[str]:
    (sentence,) = re.findall(r"^(`postfix-pcre`.*?) say every prefix", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`]+)`", sentence)


@pytest.mark.parametrize("name", lossless())
def test_formats_that_say_every_prefix(name: str) -> None:
    with compiled(name, {b"example.org": Overlays(("srs0=*", "prvs=*"), ()).apply(CLOSED, b"example.org")}) as found:
        assert found.losses == 0
        assert found.reader.answer(b"srs0=x@example.org").accepted
        assert not found.reader.answer(b"nosuch@example.org").accepted


def test_validrcptto_opens_the_domain_for_a_prefix_that_does_not_end_at_the_break_character() -> None:
    for rule, opened in (("srs0=*", True), ("prvs=*", True), ("srs0-*", False), ("*@srs.example.org", False)):
        laid = {b"example.org": Overlays((rule,), ()).apply(CLOSED, b"example.org")}
        with compiled("validrcptto", laid) as found:
            assert found.reader.answer(b"nosuch@example.org").accepted is opened
            assert bool(found.widened) is opened
    assert target("validrcptto").wildcards == "widen"
