"""vdeliver, which delivers to the virtual users of vmailmgr (vdeliver.cc).

It takes the whole extension as the name of a user of `passwd.cdb`, and where there is none
the default user.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rcptgen.programs.vmailmgr_table import Damaged, Record, Table
from rcptgen.qmail.leads import Leads
from rcptgen.qmail.look import Look
from rcptgen.qmail.model import SIGNALLED, Effect, Effects, Free, Runner, Situation, Text, effect_of, unknown_effect
from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind
from rcptgen.source.tree import FailedForNow, Regular, Status

SETTINGS = (b".vmailmgr", b"/etc/vmailmgr")
"""Where settings are looked for; the first that says something counts (configrc.cc)."""

MOST_CHECKED = 20_000
"""Mailboxes of one table that are looked at; of more than that all are taken to be there."""

MOST_SCRIPT = 1 << 14
LONGEST_ADDRESS = 1002
"""qmail-queue.c (ADDR)."""

_NEEDED = (b"USER", b"EXT", b"HOST", b"SENDER", b"UFLINE", b"RPLINE", b"DTLINE", b"HOME")
_PLAIN = re.compile(rb"[A-Za-z0-9_./:,+@% \t-]+")
_RESERVED = frozenset(b"if then elif else fi case esac for while until do done in function select time coproc".split())
_LETTERS = b"DFRdfrh"
_LONG = (b"no-predeliver", b"no-postdeliver", b"quiet", b"help")
_UNKNOWN_USER = Effect(frozenset({100}), Kind.PROGRAM, "no such virtual user")
_EXPIRED = Effect(frozenset({100}), Kind.PROGRAM, "the virtual user has expired")
_NOTHING = Effect(frozenset({0}), Kind.PROGRAM, "nothing is run")


class VDeliver:
    """`vdeliver [options]`."""

    names: tuple[bytes, ...] = (b"vdeliver",)
    tells_leads = True

    def __init__(self, qmail: bytes = b"/var/qmail") -> None:
        self._qmail = qmail

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """What becomes of mail for the virtual user that $EXT names."""
        for word in words:
            if isinstance(word, Free):
                word.opaque = True
        known = [word for word in words if isinstance(word, bytes)]
        if len(known) != len(words):
            return unknown_effect("options of vdeliver that are not known")
        options = _options(known)
        if isinstance(options, int):
            return _ends(options, "usage of vdeliver")
        home = situation.variables.get(b"HOME")
        if home is None:
            return _ends(1, "vdeliver without a home")
        if any(name not in situation.variables for name in _NEEDED):
            return _ends(100, "vdeliver without its variables")
        if not isinstance(home, bytes):
            return unknown_effect("the home of vdeliver")
        domain = _Domain.open(situation, home, self._qmail, options)
        if isinstance(domain, Effect):
            return domain
        key = tuple(known)
        return effect_of(situation.variables[b"EXT"], key, domain.one, domain.every, "a virtual user")


def _ends(status: int, reason: str) -> Effect:
    return Effect(frozenset({status}), Kind.PROGRAM, reason)


def _options(words: Sequence[bytes]) -> frozenset[bytes] | int:
    """The long options given, or the status of the usage (main.cc: parse_args)."""
    given: set[bytes] = set()
    at = 1
    while at < len(words) and words[at].startswith(b"-"):
        word = words[at]
        at += 1
        if word in (b"-", b"--"):
            break
        if word.startswith(b"--"):
            if word[2:] not in _LONG:
                return 1
            given.add(word[2:])
        elif word[1:].strip(_LETTERS):
            return 1
        elif b"h" in word:
            given.add(b"help")
    if b"help" in given:
        return 0
    return 1 if at < len(words) else frozenset(given)


@dataclass(frozen=True, slots=True)
class _Domain:
    """A domain's table and settings, open."""

    look: Look
    home: bytes
    qmail: bytes
    table: Table
    default: bytes
    before: Effect
    """What the programs before the delivery end with: 0 goes on."""
    after: Effect
    now: int
    leads: Leads | None
    host: Text

    @classmethod
    def open(cls, situation: Situation, home: bytes, qmail: bytes, options: frozenset[bytes]) -> _Domain | Effect:
        """The domain of a home; an effect where it cannot be opened at all."""
        look = situation.look
        found = look.accessible(home, os.X_OK)
        if not isinstance(found, Status) or not stat.S_ISDIR(found.mode):
            return _ends(1, "the home of vdeliver cannot be entered")
        name = _setting(look, home, b"password-file", b"passwd") + b".cdb"
        table = Table.open(look, os.path.join(home, name))
        if isinstance(table, FailedForNow):
            return _ends(111, "the table cannot be read for now")
        before = after = _NOTHING
        if b"no-predeliver" not in options:
            before = _programs(situation, home, b"vdeliver-predeliver")
        if b"no-postdeliver" not in options:
            after = _programs(situation, home, b"vdeliver-postdeliver")
        default = _setting(look, home, b"default-username", b"+")
        host = situation.variables[b"HOST"]
        return cls(look, home, qmail, table, default, before, after, int(time.time()), situation.leads, host)

    def one(self, text: bytes) -> Effect:
        """See cli_main."""
        try:
            found = self.table.get(text) if text else None
            if found is None:
                return self._default()
        except Damaged as why:
            return self._told(_ends(111, str(why)))
        if self.leads is not None:
            self.leads.varies = True
            self._tell(found, self.leads)
        return self._effect(found, Kind.MAILBOX, self._works(found))

    def _default(self) -> Effect:
        """What becomes of all that is not in the table; raises Damaged."""
        found = self.table.get(self.default)
        if self.leads is not None and found is not None:
            self._tell(found, self.leads)
        return self._told(_UNKNOWN_USER) if found is None else self._effect(found, Kind.CATCHALL, self._works(found))

    def _tell(self, record: Record, leads: Leads) -> None:
        """Where the mail of a user goes."""
        if record.mailbox or self.before.statuses == {99}:
            leads.elsewhere("a virtual user")
        for one in record.forwards.split(b"\0") if record.forwards else ():
            if b"@" not in one and isinstance(self.host, bytes):
                one += b"@" + self.host
            # The name of this host completes others.
            leads.forward(one if b"@" in one[:-1] else None, (self.table.path, 0))

    def every(self) -> Effects:
        """The same of all names."""
        # Millions of users are of few sorts.
        known: dict[tuple[bool, ...], Effect] = {}
        groups: dict[Effect, list[bytes]] = {}
        checked = 0
        for name, record in self.table.records():
            checked += bool(record.mailbox)
            works = checked > MOST_CHECKED or self._works(record)
            sort = (record.expiry < self.now, bool(record.mailbox), bool(record.forwards), works)
            effect = known.get(sort) or known.setdefault(sort, self._effect(record, Kind.MAILBOX, works))
            groups.setdefault(effect, []).append(name)
        if self.table.damaged:
            names = [name for group in groups.values() for name in group]
            exact = {name: self.one(name) for name in names[:MOST_CHECKED]}
            return Effects.of(exact, {b"": replace(self.one(b"\0"), widened=True)})
        return Effects({effect: Names(group) for effect, group in groups.items()}, {b"": self.one(b"\0")})

    def _told(self, effect: Effect) -> Effect:
        return replace(effect, file=self.table.path)

    def _effect(self, record: Record, kind: Kind, works: bool) -> Effect:
        """What becomes of mail for a user who is there; `works`: mailbox and forwards can be written to."""
        if record.expiry < self.now:
            return self._told(_EXPIRED)
        if not works:
            delivery = _ends(111, "no maildir, or a forward that cannot be queued")
        elif record.mailbox:
            delivery = Effect(frozenset({0}), kind, "a virtual user")
        elif record.forwards:
            kind = kind if kind is Kind.CATCHALL else Kind.ALIAS
            delivery = Effect(frozenset({0}), kind, "an alias of vmailmgr")
        else:
            delivery = Effect(frozenset({0}), Kind.DISCARD, "a virtual user without mailbox and forwards")
        if self.before.statuses == {99}:
            delivery = replace(delivery, kind=Kind.DISCARD)
        stored = _then(delivery, self.after)
        return self._told(replace(_then(self.before, stored), kind=delivery.kind))

    def _works(self, record: Record) -> bool:
        if record.expiry < self.now or (record.mailbox and not self._writable(record.mailbox)):
            return False
        for one in record.forwards.split(b"\0") if record.forwards else ():
            if len(one) > LONGEST_ADDRESS or (one.find(b"@") == len(one) - 1 and one and not self._me()):
                return False
        return True

    def _writable(self, mailbox: bytes) -> bool:
        """Whether a message can be put into a maildir; vdeliver tries for ever where tmp is not writable."""
        for part in (b"tmp", b"new"):
            found = self.look.accessible(os.path.join(self.home, mailbox, part), os.W_OK | os.X_OK)
            if not isinstance(found, Status) or not stat.S_ISDIR(found.mode):
                return False
        return True

    def _me(self) -> bool:
        """Whether there is a name for a forward without one (read_me)."""
        root = _setting(self.look, self.home, b"qmail-root", self.qmail)
        found = self.look.read(os.path.join(root, b"control/me"))
        return isinstance(found, Regular) and not found.data.startswith(b"\n") and bool(found.data)


