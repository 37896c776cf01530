"""A home directory as qmail-local sees it: one address at a time, or all extensions as a table."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from operator import itemgetter

from rcptgen.errors import Shortage
from rcptgen.qmail.dotqmail import DEFAULT, Action, Instruction, Instructions, outcome, parse, safe_extension
from rcptgen.qmail.environment import Variables
from rcptgen.qmail.model import QMAIL_PROGRAMS, Effect, Presence, Situation
from rcptgen.qmail.users import Owner
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table
from rcptgen.source.tree import (
    Absent,
    Directory,
    EntryType,
    FailedForNow,
    Identity,
    IdentityUnavailable,
    NotRegular,
    Refused,
    Regular,
    SourceTree,
    Status,
    TooLarge,
)

LONGEST_FILE = 64 * 1024
MOST_NAMES = 2_000_000
DEEPEST = 40
MOST_DIRECTORIES = 256
MOST_LINKS = 40
MOST_RUNS = 20_000
"""Lines that one file may have run for all the constants it asks for."""

BYTES_ALLOWED = 4096
MOST_BYTES = 64 << 20
WORK_ALLOWED = 200
MOST_WORK = 1_000_000
"""What the files of a home may cost beyond an allowance for each: bytes to read, and work with lines (see _work)."""

MOST_ALIKE = 4096
"""Files, no longer than BYTES_ALLOWED each, that are remembered because others may hold the same."""

PATH_BYTES = 4096
LOOKS_BEFORE_LISTING = 3
_PASSING = frozenset({errno.EAGAIN, errno.ETXTBSY, errno.EBUSY, errno.EDEADLK, errno.ENOLCK, errno.EINTR})

RunLine = Callable[[bytes, Situation], Effect]


@dataclass(frozen=True, slots=True)
class Settings:
    """How qmail was built and started, as far as homes are concerned.

    With `look_at_mailboxes` False, mbox and maildir lines count as deliverable without a
    look at the disk: deferred or delivered, they are accepted either way.  Only where a
    later line bounces it matters, and they are looked at all the same.
    """

    forbidden_modes: int = 0o002
    default_delivery: bytes = b"./Mailbox"
    alias_user: bytes = b"alias"
    path: bytes = b"/var/qmail/bin:/usr/local/bin:/usr/bin:/bin"
    qmail_bin: bytes = b"/var/qmail/bin"
    look_at_mailboxes: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was looked at on the way to a verdict."""

    text: str
    file: bytes = b""
    line: int = 0


@dataclass(slots=True)
class _Judged:
    """A dot-qmail file that exists: its outcome where no variable can change that, else its instructions.

    `size` and `work` are what reading it and one run of its lines cost.
    """

    file: bytes
    instructions: Instructions
    fixed: Outcome | None = None
    default_delivery: bool = False
    size: int = 0
    work: int = 0


@dataclass(frozen=True, slots=True)
class HomeTable:
    """The rules of a home over its (safe) extensions.

    `host_matters`: some line looks at HOST, so the table holds for one domain only.
    """

    table: Table
    host_matters: bool


