"""The space of local names: who owns which name, and what the rules of the homes make of all names.

qmail-lspawn asks users/cdb first, then the accounts of the system, then ~alias.  As claims
to names these shadow each other: an exact name before any prefix, a longer prefix before
a shorter one; accounts only count where no wildcard of users/cdb covers them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from operator import itemgetter

from rcptgen.qmail.dotqmail import safe_extension
from rcptgen.qmail.environment import View
from rcptgen.qmail.hometable import MOST_COLONS, HomeTable, spellings
from rcptgen.qmail.passwd import Account
from rcptgen.qmail.users import Owner, UsersCdb, parse_record, usable_ids
from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table

GETPW_USERLEN = 32
MOST_SPELLINGS = 200_000
"""Of one claim in one view, beyond the two plain ones of each name."""
STRETCH = 64
CLAIMS_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim: to the name `name` alone, or as `wildcard` to every name that begins with it.

    The extension of a claimed name is `pre` and, with `takes_tail`, what follows `name`.
    Where qmail-lspawn decides by itself (no usable owner), `fixed` says what it does;
    `failed`: only because the account's home could not be looked at for now.
    """

    name: bytes
    wildcard: bool
    owner: Owner
    pre: bytes
    takes_tail: bool
    file: bytes
    fixed: Outcome | None = None
    failed: bool = False

    def view(self, host: bytes) -> View:
        """What a domain in lower case shows of the owner's home through this claim."""
        return View(host, self.name if self.takes_tail or not self.wildcard else None, self.pre)

    def extension(self, name: bytes) -> bytes:
        """The extension of a local name under this claim, in its own case."""
        return self.pre + name[len(self.name) :] if self.takes_tail else self.pre


@dataclass(frozen=True, slots=True)
class Unsayable:
    """A rule that names cannot spell out in full, and why."""

    rule: bytes
    reason: str
    file: bytes
    line: int


Raw = Account | bytes | Outcome


