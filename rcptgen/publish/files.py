"""Replacing files whole: build all beside their targets, sync, rename, sync the directories.

At every moment a target is the complete old file or the complete new one.  A power cut
cannot leave anything else: a file is synced before it gets its name, and its directory is
synced before the publication counts as done.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rcptgen.errors import PublishFailed
from rcptgen.publish.paths import Place, locate, ours, shown, why, writable_by_others
from rcptgen.publish.staged import Staged, remove_stale

__all__ = ["PartlyPublished", "Publication", "Published", "PublishedUnsynced", "Staged"]


class PartlyPublished(PublishFailed):
    """Some files are new and some are old; the message, `new` and `old` say which."""

    def __init__(self, message: str, new: list[bytes], old: list[bytes]) -> None:
        super().__init__(message)
        self.new = new
        self.old = old


class PublishedUnsynced(PublishFailed):
    """All files are new, but a power cut may still bring an old one back: a directory could not be synced.

    `published` is what `commit` would have returned; the state of this publication is to be
    accepted all the same, since the digests decide whether it is trusted.
    """

    def __init__(self, message: str, published: list[Published]) -> None:
        super().__init__(message)
        self.published = published


@dataclass(frozen=True, slots=True)
class Published:
    """What became of one output: its path as it was given, whether it was replaced, its size and its SHA-256."""

    path: bytes
    changed: bool
    size: int
    sha256: str


class Publication:
    """Files that are replaced together: all are built before the first one is renamed.

    Hold the publishing lock around it.  As a context manager it removes on exit, whatever
    ended the block, every file that was not committed.  `warnings` says what the
    administrator should know of the target directories.
    """

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self._staged: list[Staged] = []
        self._names: set[tuple[int, int, bytes]] = set()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was not committed and give all descriptors back; harmless when done twice."""
        self._closed = True
        for staged in self._staged:
            staged.close()

    def stage(self, path: bytes, mode: int, owner: tuple[int, int] | None = None) -> Staged:
        """An empty file that will replace `path`, with exactly `mode`, and `owner` (uid, gid) if one is given.

        A target that is a symbolic link is resolved now, once; the file it leads to will be
        replaced.  Leftovers of killed runs for the same target are removed.  Raises
        PublishFailed for a target that is not a regular file, is staged already, or lies where
        others may write (without root that is a warning: what else could he do).
        """
        if self._closed:
            raise PublishFailed("the publication is over")
        place = locate(path)
        try:
            self._judge(path, place)
            remove_stale(place)
        except BaseException:
            place.close()
            raise
        staged = Staged(path, place, mode, owner)
        # First in the list, then open: an interrupt at any point leaves nothing behind.
        self._staged.append(staged)
        try:
            staged.open()
        except BaseException:
            self._staged.remove(staged)
            staged.close()
            raise
        return staged

    def _judge(self, path: bytes, place: Place) -> None:
        try:
            directory = os.fstat(place.directory)
            with suppress(FileNotFoundError):
                present = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
                if not stat.S_ISREG(present.st_mode):
                    raise PublishFailed(f"{shown(path)}: is not a regular file, and is not replaced")
        except OSError as error:
            raise PublishFailed(f"{shown(path)}: cannot look at it: {why(error)}") from error
        if writable_by_others(directory):
            words = f"{shown(path)}: its directory is writable by others, who could put any list there; chmod go-w it"
            if os.geteuid() == 0:
                raise PublishFailed(words)
            self.warnings.append(words)
        elif not ours(directory):
            self.warnings.append(f"{shown(path)}: its directory belongs to uid {directory.st_uid}, who can replace it")
        key = (directory.st_dev, directory.st_ino, place.name)
        if key in self._names:
            raise PublishFailed(f"{shown(path)}: two outputs have this path")
        self._names.add(key)

    def commit(self) -> list[Published]:
        """Every output is in its place and on disk; says of each, in the order of staging, whether it was replaced.

        Raises PublishFailed with all old files untouched; PartlyPublished when a rename failed
        after another had succeeded; PublishedUnsynced when all files are new but a directory
        could not be synced.  Whatever else interrupts it (KeyboardInterrupt) carries a note.
        """
        for staged in self._staged:
            staged.finish()
        changed = [staged for staged in self._staged if not staged.unchanged()]
        done: list[Staged] = []
        try:
            for staged in changed:
                staged.rename()
                done.append(staged)
        except BaseException as error:
            self._give_up(error, changed)
            raise
        unsynced = _sync_directories(done)
        result = [Published(s.path, s in done, s.size, s.sha256) for s in self._staged]
        self.close()
        if unsynced is not None:
            path, reason = unsynced
            raise PublishedUnsynced(
                f"{shown(path)}: the new file is in place, but its directory cannot be synced: {why(reason)}; "
                "a power cut may bring the old one back",
                result,
            ) from reason
        return result

    def _give_up(self, error: BaseException, changed: list[Staged]) -> None:
        """End a commit whose renames did not all happen; raises for an OSError, annotates anything else."""
        done = [staged for staged in changed if staged.in_place()]
        _sync_directories(done)
        new, old = [staged.path for staged in done], [staged.path for staged in changed if staged not in done]
        self.close()
        words = f"new: {_listed(new)}; old: {_listed(old)}"
        if not isinstance(error, OSError):
            if new:
                error.add_note(f"interrupted between two renames; {words}")
            return
        failed = f"{shown(old[0])}: cannot take the new file: {why(error)}"
        if not new:
            raise PublishFailed(f"{failed}; nothing was published") from error
        raise PartlyPublished(f"{failed}; {words}", new, old) from error


def _listed(paths: list[bytes]) -> str:
    return ", ".join(map(shown, paths)) or "none"


def _sync_directories(done: list[Staged]) -> tuple[bytes, OSError] | None:
    """Sync the directory of each renamed file, every directory once; the first failure, after trying all."""
    trouble: tuple[bytes, OSError] | None = None
    seen: set[tuple[int, int]] = set()
    for staged in done:
        try:
            status = os.fstat(staged.directory)
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                os.fsync(staged.directory)
        except OSError as error:
            trouble = trouble or (staged.path, error)
    return trouble
