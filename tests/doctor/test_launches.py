"""What starts a server, read as text: run scripts, inetd, xinetd, systemd."""

from __future__ import annotations

from pathlib import Path

import pytest
from doctored import RUN, host, looking
from hosts import File, Link, Thing
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.doctor.chains import Launch
from rcptgen.doctor.launches import launches
from rcptgen.doctor.words import commands

LIST = b"/var/qmail/control/validrcptto.cdb"
SMTPD = "/var/qmail/bin/qmail-smtpd"


def started(tmp_path: Path, names: dict[str, Thing | None]) -> list[Launch]:
    laid = host(tmp_path / "host", {RUN: None, **names})
    with looking(laid.root) as sight:
        return list(launches(sight))


def script(tmp_path: Path, text: str, **more: Thing) -> Launch:
    (found,) = started(tmp_path, {RUN: text, **more})
    return found


@pytest.mark.parametrize(
    "text",
    [
        f"export VALIDRCPTTO_CDB={LIST.decode()}\nexec {SMTPD}\n",
        f"VALIDRCPTTO_CDB={LIST.decode()}; export VALIDRCPTTO_CDB\nexec {SMTPD}\n",
        f"export VALIDRCPTTO_CDB\nVALIDRCPTTO_CDB='{LIST.decode()}'\nexec {SMTPD}\n",
        f'C=/var/qmail/control\nexport VALIDRCPTTO_CDB="${{C}}/validrcptto.cdb"\nexec {SMTPD}\n',
        f"export VALIDRCPTTO_CDB=${{WHERE:-{LIST.decode()}}}\nexec {SMTPD}\n",
        f"set -a\nVALIDRCPTTO_CDB={LIST.decode()}\n{SMTPD}\n",
        f"VALIDRCPTTO_CDB={LIST.decode()} {SMTPD}\n",
        f"exec env - PATH=/bin VALIDRCPTTO_CDB={LIST.decode()} tcpserver 0 25 {SMTPD}\n",
        f"exec \\\n  env VALIDRCPTTO_CDB={LIST.decode()} \\\n  {SMTPD}\n",
        f"if test -r x; then\n  VALIDRCPTTO_CDB={LIST.decode()}; export VALIDRCPTTO_CDB\nfi\nexec {SMTPD} 2>&1\n",
        f"cat <<EOF\nexport VALIDRCPTTO_CDB=/no\nEOF\nexport VALIDRCPTTO_CDB={LIST.decode()} # list\nexec {SMTPD}\n",
        f"#!/usr/bin/execlineb -P\nexport VALIDRCPTTO_CDB {LIST.decode()}\ns6-setuidgid qmaild\n{SMTPD}\n",
    ],
)
def test_the_variable_reaches_the_server(text: str, tmp_path: Path) -> None:
    found = script(tmp_path, text)
    assert (found.program, found.value(b"VALIDRCPTTO_CDB")) == (SMTPD.encode(), LIST)


@pytest.mark.parametrize(
    "text",
    [
        f"VALIDRCPTTO_CDB=/x\nexec {SMTPD}\n",
        f"# export VALIDRCPTTO_CDB=/x\nexec {SMTPD}\n",
        f"export VALIDRCPTTO_CDB=/x\nunset VALIDRCPTTO_CDB\nexec {SMTPD}\n",
        f"export VALIDRCPTTO_CDB=/x\nexec env -i {SMTPD}\n",
        f"export VALIDRCPTTO_CDB=/x\nexec env -u VALIDRCPTTO_CDB {SMTPD}\n",
        f"export VALIDRCPTTO_CDB=`cat /x`\nexec {SMTPD}\n",
    ],
)
def test_the_variable_does_not_reach_it_or_is_not_known(text: str, tmp_path: Path) -> None:
    assert script(tmp_path, text).value(b"VALIDRCPTTO_CDB") is None


