"""A qmail host: `decide` follows one address through it, `rules` gives every name of a domain.

Both state what the real programs do with what is on disk now; policy comes after.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from types import TracebackType

from rcptgen.config import Config
from rcptgen.listfiles import ListFile, extra_files, relay_file
from rcptgen.localspace import GETPW_USERLEN, Claim, LocalSpace, Unsayable
from rcptgen.qmail.domains import Domain, DomainKind, Override, Uncovered, domains, overrides, uncovered
from rcptgen.qmail.environment import View
from rcptgen.qmail.hometable import HomeTable
from rcptgen.qmail.hostfiles import HostFiles
from rcptgen.qmail.judged import Settings, Step
from rcptgen.qmail.leads import Leads
from rcptgen.qmail.passwd import Account
from rcptgen.qmail.routing import Local, Remote
from rcptgen.qmail.users import DamagedUsers, Hit, Owner, usable_ids
from rcptgen.reader import Account as HomeToCheck
from rcptgen.reader import Question, Report, State
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.shown import shown
from rcptgen.rules.table import Table
from rcptgen.source.tree import Absent, FailedForNow, Identity, Regular
from rcptgen.traces import named, no_user, route_steps, users_steps
from rcptgen.units import WORTH_HELP, Units
from rcptgen.vpopmail.settings import FILES
from rcptgen.worker import TIME_LIMIT, Worker

__all__ = ["Domain", "DomainKind", "DomainRules", "Host", "Trace", "Uncovered"]

ADDRESS_LIMIT = 100_000
NOBODY = 65534
MOST_TOGETHER = 16
MADE_REMOTE = "virtualdomains makes this address remote"


@dataclass(frozen=True, slots=True)
class Trace:
    """The whole way of one address."""

    address: bytes
    outcome: Outcome
    steps: tuple[Step, ...]


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
        workers: int = 1,
        record: bool = False,
    ) -> None:
        self.root = root
        self.config = config
        self.directory = os.fsencode(config.qmail.directory.rstrip("/") or "/")
        settings = settings_of(config, look_at_mailboxes=look_at_mailboxes)
        self.units = Units(Worker(root, settings, config, time_limit=time_limit, record=record))
        try:
            self._read(alternate_root=root != b"/")
            if workers > 1 and not self._has_database():
                self.units.helpers = [
                    Worker(root, settings, config, time_limit=time_limit, record=record) for _ in range(workers - 1)
                ]
                if len(self.routing.virtualdomains) >= WORTH_HELP:
                    # They will be needed, and start while other things are done.
                    for helper in self.units.helpers:
                        helper.start()
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
        workers: int = 1,
        record: bool = False,
    ) -> Host:
        """The host below `root`, its control files read; up to `workers` processes read its homes.

        With `record` it is known afterwards what everything was read from (Units.looked_at, Units.common).
        """
        return cls(
            os.path.abspath(os.fsencode(root)),
            config or Config(),
            look_at_mailboxes=look_at_mailboxes,
            time_limit=time_limit,
            workers=workers,
            record=record,
        )

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker process."""
        self.units.close()

    def _has_database(self) -> bool:
        """Whether vpopmail's users may be in a database: each worker would read all of it."""
        vpopmail = self.config.vpopmail
        if vpopmail.backend != "auto":
            return vpopmail.backend != "cdb"
        directory = os.fsencode(vpopmail.directory.rstrip("/"))
        return not all(isinstance(self.units.read(directory + b"/" + name, limit=1), Absent) for name in FILES.values())

    def _read(self, *, alternate_root: bool) -> None:
        self.files = HostFiles(self.directory, self.config.qmail, self.units.read, alternate_root=alternate_root)
        files = self.files
        self.users, self.users_damage, self.users_file = files.users, files.users_damage, files.users_file
        self.accounts, self.routing, self.rcpthosts = files.accounts, files.routing, files.rcpthosts
        self.cut_off = files.cut_off
        self._getpw_identity = files.identity(b"qmailp", b"nofiles") or Identity(NOBODY, NOBODY)
        self._overrides = overrides(files.routing)
        for path in files.present:
            self.units.note(Report(path, State.HEALTHY))
        state = State.SUSPECT if files.users_damage else State.HEALTHY
        self.units.note(Report(files.users_file, state, files.users_damage))

    # -- one address ---------------------------------------------------------------------------

    def decide(self, address: bytes | str) -> Outcome:
        """What the host does with `address` now."""
        return self.decide_many([address])[0]

    def decide_many(self, addresses: Sequence[bytes | str]) -> list[Outcome]:
        """What the host does with each address, in their order."""
        return [trace.outcome for trace in self._follow(addresses, explain=False)]

    def trace(self, address: bytes | str) -> Trace:
        """The whole way of one address: control line, owner, every file tried."""
        found = self._follow([address], explain=True)[0]
        return replace(found, steps=tuple(map(self._quoting, found.steps)))

    def _quoting(self, step: Step) -> Step:
        """A step with the text of its line, where that is a line of qmail's own files."""
        places = (self.directory + b"/control/", self.directory + b"/users/assign")
        if not step.line or step.quoted or not step.file.startswith(places):
            return step
        found = self.units.read(step.file)
        lines = found.data.split(b"\n") if isinstance(found, Regular) else []
        return replace(step, quoted=lines[step.line - 1]) if step.line <= len(lines) else step

    def _follow(self, addresses: Sequence[bytes | str], *, explain: bool) -> list[Trace]:
        wanted = [os.fsencode(one) if isinstance(one, str) else one for one in addresses]
        steps: list[list[Step]] = [[] for _ in wanted] if explain else []
        answers = self._planned(wanted, steps if explain else None)
        questions = [one for one in answers if isinstance(one, Question)]
        judged = iter(self.units.judge(questions, explain=explain))
        traces = []
        for at, planned in enumerate(answers):
            trail = steps[at] if explain else []
            if isinstance(planned, Question):
                found, more = next(judged)
                trail += more
            else:
                found = planned
                _note(trail if explain else None, found.reason, found.file, found.line)
            traces.append(Trace(wanted[at], found, tuple(trail)))
        return traces

    def leads_many(self, addresses: Sequence[bytes], *, whole: bool = False) -> list[tuple[Outcome, Leads]]:
        """What the host does with each address and where its mail goes, in their order.

        Where a mailbox takes the mail, forwards beside it are only looked at with `whole`.
        What is not for this host, or for none of its homes, goes elsewhere unless it bounces.
        """
        answers = self._planned(addresses, None)
        asked = iter(self.units.leads([one for one in answers if isinstance(one, Question)], whole=whole))
        return [
            next(asked)
            if isinstance(one, Question)
            else (one, Leads(other="" if one.verdict is Verdict.BOUNCE else one.reason))
            for one in answers
        ]

    def _planned(self, wanted: Sequence[bytes], steps: Sequence[list[Step]] | None) -> list[Outcome | Question]:
        """For each address the verdict, or what to ask its home's reader; `steps` take what was looked at."""
        answers: list[Outcome | Question | None] = [None] * len(wanted)
        waiting = list(range(len(wanted)))
        while waiting:
            to_look_at: dict[bytes, Account] = {}
            again = []
            for at in waiting:
                trail = None if steps is None else steps[at]
                if trail is not None:
                    trail.clear()
                answers[at] = self._plan(wanted[at], to_look_at, trail)
                if answers[at] is None:
                    again.append(at)
            self._qualify(to_look_at)
            waiting = again
        return [one for one in answers if one is not None]

    def _plan(
        self, address: bytes, to_look_at: dict[bytes, Account], steps: list[Step] | None
    ) -> Outcome | Question | None:
        """The verdict, or what to ask the home's reader; None while homes of accounts must be looked at first."""
        if b"\0" in address or len(address) > ADDRESS_LIMIT:
            return Outcome(Verdict.BOUNCE, Kind.REFUSAL, "no envelope address: it holds a NUL or is too long")
        route = self.routing.route(address)
        if steps is not None:
            steps += route_steps(self.routing, address, route)
        if isinstance(route, Remote):
            reason = MADE_REMOTE if route.file else "neither local nor a virtual domain"
            return Outcome(Verdict.REMOTE, Kind.REMOTE, reason, route.file, route.line)
        if not route.name:
            return _nobody(route)
        owned = self._owner(route.name, to_look_at, steps)
        if isinstance(owned, Outcome) or owned is None:
            return owned
        owner, extension = owned
        return Question(owner, extension, route.name, route.host)

    def _owner(
        self, name: bytes, to_look_at: dict[bytes, Account], steps: list[Step] | None
    ) -> tuple[Owner, bytes] | Outcome | None:
        """Whose the local name is (qmail-lspawn.c: nughde_get, spawn)."""
        # Where a part of users/cdb is damaged qmail-lspawn still finds the rest; rules trust none of it.
        users = self.files.damaged_users if self.users_damage else self.users
        if self.users_damage and users is None:
            reason = "users/cdb cannot be used: qmail-lspawn defers all local mail"
            return Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, self.users_file)
        if users is not None:
            try:
                hit = users.lookup(name)
            except DamagedUsers as error:
                return Outcome(Verdict.DEFER, Kind.DEFERRAL, f"users/cdb: {error}", self.users_file)
            if steps is not None:
                steps += users_steps(users, name, hit, self.users_file)
            if hit is not None:
                if steps is not None:
                    self._note_line(hit, steps)
                if hit.record is None:
                    reason = "the record in users/cdb has too few fields"
                    return Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, self.users_file)
                return self._usable(hit.record.owner, hit.record.extension(hit.tail), self.users_file, 0)
        elif steps is not None:
            steps.append(Step("no such file", self.users_file, found=False))
        return self._getpw(name, to_look_at, steps)

    def _note_line(self, hit: Hit, steps: list[Step]) -> None:
        line = self.files.assigned_at(hit.key, hit.wildcard)
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
        waits = False
        for end in self._candidates(name):
            lowered = name[:end].lower()
            account = self._user(lowered, to_look_at)
            if account is None:
                waits |= lowered in to_look_at
                if steps is not None:
                    steps.append(no_user(lowered, self.accounts.get(lowered), file))
                continue
            if waits:
                # This one is known, but a longer name that is not may be a user, too.
                return None
            if isinstance(account, Outcome):
                return account
            if steps is not None:
                _note(steps, f"account {named(account.name)}, home {shown(account.home)}", file, account.line)
            owner = _owner(account, b"" if end == len(name) else b"-")
            return self._usable(owner, name[end + 1 :], file, account.line)
        if waits:
            return None
        alias = self.accounts.get(os.fsencode(self.config.qmail.alias))
        if alias is None:
            return Outcome(Verdict.DEFER, Kind.DEFERRAL, "there is no alias account", file)
        if steps is not None:
            _note(steps, f"no user: {named(alias.name)} answers, home {shown(alias.home)}", file, alias.line)
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
                reason = f"the home directory of {named(name)} cannot be looked at: {os.strerror(answer.errno)}"
                self.units.note(Report(account.home, State.FAILED, reason))
                self._qualified[name] = Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, account.home)
            else:
                self._qualified[name] = account if answer else None

    @property
    def getpw_identity(self) -> Identity:
        """With whose eyes qmail-getpw looks at homes."""
        return self._getpw_identity

    def qualified(self) -> list[tuple[bytes, int, bool]]:
        """The home and uid of every account that was looked at, and whether it is a user for qmail-getpw."""
        asked = [(self.accounts.get(name), found) for name, found in self._qualified.items()]
        return [(one.home, one.uid, isinstance(found, Account)) for one, found in asked if one is not None and one.uid]

    def accounts_moved(self) -> bool:
        """Whether an account that was a user for qmail-getpw is none any more, or the other way round."""
        names = [name for name in self._qualified if (account := self.accounts.get(name)) and account.uid]
        homes = [HomeToCheck(account.home, account.uid) for name in names if (account := self.accounts.get(name))]
        answers = self.units.qualify(homes, self._getpw_identity, self.directory)
        return any(
            (answer is True) != isinstance(self._qualified[name], Account)
            for name, answer in zip(names, answers, strict=True)
        )

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

    @cached_property
    def prepended(self) -> dict[bytes, Claim]:
        """The claims of users/cdb to just what virtualdomains puts in front of names, by name."""
        values = {entry.value.lower() + b"-" for entry in self.routing.virtualdomains if entry.value}
        covering = [next(self.space().claims_below(name)) for name in values]
        return {claim.name: claim for claim in covering if claim.name in values and claim.file == self.users_file}

    def domains(self) -> list[Domain]:
        """Every domain the list speaks of, sorted: locals, virtual domains, and what rcpthosts lets in."""
        return list(self._domains)

    @cached_property
    def _domains(self) -> list[Domain]:
        return domains(self.routing, self.rcpthosts, self._suffix_domains)

    def uncovered(self) -> list[Uncovered]:
        """The lines that stand for domains which neither rcpthosts nor `[policy] suffix_domains` names."""
        return uncovered(self.routing, self.rcpthosts, self._suffix_domains)

    # -- files of rules ------------------------------------------------------------------------

    @cached_property
    def extra_files(self) -> dict[bytes, ListFile]:
        """The files of `[extra]` by their paths, read once."""
        found = extra_files(self.config.extra, self.units.read)
        self._note_files(found.values())
        return found

    @cached_property
    def relay_files(self) -> list[ListFile]:
        """The files of `[[relay]]`, read once; each has the recipients of the domains that this host relays."""
        break_ = self.config.qmail.break_.encode()
        wanted = self._relayed.__contains__
        found = [relay_file(one, self.units.read, wanted, break_) for one in self.config.relay]
        self._note_files(found)
        return found

    @cached_property
    def _relayed(self) -> frozenset[bytes]:
        """The domains of which qmail-send sends some mail on, where qmail-smtpd lets it in."""
        if self.rcpthosts.listed is None:
            return frozenset()
        return frozenset(
            one.name
            for one in self.domains()
            if one.kind is DomainKind.RELAY or (self.overrides(one.name) and self.rcpthosts.allows(one.name))
        )

    def _note_files(self, files: Iterable[ListFile]) -> None:
        """Files of rules are units, too."""
        for one in files:
            state = State.SUSPECT if one.damaged else State.FAILED if one.trouble else State.HEALTHY
            self.units.note(Report(one.path, state, one.why))

    @cached_property
    def local_domains(self) -> list[bytes]:
        """The domains in locals, if they are few enough to be looked at together."""
        found = [one.name for one in self.domains() if one.kind is DomainKind.LOCAL]
        return found if len(found) <= MOST_TOGETHER else []

    @property
    def _suffix_domains(self) -> list[bytes]:
        return [os.fsencode(name).lower() for name in self.config.policy.suffix_domains]

    def ahead(self, domains: Iterable[Domain]) -> None:
        """Reads the homes behind virtual domains that will be asked for next, in one go."""
        if self.users_damage:
            return
        space = self.space()
        wanted = []
        for domain in domains:
            prepend = self.rules(domain.name).prepend
            if prepend:
                claim = space.claim(prepend)
                if claim.fixed is None:
                    wanted.append((claim.owner, (claim.view(domain.name),)))
        self.units.ahead(wanted)

    def overrides(self, domain: bytes) -> list[Override]:
        """The user@domain entries of virtualdomains for `domain`."""
        return self._overrides.get(domain, [])

    def rules(self, domain: bytes | str) -> DomainRules:
        """The rules of one domain."""
        name = (os.fsencode(domain) if isinstance(domain, str) else domain).lower()
        return DomainRules(self, name)


