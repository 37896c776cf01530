"""Lowering: the rules of a domain in what a format can say, accepting more where it must and never less.

A prefix that a format cannot say is covered by the nearest one above it that it can: an
acceptance widens that one, a refusal below an acceptance is lost.  The empty prefix, the
whole domain, is the last resort.  Every loss is a value with file and line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table
from rcptgen.targets.base import MOST_LISTED, Prefixes, Says, Unsayable, Widened, rule_text

WIDER = Outcome(Verdict.DELIVER, Kind.UNKNOWN, "stands for rules that the format cannot say", widened=True)
CLOSED = Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "no rule accepts the name")


class Form(Protocol):
    """What the lowering asks of a format."""

    says: Says
    break_: bytes
    lone: bool
    """Whether an address with an empty local part has the key of the whole domain."""
    double_end: bytes
    """How every name ends that has the key of a prefix; empty: there is none."""
    bad: re.Pattern[bytes] | None
    """Finds, in names joined by newlines, what cannot stand in the file; None: nothing."""
    newlines: bool
    """Whether names that hold a newline can stand in the file."""

    def key(self, prefix: bytes, domain: bytes) -> bytes:
        """The key of a prefix; that of the whole domain for the empty one."""
        ...

    def exact_key(self, name: bytes, domain: bytes) -> bytes:
        """The key of a name."""
        ...

    def double(self, name: bytes) -> bytes | None:
        """The prefix whose key is that of `name`, which ends in `double_end`; None: it has its own."""
        ...


@dataclass(slots=True)
class Said:
    """What is to be written for a domain; names in groups of one outcome.

    `prefixes`: every acceptance, and the refusals that hide one; `whole` is the rule for the
    empty prefix, whatever it says.  Refused names stand only where they hide an acceptance.
    """

    domain: bytes
    whole: Outcome = CLOSED
    prefixes: list[tuple[bytes, Outcome]] = field(default_factory=list)
    accepted: list[tuple[Outcome, Names]] = field(default_factory=list)
    refused: list[tuple[Outcome, list[bytes]]] = field(default_factory=list)
    widened: list[Widened] = field(default_factory=list)
    unsayable: list[Unsayable] = field(default_factory=list)
    widened_more: int = 0
    unsayable_more: int = 0
    losses: int = 0


class Lowering:
    """One domain's rules, lowered for one format.

    A name may have the key of a prefix (`Form.double`): accepting it accepts the prefix, and
    refusing it is never written.
    """

    def __init__(self, form: Form, domain: bytes, table: Table) -> None:
        self._form = form
        self._break = form.break_
        self._domain = domain
        self._table = table
        self._said: dict[bytes, Outcome] = {}
        self._out = Said(domain)

    def run(self) -> Said:
        """What is written, what it widens and what it leaves out."""
        form, table, out = self._form, self._table, self._out
        doubles: dict[bytes, Outcome] = {}
        if form.double_end:
            for outcome, names in table.groups.items():
                found = names.ending_with(form.double_end)
                doubles.update((name, outcome) for name in found if form.double(name) is not None)
        self._prefixes()
        if not form.says.exact:
            self._no_names()
        # Acceptances first: they widen what a refusal is then measured against.
        for name, outcome in sorted(doubles.items(), key=lambda pair: (not pair[1].accepted, pair[0])):
            self._double(name, outcome)
        self._lost()
        for prefix, said in self._said.items():
            if not prefix:
                out.whole = said
            elif said.accepted or self._answer(prefix[:-1])[1]:
                out.prefixes.append((prefix, said))
        hides = any(said.accepted for said in self._said.values())
        left_out = {b"", *doubles}
        for outcome, names in table.groups.items():
            if names.has_empty:
                self._empty(outcome)
            if not outcome.accepted:
                if hides:
                    self._refused(outcome, names, left_out)
                continue
            if outcome.widened:
                for name in names:
                    if name not in doubles:
                        self._widen(form.exact_key(name, self._domain), name, False, outcome, outcome.reason)
            plain = names.without(left_out, ()) if doubles or names.has_empty else names
            if plain and form.says.exact:
                out.accepted.append((outcome, self._sayable_names(outcome, plain)))
        return out

    # -- names ---------------------------------------------------------------------------

    def _sayable_names(self, outcome: Outcome, names: Names) -> Names:
        """`names` without those that the format has no spelling for, which are reported."""
        bad = _bad(self._form, names)
        for name in bad:
            if not self._answer(name)[1]:
                reason = "the format has no spelling for some of its bytes"
                self._leave(name, outcome, reason)
        return names.without(bad, ()) if bad else names

    def _refused(self, outcome: Outcome, names: Names, left_out: set[bytes]) -> None:
        """Refused names below something that is accepted."""
        hidden = [(name, key) for name in names if name not in left_out for key, yes in [self._answer(name)] if yes]
        if not hidden:
            return
        if self._form.says.refuse_exact:
            bad = set(_bad(self._form, names))
            kept = [name for name, _ in hidden if name not in bad]
            if kept:
                self._out.refused.append((outcome, kept))
            hidden = [(name, key) for name, key in hidden if name in bad]
            reason = "a refused name that the format has no spelling for"
        else:
            reason = "the format cannot refuse a name below something that it accepts"
        for name, key in hidden:
            self._widen(key, name, False, outcome, reason, loss=True)

    def _no_names(self) -> None:
        """The format has whole domains only."""
        for outcome, names in self._table.groups.items():
            if not outcome.accepted or self._truth(b""):
                continue
            for count, name in enumerate(name for name in names if name):
                self._said[b""] = WIDER
                if count >= MOST_LISTED:
                    self._out.widened_more += 1
                    self._out.losses += 1
                    continue
                reason = "the format has whole domains only"
                self._widen(self._key(b""), name, False, outcome, reason, loss=True)

    def _empty(self, outcome: Outcome) -> None:
        """The empty local part: where its key is the one for the whole domain, it has none of its own."""
        reason = "the key of the empty local part is the key of the whole domain"
        if not self._form.lone:
            reason = "the empty local part is never written"
        if outcome.accepted != self._whole():
            self._leave(b"", outcome, reason)

    def _double(self, name: bytes, outcome: Outcome) -> None:
        prefix = self._form.double(name)
        assert prefix is not None
        key, said = self._answer(prefix)
        end = self._form.double_end.decode("ascii", "backslashreplace")
        if outcome.accepted and not said:
            self._said[prefix] = WIDER
            reason = f"a name that ends in {end} has the key of its prefix"
            self._widen(self._key(prefix), name, False, outcome, reason, loss=True)
        elif outcome.accepted and outcome.widened:
            self._widen(key, name, False, outcome, outcome.reason)
        elif not outcome.accepted and said:
            reason = f"a refused name that ends in {end} has the key of its prefix"
            self._widen(key, name, False, outcome, reason, loss=True)

    # -- prefixes ------------------------------------------------------------------------

    def _sayable(self, prefix: bytes, accepted: bool) -> bool:
        says = self._form.says
        if not prefix:
            return True
        if (not accepted and not says.refuse_prefix) or not spellable(self._form, prefix):
            return False
        if says.prefixes is Prefixes.ANY:
            return True
        if says.prefixes is Prefixes.NONE or not self._break or not prefix.endswith(self._break):
            return False
        return says.prefixes is Prefixes.BREAK or prefix.find(self._break) == len(prefix) - 1

    def _cuts(self, name: bytes) -> Iterator[bytes]:
        """The sayable prefixes of `name`, the longest first, without the empty one."""
        prefixes = self._form.says.prefixes
        if prefixes is Prefixes.ANY:
            for cut in range(len(name), 0, -1):
                yield name[:cut]
        elif prefixes is Prefixes.FIRST and self._break:
            cut = name.find(self._break) + 1
            if cut:
                yield name[:cut]
        elif prefixes is Prefixes.BREAK and self._break:
            cut = name.rfind(self._break)
            while cut >= 0:
                yield name[: cut + 1]
                cut = name.rfind(self._break, 0, cut)

    def _above(self, name: bytes) -> bytes:
        """The longest sayable prefix that is shorter than `name`, whether or not a rule stands there."""
        return next((cut for cut in self._cuts(name[:-1]) if spellable(self._form, cut)), b"")

    def _prefixes(self) -> None:
        """What is said at each sayable prefix: the rules that stand there, then the widenings from below."""
        rules = sorted(self._table.prefixes.items())
        for prefix, outcome in rules:
            if self._sayable(prefix, outcome.accepted):
                self._said[prefix] = outcome
                if outcome.widened and outcome.accepted:
                    self._widen(self._key(prefix), prefix, True, outcome, outcome.reason)
        for prefix, outcome in rules:
            if not outcome.accepted or self._sayable(prefix, True):
                continue
            above = self._above(prefix)
            key, said = self._answer(above)
            if not said:
                key, self._said[above] = self._key(above), WIDER
            if not self._truth(above):
                self._widen(key, prefix, True, outcome, self._unsaid(prefix, True), loss=True)
            elif outcome.widened:
                self._widen(key, prefix, True, outcome, outcome.reason)

    def _lost(self) -> None:
        """Refused prefixes that no key can say, below something that is accepted."""
        for prefix, outcome in sorted(self._table.prefixes.items()):
            if outcome.accepted or self._sayable(prefix, False):
                continue
            key, said = self._answer(prefix)
            if said:
                self._widen(key, prefix, True, outcome, self._unsaid(prefix, False), loss=True)

    def _unsaid(self, prefix: bytes, accepted: bool) -> str:
        what = "prefix" if accepted else "refused prefix"
        says = self._form.says
        if says.prefixes is Prefixes.NONE:
            return f"a {what}, and the format has none"
        if not accepted and not says.refuse_prefix:
            return "a refused prefix, and the format has none"
        if not spellable(self._form, prefix):
            return f"a {what} that the format has no spelling for"
        if says.prefixes is Prefixes.FIRST:
            return f"a {what} that does not end at its first break character"
        return f"a {what} that does not end at a break character"

    def _truth(self, prefix: bytes) -> bool:
        covering = self._table.covering(prefix)
        return covering is not None and covering[1].accepted

    def _answer(self, name: bytes) -> tuple[bytes, bool]:
        """The key that answers for `name` when it has none of its own, and what it says."""
        if len(self._said) > (b"" in self._said):
            for prefix in self._cuts(name):
                said = self._said.get(prefix)
                if said is not None:
                    return self._key(prefix), said.accepted
        return self._key(b""), self._whole()

    def _whole(self) -> bool:
        said = self._said.get(b"")
        return said is not None and said.accepted

    def _key(self, prefix: bytes) -> bytes:
        return self._form.key(prefix, self._domain)

    # -- reports ---------------------------------------------------------------------------

    def _widen(
        self, key: bytes, name: bytes, prefix: bool, outcome: Outcome, reason: str, *, loss: bool = False
    ) -> None:
        out = self._out
        out.losses += loss
        if len(out.widened) >= MOST_LISTED:
            out.widened_more += 1
            return
        found = outcome if prefix else outcome.at(name)
        rule = rule_text(name, prefix, outcome, self._domain)
        out.widened.append(Widened(key, rule, reason, found.file, found.line))

    def _leave(self, name: bytes, outcome: Outcome, reason: str) -> None:
        if len(self._out.unsayable) >= MOST_LISTED:
            self._out.unsayable_more += 1
            return
        found = outcome.at(name)
        rule = rule_text(name, False, outcome, self._domain)
        self._out.unsayable.append(Unsayable(rule, reason, found.file, found.line))


def spellable(form: Form, name: bytes) -> bool:
    """Whether the bytes of a name can stand in the file."""
    return (form.newlines or b"\n" not in name) and (form.bad is None or not form.bad.search(name))


def _bad(form: Form, names: Names) -> list[bytes]:
    """The names that hold what cannot stand in the file."""
    bad = form.bad
    if bad is None:
        return [] if form.newlines else list(names.odd)
    found = list(names.odd) if not form.newlines else [name for name in names.odd if bad.search(name)]
    joined = names.joined
    if joined is not None and bad.search(joined):
        found += [name for name in names.ordinary() if bad.search(name)]
    return found
