"""Two runs of `compile` over a domain of vpopmail: its database damaged, its mailboxes locked, its users gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hosts import Dir, File, cdb_bytes
from runs import Names, Run, Site

pytestmark = pytest.mark.root

DOMAIN = "shop.example"
HOME = f"~vpopmail/domains/{DOMAIN}"
DIRECTORY = f"/home/vpopmail/domains/{DOMAIN}"
CDB = f"{HOME}/vpasswd.cdb"
USERS = tuple(f"user{number:02}" for number in range(20))
LOCKED = 16
INDEX = 2048


def database(*users: str, locked: tuple[str, ...] = ()) -> File:
    """vpasswd.cdb as vpopmail writes it."""
    return File(cdb_bytes((one.encode(), record(one, LOCKED if one in locked else 0)) for one in users), mode=0o600)


def record(name: str, flags: int) -> bytes:
    return f"x:1:{flags}:{name}:{DIRECTORY}/{name}:NOQUOTA".encode()


HOST: Names = {
    "passwd": {"vpopmail": "vpopmail:x:89:89::/home/vpopmail:/bin/sh"},
    "control/me": "mail.example\n",
    "control/virtualdomains": f"{DOMAIN}:{DOMAIN}\n",
    "users/assign": f"+{DOMAIN}-:{DOMAIN}:89:89:{DIRECTORY}:-::\n.\n",
    "/home/vpopmail/bin/vdelivermail": File("", mode=0o711),
    HOME: Dir(mode=0o700),
    f"{HOME}/.qmail-default": "| /home/vpopmail/bin/vdelivermail '' bounce-no-mailbox\n",
    "alias/.qmail-postmaster": "admin@far.example\n",
    CDB: database(*USERS),
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The domain, published."""
    found = Site(tmp_path, HOST)
    found.published()
    assert accepted(found) == set(USERS)
    return found


def accepted(site: Site) -> set[str]:
    """The names that the published file accepts at the domain, of those in question."""
    return {one for one in (*USERS, "new", "nobody") if site.accepts(f"{one}@{DOMAIN}")}


def damage(site: Site, how: Callable[[bytes], bytes]) -> Run:
    """A run with the database damaged, and an alias that is new."""
    whole = site.host.path(CDB).read_bytes()
    site.host.write(CDB, File(how(whole), mode=0o600))
    site.host.write("alias/.qmail-sales", "ann@far.example\n")
    return site.compile()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a third of it": lambda whole: whole[: len(whole) // 3],
    "cut behind its first block": lambda whole: whole[:INDEX],
    "cut in its first block": lambda whole: whole[: INDEX // 2],
    "cut in its hash tables": lambda whole: whole[:-20],
    "zeros": lambda whole: bytes(len(whole)),
    "zeros from the first block on": lambda whole: whole[:INDEX] + bytes(len(whole) - INDEX),
    "empty": lambda whole: b"",
    "a text": lambda whole: b"".join(record(one, 0) + b"\n" for one in USERS) * 4,
}


