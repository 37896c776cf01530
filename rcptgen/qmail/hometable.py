"""A home as a table: what every extension comes to, under each of its dot-qmail files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import product

from rcptgen.qmail.dotqmail import DEFAULT, Action, safe_extension
from rcptgen.qmail.environment import Variables, View
from rcptgen.qmail.home import Home
from rcptgen.qmail.homewalk import Unlisted, Walk, is_default
from rcptgen.qmail.judged import Judged
from rcptgen.qmail.model import Effect, Effects, Free, NotTold
from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table
from rcptgen.source.tree import IdentityUnavailable

MOST_COLONS = 4
"""Dots or colons in a name up to which every spelling is told apart."""
MOST_RUNS = 20_000
"""Lines that one file may have run for all the constants it asks for."""
MOST_WIDENED = 6
"""Commands of one file of which each may refuse or not, up to which every combination is tried."""

_LETTERS = [bytes((letter,)) for letter in b"abcdefghijklmnopqrstuvwxyz"]
_TWO_WAYS = [*_LETTERS, b":"]
_ORDER = {Verdict.DELIVER: 0, Verdict.DEFER: 1, Verdict.BOUNCE: 2, Verdict.REMOTE: 3}


@dataclass(frozen=True, slots=True)
class HomeTable:
    """The rules of a home, total over its extensions.

    `table` is over safe extensions: what the dot-qmail files are found by.  Below the
    prefixes in `split` a program tells apart what those cannot (a dot from a colon), so that
    `tails` says more: by the beginning of the extension as it is spelled, in lower case, the
    rules of what follows.  `view_matters`: some line looks at the domain or the local name,
    so the rules hold for one view only.
    """

    table: Table
    view_matters: bool = False
    tails: Mapping[bytes, Table] = field(default_factory=dict)
    split: frozenset[bytes] = frozenset()

    def __reduce__(self) -> tuple[type[HomeTable], tuple[object, ...]]:
        # See Outcome.__reduce__.
        return HomeTable, (self.table, self.view_matters, self.tails, self.split)

    def __len__(self) -> int:
        return len(self.table) + sum(map(len, self.tails.values()))

    def match(self, extension: bytes, dash: bytes) -> Outcome:
        """What the rules say of an extension."""
        safe = safe_extension(extension, dash)
        found = self.table.exactly(safe)
        if found is not None:
            return found.at(safe)
        covering = self.table.covering(safe)
        assert covering is not None, "home tables answer every extension"
        prefix, outcome = covering
        if prefix not in self.split:
            return outcome
        size = len(prefix)
        tail = self.tails.get(extension[:size].lower())
        if tail is None or len(safe) != len(extension):
            return _either_way(outcome)
        found = tail.match(extension[size:].lower())
        assert found is not None, "tails answer everything"
        return found

    def restrict(self, beginning: bytes, dash: bytes) -> HomeTable:
        """The rules of what follows `beginning` (as it is spelled) in the extensions that begin with it."""
        if not beginning:
            return self
        beginning = beginning.lower()
        safe = safe_extension(beginning, dash)
        table = self.table.restrict(safe)
        size = len(beginning)
        split = {prefix[len(safe) :] for prefix in self.split if prefix.startswith(safe)}
        tails = {head[size:]: tail for head, tail in self.tails.items() if head.startswith(beginning)}
        covering = self.table.covering(safe)
        if covering is not None and covering[0] in self.split and b"" not in split:
            split.add(b"")
            tail = self.tails.get(beginning[: len(covering[0])])
            if tail is not None and len(safe) == size:
                tails[b""] = tail.restrict(beginning[len(covering[0]) :])
        return HomeTable(table, self.view_matters, tails, frozenset(split))


def home_tables(home: Home, dash: bytes, views: Sequence[View]) -> list[HomeTable]:
    """The outcome of every extension of a home, as each of `views` shows it; the files are read once.

    One table where the views do not matter, or the first of them says so.
    """
    home.acting = True
    try:
        with home.tree.acting_as(home.identity):
            state = home.state()
            return _tables(home, dash, views) if state is None else [HomeTable(Table({}, {b"": state}))]
    except IdentityUnavailable:
        return [HomeTable(Table({}, {b"": home.without_identity()}))]
    finally:
        home.acting = False
        home.alike.clear()


def _tables(home: Home, dash: bytes, views: Sequence[View]) -> list[HomeTable]:
    found: list[HomeTable] = []
    try:
        walk = Walk(home, dash)
        for view in views:
            found.append(_Judging(walk, view).run())
            if not found[-1].view_matters:
                break
    except Unlisted as why:
        one = Outcome(Verdict.DELIVER, Kind.UNKNOWN, str(why), home.home, widened=True)
        return [HomeTable(Table({}, {b"": one}))]
    return found


def spellings(name: bytes) -> Iterator[bytes]:
    """Every way to write a safe name's colons as dots or colons, all dots first; only two where they are too many."""
    parts = name.split(b":")
    if len(parts) - 1 > MOST_COLONS:
        yield name.replace(b":", b".")
        yield name
        return
    for marks in product(b".:", repeat=len(parts) - 1):
        yield parts[0] + b"".join(bytes((mark,)) + part for mark, part in zip(marks, parts[1:], strict=True))


