"""Hosts on which rcptgen and the real programs once disagreed; each test names the C function that decides."""

from __future__ import annotations

from pathlib import Path

import pytest
from hosts import Dir, Host, Link, assign_records, cdb_bytes

from rcptgen.compiler import Output, Request, compile_host
from rcptgen.config import Config
from rcptgen.host import Host as Decided
from rcptgen.qmail.passwd import accounts
from rcptgen.rules.outcome import Outcome
from rcptgen.targets import target

pytestmark = pytest.mark.root

BOUNCES = "|exit 100\n"


def decide(host: Host, address: str) -> str:
    with Decided.open(host.root) as decided:
        return decided.decide(address).verdict


def match(host: Host, address: str) -> Outcome:
    local, _, domain = address.rpartition("@")
    with Decided.open(host.root) as decided:
        return decided.rules(domain).match(local)


def listed(host: Host, address: str) -> Outcome:
    """What the rules say, before the home is asked."""
    local, _, domain = address.rpartition("@")
    with Decided.open(host.root) as decided:
        found = decided.rules(domain).table()[0].match(local.encode())
        assert found is not None
        return found


def compiled(host: Host, tmp_path: Path, *addresses: str) -> list[bool]:
    """What the published file answers."""
    file = bytes(tmp_path / "validrcptto.cdb")
    result = compile_host(host.root, Config(), Request((Output("validrcptto", file),), force=True))
    assert result.outputs[0].published
    reader = target("validrcptto").open(file)
    try:
        return [reader.answer(address.encode()).accepted for address in addresses]
    finally:
        reader.close()


def test_a_mailbox_that_defers_hides_the_line_that_bounces(tmp_path: Path) -> None:
    """qmail-local.c (main, mailfile) ends at the first failure; a list that bounces there loses the mail."""
    host = Host(
        tmp_path / "host",
        {
            "passwd": {"joe": 1001},
            "control/me": "h.example\n",
            "~joe/.qmail-gone": "./nodir/mbox\n" + BOUNCES,
            "~joe/.qmail-gone-default": "./nodir/\n" + BOUNCES,
            "~joe/.qmail-here": "./Mailbox\n" + BOUNCES,
        },
    )
    names = ["joe-gone@h.example", "joe-gone-x@h.example", "joe-here@h.example"]
    assert [decide(host, name) for name in names] == ["defer", "defer", "bounce"]
    assert compiled(host, tmp_path, *names) == [True, True, False]


def test_names_below_a_directory_that_cannot_be_entered(tmp_path: Path) -> None:
    """qmail-local.c (qmeexists): permission denied defers, for the directory's own name and for those below it."""
    host = Host(
        tmp_path / "host",
        {
            "passwd": {"joe": 1001},
            "control/me": "h.example\n",
            "~joe/.qmail-x": Dir(mode=0o000),
            "~joe/.qmail-default": BOUNCES,
        },
    )
    names = ["joe-x@h.example", "joe-x/y@h.example", "joe-y@h.example"]
    assert [decide(host, name) for name in names] == ["defer", "defer", "bounce"]
    assert [match(host, name).verdict for name in names] == ["defer", "defer", "bounce"]
    assert compiled(host, tmp_path, *names[:2]) == [True, True]


def test_a_domain_with_an_at_sign_is_nobodys(tmp_path: Path) -> None:
    """qmail-send.c (rewrite): the domain is what follows the last one, so such an entry answers for nothing."""
    host = Host(
        tmp_path / "host",
        {
            "passwd": {"joe": 1001},
            "control/me": "h.example\n",
            "control/locals": "h.example\na@b.example\n",
            "control/rcpthosts": "h.example\nc@d.example\n",
            "control/virtualdomains": "x@y@d.example:joe\n",
        },
    )
    assert decide(host, "joe@a@b.example") == "remote"
    assert compiled(host, tmp_path, "joe@h.example", "joe@a@b.example") == [True, False]


