"""What is watched, and whose what happens there is: real directories, real events."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rcptgen.keeper import Paths, Unit
from rcptgen.watch.inotify import Inotify
from rcptgen.watch.trail import Trail, Trails
from rcptgen.watch.watches import Watches

SOON = 2.0
QUIET = 0.1


def counts(name: bytes) -> bool:
    return name.startswith(b".qmail")


class Room:
    """A root, with the watches below it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.woken = threading.Event()
        self.inotify = Inotify(self.woken.set)
        self.lost = 0
        self.watches = Watches(bytes(root), self.inotify, counts=counts, has_events=lambda path: True)

    def touched(self, wanted: set[Unit] = frozenset()) -> set[Unit]:  # type: ignore[assignment]
        """The units of all that happens until `wanted` are among them, and then a moment of quiet."""
        found: set[Unit] = set()
        end = time.monotonic() + SOON
        while time.monotonic() < end:
            if not self.woken.wait(QUIET) and found >= wanted:
                break
            self.woken.clear()
            happened, overflowed = self.inotify.take()
            self.lost += overflowed
            found |= self.watches.touched(happened)
        return found


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    for name in ("home/joe", "home/ann", "control"):
        (tmp_path / name).mkdir(parents=True)
    found = Room(tmp_path)
    found.watches.replace(
        [
            (b"joe", Paths((b"/home/joe/vpasswd.cdb",), (b"/home/joe",))),
            (b"ann", Paths((), (b"/home/ann",))),
            (b"control", Paths((b"/control/locals", b"/users/cdb"))),
        ]
    )
    yield found
    found.inotify.close()


def put(path: Path, text: str = "x") -> None:
    path.write_text(text)


def renamed(path: Path) -> None:
    new = path.with_name("new")
    new.write_text("x")
    new.rename(path)


CHANGES: list[tuple[str, Callable[[Path], object], set[Unit]]] = [
    ("a file that counts", lambda root: put(root / "home/joe/.qmail-x"), {b"joe"}),
    ("one that was asked for by name", lambda root: renamed(root / "home/joe/vpasswd.cdb"), {b"joe"}),
    ("one that nobody asked for", lambda root: put(root / "home/joe/Mailbox"), set()),
    ("the same name where nobody asked for it", lambda root: put(root / "home/ann/vpasswd.cdb"), set()),
    ("a mode", lambda root: (root / "home/ann").chmod(0o700), {b"ann"}),
    ("a control file", lambda root: renamed(root / "control/locals"), {b"control"}),
    ("a directory that was missing", lambda root: (root / "users").mkdir(), {b"control"}),
    ("a home that is moved away", lambda root: (root / "home/joe").rename(root / "home/gone"), {b"joe"}),
    ("all homes moved away", lambda root: (root / "home").rename(root / "elsewhere"), {b"joe", b"ann"}),
]


@pytest.mark.parametrize(("change", "wanted"), [one[1:] for one in CHANGES], ids=[one[0] for one in CHANGES])
def test_what_happens_touches_the_units_that_looked_there(
    room: Room, change: Callable[[Path], object], wanted: set[Unit]
) -> None:
    change(room.root)
    assert room.touched(wanted) == wanted


def test_looking_wakes_nobody(room: Room) -> None:
    put(room.root / "home/joe/.qmail-x")
    room.touched({b"joe"})
    seen = room.inotify.seen
    for _ in range(3):
        os.listdir(room.root / "home/joe")
        (room.root / "home/joe/.qmail-x").read_bytes()
    assert room.touched() == set()
    assert room.inotify.seen == seen


def test_a_home_that_comes_back_is_watched_again(room: Room) -> None:
    joe = (b"joe", Paths((), (b"/home/joe",)))
    (room.root / "home/joe").rename(room.root / "home/away")
    assert room.touched({b"joe"}) == {b"joe"}
    room.watches.replace([joe])
    put(room.root / "home/away/.qmail-x")
    assert room.touched() == set()
    (room.root / "home/away").rename(room.root / "home/joe")
    assert room.touched({b"joe"}) == {b"joe"}
    room.watches.replace([joe])
    put(room.root / "home/joe/.qmail-y")
    assert room.touched({b"joe"}) == {b"joe"}


