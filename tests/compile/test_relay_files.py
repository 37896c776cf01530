"""Recipients of relayed domains from files: `[policy] relay = "file"` and `[[relay]]`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from everytarget import compiled
from hosts import cdb_bytes
from runs import Names, Run, Site, faults

from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table

pytestmark = pytest.mark.root

FILE = "/etc/mail/relay"
OTHER = "/etc/mail/relay2"


def config(*relays: str) -> str:
    return '[policy]\nrelay = "file"\n' + "".join(f"[[relay]]\n{one}" for one in relays)


ONE = config(f'file = "{FILE}"\n')
TWO = config(f'file = "{FILE}"\n', f'file = "{OTHER}"\n')

RELAY = (
    "# the branch office\nfred@far.example\nAnna@Far.Example\nlist-*@far.example\n*@open.example\nx@nowhere.example\n"
    + "".join(f"user{number}@far.example\n" for number in range(20))
)

NAMES: Names = {
    "passwd": {"joe": 1001, "ann": 1002},
    "control/me": "mail.example.org\n",
    "control/locals": "example.org\n",
    "control/rcpthosts": "example.org\nfar.example\nopen.example\nother.example\nmixed.example\nback.example\n",
    "control/virtualdomains": "mixed.example:joe-mixed\nout@mixed.example:\nin@back.example:joe-back\n",
    "~joe/.qmail-mixed-home": "./Maildir/\n",
    "~joe/.qmail-back-in": "./Maildir/\n",
    "alias/.qmail-postmaster": "ann\n",
    "/etc/rcptgen.toml": ONE,
    FILE: RELAY,
}

WANTED = {
    "fred@far.example": True,
    "anna@far.example": True,
    "list-1@far.example": True,
    "user7@far.example": True,
    "nosuch@far.example": False,
    "postmaster@far.example": False,
    "anybody@open.example": True,
    "anybody@other.example": True,
    "x@nowhere.example": False,
    "home@mixed.example": True,
    "nosuch@mixed.example": False,
    "in@back.example": True,
    "ann@example.org": True,
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, NAMES)


def answers(site: Site) -> dict[str, bool]:
    return {address: site.accepts(address) for address in WANTED}


def add_elsewhere(site: Site) -> None:
    site.host.write("~ann/.qmail-new", "./Maildir/\n")


def test_relayed_domains_have_the_recipients_of_the_file(site: Site) -> None:
    done = site.published()
    assert answers(site) == WANTED
    assert done.states == {}
    assert sorted(done.json["warnings"]) == [
        "/etc/mail/relay: 1 rule for domains that this host does not relay to",
        "no recipients are known of 3 relayed domains, accepted whole: back.example, mixed.example, other.example",
    ]
    assert site.run("verify", "--full", "--target", "validrcptto", site.file).status == 0


def test_where_a_domain_is_at_home_in_part_the_file_decides_what_is_sent_on(site: Site) -> None:
    site.host.write(FILE, "out@mixed.example\nhome2@mixed.example\nfred@back.example\n")
    site.published()
    wanted = {
        "home@mixed.example": True,
        "out@mixed.example": True,
        "home2@mixed.example": False,
        "in@back.example": True,
        "fred@back.example": True,
        "nosuch@back.example": False,
    }
    assert {address: site.accepts(address) for address in wanted} == wanted
    site.host.write(FILE, "x@mixed.example\nin@far.example\n")
    site.published("--force")
    assert not site.accepts("out@mixed.example")
    for address, accepted in wanted.items():
        found = site.run("check", "--json", address).lines[0]["accepted"]
        assert found is site.accepts(address), (address, accepted)


def test_a_local_domain_is_never_read_from_a_file(site: Site) -> None:
    site.host.write(FILE, RELAY + "nosuch@example.org\n")
    site.published()
    assert not site.accepts("nosuch@example.org")


def test_several_files_add_up(site: Site) -> None:
    site.host.write("/etc/rcptgen.toml", TWO)
    site.host.write(OTHER, "more@far.example\nfred@far.example\nonly@other.example\n")
    site.published()
    for address, accepted in {
        "more@far.example": True,
        "fred@far.example": True,
        "user3@far.example": True,
        "nosuch@far.example": False,
        "only@other.example": True,
        "anybody@other.example": False,
    }.items():
        assert site.accepts(address) is accepted, address


def test_without_rcpthosts_no_domain_is_relayed(site: Site) -> None:
    site.host.remove("control/rcpthosts")
    site.published()
    assert not site.accepts("fred@far.example")


def test_overlays_come_after_the_files(site: Site) -> None:
    extra = '[extra]\naccept = ["new@far.example"]\nreject = ["fred@far.example", "anna"]\n'
    site.host.write("/etc/rcptgen.toml", ONE + extra)
    site.published()
    for address, accepted in {
        "new@far.example": True,
        "fred@far.example": False,
        "anna@far.example": False,
        "anna@other.example": False,
        "user1@far.example": True,
    }.items():
        assert site.accepts(address) is accepted, address
        assert site.run("check", "--json", address).lines[0]["accepted"] is accepted


# --- Formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("", "fred@far.example\r\nANNA@far.example\r\n\r\n"),
        ("", "\ufefffred@far.example\n\tanna@far.example \n"),
        ('column = "E-Mail"\n', "Name,e-mail \nFred,fred@far.example\nNobody,\nAnna,anna@far.example\n"),
        ("header = true\ncolumn = 2\n", 'Name,Mail\n"Fred, the first",fred@far.example\n"A\nB",anna@far.example\n'),
        ('column = 2\ndelimiter = ";"\n', 'Fred;fred@far.example\r\nAnna;"anna@far.example"\r\n'),
        ('column = "größe"\n', "größe,x\nfred@far.example,\nanna@far.example,1\n"),
    ],
)
def test_forms_of_text(site: Site, options: str, text: str) -> None:
    csv = 'format = "csv"\n' if options else ""
    site.host.write("/etc/rcptgen.toml", config(f'file = "{FILE}"\n{csv}{options}'))
    site.host.write(FILE, text)
    site.published()
    found = [site.accepts(f"{name}@far.example") for name in ("fred", "anna", "name", "mail", "nosuch")]
    assert found == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [
        ('column = "mail"\n', "name,email\nx,fred@far.example\n", "line 1: the header has no such column"),
        ('column = "mail"\n', "mail,mail\nx,fred@far.example\n", "line 1: the header has no such column, or several"),
        ("column = 3\n", "a,b\n", "line 1: fewer columns than needed"),
        ("column = 1\n", 'fred@far.example\n"anna@far.example\n', "not CSV"),
        ("column = 1\n", "fred@far.example\nanna\n", "line 2: not user@domain"),
        ("column = 1\n", '"a\nb"\nx@far.example\n', "line 1: not user@domain"),
        ("column = 1\n", "fred@far.example\n\0\n", "line 2: "),
        ("column = 1\n", "fred@far.example", "no newline at its end"),
        ("column = 1\n", "x" * 200_000 + "\n", "not CSV: field larger"),
    ],
)
def test_what_is_no_such_csv_is_accepted_and_said(site: Site, options: str, text: str, reason: str) -> None:
    site.host.write("/etc/rcptgen.toml", config(f'file = "{FILE}"\nformat = "csv"\n{options}'))
    site.host.write(FILE, text)
    done = site.compile()
    assert done.status == 75
    assert (done.states, site.accepts("anybody@far.example")) == ({FILE: "suspect"}, True)
    assert any(reason in one["reason"] for one in done.json["units"])


def other_hosts(name: str, **options: Any) -> bytes:
    """What another host has compiled."""
    accept = Outcome(Verdict.DELIVER, Kind.MAILBOX, "there")
    refuse = Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "not there")
    rules = {
        b"far.example": Table(
            {b"fred": accept, b"anna": accept, b"list-no": refuse, b"=joe": accept}, {b"": refuse, b"list-": accept}
        ),
        b"open.example": Table({b"spam": refuse}, {b"": accept}),
        b"far.away.example": Table({b"x": accept}, {b"": refuse}),
    }
    with compiled(name, rules, options) as found:
        return found.content


@pytest.mark.parametrize("name", ["validrcptto", "rcptgen"])
def test_another_hosts_list(site: Site, name: str) -> None:
    site.host.write("/etc/rcptgen.toml", config(f'file = "{FILE}"\nformat = "cdb"\n'))
    site.host.write(FILE, other_hosts(name))
    done = site.published()
    wanted = {
        "fred@far.example": True,
        "=joe@far.example": True,
        "list-yes@far.example": True,
        "list-no@far.example": False,
        "nosuch@far.example": False,
        "any@open.example": True,
        "spam@open.example": False,
        "x@far.away.example": False,
    }
    assert {address: site.accepts(address) for address in wanted} == wanted
    assert "relay: 1 rule for domains" in done.json["warnings"][0]


@pytest.mark.parametrize("name", ["validrcptto", "rcptgen"])
@pytest.mark.parametrize("how", ["cut", "flipped", "text", "mixed", "zeros"])
def test_a_damaged_list_of_another_host_keeps_what_was_published(site: Site, name: str, how: str) -> None:
    site.host.write("/etc/rcptgen.toml", config(f'file = "{FILE}"\nformat = "cdb"\n'))
    whole = other_hosts(name)
    site.host.write(FILE, whole)
    site.published()
    before = site.rules
    flipped = bytearray(whole)
    at = whole.index(b"fred")
    flipped[at] ^= 1
    mixed = cdb_bytes([(b"=fred@far.example", b"f1 mailbox"), (b"fred@far.example", b"1")])
    site.host.write(
        FILE,
        {"cut": whole[:-9], "flipped": bytes(flipped), "text": b"fred@far.example\n", "mixed": mixed}.get(
            how, bytes(len(whole))
        ),
    )
    done = site.compile()
    assert (done.status, done.states) == (75, {FILE: "suspect"})
    assert site.rules == before


# --- Trouble --------------------------------------------------------------------------------------


def vanished(site: Site) -> None:
    site.host.path(FILE).unlink()


def cut_off(site: Site) -> None:
    site.host.path(FILE).write_bytes(site.host.path(FILE).read_bytes()[:-100])


def emptied(site: Site) -> None:
    site.host.path(FILE).write_bytes(b"")


def a_bad_line(site: Site) -> None:
    site.host.path(FILE).write_text("fred@far.example\n<anna@far.example>, Anna\nanna\n")


def assert_kept(site: Site, done: Run, state: str, reason: str) -> None:
    assert done.status == 75, done
    assert answers(site) == WANTED
    assert site.accepts("ann-new@example.org")
    assert done.states == {FILE: state}
    assert reason in done.kept[FILE]
    assert done.held == {}


@pytest.mark.parametrize(
    ("spoil", "state", "reason"),
    [
        (vanished, "failed", "No such file"),
        (cut_off, "suspect", "no newline at its end"),
        (emptied, "suspect", "it has no recipients, and had some"),
        (a_bad_line, "suspect", "line 3: not user@domain"),
    ],
)
def test_the_last_recipients_stay(site: Site, spoil: Callable[[Site], None], state: str, reason: str) -> None:
    site.published()
    add_elsewhere(site)
    spoil(site)
    if spoil is a_bad_line:
        site.host.path(FILE).write_text("# x\nfred@far.example\nanna\n")
    assert_kept(site, site.compile(), state, reason)
    site.host.write("~ann/.qmail-newer", "./Maildir/\n")
    assert_kept(site, site.compile(), state, reason)
    assert site.accepts("ann-newer@example.org")


def test_a_file_that_gives_an_error(site: Site) -> None:
    site.published()
    add_elsewhere(site)
    with faults(eio=(FILE.encode(),)):
        assert_kept(site, site.compile(), "failed", "Input/output error")


@pytest.mark.parametrize("spoil", [vanished, cut_off, a_bad_line])
def test_what_was_never_read_is_accepted_whole(site: Site, spoil: Callable[[Site], None]) -> None:
    spoil(site)
    done = site.compile()
    assert done.status == 75
    assert site.accepts("anybody@far.example")
    assert not site.accepts("nosuch@example.org")


def test_a_second_file_that_was_never_read_opens_what_the_first_lists(site: Site) -> None:
    site.published()
    site.host.write("/etc/rcptgen.toml", TWO)
    done = site.compile()
    assert (done.status, done.states) == (75, {OTHER: "failed"})
    assert site.accepts("anybody@far.example")


def test_a_file_that_had_nothing_to_say_opens_nothing_when_it_goes(site: Site) -> None:
    site.host.write("/etc/rcptgen.toml", TWO)
    site.host.write(OTHER, "# nobody yet\n")
    site.published()
    site.host.remove(OTHER)
    for _ in range(3):
        add_elsewhere(site)
        done = site.compile()
        assert (done.status, list(done.kept)) == (75, [OTHER])
        assert answers(site) == WANTED


def test_one_file_in_trouble_keeps_its_part_and_the_other_goes_on(site: Site) -> None:
    site.host.write("/etc/rcptgen.toml", TWO)
    site.host.write(OTHER, "more@far.example\nonly@other.example\n")
    site.published()
    vanished(site)
    site.host.write(OTHER, "most@far.example\nonly@other.example\nlast@other.example\n")
    done = site.compile()
    assert done.status == 75
    wanted = {
        "fred@far.example": True,
        "most@far.example": True,
        "nosuch@far.example": False,
        "last@other.example": True,
        "nosuch@other.example": False,
    }
    assert {address: site.accepts(address) for address in wanted} == wanted


def test_half_of_the_recipients_gone_is_held(site: Site) -> None:
    site.published()
    site.host.write(FILE, "fred@far.example\n*@open.example\n")
    done = site.compile()
    assert done.status == 3
    assert set(done.held) == {"far.example"}
    assert site.accepts("user7@far.example")
    assert site.approve("far.example").status == 0
    assert not site.accepts("user7@far.example")


def test_a_comment_says_that_the_file_is_meant_to_be_empty(site: Site) -> None:
    site.published()
    site.host.write(FILE, "# nobody is known any more\n")
    site.published()
    assert site.accepts("anybody@far.example")


def test_a_domain_that_is_no_longer_in_the_file_is_accepted_whole(site: Site) -> None:
    site.published()
    site.host.write(FILE, "some@other.example\nx@back.example\n")
    site.published()
    answers = {one: site.accepts(f"anybody@{one}.example") for one in ("far", "open", "other", "back")}
    assert answers == {"far": True, "open": True, "other": False, "back": False}


# --- Where they are told of -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "place", "status"),
    [
        ("anna@far.example", f"relayed, and in the file ({FILE}:3)", 0),
        ("list-5@far.example", f"relayed, and in the file ({FILE}:4)", 0),
        ("nosuch@far.example", f"relayed, and not in the file ({FILE})", 1),
        ("x@open.example", f"relayed, and in the file ({FILE}:5)", 0),
        ("x@other.example", "relayed: its domain is in rcpthosts", 0),
    ],
)
def test_explain_names_file_and_line(site: Site, address: str, place: str, status: int) -> None:
    site.published()
    done = site.run("explain", address)
    assert place in done.out
    assert done.status == status


def test_list_names_file_and_line(site: Site) -> None:
    found = {one["rule"]: (one["kind"], one["file"], one["line"]) for one in site.run("list", "--json").lines}
    assert found["anna@far.example"] == ("relay", FILE, 3)
    assert found["list-*@far.example"] == ("relay", FILE, 4)
    assert found["!*@far.example"] == ("no-mailbox", FILE, 0)
    assert found["*@open.example"] == ("relay", FILE, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[policy]\nrelay = "file"\n', "needs a [[relay]]"),
        (f'[[relay]]\nfile = "{FILE}"\n', 'goes with [policy] relay = "file"'),
        (config('file = "relay"\n'), "file must be an absolute path"),
        (config('file = "/a"\ncolumn = 0\n'), "column is the name"),
        (config('file = "/a"\nheader = true\n'), 'go with format = "csv"'),
        (config('file = "/a"\nformat = "csv"\ndelimiter = "ab"\n'), "delimiter is one"),
        (config('file = "/a"\ncolum = 1\n'), "unknown key 'colum' in [relay]; the nearest known one is 'column'"),
        ('[extra]\naccept_files = ["accept"]\n', "accept_files must be an absolute path"),
    ],
)
def test_a_configuration_that_says_no_file_is_refused(site: Site, text: str, message: str) -> None:
    site.host.write("/etc/rcptgen.toml", text)
    done = site.compile()
    assert done.status == 78
    assert message in done.err