def _either_way(outcome: Outcome) -> Outcome:
    """What stands for a spelling that is not told apart."""
    reason = "a spelling with slashes, or many dots or colons, that is not told apart"
    return Outcome(Verdict.DELIVER, Kind.UNKNOWN, reason, outcome.file, outcome.line, widened=True)


class _TooManyRuns(Exception):
    """A file asks for more constants than its lines can be run with."""


class _Judging:
    """The files of a home that an address can change, asked for all addresses of one view."""

    def __init__(self, walk: Walk, view: View) -> None:
        self._walk = walk
        self._budget = copy(walk.budget)
        self._home = walk.home
        self._dash = walk.dash
        self._view = view
        self._exact = dict(walk.exact)
        self._prefixes = dict(walk.prefixes)
        self._single: dict[tuple[bytes, bytes], Outcome] = {}
        self._view_matters = False
        self._tails: dict[bytes, Table] = {}
        self._split: set[bytes] = set()
        self._runs_left = 0

    def run(self) -> HomeTable:
        """The table.  Raises Unlisted where the lines cost too much."""
        for extension, judged in self._walk.open_files:
            self._budget.file()
            self._add(extension, judged)
        self._base()
        for (prefix, name), one in self._single.items():
            if name not in self._exact and self._longest(name) == prefix:
                self._exact[name] = one
        return HomeTable(Table(self._exact, self._prefixes), self._view_matters, self._tails, frozenset(self._split))

    def _longest(self, name: bytes) -> bytes:
        """The longest prefix rule that `name` begins with: the default file that would be found for it."""
        return next(name[:end] for end in range(len(name), -1, -1) if name[:end] in self._prefixes)

    def _base(self) -> None:
        """The rule for what no file answers."""
        if b"" in self._prefixes:
            return
        home = self._home
        if self._dash:
            path = home.path(b".qmail" + self._dash + DEFAULT)
            self._prefixes[b""] = Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "no dot-qmail file for this name", path)
        else:
            self._default(home.default_delivery(), b"")

    def _add(self, extension: bytes, judged: Judged) -> None:
        if is_default(extension):
            prefix = extension[: -len(DEFAULT)]
            self._default(judged, prefix)
            # Where the rules below the prefix say all there is to say, they say it of `default`, too.
            if prefix in self._split:
                return
        self._exact[extension] = self._walk.shape(self._one(judged, extension), judged.file)

    def _one(self, judged: Judged, extension: bytes) -> Outcome:
        """The outcome at one safe extension, whichever spelling (case, dot or colon) reaches it."""
        answer = self._told_at(judged, extension)
        if answer is not None:
            return answer
        self._runs_left = MOST_RUNS
        try:
            return self._spelled(judged, extension, set(), -len(DEFAULT) if extension.endswith(DEFAULT) else None)
        except _TooManyRuns:
            return self._too_many(judged)

    def _default(self, judged: Judged, prefix: bytes) -> None:
        """The rules for every extension below `prefix`."""
        answer = judged.answer()
        if answer is not None:
            self._prefixes[prefix] = answer
            return
        if self._told_below(judged, prefix):
            return
        self._runs_left = MOST_RUNS
        singles: dict[tuple[bytes, bytes], Outcome] = {}
        try:
            extension, default = Free(choices={}), Free(choices={})
            outcomes = self._tried(judged, extension, default)
            by_name: dict[bytes, set[bytes]] = {}
            for text in {prefix.replace(b":", b".") + text for text in default.compared} | extension.compared:
                name = safe_extension(text, self._dash)
                if name.startswith(prefix):
                    by_name.setdefault(name, set()).add(text)
            for name, texts in by_name.items():
                singles[prefix, name] = self._spelled(judged, name, texts, len(prefix))
            if extension.choices or default.choices:
                outcomes = self._chosen(judged, prefix, extension.choices or {}, default.choices or {})
        except _TooManyRuns:
            self._prefixes[prefix] = self._too_many(judged)
            return
        self._prefixes[prefix] = best(outcomes)
        self._single.update(singles)

    def _told_at(self, judged: Judged, name: bytes) -> Outcome | None:
        """As `_spelled`, where a model tells what the only line does."""
        told = self._home.told(judged, self._view)
        if told is None or self._endless(name) or name.count(b":") > MOST_COLONS:
            return None
        try:
            effects = [told.one(text) for text in spellings(name)]
        except NotTold:
            return None
        self._view_matters = True
        return best([self._home.composed(judged, effect) for effect in effects])

    def _told_below(self, judged: Judged, prefix: bytes) -> bool:
        """As `_default`, where a model tells what the only line does; whether it does."""
        told = self._home.told(judged, self._view)
        try:
            effects = None if told is None else told.every()
        except NotTold:
            effects = None
        if effects is None:
            return False
        self._view_matters = True
        found = (*effects.groups, *effects.prefixes.values())
        known = {effect: self._home.composed(judged, effect) for effect in found}
        self._split.add(prefix)
        for head in spellings(prefix):
            self._tails[head] = _composed([effects.below(head)], lambda one: known[one[0]])
        self._prefixes[prefix] = self._tails[prefix.replace(b":", b".")].prefixes[b""]
        return True

    def _chosen(
        self,
        judged: Judged,
        prefix: bytes,
        by_extension: Mapping[Hashable, Effects],
        by_default: Mapping[Hashable, Effects],
    ) -> list[Outcome]:
        """The rules below `prefix` where commands know their effects for all texts; answers for those it names."""
        known: dict[tuple[Effect, ...], Outcome] = {}
        keys = [*by_extension, *by_default]
        programs = [one.text for one in judged.instructions.lines if one.action is Action.PROGRAM]
        alone = len(judged.instructions.lines) == len(programs) == len(keys) == 1 and self._home.plain(programs[0])

        def outcome(effects: tuple[Effect, ...]) -> Outcome:
            found = known.get(effects)
            if found is None and alone:
                # The line is the command: there is nothing to be run again.
                found = known[effects] = self._home.composed(judged, effects[0])
            if found is None:
                ways: list[Outcome] = []
                for way in _ways(effects):
                    chosen = dict(zip(keys, way, strict=True))
                    ways += self._tried(judged, Free(choices={}, chosen=chosen), Free(choices={}, chosen=chosen))
                found = known[effects] = best(ways)
            return found

        self._split.add(prefix)
        for head in spellings(prefix):
            tables = [effects.below(head) for effects in by_extension.values()]
            self._tails[head] = _composed([*tables, *by_default.values()], outcome)
        return [self._tails[prefix.replace(b":", b".")].prefixes[b""]]

    def _spelled(self, judged: Judged, name: bytes, texts: set[bytes], default_at: int | None) -> Outcome:
        """The outcome at a name: one spelling that is accepted is enough, and `widened` where another is not.

        Tried are `texts`, the plain spelling, and what is none of the constants that the
        lines ask for: most names can be spelled so, with a capital or a colon for a dot.
        """
        plain = name.replace(b":", b".")
        waiting = [plain]
        waiting += sorted(texts.difference(waiting))
        seen = set(waiting)
        found: list[Outcome] = []

        def tried(extension: bytes | Free, default: bytes | Free | None) -> list[Outcome]:
            outcomes = self._tried(judged, extension, default)
            asked: set[bytes] = set()
            if isinstance(extension, Free):
                asked |= extension.compared
            if isinstance(default, Free):
                asked |= {plain[:default_at] + other for other in default.compared}
            asked = {other for other in asked if safe_extension(other, self._dash) == name} - seen
            waiting.extend(sorted(asked))
            seen.update(asked)
            return outcomes

        def open_tail(lowered: bytes | None) -> Free | None:
            return None if default_at is None else Free(lowered=lowered[default_at:] if lowered is not None else None)

        spelled = [None] if self._endless(name) or name.count(b":") > MOST_COLONS else list(spellings(name))
        by_spelling = {one: tried(Free(lowered=one), open_tail(one)) for one in spelled}
        by_tail: dict[bytes, list[tuple[bytes | None, list[Outcome]]]] = {}
        while waiting:
            text = waiting.pop(0)
            tail = text[default_at:] if default_at is not None else None
            found += tried(text, tail)
            if tail is not None and tail not in by_tail:
                fit = [one for one in spelled if one is None or one[default_at:] == tail.lower()]
                by_tail[tail] = [(one, tried(Free(lowered=one), tail)) for one in fit]
        for one, outcomes in by_spelling.items():
            # Where DEFAULT is set, it is another than every tail that is known.
            among = [text[default_at:] for text in seen] if default_at is not None else list(seen)
            whole = name if one is None else one
            if self._cases(whole[default_at:], one is None) > len(
                {text for text in among if _fits(text, whole[default_at:], one)}
            ):
                found += outcomes
        for tail, pairs in by_tail.items():
            for one, outcomes in pairs:
                head = (name if one is None else one)[:default_at]
                same = {text for text in seen if text[default_at:] == tail and _fits(text[:default_at], head, one)}
                if self._cases(head, one is None) > len(same):
                    found += outcomes
        return best(found)

    def _endless(self, name: bytes) -> bool:
        """Whether a safe name can be spelled in any number of ways: slashes may be repeated."""
        return b"/" in name or self._dash.endswith(b"/")

    def _cases(self, name: bytes, any_spelling: bool) -> int:
        """How many extensions a name stands for: every letter has two cases, and every colon may be a dot."""
        if any_spelling and self._endless(name):
            return sys.maxsize
        return 1 << sum(map(name.count, _TWO_WAYS if any_spelling else _LETTERS))

    def _tried(self, judged: Judged, extension: bytes | Free, default: bytes | Free | None) -> list[Outcome]:
        """What the lines come to in every spelling of the domain that they tell apart."""
        home, view = self._home, self._view

        def run(host: bytes | None) -> tuple[Outcome, Variables]:
            self._runs_left -= len(judged.instructions.lines)
            if self._runs_left < 0:
                raise _TooManyRuns
            self._budget.run(judged)
            variables = Variables.partly(home.settings.path, home.user, home.home, view, host, extension, default)
            outcome = home.outcome(judged, variables)
            if outcome.approximate and any(isinstance(one, Free) and one.opaque for one in (extension, default)):
                # Some of the texts may be known to be refused, but nobody has told which.
                outcome = outcome._replace(widened=True)
            self._view_matters |= variables.view_touched
            return outcome, variables

        outcome, variables = run(None)
        if not variables.host_told_apart:
            return [outcome]
        host = view.host
        # HOST2, HOST3 and HOST4 are beginnings of HOST.
        compared = variables.host_compared
        hosts = {one + host[len(one) :] for one in compared if host.startswith(one.lower())} - {host}
        outcomes = [run(one)[0] for one in (host, *sorted(hosts))]
        if self._cases(host, any_spelling=False) > len(hosts) + 1:
            outcomes.append(outcome)
        return outcomes

    @staticmethod
    def _too_many(judged: Judged) -> Outcome:
        """The outcome where a file asks for more constants than its lines can be run with."""
        text = "more constants than are tried one by one"
        return Outcome(Verdict.DELIVER, Kind.UNKNOWN, text, judged.file, widened=True)


