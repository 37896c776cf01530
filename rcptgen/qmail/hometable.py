"""A home as a table: what every extension comes to, under each of its dot-qmail files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from operator import itemgetter

from rcptgen.qmail.dotqmail import DEFAULT, safe_extension
from rcptgen.qmail.environment import Variables, View
from rcptgen.qmail.home import Home, Judged, deferral
from rcptgen.qmail.model import Effect, Effects, Free
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Names, Table
from rcptgen.source.tree import Directory, EntryType, FailedForNow, IdentityUnavailable, Refused

MOST_NAMES = 2_000_000
DEEPEST = 40
MOST_DIRECTORIES = 256
MOST_COLONS = 4
"""Dots or colons in a name up to which every spelling is told apart."""
MOST_RUNS = 20_000
"""Lines that one file may have run for all the constants it asks for."""

BYTES_ALLOWED = 4096
MOST_BYTES = 64 << 20
WORK_ALLOWED = 200
MOST_WORK = 1_000_000
"""What the files of a home may cost beyond an allowance for each: bytes to read, and work with lines."""

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


def home_table(home: Home, dash: bytes, view: View) -> HomeTable:
    """The outcome of every extension of a home, as `view` shows it."""
    state = home.state()
    if state is not None:
        return HomeTable(Table({}, {b"": state}))
    home.acting = True
    try:
        with home.tree.acting_as(home.identity):
            return _Enumeration(home, dash, view).run()
    except IdentityUnavailable:
        return HomeTable(Table({}, {b"": home.without_identity()}))
    finally:
        home.acting = False
        home.alike.clear()


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


_CROWDED = "more dot-qmail files than are judged one by one"


class _Unlisted(Exception):
    """Something about a home that keeps its files from being judged one by one."""


class _TooManyRuns(Exception):
    """A file asks for more constants than its lines can be run with."""


class _Enumeration:
    """One run through a home's directory for one dash and domain."""

    def __init__(self, home: Home, dash: bytes, view: View) -> None:
        self._home = home
        self._dash = dash
        self._view = view
        self._exact: dict[bytes, Outcome] = {}
        self._prefixes: dict[bytes, Outcome] = {}
        self._single: dict[tuple[bytes, bytes], Outcome] = {}
        self._shared: dict[Outcome, Outcome] = {}
        # By the identity of an outcome, which is kept alive with it: that of most files is one object.
        self._shapes: dict[int, tuple[Outcome, Outcome]] = {}
        self._stem = b".qmail" + dash
        self._view_matters = False
        self._tails: dict[bytes, Table] = {}
        self._split: set[bytes] = set()
        self._device = -1
        self._bytes_left = MOST_BYTES
        self._work_left = MOST_WORK
        self._work_allowed = WORK_ALLOWED
        self._runs_left = 0

    def run(self) -> HomeTable:
        """The table; one rule for everything where the home is more than can be judged."""
        try:
            return self._run()
        except _Unlisted as why:
            one = Outcome(Verdict.DELIVER, Kind.UNKNOWN, str(why), self._home.home, widened=True)
            return HomeTable(Table({}, {b"": one}))

    def _run(self) -> HomeTable:
        home = self._home
        directory = home.directory()
        if isinstance(directory, Directory):
            self._device = directory.status.device
        where, _, first = self._stem.rpartition(b"/")
        listing = home.listing() if not where else None
        if not where and listing is None:
            raise _Unlisted(_CROWDED if home.crowded else "the home directory cannot be listed")
        pending: list[tuple[bytes, bytes, tuple[tuple[int, int], ...]]] = []
        if listing is not None:
            self._take(listing.items(), b"", first, b"", pending, ())
        else:
            pending.append((where, b"", ()))
            self._walk(pending, first)
        walked = 0
        while pending and walked < MOST_DIRECTORIES:
            self._walk(pending, b"")
            walked += 1
        for relative, key, _ in pending:
            # Links between directories make a number of paths that has no end.
            self._open_below(key, relative, "more directories than are looked into")
        self._base()
        for (prefix, name), one in self._single.items():
            if name not in self._exact and self._longest(name) == prefix:
                self._exact[name] = one
        return HomeTable(Table(self._exact, self._prefixes), self._view_matters, self._tails, frozenset(self._split))

    def _longest(self, name: bytes) -> bytes:
        """The longest prefix rule that `name` begins with: the default file that would be found for it."""
        return next(name[:end] for end in range(len(name), -1, -1) if name[:end] in self._prefixes)

    def _open_below(self, key: bytes, relative: bytes, reason: str) -> None:
        """The rule for everything below a directory that is not looked into."""
        where = self._home.path(relative)
        self._prefixes[key] = Outcome(Verdict.DELIVER, Kind.UNKNOWN, reason, where, widened=True)

    def _base(self) -> None:
        """The rule for what no file answers."""
        if b"" in self._prefixes:
            return
        home = self._home
        if self._dash:
            path = home.path(self._stem + DEFAULT)
            self._prefixes[b""] = Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "no dot-qmail file for this name", path)
        else:
            self._default(home.default_delivery(), b"")

    def _walk(self, pending: list[tuple[bytes, bytes, tuple[tuple[int, int], ...]]], first: bytes) -> None:
        """Looks into one directory below the home: extensions with slashes in them."""
        relative, key, above = pending.pop()
        home = self._home
        # The directory's own name, with the slash: found where it cannot be read, else the search goes on.
        itself = None if first else home.read(relative + b"/", EntryType.UNKNOWN)
        found = home.tree.directory(home.path(relative))
        if isinstance(found, FailedForNow):
            home.note_failure(found)
        if isinstance(found, Refused | FailedForNow):
            below = deferral("the directory cannot be entered by its owner", home.path(relative))
            self._prefixes[key] = below if first or itself is not None else replace(below, widened=True)
            return
        if not isinstance(found, Directory):
            return
        with found:
            here = (found.status.device, found.status.inode)
            if found.status.device != self._device:
                self._open_below(key, relative, "a directory of another file system than the home's")
                return
            if here in above or len(above) >= DEEPEST:
                self._open_below(key, relative, "directories that lead into each other")
                return
            names = found.names(beginning=first, most=MOST_NAMES + 1)
        if isinstance(names, FailedForNow):
            home.note_failure(names)
        if isinstance(names, Refused | FailedForNow):
            self._open_below(key, relative, "the directory cannot be listed")
            return
        if len(names) > MOST_NAMES:
            raise _Unlisted(_CROWDED)
        if itself is not None:
            self._add(key, itself)
        self._take(names, relative + b"/", first, key, pending, (*above, here))

    def _take(
        self,
        names: Iterable[tuple[bytes, EntryType]],
        where: bytes,
        first: bytes,
        key: bytes,
        pending: list[tuple[bytes, bytes, tuple[tuple[int, int], ...]]],
        above: tuple[tuple[int, int], ...],
    ) -> None:
        """Every name of one directory that an extension can reach."""
        skip = len(first)
        dash = self._dash
        for name, entry in sorted(names, key=itemgetter(0)):
            if not name.startswith(first):
                continue
            tail = name[skip:]
            extension = key + tail
            if tail != tail.lower() or b"." in tail or safe_extension(extension, dash) != extension:
                continue
            relative = where + name
            judged = self._home.files.get(relative)
            if judged is None:
                judged = self._home.read(relative, entry if not where else EntryType.UNKNOWN)
            if judged is not None:
                self._pay(judged)
                self._add(extension, judged)
            # What cannot be read may be a directory; then the names below it cannot be read either.
            unread = judged is None or (judged.fixed is not None and judged.fixed.kind is Kind.DEFERRAL)
            if unread and entry is not EntryType.REGULAR and entry is not EntryType.OTHER:
                pending.append((relative, extension + b"/", above))

    def _pay(self, judged: Judged) -> None:
        """The cost of a file that was read comes off what the home is given."""
        self._bytes_left -= max(judged.size - BYTES_ALLOWED, 0)
        if self._bytes_left < 0:
            raise _Unlisted("longer dot-qmail files than are judged one by one")
        self._work_allowed = WORK_ALLOWED
        self._pay_work(judged.work)

    def _pay_work(self, work: int) -> None:
        self._work_allowed -= work
        if self._work_allowed < 0:
            self._work_left += self._work_allowed
            self._work_allowed = 0
        if self._work_left < 0:
            raise _Unlisted("more lines in dot-qmail files than are judged one by one")

    def _add(self, extension: bytes, judged: Judged) -> None:
        prefix = extension[: -len(DEFAULT)] if extension.endswith(DEFAULT) else None
        if prefix is not None and (not prefix or prefix.endswith(b"-")):
            self._default(judged, prefix)
            if judged.fixed is not None:
                return
        self._exact[extension] = self._intern(self._one(judged, extension), judged)
        if len(self._exact) > MOST_NAMES:
            raise _Unlisted(_CROWDED)

    def _intern(self, found: Outcome, judged: Judged) -> Outcome:
        """One object for all files that say the same: the name completes the path (Outcome.named_from)."""
        known = self._shapes.get(id(found))
        if known is not None:
            return known[1]
        shape = found
        if found.file in (b"", judged.file):
            shape = replace(found, file=self._home.path(self._stem), named_from=0)
        shape = self._shared.setdefault(shape, shape)
        self._shapes[id(found)] = found, shape
        return shape

    def _one(self, judged: Judged, extension: bytes) -> Outcome:
        """The outcome at one safe extension, whichever spelling (case, dot or colon) reaches it."""
        if judged.fixed is not None:
            return judged.fixed
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
        self._prefixes[prefix] = _best(outcomes)
        self._single.update(singles)

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

        def outcome(effects: tuple[Effect, ...]) -> Outcome:
            found = known.get(effects)
            if found is None:
                chosen = dict(zip(keys, effects, strict=True))
                texts = Free(choices={}, chosen=chosen), Free(choices={}, chosen=chosen)
                found = known[effects] = _best(self._tried(judged, *texts))
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
        return _best(found)

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
            self._pay_work(judged.work)
            variables = Variables.partly(home.settings.path, home.user, home.home, view, host, extension, default)
            outcome = home.outcome(judged, variables)
            if outcome.approximate and any(isinstance(one, Free) and one.opaque for one in (extension, default)):
                # Some of the texts may be known to be refused, but nobody has told which.
                outcome = replace(outcome, widened=True)
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


def _best(found: list[Outcome]) -> Outcome:
    """The accepting one of several outcomes; widened where there is a refusing one."""
    best = min(found, key=lambda one: _ORDER[one.verdict])
    if not best.accepted or all(one.accepted for one in found):
        return best
    return replace(best, widened=True)
