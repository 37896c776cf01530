"""What a shell has come to at one point of a line: its variables, its last status, and what that hangs on."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from weakref import WeakValueDictionary

from rcptgen.qmail.model import ANY_STATUS, SIGNALLED, UNKNOWN, Effect, Free, Situation, Text, Unknown
from rcptgen.rules.outcome import Kind

MAX_PATHS = 128
MAX_TEXT = 1 << 16
MAX_VARIABLES = 512

NOTHING = "nothing is run"
COMPLEX = "shell line too complex"
VARIABLE_TEST = "test of a variable"
MESSAGE_TEST = "test of the sender or the message"
CONSTRUCT = "shell construct without a model"
NO_MODEL = "program without a model"


class TooComplex(Exception):
    """Following the line any further would take too long."""


class Work:
    """How much may still be done for a line; a unit is about one simple command."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, amount: int) -> None:
        """Takes note of some work."""
        self.left -= amount
        if self.left < 0:
            raise TooComplex


class Mixed(Unknown):
    """An unknown text with the variables in it: whoever looks at it looks at them."""

    __slots__ = ("free",)

    def __init__(self, free: Iterable[Free]) -> None:
        self.free = tuple(free)


class ShellPid(Unknown):
    """The value of `$$`."""

    __slots__ = ()


class VagueStatus(Unknown):
    """The value of `$?` after a failure of which only the sort is known."""

    __slots__ = ("status",)

    def __init__(self, status: int) -> None:
        self.status = status


PID = ShellPid()


def look(text: Text) -> str:
    """Marks what a text was made of as looked at; answers what an effect that rests on it is to say."""
    if isinstance(text, Free):
        text.opaque = True
        return VARIABLE_TEST
    if isinstance(text, Mixed):
        for one in text.free:
            one.opaque = True
        if text.free:
            return VARIABLE_TEST
    return MESSAGE_TEST


class Environment:
    """The variables of a shell; changing one makes another environment.

    `moved`: the working directory is no longer the home.  `arguments`: whether the shell
    may have positional parameters.  The same change of the same environment gives the
    same object, so that paths which only differ in their history can be told equal.
    """

    __slots__ = ("__weakref__", "_changed", "arguments", "exported", "moved", "texts")

    def __init__(
        self, texts: Mapping[bytes, Text], exported: frozenset[bytes], *, moved: bool = False, arguments: bool = False
    ) -> None:
        self.texts = texts
        self.exported = exported
        self.moved = moved
        self.arguments = arguments
        self._changed: WeakValueDictionary[tuple[object, ...], Environment] = WeakValueDictionary()

    def set(self, name: bytes, text: Text | None, *, export: bool = False) -> Environment:
        """With `name` set to `text`, unset where that is None."""
        if len(self.texts) > MAX_VARIABLES:
            raise TooComplex
        changed = self._changed.get((name, text, export))
        if changed is None:
            texts = dict(self.texts)
            if text is None:
                texts.pop(name, None)
            else:
                texts[name] = text
            exported = self.exported - {name} if text is None else self.exported
            changed = self._with(texts, exported | {name} if export else exported)
            self._changed[name, text, export] = changed
        return changed

    def export(self, name: bytes) -> Environment:
        """With `name` handed to programs, now or once it is set."""
        changed = self._changed.get((name,))
        if changed is None:
            changed = self._changed[name,] = self._with(self.texts, self.exported | {name})
        return changed

    def flagged(self, *, moved: bool = False, arguments: bool = False) -> Environment:
        """With the flags raised."""
        changed = self._changed.get((moved, arguments))
        if changed is None:
            changed = self._changed[moved, arguments] = self._with(self.texts, self.exported)
            changed.moved |= moved
            changed.arguments |= arguments
        return changed

    def _with(self, texts: Mapping[bytes, Text], exported: frozenset[bytes]) -> Environment:
        return Environment(texts, exported, moved=self.moved, arguments=self.arguments)

    def handed_on(self) -> dict[bytes, Text]:
        """The variables that a program gets."""
        texts = {name: text for name, text in self.texts.items() if name in self.exported}
        # In another process `$$` is another number.
        return {name: UNKNOWN if isinstance(text, ShellPid) else text for name, text in texts.items()}


class End(enum.Enum):
    """Whether a shell still runs."""

    RUNNING = 0
    EXITED = 1
    KILLED = 2
    """By itself, through `$$`: that ends the first shell, wherever it is said."""


