"""What changes for the addresses of a domain from one table to another: effect, not spelling.

A name is answered by its exact rule, else by the longest prefix rule.  Two tables differ
where one accepts a name that the other refuses, or where both accept it as different kinds.
Wildcards are compared as wildcards: one that comes or goes is one change, whatever stands
below it, and the exact rules below it are only named where it does not say enough:

* what had a rule of its own and is answered by a new wildcard now is swallowed by it: no loss;
* what has a rule of its own below a wildcard that came or went is spared: it is accepted
  whatever becomes of the wildcard, and before it either was refused or had no other rule;
* what is refused below a new wildcard, as it was before, is hidden from it;
* what had a rule of its own and is refused now is lost, even where a wildcard above goes too.

So the changes, applied to the old table, give the new one (but for the kinds of what is
swallowed or spared).  Nothing is made for names that are equal on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge

from rcptgen.rules.change import NOTHING, Below, Change, What
from rcptgen.rules.names import STRETCH, Names
from rcptgen.rules.outcome import Kind, Outcome, accepts
from rcptgen.rules.table import Table


def changes(old: Table, new: Table) -> Iterator[Change]:
    """Every change from `old` to `new`: the wildcards, then the names, each in ascending order.

    They are made while they are taken; those of names that hold a newline come out of order.
    """
    return _Comparison(old, new).run()


class _Gathered:
    """Rules on their way to a Below; names come nearly sorted, and cost their bytes."""

    __slots__ = ("_names", "_parts", "_prefixes")

    def __init__(self) -> None:
        self._names: list[bytes] = []
        self._parts: list[Names] = []
        self._prefixes: list[bytes] = []

    def prefix(self, name: bytes) -> None:
        self._prefixes.append(name)

    def name(self, name: bytes) -> None:
        self._names.append(name)
        if len(self._names) >= STRETCH:
            self._parts.append(Names(self._names))
            self._names = []

    def below(self) -> Below:
        if not (self._names or self._parts or self._prefixes):
            return NOTHING
        return Below(Names.union([*self._parts, Names(self._names)]), tuple(self._prefixes))


class _Wildcard:
    """A reported wildcard on its way to a Change, while what it folds is gathered."""

    __slots__ = ("hides", "name", "new", "old", "spares", "swallows", "what")

    def __init__(self, what: What, name: bytes, old: Outcome | None, new: Outcome | None, hides: bytes | None) -> None:
        self.what, self.name, self.old, self.new, self.hides = what, name, old, new, hides
        self.swallows, self.spares = _Gathered(), _Gathered()

    @property
    def opens(self) -> bool:
        """Whether names that had a rule of their own may be answered by it now."""
        return self.what is What.GAINED or self.what is What.CHANGED

    def change(self) -> Change:
        found = (self.what, self.name, True, self.old, self.new, self.hides)
        return Change(*found, self.swallows.below(), self.spares.below())


_Parts = list[tuple[Outcome, Names]]


class _Comparison:
    """Two tables, and what is known of their wildcards.

    A region is what a prefix of either table stands for, without the regions below it: in a
    region both tables have one answer for every name without an exact rule.  `_over` gives
    the reported wildcard that says what became of a region, or None where nothing did.
    """

    def __init__(self, old: Table, new: Table) -> None:
        self._old, self._new = old, new
        self._over: dict[bytes, _Wildcard | None] = {}
        some = next(iter([*old.prefixes.values(), *new.prefixes.values()]), None)
        regions = {} if some is None else dict.fromkeys(sorted(old.prefixes.keys() | new.prefixes.keys()), some)
        self._regions = Table({}, regions)
        self._had, self._have = _differing(old, new)
        self._stood, self._stands = _Index(self._had), _Index(self._have)
        self._refused_before, self._refused_now = _refused(old), _refused(new)

    def run(self) -> Iterator[Change]:
        wildcards = self._wildcards()
        accepted_before = Names.union([names for _, names in self._had])
        accepted_now = Names.union([names for _, names in self._have])

        def gone() -> Iterator[Change | None]:
            return map(self._gone, accepted_before.minus([accepted_now]))

        def come() -> Iterator[Change | None]:
            return map(self._come, accepted_now.minus([accepted_before]))

        if wildcards:
            # What they swallow and spare must be known before they are told.
            told = [sum(change is not None for change in seen) for seen in (gone(), come())]
            for one in wildcards:
                yield one.change()
            # What follows is gathered once more, for nobody.
            for one in wildcards:
                one.swallows, one.spares = _Nobody(), _Nobody()
        else:
            told = [1, 1]
        opened = any(one.what is What.GAINED for one in wildcards)
        yield from merge(
            filter(None, gone()) if told[0] else (),
            filter(None, come()) if told[1] else (),
            self._other_kinds(),
            self._still_refused(opened=opened),
            self._no_more_refused(),
            key=_name,
        )

    # -- wildcards -------------------------------------------------------------------------

    def _wildcards(self) -> list[_Wildcard]:
        """The wildcards to report, in ascending order; `_over` is complete after it."""
        reported: list[_Wildcard] = []
        above: list[bytes] = []
        for name in self._regions.prefixes:
            while above and not name.startswith(above[-1]):
                above.pop()
            found, folded = self._wildcard(name, self._over[above[-1]] if above else None)
            if found is not None and not folded:
                reported.append(found)
            self._over[name] = found
            above.append(name)
        return reported

    def _wildcard(self, name: bytes, over: _Wildcard | None) -> tuple[_Wildcard | None, bool]:
        """What says what became of the region at `name` below one that `over` speaks of; whether that is `over`."""
        old, new = _covering(self._old, name), _covering(self._new, name)
        before, after = accepts(old), accepts(new)
        had, has = name in self._old.prefixes, name in self._new.prefixes
        if over is not None and over.opens and after:
            if before and had and not has:
                over.swallows.prefix(name)
                return over, True
            refused = not before and over.what is What.GAINED and _hidden(self._old, name) is None
            if refused or (before and not had):
                if has:
                    over.spares.prefix(name)
                return over, True
        elif over is not None and over.what is What.LOST and not had:
            # It was accepted by what is lost: so is it, unless it has a rule of its own now.
            if not after:
                return over, True
            over.spares.prefix(name)
            return None, True
        if before != after:
            hides = _hidden(self._new if before else self._old, name)
            return _Wildcard(What.LOST if before else What.GAINED, name, old, new, hides), False
        if before:
            return self._kept_kind(name, old, new), False
        if over is not None and over.what is What.GAINED:
            return _Wildcard(What.HIDDEN, name, old, new, _hidden(self._new, name)), False
        return None, False

    @staticmethod
    def _kept_kind(name: bytes, old: Outcome | None, new: Outcome | None) -> _Wildcard | None:
        """A wildcard that is accepted before and after: reported where its kind is another."""
        if old is None or new is None or same_kind(old, new):
            return None
        return _Wildcard(What.CHANGED, name, old, new, None)

    def _speaks(self, name: bytes) -> _Wildcard | None:
        """The reported wildcard that says what became of the region of `name`."""
        region = self._regions.covering(name)
        return None if region is None else self._over[region[0]]

    # -- names -----------------------------------------------------------------------------

    def _gone(self, name: bytes) -> Change | None:
        """A name that was accepted by a rule of its own, and is not now."""
        new = self._new.exactly(name) if name in self._refused_now else None
        covering = self._new.covering(name)
        if new is not None or not (covering and covering[1].accepted):
            hides = covering[0] if new is not None and covering and covering[1].accepted else None
            new = new.at(name) if new is not None else covering and covering[1]
            return Change(What.LOST, name, False, self._stood.at(name), new, hides)
        over = self._speaks(name)
        if over is not None and over.opens:
            over.swallows.name(name)
            return None
        return _other_kind(name, self._stood.at(name), covering[1])

    def _come(self, name: bytes) -> Change | None:
        """A name that is accepted by a rule of its own, and was not before."""
        over = self._speaks(name)
        old = self._old.exactly(name) if name in self._refused_before else None
        covering = self._old.covering(name)
        covered = covering is not None and covering[1].accepted
        before = covered and old is None
        if over is not None and (over.what is What.GAINED or (before and over.what is not What.HIDDEN)):
            over.spares.name(name)
            return None
        new = self._stands.at(name)
        if before and covering is not None:
            return _other_kind(name, covering[1], new)
        hides = covering[0] if covering is not None and covered else None
        was = old.at(name) if old is not None else covering and covering[1]
        return Change(What.GAINED, name, False, was, new, hides)

    def _other_kinds(self) -> Iterator[Change]:
        """Names that have a rule of their own before and after, as another kind."""
        before, after = _by_kind(self._had), _by_kind(self._have)
        pairs = ((one, other) for kind, one in before.items() for into, other in after.items() if into is not kind)
        for name in merge(*(one.common(other) for one, other in pairs)):
            yield Change(What.CHANGED, name, False, self._stood.at(name), self._stands.at(name))

    def _still_refused(self, *, opened: bool) -> Iterator[Change]:
        """Names with a refusal of their own below wildcards that accepted before, or do now (`opened`)."""
        refused = self._refused_now
        for name in refused if opened else refused.minus([self._refused_before]):
            was = self._old.exactly(name)
            if was is not None and was.accepted:
                continue  # among those that are gone
            new = self._new.exactly(name)
            covering, behind = self._old.covering(name), self._new.covering(name)
            hides = behind[0] if behind and behind[1].accepted else None
            new = new and new.at(name)
            if was is None and covering and covering[1].accepted:
                over = self._speaks(name)
                if over is None or over.what is not What.LOST:
                    yield Change(What.LOST, name, False, covering[1], new, hides)
            elif hides is not None:
                over = self._speaks(name)
                if over is not None and over.what is What.GAINED:
                    old = was.at(name) if was is not None else covering and covering[1]
                    yield Change(What.HIDDEN, name, False, old, new, hides)

    def _no_more_refused(self) -> Iterator[Change]:
        """Names that have lost a refusal of their own, and are accepted by a wildcard now."""
        for name in self._refused_before.minus([self._refused_now]):
            covering = self._new.covering(name)
            if covering is None or not covering[1].accepted or accepts(self._new.exactly(name)):
                continue
            over = self._speaks(name)
            old, behind = self._old.exactly(name), self._old.covering(name)
            hid = behind[0] if behind and behind[1].accepted else None
            if over is None or over.what is not What.GAINED or hid is not None:
                yield Change(What.GAINED, name, False, old and old.at(name), covering[1], hid)


class _Nobody(_Gathered):
    """Forgets what it is given."""

    __slots__ = ()

    def name(self, name: bytes) -> None:
        """Forgets `name`."""


def _name(change: Change) -> bytes:
    return change.name


def same_kind(old: Outcome, new: Outcome) -> bool:
    """Whether two acceptances are of one kind, as far as both are known."""
    return old.kind is new.kind or Kind.UNKNOWN in (old.kind, new.kind)


def _other_kind(name: bytes, old: Outcome, new: Outcome) -> Change | None:
    return None if same_kind(old, new) else Change(What.CHANGED, name, False, old, new)


def _covering(table: Table, name: bytes) -> Outcome | None:
    found = table.covering(name)
    return None if found is None else found[1]


def _hidden(table: Table, name: bytes) -> bytes | None:
    """The accepting wildcard that the refusing one at `name` hides; None where it hides none, or is none."""
    own = table.prefixes.get(name)
    if own is None or own.accepted:
        return None
    above = next((name[:end] for end in range(len(name) - 1, -1, -1) if name[:end] in table.prefixes), None)
    return above if above is not None and table.prefixes[above].accepted else None


def _differing(old: Table, new: Table) -> tuple[_Parts, _Parts]:
    """The accepting groups of both, without those that both have, as the same kind."""
    had, have = _accepting(old), _accepting(new)
    both = {_key(*one) for one in had} & {_key(*one) for one in have}
    return [one for one in had if _key(*one) not in both], [one for one in have if _key(*one) not in both]


def _accepting(table: Table) -> _Parts:
    """The accepting groups of a table, small ones first."""
    found = [(outcome, names) for outcome, names in table.groups.items() if outcome.accepted]
    return sorted(found, key=lambda one: len(one[1]))


def _key(outcome: Outcome, names: Names) -> tuple[Kind, bytes | None, tuple[bytes, ...]]:
    return outcome.kind, names.joined, names.odd


def _refused(table: Table) -> Names:
    return Names.union([names for outcome, names in table.groups.items() if not outcome.accepted])


def _by_kind(parts: _Parts) -> dict[Kind, Names]:
    """The names of each kind that is known."""
    found: dict[Kind, list[Names]] = {}
    for outcome, names in parts:
        if outcome.kind is not Kind.UNKNOWN:
            found.setdefault(outcome.kind, []).append(names)
    return {kind: Names.union(some) for kind, some in found.items()}


class _Index:
    """The outcomes of exact rules; a table may have as many groups of them as the host has homes."""

    __slots__ = ("_large", "_last", "_small", "_taken_apart")

    def __init__(self, parts: _Parts) -> None:
        # The largest group, which comes last, has whatever the others do not have.
        self._last = parts[-1][0] if parts else None
        self._small = [one for one in parts[:-1] if len(one[1]) <= STRETCH]
        self._large = [one for one in parts[:-1] if len(one[1]) > STRETCH]
        self._taken_apart: dict[bytes, Outcome] | None = None

    def at(self, name: bytes) -> Outcome:
        """The outcome of a name that is known to be in one of them."""
        if self._taken_apart is None:
            self._taken_apart = {name: outcome for outcome, names in self._small for name in names}
        found = self._taken_apart.get(name)
        if found is None:
            found = next((outcome for outcome, names in self._large if name in names), self._last)
        assert found is not None, "the name is in one of them"
        return found.at(name)
