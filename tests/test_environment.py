"""Program lines that look at the address: the constants they ask for become names of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hosts import Host as Tree

from rcptgen.host import Host

pytestmark = pytest.mark.root

LINES = {
    "~joe/.qmail-p-default": '|test "$DEFAULT" = a-b && exit 0; exit 100\n',
    "~joe/.qmail-q-default": '|test "$DEFAULT" = a-b && exit 0; exit 100\n',
    "~joe/.qmail-q-a-default": "|exit 100\n",
    "~joe/.qmail-x": '|case "$EXT" in x|X) exit 0;; esac; exit 100\n',
    "~joe/.qmail-env": '|test "$EXT" = env || exit 100\n',
    "~joe/.qmail-host": '|test "$HOST" = one.example || exit 100\n',
}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    control = {"control/me": "one.example\n", "control/locals": "one.example\ntwo.example\n"}
    Tree(tmp_path / "root", {**control, "passwd": {"joe": 1001}, **LINES})
    return Host.open(tmp_path / "root")


@pytest.mark.parametrize(
    ("address", "verdict"),
    [
        ("joe-p-a-b@one.example", "deliver"),
        ("joe-p-a@one.example", "bounce"),
        ("joe-q-a-b@one.example", "bounce"),
        ("joe-q-a@one.example", "bounce"),
        ("joe-x@one.example", "deliver"),
        ("joe-X@one.example", "deliver"),
        ("joe-env@one.example", "deliver"),
        ("joe-host@one.example", "deliver"),
        ("joe-host@two.example", "bounce"),
    ],
)
def test_both_engines_know_the_constants(host: Host, address: str, verdict: str) -> None:
    local, _, domain = address.partition("@")
    assert host.decide(address).verdict == verdict
    assert host.rules(domain).match(local).verdict == verdict
    flat, _ = host.rules(domain).table()
    found = flat.match(local.lower().encode())
    assert found is not None
    assert found.verdict == verdict
    host.close()


def test_what_only_the_case_tells_apart_is_accepted_and_reported(host: Host) -> None:
    assert host.decide("joe-ENV@one.example").verdict == "bounce"
    assert host.rules("one.example").match("joe-ENV").verdict == "bounce"
    found = host.rules("one.example").table()[0].match(b"joe-env")
    assert found is not None
    assert found.accepted
    assert found.widened
    host.close()
