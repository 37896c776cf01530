"""Which directories are watched, and whose what happens there is.

A *unit* is what is read again as a whole: a home, or the control files.  It is watched by
the ways of the paths that it was read from: every directory on such a way, for the one name
that leads on, and every directory that was listed, for the names that count in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rcptgen.keeper import Paths, Unit
from rcptgen.watch.inotify import Happened, Inotify, WatchesUsedUp
from rcptgen.watch.trail import Trails

_Whose = Unit | set[Unit] | None
"""Whom something concerns.  Nearly always that is one unit, and a set for each would be most of what this costs."""

_SEPARATOR = b"\0"
_ALL_NAMES = b"/"
"""Stands for all names that count, where places are kept; no name is that."""


def _with(known: _Whose, unit: Unit) -> _Whose:
    if known is None or known == unit:
        return unit
    if isinstance(known, set):
        known.add(unit)
        return known
    return {known, unit}


def _without(known: _Whose, unit: Unit) -> _Whose:
    if isinstance(known, set):
        known.discard(unit)
        return known or None
    return None if known == unit else known


def _all_of(known: _Whose) -> set[Unit]:
    return known if isinstance(known, set) else set() if known is None else {known}


@dataclass(slots=True)
class _Interest:
    """Who is interested in what of one directory: by name, and in all names that count."""

    names: dict[bytes, _Whose] | None = None
    all_names: _Whose = None

    def add(self, name: bytes, unit: Unit) -> None:
        """`unit` wants to know of this name, or of all that count."""
        if name == _ALL_NAMES:
            self.all_names = _with(self.all_names, unit)
            return
        if self.names is None:
            self.names = {}
        self.names[name] = _with(self.names.get(name), unit)

    def remove(self, name: bytes, unit: Unit) -> None:
        """The opposite of `add`."""
        if name == _ALL_NAMES:
            self.all_names = _without(self.all_names, unit)
            return
        names = self.names or {}
        left = _without(names.pop(name, None), unit)
        if left is not None:
            names[name] = left

    def of(self, name: bytes) -> set[Unit]:
        """Who wants to know of this very name."""
        return _all_of((self.names or {}).get(name))

    def units(self) -> Iterator[Unit]:
        """Everybody."""
        yield from _all_of(self.all_names)
        for name in self.names or ():
            yield from self.of(name)

    def __bool__(self) -> bool:
        return bool(self.names) or self.all_names is not None


class Watches:
    """The watched directories below `root`, and the units behind them.

    `has_events` tells of a directory whether its file system tells of changes at all.
    """

    def __init__(
        self,
        root: bytes,
        inotify: Inotify,
        *,
        counts: Callable[[bytes], bool],
        has_events: Callable[[bytes], bool],
    ) -> None:
        self._root = root.rstrip(b"/")
        self._inotify = inotify
        self._counts = counts
        self._has_events = has_events
        self._directories: dict[bytes, _Interest] = {}
        self._watched: dict[bytes, tuple[int, int]] = {}
        """Device and inode of what a watch was asked for: another directory may come to stand, or be mounted, there."""
        self._places: dict[Unit, bytes] = {}
        """In which directories each unit is interested, and in which name there: one text, as they are very many."""
        self.unwatched: set[bytes] = set()
        """Directories that are swept only: no watches were left, or their file systems have no events."""
        self.used_up = False
        """Whether the kernel refused a watch."""

    def __len__(self) -> int:
        return len(self._inotify)

    def replace(self, units: Iterable[tuple[Unit, Paths]]) -> set[Unit]:
        """From now on each of `units` is watched by these paths, and by no others; which units that are."""
        replaced: set[Unit] = set()
        trails = Trails(self._root)
        left: set[bytes] = set()
        fresh: set[bytes] = set()
        same: dict[bytes, bytes] = {}
        for unit, paths in units:
            replaced.add(unit)
            left |= self._leave(unit)
            places: dict[tuple[bytes, bytes], None] = {}
            for path in paths.looked_at:
                places.update(dict.fromkeys(trails.of(path).steps))
            for path in paths.listed:
                trail = trails.of(path)
                places.update(dict.fromkeys(trail.steps))
                if trail.end is not None:
                    places[trail.end, _ALL_NAMES] = None
            for directory, name in places:
                interest = self._directories.get(directory)
                if interest is None:
                    interest = self._directories[directory] = _Interest()
                    fresh.add(directory)
                    self._begin(directory)
                elif directory not in fresh:
                    fresh.add(directory)
                    self._check(directory)
                # Most homes have files of the same names.
                interest.add(same.setdefault(name, name), unit)
            self._places[unit] = _SEPARATOR.join(part for place in places for part in place)
        self._end(left)
        return replaced

    def drop(self, units: Iterable[Unit]) -> None:
        """These units are not watched any more."""
        left: set[bytes] = set()
        for unit in units:
            left |= self._leave(unit)
        self._end(left)

    def units(self) -> list[Unit]:
        """All that are watched."""
        return list(self._places)

    def retry(self) -> None:
        """Directories that could not be watched are tried again."""
        for directory in sorted(self.unwatched):
            self._begin(directory)

    def touched(self, happened: Iterable[Happened]) -> set[Unit]:
        """The units that are to be read again after all this."""
        found: set[Unit] = set()
        for one in happened:
            directory = one.directory[len(self._root) :] or b"/"
            interest = self._directories.get(directory)
            if interest is None:
                continue
            if not one.name:
                found.update(interest.units())
                if one.gone:
                    self._begin(directory)
                continue
            found |= interest.of(one.name)
            if interest.all_names is not None and self._counts(one.name):
                found |= _all_of(interest.all_names)
        return found

    def _begin(self, directory: bytes) -> None:
        """Watches a directory, or notes that it is only swept."""
        path = self._root + directory
        self.unwatched.discard(directory)
        try:
            before = _identity(path)
            if before is not None and self._has_events(path) and self._inotify.watch(path):
                self._watched[directory] = before
                return
        except WatchesUsedUp:
            self.used_up = True
        self._watched.pop(directory, None)
        self.unwatched.add(directory)

    def _check(self, directory: bytes) -> None:
        """Watches what stands at this path now, if that is something else than what is watched."""
        path = self._root + directory
        if self._watched.get(directory) != _identity(path):
            self._inotify.forget(path)
            self._begin(directory)

    def _leave(self, unit: Unit) -> set[bytes]:
        """Takes a unit's interests away; the directories in which nobody is interested now."""
        left: set[bytes] = set()
        places = iter(self._places.pop(unit, b"").split(_SEPARATOR))
        for directory, name in zip(places, places, strict=False):
            interest = self._directories[directory]
            interest.remove(name, unit)
            if not interest:
                left.add(directory)
        return left

    def _end(self, directories: Iterable[bytes]) -> None:
        for directory in directories:
            if not self._directories[directory]:
                del self._directories[directory]
                self._watched.pop(directory, None)
                self.unwatched.discard(directory)
                self._inotify.forget(self._root + directory)


def _identity(path: bytes) -> tuple[int, int] | None:
    """What tells a directory from every other one; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
