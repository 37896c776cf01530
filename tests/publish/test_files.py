"""Replacing files: modes, owners, links, leftovers, and what stays as it was."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rcptgen.errors import PublishFailed
from rcptgen.publish import staged as staged_module
from rcptgen.publish.cdb import read_cdb, write_cdb
from rcptgen.publish.files import PartlyPublished, Publication, Published

OLD = b"old\n" * 100
NEW = b"new\n" * 200


def _publish(*targets: tuple[Path, bytes], mode: int = 0o644, owner: tuple[int, int] | None = None) -> list[Published]:
    with Publication() as publication:
        for path, content in targets:
            publication.stage(os.fsencode(path), mode, owner).write([content])
        return publication.commit()


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_file(tmp_path: Path) -> None:
    target = tmp_path / "v.cdb"
    result = _publish((target, NEW))
    assert target.read_bytes() == NEW
    assert result == [Published(os.fsencode(target), True, len(NEW), hashlib.sha256(NEW).hexdigest())]
    assert os.listdir(tmp_path) == ["v.cdb"]


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o644, 0o600, 0o664])
def test_mode_whatever_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    old = os.umask(umask)
    try:
        _publish((tmp_path / "v", NEW), mode=mode)
    finally:
        os.umask(old)
    assert _mode(tmp_path / "v") == mode


def test_temporary_file_is_private_until_it_is_whole(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with Publication() as publication:
            staged = publication.stage(os.fsencode(tmp_path / "v"), 0o644)
            staged.write([NEW])
            assert stat.S_IMODE(os.fstat(staged.fileno()).st_mode) == 0o600
    finally:
        os.umask(old)
    assert os.listdir(tmp_path) == []


def test_unchanged_keeps_the_inode(tmp_path: Path) -> None:
    target = tmp_path / "v"
    _publish((target, NEW))
    before = target.stat()
    with Publication() as publication:
        staged = publication.stage(os.fsencode(target), 0o644)
        staged.write([NEW])
        staged.finish()
        assert staged.unchanged()
        assert os.listdir(tmp_path) == ["v"]
        assert [p.changed for p in publication.commit()] == [False]
    after = target.stat()
    assert (before.st_ino, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_ino,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def test_same_size_other_bytes(tmp_path: Path) -> None:
    big = bytes(3 << 20)
    target = tmp_path / "v"
    _publish((target, big))
    assert [p.changed for p in _publish((target, big[:-1] + b"x"))] == [True]
    assert target.read_bytes()[-1:] == b"x"


def test_other_mode_is_a_change(tmp_path: Path) -> None:
    target = tmp_path / "v"
    _publish((target, NEW), mode=0o600)
    os.link(target, tmp_path / "hard link")
    assert _publish((target, NEW), mode=0o644)[0].changed
    assert _mode(target) == 0o644
    assert _mode(tmp_path / "hard link") == 0o600


@pytest.mark.root
def test_owner(tmp_path: Path) -> None:
    target = tmp_path / "v"
    _publish((target, NEW), owner=(1234, 5678), mode=0o640)
    assert (target.stat().st_uid, target.stat().st_gid, _mode(target)) == (1234, 5678, 0o640)
    assert not _publish((target, NEW), owner=(1234, 5678), mode=0o640)[0].changed
    assert _publish((target, NEW), owner=(1234, 5679), mode=0o640)[0].changed


@pytest.mark.root
def test_equal_file_of_somebody_else_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "v"
    target.write_bytes(NEW)
    target.chmod(0o644)
    os.chown(target, 1234, 1234)
    assert _publish((target, NEW))[0].changed
    assert target.stat().st_uid == 0


def test_readers_keep_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "v"
    _publish((target, OLD))
    with target.open("rb") as reader:
        _publish((target, NEW))
        assert reader.read() == OLD
    assert target.read_bytes() == NEW


def test_all_or_none_when_building_fails(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    _publish((one, OLD), (two, OLD))
    with pytest.raises(ZeroDivisionError), Publication() as publication:
        publication.stage(os.fsencode(one), 0o644).write([NEW])
        publication.stage(os.fsencode(two), 0o644).write([NEW])
        raise ZeroDivisionError
    assert (one.read_bytes(), two.read_bytes()) == (OLD, OLD)
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]


def test_keyboard_interrupt_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Publication() as publication:
        publication.stage(os.fsencode(tmp_path / "v"), 0o644).write([NEW])
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_interrupt_between_renames_says_which_are_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    _publish((one, OLD), (two, OLD))
    rename = os.rename

    def interrupted(*arguments: object, **names: object) -> None:
        rename(*arguments, **names)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught, Publication() as publication:
        for path in (one, two):
            publication.stage(os.fsencode(path), 0o644).write([NEW])
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", interrupted)
            publication.commit()
    assert (one.read_bytes(), two.read_bytes()) == (NEW, OLD)
    assert caught.value.__notes__ == [f"interrupted between two renames; new: {one}; old: {two}"]
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_second_rename_fails(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    _publish((one, OLD))
    with pytest.raises(PartlyPublished, match="two: cannot take") as caught, Publication() as publication:
        publication.stage(os.fsencode(one), 0o644).write([NEW])
        publication.stage(os.fsencode(two), 0o644).write([NEW])
        two.mkdir()
        (two / "x").touch()
        publication.commit()
    assert (caught.value.new, caught.value.old) == ([os.fsencode(one)], [os.fsencode(two)])
    assert f"new: {one}; old: {two}" in str(caught.value)
    assert one.read_bytes() == NEW
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_one_target_twice(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "v")
    with pytest.raises(PublishFailed, match="two outputs"), Publication() as publication:
        publication.stage(os.fsencode(tmp_path / "v"), 0o644)
        publication.stage(os.fsencode(tmp_path / "link"), 0o644)
    assert os.listdir(tmp_path) == ["link"]


@pytest.mark.parametrize("kind", ["directory", "fifo", "device"])
def test_only_regular_files_are_replaced(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "v"
    if kind == "directory":
        target.mkdir()
    elif kind == "fifo":
        os.mkfifo(target)
    else:
        target = Path("/dev/null")
    with pytest.raises(PublishFailed, match="not a regular file"):
        _publish((target, NEW))


@pytest.mark.parametrize("path", [b"", b".", b"..", b"/", b"x/", b"/tmp/", b"a\0b"])
def test_paths_that_name_no_file(path: bytes) -> None:
    with pytest.raises(PublishFailed), Publication() as publication:
        publication.stage(path, 0o644)


def test_messages_are_safe_on_a_terminal(tmp_path: Path) -> None:
    with pytest.raises(PublishFailed) as caught, Publication() as publication:
        publication.stage(os.fsencode(tmp_path) + b"/\x1b[31m\xff\n/v", 0o644)
    assert "\\x1b[31m\\xff\\n" in str(caught.value)
    assert str(caught.value).isprintable()


# --- Leftovers -----------------------------------------------------------------------------------


def test_leftovers_of_killed_runs_go(tmp_path: Path) -> None:
    for name in (".v.rcptgen-1-0123456789abcdef.tmp", ".v.rcptgen-99999-ffffffffffffffff.tmp"):
        (tmp_path / name).write_bytes(b"half")
    others = [".w.rcptgen-1-0123456789abcdef.tmp", ".v.rcptgen-1-0123456789abcdef.tmp.mine", ".v.rcptgen-lock", "v.tmp"]
    for name in others:
        (tmp_path / name).touch()
    _publish((tmp_path / "v", NEW))
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "v"])


def test_temporary_file_of_a_living_run_stays(tmp_path: Path) -> None:
    target = tmp_path / "v"
    with Publication() as first:
        first.stage(os.fsencode(target), 0o644).write([OLD])
        _publish((target, NEW))
        first.commit()
    assert target.read_bytes() == OLD


def test_a_leftover_that_is_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".v.rcptgen-1-0123456789abcdef.tmp")
    _publish((tmp_path / "v", NEW))
    assert os.listdir(tmp_path) == ["v"]


# --- Links and directories -----------------------------------------------------------------------


def test_link_that_root_set_is_followed_once(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "etc" / "v").symlink_to("../data/v")
    with Publication() as publication:
        staged = publication.stage(os.fsencode(tmp_path / "etc" / "v"), 0o644)
        staged.write([NEW])
        # What the link says later does not matter any more.
        (tmp_path / "etc" / "v").unlink()
        (tmp_path / "etc" / "v").symlink_to("/nowhere")
        publication.commit()
    assert (tmp_path / "data" / "v").read_bytes() == NEW
    assert (tmp_path / "etc" / "v").is_symlink()
    assert os.listdir(tmp_path / "data") == ["v"]


def test_directory_link_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "way").symlink_to(tmp_path / "real")
    _publish((tmp_path / "way" / ".." / "way" / "v", NEW))
    assert (tmp_path / "real" / "v").read_bytes() == NEW


def test_link_loop(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(PublishFailed, match="too many symbolic links"):
        _publish((tmp_path / "a", NEW))


def test_link_to_a_directory(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "v").symlink_to("d/")
    with pytest.raises(PublishFailed, match="not a regular file"):
        _publish((tmp_path / "v", NEW))


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_link_that_others_could_have_set(tmp_path: Path, mode: int) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(OLD)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    (shared / "v").symlink_to(victim)
    with pytest.raises(PublishFailed, match="others than root could"):
        _publish((shared / "v", NEW))
    assert victim.read_bytes() == OLD


@pytest.mark.root
@pytest.mark.parametrize("where", ["last", "middle", "above"])
def test_link_of_a_user(tmp_path: Path, where: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "v").write_bytes(OLD)
    home = tmp_path / "home"
    home.mkdir()
    if where == "last":
        (home / "v").symlink_to(victim / "v")
        path = home / "v"
    elif where == "middle":
        (home / "d").symlink_to(victim)
        path = home / "d" / "v"
    else:
        # A directory of root's does not help in a home: its owner can put another there.
        (home / "root").mkdir()
        (home / "root" / "v").symlink_to(victim / "v")
        path = home / "root" / "v"
    os.chown(home, 1234, 1234)
    with pytest.raises(PublishFailed, match="others than root could"):
        _publish((path, NEW))
    assert (victim / "v").read_bytes() == OLD


@pytest.mark.root
def test_directory_writable_by_others_is_refused_for_root(tmp_path: Path) -> None:
    for mode in (0o777, 0o775, 0o757):
        tmp_path.chmod(mode)
        with pytest.raises(PublishFailed, match="writable by others"):
            _publish((tmp_path / "v", NEW))
    tmp_path.chmod(0o1777)
    _publish((tmp_path / "v", NEW))


def test_directory_writable_by_others_is_a_warning_without_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = tmp_path.stat().st_uid or 4321
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    tmp_path.chmod(0o777)
    with Publication() as publication:
        publication.stage(os.fsencode(tmp_path / "v"), 0o644).write([NEW])
        publication.commit()
        assert len(publication.warnings) == 1
        assert "writable by others" in publication.warnings[0]
    assert (tmp_path / "v").read_bytes() == NEW


@pytest.mark.root
def test_directory_of_somebody_else_is_a_warning(tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, 1234)
    with Publication() as publication:
        publication.stage(os.fsencode(tmp_path / "v"), 0o644)
        assert "belongs to uid 1234" in publication.warnings[0]


# --- Limits and surroundings ---------------------------------------------------------------------


def test_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "v"
    _publish((target, OLD))
    monkeypatch.setattr(staged_module, "SIZE_LIMIT", 1000)
    with pytest.raises(PublishFailed, match="more than 1000 bytes"):
        _publish((target, bytes(1001)))
    with pytest.raises(PublishFailed, match="more than 1000 bytes"), Publication() as publication:
        os.ftruncate(publication.stage(os.fsencode(target), 0o644).fileno(), 1001)
        publication.commit()
    assert target.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["v"]
    _publish((target, bytes(1000)))


def test_sparse_file_over_four_gib(tmp_path: Path) -> None:
    with pytest.raises(PublishFailed, match="more than"), Publication() as publication:
        os.ftruncate(publication.stage(os.fsencode(tmp_path / "v"), 0o644).fileno(), (4 << 30) + 1)
        publication.commit()
    assert os.listdir(tmp_path) == []


def test_a_failed_write_cannot_be_committed(tmp_path: Path) -> None:
    def broken() -> list[bytes]:
        raise ZeroDivisionError

    with Publication() as publication:
        staged = publication.stage(os.fsencode(tmp_path / "v"), 0o644)
        with pytest.raises(ZeroDivisionError):
            staged.write(chunk for _ in "x" for chunk in broken())
        with pytest.raises(PublishFailed, match="could not be finished"):
            publication.commit()
    assert os.listdir(tmp_path) == []


def test_relative_path_and_deleted_working_directory(tmp_path: Path) -> None:
    _publish((Path("v"), NEW))
    assert (tmp_path / "v").read_bytes() == NEW
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    _publish((tmp_path / "w", NEW))
    with pytest.raises(PublishFailed):
        _publish((Path("x"), NEW))
    os.chdir(tmp_path)


CLOSED = """
import os, sys
from rcptgen.publish.files import Publication
from rcptgen.publish.cdb import write_cdb
from rcptgen.publish.lock import publishing_lock
target = os.fsencode(sys.argv[1])
with publishing_lock(target + b".lock", 0), Publication() as publication:
    staged = publication.stage(target, 0o644)
    assert staged.fileno() > 2
    write_cdb(staged.fileno(), [(b"a@example.org", b"")])
    for descriptor in (0, 1, 2):
        try:
            os.write(descriptor, b"stray print")
        except OSError:
            pass
    publication.commit()
"""


def test_descriptors_0_to_2_closed(tmp_path: Path) -> None:
    target = tmp_path / "v.cdb"
    command = [sys.executable, "-c", CLOSED, str(target)]
    subprocess.run(["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", *command], check=True)
    assert list(read_cdb(os.fsencode(target))) == [(b"a@example.org", b"")]


def test_few_descriptors(tmp_path: Path) -> None:
    script = CLOSED.replace(
        "target =", "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))\ntarget ="
    )
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "v.cdb")],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert list(read_cdb(os.fsencode(tmp_path / "v.cdb"))) == [(b"a@example.org", b"")]


def test_no_descriptor_leaks(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for turn in range(20):
        with Publication() as publication:
            staged = publication.stage(os.fsencode(tmp_path / "v"), 0o644)
            write_cdb(staged.fileno(), [(b"%d" % turn, b"")])
            if turn % 2:
                publication.commit()
        with pytest.raises(PublishFailed):
            _publish((tmp_path / "no" / "v", NEW))
    assert len(os.listdir("/proc/self/fd")) == before
