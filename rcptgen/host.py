"""A qmail host: `decide` follows one address through it, `rules` gives every name of a domain.

Both state what the real programs do with what is on disk now; policy comes after.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType

from rcptgen.config import Config
from rcptgen.errors import ConfigurationError, SourceFailed
from rcptgen.localspace import GETPW_USERLEN, Claim, LocalSpace, Unsayable
from rcptgen.qmail import accounts as account_sources
from rcptgen.qmail.accounts import Accounts
from rcptgen.qmail.control import ConstMap, Entry, entries, first_line
from rcptgen.qmail.dotqmail import safe_extension
from rcptgen.qmail.home import Settings, Step
from rcptgen.qmail.passwd import Account
from rcptgen.qmail.routing import Local, RcptHosts, Remote, Routing
from rcptgen.qmail.users import (
    Assign,
    DamagedUsers,
    Hit,
    Owner,
    UsersCdb,
    differences,
    parse_assign,
    usable_ids,
)
from rcptgen.rules.cdbwalk import DamagedCdb, walk_cdb
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table
from rcptgen.source.tree import Absent, FailedForNow, Identity, Refused, Regular
from rcptgen.units import TIME_LIMIT, Question, Report, State, Units, Worker
from rcptgen.units import Account as HomeToCheck

ADDRESS_LIMIT = 100_000
USERS_LIMIT = 4 * 1024**3
NOBODY = 65534


class DomainKind(enum.StrEnum):
    """How the host treats a domain."""

    LOCAL = "local"
    VIRTUAL = "virtual"
    RELAY = "relay"


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain the list speaks of, in lower case, with the control line that brings it in."""

    name: bytes
    kind: DomainKind
    file: bytes
    line: int


@dataclass(frozen=True, slots=True)
class Uncovered:
    """A control line that stands for domains which no list names."""

    entry: bytes
    file: bytes
    line: int


