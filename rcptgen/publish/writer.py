"""Writing a generation, without ever costing a publication."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from typing import Self

import msgspec

from rcptgen.publish.generation import BARE, LISTS, META, RULES, SAME, SIDES, Meta
from rcptgen.publish.paths import above_standard, drop, why
from rcptgen.publish.rulesfile import DamagedState, RulesFile, RulesWriter, write_all

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class GenerationWriter:
    """A generation that is being written.

    It never raises for trouble of the state directory: the first failure is kept in
    `failure`, and what follows does nothing.  As a context manager it removes on exit what
    was not finished.  What was finished and not accepted stays until the next `begin`: when a
    run dies between its renames and `accept`, this is the generation that matches the files.
    """

    def __init__(self, directory: int, number: int, failure: str | None) -> None:
        self.number = number
        self.failure = failure
        self.finished = False
        self.accepted = False
        self._check: int | None = None
        self._directory = directory
        self._name = b"%d" % number
        self._files: dict[bytes, tuple[int, RulesWriter]] = {}
        if failure is None:
            try:
                make_directory(self._name, directory)
                self._file(RULES)
            except OSError as error:
                self._fail(error)

    def _file(self, name: bytes) -> RulesWriter:
        """The writer of one file of rules, which is made when it is first wanted."""
        if name not in self._files:
            descriptor = create(self._name + b"/" + name, self._directory)
            self._files[name] = descriptor, RulesWriter(descriptor)
        return self._files[name][1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.finished:
            self.abandon()

    def add(self, domain: bytes, blob: bytes, **sides: bytes | None) -> None:
        """Append the rules of one domain, and to the side files what `sides` gives by their names.

        ValueError unless the domain is greater than the one before in the same file.
        """
        self._add(RULES, domain, blob)
        for name, side in sides.items():
            if side is not None:
                self._add(name.encode(), domain, side)

    def copy(self, rules: RulesFile, first: int, end: int, last: bytes) -> None:
        """Append the rules of some domains as they are in the generation before; see RulesWriter."""
        if self.failure is None and not self.finished:
            try:
                self._file(RULES).copy(rules, first, end, last)
            except (OSError, DamagedState, MemoryError) as error:
                self._fail(error)

    def add_bare(self, key: bytes, blob: bytes) -> None:
        """Append to what is accepted without a domain; the keys ascend like domains."""
        self._add(BARE, key, blob)

    def add_list(self, path: bytes, data: bytes) -> None:
        """Append what a file of rules holds; the paths ascend like domains."""
        self._add(LISTS, path, data)

    def _add(self, name: bytes, domain: bytes, blob: bytes) -> None:
        if self.failure is None and not self.finished:
            try:
                self._file(name).add(domain, blob)
            except (OSError, struct.error, MemoryError) as error:
                self._fail(error)

    def finish(self, meta: Meta) -> None:
        """The generation is whole and on disk, though not yet current; its number is put into `meta`."""
        if self.failure is not None or self.finished:
            return
        try:
            for _, rules in self._files.values():
                rules.finish()
            sides = [name.decode() for name in SIDES if name in self._files]
            data = msgspec.json.encode(msgspec.structs.replace(meta, number=self.number, sides=sides))
            if meta.same:
                drop(create(self._name + b"/" + SAME, self._directory))
            descriptor = create(self._name + b"/" + META, self._directory)
            try:
                write_all(descriptor, data + b"\n")
                os.fsync(descriptor)
            finally:
                drop(descriptor)
            sync(self._name, self._directory)
            os.fsync(self._directory)
        except (OSError, MemoryError, TypeError, ValueError, msgspec.MsgspecError) as error:
            self._fail(error)
            return
        self.finished = True
        self._close()

    def check(self) -> int | None:
        """The CRC-32 of the rules, to which nothing is added any more; None where they could not be written."""
        if self._check is None and self.failure is None:
            rules = self._file(RULES)
            try:
                rules.end()
            except (OSError, MemoryError) as error:
                self._fail(error)
                return None
            self._check = rules.check
        return self._check

    def abandon(self) -> None:
        """Remove what was written; for a publication that did not take place."""
        self._close()
        if self._directory >= 0 and not self.accepted:
            remove_generation(self._directory, self.number)

    def _fail(self, error: Exception) -> None:
        words = why(error) if isinstance(error, OSError) else str(error)
        self.failure = f"the state cannot be kept (generation {self.number}): {words}"
        self._close()
        if self._directory >= 0:
            remove_generation(self._directory, self.number)

    def _close(self) -> None:
        while self._files:
            drop(self._files.popitem()[1][0])


def make_directory(name: bytes, parent: int) -> None:
    """A new directory of mode 0700, whatever the umask; `parent` is not writable by others."""
    os.mkdir(name, 0o700, dir_fd=parent)
    os.chmod(name, 0o700, dir_fd=parent)


def create(name: bytes, directory: int) -> int:
    """A new file of mode 0600, open for writing."""
    return above_standard(os.open(name, _CREATE, 0o600, dir_fd=directory))


def sync(name: bytes, directory: int) -> None:
    """The directory `name` is on disk."""
    descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        os.fsync(descriptor)
    finally:
        drop(descriptor)


def remove_generation(directory: int, number: int) -> None:
    """Remove a generation as far as possible, its meta.json first: what is left of it then never looks whole."""
    name = b"%d" % number
    for part in (META, RULES, SAME, *SIDES):
        with suppress(OSError):
            os.unlink(name + b"/" + part, dir_fd=directory)
    with suppress(OSError):
        os.rmdir(name, dir_fd=directory)
