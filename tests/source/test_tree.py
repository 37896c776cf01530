"""Reading a host that means no good: what a user may put into his home, and what is made of it."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rcptgen.source import (
    Absent,
    Directory,
    EntryType,
    FailedForNow,
    Identity,
    NotRegular,
    Reading,
    Refused,
    Regular,
    SourceTree,
    Status,
    TooLarge,
    resolve,
)

pytestmark = pytest.mark.root

JOE = Identity(1001, 1001)
ANN = Identity(1002, 1002)
HOME = b"/home/joe"
FILE = HOME + b"/.qmail-x"


class House:
    """A root with joe's home in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(mode=0o755)
        self.dir(b"/home", owner=Identity(0, 0))
        self.dir(HOME)

    def at(self, path: bytes) -> bytes:
        return os.fsencode(self.root) + path

    def _own(self, path: bytes, mode: int, owner: Identity) -> None:
        os.chown(self.at(path), *owner)
        os.chmod(self.at(path), mode)

    def dir(self, path: bytes, mode: int = 0o755, owner: Identity = JOE) -> None:
        os.mkdir(self.at(path))
        self._own(path, mode, owner)

    def file(self, path: bytes, data: bytes = b"./Maildir/\n", mode: int = 0o644, owner: Identity = JOE) -> None:
        Path(os.fsdecode(self.at(path))).write_bytes(data)
        self._own(path, mode, owner)

    def link(self, path: bytes, target: bytes) -> None:
        os.symlink(target, self.at(path))
        os.lchown(self.at(path), *JOE)

    def fifo(self, path: bytes, mode: int = 0o644) -> None:
        os.mkfifo(self.at(path))
        self._own(path, mode, JOE)

    def device(self, path: bytes, mode: int = 0o644) -> None:
        os.mknod(self.at(path), stat.S_IFCHR | 0o644, os.makedev(1, 5))  # /dev/zero
        self._own(path, mode, JOE)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "host")


@pytest.fixture(params=["openat2", "walk", "gated", "bits"])
def tree(request: pytest.FixtureRequest, house: House) -> Iterator[SourceTree]:
    """A tree over the house, in each of the ways it can be resolved in."""
    way: str = request.param
    if way == "gated":
        house.root.chmod(0o700)
    root = os.fsencode(house.root)
    with SourceTree(root, access="bits" if way == "bits" else "switch", openat2=way != "walk") as tree:
        yield tree


def read(tree: SourceTree, path: bytes, who: Identity = JOE, limit: int = 1 << 20) -> Reading:
    """What `who` reads: by path and through the directory, which have to agree."""
    with tree.acting_as(who):
        outcome = tree.read(path, limit=limit)
        where, _, name = path.rpartition(b"/")
        directory = tree.directory(where or b"/")
        if isinstance(directory, Directory):
            with directory:
                for entry in (EntryType.UNKNOWN, EntryType.REGULAR):
                    assert directory.read(name, limit=limit, entry=entry) == outcome
    return outcome


def data(outcome: Reading) -> bytes:
    assert isinstance(outcome, Regular), outcome
    return outcome.data


# --- Links ---------------------------------------------------------------------------------------


def test_link_within_the_home_is_a_file(house: House, tree: SourceTree) -> None:
    house.file(HOME + b"/real", b"&a@b\n")
    house.dir(HOME + b"/d")
    house.link(FILE, b"d/../real")
    assert data(read(tree, FILE)) == b"&a@b\n"


def test_dangling_link_is_absent(house: House, tree: SourceTree) -> None:
    house.link(FILE, b"nowhere")
    assert read(tree, FILE) == Absent(errno.ENOENT)


def test_link_out_of_the_home_is_answered_as_its_owner_would_be(house: House, tree: SourceTree) -> None:
    house.dir(b"/root", 0o755, Identity(0, 0))
    house.file(b"/root/secret", mode=0o600, owner=Identity(0, 0))
    house.file(b"/root/public", b"p\n", owner=Identity(0, 0))
    house.link(FILE, b"/root/secret")
    house.link(FILE + b"2", b"/root/public")
    assert read(tree, FILE) == Refused(errno.EACCES)
    assert data(read(tree, FILE + b"2")) == b"p\n"


