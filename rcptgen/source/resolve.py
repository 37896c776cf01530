"""Finding what a path stands for below a root, as the kernel would find it for whoever looks.

There are three ways, and they give the same answers:

- *plain*: openat2, the root is `/` and the kernel knows who looks;
- *openat2* with RESOLVE_IN_ROOT: another root, and the kernel knows who looks;
- the *walk*, one component at a time: no openat2; or nobody takes identities and the mode
  bits of every component are judged; or the root itself may not be searched by everyone.
  That root stands for a `/` of mode 0755, so names in it are looked up as root, and only
  there; what lies below is looked up as whoever looks.

The walk follows fs/namei.c: 40 links, `..` stops at the root, search permission before each
name (`.` and `..` too), a last slash asks for a directory, foreign links in sticky
directories are refused where the kernel refuses them (may_follow_link).  What it does not
know: mounts with nosymfollow, and magic links (/proc/*/fd), whose text it follows.  The
other two refuse those: they would lead through our own descriptors.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from errno import EACCES, EAGAIN, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR

from rcptgen.errors import UsageTrouble
from rcptgen.source import kernel
from rcptgen.source.identity import Actor, permits
from rcptgen.source.outcomes import Identity

LINKS = 40
PATH_BYTES = 4096
RENAME_RETRIES = 8

FIND = os.O_PATH | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC

_Place = tuple[int, int]


@dataclass(slots=True)
class Found:
    """An object held by an O_PATH descriptor.  `reopen` opens it for reading by the same way.

    `unjudged`: reopen would not be asked by the kernel as the identity that looks, so
    Resolver.refusal has to be asked before.
    """

    fd: int
    stat: os.stat_result
    reopen: Callable[[], int]
    unjudged: bool = False
    parent: int = -1

    def close(self) -> None:
        """Both descriptors are closed."""
        close(self.fd)
        if self.parent >= 0:
            close(self.parent)
        self.fd = self.parent = -1


def close(fd: int) -> None:
    """The descriptor is closed; an error of a dead mount says nothing about what was read."""
    try:
        os.close(fd)
    except OSError:
        pass


def error(errno: int) -> OSError:
    """The exception that the kernel's answer would have become."""
    return OSError(errno, os.strerror(errno))


