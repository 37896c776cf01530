"""Where a host starts its servers: run scripts, inetd, xinetd, systemd units, boot scripts; all read as text."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace

from rcptgen.doctor.chains import SERVERS, Chain, Launch, Setting
from rcptgen.doctor.sight import Sight
from rcptgen.doctor.words import Command, Word, commands

SUPERVISED = (
    *(b"/service", b"/etc/service", b"/var/service", b"/run/service", b"/etc/sv", b"/etc/s6/sv", b"/etc/qmail"),
    *(b"/var/qmail/supervise", b"/var/lib/qmail/supervise", b"/var/supervise", b"/var/lib/supervise"),
)
"""Directories of services, each a directory with a run script (daemontools, runit, s6)."""

BOOT = (b"/etc/init.d", b"/etc/rc.d/init.d", b"/etc/rc.d", b"/usr/local/etc/rc.d")
BOOT_FILES = (b"/etc/rc.local", b"/etc/rc.d/rc.local", b"/var/qmail/rc")
UNITS = (b"/etc/systemd/system", b"/usr/local/lib/systemd/system", b"/usr/lib/systemd/system", b"/lib/systemd/system")

MOST_INCLUDED = 3
"""How deep scripts are followed that are read in with a dot, or stand in the place of a server."""

MOST_READ_IN = 64
"""Scripts that one script may read in: one that reads itself in again and again comes to nothing."""

MOST_LAUNCHES = 200
"""Servers that a script, and a host, may start; what more there is, is said not to have been looked at."""

LONGEST_VALUE = 4096
"""Bytes of a variable; a longer one counts as not known, so that doubling it again and again comes to nothing."""

_SPELLED = re.compile(rb"(?:^|[\s/\"'=])(?:" + SERVERS.pattern + rb")(?=[\s\"';&|]|$)", re.MULTILINE)
_VARIABLE = re.compile(rb"([A-Za-z_][A-Za-z0-9_]*)(?:=(.*))?", re.DOTALL)
_NUMBER_OF = re.compile(rb"\s*(?:/usr/bin/|/bin/)?id\s+(-[ug])\s+([A-Za-z0-9_.-]+)\s*")


class Script:
    """A shell script, gone through once from its top; `launches` are the servers it starts."""

    def __init__(self, sight: Sight, path: bytes, start: Launch | None = None) -> None:
        self._sight = sight
        self._start = start or Launch(path, 0, "shell", b"")
        self._variables = dict(self._start.environment)
        self._exported = set(self._variables)
        self._all = False
        self._left = MOST_READ_IN
        self.launches: list[Launch] = []
        self._read(path, 0)

    def _read(self, path: bytes, depth: int) -> None:
        text = self._sight.text(path)
        if text is None:
            return
        found = commands(text, self._value, self._substituted)
        if b"execlineb" in text.partition(b"\n")[0]:
            # One chain, whatever its lines are.
            words = [word for command in found for word in command.words]
            launch = Chain(self._sight, replace(self._start, file=path, line=1, style="execline"), words).launch
            self.launches += [] if launch is None else [launch]
            return
        for command in found:
            if len(self.launches) > MOST_LAUNCHES:
                return
            self._take(command, path, depth)

    def _value(self, name: bytes) -> bytes | None:
        found = self._variables.get(name)
        return None if found is None else found.value

    def _substituted(self, command: bytes) -> bytes | None:
        """What `id -u NAME` writes; nothing is known of other commands."""
        found = _NUMBER_OF.fullmatch(command)
        who = None if found is None else self._sight.account(found[2])
        if found is None or who is None:
            return None
        if who.identity is None:
            return b"0"
        return b"%d" % (who.identity.uid if found[1] == b"-u" else who.identity.gid)

    def _take(self, command: Command, path: bytes, depth: int) -> None:
        words = command.words
        before: dict[bytes, Setting] = {}
        while words and (given := _VARIABLE.fullmatch(words[0].text)) and given[2] is not None:
            before[given[1]] = Setting(given[2] if words[0].known else None, path, command.line)
            words = words[1:]
        if not words:
            for name, setting in before.items():
                self._assign(name, setting)
            return
        first = words[0].text
        if first in (b"export", b"declare", b"typeset"):
            self._export(words[1:], path, command.line)
        elif first == b"unset":
            for word in words[1:]:
                self._variables.pop(word.text, None)
                self._exported.discard(word.text)
        elif first == b"set":
            self._all = any(word.text in (b"-a", b"-ae", b"-ea") for word in words[1:]) or self._all
        elif first in (b".", b"source"):
            if len(words) > 1 and words[1].known and depth < MOST_INCLUDED and self._left:
                self._left -= 1
                included = os.path.normpath(os.path.join(os.path.dirname(path), words[1].text))
                self._read(included, depth + 1)
        elif len(words) < 2 or words[1].text != b"in":  # the words of for and case
            self._launch(words, before, path, command.line)

    def _assign(self, name: bytes, setting: Setting) -> None:
        if setting.value is not None and len(setting.value) > LONGEST_VALUE:
            setting = replace(setting, value=None)
        self._variables[name] = setting
        if self._all:
            self._exported.add(name)

    def _export(self, words: list[Word], path: bytes, line: int) -> None:
        for word in words:
            given = _VARIABLE.fullmatch(word.text)
            if given is None:
                continue
            if given[2] is not None:
                self._assign(given[1], Setting(given[2] if word.known else None, path, line))
            self._exported.add(given[1])

    def _launch(self, words: list[Word], before: dict[bytes, Setting], path: bytes, line: int) -> None:
        if not any(SERVERS.fullmatch(os.path.basename(word.text)) for word in words):
            return
        exported = {name: one for name, one in self._variables.items() if name in self._exported}
        kept = {name: one for name, one in self._variables.items() if name not in self._exported}
        given = {**exported, **before}
        begun = replace(
            self._start, file=path, line=line, style="shell", environment=given, unexported=kept, directory=b""
        )
        found = Chain(self._sight, begun, words).launch
        if found is not None:
            self.launches.append(found)


def launches(sight: Sight) -> Iterator[Launch]:
    """Every SMTP server that the host starts, each place once; scripts in a server's place are followed."""
    for number, found in enumerate(_launches(sight)):
        if number == MOST_LAUNCHES:
            sight.failed[found.file] = f"more than {MOST_LAUNCHES} servers are started"
            return
        yield found


