"""The lines that each sort of SMTP server needs to use a list: the one place where they stand.

docs/targets.md shows the same lines, with usual paths; a test compares them.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from rcptgen.config import Config, Output
from rcptgen.doctor.findings import Lines
from rcptgen.rules.shown import shown
from rcptgen.targets import target
from rcptgen.targets.base import Target

_PLAIN = re.compile(rb"[A-Za-z0-9@%+=:,./_-]+")

PATH, BASE, DOMAIN, DEFAULT = b"<path>", b"<path without .cdb>", b"<domain>", b"<default>"


@dataclass(frozen=True, slots=True)
class Setup:
    """What a server needs: `lines`, in which PATH and its like stand for what differs, at `where` in `file`.

    Without a file they are commands.  `for_shell`: a shell reads them, so that a path is one word.
    """

    server: str
    file: bytes
    where: str
    lines: tuple[bytes, ...]
    for_shell: bool = False


QMAIL, SAGREDO, SQMAIL, GOODRCPTTO = "qmail-smtpd", "sagredo's qmail-smtpd", "s/qmail", "qmail-smtpd with goodrcptto"
POSTFIX, EXIM, OPENSMTPD, SENDMAIL = "Postfix", "Exim", "OpenSMTPD", "Sendmail"
QPSMTPD, HARAKA, RSPAMD, RBLDNSD = "qpsmtpd", "Haraka", "Rspamd", "rbldnsd"

_ACL = "in the access list of acl_smtp_rcpt"
_RESTRICTIONS = b"smtpd_recipient_restrictions = reject_unauth_destination, check_recipient_access "

SETUPS: dict[str, Setup] = {
    "validrcptto": Setup(
        QMAIL, b"", "above the line that starts tcpserver", (b"export VALIDRCPTTO_CDB=" + PATH,), for_shell=True
    ),
    "morevalidrcptto,form=cdb": Setup(SAGREDO, b"", "", ()),
    "morevalidrcptto,form=text": Setup(SAGREDO, b"", "", ()),
    "sqmail": Setup(
        SQMAIL,
        b"",
        "",
        (
            rb"{ rcptgen dump --target sqmail " + PATH + rb" | sed -n 's/^\*@/!/p'",
            b"  echo '*:users/recipients.cdb'; } > /var/qmail/control/recipients",
        ),
        for_shell=True,
    ),
    "goodrcptto,form=text": Setup(GOODRCPTTO, b"", "", ()),
    "goodrcptto,form=cdb": Setup(GOODRCPTTO, b"", "", ()),
    "postfix,form=cdb": Setup(POSTFIX, b"/etc/postfix/main.cf", "", (b"relay_recipient_maps = cdb:" + BASE,)),
    "postfix,form=text": Setup(POSTFIX, b"/etc/postfix/main.cf", "", (b"relay_recipient_maps = texthash:" + PATH,)),
    "postfix-access,form=cdb": Setup(POSTFIX, b"/etc/postfix/main.cf", "", (_RESTRICTIONS + b"cdb:" + BASE,)),
    "postfix-access,form=text": Setup(POSTFIX, b"/etc/postfix/main.cf", "", (_RESTRICTIONS + b"texthash:" + PATH,)),
    "postfix-pcre": Setup(POSTFIX, b"/etc/postfix/main.cf", "", (_RESTRICTIONS + b"pcre:" + PATH,)),
    **{
        kind: Setup(
            EXIM,
            b"",
            _ACL,
            (
                b"accept condition = ${if eq{${lookup{${lc:$local_part@$domain}}%s{%s}{$value}{refuse}}}{accept}}"
                % (lookup, PATH),
                b"deny   message = unknown user",
            ),
        )
        for kind, lookup in (
            ("exim,form=cdb", b"cdb*@"),
            ("exim,form=text", b"lsearch*@"),
            ("exim-wildlsearch", b"nwildlsearch"),
        )
    },
    "opensmtpd": Setup(
        OPENSMTPD,
        b"/etc/smtpd.conf",
        "",
        (b"table rcpts file:" + PATH, b'match from any for rcpt-to <rcpts> action "relay"'),
    ),
    "sendmail-access": Setup(SENDMAIL, b"", "", (b"makemap hash /etc/mail/access < " + PATH,), for_shell=True),
    "goodrcptto-qpsmtpd": Setup(QPSMTPD, b"", "in config/plugins, above rcpt_ok", (b"check_goodrcptto extn -",)),
    "rcpt-regexp": Setup(QPSMTPD, b"", "in config/plugins, above rcpt_ok", (b"rcpt_regexp",)),
    "rcpt-map": Setup(
        QPSMTPD,
        b"",
        "in config/plugins, above rcpt_ok",
        (b"rcpt_map domain " + DOMAIN + b" file " + PATH + b" default " + DEFAULT,),
    ),
    "haraka": Setup(HARAKA, b"", "in config/plugins", (b"rcpt_to.in_host_list",)),
    "rspamd-map": Setup(
        RSPAMD,
        b"/etc/rspamd/local.d/multimap.conf",
        "",
        (
            b'RCPT_ADDRESS { type = "rcpt"; filter = "email:addr"; map = "' + PATH + b'"; score = 0; }',
            b'RCPT_DOMAIN { type = "rcpt"; filter = "email:domain"; map = "' + PATH + b'"; score = 0; }',
        ),
    ),
    "dnset": Setup(RBLDNSD, b"", "behind rbldnsd's other zones", (b"rcpt.example.org:dnset:" + PATH,), for_shell=True),
}
"""By the kind of a list.  The other kinds (text, csv, json ...) are for people and programs of their own."""


TAKES: dict[str, tuple[str, bytes]] = {
    QMAIL: ("validrcptto", b"/var/qmail/control/validrcptto.cdb"),
    SAGREDO: ("morevalidrcptto", b"/var/qmail/control/morevalidrcptto.cdb"),
    SQMAIL: ("sqmail", b"/var/qmail/users/recipients.cdb"),
    GOODRCPTTO: ("goodrcptto", b"/var/qmail/control/goodrcptto"),
    POSTFIX: ("postfix-access", b"/etc/postfix/rcpt.cdb"),
    EXIM: ("exim", b"/etc/exim4/rcpt.cdb"),
    OPENSMTPD: ("opensmtpd", b"/etc/mail/rcpts"),
    SENDMAIL: ("sendmail-access", b"/etc/mail/rcpts"),
    QPSMTPD: ("rcpt-regexp", b"/etc/qpsmtpd/rcpt_regexp"),
    HARAKA: ("haraka", b"/etc/haraka/config/host_list_regex"),
    RSPAMD: ("rspamd-map", b"/etc/rspamd/rcpts.map"),
    RBLDNSD: ("dnset", b"/var/lib/rbldns/rcpt"),
}
"""The target that suits each server best, and a usual path."""


@dataclass(frozen=True, slots=True)
class Configured:
    """An output of the configuration; `kind` is its target, with the form where it has several."""

    kind: str
    path: bytes
    target: Target
    output: Output

    @property
    def server(self) -> str:
        """The server that takes such a list; empty where it is for others."""
        found = SETUPS.get(self.kind)
        return "" if found is None else found.server


def configured(config: Config) -> list[Configured]:
    """The configured outputs.  Raises ConfigurationError for a target or an option that is not known."""
    found = []
    for one in config.outputs:
        made = target(
            one.target,
            break_=config.qmail.break_.encode(),
            wildcards=one.wildcards,
            options=one.options,
            plugins=config.plugins.targets,
        )
        form = getattr(getattr(made, "given", None), "form", "")
        path = os.path.normpath(os.fsencode(one.path))
        found.append(Configured(f"{one.target},form={form}" if form else one.target, path, made, one))
    return found


def lines_for(one: Configured, file: bytes = b"") -> Lines | None:
    """What a server needs to use a list, where its own lines go into `file`; None: it needs nothing.

    Commands stay commands.
    """
    found = SETUPS.get(one.kind)
    if found is None or not found.lines:
        return None
    domain = str(one.output.options.get("domain", "")).encode()
    path = quoted(one.path) if found.for_shell else one.path
    text = [_filled(line, path, domain) for line in found.lines]
    return Lines((file if found.file or found.where else b"") or found.file, found.where, tuple(text))


def _filled(line: bytes, path: bytes, domain: bytes) -> bytes:
    values: Sequence[tuple[bytes, bytes]] = (
        (BASE, path.removesuffix(b".cdb")),
        (DOMAIN, domain),
        (DEFAULT, b"DENY=No_such_user."),
        (PATH, path),
    )
    for name, value in values:
        line = line.replace(name, value)
    return line


def quoted(path: bytes) -> bytes:
    """A path as one word of a shell's command line."""
    return os.fsencode(shlex.quote(os.fsdecode(path)))


def double_quoted(text: bytes) -> bytes:
    """`text` as one word of a unit of systemd or of execline, which know no other quotes in common."""
    if _PLAIN.fullmatch(text):
        return text
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def toml_text(text: bytes) -> bytes:
    """`text` as a string of TOML, which is UTF-8."""
    plain = shown(text).encode()
    return b'"' + plain.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def output_lines(kind: str, path: bytes) -> Lines:
    """The section of the configuration that writes a list of a kind to `path`."""
    name, _, form = kind.partition(",form=")
    section = [b"[[output]]", b"target = " + toml_text(name.encode()), b"path = " + toml_text(path)]
    section += [b"form = " + toml_text(form.encode())] if form else []
    return Lines(b"/etc/rcptgen.toml", "", tuple(section))
