"""Hosts compiled for every target at once: every file is proved at every rule before it is published."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from databases import Databases
from everytarget import VARIANTS, called
from hosts import Vector, load_vectors

from rcptgen.compiler import Outcomes, Output, Request, compile_host
from rcptgen.config import Config
from rcptgen.host import Host
from rcptgen.targets import target
from rcptgen.targets.witness import Wrong, explained

VECTORS = Path(__file__).parent.parent / "vectors"
FOLDERS = ("qmail", "vpopmail", "fastforward", "ezmlm", "vmailmgr")

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    "vector", [one for folder in FOLDERS for one in load_vectors(VECTORS / folder)], ids=lambda vector: vector.name
)
def test_every_target_of_every_vector(
    vector: Vector, tmp_path: Path, databases: Databases, part: Callable[[str], None]
) -> None:
    """The compile itself proves each file at every rule; here the verdicts of the real programs are asked of it."""
    root = tmp_path / "root"
    vector.materialise(root)
    if vector.sql is not None and not vector.sql.get("unreachable"):
        part("mariadb" if vector.sql["dialect"] == "mysql" else "postgresql")
        databases.provide(root, vector.sql["dialect"], vector.sql["dump"])
    config = msgspec.convert(vector.settings, Config)
    with Host.open(root, config) as host:
        domains = {one.name for one in host.domains()}
    if not domains:
        pytest.skip("a host without domains")
    some = min(domains).decode("latin-1")
    outputs = []
    for number, (name, options) in enumerate(VARIANTS):
        wanted = {"domain": some} if name == "rcpt-map" else options
        outputs.append(Output(name, bytes(tmp_path / f"list{number}"), options=wanted))
    result = compile_host(root, config, Request(tuple(outputs), force=True, full=True))
    assert all(one.published for one in result.outputs)
    assert [wrong for one in result.outputs for wrong in _wrong(vector, domains, one)] == []


def _wrong(vector: Vector, domains: set[bytes], made: Outcomes) -> list[object]:
    """The probes that a file answers otherwise than the real programs, and nothing reported says so."""
    output = made.output
    chosen = target(output.target, options=output.options)
    asked = []
    for probe in vector.probes:
        local, _, domain = probe.address.rpartition(b"@")
        ordinary = local and b"@" not in local and domain.lower() in domains - made.left_out
        if ordinary and probe.expected != "remote" and not _unsayable(made, probe.address.lower()):
            asked.append((probe, probe.expected != "bounce"))
    reader = chosen.open(output.path)
    wrong: list[object] = []
    try:
        for (probe, wanted), answer in zip(asked, reader.answers([one.address for one, _ in asked]), strict=True):
            if answer.accepted == wanted:
                continue
            let_in = Wrong(probe.address, True, answer.key, answer.step)
            if wanted or explained([let_in], made.widened)[1]:
                wrong.append((called((output.target, output.options)), probe, answer))
    finally:
        reader.close()
    return wrong


def _unsayable(made: Outcomes, address: bytes) -> bool:
    rules = (one.rule.decode("latin-1").removeprefix("!") for one in made.unsayable)
    return any(fnmatch.fnmatchcase(address.decode("latin-1"), rule.replace("[", "[[]")) for rule in rules)
