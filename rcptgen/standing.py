"""What one domain was built to last time, small enough to be kept for every domain of a host.

While nothing that it came from has changed, it is written again without being read, shaped
or lowered again: that is what makes a change of one domain of ten thousand cheap.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from rcptgen.targets.base import Batch, Lowered, Unsayable

_BETWEEN = b"\0"
"""No address holds a NUL, nor does any key that is made of one."""


@dataclass(frozen=True, slots=True)
class Written:
    """One domain in one output: its records, and what else the lowering said."""

    records: tuple[tuple[bytes, bytes], ...]
    said: Lowered

    @staticmethod
    def record(keys: Sequence[bytes], value: bytes) -> tuple[bytes, bytes]:
        """One batch, as it is kept in `records`."""
        return _BETWEEN.join(keys), value

    def batches(self) -> Iterator[Batch]:
        """The records as a writer takes them."""
        for keys, value in self.records:
            if keys:
                yield keys.split(_BETWEEN), value


@dataclass(frozen=True, slots=True)
class Standing:
    """One domain as it was built last, and what that came from.

    `signature` tells what the control files and users/cdb said of it, `claims` (as in Policy)
    name its homes, `check` is that of its packed table.
    """

    signature: bytes
    claims: tuple[bytes, ...]
    check: bytes
    unsayable: tuple[Unsayable, ...]
    written: tuple[Written, ...]
    kinds: tuple[tuple[str, int], ...]
    approximate: int
    empty: bool

    @property
    def accepted(self) -> int:
        """How many rules accept."""
        return sum(count for _, count in self.kinds)

    def homes(self) -> Iterator[bytes]:
        """The homes that its rules come from."""
        for claim in self.claims:
            yield claim.partition(b"\0")[0]


def check_of(blob: bytes) -> bytes:
    """What tells one packed table from every other."""
    return blake2b(blob, digest_size=16).digest()


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

    def shaped_as(self, prepended: str) -> None:
        """The mode in which names with a virtual domain in front are written: with another one nothing stands."""
        if prepended != self.prepended:
            self.known.clear()
            self.passing.clear()
        self.prepended = prepended

    def may_stand(self, domain: bytes) -> bool:
        """Whether nothing of the host speaks against a domain's being what it was."""
        found = self.known.get(domain)
        return found is not None and domain not in self.doubtful and found.signature == self.signatures.get(domain)

    def of(self, domain: bytes, blob: bytes) -> Standing | None:
        """The domain as it still stands, if its published table is `blob`."""
        found = self.known[domain] if self.may_stand(domain) else None
        return found if found is not None and found.check == check_of(blob) else None

    def put(self, domain: bytes, standing: Standing) -> None:
        """The domain was built anew."""
        self.known[domain] = standing
        self.doubtful.discard(domain)
        self.passing.pop(domain, None)

    def drop(self, domain: bytes, check: bytes | None = None) -> None:
        """The domain must be built anew each time; `check` is that of its table, where it is all of that table."""
        self.known.pop(domain, None)
        self.passing.pop(domain, None)
        if check is not None:
            self.passing[domain] = check

    def last_check(self, domain: bytes) -> bytes | None:
        """The check of the domain's table as it was built last; None where that says nothing."""
        standing = self.known.get(domain)
        return self.passing.get(domain) if standing is None else standing.check

    def keep(self, domains: Container[bytes]) -> None:
        """There are no others any more."""
        for one in (self.known, self.passing):
            for name in [name for name in one if name not in domains]:
                del one[name]
        self.doubtful = {name for name in self.doubtful if name in domains}