def test_a_mailbox_behind_a_link_to_nothing(tmp_path: Path) -> None:
    """qmail-local.c (mailfile): open_append makes the file that the link names, where its directory is there."""
    host = Host(
        tmp_path / "host",
        {
            "passwd": {"joe": 1001},
            "control/me": "h.example\n",
            "~joe/there": Link("sub/new"),
            "~joe/sub": Dir(),
            "~joe/nowhere": Link("nodir/new"),
            "~joe/slash": Link("new/"),
            "~joe/twice": Link("nowhere"),
            "~joe/.qmail-there": "./there\n",
            "~joe/.qmail-nowhere": "./nowhere\n",
            "~joe/.qmail-slash": "./slash\n",
            "~joe/.qmail-twice": "./twice\n",
        },
    )
    names = ["there", "nowhere", "slash", "twice"]
    verdicts = [decide(host, f"joe-{name}@h.example") for name in names]
    assert verdicts == ["deliver", "defer", "defer", "defer"]


def test_the_own_name_of_a_directory(tmp_path: Path) -> None:
    """qmail-local.c (qmeexists) opens it for reading, which is not what entering it takes."""
    host = Host(
        tmp_path / "host",
        {
            "passwd": {"joe": 1001},
            "control/me": "h.example\n",
            "users/assign": "+x:joe:1001:1001:/home/joe:-x/::\n.\n",
            "~joe/.qmail-x": Dir(mode=0o300),
            "~joe/.qmail-x/y": BOUNCES,
            "~joe/.qmail-read": Dir(mode=0o400),
            "~joe/.qmail-default": BOUNCES,
        },
    )
    names = ["x@h.example", "joe-x/@h.example", "joe-x@h.example", "xy@h.example", "joe-x/y@h.example"]
    assert [decide(host, name) for name in names] == ["defer", "defer", "defer", "bounce", "bounce"]
    assert [match(host, name).verdict for name in names] == ["defer", "defer", "defer", "bounce", "bounce"]
    assert [decide(host, f"joe-read{rest}@h.example") for rest in ("", "/", "/y")] == ["bounce", "bounce", "defer"]
    assert listed(host, "joe-read/@h.example").widened


def test_repeated_slashes_are_reported(tmp_path: Path) -> None:
    """qmail-local.c (qmeexists) leaves them to the kernel, which takes them for one: no list can spell them out."""
    host = Host(
        tmp_path / "host",
        {
            "passwd": {"joe": 1001},
            "control/me": "h.example\n",
            "~joe/.qmail-x/y": "./Mailbox\n",
            "~joe/.qmail-n/y": BOUNCES,
        },
    )
    names = ["joe-x/y@h.example", "joe-x///y@h.example", "joe-n/y@h.example"]
    assert [decide(host, name) for name in names] == ["deliver", "deliver", "bounce"]
    assert compiled(host, tmp_path, *names) == [True, False, False]
    file = bytes(tmp_path / "other.cdb")
    result = compile_host(host.root, Config(), Request((Output("validrcptto", file),), force=True))
    rules = [one.rule for one in result.outputs[0].unsayable if one.reason == "repeated slashes are not written"]
    assert rules == [b"joe-x//*@h.example"]


