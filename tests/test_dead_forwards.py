"""`[policy] dead_forwards = "reject"`: what is only forwarded to nobody is taken out of the list, and nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import inprocess
import parts
import pytest
import randomhosts
import randomprograms
from hosts import File, cdb_bytes, remove
from hosts import Host as Laid
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from randomhosts import laid
from runs import Site

from rcptgen.config import Config
from rcptgen.config import Policy as Wanted
from rcptgen.forwards import Forwards
from rcptgen.host import Host
from rcptgen.policy import Policy
from rcptgen.rules.outcome import Kind
from rcptgen.rules.table import Table

pytestmark = pytest.mark.root

MAIL = "./Mailbox\n"
REJECT = Config(policy=Wanted(dead_forwards="reject"))

TABLE: dict[str, Any] = {
    "passwd": {"joe": 1001, "shop": 1002, "ff": 1003},
    "control/me": "here.example\n",
    "control/virtualdomains": "shop.example:shop\nvip@shop.example:shop-dead\nff.example:ff\n",
    "users/assign": "=info:joe:1001:1001:/home/joe:-:dead-x:\n.\n",
    "/usr/bin/fastforward": File("", mode=0o755),
    "~joe/.qmail": MAIL,
    "~joe/.qmail-dead-default": "&nobody@here.example\n",
    "~joe/.qmail-dead-but": MAIL,
    "~joe/.qmail-alive-default": "&joe@here.example\n",
    "~joe/.qmail-by-default": '|forward "$DEFAULT@shop.example"\n',
    "~joe/.qmail-by-name": '|forward "no-$EXT2@here.example"\n',
    "~shop/.qmail-default": "|forward nobody@here.example\n",
    "~shop/.qmail-sales": "&joe@here.example\n",
    "~shop/.qmail-old": "&very-old@shop.example\n",
    "~shop/.qmail-dead-default": "&nobody@here.example\n",
    "~ff/.qmail-default": "|fastforward -d aliases.cdb\n",
    "~ff/aliases.cdb": cdb_bytes(
        [
            (b":a@ff.example", b"&joe@here.example\0"),
            (b":b@ff.example", b"&c@ff.example\0"),
            (b":c@ff.example", b"&b@ff.example\0&nobody@here.example\0"),
            (b":d@ff.example", b"&b@ff.example\0&a@ff.example\0"),
        ]
    ),
    "alias/.qmail-list": "&nobody@here.example\n",
    "alias/.qmail-loop": "&pool@here.example\n",
    "alias/.qmail-pool": "&loop@here.example\n",
    "alias/.qmail-busy": "&slow@here.example\n",
    "alias/.qmail-slow": "\n",
}
ACCEPTED = {
    "joe@here.example": True,
    "info@here.example": False,
    "joe-dead-x@here.example": False,
    "joe-dead-but@here.example": True,
    "joe-alive-x@here.example": True,
    "joe-by-sales@here.example": True,
    "joe-by-old@here.example": True,
    "joe-by-name@here.example": False,
    "sales@shop.example": True,
    "old@shop.example": False,
    "anybody@shop.example": False,
    "vip@shop.example": False,
    "a@ff.example": True,
    "b@ff.example": False,
    "c@ff.example": False,
    "d@ff.example": True,
    "nobody@ff.example": False,
    "list@here.example": False,
    "loop@here.example": False,
    "Loop@Here.Example": False,
    "busy@here.example": True,
    "nobody@here.example": False,
}


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    inprocess.use(monkeypatch)


def both(root: Path, config: Config, addresses: list[bytes]) -> list[tuple[bool, bool]]:
    """For each address whether the list accepts it, and whether `check` says so."""
    found = []
    with Host.open(root, config) as host:
        policy = Policy(host)
        tables = {one.name: policy.shape(one).table for one in policy.domains()}
        for address, outcome in zip(addresses, host.decide_many(addresses), strict=True):
            local, _, domain = address.lower().rpartition(b"@")
            rule = tables[domain].match(local)
            found.append((rule is not None and rule.accepted, policy.judged(address, outcome)))
    return found


@pytest.mark.usefixtures("_in_this_process")
@pytest.mark.parametrize("reject", [True, False])
def test_what_is_dead_goes(tmp_path: Path, reject: bool) -> None:
    laid = Laid(tmp_path / "host", TABLE)
    addresses = [one.encode() for one in ACCEPTED]
    bounced = ("nobody@here.example", "nobody@ff.example")
    wanted = {one: said if reject else one not in bounced for one, said in ACCEPTED.items()}
    found = both(laid.root, REJECT if reject else Config(), addresses)
    assert dict(zip(ACCEPTED, found, strict=True)) == {one: (said, said) for one, said in wanted.items()}


@pytest.mark.usefixtures("_in_this_process")
def test_what_is_refused_says_why_and_where(tmp_path: Path) -> None:
    laid = Laid(tmp_path / "host", TABLE)
    with Host.open(laid.root, REJECT) as host:
        policy = Policy(host)
        (domain,) = [one for one in host.domains() if one.name == b"here.example"]
        rule = policy.shape(domain).table.match(b"list")
    assert rule is not None
    assert (rule.kind, rule.file) == (Kind.REFUSAL, b"/var/qmail/alias/.qmail-list")
    assert rule.reason == "forwards only to addresses of this host that bounce"


@pytest.mark.usefixtures("_in_this_process")
def test_nothing_is_followed_unless_it_is_asked_for(tmp_path: Path) -> None:
    laid = Laid(tmp_path / "host", TABLE)
    for config, times in ((Config(), False), (REJECT, True)):
        with Host.open(laid.root, config) as host:
            policy = Policy(host)
            for domain in policy.domains():
                policy.shape(domain)
            worker = host.units.worker
            assert isinstance(worker, inprocess.InProcess)
            assert ("leads" in worker.asked) is times


@pytest.mark.usefixtures("_in_this_process")
def test_a_damaged_source_takes_nothing_away(tmp_path: Path) -> None:
    """b@ff.example bounces while the aliases are damaged; who is forwarded there is not dead by that."""
    table = {**TABLE, "alias/.qmail-x": "&a@ff.example\n", "~ff/aliases.cdb": b"\0" * 2048}
    laid = Laid(tmp_path / "host", table)
    assert both(laid.root, REJECT, [b"x@here.example"]) == [(True, True)]


def test_the_guard_holds_dead_forwards_like_any_removal(tmp_path: Path) -> None:
    names: Mapping[str, Any] = {
        "passwd": {"joe": 1001},
        "control/me": "here.example\n",
        "/etc/rcptgen.toml": '[policy]\ndead_forwards = "reject"\n',
        "~joe/.qmail": MAIL,
        "~joe/.qmail-end": MAIL,
        **{f"alias/.qmail-l{at}": "&joe-end@here.example\n" for at in range(20)},
    }
    site = Site(tmp_path, names)
    site.published("--force")
    assert site.accepts("l7@here.example")
    (site.host.root / "home/joe/.qmail-end").unlink()
    done = site.compile()
    assert done.status == 3
    assert done.held["here.example"]["count"] == 41  # each by two names: l7, and alias-l7
    assert site.accepts("l7@here.example")
    assert site.approve().status == 0
    assert not site.accepts("l7@here.example")
    assert site.accepts("joe@here.example")
    assert site.run("check", "l7@here.example").out.startswith("deliver")
    assert site.run("check", "--json", "l7@here.example").json["accepted"] is False
    assert site.run("verify", site.file).status == 0


# --- List and check agree -------------------------------------------------------------------------

NODES = ("a", "b", "joe-c", "joe-d-e", "joe-d-f", "nobody", "joe")
FILES = (
    "alias/.qmail-a",
    "alias/.qmail-b",
    "alias/.qmail-default",
    "~joe/.qmail-c",
    "~joe/.qmail-d-default",
    "~joe/.qmail-d-e",
    "~joe/.qmail-default",
)
TARGETS = [*(f"&{one}@here.example\n" for one in NODES), '|forward "$EXT@here.example"\n', "&x@far.example\n"]


@pytest.mark.usefixtures("_in_this_process")
@given(
    files=st.dictionaries(
        st.sampled_from(FILES), st.lists(st.sampled_from(TARGETS), min_size=1, max_size=2).map("".join), max_size=7
    )
)
@settings(
    max_examples=parts.rounds(80),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_the_list_and_check_agree(tmp_path: Path, files: dict[str, str]) -> None:
    where = Path(tempfile.mkdtemp(dir=tmp_path))
    where.chmod(0o755)
    table: dict[str, Any] = {"passwd": {"joe": 1001}, "control/me": "here.example\n", "~joe/.qmail": MAIL, **files}
    addresses = [f"{one}@here.example".encode() for one in (*NODES, "joe-d-x", "joe-x", "x", "zzyzx")]
    try:
        laid = Laid(where / "host", table)
        accepted = both(laid.root, Config(), addresses)
        for address, (listed, said), (before, _) in zip(
            addresses, both(laid.root, REJECT, addresses), accepted, strict=True
        ):
            assert listed == said, address
            assert before or not listed, address
    finally:
        remove(where)


def reaches_nobody(host: Host, address: bytes) -> bool:
    """The plain definition, one address at a time: no way of forwards from here ends in a delivery."""
    forwards, waiting, passed = Forwards(host), [address], {address}
    while waiting:
        (lead,) = forwards.leads((waiting.pop(),))
        if lead.delivers:
            return False
        targets = {one.address for one in lead.forwards} if not lead.bounces else set()
        waiting += targets - passed
        passed |= targets
        assert len(passed) < 500, "a random host is small"
    return True


@pytest.mark.usefixtures("_in_this_process")
@given(made=randomprograms.hosts(asking=False, slashes=False), wanted=st.lists(randomhosts.addresses(), max_size=6))
@settings(
    max_examples=parts.rounds(20),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
def test_whatever_goes_is_dead(tmp_path: Path, made: randomprograms.Made, wanted: list[bytes]) -> None:
    """Also where a prefix goes as a whole, and however the address is spelled."""
    for path, target in (("alias/.qmail-list-a", "nobody"), ("~joe/.qmail-default", "x"), ("alias/.qmail-b", "list-a")):
        made.table.setdefault(path, File(f"&{target}@mail.example\n"))
    # Where the random hosts forward to, so that there is much that is dead.
    made.table["control/virtualdomains"] = f"{made.table.get('control/virtualdomains', '')}far.example:alias-gone\n"
    with laid(tmp_path, made.table) as root, Host.open(root) as host:
        domains = [(one.name.decode("latin-1"), host.rules(one.name).prepend) for one in host.domains()]
        prepends = [(name, put.decode("latin-1")) for name, put in domains if put is not None]
        wanted = [*wanted, *randomprograms.aimed(made, prepends, 40)]
        wanted = [one for one in wanted if b"@" in one and one.rpartition(b"@")[2].lower() in dict(listed(host))]
        before = dict(listed(host))
        with Host.open(root, REJECT) as other:
            after = dict(listed(other))
            policy = Policy(other)
            for address, outcome in zip(wanted, other.decide_many(wanted), strict=True):
                local, _, domain = address.lower().rpartition(b"@")
                took, takes = before[domain].match(local), after[domain].match(local)
                assert took is not None
                assert takes is not None
                note(f"{address!r}: {took} {takes}")
                if took.accepted and not takes.accepted:
                    for spelled in (address, address.lower(), local.upper() + b"@" + domain):
                        assert reaches_nobody(host, spelled), spelled
                if took.accepted and not took.widened and not took.approximate and outcome.accepted:
                    assert policy.judged(address, outcome) is takes.accepted, address


def listed(host: Host) -> list[tuple[bytes, Table]]:
    """Each domain of a host with its list."""
    policy = Policy(host)
    return [(one.name, policy.shape(one).table) for one in policy.domains()]
