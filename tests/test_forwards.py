"""Forwards followed to the end: what is dead is dead, and nothing else."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import inprocess
import parts
import pytest
from hosts import File, cdb_bytes, remove
from hosts import Host as Laid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rcptgen.forwards import Forwards
from rcptgen.host import Host

pytestmark = pytest.mark.root

MAIL = "./Mailbox\n"


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    inprocess.use(monkeypatch)


def dead_ones(tmp_path: Path, table: Mapping[str, Any], addresses: list[str]) -> list[str]:
    """The dead among the addresses of a host."""
    laid = Laid(tmp_path / "host", {"control/me": "here.example\n", **table})
    with Host.open(laid.root) as host:
        found = Forwards(host).dead(one.encode() for one in addresses)
    return sorted(one.decode() for one in found)


LINES = {
    "a forward to a mailbox": ("&joe@here.example\n", False),
    "a forward to nobody": ("&nobody@here.example\n", True),
    "without the ampersand, and without a domain": ("nobody\n", True),
    "a comment does not help": ("# old\n&nobody@here.example\n", True),
    "one of two is somebody": ("&nobody@here.example\n&joe@here.example\n", False),
    "all of two are nobody": ("&nobody@here.example\n&gone@here.example\n", True),
    "far away is somebody": ("&nobody@far.example\n", False),
    "a mailbox of its own": ("&nobody@here.example\n./Mailbox\n", False),
    "a list of forwards": ("+list\n&nobody@here.example\n", True),
    "itself": ("&x@here.example\n", True),
    "itself in another case": ("&X@Here.Example\n", True),
    "itself and somebody": ("&x@here.example\n&joe@here.example\n", False),
    "to one who defers": ("&deferring@here.example\n", False),
    "to the void": ("&void@here.example\n", False),
    "nobody at all": ("# nobody\n", False),
    "it bounces by itself": ("|exit 100\n", True),
    "forwards that are never reached": ("|exit 99\n&nobody@here.example\n", False),
    "and then it stops": ("&nobody@here.example\n|exit 99\n&joe@here.example\n", True),
    "a command that takes nothing": ("|true\n&nobody@here.example\n", True),
    "the program forward": ("|/var/qmail/bin/forward nobody@here.example\n", True),
    "the program forward, by its name": ("|forward nobody@here.example gone@here.example\n", True),
    "the program forward to somebody": ("|forward nobody@here.example joe@here.example\n", False),
    "the program forward with a variable": ('|forward "no-$EXT@here.example"\n', True),
    "the program forward to somebody by a variable": ('|forward "$EXT@far.example"\n', False),
    "condredirect": ("|condredirect nobody@here.example true\n", True),
    "condredirect, and on": ("|condredirect nobody@here.example false\n&gone@here.example\n", True),
    "condredirect by the message": ("|condredirect nobody@here.example grep -q x\n&gone@here.example\n", False),
    "a program without a model": ("|/bin/archive\n&nobody@here.example\n", False),
    "a line with branches": ('|test "$EXT" = y || forward nobody@here.example\n', False),
    "a shell in between": ("|sh -c 'cat >/dev/null'\n&nobody@here.example\n", False),
    "a condition that bounces": ("|bouncesaying gone test -n x\n&joe@here.example\n", True),
    "a condition that goes on": ("|bouncesaying gone false\n&nobody@here.example\n", True),
    "a child that nobody knows": ("|bouncesaying gone /bin/archive\n&nobody@here.example\n", False),
    "preline around forward": ("|preline forward nobody@here.example\n", True),
    "the sender decides": ('|forward "$SENDER"\n', False),
    "a forward that is too long": ("&" + "n" * 1003 + "\n", True),
    "through the percent hack": ("&nobody%here.example@hack.example\n", True),
    "two steps to nobody": ("&one@here.example\n", True),
    "into a loop": ("&round@here.example\n", True),
    "into a loop with a way out": ("&exit@here.example\n", False),
    "fastforward": ("|fastforward -d aliases.cdb\n", True),
}


@pytest.mark.parametrize("case", LINES)
def test_lines(tmp_path: Path, case: str) -> None:
    content, dead = LINES[case]
    table = {
        "passwd": {"joe": 1001},
        "control/locals": "here.example\n",
        "control/percenthack": "hack.example\n",
        "~joe/.qmail": MAIL,
        "/bin/archive": File("#!/bin/sh\n", mode=0o755),
        "/bin/grep": File("", mode=0o755),
        "/usr/bin/fastforward": File("", mode=0o755),
        "alias/aliases.cdb": cdb_bytes([(b":x@here.example", b"&round@here.example\0&nobody@here.example\0")]),
        "alias/.qmail-x": content,
        "alias/.qmail-deferring": "\n",
        "alias/.qmail-void": "#\n",
        "alias/.qmail-one": "&two@here.example\n",
        "alias/.qmail-two": "&nobody@here.example\n",
        "alias/.qmail-round": "&about@here.example\n",
        "alias/.qmail-about": "&round@here.example\n&two@here.example\n",
        "alias/.qmail-exit": "&back@here.example\n&round@here.example\n",
        "alias/.qmail-back": "&exit@here.example\n&joe@here.example\n",
    }
    assert dead_ones(tmp_path, table, ["x@here.example"]) == (["x@here.example"] if dead else [])


def test_targets_that_cannot_be_trusted_are_alive(tmp_path: Path) -> None:
    table = {
        "passwd": {"shop": 1001},
        "control/virtualdomains": "shop.example:shop\n",
        "~shop/.qmail-default": "|/usr/bin/fastforward -d aliases.cdb\n",
        "~shop/aliases.cdb": b"no cdb",
        "/usr/bin/fastforward": File("", mode=0o755),
        "alias/.qmail-x": "&nobody@shop.example\n",
    }
    assert dead_ones(tmp_path, table, ["x@here.example"]) == []


def test_damaged_users_leave_everybody_alive(tmp_path: Path) -> None:
    table = {"users/cdb": b"no cdb", "alias/.qmail-x": "&nobody@here.example\n"}
    assert dead_ones(tmp_path, table, ["x@here.example", "nobody@here.example"]) == []


def test_what_is_too_far_away_is_alive(tmp_path: Path) -> None:
    """A forward that grows with every step has no end that anybody could wait for."""
    laid = Laid(
        tmp_path / "host",
        {
            "control/me": "here.example\n",
            "alias/.qmail-default": '|forward "$EXT-a@here.example" "$EXT-b@here.example"\n',
        },
    )
    with Host.open(laid.root) as host:
        assert not Forwards(host, most=500).is_dead(b"x@here.example")


def test_a_way_of_a_thousand_steps(tmp_path: Path) -> None:
    files = {f"alias/.qmail-n{at}": f"&n{at + 1}@here.example\n" for at in range(1000)}
    assert dead_ones(tmp_path, files, ["n0@here.example", "n999@here.example"]) == [
        "n0@here.example",
        "n999@here.example",
    ]


def test_the_loop_is_named(tmp_path: Path) -> None:
    files = {
        "alias/.qmail-a": "&nobody@here.example\n&b@here.example\n",
        "alias/.qmail-b": "&c@here.example\n",
        "alias/.qmail-c": "&b@here.example\n",
        "alias/.qmail-d": "&nobody@here.example\n",
    }
    laid = Laid(tmp_path / "host", {"control/me": "here.example\n", **files})
    with Host.open(laid.root) as host:
        forwards = Forwards(host)
        loop = (b"b@here.example", b"c@here.example", b"b@here.example")
        assert [forwards.loop(one + b"@here.example") for one in (b"a", b"b", b"d")] == [loop, loop, ()]


@pytest.mark.parametrize("last", [0, 1500], ids=["a loop", "a way that ends"])
def test_a_long_way_is_gone_once_however_often_it_is_asked_for(tmp_path: Path, last: int) -> None:
    many = 1500
    targets = [*range(1, many), last]
    files = {f"alias/.qmail-n{at}": f"&n{to}@here.example\n" for at, to in enumerate(targets)}
    laid = Laid(tmp_path / "host", {"control/me": "here.example\n", **files})
    with Host.open(laid.root) as host:
        forwards = Forwards(host)
        names = [b"n%d@here.example" % at for at in range(many)]
        forwards.settle(names)
        begun = time.process_time()
        found = {forwards.loop(name) for name in names}
        assert time.process_time() - begun < 0.2
        assert [len(one) for one in found] == [0 if last else many + 1]


# --- Against a reference -------------------------------------------------------------------------

NODES = "abcdefgh"
ENDS = ("mail", "void", "gone", "far")

graphs = st.dictionaries(
    st.sampled_from(NODES), st.lists(st.sampled_from([*NODES, *NODES, *ENDS]), min_size=1, max_size=3), max_size=8
)


def lost(graph: Mapping[str, list[str]], start: str) -> bool:
    """What qmail does, message by message: whether none of the copies is delivered."""
    if start in ("mail", "void", "far"):
        return False
    # Every copy carries the addresses it has passed; one that comes back bounces.
    copies = [(start, frozenset[str]())]
    while copies:
        at, passed = copies.pop()
        if at in ("mail", "void", "far"):
            return False
        if at in passed:
            continue
        copies += [(target, passed | {at}) for target in graph.get(at, ())]
    return True


@given(graph=graphs, order=st.permutations(NODES), size=st.integers(1, 8))
@settings(
    max_examples=parts.rounds(150),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_every_graph_of_forwards(tmp_path: Path, graph: dict[str, list[str]], order: list[str], size: int) -> None:
    where = Path(tempfile.mkdtemp(dir=tmp_path))
    where.chmod(0o755)
    spelled = {one: f"{one}@here.example" for one in (*NODES, *ENDS)} | {"far": "x@far.example"}
    files = {f"alias/.qmail-{at}": "".join(f"&{spelled[one]}\n" for one in to) for at, to in graph.items()}
    ends = {"alias/.qmail-mail": MAIL, "alias/.qmail-void": "#\n"}
    try:
        laid = Laid(where / "host", {"control/me": "here.example\n", **ends, **files})
        with Host.open(laid.root) as host:
            forwards = Forwards(host)
            found: set[bytes] = set()
            for at in range(0, len(order), size):
                found |= forwards.dead(spelled[one].encode() for one in order[at : at + size])
            wanted = {spelled[one].encode() for one in NODES if lost(graph, one)}
            assert found == wanted
            for one in wanted:
                loop = forwards.loop(one)
                assert not loop or (loop[0] == loop[-1] and len(loop) > 1)
    finally:
        remove(where)