def test_nothing_tells_what_is_in_a_directory_that_may_not_be_searched(house: House, tree: SourceTree) -> None:
    house.dir(b"/root", 0o700, Identity(0, 0))
    house.file(b"/root/there", owner=Identity(0, 0))
    house.link(FILE + b"1", b"/root/there")
    house.link(FILE + b"2", b"/root/not-there")
    with tree.acting_as(JOE):
        for name in (FILE + b"1", FILE + b"2"):
            assert tree.read(name) == Refused(errno.EACCES)
            assert tree.status(name) == Refused(errno.EACCES)
            assert tree.accessible(name, os.R_OK) == Refused(errno.EACCES)
            assert tree.directory(name) == Refused(errno.EACCES)
            assert tree.footprint[name][1:7] == (0, 0, 0, 0, 0, 0)


def test_links_of_proc_and_the_like_never_show_what_root_sees() -> None:
    with SourceTree() as tree, tree.acting_as(JOE):
        assert isinstance(tree.read(b"/proc/self/mem"), Refused)
        assert isinstance(tree.read(b"/proc/self/environ"), Refused)
        assert isinstance(tree.read(b"/etc/shadow"), Refused)


def test_a_directory_stays_the_same_one_when_its_path_is_swapped(house: House, tree: SourceTree) -> None:
    house.file(FILE, b"mine\n")
    house.dir(b"/etc", owner=Identity(0, 0))
    house.file(b"/etc/.qmail-x", b"theirs\n", owner=Identity(0, 0))
    with tree.acting_as(JOE):
        directory = tree.directory(HOME)
        assert isinstance(directory, Directory)
    os.rename(house.at(HOME), house.at(b"/home/gone"))
    house.link(HOME, b"/etc")
    with directory, tree.acting_as(JOE):
        for entry in EntryType:
            assert data(directory.read(b".qmail-x", entry=entry)) == b"mine\n"


def test_a_middle_component_may_be_a_link(house: House, tree: SourceTree) -> None:
    house.file(FILE)
    house.link(b"/home/alias", b"joe")
    house.link(HOME + b"/up", b"../../home/alias")
    assert data(read(tree, HOME + b"/up/up/.qmail-x")) == b"./Maildir/\n"


@pytest.mark.parametrize("links, found", [(40, True), (41, False)])
def test_links_are_followed_as_far_as_the_kernel_does(house: House, tree: SourceTree, links: int, found: bool) -> None:
    house.file(HOME + b"/l0")
    for number in range(links):
        house.link(HOME + b"/l%d" % (number + 1), b"l%d" % number)
    outcome = read(tree, HOME + b"/l%d" % links)
    assert isinstance(outcome, Regular) if found else outcome == Absent(errno.ELOOP)


def test_a_loop_of_links_is_absent(house: House, tree: SourceTree) -> None:
    house.link(FILE, b".qmail-y")
    house.link(HOME + b"/.qmail-y", b".qmail-x")
    assert read(tree, FILE) == Absent(errno.ELOOP)


