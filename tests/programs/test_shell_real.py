"""The shell's model against real shells: what they say must be among what the model says.

The lines are made here, from pieces that do nothing but end with a status.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import hypothesis.strategies as st
import parts
import pytest
from hypothesis import HealthCheck, example, given, settings

from rcptgen.programs import builtin_models
from rcptgen.programs.shell import run_line
from rcptgen.qmail.model import SIGNALLED, Effect, Presence, Situation

PATH = "/usr/bin:/bin"
VARIABLES = {
    "PATH": PATH,
    "HOME": "/nonexistent",
    "EXT": "list-help",
    "DEFAULT": "help",
    "N": "3",
    "B": " a  b ",
    "E": "",
}
NOBODY = 65534 if os.geteuid() == 0 else None
SHELLS = {"sh": ["/bin/sh"], "dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash"]}


def presence(command: bytes) -> Presence:
    found = shutil.which(command.decode(), path=PATH) if b"/" not in command else os.access(command, os.X_OK)
    return Presence.FOUND if found else Presence.NOT_FOUND


def predicted(line: str) -> Effect:
    variables = {name.encode(): value.encode() for name, value in VARIABLES.items()}
    return run_line(line.encode(), Situation(variables, presence), builtin_models())


def real(shell: str, line: str) -> int:
    """The status of a real shell; death by a signal as qmail-local sees it."""
    done = subprocess.run(
        [*SHELLS[shell], "-c", line],
        env=VARIABLES,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=20,
        # Broken lines may come to mean anything: whoever runs them can write nowhere.
        user=NOBODY,
        group=NOBODY,
        extra_groups=None if NOBODY is None else [],
        check=False,
    )
    return SIGNALLED if done.returncode < 0 else done.returncode


# --- The grammar -------------------------------------------------------------------------------

NAMES = ("EXT", "DEFAULT", "N", "B", "E", "UNSET", "X", "Y")
SET = ("X", "Y", "N", "DEFAULT")
TEXTS = ("a", "b", "", "help", "list-help", "x y", "3", "ab", "c;d", "e&&f", "(", "!", "#", "it", "$N", "*")
STATUSES = ("0", "1", "2", "3", "64", "99", "100", "111", "127", "255", "256", "356")
PATTERNS = ("help", "a", "*", "h*", "*-help", "li?t-*", "[a-z]*", "[!h]*", "$DEFAULT", '"*"', "3", "0")
SIMPLE = (
    *(
        "true",
        "false",
        ":",
        "exit",
        "nosuch-command",
        "/bin/true",
        "/bin/false",
        "cat",
        "umask 022",
        "exec",
        "printf x",
    ),
    *("unset X", "unset DEFAULT N", "set --", "command false", "command exit 5", "exec false", "exec nosuch-command"),
    *("sh -c 'test \"$X\" = a'", "sh -c 'exit 7; true'", "sh -c 'false || exit 9'", "sh -c ')'", "sh -c ''"),
    *("exit $N", "exit $UNSET", 'exit "$N"', "exit a", "exit 3x", "exit ''", "exit $?", ": $?"),
    *("$UNSET", "$UNSET false", "$E exit 4", "''", "~/nosuch", "echo ~ ~nobody"),
)
# What no shell, or not every shell, takes somewhere in a line; nothing here may make a file of the next word.
JUNK = (
    *(
        ";",
        ";;",
        "&&",
        "||",
        "|",
        "&",
        "(",
        ")",
        "'",
        '"',
        "`",
        "!",
        "{",
        "}",
        "if",
        "fi",
        "then",
        "do",
        "done",
        "esac",
    ),
    *("case", "in", "$(", "${", "#", "\\", "< /dev/null", "a", "$N", "*", "while", "for x in"),
)


class Maker:
    """Makes lines out of what it draws."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw

    def one(self, texts: Sequence[str]) -> str:
        return self.draw(st.sampled_from(texts))

    def number(self, last: int) -> int:
        return self.draw(st.integers(0, last))

    def quoted(self) -> str:
        text = self.one(TEXTS)
        return self.one(
            [f"'{text}'", '"' + text.replace("$", "\\$") + '"', "".join("\\" + char for char in text) or "''"]
        )

    def parameter(self) -> str:
        match self.number(4):
            case 0:
                return self.one(["$?", "$#", "$", "${#EXT}", "$1"])
            case 1:
                operator = self.one(["-", ":-", "+", ":+", "=", ":=", "%", "%%", "#", "##"])
                argument = self.one(["a", "", "b c", "$N", "*-", "-*", "?", "h*p", "[a-h]*"])
                return f"${{{self.one(NAMES)}{operator}{argument}}}"
            case 2:
                return f"${{{self.one(NAMES)}}}"
        return f"${self.one(NAMES)}"

    def single(self) -> str:
        """One word whatever is in it."""
        match self.number(3):
            case 0:
                return self.one(["a", "help", "3"])
            case 1:
                return f'"{self.parameter()}"'
            case 2:
                return self.quoted() + self.quoted()
        return self.quoted()

    def word(self) -> str:
        match self.number(3):
            case 0:
                return self.one(["x#y", "a=b", "-", "}", "fi", '"$@"'])
            case 1:
                return self.parameter()
            case 2:
                return self.single() + "x"
        return self.single()

    def operand(self) -> str:
        """A text that nobody takes for an operator of `test`."""
        return self.one(["a", "help", "'x y'", '"$EXT"', "$EXT", '"$E"', '"${UNSET-a}"', '"$B"', "''", "3", "a'b'"])

    def expression(self, depth: int) -> str:
        match self.number(7 if depth else 3):
            case 0:
                return self.operand()
            case 1:
                return f"{self.one(['-n', '-z'])} {self.operand()}"
            case 2:
                return f"{self.operand()} {self.one(['=', '!='])} {self.operand()}"
            case 3:
                comparison = self.one(["-eq", "-ne", "-lt", "-le", "-gt", "-ge"])
                return (
                    f"{self.one(['1', '3', '-4', '${#EXT}', '007'])} {comparison} {self.one(['0', '3', '${EXT:+9}'])}"
                )
            case 4:
                inner = self.expression(depth - 1)
                return inner if inner.startswith(("!", "\\(")) else f"! {inner}"
            case 5:
                inner = self.expression(depth - 1)
                return inner if inner.startswith(("!", "\\(", "-")) else rf"\( {inner} \)"
        return f"{self.expression(depth - 1)} {self.one(['-a', '-o'])} {self.expression(depth - 1)}"

    def simple(self) -> str:
        match self.number(12):
            case 0:
                return f"exit {self.one(STATUSES)}"
            case 1:
                return f"({self.one(['', ' '])}exit {self.one(STATUSES)} )"
            case 2:
                return f"{self.one(['test', '/usr/bin/test'])} {self.expression(2)}"
            case 3:
                return f"[ {self.expression(2)} ]"
            case 4:
                return f"test {self.single()} {self.one(['=', '!='])} {self.single()}"
            case 5:
                return f"echo {self.word()} {self.word()}"
            case 6:
                return f"{self.one(SET)}={self.word()}"
            case 7:
                return f"{self.one(SET)}={self.single()} true"
            case 8:
                return self.one(["X={} sh -c 'exit $X'", "export X={}", ": ${{X:={}}}"]).format(self.one(STATUSES))
        return self.one(SIMPLE)

    def line(self, depth: int) -> str:
        if depth == 0 or self.number(4) == 0:
            return self.simple()
        made = self.number(11)
        blank = self.one(["", " ", "\t"])
        first = self.line(depth - 1)
        second = self.line(depth - 1) if made < 4 or made in (7, 8, 9) else ""
        if made < 4:
            return first + blank + self.one(["&&", "||", ";", "&&", "||", ";", "|", "&"]) + blank + second
        if made == 4:
            return self.one([f"({blank} {first}{blank})", f"{{ {first}; }}", f"{{ {first}; }} >/dev/null 2>&1"])
        if made == 5:
            return first if first.startswith("!") else f"! {first}"
        if made == 6:
            return self.one([f"{first};", f"{first} 2>/dev/null", f"2>&1 {first}" if first[0].isalpha() else first])
        if made == 7:
            return f"if {first}; then {second}; else {self.line(depth - 1)}; fi"
        if made == 8:
            return f"if {first}; then {second}; elif {self.simple()}; then {self.simple()}; fi"
        if made == 9:
            patterns = [self.one(PATTERNS) for _ in range(3)]
            return f"case {self.single()} in {patterns[0]}) {first};; {patterns[1]}|{patterns[2]}) {second};; esac"
        if made == 10:
            return f"case {self.word()} in ({self.one(PATTERNS)}) {first}{blank}; esac"
        return f"{first} #{self.one(['', ' x', chr(39), ' && exit 100', ')'])}"