def _fits(text: bytes, name: bytes, spelling: bytes | None) -> bool:
    """Whether a text is one of the cases of a spelling (None: of any)."""
    return spelling is None or text.lower() == name


def _composed(tables: Sequence[Effects], outcome: Callable[[tuple[Effect, ...]], Outcome]) -> Table:
    """The table of what the lines come to, from the effects of each command in them."""
    groups: dict[Outcome, list[Names]] = {}
    if len(tables) == 1:
        for effect, names in tables[0].groups.items():
            groups.setdefault(outcome((effect,)), []).append(names)
    else:
        by_effects: dict[tuple[Effect, ...], list[bytes]] = {}
        for name in {name for table in tables for names in table.groups.values() for name in names}:
            by_effects.setdefault(tuple(table.match(name) for table in tables), []).append(name)
        for effects, found in by_effects.items():
            groups.setdefault(outcome(effects), []).append(Names(found))
    beginnings = {prefix for table in tables for prefix in table.prefixes}
    prefixes = {one: outcome(tuple(table.covering(one) for table in tables)) for one in sorted(beginnings)}
    return Table.of_groups({one: Names.union(parts) for one, parts in groups.items()}, prefixes)


def _ways(effects: tuple[Effect, ...]) -> Iterator[tuple[Effect, ...]]:
    """What commands do with all texts that they take for one: where some of those are refused, that too.

    The lines may turn a refusal into anything (`except`, `||`), so they are run with it.
    """
    if sum(one.widened for one in effects) > MOST_WIDENED:
        yield effects
        return
    yield from product(*((replace(one, widened=False), _refused(one)) if one.widened else (one,) for one in effects))


def _refused(effect: Effect) -> Effect:
    return Effect(frozenset({100}), Kind.PROGRAM, effect.reason, file=effect.file, line=effect.line)


def best(found: list[Outcome]) -> Outcome:
    """The accepting one of several outcomes; widened where there is a refusing one."""
    best = min(found, key=lambda one: _ORDER[one.verdict])
    if not best.accepted or all(one.accepted for one in found):
        return best
    return best._replace(widened=True)
