"""A home directory as qmail-local sees it: one address at a time, or all extensions as a table."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from rcptgen.errors import Shortage
from rcptgen.qmail.commands import Commands, Programs
from rcptgen.qmail.dotqmail import (
    DEFAULT,
    MOST_LINES,
    Action,
    Instruction,
    Instructions,
    outcome,
    parse,
    safe_extension,
)
from rcptgen.qmail.environment import Variables, View
from rcptgen.qmail.judged import FORWARDS, NO_LINES, Judged, Settings, Step, Trouble, deferral, settled, work_of
from rcptgen.qmail.leads import Leads
from rcptgen.qmail.look import OwnersLook
from rcptgen.qmail.mailboxes import Mailboxes
from rcptgen.qmail.model import Effect, Presence, Situation, Teller, Told
from rcptgen.qmail.users import Owner
from rcptgen.rules.outcome import HOME_STICKY, HOME_WRITABLE, Kind, Outcome, Verdict
from rcptgen.source.tree import (
    Absent,
    Directory,
    EntryType,
    FailedForNow,
    Identity,
    IdentityUnavailable,
    NotRegular,
    Reading,
    Refused,
    Regular,
    SourceTree,
    TooLarge,
)

LONGEST_FILE = 64 * 1024
MOST_NAMES = 2_000_000
FEW_NAMES = 5_000
BYTES_ALLOWED = 4096

MOST_ALIKE = 4096
"""Files, no longer than BYTES_ALLOWED each, that are remembered because others may hold the same."""

PATH_BYTES = 4096
LOOKS_BEFORE_LISTING = 3
_PASSING = frozenset({errno.EAGAIN, errno.ETXTBSY, errno.EBUSY, errno.EDEADLK, errno.ENOLCK, errno.EINTR})


RunLine = Callable[[bytes, Situation], Effect]
Tellers = Callable[[bytes], tuple[tuple[bytes, ...], Teller] | None]
"""The words of a line that is one command, and the model that knows what it does without its being run; or None."""


class Home:
    """One owner's home directory.  What was read once for an address is not read again by the same object.

    `failure` is the first error, if any, of a source that could not be read for now
    (EIO, ESTALE, a dead mount): what was answered since is then no basis for a refusal.
    Raises Shortage where we ourselves ran out of descriptors or memory.

    `plain` says whether a line is one program and nothing else, so that its effect is that of
    the program, `tellers` whether its model needs no run.  `hanging` and `programs` are shared
    by all homes of a run: contents that hang on the address, and programs that were looked for.
    """

    def __init__(
        self,
        tree: SourceTree,
        owner: Owner,
        settings: Settings,
        run_line: RunLine,
        *,
        plain: Callable[[bytes], bool] = lambda line: False,
        tellers: Tellers = lambda line: None,
        hanging: set[bytes] | None = None,
        programs: Programs | None = None,
    ) -> None:
        self.plain = plain
        self._tellers = tellers
        self._hanging = set() if hanging is None else hanging
        self.tree = tree
        self.user = owner.user
        self.home = owner.home
        self.identity = Identity(owner.uid, owner.gid)
        self.settings = settings
        self.mailboxes = Mailboxes(tree, owner.home, self.as_owner, self.note_failure)
        known = {} if programs is None else programs
        self.commands = Commands(tree, owner.home, self.identity, settings, known, self.as_owner, self.note_failure)
        self._run_line = run_line
        self.files: dict[bytes, Judged | None] = {}
        self.alike: dict[tuple[bytes, bool], Judged] = {}
        self._listing: dict[bytes, EntryType] | None = None
        self._everything: dict[bytes, EntryType] | None = None
        self.crowded = False
        self._looks = 0
        self.acting = False
        self._state: Outcome | None = None
        self._directory: Directory | None = None
        self._opened = False
        self.failure: FailedForNow | None = None
        self._forward_kind = Kind.ALIAS if owner.user == settings.alias_user else Kind.FORWARD
        self._forwarded: dict[int, Outcome] = {}
        self.troubles: list[Trouble] = []
        self.look = OwnersLook(
            tree,
            owner.home,
            self.identity,
            lambda: self.acting,
            self.directory,
            lambda: self._everything,
            self.note_failure,
            self._report,
        )

    def _report(self, path: bytes, reason: str, failed: bool) -> None:
        trouble = Trouble(path, reason, failed)
        if trouble not in self.troubles:
            self.troubles.append(trouble)

    # -- the home itself ------------------------------------------------------------------

    def as_owner(self) -> AbstractContextManager[None]:
        """With the owner's identity, where it is not taken already."""
        return nullcontext() if self.acting else self.tree.acting_as(self.identity)

    def note_failure(self, error: FailedForNow) -> None:
        """Remembers the first source that could not be read for now; raises Shortage where it is ours."""
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
                self._state = self.without_identity()
        return self._state

    def without_identity(self) -> Outcome:
        """What befalls every address from now on where qmail-lspawn could not become the owner."""
        self._state = deferral("its identity cannot be taken", self.home)
        return self._state

    def _open(self) -> Outcome | None:
        home = self.home
        if not home.startswith(b"/"):
            return Outcome(Verdict.BOUNCE, Kind.REFUSAL, "the home directory is not an absolute path", home)
        with self.as_owner():
            found = self.directory()
        if not isinstance(found, Directory):
            return deferral(f"cannot enter the home directory: {os.strerror(found.errno)}", home)
        if found.status.mode & self.settings.forbidden_modes:
            return deferral(HOME_WRITABLE, home)
        if found.status.mode & stat.S_ISVTX:
            return deferral(HOME_STICKY, home)
        return None

    def close(self) -> None:
        """Gives the directory's descriptor back; it is opened again when a file is wanted."""
        self.look.close()
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    def directory(self) -> Directory | Absent | Refused | FailedForNow:
        """The home, open as its owner entered it."""
        if self._directory is not None:
            return self._directory
        found = self.tree.directory(self.home)
        if isinstance(found, Directory):
            self._directory = found
        elif isinstance(found, FailedForNow):
            self.note_failure(found)
        return found

    def listing(self) -> dict[bytes, EntryType] | None:
        """The names in the home and their types, read once; None where nobody may list it, or there are too many."""
        if self._listing is None and not self.crowded:
            with self.as_owner():
                found = self._named(b"", FEW_NAMES + 1)
                if isinstance(found, list) and len(found) <= FEW_NAMES:
                    # Few enough to keep them all: a program may ask for them next.
                    self._everything = dict(found)
                    found = [pair for pair in found if pair[0].startswith(b".qmail")]
                elif isinstance(found, list):
                    found = self._named(b".qmail", MOST_NAMES + 1)
            if isinstance(found, FailedForNow):
                self.note_failure(found)
            elif not isinstance(found, Refused):
                self.crowded = len(found) > MOST_NAMES
                self._listing = None if self.crowded else dict(found)
        return self._listing

    def _named(self, beginning: bytes, most: int) -> list[tuple[bytes, EntryType]] | Refused | FailedForNow:
        directory = self.directory()
        if isinstance(directory, Directory):
            return directory.names(beginning=beginning, most=most)
        return Refused(errno.EACCES)

    # -- one file ---------------------------------------------------------------------------

    def _file(self, name: bytes) -> Judged | None:
        """The dot-qmail file `name` (relative to the home), or None where the search goes on (qmeexists)."""
        if name in self.files:
            return self.files[name]
        if len(name) >= PATH_BYTES:
            return None  # ENAMETOOLONG, which is no reason to end the search
        entry = EntryType.UNKNOWN
        if self._listing is None:
            self._looks += 1
            if self._looks > LOOKS_BEFORE_LISTING:
                self.listing()
        if self._listing is not None and b"/" not in name:
            if name not in self._listing:
                return None
            entry = self._listing[name]
        judged = self.read(name, entry)
        self.files[name] = judged
        return judged

    def read(self, name: bytes, entry: EntryType) -> Judged | None:
        """The dot-qmail file `name`, read as its owner; None where the search goes on."""
        with self.as_owner():
            found = self.content(name, entry)
            shut = self._shut_above(name) if isinstance(found, Refused) else None
        return self.judged(name, found) if shut is None else settled(self.not_entered(shut))

    def _shut_above(self, name: bytes) -> bytes | None:
        """The first directory on the way from the home to `name` that its owner may not enter."""
        for slash in re.finditer(rb"/", name):
            above = name[: slash.start()]
            found = self.tree.directory(self.path(above))
            if isinstance(found, Refused):
                return above
            if isinstance(found, Directory):
                found.close()
        return None

    def not_entered(self, name: bytes) -> Outcome:
        """What befalls everything below the directory `name` where its owner may not enter it."""
        return deferral("the directory cannot be entered by its owner", self.path(name))

    def content(self, name: bytes, entry: EntryType) -> Reading:
        """What the file `name` holds for whoever looks now: its owner, where that identity is taken."""
        directory = self.directory()
        if isinstance(directory, Directory):
            return directory.read(name, limit=LONGEST_FILE, entry=entry)
        return FailedForNow(errno.EAGAIN)

    def only_forwards(self, found: Reading) -> Outcome | None:
        """The outcome of a file with nothing but forwards in it, which most of them are; else None."""
        if not isinstance(found, Regular):
            return None
        line = self.forwards_from(found.data, found.status.mode)
        return self.forwards(line) if line else None

    def forwards_from(self, data: bytes, mode: int) -> int:
        """The line from which on such a file forwards; 0 where it is another."""
        if mode & self.settings.forbidden_modes:
            return 0
        plain = FORWARDS.fullmatch(data) if len(data) <= 2 * MOST_LINES else None
        return 0 if plain is None else plain[1].count(b"\n") + 1

    def judged(self, name: bytes, found: Reading) -> Judged | None:
        """What is found of the dot-qmail file `name`; None where the search goes on."""
        path = self.path(name)
        plain = self.only_forwards(found)
        if plain is not None:
            return Judged(path, NO_LINES, plain)
        if isinstance(found, Absent | NotRegular):
            return None
        if isinstance(found, Refused):
            return settled(deferral("the file cannot be read by its owner", path))
        if isinstance(found, FailedForNow):
            self.note_failure(found)
            return settled(deferral(f"the file cannot be read for now: {os.strerror(found.errno)}", path))
        if isinstance(found, TooLarge):
            text = "the file is too large to be judged"
            return settled(Outcome(Verdict.DELIVER, Kind.UNKNOWN, text, path, approximate=True))
        if found.status.mode & self.settings.forbidden_modes:
            return settled(deferral("the file is writable", path))
        return self._judged(path, found)

    def _judged(self, path: bytes, found: Regular) -> Judged:
        key = found.data, bool(found.status.mode & stat.S_IXUSR)
        known = self.alike.get(key)
        if known is not None:
            return replace(known, file=path, work=known.work if known.fixed is None else 0)
        default_delivery = not found.data
        if default_delivery:
            instructions = parse(self.settings.default_delivery, forward_only=False)
        else:
            instructions = parse(found.data, forward_only=key[1])
        judged = Judged(path, instructions, default_delivery=default_delivery, size=len(found.data))
        hangs = found.data in self._hanging and instructions.lines
        if hangs or self._teller(instructions) is not None:
            judged.work = work_of(instructions)
        else:
            judged = self._first(judged)
            if judged.fixed is None and judged.size <= BYTES_ALLOWED and len(self._hanging) < MOST_ALIKE:
                self._hanging.add(found.data)
        if self.acting and judged.size <= BYTES_ALLOWED and len(self.alike) < MOST_ALIKE:
            self.alike[key] = judged
        return judged

    def _teller(self, instructions: Instructions) -> tuple[tuple[bytes, ...], Teller] | None:
        """The command, and the model that tells what it does, where the lines are that command and nothing else."""
        if len(instructions.lines) != 1:
            return None
        one = instructions.lines[0]
        found = self._tellers(one.text) if one.action is Action.PROGRAM and not one.forward_only else None
        return found if found is not None and self.commands.presence(found[0][0]) is Presence.FOUND else None

    def told(self, judged: Judged, view: View) -> Told | None:
        """What the file's only line does for the addresses of a view, where a model tells that without a run."""
        found = self._teller(judged.instructions)
        self.look.decides = found is not None
        return None if found is None else found[1].told(found[0], self.look, view)

    def _first(self, judged: Judged) -> Judged:
        """The file with its outcome, where that is the same for every address; the lines are not kept then."""
        judged.work = work_of(judged.instructions)
        variables = Variables.free(self.settings.path, self.user, self.home)
        first = self.outcome(replace(judged, file=b""), variables)
        if not variables.touched:
            judged.fixed = first
            judged.instructions = NO_LINES
        return judged

    def forwards(self, line: int) -> Outcome:
        """The outcome of a file that only forwards, from `line` on."""
        found = self._forwarded.get(line)
        if found is None:
            found = self._forwarded[line] = Outcome(Verdict.DELIVER, self._forward_kind, "forwards", line=line)
        return found

    def default_delivery(self) -> Judged:
        """What stands for a missing `.qmail` of an owner without a dash: qmail-start's default delivery."""
        name = b""
        if name not in self.files:
            instructions = parse(self.settings.default_delivery, forward_only=False)
            self.files[name] = self._first(Judged(self.home, instructions, default_delivery=True))
        found = self.files[name]
        assert found is not None
        return found

    def path(self, name: bytes) -> bytes:
        """The path of a file in the home."""
        return self.home.rstrip(b"/") + b"/" + name

    def outcome(self, judged: Judged, variables: Variables) -> Outcome:
        """What the instructions of a file come to under these variables."""
        look = self.settings.look_at_mailboxes
        found = self.ending(judged, variables, self.mailboxes.deliverable if look else _taken_for_granted)
        if not look and found.verdict is Verdict.BOUNCE and judged.instructions.has_mailbox:
            # A mailbox before the line that bounces would defer first.
            found = self.ending(judged, variables, self.mailboxes.deliverable)
        if judged.default_delivery and found.verdict is Verdict.DELIVER:
            return found._replace(kind=Kind.DEFAULT_DELIVERY, reason="the default delivery", line=0)
        return found

    def composed(self, judged: Judged, effect: Effect) -> Outcome:
        """What the instructions come to where their only program line has `effect`."""
        return outcome(
            judged.instructions,
            judged.file,
            mailbox=self.mailboxes.deliverable,
            program=lambda line: effect,
            forward_kind=self._forward_kind,
        )

    def ending(
        self,
        judged: Judged,
        variables: Variables,
        mailbox: Callable[[Instruction], bool],
        leads: Leads | None = None,
        reached: Callable[[Instruction], None] | None = None,
    ) -> Outcome:
        """What the instructions come to, with what dotqmail.outcome and Situation want besides."""
        self.look.decides = self._teller(judged.instructions) is not None
        situation = Situation(variables.texts, self.commands.presence, self.look, leads=leads)
        return outcome(
            judged.instructions,
            judged.file,
            mailbox=mailbox,
            program=lambda line: self._run_line(line, situation),
            forward_kind=self._forward_kind,
            reached=reached,
        )

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
            return self.without_identity()

    def _answer(self, dash: bytes, extension: bytes, local: bytes, host: bytes, steps: list[Step] | None) -> Outcome:
        safe = safe_extension(extension, dash)
        found, default_at = self.search(b".qmail" + dash, safe, steps)
        if found is None:
            if dash:
                name = self.path(b".qmail" + dash + safe)
                return Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "no dot-qmail file for this name", name)
            found = self.default_delivery()
        answer = found.answer()
        if answer is not None:
            return answer
        default = extension[default_at:] if default_at >= 0 else None
        settings = self.settings
        variables = Variables.known(settings.path, self.user, self.home, local, host, extension, default)
        return self.outcome(found, variables)

    def search(self, stem: bytes, safe: bytes, steps: list[Step] | None) -> tuple[Judged | None, int]:
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

    def _try(self, name: bytes, steps: list[Step] | None) -> Judged | None:
        found = self._file(name)
        if steps is not None:
            there = found is not None
            steps.append(Step("found" if there else "no such file", self.path(name), found=there))
        return found


def _taken_for_granted(one: Instruction) -> bool:
    return True