# --- Other types ---------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The last components that were opened for more than finding them."""
    names: list[bytes] = []
    real = os.open

    def watch(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if not flags & os.O_PATH:
            names.append(os.fsencode(path).rpartition(b"/")[2])
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", watch)
    return names


def full_read(tree: SourceTree, path: bytes) -> Reading:
    with tree.acting_as(JOE):
        return tree.read(path)


def test_a_fifo_is_neither_opened_nor_waited_for(house: House, tree: SourceTree, opened: list[bytes]) -> None:
    house.fifo(FILE)
    assert full_read(tree, FILE) == NotRegular(stat.S_IFIFO | 0o644)
    assert opened == []
    assert read(tree, FILE) == NotRegular(stat.S_IFIFO | 0o644)


def test_a_device_is_not_opened(house: House, tree: SourceTree, opened: list[bytes]) -> None:
    house.device(FILE)
    assert full_read(tree, FILE) == NotRegular(stat.S_IFCHR | 0o644)
    house.link(HOME + b"/l", b".qmail-x")
    assert full_read(tree, HOME + b"/l") == NotRegular(stat.S_IFCHR | 0o644)
    assert opened == []


def test_a_socket_is_absent(house: House, tree: SourceTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(house.root / "home/joe")  # socket names are short
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind(".qmail-x")
    os.chmod(house.at(FILE), 0o777)
    assert read(tree, FILE) == Absent(errno.ENXIO)
    os.chmod(house.at(FILE), 0o700)
    assert read(tree, FILE) == Refused(errno.EACCES)


def test_a_directory_is_not_regular(house: House, tree: SourceTree) -> None:
    house.dir(FILE)
    assert read(tree, FILE) == NotRegular(stat.S_IFDIR | 0o755)


@pytest.mark.parametrize("kind", ["dir", "fifo", "device"])
def test_permission_comes_before_type(house: House, tree: SourceTree, kind: str) -> None:
    getattr(house, kind)(FILE, 0o044)
    assert read(tree, FILE) == Refused(errno.EACCES)
    house.link(HOME + b"/l", b".qmail-x")
    assert read(tree, HOME + b"/l") == Refused(errno.EACCES)
    assert isinstance(read(tree, FILE, ANN), NotRegular)


def test_a_regular_file_is_no_directory(house: House, tree: SourceTree) -> None:
    house.file(FILE)
    with tree.acting_as(JOE):
        assert tree.read(FILE + b"/") == Absent(errno.ENOTDIR)
        assert tree.read(FILE + b"/x") == Absent(errno.ENOTDIR)
        assert tree.directory(FILE) == Absent(errno.ENOTDIR)


# --- Permission ----------------------------------------------------------------------------------


def test_a_hard_link_to_a_foreign_file_is_refused(house: House, tree: SourceTree) -> None:
    house.file(b"/secret", mode=0o600, owner=Identity(0, 0))
    os.link(house.at(b"/secret"), house.at(FILE))
    assert read(tree, FILE) == Refused(errno.EACCES)


@pytest.mark.parametrize("mode, owner", [(0, JOE), (0o044, JOE), (0o604, Identity(0, 1001)), (0o640, ANN)])
def test_a_file_that_its_reader_may_not_read_is_refused(
    house: House, tree: SourceTree, mode: int, owner: Identity
) -> None:
    house.file(FILE, mode=mode, owner=owner)
    assert read(tree, FILE) == Refused(errno.EACCES)
    assert isinstance(read(tree, FILE, Identity(0, 0)), Regular)


def test_the_one_group_counts_and_no_other(house: House, tree: SourceTree) -> None:
    house.file(FILE, mode=0o640, owner=Identity(0, 2000))
    assert isinstance(read(tree, FILE, Identity(1001, 2000)), Regular)
    assert read(tree, FILE, Identity(1001, 2001)) == Refused(errno.EACCES)


def test_an_access_list_counts_where_the_kernel_answers(house: House) -> None:
    house.file(FILE)
    none = 0xFFFFFFFF
    entries = ((0x01, 6, none), (0x02, 0, 1002), (0x04, 4, none), (0x10, 4, none), (0x20, 4, none))
    blob = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(house.at(FILE), b"system.posix_acl_access", blob)
    except OSError as trouble:
        pytest.skip(f"no access lists on this file system: {trouble.strerror}")
    with SourceTree(os.fsencode(house.root)) as tree:
        assert read(tree, FILE, ANN) == Refused(errno.EACCES)
        assert isinstance(read(tree, FILE, Identity(1003, 1003)), Regular)


def test_the_status_shows_the_bits_for_which_qmail_defers(house: House, tree: SourceTree) -> None:
    house.file(FILE, mode=0o646)
    os.chmod(house.at(HOME), 0o1757)
    outcome = read(tree, FILE)
    assert isinstance(outcome, Regular)
    assert outcome.status.mode == stat.S_IFREG | 0o646
    assert (outcome.status.uid, outcome.status.gid, outcome.status.size) == (1001, 1001, 11)
    with tree.acting_as(JOE):
        home = tree.status(HOME)
        directory = tree.directory(HOME)
        assert isinstance(directory, Directory)
        directory.close()
    assert isinstance(home, Status)
    assert home.mode == stat.S_IFDIR | 0o1757
    assert directory.status == home


def test_a_home_that_may_not_be_entered_is_refused(house: House, tree: SourceTree) -> None:
    house.file(FILE)
    os.chmod(house.at(HOME), 0o600)
    with tree.acting_as(JOE):
        assert tree.directory(HOME) == Refused(errno.EACCES)
        assert isinstance(tree.status(HOME), Status)
        assert tree.read(FILE) == Refused(errno.EACCES)
        assert tree.directory(b"/home/none") == Absent(errno.ENOENT)


def test_what_may_be_accessed(house: House, tree: SourceTree) -> None:
    house.file(FILE, mode=0o750)
    house.link(HOME + b"/l", b"../joe/.qmail-x")
    with tree.acting_as(JOE):
        assert isinstance(tree.accessible(HOME + b"/l", os.R_OK | os.W_OK | os.X_OK), Status)
        assert tree.accessible(HOME + b"/none", os.X_OK) == Absent(errno.ENOENT)
        assert isinstance(tree.accessible(b"/", os.R_OK | os.X_OK), Status)
        assert tree.accessible(b"/", os.W_OK) == Refused(errno.EACCES)
    with tree.acting_as(ANN):
        assert tree.accessible(FILE, os.R_OK) == Refused(errno.EACCES)
    os.chmod(house.at(FILE), 0o644)
    with tree.acting_as(Identity(0, 0)):
        assert tree.accessible(FILE, os.X_OK) == Refused(errno.EACCES)
        assert isinstance(tree.accessible(FILE, os.W_OK), Status)


def test_a_root_that_only_root_may_enter_stands_for_one_that_all_may(house: House, tree: SourceTree) -> None:
    house.root.chmod(0o700)
    house.file(b"/first", b"first\n")
    house.file(b"/closed", mode=0o600, owner=Identity(0, 0))
    house.file(FILE)
    house.file(HOME + b"/secret", mode=0o600, owner=Identity(0, 0))
    house.dir(b"/private", 0o700, Identity(0, 0))
    house.file(b"/private/x", owner=Identity(0, 0))
    house.link(HOME + b"/l", b"/../first")
    with SourceTree(tree.root, access="switch" if tree.switches else "bits") as gated:
        assert data(read(gated, FILE)) == b"./Maildir/\n"
        assert data(read(gated, b"/first")) == b"first\n"
        assert data(read(gated, HOME + b"/l")) == b"first\n"
        for path in (HOME + b"/secret", b"/closed"):
            assert read(gated, path) == Refused(errno.EACCES)
        with gated.acting_as(JOE):
            assert gated.read(b"/private/x") == Refused(errno.EACCES)
            assert gated.read(b"/private/none") == Refused(errno.EACCES)
            assert os.geteuid() == (1001 if gated.switches else 0)
            directory = gated.directory(b"/")
            assert isinstance(directory, Directory)
            with directory:
                names = directory.names()
                assert isinstance(names, list)
                assert {name for name, _ in names} == {b"home", b"first", b"closed", b"private"}
                assert isinstance(directory.read(b"home/joe/.qmail-x"), Regular)


# --- Listing -------------------------------------------------------------------------------------


def names_of(tree: SourceTree, path: bytes, who: Identity = JOE) -> dict[bytes, EntryType]:
    with tree.acting_as(who):
        directory = tree.directory(path)
        assert isinstance(directory, Directory)
        with directory:
            names = directory.names()
    assert isinstance(names, list)
    assert len(dict(names)) == len(names)
    return dict(names)


def test_names_come_with_their_types(house: House, tree: SourceTree) -> None:
    house.file(HOME + b"/f")
    house.dir(HOME + b"/d")
    house.file(HOME + b"/d/below")
    house.link(HOME + b"/l", b"f")
    house.fifo(HOME + b"/p")
    assert names_of(tree, HOME) == {
        b"f": EntryType.REGULAR,
        b"d": EntryType.DIRECTORY,
        b"l": EntryType.LINK,
        b"p": EntryType.OTHER,
    }


def test_a_home_that_its_owner_may_enter_but_not_list_is_listed(house: House, tree: SourceTree) -> None:
    house.file(FILE)
    house.file(HOME + b"/secret", mode=0o600, owner=Identity(0, 0))
    os.chmod(house.at(HOME), 0o311)
    assert set(names_of(tree, HOME)) == {b".qmail-x", b"secret"}
    assert data(read(tree, FILE)) == b"./Maildir/\n"
    assert read(tree, HOME + b"/secret") == Refused(errno.EACCES)


ODD = [
    *(b"a\nb", b"\x01x\x7f", b"\x1b[31mred", b"bell\x07", b"\xff\xfe\x80", "\u202egnp.exe".encode()),
    *(b"x" * 255, b"-rf", b" blank ", b"UPPER", b"a:b", b"\\"),
]


def test_names_are_bytes_from_end_to_end(house: House, tree: SourceTree) -> None:
    for name in ODD:
        house.file(HOME + b"/" + name, name)
    assert set(names_of(tree, HOME)) == set(ODD)
    for name in ODD:
        assert data(read(tree, HOME + b"/" + name)) == name
        assert HOME + b"/" + name in tree.footprint
    assert read(tree, HOME + b"/" + b"x" * 256) == Absent(errno.ENAMETOOLONG)
    assert read(tree, HOME + b"/a\0b") == Absent(errno.EINVAL)


def test_names_are_bytes_in_any_locale(house: House) -> None:
    for name in ODD:
        house.file(HOME + b"/" + name)
    code = (
        "import sys; from rcptgen.source import SourceTree\n"
        "tree = SourceTree(sys.argv[1].encode())\n"
        "sys.stdout.buffer.write(b'/'.join(sorted(n for n, _ in tree.directory(b'/home/joe').names())))"
    )
    for environment in ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"LC_ALL": "C.UTF-8"}):
        command = [sys.executable, "-c", code, str(house.root)]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        assert done.stdout == b"/".join(sorted(ODD)), done.stderr