@pytest.mark.parametrize(
    ("text", "uid", "gid"),
    [
        (f"exec setuidgid qmaild tcpserver 0 25 {SMTPD}\n", 7791, 2108),
        (f"exec envuidgid qmaild tcpserver -U 0 25 {SMTPD}\n", 7791, 2108),
        (f'U=`id -u qmaild`\nG=$(id -g qmaild)\nexec tcpserver -vR -u "$U" -g "$G" 0 25 {SMTPD}\n', 7791, 2108),
        (f"exec tcpserver -vRHu7791 -g2108 -c40 0 smtp {SMTPD}\n", 7791, 2108),
        (f"exec chpst -m 9000000 -u joe:nofiles tcpsvd 0 25 {SMTPD}\n", 1001, 2108),
        (f"exec softlimit -m 9000000 sslserver -x r.cdb -u 1001 -g 12 0 465 {SMTPD}\n", 1001, 12),
        (f"#!/bin/execlineb\ns6-setuidgid joe s6-tcpserver 0 25 {SMTPD}\n", 1001, 1001),
    ],
)
def test_the_account_is_the_one_that_the_chain_gives(text: str, uid: int, gid: int, tmp_path: Path) -> None:
    who = script(tmp_path, text).who
    assert who is not None
    assert (who.identity, who.sure) == ((uid, gid), True)


def test_an_account_that_only_the_run_knows_is_taken_for_the_usual_one(tmp_path: Path) -> None:
    who = script(tmp_path, f"exec tcpserver -u `somewhere` 0 25 {SMTPD}\n").who
    assert who is not None
    assert (who.name, who.sure) == ("qmaild", False)


def test_options_with_values_do_not_hide_the_rules_and_the_port(tmp_path: Path) -> None:
    found = script(tmp_path, f"exec tcpserver -c 40 -l mx -x /etc/tcp.smtp.cdb -- :: submission {SMTPD} mx true\n")
    assert (found.rules, found.port, found.submission) == (b"/etc/tcp.smtp.cdb", b"submission", True)
    assert found.arguments == [b"mx", b"true"]


def test_a_directory_of_variables(tmp_path: Path) -> None:
    found = started(
        tmp_path,
        {
            RUN: f"export GONE=1 KEPT=2\nexec envdir ./env {SMTPD}\n",
            "/service/qmail-smtpd/env/VALIDRCPTTO_CDB": "/list.cdb \t\nsecond line\n",
            "/service/qmail-smtpd/env/GONE": "",
        },
    )[0]
    assert found.directory == b"/service/qmail-smtpd/env"
    assert {name: one.value for name, one in found.environment.items()} == {
        b"KEPT": b"2",
        b"VALIDRCPTTO_CDB": b"/list.cdb",
    }
    assert found.environment[b"VALIDRCPTTO_CDB"].file == b"/service/qmail-smtpd/env/VALIDRCPTTO_CDB"


def test_scripts_that_are_read_in_and_scripts_in_the_place_of_the_server(tmp_path: Path) -> None:
    (found,) = started(
        tmp_path,
        {
            RUN: ". /etc/smtp.conf\nexec setuidgid qmaild /usr/local/bin/qmail-smtpd-wrapped\n",
            "/etc/smtp.conf": "export VALIDRCPTTO_CDB=/list.cdb\n. /etc/smtp.conf\n",
            "/usr/local/bin/qmail-smtpd-wrapped": File(f"#!/bin/sh\nexport MORE=1\nexec {SMTPD}\n", mode=0o755),
        },
    )
    assert (found.file, found.program) == (b"/usr/local/bin/qmail-smtpd-wrapped", SMTPD.encode())
    assert (found.value(b"VALIDRCPTTO_CDB"), found.value(b"MORE")) == (b"/list.cdb", b"1")
    assert found.who is not None
    assert found.who.name == "qmaild"


def test_a_servers_name_does_not_start_it_everywhere(tmp_path: Path) -> None:
    control = f"""#!/bin/sh
PATH=/var/qmail/bin:/usr/bin
case "$1" in
  start) if svok /service/qmail-smtpd ; then svc -u /service/qmail-smtpd ; fi ;;
  stat) svstat /service/qmail-smtpd /service/qmail-smtpd/log ;;
  pause) for i in qmail-smtpd qmail-send; do sv p $i; done ;;
  stop) pkill -f qmail-smtpd; echo "Stopping {SMTPD}"; ls -l {SMTPD} ;;
esac
"""
    names: dict[str, Thing | None] = {
        "/etc/init.d/qmail": control,
        "/service/smtp-log/run": "exec setuidgid qmaill multilog t /var/log/qmail/qmail-smtpd\n",
    }
    assert started(tmp_path, names) == []


