"""What one domain was built to last time, small enough to be kept for every domain of a host.

While nothing that it came from has changed, its records are copied from the published files
(rcptgen.ledger), without its being read, shaped or lowered again: that is what makes a
change of one domain of ten thousand cheap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from rcptgen.ledger import Ledger
from rcptgen.targets.base import Lowered, Unsayable

_Counts = tuple[int, int, int]
"""Exact names, wildcards and refusals in one output."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One domain as it was built last, and what that came from.

    `signature` tells what the control files and users/cdb said of it, `claims` (as in Policy)
    name its homes, `check` is that of its packed table.  `said` is what lowering it said in
    each output; empty for most domains, of which nothing is to be listed: they are `plain`.
    """

    signature: bytes
    kind: str
    claims: tuple[bytes, ...]
    check: bytes
    unsayable: tuple[Unsayable, ...]
    counts: tuple[_Counts, ...]
    said: tuple[Lowered, ...]
    kinds: tuple[tuple[str, int], ...]
    approximate: int
    empty: bool

    @property
    def accepted(self) -> int:
        """How many rules accept."""
        return sum(count for _, count in self.kinds)

    @property
    def plain(self) -> bool:
        """Whether numbers say all that a run says of it."""
        return not (self.said or self.unsayable or self.empty)

    def homes(self) -> Iterator[bytes]:
        """The homes that its rules come from."""
        for claim in self.claims:
            yield claim.partition(b"\0")[0]


def listed(said: tuple[Lowered, ...]) -> tuple[Lowered, ...]:
    """What is kept of what lowering a domain said: nothing where it only counted."""
    some = any(
        one.widened or one.unsayable or one.widened_more or one.unsayable_more or one.losses or one.left_out
        for one in said
    )
    return said if some else ()


def check_of(blob: bytes) -> bytes:
    """What tells one packed table from every other."""
    return blake2b(blob, digest_size=16).digest()


@dataclass(slots=True)
class Totals:
    """What standing domains add up to: how many of each kind, their accepted rules, and what is in each output."""

    classes: Counter[str] = field(default_factory=Counter)
    recipients: Counter[tuple[str, str]] = field(default_factory=Counter)
    counts: list[list[int]] = field(default_factory=list)
    approximate: int = 0

    @property
    def accepted(self) -> int:
        """How many rules accept."""
        return self.recipients.total()

    def kinds(self) -> Counter[str]:
        """The accepted rules by their own kinds alone."""
        found: Counter[str] = Counter()
        for (_, kind), count in self.recipients.items():
            found[kind] += count
        return found

    def add(self, one: Standing, times: int = 1) -> None:
        """Takes one domain in, or (-1) out."""
        self.classes[one.kind] += times
        for kind, count in one.kinds:
            self.recipients[one.kind, kind] += times * count
        self.approximate += times * one.approximate
        while len(self.counts) < len(one.counts):
            self.counts.append([0, 0, 0])
        for mine, its in zip(self.counts, one.counts, strict=False):
            for at, count in enumerate(its):
                mine[at] += times * count

    def without(self, some: Iterator[Standing]) -> Totals:
        """The same for all domains but these."""
        rest = Totals(+self.classes, +self.recipients, [list(one) for one in self.counts], self.approximate)
        for one in some:
            rest.add(one, -1)
        rest.classes, rest.recipients = +rest.classes, +rest.recipients
        return rest


@dataclass(slots=True)
class Standings:
    """The domains of one host as they were built last, by name."""

    known: dict[bytes, Standing] = field(default_factory=dict)
    doubtful: set[bytes] = field(default_factory=set)
    """Those that must be built anew."""

    passing: dict[bytes, bytes] = field(default_factory=dict)
    """The checks of those that are built anew each time, as they were last."""

    signatures: dict[bytes, bytes] = field(default_factory=dict)
    """What the host says of its domains now; none is kept of a domain that is not in here."""

    settled: bool = False
    """Whether the control files are those of the last time."""

    prepended: str = ""

    kept: frozenset[bytes] = frozenset()
    """The files of overlays of which the last run used what was published before."""

    ledger: Ledger | None = None
    """Where the domains stand in the files that were published last by whoever keeps this."""

    unpublished: set[bytes] = field(default_factory=set)
    """Those that were built since: what is known of them is not, or not yet, what those files hold."""

    copied: bool = False
    """Whether the last run could copy what stands: else it has read and built everything."""

    _same: dict[Any, Any] = field(default_factory=dict)
    _totals: Totals = field(default_factory=Totals)

    def shaped_as(self, prepended: str, kept: Iterable[bytes] = ()) -> None:
        """How domains are shaped, as far as no signature tells: when that is another way, nothing stands.

        That is the mode in which names with a virtual domain in front are written, and which
        files of overlays say what they said before: a signature knows only what they say now.
        """
        shaped = prepended, frozenset(kept)
        if shaped != (self.prepended, self.kept):
            self.keep(())
        self.prepended, self.kept = shaped

    def may_stand(self, domain: bytes) -> bool:
        """Whether nothing of the host speaks against a domain's being what it was."""
        found = self.known.get(domain)
        return found is not None and domain not in self.doubtful and found.signature == self.signatures.get(domain)

    def of(self, domain: bytes, blob: bytes) -> Standing | None:
        """The domain as it still stands, if its published table is `blob`."""
        found = self.known[domain] if self.may_stand(domain) else None
        return found if found is not None and found.check == check_of(blob) else None

    def behind(self, homes: Collection[bytes]) -> set[bytes]:
        """The domains whose rules come from one of these homes."""
        claims = tuple(home + b"\0" for home in homes)
        return {name for name, one in self.known.items() if any(claim.startswith(claims) for claim in one.claims)}

    def standing(self) -> set[bytes]:
        """The domains that stand as they were published."""
        signatures = self.signatures
        found = {name for name, one in self.known.items() if one.signature == signatures.get(name)}
        return found - self.doubtful - self.unpublished

    def totals(self, plain: Container[bytes]) -> Totals:
        """What `plain`, most of those that are known, add up to."""
        return self._totals.without(one for name, one in self.known.items() if name not in plain)

    def put(self, domain: bytes, standing: Standing) -> None:
        """The domain was built anew."""
        self._take(domain)
        same = self._same
        # Ten thousand domains have some hundred ways to be counted.
        kinds = tuple(same.setdefault(one, one) for one in standing.kinds)
        counts = tuple(same.setdefault(one, one) for one in standing.counts)
        standing = replace(standing, kinds=same.setdefault(kinds, kinds), counts=same.setdefault(counts, counts))
        self.known[domain] = standing
        self._totals.add(standing)
        self.doubtful.discard(domain)
        self.passing.pop(domain, None)
        self.unpublished.add(domain)

    def drop(self, domain: bytes, check: bytes | None = None) -> None:
        """The domain must be built anew each time; `check` is that of its table, where it is all of that table."""
        self._take(domain)
        self.passing.pop(domain, None)
        if check is not None:
            self.passing[domain] = check

    def _take(self, domain: bytes) -> None:
        known = self.known.pop(domain, None)
        if known is not None:
            self._totals.add(known, -1)

    def last_check(self, domain: bytes) -> bytes | None:
        """The check of the domain's table as it was built last; None where that says nothing."""
        standing = self.known.get(domain)
        return self.passing.get(domain) if standing is None else standing.check

    def published(self, ledger: Ledger) -> None:
        """What was built is published, and stands where `ledger` says."""
        self.ledger = ledger
        self.unpublished.clear()

    def keep(self, domains: Container[bytes]) -> None:
        """There are no others any more."""
        for name in [name for name in self.known if name not in domains]:
            self._take(name)
        for name in [name for name in self.passing if name not in domains]:
            del self.passing[name]
        self._same.clear()
        self.doubtful = {name for name in self.doubtful if name in domains}