@dataclass(frozen=True, slots=True)
class Trace:
    """The whole way of one address."""

    address: bytes
    outcome: Outcome
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person should look at; `code` is stable."""

    code: str
    text: str
    file: bytes
    line: int = 0


class Host:
    """One host, read once: what was read is not read again by the same object.

    Use as a context manager, or call `close`: a worker process stands behind it.  Raises
    ConfigurationError where qmail-send would not start, SourceFailed where a control file
    cannot be read for now.  `cut_off`: locals or virtualdomains ends in the middle of a
    line, or is empty, as a half-written file would.
    """

    def __init__(
        self,
        root: bytes,
        config: Config,
        *,
        look_at_mailboxes: bool = True,
        time_limit: float = TIME_LIMIT,
    ) -> None:
        self.root = root
        self.config = config
        self.directory = os.fsencode(config.qmail.directory.rstrip("/") or "/")
        self.cut_off = False
        settings = Settings(
            forbidden_modes=config.qmail.forbidden_modes,
            default_delivery=os.fsencode(config.qmail.default_delivery),
            alias_user=os.fsencode(config.qmail.alias),
            path=os.fsencode(config.programs.path),
            qmail_bin=self.directory + b"/bin",
            look_at_mailboxes=look_at_mailboxes,
        )
        self.units = Units(Worker(root, settings, time_limit=time_limit))
        try:
            self._read_host()
        except BaseException:
            self.close()
            raise
        self._qualified: dict[bytes, Account | Outcome | None] = {}
        self._space: LocalSpace | None = None

    @classmethod
    def open(
        cls,
        root: str | bytes | os.PathLike[str] = "/",
        config: Config | None = None,
        *,
        look_at_mailboxes: bool = True,
        time_limit: float = TIME_LIMIT,
    ) -> Host:
        """The host below `root`, its control files read."""
        return cls(
            os.path.abspath(os.fsencode(root)),
            config or Config(),
            look_at_mailboxes=look_at_mailboxes,
            time_limit=time_limit,
        )

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker process."""
        self.units.worker.close()

    # -- reading the host's own files ----------------------------------------------------------

    def _read_host(self) -> None:
        self._read_users()
        self.accounts = self._read_accounts()
        self._send_identity = self._identity(b"qmails", b"qmail")
        self._getpw_identity = self._identity(b"qmailp", b"nofiles") or Identity(NOBODY, NOBODY)
        self.routing = self._read_routing()
        self.rcpthosts = self._read_rcpthosts()

    def _read_users(self) -> None:
        self.users_file = self.directory + b"/users/cdb"
        self.users: UsersCdb | None = None
        self._damaged_users: UsersCdb | None = None
        self.users_damage = ""
        found = self.units.read(self.users_file, limit=USERS_LIMIT)
        if isinstance(found, Regular):
            try:
                self.users = UsersCdb(found.data)
                for _ in self.users.entries():
                    pass
            except DamagedUsers as error:
                self._damaged_users = self.users
                self.users, self.users_damage = None, str(error)
        elif not (isinstance(found, Absent) and found.errno == 2):
            reason = os.strerror(found.errno) if hasattr(found, "errno") else "not a regular file"
            self.users_damage = reason
        state = State.SUSPECT if self.users_damage else State.HEALTHY
        self.units.note(Report(self.users_file, state, self.users_damage))

    def _read_accounts(self) -> Accounts:
        chosen = self.config.qmail.accounts
        if chosen.startswith("/"):
            return account_sources.from_file(os.fsencode(chosen), self.units.read)
        if self.root != b"/" or chosen == "passwd":
            return account_sources.from_file(b"/etc/passwd", self.units.read)
        catch_all = self.users is not None and any(wildcard and not name for name, wildcard, _ in self.users.entries())
        return account_sources.of_system(self.units.read, enumerate_=chosen == "enumerate", catch_all=catch_all)

    def _identity(self, user: bytes, group: bytes) -> Identity | None:
        account = self.accounts.get(user)
        if account is None or not account.uid:
            return None
        number = self.accounts.group(group)
        return Identity(account.uid, account.gid if number is None else number)

    def _control(self, name: bytes) -> bytes | None:
        """A control file's bytes as qmail-send gets them; None where there is no such file."""
        path = self.directory + b"/control/" + name
        found = self.units.read(path, self._send_identity)
        if isinstance(found, Regular):
            self.units.note(Report(path, State.HEALTHY))
            if name in (b"locals", b"virtualdomains") and not found.data.endswith(b"\n"):
                self.cut_off = True
            return found.data
        shown = os.fsdecode(path)
        if isinstance(found, Absent) and found.errno == 2:
            return None
        if isinstance(found, FailedForNow):
            raise SourceFailed(f"{shown}: {os.strerror(found.errno)}; nothing is known about this host for now")
        if isinstance(found, Refused):
            raise ConfigurationError(f"{shown}: qmail-send (qmails, qmail) may not read it and does not start")
        if isinstance(found, Absent):
            raise ConfigurationError(f"{shown}: {os.strerror(found.errno)}; qmail-send does not start")
        raise ConfigurationError(f"{shown}: not a readable regular file; qmail-send does not start")

    def _read_routing(self) -> Routing:
        """The control files of qmail-send (qmail-send.c: getcontrols)."""
        control = self.directory + b"/control"
        me = self._control(b"me")
        listed = self._control(b"locals")
        if listed is not None:
            locals_, locals_file = entries(listed), control + b"/locals"
        elif me is not None:
            locals_, locals_file = [Entry(first_line(me), 1)], control + b"/me"
        else:
            shown = os.fsdecode(control)
            raise ConfigurationError(f"{shown}: neither locals nor me: qmail-send does not start on this host")
        noathost = self._control(b"envnoathost")
        if noathost is None:
            noathost = me if me is not None else b"envnoathost"
        virtual = self._control(b"virtualdomains")
        percent = self._control(b"percenthack")
        return Routing(
            directory=self.directory,
            locals_=ConstMap(locals_, colon=False),
            locals_file=locals_file,
            virtualdomains=ConstMap(entries(virtual or b""), colon=True),
            percenthack=ConstMap(entries(percent or b""), colon=False),
            envnoathost=first_line(noathost),
        )

    def _read_rcpthosts(self) -> RcptHosts:
        """control/rcpthosts and morercpthosts.cdb (rcpthosts.c: rcpthosts_init)."""
        file = self.directory + b"/control/rcpthosts"
        more_file = self.directory + b"/control/morercpthosts.cdb"
        data = self._control(b"rcpthosts")
        listed = None if data is None else ConstMap(entries(data), colon=False)
        more: frozenset[bytes] = frozenset()
        found = self.units.read(more_file, limit=USERS_LIMIT) if listed is not None else Absent(2)
        if isinstance(found, Regular):
            more = self._more_domains(more_file, found.data)
        elif not (isinstance(found, Absent) and found.errno == 2):
            raise SourceFailed(f"{os.fsdecode(more_file)}: cannot be read; qmail-smtpd defers everything")
        return RcptHosts(listed, more.__contains__, tuple(sorted(more)), file, more_file)

    def _more_domains(self, file: bytes, data: bytes) -> frozenset[bytes]:
        try:
            return frozenset(key for key, _ in walk_cdb(data) if key == key.lower())
        except DamagedCdb as error:
            raise SourceFailed(f"{os.fsdecode(file)}: {error}; the domains it lists are not known") from None

    def assign(self) -> Assign | None:
        """users/assign as it stands, for provenance; None where it is not there."""
        found = self.units.read(self.directory + b"/users/assign", limit=USERS_LIMIT)
        return parse_assign(found.data) if isinstance(found, Regular) else None

    def assigned_at(self, name: bytes, wildcard: bool) -> int:
        """The line of users/assign from which the entry of users/cdb for `name` was made; 0 where it has none."""
        if self._assign_lines is None:
            assign = self.assign()
            self._assign_lines = {}
            for one in assign.assignments if assign is not None else ():
                self._assign_lines.setdefault((one.name, one.wildcard), one.line)
        return self._assign_lines.get((name, wildcard), 0)

    _assign_lines: dict[tuple[bytes, bool], int] | None = None

    def assign_warnings(self) -> Iterator[Finding]:
        """Where users/assign and users/cdb disagree; qmail obeys users/cdb."""
        file = self.directory + b"/users/assign"
        assign = self.assign()
        if assign is None:
            return
        if assign.problem:
            text = f"qmail-newu refuses this file ({assign.problem}) and leaves users/cdb as it is"
            yield Finding("assign-format", text, file, assign.problem_line)
        if self.users is None and not self.users_damage:
            yield Finding("assign-no-cdb", "users/assign has no users/cdb: qmail does not look at it", file)
        elif self.users is not None and not assign.problem:
            for name, line, what in differences(assign, self.users):
                shown = name.decode("ascii", "backslashreplace")
                yield Finding("assign-stale", f"{shown!r} {what}; qmail obeys users/cdb", file, line)

    # -- one address ---------------------------------------------------------------------------

    def decide(self, address: bytes | str) -> Outcome:
        """What the host does with `address` now."""
        return self.decide_many([address])[0]

    def decide_many(self, addresses: Sequence[bytes | str]) -> list[Outcome]:
        """What the host does with each address, in their order."""
        return [trace.outcome for trace in self._follow(addresses, explain=False)]

    def trace(self, address: bytes | str) -> Trace:
        """The whole way of one address: control line, owner, every file tried."""
        return self._follow([address], explain=True)[0]

    def _follow(self, addresses: Sequence[bytes | str], *, explain: bool) -> list[Trace]:
        wanted = [os.fsencode(one) if isinstance(one, str) else one for one in addresses]
        answers: list[Outcome | Question | None] = [None] * len(wanted)
        steps: list[list[Step]] = [[] for _ in wanted] if explain else []
        waiting = list(range(len(wanted)))
        while waiting:
            to_look_at: dict[bytes, Account] = {}
            again = []
            for at in waiting:
                trail = steps[at] if explain else None
                if trail is not None:
                    trail.clear()
                answers[at] = self._plan(wanted[at], to_look_at, trail)
                if answers[at] is None:
                    again.append(at)
            self._qualify(to_look_at)
            waiting = again
        questions = [one for one in answers if isinstance(one, Question)]
        judged = iter(self.units.judge(questions, explain=explain))
        traces = []
        for at, planned in enumerate(answers):
            trail = steps[at] if explain else []
            if isinstance(planned, Question):
                found, more = next(judged)
                trail += more
            else:
                assert planned is not None
                found = planned
            traces.append(Trace(wanted[at], found, tuple(trail)))
        return traces

    def _plan(
        self, address: bytes, to_look_at: dict[bytes, Account], steps: list[Step] | None
    ) -> Outcome | Question | None:
        """The verdict, or what to ask the home's reader; None while homes of accounts must be looked at first."""
        if b"\0" in address or len(address) > ADDRESS_LIMIT:
            return Outcome(Verdict.BOUNCE, Kind.REFUSAL, "no envelope address: it holds a NUL or is too long")
        route = self.routing.route(address)
        if isinstance(route, Remote):
            _note(steps, "not for this host", route.file, route.line)
            return Outcome(Verdict.REMOTE, Kind.REMOTE, "neither local nor a virtual domain", route.file, route.line)
        if steps is not None:
            _note(steps, f"local name {_shown(route.name)}", route.file, route.line)
        if not route.name:
            return _nobody(route)
        owned = self._owner(route.name, to_look_at, steps)
        if not isinstance(owned, tuple):
            return owned
        owner, extension = owned
        return Question(owner, extension, route.name, route.host)

    def _owner(
        self, name: bytes, to_look_at: dict[bytes, Account], steps: list[Step] | None
    ) -> tuple[Owner, bytes] | Outcome | None:
        """Whose the local name is (qmail-lspawn.c: nughde_get, spawn)."""
        # Where a part of users/cdb is damaged qmail-lspawn still finds the rest; rules trust none of it.
        users = self._damaged_users if self.users_damage else self.users
        if self.users_damage and users is None:
            reason = "users/cdb cannot be used: qmail-lspawn defers all local mail"
            return Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, self.users_file)
        if users is not None:
            try:
                hit = users.lookup(name)
            except DamagedUsers as error:
                return Outcome(Verdict.DEFER, Kind.DEFERRAL, f"users/cdb: {error}", self.users_file)
            if hit is not None:
                if steps is not None:
                    self._note_hit(hit, steps)
                if hit.record is None:
                    reason = "the record in users/cdb has too few fields"
                    return Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, self.users_file)
                return self._usable(hit.record.owner, hit.record.extension(hit.tail), self.users_file, 0)
            _note(steps, "users/cdb: no entry", self.users_file)
        return self._getpw(name, to_look_at, steps)

    def _note_hit(self, hit: Hit, steps: list[Step]) -> None:
        what = "wildcard" if hit.wildcard else "exact"
        _note(steps, f"{what} entry {_shown(hit.key)}", self.users_file)
        line = self.assigned_at(hit.key, hit.wildcard)
        if line:
            _note(steps, "made from this line", self.directory + b"/users/assign", line)

    def _usable(self, owner: Owner, extension: bytes, file: bytes, line: int) -> tuple[Owner, bytes] | Outcome:
        if usable_ids(owner):
            return owner, extension
        reason = "qmail-lspawn does not deliver as root, nor with a number that is none"
        return Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, file, line)

    def _getpw(
        self, name: bytes, to_look_at: dict[bytes, Account], steps: list[Step] | None
    ) -> tuple[Owner, bytes] | Outcome | None:
        """The account behind a local name, the longest first, else ~alias (qmail-getpw.c)."""
        file = self.accounts.file
        for end in self._candidates(name):
            account = self._user(name[:end].lower(), to_look_at)
            if isinstance(account, Outcome):
                return account
            if account is None:
                continue
            if steps is not None:
                _note(steps, f"account {_shown(account.name)}", file, account.line)
            owner = _owner(account, b"" if end == len(name) else b"-")
            return self._usable(owner, name[end + 1 :], file, account.line)
        if to_look_at:
            return None
        alias = self.accounts.get(os.fsencode(self.config.qmail.alias))
        if alias is None:
            return Outcome(Verdict.DEFER, Kind.DEFERRAL, "there is no alias account", file)
        if steps is not None:
            _note(steps, f"no account: {_shown(alias.name)} answers", file, alias.line)
        return self._usable(_owner(alias, b"-"), name, file, alias.line)

    def _candidates(self, name: bytes) -> Iterator[int]:
        """Where an account's name could end in `name`, longest first (qmail-getpw.c: userext)."""
        break_ = self.config.qmail.break_.encode()
        if len(name) < GETPW_USERLEN:
            yield len(name)
        end = len(name)
        while break_:
            end = name.rfind(break_, 0, end)
            if end < 0:
                return
            if end < GETPW_USERLEN:
                yield end

    def _user(self, name: bytes, to_look_at: dict[bytes, Account]) -> Account | Outcome | None:
        """The account if it is a user for qmail-getpw; None also while its home must be looked at."""
        if name in self._qualified:
            return self._qualified[name]
        account = self.accounts.get(name)
        if account is None or not account.uid:
            return None
        to_look_at[name] = account
        return None

    def _qualify(self, wanted: dict[bytes, Account]) -> None:
        names = list(wanted)
        homes = [HomeToCheck(wanted[name].home, wanted[name].uid) for name in names]
        for name, answer in zip(names, self.units.qualify(homes, self._getpw_identity, self.directory), strict=True):
            account = wanted[name]
            if isinstance(answer, FailedForNow):
                reason = f"the home directory of {_shown(name)} cannot be looked at: {os.strerror(answer.errno)}"
                self.units.note(Report(account.home, State.FAILED, reason))
                self._qualified[name] = Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, account.home)
            else:
                self._qualified[name] = account if answer else None

    # -- all addresses -------------------------------------------------------------------------

    def space(self) -> LocalSpace:
        """The space of local names, every account looked at."""
        if self._space is None:
            to_look_at: dict[bytes, Account] = {}
            for account in self.accounts.all():
                if account.name == account.name.lower() and len(account.name) < GETPW_USERLEN:
                    self._user(account.name, to_look_at)
            self._qualify(to_look_at)
            users = {name: account for name, account in self._qualified.items() if account is not None}
            self._space = LocalSpace(
                self.users,
                users,
                self.accounts.get(os.fsencode(self.config.qmail.alias)),
                break_=self.config.qmail.break_.encode(),
                users_file=self.users_file,
                passwd_file=self.accounts.file,
            )
        return self._space

    def domains(self) -> list[Domain]:
        """Every domain the list speaks of, sorted: locals, virtual domains, and what rcpthosts lets in."""
        found: dict[bytes, Domain] = {}
        routing = self.routing
        for entry in routing.locals_:
            if b"@" not in entry.key:  # a domain is what follows the last one
                found[entry.key] = Domain(entry.key, DomainKind.LOCAL, routing.locals_file, entry.line)
        for entry in routing.virtualdomains:
            domain = entry.key.rpartition(b"@")[2]
            if entry.key and (not entry.key.startswith(b".") or b"@" in entry.key):
                self._add_domain(found, domain, routing.virtualdomains_file, entry.line)
        for domain, file, line in self.rcpthosts.domains():
            if not domain.startswith(b"."):
                self._add_domain(found, domain, file, line)
        for name in self.config.policy.suffix_domains:
            self._add_domain(found, os.fsencode(name).lower(), b"", 0)
        return [found[name] for name in sorted(found)]

    def _add_domain(self, found: dict[bytes, Domain], name: bytes, file: bytes, line: int) -> None:
        if name in found or b"@" in name:
            return
        entry = self.routing.virtual(None, name)
        if entry is not None and entry.value:
            found[name] = Domain(name, DomainKind.VIRTUAL, self.routing.virtualdomains_file, entry.line)
        elif any(True for _ in self._overrides(name)):
            found[name] = Domain(name, DomainKind.VIRTUAL, file, line)
        elif self.rcpthosts.listed is not None:
            allowed = self.rcpthosts.allows(name)
            if allowed is not None:
                found[name] = Domain(name, DomainKind.RELAY, *allowed)

    def uncovered(self) -> list[Uncovered]:
        """The lines that stand for domains which neither rcpthosts nor `[policy] suffix_domains` names."""
        listed = [os.fsencode(name).lower() for name in self.config.policy.suffix_domains]
        suffixes = [(d, f, n) for d, f, n in self.rcpthosts.domains() if d.startswith(b".")]
        found = [Uncovered(d, f, n) for d, f, n in suffixes if not any(name.endswith(d) for name in listed)]
        for entry in self.routing.virtualdomains:
            key = entry.key
            if (key and not key.startswith(b".")) or b"@" in key or not entry.value:
                continue
            if any(self.routing.virtual(None, name) == entry for name in listed):
                continue
            open_ended = self.rcpthosts.listed is None or any(
                suffix.endswith(key) or key.endswith(suffix) for suffix, _, _ in suffixes
            )
            if open_ended:
                found.append(Uncovered(key, self.routing.virtualdomains_file, entry.line))
        return found

    def _overrides(self, domain: bytes) -> Iterator[tuple[bytes, bytes, int]]:
        """(local part, value, line) of the user@domain entries of virtualdomains."""
        if self._by_domain is None:
            self._by_domain = {}
            for entry in self.routing.virtualdomains:
                local, at, host = entry.key.rpartition(b"@")
                if at:
                    self._by_domain.setdefault(host, []).append((local, entry.value, entry.line))
        yield from self._by_domain.get(domain, ())

    _by_domain: dict[bytes, list[tuple[bytes, bytes, int]]] | None = None

    def ahead(self, domains: Iterable[Domain]) -> None:
        """Reads the homes behind virtual domains that will be asked for next, in one go."""
        if self.users_damage:
            return
        space = self.space()
        owners = []
        for domain in domains:
            prepend = self.rules(domain.name).prepend
            if prepend:
                claim = space.claim(prepend)
                if claim.fixed is None:
                    owners.append(claim.owner)
        self.units.ahead(owners)

    def rules(self, domain: bytes | str) -> DomainRules:
        """The rules of one domain."""
        name = (os.fsencode(domain) if isinstance(domain, str) else domain).lower()
        return DomainRules(self, name)


