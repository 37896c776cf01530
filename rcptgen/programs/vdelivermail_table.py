"""vdelivermail for all names of a domain at once; what each comes to says vdelivermail_one.

Most names of a large domain come to the same, and are never taken apart: they stay the
joined names that the back end gave.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from rcptgen.programs.vdelivermail_lines import BOUNCE, DEFER
from rcptgen.programs.vdelivermail_one import CRASH, INVALID, LOOP, Process, ends
from rcptgen.programs.vdelivermail_users import DOTQMAIL, dotqmail_names
from rcptgen.qmail.model import Effect, Effects
from rcptgen.rules.names import SEPARATOR, Names
from rcptgen.source.tree import Status
from rcptgen.vpopmail.assign import LONGEST_NAME
from rcptgen.vpopmail.backend import Crash, Noticed, Unavailable, User
from rcptgen.vpopmail.packed import pack
from rcptgen.vpopmail.text import all_valid, is_domain_valid, is_username_valid

MOST_LOOPS = 1000
"""Addresses in delivery lines that are tried for being the one in $DTLINE."""

MOST_FILES = 1000
"""Dot-qmail files that are tried for extensions of an instruction's directory."""

LONG_DIRECTORY = 141
"""From here on there is no room for a file name (vdelivermail_lines.LONGEST_FILE_NAME)."""

_DEFAULT = b"default"
_DOTQMAIL_DASH = DOTQMAIL + b"-"


def every(process: Process) -> Effects:
    """What becomes of mail for every extension.

    Names of which the 156 bytes that vpopmail looks at are one user's go by a prefix rule.
    """
    try:
        if not is_domain_valid(process.host):
            return Effects({}, {b"": ends(BOUNCE, INVALID)})
        if process.dtline.is_always(process.assigned.name):
            return Effects({}, {b"": ends(BOUNCE, LOOP)})
        return _Enumeration(process).effects()
    except Unavailable as error:
        effect = ends(DEFER, error.reason, error.source)
        if error.noticed is not Noticed.ALL:
            # Nothing of this is published; whoever asks all the same is told of no refusal.
            effect = min(effect, process.unnoticed(error, [DOTQMAIL], lambda line: False), key=_order)
        return Effects({}, {b"": for_some(effect)})
    except Crash:
        return Effects({}, {b"": for_some(ends(DEFER, CRASH))})


