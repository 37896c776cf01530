"""Forwards over this host, followed to the end: which addresses lead to nobody.

qmail-local bounces a message that comes back to an address it has passed (the Delivered-To
line, qmail-local.c: bouncexf).  So a loop of forwards delivers to nobody by itself, and an
address is alive only if some way of forwards from it reaches a delivery: the shortest such
way passes nobody twice.  Alive is the least set with that property, everything else is dead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rcptgen.host import Host
from rcptgen.qmail.leads import Forwarded
from rcptgen.rules.outcome import Outcome, Verdict

BATCH = 20_000
MOST_FOLLOWED = 2_000_000
"""Addresses that are looked at for those that were asked for; what is only found behind them counts as alive."""

MOST_KEPT = 500_000
"""Addresses that are remembered."""

DEAD = "forwards only to addresses of this host that bounce"


@dataclass(frozen=True, slots=True)
class Lead:
    """One address: what the host does with it, and where its mail goes.

    `other` says what besides forwards takes it, or why a bounce cannot be trusted; empty where
    `forwards` are all there is.  `varies`: other addresses that the same file answers may be forwarded to others.
    """

    outcome: Outcome
    forwards: tuple[Forwarded, ...]
    other: str
    varies: bool

    @property
    def bounces(self) -> bool:
        """Whether the host itself refuses it."""
        return self.outcome.verdict is Verdict.BOUNCE

    @property
    def delivers(self) -> bool:
        """Whether something besides forwards may take its mail, for all that is known."""
        return bool(self.other) or not (self.bounces or self.forwards)


class Forwards:
    """What is known of the forwards of a host; what was looked at once is not looked at again.

    Where users/cdb is damaged, or a source cannot be trusted, whatever rests on it is alive.
    """

    def __init__(self, host: Host, *, most: int = MOST_FOLLOWED) -> None:
        self._host = host
        self._left = most
        self._alive: dict[bytes, bool] = {}
        self._varies: set[bytes] = set()
        self._targets: dict[bytes, tuple[bytes, ...]] = {}
        self._loops: dict[bytes, tuple[bytes, ...]] = {}

    def leads(self, addresses: Sequence[bytes], *, whole: bool = False) -> list[Lead]:
        """One step: where the mail of each address goes; with `whole` all forwards beside a mailbox, too."""
        return [
            Lead(outcome, tuple(found.forwards), found.other, found.varies)
            for outcome, found in self._host.leads_many(addresses, whole=whole)
        ]

    def is_dead(self, address: bytes) -> bool:
        """Whether mail for `address` reaches nobody: it bounces, or is only forwarded to what is dead."""
        self.settle((address,))
        return not self._alive[address]

    def dead(self, addresses: Iterable[bytes]) -> set[bytes]:
        """Those of the addresses that are dead."""
        wanted = list(addresses)
        self.settle(wanted)
        return {one for one in wanted if not self._alive[one]}

    def varies(self, address: bytes) -> bool:
        """Whether the targets of a dead address hang on how it is called."""
        return address in self._varies

    def loop(self, address: bytes) -> tuple[bytes, ...]:
        """A loop that the forwards of a dead address run into, from any of its addresses to the same again; or none."""
        self.settle((address,))
        passed: dict[bytes, None] = {}
        # Depth first, with the ways that are still open: a way that comes back to itself is the loop.
        ways = [iter((address,))]
        loops = self._loops
        while ways:
            one = next(ways[-1], None)
            if one is None:
                ways.pop()
                if passed:
                    loops[passed.popitem()[0]] = ()
                continue
            if one not in passed and one not in loops:
                passed[one] = None
                ways.append(iter(self._targets.get(one, ())))
                continue
            found = loops.get(one, ())
            if one in passed:
                way = list(passed)
                found = (*way[way.index(one) :], one)
            if found:
                # Whatever leads there leads there from now on: nothing is gone through twice.
                loops.update(dict.fromkeys(passed, found))
                return found
        return ()

    def settle(self, addresses: Iterable[bytes]) -> None:
        """Finds out about all of the addresses, and about whatever their forwards lead to, in batches."""
        if len(self._alive) > MOST_KEPT:
            # What is known is whole in itself: it can be forgotten at any time between two questions.
            self._alive.clear()
            self._varies.clear()
            self._targets.clear()
            self._loops.clear()
        if self._host.users_damage:
            self._alive.update((one, True) for one in addresses)
            return
        wanted = dict.fromkeys(one for one in addresses if one not in self._alive)
        behind: dict[bytes, tuple[bytes, ...]] = {}
        before: dict[bytes, list[bytes]] = {}
        alive: deque[bytes] = deque()
        self._left += len(wanted)
        waiting = deque(wanted)
        while waiting:
            batch = [waiting.popleft() for _ in range(min(len(waiting), BATCH))]
            if self._left < len(batch):
                alive.extend(batch)
                continue
            self._left -= len(batch)
            for one, lead in zip(batch, self.leads(batch), strict=True):
                if lead.delivers:
                    alive.append(one)
                    continue
                if lead.varies:
                    self._varies.add(one)
                targets = tuple(dict.fromkeys(each.address for each in lead.forwards)) if not lead.bounces else ()
                behind[one] = targets
                for each in targets:
                    if self._alive.get(each):
                        alive.append(one)
                    elif each not in self._alive:
                        before.setdefault(each, []).append(one)
                        if each not in wanted:
                            wanted[each] = None
                            waiting.append(each)
        self._spread(alive, before)
        for one in wanted:
            if self._alive.setdefault(one, False):
                self._varies.discard(one)
            else:
                self._targets[one] = behind[one]

    def _spread(self, alive: deque[bytes], before: dict[bytes, list[bytes]]) -> None:
        """Everything that is forwarded to something alive is alive."""
        seen: set[bytes] = set()
        while alive:
            one = alive.popleft()
            if one in seen:
                continue
            seen.add(one)
            self._alive[one] = True
            alive.extend(before.get(one, ()))
