"""bouncesaying, except, condredirect, forward, preline and qreceipt, as their sources have them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rcptgen.programs import builtin_models
from rcptgen.programs.shell import run_line
from rcptgen.qmail.model import ANY_STATUS, SIGNALLED, Effect, Presence, Situation, Text
from rcptgen.rules.outcome import Kind

THERE = {b"filter": Presence.FOUND, b"plain-file": Presence.NOT_EXECUTABLE, b"locked": Presence.FAILED}
VARIABLES: dict[bytes, Text] = {b"PATH": b"/bin", b"HOST": b"example.org"}


def presence(command: bytes) -> Presence:
    return THERE.get(command, Presence.NOT_FOUND)


def run(line: str) -> Effect:
    return run_line(line.encode(), Situation(VARIABLES, presence), builtin_models())


CHILDREN = {
    "true": 0,
    "false": 1,
    "test a = b": 1,
    "sh -c 'exit 111'": 111,
    "sh -c 'exit 99'": 99,
    "sh -c 'kill -9 $$'": SIGNALLED,
    "nosuchprogram": 100,
    "plain-file": 100,
    "locked": 111,
    "exit 0": 100,  # a built-in is no program
}


def gates(succeeded: int) -> Callable[[int], int]:
    """bouncesaying, except and condredirect differ in what a success of their child is."""
    return lambda child: succeeded if child == 0 else 111 if child in (111, SIGNALLED) else 0


@pytest.mark.parametrize("child", CHILDREN)
def test_the_child_decides(child: str) -> None:
    ended = CHILDREN[child]
    assert run(f"bouncesaying 'no such user' {child}").statuses == {gates(100)(ended)}
    assert run(f"except {child}").statuses == {gates(100)(ended)}
    assert run(f"condredirect z@far.example {child}").statuses == {gates(99)(ended)}
    assert run(f"preline {child}").statuses == {111 if ended == SIGNALLED else ended}


def test_bouncesaying() -> None:
    assert run("bouncesaying 'x'") == Effect(frozenset({100}), Kind.PROGRAM, "bouncesaying bounces")
    assert run("bouncesaying").statuses == {100}
    assert run("bouncesaying ''").statuses == {100}
    assert run("bouncesaying x filter") == Effect(
        frozenset({0, 100, 111}), Kind.PROGRAM, "program without a model", approximate=True
    )
    assert run("true && bouncesaying x").statuses == {100}
    assert run("bouncesaying x except true").statuses == {0}
    assert run("bouncesaying x except false").statuses == {100}


def test_except() -> None:
    assert run("except").statuses == {100}
    assert run("except filter").statuses == {0, 100, 111}
    assert run("except sh -c 'test \"$HOST\" = example.org'").statuses == {100}


def test_condredirect() -> None:
    assert run("condredirect z@far.example true") == Effect(frozenset({99}), Kind.FORWARD, "condredirect forwards")
    assert run("condredirect z@far.example false").kind is Kind.PROGRAM
    assert run("condredirect z@far.example filter") == Effect(
        frozenset({0, 99, 111}), Kind.FORWARD, "program without a model", approximate=True
    )
    assert run("condredirect z@far.example").statuses == {100}
    assert run(f"condredirect {'z' * 1002} true").statuses == {99}
    assert run(f"condredirect {'z' * 1003} true").statuses == {100}
    assert run(f"condredirect {'z' * 1003} false").statuses == {0}


def test_forward() -> None:
    assert run("forward z@far.example") == Effect(frozenset({0}), Kind.FORWARD, "forward forwards")
    assert run("forward a b c; exit 99").kind is Kind.FORWARD
    assert run("forward") == Effect(frozenset({0}), Kind.PROGRAM, "forward to nobody")
    assert run(f"forward a {'z' * 1002}").statuses == {0}
    assert run(f"forward a {'z' * 1003}").statuses == {100}
    assert run('forward "$SENDER"').statuses == {0}
    assert run("unset NEWSENDER; forward a").statuses == {100}
    assert run("QMAILQUEUE=/opt/scanner forward a").statuses == {0, 100, 111}


def test_preline() -> None:
    assert run("preline").statuses == {100}
    assert run("preline -f").statuses == {100}
    assert run("preline -z true").statuses == {100}
    assert run("preline -fr -d -- true").statuses == {0}
    assert run("preline -fR bouncesaying x").statuses == {100}
    assert run("preline filter").statuses == ANY_STATUS


def test_qreceipt() -> None:
    assert run("qreceipt").statuses == {100}
    assert run("qreceipt joe@example.org").statuses == {0}


def test_models_go_by_the_last_part_of_a_path() -> None:
    assert run("/opt/qmail/bin/bouncesaying x").statuses == {127}
    situation = Situation(VARIABLES, lambda command: Presence.FOUND)
    assert run_line(b"/opt/qmail/bin/bouncesaying x", situation, builtin_models()).statuses == {100}


def test_every_model_is_registered_under_its_names() -> None:
    models = builtin_models()
    assert set(models) >= {b"bouncesaying", b"except", b"condredirect", b"forward", b"preline", b"qreceipt"}
    assert all(name in model.names for name, model in models.items())
