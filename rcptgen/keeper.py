"""A host that is compiled again and again: what has not changed is not read again.

A *unit* is a home, named by its path, or CONTROL: everything else that decides.  For every
unit it is known what it was read from (rcptgen.source.looked), and for every domain what it
was built to (rcptgen.standing), so that after a change of a few homes only these are read,
and only the domains behind them are shaped.  The files are then written whole, from that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import chain

from rcptgen.compiler import compile_open, host_for
from rcptgen.config import Config
from rcptgen.host import DomainKind, Host
from rcptgen.overlays import Overlays, extra
from rcptgen.policy import Policy
from rcptgen.publish.packed import pack
from rcptgen.qmail.users import Owner
from rcptgen.reader import Report, State
from rcptgen.relays import Relays
from rcptgen.request import HOLDING, Progress, Request, Result
from rcptgen.source.footprint import Entry, What
from rcptgen.source.looked import Since, paths_of, unpack
from rcptgen.source.tree import Identity
from rcptgen.standing import Standings, check_of
from rcptgen.vpopmail.settings import FILES

Unit = bytes
CONTROL: Unit = b""
"""The control files, users/cdb, the accounts and all else that is nobody's home."""

PUBLISHED = (0, HOLDING, 75)
"""Statuses of a result that was published."""

