"""What a user's own directory says may wait while his mail is accepted, and for no longer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Dir, File
from keeping import Kept, keeping
from watched import DOMAINS, TOLD, VPOPMAIL

from rcptgen.config import Config, Policy
from rcptgen.publish.cdb import read_cdb
from rcptgen.watch.inotify import Inotify
from rcptgen.watch.watches import Watches

pytestmark = pytest.mark.root

ONE = f"{DOMAINS}/one.example"
USERS = [f"user{number}" for number in range(40)]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    yield from keeping(tmp_path, monkeypatch)


def _settled(kept: Kept, users: list[str], own: dict[str, str]) -> None:
    """A host whose domain has these users, all with a directory, some with a `.qmail`; it was read."""
    # In a local domain the names of all virtual domains can be written to as well.
    kept.edits.written("control/locals", "#\n")
    kept.edits.users("one.example", users)
    for user in users:
        kept.host.write(f"{ONE}/{user}", Dir(mode=0o700, uid=VPOPMAIL, gid=VPOPMAIL))
    for user, content in own.items():
        _own(kept, user, content)
    kept.keeper.everything("start")


def _own(kept: Kept, user: str, content: str | None) -> None:
    """A user's own `.qmail`; None: he has none."""
    name = f"{ONE}/{user}/.qmail"
    kept.edits.removed(name)
    if content is not None:
        kept.host.write(name, File(content, mode=0o600, uid=VPOPMAIL, gid=VPOPMAIL))


def _seen(kept: Kept) -> set[bytes]:
    """The paths by which the units are known to have changed."""
    return {path for _, paths in kept.keeper.read()[0] for path in (*paths.looked_at, *paths.listed)}


def _below(paths: set[bytes]) -> set[bytes]:
    return {path for path in paths if path.startswith(f"{ONE}/user".encode())}


def test_mailboxes_need_no_watches(kept: Kept) -> None:
    """However many there are, absent or delivering: the watches are those of the domains."""
    own = {"user1": "./Maildir/\n", "user2": "&far@away.example\n", "user3": "# nothing\n", "user4": "|/bin/true\n"}
    counted = []
    for users in (USERS[:5], USERS):
        _settled(kept, users, own)
        units, _ = kept.keeper.read()
        inotify = Inotify(lambda: None)
        try:
            watches = Watches(
                bytes(kept.host.root), inotify, counts=lambda name: name.startswith(b".qmail"), has_events=bool
            )
            watches.replace(units)
            counted.append(len(watches))
        finally:
            inotify.close()
    assert counted[0] == counted[1] > 3


def test_what_bounces_is_watched(kept: Kept) -> None:
    _settled(kept, USERS, {"user3": "|bouncesaying gone\n", "user4": "|exit 100\n", "user5": "./Maildir/\n"})
    seen = _below(_seen(kept))
    assert {f"{ONE}/{user}/.qmail".encode() for user in ("user3", "user4")} <= seen
    assert not any(b"/user5" in path for path in seen)
    assert not kept.accepts("user3@one.example")
    _own(kept, "user3", None)
    assert ONE.encode() in kept.keeper.swept()
    kept.touched(ONE.encode())
    assert kept.accepts("user3@one.example")
    assert kept.is_true()


@pytest.mark.parametrize(
    "lines",
    [
        TOLD + "|exit 100\n",
        "|exit 0\n" + TOLD,
        "|except /home/vpopmail/bin/vdelivermail '' bounce-no-mailbox\n",
        "|/home/vpopmail/bin/vdelivermail '' bounce-no-mailbox; exit 100\n",
    ],
)
def test_other_lines_make_all_of_it_count(kept: Kept, lines: str) -> None:
    """What vdelivermail does is not what becomes of the mail then: 99 for 0 may be an acceptance."""
    kept.edits.written(f"{ONE}/.qmail-default", lines)
    _settled(kept, USERS, {"user1": "./Maildir/\n"})
    assert f"{ONE}/user1/.qmail".encode() in _below(_seen(kept))


def test_dead_forwards_make_all_of_it_count(kept: Kept) -> None:
    """Who forwards to somebody is refused with him, and where he forwards to may be refused, too."""
    kept.config = Config(policy=Policy(dead_forwards="reject"))
    _settled(kept, USERS, {"user1": "&user2@one.example\n"})
    assert f"{ONE}/user1/.qmail".encode() in _below(_seen(kept))


def test_a_directory_that_others_look_into_as_well(kept: Kept) -> None:
    """What is for nobody goes to the same directory: that it may wait for one of them does not count."""
    kept.edits.written(f"{ONE}/.qmail-other-default", f"|/home/vpopmail/bin/vdelivermail '' {ONE}/user1\n")
    _settled(kept, USERS, {"user1": "./Maildir/\n", "user2": "./Maildir/\n"})
    seen = _below(_seen(kept))
    assert f"{ONE}/user1/.qmail".encode() in seen
    assert f"{ONE}/user2/.qmail".encode() not in seen


CONTENTS = ("./Maildir/\n", "&far@away.example\n", "|exit 100\n", "|exit 99\n", "|bouncesaying gone\n", "", None)


@pytest.mark.parametrize("seed", range(4))
def test_surplus_comes_from_what_may_wait(kept: Kept, seed: int) -> None:
    """After what is noticed was read, nothing is missing, and what is too much was accepted and has waited."""
    chosen = random.Random(seed)
    users = USERS[:8]
    _settled(kept, users, {user: content for user in users if (content := chosen.choice(CONTENTS)) is not None})
    for _ in range(12):
        accepted = {user for user in users if kept.accepts(f"{user}@one.example")}
        edited = chosen.sample(users, 2)
        for user in edited:
            _own(kept, user, chosen.choice(CONTENTS))
        if kept.keeper.swept():
            kept.touched(ONE.encode())
        fresh = kept.made()
        surplus = {key for key, _ in read_cdb(bytes(kept.file))} - {key for key, _ in read_cdb(fresh)}
        assert not {key for key, _ in read_cdb(fresh)} - {key for key, _ in read_cdb(bytes(kept.file))}
        assert surplus <= {f"{user}@one.example".encode() for user in accepted}
        if surplus:
            # Everything is read once a day.
            kept.keeper.everything("daily")
            assert kept.is_true()
