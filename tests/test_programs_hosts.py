"""decide() and rules() never disagree on random hosts whose dot-qmail files run delivery programs.

The rules of the comparison are those of test_two_engines.py.  A name of 156 bytes or more at
a domain of vpopmail is cut, so that prefix rules stand for it.
"""

from __future__ import annotations

from pathlib import Path

import inprocess
import parts
import pytest
import randomhosts
import randomprograms
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from randomhosts import laid
from test_two_engines import left_out, plain, unsayable

from rcptgen.compiler import Output, Request, compile_host
from rcptgen.config import Config
from rcptgen.host import Host
from rcptgen.localspace import Unsayable
from rcptgen.rules.outcome import Outcome, Verdict
from rcptgen.rules.table import Table
from rcptgen.targets import target

pytestmark = pytest.mark.root

EXAMPLES = settings(
    max_examples=parts.rounds(40),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)

AIMED = 60
LONG = 150


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    inprocess.use(monkeypatch)


def aimed(host: Host, made: randomprograms.Made) -> list[bytes]:
    """Addresses that the host's own files and databases are about."""
    prepends = [(one.name, host.rules(one.name).prepend) for one in host.domains()]
    domains = [(name.decode("latin-1"), put.decode("latin-1")) for name, put in prepends if put is not None]
    return randomprograms.aimed(made, domains, AIMED)


def alike(one: Outcome, other: Outcome, *, exactly: bool) -> bool:
    """`same` but for what a refusal rests on; or, unless `exactly`, only whether it is accepted.

    A rule for users of vpopmail names the file that they are in, never a user's own.
    """
    if other.widened or not exactly:
        return other.accepted if one.accepted or other.widened else not other.accepted
    place = not one.accepted or other.file.endswith(b"/vpasswd.cdb") or (one.file, one.line) == (other.file, other.line)
    return (one.verdict, one.kind) == (other.verdict, other.kind) and place


@EXAMPLES
@given(
    made=randomprograms.hosts(),
    config=randomprograms.configs(),
    wanted=st.lists(randomhosts.addresses(), min_size=1, max_size=10),
    look=st.booleans(),
)
def test_decide_and_rules_and_their_table_say_the_same(
    tmp_path: Path, made: randomprograms.Made, config: Config, wanted: list[bytes], look: bool
) -> None:
    flats: dict[bytes, tuple[Table, list[Unsayable]]] = {}
    with laid(tmp_path, made.table) as root, Host.open(root, config, look_at_mailboxes=look) as host:
        wanted = wanted + aimed(host, made)
        for address, outcome in zip(wanted, host.decide_many(wanted), strict=True):
            local, at, domain = address.rpartition(b"@")
            if not at or len(local) >= LONG:
                continue
            exactly = not made.wraps and plain(address)
            rules = host.rules(domain)
            matched = rules.match(local)
            note(f"{address!r}: {outcome} {matched}")
            assert alike(outcome, matched, exactly=exactly), address
            if b"//" in local:
                continue
            if domain not in flats:
                flats[domain] = rules.table()
            flat, left = flats[domain]
            found = flat.match(local.lower())
            assert found is not None, address
            note(f"table: {found}")
            assert alike(matched, found, exactly=exactly) or left_out(left, local.lower()), address


@EXAMPLES
@given(
    made=randomprograms.hosts(asking=False, slashes=False),
    config=randomprograms.configs(),
    wanted=st.lists(randomhosts.addresses(), min_size=1, max_size=10),
)
def test_the_compiled_file_refuses_nothing_that_the_host_takes(
    tmp_path: Path, made: randomprograms.Made, config: Config, wanted: list[bytes]
) -> None:
    assume("$" not in config.qmail.default_delivery)
    with laid(tmp_path, made.table) as root:
        file = bytes(root.parent / "validrcptto.cdb")
        result = compile_host(root, config, Request((Output("validrcptto", file),), force=True))
        widened = {one.key for one in result.outputs[0].widened}
        reader = target("validrcptto", break_=config.qmail.break_.encode()).open(file)
        try:
            with Host.open(root, config, look_at_mailboxes=False) as host:
                domains = {one.name for one in host.domains()}
                wanted = wanted + aimed(host, made)
                for address, outcome in zip(wanted, host.decide_many(wanted), strict=True):
                    local, at, domain = address.lower().rpartition(b"@")
                    if not (at and local) or b"@" in local or b"/" in local or domain not in domains:
                        continue
                    if len(local) >= LONG or outcome.verdict is Verdict.REMOTE or unsayable(result, address.lower()):
                        continue
                    answer = reader.answer(address)
                    note(f"{address!r}: {outcome} {answer}")
                    assert answer.accepted or not outcome.accepted, address
                    assert not answer.accepted or outcome.accepted or answer.key in widened, address
        finally:
            reader.close()
