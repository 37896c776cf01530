"""What a look at the host can come to: typed values, because qmail treats them apart."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from errno import (
    EACCES,
    EAGAIN,
    EBADMSG,
    EBUSY,
    ECONNABORTED,
    ECONNREFUSED,
    ECONNRESET,
    EDEADLK,
    EDQUOT,
    EFBIG,
    EHOSTDOWN,
    EHOSTUNREACH,
    EINTR,
    EIO,
    EMFILE,
    ENETDOWN,
    ENETRESET,
    ENETUNREACH,
    ENFILE,
    ENOBUFS,
    ENOLCK,
    ENOMEM,
    ENOSPC,
    ENOTCONN,
    EPERM,
    EPROTO,
    EREMCHG,
    EREMOTEIO,
    EROFS,
    ESHUTDOWN,
    ESTALE,
    ETIMEDOUT,
    ETOOMANYREFS,
    ETXTBSY,
    EUCLEAN,
    EUSERS,
    EWOULDBLOCK,
)
from functools import cache
from operator import attrgetter
from typing import NamedTuple

REFUSALS = frozenset({EACCES, EPERM, EROFS})
"""EROFS comes only from a question about writing; it says no, not that nothing is there."""

SHORTAGES = frozenset({EMFILE, ENFILE, ENOMEM, ENOBUFS})

# The first block is error_temp.c.  The second is not in it: qmail takes these for an answer
# and bounces, but they speak of a dead mount or a damaged disk and never of one name.
TEMPORARY = frozenset(
    {
        *(EINTR, ENOMEM, ETXTBSY, EIO, ETIMEDOUT, EWOULDBLOCK, EAGAIN, EDEADLK, EBUSY, ENFILE, EMFILE, EFBIG),
        *(ENOSPC, ENETDOWN, ENETUNREACH, ENETRESET, ECONNABORTED, ECONNRESET, ENOBUFS, ETOOMANYREFS, ECONNREFUSED),
        *(EHOSTDOWN, EHOSTUNREACH, EUSERS, EDQUOT, ESTALE, ENOLCK),
        *(ENOTCONN, EREMOTEIO, EREMCHG, ESHUTDOWN, EPROTO, EUCLEAN, EBADMSG),
    }
)


class Identity(NamedTuple):
    """Who looks: one uid and one gid; supplementary groups never count (qmail's prot.c: prot_gid)."""

    uid: int
    gid: int


class EntryType(enum.Enum):
    """What the directory itself says about an entry; links are not followed."""

    REGULAR = "regular"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"
    UNKNOWN = "unknown"


_STATUS = attrgetter(
    *("st_mode", "st_uid", "st_gid", "st_size", "st_dev", "st_ino", "st_mtime_ns", "st_ctime_ns"),
)


class Status(NamedTuple):
    """What fstat said of an object; a tuple, since one is made for every file and a dataclass costs four times that."""

    mode: int
    uid: int
    gid: int
    size: int
    device: int
    inode: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Status:
        """The same as the library has it."""
        return cls._make(_STATUS(stat))


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing there that qmail would see: ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG, ENXIO and all that is not listed."""

    errno: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Permission denied: EACCES, EPERM; or it could be opened, and read(2) knows no way to read it."""

    errno: int


@dataclass(frozen=True, slots=True)
class FailedForNow:
    """Unknown, not empty: the errors of error_temp.c and those of dead mounts."""

    errno: int

    @property
    def shortage(self) -> bool:
        """Whether we ran out of something ourselves, so that it says nothing about the host."""
        return self.errno in SHORTAGES


@dataclass(frozen=True, slots=True)
class NotRegular:
    """It could be opened, and is no regular file: a directory, a fifo, a device."""

    mode: int


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A regular file over the limit of the reader; nothing of it is kept."""

    size: int


@dataclass(frozen=True, slots=True)
class Regular:
    """The whole content of a regular file, as it stood at one moment, and its status at that moment."""

    data: bytes
    status: Status


Failure = Absent | Refused | FailedForNow
Reading = Regular | Absent | Refused | FailedForNow | NotRegular | TooLarge


@cache
def failure(errno: int) -> Failure:
    """The outcome that an error number stands for."""
    if errno in REFUSALS:
        return Refused(errno)
    if errno in TEMPORARY:
        return FailedForNow(errno)
    return Absent(errno)