class Home:
    """One owner's home directory.  What was read once for an address is not read again by the same object.

    `failure` is the first error, if any, of a source that could not be read for now
    (EIO, ESTALE, a dead mount): what was answered since is then no basis for a refusal.
    Raises Shortage where we ourselves ran out of descriptors or memory.
    """

    def __init__(self, tree: SourceTree, owner: Owner, settings: Settings, run_line: RunLine) -> None:
        self._tree = tree
        self._user = owner.user
        self._home = owner.home
        self._identity = Identity(owner.uid, owner.gid)
        self._settings = settings
        self._run_line = run_line
        self._files: dict[bytes, _Judged | None] = {}
        self._alike: dict[tuple[bytes, bool], _Judged] = {}
        self._presences: dict[bytes, Presence] = {}
        self._listing: dict[bytes, EntryType] | None = None
        self._crowded = False
        self._looks = 0
        self._acting = False
        self._state: Outcome | None = None
        self._directory: Directory | None = None
        self._opened = False
        self.failure: FailedForNow | None = None

    # -- the home itself ------------------------------------------------------------------

    def _as_owner(self) -> AbstractContextManager[None]:
        return nullcontext() if self._acting else self._tree.acting_as(self._identity)

    def _failed(self, error: FailedForNow) -> None:
        if error.shortage:
            raise Shortage(f"reading a home: {os.strerror(error.errno)}")
        if self.failure is None and error.errno not in _PASSING:
            self.failure = error

    def state(self) -> Outcome | None:
        """What befalls every address because of the home itself, or None (qmail-local.c: main, checkhome)."""
        if not self._opened:
            self._opened = True
            try:
                self._state = self._open()
            except IdentityUnavailable:
                self._state = self._without_identity()
        return self._state

    def _without_identity(self) -> Outcome:
        """What befalls every address from now on where qmail-lspawn could not become the owner."""
        self._state = _deferral("its identity cannot be taken", self._home)
        return self._state

    def _open(self) -> Outcome | None:
        home = self._home
        if not home.startswith(b"/"):
            return Outcome(Verdict.BOUNCE, Kind.REFUSAL, "the home directory is not an absolute path", home)
        with self._as_owner():
            found = self._open_directory()
        if not isinstance(found, Directory):
            return _deferral(f"cannot enter the home directory: {os.strerror(found.errno)}", home)
        if found.status.mode & self._settings.forbidden_modes:
            return _deferral("the home directory is writable", home)
        if found.status.mode & stat.S_ISVTX:
            return _deferral("the home directory is sticky", home)
        return None

    def close(self) -> None:
        """Gives the directory's descriptor back; it is opened again when a file is wanted."""
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    def _open_directory(self) -> Directory | Absent | Refused | FailedForNow:
        if self._directory is not None:
            return self._directory
        found = self._tree.directory(self._home)
        if isinstance(found, Directory):
            self._directory = found
        elif isinstance(found, FailedForNow):
            self._failed(found)
        return found

    def _list(self) -> dict[bytes, EntryType] | None:
        """The names in the home and their types, read once; None where nobody may list it, or there are too many."""
        if self._listing is None and not self._crowded:
            with self._as_owner():
                directory = self._open_directory()
                found = (
                    directory.names(beginning=b".qmail", most=MOST_NAMES + 1)
                    if isinstance(directory, Directory)
                    else Refused(errno.EACCES)
                )
            if isinstance(found, FailedForNow):
                self._failed(found)
            elif not isinstance(found, Refused):
                self._crowded = len(found) > MOST_NAMES
                self._listing = None if self._crowded else dict(found)
        return self._listing

    # -- one file ---------------------------------------------------------------------------

    def _file(self, name: bytes) -> _Judged | None:
        """The dot-qmail file `name` (relative to the home), or None where the search goes on (qmeexists)."""
        if name in self._files:
            return self._files[name]
        if len(name) >= PATH_BYTES:
            return None  # ENAMETOOLONG, which is no reason to end the search
        entry = EntryType.UNKNOWN
        if self._listing is None:
            self._looks += 1
            if self._looks > LOOKS_BEFORE_LISTING:
                self._list()
        if self._listing is not None and b"/" not in name:
            if name not in self._listing:
                return None
            entry = self._listing[name]
        judged = self._read(name, entry)
        self._files[name] = judged
        return judged

    def _read(self, name: bytes, entry: EntryType) -> _Judged | None:
        with self._as_owner():
            directory = self._open_directory()
            found = (
                directory.read(name, limit=LONGEST_FILE, entry=entry)
                if isinstance(directory, Directory)
                else FailedForNow(errno.EAGAIN)
            )
        path = self._path(name)
        if isinstance(found, Absent | NotRegular):
            return None
        if isinstance(found, Refused):
            return _fixed(_deferral("the file cannot be read by its owner", path))
        if isinstance(found, FailedForNow):
            self._failed(found)
            return _fixed(_deferral(f"the file cannot be read for now: {os.strerror(found.errno)}", path))
        if isinstance(found, TooLarge):
            text = "the file is too large to be judged"
            return _fixed(Outcome(Verdict.DELIVER, Kind.UNKNOWN, text, path, approximate=True))
        if found.status.mode & self._settings.forbidden_modes:
            return _fixed(_deferral("the file is writable", path))
        return self._judged(path, found)

    def _judged(self, path: bytes, found: Regular) -> _Judged:
        key = found.data, bool(found.status.mode & stat.S_IXUSR)
        known = self._alike.get(key)
        if known is not None:
            if known.fixed is None:
                return replace(known, file=path)
            return replace(known, file=path, fixed=replace(known.fixed, file=path), work=0)
        default_delivery = not found.data
        if default_delivery:
            instructions = parse(self._settings.default_delivery, forward_only=False)
        else:
            instructions = parse(found.data, forward_only=key[1])
        judged = self._first(_Judged(path, instructions, default_delivery=default_delivery, size=len(found.data)))
        if self._acting and judged.size <= BYTES_ALLOWED and len(self._alike) < MOST_ALIKE:
            self._alike[key] = judged
        return judged

    def _first(self, judged: _Judged) -> _Judged:
        """The file with its outcome, where that is the same for every address; the lines are not kept then."""
        judged.work = _work(judged.instructions)
        variables = Variables.free(self._settings.path, self._user, self._home)
        first = self._outcome(judged, variables)
        if not variables.touched:
            judged.fixed = first
            judged.instructions = Instructions(())
        return judged

    def _default_delivery(self) -> _Judged:
        """What stands for a missing `.qmail` of an owner without a dash: qmail-start's default delivery."""
        name = b""
        if name not in self._files:
            instructions = parse(self._settings.default_delivery, forward_only=False)
            self._files[name] = self._first(_Judged(self._home, instructions, default_delivery=True))
        found = self._files[name]
        assert found is not None
        return found

    def _path(self, name: bytes) -> bytes:
        return self._home.rstrip(b"/") + b"/" + name

    def _outcome(self, judged: _Judged, variables: Variables) -> Outcome:
        look = self._settings.look_at_mailboxes
        found = self._ending(judged, variables, self._mailbox if look else _taken_for_granted)
        if not look and found.verdict is Verdict.BOUNCE and judged.instructions.has_mailbox:
            # A mailbox before the line that bounces would defer first.
            found = self._ending(judged, variables, self._mailbox)
        if judged.default_delivery and found.verdict is Verdict.DELIVER:
            return replace(found, kind=Kind.DEFAULT_DELIVERY, reason="the default delivery", line=0)
        return found

    def _ending(self, judged: _Judged, variables: Variables, mailbox: Callable[[Instruction], bool]) -> Outcome:
        forward_kind = Kind.ALIAS if self._user == self._settings.alias_user else Kind.FORWARD
        situation = Situation(variables.texts, self._presence)
        return outcome(
            judged.instructions,
            judged.file,
            mailbox=mailbox,
            program=lambda line: self._run_line(line, situation),
            forward_kind=forward_kind,
        )

    # -- what instructions lead to ------------------------------------------------------------

    def _mailbox(self, one: Instruction) -> bool:
        """Whether an mbox or maildir could be written (qmail-local.c: mailfile, maildir_child)."""
        path = os.path.join(self._home, one.text)
        with self._as_owner():
            if one.action is Action.MAILDIR:
                return all(self._directory_for(path + b"/" + part) for part in (b"tmp", b"new"))
            found = self._tree.accessible(path, os.W_OK)
            if isinstance(found, Status):
                # A fifo without a reader and a socket give ENXIO, a directory EISDIR.
                return stat.S_ISREG(found.mode) or stat.S_ISCHR(found.mode) or stat.S_ISBLK(found.mode)
            if isinstance(found, FailedForNow):
                self._failed(found)
            return isinstance(found, Absent) and found.errno == errno.ENOENT and self._can_create(path)

    def _can_create(self, path: bytes) -> bool:
        """Whether a file that is not there can be made: a link to nothing is followed."""
        for _ in range(MOST_LINKS):
            target = self._tree.link(path)
            if target is None:
                return not path.endswith(b"/") and self._directory_for(os.path.dirname(path))
            path = os.path.join(os.path.dirname(path), target)
        return False

    def _directory_for(self, path: bytes) -> bool:
        found = self._tree.accessible(path, os.W_OK | os.X_OK)
        if isinstance(found, FailedForNow):
            self._failed(found)
        return isinstance(found, Status) and stat.S_ISDIR(found.mode)

    def _presence(self, command: bytes) -> Presence:
        """What /bin/sh finds for `command` as the owner, in the home, with qmail's PATH."""
        if command not in self._presences:
            with self._as_owner():
                self._presences[command] = self._look_for(command)
        return self._presences[command]

    def _look_for(self, command: bytes) -> Presence:
        if b"/" in command:
            directory, _, name = command.rpartition(b"/")
            if directory == self._settings.qmail_bin and name in QMAIL_PROGRAMS:
                return Presence.FOUND
            return self._program(os.path.join(self._home, command))
        best = Presence.NOT_FOUND
        for directory in self._settings.path.split(b":"):
            found = self._program(os.path.join(self._home, directory, command))
            if found in (Presence.FOUND, Presence.FAILED):
                return found
            if found is Presence.NOT_EXECUTABLE:
                best = found
        return best

    def _program(self, path: bytes) -> Presence:
        found = self._tree.accessible(path, os.X_OK)
        if isinstance(found, Status):
            return Presence.FOUND if stat.S_ISREG(found.mode) else Presence.NOT_EXECUTABLE
        if isinstance(found, FailedForNow):
            self._failed(found)
            return Presence.FAILED
        return Presence.NOT_FOUND if isinstance(found, Absent) else Presence.NOT_EXECUTABLE

    # -- one address ----------------------------------------------------------------------------

    def judge(
        self, dash: bytes, extension: bytes, local: bytes, host: bytes, steps: list[Step] | None = None
    ) -> Outcome:
        """What qmail-local does for one address (qmail-local.c: qmesearch, main).

        `extension` keeps its case, `local` is the whole local name, `host` the domain as given.
        """
        state = self.state()
        if state is not None:
            return state
        try:
            return self._answer(dash, extension, local, host, steps)
        except IdentityUnavailable:
            return self._without_identity()

    def _answer(self, dash: bytes, extension: bytes, local: bytes, host: bytes, steps: list[Step] | None) -> Outcome:
        safe = safe_extension(extension, dash)
        found, default_at = self._search(b".qmail" + dash, safe, steps)
        if found is None:
            if dash:
                name = self._path(b".qmail" + dash + safe)
                return Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "no dot-qmail file for this name", name)
            found = self._default_delivery()
        if found.fixed is not None:
            return found.fixed
        default = extension[default_at:] if default_at >= 0 else None
        settings = self._settings
        variables = Variables.known(settings.path, self._user, self._home, local, host, extension, default)
        return self._outcome(found, variables)

    def _search(self, stem: bytes, safe: bytes, steps: list[Step] | None) -> tuple[_Judged | None, int]:
        """The file for an extension, and where in the extension DEFAULT begins (-1: it is unset)."""
        found = self._try(stem + safe, steps)
        if found is not None:
            return found, len(safe) - len(DEFAULT) if safe.endswith(DEFAULT) else -1
        for end in range(len(safe), -1, -1):
            if not end or safe[end - 1] == 0x2D:
                found = self._try(stem + safe[:end] + DEFAULT, steps)
                if found is not None:
                    return found, end
        return None, -1

    def _try(self, name: bytes, steps: list[Step] | None) -> _Judged | None:
        found = self._file(name)
        if steps is not None:
            steps.append(Step("found" if found is not None else "no such file", self._path(name)))
        return found

    # -- all of them ------------------------------------------------------------------------------

    def table(self, dash: bytes, host: bytes | None) -> HomeTable:
        """The outcome of every extension; `host` None is for tables that serve every domain."""
        state = self.state()
        if state is not None:
            return HomeTable(Table({}, {b"": state}), False)
        self._acting = True
        try:
            with self._tree.acting_as(self._identity):
                return _Enumeration(self, dash, host).run()
        except IdentityUnavailable:
            return HomeTable(Table({}, {b"": self._without_identity()}), False)
        finally:
            self._acting = False
            self._alike.clear()


