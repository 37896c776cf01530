"""The commands that are always there: built-ins of every shell, and the small programs of every system.

A command gets its words (its own name first) and the path it is run on, and
answers with the paths that lead on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from rcptgen.programs.shellstate import CONSTRUCT, VARIABLE_TEST, End, Path, Shell, ShellPid, VagueStatus, look
from rcptgen.programs.shelltest import Test
from rcptgen.programs.shellwords import UNTOUCHABLE
from rcptgen.qmail.model import UNKNOWN, Text

Builtin = Callable[[Shell, Sequence[Text], Path], list[Path]]

USAGE = "usage of a shell command"
OUTSIDE = "state of the host"

_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")

# Signals by their names: those that end a shell, and those that it does not notice.
_DEADLY = {b"HUP": 1, b"INT": 2, b"QUIT": 3, b"ILL": 4, b"TRAP": 5, b"ABRT": 6, b"BUS": 7, b"FPE": 8, b"KILL": 9}
_DEADLY |= {b"USR1": 10, b"SEGV": 11, b"USR2": 12, b"PIPE": 13, b"ALRM": 14, b"TERM": 15}
_UNNOTICED = frozenset({b"0", b"EXIT", b"CHLD", b"17", b"CONT", b"18", b"URG", b"23", b"WINCH", b"28"})


def true(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """`true`, `:`."""
    return [path.ends(0, "exit 0")]


def false(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """`false`."""
    return [path.ends(1, "exit 1")]


def unmodelled(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """A built-in that may change anything, or that one shell has and the other has not."""
    return path.lost(CONSTRUCT)


def outside(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """A built-in whose status hangs on the host and that changes nothing that counts."""
    return path.splits((0, 1, 2), OUTSIDE, vague=True)


def leave(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """`exit`: a number, its low eight bits; none, the last status; anything else, 2."""
    if len(words) == 1:
        return [replace(path, end=End.EXITED)]
    text = words[1]
    if isinstance(text, VagueStatus):
        return [replace(path, status=text.status, vague=True, end=End.EXITED)]
    if not isinstance(text, bytes):
        return path.lost(look(text))
    if re.fullmatch(rb"[0-9]{1,99}", text) and int(text) <= 0x7FFFFFFF:
        statuses = {int(text) & 255}
    elif re.fullmatch(rb"[ \t\n]*[-+]?[0-9]{1,99}[ \t\n]*", text):
        statuses = {2, int(text) & 255}  # a number for bash alone
    else:
        return [path.exits(2, USAGE)]
    if len(words) > 2:
        statuses.add(1)  # bash: too many arguments
    if len(statuses) > 1:
        return path.splits(statuses, USAGE, end=End.EXITED)
    status = statuses.pop()
    return [path.exits(status, f"exit {status}")]


def test(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """`test` and `[`."""
    arguments = list(words[1:])
    if words[0] != b"test" and not (isinstance(words[0], bytes) and words[0].endswith(b"/test")):
        last = arguments.pop() if arguments else b""
        if last != b"]":
            return [path.ends(2, USAGE)] if isinstance(last, bytes) else path.splits((0, 1, 2), look(last))
    evaluation = Test(shell.situation.look, moved=path.environment.moved)
    statuses = evaluation.statuses(arguments)
    if len(statuses) > 1:
        return path.splits(statuses, evaluation.doubt)
    (status,) = statuses
    return [path.ends(status, "test holds" if status == 0 else "test fails" if status == 1 else USAGE)]


def echo(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """`echo`: what it writes is written to the log."""
    return [path.ends(0, "exit 0")]


def printf(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """`printf`: fails where a number is wanted and there is none."""
    if len(words) == 1:
        return path.splits((1, 2), USAGE)
    form = words[1]
    if isinstance(form, bytes) and not form.startswith(b"-") and not re.sub(rb"%[%s]", b"", form).count(b"%"):
        return [path.ends(0, "exit 0")]
    return path.splits((0, 1, 2), USAGE)


def cat(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """`cat`: of the message it always succeeds."""
    return [path.ends(0, "exit 0")] if len(words) == 1 or words[1:] == [b"-"] else path.splits((0, 1), OUTSIDE)


def kill(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """`kill`: of `$$`, the end of the shell by that signal."""
    arguments = list(words[1:])
    signal: Text = b"TERM"
    if arguments[:1] == [b"-l"]:
        return [path.ends(0, "exit 0")]
    if arguments[:1] == [b"-s"]:
        signal = arguments[1] if len(arguments) > 1 else b""
        del arguments[:2]
    elif arguments and isinstance(arguments[0], bytes) and arguments[0].startswith(b"-") and arguments[0] != b"--":
        signal = arguments.pop(0)[1:]  # type: ignore[index]
    if arguments[:1] == [b"--"]:
        del arguments[0]
    if len(arguments) != 1 or not isinstance(arguments[0], ShellPid) or not isinstance(signal, bytes):
        if any(isinstance(one, ShellPid) for one in arguments):
            return path.lost(OUTSIDE)
        return outside(shell, words, path)
    if signal in _UNNOTICED:
        return [path.ends(0, "exit 0")]
    number = _DEADLY.get(signal, int(signal) if re.fullmatch(rb"[0-9]{1,2}", signal) else 0)
    if 0 < number <= 15:
        return [replace(path, status=-number, vague=False, reason="killed by a signal", end=End.KILLED)]
    return path.lost(USAGE)


def sh(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """`sh -c text`; a script of its own is not read."""
    if len(words) < 3 or words[1] != b"-c":
        return path.unknown(CONSTRUCT)
    text = words[2]
    if not isinstance(text, bytes):
        return path.unknown(look(text))
    if text.startswith((b"-", b"+")):
        return path.unknown(CONSTRUCT)
    environment = path.environment.flagged(arguments=True) if len(words) > 4 else path.environment
    return [path.as_child(child) for child in shell.script(text, replace(path, environment=environment))]


def execute(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """`exec`: the program takes the place of the shell."""
    if len(words) == 1:
        return [path.ends(0, "exit 0")]
    if isinstance(words[1], bytes) and words[1].startswith(b"-"):
        return path.lost(CONSTRUCT)
    return [one if one.end is End.KILLED else replace(one, end=End.EXITED) for one in shell.program(words[1:], path)]


def command(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """`command`: runs what it names, or with -v tells whether it is there."""
    rest = list(words[1:])
    if rest[:1] == [b"-p"]:
        rest.pop(0)
    if not rest:
        return [path.ends(0, "exit 0")]
    if rest[0] in (b"-v", b"-V") and len(rest) == 2:
        name = rest[1]
        found = shell.found(name, path) if isinstance(name, bytes) else None
        if found is None:
            return path.splits((0, 1, 127), look(name) if not isinstance(name, bytes) else OUTSIDE)
        return [path.ends(0, "exit 0")] if found else path.splits((1, 127), OUTSIDE)
    if isinstance(rest[0], bytes) and rest[0].startswith(b"-"):
        return path.lost(CONSTRUCT)
    return shell.command(rest, path)


def change_directory(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """`cd`: relative paths mean something else from here on."""
    environment = path.environment.flagged(moved=True).set(b"PWD", UNKNOWN).set(b"OLDPWD", UNKNOWN)
    return replace(path, environment=environment).splits((0, 1, 2), OUTSIDE, vague=True)


def set_options(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """`set`: options that change how lines are run are not modelled."""
    for word in words[1:]:
        if not isinstance(word, bytes):
            look(word)
            return path.lost(VARIABLE_TEST)
    first = b" ".join(word for word in words[1:2] if isinstance(word, bytes))
    if first in (b"--", b"") and len(words) < 3:
        return [path.ends(0, "exit 0")]
    if re.fullmatch(rb"-[xvab]+|\+[exvu]+", first) and len(words) == 2:
        return [path.ends(0, "exit 0")]
    if first.startswith((b"-", b"+")) and first != b"--":
        return path.lost(CONSTRUCT)
    return [replace(path.ends(0, "exit 0"), environment=path.environment.flagged(arguments=True))]


def unset(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """`unset` of variables."""
    environment = path.environment
    for word in words[1:]:
        if word == b"-v":
            continue
        if not isinstance(word, bytes) or not _NAME.fullmatch(word) or word in UNTOUCHABLE:
            return path.lost(CONSTRUCT)
        environment = environment.set(word, None)
    return [replace(path.ends(0, "exit 0"), environment=environment)]


def umask(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """`umask`."""
    if len(words) == 1 or (isinstance(words[1], bytes) and re.fullmatch(rb"[0-7]{1,4}", words[1])):
        return [path.ends(0, "exit 0")]
    return outside(shell, words, path)


def read(shell: Shell, words: Sequence[Text], path: Path) -> list[Path]:
    """`read`: the variables get what the message says."""
    environment = path.environment
    names = [word for word in words[1:] if word != b"-r"]
    for name in names:
        if not isinstance(name, bytes) or not _NAME.fullmatch(name) or name in UNTOUCHABLE:
            return path.lost(CONSTRUCT)
        environment = environment.set(name, UNKNOWN)
    return replace(path, environment=environment).splits((0, 1) if names else (0, 1, 2), "content of the message")


SPECIAL: dict[bytes, Builtin] = {
    b":": true,
    b"exit": leave,
    b"exec": execute,
    b"set": set_options,
    b"unset": unset,
    **dict.fromkeys((b".", b"eval", b"return", b"readonly", b"trap", b"shift", b"break", b"continue"), unmodelled),
}
"""Built-ins that end dash and busybox when they fail, and that are never programs (`export`: see shell.py)."""

ORDINARY: dict[bytes, Builtin] = {
    b"cd": change_directory,
    b"command": command,
    b"umask": umask,
    b"read": read,
    **dict.fromkeys((b"wait", b"ulimit", b"hash", b"type", b"times"), outside),
    **dict.fromkeys((b"source", b"let", b"declare", b"typeset", b"local", b"shopt", b"alias", b"unalias"), unmodelled),
    **dict.fromkeys((b"getopts", b"builtin", b"enable", b"fc", b"jobs", b"fg", b"bg", b"suspend"), unmodelled),
    **dict.fromkeys((b"disown", b"history", b"logout", b"mapfile", b"readarray", b"pushd", b"popd"), unmodelled),
    **dict.fromkeys((b"dirs", b"caller", b"bind", b"complete", b"compgen", b"compopt", b"chdir", b"help"), unmodelled),
}
"""Built-ins that are no programs, or whose program does something else."""

PROGRAMS: dict[bytes, Builtin] = {
    b"true": true,
    b"false": false,
    b"test": test,
    b"[": test,
    b"echo": echo,
    b"printf": printf,
    b"kill": kill,
    b"cat": cat,
    b"sh": sh,
}
"""What is a program on every system, and mostly a built-in as well."""
