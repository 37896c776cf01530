"""One run of the compiler: the host, and what a person lets go of what was held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rcptgen.build import Job
from rcptgen.host import Domain, Host
from rcptgen.ledger import Base, Ledger, Place
from rcptgen.overlays import Extra, Overlays
from rcptgen.publish import guard
from rcptgen.publish.generation import path_key
from rcptgen.publish.tally import EMPTY
from rcptgen.request import Census, Progress
from rcptgen.rules.table import Table
from rcptgen.standing import Standings
from rcptgen.targets.witness import SAMPLE

CATCH_ALL = b"*@"
"""Put in front of a domain whose new catch-all is held, where others stand for held removals."""


@dataclass(slots=True)
class Run(Job):
    """What all attempts of one run share: the job, and the host."""

    host: Host
    progress: Progress
    domains: list[Domain]
    extra: Extra = field(default_factory=lambda: Extra(Overlays((), ())))
    standings: Standings | None = None
    census: Census | None = None
    places: list[Place] | None = None
    """Where the published files stood just before they were compared with what is remembered."""
    _seen: frozenset[tuple[str, bool]] | None = None

    @property
    def sample(self) -> int:
        """Fewer where most of the domains stand: they were proved when they were built."""
        return SAMPLE if self.standings is None or not self.standings.settled else SAMPLE // 10

    @property
    def ledger(self) -> Ledger | None:
        """Where the domains stand in the published files, if these are what this process has published last."""
        memory = self.memory
        ledger = None if self.standings is None else self.standings.ledger
        if ledger is None or ledger.number != memory.number or not memory.is_ledgers or memory.rollback is not None:
            return None
        published = tuple(memory.digests.get(path_key(one.path)) for one in self.request.outputs)
        return ledger if published == ledger.digests else None

    def base(self) -> Base | None:
        """What is published, open to be copied from."""
        ledger = self.ledger
        if ledger is None or self.places is None:
            return None
        return Base.open(ledger, self.memory.published, [one.path for one in self.request.outputs], self.places)

    def released(self, domain: bytes, key: bytes | None = None) -> bool:
        """Whether a person lets go what is held of `domain` under `key`, else its removals.

        Without names all that was held is meant, with names what was held of those; and where
        nothing was, what this run would hold of them.
        """
        approve = self.request.approve
        if self.request.force or approve is None:
            return self.request.force
        named = domain in approve
        if self.is_held(key or domain):
            return (named or not approve) and self._was_seen(domain, catch_all=key is not None and key != domain)
        return named and not (self.is_held(domain) or self.is_held(CATCH_ALL + domain))

    def _was_seen(self, domain: bytes, *, catch_all: bool) -> bool:
        """Whether what is held is still what a person was shown, where he was shown something."""
        if self.request.seen is None:
            return True
        if self._seen is None:
            shown = {(one.domain, one.catch_all): one for one in self.request.seen}
            held = {(one.domain, one.catch_all): one for one in self.memory.holds}
            self._seen = frozenset(key for key, one in held.items() if shown.get(key) == one)
        return (domain_key(domain), catch_all) in self._seen

    def approved(self, domain: bytes, old: Table) -> Table:
        """What is left of `old` to be guarded: what a person was not asked about, where one has approved."""
        if not self.released(domain):
            return old
        asked = self.memory.held_table(domain) if self.is_held(domain) and not self.request.force else None
        if asked is None:
            return EMPTY
        # What was asked about is part of what was published then; but the files may have been replaced by hand.
        return asked if self.memory.number is not None else guard.both(old, asked)

    def is_held(self, key: bytes) -> bool:
        """Whether the last run held this; then it stays held until a person approves, however little is left of it."""
        return domain_key(key) in self.memory.held

    @property
    def limits(self) -> guard.Limits:
        """The guard's limits, as configured."""
        wanted = self.config.guard
        return guard.Limits(
            domain_loss=wanted.domain_loss,
            domain_loss_min=wanted.domain_loss_min,
            total_loss=wanted.total_loss,
            total_loss_min=wanted.total_loss_min,
            new_catchalls=wanted.new_catchalls,
        )


@dataclass(frozen=True, slots=True)
class Hold:
    """What an attempt holds beyond single suspicious domains.

    `gone`: domains that are gone from the configuration, each with why they are held;
    `forwards`: names that look like dead forwards.
    """

    gone: Mapping[bytes, str] = field(default_factory=dict)
    everything: str = ""
    catchalls: bool = False
    forwards: bool = False


def domain_key(domain: bytes) -> str:
    """A domain as text that stands for its bytes one by one."""
    return domain.decode("latin-1")
