"""The loop of the service: waits for changes, compiles when it is time, and looks again in case one was missed.

One thread does all of it, so that the sign of life for systemd comes from what does the
work; a second one only reads inotify's descriptor.  Nothing here decides what is published:
that is the compiler's business, with its guard, whatever was seen or missed.
"""

from __future__ import annotations

import logging
import math
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

from rcptgen.errors import RcptgenError
from rcptgen.keeper import PUBLISHED, Paths, Unit
from rcptgen.request import Result
from rcptgen.rules.shown import shown
from rcptgen.source.footprint import RACY_NS
from rcptgen.watch.inotify import Inotify
from rcptgen.watch.memory import give_back
from rcptgen.watch.mounts import Mounts
from rcptgen.watch.pace import Pace
from rcptgen.watch.watches import Watches

log = logging.getLogger("rcptgen.watch")

RETRY = 10.0
"""Seconds after which a look that failed is tried again, if nothing asks for one before."""

BACKWARDS = 1.0
"""Seconds by which the clock may go back before nothing that was seen by it is believed."""

SECOND_LOOK = RACY_NS / 1e9 + 0.1
"""Seconds after which what was read or asked for is looked at once more.

What was changed just before it was read cannot be told by its time stamp from what was
changed just after; and vpopmail tells of a deletion before it deletes.
"""

OVERFLOW = "overflow"

MAX_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")


class Stopped(Exception):
    """The service was told to end in the middle of a look."""


class Compiler(Protocol):
    """What compiles (rcptgen.keeper)."""

    def everything(self, reason: str) -> Result:
        """Reads the configuration and all of the host anew, and publishes."""
        ...

    def touched(self, units: set[Unit], reason: str) -> Result | None:
        """Reads these units anew, and publishes; None where nothing of them counts."""
        ...

    def read(self) -> tuple[Iterable[tuple[Unit, Paths]], list[Unit]]:
        """The units that were read since this was asked last, and those that are none any more."""
        ...

    def swept(self, units: Iterable[Unit] | None = None) -> set[Unit]:
        """Those of `units` (None: of all) that are not what they were when they were read."""
        ...

    def moved(self, units: Iterable[Unit]) -> set[Unit]:
        """Those of `units` that are certainly not what they were when they were read."""
        ...

    def databases(self) -> set[Unit]:
        """The units that databases stand behind, which tell of nothing by themselves."""
        ...

    def polled(self) -> set[Unit]:
        """The units whose databases may say something else than when they were read."""
        ...

    def units_of(self, domains: Sequence[bytes]) -> set[Unit]:
        """The units that make the rules of these domains, as far as they are known; no domains: all units."""
        ...


class Manager(Protocol):
    """The service manager (rcptgen.watch.notify)."""

    interval: float | None

    def ready(self, status: str = "") -> None:
        """See Notify."""
        ...

    def status(self, text: str) -> None:
        """See Notify."""
        ...

    def watchdog(self) -> None:
        """See Notify."""
        ...

    def reloading(self) -> None:
        """See Notify."""
        ...

    def stopping(self) -> None:
        """See Notify."""
        ...

    def extend(self, seconds: float) -> None:
        """See Notify."""
        ...


class Request(Protocol):
    """Somebody asks for a look (rcptgen.watch.trigger)."""

    @property
    def token(self) -> int:
        """What `answer` is given."""
        ...

    @property
    def domains(self) -> tuple[bytes, ...]:
        """What is asked for; none: everything."""
        ...

    @property
    def wait(self) -> bool:
        """Whether an answer is waited for."""
        ...


