"""decide() and rules() share parsers, not logic: on random hosts they never disagree.

What is compared: the verdict and the kind; for what is accepted also the file it rests on.
"""

from __future__ import annotations

import random
from fnmatch import fnmatchcase
from pathlib import Path

import inprocess
import parts
import pytest
import randomhosts
from hosts import Host as Laid
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from randomhosts import laid

from rcptgen.compiler import Output, Request, Result, compile_host
from rcptgen.config import Config
from rcptgen.host import Host
from rcptgen.localspace import Unsayable
from rcptgen.rules.outcome import Outcome, Verdict
from rcptgen.targets import target

pytestmark = pytest.mark.root

EXAMPLES = settings(
    max_examples=parts.rounds(150),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


AIMED = 60


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    inprocess.use(monkeypatch)


def aimed(host: Host, table: randomhosts.Table) -> list[bytes]:
    """Some of the addresses that the host's own files are about."""
    prepends = [(one.name, host.rules(one.name).prepend) for one in host.domains()]
    domains = [(name.decode("latin-1"), put.decode("latin-1")) for name, put in prepends if put is not None]
    found = randomhosts.aimed(table, domains)
    return random.Random(len(found)).sample(found, min(len(found), AIMED))


def asks(table: randomhosts.Table) -> bool:
    """Whether any line asks for EXT, LOCAL, DEFAULT or HOST."""
    return any("$" in getattr(thing, "content", "") for thing in table.values())


def plain(address: bytes) -> bool:
    """The one spelling of a name that tests of the environment are judged by."""
    return address == address.lower() and b":" not in address


def left_out(unsayable: list[Unsayable], local: bytes) -> bool:
    """Whether names cannot spell this local part, and the table says so."""
    return any(fnmatchcase(local.replace(b":", b".").decode("latin-1"), rule) for rule in rules(unsayable))


def rules(unsayable: list[Unsayable]) -> list[str]:
    return [one.rule.replace(b":", b".").decode("latin-1").replace("[", "[[]") for one in unsayable]


def same(one: Outcome, other: Outcome) -> bool:
    """Whether two engines say the same; a rule that is marked as wider may accept what the other bounces."""
    if other.widened:
        return other.accepted
    file = one.file == other.file or not one.accepted
    return (one.verdict, one.kind, one.line) == (other.verdict, other.kind, other.line) and file


@EXAMPLES
@given(
    table=randomhosts.hosts(),
    config=randomhosts.configs(),
    wanted=st.lists(randomhosts.addresses(), min_size=1, max_size=25),
)
def test_decide_and_rules_and_their_table_say_the_same(
    tmp_path: Path, table: randomhosts.Table, config: Config, wanted: list[bytes]
) -> None:
    asking = asks(table) or "$" in config.qmail.default_delivery
    with laid(tmp_path, table) as root, Host.open(root, config) as host:
        wanted = wanted + aimed(host, table)
        for address, outcome in zip(wanted, host.decide_many(wanted), strict=True):
            if asking and not plain(address):
                continue
            local, at, domain = address.rpartition(b"@")
            if not at:
                route = host.routing.percent(address)
                local, _, domain = route.rpartition(b"@")
            matched = host.rules(domain).match(local)
            note(f"{address!r}: {outcome} {matched}")
            assert same(outcome, matched), address
            if b"//" in local or (host.rules(domain).percent_hacked and b"%" in local):
                continue
            flat, unsayable = host.rules(domain).table()
            found = flat.match(local.lower())
            assert found is not None, address
            note(f"table: {found}")
            assert same(matched, found) or left_out(unsayable, local.lower()), address


@EXAMPLES
@given(
    table=randomhosts.hosts(asking=False, slashes=False),
    config=randomhosts.configs(),
    wanted=st.lists(randomhosts.addresses(), min_size=1, max_size=25),
)
def test_the_compiled_file_refuses_nothing_that_the_host_takes(
    tmp_path: Path, table: randomhosts.Table, config: Config, wanted: list[bytes]
) -> None:
    assume("$" not in config.qmail.default_delivery)
    with laid(tmp_path, table) as root:
        file = bytes(root.parent / "validrcptto.cdb")
        result = compile_host(root, config, Request((Output("validrcptto", file),), force=True))
        widened = {one.key for one in result.outputs[0].widened}
        reader = target("validrcptto", break_=config.qmail.break_.encode()).open(file)
        try:
            with Host.open(root, config) as host:
                domains = {one.name for one in host.domains()}
                wanted = wanted + aimed(host, table)
                for address, outcome in zip(wanted, host.decide_many(wanted), strict=True):
                    local, at, domain = address.lower().rpartition(b"@")
                    hacked = host.rules(domain).percent_hacked and b"%" in local
                    if not (at and local) or b"@" in local or b"/" in local or domain not in domains or hacked:
                        continue
                    if outcome.verdict is Verdict.REMOTE or unsayable(result, address.lower()):
                        continue
                    answer = reader.answer(address)
                    note(f"{address!r}: {outcome} {answer}")
                    assert answer.accepted or not outcome.accepted, address
                    assert not answer.accepted or outcome.accepted or answer.key in widened, address
        finally:
            reader.close()


def unsayable(result: Result, address: bytes) -> bool:
    return any(
        fnmatchcase(address.replace(b":", b".").decode("latin-1"), rule.removeprefix("!"))
        for rule in rules([Unsayable(one.rule, one.reason, one.file, one.line) for one in result.outputs[0].unsayable])
    )


def test_a_user_that_is_known_does_not_take_the_mail_of_a_longer_name(tmp_path: Path) -> None:
    """joe was looked at before; whether joe-list is a user must be looked at all the same."""
    found = Laid(tmp_path / "host", {"control/me": "a.example\n", "passwd": {"joe": 1001, "joe-list": 1002}})
    with Host.open(found.root) as host:
        host.decide("joe@a.example")
        assert host.decide("joe-list-x@a.example").file == b"/home/joe-list/.qmail-x"
