"""qmail-smtpd in its many patches: what starts it, what it can, and which list it uses.

What a binary can is read from its strings: getenv's names and control files stand in it as
they are written in qmail-smtpd.c.  Nothing is run.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from functools import cached_property

from rcptgen.doctor import tcprules
from rcptgen.doctor.chains import Launch, Setting
from rcptgen.doctor.findings import ROOT, Lines, Seen, Use, Who
from rcptgen.doctor.setup import GOODRCPTTO, QMAIL, SAGREDO, SQMAIL, Configured, double_quoted, quoted
from rcptgen.doctor.sight import Sight
from rcptgen.doctor.spp import plugins
from rcptgen.doctor.sqmail import routing
from rcptgen.doctor.tcprules import Rule, Rules
from rcptgen.rules.shown import shown

CDB = b"VALIDRCPTTO_CDB"
MORE_CDB, TEXT = b"MOREVALIDRCPTTO_CDB", b"VALIDRCPTTO"
LIMIT, LOG = b"VALIDRCPTTO_LIMIT", b"VALIDRCPTTO_LOG"
RELAY = b"RELAYCLIENT"

PATCHES: dict[str, re.Pattern[bytes]] = {
    # A linker may keep a string as the end of another one: only MORE in front of it is another variable.
    "validrcptto": re.compile(rb"(?<!MORE)VALIDRCPTTO_CDB\0"),
    "morevalidrcptto": re.compile(rb"MOREVALIDRCPTTO_CDB\0"),
    "recipients": re.compile(rb"control/recipients\0|CHECKRECIPIENT\0"),
    "goodrcptto": re.compile(rb"goodrcptto"),
    "rcptcheck": re.compile(rb"RCPTCHECK\0"),
    "spp": re.compile(rb"smtpplugins\0"),
    "chkuser": re.compile(rb"CHKUSER_"),
    "qmail-ldap": re.compile(rb"goodmailaddr"),
    "addrcheck": re.compile(rb"addrcheck\.cdb"),
}
"""What recipient checks leave in a binary."""

NAMES = {
    "validrcptto": "validrcptto.cdb",
    "morevalidrcptto": "morevalidrcptto.cdb",
    "recipients": "control/recipients",
    "goodrcptto": "goodrcptto",
    "rcptcheck": "RCPTCHECK",
    "spp": "qmail-spp",
    "chkuser": "chkuser",
    "qmail-ldap": "goodmailaddr",
    "addrcheck": "addrcheck.cdb",
}
"""What a person calls them."""

_NUMBER = re.compile(rb"[0-9]+")


class Servers:
    """What is to be said of the qmail-smtpds of a host; `seen` holds it when they have all been looked at."""

    def __init__(self, sight: Sight, outputs: Sequence[Configured]) -> None:
        self.sight = sight
        self.outputs = outputs
        self.seen = Seen.nothing()
        self._rules: dict[bytes, Rules | None] = {}

    def look(self, launches: Iterable[Launch]) -> Seen:
        """Every one of them; what is the matter with a file of rules is said once."""
        for launch in launches:
            Server(self, launch).look()
        return self.seen

    def rules(self, path: bytes) -> Rules | None:
        """tcpserver's rules; what is wrong with them is said when they are first asked for."""
        if path not in self._rules:
            found = self._rules[path] = tcprules.read(self.sight, path)
            if found is not None:
                self._judge(found)
        return self._rules[path]

    def _judge(self, rules: Rules) -> None:
        for one in rules.stale:
            names = (rules.file, rules.file.removesuffix(b".cdb") + b".tmp", rules.source)
            command = b"tcprules %s %s < %s" % tuple(map(quoted, names))
            text = f"the rule for {_clients(one)} is not in {shown(rules.file)} as it stands here"
            self.seen.say("Q108", text, rules.source, one.line, [Lines(b"", "", (command,))])
            break
        for one in rules.rules.values():
            if one.deny:
                continue
            place = rules.place(one)
            if RELAY in one.environment and not one.address:
                self.seen.say("Q106", "RELAYCLIENT is set for all clients that have no rule of their own", *place)
            elif RELAY not in one.environment and one.environment.get(CDB) == b"":
                what = f"VALIDRCPTTO_CDB is empty for {_clients(one)}"
                self.seen.say("Q107" if one.address else "Q103", f"{what}: their recipients are not checked", *place)


def _clients(rule: Rule) -> str:
    return f"clients of {shown(rule.address)}" if rule.address else "all other clients"