@dataclass(frozen=True, slots=True)
class Path:
    """One way through a line so far.

    A negative status is death by that signal.  `vague`: the status stands for others of
    its sort.  `forked`: there are other ways, and nobody knows which is taken; `doubt`
    says what that hangs on.  `widened`, `file` and `line` are those of the last program (see Effect).
    """

    environment: Environment
    status: int = 0
    end: End = End.RUNNING
    vague: bool = False
    forked: bool = False
    kind: Kind = Kind.PROGRAM
    reason: str = NOTHING
    doubt: str = ""
    widened: bool = False
    file: bytes = b""
    line: int = 0

    @property
    def running(self) -> bool:
        """Whether there is a shell left to go on."""
        return self.end is End.RUNNING

    def ends(self, status: int, reason: str) -> Path:
        """The last command has ended with `status` for certain."""
        return replace(self, status=status, reason=reason, vague=False, file=b"", line=0)

    def exits(self, status: int, reason: str) -> Path:
        """The shell has ended with `status` for certain."""
        return replace(self, status=status, reason=reason, vague=False, end=End.EXITED, file=b"", line=0)

    def splits(self, statuses: Iterable[int], doubt: str, *, vague: bool = False, end: End = End.RUNNING) -> list[Path]:
        """The last command may have ended with any of `statuses`."""
        doubt = self.doubt or doubt
        return [
            replace(self, status=status, reason=doubt, doubt=doubt, vague=vague, forked=True, end=end)
            for status in sorted(statuses)
        ]

    def unknown(self, doubt: str) -> list[Path]:
        """The last command may have done anything but end the shell."""
        return self.splits(ANY_STATUS, doubt, vague=True)

    def lost(self, doubt: str) -> list[Path]:
        """Nobody knows what the shell does from here on."""
        return self.splits(ANY_STATUS, doubt, vague=True, end=End.EXITED)

    def after(self, effect: Effect) -> list[Path]:
        """A program with `effect` has ended."""
        unsure = effect.approximate or len(effect.statuses) != 1
        return [
            replace(
                self,
                status=status,
                reason=effect.reason,
                kind=self.kind_after(effect.kind, status),
                vague=unsure,
                forked=self.forked or unsure,
                doubt=self.doubt or (effect.reason if unsure else ""),
                widened=self.widened or effect.widened,
                file=effect.file,
                line=effect.line,
            )
            for status in sorted(effect.statuses or ANY_STATUS)
        ]

    def kind_after(self, kind: Kind, status: int) -> Kind:
        """What a line is after a program of `kind`; a plain program beside it does not hide a forward or a list."""
        if status not in (0, 99) or (kind is Kind.PROGRAM and self.kind is not Kind.PROGRAM):
            return self.kind
        return kind

    def as_child(self, child: Path) -> Path:
        """A shell that this one has started has come to its end as `child` says."""
        return replace(child, environment=self.environment, end=End.RUNNING)


class Shell(Protocol):
    """What the commands of a shell may ask of it."""

    situation: Situation

    def command(self, words: Sequence[Text], path: Path) -> list[Path]:
        """Runs a built-in or a program."""
        ...

    def program(self, words: Sequence[Text], path: Path, *, missing: bool = False) -> list[Path]:
        """Runs a program, never a built-in; `missing`: as the child of a qmail tool, which exits 100 without one."""
        ...

    def script(self, text: bytes, path: Path) -> list[Path]:
        """Runs another shell on `text`; statuses are those of its process."""
        ...

    def found(self, name: bytes, path: Path) -> bool | None:
        """Whether `name` can be run; None when nobody knows."""
        ...


def merge(paths: Iterable[Path]) -> list[Path]:
    """The paths without repetitions."""
    merged = list(dict.fromkeys(paths))
    if len(merged) > MAX_PATHS:
        raise TooComplex
    return merged


def waited(status: int) -> int:
    """What a shell makes of the end of a child."""
    return status if status >= 0 else 128 - status


def effect(paths: Sequence[Path]) -> Effect:
    """What all the ways together amount to."""
    statuses = frozenset(path.status if path.status >= 0 else SIGNALLED for path in paths)
    approximate = any(path.vague for path in paths) or (len(statuses) > 1 and any(path.forked for path in paths))
    good = [path for path in paths if path.status in (0, 99)] or list(paths)
    best = next((path for path in good if path.kind is not Kind.PROGRAM), good[0])
    if best.status not in (0, 99):
        best = replace(best, kind=Kind.PROGRAM)
    reason = best.doubt or best.reason if approximate else best.reason
    widened = any(path.widened for path in paths)
    return Effect(statuses, best.kind, reason, approximate, widened, best.file, best.line)
