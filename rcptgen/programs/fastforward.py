"""fastforward: forwarding by a constant database of aliases (fastforward 0.51, fastforward.c: main).

Databases are made by newaliases and setforward.  The text they were made from is never read at delivery.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from rcptgen.programs.aliasesdb import Aliases, Gathering, Steps, TooMuch, read_aliases
from rcptgen.programs.shellstate import look
from rcptgen.qmail.model import (
    Derived,
    Effect,
    Effects,
    Free,
    Runner,
    Situation,
    Text,
    effect_of,
    lowered,
    unknown_effect,
)
from rcptgen.rules.cdbwalk import CdbFile, DamagedCdb
from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind
from rcptgen.source.tree import Status

KEPT = 4
"""Databases whose targets are remembered: one often serves many domains."""

UNREADABLE = "fastforward cannot read its database"
DAMAGED = "the database of fastforward is damaged"
UNFOUND = "fastforward finds no alias"
TANGLED = "aliases too tangled to be followed"
UNKNOWN_WORD = "fastforward with arguments that nobody knows"
UNKNOWN_RECIPIENT = "fastforward with a recipient that nobody knows"

EXACT, WHOLE_DOMAIN, EVERY_DOMAIN = (
    "alias of this address",
    "alias of a whole domain",
    "alias of the name in any domain",
)
BY_OTHERS = ", with programs or lists"

DRY = Effect(frozenset({0}), Kind.PROGRAM, "fastforward -n runs nothing")


@dataclass(slots=True)
class _Options:
    """The command line (sgetopt.c); `failed` where it is wrong."""

    passes: bool = False
    default: bool = False
    dry: bool = False
    database: bytes | None = None


def _options(words: Sequence[Text]) -> _Options | Text | None:
    """What the words behind the name ask for; None for a wrong usage, a word that would have to be known."""
    found = _Options()
    for at, word in enumerate(words):
        if not isinstance(word, bytes):
            return word
        if word[:1] != b"-" or word in (b"-", b"--"):
            rest = words[at + (word == b"--") :]
            break
        for option in word[1:]:
            match option:
                case 0x70 | 0x50:  # p, P
                    found.passes = option == 0x70
                case 0x64 | 0x44:  # d, D
                    found.default = option == 0x64
                case 0x6E | 0x4E:  # n, N
                    found.dry = option == 0x6E
                case _:
                    return None
    else:
        return None
    if not rest:
        return None
    database = rest[0]
    if not isinstance(database, bytes):
        return database
    found.database = database
    return found


@dataclass(frozen=True, slots=True)
class _Recipient:
    """The address that is looked up: `before`, what follows `without` in the text, `after`."""

    text: bytes | Free
    before: bytes
    without: bytes
    after: bytes

    def address(self, text: bytes) -> bytes:
        return self.before + text[len(self.without) :] + self.after

    def texts(self, users: Names, middle: bytes) -> Names:
        """The texts whose address has, in front of its last `@`, one of `users`; `middle` stands before that."""
        if not self.before and not self.without and not middle:
            return users
        start = len(self.before)
        return Names(
            self.without + user[start : len(user) - len(middle)]
            for user in users.beginning_with(self.before)
            if len(user) >= start + len(middle) and user.endswith(middle)
        )


def _recipient(options: _Options, situation: Situation) -> _Recipient | Effect:
    """The recipient, or the effect of its variables being unset or unknown."""
    variables = situation.variables
    after = b""
    if options.default:
        text = variables.get(b"DEFAULT", variables.get(b"EXT"))
        host = variables.get(b"HOST")
        if text is None or host is None:
            return _refuses("fastforward without its variables")
        spelled = host if isinstance(host, bytes) else lowered(host)
        if spelled is None:
            return _unknown(host)
        after = b"@" + spelled
    else:
        text = variables.get(b"RECIPIENT")
        if text is None:
            return _refuses("fastforward without its variables")
    if isinstance(text, bytes):
        return _Recipient(text, b"", b"", after)
    if isinstance(text, Free) and after:
        return _Recipient(text, b"", b"", after.lower())
    if isinstance(text, Derived):
        after = text.after + after.lower()
        if b"@" in after:
            return _Recipient(text.free, text.before, text.without, after)
    return _unknown(text)


def _refuses(reason: str) -> Effect:
    return Effect(frozenset({100}), Kind.PROGRAM, reason)


def _unknown(text: Text) -> Effect:
    look(text)
    return unknown_effect(UNKNOWN_RECIPIENT, Kind.ALIAS)


class _Database:
    """An open database, and what a run of fastforward comes to in it."""

    def __init__(
        self, database: CdbFile, path: bytes, options: _Options, situation: Situation, execute: Runner
    ) -> None:
        self._database = database
        self._path = path
        self._passes = options.passes
        self._dry = options.dry
        self._situation = situation
        self._execute = execute
        self._ran: dict[bytes, Effect] = {}
        self.whole = False
        """Whether `check` has found nothing wrong."""

    def check(self) -> Effect | None:
        """Reports a file that is no whole cdb, as far as its first bytes show; its effect where it holds nothing."""
        try:
            next(self._database.records(), None)
        except (DamagedCdb, OSError) as trouble:
            effect = self._trouble(trouble)
            return effect if not self._database.size else None
        self.whole = True
        return None

    def effect(self, address: bytes, steps: Steps) -> Effect:
        """What becomes of one recipient (fastforward.c: findtarget, doorigrecip)."""
        try:
            if self._situation.variables.get(b"SENDER", b"?") not in (b"", b"#@[]"):
                # What the owner is does not matter, but the look-up may run into damage.
                self._find(b"?", address)
            found = self._find(b":", address)
            if found is not None:
                return self._found(address, *found, steps)
        except TooMuch:
            return self._tangled()
        except (DamagedCdb, OSError) as trouble:
            return self._trouble(trouble)
        return self._missing()

    def _find(self, mark: bytes, address: bytes) -> tuple[bytes, str] | None:
        user, at, host = address.rpartition(b"@")
        keys = [(address, EXACT), (at + host, WHOLE_DOMAIN), (user + at, EVERY_DOMAIN)]
        for key, which in keys if at else keys[:1]:
            data = self._database.get(mark + key.lower())
            if data is not None:
                return data, which
        return None

    def effects(self, recipient: _Recipient, aliases: Callable[[], Aliases]) -> Effects:
        """What becomes of every recipient."""
        try:
            return self._effects(recipient, aliases())
        except TooMuch:
            return Effects({}, {b"": self._tangled()})
        except (DamagedCdb, OSError) as trouble:
            # A look-up may well find that nothing is there, but which ones do is not to be told by names.
            return Effects({}, {b"": replace(self._trouble(trouble), widened=True)})

    def _effects(self, recipient: _Recipient, aliases: Aliases) -> Effects:
        steps = Steps()
        groups: dict[Effect, list[Names]] = {}
        empty = Names(())
        middle, _, host = recipient.after.rpartition(b"@")

        def enter(plain: Names, odd: Iterable[bytes], which: str) -> None:
            if len(plain):
                groups.setdefault(self._success(which), []).append(plain)
            found: dict[Effect, list[bytes]] = {}
            for text in odd:
                found.setdefault(self.effect(recipient.address(text), steps), []).append(text)
            for effect, texts in found.items():
                groups.setdefault(effect, []).append(Names(texts))

        plain = recipient.texts(aliases.plain.get(host, empty), middle)
        odd = recipient.texts(aliases.odd.get(host, empty), middle)
        enter(plain, odd, EXACT)
        data = self._database.get(b":@" + host)
        if data is not None:
            below = self._found(recipient.address(recipient.without), data, WHOLE_DOMAIN, steps)
        else:
            below = self._missing()
            taken = {*plain, *odd}
            anywhere = recipient.texts(aliases.plain.get(b"", empty), middle)
            enter(
                _but(anywhere, taken),
                _but(recipient.texts(aliases.odd.get(b"", empty), middle), taken),
                EVERY_DOMAIN,
            )
        return Effects({effect: Names.union(parts) for effect, parts in groups.items()}, {b"": below})

    def _found(self, address: bytes, data: bytes, which: str, steps: Steps) -> Effect:
        gathering = Gathering(self._database, self._situation.look, self._shell, self._start, steps)
        found = gathering.run(address, data)
        leads = self._situation.leads
        if leads is not None:
            leads.varies |= which != WHOLE_DOMAIN
            if self._dry:
                leads.elsewhere(DRY.reason)
            for one in gathering.forwards:
                leads.forward(one, (self._path, 0))
        success = self._success(which)
        statuses = found.ended | (success.statuses if found.goes_on else frozenset())
        approximate = found.approximate and len(statuses) > 1
        return Effect(
            statuses,
            found.kind if found.goes_on else Kind.PROGRAM,
            found.reason if approximate or not found.goes_on else which if found.plain else which + BY_OTHERS,
            approximate,
            file=found.file or self._path,
        )

    def _shell(self, line: bytes) -> Effect:
        if self._dry:
            return DRY
        if line not in self._ran:
            self._ran[line] = self._situation.shell(line)
        return self._ran[line]

    def _start(self, words: Sequence[Text]) -> Effect:
        return DRY if self._dry else self._execute(words)

    def _success(self, which: str) -> Effect:
        return Effect(frozenset({99 if self._passes else 0}), Kind.ALIAS, which, file=self._path)

    def _missing(self) -> Effect:
        return Effect(frozenset({0 if self._passes else 100}), Kind.PROGRAM, UNFOUND, file=self._path)

    def _tangled(self) -> Effect:
        return replace(unknown_effect(TANGLED, Kind.ALIAS), file=self._path)

    def _trouble(self, trouble: DamagedCdb | OSError) -> Effect:
        """The effect of a database that could not be read to its end."""
        if isinstance(trouble, OSError):
            self._situation.look.failed(self._path, f"{UNREADABLE}: {os.strerror(trouble.errno or errno.EIO)}")
            return Effect(frozenset({111}), Kind.PROGRAM, UNREADABLE, file=self._path)
        self._situation.look.suspect(self._path, trouble.damage)
        return Effect(frozenset({111}), Kind.PROGRAM, DAMAGED, file=self._path)


def _but(names: Names, taken: set[bytes]) -> Names:
    """The names that are not taken; the very same object where none is, since there may be a million."""
    if not taken or not any(name in taken for name in names):
        return names
    return Names(name for name in names if name not in taken)


class FastForward:
    """`fastforward [-nNpPdD] data.cdb` (fastforward.c: main).

    Ends with 0 (99 with -p) where it finds the recipient, with 100 (0 with -p) where it does
    not, and with what a program of the alias says before it gets so far.
    """

    names: tuple[bytes, ...] = (b"fastforward",)
    tells_leads = True

    def __init__(self) -> None:
        self._kept: dict[tuple[bytes, Status], Aliases | str] = {}
        self._whole: tuple[bytes, Status] | None = None

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """Finds the recipient among the aliases."""
        options = _options(words[1:])
        if options is None:
            return _refuses("usage of fastforward")
        if not isinstance(options, _Options):
            look(options)
            return unknown_effect(UNKNOWN_WORD, Kind.ALIAS)
        name = options.database or b""
        sight = situation.look
        path = sight.path(name)
        before = sight.status(name)
        database = sight.cdb(name)
        if not isinstance(database, CdbFile):
            return Effect(frozenset({111}), Kind.PROGRAM, UNREADABLE, file=path)
        aliases = _Database(database, path, options, situation, execute)
        # Its first records are decoded by the thousand: once for all addresses that are asked in a row.
        if (path, before) != self._whole:
            empty = aliases.check()
            if empty is not None:
                return empty
            self._whole = (path, before) if aliases.whole and isinstance(before, Status) else None
        recipient = _recipient(options, situation)
        if isinstance(recipient, Effect):
            return recipient

        def one(text: bytes) -> Effect:
            return aliases.effect(recipient.address(text), Steps())

        def every() -> Effects:
            after = sight.status(name)
            key = (path, after) if isinstance(after, Status) and after == before else None
            return aliases.effects(recipient, lambda: self._aliases(database, key))

        command: Hashable = (b"fastforward", tuple(words), recipient.before, recipient.without, recipient.after)
        return effect_of(recipient.text, command, one, every, UNKNOWN_RECIPIENT)

    def _aliases(self, database: CdbFile, key: tuple[bytes, Status] | None) -> Aliases:
        known = self._kept.pop(key, None) if key is not None else None
        known = known or _read(database)
        if key is not None:
            self._kept[key] = known
            while len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        if isinstance(known, Aliases):
            return known
        raise TooMuch if known == TANGLED else DamagedCdb("", known)


def _read(database: CdbFile) -> Aliases | str:
    """What can be told of a database once and for all: its aliases, or why there are none."""
    try:
        return read_aliases(database)
    except TooMuch:
        return TANGLED
    except DamagedCdb as trouble:
        return trouble.damage
