"""The chain of programs that ends in an SMTP server: `exec env ... softlimit ... tcpserver ... qmail-smtpd`.

Each program of a chain takes its own options and runs the rest.  Those that change what the
server gets (its variables, its account, tcpserver's rules) are known by name; everything
else is passed over until a server's name comes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rcptgen.doctor.findings import ROOT, Who
from rcptgen.doctor.sight import Sight
from rcptgen.doctor.words import Word
from rcptgen.rules.shown import shown

SERVERS = re.compile(rb"(?:s?qmail-smtpd(?:[-.][A-Za-z0-9]+)*|qpsmtpd(?:-forkserver|-prefork)?|rbldnsd)")
"""Base names of the programs that a chain may end in."""

STOPS = frozenset(
    b"svc svstat svok sv s6-svc s6-svstat supervise svscan multilog svlogd s6-log cyclog splogger logger "
    b"echo printf cd test [ [[ ls rm ln mkdir cat grep egrep sed awk tail kill pkill killall pidof pgrep ps "
    b"chmod chown touch mv cp".split()
)
"""Programs that run nothing: to them a server's name is a service, a log, a file or a process."""

SUBMISSION = frozenset({b"587", b"465", b"submission", b"smtps", b"submissions"})
"""Ports on which senders must prove who they are."""

