"""The whole way of one address: told as it is, to the end, and harmlessly."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import inprocess
import parts
import pytest
import randomhosts
from hosts import BadTree, File, cdb_bytes, remove
from hosts import Host as Laid
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from runs import Site

from rcptgen.config import Config
from rcptgen.explain import Match, Standing, answers, explain, follow, held_since
from rcptgen.host import Host
from rcptgen.policy import Policy
from rcptgen.request import Output
from rcptgen.rules.outcome import Verdict

pytestmark = pytest.mark.root

MAIL = "./Mailbox\n"


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    inprocess.use(monkeypatch)


# --- Steps ----------------------------------------------------------------------------------------

TABLE: dict[str, Any] = {
    "passwd": {"joe": 1001, "ann": 1002},
    "control/me": "mail.example\n",
    "control/locals": "# ours\nhere.example\n",
    "control/percenthack": "here.example\n",
    "control/virtualdomains": ".example:ann\nx@shop.example:\nshop.example:joe-shop\nff.example:joe-ff\n",
    "users/assign": "=info:joe:1001:1001:/home/joe:-:list:\n+list-:joe:1001:1001:/home/joe:-:list-:\n.\n",
    "/usr/bin/fastforward": File("", mode=0o755),
    "~joe/.qmail-shop-default": "&ann\n# nothing\n|forward joe@here.example\n",
    "~joe/.qmail-list": "./gone/\n./Mailbox\n",
    "~joe/.qmail-ff-default": "|fastforward -d aliases.cdb\n",
    "~joe/aliases.cdb": cdb_bytes([(b":a@ff.example", b"&ann@here.example\0")]),
    "~ann/.qmail-filter": "|bouncesaying no false\n|/bin/filter x\n",
    "/bin/filter": File("", mode=0o755),
}
WAYS: dict[str, list[tuple[str, str, bool]]] = {
    "y@shop.example": [
        ("control/locals", "'shop.example' is not local", False),
        ("control/virtualdomains", "no entry 'y@shop.example'", False),
        ("control/virtualdomains:3", "local name 'joe-shop-y' | shop.example:joe-shop", True),
        ("users/cdb", "no exact entry 'joe-shop-y'", False),
        ("users/cdb", "no wildcard entry 'joe-shop-'", False),
        ("users/cdb", "no wildcard entry 'joe-'", False),
        ("users/cdb", "no wildcard entry ''", False),
        ("passwd", "no account 'joe-shop-y'", False),
        ("passwd", "no account 'joe-shop'", False),
        ("passwd:#", "account 'joe', home /home/joe", True),
        ("joe/.qmail-shop-y", "no such file", False),
        ("joe/.qmail-shop-default", "found", True),
        ("joe/.qmail-shop-default:1", "forwards to ann | &ann", True),
        ("joe/.qmail-shop-default:3", "runs a program | |forward joe@here.example", True),
        ("joe/.qmail-shop-default:3", "forward: forward forwards: exit 0", True),
        ("joe/.qmail-shop-default:1", "forwards", True),
    ],
    "x@shop.example": [
        ("control/locals", "'shop.example' is not local", False),
        ("control/virtualdomains:2", "virtualdomains makes this address remote | x@shop.example:", True),
    ],
    "z@far.test": [
        ("control/locals", "'far.test' is not local", False),
        ("control/virtualdomains", "no entry 'z@far.test'", False),
        ("control/virtualdomains", "no entry 'far.test'", False),
        ("control/virtualdomains", "no entry '.test'", False),
        ("control/virtualdomains", "no entry ''", False),
        ("", "neither local nor a virtual domain", True),
    ],
    "info@here.example": [
        ("control/locals:2", "local name 'info' | here.example", True),
        ("users/cdb", "exact entry 'info'", True),
        ("users/assign:1", "made from this line | =info:joe:1001:1001:/home/joe:-:list:", True),
        ("joe/.qmail-list", "found", True),
        ("joe/.qmail-list:1", "cannot be delivered to | ./gone/", False),
        ("joe/.qmail-list:1", "maildir cannot be delivered to", True),
    ],
    "list-a@here.example": [
        ("control/locals:2", "local name 'list-a' | here.example", True),
        ("users/cdb", "no exact entry 'list-a'", False),
        ("users/cdb", "wildcard entry 'list-'", True),
        ("users/assign:2", "made from this line | +list-:joe:1001:1001:/home/joe:-:list-:", True),
        ("joe/.qmail-list-a", "no such file", False),
        ("joe/.qmail-list-default", "no such file", False),
        ("joe/.qmail-default", "no such file", False),
        ("joe/.qmail-list-a", "no dot-qmail file for this name", True),
    ],
    "zed%here.example@here.example": [
        ("control/percenthack:1", "percent hack: means 'zed@here.example' | here.example", True),
        ("control/locals:2", "local name 'zed' | here.example", True),
        ("users/cdb", "no exact entry 'zed'", False),
        ("users/cdb", "no wildcard entry ''", False),
        ("passwd", "no account 'zed'", False),
        ("passwd:#", "no user: 'alias' answers, home /var/qmail/alias", True),
        ("alias/.qmail-zed", "no such file", False),
        ("alias/.qmail-default", "no such file", False),
        ("alias/.qmail-zed", "no dot-qmail file for this name", True),
    ],
}


def told(host: Host, address: str) -> list[tuple[str, str, bool]]:
    """The steps to an address, as WAYS has them."""
    found = []
    for step in host.trace(address).steps:
        file = step.file.decode().removeprefix("/var/qmail/").removeprefix("/home/").removeprefix("/etc/")
        line = "#" if file == "passwd" else str(step.line)
        quoted = f" | {step.quoted.decode()}" if step.quoted else ""
        found.append((file + (f":{line}" if step.line else ""), step.text + quoted, step.found))
    return found


@pytest.mark.usefixtures("_in_this_process")
@pytest.mark.parametrize("address", WAYS)
def test_every_step_is_told(tmp_path: Path, address: str) -> None:
    laid = Laid(tmp_path / "host", TABLE)
    with Host.open(laid.root) as host:
        assert told(host, address) == WAYS[address]


@pytest.mark.usefixtures("_in_this_process")
def test_programs_say_what_they_come_to(tmp_path: Path) -> None:
    laid = Laid(tmp_path / "host", TABLE)
    with Host.open(laid.root) as host:
        said = [step.text for step in host.trace("ann-filter@here.example").steps if "exit" in step.text]
        assert said == [
            "bouncesaying: condition does not hold: exit 0",
            "the line: program without a model: exit 0 or 1 or 99 or 100 or 111",
        ]
        (step,) = [one for one in host.trace("a@ff.example").steps if "exit" in one.text]
        assert step == dataclasses.replace(
            step, text="fastforward: alias of this address: exit 0", file=b"/home/joe/aliases.cdb"
        )


@pytest.mark.usefixtures("_in_this_process")
def test_an_account_that_is_no_user_is_passed_over_aloud(tmp_path: Path) -> None:
    laid = Laid(tmp_path / "host", {"control/me": "a.example\n", "passwd": {"joe": "joe:x:1001:1001::/nowhere:"}})
    with Host.open(laid.root) as host:
        assert any("does not own its home" in one.text and not one.found for one in host.trace("joe@a.example").steps)


def test_what_the_owner_may_not_read_is_not_quoted(tmp_path: Path) -> None:
    """A user's link to somebody else's file shows nothing of it."""
    names: dict[str, Any] = {
        "passwd": {"joe": 1001},
        "control/me": "here.example\n",
        "/secret": File("hidden words\n", mode=0o600, uid=0),
        "~joe/.qmail-x": MAIL,
    }
    site = Site(tmp_path, names)
    (site.host.root / "home/joe/.qmail-y").symlink_to("/secret")
    done = site.run("explain", "joe-y@here.example")
    assert done.out.splitlines()[-2].startswith("defer")
    assert "hidden" not in done.out + site.run("explain", "--json", "joe-y@here.example").out


# --- Forwards -------------------------------------------------------------------------------------

LOOPS: dict[str, Any] = {
    "passwd": {"joe": 1001},
    "control/me": "here.example\n",
    "~joe/.qmail": MAIL,
    "alias/.qmail-a": "&b@here.example\n&nobody@here.example\n&c@here.example\n",
    "alias/.qmail-b": "&c@here.example\n",
    "alias/.qmail-c": "&b@here.example\n",
    "alias/.qmail-d": "&joe@here.example\n&joe@here.example\n",
}


@pytest.mark.usefixtures("_in_this_process")
def test_forwards_are_followed_and_loops_are_named(tmp_path: Path) -> None:
    laid = Laid(tmp_path / "host", LOOPS)
    with Host.open(laid.root) as host:
        policy = Policy(host)
        first = explain(host, policy, b"a@here.example")
        found = [
            (one.address.partition(b"@")[0].decode(), one.depth, one.explained is not None, len(one.loop))
            for one in follow(host, policy, first)
        ]
        assert found == [
            ("b", 1, True, 0),
            ("c", 2, True, 0),
            ("b", 3, False, 3),
            ("nobody", 1, True, 0),
            ("c", 1, False, 0),
        ]
        assert [one.note for one in follow(host, policy, first, most=1)][-1] == "too many forwards: not followed"


def test_follow_on_the_command_line(tmp_path: Path) -> None:
    site = Site(tmp_path, LOOPS)
    done = site.run("explain", "--follow", "a@here.example")
    assert done.status == 0
    lines = done.out.splitlines()
    assert "    -> b@here.example" in lines
    loop = "b@here.example -> c@here.example -> b@here.example"
    assert f"            {loop}: a loop: qmail-local bounces what comes back" in lines
    assert lines[-1] == "a@here.example: forwards only to addresses of this host that bounce"
    members = site.run("explain", "--follow", "--json", "a@here.example").json
    assert members["dead"] is True
    assert [one["depth"] for one in members["followed"]] == [1, 2, 3, 1, 1]
    assert site.run("explain", "--follow", "--json", "d@here.example").json["dead"] is False
    assert "dead" not in site.run("explain", "--json", "a@here.example").json


# --- Policy and published files -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "address", "status", "policy"),
    [
        ("", "a@here.example", 0, ""),
        ("", "slow@here.example", 0, "accepted, since the host itself tries again later"),
        ("", "x@relay.example", 0, "relayed: its domain is in rcpthosts"),
        ("", "x@far.example", 1, "remote, and not in rcpthosts"),
        ("", "a%b@hack.example", 1, '[policy] percenthack = "refuse"'),
        ('[policy]\npercenthack = "widen"\n', "a%b@hack.example", 0, '[policy] percenthack = "widen"'),
        ('[extra]\nreject = ["a@here.example"]\n', "a@here.example", 1, "[extra] reject"),
        ('[extra]\naccept = ["zz*@here.example"]\n', "zzz@here.example", 0, "[extra] accept"),
        (
            '[policy]\ndead_forwards = "reject"\n',
            "a@here.example",
            1,
            '[policy] dead_forwards = "reject": forwards only to addresses of this host that bounce',
        ),
        ('[policy]\nprepended = "refuse"\n', "shop.example-x@here.example", 1, '[policy] prepended = "refuse"'),
    ],
)
def test_the_word_of_policy(tmp_path: Path, settings: str, address: str, status: int, policy: str) -> None:
    names = {
        **LOOPS,
        "control/locals": "here.example\nhack.example\n",
        "control/percenthack": "hack.example\n",
        "control/rcpthosts": "here.example\nrelay.example\n",
        "control/virtualdomains": "shop.example:shop.example\n",
        "users/assign": "+shop.example-:joe:1001:1001:/home/joe:-:shop-:\n.\n",
        "alias/.qmail-slow": "\n",
        "/etc/rcptgen.toml": settings,
    }
    site = Site(tmp_path, names)
    done = site.run("explain", "--json", address)
    assert (done.status, done.json["policy"]) == (status, policy)
    assert done.json["accepted"] is (status == 0)


def test_published_files_are_asked(tmp_path: Path) -> None:
    files = {f"~joe/.qmail-l{at}": MAIL for at in range(20)}
    names: dict[str, Any] = {
        "passwd": {"joe": 1001},
        "control/me": "here.example\n",
        "control/rcpthosts": "relay.example\n",
        "~joe/.qmail-sub-default": MAIL,
        "~joe/.qmail-sub-x-default": "|exit 100\n",
        "~joe/.qmail-noisy": MAIL,
        **files,
    }
    site = Site(tmp_path, names)
    site.published("--force")
    home = site.host.root / "home/joe"

    def said(address: str) -> tuple[str, str, str | None]:
        (found,) = site.run("explain", "-t", site.output, "--json", address).json["answers"]
        return found["match"], found["standing"], found["key"]

    assert said("joe-l3@here.example") == ("exact", "agrees", "joe-l3@here.example")
    assert said("joe-sub-y@here.example") == ("prefix", "agrees", "joe-sub-default@here.example")
    assert said("joe-sub-x-y@here.example") == ("prefix", "agrees", "joe-sub-x-default@here.example")
    assert said("any@relay.example") == ("catch-all", "agrees", "@relay.example")
    assert said("joe-no@here.example") == ("none", "agrees", None)
    assert said("postmaster") == ("exact", "widened", "postmaster")
    assert said("joe-l3") == ("none", "unsayable", None)
    (home / ".qmail-noisy").unlink()
    site.host.write("~joe/.qmail-late", MAIL)
    assert said("joe-noisy@here.example") == ("exact", "stale", "joe-noisy@here.example")
    assert said("joe-late@here.example") == ("none", "stale", None)
    for at in range(20):
        (home / f".qmail-l{at}").unlink()
    assert site.compile().status == 3
    assert said("joe-l3@here.example") == ("exact", "held", "joe-l3@here.example")
    text = site.run("explain", "-t", site.output, "joe-l3@here.example").out.splitlines()[-1]
    assert text.startswith(f"{site.file} (validrcptto): accepts, by the exact key joe-l3@here.example; held: ")
    gone = site.run("explain", "-t", f"validrcptto={tmp_path}/no\x1bfile", "joe-l3@here.example")
    assert gone.status == 1
    assert gone.out.splitlines()[-1].endswith("No such file or directory")
    assert "\x1b" not in gone.out


@pytest.mark.usefixtures("_in_this_process")
def test_what_a_format_cannot_tell_apart_is_said(tmp_path: Path) -> None:
    """A name that ends in -default shares a key with its prefix."""
    names: dict[str, Any] = {
        "passwd": {"joe": 1001},
        "control/me": "here.example\n",
        "~joe/.qmail-a-default": File(MAIL),
    }
    site = Site(tmp_path, {**names, "users/assign": "=joe-b-default:joe:1001:1001:/home/joe:-:a-x:\n.\n"})
    site.published("--force")
    with Host.open(site.host.root) as host:
        policy = Policy(host)
        one = explain(host, policy, b"joe-b-other@here.example")
        (found,) = answers(policy, one, [Output("validrcptto", bytes(site.file))], {})
    assert (one.accepted, found.match, found.standing) == (False, Match.PREFIX, Standing.WIDENED)
    assert found.why == "a name that ends in -default has the key of its prefix"


def test_a_state_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert held_since(None) == {}
    assert held_since(bytes(tmp_path / "state")) == {}
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("words", [["-t", "validrcptto"], ["-t", "nosuch=/x"], []])
def test_wrong_words(tmp_path: Path, words: list[str]) -> None:
    site = Site(tmp_path, LOOPS)
    address = ["a@here.example"] if words else []
    assert site.run("explain", *words, *address).status == 2


# --- Anything ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_in_this_process")
@given(table=randomhosts.hosts(), config=randomhosts.configs(), data=st.data())
@settings(
    max_examples=parts.rounds(40),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
def test_the_way_ends_where_decide_says(
    tmp_path: Path, table: randomhosts.Table, config: Config, data: st.DataObject
) -> None:
    where = Path(tempfile.mkdtemp(dir=tmp_path))
    where.chmod(0o755)
    try:
        try:
            laid = Laid(where / "root", table)
        except BadTree:
            assume(False)
        addresses = data.draw(st.lists(randomhosts.addresses(), min_size=1, max_size=8))
        with Host.open(laid.root, config) as host:
            policy = Policy(host)
            for address in [*addresses, *randomhosts.aimed(table, [("mail.example", "")])[:6]]:
                one = explain(host, policy, address)
                outcome = host.decide(address)
                assert one.trace.outcome == outcome
                assert one.lead.outcome.verdict is outcome.verdict
                assert one.accepted is policy.judged(address, outcome)
                assert one.trace.steps or outcome.verdict is Verdict.BOUNCE
                list(follow(host, policy, one, most=20))
    finally:
        remove(where)


@pytest.mark.parametrize("evil", ["\x1b[31m", "\u202e", "\x07b", "\x9b2J", "\udcff\udcfe"])
def test_names_that_would_move_the_cursor(tmp_path: Path, evil: str) -> None:
    name = evil.encode("utf-8", "surrogateescape")
    names: dict[str, Any] = {
        "passwd": {"joe": 1001},
        "control/me": "here.example\n",
        "control/virtualdomains": b"shop" + name + b".example:joe-" + name + b"\n",
        f"~joe/.qmail-{evil}-default": b"&" + name + b"@here.example\n|" + name + b"\n./" + name + b"\n",
        f"~joe/.qmail-{evil}": b"|forward '" + name + b"'\n",
    }
    site = Site(tmp_path, names)
    for address in (f"x@shop{evil}.example", f"joe-{evil}@here.example", f"{evil}"):
        for words in (["--follow"], ["--follow", "--json"]):
            done = site.run("explain", *words, "-t", f"validrcptto={tmp_path}/{evil}", address)
            assert done.status in (0, 1), done
            assert all(one.isprintable() or one == "\n" for one in done.out + done.err)