class Requests(Protocol):
    """Where others ask (rcptgen.watch.trigger)."""

    def fileno(self) -> int:
        """For a selector."""
        ...

    def requests(self) -> Sequence[Request]:
        """What was asked since the last call."""
        ...

    def answer(self, token: int, status: int, text: str) -> None:
        """Tells who waits."""
        ...


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds between looks that nothing has asked for."""

    sweep: float = 60.0
    full: float = 86400.0
    poll: float = 5.0


@dataclass(slots=True)
class Numbers:
    """What the service counts, for those who measure it."""

    looks: int = 0
    published: int = 0
    overflows: int = 0
    sweeps: int = 0
    failures: int = 0
    watches: int = 0
    events: int = 0
    swept_directories: int = 0
    last_look: float = 0.0


@dataclass(slots=True)
class _Due:
    """When the next of each is due, by a clock that never goes back."""

    sweep: float = math.inf
    full: float = math.inf
    poll: float = math.inf
    second: float = math.inf
    alive: float = 0.0

    def first(self) -> float:
        return min(self.sweep, self.full, self.poll, self.second, self.alive)


@dataclass
class Service:
    """One host that is watched.  `run` returns the exit status.

    `told` is called after every look, with its result, or None and the status it failed with.
    """

    root: bytes
    compiler: Compiler
    manager: Manager
    requests: Requests | None = None
    times: Times = field(default_factory=Times)
    pace: Pace = field(default_factory=Pace)
    told: Callable[[Result | None, int, Numbers], None] = lambda result, status, numbers: None
    numbers: Numbers = field(default_factory=Numbers)
    _touched: set[Unit] = field(default_factory=set)
    _young: dict[Unit, float] = field(default_factory=dict)
    """What is to be looked at once more when its time stamps tell, and when that is."""
    _settling: set[Unit] = field(default_factory=set)
    """What that look found changed: once is enough, even where time stamps are of the future."""
    _everything: str = ""
    _waiting: list[Request] = field(default_factory=list)
    _due: _Due = field(default_factory=_Due)
    _stopping: bool = False
    _hangup: bool = False
    _offset: float = 0.0
    _warned: bool = False
    _started: bool = False
    _said: frozenset[str] = frozenset()
    _result: Result | None = None
    _mounts: Mounts = field(default_factory=Mounts.now)
    _inotify: Inotify = field(init=False)
    _watches: Watches = field(init=False)

    def run(self) -> int:
        """Watches until it is told to stop; 0, or the status of a first compile that published nothing.

        Raises RcptgenError where the first compile does, and OSError where there is no inotify.
        """
        self._offset = time.time() - time.monotonic()
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with _signals(wake, self._signalled), selectors.DefaultSelector() as selector:
            inotify = Inotify(lambda: _poke(wake))
            self._inotify = inotify
            self._watches = Watches(
                self.root, inotify, counts=lambda name: name.startswith(b".qmail"), has_events=self._has_events
            )
            try:
                selector.register(woken, selectors.EVENT_READ)
                if self.requests is not None:
                    selector.register(self.requests, selectors.EVENT_READ)
                status = self._start()
                while status is None and not self._stopping:
                    selector.select(max(0.0, self._next() - time.monotonic()))
                    _drain(woken)
                    self._round()
            except Stopped:
                status = 0
            finally:
                self.manager.stopping()
                for one in self._waiting:
                    self._answer(one, 75, "the service ends")
                inotify.close()
                os.close(woken)
                os.close(wake)
        return status or 0

    # -- signals and signs of life -------------------------------------------------------------

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._hangup = True
        else:
            self._stopping = True

    def working(self, done: int, whole: int) -> None:
        """To be called while a look goes on: tells the manager, and raises Stopped where it is to end."""
        if self._stopping:
            raise Stopped
        self._alive()

    def _alive(self) -> None:
        now = time.monotonic()
        if now < self._due.alive:
            return
        every = self.manager.interval
        self._due.alive = now + (every / 2 if every else 5.0)
        self.manager.watchdog()
        if not self._started:
            self.manager.extend(60.0)
        if every is None and self._started:
            # Nobody waits for a sign of life: no need to wake up for one.
            self._due.alive = math.inf

    # -- the rounds ----------------------------------------------------------------------------

    def _start(self) -> int | None:
        self._look_at_everything("start")
        result = self._result
        if result is None or result.status not in PUBLISHED:
            return result.status if result is not None else 1
        self._started = True
        self.manager.ready(self._status())
        return None

    def _next(self) -> float:
        """When there is something to do, if nothing happens before."""
        return min(self._due.first(), self.pace.due(), self.pace.rested if self._everything else math.inf)

    def _round(self) -> None:
        """Takes what has happened, and does what is due."""
        self._alive()
        self._take()
        now = time.monotonic()
        if self._hangup:
            self._hangup = False
            self.manager.reloading()
            self._look_at_everything("hangup")
            self.manager.ready(self._status())
        elif (self._everything and now >= self.pace.rested) or now >= self._due.full:
            self._look_at_everything(self._everything or "daily")
        elif now >= self.pace.due():
            self._look()
        elif now >= self._due.sweep:
            self._sweep()
        elif now >= self._due.second:
            self._look_twice()
        elif now >= self._due.poll:
            self._due.poll = now + self.times.poll
            self._mark(self.compiler.polled())

    def _later(self, units: set[Unit]) -> None:
        """These are looked at once more in a while."""
        self._young |= dict.fromkeys(units, time.monotonic() + SECOND_LOOK)
        self._due.second = min(self._young.values(), default=math.inf)

    def _look_twice(self) -> None:
        now = time.monotonic()
        units = {unit for unit, due in self._young.items() if due <= now}
        self._young = {unit: due for unit, due in self._young.items() if due > now}
        self._due.second = min(self._young.values(), default=math.inf)
        found = self.compiler.swept(units)
        self._settling |= found
        self._mark(found | (self.compiler.polled() & units))

    def _take(self) -> None:
        """Notes what the kernel, the clock and those who ask have to say."""
        happened, overflowed = self._inotify.take()
        if overflowed:
            self.numbers.overflows += 1
            log.warning("the queue of events overflowed: everything is looked at")
            self._everything = OVERFLOW
        self._mark(self._watches.touched(happened))
        offset = time.time() - time.monotonic()
        if offset < self._offset - BACKWARDS:
            log.warning("the clock went back by %.0f s: everything is looked at", self._offset - offset)
            self._everything = "clock"
        self._offset = offset
        for one in self.requests.requests() if self.requests is not None else ():
            self._asked(one)

    def _mark(self, units: set[Unit]) -> None:
        if units:
            self._touched |= units
            self.pace.changed(time.monotonic())

    def _asked(self, one: Request) -> None:
        """Somebody wants to know that the list says what is there now."""
        units = self.compiler.units_of(one.domains)
        self._touched |= self.compiler.swept(units) | (self.compiler.polled() & units)
        self._later(units)
        if one.wait:
            self._waiting.append(one)
        self.pace.asked(time.monotonic())

    def _answer(self, one: Request, status: int, text: str) -> None:
        if self.requests is not None:
            self.requests.answer(one.token, status, text)

    # -- looks ---------------------------------------------------------------------------------

    def _look_at_everything(self, why: str) -> None:
        self._everything = ""
        units, self._touched = self._touched, set()
        # Only what events can bring about must not follow upon itself.
        found = self._compile(lambda: self.compiler.everything(why), rests=why == OVERFLOW)
        give_back()
        now = time.monotonic()
        self._due.sweep = now + self.times.sweep
        self._due.full = now + (self.times.full if found else RETRY)
        if not found:
            self._touched |= units

    def _look(self) -> None:
        units, self._touched = self._touched, set()
        found = self._compile(lambda: self.compiler.touched(set(units), "change"))
        if not found:
            self._touched |= units

    def _compile(self, look: Callable[[], Result | None], *, rests: bool = True) -> bool:
        """Whether a look came to an end, so that what it was to see needs no other."""
        begun = time.monotonic()
        self.pace.begins(begun)
        waiting, self._waiting = self._waiting, []
        status, text = 0, ""
        try:
            result = look()
        except RcptgenError as error:
            if not self._started:
                raise
            status, text = error.status, str(error)
            self.numbers.failures += 1
            self._say(text.split("\n"), logging.ERROR)
            self.pace.look_again(time.monotonic() + RETRY)
            self._measure(None, status)
        else:
            if result is not None:
                self._result = result
                self._tell(result)
            status = self._result.status if self._result is not None else 0
        finally:
            ended = time.monotonic()
            self.numbers.looks += 1
            self.numbers.last_look = ended - begun
            self.pace.ends(ended, ended - begun if rests else 0.0)
            self._waiting += waiting
        self._rearm()
        for one in waiting:
            self._answer(one, status if status in PUBLISHED and not text else 75, text)
        self._waiting = [one for one in self._waiting if one not in waiting]
        if self._started:
            self.manager.status(self._status())
        return not text

    def _say(self, words: Sequence[str], level: int) -> None:
        """Says what was not said after the last look as well: what is in trouble is looked at again and again."""
        for one in words:
            if one not in self._said:
                log.log(level, "%s", one)
        self._said = frozenset(words)

    def _tell(self, result: Result) -> None:
        """Writes down what a look has come to."""
        changed = any(one.changed for one in result.outputs)
        self.numbers.published += changed
        words = [*result.problems, *result.warnings]
        words += [f"{shown(one.path)}: {one.state.value}: {one.reason}" for one in result.units]
        words += [f"{shown(one.domain)}: {one.count} removals are held: {one.reason}" for one in result.held]
        self._say(words, logging.WARNING)
        if result.status not in PUBLISHED:
            log.error("nothing was published")
        elif changed:
            log.info("published: %d gained, %d lost, in %.2f s", result.gained, result.lost, result.seconds)
        self._measure(result, result.status)

    def _measure(self, result: Result | None, status: int) -> None:
        self.numbers.events = self._inotify.seen
        self.numbers.watches = len(self._watches)
        self.told(result, status, self.numbers)

    def _rearm(self) -> None:
        """Watches what was read, and looks once more at what changed in between."""
        read, gone = self.compiler.read()
        self._mounts = Mounts.now()
        self._watches.drop(gone)
        units = self._watches.replace(read)
        self._mark(self.compiler.moved(units))
        self._due.poll = time.monotonic() + self.times.poll if self.compiler.databases() else math.inf
        self._later(units - self._settling)
        self._settling -= units
        self.numbers.swept_directories = len(self._watches.unwatched)
        if self._watches.used_up and not self._warned:
            self._warned = True
            most = MAX_WATCHES.read_text().strip() if MAX_WATCHES.exists() else "?"
            wanted = 2 * (len(self._watches) + len(self._watches.unwatched))
            log.error(
                "no more inotify watches (fs.inotify.max_user_watches = %s): %d directories are swept every %.0f s "
                "instead; sysctl fs.inotify.max_user_watches=%d and start again",
                most,
                len(self._watches.unwatched),
                self.times.sweep,
                wanted,
            )

    def _sweep(self) -> None:
        """Looks at all that was read, whether or not events told of it."""
        self.numbers.sweeps += 1
        self._mounts = Mounts.now()
        self._watches.retry()
        self._mark(self.compiler.swept())
        self._due.sweep = time.monotonic() + self.times.sweep

    def _has_events(self, path: bytes) -> bool:
        return self._mounts.has_events(path)

    def _status(self) -> str:
        """One line for a person."""
        result = self._result
        if result is None:
            return "nothing was published yet"
        exact = result.outputs[0].exact if result.outputs else 0
        words = [f"{exact} recipients in {result.domains} domains", f"looked at {time.strftime('%H:%M:%S')}"]
        words.append(f"{len(self._watches)} directories watched")
        if self.numbers.swept_directories:
            words.append(f"{self.numbers.swept_directories} only swept")
        if result.held:
            words.append(f"{len(result.held)} domains with held removals")
        if result.units:
            words.append(f"{len(result.units)} sources in trouble")
        if result.rollback is not None:
            since = time.localtime(result.rollback.since)
            words.append(f"rolled back since {time.strftime('%Y-%m-%d %H:%M', since)}")
        return ", ".join(words)


@contextmanager
def _signals(wake: int, handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """SIGTERM, SIGINT and SIGHUP go to `handler`, and wake a selector up."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    old = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(old)
        for number, what in before.items():
            signal.signal(number, what)


def _poke(wake: int) -> None:
    try:
        os.write(wake, b"!")
    except OSError:
        # Full: whoever reads it is woken already.
        pass


def _drain(woken: int) -> None:
    try:
        while os.read(woken, 4096):
            pass
    except BlockingIOError:
        pass