class _Enumeration:
    """One run through a domain's users and aliases."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._look = process.look
        self._ext = process.settings.qmail_ext
        self._file = b""
        self._whole: dict[Effect, list[Names]] = {}
        self._exact: dict[bytes, Effect] = {}
        self._prefixes: dict[bytes, Effect] = {}
        self._extended: dict[bytes, Effect] = {}
        self._alias_exact: dict[bytes, Effect] = {}
        self._alias_prefixes: dict[bytes, Effect] = {}
        self._taken_out: set[bytes] = set()
        self._looping: set[bytes] = set()
        self._made: Effect | None = None
        """The effect for whoever gets a directory where the domain has nothing yet: always the same."""

    def effects(self) -> Effects:
        """All of it."""
        process = self._process
        unknown = self._unknown()
        self._aliases()
        domain = process.domain
        if domain is not None:
            users = process.backend.users(self._look, domain)
            self._file = users.file
            plain, others, crashes = dict(users.plain), users.others, users.crashes
            del users
            for parent in list(plain):
                self._below(parent, plain.pop(parent))
            for user in filter(lambda user: is_username_valid(user.name), others):
                self._user(user)
            for name in filter(is_username_valid, crashes):
                self._put(name, ends(DEFER, CRASH, self._file))
                if self._ext and b"-" not in name:
                    self._put_prefix(name + b"-", ends(DEFER, CRASH, self._file))
        self._extend()
        self._shadowed()
        for name in self._looping:
            self._exact[name] = process.one(name)
            self._taken_out.add(name)
        return Effects(self._groups(), {**self._prefixes, b"": unknown})

    # -- names and prefixes -----------------------------------------------------------------------

    def _put(self, name: bytes, effect: Effect) -> None:
        """The effect of one name; of all that are cut to it where it is as long as names can be."""
        if len(name) < LONGEST_NAME:
            self._exact[name] = effect
        elif len(name) == LONGEST_NAME:
            self._prefixes[name] = effect

    def _put_prefix(self, prefix: bytes, effect: Effect) -> None:
        if len(prefix) <= LONGEST_NAME:
            self._prefixes[prefix] = for_some(effect)

    def _loops(self, line: bytes) -> bool:
        """Notes for which name a line would be the address in $DTLINE, and takes it for another."""
        process = self._process
        fixed = process.dtline.fixed
        if fixed is not None:
            return line.lower() == fixed
        name = process.dtline.extension_of(line)
        if name is not None and len(name) < LONGEST_NAME and len(self._looping) < MOST_LOOPS:
            self._looping.add(name)
        return False

    def _unknown(self) -> Effect:
        """The effect of the instruction, for whoever is no user."""
        process = self._process
        if process.dtline.fixed is not None:
            name, at, domain = process.dtline.fixed.rpartition(b"@")
            if at and domain == process.assigned.name.lower():
                self._looping.add(name)
        found = [process.not_found([DOTQMAIL], self._loops)]
        if self._ext and process.instruction.startswith(b"/"):
            files = [name for name in self._entered(process.instruction) if name.startswith(_DOTQMAIL_DASH)]
            found += [process.not_found([name, DOTQMAIL], self._loops) for name in sorted(files)[:MOST_FILES]]
        return for_some(min(found, key=_order))

    def _entered(self, directory: bytes) -> Iterable[bytes]:
        """The names in a directory, or in the working directory where it cannot be entered."""
        delivery = self._process.delivery(self._loops)
        delivery.changes_to(directory)
        listing = self._look.names(delivery.directory)
        return listing if isinstance(listing, dict) else ()

    # -- users ------------------------------------------------------------------------------------

    def _below(self, parent: bytes, names: Names) -> None:
        """Users whose directories are their names below `parent`."""
        process = self._process
        joined = names.joined
        if joined is None or names.odd or not all_valid(joined):
            valid = [name for piece in names.stretches() for name in piece if is_username_valid(name)]
            names = pack([SEPARATOR.join(valid)] if valid else [])
            joined = names.joined
            if joined is None:
                return
        room, listing = LONGEST_NAME - 1, None
        if not process.mailboxes.is_granted(parent + b"/x"):
            listing = process.mailboxes.names(parent)
            room = min(room, max(LONG_DIRECTORY - len(parent) - 1, 0))
        there: Mapping[bytes, object] = listing if isinstance(listing, dict) else {}
        if there and (b"/" in joined or b"." in names or b".." in names):
            # A listing does not say whether these are there.
            unlisted = (name for piece in names.stretches() for name in piece if b"/" in name or name in (b".", b".."))
            there = {**there, **dict.fromkeys(unlisted)}
        alone = _alone(names, there, room)
        effect = self._made if process.mailboxes.is_missing(parent) else None
        if alone:
            apart = set(alone)
            some = next((name for piece in names.stretches() for name in piece if name not in apart), None)
        else:
            apart, some = set(), joined.partition(SEPARATOR)[0]
        if some is None:
            effect = None
        elif effect is None:
            effect = self._told(process.delivered(self._plain(parent, some), [DOTQMAIL], self._loops))
            if process.mailboxes.is_missing(parent):
                self._made = effect
        for name in alone:
            user = self._plain(parent, name)
            own = self._told(process.delivered(user, self._files(name), self._loops))
            if len(name) < LONGEST_NAME and (effect is None or own == effect):
                # Where all of them have directories, they still stay together.
                effect = own
                apart.discard(name)
            else:
                self._put(name, own)
            if self._ext:
                self._extensions(user)
        self._taken_out |= apart
        if effect is not None:
            self._whole.setdefault(effect, []).append(names)
            if self._ext:
                known = set(alone)
                for piece in names.stretches():
                    for name in piece:
                        if b"-" not in name and name not in known:
                            self._put_prefix(name + b"-", effect)

    def _plain(self, parent: bytes, name: bytes) -> User:
        return User(name, 0, parent + b"/" + name, self._file)

    def _files(self, name: bytes) -> list[bytes]:
        """The dot-qmail files of a user, when mail is for the whole name."""
        extension = name.partition(b"-")[2] if self._ext else b""
        return dotqmail_names(extension.replace(b".", b":"))

    def _user(self, user: User) -> None:
        self._put(user.name, self._told(self._process.delivered(user, self._files(user.name), self._loops)))
        if self._ext:
            self._extensions(user)

    def _extensions(self, user: User) -> None:
        """What becomes of mail for NAME-anything where NAME is a user (--enable-qmail-ext)."""
        process, head = self._process, user.name + b"-"
        if b"-" in user.name:
            return

        def put(extension: bytes, *, prefix: bool) -> None:
            tried = [_DOTQMAIL_DASH + extension + _DEFAULT] if prefix else [_DOTQMAIL_DASH + extension]
            tried += dotqmail_names(extension)[1 if extension else 0 :]
            effect = self._told(process.delivered(user, tried, self._loops, by_base=True))
            name = head + extension.replace(b":", b".")
            if prefix:
                self._put_prefix(name, effect)
            elif len(name) < LONGEST_NAME:
                self._extended[name] = effect

        put(b"", prefix=True)
        plain = self._told(process.delivered(user, [DOTQMAIL], self._loops, by_base=True))
        if len(head) < LONGEST_NAME:
            self._extended[head] = plain
        if not user.directory or not isinstance(self._look.status(user.directory), Status):
            return
        for file in sorted(self._entered(user.directory)):
            extension = file.removeprefix(_DOTQMAIL_DASH)
            spelled = extension.replace(b":", b".")
            if extension == file or b"." in extension or extension != extension.lower() or not extension:
                continue
            if not is_username_valid(spelled):
                continue
            prefix = extension.removesuffix(_DEFAULT)
            if prefix != extension and prefix.endswith(b"-"):
                put(prefix, prefix=True)
            put(extension, prefix=False)

    def _extend(self) -> None:
        """Adds the extensions that have files of their own, unless they are users themselves."""
        if self._extended:
            for parts in self._whole.values():
                for part in parts:
                    for piece in part.stretches():
                        for name in self._extended.keys() & set(piece):
                            del self._extended[name]
            self._exact = {**self._extended, **self._exact}

    def _told(self, effect: Effect) -> Effect:
        """The effect as it is told for the whole table: not for each file of a user one of its own."""
        return replace(effect, file=self._file, line=0) if effect.file != self._file or effect.line else effect

    # -- aliases ----------------------------------------------------------------------------------

    def _aliases(self) -> None:
        process = self._process
        rows = process.backend.aliases(self._look, process.aliases_of)
        for alias, lines in rows.lines.items():
            if not lines:
                continue
            prefix = alias.removesuffix(_DEFAULT)
            by_default = prefix != alias and prefix.endswith(b"-") and is_username_valid(prefix)
            valid = is_username_valid(alias) and len(alias) <= LONGEST_NAME
            if not by_default and not valid:
                continue
            effect = replace(process.carried_out(lines, self._loops), file=rows.file, line=0)
            below = effect
            if by_default and any(line.startswith(b"|") for line in lines):
                below = replace(process.carried_out(lines, self._loops, some_default=True), file=rows.file, line=0)
            if valid and len(alias) < LONGEST_NAME:
                self._alias_exact[alias] = effect
            elif valid:
                self._alias_prefixes[alias] = effect
            if by_default and len(prefix) <= LONGEST_NAME:
                self._alias_prefixes[prefix] = for_some(below)
            if self._ext and valid and b"-" not in alias and len(alias) < LONGEST_NAME:
                self._alias_prefixes.setdefault(alias + b"-", for_some(effect))

    def _shadowed(self) -> None:
        """Takes away what aliases hide: they are looked up before users."""
        if not self._alias_exact and not self._alias_prefixes:
            return
        heads = tuple(self._alias_prefixes)
        self._exact = {name: effect for name, effect in self._exact.items() if not name.startswith(heads)}
        self._prefixes = {name: effect for name, effect in self._prefixes.items() if not name.startswith(heads)}
        self._exact.update(self._alias_exact)
        self._prefixes.update(self._alias_prefixes)
        self._taken_out |= self._alias_exact.keys()

    # -- the end ----------------------------------------------------------------------------------

    def _groups(self) -> dict[Effect, Names]:
        heads = tuple(self._alias_prefixes)
        single: dict[Effect, list[bytes]] = {}
        for name, effect in self._exact.items():
            single.setdefault(effect, []).append(name)
        groups: dict[Effect, Names] = {}
        for effect in [*self._whole]:
            parts = self._whole.pop(effect)
            names = single.pop(effect, [])
            if len(parts) == 1 and not names and not self._taken_out and not heads:
                groups[effect] = parts[0]
                continue
            joined: list[bytes | bytearray] = [SEPARATOR.join(names)] if names else []
            while parts:
                part = parts.pop()
                if not self._taken_out and not heads:
                    joined.append(part.joined or b"")
                    continue
                for piece in part.stretches():
                    left = [name for name in piece if name not in self._taken_out and not name.startswith(heads)]
                    if left:
                        joined.append(SEPARATOR.join(left))
            groups[effect] = _packed(joined)
        for effect, names in single.items():
            groups[effect] = pack([SEPARATOR.join(names)])
        return {effect: found for effect, found in groups.items() if len(found)}


def _alone(names: Names, there: Mapping[bytes, object], room: int) -> list[bytes]:
    """The names that must be judged one by one: they are there, or longer than there is room for."""
    return [
        name
        for piece in names.stretches()
        if not there.keys().isdisjoint(piece) or max(map(len, piece)) > room
        for name in piece
        if name in there or len(name) > room
    ]


def _packed(joined: list[bytes | bytearray]) -> Names:
    """The names of all parts, which are not kept meanwhile."""
    joined.reverse()
    return pack(joined.pop() for _ in range(len(joined)))


def for_some(effect: Effect) -> Effect:
    """The effect of names among which are some with bytes that vpopmail refuses."""
    return effect if effect.statuses <= {BOUNCE} else replace(effect, widened=True)


def _order(effect: Effect) -> int:
    """Delivered before deferred before refused."""
    if effect.statuses & {0, 99}:
        return 0
    return 1 if effect.statuses - {BOUNCE} else 2