def settings_of(config: Config, *, look_at_mailboxes: bool = False) -> Settings:
    """How qmail was built and started, as the configuration has it."""
    return Settings(
        forbidden_modes=config.qmail.forbidden_modes,
        default_delivery=os.fsencode(config.qmail.default_delivery),
        alias_user=os.fsencode(config.qmail.alias),
        path=os.fsencode(config.programs.path),
        qmail_bin=os.fsencode(config.qmail.directory.rstrip("/") or "/") + b"/bin",
        look_at_mailboxes=look_at_mailboxes,
    )


Skip = Callable[[Claim], Outcome | None]
Kept = Callable[[Claim, bytes], Table | None]
Oversized = Callable[[Claim, HomeTable], Outcome | None]
Flat = tuple[Table, list[Unsayable]]
Flats = dict[bytes, Flat]


class DomainRules:
    """What the host does with every local part of one domain.

    `match` answers for any local part; `table` gives the rules one by one, spelled as raw
    local parts in lower case, with what names cannot spell.  Where a rule is wider than the
    truth (`Outcome.widened`), `match` asks the home about the one address.
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
        for one in self.host.overrides(self.domain):
            if one.local == name.lower():
                return self._override(one, name)
        prepend = self.prepend
        return self._remote() if prepend is None else self._match_name(prepend + name)

    def _override(self, one: Override, name: bytes) -> Outcome:
        if not one.value:
            file = self.host.routing.virtualdomains_file
            return Outcome(Verdict.REMOTE, Kind.REMOTE, MADE_REMOTE, file, one.line)
        return self._match_name(one.value + b"-" + name)

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
        extension = claim.extension(name)
        found = self.home_table(claim).match(extension, claim.owner.dash)
        if found.widened:
            return host.units.judge([Question(claim.owner, extension, name, self.domain)])[0][0]
        return found

    def home_table(self, claim: Claim) -> HomeTable:
        """The rules of the home behind a claim, as this domain shows them."""
        return self.host.units.table(claim.owner, *self._views(claim))

    def _views(self, claim: Claim) -> tuple[View, list[View]]:
        """The view of this domain, and of those that will want the home next: they share all names."""
        others = self.host.local_domains if self._local is not None else []
        return claim.view(self.domain), [claim.view(one) for one in others]

    def _damaged(self) -> Outcome:
        reason = "users/cdb cannot be used: qmail-lspawn defers all local mail"
        return Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, self.host.users_file)

    def table(
        self,
        skip: Skip = lambda claim: None,
        kept: Kept = lambda claim, relative: None,
        shared: Flats | None = None,
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
            for one in self.host.overrides(self.domain):
                changed[one.local] = self._override(one, one.local)
        if not changed:
            return base, unsayable
        exact = {name: outcome for name, outcome in base.exact() if name not in changed}
        return Table(exact | changed, base.prefixes), unsayable

    def _shared(self, prepend: bytes, skip: Skip, kept: Kept, shared: Flats | None, oversized: Oversized) -> Flat:
        """The rules below `prepend`, from `shared` where they are the same for every domain."""
        if shared is not None and prepend in shared:
            return shared[prepend]
        units = self.host.units
        view_matters = False

        def table_of(claim: Claim) -> HomeTable:
            nonlocal view_matters
            table = self.home_table(claim)
            view_matters |= table.view_matters
            return table

        def ahead(claims: Iterable[Claim]) -> None:
            wanted = []
            for claim in claims:
                view, others = self._views(claim)
                wanted.append((claim.owner, (view, *(one for one in others if one != view))))
            units.ahead(wanted)

        flat = self.host.space().flatten(prepend, table_of, skip=skip, kept=kept, oversized=oversized, ahead=ahead)
        if shared is not None and not view_matters and not units.any_held_back:
            shared[prepend] = flat
        return flat


@lru_cache(maxsize=65536)
def _owner(account: Account, dash: bytes) -> Owner:
    return Owner(account.name, account.uid, account.gid, account.home, dash)


def _nobody(route: Local) -> Outcome:
    reason = "an empty local name is delivered to nobody"
    return Outcome(Verdict.DELIVER, Kind.DISCARD, reason, route.file, route.line)


def _note(steps: list[Step] | None, text: str, file: bytes = b"", line: int = 0) -> None:
    if steps is not None:
        steps.append(Step(text, file, line))