@st.composite
def lines(draw: st.DrawFn) -> str:
    """Lines that every shell takes alike and in which everything is known."""
    return Maker(draw).line(3)


@st.composite
def broken_lines(draw: st.DrawFn) -> str:
    """Lines with something in them that need not belong there."""
    words = Maker(draw).line(3).split(" ")
    words.insert(draw(st.integers(0, len(words))), draw(st.sampled_from(JUNK)))
    return " ".join(words)


def sort(status: int) -> str:
    """What qmail-local makes of a status."""
    if status in (0, 99):
        return str(status)
    return "bounce" if status in (100, 64, 65, 70, 76, 77, 78, 112) else "defer"


def agrees(shell: str, line: str) -> None:
    effect = predicted(line)
    status = real(shell, line)
    # An unknown effect has one status of each sort, and bash has several for errors.
    by_sort = effect.approximate or (shell == "bash" and 2 in effect.statuses)
    among = sort(status) in map(sort, effect.statuses) if by_sort else status in effect.statuses
    assert among, (line, status, effect)


SURE = settings(max_examples=parts.rounds(300), suppress_health_check=list(HealthCheck))


@SURE
@given(lines())
@example("false; exit")
@example("! exit 3")
def test_sh_agrees_and_nothing_is_left_open(line: str) -> None:
    effect = predicted(line)
    assert effect.statuses == {real("sh", line)}
    assert not effect.approximate


@SURE
@given(broken_lines())
def test_sh_is_covered_on_broken_lines(line: str) -> None:
    agrees("sh", line)


@pytest.mark.parametrize("shell", ["dash", "busybox", "bash"])
@settings(SURE, max_examples=parts.rounds(60))
@given(st.one_of(lines(), lines(), broken_lines()))
def test_other_shells_are_covered(shell: str, line: str) -> None:
    if shutil.which(SHELLS[shell][0]) is None:
        pytest.skip(f"no {shell}")
    agrees(shell, line)


def test_signals_end_the_shell(tmp_path: Path) -> None:
    for line in ("kill -9 $$", "(kill -TERM $$); exit 3", "true && kill -s KILL $$", "exec kill -9 $$"):
        assert predicted(line).statuses == {SIGNALLED} == {real("sh", line)}
    assert predicted("sh -c 'kill -15 $$'; exit $?").statuses == {143} == {real("sh", "sh -c 'kill -15 $$'; exit $?")}
