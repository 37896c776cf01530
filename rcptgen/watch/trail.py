"""The way of a path through directories and links: where a change of any part of it would be seen."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

MOST_LINKS = 40


@dataclass(frozen=True, slots=True)
class Trail:
    """The way of one path.

    `steps` are pairs of a directory, as its path is without links, and the name that is
    looked up in it; the last one may be missing there.  `end` is the directory that the
    path leads to, without links; None where it leads to something else, or nowhere.
    """

    steps: tuple[tuple[bytes, bytes], ...]
    end: bytes | None


class Trails:
    """The ways of many paths below one root, found with one look at each directory.

    What was seen is remembered for the life of the object, which should be short.  Links
    are followed below the root, as the host itself would (openat2: RESOLVE_IN_ROOT).  No
    identity is taken: a way tells where to wait for events, and decides nothing.
    """

    def __init__(self, root: bytes) -> None:
        self._root = root.rstrip(b"/")
        self._seen: dict[bytes, bytes | bool | None] = {}
        self._above: dict[bytes, Trail] = {}

    def of(self, path: bytes) -> Trail:
        """The way of an absolute path of the host."""
        above, _, name = path.rpartition(b"/")
        if name in (b"", b".", b".."):
            return self._walked(path)
        # Many paths are names in one directory.
        way = self._above.get(above)
        if way is None:
            way = self._above[above] = self._walked(above)
        if way.end is None:
            return way
        itself = (b"" if way.end == b"/" else way.end) + b"/" + name
        found = self._look(itself)
        if isinstance(found, bytes):
            return self._walked(path)
        return Trail((*way.steps, (way.end, name)), itself if found else None)

    def _walked(self, path: bytes) -> Trail:
        steps: list[tuple[bytes, bytes]] = []
        here = b""
        pending = _names(path)
        links = 0
        while pending:
            name = pending.pop()
            if name == b"..":
                here = here.rpartition(b"/")[0]
                continue
            steps.append((here or b"/", name))
            found = self._look(here + b"/" + name)
            if isinstance(found, bytes):
                links += 1
                if links > MOST_LINKS:
                    return Trail(tuple(steps), None)
                if found.startswith(b"/"):
                    here = b""
                pending += _names(found)
            elif found:
                here += b"/" + name
            else:
                return Trail(tuple(steps), None)
        return Trail(tuple(steps), here or b"/")

    def _look(self, path: bytes) -> bytes | bool | None:
        """Where a link leads; else whether there is a directory, or None where there is nothing."""
        if path in self._seen:
            return self._seen[path]
        found: bytes | bool | None
        try:
            mode = os.lstat(self._root + path).st_mode
            found = os.readlink(self._root + path) if stat.S_ISLNK(mode) else stat.S_ISDIR(mode)
        except OSError:
            found = None
        self._seen[path] = found
        return found


def _names(path: bytes) -> list[bytes]:
    """The names of a path that mean something, the last one first."""
    return [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]
