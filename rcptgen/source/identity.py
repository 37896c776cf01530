"""Taking the identity of a mail user for a moment, and judging modes where that is not possible."""

from __future__ import annotations

import os
import stat
from errno import ENOMEM
from types import TracebackType
from typing import Literal

from rcptgen.errors import NeedsRoot, Shortage, SourceFailed
from rcptgen.source import kernel
from rcptgen.source.outcomes import Identity

Access = Literal["auto", "switch", "bits"]

NOT_GIVEN_BACK = 70
"""The exit status of a process that could not give an identity back."""


class IdentityUnavailable(SourceFailed):
    """The identity of a record cannot be taken (qmail-lspawn defers then)."""


def permits(mode: int, uid: int, gid: int, identity: Identity, wanted: int) -> bool:
    """Whether the mode bits let `identity` have R_OK, W_OK or X_OK: owner first, then the one group, then the others.

    ACLs, read-only and noexec mounts are not seen.
    """
    if identity.uid == 0:
        return not wanted & os.X_OK or stat.S_ISDIR(mode) or bool(mode & 0o111)
    shift = 6 if identity.uid == uid else 3 if identity.gid == gid else 0
    return (mode >> shift) & wanted == wanted


class Actor:
    """The identity this process has taken, if any.

    `switches`: identities are really taken, so that the kernel answers.  The real uid stays
    that of the process, so that the user taken can neither signal nor trace it.  Identities
    belong to the whole process: only a process with one thread may take them, and one that
    has no Python signal handler that raises, since that may fire between the end of a block
    and its giving back.
    """

    __slots__ = ("_gid", "_groups", "_uid", "switches", "taken")

    def __init__(self, access: Access = "auto") -> None:
        able = access != "bits" and kernel.may_take_identities()
        if access == "switch" and not able:
            raise NeedsRoot("only root can read a host as its users would")
        self.switches = able
        self.taken: Identity | None = None
        self._uid = os.geteuid()
        self._gid = os.getegid()
        self._groups = os.getgroups()

    def take(self, identity: Identity) -> None:
        """Supplementary groups, effective gid and effective uid are those of `identity`, or nothing has changed."""
        if self.taken is not None:
            raise RuntimeError("an identity is already taken")
        uid, gid = identity
        if self.switches:
            try:
                os.setgroups((gid,))
                os.setegid(gid)
                os.seteuid(uid)
            except BaseException as error:
                self._own()
                if isinstance(error, OSError) and error.errno == ENOMEM:
                    raise Shortage(f"uid {uid}, gid {gid} cannot be taken: {error.strerror}") from error
                if isinstance(error, OSError | OverflowError):
                    raise IdentityUnavailable(f"uid {uid}, gid {gid} cannot be taken: {error}") from error
                raise
        self.taken = identity

    def give_back(self) -> None:
        """The process has its own identity again; where that fails it has ended with status 70."""
        if self.switches:
            self._own()
        self.taken = None

    def _own(self) -> None:
        interruption: BaseException | None = None
        while True:
            try:
                os.seteuid(self._uid)
                os.setegid(self._gid)
                os.setgroups(self._groups)
            except OSError:
                # Going on as a mail user would read and write with the wrong rights.
                os._exit(NOT_GIVEN_BACK)
            except BaseException as error:  # noqa: BLE001
                # A signal handler raised half way: all three calls can be made again.
                interruption = error
            else:
                break
        if interruption is not None:
            raise interruption

    def open_as_root(self, name: bytes, flags: int, directory: int) -> int:
        """os.open of one name as root in the middle of an identity, which is then taken again."""
        if self.taken is None or not self.switches:
            return os.open(name, flags, dir_fd=directory)
        os.seteuid(self._uid)
        try:
            return os.open(name, flags, dir_fd=directory)
        finally:
            try:
                os.seteuid(self.taken.uid)
            except OSError:
                os._exit(NOT_GIVEN_BACK)


class Acting:
    """A block in which an identity is taken; made by SourceTree.acting_as."""

    __slots__ = ("_actor", "_identity")

    def __init__(self, actor: Actor, identity: Identity) -> None:
        self._actor = actor
        self._identity = identity

    def __enter__(self) -> None:
        self._actor.take(self._identity)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._actor.give_back()
