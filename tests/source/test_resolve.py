"""The ways of finding a path agree with each other, and with a process that lives in the root."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rcptgen.source import Absent, Directory, Identity, NotRegular, Refused, Regular, SourceTree, Status, kernel
from rcptgen.source.outcomes import failure

pytestmark = pytest.mark.root

NAMES = (b"a", b"b", b"c")
OWNERS = (Identity(0, 0), Identity(1001, 1001), Identity(1002, 1001))
LOOKERS = (Identity(1001, 1001), Identity(1002, 1002), Identity(0, 0))


@dataclass(frozen=True)
class Thing:
    """One object of a random tree; a link where it has a target."""

    path: tuple[bytes, ...]
    kind: str
    mode: int
    owner: Identity
    target: bytes


names = st.sampled_from(NAMES)
steps = st.lists(st.sampled_from((*NAMES, b"..", b".", b"")), min_size=1, max_size=4).map(b"/".join)
targets = st.builds(
    lambda start, path, end: start + path + end or b".",
    st.sampled_from((b"", b"/")),
    steps,
    st.sampled_from((b"", b"/")),
)
things = st.builds(
    Thing,
    path=st.lists(names, min_size=1, max_size=3).map(tuple),
    kind=st.sampled_from(("file", "directory", "directory", "link", "link", "fifo")),
    mode=st.sampled_from((0o755, 0o755, 0o777, 0o1777, 0o711, 0o700, 0o444, 0o050, 0o005, 0)),
    owner=st.sampled_from(OWNERS),
    target=targets,
)
trees = st.lists(things, min_size=1, max_size=10)
paths = st.lists(st.builds(lambda path: b"/" + path, targets), min_size=1, max_size=6)


def plant(root: bytes, tree: list[Thing]) -> None:
    """Lays the things down; what does not fit (a name twice, no parent) is left out."""
    made: list[tuple[bytes, Thing]] = []
    for thing in tree:
        path = root + b"/" + b"/".join(thing.path)
        if os.path.realpath(os.path.dirname(path)) != os.path.dirname(path):
            continue  # behind a link, which may lead out of the root
        with contextlib.suppress(OSError):
            if thing.kind == "directory":
                os.mkdir(path)
            elif thing.kind == "link":
                os.symlink(thing.target, path)
            elif thing.kind == "fifo":
                os.mkfifo(path)
            else:
                with open(path, "xb") as file:
                    file.write(path[len(root) :])
            made.append((path, thing))
    for path, thing in made:
        os.chown(path, *thing.owner, follow_symlinks=False)
        if thing.kind != "link":
            os.chmod(path, thing.mode)


Answer = tuple[object, ...]


def _status(status: Status) -> Answer:
    # The mode of the root itself is what makes one of the ways differ from the others.
    return (status.inode, status.size, status.uid, status.mode & ~0o777, status.mtime_ns)


def answers(tree: SourceTree, who: Identity, asked: list[bytes]) -> list[Answer]:
    """Everything the tree says about the paths."""
    said: list[Answer] = []
    with tree.acting_as(who):
        for path in asked:
            read = tree.read(path)
            status = tree.status(path)
            access = [tree.accessible(path, mode) for mode in (os.R_OK, os.X_OK)]
            directory = tree.directory(path)
            said.append(
                (
                    path,
                    (read.data, *_status(read.status)) if isinstance(read, Regular) else read,
                    _status(status) if isinstance(status, Status) else status,
                    *(_status(one) if isinstance(one, Status) else one for one in access),
                    _status(directory.status) if isinstance(directory, Directory) else directory,
                )
            )
            if isinstance(directory, Directory):
                with directory:
                    listed = directory.names()
                    said.append(("names", sorted(n for n, _ in listed) if isinstance(listed, list) else listed))
                    if isinstance(listed, list):
                        said += [
                            ("entry", directory.read(n, entry=kind)) for n, kind in sorted(listed, key=lambda e: e[0])
                        ]
                    said += [
                        ("below", directory.read(name)) for name in (*NAMES, b"a/../b", b"../a", b"/a", b".", b"..")
                    ]
    return [_without_root_mode(one) for one in said]


def _without_root_mode(answer: Answer) -> Answer:
    return tuple(NotRegular(one.mode & ~0o777) if isinstance(one, NotRegular) else one for one in answer)


@contextlib.contextmanager
def planted(tree: list[Thing]) -> Iterator[bytes]:
    root = os.path.realpath(tempfile.mkdtemp().encode())
    os.chmod(root, 0o755)
    plant(root, tree)
    try:
        yield root
    finally:
        shutil.rmtree(root)


LOOSE = [
    Thing((b"a",), "directory", 0o1777, Identity(0, 0), b""),
    Thing((b"a", b"b"), "link", 0, Identity(1002, 1001), b"../c"),
    Thing((b"c",), "file", 0o755, Identity(0, 0), b""),
    Thing((b"b",), "link", 0, Identity(1002, 1001), b"a/b/"),
]

SHUT = [
    Thing((b"a",), "directory", 0o444, Identity(0, 0), b""),
    Thing((b"a", b"b"), "file", 0o755, Identity(0, 0), b""),
    Thing((b"b",), "link", 0, Identity(0, 0), b"a/."),
    Thing((b"c",), "directory", 0o711, Identity(0, 0), b""),
]
DOTS = [b"/a", b"/a/", b"/a/.", b"/a/..", b"/a/./b", b"/a/../c", b"/b", b"/b/..", b"/c/.", b"/.", b"/..", b"/../c/.."]


@settings(max_examples=150)
@given(tree=trees, asked=paths)
@example(tree=LOOSE, asked=[b"/a/b", b"/a/b/", b"/b", b"/a/b/.", b"/a/../a/b"])
@example(tree=SHUT, asked=DOTS)
def test_all_ways_agree(tree: list[Thing], asked: list[bytes]) -> None:
    with planted(tree) as root:
        for who in LOOKERS:
            with SourceTree(root, access="switch") as one, SourceTree(root, access="switch", openat2=False) as other:
                expected = answers(one, who, asked)
                assert answers(other, who, asked) == expected
            with SourceTree(root, access="bits") as bits:
                assert answers(bits, who, asked) == expected
            os.chmod(root, 0o700)
            with SourceTree(root, access="switch") as gated:
                assert answers(gated, who, asked) == expected
            os.chmod(root, 0o755)


def _in_root(root: bytes, who: Identity, asked: list[bytes]) -> list[object]:
    """What open(2) says about each path to a process that has `root` as its root and is `who`."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.chroot(root)
            os.chdir("/")
            os.setgroups([who.gid])
            os.setresgid(who.gid, who.gid, who.gid)
            os.setresuid(who.uid, who.uid, who.uid)
            said: list[object] = []
            for path in asked:
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                except OSError as trouble:
                    said.append(trouble.errno)
                else:
                    said.append((os.fstat(fd).st_ino, os.fstat(fd).st_mode))
                    os.close(fd)
            os.write(into, pickle.dumps(said))
        finally:
            os._exit(0)
    os.close(into)
    with open(out, "rb") as pipe:
        answer: list[object] = pickle.loads(pipe.read())  # noqa: S301
    os.waitpid(pid, 0)
    return answer