class LocalSpace:
    """Every claim of a host.  `wildcards` always holds the empty name, so every name has an owner.

    `accounts` are the accounts that qualify as users (their homes are theirs), with an
    Outcome where that could not be found out.  Claims are made when they are asked for:
    a million accounts are kept as what was read of them.
    """

    def __init__(
        self,
        users: UsersCdb | None,
        accounts: Mapping[bytes, Account | Outcome],
        alias: Account | None,
        *,
        break_: bytes,
        users_file: bytes,
        passwd_file: bytes,
    ) -> None:
        self._users_file = users_file
        self._passwd_file = passwd_file
        self._break = break_
        self._exact: dict[bytes, Raw] = {}
        self._wildcards: dict[bytes, Raw] = {}
        self._from_users: set[bytes] = set()
        if users is not None:
            for name, wildcard, value in users.entries():
                (self._wildcards if wildcard else self._exact)[name] = value
            self._from_users = set(self._wildcards)
        for name, account in accounts.items():
            self._add_account(name, account)
        self._alias = alias
        self._sorted: tuple[list[bytes], list[bytes]] | None = None
        self._longest = -1
        self._claims: dict[tuple[bytes, bool], Claim] = {}

    def _add_account(self, name: bytes, account: Account | Outcome) -> None:
        if name != name.lower() or len(name) >= GETPW_USERLEN:
            return
        if self._from_users and any(name[:end] in self._from_users for end in range(len(name) + 1)):
            return
        self._exact.setdefault(name, account)
        if self._break:
            prefix = name + self._break
            if prefix not in self._from_users:
                self._wildcards.setdefault(prefix, account)

    # -- who owns a name ---------------------------------------------------------------

    def claim(self, name: bytes) -> Claim:
        """The claim that a local name falls under."""
        lowered = name.lower()
        raw = self._exact.get(lowered)
        if raw is not None:
            return self._made(lowered, False, raw)
        return self._covering(lowered)

    def claimed(self, name: bytes, wildcard: bool) -> Claim:
        """The claim that stands under a name, as `claims_below` gave it."""
        raw = (self._wildcards if wildcard else self._exact).get(name)
        return self.alias() if raw is None else self._made(name, wildcard, raw)

    def alias(self) -> Claim:
        """The claim of the alias account to whatever nobody else owns (qmail-getpw.c: main)."""
        if self._alias is None:
            reason = "there is no alias account"
            return self._fixed(b"", True, Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, self._passwd_file))
        account = self._alias
        owner = Owner(account.name, account.uid, account.gid, account.home, b"-")
        return self._checked(Claim(b"", True, owner, b"", True, self._passwd_file), account.line)

    def _made(self, name: bytes, wildcard: bool, raw: Raw) -> Claim:
        """The claim of an entry; each is asked for several times in a row."""
        found = self._claims.get((name, wildcard))
        if found is None:
            if len(self._claims) >= CLAIMS_KEPT:
                self._claims.clear()
            found = self._claims[name, wildcard] = self._make(name, wildcard, raw)
        return found

    def _make(self, name: bytes, wildcard: bool, raw: Raw) -> Claim:
        if isinstance(raw, Outcome):
            return replace(self._fixed(name, wildcard, raw), failed=True)
        if isinstance(raw, Account):
            dash = b"-" if wildcard else b""
            owner = Owner(raw.name, raw.uid, raw.gid, raw.home, dash)
            return self._checked(Claim(name, wildcard, owner, b"", wildcard, self._passwd_file), raw.line)
        record = parse_record(raw)
        if record is None:
            reason = "the record in users/cdb has too few fields"
            return self._fixed(name, wildcard, Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, self._users_file))
        takes_tail = wildcard and record.takes_tail
        return self._checked(Claim(name, wildcard, record.owner, record.pre, takes_tail, self._users_file), 0)

    def _checked(self, claim: Claim, line: int) -> Claim:
        if usable_ids(claim.owner):
            return claim
        reason = "qmail-lspawn does not deliver as root, nor with a number that is none"
        fixed = Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, claim.file, line)
        return Claim(claim.name, claim.wildcard, claim.owner, claim.pre, claim.takes_tail, claim.file, fixed)

    def _fixed(self, name: bytes, wildcard: bool, fixed: Outcome) -> Claim:
        return Claim(name, wildcard, Owner(b"", 0, 0, b"", b""), b"", wildcard, fixed.file, fixed)

    # -- the claims of a view -------------------------------------------------------------

    def _names(self) -> tuple[list[bytes], list[bytes]]:
        if self._sorted is None:
            self._sorted = sorted(self._exact), sorted(self._wildcards)
        return self._sorted

    def claims_below(self, prefix: bytes) -> Iterator[Claim]:
        """Every claim to names that begin with `prefix` (lower case), sorted; a claim that covers it all first."""
        covering = self._covering(prefix)
        yield covering
        exact, wildcards = self._names()
        for name in _range(wildcards, prefix):
            if name != covering.name:
                yield self._made(name, True, self._wildcards[name])
        for name in _range(exact, prefix):
            yield self._made(name, False, self._exact[name])

    def _covering(self, prefix: bytes) -> Claim:
        if self._longest < 0:
            self._longest = max(map(len, self._wildcards), default=0)
        for end in range(min(len(prefix), self._longest), -1, -1):
            raw = self._wildcards.get(prefix[:end])
            if raw is not None:
                return self._made(prefix[:end], True, raw)
        return self.alias()

    # -- all rules of a view ----------------------------------------------------------------

    def flatten(
        self,
        prefix: bytes,
        table_of: Callable[[Claim], HomeTable],
        *,
        skip: Callable[[Claim], Outcome | None] = lambda claim: None,
        kept: Callable[[Claim, bytes], Table | None] = lambda claim, relative: None,
        oversized: Callable[[Claim, HomeTable], Outcome | None] = lambda claim, table: None,
        ahead: Callable[[Iterable[Claim]], None] = lambda claims: None,
    ) -> tuple[Table, list[Unsayable]]:
        """The rules for the names that begin with `prefix`, without it, as raw local parts in lower case.

        `table_of` gives the rules of a claim's home over safe extensions.  Where `skip`
        gives an outcome for a claim, that stands for the whole of it and no home is read.
        Where `kept` gives a table for a claim and its name in this view, that table of raw
        tails stands in for what the home says (which was read all the same); where
        `oversized` gives an outcome for a claim and its home's table, that stands for all of
        it.  `ahead` is told which claims come next.
        A dot and a colon reach the same file, so a name with colons is written in every
        spelling; beyond MOST_COLONS, or once its claim has MOST_SPELLINGS, only in the two
        plain ones, and it is reported.
        """
        prefix = prefix.lower()
        size = len(prefix)
        exact: dict[bytes, Outcome] = {}
        prefixes: dict[bytes, Outcome] = {}
        groups: dict[Outcome, list[Names]] = {}
        unsayable: list[Unsayable] = []
        for claim in _told(self.claims_below(prefix), lambda one: skip(one) is None, ahead):
            name = claim.name
            covers = len(name) <= size and claim.wildcard
            relative = b"" if covers else name[size:]
            whole = skip(claim)
            table = None if whole or claim.fixed else table_of(claim)
            instead = None if whole else kept(claim, relative)
            whole = whole or (claim.fixed if instead is None else None)
            if table is not None and instead is None:
                whole = whole or oversized(claim, table)
            if whole is not None:
                (prefixes if claim.wildcard else exact)[relative] = whole
                continue
            piece = _Piece(self, claim, prefix, relative, exact, prefixes, groups, unsayable)
            if instead is not None:
                piece.add_raw(instead)
                continue
            assert table is not None
            extension = claim.extension(name + prefix[len(name) :] if covers else name)
            dash = claim.owner.dash
            if claim.takes_tail:
                piece.add(table.restrict(extension, dash))
            else:
                (prefixes if claim.wildcard else exact)[relative] = table.match(extension, dash)
        flat = Table(exact, prefixes)
        for outcome, parts in groups.items():
            if outcome in flat.groups:
                parts.append(flat.groups[outcome])
            flat.groups[outcome] = Names.union(parts)
        return flat, unsayable

    def nested(self, claim: Claim) -> bool:
        """Whether another wildcard claims a part of this one's names."""
        wildcards = self._names()[1]
        after = bisect_left(wildcards, claim.name + b"\0") if claim.name in self._wildcards else 0
        return after < len(wildcards) and wildcards[after].startswith(claim.name)

    def claimed_by_longer(self, claim: Claim, full: bytes) -> bool:
        """Whether a wildcard longer than the claim's covers `full`."""
        wildcards = self._wildcards
        return any(full[:end] in wildcards for end in range(len(claim.name) + 1, len(full) + 1))

    def claimed_inside(self, claim: Claim, prefix: bytes) -> list[tuple[bytes, bool]]:
        """What others claim of the names below `prefix`, which is inside `claim`: the rest of the name, and if all."""
        exact, wildcards = self._names()
        size = len(prefix)
        found = [(name[size:], False) for name in _range(exact, prefix)]
        found += [(name[size:], True) for name in _range(wildcards, prefix) if len(name) > len(claim.name)]
        return found

    def claimed_exactly(self, full: bytes) -> bool:
        """Whether `full` is an exact claim."""
        return full in self._exact


