"""What a delivery program sees of the host: files as its owner may read them, from its home."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from rcptgen.rules.cdbwalk import CdbFile
from rcptgen.source.tree import (
    DEFAULT_LIMIT,
    Directory,
    EntryType,
    FailedForNow,
    Failure,
    Identity,
    NotRegular,
    Opened,
    Reading,
    SourceTree,
    Status,
)

MayWait = Callable[[Iterable[bytes]], None]
"""Takes paths that were looked at, and may wait."""


def never_waits(paths: Iterable[bytes]) -> None:
    """Where nothing is recorded, or all of it counts."""


class Look(Protocol):
    """What a model may look at.

    Names are those of the command line: absolute, or relative to the home.  Every answer is
    the one that the owner would get.  A source that cannot be read for now (FailedForNow)
    is taken note of by itself: what is answered then refuses nobody.
    """

    home: bytes
    identity: Identity

    def path(self, name: bytes) -> bytes:
        """The absolute path of `name`."""
        ...

    def read(self, name: bytes, limit: int = DEFAULT_LIMIT) -> Reading:
        """A regular file of at most `limit` bytes, whole."""
        ...

    def status(self, name: bytes) -> Status | Failure:
        """What stat(2) says."""
        ...

    def accessible(self, name: bytes, mode: int) -> Status | Failure:
        """The status, if the owner may have all of `mode` (os.R_OK, os.W_OK, os.X_OK)."""
        ...

    def names(self, name: bytes) -> dict[bytes, EntryType] | Failure:
        """All names in a directory, whether or not the owner may list it."""
        ...

    def cdb(self, name: bytes) -> CdbFile | Failure | NotRegular:
        """A regular file opened as a cdb, whatever is in it."""
        ...

    def apart(self) -> AbstractContextManager[MayWait]:
        """For one look at what one user's mail alone hangs on.

        What this gives is called where the mail is accepted, with the user's own paths: no change of these
        can turn a bounce into an acceptance, and they may wait (Entry.may_wait).
        """
        ...

    def failed(self, path: bytes, reason: str) -> None:
        """A source (a database server) cannot be asked for now: what is answered refuses nobody."""
        ...

    def suspect(self, path: bytes, reason: str) -> None:
        """A file that is damaged: what it seems to say must not take anything away."""
        ...


MOST_KEPT = 1 << 20
"""Bytes of a cdb up to which it is kept for the next look-up, where many homes are open at a time."""


class NoLook:
    """Where there is no host to look at: every look fails for now."""

    home = b"/"
    identity = Identity(0, 0)

    def path(self, name: bytes) -> bytes:
        """See Look."""
        return os.path.join(self.home, name)

    def read(self, name: bytes, limit: int = DEFAULT_LIMIT) -> Reading:
        """See Look."""
        return FailedForNow(errno.EAGAIN)

    def status(self, name: bytes) -> Status | Failure:
        """See Look."""
        return FailedForNow(errno.EAGAIN)

    def accessible(self, name: bytes, mode: int) -> Status | Failure:
        """See Look."""
        return FailedForNow(errno.EAGAIN)

    def names(self, name: bytes) -> dict[bytes, EntryType] | Failure:
        """See Look."""
        return FailedForNow(errno.EAGAIN)

    def cdb(self, name: bytes) -> CdbFile | Failure | NotRegular:
        """See Look."""
        return FailedForNow(errno.EAGAIN)

    def apart(self) -> AbstractContextManager[MayWait]:
        """See Look."""
        return nullcontext(never_waits)

    def failed(self, path: bytes, reason: str) -> None:
        """See Look."""

    def suspect(self, path: bytes, reason: str) -> None:
        """See Look."""


NO_LOOK: Look = NoLook()


class OwnersLook:
    """The look of a home's owner.

    `acting` tells whether the identity is taken already; `directory` gives the home, open,
    `listed` its names where they are known; `trouble` is told of every look that failed for
    now, `report` of failed and suspect sources.
    """

    def __init__(
        self,
        tree: SourceTree,
        home: bytes,
        identity: Identity,
        acting: Callable[[], bool],
        directory: Callable[[], Directory | Failure],
        listed: Callable[[], dict[bytes, EntryType] | None],
        trouble: Callable[[FailedForNow], None],
        report: Callable[[bytes, str, bool], None],
    ) -> None:
        self.home = home
        self.identity = identity
        self._tree = tree
        self._acting = acting
        self._directory = directory
        self._last: tuple[bytes, CdbFile] | None = None
        self._listed = listed
        self._inside = home.rstrip(b"/") + b"/"
        self._trouble = trouble
        self._report = report
        self.decides = False
        """Whether what a program does is all that becomes of the mail: it is all of the only line of a file."""

    def _as_owner(self) -> AbstractContextManager[None]:
        return nullcontext() if self._acting() else self._tree.acting_as(self.identity)

    def path(self, name: bytes) -> bytes:
        """See Look."""
        return os.path.join(self.home, name)

    def _near(self, path: bytes) -> Directory | None:
        """The home where `path` is a name in it: names are looked up faster from there."""
        inside = self._inside
        if path.startswith(inside) and b"/" not in path[len(inside) :] and len(path) > len(inside):
            directory = self._directory()
            return directory if isinstance(directory, Directory) else None
        return None

    def read(self, name: bytes, limit: int = DEFAULT_LIMIT) -> Reading:
        """See Look."""
        with self._as_owner():
            found = self._tree.read(self.path(name), limit=limit)
        if isinstance(found, FailedForNow):
            self._trouble(found)
        return found

    def status(self, name: bytes) -> Status | Failure:
        """See Look."""
        path = self.path(name)
        with self._as_owner():
            near = self._near(path)
            found = near.child_status(path[len(self._inside) :]) if near else self._tree.status(path)
        if isinstance(found, FailedForNow):
            self._trouble(found)
        return found

    def accessible(self, name: bytes, mode: int) -> Status | Failure:
        """See Look."""
        path = self.path(name)
        with self._as_owner():
            home = self._directory() if path.rstrip(b"/") == self._inside[:-1] else None
            found = home.accessible(mode) if isinstance(home, Directory) else self._tree.accessible(path, mode)
        if isinstance(found, FailedForNow):
            self._trouble(found)
        return found

    def names(self, name: bytes) -> dict[bytes, EntryType] | Failure:
        """See Look."""
        path = self.path(name)
        if path.rstrip(b"/") == self._inside[:-1] and (known := self._listed()) is not None:
            return known
        with self._as_owner():
            directory = self._tree.directory(path)
            found: list[tuple[bytes, EntryType]] | Failure
            if isinstance(directory, Directory):
                with directory:
                    found = directory.names()
            else:
                found = directory
        if isinstance(found, FailedForNow):
            self._trouble(found)
        return dict(found) if isinstance(found, list) else found

    def cdb(self, name: bytes) -> CdbFile | Failure | NotRegular:
        """See Look."""
        path = self.path(name)
        if self._last is not None and self._last[0] == path:
            return self._last[1]
        with self._as_owner():
            near = self._near(path)
            found = near.open(path[len(self._inside) :]) if near else self._tree.open(path)
        if isinstance(found, FailedForNow):
            self._trouble(found)
        if isinstance(found, Opened):
            called, status = os.fsdecode(path), found.status
            cdb = CdbFile(found.fetch, status.size, called, status.mtime_ns, whole=found.whole)
            if self._acting() or found.status.size <= MOST_KEPT:
                self._last = path, cdb
            return cdb
        return found

    @contextmanager
    def apart(self) -> Iterator[MayWait]:
        """See Look."""
        if not (self.decides and self._tree.record):
            yield never_waits
            return
        with self._tree.apart() as footprint:
            yield lambda paths: footprint.let_wait(map(self.path, paths))

    def close(self) -> None:
        """Lets go of the file that was opened last."""
        self._last = None

    def failed(self, path: bytes, reason: str) -> None:
        """See Look."""
        self._report(path, reason, True)

    def suspect(self, path: bytes, reason: str) -> None:
        """See Look."""
        self._report(path, reason, False)
