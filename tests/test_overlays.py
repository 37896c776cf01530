"""Overlays and recipients from files on random hosts: both engines agree, and every format says or reports them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import inprocess
import parts
import pytest
import randomhosts
from everytarget import HOSTILE, VARIANTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rcptgen.compiler import Output, Request, compile_host
from rcptgen.config import Config, Extra, Relay
from rcptgen.config import Policy as Wanted
from rcptgen.host import Host
from rcptgen.overlays import Overlays, extra
from rcptgen.policy import Policy
from rcptgen.rules.overlay import rule

pytestmark = pytest.mark.root

ACCEPT, REJECT, RELAY, CSV = "/etc/accept", "/etc/reject", "/etc/relay", "/etc/relay.csv"
WANTED = Config(
    extra=Extra(accept=("ann@shop.example", "joe*@shop.example"), accept_files=(ACCEPT,), reject_files=(REJECT,)),
    policy=Wanted(relay="file"),
    relay=(Relay(file=RELAY), Relay(file=CSV, format="csv", column="mail")),
)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    inprocess.use(monkeypatch)


def examples(count: int) -> settings:
    return settings(
        max_examples=parts.rounds(count),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )


def is_rule(text: str) -> bool:
    """Whether a file may have this line."""
    try:
        rule(text.encode("latin-1"))
    except ValueError:
        return False
    return not text.startswith(("#", "\xef\xbb\xbf")) and text == text.strip(" \t\r")


names = st.one_of(randomhosts.names(slashes=False), st.sampled_from([*HOSTILE, "srs0=", "prvs=", "a-b", "joe-"]))
stars = st.sampled_from(["", "", "*"])
places = st.sampled_from(["", *(f"@{one}" for one in (*randomhosts.DOMAINS, "far.example", "None.Such.example"))])
files = st.lists(st.builds("{}{}{}".format, names, stars, places).filter(is_rule), max_size=8)
relayed = st.lists(st.builds("{}{}{}".format, names, stars, places.filter(bool)).filter(is_rule), max_size=8)


def text(lines: list[str]) -> bytes:
    return b"".join(one.encode("latin-1") + b"\n" for one in ["# rules", *lines])


def csv(lines: list[str]) -> bytes:
    rows = [f'{at},"{one.replace(chr(34), chr(34) * 2)}"' for at, one in enumerate(lines)]
    return b"".join(one.encode("latin-1") + b"\r\n" for one in ["id,mail", *rows])


@st.composite
def hosts(draw: st.DrawFn) -> dict[str, Any]:
    """A host, most of them with relayed domains, and its files."""
    found = draw(randomhosts.hosts(asking=False, slashes=False))
    if draw(st.integers(0, 3)):
        found["control/rcpthosts"] = "far.example\nshop.example\nb.example\nexample\nmail.example\n"
    listed = draw(relayed)
    return {
        **found,
        ACCEPT: text(draw(files)),
        REJECT: text(draw(files)),
        RELAY: text(listed),
        CSV: csv([one for one in draw(relayed) if "\r" not in one]),
    }


@examples(100)
@given(hosts(), st.lists(randomhosts.addresses(), max_size=20))
def test_the_list_says_of_an_address_what_is_judged_of_it(
    tmp_path: Path, table: dict[str, Any], asked: list[bytes]
) -> None:
    with randomhosts.laid(tmp_path, table) as root, Host.open(root) as plain, Host.open(root, WANTED) as host:
        before, after = Policy(plain), Policy(host)
        assert after.troubles == {}
        if host.users_damage:
            return
        domains = {one.name: one for one in after.domains()}
        known = {one.name for one in before.domains()}
        stated = [rule(line) for path in (ACCEPT, REJECT, RELAY) for line in table[path].splitlines()[1:]]
        aimed = [one.name + tail + b"@" + name for one in stated for tail in (b"", b"x") for name in domains]
        shaped = {name: after.shape(domain).table for name, domain in domains.items()}
        without = {one.name: before.shape(one).table for one in before.domains()}
        for address in [*asked, *aimed[:200]]:
            local, _, name = address.lower().rpartition(b"@")
            if name not in domains or b"\0" in address or not local:
                continue
            if name in known:
                was = without[name].match(local)
                if (was is not None and was.accepted) != before.judged(address, plain.decide(address)):
                    continue  # what names cannot spell, they cannot without overlays either
            found = shaped[name].match(local)
            accepted = found is not None and found.accepted
            assert accepted == after.judged(address, host.decide(address)), (address, found)


@examples(12)
@given(hosts())
def test_every_format_is_proved_at_every_rule(tmp_path: Path, table: dict[str, Any]) -> None:
    """The compile asks each new file at every rule, and is ended by an answer that nothing reported says."""
    with randomhosts.laid(tmp_path, table) as root:
        outputs = [
            Output(name, bytes(root.parent / f"list{at}"), options={**options, **_some(name)})
            for at, (name, options) in enumerate(VARIANTS)
        ]
        result = compile_host(root, WANTED, Request(tuple(outputs), force=True, full=True))
        assert result.status in (0, 75), result.problems
        assert all(one.published for one in result.outputs)


def _some(name: str) -> dict[str, str]:
    return {"domain": "mail.example"} if name == "rcpt-map" else {}


lines = st.lists(st.builds("{}{}{}".format, names, stars, places).filter(is_rule), max_size=6)


@given(lines, lines, lines)
def test_order_within_a_file_changes_nothing(accept: list[str], reject: list[str], asked: list[str]) -> None:
    one = Overlays(_texts(accept), _texts(reject))
    other = Overlays(_texts(accept[::-1]), _texts(reject[::-1]))
    for line in [*accept, *reject, *asked]:
        found = rule(line.encode("latin-1"))
        for domain in (found.domain or b"mail.example", b"shop.example"):
            for name in (found.name, found.name + b"x"):
                assert one.match(name, domain) == other.match(name, domain)
        assert one.domains() == other.domains()


def _texts(some: list[str]) -> tuple[str, ...]:
    return tuple(one.encode("latin-1").decode("utf-8", "surrogateescape") for one in some)


@pytest.mark.parametrize(
    ("accept", "reject", "address", "accepted"),
    [
        # The longer name, whichever domains it is for.
        (("srs0=*",), ("*@a.example",), b"srs0=x@a.example", True),
        (("*@a.example",), ("spam*",), b"spam1@a.example", False),
        (("joe",), ("j*@a.example",), b"joe@a.example", True),
        # Of equal names that of one domain; then the refusal.
        (("joe@a.example",), ("joe",), b"joe@a.example", True),
        (("joe",), ("joe@a.example",), b"joe@a.example", False),
        (("x*@a.example",), ("x*",), b"x1@a.example", True),
        (("joe",), ("joe",), b"joe@a.example", False),
        (("x*",), ("x*",), b"x1@a.example", False),
    ],
)
def test_which_rule_decides(accept: tuple[str, ...], reject: tuple[str, ...], address: bytes, accepted: bool) -> None:
    local, _, domain = address.rpartition(b"@")
    found = Overlays(accept, reject).match(local, domain)
    assert found is not None
    assert found.accepted is accepted


def test_rules_for_every_domain_are_for_those_of_the_host() -> None:
    overlays = Overlays(("srs0=*",), ())
    assert overlays.match(b"srs0=x", b"a.example") is not None
    assert overlays.match(b"srs0=x", b"a.example", ours=False) is None
    assert overlays.domains() == set()


def test_what_can_no_longer_be_understood_is_not_remembered(tmp_path: Path) -> None:
    """Another version may have taken other lines for rules; nothing of them is known then, not that there are none."""
    config = Config(extra=Extra(accept_files=(ACCEPT,)))
    table = {"control/me": "mail.example\n", "passwd": {}}
    with randomhosts.laid(tmp_path, table) as root, Host.open(root, config) as host:
        assert set(extra(host, lambda path: b"no rule of ours\n").lacking) == {ACCEPT.encode()}
        assert set(extra(host, lambda path: b"fred@mail.example\n").kept) == {ACCEPT.encode()}
