"""Yesterday's mail as the test of today's list: what was delivered must be accepted.

Events of mail logs (maillogs/) are judged in batches by whoever answers for the list: the
host under policy, or a compiled file as its consumer reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rcptgen.host import Host
from rcptgen.maillogs.events import Event, Recent, What
from rcptgen.maillogs.qmailsend import SAFE
from rcptgen.policy import Policy
from rcptgen.qmail.domains import Override, overrides
from rcptgen.qmail.routing import Local, Routing
from rcptgen.rules.outcome import Verdict
from rcptgen.rules.shown import shown
from rcptgen.targets.base import Reader

BATCH = 4000
MOST_CACHED = 100_000
MOST_KEPT = 1000
"""Recipients of each sort that are told one by one; beyond, they are only counted."""
MOST_DISTINCT = 200_000
MOST_MESSAGES = 100_000

Where = tuple[Event, bytes, int]


class Judge(Protocol):
    """Answers for a list."""

    def accepts(self, addresses: Sequence[bytes]) -> list[bool | None]:
        """Whether the list has each address; None for an address of a domain it does not speak of."""
        ...


class HostJudge:
    """The list as policy would publish it for the host as it is now."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._policy = Policy(host)
        self._domains = {one.name for one in self._policy.domains()}

    def accepts(self, addresses: Sequence[bytes]) -> list[bool | None]:
        """Each address followed through the host, and what policy makes of it."""
        found: list[bool | None] = []
        for address, outcome in zip(addresses, self._host.decide_many(addresses), strict=True):
            accepted = self._policy.judged(address, outcome)
            if _domain(address) in self._domains:
                found.append(accepted)
            else:
                # A `.suffix` line may bring it here, but no list has a domain that nothing names.
                found.append(False if accepted or outcome.verdict is not Verdict.REMOTE else None)
        return found


class FileJudge:
    """A compiled file, as its consumer looks into it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._domains: set[bytes] | None = None

    def accepts(self, addresses: Sequence[bytes]) -> list[bool | None]:
        """The consumer's answers; which domains the file speaks of is read once, when something is refused."""
        found: list[bool | None] = []
        for address in addresses:
            if self._reader.answer(address).accepted:
                found.append(True)
                continue
            if self._domains is None:
                self._domains = {one.domain.lower() for one in self._reader.lines() if one.domain is not None}
            found.append(False if _domain(address) in self._domains else None)
        return found


def _domain(address: bytes) -> bytes:
    return address.rpartition(b"@")[2].lower()


# --- From the local channel back to the envelope -------------------------------------------------


@dataclass(frozen=True, slots=True)
class Origin:
    """The envelope recipients that a name on the local channel can come from.

    More than one: each of them becomes this name.  Not `certain`: none does today, and these
    are what is left to ask for.
    """

    addresses: tuple[bytes, ...]
    certain: bool = True


