"""One publication at a time."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from filelock import Timeout, UnixFileLock

from rcptgen.errors import Busy, PublishFailed
from rcptgen.publish.paths import Place, locate, ours, shown, why, writable_by_others

STATE_LOCK = b"lock"
"""The lock's name in the state directory."""

BESIDE = b".rcptgen-lock"
"""The end of the lock's name beside an output."""

_POLL = 0.05


def lock_path(state: bytes | None, output: bytes) -> bytes:
    """Where the lock lives: in the state directory if that can be written, else hidden beside the first output.

    A state directory on a file system that has become read-only must not stop a publication.
    """
    if state is not None and os.access(state, os.W_OK | os.X_OK):
        return os.path.join(state, STATE_LOCK)
    directory, name = os.path.split(output)
    return os.path.join(directory, b"." + name + BESIDE)


def publishing_lock(path: bytes, wait: float) -> AbstractContextManager[None]:
    """Hold the lock while the context lasts; the kernel takes it back when the process dies, however it dies.

    A lock file beside an output goes with the lock; the one in the state directory stays.
    `wait` is in seconds, 0 means at once.  Raises Busy when it is not got in time, PublishFailed when
    the lock file cannot be made, or lies where somebody else could replace it.  A process
    that was forked while the lock is held does not hold it.
    """
    return _hold(path, wait)


@contextmanager
def _hold(path: bytes, wait: float) -> Iterator[None]:
    place = locate(path)
    try:
        _judge(place, path)
        # Through the descriptor: the directory that was judged is the directory that is used.
        name = os.fsdecode(b"/proc/self/fd/%d/%s" % (place.directory, place.name))
        if not os.path.isdir(os.path.dirname(name)):
            name = os.fsdecode(path)
        lock = UnixFileLock(name, mode=0o600, thread_local=False)
        try:
            lock.acquire(timeout=max(wait, 0.0), poll_interval=_POLL)
        except Timeout as error:
            raise Busy(f"{shown(path)}: locked: another run is publishing; wait for it, or use --wait") from error
        except (OSError, NotImplementedError, RuntimeError) as error:
            # filelock raises NotImplementedError itself where the system has no flock.
            reason = why(error) if isinstance(error, OSError) else str(error)
            raise PublishFailed(f"{shown(path)}: cannot lock: {reason}") from error
        if type(lock) is not UnixFileLock:
            # Without flock filelock turns to a lock that outlives a killed process, and would stop every later run.
            lock.release()
            raise PublishFailed(f"{shown(path)}: cannot lock: its file system has no flock")
        try:
            yield
        finally:
            if place.name.endswith(BESIDE):
                # While it is held: filelock sees that an inode it then locks has no name, and tries again.
                with suppress(OSError):
                    os.unlink(place.name, dir_fd=place.directory)
            # Where it cannot be released, the end of the process does it.
            with suppress(OSError):
                lock.release()
    finally:
        place.close()


def _judge(place: Place, path: bytes) -> None:
    """Refuse a lock file that others could swap or hold at will.

    A link or a fifo of that name is refused by what it is; `locate` has resolved links that root set.
    """
    try:
        directory = os.fstat(place.directory)
        if not ours(directory) or writable_by_others(directory):
            raise PublishFailed(
                f"{shown(path)}: no lock can be kept in a directory that others may write to; chmod go-w it"
            )
        present = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    except OSError as error:
        raise PublishFailed(f"{shown(path)}: cannot lock: {why(error)}") from error
    if not stat.S_ISREG(present.st_mode) or not ours(present):
        raise PublishFailed(f"{shown(path)}: is not a lock file of ours; remove it")
