"""SourceTree: the only way to read the host.

Paths are bytes, absolute, and those of the host; every one of them, and every link met on
the way, is taken below the root.  What is asked is answered as the acting identity would
be answered by open(2), stat(2) and chdir(2); no answer depends on what only root can see.
Nothing here waits for a fifo, a device, a socket or a lease, and nothing reads more than
its limit.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from errno import EACCES, EAGAIN, EINVAL, ELOOP, ENOENT, ENOMEM, ENOTDIR, ENXIO, EPERM
from types import TracebackType
from typing import TypeVar

from rcptgen.source.direct import DIRECT, Entered, direct
from rcptgen.source.footprint import Entry, Footprint, What, unchanged
from rcptgen.source.identity import Access, Acting, Actor, IdentityUnavailable
from rcptgen.source.outcomes import (
    Absent,
    EntryType,
    FailedForNow,
    Failure,
    Identity,
    NotRegular,
    Reading,
    Refused,
    Regular,
    Status,
    TooLarge,
    failure,
)
from rcptgen.source.resolve import LIST, Found, Resolver, close, error

__all__ = [
    "DEFAULT_LIMIT",
    "Absent",
    "Directory",
    "Entered",
    "Entry",
    "EntryType",
    "FailedForNow",
    "Failure",
    "Footprint",
    "Identity",
    "IdentityUnavailable",
    "NotRegular",
    "Opened",
    "Reading",
    "Refused",
    "Regular",
    "SourceTree",
    "Status",
    "TooLarge",
    "What",
    "unchanged",
]

DEFAULT_LIMIT = 1 << 20
AT_ONCE = 4 << 20
"""Bytes up to which a file that is opened for pieces of it is read as a whole."""

ATTEMPTS = 4
"""One look, and three more where the file changed under it."""

_T = TypeVar("_T")
_BLOCK = 1 << 18
_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()


class SourceTree:
    """The host below `root`.

    `access` "auto" lets the kernel answer as each identity where the process is root and
    able to take it, and otherwise judges mode bits; `switches` says which.  `record` false
    leaves the footprint empty.  `openat2` false never uses that call.
    """

    __slots__ = ("_actor", "_resolver", "footprint", "record", "root")

    def __init__(
        self, root: bytes = b"/", *, access: Access = "auto", record: bool = True, openat2: bool = True
    ) -> None:
        self.root = root
        self.record = record
        self.footprint = Footprint()
        self._actor = Actor(access)
        self._resolver = Resolver(root, self._actor, openat2=openat2)

    @property
    def switches(self) -> bool:
        """Whether identities are really taken; otherwise modes are judged from their bits."""
        return self._actor.switches

    def acting_as(self, identity: Identity) -> AbstractContextManager[None]:
        """A block in which the host is read as `identity`; it must hold nothing but accesses to the tree.

        Entering raises IdentityUnavailable where the identity cannot be taken, and
        RuntimeError inside another such block.  However the block is left, the process has
        its own identity again, or has ended with status 70.
        """
        return Acting(self._actor, identity)

    def take_footprint(self) -> Footprint:
        """What was recorded so far; the tree goes on with an empty one."""
        taken, self.footprint = self.footprint, Footprint()
        return taken

    @contextmanager
    def apart(self) -> Iterator[Footprint]:
        """What is looked at meanwhile has a footprint of its own, which is added to the other one at the end."""
        before = self.take_footprint()
        try:
            yield self.footprint
        finally:
            before.merge(self.footprint)
            self.footprint = before

    def read(self, path: bytes, *, limit: int = DEFAULT_LIMIT, may_wait: bool = False) -> Reading:
        """The whole of a regular file of at most `limit` bytes, links followed, or why there is none.

        The order of answers is that of open(2) in qmail-local.c: qmeexists: permission comes
        before type, so that an unreadable directory is Refused and a readable one NotRegular.
        A file that keeps changing while it is read is FailedForNow(EAGAIN).
        """
        _check(path)
        return self._read(path, lambda: self._resolver.locate(path), _whole(limit), may_wait)

    def open(self, path: bytes, *, may_wait: bool = False) -> Opened | Failure | NotRegular:
        """A regular file to be read piece by piece, links followed; what `read` answers where there is none.

        It is opened as whoever looks, and may then be read by anybody.
        """
        _check(path)
        return self._read(path, lambda: self._resolver.locate(path), Opened, may_wait)

    def descriptor(self, path: bytes, *, may_wait: bool = False) -> int | Failure | NotRegular:
        """As `open`, but the open file's own descriptor, which the caller closes."""
        _check(path)
        return self._read(path, lambda: self._resolver.locate(path), lambda fd, _: os.dup(fd), may_wait)

    def status(self, path: bytes, *, may_wait: bool = False) -> Status | Failure:
        """What stat(2) says, links followed."""
        _check(path)
        try:
            found = self._resolver.locate(path)
        except OSError as trouble:
            return self._failed(path, trouble, may_wait)
        status = Status.of(found.stat)
        found.close()
        self._add(path, What.STATUS, status, may_wait)
        return status

    def accessible(self, path: bytes, mode: int, *, may_wait: bool = False) -> Status | Failure:
        """The status of what is behind the links, if whoever looks may have all of `mode` (R_OK, W_OK, X_OK) of it."""
        _check(path)
        try:
            found = self._resolver.locate(path)
        except OSError as trouble:
            return self._failed(path, trouble, may_wait)
        try:
            errno = self._resolver.refusal(found.fd, found.stat, mode)
        finally:
            found.close()
        status = Status.of(found.stat)
        self._add(path, What.STATUS, status, may_wait)
        return failure(errno) if errno else status

    def link(self, path: bytes) -> bytes | None:
        """Where a symbolic link leads, as it is written; None where whoever looks finds no link."""
        _check(path)
        where, _, name = path.rpartition(b"/")
        try:
            found = self._resolver.locate(where or b"/", directory=True)
            try:
                self._resolver.check_search(found.fd, found.stat)
                return os.readlink(name, dir_fd=found.fd)
            finally:
                found.close()
        except OSError:
            return None

    def directory(self, path: bytes, *, may_wait: bool = False) -> Directory | Failure:
        """A directory that whoever looks could change to (chdir, as qmail-local.c does first)."""
        _check(path)
        try:
            found = self._resolver.locate(path, directory=True)
        except OSError as trouble:
            return self._failed(path, trouble, may_wait)
        try:
            self._resolver.check_search(found.fd, found.stat)
        except OSError as trouble:
            found.close()
            return self._failed(path, trouble, may_wait, found.stat)
        self._add(path, What.STATUS, Status.of(found.stat), may_wait)
        return Directory(self, path, found)

    def enter(self, path: bytes, *, most: int) -> Entered | None:
        """An ordinary directory with at most `most` names, open and listed; None where `directory` must find out."""
        _check(path)
        fd = self._resolver.enter(path)
        if fd < 0:
            return None
        inside = path.rstrip(b"/")

        def seen(name: bytes, what: What, status: os.stat_result) -> None:
            self._add(inside + b"/" + name if name else path, what, Status.of(status), False)

        try:
            return Entered(fd, most, seen if self.record else None)
        except (OSError, ValueError, MemoryError):
            close(fd)
            return None

    def close(self) -> None:
        """The root's descriptor is given back."""
        self._resolver.close()

    def __enter__(self) -> SourceTree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_resolver"):
            self._resolver.close()

    def _add(self, path: bytes, what: What, status: Status | None, may_wait: bool) -> None:
        if self.record:
            self.footprint.add(path, what, status, may_wait)

    def _failed(
        self, path: bytes, trouble: OSError | MemoryError, may_wait: bool, seen: os.stat_result | None = None
    ) -> Failure:
        """The outcome of an error, recorded: with what was seen where it was refused, as absent otherwise."""
        outcome = failure((trouble.errno or EINVAL) if isinstance(trouble, OSError) else ENOMEM)
        status = Status.of(seen) if seen is not None and isinstance(outcome, Refused) else None
        self._add(path, What.STATUS, status, may_wait)
        return outcome

    def _read(
        self, path: bytes, locate: Callable[[], Found], take: Callable[[int, os.stat_result], _T | None], may_wait: bool
    ) -> _T | Failure | NotRegular:
        for _ in range(ATTEMPTS):
            try:
                found = locate()
            except OSError as trouble:
                if trouble.errno == EAGAIN:
                    continue
                return self._failed(path, trouble, may_wait)
            fd = -1
            try:
                if not stat.S_ISREG(found.stat.st_mode):
                    return self._not_regular(path, found, may_wait)
                if found.unjudged and (errno := self._resolver.refusal(found.fd, found.stat, os.R_OK)):
                    return self._failed(path, error(errno), may_wait, found.stat)
                try:
                    fd = found.reopen()
                except OSError as trouble:
                    if trouble.errno in (ENOENT, ENOTDIR, ELOOP, ENXIO):
                        continue
                    return self._failed(path, trouble, may_wait, found.stat)
                before = os.fstat(fd)
                if (before.st_dev, before.st_ino) != (found.stat.st_dev, found.stat.st_ino):
                    continue
                try:
                    content = take(fd, before)
                except OSError as trouble:
                    return self._unreadable(path, trouble, may_wait, before)
            except (OSError, MemoryError) as trouble:
                return self._failed(path, trouble, may_wait)
            finally:
                found.close()
                if fd >= 0:
                    close(fd)
            if content is not None:
                self._add(path, What.FILE, Status.of(before), may_wait)
                return content
        return self._failed(path, error(EAGAIN), may_wait)

    def _unreadable(self, path: bytes, trouble: OSError, may_wait: bool, seen: os.stat_result) -> Failure:
        """The outcome of an error of read(2): what could be opened is there, whatever the error."""
        errno = trouble.errno or EINVAL
        if isinstance(failure(errno), FailedForNow):
            return self._failed(path, trouble, may_wait)
        self._add(path, What.STATUS, Status.of(seen), may_wait)
        return Refused(errno)

    def _not_regular(self, path: bytes, found: Found, may_wait: bool) -> Failure | NotRegular:
        errno = self._resolver.open_refusal(found)
        if not errno and stat.S_ISSOCK(found.stat.st_mode):
            errno = ENXIO
        self._add(path, What.STATUS, Status.of(found.stat), may_wait)
        return failure(errno) if errno else NotRegular(found.stat.st_mode)


