"""The whole way of one address: through the host, the policy, its forwards, and the published files."""

from __future__ import annotations

import datetime as dt
import enum
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rcptgen.errors import RcptgenError
from rcptgen.forwards import Forwards, Lead
from rcptgen.host import Host, Trace
from rcptgen.policy import Policy
from rcptgen.publish.state import GENERATIONS, State
from rcptgen.request import Output, target_for
from rcptgen.targets.base import Answer, Target

MOST_EXPLAINED = 1000
"""Addresses behind one that are told of; the forwards of the others are not followed."""


@dataclass(frozen=True, slots=True)
class Explained:
    """One address: its way, where its mail goes, and what policy makes of it.

    `policy` says what policy goes by besides the verdict; empty where that is nothing.
    """

    trace: Trace
    lead: Lead
    accepted: bool
    policy: str

    @property
    def address(self) -> bytes:
        """The address, as it was asked for."""
        return self.trace.address


@dataclass(frozen=True, slots=True)
class Followed:
    """An address that others are forwarded to; `depth` is how many forwards led to it, from 1.

    `explained` is None where it is not told of (again); then `note` says why.  `loop` are
    the addresses of a loop that closes here, from this address to itself.
    """

    address: bytes
    depth: int
    explained: Explained | None
    note: str = ""
    loop: tuple[bytes, ...] = ()


class Match(enum.StrEnum):
    """Which key of a file answers."""

    EXACT = "exact"
    PREFIX = "prefix"
    CATCHALL = "catch-all"
    NONE = "none"


class Standing(enum.StrEnum):
    """How the answer of a file stands to what is decided now."""

    AGREES = "agrees"
    WIDENED = "widened"
    UNSAYABLE = "unsayable"
    HELD = "held"
    STALE = "stale"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """What the consumer of one published file does with the address, by which key, and why it may do so."""

    output: Output
    answer: Answer | None
    match: Match
    standing: Standing
    why: str


def explain(host: Host, policy: Policy, address: bytes) -> Explained:
    """The way of `address`.  Raises what reading the host raises."""
    trace = host.trace(address)
    (lead,) = Forwards(host).leads((address,), whole=True)
    accepted, said = policy.ruling(address, trace.outcome)
    return Explained(trace, lead, accepted, said)


def follow(host: Host, policy: Policy, first: Explained, *, most: int = MOST_EXPLAINED) -> Iterator[Followed]:
    """Every address that the forwards of `first` lead to, depth first; each is explained once."""
    told = {first.address}
    way: list[tuple[bytes, Iterator[bytes]]] = [(first.address, iter(_targets(first)))]
    while way:
        address = next(way[-1][1], None)
        if address is None:
            way.pop()
            continue
        passed = [one for one, _ in way]
        depth = len(way)
        if address in passed:
            loop = (*passed[passed.index(address) :], address)
            yield Followed(address, depth, None, "a loop: qmail-local bounces what comes back", loop)
        elif address in told:
            yield Followed(address, depth, None, "told above")
        elif len(told) > most:
            yield Followed(address, depth, None, "too many forwards: not followed")
        else:
            told.add(address)
            explained = explain(host, policy, address)
            yield Followed(address, depth, explained)
            way.append((address, iter(_targets(explained))))


def _targets(explained: Explained) -> list[bytes]:
    return list(dict.fromkeys(one.address for one in explained.lead.forwards))


def held_since(state: bytes | None) -> dict[str, float]:
    """Since when removals of which domains are held (a catch-all as `*@domain`), as the last run left it.

    Nothing is made where there is no state; one that cannot be used holds nothing.
    """
    if state is None or not os.path.isdir(os.path.join(state, os.fsencode(GENERATIONS))):
        return {}
    try:
        with State.open(state) as opened:
            generation = opened.current()
            if generation is None:
                return {}
            with generation:
                return dict(generation.meta.held)
    except RcptgenError:
        return {}


def answers(
    policy: Policy, explained: Explained, outputs: Sequence[Output], held: Mapping[str, float]
) -> list[FileAnswer]:
    """What each published file says of an address, and how that stands to what is decided now."""
    return [_answer(policy, explained, output, held) for output in outputs]


def _answer(policy: Policy, explained: Explained, output: Output, held: Mapping[str, float]) -> FileAnswer:
    try:
        target = target_for(output, policy.host.config)
        reader = target.open(output.path)
    except RcptgenError as error:
        return FileAnswer(output, None, Match.NONE, Standing.UNREADABLE, str(error))
    try:
        found = reader.answer(explained.address)
    finally:
        reader.close()
    match = _match(found.key, explained.address.lower())
    if found.accepted == explained.accepted:
        return FileAnswer(output, found, match, Standing.AGREES, "")
    return FileAnswer(output, found, match, *_difference(policy, explained, target, found, held))


def _match(key: bytes | None, address: bytes) -> Match:
    if key is None:
        return Match.NONE
    if key == address:
        return Match.EXACT
    return Match.CATCHALL if key.startswith(b"@") else Match.PREFIX


def _difference(
    policy: Policy, explained: Explained, target: Target, found: Answer, held: Mapping[str, float]
) -> tuple[Standing, str]:
    """Why a file says another thing: its format, what is held, or that it is old."""
    local, at, name = explained.address.lower().rpartition(b"@")
    if not at:
        if name == b"postmaster":
            return Standing.WIDENED, "postmaster is always accepted without a domain"
        return Standing.UNSAYABLE, "addresses without a domain are not written"
    domain = next((one for one in policy.domains() if one.name == name), None)
    if domain is not None:
        table = policy.shape(domain).table
        rule = table.match(local)
        listed = rule is not None and rule.accepted
        if found.accepted and rule is not None and listed:
            return Standing.WIDENED, rule.reason
        if found.accepted:
            lowered = target.lower(name, table)
            for one in lowered.widened:
                if one.key == found.key:
                    return Standing.WIDENED, one.reason
        elif not listed:
            return Standing.UNSAYABLE, "no rule can say this name"
    text = name.decode("latin-1")
    since = held.get(text, held.get("*@" + text))
    if since is not None:
        day = dt.datetime.fromtimestamp(since, dt.UTC).isoformat(" ", "minutes")
        return Standing.HELD, f"changes of this domain are held since {day}"
    return Standing.STALE, "the next compile changes it"