@pytest.mark.parametrize("how", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_database_keeps_its_names_and_lets_others_in(site: Site, how: Callable[[bytes], bytes]) -> None:
    done = damage(site, how)
    assert done.status == 75, done
    assert done.states[DIRECTORY] == "suspect"
    assert accepted(site) >= set(USERS)
    assert "nobody" not in accepted(site)
    assert site.accepts("sales@mail.example")
    again = site.compile()
    assert again.status == 75
    assert accepted(site) >= set(USERS)


@pytest.mark.parametrize("how", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_database_is_believed_once_that_is_approved(site: Site, how: Callable[[bytes], bytes]) -> None:
    damage(site, how)
    site.approve(DOMAIN)
    assert "nobody" not in accepted(site)
    assert len(accepted(site)) < len(USERS)
    assert site.accepts("sales@mail.example")


def test_a_database_that_is_whole_again_is_followed(site: Site) -> None:
    damage(site, lambda whole: whole[:INDEX])
    site.host.write(CDB, database(*USERS, "new"))
    site.published()
    assert accepted(site) == {*USERS, "new"}


def test_a_new_domain_with_a_damaged_database_refuses_nothing_that_it_still_finds(tmp_path: Path) -> None:
    whole = cdb_bytes((one.encode(), record(one, 0)) for one in USERS)
    site = Site(tmp_path, {**HOST, CDB: File(whole[:-20], mode=0o600)})
    done = site.compile()
    assert done.status == 75
    assert done.states[DIRECTORY] == "suspect"
    assert accepted(site) >= {*USERS[:-2]}


def test_a_mailbox_that_was_locked_is_refused(site: Site) -> None:
    site.host.write(CDB, database(*USERS, locked=("user03",)))
    site.published()
    assert accepted(site) == set(USERS) - {"user03"}
    site.host.write(CDB, database(*USERS))
    site.published()
    assert accepted(site) == set(USERS)


def test_a_domain_that_lost_its_users_is_held(site: Site) -> None:
    site.host.write(CDB, database())
    done = site.compile()
    assert done.status == 3
    assert list(done.held) == [DOMAIN]
    assert done.held[DOMAIN]["count"] == len(USERS)
    assert accepted(site) == set(USERS)
    assert site.approve(DOMAIN).status == 0
    assert accepted(site) == set()


def test_a_domain_whose_database_is_gone_is_held(site: Site) -> None:
    site.host.remove(CDB)
    done = site.compile()
    assert done.status == 3
    assert list(done.held) == [DOMAIN]
    assert accepted(site) == set(USERS)


def test_a_domain_whose_database_may_not_be_read_is_held(site: Site) -> None:
    site.host.write(CDB, File(site.host.path(CDB).read_bytes(), mode=0o600, uid=0))
    done = site.compile()
    assert done.status == 3
    assert accepted(site) == set(USERS)


def test_few_users_may_go(site: Site) -> None:
    site.host.write(CDB, database(*USERS[4:]))
    site.published()
    assert accepted(site) == set(USERS[4:])


# --- A damaged table behind several local domains ---------------------------------------------

LOCALS = ("one.example", "two.example")
VMAILMGR: Names = {
    "passwd": {"joe": 1001},
    "control/me": "one.example\n",
    "control/locals": "".join(f"{one}\n" for one in LOCALS),
    "/usr/local/bin/vdeliver": File("", mode=0o755),
    "~joe/.qmail-default": "|/usr/local/bin/vdeliver\n",
    "alias/.qmail-postmaster": "admin@far.example\n",
}


FORWARDED = b"\2\x08\1\x0a\0\0pass\0\0x@far.example\0\0me\0-\0-\0-\0-\0001\0-\0"


def table(*users: str) -> File:
    """passwd.cdb as vmailmgr writes it."""
    return File(cdb_bytes(((one.encode(), FORWARDED) for one in users), signed=True), mode=0o600)


def with_another_key(site: Site) -> None:
    """One byte of one user's name has changed."""
    whole = site.host.path("~joe/passwd.cdb").read_bytes()
    site.host.write("~joe/passwd.cdb", File(whole.replace(b"user01\2", b"user0x\2"), mode=0o600))


def test_a_damaged_table_keeps_its_names_in_every_local_domain(tmp_path: Path) -> None:
    site = Site(tmp_path, {**VMAILMGR, "~joe/passwd.cdb": table(*USERS)})
    whole = site.host.path("~joe/passwd.cdb").read_bytes()
    site.published()
    wanted = [f"joe-{user}@{domain}" for user in USERS for domain in LOCALS]
    assert all(map(site.accepts, wanted))
    site.host.write("~joe/passwd.cdb", File(whole[: len(whole) // 2], mode=0o600))
    done = site.compile()
    assert done.status == 75, done
    assert [one for one in wanted if not site.accepts(one)] == []


ANN: Names = {
    **VMAILMGR,
    "passwd": {"joe": 1001, "ann": 1002},
    "control/virtualdomains": "user01@other.example:joe\nother.example:ann\n",
    "~joe/passwd.cdb": table(*USERS),
    "~ann/.qmail-sales": "joe-user01@one.example\n",
    "~ann/.qmail-b": "b@far.example\n",
}
DEAD_FORWARDS: Names = {**ANN, "/etc/rcptgen.toml": '[policy]\ndead_forwards = "reject"\n'}


def test_a_damaged_table_keeps_the_addresses_that_single_entries_lead_to_it(tmp_path: Path) -> None:
    site = Site(tmp_path, ANN)
    site.published()
    with_another_key(site)
    done = site.compile()
    assert done.status == 75, done
    assert site.accepts("joe-user01@one.example")
    assert site.accepts("user01@other.example")
    site.host.write("~joe/passwd.cdb", table(*USERS[:1], *USERS[2:]))
    assert site.approve(*LOCALS, "other.example").status == 0
    assert not site.accepts("user01@other.example")


def test_a_forward_to_a_damaged_table_is_not_taken_for_dead(tmp_path: Path) -> None:
    site = Site(tmp_path, DEAD_FORWARDS)
    site.published()
    with_another_key(site)
    site.host.write("~ann/.qmail-new", "joe-user01@one.example\n")
    done = site.compile()
    assert done.status == 75, done
    assert site.accepts("sales@other.example")
    assert not site.accepts("new@other.example")
    site.host.write("~joe/passwd.cdb", table(*USERS[:1], *USERS[2:]))
    assert site.approve(*LOCALS, "other.example").status == 0
    assert not site.accepts("sales@other.example")


def test_a_forward_to_what_is_held_is_held_with_it(tmp_path: Path) -> None:
    site = Site(tmp_path, DEAD_FORWARDS)
    site.published()
    site.host.write("~joe/passwd.cdb", table())
    done = site.compile()
    assert done.status == 3, done
    assert site.accepts("joe-user01@one.example")
    assert site.accepts("sales@other.example")
    assert site.approve(*LOCALS).status == 3
    assert not site.accepts("joe-user01@one.example")
    assert site.accepts("sales@other.example")
    assert site.approve("other.example").status == 0
    assert not site.accepts("sales@other.example")


def test_a_reason_names_the_damaged_file_once(site: Site) -> None:
    done = damage(site, lambda whole: whole[:-20])
    (reason,) = [one["reason"] for one in done.json["units"] if one["path"] == DIRECTORY]
    assert reason.count("vpasswd.cdb") == 1, reason
