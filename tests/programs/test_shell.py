"""What the model of /bin/sh says of lines that administrators write, and of any other bytes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import hypothesis.strategies as st
import parts
import pytest
from hypothesis import example, given, settings

from rcptgen.programs import builtin_models
from rcptgen.programs.shell import run_line
from rcptgen.programs.shellparse import MAX_LINE
from rcptgen.qmail.model import (
    ANY_STATUS,
    SIGNALLED,
    UNKNOWN,
    Effect,
    Free,
    Presence,
    ProgramModel,
    Runner,
    Situation,
    Text,
)
from rcptgen.rules.outcome import Kind

THERE = {
    b"/var/qmail/bin/bouncesaying": Presence.FOUND,
    b"/bin/sh": Presence.FOUND,
    b"bin/local": Presence.FOUND,
    b"/home/joe/bin/filter": Presence.FOUND,
    b"filter": Presence.FOUND,
    b"/opt/bin/filter": Presence.FOUND,
    b"plain-file": Presence.NOT_EXECUTABLE,
    b"locked": Presence.FAILED,
}


def run(line: str | bytes, models: Mapping[bytes, ProgramModel] | None = None, **variables: Text) -> Effect:
    texts: dict[bytes, Text] = {b"HOME": b"/home/joe", b"PATH": b"/var/qmail/bin:/bin", b"SENDER": UNKNOWN}
    texts.update({name.encode(): text for name, text in variables.items()})
    situation = Situation(texts, lambda command: THERE.get(command, Presence.NOT_FOUND))
    return run_line(line if isinstance(line, bytes) else line.encode(), situation, models or builtin_models())


def status(line: str | bytes, **variables: Text) -> int:
    """The one status of a line in which everything is known."""
    effect = run(line, None, **variables)
    assert not effect.approximate
    (one,) = effect.statuses
    return one


@pytest.mark.parametrize(
    "line, expected",
    [
        ("", 0),
        ("   ", 0),
        ("# nothing", 0),
        ("exit 100", 100),
        (" exit 100", 100),
        ("exit 100 # reason", 100),
        ("exit 100\r", 2),
        ("exit 100 " + "#" * 5000, 100),
        ("exit 356", 100),
        ("exit 0100", 100),
        ("false; exit", 1),
        ("exit; false", 0),
        ("exit x; true", 2),
        ("(exit 100); exit 99", 99),
        ("{ exit 100; }; exit 99", 100),
        ("exit 100 | true", 0),
        ("true | exit 100", 100),
        ("exit 100 & true", 0),
        ("exit 100 &", 0),
        ("! true", 1),
        ("! false", 0),
        ("! exit 100", 100),
        ("false || exit 100", 100),
        ("true || exit 100", 0),
        ("false && exit 100 || exit 99", 99),
        ("nosuchcommand", 127),
        ("/no/such/program", 127),
        ("x@example.org", 127),
        ("plain-file", 126),
        ("locked", 111),
        ("''", 127),
        ("nosuchcommand || exit 0", 0),
        ("/no/such/ezmlm-send '/home/joe/list' || exit 100", 100),
        ("kill -9 $$", SIGNALLED),
        ("kill -KILL $$; exit 0", SIGNALLED),
        ("kill -s TERM $$", SIGNALLED),
        ("kill $$", SIGNALLED),
        ("(kill -9 $$) || exit 0", SIGNALLED),
        ("kill -0 $$", 0),
        ("sh -c 'kill -9 $$'", 137),
        ("sh -c 'kill -9 $$' || exit 100", 100),
        ("exec sh -c 'kill -9 $$'", SIGNALLED),
        ("sh -c 'exit 100'", 100),
        ("/bin/sh -c 'exit 100'", 100),
        ("sh -c 'exit 100", 2),
        ("sh -c ')' || exit 100", 100),
        ("exec false; exit 100", 1),
        ("exec nosuch; exit 100", 127),
        ("if true; then exit 100; fi", 100),
        ("if false; then exit 100; fi", 0),
        ("if false; then exit 1; elif true; then exit 99; else exit 100; fi", 99),
        ("x=100; exit $x", 100),
        ("x='exit 100'; $x", 100),
        ("x='exit 100'; \"$x\"", 127),
        ("exit ${x:-100}", 100),
        ("exit ${HOME:+99}", 99),
        (": ${x:=64}; exit $x", 64),
        ("x=1 y=2; exit $x$y", 12),
        ("x=1 true; exit ${x-7}", 7),
        ("cat >/dev/null; exit 100", 100),
        ("exit 100 >/dev/null 2>&1 </dev/null", 100),
        ("echo 'no such user'; exit 100", 100),
        ("exit 1\0 || true", 1),
    ],
)
def test_known_lines(line: str, expected: int) -> None:
    assert status(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        *(
            "'",
            '"',
            "`",
            "bouncesaying 'x",
            "$(",
            "${x",
            "(",
            ")",
            "( )",
            "{ true",
            "{ true }",
            "true }; }",
            "exit 100; )",
        ),
        *("&&", "||", "|", ";", "& true", "true &&", "true ||", "true |", "true | | false", "true && && false"),
        *(
            "; true",
            "true ; ; true",
            "true ;; false",
            "exit 100 )",
            "if true; then",
            "if true; fi",
            "fi",
            "then",
            "done",
        ),
        *(
            "case x in x",
            "case x",
            "esac",
            "true >",
            "true 2> | cat",
            "exit 100 'unfinished",
            "echo a (b)",
            "done",
        ),
        *("for i in a; do true", "while true; done", "{ true; } false", "(true) false", "if true; then fi", "do true"),
    ],
)
def test_what_no_shell_takes_is_status_2_and_runs_nothing(line: str) -> None:
    effect = run(line)
    assert effect == Effect(frozenset({2}), Kind.PROGRAM, "shell syntax error")


@pytest.mark.parametrize(
    "line",
    [
        *(
            "for i in a b; do exit 100; done",
            "while true; do exit 100; done",
            "f() { exit 100; }; f",
            "[[ a = b ]] || exit 100",
        ),
        *(
            "exit $(cat status)",
            "exit `cat status`",
            "exit $((50 + 50))",
            "eval exit 100",
            ". ./settings",
            "trap 'exit 0' 0",
        ),
        *("exit 100 << EOF", "set -e; false", "return 100", "exit -156", "exit 100 x", "((exit 100))", "! ! exit 100"),
        *(
            "$SENDER",
            "sh script",
            'sh -c "$SENDER"',
            "true &>/dev/null; exit 100",
            "a[1]=2; exit 100",
            "${HOME/a/b}; exit 100",
        ),
        *("exit 100 < table", "true\nexit 100", "IFS=1; exit $x", "exit $'100'", "bouncesaying no >> log"),
    ],
)
def test_what_is_not_modelled_may_deliver_or_defer(line: str) -> None:
    effect = run(line)
    assert effect.approximate
    assert effect.statuses - {64, 65, 70, 76, 77, 78, 100, 112}


def test_a_program_without_a_model_may_end_with_anything() -> None:
    assert run("filter") == Effect(ANY_STATUS, Kind.PROGRAM, "program without a model", approximate=True)
    assert run("/home/joe/bin/filter -x").statuses == ANY_STATUS
    assert run("~/bin/filter").statuses == ANY_STATUS
    assert run("bin/local").statuses == ANY_STATUS


def test_what_follows_an_unknown_program_is_told_path_by_path() -> None:
    assert run("filter || exit 100").statuses == {0, 100}
    assert run("filter && exit 99; exit 100").statuses == {99, 100}
    assert run("filter; [ $? -eq 0 ] && exit 99; exit 100").statuses == {99, 100}
    assert run("filter; case $? in 0) exit 99;; 3) exit 100;; *) exit 64;; esac").statuses == {99, 100, 64}
    assert run("filter; exit $?").approximate
    assert status("filter; exit 100") == 100
    assert status("filter && exit 100 || exit 100") == 100
    assert status("filter | exit 100") == 100


def test_a_changed_path_is_searched_anew() -> None:
    assert run("PATH=/opt/bin:$PATH; filter").statuses == ANY_STATUS
    assert status("PATH=/opt/none; filter") == 127
    assert status("PATH=/var/qmail/bin; bouncesaying x") == 100
    # A tool that every system has may still be missing from one directory.
    assert run("PATH=/opt/none; bouncesaying x").statuses == {100, 127}


def test_relative_commands_after_cd_are_not_known() -> None:
    assert status("bin/missing") == 127
    assert run("cd /srv; bin/missing").approximate


def test_test_of_the_sender_is_open() -> None:
    effect = run('test -n "$SENDER" || exit 100')
    assert effect == Effect(frozenset({0, 100}), Kind.PROGRAM, "test of the sender or the message", approximate=True)
    assert run("[ -f /etc/nologin ] && exit 111; exit 100") == Effect(
        frozenset({100, 111}), Kind.PROGRAM, "test of a file", approximate=True
    )


def test_shells_that_differ_are_all_followed() -> None:
    assert run("[ a == a ] || exit 100").statuses == {0, 100}
    assert status("[ a == b ] || exit 100") == 100


@pytest.mark.parametrize(
    "line, extension, expected",
    [
        ('test "$EXT" = env || exit 100', b"env", 0),
        ('test "$EXT" = env || exit 100', b"x", 100),
        ('case "$EXT" in a|b) exit 0;; *) exit 100;; esac', b"b", 0),
        ('case "$EXT" in a-*) exit 0;; esac; exit 100', b"a-x", 0),
        ('case "$EXT" in a-*) exit 0;; esac; exit 100', b"ax", 100),
        ("case ${EXT%%-*} in a) exit 0;; esac; exit 100", b"a-x-y", 0),
        ('[ "${EXT#a-}" = x-y ] || exit 100', b"a-x-y", 0),
        ("test $EXT = a || exit 100", b"x y z", 100),
        ("test $EXT || exit 100", b"", 100),
    ],
)
def test_a_known_extension_decides(line: str, extension: bytes, expected: int) -> None:
    assert status(line, EXT=extension) == expected


@pytest.mark.parametrize(
    "line, expected, compared",
    [
        ('test "$EXT" = env || exit 100', 100, {b"env"}),
        ('[ "$EXT" != env ] || exit 100', 0, {b"env"}),
        ('[ env = "${EXT}" ] && exit 0; exit 100', 100, {b"env"}),
        ('[ "$EXT" = a -o "$EXT" = b ] || exit 100', 100, {b"a", b"b"}),
        ('case "$EXT" in a|b) exit 0;; c) exit 99;; *) exit 100;; esac', 100, {b"a", b"b", b"c"}),
        ('[ -n "$EXT" ] || exit 100', 0, {b""}),
        ('[ "$EXT" ] || exit 100', 0, {b""}),
        ('[ -z "$EXT" ] || exit 100', 100, {b""}),
        ('[ "${EXT:-none}" = none ] && exit 0; exit 100', 100, {b"", b"none"}),
        ("[ $EXT = a ] || exit 100", 100, {b"", b"a"}),
        ('x=$EXT; [ "$x" = a ] || exit 100', 100, {b"a"}),
        ("sh -c '[ \"$EXT\" = a ] || exit 100'", 100, {b"a"}),
        ('bouncesaying "$EXT is gone"', 100, set()),
        ('echo "$EXT"; exit 100', 100, set()),
    ],
)
def test_a_free_extension_is_compared(line: str, expected: int, compared: set[bytes]) -> None:
    free = Free()
    assert status(line, EXT=free) == expected
    assert free.compared == compared
    assert not free.opaque


@pytest.mark.parametrize(
    "line",
    [
        'case "$EXT" in a*) exit 0;; esac; exit 100',
        '[ "x$EXT" = xa ] || exit 100',
        '[ "${EXT%-x}" = a ] || exit 100',
        '[ "${#EXT}" -gt 3 ] || exit 100',
        '[ "$EXT" -gt 3 ] || exit 100',
        '[ "$EXT" = "$LOCAL" ] || exit 100',
        '[ "$EXT" = "$RECIPIENT" ] || exit 100',
        'exit "$EXT"',
        "$EXT",
        'sh -c "$EXT"',
        'x="$EXT-a"; [ "$x" = a-a ] || exit 100',
    ],
)
def test_a_free_extension_looked_at_otherwise_is_opaque(line: str) -> None:
    free = Free()
    # One object may stand for several variables that are not equal.
    assert run(line, None, EXT=free, LOCAL=Free(), RECIPIENT=free).approximate
    assert free.opaque


class Recorder:
    names: tuple[bytes, ...] = (b"filter",)

    def __init__(self, effect: Effect) -> None:
        self.effect = effect
        self.seen: list[tuple[list[Text], Text | None]] = []

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        self.seen.append((list(words), situation.variables.get(b"X")))
        return self.effect


def test_a_model_gets_words_and_exported_variables() -> None:
    model = Recorder(Effect(frozenset({0}), Kind.LIST, "list"))
    effect = run("y=1; X=2 /home/joe/bin/filter 'a b' \"$y\" $SENDER", {b"filter": model})
    assert effect == model.effect
    assert model.seen == [([b"/home/joe/bin/filter", b"a b", b"1", UNKNOWN], b"2")]
    model.seen.clear()
    run("X=2; filter; export X; filter; unset X; filter", {b"filter": model})
    assert [text for _, text in model.seen] == [None, b"2", None]


def test_the_kind_of_a_success_lasts() -> None:
    model = Recorder(Effect(frozenset({0}), Kind.LIST, "list"))
    assert run("filter || exit 100; exit 0", {b"filter": model}).kind is Kind.LIST
    assert run("filter; exit 100", {b"filter": model}).kind is Kind.PROGRAM
    model.effect = Effect(frozenset({0, 100}), Kind.LIST, "list hangs on the sender", approximate=True)
    effect = run("filter || exit 111", {b"filter": model})
    assert effect == Effect(frozenset({0, 111}), Kind.LIST, "list hangs on the sender", approximate=True)


def test_an_approximate_success_stays_approximate() -> None:
    model = Recorder(Effect(frozenset({0}), Kind.LIST, "list", approximate=True))
    assert run("filter", {b"filter": model}) == model.effect


FRAGMENTS = st.sampled_from(
    [
        *(
            b"$",
            b"${",
            b"}",
            b"$(",
            b"$((",
            b")",
            b"(",
            b"`",
            b"'",
            b'"',
            b"\\",
            b";",
            b";;",
            b"&",
            b"|",
            b"<",
            b">",
            b"<<",
            b"!",
        ),
        *(
            b"[",
            b"]",
            b"*",
            b"?",
            b"{",
            b"#",
            b"~",
            b"=",
            b"\n",
            b"\r",
            b"\xff",
            b" ",
            b"\t",
            b"if ",
            b"then ",
            b"fi ",
            b"case ",
        ),
        *(
            b" in ",
            b"esac",
            b"for ",
            b"while ",
            b"do ",
            b"done",
            b"test ",
            b"sh -c ",
            b"exit ",
            b"$EXT",
            b"$x",
            b"x=",
            b"${x:-",
            b"a",
        ),
        *(
            b"export ",
            b"read x",
            b"cd ",
            b"kill ",
            b"$$",
            b"$?",
            b"exec ",
            b"set ",
            b"filter ",
            b"except ",
            b"-a ",
            b"-eq 1",
            b"100",
        ),
        *(b"/", b"-", b":", b"%", b"condredirect a ", b"PATH=", b"unset ", b"command ", b"printf ", b"umask "),
    ]
)


@settings(max_examples=parts.rounds(500))
@given(st.lists(st.one_of(FRAGMENTS, FRAGMENTS, st.binary(max_size=3)), max_size=30).map(b"".join))
@example(b'export X=\'sh -c "$X"\'; sh -c "$X"')
def test_any_bytes_are_answered(line: bytes) -> None:
    effect = run(line, EXT=Free())
    assert effect.statuses
    assert all(SIGNALLED <= one < 256 for one in effect.statuses)
    assert effect.reason
    assert effect.approximate or len(effect.statuses) == 1


@pytest.mark.parametrize(
    "line",
    [
        *(
            "(" * 5000,
            "( " * 5000 + "true" + " )" * 5000,
            "{ " * 5000,
            "$(" * 5000,
            "${x-" * 5000,
            "if " * 5000,
            "! " * 5000,
        ),
        *(
            "$((" * 40000,
            "`" * 100001,
            "a\\b" * 40000,
            "[" * 100000,
            "{," * 50000,
            "case $x in " + "[" * 100000 + ") ;; esac",
        ),
        *("filter;" * 18000, "filter || " * 13000 + "true", "x=$x$x$x$x-;" * 10000, "filter && x=$x.;" * 8000),
        *(
            "x=" + "a" * 30000 + ";" + "case $x in *a*a*a*a*b) ;; esac;" * 3000,
            "x=" + "a" * 60000 + "; echo " + "$x " * 20000,
        ),
        *(
            "".join(f"x{number}=1;" for number in range(12000)),
            "test " + "! " * 50000 + "a",
            "test " + "( " * 5000 + "a",
        ),
        *(
            "except " * 15000 + "true",
            "x=" + "a-" * 20000 + ";" + "y=${x%%b*};" * 2000,
            "a" * (MAX_LINE + 1),
            "1" * 120000 + ">x",
        ),
        # Short enough to be followed.
        *(
            "filter;" * 1300,
            "filter || " * 900 + "true",
            "x=$x$x$x$x-;" * 400,
            "filter && x=$x.;" * 500,
            "filter||true;" * 600,
        ),
        *(
            "x=" + "a" * 30000 + ";" + "case $x in *a*a*a*a*b) ;; esac;" * 180,
            "x=" + "a" * 60000 + "; echo " + "$x " * 1500,
        ),
        *(
            "".join(f"x{number}=1;" for number in range(1300)),
            "test " + "! " * 1800 + "a",
            "test " + "a -a " * 1500 + "a",
        ),
        *(
            "except " * 1500 + "true",
            "x=" + "a-" * 20000 + ";" + "y=${x%%b*};" * 500,
            "true|" * 900 + "true",
            "x=1&" * 1200,
        ),
        *("test -f x && y=$y$x;" * 300, "read a b c;" * 500, "cd a;" * 900, "bouncesaying a filter &&" * 400 + "true"),
        *(
            "exit " + "9" * 100000,
            "test 1 -eq " + "9" * 100000,
            "case x in " + "x|" * 60000 + "x) ;; esac",
            "true|" * 25000 + "true",
        ),
    ],
    ids=lambda line: f"{line[:12]!r}-{len(line)}",
)
def test_no_line_takes_long(line: str) -> None:
    begin = time.process_time()
    assert run(line).statuses
    assert time.process_time() - begin < 5
