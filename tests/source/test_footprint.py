"""What was read is what is watched."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from rcptgen.source import (
    Absent,
    Directory,
    Entry,
    EntryType,
    Footprint,
    Identity,
    Refused,
    Regular,
    SourceTree,
    Status,
    What,
    unchanged,
)

S = 1_000_000_000
STATUS = Status(0o100644, 1, 1, 5, 64, 1234, 10 * S, 10 * S)


def test_everything_looked_at_is_recorded(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch()
    os.mkfifo(tmp_path / "fifo")
    with SourceTree(root) as tree:
        tree.read(b"/file")
        tree.read(b"/none", may_wait=True)
        tree.read(b"/fifo")
        tree.status(b"/d/f")
        directory = tree.directory(b"/d")
        assert isinstance(directory, Directory)
        with directory:
            directory.names()
            directory.read(b"f", entry=EntryType.REGULAR)
            directory.read(b"g", may_wait=True)
        entries = {entry.path: entry for entry in tree.footprint}
        assert list(entries) == sorted(entries)
        assert {path: entry.what for path, entry in entries.items()} == {
            b"/file": What.FILE,
            b"/none": What.ABSENT,
            b"/fifo": What.STATUS,
            b"/d": What.LISTING,
            b"/d/f": What.FILE,
            b"/d/g": What.ABSENT,
        }
        stat = (tmp_path / "file").stat()
        assert entries[b"/file"] == Entry(
            b"/file", What.FILE, stat.st_dev, stat.st_ino, 5, stat.st_mtime_ns, stat.st_ctime_ns, False
        )
        assert entries[b"/none"] == Entry(b"/none", What.ABSENT, 0, 0, 0, 0, 0, True)
        assert len(tree.take_footprint()) == 6
        assert len(tree.footprint) == 0


def test_recording_can_be_switched_off(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with SourceTree(os.fsencode(tmp_path), record=False) as tree:
        tree.read(b"/file")
        tree.read(b"/none")
        directory = tree.directory(b"/")
        assert isinstance(directory, Directory)
        with directory:
            directory.names()
            directory.read(b"file", entry=EntryType.REGULAR)
        assert len(tree.footprint) == 0


def test_a_path_may_wait_only_if_every_look_says_so() -> None:
    footprint = Footprint()
    for path, looks in ((b"/a", (True, True)), (b"/b", (True, False)), (b"/c", (False, True))):
        for may_wait in looks:
            footprint.add(path, What.FILE, STATUS, may_wait)
    assert [entry.may_wait for entry in footprint] == [True, False, False]


def test_a_change_between_two_looks_stays_visible() -> None:
    later = STATUS._replace(size=6)
    footprint = Footprint()
    footprint.add(b"/changed", What.STATUS, STATUS, False)
    footprint.add(b"/changed", What.LISTING, later, False)
    footprint.add(b"/came", What.FILE, None, False)
    footprint.add(b"/came", What.FILE, later, False)
    footprint.add(b"/went", What.FILE, STATUS, False)
    footprint.add(b"/went", What.FILE, None, False)
    assert footprint[b"/changed"].what is What.LISTING
    assert not unchanged(footprint[b"/changed"], later, 100 * S)
    assert not unchanged(footprint[b"/came"], later, 100 * S)
    assert not unchanged(footprint[b"/went"], None, 100 * S)


def test_footprints_are_merged() -> None:
    one, other = Footprint(), Footprint()
    one.add(b"/a", What.STATUS, STATUS, True)
    other.add(b"/a", What.FILE, STATUS, False)
    other.add(b"/b", What.FILE, None, True)
    one.merge(other)
    assert [(e.path, e.what, e.may_wait) for e in one] == [(b"/a", What.FILE, False), (b"/b", What.ABSENT, True)]
    assert b"/b" in one
    assert other[b"/a"].what is What.FILE


@pytest.mark.parametrize("field", ["size", "device", "inode", "mtime_ns", "ctime_ns"])
def test_one_difference_is_a_change(field: str) -> None:
    footprint = Footprint()
    footprint.add(b"/a", What.FILE, STATUS, False)
    entry = footprint[b"/a"]
    assert unchanged(entry, STATUS, 12 * S)
    assert not unchanged(entry, STATUS._replace(**{field: getattr(STATUS, field) - 1}), 12 * S)


def test_a_change_too_near_the_look_counts_as_changed() -> None:
    footprint = Footprint()
    footprint.add(b"/a", What.FILE, STATUS, False)
    assert unchanged(footprint[b"/a"], STATUS, 12 * S)
    assert not unchanged(footprint[b"/a"], STATUS, 12 * S - 1)
    assert not unchanged(footprint[b"/a"], STATUS, 5 * S)


def test_absence_is_unchanged_while_nothing_is_there() -> None:
    footprint = Footprint()
    footprint.add(b"/a", What.FILE, None, False)
    assert unchanged(footprint[b"/a"], None, 0)
    assert not unchanged(footprint[b"/a"], STATUS, 100 * S)


def test_times_of_a_user_s_making_are_kept(tmp_path: Path) -> None:
    footprint = Footprint()
    for number, time_ns in enumerate((-(2**62), 2**63 - 1, 2**63, 2**80, -(2**80))):
        status = STATUS._replace(mtime_ns=time_ns)
        path = b"/%d" % number
        footprint.add(path, What.STATUS, status, True)
        footprint.add(path, What.FILE, status, False)
        assert footprint[path].mtime_ns == time_ns
        assert footprint[path].what is What.FILE
        assert unchanged(footprint[path], status, 100 * S)
    file = tmp_path / "file"
    file.touch()
    os.utime(file, ns=(0, 14_000_000_000 * S))
    with SourceTree(os.fsencode(tmp_path)) as tree:
        assert isinstance(tree.read(b"/file"), Regular)
        assert tree.footprint[b"/file"].mtime_ns == file.stat().st_mtime_ns


def test_a_real_file_is_unchanged_until_it_is_not(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    with SourceTree(os.fsencode(tmp_path)) as tree:
        later = time.time_ns() + 5 * S
        assert isinstance(tree.read(b"/file"), Regular)
        entry = tree.take_footprint()[b"/file"]
        now = tree.status(b"/file")
        assert isinstance(now, Status)
        assert unchanged(entry, now, later)
        file.write_bytes(b"two")
        os.utime(file, ns=(now.mtime_ns, now.mtime_ns))
        then = tree.status(b"/file")
        assert isinstance(then, Status)
        assert not unchanged(entry, then, then.ctime_ns + 1)
        file.unlink()
        assert tree.status(b"/file") == Absent(errno.ENOENT)
        assert not unchanged(entry, None, later)


@pytest.mark.root
def test_what_was_refused_is_recorded_as_far_as_it_was_seen(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o700)
    (tmp_path / "shut/file").touch()
    (tmp_path / "closed").touch(mode=0o600)
    with SourceTree(os.fsencode(tmp_path)) as tree:
        with tree.acting_as(Identity(1001, 1001)):
            assert tree.read(b"/closed") == Refused(errno.EACCES)
            assert tree.read(b"/shut/file") == Refused(errno.EACCES)
            assert tree.directory(b"/shut") == Refused(errno.EACCES)
            now = tree.status(b"/closed")
        assert isinstance(now, Status)
        assert tree.footprint[b"/closed"].what is What.STATUS
        assert unchanged(tree.footprint[b"/closed"], now, now.ctime_ns + 2 * S)
        assert tree.footprint[b"/shut/file"].what is What.ABSENT
        assert tree.footprint[b"/shut"].inode == (tmp_path / "shut").stat().st_ino
