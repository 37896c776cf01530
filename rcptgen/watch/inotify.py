"""inotify(7), as much of it as watching directories takes; everything of watchdog is behind this interface.

One descriptor and one thread for all directories, none of them recursive: watchdog's
`InotifyFD`, which appeared in 7.1.  What its observers offer is of no use here: a thread for
each directory that is scheduled, or a recursive watch, which mail deliveries wake up, and
which leaves directories out at the kernel's limit without a word.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
)

_CHANGES = (
    InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_MOVED_FROM
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_CREATE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
)
"""What may change an answer.  Never opening or reading: a compile would wake itself."""

_MASK = Mask(_CHANGES | InotifyConstants.IN_ONLYDIR | InotifyConstants.IN_EXCL_UNLINK)
_GONE = InotifyConstants.IN_DELETE_SELF | InotifyConstants.IN_MOVE_SELF | InotifyConstants.IN_UNMOUNT


class WatchesUsedUp(Exception):
    """The kernel gives no more watches (fs.inotify.max_user_watches), or no more memory for them."""


class Happened(NamedTuple):
    """Something happened to `name` in the watched `directory`; to the directory itself where there is no name.

    `gone`: the directory is no more where it was, or no more at all, and its watch is over.
    """

    directory: bytes
    name: bytes
    gone: bool


class Inotify:
    """One inotify descriptor, read by a thread.  `wake` is called there, after something was put down for `take`.

    Directories are named by their paths; a directory that has two is watched under both.
    Raises OSError where the kernel gives no descriptor.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._happened: deque[Happened] = deque()
        self._overflowed = False
        self._watches: dict[bytes, _Watch] = {}
        self._numbers = 0
        self.seen = 0
        """How many events there were."""
        self._thread = InotifyFD()
        # The worker processes have no use for it.
        os.set_inheritable(self._thread._inotify_fd, False)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._watches)

    def __contains__(self, path: bytes) -> bool:
        return path in self._watches

    def watch(self, path: bytes) -> bool:
        """Whether the directory `path` is watched from now on, if it was not before.

        Raises WatchesUsedUp.
        """
        if path in self._watches:
            return True
        self._numbers += 1
        watch = _Watch(self, path, CallbackId(self._numbers))
        try:
            watch.number = self._thread.add_callback(path, _MASK, watch, watch.id)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.ENOMEM):
                raise WatchesUsedUp from None
            return False
        if watch.number < 0:
            # A directory that may not be read is no error to watchdog.
            return False
        self._watches[path] = watch
        return True

    def forget(self, path: bytes) -> None:
        """No more events of this directory."""
        watch = self._watches.pop(path, None)
        if watch is not None:
            self._thread.remove_callbacks([(watch.number, watch.id)])

    def take(self) -> tuple[list[Happened], bool]:
        """What has happened since it was asked last, and whether some of it was lost."""
        overflowed, self._overflowed = self._overflowed, False
        taken: list[Happened] = []
        while self._happened:
            one = self._happened.popleft()
            if one.gone:
                self.forget(one.directory)
            taken.append(one)
        return taken, overflowed

    def close(self) -> None:
        """Gives everything back."""
        self._watches.clear()
        self._thread.stop()
        self._thread.join()

    # -- in the thread -------------------------------------------------------------------------------

    def happened(self, watch: _Watch, name: bytes, *, gone: bool) -> None:
        """Something happened in a directory; what is left of a watch that was forgotten is not told."""
        self.seen += 1
        if self._watches.get(watch.path) is watch:
            self._happened.append(Happened(watch.path, name, gone))
            self._wake()

    def overflowed(self) -> None:
        """Events were lost."""
        self._overflowed = True
        self._wake()


class _Watch:
    """One directory under one of its paths (watchdog's WatchCallback)."""

    __slots__ = ("_inotify", "id", "number", "path")

    def __init__(self, inotify: Inotify, path: bytes, id_: CallbackId) -> None:
        self._inotify = inotify
        self.path = path
        self.id = id_
        self.number = WatchDescriptor(-1)

    def on_event(self, event: InotifyEvent) -> None:
        """An event of the kernel."""
        self._inotify.happened(self, event.name, gone=bool(event.mask & _GONE))

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """The directory was deleted, or its file system unmounted."""
        self._inotify.happened(self, b"", gone=True)

    def on_queue_overflow(self) -> None:
        """The kernel's queue was full."""
        self._inotify.overflowed()