class _Piece:
    """The part of a view that one wildcard claim answers."""

    def __init__(
        self,
        space: LocalSpace,
        claim: Claim,
        prefix: bytes,
        relative: bytes,
        exact: dict[bytes, Outcome],
        prefixes: dict[bytes, Outcome],
        groups: dict[Outcome, list[Names]],
        unsayable: list[Unsayable],
    ) -> None:
        self._space = space
        self._claim = claim
        self._view = prefix
        self._relative = relative
        self._exact = exact
        self._prefixes = prefixes
        self._groups = groups
        self._unsayable = unsayable
        self._nested = space.nested(claim)
        self._spelled = 0

    def add(self, home: HomeTable) -> None:
        """Puts every rule of the restricted home table into the view, in all its spellings."""
        if self._add_whole(home):
            return
        table = home.table
        space, claim, view, relative = self._space, self._claim, self._view, self._relative
        # Sorted: which ones are spelled in every way must not hang on the order of a directory.
        for name, outcome in sorted(table.prefixes.items(), key=itemgetter(0)):
            for spelled in self._spellings(name, b"*", outcome):
                full = view + relative + spelled
                if spelled and self._nested and space.claimed_by_longer(claim, full):
                    continue
                self._prefixes[relative + spelled] = outcome
        with_colons: list[tuple[bytes, Outcome]] = []
        for outcome, names in table.groups.items():
            moved = outcome.under(len(relative))
            for name in names:
                if b":" in name:
                    with_colons.append((name, outcome))
                    continue
                self._put(relative + name, moved)
        for name, outcome in sorted(with_colons, key=itemgetter(0)):
            self._colons(name, outcome)
        self._slashes(table)
        for head, tail in home.tails.items():
            self._tail(home, head, tail)
        for prefix in home.split:
            if prefix.count(b":") > MOST_COLONS:
                self._endless(prefix)

    def _add_whole(self, home: HomeTable) -> bool:
        """As the rest of `add`, where the view is this home and no more, as that of nearly every virtual domain is.

        Nobody else claims a part of the names, and the home has files for single names and one
        program for all others: those names are never taken apart.  Whether it is so.
        """
        table, tail = home.table, home.tails.get(b"")
        alone = not self._relative and not self._nested and not self._space.claimed_inside(self._claim, self._view)
        if not alone or tail is None or len(home.tails) > 1 or home.split != {b""} or len(table.prefixes) != 1:
            return False
        for names in table.groups.values():
            joined = names.joined
            if names.odd or joined is None or b"/" in joined or joined.count(b":") > MOST_COLONS:
                return False
        hidden: list[bytes] = []
        for outcome, names in table.groups.items():
            if b":" in (names.joined or b""):
                with_colons = [name for name in names if b":" in name]
                for name in with_colons:
                    found = outcome.at(name)
                    for spelled in spellings(name):
                        self._exact[spelled] = found
                        hidden.append(spelled)
                names = names.without(with_colons, ())
            if len(names):
                self._groups.setdefault(outcome, []).append(names)
                hidden += names
        self._prefixes.update(tail.prefixes)
        for outcome, names in tail.groups.items():
            left = names.without(hidden, ())
            if len(left):
                self._groups.setdefault(outcome, []).append(left)
        return True

    def _tail(self, home: HomeTable, head: bytes, tail: Table) -> None:
        """Puts the rules of what follows `head` into the view, but for what other rules or claims answer."""
        start = self._relative + head
        if head and self._nested and self._space.claimed_by_longer(self._claim, self._view + start):
            return
        safe = safe_extension(head, self._claim.owner.dash)
        longer = [prefix for prefix in home.table.prefixes if prefix.startswith(safe) and len(prefix) > len(safe)]
        inside = [spelled[len(head) :] for one in longer for spelled in spellings(one) if spelled.startswith(head)]
        for prefix, outcome in tail.prefixes.items():
            if any(prefix.startswith(one) for one in inside):
                continue
            if prefix and self._nested and self._space.claimed_by_longer(self._claim, self._view + start + prefix):
                continue
            self._prefixes[start + prefix] = outcome
        hidden = {
            spelled[len(head) :]
            for names in home.table.groups.values()
            for name in names.beginning_with(safe)
            for spelled in spellings(name)
            if spelled.startswith(head)
        }
        claimed = self._space.claimed_inside(self._claim, self._view + start)
        hidden |= {name for name, wildcard in claimed if not wildcard}
        inside += [name for name, wildcard in claimed if wildcard]
        for outcome, names in tail.groups.items():
            left = names.without(hidden, inside)
            if len(left):
                self._groups.setdefault(outcome.under(len(start)), []).append(left.below(start))

    def _endless(self, prefix: bytes) -> None:
        """Says that a prefix with more colons than are spelled out hides rules."""
        reason = "more than four dots or colons in one name: not every spelling is written"
        self._unsayable.append(Unsayable(self._relative + prefix + b"*", reason, self._claim.owner.home, 0))

    def _slashes(self, table: Table) -> None:
        """Reports the directories below which something is accepted: a slash may be written twice, or more often."""
        told: set[bytes] = set()
        accepted = [(name, one) for name, one in table.prefixes.items() if one.accepted and b"/" in name]
        for outcome, names in table.groups.items():
            if outcome.accepted and (b"/" in (names.joined or b"") or any(b"/" in name for name in names.odd)):
                accepted += [(name, outcome.at(name)) for name in names if b"/" in name]
        for name, found in sorted(accepted, key=itemgetter(0)):
            rule = self._relative + name.partition(b"/")[0] + b"//*"
            if rule not in told:
                told.add(rule)
                self._unsayable.append(Unsayable(rule, "repeated slashes are not written", found.file, found.line))

    def add_raw(self, table: Table) -> None:
        """Puts the rules of a table of raw tails into the view; an exact claim takes its answer for the empty tail."""
        if not self._claim.wildcard:
            found = table.match(b"")
            if found is not None:
                self._exact[self._relative] = found
            return
        for name, outcome in table.prefixes.items():
            full = self._view + self._relative + name
            if not (name and self._nested and self._space.claimed_by_longer(self._claim, full)):
                self._prefixes[self._relative + name] = outcome
        for name, outcome in table.exact():
            self._put(self._relative + name, outcome.at(name))

    def _colons(self, name: bytes, outcome: Outcome) -> None:
        for spelled in self._spellings(name, b"", outcome):
            self._put(self._relative + spelled, outcome.at(name))

    def _put(self, name: bytes, outcome: Outcome) -> None:
        space, full = self._space, self._view + name
        if space.claimed_exactly(full) or (self._nested and space.claimed_by_longer(self._claim, full)):
            return
        self._exact[name] = outcome

    def _spellings(self, name: bytes, tail: bytes, outcome: Outcome) -> Iterator[bytes]:
        colons = name.count(b":")
        if not colons:
            yield name
            return
        more = 2**colons - 2 if colons <= MOST_COLONS else 0
        if colons > MOST_COLONS or self._spelled + more > MOST_SPELLINGS:
            found = outcome.at(name)
            rule = self._relative + name + tail
            reason = "more than four dots or colons in one name: not every spelling is written"
            if more:
                reason = "too many names with dots or colons: not every spelling is written"
            self._unsayable.append(Unsayable(rule, reason, found.file, found.line))
            yield name.replace(b":", b".")
            yield name
            return
        self._spelled += more
        yield from spellings(name)


def _told(
    claims: Iterator[Claim], wanted: Callable[[Claim], bool], ahead: Callable[[Iterable[Claim]], None]
) -> Iterator[Claim]:
    """The claims; before each stretch of them, `ahead` is told those whose homes are wanted."""
    stretch = list(islice(claims, STRETCH))
    if len(stretch) > 1:
        ahead(claim for claim in stretch if claim.fixed is None and wanted(claim))
    while stretch:
        following = list(islice(claims, STRETCH))
        ahead(claim for claim in following if claim.fixed is None and wanted(claim))
        yield from stretch
        stretch = following


def _range(names: list[bytes], prefix: bytes) -> Iterator[bytes]:
    """The sorted names that begin with `prefix`."""
    at = bisect_left(names, prefix)
    while at < len(names) and names[at].startswith(prefix):
        yield names[at]
        at += 1