_CROWDED = "more dot-qmail files than are judged one by one"


class _Unlisted(Exception):
    """Something about a home that keeps its files from being judged one by one."""


class _TooManyRuns(Exception):
    """A file asks for more constants than its lines can be run with."""


class _Enumeration:
    """One run through a home's directory for one dash and domain."""

    def __init__(self, home: Home, dash: bytes, host: bytes | None) -> None:
        self._home = home
        self._dash = dash
        self._host = host
        self._exact: dict[bytes, Outcome] = {}
        self._prefixes: dict[bytes, Outcome] = {}
        self._single: dict[tuple[bytes, bytes], Outcome] = {}
        self._shared: dict[Outcome, Outcome] = {}
        self._stem = b".qmail" + dash
        self._host_matters = False
        self._device = -1
        self._bytes_left = MOST_BYTES
        self._work_left = MOST_WORK
        self._work_allowed = WORK_ALLOWED
        self._runs_left = 0

    def run(self) -> HomeTable:
        """The table; one rule for everything where the home is more than can be judged."""
        try:
            return self._run()
        except _Unlisted as why:
            one = Outcome(Verdict.DELIVER, Kind.UNKNOWN, str(why), self._home._home, widened=True)
            return HomeTable(Table({}, {b"": one}), False)

    def _run(self) -> HomeTable:
        home = self._home
        directory = home._open_directory()
        if isinstance(directory, Directory):
            self._device = directory.status.device
        where, _, first = self._stem.rpartition(b"/")
        listing = home._list() if not where else None
        if not where and listing is None:
            raise _Unlisted(_CROWDED if home._crowded else "the home directory cannot be listed")
        pending: list[tuple[bytes, bytes, tuple[tuple[int, int], ...]]] = []
        if listing is not None:
            self._take(listing.items(), b"", first, b"", pending, ())
        else:
            pending.append((where, b"", ()))
            self._walk(pending, first)
        walked = 0
        while pending and walked < MOST_DIRECTORIES:
            self._walk(pending, b"")
            walked += 1
        for relative, key, _ in pending:
            # Links between directories make a number of paths that has no end.
            self._open_below(key, relative, "more directories than are looked into")
        self._base()
        for (prefix, name), one in self._single.items():
            if name not in self._exact and self._longest(name) == prefix:
                self._exact[name] = one
        return HomeTable(Table(self._exact, self._prefixes), self._host_matters)

    def _longest(self, name: bytes) -> bytes:
        """The longest prefix rule that `name` begins with: the default file that would be found for it."""
        return next(name[:end] for end in range(len(name), -1, -1) if name[:end] in self._prefixes)

    def _open_below(self, key: bytes, relative: bytes, reason: str) -> None:
        """The rule for everything below a directory that is not looked into."""
        where = self._home._path(relative)
        self._prefixes[key] = Outcome(Verdict.DELIVER, Kind.UNKNOWN, reason, where, widened=True)

    def _base(self) -> None:
        """The rule for what no file answers."""
        if b"" in self._prefixes:
            return
        home = self._home
        if self._dash:
            path = home._path(self._stem + DEFAULT)
            self._prefixes[b""] = Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "no dot-qmail file for this name", path)
        else:
            self._default(home._default_delivery(), b"")

    def _walk(self, pending: list[tuple[bytes, bytes, tuple[tuple[int, int], ...]]], first: bytes) -> None:
        """Looks into one directory below the home: extensions with slashes in them."""
        relative, key, above = pending.pop()
        home = self._home
        # The directory's own name, with the slash: found where it cannot be read, else the search goes on.
        itself = None if first else home._read(relative + b"/", EntryType.UNKNOWN)
        found = home._tree.directory(home._path(relative))
        if isinstance(found, FailedForNow):
            home._failed(found)
        if isinstance(found, Refused | FailedForNow):
            below = _deferral("the directory cannot be entered by its owner", home._path(relative))
            self._prefixes[key] = below if first or itself is not None else replace(below, widened=True)
            return
        if not isinstance(found, Directory):
            return
        with found:
            here = (found.status.device, found.status.inode)
            if found.status.device != self._device:
                self._open_below(key, relative, "a directory of another file system than the home's")
                return
            if here in above or len(above) >= DEEPEST:
                self._open_below(key, relative, "directories that lead into each other")
                return
            names = found.names(beginning=first, most=MOST_NAMES + 1)
        if isinstance(names, FailedForNow):
            home._failed(names)
        if isinstance(names, Refused | FailedForNow):
            self._open_below(key, relative, "the directory cannot be listed")
            return
        if len(names) > MOST_NAMES:
            raise _Unlisted(_CROWDED)
        if itself is not None:
            self._add(key, itself)
        self._take(names, relative + b"/", first, key, pending, (*above, here))

    def _take(
        self,
        names: Iterable[tuple[bytes, EntryType]],
        where: bytes,
        first: bytes,
        key: bytes,
        pending: list[tuple[bytes, bytes, tuple[tuple[int, int], ...]]],
        above: tuple[tuple[int, int], ...],
    ) -> None:
        """Every name of one directory that an extension can reach."""
        skip = len(first)
        dash = self._dash
        for name, entry in sorted(names, key=itemgetter(0)):
            if not name.startswith(first):
                continue
            tail = name[skip:]
            extension = key + tail
            if tail != tail.lower() or b"." in tail or safe_extension(extension, dash) != extension:
                continue
            relative = where + name
            judged = self._home._files.get(relative)
            if judged is None:
                judged = self._home._read(relative, entry if not where else EntryType.UNKNOWN)
            if judged is not None:
                self._pay(judged)
                self._add(extension, judged)
            # What cannot be read may be a directory; then the names below it cannot be read either.
            unread = judged is None or (judged.fixed is not None and judged.fixed.kind is Kind.DEFERRAL)
            if unread and entry is not EntryType.REGULAR and entry is not EntryType.OTHER:
                pending.append((relative, extension + b"/", above))

    def _pay(self, judged: _Judged) -> None:
        """The cost of a file that was read comes off what the home is given."""
        self._bytes_left -= max(judged.size - BYTES_ALLOWED, 0)
        if self._bytes_left < 0:
            raise _Unlisted("longer dot-qmail files than are judged one by one")
        self._work_allowed = WORK_ALLOWED
        self._pay_work(judged.work)

    def _pay_work(self, work: int) -> None:
        self._work_allowed -= work
        if self._work_allowed < 0:
            self._work_left += self._work_allowed
            self._work_allowed = 0
        if self._work_left < 0:
            raise _Unlisted("more lines in dot-qmail files than are judged one by one")

    def _add(self, extension: bytes, judged: _Judged) -> None:
        prefix = extension[: -len(DEFAULT)] if extension.endswith(DEFAULT) else None
        if prefix is not None and (not prefix or prefix.endswith(b"-")):
            self._default(judged, prefix)
            if judged.fixed is not None:
                return
        self._exact[extension] = self._intern(self._one(judged, extension), judged)
        if len(self._exact) > MOST_NAMES:
            raise _Unlisted(_CROWDED)

    def _intern(self, found: Outcome, judged: _Judged) -> Outcome:
        """One object for all files that say the same: the name completes the path (Outcome.named_from)."""
        if judged.file == found.file:
            found = replace(found, file=self._home._path(self._stem), named_from=0)
        return self._shared.setdefault(found, found)

    def _one(self, judged: _Judged, extension: bytes) -> Outcome:
        """The outcome at one safe extension, whichever spelling (case, dot or colon) reaches it."""
        if judged.fixed is not None:
            return judged.fixed
        self._runs_left = MOST_RUNS
        try:
            return self._spelled(judged, extension, set(), -len(DEFAULT) if extension.endswith(DEFAULT) else None)
        except _TooManyRuns:
            return self._too_many(judged)

    def _default(self, judged: _Judged, prefix: bytes) -> None:
        """The rule for every extension below `prefix`, and for the constants that its lines ask for."""
        if judged.fixed is not None:
            self._prefixes[prefix] = judged.fixed
            return
        self._runs_left = MOST_RUNS
        singles: dict[tuple[bytes, bytes], Outcome] = {}
        try:
            free = self._tried(judged, None, None, has_default=True)
            by_name: dict[bytes, set[bytes]] = {}
            for text in {prefix.replace(b":", b".") + text for text in free.default_compared} | free.compared:
                name = safe_extension(text, self._dash)
                if name.startswith(prefix):
                    by_name.setdefault(name, set()).add(text)
            for name, texts in by_name.items():
                singles[prefix, name] = self._spelled(judged, name, texts, len(prefix))
        except _TooManyRuns:
            self._prefixes[prefix] = self._too_many(judged)
            return
        self._prefixes[prefix] = _best(free.outcomes)
        self._single.update(singles)

    def _spelled(self, judged: _Judged, name: bytes, texts: set[bytes], default_at: int | None) -> Outcome:
        """The outcome at a name: one spelling that is accepted is enough, and `widened` where another is not.

        Tried are `texts`, the plain spelling, and what is none of the constants that the
        lines ask for: most names can be spelled so, with a capital or a colon for a dot.
        """
        plain = name.replace(b":", b".")
        waiting = [plain]
        waiting += sorted(texts.difference(waiting))
        seen = set(waiting)
        found: list[Outcome] = []
        has_default = default_at is not None
        tails: set[bytes] = set()

        def tried(text: bytes | None, tail: bytes | None) -> list[Outcome]:
            one = self._tried(judged, text, tail, has_default=has_default)
            asked = one.compared | {plain[:default_at] + other for other in one.default_compared}
            asked = {other for other in asked if safe_extension(other, self._dash) == name} - seen
            waiting.extend(sorted(asked))
            seen.update(asked)
            return one.outcomes

        free = [] if has_default else tried(None, None)
        some_tail: list[Outcome] = []
        by_tail: dict[bytes, list[Outcome]] = {}
        while waiting:
            text = waiting.pop(0)
            tail = text[default_at:] if has_default else None
            found += tried(text, tail)
            if tail is not None and tail not in tails:
                tails.add(tail)
                by_tail[tail] = tried(None, tail)
                some_tail = some_tail or tried(None, None)
        head = name if default_at is None else name[:default_at]
        for tail, outcomes in by_tail.items():
            if self._spellings(head) > sum(one[default_at:] == tail for one in seen):
                found += outcomes
        if default_at is None:
            found += free if self._spellings(name) > len(seen) else []
        elif self._spellings(name[default_at:]) > len(tails):
            found += some_tail
        return _best(found)

    def _spellings(self, name: bytes) -> int:
        """How many extensions are the same safe one: every letter has two cases, every colon may be a dot."""
        endless = b"/" in name or self._dash.endswith(b"/")
        return sys.maxsize if endless else 1 << sum(map(name.count, _TWO_WAYS))

    def _tried(self, judged: _Judged, extension: bytes | None, default: bytes | None, *, has_default: bool) -> _Tried:
        """What the lines come to in every spelling of the domain that they tell apart."""
        home = self._home
        tried = _Tried([], set(), set())

        def run(host: bytes | None) -> tuple[Outcome, Variables]:
            self._runs_left -= len(judged.instructions.lines)
            if self._runs_left < 0:
                raise _TooManyRuns
            self._pay_work(judged.work)
            variables = Variables.partly(
                home._settings.path, home._user, home._home, host, extension, default, has_default=has_default
            )
            outcome = home._outcome(judged, variables)
            tried.compared |= variables.compared
            tried.default_compared |= variables.default_compared
            return outcome, variables

        free, variables = run(None)
        self._host_matters |= variables.host_touched and self._host is None
        if self._host is None or not variables.host_touched:
            tried.outcomes.append(free)
            return tried
        host = self._host
        # HOST2, HOST3 and HOST4 are beginnings of HOST.
        hosts = {one + host[len(one) :] for one in variables.host_compared if host.startswith(one.lower())} - {host}
        tried.outcomes += [run(one)[0] for one in (host, *sorted(hosts))]
        if 1 << sum(map(host.count, _LETTERS)) > len(hosts) + 1:
            tried.outcomes.append(free)
        return tried

    @staticmethod
    def _too_many(judged: _Judged) -> Outcome:
        """The outcome where a file asks for more constants than its lines can be run with."""
        text = "more constants than are tried one by one"
        return Outcome(Verdict.DELIVER, Kind.UNKNOWN, text, judged.file, widened=True)