class Resolver:
    """Resolves paths of the host below one root, as the identity that `actor` has taken."""

    __slots__ = ("_actor", "_faccessat2", "_openat2", "_protected", "alternate", "fd", "gated", "stat")

    def __init__(self, root: bytes, actor: Actor, *, openat2: bool) -> None:
        try:
            self.fd = os.open(root, FIND | os.O_DIRECTORY)
        except OSError as trouble:
            raise UsageTrouble(f"{os.fsdecode(root)!r} cannot be used as a root: {trouble.strerror}") from trouble
        self.stat = os.fstat(self.fd)
        self._actor = actor
        self._openat2 = openat2 and kernel.has_openat2(self.fd)
        self._faccessat2 = kernel.has_faccessat2(self.fd)
        self._protected = kernel.links_are_protected()
        self.alternate = _place(self.stat) != _place(os.stat(b"/"))
        self.gated = self.alternate and self.stat.st_mode & 0o111 != 0o111

    def close(self) -> None:
        """The root's descriptor is given back; nothing can be resolved any more."""
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1

    @property
    def judges(self) -> bool:
        """Whether mode bits are judged here and now, since the kernel does not know who looks."""
        return self._actor.taken is not None and not self._actor.switches

    @property
    def walks(self) -> bool:
        """Whether the walk must be used here and now."""
        return self.judges or not self._openat2 or (self.gated and self._actor.taken is not None)

    def is_root(self, status: os.stat_result) -> bool:
        """Whether this is the root directory."""
        return _place(status) == _place(self.stat)

    def is_gate(self, status: os.stat_result) -> bool:
        """Whether this is the root directory, where it is the kernel's word that may not be taken."""
        return (self.gated or self.judges) and self._actor.taken is not None and self.is_root(status)

    def locate(self, path: bytes, *, directory: bool = False) -> Found:
        """What an absolute path stands for, links followed; OSError where there is nothing or it is refused.

        With `directory` the last component is asked for as chdir would (automounts are
        mounted, other objects are ENOTDIR), but its own search permission is not looked at.
        """
        if b"\0" in path:
            raise error(EINVAL)
        if self.walks:
            return self._walk(path, directory)
        flags = FIND | (os.O_DIRECTORY if directory else 0)
        if not self.alternate:
            return self._plain(self.fd, path, flags)
        for _ in range(RENAME_RETRIES):
            try:
                fd = kernel.open_in_root(self.fd, path, flags)
            except OSError as trouble:
                if trouble.errno != EAGAIN:
                    raise
            else:
                return _found(fd, lambda: self._read_in_root(path))
        return self._walk(path, directory)

    def locate_at(self, directory: int, status: os.stat_result, name: bytes, path: bytes) -> Found:
        """The same for a name relative to an open directory, whose path with the name is `path`."""
        if b"\0" in name:
            raise error(EINVAL)
        if not self.alternate and not self.walks:
            return self._plain(directory, name, FIND)
        if b"/" in name or name == b".." or self.is_gate(status):
            return self.locate(path)
        self._search(status)
        found = _found(
            os.open(name, FIND | os.O_NOFOLLOW, dir_fd=directory),
            lambda: os.open(name, READ | os.O_NOFOLLOW, dir_fd=directory),
        )
        if stat.S_ISLNK(found.stat.st_mode):
            found.close()
            return self.locate(path)
        found.unjudged = self.judges
        return found

    def enter(self, path: bytes) -> int:
        """A directory other than the root, opened to be listed; -1 where that is not for the kernel alone to say."""
        if self.walks or not self._faccessat2:
            return -1
        reach = kernel.open_in_root if self.alternate else kernel.open_without_magic
        try:
            fd = reach(self.fd, path, LIST)
        except OSError:
            return -1
        if self.is_root(_fstat(fd)):
            close(fd)
            return -1
        return fd

    def _plain(self, directory: int, path: bytes, flags: int) -> Found:
        try:
            fd = kernel.open_without_magic(directory, path, flags)
        except OSError as trouble:
            if trouble.errno != ELOOP:
                raise
            # A loop of ordinary links fails this way, too; without one it was a magic link.
            close(os.open(path, flags, dir_fd=directory))
            raise error(EACCES) from None
        return _found(fd, lambda: kernel.open_without_magic(directory, path, READ))

    def refusal(self, fd: int, status: os.stat_result, wanted: int) -> int:
        """0 where whoever looks may have R_OK, W_OK or X_OK of an object, else the error."""
        identity = self._actor.taken
        if self.is_gate(status):
            return 0 if permits(stat.S_IFDIR | 0o755, 0, 0, identity or Identity(0, 0), wanted) else EACCES
        if self._faccessat2 and not self.judges:
            return kernel.refusal(fd, wanted)
        who = identity or Identity(os.geteuid(), os.getegid())
        return 0 if permits(status.st_mode, status.st_uid, status.st_gid, who, wanted) else EACCES

    def open_refusal(self, found: Found) -> int:
        """0 where open(O_RDONLY) of an object that is not regular would get as far as its type, else the error."""
        mode = found.stat.st_mode
        # may_open in fs/namei.c refuses devices on such a mount before it looks at the mode.
        if (stat.S_ISBLK(mode) or stat.S_ISCHR(mode)) and os.fstatvfs(found.fd).f_flag & os.ST_NODEV:
            return EACCES
        return self.refusal(found.fd, found.stat, os.R_OK)

    def check_search(self, fd: int, status: os.stat_result) -> None:
        """Raises the error of chdir where whoever looks may not search an open directory."""
        if self.is_gate(status):
            return
        if self.judges:
            self._search(status)
        else:
            os.stat(b".", dir_fd=fd)

    def _search(self, status: os.stat_result) -> None:
        identity = self._actor.taken
        if identity is None or self._actor.switches or self.is_gate(status):
            return
        if not permits(status.st_mode, status.st_uid, status.st_gid, identity, os.X_OK):
            raise error(EACCES)

    def _read_in_root(self, path: bytes) -> int:
        for _ in range(RENAME_RETRIES):
            try:
                return kernel.open_in_root(self.fd, path, READ)
            except OSError as trouble:
                if trouble.errno != EAGAIN:
                    raise
        # A rename storm or a lease: only the walk can tell them apart.
        found = self._walk(path, False)
        try:
            return found.reopen()
        finally:
            found.close()

    def _walk(self, path: bytes, directory: bool) -> Found:
        if not path:
            raise error(ENOENT)
        if len(path) >= PATH_BYTES:
            raise error(ENAMETOOLONG)
        pending = _components(path)
        directory = directory or path.endswith(b"/")
        # The way back for `..` is kept as device and inode, not as descriptors: a user's
        # deep path must not be able to use up ours.
        trail: list[_Place] = []
        here, status = self.fd, self.stat
        links = 0
        done = False
        try:
            while pending:
                name = pending.pop()
                self._search(status)
                if name == b".":
                    if not self.judges and (trail or not self.gated):
                        os.stat(b".", dir_fd=here)
                    continue
                if name == b"..":
                    if not trail:
                        continue
                    above = os.open(b"..", FIND | os.O_DIRECTORY, dir_fd=here)
                    trail.pop()
                    close(here)
                    here = above
                    status = os.fstat(above)
                    if _place(status) != (trail[-1] if trail else _place(self.stat)):
                        # Moved elsewhere, perhaps out of the root, while we were in it.
                        raise error(EAGAIN)
                    if not trail:
                        close(here)
                        here, status = self.fd, self.stat
                    continue
                last = not pending
                fd, found = self._step(here, not trail, name, last and not directory)
                if stat.S_ISLNK(found.st_mode):
                    try:
                        links += 1
                        if links > LINKS:
                            raise error(ELOOP)
                        if last:
                            self._check_link(found, status)
                        target = os.readlink(b"", dir_fd=fd)
                    finally:
                        close(fd)
                    if target.startswith(b"/") and trail:
                        close(here)
                        here, status = self.fd, self.stat
                        trail.clear()
                    directory = directory or (last and target.endswith(b"/"))
                    pending += _components(target)
                elif stat.S_ISDIR(found.st_mode):
                    if trail:
                        close(here)
                    trail.append(_place(found))
                    here, status = fd, found
                elif pending or directory:
                    close(fd)
                    raise error(ENOTDIR)
                else:
                    done = True
                    return self._found_in(here, bool(trail), name, fd, found)
            fd = here if trail else os.dup(here)
            done = True
            return Found(fd, status, lambda: os.open(b".", READ, dir_fd=fd))
        finally:
            if not done and here != self.fd:
                close(here)

    def _step(self, here: int, at_root: bool, name: bytes, last: bool) -> tuple[int, os.stat_result]:
        fd = -1
        if not last:
            # Asked for as a directory, so that an automount is mounted.
            try:
                fd = self._look_up(here, at_root, name, FIND | os.O_NOFOLLOW | os.O_DIRECTORY)
            except NotADirectoryError:
                pass
        if fd < 0:
            fd = self._look_up(here, at_root, name, FIND | os.O_NOFOLLOW)
        return fd, _fstat(fd)

    def _look_up(self, here: int, at_root: bool, name: bytes, flags: int) -> int:
        if at_root and self.gated:
            return self._actor.open_as_root(name, flags, here)
        return os.open(name, flags, dir_fd=here)

    def _found_in(self, here: int, below: bool, name: bytes, fd: int, status: os.stat_result) -> Found:
        if below:
            return Found(
                fd, status, lambda: os.open(name, READ | os.O_NOFOLLOW, dir_fd=here), unjudged=self.judges, parent=here
            )
        gated = self.gated and self._actor.taken is not None
        return Found(
            fd,
            status,
            lambda: self._look_up(here, True, name, READ | os.O_NOFOLLOW),
            unjudged=self.judges or gated,
        )

    def _check_link(self, link: os.stat_result, parent: os.stat_result) -> None:
        """Raises EACCES where may_follow_link in fs/namei.c would."""
        uid = os.geteuid() if self._actor.taken is None else self._actor.taken.uid
        loose = stat.S_ISVTX | stat.S_IWOTH
        if self._protected and link.st_uid not in (uid, parent.st_uid) and parent.st_mode & loose == loose:
            raise error(EACCES)


def _components(path: bytes) -> list[bytes]:
    """The names of a path, last one first."""
    return [name for name in reversed(path.split(b"/")) if name]


def _place(status: os.stat_result) -> _Place:
    return status.st_dev, status.st_ino


def _found(fd: int, reopen: Callable[[], int]) -> Found:
    return Found(fd, _fstat(fd), reopen)


def _fstat(fd: int) -> os.stat_result:
    """The status of a descriptor that is closed where it has none (a network file system may answer ESTALE)."""
    try:
        return os.fstat(fd)
    except OSError:
        close(fd)
        raise
