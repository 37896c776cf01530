"""Hosts in several shapes: set up as doctor says, they are well; half set up, it says what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from doctored import EXEC, RUN, added, codes, doctor, finding, host
from hosts import File, Host, Thing, cdb_bytes
from runs import called, forked_workers

from rcptgen.config import Config, Output
from rcptgen.doctor.setup import SETUPS, TAKES, configured, lines_for
from rcptgen.targets import target_names

pytestmark = pytest.mark.root

SMTPD = "/var/qmail/bin/qmail-smtpd"


def binary(*strings: str) -> File:
    return File("\0".join(("", *strings, "")), mode=0o755)


def exim(lookup: str, path: str) -> str:
    return f"  accept condition = ${{lookup{{${{lc:$local_part@$domain}}}}{lookup}{{{path}}}}}\n"


ACCESS = "check_recipient_access pcre:/etc/postfix/rcpt.pcre"

# A target with its options, the path, what else is there, and the server's file that names the list.
SHAPES: dict[str, tuple[str, str, dict[str, Thing]]] = {
    "daemontools": ("validrcptto", "/var/qmail/control/validrcptto.cdb", {}),
    "systemd": (
        "validrcptto",
        "/var/qmail/control/validrcptto.cdb",
        {
            RUN: "",
            "/etc/systemd/system/smtp.service": "[Service]\nUser=qmaild\nGroup=nofiles\n"
            f"Environment=VALIDRCPTTO_CDB=/var/qmail/control/validrcptto.cdb\nExecStart=/bin/tcpserver 0 25 {SMTPD}\n",
        },
    ),
    "rules": (
        "validrcptto",
        "/var/qmail/control/validrcptto.cdb",
        {
            RUN: f"exec setuidgid qmaild tcpserver -x /etc/tcp.cdb 0 25 {SMTPD}\n",
            "/etc/tcp": ':allow,VALIDRCPTTO_CDB="/var/qmail/control/validrcptto.cdb"\n',
            "/etc/tcp.cdb": "made below",
        },
    ),
    "sagredo": (
        "morevalidrcptto",
        "/var/qmail/control/morevalidrcptto.cdb",
        {"bin/qmail-smtpd": binary("VALIDRCPTTO", "MOREVALIDRCPTTO_CDB"), RUN: EXEC},
    ),
    "sagredo text": (
        "morevalidrcptto,form=text",
        "/var/qmail/control/validrcptto",
        {"bin/qmail-smtpd": binary("MOREVALIDRCPTTO_CDB"), RUN: EXEC},
    ),
    "sqmail": (
        "sqmail",
        "/var/qmail/users/recipients.cdb",
        {
            "bin/qmail-smtpd": binary("control/recipients"),
            RUN: EXEC,
            "control/recipients": "*:users/recipients.cdb\n",
        },
    ),
    "goodrcptto": (
        "goodrcptto",
        "/var/qmail/control/goodrcptto",
        {"bin/qmail-smtpd": binary("control/goodrcptto"), RUN: EXEC},
    ),
    "postfix": (
        "postfix",
        "/etc/postfix/rcpt.cdb",
        {"/etc/postfix/main.cf": "base = cdb:/etc/postfix\nrelay_recipient_maps =\n  hash:/etc/other,\n  $base/rcpt\n"},
    ),
    "postfix, master.cf": (
        "postfix-access",
        "/etc/postfix/rcpt.cdb",
        {
            "/etc/postfix/main.cf": "# nothing\n",
            "/etc/postfix/master.cf": "smtp inet n - y - - smtpd\n  -o { smtpd_recipient_restrictions = "
            "reject_unauth_destination, check_recipient_access cdb:/etc/postfix/rcpt }\n",
        },
    ),
    "postfix, text": (
        "postfix-access,form=text",
        "/etc/postfix/rcpt",
        {"/etc/postfix/main.cf": "smtpd_relay_restrictions = check_recipient_access texthash:/etc/postfix/rcpt\n"},
    ),
    "postfix, pcre": (
        "postfix-pcre",
        "/etc/postfix/rcpt.pcre",
        {"/etc/postfix/main.cf": "smtpd_recipient_restrictions = check_recipient_access pcre:/etc/postfix/rcpt.pcre\n"},
    ),
    "exim": ("exim", "/etc/exim4/rcpt.cdb", {"/etc/exim4/exim4.conf": exim("cdb*@", "/etc/exim4/rcpt.cdb")}),
    "exim, macro": (
        "exim,form=text",
        "/etc/exim4/rcpt",
        {
            "/etc/exim4/conf.d/main/01": "RCPTS = /etc/exim4/rcpt\n" + exim("lsearch*@", "RCPTS"),
        },
    ),
    "exim, patterns": (
        "exim-wildlsearch",
        "/etc/exim4/rcpt",
        {"/etc/exim4/exim4.conf": exim("nwildlsearch", "/etc/exim4/rcpt")},
    ),
    "opensmtpd": (
        "opensmtpd",
        "/etc/mail/rcpts",
        {
            "/etc/mail/smtpd.conf": 'table "rcpts" "file:/etc/mail/rcpts"\n'
            'match from any for rcpt-to <rcpts> action "in" # list\n'
        },
    ),
    "goodrcptto of qpsmtpd": (
        "goodrcptto-qpsmtpd",
        "/etc/qpsmtpd/goodrcptto",
        {"/etc/qpsmtpd/plugins": "dnsbl\ncheck_goodrcptto\nrcpt_ok\n"},
    ),
    "rcpt_map": (
        "rcpt-map,domain=example.org",
        "/etc/qpsmtpd/map",
        {"/etc/qpsmtpd/plugins": "rcpt_map domain example.org file /etc/qpsmtpd/map default DENY=No\n"},
    ),
    "haraka": (
        "haraka",
        "/etc/haraka/config/host_list_regex",
        {"/etc/haraka/config/plugins": "# tls\nrcpt_to.in_host_list\n"},
    ),
    "sendmail": (
        "sendmail-access",
        "/etc/mail/rcpts",
        {"/etc/mail/sendmail.cf": "Kaccess hash -T<TMPF> /etc/mail/access\n", "/etc/mail/access.db": "built"},
    ),
    "rspamd": (
        "rspamd-map",
        "/etc/rspamd/rcpts.map",
        {
            "/etc/rspamd/rspamd.conf": "",
            "/etc/rspamd/local.d/multimap.conf": "# ours\nA {\n  type = rcpt;\n  filter = email:addr;\n"
            '  map = "file:///etc/rspamd/rcpts.map";\n}\nB { filter = "email:domain"; type = "rcpt"; score = 0; '
            'map = "/etc/rspamd/rcpts.map" }\n',
        },
    ),
    "rbldnsd": (
        "dnset",
        "/var/lib/rbldns/rcpt",
        {"/etc/default/rbldnsd": '# "a:dnset:b"\nRBLDNSD="- -r/var/lib/rbldns \\\n rcpt.example.org:dnset:rcpt"\n'},
    ),
    "rbldnsd, run script": (
        "dnset",
        "/var/lib/rbldns/rcpt",
        {"/service/rbldnsd/run": "exec rbldnsd -n -u rbldns -w /var/lib/rbldns rcpt.example.org:dnset:rcpt\n"},
    ),
}


def laid_down(tmp_path: Path, shape: str) -> Host:
    """The host, its list compiled, and rcptgen.toml with the output."""
    spelled, path, names = SHAPES[shape]
    target, *options = spelled.split(",")
    toml = f'[[output]]\ntarget = "{target}"\npath = "{path}"\n'
    toml += "".join(f'{name} = "{value}"\n' for name, _, value in (one.partition("=") for one in options))
    common: dict[str, Thing] = {"control/rcpthosts": "example.org\n", "alias/.qmail-postmaster": "joe\n"}
    if "validrcptto" not in target:
        common |= {RUN: "", "control/validrcptto.cdb": ""}
    laid = host(tmp_path / "host", {**common, **names, "/etc/rcptgen.toml": toml})
    if shape == "rules":
        laid.write("/etc/tcp.cdb", cdb_bytes([(b"", b"+VALIDRCPTTO_CDB=/var/qmail/control/validrcptto.cdb\0")]))
    laid.path(path).parent.mkdir(parents=True, exist_ok=True)
    with forked_workers():
        done = called("--root", laid.root, "compile", "-t", f"{spelled}={laid.path(path)}")
    assert done.status == 0, done
    for built in laid.root.glob("etc/mail/*.db"):
        built.touch()
    return laid


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_set_up_is_well(shape: str, tmp_path: Path) -> None:
    done = doctor(laid_down(tmp_path, shape).root)
    assert (codes(done), done.status) == (["R100"], 0), done.json
    assert SHAPES[shape][1] in finding(done, "R100")["text"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_list_that_is_cut_off_or_gone_is_a_problem(shape: str, tmp_path: Path) -> None:
    laid = laid_down(tmp_path, shape)
    file = laid.path(SHAPES[shape][1])
    whole = file.read_bytes()
    if file.name.endswith(".cdb"):
        file.write_bytes(whole[: len(whole) // 2])
        assert codes(doctor(laid.root)) == ["R105"]
    file.unlink()
    assert codes(doctor(laid.root)) == ["R104"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_list_that_no_server_is_told_of_is_a_problem(shape: str, tmp_path: Path) -> None:
    """What is left of the host when the settings that name the list are taken away."""
    laid = laid_down(tmp_path, shape)
    for name in (RUN, *SHAPES[shape][2]):
        laid.write(name, "")
    done = doctor(laid.root)
    assert done.status == 1 or "R102" in codes(done)
    assert {"R101", "R102", "Q110", "Q114", "O104"} & {*codes(done)}


def test_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = doctor(tmp_path / "empty")
    assert (codes(done), done.status) == (["R101"], 1)
    assert added(finding(done, "R101")) == ["export VALIDRCPTTO_CDB=/var/qmail/control/validrcptto.cdb"]


def test_lines_go_where_the_server_has_its_settings(tmp_path: Path) -> None:
    toml = "".join(
        f'[[output]]\ntarget = "{name}"\npath = "/lists/{name}"\n'
        for name in ("exim-wildlsearch", "opensmtpd", "rcpt-regexp")
    )
    laid = host(
        tmp_path / "host",
        {
            RUN: None,
            "/etc/rcptgen.toml": toml,
            "/etc/exim4/conf.d/main/01": "acl_smtp_rcpt = acl_check_rcpt\n",
            "/etc/exim4/conf.d/acl/30": "acl_check_rcpt:\n  accept\n",
            "/etc/mail/smtpd.conf": "listen on localhost\n",
            "/home/smtpd/qpsmtpd/config/plugins": "rcpt_ok\n",
        },
    )
    done = doctor(laid.root)
    assert codes(done) == ["R101", "R101", "R101"]
    assert [one["add"][0]["file"] for one in done.json["findings"]] == [
        *("/etc/exim4/conf.d/acl/30", "/etc/mail/smtpd.conf", "/home/smtpd/qpsmtpd/config/plugins"),
    ]


def test_a_host_whose_server_takes_other_lists(tmp_path: Path) -> None:
    laid = host(tmp_path / "host", {RUN: None, "/etc/postfix/main.cf": "relay_domains = example.org\n"})
    one = finding(doctor(laid.root), "R101")
    assert one["text"].endswith("(validrcptto) is for qmail-smtpd, and here is Postfix")
    assert added(one) == ["[[output]]", 'target = "postfix-access"', 'path = "/etc/postfix/rcpt.cdb"']


def test_a_submission_service_needs_no_list(tmp_path: Path) -> None:
    submission = f"exec setuidgid qmaild sslserver 0 465 {SMTPD}\n"
    laid = host(tmp_path / "host", {"/service/submission/run": submission})
    assert codes(doctor(laid.root)) == ["R100"]


@pytest.mark.parametrize(
    ("shape", "text", "wanted"),
    [
        ("postfix", "relay_recipient_maps = cdb:/etc/postfix/rcpt.cdb\n", ["P107"]),
        ("postfix", "relay_recipient_maps = cdb:/etc/postfix/rcpt\nrecipient_delimiter = +-\n", ["P104", "R100"]),
        ("postfix, pcre", "local_recipient_maps = pcre:/etc/postfix/rcpt.pcre\n", ["P103"]),
        (
            "postfix, pcre",
            "smtpd_relay_restrictions = permit check_recipient_access pcre:/etc/postfix/rcpt.pcre\n",
            ["P105"],
        ),
        ("postfix, pcre", "relay_recipient_maps = hash:/etc/other\n", ["R108", "R101"]),
        ("postfix, pcre", "a = $b\nb = $a$a\nrelay_recipient_maps = $a\n", ["R101"]),
    ],
)
def test_what_postfix_is_told_otherwise(shape: str, text: str, wanted: list[str], tmp_path: Path) -> None:
    laid = laid_down(tmp_path, shape)
    laid.write("/etc/postfix/main.cf", text)
    assert codes(doctor(laid.root)) == wanted


def test_lists_of_others_are_their_own_business(tmp_path: Path) -> None:
    names: dict[str, Thing | None] = {
        "/etc/default/rbldnsd": 'RBLDNSD="bl.example:dnset:/bl"\n',
        "/etc/haraka/config/plugins": "rcpt_to.in_host_list\n",
        "/etc/qpsmtpd/plugins": "# see x/rcpt_ok\nrcpt_map domain a.example file /a\nrcpt_ok\n#check_goodrcptto\n",
        "/etc/smtpd.conf": "table a file:/etc/aliases\nmatch from any for rcpt-to <a> action x\n",
    }
    assert codes(doctor(host(tmp_path / "host", names).root)) == ["R100"]


@pytest.mark.parametrize(
    ("run", "wanted"),
    [
        (f"export VALIDRCPTTO_CDB=\nexec setuidgid qmaild tcpserver 0 587 {SMTPD}\n", ["R101"]),
        (f"export RELAYCLIENT=\nexec setuidgid qmaild tcpserver 127.0.0.1 2525 {SMTPD}\n", ["Q101"]),
        (f"export RELAYCLIENT=\nexec setuidgid qmaild tcpserver :: 25 {SMTPD}\n", ["Q106", "Q101"]),
    ],
)
def test_what_only_senders_that_are_known_can_reach(run: str, wanted: list[str], tmp_path: Path) -> None:
    assert codes(doctor(host(tmp_path / "host", {RUN: run}).root)) == wanted


def test_a_table_type_that_cannot_read_the_list(tmp_path: Path) -> None:
    laid = laid_down(tmp_path, "postfix, pcre")
    text = "smtpd_recipient_restrictions = check_recipient_access regexp:/etc/postfix/rcpt.pcre\n"
    laid.write("/etc/postfix/main.cf", text)
    assert "takes regexp here" in finding(doctor(laid.root), "R103")["text"]


@pytest.mark.parametrize(
    ("names", "where", "lines"),
    [
        ({RUN: f"#!/bin/sh\n\n{EXEC}"}, (RUN, "above line 3"), ["export VALIDRCPTTO_CDB=PATH"]),
        (
            {RUN: f"exec envdir ./env {SMTPD}\n", "/service/qmail-smtpd/env/A": "1"},
            (None, ""),
            ["echo PATH > /service/qmail-smtpd/env/VALIDRCPTTO_CDB"],
        ),
        ({RUN: f"#!/bin/execlineb\n{SMTPD}\n"}, (RUN, "above the line that starts the server"), None),
        (
            {RUN: "", "/etc/systemd/system/s.service": f"[Service]\nExecStart={SMTPD}\n"},
            ("/etc/systemd/system/s.service", "in [Service]"),
            ["Environment=VALIDRCPTTO_CDB=PATH"],
        ),
        (
            {RUN: "", "/etc/xinetd.d/smtp": f"service smtp {{\nserver = {SMTPD}\n}}\n"},
            ("/etc/xinetd.d/smtp", "in its section"),
            ["env = VALIDRCPTTO_CDB=PATH"],
        ),
        (
            {RUN: "", "/etc/inetd.conf": f"smtp stream tcp nowait qmaild {SMTPD} qmail-smtpd\n"},
            ("/etc/inetd.conf", f"in line 1, in front of {SMTPD}"),
            ["/usr/bin/env VALIDRCPTTO_CDB=PATH"],
        ),
    ],
)
def test_the_lines_are_those_of_what_starts_the_server(
    names: dict[str, Thing], where: tuple[str | None, str], lines: list[str] | None, tmp_path: Path
) -> None:
    one = finding(doctor(host(tmp_path / "host", names).root), "Q101")
    assert (one["add"][0]["file"], one["add"][0]["where"]) == where
    wanted = lines or ["export VALIDRCPTTO_CDB PATH"]
    assert added(one) == [line.replace("PATH", "/var/qmail/control/validrcptto.cdb") for line in wanted]


def test_what_doctor_wants_added_makes_it_well(tmp_path: Path) -> None:
    laid = host(tmp_path / "host", {RUN: "#!/bin/sh\nexec 2>&1\n" + EXEC})
    one = finding(doctor(laid.root), "Q101")
    text = laid.path(RUN).read_text().splitlines(keepends=True)
    at = int(one["add"][0]["where"].removeprefix("above line ")) - 1
    laid.path(RUN).write_text("".join([*text[:at], *(line + "\n" for line in added(one)), *text[at:]]))
    assert codes(doctor(laid.root)) == ["R100"]


def test_a_directory_with_a_servers_name_is_none(tmp_path: Path) -> None:
    laid = host(tmp_path / "host", {"/etc/init.d/q": "exec start /service/qmail-smtpd\n"})
    assert codes(doctor(laid.root)) == ["R100"]


PLUGIN = "control/smtpplugins"


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ({RUN: EXEC, "bin/qmail-smtpd": binary("smtpplugins"), PLUGIN: "[rcpt]\nplugins/x\n"}, ["Q113", "R101"]),
        (
            {
                RUN: EXEC,
                "bin/qmail-smtpd": binary("smtpplugins"),
                PLUGIN: "[rcpt]\nplugins/x\n",
                "/var/qmail/plugins/x": File("#!/bin/sh\n", mode=0o700),
            },
            ["Q113", "R101"],
        ),
        ({RUN: EXEC, "bin/qmail-smtpd": binary("smtpplugins"), PLUGIN: "[mail]\nx\n"}, ["Q112", "R101"]),
        ({RUN: f"export RCPTCHECK=/x\n{EXEC}", "bin/qmail-smtpd": binary("RCPTCHECK")}, ["Q113", "R101"]),
        ({RUN: EXEC, "bin/qmail-smtpd": binary("CHKUSER_START")}, ["R101"]),
        ({"bin/qmail-smtpd": binary("AUTH_SET_VALIDRCPTTO_CDB")}, ["R100"]),
        ({"bin/qmail-smtpd": binary("MOREVALIDRCPTTO_CDB")}, ["Q102", "R101"]),
        ({RUN: f"export RELAYCLIENT=\n{EXEC}"}, ["Q106", "Q101"]),
    ],
)
def test_other_checks_of_qmail_smtpd(names: dict[str, Thing], wanted: list[str], tmp_path: Path) -> None:
    assert codes(doctor(host(tmp_path / "host", names).root)) == wanted


def test_a_patch_is_found_wherever_it_stands_in_the_binary(tmp_path: Path) -> None:
    for at in (0, 1 << 20, (1 << 20) - 7, (2 << 20) + 1):
        program = File(b"\x7fELF" + b"x" * at + b"\0VALIDRCPTTO_CDB\0" + b"y" * 100, mode=0o755)
        assert codes(doctor(host(tmp_path / str(at), {"bin/qmail-smtpd": program}).root)) == ["R100"]


# -- the lines, and the documentation -------------------------------------------------------------

DOCUMENTED = {
    "validrcptto": "/var/qmail/control/validrcptto.cdb",
    "sqmail": "/var/qmail/users/recipients.cdb",
    "postfix,form=cdb": "/etc/postfix/rcpt.cdb",
    "postfix-access,form=cdb": "/etc/postfix/rcpt.cdb",
    "postfix-pcre": "/etc/postfix/rcpt.pcre",
    "exim,form=cdb": "/etc/exim4/rcpt.cdb",
    "exim-wildlsearch": "/etc/exim4/rcpt",
    "opensmtpd": "/etc/mail/rcpts",
    "goodrcptto-qpsmtpd": "/etc/qpsmtpd/goodrcptto",
    "rcpt-map": "/etc/qpsmtpd/map-example.org",
    "rspamd-map": "/etc/rspamd/rcpts.map",
    "sendmail-access": "rcpts",
}
"""Kinds of lists whose lines docs/targets.md shows, with the paths there."""


@pytest.mark.needs("checkout")
@pytest.mark.parametrize("kind", DOCUMENTED)
def test_the_lines_are_those_of_the_documentation(kind: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "targets.md").read_text()
    name, _, form = kind.partition(",form=")
    options = {"form": form} if form else {"domain": "example.org"} if name == "rcpt-map" else {}
    path = DOCUMENTED[kind]
    output = Output(target=name, path=os.path.join("/", path), options=options)
    (one,) = configured(Config(output=(output,)))
    lines = lines_for(one)
    assert lines is not None
    section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    shown = section.replace("`", "\n").splitlines()
    for line in lines.lines:
        assert line.decode().replace(os.path.join("/", path), path) in shown


def test_every_kind_of_list_that_a_server_takes_has_its_setup() -> None:
    for_programs = {"csv", "db_load", "json", "ldif", "rcptgen", "sql", "text"}
    assert {kind.partition(",")[0] for kind in SETUPS} | for_programs == {*target_names()}
    assert {one.server for one in SETUPS.values()} == {*TAKES}
