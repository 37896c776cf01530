"""A host that is compiled again and again: what has not changed is not read again.

A *unit* is a home, named by its path, or CONTROL: everything else that decides.  For every
unit it is known what it was read from (rcptgen.source.looked), and for every domain what it
was built to (rcptgen.standing), so that after a change of a few homes only these are read,
and only the domains behind them are shaped.  The files are then written whole, from that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from rcptgen.compiler import compile_open, host_for
from rcptgen.config import Config
from rcptgen.host import Domain, DomainKind, Host
from rcptgen.policy import Policy
from rcptgen.publish.packed import pack
from rcptgen.qmail.users import Owner
from rcptgen.reader import Report, State
from rcptgen.request import Progress, Request, Result
from rcptgen.source.footprint import What
from rcptgen.source.looked import unpack
from rcptgen.source.tree import Identity
from rcptgen.standing import Standings, check_of
from rcptgen.vpopmail.settings import FILES

Unit = bytes
CONTROL: Unit = b""
"""The control files, users/cdb, the accounts and all else that is nobody's home."""

_TROUBLED = (State.FAILED, State.SUSPECT)
_ACCOUNTS = (b"/etc/passwd", b"/etc/group", b"/etc/nsswitch.conf")
"""What the system's account database is made of, as far as it is files."""

_DOTQMAIL = b".qmail"


@dataclass(frozen=True, slots=True)
class Paths:
    """What a unit was read from: single paths, and directories whose dot-qmail files all count."""

    looked_at: tuple[bytes, ...]
    listed: tuple[bytes, ...] = ()


@dataclass(slots=True)
class Keeper:
    """One host and its outputs.  `configure` gives the configuration and the request of a run, read anew.

    `working` is told now and then that a run goes on; what it raises ends the run.
    """

    root: bytes
    configure: Callable[[], tuple[Config, Request]]
    working: Progress = lambda done, whole: None
    _config: Config = field(default_factory=Config)
    _request: Request = field(default_factory=lambda: Request(()))
    _host: Host | None = None
    _accounts: bytes = b""
    _standings: Standings = field(default_factory=Standings)
    _fresh: set[Unit] = field(default_factory=set)
    _dropped: set[Unit] = field(default_factory=set)
    _units: set[Unit] = field(default_factory=set)

    @property
    def config(self) -> Config:
        """The configuration of the last look."""
        return self._config

    def close(self) -> None:
        """Ends the worker processes."""
        if self._host is not None:
            self._host.close()
            self._host = None

    # -- looks ---------------------------------------------------------------------------------

    def everything(self, reason: str) -> Result:
        """Reads the configuration and all of the host anew, and publishes; raises what compile_host does."""
        self._config, self._request = self.configure()
        self._standings = Standings()
        return self._anew(reason)

    def touched(self, units: set[Unit], reason: str) -> Result | None:
        """Reads these units anew, and publishes; None where that leaves every rule as it was.

        A unit that nobody has heard of is taken for CONTROL.
        """
        host = self._host
        if host is None:
            return self._anew(reason)
        homes = units & self._units - {CONTROL}
        if units - homes and self._control_changed(host):
            return self._anew(reason, homes)
        if not homes:
            return None
        before = {home: host.units.reports.get(home) for home in homes}
        host.units.forget(homes)
        self._doubt(homes)
        self._standings.settled = True
        if self._as_it_was(host, before):
            self._note(homes)
            return None
        return self._run(host, reason, homes)

    def _anew(self, reason: str, homes: set[Unit] | None = None) -> Result:
        """Reads the control files anew, and what is not known to stand; with `homes` None nothing does."""
        old, self._host = self._host, None
        host = self._host = host_for(self.root, self._config, record=True)
        try:
            self._accounts = _digest(host)
            standings = self._standings
            standings.settled = False
            standings.signatures = {one.name: found for one in host.domains() if (found := _signature(host, one))}
            if homes is None or old is None:
                standings.known.clear()
            else:
                self._doubt(homes)
                self._hand_over(old, host, homes)
        finally:
            if old is not None:
                old.close()
        return self._run(host, reason, None)

    def _hand_over(self, old: Host, host: Host, touched: set[Unit]) -> None:
        """The new host knows of the homes behind what stands as much as the old one did."""
        standings = self._standings
        homes = {
            home
            for name, one in standings.known.items()
            if name not in standings.doubtful and standings.signatures.get(name) == one.signature
            for home in one.homes()
        }
        homes -= touched
        for owner, looked_at in old.units.looked_at.items():
            if owner.home in homes:
                host.units.looked_at[owner] = looked_at
        for home in homes:
            if home in old.units.reports:
                host.units.reports[home] = old.units.reports[home]

    def _doubt(self, homes: set[Unit]) -> None:
        """The domains behind these homes do not stand."""
        standings = self._standings
        standings.doubtful |= {name for name, one in standings.known.items() if not homes.isdisjoint(one.homes())}

    def _as_it_was(self, host: Host, before: Mapping[Unit, Report | None]) -> bool:
        """Whether all that was doubted turns out to stand: a new password changes no rule."""
        standings = self._standings
        if any(name not in standings.known for name in standings.signatures):
            return False
        policy = Policy(host, prepended=standings.prepended, settled=True)
        domains = {one.name: one for one in host.domains()}
        for name in sorted(standings.doubtful):
            domain = domains.get(name)
            if domain is None:
                return False
            shaped = policy.shape(domain)
            if policy.last_kept or check_of(pack(shaped.table)) != standings.known[name].check:
                return False
        reports = host.units.reports
        if any(_state(reports.get(home)) != _state(report) for home, report in before.items()):
            return False
        standings.doubtful.clear()
        return True

    def _run(self, host: Host, reason: str, homes: set[Unit] | None) -> Result:
        request = _with_reason(self._request, reason)
        try:
            return compile_open(host, self._config, request, progress=self.working, standings=self._standings)
        finally:
            self._note(homes)

    def _note(self, homes: set[Unit] | None) -> None:
        """Puts down which units there are, and which were read."""
        host = self._host
        assert host is not None
        now = {owner.home for owner in host.units.looked_at} | {CONTROL}
        self._dropped |= self._units - now
        self._dropped -= now
        self._fresh |= now if homes is None else (homes & now) | (now - self._units)
        self._fresh -= self._dropped
        self._units = now

    # -- what was read ----------------------------------------------------------------------------

    def read(self) -> tuple[list[tuple[Unit, Paths]], list[Unit]]:
        """The units that were read since this was asked last, with their paths, and those that are none any more."""
        host = self._host
        fresh, dropped = sorted(self._fresh), sorted(self._dropped)
        self._fresh, self._dropped = set(), set()
        if host is None:
            return [], dropped
        of_home: dict[Unit, list[bytes]] = {}
        for owner, packed in host.units.looked_at.items():
            if owner.home in self._units:
                of_home.setdefault(owner.home, []).append(packed)
        found = [(home, _paths(of_home.get(home, []), home)) for home in fresh if home]
        if CONTROL in fresh:
            found.append((CONTROL, self._control_paths(host)))
        return found, dropped

    def _control_paths(self, host: Host) -> Paths:
        paths = _paths(host.units.common(), b"/")
        homes = {one.home for one in host.accounts.all() if one.home.startswith(b"/")}
        return Paths(tuple(sorted({*paths.looked_at, *homes, *_ACCOUNTS})), paths.listed)

    def swept(self, units: Iterable[Unit] | None = None) -> set[Unit]:
        """Those of `units` (None: of all) that are not what they were when they were read."""
        host = self._host
        if host is None:
            return {CONTROL}
        wanted = self._units if units is None else self._units & set(units)
        asked = [(owner, packed) for owner, packed in host.units.looked_at.items() if owner.home in wanted]
        answers = host.units.changed([(_who(owner), owner.home, packed) for owner, packed in asked])
        found = {owner.home for (owner, _), changed in zip(asked, answers, strict=True) if changed}
        found |= {
            report.path for report in host.units.reports.values() if report.state in _TROUBLED and report.path in wanted
        }
        if CONTROL in wanted and self._control_changed(host):
            found.add(CONTROL)
        return found

    def polled(self) -> set[Unit]:
        """The units that were made of a database, if that may say something else now."""
        host = self._host
        if host is None:
            return set()
        settings = [
            os.fsencode(f"{self._config.vpopmail.directory.rstrip('/')}/{name.decode()}") for name in FILES.values()
        ]
        made = {owner.home for owner, packed in host.units.looked_at.items() if any(one in packed for one in settings)}
        return made if made and host.units.is_stale() else set()

    def _control_changed(self, host: Host) -> bool:
        common = host.units.common()
        return (
            any(host.units.changed([(None, b"/", packed) for packed in common]))
            or _digest(host) != self._accounts
            or host.accounts_moved()
        )

    def units_of(self, domains: Sequence[bytes]) -> set[Unit]:
        """The units that make the rules of these domains, as far as they are known; no domains: all units."""
        if not domains:
            return set(self._units)
        found: set[Unit] = {CONTROL}
        for name in domains:
            standing = self._standings.known.get(name.lower())
            if standing is None:
                return set(self._units)
            found.update(standing.homes())
        return found


