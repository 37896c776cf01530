"""Where decide() and rules() once disagreed about hosts whose dot-qmail files run delivery programs."""

from __future__ import annotations

from pathlib import Path

import inprocess
import pytest
from hosts import Dir, File, cdb_bytes
from hosts import Host as Laid
from runs import Names

from rcptgen.host import Host
from rcptgen.rules.outcome import Outcome, Verdict

pytestmark = pytest.mark.root

VPOPMAIL: Names = {
    "passwd": {"vpopmail": "vpopmail:x:89:89::/home/vpopmail:"},
    "control/me": "mail.example\n",
    "control/virtualdomains": "shop.example:shop.example\n",
    "users/assign": "+shop.example-:shop.example:89:89:/home/vpopmail/domains/shop.example:-::\n.\n",
    "/home/vpopmail/bin/vdelivermail": File("", mode=0o711),
}
HOME = "~vpopmail/domains/shop.example"


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    inprocess.use(monkeypatch)


def asked(root: Path, address: bytes) -> tuple[Outcome, Outcome, Outcome]:
    """What decide, the rules, and their table say of one address."""
    local, _, domain = address.rpartition(b"@")
    with Host.open(root) as host:
        found = host.rules(domain).table()[0].match(local.lower())
        assert found is not None
        return host.decide(address), host.rules(domain).match(local), found


@pytest.mark.parametrize("domain", [b"mail.example", b"shop.example"])
def test_names_of_a_longer_account_are_not_given_to_the_program_of_a_shorter_one(tmp_path: Path, domain: bytes) -> None:
    """The account joe-list owns joe-list-return-x, although joe has a .qmail-list-return-default."""
    laid = Laid(
        tmp_path / "root",
        {
            "passwd": {"joe": 1001, "joe-list": 1002},
            "control/me": "mail.example\n",
            "control/virtualdomains": "shop.example:joe\n",
            "/var/qmail/bin/fastforward": File("", mode=0o755),
            "~joe/aliases.cdb": File(cdb_bytes([(b":x@", b"&ann@far.example\0")])),
            "~joe/.qmail-list-return-default": "|fastforward -d aliases.cdb\n",
            "~joe-list": Dir(),
        },
    )
    for tail in (b"x", b"y"):
        name = b"joe-list-return-" + tail if domain == b"mail.example" else b"list-return-" + tail
        for found in asked(laid.root, name + b"@" + domain):
            assert found.verdict is Verdict.BOUNCE
            assert found.file.startswith(b"/home/joe-list/")


@pytest.mark.parametrize(
    "line",
    [
        "except {} x@far.example",
        "{} delete || exit 99; exit 100",
        "{} x@far.example && exit 100; exit 0",
        "if {} delete; then exit 100; else exit 99; fi",
    ],
)
def test_names_that_a_program_refuses_may_be_accepted_by_what_stands_around_it(tmp_path: Path, line: str) -> None:
    """A name that vpopmail takes for invalid is refused, and the line makes a delivery of that."""
    text = "|" + line.replace("{}", "/home/vpopmail/bin/vdelivermail ''") + "\n"
    laid = Laid(tmp_path / "root", {**VPOPMAIL, f"{HOME}/.qmail-default": text})
    decided, matched, found = asked(laid.root, b"a:b@shop.example")
    assert decided.verdict is matched.verdict is Verdict.DELIVER
    assert found.accepted
    assert found.widened
    assert [one.verdict for one in asked(laid.root, b"ab@shop.example")][:2] == [Verdict.BOUNCE] * 2


def test_a_deferral_for_most_names_does_not_hide_that_others_bounce(tmp_path: Path) -> None:
    program = "/home/vpopmail/bin/vdelivermail ''"
    text = f"|bouncesaying no {program} /nowhere/x\n|{program} bounce-no-mailbox\n"
    laid = Laid(tmp_path / "root", {**VPOPMAIL, f"{HOME}/.qmail-default": text})
    decided, matched, found = asked(laid.root, b"a:b@shop.example")
    assert decided.verdict is matched.verdict is Verdict.BOUNCE
    assert found.widened
    assert asked(laid.root, b"ab@shop.example")[1].verdict is Verdict.DEFER