@settings(max_examples=100)
@given(tree=trees, asked=paths)
@example(tree=LOOSE, asked=[b"/a/b", b"/a/b/", b"/b", b"/a/b/.", b"/a/../a/b"])
@example(tree=SHUT, asked=DOTS)
def test_the_answers_are_those_that_a_process_in_the_root_gets(tree: list[Thing], asked: list[bytes]) -> None:
    with planted(tree) as root:
        for who in LOOKERS:
            expected = _in_root(root, who, asked)
            with SourceTree(root, access="switch") as switching, switching.acting_as(who):
                for path, truth in zip(asked, expected, strict=True):
                    outcome = switching.read(path)
                    if isinstance(truth, int):
                        assert outcome == failure(truth)
                    elif isinstance(outcome, Regular):
                        assert truth == (outcome.status.inode, outcome.status.mode)
                    else:
                        assert isinstance(outcome, NotRegular)
                        assert isinstance(truth, tuple)
                        assert truth[1] == outcome.mode


def test_this_kernel_has_what_is_compared() -> None:
    with SourceTree() as tree:
        root = tree._resolver.fd
        if not (kernel.has_openat2(root) and kernel.has_faccessat2(root)):
            pytest.skip("a kernel without openat2 or faccessat2: only the walk and mode bits were tested")