@dataclass(slots=True)
class _Tried:
    """What the lines of a file came to, and the constants that EXT and DEFAULT were compared with."""

    outcomes: list[Outcome]
    compared: set[bytes]
    default_compared: set[bytes]


def _best(found: list[Outcome]) -> Outcome:
    """The accepting one of several outcomes; widened where there is a refusing one."""
    best = min(found, key=lambda one: _ORDER[one.verdict])
    if not best.accepted or all(one.accepted for one in found):
        return best
    return replace(best, widened=True)


def _work(instructions: Instructions) -> int:
    """What it takes to run the lines of a file: ten times as much for what is no forward."""
    return sum(1 if one.action is Action.FORWARD else 10 for one in instructions.lines)


def _taken_for_granted(one: Instruction) -> bool:
    return True


_LETTERS = [bytes((letter,)) for letter in b"abcdefghijklmnopqrstuvwxyz"]
_TWO_WAYS = [*_LETTERS, b":"]
_ORDER = {Verdict.DELIVER: 0, Verdict.DEFER: 1, Verdict.BOUNCE: 2, Verdict.REMOTE: 3}


def _deferral(reason: str, file: bytes) -> Outcome:
    return Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, file)


def _fixed(found: Outcome) -> _Judged:
    return _Judged(found.file, Instructions(()), found)
