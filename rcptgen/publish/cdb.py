"""Constant databases: written by cdbx, walked by hand.

Reading never maps the file: whoever truncates a mapped file ends the reader with SIGBUS,
and cdbx maps where it can.
"""

from __future__ import annotations

import os
import stat
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, repeat, starmap

import cdbx

from rcptgen.errors import PublishFailed
from rcptgen.publish.paths import drop, shown, why
from rcptgen.rules.cdbwalk import HEADER, RECORD, RECORD_LIMIT, SLOT, DamagedCdb, walk, walk_cdb

__all__ = ["RECORD_LIMIT", "SIZE_LIMIT", "CdbWriter", "DamagedCdb", "read_cdb", "walk_cdb", "write_cdb"]

SIZE_LIMIT = 3584 << 20
"""3.5 GiB: an output beyond this is refused before it is written; a cdb ends at 4."""

_BATCH = 16384
_LENGTHS = struct.Struct("<II")


class CdbWriter:
    """The file behind a descriptor on its way to being a cdb, whose bytes are those of tinycdb's `cdb -c`.

    Equal keys are all stored: who wants them once removes them before.  The descriptor stays
    open, for fchmod and fsync; what was in the file is gone.  After any error the file is
    worth nothing.
    """

    def __init__(self, descriptor: int, *, limit: int = SIZE_LIMIT) -> None:
        try:
            self._maker = cdbx.CDB.make(descriptor, close=False, mmap=False)
        except OSError as error:
            raise PublishFailed(f"cannot write a cdb: {why(error)}") from error
        self._limit = limit
        self._size = HEADER
        self.count = 0

    def add(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Appends `records`, in their order.

        Raises PublishFailed for any error of writing, and for a file that would grow beyond
        the limit, before any of `records` is written.
        """
        self._grow(len(records), sum(map(len, chain.from_iterable(records))))
        try:
            deque(starmap(self._maker.add, records), maxlen=0)
        except (OSError, OverflowError, MemoryError) as error:
            raise _failed(error) from error

    def put(self, keys: Sequence[bytes], value: bytes) -> None:
        """Appends a record with `value` for each of `keys`, in their order.  Raises as `add`."""
        self._grow(len(keys), sum(map(len, keys)) + len(keys) * len(value))
        try:
            deque(map(self._maker.add, keys, repeat(value)), maxlen=0)
        except (OSError, OverflowError, MemoryError) as error:
            raise _failed(error) from error

    @property
    def position(self) -> int:
        """Where the next record will stand."""
        return self._size - self.count * 2 * SLOT

    def copy(self, old: int, start: int, size: int, count: int) -> None:
        """Appends the `count` records that take `size` bytes at `start` of the cdb behind `old`."""
        at = 0
        data = os.pread(old, size, start)
        records = []
        while at < len(data):
            keys, values = _LENGTHS.unpack_from(data, at)
            key = at + RECORD
            at = key + keys + values
            records.append((data[key : key + keys], data[key + keys : at]))
        if at != size or len(records) != count:
            raise PublishFailed("the published file is not what it was; nothing of it is published")
        self.add(records)

    def instead(self, start: int, size: int) -> None:
        """Records are written as they are put, whatever they replace."""

    def _grow(self, count: int, size: int) -> None:
        self.count += count
        self._size += size + count * (RECORD + 2 * SLOT)
        if self._size > self._limit:
            raise PublishFailed(f"the cdb would grow beyond {self._limit} bytes; nothing of it is published")

    def finish(self) -> int:
        """The file is a whole cdb; returns how many records it has.  Raises PublishFailed."""
        try:
            self._maker.commit().close()
        except (OSError, OverflowError, MemoryError) as error:
            raise _failed(error) from error
        finally:
            self.close()
        return self.count

    def close(self) -> None:
        """Gives up what is not finished; harmless after `finish`."""
        self._maker.close()


def write_cdb(descriptor: int, records: Iterable[tuple[bytes, bytes]], *, limit: int = SIZE_LIMIT) -> int:
    """Make the file behind `descriptor` the cdb of `records`, in their order, and return how many they are.

    See CdbWriter for what holds of the file and what is raised.  What `records` raises goes
    through.
    """
    writer = CdbWriter(descriptor, limit=limit)
    try:
        # Batches: the size is known before anything of a batch is written, and both loops run in C.
        source = iter(records)
        while batch := list(islice(source, _BATCH)):
            writer.add(batch)
        return writer.finish()
    finally:
        writer.close()


def _failed(error: Exception) -> PublishFailed:
    return PublishFailed(f"cannot write a cdb: {why(error) if isinstance(error, OSError) else error}")


def read_cdb(source: bytes | int, *, limit: int = SIZE_LIMIT, name: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """Every (key, value) of a cdb in file order, duplicates included.

    `source` is a path, or a descriptor, which stays open and whose offset does not move;
    `name` is what messages call a descriptor.  Memory and time are bounded by the size of
    the file, and that by `limit`.  Raises DamagedCdb, at the first record or later, for
    anything that is not a whole cdb and for any error of reading; what came before it came
    from the damaged file too.
    """
    called = shown(name or (source if isinstance(source, bytes) else b"descriptor %d" % source))
    try:
        if isinstance(source, int):
            yield from _walk_file(source, called, limit)
            return
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            yield from _walk_file(descriptor, called, limit)
        finally:
            drop(descriptor)
    except OSError as error:
        raise DamagedCdb(called, f"cannot read: {why(error)}") from error


def _walk_file(descriptor: int, called: str, limit: int) -> Iterator[tuple[bytes, bytes]]:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise DamagedCdb(called, "not a regular file")
    if status.st_size > limit:
        raise DamagedCdb(called, f"{status.st_size} bytes are more than the {limit} that are read")

    def fetch(position: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0 and (part := os.pread(descriptor, size, position)):
            parts.append(part)
            position += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    return walk(fetch, status.st_size, called)