def test_a_directory_that_another_takes_the_place_of_is_watched_again(room: Room) -> None:
    (room.root / "home/new").mkdir()
    (room.root / "home/joe").rename(room.root / "home/old")
    (room.root / "home/new").rename(room.root / "home/joe")
    assert room.touched({b"joe"}) == {b"joe"}
    put(room.root / "home/joe/.qmail-y")
    assert room.touched({b"joe"}) == {b"joe"}


def test_a_link_on_the_way_is_watched_where_it_is(room: Room) -> None:
    for name in ("one", "two"):
        (room.root / "data" / name).mkdir(parents=True)
    (room.root / "home/link").symlink_to("/data/one")
    room.watches.replace([(b"link", Paths((), (b"/home/link",)))])
    put(room.root / "data/one/.qmail")
    assert room.touched({b"link"}) == {b"link"}
    (room.root / "home/other").symlink_to("/data/two")
    (room.root / "home/other").rename(room.root / "home/link")
    assert room.touched({b"link"}) == {b"link"}


def test_a_unit_that_is_dropped_leaves_no_watch_behind(room: Room) -> None:
    before = len(room.watches)
    room.watches.drop([b"joe"])
    assert len(room.watches) == before - 1
    put(room.root / "home/joe/.qmail-x")
    assert room.touched() == set()
    room.watches.drop([b"ann", b"control"])
    assert len(room.watches) == 0


def test_two_paths_of_one_directory_are_watched_each(room: Room) -> None:
    (room.root / "home/twin").symlink_to("joe")
    room.watches.replace([(b"twin", Paths((), (b"/home/twin",)))])
    put(room.root / "home/joe/.qmail-x")
    assert room.touched({b"joe", b"twin"}) == {b"joe", b"twin"}


def test_more_events_than_the_queue_takes_are_told_as_lost(room: Room) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    put(room.root / "home/joe/.qmail-x")
    # Whoever reads the queue is kept from it.
    with room.inotify._thread._lock:
        for number in range(most):
            os.utime(room.root / "home/joe/.qmail-x", ns=(number, number))
            os.utime(room.root / "home/ann", ns=(number, number))
    end = time.monotonic() + 10 * SOON
    while not room.lost and time.monotonic() < end:
        room.touched()
    assert room.lost


@pytest.mark.parametrize(
    ("path", "steps", "end"),
    [
        (b"/a/b", [(b"/", b"a"), (b"/a", b"b")], b"/a/b"),
        (b"/a/file", [(b"/", b"a"), (b"/a", b"file")], None),
        (b"/a/none/x", [(b"/", b"a"), (b"/a", b"none")], None),
        (b"/a/up", [(b"/", b"a"), (b"/a", b"up"), (b"/", b"c")], b"/c"),
        (b"/a/out", [(b"/", b"a"), (b"/a", b"out"), (b"/", b"c")], b"/c"),
        (b"/a/../../c/", [(b"/", b"a"), (b"/", b"c")], b"/c"),
    ],
)
def test_the_way_of_a_path(tmp_path: Path, path: bytes, steps: list[tuple[bytes, bytes]], end: bytes | None) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "a/file").touch()
    (tmp_path / "a/up").symlink_to("../../c")
    (tmp_path / "a/out").symlink_to("/c")
    assert Trails(bytes(tmp_path)).of(path) == Trail(tuple(steps), end)


def test_links_that_lead_into_each_other_have_an_end(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    found = Trails(bytes(tmp_path)).of(b"/one/x")
    assert found.end is None
    assert set(found.steps) == {(b"/", b"one"), (b"/", b"two")}
