"""The state directory: what was published, kept so that the next run and a bad day can use it.

    current                  the number of the generation that was published last
    generations/N/rules      the rules of every domain, as blobs (and others beside them, see generation)
    generations/N/meta.json  what is known about them

The order of a publication: generation N is written and synced; the outputs are renamed and
their directories synced; `current` is renamed to name N.  A crash between the last two
leaves outputs that are those of N while `current` still names another generation.  So the
digests decide, not the name: `current(paths)` returns only a generation whose digests are
those of the files on disk, be it N or the one that is named.

The state saves work; it is never worth a publication.  Trouble with it is a warning, never
an exception: the outputs are published and the caller ends the run with its own status.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

from rcptgen.errors import ConfigurationError, PublishFailed
from rcptgen.publish.generation import META, SAME, Generation, Meta, Orders, path_key
from rcptgen.publish.paths import above_standard, drop, open_directory, ours, reach, shown, why, writable_by_others
from rcptgen.publish.rulesfile import DamagedState, write_all
from rcptgen.publish.writer import GenerationWriter, create, make_directory, remove_generation

__all__ = ["DamagedState", "Generation", "GenerationWriter", "Meta", "State", "path_key"]

CURRENT = b"current"
INPUTS = b"inputs"
"""What the last run has read, where the next may be spared by it (rcptgen.unchanged)."""
GENERATIONS = b"generations"
KEEP = 10

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NUMBER = re.compile(rb"[1-9][0-9]{0,17}")


class State:
    """The state directory, open.  What changes it (`begin`, `accept`) wants the publishing lock.

    `warnings` says, in words for the administrator, why a state was not used.
    """

    def __init__(self, path: bytes, keep: int = KEEP) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._keep = max(keep, 2)
        self._top = -1
        self._generations = -1
        self._failure: str | None = None
        self._recovered: int | None = None

    @classmethod
    def open(cls, path: bytes, keep: int = KEEP) -> Self:
        """The state at `path`, which is made (0700) where it is missing.

        Raises ConfigurationError for a directory that others may look into or that belongs to
        somebody else: it holds every address of the host.  One that cannot be made or read is
        a warning; nothing is then remembered.
        """
        state = cls(path, keep)
        try:
            state._top = _open_private(path)
            state._generations = _open_or_make(GENERATIONS, state._top)
        except OSError as error:
            state._failure = f"{shown(path)}: the state cannot be used: {why(error)}"
            state.warnings.append(state._failure)
        except BaseException:
            state.close()
            raise
        return state

    def close(self) -> None:
        """Give the descriptors back; harmless when done twice."""
        for descriptor in (self._generations, self._top):
            if descriptor >= 0:
                drop(descriptor)
        self._generations = self._top = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def current(self, paths: Iterable[bytes] | None = None) -> Generation | None:
        """The generation that was published last, or None, with a warning where there should be one.

        With `paths` only a generation whose digests match all of them as they are on disk
        now; one that was written but not accepted, because the run was killed after its
        renames, is found by that.  Without `paths` the digests are the caller's to compare
        (`Generation.matches`).
        """
        named = self._named()
        if paths is None:
            return None if named is None else self._opened(named)
        wanted = list(paths)
        candidates = [number for number in self._numbers() if named is None or number > named]
        for number in [*([] if named is None else [named]), *reversed(candidates)]:
            generation = self._opened(number, quiet=number != named)
            if generation is None:
                continue
            if generation.matches(wanted):
                self._recovered = number if number != named else None
                return generation
            generation.close()
        if named is not None:
            self.warnings.append(
                f"{shown(self.path)}: the published files are not those of generation {named}; the state is not used"
            )
        return None

    def standing(self) -> Generation | None:
        """The generation of the files that are published now; where they are of none, the one published last.

        In the second case a warning says so.  Nothing is changed, and no lock is wanted.
        """
        named = self.current()
        if named is None or not named.meta.digests or named.matches(named.paths):
            return named
        found = self.current(named.paths)
        self._recovered = None
        if found is None:
            return named
        named.close()
        return found

    def orders(self) -> Orders | None:
        """What the generation that was published last says of holds and of a rollback, be it damaged otherwise."""
        named = self._named()
        if named is None:
            return None
        try:
            return Orders(self._generations, named)
        except DamagedState:
            return None

    def generation(self, number: int) -> Generation | None:
        """Generation `number`, or None with a warning where it cannot be used."""
        return self._opened(number)

    def generations(self) -> list[int]:
        """The numbers of all generations that are there, whole or not, in ascending order."""
        return self._numbers()

    def begin(self) -> GenerationWriter:
        """The writer of the next generation; what killed runs left and what is too old is removed first."""
        if self._failure is not None:
            return GenerationWriter(-1, 0, self._failure)
        if self._recovered is not None:
            if (failure := self._name(self._recovered)) is not None:
                return GenerationWriter(-1, 0, failure)
            self._recovered = None
        named = self._named()
        self._prune(named)
        numbers = self._numbers()
        return GenerationWriter(self._generations, max(numbers[-1] if numbers else 0, named or 0) + 1, None)

    def accept(self, writer: GenerationWriter) -> str | None:
        """Make the writer's generation the current one, once the outputs are renamed; returns a warning, or None.

        With a warning the published files stay as they are; the state before no longer
        matches them, and the next run will see that.
        """
        if writer.failure is None and not writer.finished:
            writer.failure = f"the state cannot be kept (generation {writer.number}): it was not finished"
        if writer.failure is None:
            writer.failure = self._name(writer.number)
        if writer.failure is not None:
            return writer.failure
        writer.accepted = True
        self._prune(writer.number)
        return None

    def _name(self, number: int) -> str | None:
        """Make `current` name a generation, durably; the failure in words, or None."""
        temporary = b".%s.tmp" % CURRENT
        try:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self._top)
            descriptor = create(temporary, self._top)
            try:
                write_all(descriptor, b"%d\n" % number)
                os.fsync(descriptor)
            finally:
                drop(descriptor)
            os.rename(temporary, CURRENT, src_dir_fd=self._top, dst_dir_fd=self._top)
            os.fsync(self._top)
        except OSError as error:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=self._top)
            return f"{shown(self.path)}: the state cannot be kept: {why(error)}"
        return None

    def number(self) -> int:
        """The number of the current generation, 0 without one."""
        return self._named() or 0

    def keep_inputs(self, data: bytes) -> None:
        """Leaves `data` for `kept_inputs`; what cannot be kept is not missed."""
        if self._failure is not None:
            return
        temporary = b".%s.tmp" % INPUTS
        try:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self._top)
            if not data:
                with suppress(FileNotFoundError):
                    os.unlink(INPUTS, dir_fd=self._top)
                return
            descriptor = create(temporary, self._top)
            try:
                write_all(descriptor, data)
            finally:
                drop(descriptor)
            os.rename(temporary, INPUTS, src_dir_fd=self._top, dst_dir_fd=self._top)
        except OSError:
            for name in (temporary, INPUTS):
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._top)

    def kept_inputs(self) -> bytes | None:
        """What `keep_inputs` left last, perhaps cut; None where there is nothing."""
        if self._failure is not None:
            return None
        parts = []
        try:
            descriptor = os.open(INPUTS, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._top)
            try:
                while part := os.read(descriptor, 1 << 20):
                    parts.append(part)
            finally:
                drop(descriptor)
        except OSError:
            return None
        return b"".join(parts)

    def _named(self) -> int | None:
        if self._failure is not None:
            return None
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(CURRENT, flags, dir_fd=self._top)
            try:
                text = os.read(descriptor, 64)
            finally:
                drop(descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.warnings.append(f"{shown(self.path)}/current: cannot read: {why(error)}")
            return None
        if not text.endswith(b"\n") or not _NUMBER.fullmatch(text[:-1]):
            self.warnings.append(f"{shown(self.path)}/current: damaged; the state is not used")
            return None
        return int(text)

    def _opened(self, number: int, *, quiet: bool = False) -> Generation | None:
        if self._failure is not None:
            return None
        try:
            return Generation(self._generations, number)
        except DamagedState as error:
            if not quiet:
                self.warnings.append(f"{shown(self.path)}: {error}; not used")
            return None

    def _numbers(self) -> list[int]:
        if self._failure is not None:
            return []
        try:
            names = map(os.fsencode, os.listdir(self._generations))
            return sorted(int(name) for name in names if _NUMBER.fullmatch(name))
        except OSError:
            return []

    def _prune(self, named: int | None) -> None:
        """Remove generations that are not whole, that were never accepted, or that are too old; never `named`.

        Of those that only know more of the same published files the last one is kept, and not
        counted.  Without a name nobody knows which were accepted: the history is then worth
        more than tidiness.
        """
        kept = 0
        refreshed = False
        for number in reversed(self._numbers()):
            accepted = named is None or number <= named
            whole = accepted and kept < self._keep and self._has(number, META)
            same = self._has(number, SAME)
            if number == named or (whole and not (same and refreshed)):
                kept += not same
                refreshed = same
            else:
                remove_generation(self._generations, number)

    def _has(self, number: int, name: bytes) -> bool:
        try:
            os.stat(b"%d/%s" % (number, name), dir_fd=self._generations, follow_symlinks=False)
        except OSError:
            return False
        return True


def _open_private(path: bytes) -> int:
    try:
        try:
            descriptor = open_directory(path)
        except FileNotFoundError:
            _make_top(path)
            descriptor = open_directory(path)
    except PublishFailed as error:
        raise ConfigurationError(str(error)) from error
    except NotADirectoryError as error:
        raise ConfigurationError(f"{shown(path)}: the state must be a directory") from error
    try:
        status = os.fstat(descriptor)
        if not ours(status) or stat.S_IMODE(status.st_mode) & 0o077:
            raise ConfigurationError(
                f"{shown(path)}: the state directory must belong to root and be closed to others; "
                "chown root and chmod 0700 it"
            )
    except BaseException:
        drop(descriptor)
        raise
    return descriptor


def _make_top(path: bytes) -> None:
    place = reach(path.rstrip(b"/"))
    try:
        if writable_by_others(os.fstat(place.directory)):
            raise ConfigurationError(f"{shown(path)}: the state directory is not made where others may write")
        make_directory(place.name, place.directory)
        os.fsync(place.directory)
    finally:
        place.close()


def _open_or_make(name: bytes, parent: int) -> int:
    try:
        return above_standard(os.open(name, _DIRECTORY, dir_fd=parent))
    except FileNotFoundError:
        make_directory(name, parent)
        os.fsync(parent)
        return above_standard(os.open(name, _DIRECTORY, dir_fd=parent))