class Opened:
    """A regular file, open; it stays the same one whatever happens to its path.  `status` is that of its opening.

    A small one is read at once, and its descriptor given back.  Raises OSError where that fails.
    """

    __slots__ = ("_data", "_fd", "status")

    def __init__(self, fd: int, status: os.stat_result) -> None:
        self._fd = -1
        self._data: bytes | None = None
        self.status = Status.of(status)
        if status.st_size <= AT_ONCE:
            data = os.read(fd, status.st_size + 1)
            if len(data) == status.st_size:
                self._data = data
                return
        self._fd = os.dup(fd)

    @property
    def whole(self) -> bytes:
        """All of it, where it was read at once; else nothing."""
        return self._data or b""

    def fetch(self, position: int, size: int) -> bytes:
        """What stands there; shorter where the file ends.  Errors are OSErrors."""
        if self._data is not None:
            return self._data[position : position + size]
        parts: list[bytes] = []
        while size > 0 and (part := os.pread(self._fd, size, position)):
            parts.append(part)
            position += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """The descriptor is given back; may be called again."""
        if self._fd >= 0:
            close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            self.close()


class Directory:
    """An open directory.  It stays the same one whatever happens to its path; close it, or use it as a context."""

    __slots__ = ("_fd", "_gate", "_prefix", "_stat", "_tree", "path", "status")

    def __init__(self, tree: SourceTree, path: bytes, found: Found) -> None:
        self._tree = tree
        self._fd = found.fd
        self._stat = found.stat
        self._gate = tree._resolver.is_root(found.stat)
        self.path = path
        self.status = Status.of(found.stat)
        self._prefix = path if path.endswith(b"/") else path + b"/"

    def names(
        self, *, beginning: bytes = b"", most: int | None = None, may_wait: bool = False
    ) -> list[tuple[bytes, EntryType]] | Refused | FailedForNow:
        """All names in it that begin with `beginning`, in no order, without `.` and `..`; never what lies below.

        With `most` no more than so many are looked for.

        qmail opens names without ever listing, so a directory that its owner may enter but
        not list is listed as root: opened so for its names, and nothing else.
        """
        tree = self._tree
        try:
            status = Status.of(os.fstat(self._fd)) if tree.record else None
            try:
                fd = os.open(b".", LIST, dir_fd=self._fd)
            except OSError as trouble:
                if trouble.errno not in (EACCES, EPERM):
                    raise
                fd = tree._actor.open_as_root(b".", LIST, self._fd)
            try:
                names = _names(fd, beginning, most)
            finally:
                close(fd)
        except (OSError, MemoryError) as trouble:
            errno = (trouble.errno or EINVAL) if isinstance(trouble, OSError) else ENOMEM
            tree._add(self.path, What.STATUS, None, may_wait)
            # A directory that was removed in the meantime is not an empty one.
            return Refused(errno) if isinstance(failure(errno), Refused) else FailedForNow(errno)
        tree._add(self.path, What.LISTING, status, may_wait)
        return names

    def accessible(self, mode: int, *, may_wait: bool = False) -> Status | Failure:
        """As SourceTree.accessible, for the directory itself, as it is now."""
        tree = self._tree
        try:
            now = os.fstat(self._fd)
        except OSError as trouble:
            return tree._failed(self.path, trouble, may_wait)
        errno = tree._resolver.refusal(self._fd, now, mode)
        tree._add(self.path, What.STATUS, Status.of(now), may_wait)
        return failure(errno) if errno else Status.of(now)

    def child_status(self, name: bytes, *, may_wait: bool = False) -> Status | Failure:
        """As SourceTree.status, for a name in this directory: one call where it is no link."""
        tree = self._tree
        if self._is_plain(name):
            try:
                found = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            except OSError as trouble:
                return tree._failed(self._prefix + name, trouble, may_wait)
            if not stat.S_ISLNK(found.st_mode):
                status = Status.of(found)
                tree._add(self._prefix + name, What.STATUS, status, may_wait)
                return status
        return tree.status(self._prefix + name, may_wait=may_wait)

    def open(self, name: bytes, *, may_wait: bool = False) -> Opened | Failure | NotRegular:
        """As SourceTree.open, for a name in this directory."""
        if self._is_plain(name):
            try:
                fd = os.open(name, DIRECT, dir_fd=self._fd)
            except (OSError, ValueError):
                fd = -1
            if fd >= 0:
                try:
                    before = os.fstat(fd)
                    if stat.S_ISREG(before.st_mode):
                        self._tree._add(self._prefix + name, What.FILE, Status.of(before), may_wait)
                        return Opened(fd, before)
                finally:
                    close(fd)
        return self._tree.open(self._prefix + name, may_wait=may_wait)

    def _is_plain(self, name: bytes) -> bool:
        """Whether the kernel may be asked for a name in this directory, and will answer as whoever looks."""
        actor = self._tree._actor
        return b"/" not in name and name != b".." and (actor.taken is None or (actor.switches and not self._gate))

    def read(
        self, name: bytes, *, limit: int = DEFAULT_LIMIT, may_wait: bool = False, entry: EntryType = EntryType.UNKNOWN
    ) -> Reading:
        """As SourceTree.read, for a name relative to this directory; a name that begins with a slash is a path.

        `entry` is what `names` said of it: REGULAR costs one open, two fstats, one read.
        """
        tree = self._tree
        if entry is EntryType.REGULAR and b"/" not in name:
            actor = tree._actor
            if actor.taken is None or (actor.switches and not self._gate):
                found = direct(name, self._fd, limit)
                if found is not None:
                    content = Regular(found[0], Status.of(found[1]))
                    if tree.record:
                        tree.footprint.add(self._prefix + name, What.FILE, content.status, may_wait)
                    return content
        path = name if name.startswith(b"/") else self._prefix + name
        return tree._read(
            path,
            lambda: tree._resolver.locate_at(self._fd, self._stat, name, path),
            _whole(limit),
            may_wait,
        )

    def contents(
        self, names: Iterable[bytes], *, limit: int = DEFAULT_LIMIT
    ) -> Iterator[tuple[bytes, os.stat_result] | None]:
        """The content and the status of each of several names, which `names` has shown to be regular files.

        None where anything at all is unusual, or looks are recorded: `read` then finds out.
        """
        actor, here = self._tree._actor, self._fd
        usual = not self._tree.record and (actor.taken is None or (actor.switches and not self._gate))
        for name in names:
            yield direct(name, here, limit) if usual else None

    def close(self) -> None:
        """The descriptor is given back; may be called again."""
        if self._fd >= 0:
            close(self._fd)
            self._fd = -1

    def __enter__(self) -> Directory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            self.close()