def _signature(host: Host, domain: Domain) -> bytes | None:
    """What the control files and users/cdb say of a domain, as a digest; None where it must be built each time."""
    policy = host.config.policy
    if domain.kind is DomainKind.RELAY or host.users_damage or policy.dead_forwards != "accept":
        return None
    rules = host.rules(domain.name)
    prepend = rules.prepend
    if prepend is None or rules.percent_hacked or host.overrides(domain.name):
        return None
    local = sum(1 for one in host.domains() if one.kind is DomainKind.LOCAL) if domain.kind is DomainKind.LOCAL else 0
    digest = blake2b(repr((domain.kind, prepend, local)).encode(), digest_size=16)
    for claim in host.space().claims_below(prepend.lower()):
        digest.update(repr(claim).encode())
    return digest.digest()


def _digest(host: Host) -> bytes:
    """All accounts as a digest: not every account database is a file."""
    digest = blake2b(digest_size=16)
    for account in host.accounts.all():
        digest.update(repr(account).encode())
    return digest.digest()


def _state(report: Report | None) -> tuple[State, str]:
    """The state of a unit, with the reason where that is published."""
    if report is None:
        return State.HEALTHY, ""
    return report.state, report.reason if report.state in _TROUBLED else ""


def _who(owner: Owner) -> Identity:
    return Identity(owner.uid, owner.gid)


def _with_reason(request: Request, reason: str) -> Request:
    return replace(request, reason=reason)


def _paths(packed: Iterable[bytes], home: bytes) -> Paths:
    """The paths of footprints; names that a listed directory's watch tells of anyway are left out."""
    entries = [entry for one in packed for entry in unpack(one, home)[1]]
    listed = {entry.path.rstrip(b"/") or b"/" for entry in entries if entry.what is What.LISTING}
    single = {
        entry.path
        for entry in entries
        if not (os.path.basename(entry.path).startswith(_DOTQMAIL) and os.path.dirname(entry.path) in listed)
    }
    return Paths(tuple(sorted(single)), tuple(sorted(listed)))