MOST_TRIED = 256
"""Domains that are shaped to see whether anything of them has changed; where more may have, all is built."""

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
    _owed: bool = False
    """Whether the last run published nothing, so that there must be another."""
    _accounts: bytes = b""
    _standings: Standings = field(default_factory=Standings)
    _fresh: set[Unit] = field(default_factory=set)
    _dropped: set[Unit] = field(default_factory=set)
    _units: set[Unit] = field(default_factory=set)
    _handed: dict[Owner, bytes] = field(default_factory=dict)
    """What the host knew of homes already when it was opened."""

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
        config, request = self.configure()
        host = self._opened(config)
        self._config, self._request = config, request
        return self._anew(host, reason)

    def touched(self, units: set[Unit], reason: str) -> Result | None:
        """Reads these units anew, and publishes; None where that leaves every rule as it was.

        A unit that nobody has heard of is taken for CONTROL.
        """
        if self._host is None:
            return self._anew(self._opened(self._config), reason)
        homes = units & self._units - {CONTROL}
        if units - homes and self._control_changed(self._host):
            return self._anew(self._opened(self._config), reason, homes)
        host = self._host
        if not (homes or self._owed):
            return None
        before = {home: host.units.reports.get(home) for home in homes}
        host.units.forget(homes)
        self._doubt(homes)
        if not self._owed:
            self._standings.settled = True
            if self._as_it_was(host, before):
                self._note(homes)
                return None
        return self._run(host, reason, homes)

    def _opened(self, config: Config) -> Host:
        """The host, its control files read; where that fails the last one stays, and tells when to try again."""
        return host_for(self.root, config, record=True)

    def _anew(self, host: Host, reason: str, homes: set[Unit] | None = None) -> Result:
        """Goes on with a host that was just opened; with `homes` None nothing is known to stand."""
        old, self._host = self._host, host
        self._owed, self._handed = True, {}
        try:
            self._accounts = _digest(host)
            standings = self._standings
            standings.settled = False
            standings.signatures = signatures(host)
            if homes is None or old is None:
                standings.keep(())
            else:
                standings.keep({one.name for one in host.domains()})
                self._doubt(homes)
                self._hand_over(old, host, homes)
        except BaseException:
            host.close()
            self._host = None
            raise
        finally:
            if old is not None:
                old.close()
            # Nothing else holds it: two hosts are not to be in memory while the new one is read.
            del old
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
                host.units.looked_at[owner] = self._handed[owner] = looked_at
        for home in homes:
            if home in old.units.reports and home not in host.units.reports:
                host.units.reports[home] = old.units.reports[home]

    def _doubt(self, homes: set[Unit]) -> None:
        """The domains behind these homes do not stand."""
        standings = self._standings
        standings.doubtful |= standings.behind(homes)

    def _as_it_was(self, host: Host, before: Mapping[Unit, Report | None]) -> bool:
        """Whether all that was doubted turns out to stand: a new password changes no rule."""
        standings = self._standings
        domains = [
            one
            for one in host.domains()
            if one.kind is not DomainKind.RELAY and (one.name in standings.doubtful or one.name not in standings.known)
        ]
        checks = [standings.last_check(one.name) for one in domains]
        if None in checks or len(domains) > MOST_TRIED:
            return False
        policy = Policy(host, prepended=standings.prepended, settled=True)
        for domain, check in zip(domains, checks, strict=True):
            shaped = policy.shape(domain)
            if policy.last_kept or shaped.suspect or check_of(pack(shaped.table)) != check:
                return False
        reports = host.units.reports
        if any(_state(reports.get(home)) != _state(report) for home, report in before.items()):
            return False
        standings.doubtful.clear()
        return True

    def _run(self, host: Host, reason: str, homes: set[Unit] | None) -> Result:
        request = replace(self._request, reason=reason)
        self._owed = True
        try:
            result = compile_open(host, self._config, request, progress=self.working, standings=self._standings)
            self._owed = result.status not in PUBLISHED
            return result
        finally:
            self._note(homes if self._standings.copied else None)

    def _note(self, homes: set[Unit] | None) -> None:
        """Puts down which units there are, and which were read: `homes`, or (None) all that were not handed over."""
        host = self._host
        assert host is not None
        looked_at = host.units.looked_at
        now = {owner.home for owner in (*looked_at, *host.units.failed_owners)} | {CONTROL}
        if homes is None:
            homes = now - {owner.home for owner in self._handed} | {
                owner.home for owner, packed in self._handed.items() if looked_at.get(owner) is not packed
            }
            self._handed = {}
        self._dropped |= self._units - now
        self._dropped -= now
        self._fresh |= (homes & now) | (now - self._units)
        self._fresh -= self._dropped
        self._units = now

    # -- what was read ----------------------------------------------------------------------------

    def read(self) -> tuple[Iterator[tuple[Unit, Paths]], list[Unit]]:
        """The units that were read since this was asked last, with their paths, and those that are none any more.

        The paths are made as they are taken, which must be before the next look.
        """
        host = self._host
        fresh, dropped = sorted(self._fresh), sorted(self._dropped)
        self._fresh, self._dropped = set(), set()
        if host is None:
            return iter(()), dropped
        of_home: dict[Unit, list[bytes]] = {}
        for owner, packed in host.units.looked_at.items():
            if owner.home in self._units:
                of_home.setdefault(owner.home, []).append(packed)
        found = ((home, _paths(of_home.get(home, []), home)) for home in fresh if home)
        control = ((unit, self._control_paths(host)) for unit in fresh if unit == CONTROL)
        return chain(found, control), dropped

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
        return self._since(host, wanted, Since.YOUNG) | (self._troubled(host) & wanted)

    def moved(self, units: Iterable[Unit]) -> set[Unit]:
        """Those of `units` that are certainly not what they were when they were read.

        Not those that were changed too shortly before to tell, nor those in trouble: these look
        the same each time.
        """
        host = self._host
        if host is None:
            return set()
        return self._since(host, self._units & set(units) - self._troubled(host), Since.OTHER)

    def _since(self, host: Host, wanted: set[Unit], least: Since) -> set[Unit]:
        """Those of `wanted` to which at least that has happened since they were read."""
        asked = [(owner, packed) for owner, packed in host.units.looked_at.items() if owner.home in wanted]
        answers = host.units.changed([(_who(owner), owner.home, packed) for owner, packed in asked])
        found = {owner.home for (owner, _), since in zip(asked, answers, strict=True) if since >= least}
        if CONTROL in wanted and self._control_changed(host, least):
            found.add(CONTROL)
        return found

    @staticmethod
    def _troubled(host: Host) -> set[Unit]:
        return {report.path for report in host.units.reports.values() if report.state in _TROUBLED}

    def databases(self) -> set[Unit]:
        """The units that were made of a database."""
        host = self._host
        if host is None:
            return set()
        directory = os.fsencode(self._config.vpopmail.directory.rstrip("/"))
        settings = [directory + b"/" + name for name in FILES.values()]
        return {
            owner.home
            for owner, packed in host.units.looked_at.items()
            if any(one in packed for one in settings) and _saw(unpack(packed, owner.home)[1], settings)
        }

    def polled(self) -> set[Unit]:
        """The units that were made of a database, if that may say something else now."""
        made = self.databases()
        return made if made and self._host is not None and self._host.units.is_stale() else set()

    def _control_changed(self, host: Host, least: Since = Since.YOUNG) -> bool:
        common = host.units.common()
        # A worker that was lost knew what is missing in there.
        return (
            host.units.forgetful
            or max(host.units.changed([(None, b"/", packed) for packed in common]), default=Since.OTHER) >= least
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


def signatures(host: Host) -> dict[bytes, bytes]:
    """For each domain a digest of what the control files and users/cdb say of it.

    Left out are those that must be built each time: more than that decides about them.
    """
    if host.users_damage or host.config.policy.dead_forwards != "accept":
        return {}
    found = {}
    below: dict[bytes, bytes] = {}
    domains = [one for one in host.domains() if one.kind is not DomainKind.RELAY]
    local = sum(one.kind is DomainKind.LOCAL for one in domains)
    overlays = extra(host).overlays
    # These make the prepended names, which may be written otherwise in local domains (Policy.prepare).
    values = sorted({entry.value.lower() for entry in host.routing.virtualdomains}) if local else []
    common = blake2b(repr((local, values)).encode(), digest_size=16).digest()
    for domain in domains:
        rules = host.rules(domain.name)
        if rules.prepend is None or rules.percent_hacked or host.overrides(domain.name):
            continue
        prepend = rules.prepend.lower()
        if prepend not in below:
            below[prepend] = _claims(host, prepend)
        digest = blake2b(domain.kind.encode() + below[prepend], digest_size=16)
        digest.update(common if domain.kind is DomainKind.LOCAL else _assigned(host, domain.name))
        digest.update(overlays.digest(domain.name))
        found[domain.name] = digest.digest()
    found.update(_relay_signatures(host, overlays))
    return found


def _relay_signatures(host: Host, overlays: Overlays) -> Iterator[tuple[bytes, bytes]]:
    """The same for relayed domains with recipients from files: there may be a million of them."""
    if host.config.policy.relay != "file":
        return
    relays = Relays(host)
    for domain in host.domains():
        single = host.overrides(domain.name) or host.rules(domain.name).percent_hacked
        if domain.kind is DomainKind.RELAY and not single and (digest := relays.digest(domain.name)):
            yield domain.name, digest + overlays.digest(domain.name)


def _claims(host: Host, prepend: bytes) -> bytes:
    """Who owns the names below `prepend`, as a digest."""
    digest = blake2b(prepend + b"\0", digest_size=16)
    for claim in host.space().claims_below(prepend):
        digest.update(repr(claim).encode())
    return digest.digest()


def _assigned(host: Host, domain: bytes) -> bytes:
    """What vdelivermail finds of a domain in users/cdb, in whichever home it runs (vpopmail.c: vget_assign)."""
    found = []
    for _ in range(3):
        claim = host.space().claim(domain + b"-")
        found.append(claim)
        domain = claim.owner.user.lower()
    return repr(found).encode()


def _digest(host: Host) -> bytes:
    """All accounts as a digest: not every account database is a file."""
    digest = blake2b(digest_size=16)
    for account in host.accounts.all():
        digest.update(repr(account).encode())
    return digest.digest()


def _saw(entries: Iterable[Entry], paths: Sequence[bytes]) -> bool:
    """Whether one of the paths was there."""
    return any(entry.path in paths and entry.what is not What.ABSENT for entry in entries)


def _state(report: Report | None) -> tuple[State, str]:
    """The state of a unit, with the reason where that is published."""
    if report is None:
        return State.HEALTHY, ""
    return report.state, report.reason if report.state in _TROUBLED else ""


def _who(owner: Owner) -> Identity:
    return Identity(owner.uid, owner.gid)


def _paths(packed: Iterable[bytes], home: bytes) -> Paths:
    """The paths of footprints; names that a listed directory's watch tells of anyway are left out."""
    found = [pair for one in packed for pair in paths_of(one, home)]
    listed = {path.rstrip(b"/") or b"/" for path, is_listing in found if is_listing}
    if not found and home != b"/":
        return Paths((home,))
    single: set[bytes] = set()
    for path, _ in found:
        directory, _, name = path.rpartition(b"/")
        if not (name.startswith(_DOTQMAIL) and (directory or b"/") in listed):
            single.add(path)
    return Paths(tuple(sorted(single)), tuple(sorted(listed)))
