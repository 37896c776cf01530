"""System calls that Python lacks, and what this kernel and this process can do.

The numbers of openat2 and faccessat2 are the same on every architecture that Linux got
since 2011 (alpha, which has its own, is not served).
"""

from __future__ import annotations

import ctypes
import os
from errno import EINTR, EINVAL

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10

_SYS_OPENAT2 = 437
_SYS_FACCESSAT2 = 439
_AT_EACCESS = 0x200
_AT_EMPTY_PATH = 0x1000
_CAP_SETGID = 6
_CAP_SETUID = 7
_CAPABILITY_VERSION_3 = 0x20080522
_PR_GET_SECUREBITS = 27
_SECURE_NO_SETUID_FIXUP = 1 << 2


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)
_openat2 = ctypes.CDLL(None, use_errno=True).syscall
_openat2.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_OpenHow), ctypes.c_size_t)
_openat2.restype = ctypes.c_long
_faccessat2 = ctypes.CDLL(None, use_errno=True).syscall
_faccessat2.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_int)
_faccessat2.restype = ctypes.c_long


def open_in_root(root: int, path: bytes, flags: int) -> int:
    """A descriptor for `path` with `root` as its `/`: absolute links and `..` stay inside; OSError otherwise.

    EAGAIN may only mean that something was renamed somewhere while a `..` was followed.
    """
    return _open(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def open_without_magic(directory: int, path: bytes, flags: int) -> int:
    """As os.open with a `dir_fd`, but a link of /proc that stands for an open file of this process is not followed.

    ELOOP may mean such a link, or a loop of ordinary ones.
    """
    return _open(directory, path, flags, RESOLVE_NO_MAGICLINKS)


def _open(directory: int, path: bytes, flags: int, resolve: int) -> int:
    if b"\0" in path:
        # ctypes would end the path there and open something else.
        raise OSError(EINVAL, os.strerror(EINVAL))
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    while True:
        fd: int = _openat2(_SYS_OPENAT2, directory, path, ctypes.byref(how), ctypes.sizeof(how))
        if fd >= 0:
            return fd
        errno = ctypes.get_errno()
        if errno != EINTR:
            raise OSError(errno, os.strerror(errno))


def refusal(fd: int, mode: int) -> int:
    """0 where the effective identity may read, write or execute what an O_PATH descriptor holds, else the error."""
    return 0 if _faccessat2(_SYS_FACCESSAT2, fd, b"", mode, _AT_EMPTY_PATH | _AT_EACCESS) == 0 else ctypes.get_errno()


def has_openat2(root: int) -> bool:
    """Whether openat2 works here; a seccomp filter may answer for an old kernel, so it is tried."""
    try:
        os.close(open_in_root(root, b".", os.O_PATH))
    except OSError:
        return False
    return True


def has_faccessat2(root: int) -> bool:
    """Whether faccessat2 with an empty path works here."""
    return refusal(root, os.F_OK) == 0


def may_take_identities() -> bool:
    """Whether this process can take a uid and a gid, and loses root's rights to files with it."""
    if os.geteuid() != 0:
        return False
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    if _libc.capget(header, sets) != 0:
        return False
    wanted = 1 << _CAP_SETGID | 1 << _CAP_SETUID
    if sets[0] & wanted != wanted:
        return False
    # With this bit set root's capabilities survive seteuid, and the kernel would answer for root.
    bits = _libc.prctl(_PR_GET_SECUREBITS, 0, 0, 0, 0)
    if bits < 0 or bits & _SECURE_NO_SETUID_FIXUP:
        return False
    # A user namespace that one user made for himself has all capabilities and still no setgroups.
    return _first_line(b"/proc/self/setgroups") != b"deny"


def links_are_protected() -> bool:
    """Whether the kernel refuses foreign links in sticky, world-writable directories (fs.protected_symlinks)."""
    return _first_line(b"/proc/sys/fs/protected_symlinks") not in (b"", b"0")


def _first_line(path: bytes) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.readline().strip()
    except OSError:
        return b""
