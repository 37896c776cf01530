"""What homes were read from: kept small, and compared with what is there now."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import inprocess
import pytest
from hosts import Dir, File, cdb_bytes
from hosts import Host as Laid

from rcptgen.config import Config
from rcptgen.host import Host
from rcptgen.qmail.environment import View
from rcptgen.qmail.judged import Settings
from rcptgen.qmail.users import Owner
from rcptgen.reader import Reader, Session
from rcptgen.source import footprint
from rcptgen.source.looked import Since, unpack
from rcptgen.source.tree import Identity

pytestmark = pytest.mark.root

JOE = Owner(b"joe", 1001, 1001, b"/home/joe", b"-")
VIEW = View(b"mail.example", b"joe-", b"")
WHO = Identity(1001, 1001)


@pytest.fixture
def laid(tmp_path: Path) -> Laid:
    found = Laid(
        tmp_path / "root",
        {
            "control/me": "mail.example\n",
            "control/locals": "mail.example\n",
            "passwd": {"joe": 1001, "ann": 1002},
            "/usr/local/bin/deliver": File("", mode=0o755),
            "~joe/.qmail-x": "|deliver\n",
            "~joe/.qmail-y": "&x@far.example\n",
            "~joe/other": "x",
        },
    )
    age(found.root)
    return found


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, and with file times that are believed after a moment."""
    inprocess.use(monkeypatch)
    monkeypatch.setattr(footprint, "RACY_NS", 20_000_000)


def age(root: Path) -> None:
    """Lets the clock stand later than all changes: what has just changed counts as changed."""
    newest = max(os.lstat(path).st_ctime_ns for path in root.rglob("*"))
    time.sleep(max(0.0, (newest + footprint.RACY_NS - time.time_ns()) / 1e9 + 0.01))


@pytest.fixture
def host(laid: Laid) -> Iterator[Host]:
    with Host.open(laid.root, Config(), look_at_mailboxes=False, record=True) as found:
        found.space()
        found.units.table(JOE, VIEW)
        yield found


def changed(host: Host) -> bool:
    (found,) = host.units.changed([(WHO, JOE.home, host.units.looked_at[JOE])])
    return found is not Since.SAME


def test_a_home_is_known_by_what_it_was_read_from(host: Host) -> None:
    _, entries = unpack(host.units.looked_at[JOE], JOE.home)
    paths = {one.path for one in entries}
    assert {b"/home/joe", b"/home/joe/.qmail-x", b"/home/joe/.qmail-y", b"/usr/local/bin/deliver"} <= paths
    assert b"/home/joe/other" not in paths


def test_the_control_files_are_nobody_s_home(host: Host) -> None:
    (common,) = host.units.common()
    _, entries = unpack(common, b"/")
    paths = {one.path for one in entries}
    assert {b"/var/qmail/control/locals", b"/var/qmail/users/cdb", b"/etc/passwd"} <= paths
    assert not any(path.startswith(b"/home") for path in paths)
    assert host.units.changed([(None, b"/", common)]) == [Since.SAME]


def test_nothing_has_changed(host: Host) -> None:
    assert not changed(host)