class Origins:
    """qmail-send's rewriting backwards: what `prepend-user@domain` was before (qmail-send.c: rewrite)."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing
        self._overrides = {domain.translate(SAFE): some for domain, some in overrides(routing).items()}

    def of(self, logged: bytes) -> Origin:
        """Where a recipient of the local channel, as qmail-send logs it, comes from."""
        name, _, host = logged.rpartition(b"@")
        if self._routing.locals_.get(host) is not None:
            return Origin((logged,))
        found = []
        entry = self._routing.virtual(None, host)
        if entry is not None and entry.value:
            prepend = entry.value.translate(SAFE) + b"-"
            if name.lower().startswith(prepend.lower()):
                found.append(name[len(prepend) :] + b"@" + host)
        found += [one.local + b"@" + host for one in self._overrides.get(host.lower(), ()) if _becomes(one, name)]
        # An entry for the whole address beats the one for its domain.
        found = [one for one in dict.fromkeys(found) if self._is(one, name)]
        if found:
            return Origin(tuple(found))
        # As vpopmail writes virtualdomains: the prepend is the domain.
        usual = host.lower() + b"-"
        stripped = name[len(usual) :] + b"@" + host
        return Origin((stripped,) if name.lower().startswith(usual) else (logged,), certain=False)

    def _is(self, address: bytes, name: bytes) -> bool:
        route = self._routing.route(address)
        return isinstance(route, Local) and route.name.translate(SAFE).lower() == name.lower()


def _becomes(one: Override, name: bytes) -> bool:
    return bool(one.value) and (one.value + b"-" + one.local).translate(SAFE).lower() == name.lower()


# --- What is found -----------------------------------------------------------------------------


@dataclass(slots=True)
class Recipient:
    """One recipient of a sort: how often, where first, and what is to be said of it."""

    address: bytes
    count: int
    file: bytes
    line: int
    note: str = ""


@dataclass(slots=True)
class Sort:
    """Recipients that share a fate: `count` of them in all, the first ones kept."""

    count: int = 0
    recipients: dict[bytes, Recipient] = field(default_factory=dict)
    more: bool = False

    def add(self, address: bytes, file: bytes, line: int, note: str = "") -> None:
        """One more, met at `file`:`line`."""
        self.count += 1
        known = self.recipients.get(address)
        if known is not None:
            known.count += 1
        elif len(self.recipients) < MOST_KEPT:
            self.recipients[address] = Recipient(address, 1, file, line, note)
        else:
            self.more = True


@dataclass(slots=True)
class Found:
    """What the logs say of the list.

    `lost`: delivered, and the list refuses them: there must be none.  `unsure`: the same,
    but the log does not say for certain which address it was.  `submitted`: refused, but the
    message came from this machine and never met the list.  `avoided`: bounced, and the list
    would have refused them; `bounced`: bounced, and the list accepts them.  `turned_away`:
    taken by an SMTP server that the list would have made refuse.  `let_in`: refused by an
    SMTP server for whatever reason, accepted by the list.  `elsewhere`: the domains of
    recipients that the list does not speak of.
    """

    delivered: int = 0
    handed_on: int = 0
    failed: int = 0
    admitted: int = 0
    refused: int = 0
    bare: int = 0
    others: dict[What, int] = field(default_factory=dict)
    bounces: int = 0
    bounces_avoided: int = 0
    bounces_unknown: int = 0
    lost: Sort = field(default_factory=Sort)
    unsure: Sort = field(default_factory=Sort)
    submitted: Sort = field(default_factory=Sort)
    not_final: Sort = field(default_factory=Sort)
    avoided: Sort = field(default_factory=Sort)
    bounced: Sort = field(default_factory=Sort)
    turned_away: Sort = field(default_factory=Sort)
    let_in: Sort = field(default_factory=Sort)
    elsewhere: Sort = field(default_factory=Sort)
    _distinct: set[int] = field(default_factory=set)

    @property
    def unknown_recipients(self) -> int:
        """Different recipients that bounced or were taken, and that the list refuses; at least, where `many`."""
        return len(self._distinct)

    @property
    def many(self) -> bool:
        """Whether there are more of them than were told apart."""
        return len(self._distinct) >= MOST_DISTINCT

    def turn_away(self, address: bytes) -> None:
        """Notes an unknown recipient."""
        if not self.many:
            self._distinct.add(hash(address.lower()))


class Replay:
    """Judges events by a list.

    `origins` is asked for when the first recipient of qmail's local channel comes.  With
    `domains` only recipients there count.  `final`: what another server took says nothing.
    """

    def __init__(
        self,
        judge: Judge,
        origins: Callable[[], Origins],
        *,
        domains: frozenset[bytes] = frozenset(),
        final: bool = False,
    ) -> None:
        self.found = Found()
        self._judge = judge
        self._origins_of = origins
        self._origins: Origins | None = None
        self._domains = domains
        self._final = final
        self._cache: dict[bytes, bool | None] = {}
        self._traced: dict[bytes, Origin] = {}
        self._messages = Recent(MOST_MESSAGES)

    def run(self, events: Iterable[Where]) -> Found:
        """All events judged."""
        for batch in _batches(events):
            self._look_up(batch)
            for event, file, line in batch:
                self._judged(event, file, line)
        return self.found

    def _origin(self, event: Event) -> Origin:
        if not event.local:
            return Origin((event.address,))
        known = self._traced.get(event.address)
        if known is None:
            if self._origins is None:
                self._origins = self._origins_of()
            if len(self._traced) >= MOST_CACHED:
                self._traced.clear()
            known = self._traced[event.address] = self._origins.of(event.address)
        return known

    def _look_up(self, batch: Sequence[Where]) -> None:
        if len(self._cache) > MOST_CACHED:
            self._cache.clear()
        wanted: dict[bytes, None] = {}
        for event, _, _ in batch:
            if event.address and self._counts(event):
                wanted.update((one, None) for one in self._origin(event).addresses if one not in self._cache)
        addresses = list(wanted)
        self._cache.update(zip(addresses, self._judge.accepts(addresses), strict=True))

    def _counts(self, event: Event) -> bool:
        _, at, domain = event.address.rpartition(b"@")
        return bool(at) and (not self._domains or domain.lower() in self._domains)

    def _judged(self, event: Event, file: bytes, line: int) -> None:
        found = self.found
        if not event.address:
            if event.what is What.BOUNCE_MESSAGE:
                self._bounce_message(event)
            elif event.what is What.FAILED_ELSEWHERE:
                self._messages.put(event.message, b"kept")
            elif event.what is What.ENDED:
                self._messages.pop(event.message, None)
            found.others[event.what] = found.others.get(event.what, 0) + 1
            return
        if not self._counts(event):
            found.bare += b"@" not in event.address
            return
        origin = self._origin(event)
        answers = [self._cache[one] for one in origin.addresses]
        if event.local and all(one is None for one in answers):
            self._fate(event, origin, False, "its domain is not of this list any more", file, line)
        elif all(one is None for one in answers):
            found.elsewhere.add(_domain(event.address), file, line)
            if event.what is What.BOUNCED and event.message:
                self._messages.put(event.message, b"kept")
        elif True in answers and False not in answers:
            self._fate(event, origin, True, "", file, line)
        else:
            self._fate(event, origin, False, _doubt(event, origin, answers), file, line)

    def _fate(self, event: Event, origin: Origin, accepted: bool, note: str, file: bytes, line: int) -> None:
        """One recipient of this list: `note` begins with `?` where it is not certain which one it was."""
        found = self.found
        address = origin.addresses[0]
        unsure = note.startswith("?")
        note = note.removeprefix("?")
        if event.what in (What.DELIVERED, What.HANDED_ON):
            found.delivered += 1
            handed_on = event.what is What.HANDED_ON
            found.handed_on += handed_on
            if accepted:
                return
            if handed_on:
                note = "; ".join(one for one in (note, "handed on to another server") if one)
            if event.submitted:
                found.submitted.add(address, file, line, note)
            elif handed_on and self._final:
                found.not_final.add(address, file, line, note)
            else:
                (found.unsure if unsure else found.lost).add(address, file, line, note)
            return
        refused = not accepted and not unsure
        if event.what is What.BOUNCED:
            found.failed += 1
            (found.avoided if refused else found.bounced).add(address, file, line, note)
            before = self._messages.get(event.message, b"avoided")
            if event.message:
                self._messages.put(event.message, before if refused else b"kept")
        elif event.what is What.ADMITTED:
            found.admitted += 1
            if refused:
                found.turned_away.add(address, file, line, note)
        else:
            found.refused += 1
            if accepted:
                found.let_in.add(address, file, line, note)
            return
        if refused:
            found.turn_away(address)

    def _bounce_message(self, event: Event) -> None:
        self.found.bounces += 1
        state = self._messages.pop(event.message, None)
        self.found.bounces_avoided += state == b"avoided"
        self.found.bounces_unknown += state is None


def _doubt(event: Event, origin: Origin, answers: Sequence[bool | None]) -> str:
    """What is to be said of a recipient that the list refuses, or may."""
    if not origin.certain:
        return f"?delivered as {shown(event.address)}, which nothing in virtualdomains leads to any more"
    if True in answers:
        several = " or ".join(shown(one) for one in origin.addresses)
        return f"?delivered as {shown(event.address)}: {several}"
    if event.unsafe:
        return "?the log writes other characters so, too"
    return ""


def _batches(events: Iterable[Where]) -> Iterator[list[Where]]:
    batch: list[Where] = []
    for one in events:
        batch.append(one)
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
