"""Identities are taken and given back, whatever happens."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rcptgen.errors import NeedsRoot, Shortage, UsageTrouble
from rcptgen.source import Directory, Identity, IdentityUnavailable, Refused, Regular, SourceTree, kernel
from rcptgen.source.identity import Actor, permits

JOE = Identity(1001, 1002)


def whole_identity() -> tuple[object, ...]:
    return os.getresuid(), os.getresgid(), os.getgroups()


def in_child(work: Callable[[], int]) -> int:
    """The exit status of `work` done in another process."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = work()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.root
def test_an_identity_is_taken_whole_and_given_back() -> None:
    before = whole_identity()
    with SourceTree() as tree:
        assert tree.switches
        with tree.acting_as(JOE):
            assert os.getresuid() == (0, 1001, 0)
            assert os.getegid() == 1002
            assert os.getgroups() == [1002]
        assert whole_identity() == before


@pytest.mark.root
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_identity_is_given_back_after_exceptions(error: type[BaseException]) -> None:
    before = whole_identity()
    with SourceTree() as tree:
        with pytest.raises(error), tree.acting_as(JOE):
            raise error
        assert whole_identity() == before
        with tree.acting_as(JOE):
            assert os.geteuid() == 1001


@pytest.mark.root
def test_identities_do_not_nest() -> None:
    before = whole_identity()
    with SourceTree() as tree:
        with pytest.raises(RuntimeError, match="already"), tree.acting_as(JOE), tree.acting_as(Identity(1003, 1003)):
            pass
        assert whole_identity() == before
    with (
        SourceTree(access="bits") as bits,
        pytest.raises(RuntimeError),
        bits.acting_as(JOE),
        bits.acting_as(JOE),
    ):
        pass


@pytest.mark.root
@pytest.mark.parametrize(
    "uid, gid", [(-1, 1), (1, -1), (2**32 - 1, 1), (1, 2**32 - 1), (-2, 1), (2**40, 1), (1, 2**70)]
)
def test_ids_that_no_process_can_have(uid: int, gid: int) -> None:
    before = whole_identity()
    with SourceTree() as tree:
        with pytest.raises(IdentityUnavailable), tree.acting_as(Identity(uid, gid)):
            pass
        assert whole_identity() == before
        with tree.acting_as(JOE):
            pass


@pytest.mark.root
@pytest.mark.parametrize("call", ["setgroups", "setegid", "seteuid"])
@pytest.mark.parametrize("number, error", [(errno.ENOMEM, Shortage), (errno.EAGAIN, IdentityUnavailable)])
def test_a_half_taken_identity_is_given_back(
    monkeypatch: pytest.MonkeyPatch, call: str, number: int, error: type[Exception]
) -> None:
    before = whole_identity()
    real = getattr(os, call)
    calls = []

    def fail_first(argument: object) -> None:
        calls.append(argument)
        if len(calls) == 1:
            raise OSError(number, "no")
        real(argument)

    with SourceTree() as tree:
        monkeypatch.setattr(os, call, fail_first)
        with pytest.raises(error), tree.acting_as(JOE):
            pass
        assert whole_identity() == before


@pytest.mark.root
@pytest.mark.parametrize("call", ["setgroups", "setegid", "seteuid"])
def test_a_process_that_cannot_give_an_identity_back_ends(call: str) -> None:
    def work() -> int:
        tree = SourceTree()
        with tree.acting_as(JOE):

            def fail(argument: object) -> None:
                raise OSError(errno.EPERM, "no")

            setattr(os, call, fail)
        return 0

    assert in_child(work) == 70


@pytest.mark.root
def test_an_interruption_on_the_way_back_waits_until_all_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = whole_identity()
    real = os.setegid
    calls: list[int] = []

    def interrupt(gid: int) -> None:
        calls.append(gid)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(gid)

    with SourceTree() as tree:
        monkeypatch.setattr(os, "setegid", interrupt)
        with pytest.raises(KeyboardInterrupt), tree.acting_as(JOE):
            pass
        assert whole_identity() == before


@pytest.mark.root
def test_listing_as_root_leaves_the_identity_taken(tmp_path: Path) -> None:
    home = tmp_path / "joe"
    home.mkdir()
    (home / "name").touch()
    os.chown(home, *JOE)
    home.chmod(0o300)
    with SourceTree() as tree, tree.acting_as(JOE):
        directory = tree.directory(os.fsencode(home))
        assert isinstance(directory, Directory)
        with directory:
            assert isinstance(directory.names(), list)
            assert (os.geteuid(), os.getegid(), os.getgroups()) == (1001, 1002, [1002])


@pytest.mark.root
def test_without_root_modes_are_judged(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"x")
    (tmp_path / "mine").chmod(0o604)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o311)
    closed.chmod(0o311)

    def work() -> int:
        os.setgroups([])
        os.setresgid(1005, 1005, 1005)
        os.setresuid(1005, 1005, 1005)
        tree = SourceTree(os.fsencode(tmp_path))
        assert not tree.switches
        assert isinstance(tree.read(b"/mine"), Regular)
        with tree.acting_as(Identity(1001, 0)):
            assert tree.read(b"/mine") == Refused(errno.EACCES)
        with tree.acting_as(Identity(1001, 1001)):
            assert isinstance(tree.read(b"/mine"), Regular)
        # What the host's own root could list stays unknown to somebody else.
        with tree.acting_as(Identity(0, 0)):
            directory = tree.directory(b"/closed")
            assert isinstance(directory, Directory)
            assert directory.names() == Refused(errno.EACCES)
        try:
            SourceTree(access="switch")
        except NeedsRoot:
            return 0
        return 1

    assert in_child(work) == 0


@pytest.mark.root
def test_root_whose_rights_would_survive_does_not_switch() -> None:
    def work() -> int:
        kernel._libc.prctl(28, 4, 0, 0, 0)  # PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP
        return 1 if Actor("auto").switches else 0

    assert Actor("auto").switches
    assert in_child(work) == 0


def test_a_root_that_is_not_there() -> None:
    with pytest.raises(UsageTrouble, match="No such file"):
        SourceTree(b"/nonexistent/root")


@pytest.mark.parametrize(
    "mode, uid, gid, wanted, expected",
    [
        (0o100640, 1001, 5, os.R_OK, True),
        (0o100040, 1001, 1002, os.R_OK, False),  # the owner's bits decide for the owner
        (0o100604, 5, 1002, os.R_OK, False),  # and the group's for the group
        (0o100604, 5, 5, os.R_OK, True),
        (0o100751, 5, 5, os.R_OK | os.X_OK, False),
        (0o100000, 5, 5, os.F_OK, True),
    ],
)
def test_mode_bits(mode: int, uid: int, gid: int, wanted: int, expected: bool) -> None:
    assert permits(mode, uid, gid, JOE, wanted) is expected