Skip = Callable[[Claim], Outcome | None]
Kept = Callable[[Claim, bytes], Table | None]
Oversized = Callable[[Claim, Table], Outcome | None]
View = tuple[Table, list[Unsayable]]
Views = dict[bytes, View]


class DomainRules:
    """What the host does with every local part of one domain.

    `match` answers for any local part; `table` gives the rules one by one, spelled as raw
    local parts in lower case, with what names cannot spell.
    """

    def __init__(self, host: Host, domain: bytes) -> None:
        self.host = host
        self.domain = domain
        routing = host.routing
        self._local = routing.locals_.get(domain)
        self._virtual = None if self._local else routing.virtual(None, domain)

    @property
    def prepend(self) -> bytes | None:
        """What is put in front of a local part (empty for a local domain); None where the domain is remote."""
        if self._local is not None:
            return b""
        if self._virtual is not None and self._virtual.value:
            return self._virtual.value + b"-"
        return None

    @property
    def percent_hacked(self) -> bool:
        """Whether a `%` in the local part means another domain."""
        return self.host.routing.percenthack.get(self.domain) is not None

    def match(self, local: bytes | str) -> Outcome:
        """What the rules say of local@domain."""
        name = os.fsencode(local) if isinstance(local, str) else local
        if self.percent_hacked and b"%" in name:
            address = self.host.routing.percent(name + b"@" + self.domain)
            name, _, other = address.rpartition(b"@")
            if other.lower() != self.domain:
                return self.host.rules(other).match(name)
        if self._local is not None:
            if not name:
                return _nobody(Local(name, self.domain, self.host.routing.locals_file, self._local.line))
            return self._match_name(name)
        for key, value, line in self.host._overrides(self.domain):
            if key == name.lower():
                return self._override(value, line, name)
        prepend = self.prepend
        return self._remote() if prepend is None else self._match_name(prepend + name)

    def _override(self, value: bytes, line: int, name: bytes) -> Outcome:
        if not value:
            file = self.host.routing.virtualdomains_file
            return Outcome(Verdict.REMOTE, Kind.REMOTE, "virtualdomains makes this address remote", file, line)
        return self._match_name(value + b"-" + name)

    def _remote(self) -> Outcome:
        line = self._virtual.line if self._virtual else 0
        file = self.host.routing.virtualdomains_file if self._virtual else b""
        return Outcome(Verdict.REMOTE, Kind.REMOTE, "neither local nor a virtual domain", file, line)

    def _match_name(self, name: bytes) -> Outcome:
        host = self.host
        if host.users_damage:
            return self._damaged()
        claim = host.space().claim(name)
        if claim.fixed is not None:
            return claim.fixed
        safe = safe_extension(claim.extension(name), claim.owner.dash)
        found = host.units.table(claim.owner, self.domain).match(safe)
        assert found is not None, "home tables answer every extension"
        return found

    def _damaged(self) -> Outcome:
        reason = "users/cdb cannot be used: qmail-lspawn defers all local mail"
        return Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, self.host.users_file)

    def table(
        self,
        skip: Skip = lambda claim: None,
        kept: Kept = lambda claim, relative: None,
        shared: Views | None = None,
        oversized: Oversized = lambda claim, table: None,
    ) -> tuple[Table, list[Unsayable]]:
        """The rules as a table over raw local parts, and what names cannot spell.

        Percent-hacked local parts are not in it.  `skip`, `kept` and `oversized` are those of
        LocalSpace.flatten: policy decides with them for whole claims.  `shared` keeps the
        rules that domains with the same prepend have in common.
        """
        prepend = self.prepend
        unsayable: list[Unsayable] = []
        if prepend is None:
            base = Table({}, {b"": self._remote()})
        elif self.host.users_damage:
            base = Table({}, {b"": self._damaged()})
        else:
            base, unsayable = self._shared(prepend, skip, kept, shared, oversized)
        changed: dict[bytes, Outcome] = {}
        if self._local is not None:
            changed[b""] = self.match(b"")
        else:
            for name, value, line in self.host._overrides(self.domain):
                changed[name] = self._override(value, line, name)
        if not changed:
            return base, unsayable
        exact = {name: outcome for name, outcome in base.exact() if name not in changed}
        return Table(exact | changed, base.prefixes), unsayable

    def _shared(self, prepend: bytes, skip: Skip, kept: Kept, shared: Views | None, oversized: Oversized) -> View:
        """The rules below `prepend`, from `shared` where they are the same for every domain."""
        if shared is not None and prepend in shared:
            return shared[prepend]
        units = self.host.units
        host_matters = False

        def table_of(claim: Claim) -> Table:
            nonlocal host_matters
            table = units.table(claim.owner, self.domain)
            host_matters |= units.host_matters(claim.owner)
            return table

        view = self.host.space().flatten(
            prepend, table_of, skip=skip, kept=kept, oversized=oversized, ahead=units.ahead
        )
        if shared is not None and not host_matters and not units.any_failed:
            shared[prepend] = view
        return view


@lru_cache(maxsize=65536)
def _owner(account: Account, dash: bytes) -> Owner:
    return Owner(account.name, account.uid, account.gid, account.home, dash)


def _nobody(route: Local) -> Outcome:
    reason = "an empty local name is delivered to nobody"
    return Outcome(Verdict.DELIVER, Kind.DISCARD, reason, route.file, route.line)


def _note(steps: list[Step] | None, text: str, file: bytes = b"", line: int = 0) -> None:
    if steps is not None:
        steps.append(Step(text, file, line))


def _shown(name: bytes) -> str:
    return repr(name.decode("ascii", "backslashreplace"))
