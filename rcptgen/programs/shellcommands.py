"""How a shell finds a command: built-ins, models, what every system has, what the host has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Self

from rcptgen.programs.shellbuiltins import ORDINARY, OUTSIDE, PROGRAMS, SPECIAL
from rcptgen.programs.shellstate import (
    COMPLEX,
    CONSTRUCT,
    NO_MODEL,
    End,
    Path,
    TooComplex,
    Work,
    effect,
    look,
    merge,
    waited,
)
from rcptgen.programs.telling import tell_effect, tell_line, tell_program
from rcptgen.qmail.model import ANY_STATUS, QMAIL_PROGRAMS, Effect, Presence, ProgramModel, Runner, Situation, Text
from rcptgen.rules.outcome import Kind

LINE_WORK = 1_000
MAX_NESTED = 6
"""Programs that start programs; deeper ones are not followed."""


class Commands(ABC):
    """What shellstate.Shell promises, but for running scripts."""

    __slots__ = ("depth", "models", "situation", "work")

    def __init__(self, situation: Situation, models: Mapping[bytes, ProgramModel], work: Work, *, depth: int) -> None:
        self.situation = situation
        self.models = models
        self.work = work
        self.depth = depth

    def child(self) -> Self:
        """A process that this one starts."""
        return type(self)(self.situation, self.models, self.work, depth=self.depth + 1)

    @abstractmethod
    def script(self, text: bytes, path: Path) -> list[Path]:
        """Another shell runs `text`; the paths end with the statuses of its process."""

    def command(self, words: Sequence[Text], path: Path) -> list[Path]:
        """Runs a built-in or a program."""
        name = words[0]
        if not isinstance(name, bytes):
            return path.lost(look(name))
        builtin = (
            SPECIAL.get(name) or ORDINARY.get(name) or (PROGRAMS.get(name) if name not in (b"cat", b"sh") else None)
        )
        if name == b"export":
            return path.lost(CONSTRUCT)
        paths = builtin(self, words, path) if builtin else self.program(words, path)
        return [replace(one, status=waited(one.status)) if one.running else one for one in paths]

    def program(self, words: Sequence[Text], path: Path, *, missing: bool = False) -> list[Path]:
        """Runs a program, never a built-in; `missing`: as the child of a qmail tool, which exits 100 without one."""
        name = words[0]
        if not isinstance(name, bytes):
            return path.lost(look(name))
        self.work.spend(1)
        base = name.rpartition(b"/")[2]
        presence, sure = self.look_up(name, path)
        absent = path.ends(100 if missing else 127, "command not found")
        if presence is Presence.NOT_FOUND and sure:
            return [absent]
        if presence is Presence.NOT_EXECUTABLE and sure:
            return [path.ends(100 if missing else 126, "command not executable")]
        if presence is Presence.FAILED and sure:
            return [path.ends(111, "command cannot be looked up")]
        here = self.situation
        if here.leads is not None:
            tell_program(base, here.leads, self.models)
        if base in self.models:
            situation = Situation(
                path.environment.handed_on(), here.presence, here.look, lambda line: self.line(line, path), here.leads
            )
            found = self.models[base].run(words, situation, self.runner(path))
            if here.leads is not None:
                tell_effect(name, found, here.leads)
            paths = path.after(found)
        elif base in PROGRAMS:
            paths = PROGRAMS[base](self, words, path)
        else:
            paths = path.unknown(NO_MODEL)
        if sure:
            return paths
        return merge([replace(one, forked=True, doubt=one.doubt or OUTSIDE) for one in [*paths, absent]])

    def look_up(self, name: bytes, path: Path) -> tuple[Presence, bool]:
        """What is found of a command, and whether that is sure."""
        if b"/" in name:
            sure = name.startswith(b"/") or not path.environment.moved
            return self.situation.presence(name), sure
        always = name in PROGRAMS or name in QMAIL_PROGRAMS
        if not name or name in SPECIAL or name == b"export":
            return Presence.NOT_FOUND, True
        search = path.environment.texts.get(b"PATH")
        if search is self.situation.variables.get(b"PATH"):
            return (Presence.FOUND if always else self.situation.presence(name)), True
        if not isinstance(search, bytes):
            return Presence.FOUND, False
        found = Presence.NOT_FOUND
        for directory in search.split(b":")[:64]:
            if not directory.startswith(b"/"):
                return Presence.FOUND, False
            there = self.situation.presence(directory.rstrip(b"/") + b"/" + name)
            if there in (Presence.FOUND, Presence.FAILED):
                return there, True
            if there is Presence.NOT_EXECUTABLE:
                found = there
        return found, not always

    def found(self, name: bytes, path: Path) -> bool | None:
        """Whether `name` can be run; None when nobody knows."""
        if name in SPECIAL or name in PROGRAMS or name == b"export":
            return True
        presence, sure = self.look_up(name, path)
        return presence is Presence.FOUND if sure and name not in ORDINARY else None

    def line(self, text: bytes, path: Path) -> Effect:
        """What `/bin/sh -c text` comes to when a program of this shell starts it."""
        if self.depth > MAX_NESTED:
            return Effect(ANY_STATUS, Kind.PROGRAM, COMPLEX, approximate=True)
        if self.situation.leads is not None:
            tell_line(text, self.situation.leads, self.models)
        # A budget of its own: an alias database runs many lines, and caps them itself.
        child = type(self)(self.situation, self.models, Work(LINE_WORK), depth=self.depth + 1)
        try:
            return effect(child.script(text.partition(b"\0")[0], Path(path.environment)))
        except TooComplex:
            return Effect(ANY_STATUS, Kind.PROGRAM, COMPLEX, approximate=True)

    def runner(self, path: Path) -> Runner:
        """Runs what a program starts by itself: with execvp, so without built-ins."""

        def run(words: Sequence[Text]) -> Effect:
            if not words or self.depth > MAX_NESTED:
                return Effect(ANY_STATUS, Kind.PROGRAM, COMPLEX, approximate=True)
            child = self.child()
            start = Path(path.environment)
            paths = child.program(words, start, missing=True)
            if any(one.end is End.KILLED for one in paths):
                paths = start.unknown(OUTSIDE)
            return effect(paths)

        return run