def test_a_service_that_is_linked_is_one_service(tmp_path: Path) -> None:
    names: dict[str, Thing | None] = {
        "/var/qmail/supervise/smtpd/run": f"exec {SMTPD}\n",
        "/service/smtpd": Link("/var/qmail/supervise/smtpd"),
    }
    assert [one.file for one in started(tmp_path, names)] == [b"/service/smtpd/run"]


def test_inetd_xinetd_and_boot_scripts(tmp_path: Path) -> None:
    found = started(
        tmp_path,
        {
            "/etc/inetd.conf": f"# no\nsmtp stream tcp nowait qmaild.nofiles /var/qmail/bin/tcp-env tcp-env {SMTPD}\n",
            "/etc/xinetd.d/smtp": "service smtp\n{\n user = joe\n server = /var/qmail/bin/tcp-env\n"
            f" server_args = {SMTPD} mx\n env = VALIDRCPTTO_CDB=/list.cdb A=1\n env += B=2\n}}\n",
            "/etc/xinetd.d/off": f"service smtp\n{{\n disable = yes\n server = {SMTPD}\n}}\n",
            "/etc/init.d/smtp": f"#!/bin/sh\ncase $1 in start) env A=1 {SMTPD} & ;; esac\n",
        },
    )
    told = {one.file: (one.style, one.who and one.who.name, one.value(b"A")) for one in found}
    assert told == {
        b"/etc/init.d/smtp": ("shell", None, b"1"),
        b"/etc/inetd.conf": ("inetd", "qmaild", None),
        b"/etc/xinetd.d/smtp": ("xinetd", "joe", b"1"),
    }


def test_units_of_systemd_with_their_drop_ins(tmp_path: Path) -> None:
    (found,) = started(
        tmp_path,
        {
            "/lib/systemd/system/smtp.service": "[Service]\nExecStart=/bin/hidden qmail-smtpd\n",
            "/etc/systemd/system/smtp.service": "[Unit]\nUser=no\n[Service]\nUser=qmaild\n"
            "Environment=A=1 'B=two words'\n"
            f"EnvironmentFile=-/etc/default/smtp\nExecStart=-/usr/bin/tcpserver -H 0 25 \\\n  {SMTPD}\n",
            "/etc/default/smtp": "# list\nVALIDRCPTTO_CDB=/list.cdb\n",
            "/etc/systemd/system/smtp.service.d/more.conf": "[Service]\nEnvironment=C=3\n",
        },
    )
    assert (found.style, found.file, found.line) == ("systemd", b"/etc/systemd/system/smtp.service", 7)
    assert {name: one.value for name, one in found.environment.items()} == {
        b"A": b"1",
        b"B": b"two words",
        b"C": b"3",
        b"VALIDRCPTTO_CDB": b"/list.cdb",
    }
    assert found.who is not None
    assert found.who.name == "qmaild"


SHELL = st.lists(
    st.sampled_from(
        [
            bytes((one,))
            for one in b"a=$`()'\"\
 {}#;&|<"
        ]
        + [b"<<E"]
    ),
    max_size=40,
).map(b"".join)


@given(SHELL | st.binary(max_size=200))
def test_any_text_is_cut_into_commands(text: bytes) -> None:
    found = list(commands(text, lambda name: b"value", lambda command: None))
    assert all(one.words and 1 <= one.line <= text.count(b"\n") + 1 for one in found)
    assert [one.line for one in found] == sorted(one.line for one in found)


def test_a_variable_that_doubles_itself_comes_to_nothing(tmp_path: Path) -> None:
    found = script(tmp_path, "export A=xxxxxxxx\n" + 'A="$A$A$A$A"\n' * 2000 + f"exec {SMTPD}\n")
    assert found.value(b"A") is None
