"""One new file beside its target, complete and on disk before it can take the target's name."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress

from rcptgen.errors import PublishFailed
from rcptgen.publish.cdb import SIZE_LIMIT
from rcptgen.publish.digest import digest
from rcptgen.publish.paths import Place, above_standard, drop, ours, shown, why

_CHUNK = 1 << 20
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Staged:
    """A temporary file beside its target, on its way to take the target's name."""

    def __init__(self, path: bytes, place: Place, mode: int, owner: tuple[int, int] | None) -> None:
        self.path = path
        self.size = 0
        self._place = place
        self._mode = mode
        self._owner = owner
        self._sha256 = ""
        self._finished = False
        self._failed = False
        self._unchanged: bool | None = None
        self._descriptor = -1
        # A name that nobody can foresee: in a sticky directory anybody may take names in advance.
        self._temporary = b".%s.rcptgen-%d-%s.tmp" % (place.name, os.getpid(), secrets.token_hex(8).encode())

    def open(self) -> None:
        """The temporary file exists, empty, under a name that nobody else has; raises PublishFailed."""
        try:
            self._descriptor = above_standard(os.open(self._temporary, _NEW, 0o600, dir_fd=self._place.directory))
        except OSError as error:
            raise PublishFailed(f"{shown(self.path)}: cannot make a temporary file beside it: {why(error)}") from error
        # A mark of life for other runs; see remove_stale.  It ends with the process.
        with suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @property
    def directory(self) -> int:
        """The descriptor of the target's directory."""
        return self._place.directory

    @property
    def sha256(self) -> str:
        """The SHA-256 of the finished file, in hex; empty before `finish`."""
        return self._sha256

    def fileno(self) -> int:
        """The descriptor of the temporary file, for reading and writing; it stays ours to close."""
        return self._descriptor

    def write(self, chunks: Iterable[bytes]) -> int:
        """Append every chunk and return the bytes written; raises PublishFailed for any error and past the limit."""
        done = 0
        self._failed = True
        for chunk in chunks:
            self.size += len(chunk)
            if self.size > SIZE_LIMIT:
                raise self._oversized()
            view = memoryview(chunk)
            try:
                while view:
                    view = view[os.write(self._descriptor, view) :]
            except OSError as error:
                raise PublishFailed(f"{shown(self.path)}: cannot write: {why(error)}") from error
            done += len(chunk)
        self._failed = False
        return done

    def finish(self) -> None:
        """The file has exactly its mode and owner, is within the limit, and is on disk; nothing more may be written.

        Raises PublishFailed for a file over the limit, an owner that cannot be set, an error of
        the disk.  Once an fsync has failed the data is lost even where a second one succeeds
        (Linux drops the dirty pages), so it is never tried again.
        """
        if self._finished:
            return
        if self._failed:
            raise PublishFailed(f"{shown(self.path)}: the new file could not be finished")
        # Until the contrary is proved, for an interrupt too.
        self._failed = True
        try:
            status = os.fstat(self._descriptor)
            self.size = status.st_size
            if self.size > SIZE_LIMIT:
                raise self._oversized()
            if self._owner is not None and self._owner != (status.st_uid, status.st_gid):
                os.fchown(self._descriptor, *self._owner)
            # After fchown, which clears set-id bits; whatever the umask was.
            os.fchmod(self._descriptor, self._mode)
            os.fsync(self._descriptor)
            self._sha256 = digest(self._descriptor)
        except OSError as error:
            raise PublishFailed(f"{shown(self.path)}: cannot finish the new file: {why(error)}") from error
        self._finished, self._failed = True, False

    def unchanged(self) -> bool:
        """Whether the present target is this file already: bytes, mode and owner; the temporary file is gone then.

        Where only mode or owner differ the answer is no, and the target is replaced like any
        other: a chmod in place would give the rights to every hard link of the old file, and
        the old bytes for a moment the wrong owner.  Where no owner is wanted, a present file
        of somebody other than root or us counts as different: he could still write to it.
        """
        self.finish()
        if self._unchanged is None:
            try:
                self._unchanged = self._same()
            except OSError:
                # A target that cannot be read is replaced.
                self._unchanged = False
            if self._unchanged:
                self._remove()
        return self._unchanged

    def _same(self) -> bool:
        there = os.open(self._place.name, _LOOK, dir_fd=self._place.directory)
        try:
            status = os.fstat(there)
            owner = (status.st_uid, status.st_gid)
            if (
                not stat.S_ISREG(status.st_mode)
                or status.st_size != self.size
                or stat.S_IMODE(status.st_mode) != self._mode
                or (not ours(status) if self._owner is None else owner != self._owner)
            ):
                return False
            for at in range(0, self.size, _CHUNK):
                if os.pread(there, _CHUNK, at) != os.pread(self._descriptor, _CHUNK, at):
                    return False
            return True
        finally:
            drop(there)

    def rename(self) -> None:
        """The target is the new file; raises OSError, and then it is the old one."""
        directory = self._place.directory
        try:
            os.rename(self._temporary, self._place.name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            # Over NFS a rename may have happened although its answer was lost.
            if not self.in_place():
                raise
        self._temporary = b""

    def in_place(self) -> bool:
        """Whether the target is now this very file."""
        try:
            there = os.stat(self._place.name, dir_fd=self._place.directory, follow_symlinks=False)
            here = os.fstat(self._descriptor)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def _remove(self) -> None:
        if self._temporary:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._place.directory)
            self._temporary = b""

    def close(self) -> None:
        """Remove the temporary file unless it was renamed, and give all descriptors back; harmless when done twice."""
        self._remove()
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            drop(descriptor)
        self._place.close()

    def _oversized(self) -> PublishFailed:
        return PublishFailed(f"{shown(self.path)}: would have more than {SIZE_LIMIT} bytes; the old file stays")


def remove_stale(place: Place) -> None:
    """Remove what killed runs left for the same target.

    A file that its maker still holds locked is left alone: two runs with different state
    directories may have the same target and do not share the publishing lock.
    """
    pattern = re.compile(rb"\.%s\.rcptgen-[0-9]+-[0-9a-f]{16}\.tmp" % re.escape(place.name), re.DOTALL)
    with suppress(OSError):
        for entry in os.listdir(place.directory):
            name = os.fsencode(entry)
            if pattern.fullmatch(name):
                with suppress(OSError):
                    if _abandoned(name, place.directory):
                        os.unlink(name, dir_fd=place.directory)


def _abandoned(name: bytes, directory: int) -> bool:
    if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        return True
    descriptor = os.open(name, _LOOK, dir_fd=directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        drop(descriptor)
    return True
