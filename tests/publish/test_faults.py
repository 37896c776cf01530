"""Every system call fails once, at every turn: the old file or the new one, whole, and an error that says which."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rcptgen.errors import PublishFailed, RcptgenError
from rcptgen.publish.cdb import read_cdb, write_cdb
from rcptgen.publish.files import PartlyPublished, Publication, PublishedUnsynced
from rcptgen.publish.lock import publishing_lock
from rcptgen.publish.state import Meta, State, path_key

CALLS = (
    "open",
    "fstat",
    "stat",
    "write",
    "pread",
    "read",
    "fsync",
    "fchmod",
    "fchown",
    "rename",
    "unlink",
    "listdir",
    "readlink",
    "close",
    "mkdir",
    "chmod",
    "rmdir",
)
OLD = [(b"old@example.org", b"")] * 3
NEW = [(b"new@example.org", b""), (b"more@example.org", b"")]


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    # test_crash.py looks at what is synced, and when; cdbx has an fsync of its own.
    monkeypatch.setattr(os, "fsync", os.fstat)


@contextmanager
def _failing(name: str, turn: int, number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The `turn`th call of os.NAME fails with errno `number`; yields how often it was called."""
    real: Callable[..., Any] = getattr(os, name)
    calls = [0]

    def call(*arguments: Any, **names: Any) -> Any:
        calls[0] += 1
        if calls[0] != turn:
            return real(*arguments, **names)
        if name == "close":
            real(*arguments, **names)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, call)
        yield calls


def _each_fault(name: str, monkeypatch: pytest.MonkeyPatch, run: Callable[[], Said], number: int) -> Iterator[Said]:
    """Run `run` with the 1st, 2nd, 3rd... call of os.NAME failing until there is no such call."""
    for turn in range(1, 1000):
        with _failing(name, turn, number, monkeypatch) as calls:
            said = run()
        if calls[0] < turn:
            return
        yield said
    pytest.fail("does not end")


class Said(NamedTuple):
    """What ended a publication, and what the state said of it."""

    error: RcptgenError | None
    warning: str | None


FINE = Said(None, None)


class Host:
    """Two outputs in two directories, a state, and a publication of all."""

    def __init__(self, top: Path) -> None:
        (top / "1").mkdir()
        (top / "2").mkdir()
        self.top = top
        self.targets = [top / "1" / "v.cdb", top / "2" / "v.txt"]
        self.paths = [os.fsencode(path) for path in self.targets]
        self.owner = (1234, 1234) if os.geteuid() == 0 else None

    def publish(self, records: list[tuple[bytes, bytes]]) -> Said:
        """Publish both outputs as the compiler does."""
        try:
            with (
                publishing_lock(os.fsencode(self.top / "lock"), 0),
                State.open(os.fsencode(self.top / "state")) as state,
            ):
                return Said(None, self._publish(records, state))
        except RcptgenError as error:
            return Said(error, None)

    def _publish(self, records: list[tuple[bytes, bytes]], state: State) -> str | None:
        generation = state.current(self.paths)
        if generation is not None:
            generation.close()
        with state.begin() as writer, Publication() as publication:
            writer.add(b"example.org", repr(records).encode())
            one = publication.stage(self.paths[0], 0o640, self.owner)
            write_cdb(one.fileno(), records)
            two = publication.stage(self.paths[1], 0o644)
            two.write(key + b"\n" for key, _ in records)
            for staged in (one, two):
                staged.finish()
            digests = {path_key(staged.path): staged.sha256 for staged in (one, two)}
            writer.finish(Meta(time=1, digests=digests))
            publication.commit()
            return state.accept(writer)

    def contents(self) -> list[list[bytes]]:
        """The keys of both outputs; fails unless both are whole."""
        return [[key for key, _ in read_cdb(self.paths[0])], self.targets[1].read_bytes().splitlines()]

    def temporary(self) -> list[str]:
        """The names of all temporary files."""
        return [name for directory in ("1", "2", "state") for name in os.listdir(self.top / directory) if "tmp" in name]