class Server:
    """One qmail-smtpd, as one thing starts it."""

    def __init__(self, servers: Servers, launch: Launch) -> None:
        self._servers = servers
        self._sight = servers.sight
        self._seen = servers.seen
        self._launch = launch
        self._rules = None if launch.rules is None else servers.rules(launch.rules)
        self.who: Who = launch.who or ROOT

    @cached_property
    def patches(self) -> set[str]:
        """What the binary can."""
        return self._sight.strings(self.program, PATCHES)

    @property
    def program(self) -> bytes:
        """The binary's path; a bare name is one of qmail's own programs."""
        given = self._launch.program
        return given if given.startswith(b"/") else self._sight.qmail + b"/bin/" + os.path.basename(given)

    def _say(self, code: str, text: str, add: Iterable[Lines] = (), at: Setting | None = None) -> None:
        file, line = (self._launch.file, self._launch.line) if at is None else (at.file, at.line)
        self._seen.say(code, text, file, line, add)

    def look(self) -> None:
        """Says everything there is to say of it."""
        status = self._sight.status(self.program)
        if status is not None and not stat.S_ISREG(status.mode):
            return  # a directory of that name is a service's
        if status is None or not status.mode & 0o111:
            why = "is not there" if status is None else "may not be run"
            self._say("Q110", f"{shown(self.program)} {why}")
            return
        if (self._sight.text(self.program) or b"").startswith(b"#!"):
            self._say("Q111", f"{shown(self.program)} is a script, and no server is seen in it")
            return
        found = ", ".join(name for patch, name in NAMES.items() if patch in self.patches) or "nothing about recipients"
        self._say("Q100", f"{shown(self.program)} runs as {self.who.name}; in it: {found}")
        self._account()
        if not self._launch.submission and not self._launch.local:
            self._relaying()
        known = {
            "validrcptto": self._validrcptto,
            "morevalidrcptto": self._morevalidrcptto,
            "recipients": self._recipients,
            "goodrcptto": self._goodrcptto,
        }
        checks = [check for patch, check in known.items() if patch in self.patches]
        for check in checks:
            check()
        others = self._others()
        given = self._launch.environment.get(CDB)
        if given is not None and "validrcptto" not in self.patches:
            self._say("Q102", f"VALIDRCPTTO_CDB is set, and {shown(self.program)} does not know it", (), given)
        elif not (checks or others or self._launch.submission or self.program in self._sight.failed):
            self._say("Q112", f"{shown(self.program)} knows no list of recipients and no check that rcptgen knows of")

    def _account(self) -> None:
        if self._launch.stranger:
            self._say("Q117", f"there is no account {self._launch.stranger}: the server does not start")
        elif not self.who.sure:
            self._say("Q118", f"its account is only known when the script runs: taken for {self.who.name}")

    def _relaying(self) -> None:
        given = self._launch.environment.get(RELAY)
        if given is not None:
            self._say("Q106", "RELAYCLIENT is set for every client", (), given)

    # -- validrcptto.cdb -------------------------------------------------------------------------

    def _validrcptto(self) -> None:
        self._seen.servers[QMAIL] = self._launch.file
        given = self._launch.environment.get(CDB)
        by_rule = [] if self._rules is None else [one for one in self._rules.rules.values() if one.environment.get(CDB)]
        for rule in by_rule:
            if self._rules is not None:
                self._use_cdb(Setting(rule.environment[CDB], *self._rules.place(rule)))
        if given is not None:
            self._given_cdb(given)
        elif not any(not rule.address for rule in by_rule) and not self._launch.submission:
            self._missing_cdb()
        for name in (LIMIT, LOG):
            self._number(name)

    def _given_cdb(self, given: Setting) -> None:
        if given.value is None:
            self._say("Q119", "what VALIDRCPTTO_CDB holds is only known when the script runs", (), given)
        elif self._launch.submission and not given.value:
            return  # whoever may send there is a relay client
        elif not given.value:
            self._seen.told.add("validrcptto")
            self._say("Q103", "VALIDRCPTTO_CDB is empty: no recipient is checked", self._lines(), given)
        else:
            self._use_cdb(given)

    def _use_cdb(self, given: Setting) -> None:
        path = given.value or b""
        if not path.startswith(b"/"):
            text = f"VALIDRCPTTO_CDB={shown(path)} is relative: qmail-smtpd looks below {shown(self._sight.qmail)}"
            self._say("Q104", text, (), given)
        self._use(QMAIL, "validrcptto", path, given)

    def _missing_cdb(self) -> None:
        self._seen.told.add("validrcptto")
        kept = self._launch.unexported.get(CDB)
        if kept is not None:
            export = Lines(kept.file, f"below line {kept.line}", (b"export VALIDRCPTTO_CDB",))
            self._say("Q105", "VALIDRCPTTO_CDB is not exported: the server does not get it", [export], kept)
            return
        text = f"{shown(self.program)} can look recipients up, and VALIDRCPTTO_CDB is not set"
        self._say("Q101", text, self._lines())

    def _lines(self) -> list[Lines]:
        """What sets the variable where this server is started, for each list that is written for it."""
        return [self._styled(one) for one in self._servers.outputs if one.kind == "validrcptto"]

    def _styled(self, one: Configured) -> Lines:
        launch = self._launch
        setting = CDB + b"=" + one.path
        if launch.directory:
            made = b"echo %s > %s" % (quoted(one.path), quoted(launch.directory + b"/" + CDB))
            return Lines(b"", "", (made,))
        if launch.style == "execline":
            made = b"export %s %s" % (CDB, double_quoted(one.path))
            return Lines(launch.file, "above the line that starts the server", (made,))
        if launch.style == "systemd":
            made = b"Environment=" + double_quoted(setting.replace(b"%", b"%%"))
            return Lines(launch.file, "in [Service]", (made,))
        if launch.style == "xinetd":
            return Lines(launch.file, "in its section", (b"env = " + setting,))
        if launch.style == "inetd":
            words = b"/usr/bin/env " + setting
            return Lines(launch.file, f"in line {launch.line}, in front of {shown(launch.program)}", (words,))
        return Lines(launch.file, f"above line {launch.line}", (b"export %s=%s" % (CDB, quoted(one.path)),))

    def _number(self, name: bytes) -> None:
        """A number that scan_ulong takes; of anything else nothing comes that one could tell."""
        for given in (self._launch.environment.get(name), self._launch.unexported.get(name)):
            if given is None or given.value is None:
                continue
            if not _NUMBER.match(given.value):
                self._say("Q109", f"{name.decode()}={shown(given.value)} is no number", (), given)
            elif name == LIMIT and given is self._launch.unexported.get(name):
                self._say("Q105", f"{name.decode()} is not exported: the server does not get it", (), given)

    # -- other lists ---------------------------------------------------------------------------

    def _use(self, server: str, kind: str, path: bytes, at: Setting | None = None, *, needed: bool = True) -> None:
        self._seen.servers[server] = self._launch.file
        path = os.path.normpath(os.path.join(self._sight.qmail, path))
        place = (self._launch.file, self._launch.line) if at is None else (at.file, at.line)
        self._seen.uses.append(Use(server, frozenset({kind}), path, *place, self.who, needed))

    def _morevalidrcptto(self) -> None:
        """Both stores are looked up, each at its usual place or where a variable says."""
        for name, usual, form in (
            (MORE_CDB, b"control/morevalidrcptto.cdb", "cdb"),
            (TEXT, b"control/validrcptto", "text"),
        ):
            given = self._launch.environment.get(name)
            if given is not None and given.value is None:
                self._say("Q119", f"what {name.decode()} holds is only known when the script runs", (), given)
                continue
            path = usual if given is None else given.value or b""
            if path:
                self._use(SAGREDO, f"morevalidrcptto,form={form}", path, given, needed=False)
        self._number(LOG)

    def _goodrcptto(self) -> None:
        self._use(GOODRCPTTO, "goodrcptto,form=text", b"control/goodrcptto", needed=False)
        self._use(GOODRCPTTO, "goodrcptto,form=cdb", b"control/goodrcptto.cdb", needed=False)

    def _recipients(self) -> None:
        self._seen.servers[SQMAIL] = self._sight.qmail + b"/control/recipients"
        written = next((one for one in self._servers.outputs if one.kind == "sqmail"), None)
        for path, number in routing(self._sight, self._seen, written):
            self._use(SQMAIL, "sqmail", path, Setting(path, self._sight.qmail + b"/control/recipients", number))

    def _others(self) -> bool:
        """Whether it has a check that asks a program, or the host itself."""
        given = self._launch.environment.get(b"RCPTCHECK")
        if "rcptcheck" in self.patches and given is not None and given.value:
            program = os.path.normpath(os.path.join(self._sight.qmail, given.value))
            self.program_may_run("RCPTCHECK", program, given)
        found = "spp" in self.patches and b"NOSPP" not in self._launch.environment
        if found:
            for name, program, number in plugins(self._sight):
                file = self._sight.qmail + b"/control/smtpplugins"
                self.program_may_run(f"the plugin {name}", program, Setting(program, file, number))
        known = {"chkuser", "qmail-ldap", "addrcheck"} & self.patches
        return bool(known) or bool(given and given.value) or (found and any(plugins(self._sight)))

    def program_may_run(self, what: str, program: bytes, at: Setting) -> None:
        """Says what keeps the server from running a program that it asks about recipients."""
        status = self._sight.status(program)
        if status is None:
            self._say("Q113", f"{what} is {shown(program)}, which is not there: mail is deferred", (), at)
        elif not status.mode & 0o111 or self._sight.barrier(program, self.who, os.X_OK) is not None:
            text = f"{what} is {shown(program)}, which {self.who.name} may not run: mail is deferred"
            self._say("Q113", text, [Lines(b"", "", (b"chmod o+x " + quoted(program),))], at)
