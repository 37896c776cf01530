"""A home directory as qmail-local sees it: one address at a time, or all extensions as a table."""

from __future__ import annotations

import errno
import os
import stat
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
    NotRegular,
    Refused,
    Regular,
    SourceTree,
    Status,
    TooLarge,
)

LONGEST_FILE = 256 * 1024
MOST_NAMES = 2_000_000
DEEPEST = 40
MOST_DIRECTORIES = 10_000
MOST_LINKS = 40
MOST_RUNS = 20_000
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
    """A dot-qmail file that exists: its instructions, and its outcome where no variable can change that."""

    file: bytes
    instructions: Instructions
    fixed: Outcome | None = None
    default_delivery: bool = False


@dataclass(frozen=True, slots=True)
class HomeTable:
    """The rules of a home over its (safe) extensions.

    `host_matters`: some line looks at HOST, so the table holds for one domain only.
    """

    table: Table
    host_matters: bool


class Home:
    """One owner's home directory.  What was read once is not read again by the same object.

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
        self._presences: dict[bytes, Presence] = {}
        self._listing: dict[bytes, EntryType] | None = None
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
            self._state = self._open()
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
        """The names in the home and their types, read once; None where nobody may list it."""
        if self._listing is None:
            with self._as_owner():
                directory = self._open_directory()
                found = directory.names() if isinstance(directory, Directory) else Refused(errno.EACCES)
            if isinstance(found, FailedForNow):
                self._failed(found)
            elif not isinstance(found, Refused):
                self._listing = {name: entry for name, entry in found if name.startswith(b".qmail")}
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
        default_delivery = not found.data
        if default_delivery:
            instructions = parse(self._settings.default_delivery, forward_only=False)
        else:
            instructions = parse(found.data, forward_only=bool(found.status.mode & stat.S_IXUSR))
        judged = _Judged(path, instructions, default_delivery=default_delivery)
        variables = Variables.free(self._settings.path, self._user, self._home)
        first = self._outcome(judged, variables)
        if not variables.touched:
            judged.fixed = first
        return judged

    def _default_delivery(self) -> _Judged:
        """What stands for a missing `.qmail` of an owner without a dash: qmail-start's default delivery."""
        name = b""
        if name not in self._files:
            instructions = parse(self._settings.default_delivery, forward_only=False)
            judged = _Judged(self._home, instructions, default_delivery=True)
            variables = Variables.free(self._settings.path, self._user, self._home)
            first = self._outcome(judged, variables)
            judged.fixed = None if variables.touched else first
            self._files[name] = judged
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
        finally:
            self._acting = False


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

    def run(self) -> HomeTable:
        home = self._home
        where, _, first = self._stem.rpartition(b"/")
        listing = home._list() if not where else None
        if not where and listing is None:
            return self._unlisted("the home directory cannot be listed")
        pending: list[tuple[bytes, bytes, tuple[tuple[int, int], ...]]] = []
        if listing is not None:
            self._take(listing.items(), b"", first, b"", pending, ())
        else:
            pending.append((where, b"", ()))
            self._walk(pending, first)
        walked = 0
        while pending and walked < MOST_DIRECTORIES and len(self._exact) <= MOST_NAMES:
            self._walk(pending, b"")
            walked += 1
        for relative, key, _ in pending:
            # Links between directories make a number of paths that has no end.
            text = "more directories than are looked into"
            self._prefixes[key] = Outcome(Verdict.DELIVER, Kind.UNKNOWN, text, home._path(relative), widened=True)
        if len(self._exact) > MOST_NAMES:
            return self._unlisted("more dot-qmail files than are judged one by one")
        self._base()
        for (prefix, name), one in self._single.items():
            if name not in self._exact and self._longest(name) == prefix:
                self._exact[name] = one
        return HomeTable(Table(self._exact, self._prefixes), self._host_matters)

    def _longest(self, name: bytes) -> bytes:
        """The longest prefix rule that `name` begins with: the default file that would be found for it."""
        return next(name[:end] for end in range(len(name), -1, -1) if name[:end] in self._prefixes)

    def _unlisted(self, reason: str) -> HomeTable:
        one = Outcome(Verdict.DELIVER, Kind.UNKNOWN, reason, self._home._home, widened=True)
        return HomeTable(Table({}, {b"": one}), False)

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
            if here in above or len(above) >= DEEPEST:
                text = "directories that lead into each other"
                self._prefixes[key] = Outcome(Verdict.DELIVER, Kind.UNKNOWN, text, home._path(relative), widened=True)
                return
            names = found.names()
        if isinstance(names, FailedForNow):
            home._failed(names)
        if isinstance(names, Refused | FailedForNow):
            text = "the directory cannot be listed"
            self._prefixes[key] = Outcome(Verdict.DELIVER, Kind.UNKNOWN, text, home._path(relative), widened=True)
            return
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
                self._home._files[relative] = judged
            if judged is not None:
                self._add(extension, judged)
            # What cannot be read may be a directory; then the names below it cannot be read either.
            unread = judged is None or (judged.fixed is not None and judged.fixed.kind is Kind.DEFERRAL)
            if unread and entry is not EntryType.REGULAR and entry is not EntryType.OTHER:
                pending.append((relative, extension + b"/", above))

    def _add(self, extension: bytes, judged: _Judged) -> None:
        prefix = extension[: -len(DEFAULT)] if extension.endswith(DEFAULT) else None
        if prefix is not None and (not prefix or prefix.endswith(b"-")):
            self._default(judged, prefix)
            if judged.fixed is not None:
                return
        self._exact[extension] = self._intern(self._one(judged, extension), judged)

    def _intern(self, found: Outcome, judged: _Judged) -> Outcome:
        """One object for all files that say the same: the name completes the path (Outcome.named_from)."""
        if judged.file == found.file:
            found = replace(found, file=self._home._path(self._stem), named_from=0)
        return self._shared.setdefault(found, found)

    def _variables(self, extension: bytes | None, default: bytes | None, *, has_default: bool) -> Variables:
        home = self._home
        return Variables.partly(
            home._settings.path, home._user, home._home, self._host, extension, default, has_default=has_default
        )

    def _one(self, judged: _Judged, extension: bytes) -> Outcome:
        """The outcome at one safe extension, whichever spelling (case, dot or colon) reaches it."""
        if judged.fixed is not None:
            return judged.fixed
        has_default = extension.endswith(DEFAULT)
        variables = self._variables(None, None, has_default=has_default)
        self._home._outcome(judged, variables)
        self._host_matters |= variables.host_touched
        spellings = {extension.replace(b":", b".")}
        spellings |= {text for text in variables.compared if safe_extension(text, self._dash) == extension}
        return self._spelled(judged, sorted(spellings), -len(DEFAULT) if has_default else None)

    def _spelled(self, judged: _Judged, spellings: list[bytes], default_at: int | None) -> Outcome:
        """The outcome at a name that `spellings` reach; where it hangs on the spelling, the accepting one counts."""
        if len(spellings) * len(judged.instructions.lines) > MOST_RUNS:
            return self._too_many(judged)
        found = []
        for spelling in spellings:
            default = None if default_at is None else spelling[default_at:]
            variables = self._variables(spelling, default, has_default=default is not None)
            found.append(self._home._outcome(judged, variables))
            self._host_matters |= variables.host_touched
        best = min(found, key=lambda one: _ORDER[one.verdict])
        if not best.accepted or self._host_matters:
            return best
        # What a capital, or a colon for a dot, would get: a constant of the lines meets one spelling only.
        found.append(self._home._outcome(judged, self._variables(None, None, has_default=default_at is not None)))
        return best if all(one.accepted for one in found) else replace(best, widened=True)

    def _default(self, judged: _Judged, prefix: bytes) -> None:
        """The rule for every extension below `prefix`, and for the constants that its lines ask for."""
        if judged.fixed is not None:
            self._prefixes[prefix] = judged.fixed
            return
        variables = self._variables(None, None, has_default=True)
        self._prefixes[prefix] = self._home._outcome(judged, variables)
        self._host_matters |= variables.host_touched
        wanted = {prefix.replace(b":", b".") + text for text in variables.default_compared} | variables.compared
        by_name: dict[bytes, set[bytes]] = {}
        for text in wanted:
            name = safe_extension(text, self._dash)
            if name.startswith(prefix):
                by_name.setdefault(name, set()).add(text)
        if sum(map(len, by_name.values())) * len(judged.instructions.lines) > MOST_RUNS:
            self._prefixes[prefix] = self._too_many(judged)
            return
        for name, texts in by_name.items():
            self._single[prefix, name] = self._spelled(judged, sorted(texts), len(prefix))

    @staticmethod
    def _too_many(judged: _Judged) -> Outcome:
        """The outcome where a file asks for more constants than its lines can be run with."""
        text = "more constants than are tried one by one"
        return Outcome(Verdict.DELIVER, Kind.UNKNOWN, text, judged.file, widened=True)


def _taken_for_granted(one: Instruction) -> bool:
    return True


_ORDER = {Verdict.DELIVER: 0, Verdict.DEFER: 1, Verdict.BOUNCE: 2, Verdict.REMOTE: 3}


def _deferral(reason: str, file: bytes) -> Outcome:
    return Outcome(Verdict.DEFER, Kind.DEFERRAL, reason, file)


def _fixed(found: Outcome) -> _Judged:
    return _Judged(found.file, Instructions(()), found)