def test_mode_bits_say_what_the_kernel_says_of_every_mode() -> None:
    root = os.path.realpath(tempfile.mkdtemp().encode())
    os.chmod(root, 0o755)
    try:
        cases = [
            (owner, mode) for owner in OWNERS for mode in (*range(0, 0o1000, 0o011), *range(0o777), 0o1777, 0o4755)
        ]
        path = root + b"/x"
        with open(path, "wb") as file:
            file.write(b"x")
        os.mkdir(root + b"/d")
        with SourceTree(root, access="switch", record=False) as one, SourceTree(root, access="bits") as other:
            for owner, mode in cases[::7]:
                for name in (b"/x", b"/d"):
                    os.chown(root + name, *owner)
                    os.chmod(root + name, mode)
                    for who in LOOKERS:
                        said = []
                        for tree in (one, other):
                            with tree.acting_as(who):
                                directory = tree.directory(name)
                                said.append(
                                    (
                                        tree.read(name),
                                        *(tree.accessible(name, wanted) for wanted in range(8)),
                                        directory.status if isinstance(directory, Directory) else directory,
                                    )
                                )
                                del directory
                        assert said[0] == said[1], (owner, oct(mode), name, who)
    finally:
        shutil.rmtree(root)


def test_foreign_links_in_sticky_directories_are_refused_where_the_kernel_does(monkeypatch: pytest.MonkeyPatch) -> None:
    # may_follow_link: the last component only, unless the link is the looker's or the directory owner's.
    for protected, expected in ((True, failure(errno.EACCES)), (False, None)):
        monkeypatch.setattr(kernel, "links_are_protected", lambda value=protected: value)
        with planted(LOOSE) as root, SourceTree(root, access="switch", openat2=False) as walk:
            with walk.acting_as(LOOKERS[0]):
                for path in (b"/a/b", b"/a/b/"):
                    said = walk.status(path)
                    assert said == expected if expected else said != failure(errno.EACCES)
                assert walk.status(b"/a/b/.") == failure(errno.ENOTDIR)  # not the last one
            with walk.acting_as(Identity(1002, 1001)):
                assert isinstance(walk.status(b"/a/b"), Status)
            os.chown(root + b"/a", 1002, 0)
            with walk.acting_as(LOOKERS[0]):
                assert isinstance(walk.status(b"/a/b"), Status)


@pytest.mark.parametrize("openat2", [True, False])
def test_an_old_kernel_without_faccessat2_leaves_the_bits(monkeypatch: pytest.MonkeyPatch, openat2: bool) -> None:
    monkeypatch.setattr(kernel, "has_faccessat2", lambda root: False)
    tree = [
        Thing((b"a",), "fifo", 0o044, LOOKERS[0], b""),
        Thing((b"b",), "fifo", 0o604, Identity(0, 0), b""),
        Thing((b"c",), "file", 0o711, Identity(0, 0), b""),
    ]
    with planted(tree) as root, SourceTree(root, access="switch", openat2=openat2) as old:
        with old.acting_as(LOOKERS[0]):
            assert old.read(b"/a") == failure(errno.EACCES)
            assert isinstance(old.read(b"/b"), NotRegular)
            assert isinstance(old.accessible(b"/c", os.X_OK), Status)
            assert old.accessible(b"/c", os.R_OK) == failure(errno.EACCES)
        assert isinstance(old.accessible(b"/c", os.R_OK), Status)


@pytest.mark.parametrize("inside", [b"", b"/note"])
def test_links_into_the_reader_s_own_descriptors_are_refused(tmp_path: Path, inside: bytes) -> None:
    (tmp_path / "note").write_text("secret")
    held = os.open(tmp_path if inside else tmp_path / "note", os.O_PATH)
    link = bytes(tmp_path / "link")
    os.symlink(b"/proc/self/fd/%d%s" % (held, inside), link)
    try:
        with SourceTree(b"/") as tree:
            assert isinstance(tree.read(link), Refused)
            assert isinstance(tree.status(link), Refused)
            directory = tree.directory(bytes(tmp_path))
            assert isinstance(directory, Directory)
            with directory:
                assert isinstance(directory.read(b"link"), Refused)
                assert isinstance(directory.read(b"note"), Regular)
    finally:
        os.close(held)


@pytest.mark.parametrize("openat2", [True, False])
def test_a_loop_of_ordinary_links_is_nothing(tmp_path: Path, openat2: bool) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").symlink_to("note")
    (tmp_path / "note").write_text("text")
    with SourceTree(b"/", openat2=openat2) as tree:
        assert tree.read(bytes(tmp_path / "a")) == Absent(errno.ELOOP)
        found = tree.read(bytes(tmp_path / "c"))
        assert isinstance(found, Regular)
        assert found.data == b"text"