def _setting(look: Look, home: bytes, name: bytes, default: bytes) -> bytes:
    """The first line of the first file of that name that has one (config_read.cc)."""
    for directory in SETTINGS:
        found = look.read(os.path.join(home, directory, name))
        if isinstance(found, Regular):
            line = found.data.partition(b"\n")[0].partition(b"\0")[0].strip(b" \t\n\v\f\r")
            if line:
                return line
    return default


def _programs(situation: Situation, home: bytes, name: bytes) -> Effect:
    """What the administrator's program and then the domain's end with (exec.cc: execute)."""
    result = _NOTHING
    for directory in reversed(SETTINGS):
        path = os.path.join(home, directory, name)
        found = situation.look.status(path)
        if isinstance(found, Status) and found.mode & 0o111:
            result = _then(result, _script(situation, path))
    return result


def _script(situation: Situation, path: bytes) -> Effect:
    """What a program ends with: a small script for the shell can be told, unless it looks at any variable."""
    unknown = Effect(frozenset({0, 99, 100, 111}), Kind.PROGRAM, "a program of vmailmgr", approximate=True)
    allowed = situation.look.accessible(path, os.X_OK)
    if not isinstance(allowed, Status):
        return _ends(127, "a program of vmailmgr that cannot be run")
    found = situation.look.read(path, MOST_SCRIPT)
    if not isinstance(found, Regular):
        return _ends(127, "a program of vmailmgr that cannot be run") if stat.S_ISDIR(allowed.mode) else unknown
    commands = _commands(found.data)
    if commands is None:
        return unknown
    told = situation.shell(commands)
    statuses = {255 if one == SIGNALLED else one for one in told.statuses}
    return Effect(frozenset(statuses), Kind.PROGRAM, "a program of vmailmgr", told.approximate)


def _commands(script: bytes) -> bytes | None:
    """A script that does nothing but run commands with known words, as one line; None for any other."""
    first, *lines = script.split(b"\n")
    if first.rstrip(b" \t") not in (b"#!/bin/sh", b"#! /bin/sh"):
        return None
    kept = [line for line in map(bytes.strip, lines) if line and not line.startswith(b"#")]
    # Variables that vdeliver sets are not known here, and lines that belong together are not told from others.
    if any(not _PLAIN.fullmatch(line) or line.split()[0] in _RESERVED for line in kept):
        return None
    return b"; ".join(kept)


def _then(first: Effect, second: Effect) -> Effect:
    """What two steps end with, of which the second is taken where the first has gone well."""
    if 0 not in first.statuses:
        return first
    statuses = first.statuses - {0} | second.statuses
    told = first if second.reason == _NOTHING.reason else second
    return replace(told, statuses=statuses, approximate=first.approximate or second.approximate)
