"""What the administrator wants beyond the truth: prepended names, relays, percent hack, overlays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import inprocess
import pytest
from hosts import Host as Laid
from hosts import cdb_bytes
from hypothesis import given
from hypothesis import strategies as st

from rcptgen import policy
from rcptgen.compiler import Output, Request, Result, compile_host
from rcptgen.config import Config, Extra
from rcptgen.config import Policy as Wanted
from rcptgen.errors import ConfigurationError, SourceFailed
from rcptgen.host import DomainKind, Host
from rcptgen.overlays import Overlays
from rcptgen.policy import Policy
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table
from rcptgen.targets import target

MAIL = "./Mailbox\n"

Opened = Callable[..., Host]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Opened:
    """`opened({...}, Config())`: the host, read by this process."""
    inprocess.use(monkeypatch)

    def make(table: Mapping[str, Any], config: Config | None = None) -> Host:
        laid = Laid(tmp_path / "host", {"control/me": "mail.example\n", **table})
        host = Host.open(laid.root, config)
        request.addfinalizer(host.close)
        return host

    return make


def tables(shaping: Policy) -> dict[bytes, Table]:
    return {domain.name: shaping.shape(domain).table for domain in shaping.host.domains()}


def accepts(table: Table, local: bytes) -> bool:
    found = table.match(local)
    return found is not None and found.accepted


# --- Names such as shop.example-joe in local domains --------------------------------------------

SHOP = {
    "passwd": {"shop": 1001},
    "control/locals": "mail.example\nother.example\n",
    "control/virtualdomains": "shop.example:shop.example\n",
    "users/assign": "+shop.example-:shop:1001:1001:/home/shop:-::\n.\n",
    "~shop/.qmail-sales": MAIL,
    "~shop/.qmail-info-default": MAIL,
}
NAMES = (b"shop.example-sales", b"shop.example-info-x", b"shop.example-nosuch", b"shop.example-")


@pytest.mark.root
@pytest.mark.parametrize(
    ("prepended", "mode", "accepted"),
    [
        ("auto", "exact", (True, True, False, False)),
        ("exact", "exact", (True, True, False, False)),
        ("prefix", "prefix", (True, True, True, True)),
        ("refuse", "refuse", (False, False, False, False)),
    ],
)
def test_prepended_names(opened: Opened, prepended: Any, mode: str, accepted: tuple[bool, ...]) -> None:
    shaping = Policy(opened(SHOP, Config(policy=Wanted(prepended=prepended))))
    found = tables(shaping)
    assert shaping.prepended == mode
    for domain in (b"mail.example", b"other.example"):
        assert tuple(accepts(found[domain], name) for name in NAMES) == accepted
        assert not accepts(found[domain], b"nosuch")
    assert [accepts(found[b"shop.example"], name) for name in (b"sales", b"info-x", b"nosuch")] == [True, True, False]


@pytest.mark.root
def test_a_prefix_instead_of_names_is_counted_as_widened(opened: Opened) -> None:
    shaping = Policy(opened(SHOP, Config(policy=Wanted(prepended="prefix"))))
    rule = tables(shaping)[b"mail.example"].prefixes[b"shop.example-"]
    assert (rule.accepted, rule.widened, rule.kind) == (True, True, Kind.UNKNOWN)
    assert rule.file == b"/var/qmail/users/cdb"


@pytest.mark.root
def test_longer_wildcards_and_exact_names_do_not_hide_that_a_name_is_prepended(opened: Opened) -> None:
    table = {**SHOP, "users/assign": "=shop.example-x:shop:1001:1001:/home/shop:-:sales:\n" + str(SHOP["users/assign"])}
    found = tables(Policy(opened(table, Config(policy=Wanted(prepended="refuse")))))[b"mail.example"]
    assert not accepts(found, b"shop.example-sales")
    assert accepts(found, b"shop.example-x")


# Five keys a local domain: two rules of files, the base, and one for each of the two prefixes.
@pytest.mark.root
@pytest.mark.parametrize(
    ("before", "limit", "back", "mode"),
    [
        ("", 7, 5, "prefix"),
        ("", 8, 5, "exact"),
        ("exact", 8, 5, "exact"),
        ("prefix", 100, 7, "prefix"),
        ("prefix", 100, 8, "exact"),
        ("exact", 7, 5, "prefix"),
    ],
)
def test_auto_goes_over_at_one_limit_and_comes_back_at_another(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, before: str, limit: int, back: int, mode: str
) -> None:
    monkeypatch.setattr(policy, "PREPENDED_LIMIT", limit)
    monkeypatch.setattr(policy, "PREPENDED_BACK", back)
    shaping = Policy(opened(SHOP), prepended=before)
    shaping.prepare()
    assert shaping.prepended == mode


# joe's home makes 2 rules, ann's 3; each for two domains.
@pytest.mark.root
@pytest.mark.parametrize(("limit", "joe", "ann"), [(3, True, True), (4, False, True), (6, False, False)])
def test_an_owner_with_too_many_names_for_all_local_domains_is_one_prefix(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, limit: int, joe: bool, ann: bool
) -> None:
    monkeypatch.setattr(policy, "OWNER_LIMIT", limit)
    table = {
        "passwd": {"joe": 1001, "ann": 1002},
        "control/locals": "a.example\nb.example\n",
        "~joe/.qmail-a": MAIL,
        "~ann/.qmail-a": MAIL,
        "~ann/.qmail-b": MAIL,
    }
    found = tables(Policy(opened(table)))[b"b.example"]
    assert (accepts(found, b"joe-nosuch"), accepts(found, b"ann-nosuch")) == (joe, ann)
    assert (found.prefixes[b"joe-"].widened, found.prefixes[b"ann-"].widened) == (joe, ann)
    assert accepts(found, b"ann-b")


# --- Relays ------------------------------------------------------------------------------------


@pytest.mark.root
def test_domains_in_rcpthosts_that_are_not_local_are_relayed(opened: Opened) -> None:
    host = opened(
        {
            "control/rcpthosts": "mail.example\nfar.example\nshop.example\n.sub.example\n",
            "control/morercpthosts.cdb": cdb_bytes([(b"more.example", b""), (b"Capital.example", b"")]),
            "control/virtualdomains": "shop.example:nosuch\ngone.example:\n",
        }
    )
    assert [(one.name, one.kind, one.line) for one in host.domains()] == [
        (b"far.example", DomainKind.RELAY, 2),
        (b"mail.example", DomainKind.LOCAL, 1),
        (b"more.example", DomainKind.RELAY, 0),
        (b"shop.example", DomainKind.VIRTUAL, 1),
    ]
    shaping = Policy(host)
    found = tables(shaping)
    assert [rule.outcome.kind for rule in found[b"far.example"].rules()] == [Kind.RELAY]
    assert accepts(found[b"far.example"], b"anybody")
    assert accepts(found[b"more.example"], b"anybody")
    assert not accepts(found[b"shop.example"], b"anybody")
    assert not accepts(found[b"mail.example"], b"anybody")


@pytest.mark.root
def test_a_remote_override_in_a_virtual_domain_is_relayed_only_where_rcpthosts_says(opened: Opened) -> None:
    host = opened(
        {
            "passwd": {"joe": 1001},
            "control/rcpthosts": "a.example\n",
            "control/virtualdomains": "a.example:joe\nx@a.example:\nb.example:joe\nx@b.example:\n",
            "~joe/.qmail-x": MAIL,
        },
    )
    found = tables(Policy(host))
    assert accepts(found[b"a.example"], b"x")
    assert not accepts(found[b"b.example"], b"x")


@pytest.mark.root
def test_without_rcpthosts_only_local_and_virtual_domains_are_listed(opened: Opened) -> None:
    host = opened({"control/virtualdomains": "shop.example:x\n"})
    assert host.rcpthosts.allows(b"any.example") == (b"/var/qmail/control/rcpthosts", 0)
    assert [one.name for one in host.domains()] == [b"mail.example", b"shop.example"]
    assert not Policy(host).judged(b"x@far.example", host.decide(b"x@far.example"))


@pytest.mark.root
def test_judged_is_what_the_list_does(opened: Opened) -> None:
    host = opened(
        {
            "passwd": {"joe": 1001},
            "control/rcpthosts": "far.example\n.sub.example\n",
        },
        Config(extra=Extra(accept=("nosuch@mail.example",), reject=("joe@mail.example", "spam*@far.example"))),
    )
    shaping = Policy(host)
    for address, accepted in {
        b"joe@mail.example": False,
        b"JOE@MAIL.EXAMPLE": False,
        b"nosuch@mail.example": True,
        b"other@mail.example": False,
        b"x@far.example": True,
        b"Spam-1@far.example": False,
        b"x@a.sub.example": True,
        b"x@sub.example": False,
        b"x@nowhere.example": False,
        b"joe": True,
    }.items():
        assert shaping.judged(address, host.decide(address)) is accepted, address


@pytest.mark.root
def test_a_damaged_morercpthosts_stops_the_run(opened: Opened) -> None:
    with pytest.raises(SourceFailed, match=r"morercpthosts\.cdb"):
        opened({"control/rcpthosts": "", "control/morercpthosts.cdb": b"junk"})


# --- Lines that stand for domains nobody lists --------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize(
    ("rcpthosts", "virtualdomains", "listed", "uncovered"),
    [
        (None, ".shop.example:joe\n", (), [b".shop.example"]),
        (None, ".shop.example:joe\n", ("a.shop.example",), []),
        (None, ":joe\n", ("far.example",), []),
        (None, ":joe\n", (), [b""]),
        (None, ".shop.example:\n", (), []),
        ("a.shop.example\n", ".shop.example:joe\n", (), []),
        (".shop.example\n", ".shop.example:joe\n", (), [b".shop.example", b".shop.example"]),
        (".shop.example\n", "", ("a.shop.example",), []),
        ("far.example\n", ":joe\n", (), []),
        (".far\n", ":joe\n", (), [b".far", b""]),
        (None, "a.shop.example:joe\n.shop.example:ann\n", ("a.shop.example",), [b".shop.example"]),
        (None, "x@.shop.example:joe\n", (), []),
    ],
)
def test_uncovered_lines(
    opened: Opened, rcpthosts: str | None, virtualdomains: str, listed: tuple[str, ...], uncovered: list[bytes]
) -> None:
    table: dict[str, Any] = {"control/virtualdomains": virtualdomains, "control/rcpthosts": rcpthosts}
    host = opened(table, Config(policy=Wanted(suffix_domains=listed)))
    assert [one.entry for one in host.uncovered()] == uncovered


@pytest.mark.root
def test_suffix_domains_get_the_rules_of_the_line_that_decides(opened: Opened) -> None:
    host = opened(
        {
            "passwd": {"joe": 1001},
            "control/virtualdomains": ".shop.example:joe\n",
            "control/rcpthosts": ".shop.example\n.far.example\n",
            "~joe/.qmail-x": MAIL,
        },
        Config(policy=Wanted(suffix_domains=("A.shop.example", "b.far.example", "c.nowhere.example"))),
    )
    kinds = {one.name: one.kind for one in host.domains()}
    assert kinds == {
        b"mail.example": DomainKind.LOCAL,
        b"a.shop.example": DomainKind.VIRTUAL,
        b"b.far.example": DomainKind.RELAY,
    }
    assert accepts(tables(Policy(host))[b"a.shop.example"], b"x")


# --- The percent hack ---------------------------------------------------------------------------

HACKED = {
    "passwd": {"joe": 1001},
    "control/locals": "mail.example\n",
    "control/percenthack": "mail.example\n",
    "users/assign": "=a%b:joe:0:0:/home/joe:-:nosuch:\n=c%d:joe:1001:1001:/home/joe:-:nosuch:\n.\n",
}


@pytest.mark.root
def test_percent_hacked_names_are_left_out_and_said_so(opened: Opened) -> None:
    host = opened(HACKED)
    shaped = Policy(host).shape(host.domains()[0])
    assert not accepts(shaped.table, b"x%far.example")
    assert [(one.rule, one.file, one.line) for one in shaped.unsayable] == [
        (b"*%*", b"/var/qmail/control/percenthack", 1)
    ]


@pytest.mark.root
def test_percent_hacked_domains_are_accepted_whole_on_request(opened: Opened) -> None:
    host = opened(HACKED, Config(policy=Wanted(percenthack="widen")))
    shaped = Policy(host).shape(host.domains()[0])
    assert shaped.unsayable == []
    for local in (b"x%far.example", b"joe-x%joe%mail.example", b"joe-%joe", b"c%d", b"nosuch", b"joe"):
        assert accepts(shaped.table, local), local
    assert shaped.table.prefixes[b""].widened


# --- Overlays -----------------------------------------------------------------------------------


def test_overlays_are_addresses_prefixes_and_domains() -> None:
    overlays = Overlays(("Joe@A.example", "list-*@a.example", "*@b.example"), ("list-no@a.example", "joe-*@a.example"))
    wanted = {
        (b"joe", b"a.example"): True,
        (b"list-", b"a.example"): True,
        (b"list-x", b"a.example"): True,
        (b"list-no", b"a.example"): False,
        (b"joe-x", b"a.example"): False,
        (b"list", b"a.example"): None,
        (b"any", b"b.example"): True,
        (b"joe", b"c.example"): None,
    }
    for (local, domain), accepted in wanted.items():
        found = overlays.match(local, domain)
        assert (None if found is None else found.accepted) is accepted, local
    refused = overlays.match(b"list-no", b"a.example")
    assert refused == Outcome(Verdict.BOUNCE, Kind.REFUSAL, "[extra] reject")


def test_a_refusal_beats_an_acceptance_of_the_same_name() -> None:
    overlays = Overlays(("joe@a.example", "x*@a.example"), ("joe@a.example", "x*@a.example"))
    for local in (b"joe", b"x1"):
        found = overlays.match(local, b"a.example")
        assert found is not None
        assert not found.accepted


@pytest.mark.parametrize("text", ["joe blow", "@a.example", "joe@", "a*b@a.example", "**@a.example", "", "@", "*"])
def test_what_is_no_overlay_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\[extra\] reject: .* is not user@domain, prefix\*@domain"):
        Overlays((), (text,))


names = st.text("ab-", max_size=4)
stars = st.builds(lambda name, star: name + star, names, st.sampled_from(["", "*"])).filter(bool)
ACCEPT = Outcome(Verdict.DELIVER, Kind.MAILBOX, "maildir", b"/home/joe/.qmail-", named_from=0)
REFUSE = Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "no dot-qmail file for this name")
rules = st.dictionaries(names.map(str.encode), st.sampled_from([ACCEPT, REFUSE]), max_size=5)


@given(
    st.lists(stars, max_size=4),
    st.lists(stars, max_size=4),
    rules,
    st.dictionaries(names.map(str.encode), st.just(REFUSE), max_size=4),
    st.lists(names.map(str.encode)),
)
def test_overlays_on_a_table_are_overlays_first(
    accept: list[str],
    reject: list[str],
    exact: dict[bytes, Outcome],
    prefixes: dict[bytes, Outcome],
    asked: list[bytes],
) -> None:
    overlays = Overlays(tuple(f"{one}@a.example" for one in accept), tuple(f"{one}@a.example" for one in reject))
    table = Table(exact, prefixes)
    laid = overlays.apply(table, b"a.example")
    assert overlays.apply(table, b"b.example") is table
    for name in [*asked, *exact, *(one.rstrip("*").encode() for one in accept + reject)]:
        forced = overlays.match(name, b"a.example")
        assert laid.match(name) == (table.match(name) if forced is None else forced)


# --- Through the file ----------------------------------------------------------------------------


def compiled(tmp_path: Path, table: Mapping[str, Any], config: Config) -> tuple[Result, dict[str, bool]]:
    """The result, and what the file answers to some addresses."""
    laid = Laid(tmp_path / "host", {"control/me": "mail.example\n", **table})
    file = bytes(tmp_path / "validrcptto.cdb")
    result = compile_host(laid.root, config, Request((Output("validrcptto", file),), force=True))
    reader = target("validrcptto").open(file)
    try:
        asked = ["joe", "postmaster", "nosuch", "joe@mail.example", "x@far.example", "nosuch@mail.example"]
        asked += ["srs0-abc@srs.example", "joe@srs.example"]
        return result, {address: reader.answer(address.encode()).accepted for address in asked}
    finally:
        reader.close()


@pytest.mark.root
@pytest.mark.parametrize("option", [False, True])
def test_names_without_a_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: bool) -> None:
    inprocess.use(monkeypatch)
    table = {"passwd": {"joe": 1001}, "alias/.qmail-postmaster": "joe\n"}
    result, answers = compiled(tmp_path, table, Config(policy=Wanted(envnoathost_names=option)))
    assert answers["joe"] is option
    assert answers["postmaster"]
    assert not answers["nosuch"]
    assert result.outputs[0].widened == []


@pytest.mark.root
def test_postmaster_without_a_domain_is_always_taken_and_reported_where_it_bounces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inprocess.use(monkeypatch)
    result, answers = compiled(tmp_path, {"passwd": {"joe": 1001}}, Config())
    assert answers["postmaster"]
    assert [(one.key, one.rule) for one in result.outputs[0].widened] == [(b"postmaster", b"postmaster")]


@pytest.mark.root
def test_overlays_reach_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inprocess.use(monkeypatch)
    extra = Extra(accept=("no*@mail.example",), reject=("joe@mail.example", "x@far.example"))
    table = {"passwd": {"joe": 1001}, "control/rcpthosts": "mail.example\nfar.example\n"}
    _, answers = compiled(tmp_path, table, Config(extra=extra))
    assert answers["nosuch@mail.example"]
    assert not answers["joe@mail.example"]
    assert not answers["x@far.example"]


@pytest.mark.root
@pytest.mark.parametrize("prepended", ["exact", "prefix", "refuse"])
def test_judged_is_what_the_list_does_with_prepended_names(opened: Opened, prepended: Any) -> None:
    shaping = Policy(opened(SHOP, Config(policy=Wanted(prepended=prepended))))
    table = tables(shaping)[b"mail.example"]
    for name in NAMES:
        address = name + b"@mail.example"
        assert shaping.judged(address, shaping.host.decide(address)) == accepts(table, name)


@pytest.mark.root
@pytest.mark.parametrize(("percenthack", "accepted"), [("refuse", False), ("widen", True)])
def test_judged_is_what_the_list_does_with_percent_hacked_names(
    opened: Opened, percenthack: Any, accepted: bool
) -> None:
    table = {"passwd": {"joe": 1001}, "control/percenthack": "mail.example\n"}
    shaping = Policy(opened(table, Config(policy=Wanted(percenthack=percenthack))))
    address = b"joe%mail.example@mail.example"
    assert shaping.host.decide(address).accepted
    assert shaping.judged(address, shaping.host.decide(address)) is accepted


@pytest.mark.root
def test_overlays_bring_in_domains_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inprocess.use(monkeypatch)
    _, answers = compiled(tmp_path, {"passwd": {"joe": 1001}}, Config(extra=Extra(accept=("srs0-*@srs.example",))))
    assert answers["srs0-abc@srs.example"]
    assert not answers["joe@srs.example"]
