"""What lint says of random hosts is true of their rules."""

from __future__ import annotations

from pathlib import Path

import inprocess
import parts
import pytest
import randomhosts
from hosts import BadTree, remove
from hosts import Host as Laid
from hypothesis import HealthCheck, Phase, assume, given, note, settings

from rcptgen.host import Host
from rcptgen.lint import Finding, lint, pages
from rcptgen.rules.outcome import Outcome, Verdict

pytestmark = pytest.mark.root

UNREACHED = {"H104", "H105", "H106", "H107"}
DEFERS = {"H111", "H113"}
"""For whoever reads the file; H112 may be said for one owner of a home, and another one may read it."""

Rules = dict[tuple[bytes, bytes, bool], Outcome]


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    inprocess.use(monkeypatch)


def looked_at(root: Path) -> tuple[list[Finding], Rules]:
    """Every finding, and every rule of every domain: by domain, name, and whether a prefix."""
    with Host.open(root) as host:
        rules: Rules = {}
        for domain in host.domains():
            for one in host.rules(domain.name).table()[0].rules():
                outcome = one.outcome if one.prefix else one.outcome.at(one.name)
                rules[domain.name, one.name, one.prefix] = outcome
        return list(lint(host)), rules


def verdicts(rules: Rules) -> dict[tuple[bytes, bytes, bool], str]:
    """The verdict of each rule, but for the second names that the account alias gives to what it answers for all."""
    return {key: str(one.verdict) for key, one in rules.items() if b"alias-" not in key[1]}


def test_a_virtual_domain_by_way_of_the_account_alias_reaches_its_files(tmp_path: Path) -> None:
    """Also where somebody else has those names in local domains."""
    table: randomhosts.Table = {
        "passwd": {"ann": 1001},
        "control/me": "mail.example\n",
        "control/locals": "mail.example\n",
        "control/virtualdomains": "shop.example:alias-ann\n",
        "alias/.qmail-ann-info": "./Mailbox\n",
        "alias/.qmail-ann-default": "./Mailbox\n",
        "alias/.qmail-ann": "./Mailbox\n",
    }
    laid = Laid(tmp_path, table)
    found, _ = looked_at(laid.root)
    assert {one.file for one in found if one.code in UNREACHED} == {b"/var/qmail/alias/.qmail-ann"}


@settings(
    max_examples=parts.rounds(60),
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(table=randomhosts.hosts())
def test_a_file_that_is_not_reached_makes_no_rule(tmp_path: Path, table: randomhosts.Table) -> None:
    """And one that defers, as lint has it, is the reason for nothing but deferrals."""
    where = tmp_path / "host"
    try:
        laid = Laid(where, table)
    except BadTree:
        remove(where)
        assume(False)
    try:
        found, rules = looked_at(laid.root)
        for one in found:
            note(f"{one.code} {one.file!r}:{one.line} {one.text}")
            assert one.code in pages()
            if one.code in DEFERS:
                assert {rule.verdict for rule in rules.values() if rule.file == one.file} <= {Verdict.DEFER}
        for one in found:
            if one.code in UNREACHED:
                path = Path(f"{laid.root}{one.file.decode()}")
                if path.is_dir() and not path.is_symlink():
                    remove(path)
                else:
                    path.unlink()
        assert verdicts(looked_at(laid.root)[1]) == verdicts(rules)
    finally:
        remove(where)