def _check(path: bytes) -> None:
    if not path.startswith(b"/"):
        raise ValueError(f"not an absolute path: {path!r}")


def _content(fd: int, before: os.stat_result, limit: int) -> bytes | TooLarge | None:
    """All that can be read, at most `limit` bytes; None where the file changed meanwhile."""
    size = before.st_size
    if size > limit:
        return TooLarge(size)
    data = os.read(fd, size + 1)
    if len(data) != size and not _changed(fd, before):
        # A short read of a network file system, or a file of /proc, which has no size.
        blocks = [data]
        total = len(data)
        while blocks[-1] and total <= limit:
            blocks.append(os.read(fd, min(_BLOCK, limit + 1 - total)))
            total += len(blocks[-1])
        if total > limit:
            return TooLarge(total)
        data = b"".join(blocks)
    return None if _changed(fd, before) else data


def _whole(limit: int) -> Callable[[int, os.stat_result], Regular | TooLarge | None]:
    """What takes all of an open file of at most `limit` bytes."""

    def take(fd: int, before: os.stat_result) -> Regular | TooLarge | None:
        content = _content(fd, before, limit)
        return Regular(content, Status.of(before)) if isinstance(content, bytes) else content

    return take


def _changed(fd: int, before: os.stat_result) -> bool:
    after = os.fstat(fd)
    return after.st_size != before.st_size or after.st_mtime_ns != before.st_mtime_ns


def _names(fd: int, beginning: bytes, most: int | None) -> list[tuple[bytes, EntryType]]:
    names: list[tuple[bytes, EntryType]] = []
    start = beginning.decode(_ENCODING, _ERRORS)
    with os.scandir(fd) as entries:
        for entry in entries:
            if not entry.name.startswith(start):
                continue
            if len(names) == most:
                break
            try:
                if entry.is_file(follow_symlinks=False):
                    kind = EntryType.REGULAR
                elif entry.is_symlink():
                    kind = EntryType.LINK
                elif entry.is_dir(follow_symlinks=False):
                    kind = EntryType.DIRECTORY
                else:
                    kind = EntryType.OTHER
            except OSError:
                # The file system gives no types, and whoever looks may not ask for them.
                kind = EntryType.UNKNOWN
            names.append((entry.name.encode(_ENCODING, _ERRORS), kind))
    return names
