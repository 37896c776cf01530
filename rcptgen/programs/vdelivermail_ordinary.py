"""vdelivermail in an ordinary home, for an ordinary vpasswd.cdb: all names of the domain at once.

Ordinary are users whose directories are not there yet, below the domain's own, which can be
written to; each with a name that can be asked for and no twin; flagged to bounce or not.
What is said of them is what vdelivermail_table comes to, without its many steps.  Whatever is
unusual (Unusual, or no answer at all) is left to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rcptgen.programs.shell import ended
from rcptgen.programs.vdelivermail_lines import BOUNCE, MAILBOX
from rcptgen.programs.vdelivermail_one import INVALID, DtLine, Process, Vpopmail, ends
from rcptgen.programs.vdelivermail_table import LONG_DIRECTORY, for_some
from rcptgen.programs.vdelivermail_users import DOTQMAIL, LOCKED
from rcptgen.qmail.dotqmail import Action, Instruction, Instructions, outcome
from rcptgen.qmail.hometable import MOST_COLONS, HomeTable, best, spellings
from rcptgen.qmail.look import NoLook
from rcptgen.qmail.model import Effect, View
from rcptgen.qmail.ordinary import OrdinaryHome
from rcptgen.rules.cdbwalk import DamagedCdb
from rcptgen.rules.names import SEPARATOR, Names
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table
from rcptgen.source.tree import Identity
from rcptgen.vpopmail.assign import LONGEST_NAME, lowerit
from rcptgen.vpopmail.backend import Crash, Unavailable
from rcptgen.vpopmail.ordinary import OrdinaryUsers, ordinary_users
from rcptgen.vpopmail.text import is_domain_valid, is_username_valid

MOST_REMEMBERED = 4096
LARGEST = 4 << 20

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


class Unusual(Exception):
    """Something that only the full way can judge."""


class _Known(NoLook):
    """Whoever looks: what others have found out for him is used, and nothing is looked at."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    def failed(self, path: bytes, reason: str) -> None:
        """See Look."""
        raise Unusual

    def suspect(self, path: bytes, reason: str) -> None:
        """See Look."""
        raise Unusual


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of vdelivermail: its instruction, and what becomes of nobody's mail by it.

    Both outcomes rest on the dot-qmail file: `for_all` is that of the names which are nobody's,
    `for_one` that of a single name.
    """

    instruction: bytes
    for_all: Outcome
    for_one: Outcome


class OrdinaryDomains:
    """Judges ordinary homes; remembers the lines that it has seen."""

    def __init__(self, vpopmail: Vpopmail) -> None:
        self._vpopmail = vpopmail
        self._lines: dict[bytes, _Line] = {}
        settings = vpopmail.settings
        self.usable = not (settings.qmail_ext or settings.default_delivery) and settings.mailbox_dotqmail == "judge"

    def table(
        self, home: OrdinaryHome, identity: Identity, forward_kind: Kind, view: View, words: Sequence[tuple[bytes, ...]]
    ) -> HomeTable | None:
        """The rules of a home, where all of it is ordinary; `words` are the commands of `default` and of `programs`."""
        try:
            return self._table(home, identity, forward_kind, view, words)
        except (Unusual, Unavailable, Crash, DamagedCdb):
            return None

    def _table(
        self, home: OrdinaryHome, identity: Identity, forward_kind: Kind, view: View, words: Sequence[tuple[bytes, ...]]
    ) -> HomeTable:
        prepended, host = view.name, lowerit(view.host)
        if not prepended or view.pre or prepended.startswith(b"/") or not is_domain_valid(host):
            raise Unusual
        lines = [self._line(one, prepended) for one in words]
        self._is_of(home, identity, host)
        users = self._users(home)
        cdb = users.file
        mailbox = Outcome(Verdict.DELIVER, Kind.VPOPMAIL, MAILBOX, cdb)
        locked = Outcome(Verdict.BOUNCE, Kind.REFUSAL, LOCKED, cdb)
        stem = home.stem
        exact: dict[Outcome, list[bytes]] = {}
        for number, extensions in home.forwards.items():
            exact[Outcome(Verdict.DELIVER, forward_kind, "forwards", stem, number, 0)] = extensions
        for (extension, _), line in zip(home.programs, lines[1:], strict=True):
            # It is the file of the one name that it stands at.
            nobody = _at(line.for_one, stem, 0)
            found = self._spelled(extension, users, mailbox, locked, nobody)
            exact.setdefault(found, []).append(extension)
        groups: dict[Outcome, Names] = {}
        if users.open:
            groups[mailbox] = Names.of_sorted(SEPARATOR.join(users.open))
        if users.locked:
            groups[locked] = Names(users.locked)
        everybody = {b"": _at(lines[0].for_all, stem + b"default", -1)}
        table = Table.of_groups({one: Names(names) for one, names in exact.items()}, everybody)
        return HomeTable(table, True, {b"": Table.of_groups(groups, everybody)}, frozenset((b"",)))

    def _spelled(
        self, extension: bytes, users: OrdinaryUsers, mailbox: Outcome, locked: Outcome, nobody: Outcome
    ) -> Outcome:
        """What a file for one name comes to, in every way that the name can be spelled."""
        if extension.count(b":") > MOST_COLONS or len(extension) >= LONGEST_NAME:
            raise Unusual
        ways = []
        for text in spellings(extension):
            if not is_username_valid(text):
                ways.append(_at(_INVALID, nobody.file, 0))
            elif users.has(text):
                ways.append(locked if text in users.locked else mailbox)
            else:
                ways.append(nobody)
        return best(ways) if len(ways) > 1 else ways[0]

    def _line(self, words: tuple[bytes, ...], prepended: bytes) -> _Line:
        """What is known of a command, whose last word is the instruction."""
        instruction = words[2]
        known = self._lines.get(instruction)
        if known is None:
            known = self._made(instruction)
            if len(self._lines) < MOST_REMEMBERED:
                self._lines[instruction] = known
        if instruction.lower().startswith(prepended):
            # It may be the address in $DTLINE.
            raise Unusual
        return known

    def _made(self, instruction: bytes) -> _Line:
        if not instruction or instruction[0] not in _PLAIN or len(instruction) > LONGEST_NAME or b"\0" in instruction:
            raise Unusual
        nowhere = Process(self._vpopmail, NoLook(), _no_line, b"", instruction, DtLine())
        effect = nowhere.not_found([DOTQMAIL], lambda line: False)
        return _Line(instruction, _resting(for_some(effect)), _resting(ended(effect)))

    def _is_of(self, home: OrdinaryHome, identity: Identity, host: bytes) -> None:
        """Raises Unusual unless vdelivermail finds the users of the domain in this home's own vpasswd.cdb."""
        vpopmail = self._vpopmail
        if not vpopmail.assignments.is_open(identity) or not vpopmail.backends.is_cdb(identity):
            raise Unusual
        domain = vpopmail.assignments.assigned(_Known(identity), host).domain
        if domain is None or domain.directory != home.path or identity.uid != domain.uid:
            raise Unusual

    @staticmethod
    def _users(home: OrdinaryHome) -> OrdinaryUsers:
        entered = home.entered
        if b"vpasswd.cdb" not in entered.regular:
            raise Unusual
        found = entered.read(b"vpasswd.cdb", LARGEST)
        text = entered.child(b"vpasswd") if b"vpasswd" in entered.names else None
        if found is None or (b"vpasswd" in entered.names and text is None):
            raise Unusual
        if text is not None and text.st_mtime_ns > found[1].st_mtime_ns:
            raise Unusual
        users = ordinary_users(found[0], home.path + b"/vpasswd.cdb")
        if users is None or not entered.may_change():
            raise Unusual
        if users.open:
            longest = max(map(len, users.open))
            room = min(LONGEST_NAME - 1, LONG_DIRECTORY - max(map(len, users.parents)) - 1)
            if longest > room or not all(_missing(home, parent, users.open) for parent in users.parents):
                raise Unusual
        return users


def _missing(home: OrdinaryHome, parent: bytes, names: list[bytes]) -> bool:
    """Whether nothing of these names is there below `parent`, and all of it could be made."""
    there = home.entered.names
    if parent == home.path:
        return there.isdisjoint(names)
    if not parent.startswith(home.path + b"/"):
        return False
    parts = parent[len(home.path) + 1 :].split(b"/")
    return parts[0] not in there and not any(part in (b"", b".", b"..") for part in parts)


def _resting(effect: Effect) -> Outcome:
    """What a dot-qmail file with one line of this effect comes to; its file is left out."""
    line = Instruction(Action.PROGRAM, b"", 1, False)
    return outcome(Instructions((line,)), b"", mailbox=lambda one: False, program=lambda text: effect)


_INVALID = _resting(ends(BOUNCE, INVALID))


def _at(found: Outcome, file: bytes, named_from: int) -> Outcome:
    return Outcome(
        found.verdict, found.kind, found.reason, file, found.line, named_from, found.approximate, found.widened
    )


def _no_line(line: bytes) -> Effect:
    raise Unusual
