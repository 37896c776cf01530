"""Writing a generation, without ever costing a publication."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from typing import Self

import msgspec

from rcptgen.publish.generation import META, RULES, Meta, RulesWriter, write_all
from rcptgen.publish.paths import above_standard, drop, why

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
        self._directory = directory
        self._name = b"%d" % number
        self._descriptor = -1
        if failure is None:
            try:
                make_directory(self._name, directory)
                self._descriptor = create(self._name + b"/" + RULES, directory)
            except OSError as error:
                self._fail(error)
        self._rules = RulesWriter(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.finished:
            self.abandon()

    def add(self, domain: bytes, blob: bytes) -> None:
        """Append the rules of one domain; ValueError unless it is greater than the one before."""
        if self.failure is None and not self.finished:
            try:
                self._rules.add(domain, blob)
            except (OSError, struct.error, MemoryError) as error:
                self._fail(error)

    def finish(self, meta: Meta) -> None:
        """The generation is whole and on disk, though not yet current; its number is put into `meta`."""
        if self.failure is not None or self.finished:
            return
        try:
            self._rules.finish()
            data = msgspec.json.encode(msgspec.structs.replace(meta, number=self.number))
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
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            drop(descriptor)


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
    for part in (META, RULES):
        with suppress(OSError):
            os.unlink(name + b"/" + part, dir_fd=directory)
    with suppress(OSError):
        os.rmdir(name, dir_fd=directory)