CHANGES: dict[str, Callable[[Laid], object]] = {
    "a file in place": lambda laid: laid.path("~joe/.qmail-x").write_text("|deliver 2\n"),
    "a mode": lambda laid: laid.path("~joe/.qmail-y").chmod(0o666),
    "a new name": lambda laid: laid.write("~joe/.qmail-z", "x"),
    "a name that is gone": lambda laid: laid.path("~joe/.qmail-y").unlink(),
    "the home": lambda laid: laid.path("~joe/.qmail-x").parent.rename(laid.root / "home/away"),
    "the home's mode": lambda laid: laid.path("~joe/.qmail-x").parent.chmod(0o777),
    "a program": lambda laid: (laid.root / "usr/local/bin/deliver").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_has_changed_is_seen(laid: Laid, host: Host, change: Callable[[Laid], object]) -> None:
    change(laid)
    assert changed(host)


def test_other_files_in_subdirectories_do_not_count(laid: Laid, host: Host) -> None:
    laid.path("~joe/other").write_text("more")
    assert not changed(host)


def test_a_home_is_read_again_once_it_is_forgotten(laid: Laid, host: Host) -> None:
    laid.write("~joe/.qmail-z", "|exit 100\n")
    assert not any(outcome.file.endswith(b"-z") for outcome in [host.units.table(JOE, VIEW).match(b"z", b"-")])
    host.units.forget({JOE.home})
    assert host.units.table(JOE, VIEW).match(b"z", b"-").file == b"/home/joe/.qmail-z"
    age(laid.root)
    host.units.forget({JOE.home})
    host.units.table(JOE, VIEW)
    assert not changed(host)


# --- An ordinary domain of vpopmail, read in one go ----------------------------------------------

DOMAIN = "/home/vpopmail/domains/shop.example"
SHOP = Owner(b"shop.example", 89, 89, DOMAIN.encode(), b"-")
SEEN_THROUGH = View(b"shop.example", b"shop.example-", b"")


def test_a_home_that_is_read_in_one_go_is_known_by_the_same_paths(tmp_path: Path) -> None:
    record = f"pw:1:0:g:{DOMAIN}/ann:NOQUOTA".encode()
    laid = Laid(
        tmp_path / "root",
        {
            "control/me": "mail.example\n",
            "control/virtualdomains": "shop.example:shop.example\n",
            "users/assign": f"+shop.example-:shop.example:89:89:{DOMAIN}:-::\n.\n",
            "passwd": {"vpopmail": "vpopmail:x:89:89::/home/vpopmail:/bin/sh"},
            "/home/vpopmail/bin/vdelivermail": File("", mode=0o711),
            "~vpopmail/domains/shop.example": Dir(mode=0o700),
            "~vpopmail/domains/shop.example/.qmail-default": "|/home/vpopmail/bin/vdelivermail '' bounce-no-mailbox\n",
            "~vpopmail/domains/shop.example/.qmail-info": "&x@far.example\n",
            "~vpopmail/domains/shop.example/vpasswd.cdb": File(cdb_bytes([(b"ann", record)]), mode=0o600),
            "~vpopmail/domains/shop.example/vpasswd": File("", mode=0o600),
        },
    )
    age(laid.root)
    reader = Reader(Session(bytes(laid.root), "auto", Settings(look_at_mailboxes=False), record=True))
    inside = DOMAIN.encode()
    full = {one.path for one in unpack(reader.table(SHOP, [SEEN_THROUGH])[1].looked_at, inside)[1]}
    with reader._tree.acting_as(Identity(89, 89)):
        found = reader._ordinary(Identity(89, 89), SHOP, [SEEN_THROUGH])
    assert found is not None
    # users/cdb, and what tells of a database, stand among the control files.
    wanted = {path for path in full if path.startswith((inside, b"/home/vpopmail/bin"))}
    assert {one.path for one in unpack(found[1].looked_at, inside)[1]} == wanted
    assert reader.changed([(Identity(89, 89), inside, found[1].looked_at)]) == [Since.SAME]
    laid.path("~vpopmail/domains/shop.example/.qmail-info").write_text("&y@far.example\n")
    assert reader.changed([(Identity(89, 89), inside, found[1].looked_at)]) == [Since.OTHER]


def test_a_file_that_was_read_is_known_whatever_is_judged_next(laid: Laid) -> None:
    reader = Reader(Session(bytes(laid.root), "auto", Settings(), record=True))
    reader.read(b"/var/qmail/control/locals", None, 1 << 20)
    reader.judge([], False)
    assert b"/var/qmail/control/locals" in {entry.path for entry in unpack(reader.common(), b"/")[1]}
