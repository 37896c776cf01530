"""Directories and names that root may write to, reached one component at a time.

`O_NOFOLLOW` guards only the last component of a path.  A user who owns any directory on
the way could lead root elsewhere (CVE-2018-6954, systemd-tmpfiles), so paths are walked by
descriptor, and a symbolic link is followed only where root or we alone could have put it.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from rcptgen.errors import PublishFailed

MAX_LINKS = 40
"""How many symbolic links one path may lead through; the kernel's own number."""

_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def shown(path: bytes) -> str:
    """`path` as text that is safe on a terminal: no control character, no byte that is not UTF-8."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def why(error: OSError) -> str:
    """The system's words for `error`, without the path that the caller names anyway."""
    return error.strerror or str(error) or type(error).__name__


def drop(descriptor: int) -> None:
    """Close a descriptor whose file was only read, or is synced: an error of close then says nothing."""
    with suppress(OSError):
        os.close(descriptor)


def above_standard(descriptor: int) -> int:
    """The same open file under a number above 2, so that no stray print can write into it.

    Cron jobs and bad wrappers start programs with descriptors 0 to 2 closed; the next open
    would get one of them.
    """
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        drop(descriptor)


def writable_by_others(status: os.stat_result) -> bool:
    """Whether somebody other than the owner may rename or remove what we put into this directory."""
    return bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)) and not status.st_mode & stat.S_ISVTX


def ours(status: os.stat_result) -> bool:
    """Whether root or we own it."""
    return status.st_uid in (0, os.geteuid())


def _steady(status: os.stat_result) -> bool:
    """Whether only root and we can exchange a directory of ours in this one; a sticky one such as /tmp will do."""
    return ours(status) and not writable_by_others(status)


def _closed(status: os.stat_result) -> bool:
    """Whether nobody but root and us could have put a link into this directory.

    Sticky does not help here: anybody may make a hard link to a link of root's (CVE-2008-2936).
    """
    return ours(status) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@dataclass(slots=True)
class Place:
    """A name in a directory that is held open: what a path led to when it was looked at.

    `directory` is a descriptor of the caller's to close.
    """

    directory: int
    name: bytes

    def close(self) -> None:
        """Give the directory's descriptor back; harmless when done twice."""
        if self.directory >= 0:
            descriptor, self.directory = self.directory, -1
            drop(descriptor)


def locate(path: bytes) -> Place:
    """The directory and name that `path` stands for, symbolic links resolved now and never again.

    The name itself may be absent.  Raises PublishFailed for a link that somebody else could
    have set, for a directory that is missing, and for a path that can only name a directory.
    """
    if b"\0" in path or path.rstrip(b"/") != path or path in (b"", b".", b".."):
        raise PublishFailed(f"{shown(path)!r}: not the path of a file")
    try:
        return reach(path)
    except OSError as error:
        raise PublishFailed(f"{shown(path)}: cannot reach its directory: {why(error)}") from error


def reach(path: bytes) -> Place:
    """As `locate`, but OSErrors come as they are."""
    left = deque(path.split(b"/"))
    here = os.open(b"/" if path.startswith(b"/") else b".", _STEP)
    links = 0
    try:
        trusted = _steady(os.fstat(here))
        while True:
            name = left.popleft()
            last = not any(part not in (b"", b".") for part in left)
            if name in (b"", b".") and not last:
                continue
            if name in (b"", b".", b".."):
                if last:
                    raise PublishFailed(f"{shown(path)}: is a directory")
            elif (target := _link(name, here)) is not None:
                links += 1
                link = os.stat(name, dir_fd=here, follow_symlinks=False)
                if not (trusted and _closed(os.fstat(here)) and ours(link)):
                    raise PublishFailed(
                        f"{shown(path)}: leads through the symbolic link {shown(name)}, which others than root could "
                        "have set; name the real path, or let root own every directory on the way"
                    )
                if links > MAX_LINKS:
                    raise PublishFailed(f"{shown(path)}: too many symbolic links")
                left.extendleft(reversed(target.split(b"/")))
                if target.startswith(b"/"):
                    here = _swap(here, os.open(b"/", _STEP))
                    trusted = _steady(os.fstat(here))
                continue
            if last:
                # fsync and listing want a readable descriptor; the steps before need only search.
                readable = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
                return Place(above_standard(readable), name)
            here = _swap(here, os.open(name, _STEP, dir_fd=here))
            trusted = trusted and _steady(os.fstat(here))
    finally:
        drop(here)


def _swap(old: int, new: int) -> int:
    drop(old)
    return new


def _link(name: bytes, directory: int) -> bytes | None:
    """Where `name` points if it is a symbolic link, else None (absent included)."""
    try:
        return os.readlink(name, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError:
        # EINVAL: it is there and no link.  Anything else shows again when the name is opened.
        return None


def open_directory(path: bytes) -> int:
    """A readable descriptor of the directory `path`, reached as `locate` reaches it; the caller closes it.

    Raises FileNotFoundError and other OSErrors as they come, PublishFailed for a link that is not to be trusted.
    """
    clean = path.rstrip(b"/") or b"/"
    if clean == b"/":
        return above_standard(os.open(b"/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    place = reach(clean)
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return above_standard(os.open(place.name, flags, dir_fd=place.directory))
    finally:
        place.close()