def test_what_is_left_of_a_damaged_users_cdb(tmp_path: Path) -> None:
    """qmail-lspawn.c (nughde_get): only a look-up that meets the damage defers; the list takes no chances."""
    records = assign_records(b"=joe:joe:1001:1001:/home/joe:-:x:\n=ann:joe:1001:1001:/home/joe:-:x:\n.\n")
    whole = cdb_bytes(records)
    at = whole.index(b"!ann\0") - 8  # where the lengths of this record stand
    host = Host(
        tmp_path / "host",
        {
            "passwd": {"joe": 1001},
            "control/me": "h.example\n",
            "users/cdb": whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 :],
        },
    )
    names = ["joe@h.example", "joe-x@h.example", "ann@h.example"]
    assert [decide(host, name) for name in names] == ["bounce", "bounce", "bounce"]
    assert [match(host, name).verdict for name in names] == ["defer", "defer", "defer"]
    assert compiled(host, tmp_path, *names) == [True, True, True]
    host.write("users/cdb", whole[: len(whole) // 2])
    assert [decide(host, name) for name in names] == ["defer", "defer", "defer"]


@pytest.mark.parametrize(
    ("number", "uid"),
    [
        ("4294967294", 4294967294),
        ("4294967296", None),
        ("18446744073709551615", None),
        ("18446744073709551616", None),
        ("9" * 5000, None),
        ("0" * 5000 + "7", 7),
        ("-1", None),
        ("-0", 0),
        ("-18446744073709551615", 1),
        ("-18446744073709551616", None),
        ("-" + "9" * 5000, None),
    ],
)
def test_numbers_in_passwd(number: str, uid: int | None) -> None:
    """qmail-getpw.c (userext) asks getpwnam, and glibc drops a line with a number that is too large (files-parse.c)."""
    found = accounts(f"joe:x:{number}:1::/home/joe:\n".encode()).get(b"joe")
    assert (found and found.uid) == uid
    if uid is None:
        second = accounts(f"joe:x:{number}:1::/home/joe:\njoe:x:2:2::/:\n".encode())
        assert second[b"joe"].uid == 2


def test_links_in_a_circle_have_an_end(tmp_path: Path) -> None:
    """qmail-local.c (qmeexists) opens one path; to list them all would never end here, so the rest is let in."""
    names: dict[str, Dir | Link | str] = {"~joe/.qmail-z": Link("d0"), "~joe/d7/y": BOUNCES}
    for one in range(14):
        names[f"~joe/d{one}/z"] = "./Mailbox\n"
        for step in (1, 4, 6, 9):
            names[f"~joe/d{one}/to{step}"] = Link(f"../d{(one + step) % 14}")
    host = Host(tmp_path / "host", {"passwd": {"joe": 1001}, "control/me": "h.example\n", **names})
    deep = "joe-z/to1/to1/to1/to4/y@h.example"
    assert decide(host, deep) == "bounce"
    found = match(host, deep)
    assert found.verdict == "bounce" or found.widened
    assert decide(host, "joe-z/" + "to1/" * 30 + "z@h.example") == "deliver"
    assert match(host, "joe-z/" + "to1/" * 30 + "z@h.example").accepted


def test_very_many_constants(tmp_path: Path) -> None:
    """qmail-local.c (main) runs every line once; to run them all for each constant in them takes far too long."""
    lines = [f'|test "$DEFAULT" = {number} && exit 100 || true\n' for number in range(900)]
    host = Host(
        tmp_path / "host",
        {
            "passwd": {"joe": 1001},
            "control/me": "h.example\n",
            "~joe/.qmail-x-default": "".join(lines),
            "~joe/.qmail-y-default": "".join(lines[:9]),
        },
    )
    assert [decide(host, f"joe-{name}-7@h.example") for name in "xy"] == ["bounce", "bounce"]
    assert listed(host, "joe-x-7@h.example").widened
    assert match(host, "joe-y-7@h.example").verdict == "bounce"


def test_a_name_longer_than_any_path(tmp_path: Path) -> None:
    """qmail-local.c (qmeexists): a path of 4096 bytes is too long, which ends nothing, whatever stands on the way."""
    host = Host(
        tmp_path / "host",
        {
            "passwd": {"joe": 1001},
            "control/me": "h.example\n",
            "~joe/.qmail-x": Dir(mode=0o000),
            "~joe/.qmail-default": BOUNCES,
        },
    )
    assert decide(host, f"joe-x/{'y' * 3000}@h.example") == "defer"
    assert decide(host, f"joe-x/{'y' * (4096 - len('.qmail-x/'))}@h.example") == "bounce"


def test_users_cdb_whose_tables_miss_a_record(tmp_path: Path) -> None:
    """qmail-lspawn.c (nughde_get) looks up and never walks: what it cannot find is not there."""
    whole = cdb_bytes(assign_records(b"=joe:ann:1002:1002:/home/ann:-:x:\n.\n"))
    host = Host(
        tmp_path / "host",
        {
            "passwd": {"joe": 1001, "ann": 1002},
            "control/me": "h.example\n",
            "users/cdb": whole.replace(b"!joe\0", b"!jim\0"),
        },
    )
    assert decide(host, "joe@h.example") == "deliver"
    assert match(host, "joe@h.example").accepted