_ASSIGNMENT = re.compile(rb"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_MOST_VARIABLES = 200


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of a variable and where it is given; None: it is only known when the script runs."""

    value: bytes | None
    file: bytes
    line: int


@dataclass(slots=True)
class Launch:
    """A server as something starts it.

    `style` is how variables are given there: shell, execline, inetd, xinetd or systemd.
    `unexported` are variables of the script that the server does not get.  `who` None: as
    whoever starts it; `stranger` is an account that does not exist.  `directory` is envdir's.
    """

    file: bytes
    line: int
    style: str
    program: bytes
    arguments: list[bytes] = field(default_factory=list)
    environment: dict[bytes, Setting] = field(default_factory=dict)
    unexported: Mapping[bytes, Setting] = field(default_factory=dict)
    who: Who | None = None
    stranger: str = ""
    rules: bytes | None = None
    host: bytes = b""
    port: bytes = b""
    directory: bytes = b""

    @property
    def submission(self) -> bool:
        """Whether it only serves senders that prove who they are."""
        return self.port in SUBMISSION

    @property
    def local(self) -> bool:
        """Whether only the machine itself can reach it."""
        return self.host.startswith(b"127.") or self.host in (b"localhost", b"::1")

    def value(self, name: bytes) -> bytes | None:
        """What the server gets in a variable; None where it has none, or a value that is not known."""
        found = self.environment.get(name)
        return None if found is None else found.value


_WITH_VALUE = {
    b"tcpserver": b"xtuglbBcI",
    b"sslserver": b"xtuglbBcw",
    b"s6-tcpserver": b"ugcCb",
    b"s6-tcpserver4": b"ugcCb",
    b"tcpsvd": b"uxilcCb/",
    b"chpst": b"uUbemodpfcrtlLC/",
    b"env": b"uCS",
    b"sudo": b"ugh",
    b"setuser": b"",
    b"runuser": b"ug",
}
"""The letters of options that take a value; what follows the options of tcpserver's kind are host and port."""

_LISTENERS = frozenset({b"tcpserver", b"sslserver", b"s6-tcpserver", b"s6-tcpserver4", b"tcpsvd"})


class Chain:
    """Reads the words of one command; `launch` is what came of them, None where no server is started."""

    def __init__(self, sight: Sight, start: Launch, words: Sequence[Word]) -> None:
        self._sight = sight
        self._words = words
        self._at = 0
        self._found = replace(start, environment=dict(start.environment))
        self._user = self._group = b""
        self._unknown = False
        self.launch = self._run()

    def _run(self) -> Launch | None:
        steps: dict[bytes, Callable[[], None]] = {
            b"env": self._env,
            b"export": self._export,
            b"envdir": self._envdir,
            b"s6-envdir": self._envdir,
            b"envuidgid": self._envuidgid,
            b"setuidgid": self._envuidgid,
            b"s6-setuidgid": self._envuidgid,
            b"s6-envuidgid": self._envuidgid,
            b"chpst": self._chpst,
            **dict.fromkeys(_LISTENERS, self._listener),
            b"sudo": self._sudo,
            b"runuser": self._sudo,
        }
        while self._at < len(self._words):
            word = self._words[self._at]
            name = os.path.basename(word.text)
            self._at += 1
            if name in STOPS:
                return None
            if name in steps:
                self._named = name
                steps[name]()
            elif SERVERS.fullmatch(name):
                return self._ended(word.text)
        return None

    def _ended(self, program: bytes) -> Launch:
        found = self._found
        found.program = program
        found.arguments = [one.text for one in self._words[self._at :]]
        if self._unknown:
            found.who = replace(self._sight.account(b"qmaild", b"nofiles") or ROOT, sure=False)
        elif self._user:
            found.who = self._sight.account(self._user, self._group)
            found.stranger = shown(self._user) if found.who is None else ""
        return found

    # -- options ---------------------------------------------------------------------------------

    def _options(self) -> dict[bytes, Word]:
        """The options that stand here, as getopt(3) takes them; the last of several counts."""
        takes = _WITH_VALUE[self._named]
        found: dict[bytes, Word] = {}
        while self._at < len(self._words):
            text = self._words[self._at].text
            if not text.startswith(b"-") or text == b"-":
                break
            self._at += 1
            if text == b"--":
                break
            for position in range(1, len(text)):
                letter = text[position : position + 1]
                if letter not in takes:
                    found[letter] = Word()
                    continue
                rest = text[position + 1 :]
                if rest:
                    found[letter] = Word(rest, self._words[self._at - 1].known)
                elif self._at < len(self._words):
                    found[letter] = self._words[self._at]
                    self._at += 1
                break
        return found

    def _next(self) -> Word | None:
        self._at += 1
        return self._words[self._at - 1] if self._at <= len(self._words) else None

    # -- programs ------------------------------------------------------------------------------

    def _env(self) -> None:
        cleared = self._at < len(self._words) and self._words[self._at].text == b"-"
        self._at += cleared
        options = self._options()
        if cleared or b"i" in options:
            self._found.environment.clear()
        if b"u" in options:
            self._found.environment.pop(options[b"u"].text, None)
        while self._at < len(self._words) and (given := _ASSIGNMENT.match(self._words[self._at].text)):
            self._set(given[1], given[2] if self._words[self._at].known else None)
            self._at += 1

    def _set(self, name: bytes, value: bytes | None) -> None:
        self._found.environment[name] = Setting(value, self._found.file, self._found.line)

    def _export(self) -> None:
        """execline's own: a name and a value."""
        name, value = self._next(), self._next()
        if self._found.style == "execline" and name is not None and value is not None:
            self._set(name.text, value.text if value.known else None)

    def _envdir(self) -> None:
        word = self._next()
        if word is not None and word.known:
            self._directory(word.text)

    def _directory(self, path: bytes) -> None:
        """The files of envdir's directory: the name, the first line without blanks at its end; an empty file unsets."""
        path = os.path.normpath(os.path.join(os.path.dirname(self._found.file), path))
        self._found.directory = path
        for name in self._sight.names(path)[:_MOST_VARIABLES]:
            text = self._sight.text(path + b"/" + name)
            if text is None or b"=" in name:
                continue
            if text:
                value = text.partition(b"\n")[0].rstrip(b" \t").replace(b"\0", b"\n")
                self._found.environment[name] = Setting(value, path + b"/" + name, 1)
            else:
                self._found.environment.pop(name, None)

    def _envuidgid(self) -> None:
        # What it leaves to tcpserver -U is this account all the same.
        self._become(self._next())

    def _become(self, user: Word | None, group: Word | None = None) -> None:
        if user is None or not user.known or (group is not None and not group.known):
            self._unknown = True
            return
        self._unknown = False
        name, _, own = user.text.partition(b":")
        self._user, self._group = name, group.text if group is not None else own

    def _chpst(self) -> None:
        options = self._options()
        if b"e" in options and options[b"e"].known:
            self._directory(options[b"e"].text)
        if b"u" in options:
            self._become(options[b"u"])

    def _sudo(self) -> None:
        options = self._options()
        if b"u" in options:
            self._become(options[b"u"], options.get(b"g"))

    def _listener(self) -> None:
        options = self._options()
        if self._named.startswith(b"s6-"):
            options.pop(b"x", None)
        if b"u" in options or b"g" in options:
            self._become(options.get(b"u", Word(b"0")), options.get(b"g"))
        rules = options.get(b"x")
        if rules is not None and rules.known:
            self._found.rules = os.path.normpath(os.path.join(os.path.dirname(self._found.file), rules.text))
        host, port = self._next(), self._next()
        self._found.host = host.text if host is not None and host.known else b""
        self._found.port = port.text if port is not None and port.known else b""