def _launches(sight: Sight) -> Iterator[Launch]:
    seen: set[tuple[int, int]] = set()
    for path in _scripts(sight):
        status = sight.status(path)
        if status is None or (status.device, status.inode) in seen:
            continue
        seen.add((status.device, status.inode))
        for found in Script(sight, path).launches:
            yield from _followed(sight, found)
    for made in (_inetd, _xinetd, _systemd):
        for found in made(sight):
            yield from _followed(sight, found)


def _followed(sight: Sight, launch: Launch, depth: int = 0) -> Iterator[Launch]:
    """The launch itself, or those of the script that stands in the server's place."""
    text = sight.text(launch.program) if depth < MOST_INCLUDED and launch.program.startswith(b"/") else None
    inner = Script(sight, launch.program, launch).launches if text is not None and text.startswith(b"#!") else []
    inner = [one for one in inner if one.program != launch.program]
    if not inner:
        yield launch
    for one in inner:
        yield from _followed(sight, one, depth + 1)


def _scripts(sight: Sight) -> Iterator[bytes]:
    for directory in dict.fromkeys((*SUPERVISED, sight.qmail + b"/supervise")):
        for name in sight.names(directory):
            yield directory + b"/" + name + b"/run"
    for directory in BOOT:
        for name in sight.names(directory):
            if _SPELLED.search(sight.text(directory + b"/" + name) or b""):
                yield directory + b"/" + name
    yield from BOOT_FILES


def _inetd(sight: Sight) -> Iterator[Launch]:
    """Lines of inetd.conf: service, type, protocol, wait, account, program, its name and arguments."""
    for file in (b"/etc/inetd.conf", *(b"/etc/inetd.d/" + name for name in sight.names(b"/etc/inetd.d"))):
        for number, line in sight.lines(file):
            words = line.split()
            if line.startswith(b"#") or len(words) < 7:
                continue
            user, _, group = words[4].replace(b".", b":").partition(b":")
            begun = Launch(file, number, "inetd", b"", who=sight.account(user, group), port=words[0])
            # Its own name stands in front of the arguments.
            found = Chain(sight, begun, [Word(one) for one in [words[5], *words[7:]]]).launch
            if found is not None:
                yield found


_XINETD = re.compile(rb"\bservice\s+(\S+)\s*\{([^{}]*)\}")


