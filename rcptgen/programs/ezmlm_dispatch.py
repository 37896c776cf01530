"""ezmlm-dispatch: all lists below a directory from one -default file (ezmlm-dispatch.c)."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rcptgen.programs.ezmlm_list import Ended, Usage, check_sender, command_line, ends, goes_on, unless_alike
from rcptgen.programs.ezmlm_program import Texts, known_words
from rcptgen.programs.shell import run_line
from rcptgen.qmail.look import Look
from rcptgen.qmail.model import (
    SIGNALLED,
    UNKNOWN,
    Effect,
    Effects,
    Free,
    ProgramModel,
    Runner,
    Situation,
    Text,
    effect_of,
    unknown_effect,
)
from rcptgen.rules.outcome import Kind
from rcptgen.source.tree import Absent, EntryType, Regular, Status

MOST_LISTS = 400
MOST_LINES = 60
"""Lists, and lines of one of their files, that are looked into for a table."""

MOST_RUNS = 100_000
"""Lines that are run for one table."""

_ROLES = (
    (b"digest-return-", b"digest/bouncer"),
    (b"return-", b"bouncer"),
    (b"confirm-", b"confirmer"),
    (b"discard-", b"confirmer"),
    (b"accept-", b"moderator"),
    (b"reject-", b"moderator"),
)
_NO_LIST = ends(100, "no list of this name")
_NO_DEFAULT = ends(100, "ezmlm-dispatch without DEFAULT")
_SLASH = ends(100, "a slash in the name of a list")


class Dispatch:
    """`ezmlm-dispatch lists-dir [list]`.

    `models` gives the programs that the files of the lists may run, once they are asked for.
    """

    names: tuple[bytes, ...] = (b"ezmlm-dispatch",)

    def __init__(self, models: Callable[[], Mapping[bytes, ProgramModel]]) -> None:
        self._models = models

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """What the list that $DEFAULT names does with the message."""
        known = known_words(words)
        if known is None:
            return unknown_effect("options of a list program that are not known", Kind.LIST)
        try:
            line = command_line(known, Usage())
            if line.version:
                raise Ended(0, "ezmlm tells its version")
            if line.directory is None:
                raise Ended(100, "usage of an ezmlm program")
            if b"SENDER" not in situation.variables:
                check_sender(situation)
            run = _Run(situation, line.directory)
            if b"DEFAULT" not in situation.variables:
                return run.named(line.rest[0], b"") if line.rest else _NO_DEFAULT
            text = situation.variables[b"DEFAULT"]
            name = line.rest[0] if line.rest else None
            return effect_of(text, tuple(known), lambda one: run.one(name, one), lambda: self._all(run, name), "lists")
        except Ended as ended:
            return ended.effect

    def _all(self, run: _Run, name: bytes | None) -> Effects:
        models = {one: model for one, model in self._models().items() if one not in self.names}
        try:
            return replace(run, models=models).table(name)
        except Ended as ended:
            return Effects({}, {b"": ended.effect})


@dataclass(frozen=True, slots=True)
class _Run:
    """One run over the lists in `directory`; `models` and what may be `spent` are for tables only."""

    situation: Situation
    directory: bytes
    models: Mapping[bytes, ProgramModel] = field(default_factory=dict)
    spent: list[int] = field(default_factory=lambda: [0])

    @property
    def _look(self) -> Look:
        return self.situation.look

    # -- one text ------------------------------------------------------------------------------

    def one(self, name: bytes | None, text: bytes) -> Effect:
        """See main."""
        if name is not None:
            return self.named(name, text)
        if not text:
            return _NO_DEFAULT
        if b"/" in text:
            return _SLASH
        try:
            if self._is(text, stat.S_ISDIR):
                return self._list(text, b"")
            at = len(text)
            while (at := text.rfind(b"-", 1, at)) > 0:
                if self._is(text[:at], stat.S_ISDIR):
                    return self._list(text[:at], text[at + 1 :])
        except Ended as ended:
            return ended.effect
        return _NO_LIST

    def named(self, name: bytes, text: bytes) -> Effect:
        """The one list that the line names."""
        return self._list(name, text) if self._is(name, stat.S_ISDIR) else _NO_LIST

    def _list(self, name: bytes, text: bytes) -> Effect:
        """Which file of the list, and with which DEFAULT (dispatch)."""
        if not text:
            return self._known(name + b"/editor", None)
        if text in (b"owner", b"digest-owner"):
            return self._known(name + b"/owner", None)
        for head, file in _ROLES:
            if text.startswith(head) and self._is(name + b"/" + file, stat.S_ISREG):
                return self._known(name + b"/" + file, text[len(head) :])
        return self._known(name + b"/manager", text)

    def _is(self, name: bytes, kind: Callable[[int], bool]) -> bool:
        found = self._look.status(os.path.join(self.directory, name))
        if isinstance(found, Status):
            return kind(found.mode)
        if isinstance(found, Absent) and found.errno == errno.ENOENT:
            return False
        raise Ended(111, "a name below the directory of lists cannot be looked at")

    def _known(self, file: bytes, default: bytes | None) -> Effect:
        """Runs the lines of a file with a DEFAULT that is known, or unset."""
        before = b"unset DEFAULT; "
        if default is not None:
            before = b"DEFAULT='" + default.replace(b"'", b"'\\''") + b"'; "
        return self._file(file, lambda line: self.situation.shell(before + line))

    def _file(self, file: bytes, run: Callable[[bytes], Effect]) -> Effect:
        """The lines of a file until one of them fails (execute_file, execute_line)."""
        path = os.path.join(self.directory, file)
        found = self._look.read(path)
        if not isinstance(found, Regular):
            return ends(111, "a file of the list cannot be read")
        result = replace(goes_on("nothing is done"), file=self._look.path(path))
        lines = found.data.removesuffix(b"\n").split(b"\n") if found.data else []
        if len(lines) > MOST_LINES:
            return unknown_effect("more lines in a file of a list than are looked into", Kind.LIST)
        for number, text in enumerate(lines, 1):
            line = text.partition(b"\0")[0].lstrip(b" \t")
            if line.startswith(b"#"):
                continue
            if line.startswith((b"/", b".")):
                effect = ends(100, "ezmlm-dispatch delivers to no files")
            elif line.startswith(b"|"):
                effect = run(line[1:])
            else:
                effect = ends(0, "the list forwards")
            result = _then(result, replace(effect, file=result.file, line=number))
            if 0 not in result.statuses:
                break
        return result

    # -- the table -------------------------------------------------------------------------------

    def table(self, name: bytes | None) -> Effects:
        """What becomes of every DEFAULT."""
        texts = Texts({b"": _NO_DEFAULT}, {b"": _NO_LIST})
        if name is not None:
            if not self._is(name, stat.S_ISDIR):
                return Effects({}, {b"": _NO_LIST})
            return self._texts(name).effects()
        found = self._look.names(self.directory)
        if not isinstance(found, dict):
            # Below what is no directory nothing is found, or stat itself fails.
            return Effects({}, {b"": self.one(None, b"x")})
        candidates = [one for one, entry in found.items() if entry not in (EntryType.REGULAR, EntryType.OTHER)]
        if len(candidates) > MOST_LISTS:
            return Effects({}, {b"": unless_alike(ends(0, "more lists than are looked into"))})
        lists = [one for one in candidates if self._is(one, stat.S_ISDIR)] + [b".", b".."]
        # Capitals in a name are minded, so a name in lower case says too little of it.
        for one in sorted(lists, key=lambda one: (len(one), one != one.lower())):
            self._add(texts, one, lists)
        return texts.effects()

    def _add(self, texts: Texts, name: bytes, lists: Sequence[bytes]) -> None:
        lower = name.lower()
        if any(other != name and other.lower() == lower for other in lists) or name != lower:
            open_to_all = unless_alike(ends(0, "a list whose name has capitals"))
            texts.exact[lower] = open_to_all
            texts.below(lower + b"-", Texts({}, {b"": open_to_all}))
            return
        of = self._texts(name)
        for known in (of.exact, of.prefixes):
            for text, effect in known.items():
                # The name in capitals is refused, and so is a slash anywhere.
                if effect.statuses != {100}:
                    known[text] = unless_alike(effect)
        texts.below(lower + b"-", of)
        texts.exact[lower] = of.exact[b""]

    def _texts(self, name: bytes) -> Texts:
        """What becomes of every DEFAULT at one list."""
        texts = self._tabled(name + b"/manager")
        for head, file in reversed(_ROLES):
            if self._is(name + b"/" + file, stat.S_ISREG):
                texts.below(head, self._tabled(name + b"/" + file))
        texts.exact[b""] = self._known(name + b"/editor", None)
        texts.exact[b"owner"] = texts.exact[b"digest-owner"] = self._known(name + b"/owner", None)
        return texts

    def _tabled(self, file: bytes) -> Texts:
        """What a file does with every DEFAULT: its lines are run once for each way its programs may answer."""
        asked = Free(choices={})
        whole = self._with(file, asked)
        choices = asked.choices or {}
        if asked.compared or asked.opaque or self.spent[0] > MOST_RUNS:
            return Texts({}, {b"": unless_alike(replace(whole, statuses=whole.statuses | {0}))})
        keys = list(choices)
        done: dict[tuple[Effect, ...], Effect] = {}

        def together(effects: tuple[Effect, ...]) -> Effect:
            if effects not in done and self.spent[0] > MOST_RUNS:
                return unless_alike(replace(whole, statuses=whole.statuses | {0}, approximate=True))
            if effects not in done:
                done[effects] = self._with(file, Free(choices={}, chosen=dict(zip(keys, effects, strict=True))))
            return done[effects]

        return _composed([choices[key] for key in keys], together)

    def _with(self, file: bytes, default: Free) -> Effect:
        # EXT and LOCAL say the same in other words, and would be chosen for by themselves.
        variables = {
            name: UNKNOWN if isinstance(text, Free) and text.lowered is None else text
            for name, text in self.situation.variables.items()
        }
        situation = replace(self.situation, variables={**variables, b"DEFAULT": default})

        def run(line: bytes) -> Effect:
            self.spent[0] += 1
            return run_line(line, situation, self.models)

        return self._file(file, run)


def _then(first: Effect, second: Effect) -> Effect:
    """One line after another that may have gone well."""
    statuses = (first.statuses - {0}) | {111 if one == SIGNALLED else one for one in second.statuses}
    # What decides is told of, not what only goes on behind it.
    beside = 0 in second.statuses and (second.kind is Kind.PROGRAM or first.approximate) and first.kind is Kind.LIST
    told = first if beside else second
    return replace(
        told,
        statuses=frozenset(statuses),
        kind=Kind.LIST if Kind.LIST in (first.kind, second.kind) else second.kind,
        approximate=first.approximate or second.approximate,
        widened=first.widened or second.widened,
    )


def _composed(tables: Sequence[Effects], together: Callable[[tuple[Effect, ...]], Effect]) -> Texts:
    """The table of what several tables come to together."""
    texts = Texts()
    for prefix in {b"", *(prefix for table in tables for prefix in table.prefixes)}:
        texts.prefixes[prefix] = together(tuple(table.covering(prefix) for table in tables))
    for text in {text for table in tables for names in table.groups.values() for text in names}:
        texts.exact[text] = together(tuple(table.match(text) for table in tables))
    return texts
