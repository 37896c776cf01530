"""Conformance: every vector agrees, through both engines and through the compiled file.

The verdicts in tests/vectors are those of the real programs; see the README there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
import pytest
from databases import Databases
from hosts import Vector, load_vectors

from rcptgen.compiler import Output, Request, Result, compile_host
from rcptgen.config import Config
from rcptgen.host import DomainRules, Host
from rcptgen.lint import lint, pages
from rcptgen.rules.outcome import Verdict
from rcptgen.targets import target

VECTORS = Path(__file__).parent / "vectors"
SHOWN = 200
"""Characters of an address in the details of a probe that are never cut off."""

MODELLED = ("qmail", "vpopmail", "fastforward", "ezmlm", "vmailmgr")

pytestmark = pytest.mark.root


def vectors() -> Iterator[Vector]:
    for folder in MODELLED:
        yield from load_vectors(VECTORS / folder)


@pytest.fixture(params=vectors(), ids=lambda vector: vector.name)
def vector(request: pytest.FixtureRequest) -> Vector:
    found: Vector = request.param
    return found


@pytest.fixture
def config(vector: Vector) -> Config:
    return msgspec.convert(vector.settings, Config)


@pytest.fixture
def root(vector: Vector, tmp_path: Path, databases: Databases, part: Callable[[str], None]) -> Path:
    vector.materialise(tmp_path / "root")
    if vector.sql is not None and not vector.sql.get("unreachable"):
        part("mariadb" if vector.sql["dialect"] == "mysql" else "postgresql")
        databases.provide(tmp_path / "root", vector.sql["dialect"], vector.sql["dump"])
    return tmp_path / "root"


def test_decide_and_rules_agree_with_the_real_programs(vector: Vector, root: Path, config: Config) -> None:
    wrong = []
    with Host.open(root, config) as host:
        outcomes = host.decide_many([probe.address for probe in vector.probes])
        for probe, outcome in zip(vector.probes, outcomes, strict=True):
            if outcome.verdict != probe.expected:
                wrong.append(("decide", probe, outcome))
            local, at, domain = probe.address.rpartition(b"@")
            if not at:
                continue
            matched = host.rules(domain).match(local)
            if (matched.verdict, matched.kind) != (outcome.verdict, outcome.kind):
                wrong.append(("rules", probe, matched))
    assert not wrong


def test_every_way_ends_where_decide_says(vector: Vector, root: Path, config: Config) -> None:
    """What explain tells is no third opinion, and mail is forwarded to where the real programs did."""
    wrong: list[tuple[object, ...]] = []
    with Host.open(root, config) as host:
        addresses = [probe.address for probe in vector.probes]
        details = {probe.address: probe.detail for probe in vector.probes if probe.expected == "deliver"}
        leads = host.leads_many(addresses, whole=True)
        for address, outcome, (led, found) in zip(addresses, host.decide_many(addresses), leads, strict=True):
            traced = host.trace(address)
            seen = {
                line.removeprefix("forward ")[:SHOWN]
                for line in details.get(address, ())
                if line.startswith("forward ")
            }
            said = {one.address.decode("utf-8", "backslashreplace")[:SHOWN] for one in found.forwards}
            if seen and (not seen >= said if found.other else seen != said):
                wrong.append((address, outcome, seen, said))
            if traced.outcome != outcome or led.verdict != outcome.verdict:
                wrong.append((address, outcome, traced.outcome, led))
            if outcome.verdict is Verdict.DELIVER and not (found.forwards or found.other):
                wrong.append((address, outcome, traced.outcome, led))
            if not traced.steps or traced.steps[-1].text != outcome.reason:
                wrong.append((address, outcome, traced.outcome, led))
    assert not wrong


def test_the_compiled_file_agrees_with_the_real_programs(
    vector: Vector, root: Path, config: Config, tmp_path: Path
) -> None:
    file = bytes(tmp_path / "validrcptto.cdb")
    result = compile_host(root, config, Request((Output("validrcptto", file),), force=True))
    assert result.outputs[0].published
    widened = {one.key for one in result.outputs[0].widened}
    with Host.open(root, config) as host:
        domains = {one.name for one in host.domains()}
    reader = target("validrcptto").open(file)
    wrong = []
    for probe in vector.probes:
        local, at, domain = probe.address.rpartition(b"@")
        if not at or not local or b"@" in local or domain.lower() not in domains or probe.expected == "remote":
            continue
        answer = reader.answer(probe.address)
        wanted = probe.expected != "bounce"
        if answer.accepted == wanted or _unsayable(result, probe.address.lower()):
            continue
        if wanted or answer.key not in widened:
            wrong.append((probe, answer))
    reader.close()
    assert not wrong


def test_lint_looks_at_everything(root: Path, config: Config) -> None:
    with Host.open(root, config, look_at_mailboxes=False) as host:
        for one in lint(host):
            assert one.code in pages()
            assert one.file.startswith(b"/")
            assert one.text


def _unsayable(result: Result, address: bytes) -> bool:
    rules = (one.rule.decode("latin-1").removeprefix("!") for one in result.outputs[0].unsayable)
    return any(fnmatchcase(address.decode("latin-1"), rule.replace("[", "[[]")) for rule in rules)


def _widened(rules: DomainRules) -> set[tuple[bytes, bool]]:
    """The rules that are wider than the truth before any format comes into it: name, and whether a prefix."""
    return {(one.name, one.prefix) for one in rules.table()[0].rules() if one.outcome.widened}


def test_nothing_is_widened_that_the_format_could_say(root: Path, config: Config, tmp_path: Path) -> None:
    """A widened key covers a rule that has no key of its own, and without it an accepted name would be refused."""
    file = bytes(tmp_path / "validrcptto.cdb")
    result = compile_host(root, config, Request((Output("validrcptto", file),), force=True))
    with Host.open(root, config) as host:
        wide = {domain.name: _widened(host.rules(domain.name)) for domain in host.domains()}
    for one in result.outputs[0].widened:
        local, _, domain = one.rule.removeprefix(b"!").rpartition(b"@")
        if (local.removesuffix(b"*"), local.endswith(b"*")) in wide.get(domain, ()):
            continue
        no_key_of_its_own = local.removesuffix(b"*")[-1:] != b"-" if local.endswith(b"*") else True
        own = local.endswith(b"-default") or no_key_of_its_own or "rules" in one.reason
        assert own, one