def _xinetd(sight: Sight) -> Iterator[Launch]:
    """Sections of xinetd: `service smtp { user = ... server = ... server_args = ... env = NAME=VALUE }`."""
    for file in (b"/etc/xinetd.conf", *(b"/etc/xinetd.d/" + name for name in sight.names(b"/etc/xinetd.d"))):
        text = sight.text(file) or b""
        for section in _XINETD.finditer(text):
            values: dict[bytes, list[bytes]] = {}
            for line in section[2].split(b"\n"):
                key, equals, value = line.strip().partition(b"=")
                if equals and not key.startswith(b"#"):
                    values.setdefault(key.rstrip(b" \t+-"), []).extend(value.split())
            number = text.count(b"\n", 0, section.start()) + 1
            user, group = (b"".join(values.get(key, [])) for key in (b"user", b"group"))
            begun = Launch(file, number, "xinetd", b"", who=sight.account(user, group), port=section[1])
            for one in values.get(b"env", []):
                name, _, value = one.partition(b"=")
                begun.environment[name] = Setting(value, file, number)
            words = values.get(b"server", [])[:1] + values.get(b"server_args", [])
            found = Chain(sight, begun, [Word(one) for one in words]).launch
            if found is not None and values.get(b"disable") != [b"yes"]:
                yield found


def _systemd(sight: Sight) -> Iterator[Launch]:
    """Services of systemd, the drop-ins beside them included; those of a directory hide their namesakes further on."""
    seen: set[bytes] = set()
    for directory in UNITS:
        for name in sight.names(directory):
            if name.endswith(b".service") and name not in seen:
                seen.add(name)
                yield from _unit(sight, directory + b"/" + name, name)


def _unit(sight: Sight, path: bytes, name: bytes) -> Iterator[Launch]:
    drop_ins = [
        each + b"/" + name + b".d/" + one
        for each in reversed(UNITS)
        for one in sight.names(each + b"/" + name + b".d")
        if one.endswith(b".conf")
    ]
    begun = Launch(path, 0, "systemd", b"")
    started: list[tuple[bytes, int, bytes]] = []
    user = group = b""
    for file in (path, *drop_ins):
        for number, key, value in _assignments(sight, file):
            if key == b"ExecStart":
                started = [*started, (file, number, value)] if value else []
            elif key == b"User":
                user = value
            elif key == b"Group":
                group = value
            elif key in (b"Environment", b"EnvironmentFile"):
                _variables(sight, begun, file, number, key, value)
    if not any(_SPELLED.search(value) for _, _, value in started):
        return
    if user:
        begun.who = sight.account(user, group)
    for file, number, value in started:
        begun.file, begun.line = file, number
        found = Chain(sight, begun, [Word(one, b"$" not in one) for one in _split(value.lstrip(b"-@:+!"))]).launch
        if found is not None:
            yield found


def _assignments(sight: Sight, file: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Keys and values of a unit's [Service] section; lines that end in a backslash go on."""
    inside = False
    held: list[bytes] = []
    begun = 0
    for number, line in enumerate((sight.text(file) or b"").split(b"\n"), 1):
        begun = begun if held else number
        if line.endswith(b"\\"):
            held.append(line[:-1])
            continue
        whole, held = b" ".join([*held, line]).strip(), []
        if whole.startswith(b"["):
            inside = whole == b"[Service]"
        elif inside and not whole.startswith((b"#", b";")) and b"=" in whole:
            key, _, value = whole.partition(b"=")
            yield begun, key.strip(), value.strip()


def _variables(sight: Sight, launch: Launch, file: bytes, number: int, key: bytes, value: bytes) -> None:
    if key == b"Environment":
        given = [(file, number, one) for one in _split(value)]
    else:
        named = value.lstrip(b"-")
        given = [(named, at, one) for at, line in sight.lines(named) if line[:1] not in b"#;" for one in _split(line)]
    if not value:
        launch.environment.clear()
    for where, line_number, one in given:
        name, equals, text = one.partition(b"=")
        if equals:
            launch.environment[name] = Setting(text, where, line_number)


def _split(text: bytes) -> list[bytes]:
    """Words as systemd's quoting has them; the text at its blanks where the quotes do not close."""
    try:
        return [one.encode("latin-1") for one in shlex.split(text.decode("latin-1"))]
    except ValueError:
        return text.split()
