"""The real programs read what the targets write, and answer as the reader models do.

Postfix, Exim and OpenSMTPD are asked over SMTP, rbldnsd by DNS; see mailservers.py.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import parts
import pytest
from everytarget import ACCEPT, HOSTILE, REFUSE, Compiled, beside, compiled
from mailservers import CannotFetch, MailServers, asked, free_ports, resolved, spelled

from rcptgen.rules.table import Table

pytestmark = [
    pytest.mark.root,
    pytest.mark.needs("mailservers"),
    pytest.mark.xdist_group("mailservers"),
]

LEAST = 300
"""Addresses that a server must have answered about, or the comparison proves little."""

SCREENED = [text.lower().encode("latin-1") for text in HOSTILE]


def rules() -> dict[bytes, Table]:
    """Domains of every kind: names, extensions at all levels, an open one with exceptions, and a hostile one."""
    plain = dict.fromkeys((b"joe", b"ann", b"ann.smith", b"postmaster", b"joe-shop-sale", b"info"), ACCEPT)
    return {
        b"example.org": Table(
            {**plain, b"joe-shop-spam": REFUSE},
            {b"": REFUSE, b"joe-": REFUSE, b"joe-shop-": ACCEPT, b"list-a-": ACCEPT},
        ),
        b"hostile.example": Table(dict.fromkeys(SCREENED, ACCEPT), {}),
        b"open.example": Table({b"spam": REFUSE, b"-x": ACCEPT}, {b"": ACCEPT, b"no-": REFUSE}),
        b"shop.open.example": Table(plain, {}),
        b"small.example": Table(plain, {}),
    }


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> MailServers:
    return MailServers(tmp_path_factory.mktemp("mailservers"))


@pytest.fixture
def tree(servers: MailServers) -> MailServers:
    try:
        servers.fetch()
    except CannotFetch as error:
        if "mailservers" in parts.required():
            raise
        pytest.skip(f"SKIPPED PART: mailservers: {error}")
    return servers


@pytest.fixture
def site() -> dict[bytes, Table]:
    return rules()


def witnesses(site: Mapping[bytes, Table]) -> list[bytes]:
    """Addresses at and beside every rule, some in capitals."""
    found = [local + b"@" + domain for domain, table in site.items() for local in beside(table)]
    return found + [one.upper() for one in found[::5]]


def disagreeing(
    found: Compiled, addresses: list[bytes], said: Mapping[bytes, bool], *, undecided: bool = False
) -> list[tuple[bytes, bool]]:
    """The addresses that a server answers otherwise than the reader model, with what the server said.

    `undecided` is what the server does with what the list leaves to another checker.
    """
    wanted = zip(addresses, found.reader.answers(addresses), strict=True)
    model = {address: undecided if answer.undecided else answer.accepted for address, answer in wanted}
    return [(one, yes) for one, yes in said.items() if model[one] != yes]


def verdicts(replies: Mapping[bytes, bytes], refusal: bytes) -> dict[bytes, bool]:
    """What a server decided by the list; what it refuses for reasons of its own is left out."""
    known = {one: reply for one, reply in replies.items() if reply.startswith((b"250", refusal))}
    assert len(known) >= LEAST, (len(known), len(replies), list(replies.items())[:3])
    return {one: reply.startswith(b"250") for one, reply in known.items()}


# --- Postfix -------------------------------------------------------------------------------------

POSTFIX: list[tuple[str, dict[str, Any], str, str]] = [
    ("postfix", {}, "cdb", "relay_recipient_maps={}"),
    ("postfix", {"form": "text"}, "texthash", "relay_recipient_maps={}"),
    ("postfix", {"form": "text"}, "lmdb", "relay_recipient_maps={}"),
    ("postfix-access", {}, "cdb", "smtpd_recipient_restrictions=reject_unauth_destination,check_recipient_access,{}"),
    ("postfix-access", {"form": "text"}, "texthash", "smtpd_recipient_restrictions=check_recipient_access,{}"),
    ("postfix-pcre", {}, "pcre", "smtpd_recipient_restrictions=reject_unauth_destination,check_recipient_access,{}"),
]


def postfix_site(tree: MailServers, top: Path, services: list[tuple[int, str]], domains: str) -> Path:
    """The configuration of a Postfix that takes mail for `domains` at some ports, each with a setting."""
    conf, queue, data = top / "conf", top / "queue", top / "data"
    for directory in (conf, queue, data):
        directory.mkdir()
    usual = "MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C POSTLOG_SERVICE POSTLOG_HOSTNAME"
    settings = {
        "compatibility_level": "3.6",
        "queue_directory": queue,
        "data_directory": data,
        "daemon_directory": tree.program("usr/lib/postfix/sbin"),
        "command_directory": tree.program("usr/sbin"),
        "shlib_directory": tree.program("usr/lib/postfix"),
        "meta_directory": conf,
        "import_environment": f"{usual} LD_LIBRARY_PATH={tree.libraries}",
        "export_environment": "TZ MAIL_CONFIG LANG LD_LIBRARY_PATH",
        "maillog_file": top / "maillog",
        "maillog_file_prefixes": top,
        "myhostname": "test.invalid",
        "mydestination": "",
        "alias_maps": "",
        "inet_interfaces": "127.0.0.1",
        "inet_protocols": "ipv4",
        "relay_domains": domains,
        "smtpd_relay_restrictions": "reject_unauth_destination",
        "smtpd_peername_lookup": "no",
        "allow_percent_hack": "no",
        "swap_bangpath": "no",
        "resolve_dequoted_address": "no",
        "parent_domain_matches_subdomains": "smtpd_access_maps",
        "smtpd_error_sleep_time": "0",
        "smtpd_soft_error_limit": "5000",
        "smtpd_hard_error_limit": "5000",
        "smtpd_recipient_limit": "5000",
        "smtpd_recipient_overshoot_limit": "5000",
    }
    (conf / "main.cf").write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
    lines = [f"127.0.0.1:{port} inet n - n - - smtpd\n  -o {setting}\n" for port, setting in services]
    lines += [f"{one} unix - - n - - {one}\n" for one in ("proxymap", "anvil", "error")]
    lines += ["rewrite unix - - n - - trivial-rewrite\n", "cleanup unix n - n - 0 cleanup\n"]
    lines += ["qmgr unix n - n 300 1 qmgr\n", "bounce unix - - n - 0 bounce\n", "defer unix - - n - 0 bounce\n"]
    lines.append("postlog unix-dgram n - n - 1 postlogd\n")
    (conf / "master.cf").write_text("".join(lines))
    maps = (("cdb", " mkmap_cdb_open"), ("lmdb", " mkmap_lmdb_open"), ("pcre", ""))
    (conf / "dynamicmaps.cf").write_text(
        "".join(f"{m} {tree.program(f'usr/lib/postfix/postfix-{m}.so')} dict_{m}_open{mk}\n" for m, mk in maps)
    )
    for name in [
        "active",
        "bounce",
        "corrupt",
        "defer",
        "deferred",
        "flush",
        "hold",
        "incoming",
        "private",
        "saved",
        "trace",
        "maildrop",
        "public",
    ]:
        (queue / name).mkdir()
        os.chown(queue / name, 974, 973 if name in ("maildrop", "public") else 0)
    (queue / "pid").mkdir()
    os.chown(data, 974, 0)
    return conf


def test_postfix(tree: MailServers, site: dict[bytes, Table], tmp_path: Path) -> None:
    addresses = witnesses(site)
    ports = free_ports(len(POSTFIX))
    services = []
    maps = []
    for number, (port, (name, options, kind, setting)) in enumerate(zip(ports, POSTFIX, strict=True)):
        file = tmp_path / f"list{number}"
        with compiled(name, site, options) as found:
            Path(f"{file}{'.cdb' if kind == 'cdb' else ''}").write_bytes(found.content)
        maps.append(f"{kind}:{file}")
        services.append((port, setting.format(f"{kind}:{file}")))
    conf = postfix_site(tree, tmp_path, services, " ".join(domain.decode() for domain in site))
    for one in maps:
        if one.startswith("lmdb:"):
            done = tree.run("usr/sbin/postmap", "-c", conf, one)
            assert done.returncode == 0, done.stderr
            assert done.stderr.splitlines()[:3] == []
    keys = b"".join(spelled(one) + b"\n" for one in addresses if spelled(one) == one)  # type: ignore[operator]
    with tree.running(tmp_path / "log", ports, "usr/lib/postfix/sbin/master", "-c", conf, "-d"):
        for port, one, (name, options, _, _) in zip(ports, maps, POSTFIX, strict=True):
            said = verdicts(asked(port, addresses), b"550")
            with compiled(name, site, options) as found:
                undecided = name != "postfix"
                assert disagreeing(found, addresses, said, undecided=undecided) == [], one
                queried = tree.run("usr/sbin/postmap", "-c", conf, "-q", "-", one, given=keys)
                hits = {line.partition(b"\t")[0] for line in queried.stdout.splitlines()}
                assert queried.stderr == b""
                accepted = {line.name + b"@" + (line.domain or b"") for line in found.reader.lines() if not line.prefix}
                assert {hit.lower() for hit in hits} >= {key.lower() for key in accepted if key in keys.split(b"\n")}
    log = (tmp_path / "maillog").read_text(errors="replace")
    assert [line for line in log.splitlines() if "fatal" in line or " map " in line] == []


# --- Exim ----------------------------------------------------------------------------------------

EXIM: list[tuple[str, dict[str, Any], str]] = [
    ("exim", {}, "cdb*@"),
    ("exim", {"form": "text"}, "lsearch*@"),
    ("exim-wildlsearch", {}, "nwildlsearch"),
]


def test_exim(tree: MailServers, site: dict[bytes, Table], tmp_path: Path) -> None:
    addresses = witnesses(site)
    ports = free_ports(len(EXIM))
    spool = tmp_path / "spool"
    spool.mkdir()
    os.chown(spool, 977, 977)
    checks = []
    for number, (port, (name, options, kind)) in enumerate(zip(ports, EXIM, strict=True)):
        file = tmp_path / f"list{number}"
        with compiled(name, site, options) as found:
            file.write_bytes(found.content)
        looked = f"${{lookup{{${{lc:$local_part@$domain}}}}{kind}{{{file}}}{{$value}}{{refuse}}}}"
        checks.append(
            f"  accept condition = ${{if eq{{$received_port}}{{{port}}}}}\n"
            f"    condition = ${{if eq{{{looked}}}{{accept}}}}"
        )
    settings = [
        *("primary_hostname = test.invalid", f"spool_directory = {spool}", f"log_file_path = {spool}/log-%s"),
        f"pid_file_path = {tmp_path}/pid",
        f"daemon_smtp_ports = {' : '.join(map(str, ports))}",
        *("local_interfaces = 127.0.0.1", "tls_advertise_hosts =", "keep_environment =", "host_lookup ="),
        *("acl_smtp_rcpt = check", "recipients_max = 0", "smtp_max_unknown_commands = 5000", "rfc1413_hosts ="),
        f"domainlist ours = {' : '.join(domain.decode() for domain in site)}",
        *("begin acl", "check:", "  deny !domains = +ours", *checks, "  deny message = unknown", "begin routers"),
    ]
    conf = tmp_path / "exim.conf"
    conf.write_text("\n".join(settings) + "\n")
    with tree.running(tmp_path / "log", ports, "usr/sbin/exim4", "-C", conf, "-bdf"):
        for port, (name, options, kind) in zip(ports, EXIM, strict=True):
            said = verdicts(asked(port, addresses), b"550 unknown")
            with compiled(name, site, options) as found:
                assert disagreeing(found, addresses, said) == [], kind
                plain = sorted(
                    {
                        one.lower()
                        for one in addresses
                        if spelled(one) == one and one.replace(b"@", b"").replace(b".", b"").isalnum()
                    }
                )
                file = tmp_path / f"list{EXIM.index((name, options, kind))}"
                tried = [f"${{lookup{{{one.decode()}}}{kind}{{{file}}}{{$value}}{{refuse}}}}\n" for one in plain]
                expanded = tree.run("usr/sbin/exim4", "-C", conf, "-be", given="".join(tried).encode())
                values = [line.strip(b"> ") for line in expanded.stdout.splitlines() if line.strip(b"> ")]
                model = [b"accept" if one.accepted else b"refuse" for one in found.reader.answers(plain)]
                assert values == model


# --- OpenSMTPD -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"sub_addr_delim": "-"}], ids=["plus", "dash"])
def test_opensmtpd(tree: MailServers, site: dict[bytes, Table], tmp_path: Path, options: dict[str, Any]) -> None:
    addresses = witnesses(site)
    (port,) = free_ports(1)
    with compiled("opensmtpd", site, options) as found:
        (tmp_path / "table").write_bytes(found.content)
        delimiter = f'smtp sub-addr-delim "{options["sub_addr_delim"]}"\n' if options else ""
        conf = tmp_path / "smtpd.conf"
        conf.write_text(
            f"table rcpts file:{tmp_path}/table\n{delimiter}smtp limit max-rcpt 5000\n"
            f'listen on 127.0.0.1 port {port}\naction "relay" relay\n'
            'match from any for rcpt-to <rcpts> action "relay"\n'
        )
        conf.chmod(0o644)
        mounts = [
            *(f"mount -t tmpfs none {one}" for one in ("/usr/libexec", "/var/spool", "/var/lib", "/run")),
            f"cp -a {tree.tree}/usr/libexec/opensmtpd /usr/libexec/",
            "mkdir -p /var/lib/opensmtpd/empty /var/spool/smtpd",
            "chmod 711 /var/spool/smtpd /var/lib/opensmtpd/empty",
        ]
        with tree.running(tmp_path / "log", [port], "usr/sbin/smtpd", "-d", "-f", conf, mounts=mounts):
            said = verdicts(asked(port, addresses), b"550")
        assert disagreeing(found, addresses, said) == []


# --- rbldnsd -------------------------------------------------------------------------------------


def test_rbldnsd(tree: MailServers, site: dict[bytes, Table], tmp_path: Path) -> None:
    addresses = witnesses(site)
    (port,) = free_ports(1)
    with compiled("dnset", site) as found:
        (tmp_path / "zone").write_bytes(found.content)
        accepted = [(one.rpartition(b"@")[2].lower(), one) for one in addresses]
        with tree.running(
            tmp_path / "log",
            [],
            "usr/sbin/rbldnsd",
            "-n",
            "-u",
            "daemon",
            "-b",
            f"127.0.0.1/{port}",
            f"rcpt.test:dnset:{tmp_path}/zone",
        ):
            _listening(tmp_path / "log")
            said = {}
            for _, address in accepted:
                answer = found.target.look(  # type: ignore[attr-defined]
                    address,
                    lambda key: {"127.0.0.2": b":127.0.0.2:accept", "127.0.0.3": b":127.0.0.3:refuse"}.get(
                        resolved(port, key + b".rcpt.test") or ""
                    ),
                )
                said[address] = answer.accepted
        assert len(said) >= LEAST
        assert disagreeing(found, addresses, said) == []


def _listening(log: Path) -> None:
    end = time.monotonic() + 10
    while b"started" not in log.read_bytes():
        assert time.monotonic() < end, log.read_bytes()
        time.sleep(0.05)


# --- qpsmtpd -------------------------------------------------------------------------------------

HARNESS = r"""
use strict;
use Qpsmtpd;
use Qpsmtpd::Constants;
my ($plugin, $file, @settings) = @ARGV;
open my $in, '<', $plugin or die;
my $code = do { local $/; <$in> };
package Rcpt; sub user { $_[0]{user} } sub host { $_[0]{host} }
package Tried; our @ISA = ('Qpsmtpd');
sub qp { $_[0] } sub log { }
sub config { $_[0]->_config_from_file($file, 'list') }
eval "no strict;\n$code\n1" or die $@;
package main;
my $tried = bless {}, 'Tried';
$tried->register(undef, @settings) if $tried->can('register') && @settings;
binmode STDIN; binmode STDOUT;
while (<STDIN>) {
    chomp;
    my ($user, $host) = map { pack 'H*', $_ } split /,/;
    my ($said) = $tried->hook_rcpt(undef, bless {user => $user, host => $host}, 'Rcpt');
    print return_code($said), "\n";
}
"""


@pytest.mark.parametrize(
    ("name", "options"),
    [("rcpt-regexp", {}), ("rcpt-map", {"domain": "example.org"}), ("rcpt-map", {"domain": "hostile.example"})],
    ids=["regexp", "map", "hostile map"],
)
def test_qpsmtpd(
    tree: MailServers, site: dict[bytes, Table], tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    """The plugin's own code is asked, with its own reading of the file."""
    addresses = [one for one in witnesses(site) if one.rpartition(b"@")[0]]
    with compiled(name, site, options) as found:
        (tmp_path / "list").write_bytes(found.content)
        default = found.content.partition(b"\n")[0].removeprefix(b"# default=").decode()
        settings = ["file", str(tmp_path / "list"), "domain", options["domain"]] if options else []
        settings += ["default", default] if options else []
        plugin = tree.program(f"usr/share/qpsmtpd/plugins/{name.replace('-', '_')}")
        asked_hex = "".join(f"{one.rpartition(b'@')[0].hex()},{one.rpartition(b'@')[2].hex()}\n" for one in addresses)
        done = subprocess.run(
            ["perl", f"-I{tree.tree}/usr/share/perl5", "-e", HARNESS, plugin, str(tmp_path / "list"), *settings],
            input=asked_hex.encode(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        replies = done.stdout.split()
        assert set(replies) == {b"DECLINED", b"DENY"}
        said = {one: reply == b"DECLINED" for one, reply in zip(addresses, replies, strict=True)}
        assert disagreeing(found, addresses, said, undecided=True) == []
