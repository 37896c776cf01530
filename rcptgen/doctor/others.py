"""OpenSMTPD, qpsmtpd, Haraka, Sendmail, Rspamd and rbldnsd: where their configuration names a list."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from rcptgen.doctor.chains import Launch
from rcptgen.doctor.findings import ROOT, Lines, Seen, Use, Who
from rcptgen.doctor.setup import HARAKA, OPENSMTPD, QPSMTPD, RBLDNSD, RSPAMD, SENDMAIL, Configured, quoted
from rcptgen.doctor.sight import Sight
from rcptgen.rules.shown import shown

SMTPD_CONF = (b"/etc/smtpd.conf", b"/etc/mail/smtpd.conf", b"/etc/opensmtpd/smtpd.conf")
QPSMTPD_HOMES = (
    *(b"/etc/qpsmtpd", b"/var/qpsmtpd/config", b"/home/smtpd/qpsmtpd/config", b"/home/qpsmtpd/config"),
    *(b"/usr/local/qpsmtpd/config", b"/opt/qpsmtpd/config", b"/var/lib/qpsmtpd/config"),
)
PLUGINS = {b"check_goodrcptto": "goodrcptto-qpsmtpd", b"rcpt_regexp": "rcpt-regexp", b"rcpt_map": "rcpt-map"}
HARAKA_HOMES = (
    b"/etc/haraka",
    b"/var/haraka",
    b"/srv/haraka",
    b"/opt/haraka",
    b"/usr/local/haraka",
    b"/var/lib/haraka",
)
SENDMAIL_CF, ACCESS = b"/etc/mail/sendmail.cf", b"/etc/mail/access"
RSPAMD_CONF = b"/etc/rspamd/rspamd.conf"
MULTIMAP = (b"/etc/rspamd/local.d/multimap.conf", b"/etc/rspamd/override.d/multimap.conf")
RBLDNSD_FILES = (b"/etc/default/rbldnsd", b"/etc/sysconfig/rbldnsd", b"/etc/conf.d/rbldnsd", b"/etc/rc.conf")


class Others:
    """What is to be said of them; each look adds to `seen`."""

    def __init__(self, sight: Sight, outputs: Sequence[Configured]) -> None:
        self._sight = sight
        self._outputs = outputs
        self.seen = Seen.nothing()

    def look(self, launches: Sequence[Launch]) -> Seen:
        """All of them."""
        self._opensmtpd()
        self._qpsmtpd(launches)
        self._haraka()
        self._sendmail()
        self._rspamd()
        self._rbldnsd(launches)
        return self.seen

    def _of(self, name: str) -> list[Configured]:
        return [one for one in self._outputs if one.output.target == name]

    def _account(self, *names: bytes) -> Who:
        """The first of the usual accounts of a server that is there; which one it runs as is not looked at."""
        found = (self._sight.account(name) for name in names)
        return replace(next((who for who in found if who is not None), ROOT), sure=False)

    def _use(self, server: str, kind: str, path: bytes, file: bytes, line: int, who: Who = ROOT) -> None:
        """A server uses a list of ours; what else it uses is its own business."""
        path = os.path.normpath(path)
        if not any(one.path == path for one in self._outputs):
            return
        self.seen.uses.append(Use(server, frozenset({kind}), path, file, line, who))

    # -- OpenSMTPD ---------------------------------------------------------------------------

    def _opensmtpd(self) -> None:
        """`table NAME file:PATH`, and `match ... rcpt-to <NAME>`."""
        file = next((one for one in SMTPD_CONF if self._sight.text(one) is not None), None)
        if file is None:
            return
        self.seen.servers[OPENSMTPD] = file
        tables: dict[bytes, tuple[bytes, int]] = {}
        asked: set[bytes] = set()
        for number, line in self._sight.lines(file):
            words = line.partition(b"#")[0].replace(b'"', b"").split()
            if words[:1] == [b"table"] and len(words) >= 3 and words[2].startswith((b"file:", b"/")):
                tables[words[1]] = (words[2].removeprefix(b"file:"), number)
            asked |= {after.strip(b"<>") for one, after in pairwise(words) if one == b"rcpt-to"}
        lists = {one.path for one in self._of("opensmtpd")}
        for name, (path, number) in tables.items():
            if name in asked:
                self._use(OPENSMTPD, "opensmtpd", path, file, number)
            elif os.path.normpath(path) in lists:
                rule = b'match from any for rcpt-to <%s> action "relay"' % name
                self.seen.say("O101", f"no rule asks the table {shown(name)}", file, number, [Lines(file, "", (rule,))])
                self.seen.told.add("opensmtpd")

    # -- qpsmtpd -------------------------------------------------------------------------------

    def _qpsmtpd(self, launches: Sequence[Launch]) -> None:
        """config/plugins: a plugin and its arguments a line, asked in their order."""
        started = [one for one in launches if os.path.basename(one.program).startswith(b"qpsmtpd")]
        homes = [*QPSMTPD_HOMES, *(os.path.dirname(one.program) + b"/config" for one in started)]
        who = next((one.who for one in started if one.who is not None), self._account(b"qpsmtpd", b"smtpd"))
        for home in dict.fromkeys(homes):
            file = home + b"/plugins"
            if self._sight.text(file) is None:
                continue
            self.seen.servers.setdefault(QPSMTPD, file)
            behind = 0
            for number, line in self._sight.lines(file):
                if line.startswith(b"#"):
                    continue
                words = line.split()
                name = os.path.basename(words[0]).partition(b":")[0]
                if name == b"rcpt_ok":
                    behind = number
                elif name in PLUGINS and behind:
                    text = f"{shown(words[0])} stands behind rcpt_ok (line {behind}), which accepts before"
                    add = Lines(file, f"above line {behind}", (line,))
                    self.seen.say("O102", text, file, number, [add])
                    self.seen.told.add(PLUGINS[name])
                elif name in PLUGINS:
                    self._plugin(name, words[1:], home, (file, number), who)

    def _plugin(self, name: bytes, arguments: list[bytes], home: bytes, place: tuple[bytes, int], who: Who) -> None:
        given = dict(zip(arguments[::2], arguments[1::2], strict=False))
        usual = {b"check_goodrcptto": home + b"/goodrcptto", b"rcpt_regexp": home + b"/rcpt_regexp"}
        path = usual.get(name) or given.get(b"file", b"")
        self._use(QPSMTPD, PLUGINS[name], path, *place, who)
        for one in self._of("goodrcptto-qpsmtpd"):
            wanted, here = str(one.output.options.get("extn", "")).encode(), given.get(b"extn", b"")
            if one.path == path and wanted != here:
                text = f"extn is '{shown(here)}' here, and '{shown(wanted)}' in rcptgen.toml"
                line = b"check_goodrcptto" + (b" extn " + wanted if wanted else b"")
                add = Lines(place[0], f"in place of line {place[1]}", (line,))
                self.seen.say("O103", text, *place, [add])

    # -- Haraka --------------------------------------------------------------------------------

    def _haraka(self) -> None:
        """config/plugins with rcpt_to.in_host_list, which reads config/host_list_regex."""
        for home in HARAKA_HOMES:
            file = home + b"/config/plugins"
            if self._sight.text(file) is None:
                continue
            self.seen.servers.setdefault(HARAKA, file)
            for number, line in self._sight.lines(file):
                if line == b"rcpt_to.in_host_list":
                    who = self._account(b"haraka", b"Haraka")
                    self._use(HARAKA, "haraka", home + b"/config/host_list_regex", file, number, who)

    # -- Sendmail --------------------------------------------------------------------------------

    def _sendmail(self) -> None:
        """`Kaccess hash -T<TMPF> /etc/mail/access` in sendmail.cf; makemap builds access.db of the text."""
        if self._sight.text(SENDMAIL_CF) is None:
            return
        self.seen.servers[SENDMAIL] = SENDMAIL_CF
        named = next((one for one in self._sight.lines(SENDMAIL_CF) if one[1].startswith(b"Kaccess ")), None)
        for one in self._of("sendmail-access"):
            if named is None:
                text = "FEATURE(access_db) is not in it: the access map is never asked"
                features = (b"FEATURE(`access_db')dnl", b"FEATURE(`blacklist_recipients')dnl")
                self.seen.say("O104", text, SENDMAIL_CF, 0, [Lines(b"/etc/mail/sendmail.mc", "", features)])
                self.seen.told.add("sendmail-access")
                continue
            database = named[1].split()[-1] + b".db"
            lag = self._sight.lag(database, one.path)
            if lag:
                command = b"makemap hash " + quoted(database.removesuffix(b".db")) + b" < " + quoted(one.path)
                self.seen.say("O105", lag, SENDMAIL_CF, named[0], [Lines(b"", "", (command,))])
            self._use(SENDMAIL, "sendmail-access", one.path, SENDMAIL_CF, named[0])

    # -- Rspamd ----------------------------------------------------------------------------------

    def _rspamd(self) -> None:
        """Rules of multimap: `NAME { type = "rcpt"; filter = "email:addr"; map = "PATH"; }`."""
        if self._sight.status(RSPAMD_CONF) is not None:
            self.seen.servers[RSPAMD] = MULTIMAP[0]
        for file in MULTIMAP:
            text = self._sight.text(file)
            if text is None:
                continue
            self.seen.servers[RSPAMD] = file
            filters: dict[bytes, dict[bytes, int]] = {}
            for block in _BLOCK.finditer(text):
                values = _values(block[2])
                path = os.path.normpath(values.get(b"map", b"").removeprefix(b"file://"))
                if values.get(b"type") == b"rcpt":
                    line = text.count(b"\n", 0, block.start(1)) + 1
                    filters.setdefault(path, {})[values.get(b"filter", b"")] = line
            for one in self._of("rspamd-map"):
                found = filters.get(one.path, {})
                for wanted, name in ((b"email:addr", b"RCPT_ADDRESS"), (b"email:domain", b"RCPT_DOMAIN")):
                    if found and wanted not in found:
                        rule = b'%s { type = "rcpt"; filter = "%s"; map = "%s"; score = 0; }' % (name, wanted, one.path)
                        text_ = f"no rule asks {shown(one.path)} with the filter {wanted.decode()}"
                        add = [Lines(file, "", (rule,))]
                        self.seen.say("O106", text_, file, next(iter(found.values())), add)
                if found:
                    who = self._account(b"_rspamd", b"rspamd")
                    self._use(RSPAMD, "rspamd-map", one.path, file, next(iter(found.values())), who)

    # -- rbldnsd ---------------------------------------------------------------------------------

    def _rbldnsd(self, launches: Sequence[Launch]) -> None:
        """`ZONE:dnset:FILE`; with -r the file is below another root, with -w relative to a directory."""
        for file, number, text in self._command_lines(launches):
            usual = next((one for one in RBLDNSD_FILES if self._sight.text(one) is not None), file)
            self.seen.servers[RBLDNSD] = usual
            root, working = (_value(pattern, text) for pattern in (_NEW_ROOT, _WORKING))
            who = self._sight.account(_value(_AS, text)) or self._account(b"rbldns", b"rbldnsd")
            for path in _ZONE.findall(text):
                for one in path.split(b","):
                    below = os.path.join(b"/", working, one)
                    self._use(RBLDNSD, "dnset", root.rstrip(b"/") + below, file, number, who)

    def _command_lines(self, launches: Sequence[Launch]) -> Iterator[tuple[bytes, int, bytes]]:
        for one in launches:
            if os.path.basename(one.program) == b"rbldnsd":
                yield one.file, one.line, b" ".join(one.arguments)
        for file in RBLDNSD_FILES:
            text = re.sub(rb"^[ \t]*#[^\n]*", b"", self._sight.text(file) or b"", flags=re.MULTILINE)
            for match in _CONTINUED.finditer(text):
                line = match[0].replace(b"\\\n", b" ").replace(b'"', b" ").replace(b"'", b" ")
                if b":dnset:" in line:
                    yield file, text.count(b"\n", 0, match.start()) + 1, line


_BLOCK = re.compile(rb"\b([A-Za-z0-9_]+)\s*\{([^{}]*)\}")
_CONTINUED = re.compile(rb"(?:[^\n\\]|\\\n|\\)+")
_ZONE = re.compile(rb":dnset:(\S+)")
_NEW_ROOT = re.compile(rb"(?:^|\s)-r\s*(\S+)")
_WORKING = re.compile(rb"(?:^|\s)-w\s*(\S+)")
_AS = re.compile(rb"(?:^|\s)-u\s*([^\s:]+)")


def _value(pattern: re.Pattern[bytes], text: bytes) -> bytes:
    found = pattern.search(text)
    return b"" if found is None else found[1]


def _values(block: bytes) -> dict[bytes, bytes]:
    """The settings of a block of Rspamd's, without quotes."""
    pairs = (one.partition(b"=") for one in re.split(rb"[;\n]", block))
    return {name.strip(): value.strip().strip(b'"') for name, equals, value in pairs if equals}
