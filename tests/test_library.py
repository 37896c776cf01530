"""`import rcptgen`: the library as a typed program uses it; mypy reads this file, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import pytest
from hosts import Host as Laid

import rcptgen

pytestmark = pytest.mark.root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    table: dict[str, Any] = {
        "passwd": {"joe": 1001},
        "control/me": "mail.example\n",
        "control/virtualdomains": "shop.example:joe-shop\n",
        "control/rcpthosts": "mail.example\nshop.example\nfar.example\n",
        "~joe/.qmail-shop-sales": "./Maildir/\n",
        "~joe/.qmail-list": "ann@far.example\n",
        "alias/.qmail-postmaster": "joe\n",
    }
    return Laid(tmp_path / "host", table).root


def test_a_host_decides_and_lists(root: Path) -> None:
    with rcptgen.Host.open(root) as host:
        assert_type(host, rcptgen.Host)
        outcome = host.decide("joe-list@mail.example")
        assert_type(outcome, rcptgen.Outcome)
        assert outcome.verdict is rcptgen.Verdict.DELIVER
        assert outcome.kind is rcptgen.Kind.FORWARD
        assert (outcome.file, outcome.line) == (b"/home/joe/.qmail-list", 1)
        assert host.decide(b"joe-nosuch@mail.example").verdict == "bounce"
        rules = host.rules("shop.example")
        assert_type(rules, rcptgen.DomainRules)
        assert rules.match("sales").verdict is rcptgen.Verdict.DEFER
        assert not rules.match(b"nosuch").accepted
        assert_type(host.domains(), list[rcptgen.Domain])
        assert [(one.name, one.kind) for one in host.domains()] == [
            (b"far.example", rcptgen.DomainKind.RELAY),
            (b"mail.example", rcptgen.DomainKind.LOCAL),
            (b"shop.example", rcptgen.DomainKind.VIRTUAL),
        ]
        many = host.decide_many(["joe@mail.example", b"nosuch@shop.example", "x@nowhere.example"])
        assert [one.verdict for one in many] == ["deliver", "bounce", "remote"]


def test_a_host_is_compiled(root: Path, tmp_path: Path) -> None:
    file = bytes(tmp_path / "validrcptto.cdb")
    request = rcptgen.Request((rcptgen.Output("validrcptto", file),))
    result = rcptgen.compile(root, rcptgen.Config(), request)
    assert_type(result, rcptgen.Result)
    assert result.status == 0
    (output,) = result.outputs
    assert (output.published, output.changed, output.widened) == (True, True, [])
    assert Path(tmp_path / "validrcptto.cdb").stat().st_mode & 0o777 == 0o644
    again = rcptgen.compile(root, rcptgen.Config(), request)
    assert not again.changed


def test_errors_are_one_family(tmp_path: Path) -> None:
    with pytest.raises(rcptgen.RcptgenError, match="neither locals nor me") as caught:
        rcptgen.Host.open(Laid(tmp_path / "host", {}).root)
    assert caught.value.status == 78


def test_what_is_exported_is_there() -> None:
    assert {"Host", "compile", "Request", "Output", "Config", "Outcome", "Verdict", "Kind"} <= set(rcptgen.__all__)
    assert all(getattr(rcptgen, name) is not None for name in rcptgen.__all__)