CROWD = """
import os, sys
os.chdir(sys.argv[1])
for number in range(20_000):
    os.close(os.open(f".qmail-{number}", os.O_CREAT | os.O_WRONLY))
"""


def test_many_names_take_linear_time(house: House) -> None:
    subprocess.run([sys.executable, "-c", CROWD, house.at(HOME)], check=True)
    with SourceTree(os.fsencode(house.root)) as tree:
        begin = time.perf_counter()
        assert len(names_of(tree, HOME)) == 20_000
        assert time.perf_counter() - begin < 2


DIGGER = """
import os, sys
os.chdir(sys.argv[1])
for _ in range(2_100):
    os.mkdir("d")
    os.chdir("d")
"""


def test_deep_trees_use_up_neither_stack_nor_descriptors(house: House, tree: SourceTree) -> None:
    # Made by another process: whoever watches this one's writes would spell every path out.
    subprocess.run([sys.executable, "-c", DIGGER, house.at(HOME)], check=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
    try:
        with tree.acting_as(JOE):
            assert isinstance(tree.status(HOME + b"/d" * 1500), Status)
            assert isinstance(tree.status(HOME + b"/d" * 800 + b"/.." * 700), Status)
            assert tree.status(HOME + b"/d" * 2048) == Absent(errno.ENAMETOOLONG)
        assert names_of(tree, HOME) == {b"d": EntryType.DIRECTORY}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        # The way Python takes trees away is a recursive one.
        subprocess.run(["rm", "-rf", house.at(HOME + b"/d")], check=True)


# --- Sizes and changes ---------------------------------------------------------------------------


def test_a_huge_sparse_file_costs_nothing(house: House, tree: SourceTree) -> None:
    house.file(FILE)
    os.truncate(house.at(FILE), 20 << 30)
    begin = time.perf_counter()
    assert read(tree, FILE) == TooLarge(20 << 30)
    assert time.perf_counter() - begin < 1


@pytest.mark.parametrize("size", [0, 1, 4095, 4096])
def test_a_file_may_be_as_large_as_the_limit(house: House, tree: SourceTree, size: int) -> None:
    house.file(FILE, b"x" * size)
    assert data(read(tree, FILE, limit=size)) == b"x" * size
    if size:
        assert read(tree, FILE, limit=size - 1) == TooLarge(size)


def test_files_without_a_size_are_read(tree: SourceTree) -> None:
    with SourceTree(access="switch" if tree.switches else "bits") as live, live.acting_as(JOE):
        version = live.read(b"/proc/version")
        assert data(version) == Path("/proc/version").read_bytes()
        assert live.read(b"/proc/version", limit=20) == TooLarge(21)


def interfering(monkeypatch: pytest.MonkeyPatch, times: int, act: Callable[[], None]) -> None:
    """The first `times` reads come after `act`, made as root."""
    real = os.read
    left = [times]

    def meddle(fd: int, length: int) -> bytes:
        if left[0]:
            left[0] -= 1
            euid = os.geteuid()
            os.seteuid(0)
            act()
            os.seteuid(euid)
        return real(fd, length)

    monkeypatch.setattr(os, "read", meddle)


def test_a_file_that_changes_while_it_is_read_is_read_again(
    house: House, tree: SourceTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.file(FILE, b"old " * 100)
    interfering(monkeypatch, 1, lambda: house.file(FILE, b"new"))
    assert data(full_read(tree, FILE)) == b"new"


def test_a_file_that_keeps_changing_is_unknown(house: House, tree: SourceTree, monkeypatch: pytest.MonkeyPatch) -> None:
    house.file(FILE)

    def grow() -> None:
        with open(house.at(FILE), "ab") as file:
            file.write(b"more\n")

    interfering(monkeypatch, 1000, grow)
    assert full_read(tree, FILE) == FailedForNow(errno.EAGAIN)
    with tree.acting_as(JOE), tree.directory(HOME) as home:  # type: ignore[union-attr]
        assert home.read(b".qmail-x", entry=EntryType.REGULAR) == FailedForNow(errno.EAGAIN)


@pytest.mark.parametrize("times, expected", [(2, b"other"), (1000, None)])
def test_a_file_swapped_between_finding_and_opening_is_found_again(
    house: House, tree: SourceTree, monkeypatch: pytest.MonkeyPatch, times: int, expected: bytes | None
) -> None:
    house.file(FILE, b"first")
    real = resolve.Resolver.locate
    left = [times]

    def swap(self: resolve.Resolver, path: bytes, *, directory: bool = False) -> resolve.Found:
        found = real(self, path, directory=directory)
        if left[0]:
            left[0] -= 1
            euid = os.geteuid()
            os.seteuid(0)
            house.file(FILE + b"-new", b"other")
            os.rename(house.at(FILE + b"-new"), house.at(FILE))
            os.seteuid(euid)
        return found

    monkeypatch.setattr(resolve.Resolver, "locate", swap)
    outcome = full_read(tree, FILE)
    assert outcome == FailedForNow(errno.EAGAIN) if expected is None else data(outcome) == expected


def test_short_reads_are_put_together(house: House, tree: SourceTree, monkeypatch: pytest.MonkeyPatch) -> None:
    house.file(FILE, bytes(range(256)) * 3)
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, length: real(fd, min(length, 100)))
    assert data(read(tree, FILE)) == bytes(range(256)) * 3


def test_a_failing_disk_is_no_empty_file(house: House, tree: SourceTree, monkeypatch: pytest.MonkeyPatch) -> None:
    house.file(FILE)

    def fail(fd: int, length: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "read", fail)
    outcome = read(tree, FILE)
    assert outcome == FailedForNow(errno.EIO)
    assert isinstance(outcome, FailedForNow)
    assert not outcome.shortage


HOLDER = """
import fcntl, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open(sys.argv[1], "r+")
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lease_is_not_waited_for(house: House, tree: SourceTree) -> None:
    house.file(FILE)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, house.at(FILE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        begin = time.perf_counter()
        assert read(tree, FILE) == FailedForNow(errno.EAGAIN)
        assert time.perf_counter() - begin < 2
        holder.communicate()
    assert isinstance(read(tree, FILE), Regular)


# --- Another root --------------------------------------------------------------------------------


def test_nothing_leads_out_of_the_root(house: House, tree: SourceTree) -> None:
    house.dir(b"/etc", owner=Identity(0, 0))
    house.file(b"/etc/hostname", b"inside\n")
    (house.root.parent / "outside").write_bytes(b"outside\n")
    targets = [
        b"/etc/hostname",
        b"../../../../../../../../etc/hostname",
        b"/../../etc/hostname",
        b"/home/../etc//hostname",
        b"../../../host/../etc/./hostname",
    ]
    for number, target in enumerate(targets):
        house.link(FILE + b"%d" % number, target)
    for number in range(4):
        assert data(read(tree, FILE + b"%d" % number)) == b"inside\n"
    assert read(tree, FILE + b"4") == Absent(errno.ENOENT)
    for path in (b"/../outside", b"/home/../../outside", b"/home/joe/../../../outside"):
        assert full_read(tree, path) == Absent(errno.ENOENT)
    house.link(b"/loop", house.at(b"/etc/hostname"))
    assert full_read(tree, b"/loop") == Absent(errno.ENOENT)
    with tree.acting_as(JOE), tree.directory(HOME) as home:  # type: ignore[union-attr]
        assert data(home.read(b"../../../etc/hostname")) == b"inside\n"
        assert data(home.read(b"/etc/hostname")) == b"inside\n"
        for entry in EntryType:
            assert home.read(b"../../../outside", entry=entry) == Absent(errno.ENOENT)


def test_the_live_root_is_read_by_the_kernel_alone(house: House) -> None:
    house.file(FILE, mode=0o600)
    house.link(HOME + b"/l", b".qmail-x")
    with SourceTree() as tree:
        assert data(read(tree, house.at(FILE))) == b"./Maildir/\n"
        assert data(read(tree, house.at(HOME + b"/l"))) == b"./Maildir/\n"
        assert read(tree, house.at(FILE), ANN) == Refused(errno.EACCES)
        assert set(names_of(tree, house.at(HOME))) == {b".qmail-x", b"l"}


# --- Ourselves -----------------------------------------------------------------------------------


def test_paths_are_absolute(tree: SourceTree) -> None:
    with pytest.raises(ValueError, match="absolute"):
        tree.read(b"etc/passwd")


def test_running_out_of_descriptors_says_nothing_about_the_host(house: House, tree: SourceTree) -> None:
    house.file(FILE)
    with tree.directory(HOME) as home:  # type: ignore[union-attr]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        plugs = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 3, hard))
        try:
            while True:
                plugs.append(os.dup(0))
        except OSError:
            pass
        try:
            outcomes = [
                tree.read(FILE),
                tree.status(FILE),
                tree.directory(HOME),
                tree.accessible(FILE, os.R_OK),
                home.read(b".qmail-x"),
                home.read(b".qmail-x", entry=EntryType.REGULAR),
                home.names(),
            ]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for plug in plugs:
                os.close(plug)
    for outcome in outcomes:
        assert outcome == FailedForNow(errno.EMFILE)
        assert isinstance(outcome, FailedForNow)
        assert outcome.shortage


def test_no_descriptor_is_left_open_or_handed_on(house: House, tree: SourceTree) -> None:
    house.file(FILE)
    house.file(HOME + b"/closed", mode=0)
    house.fifo(HOME + b"/fifo")
    house.dir(HOME + b"/shut", 0)
    house.link(HOME + b"/loop", b"loop")
    house.link(HOME + b"/absolute", b"/home/joe/../joe/.qmail-x")
    names = [b"/", HOME, b"/none", *(HOME + b"/" + n for n in os.listdir(house.at(HOME))), HOME + b"/shut/x"]
    for who in (JOE, ANN, Identity(0, 0)):
        before = os.listdir("/proc/self/fd")
        with tree.acting_as(who):
            for name in names:
                tree.read(name)
                tree.status(name)
                tree.accessible(name, os.R_OK)
                directory = tree.directory(name)
                if isinstance(directory, Directory):
                    directory.names()
                    for below in (b".qmail-x", b"absolute", b"loop", b"../joe/fifo", b"closed", b"..", b"."):
                        directory.read(below)
                        directory.read(below, entry=EntryType.REGULAR)
                    directory.close()
                    directory.close()
        assert os.listdir("/proc/self/fd") == before
    with tree.directory(HOME):  # type: ignore[union-attr]
        for fd in os.listdir("/proc/self/fd"):
            try:
                flags = fcntl.fcntl(int(fd), fcntl.F_GETFD)
            except OSError:
                continue
            where = os.readlink(f"/proc/self/fd/{fd}")
            assert flags & fcntl.FD_CLOEXEC or not where.startswith(str(house.root))


def test_a_forgotten_directory_gives_its_descriptor_back(house: House, tree: SourceTree) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        tree.directory(HOME)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_above_the_root_is_the_root(house: House, tree: SourceTree) -> None:
    top = tree.directory(b"/")
    assert isinstance(top, Directory)
    with top:
        above = top.child_status(b"..")
    assert isinstance(above, Status)
    assert above.inode == os.stat(house.root).st_ino


def test_a_descriptor_is_the_callers_and_of_regular_files_alone(house: House, tree: SourceTree) -> None:
    house.file(FILE)
    house.link(HOME + b"/absolute", b"/home/joe/.qmail-x")
    house.fifo(HOME + b"/fifo")
    before = os.listdir("/proc/self/fd")
    descriptor = tree.descriptor(HOME + b"/absolute")
    assert isinstance(descriptor, int)
    assert os.fstat(descriptor).st_ino == os.stat(house.at(FILE)).st_ino
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    assert tree.descriptor(HOME + b"/fifo") == NotRegular(stat.S_IFIFO | 0o644)
    assert tree.descriptor(HOME + b"/none") == Absent(errno.ENOENT)
    assert os.listdir("/proc/self/fd") == before