def _keys(records: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [key for key, _ in records]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize("name", CALLS)
def test_every_call_fails_once(tmp_path: Path, name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path)
    old, new = _keys(OLD), _keys(NEW)
    assert host.publish(OLD) == FINE
    faults = 0
    for said in _each_fault(name, monkeypatch, lambda: host.publish(NEW), number):
        faults += 1
        now = host.contents()
        if said.error is None or isinstance(said.error, PublishedUnsynced):
            assert now == [new, new], said
        elif isinstance(said.error, PartlyPublished):
            assert now == [new, old]
            assert (said.error.new, said.error.old) == (host.paths[:1], host.paths[1:])
        else:
            assert now == [old, old], said
            assert str(said.error)
        # Whatever the state says now is true, or it says nothing.
        _state_is_true(host)
        # The next run without a fault makes it good, and leaves nothing.
        assert host.publish(OLD) == FINE
        assert host.contents() == [old, old]
        assert host.temporary() == []
        _state_is_true(host, there=True)
    assert host.contents() == [new, new]
    assert faults or name in ("mkdir", "chmod", "rmdir", "fchown")


def _state_is_true(host: Host, *, there: bool = False) -> None:
    with State.open(os.fsencode(host.top / "state")) as state:
        generation = state.current(host.paths)
        assert generation is not None or not there
        if generation is not None:
            with generation:
                records = OLD if host.contents()[0] == _keys(OLD) else NEW
                assert list(generation.blobs()) == [(b"example.org", repr(records).encode())]


@pytest.mark.parametrize("name", CALLS)
def test_first_publication_with_faults(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for turn in range(1, 1000):
        (tmp_path / str(turn)).mkdir()
        host = Host(tmp_path / str(turn))
        with _failing(name, turn, errno.EIO, monkeypatch) as calls:
            said = host.publish(NEW)
        if said.error is None or isinstance(said.error, PublishedUnsynced):
            assert host.contents() == [_keys(NEW), _keys(NEW)]
        elif isinstance(said.error, PartlyPublished):
            assert [path.exists() for path in host.targets] == [True, False]
        else:
            assert not any(path.exists() for path in host.targets)
        assert host.publish(NEW) == FINE
        assert host.temporary() == []
        if calls[0] < turn:
            return


def test_a_failed_fsync_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Publication() as publication:
        staged = publication.stage(os.fsencode(tmp_path / "v"), 0o644)
        staged.write([b"x"])
        with _failing("fsync", 1, errno.EIO, monkeypatch):
            with pytest.raises(PublishFailed):
                staged.finish()
            with pytest.raises(PublishFailed):
                publication.commit()
    assert os.listdir(tmp_path) == []


def test_unsynced_directory_says_that_the_file_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Publication() as publication:
        staged = publication.stage(os.fsencode(tmp_path / "v"), 0o644)
        staged.write([b"x"])
        staged.finish()
        with (
            _failing("fsync", 1, errno.EIO, monkeypatch),
            pytest.raises(PublishedUnsynced, match="new file is in place") as caught,
        ):
            publication.commit()
    assert [(one.path, one.changed) for one in caught.value.published] == [(os.fsencode(tmp_path / "v"), True)]
    assert (tmp_path / "v").read_bytes() == b"x"


# --- The kernel's own refusals -------------------------------------------------------------------


@contextmanager
def _small_disk(where: Path) -> Iterator[Path]:
    where.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "rcptgen-test", str(where)],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"SKIPPED PART: a tmpfs cannot be mounted: {done.stderr.decode().strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


MANY = [(b"user%d@example.org" % i, b"") for i in range(10000)]


@pytest.mark.root
def test_full_disk(tmp_path: Path) -> None:
    with _small_disk(tmp_path / "disk") as disk:
        host = Host(disk)
        assert host.publish(OLD) == FINE
        digest = hashlib.sha256(host.targets[0].read_bytes()).digest()
        said = host.publish(MANY)
        assert isinstance(said.error, PublishFailed)
        assert "No space left" in str(said.error)
        assert hashlib.sha256(host.targets[0].read_bytes()).digest() == digest
        assert host.temporary() == []
        assert host.publish(NEW) == FINE
        assert host.contents() == [_keys(NEW), _keys(NEW)]


@pytest.mark.root
def test_full_or_read_only_state_does_not_stop_a_publication(tmp_path: Path) -> None:
    host = Host(tmp_path)
    with _small_disk(tmp_path / "state") as disk:
        disk.chmod(0o700)
        assert host.publish(OLD) == FINE
        (disk / "junk").write_bytes(bytes(40 << 10))
        said = host.publish(MANY)
        assert said.error is None
        assert said.warning is not None
        assert "No space left" in said.warning
        assert host.contents() == [_keys(MANY), _keys(MANY)]
        with State.open(os.fsencode(disk)) as state:
            assert state.current(host.paths) is None
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        said = host.publish(NEW)
        assert said.error is None
        assert said.warning is not None
        assert "Read-only" in said.warning
        assert host.contents() == [_keys(NEW), _keys(NEW)]
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        (disk / "junk").unlink()
        assert host.publish(OLD) == FINE
        _state_is_true(host, there=True)


def test_file_size_limit(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert host.publish(OLD) == FINE
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10000, old[1]))
    try:
        # Python ignores SIGXFSZ; were it not, this process would die here.
        said = host.publish(MANY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert isinstance(said.error, PublishFailed)
    assert "File too large" in str(said.error)
    assert host.contents() == [_keys(OLD), _keys(OLD)]
    assert host.temporary() == []


SCRIPT = """
import os, sys
from rcptgen.errors import PublishFailed
from rcptgen.publish.cdb import write_cdb
from rcptgen.publish.files import Publication, PublishedUnsynced
try:
    with Publication() as publication:
        staged = publication.stage(os.fsencode(sys.argv[1]), 0o644)
        write_cdb(staged.fileno(), [(b"new%d" % i, b"") for i in range(5000)])
        publication.commit()
except PublishedUnsynced:
    sys.exit(4)
except PublishFailed:
    sys.exit(3)
"""


@pytest.mark.needs("strace")
@pytest.mark.parametrize(
    ("call", "number", "turn", "status"),
    [
        # 1 is cdbx's own, 2 the one after fchmod, 3 the directory's.
        ("fsync", "EIO", 1, 3),
        ("fsync", "EIO", 2, 3),
        ("fsync", "EIO", 3, 4),
        ("write", "ENOSPC", 1, 3),
        ("write", "EDQUOT", 5, 3),
        ("write", "EIO", 9, 3),
        ("rename,renameat,renameat2", "EACCES", 1, 3),
        ("rename,renameat,renameat2", "EXDEV", 1, 3),
        ("fchmod", "EPERM", 1, 3),
    ],
)
def test_faults_in_c_code(tmp_path: Path, call: str, number: str, turn: int, status: int) -> None:
    target = tmp_path / "v.cdb"
    with target.open("wb") as file:
        write_cdb(file.fileno(), OLD)
    before = target.read_bytes()
    # Only calls on the file, its directory and the temporary file count: none of the interpreter's own.
    trace = ["strace", "-f", "-o", "/dev/null", "-e", f"inject={call}:error={number}:when={turn}"]
    done = subprocess.run([*trace, sys.executable, "-B", "-c", SCRIPT, str(target)], capture_output=True, check=False)
    assert done.returncode == status, done.stderr.decode()
    if status == 4:
        assert len(list(read_cdb(os.fsencode(target)))) == 5000
    else:
        assert target.read_bytes() == before
    assert os.listdir(tmp_path) == ["v.cdb"]
