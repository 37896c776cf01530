"""Compiled files, opened: constant databases by their index, files of lines read through once for many questions."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cdbx

from rcptgen.errors import PublishFailed, UsageTrouble
from rcptgen.publish.cdb import SIZE_LIMIT, DamagedCdb, read_cdb
from rcptgen.publish.paths import why
from rcptgen.rules.shown import shown
from rcptgen.targets.base import Answer, Line

LONGEST = 1 << 20
"""Bytes of a line beyond which a file is none of ours."""

_CHUNK = 1 << 20
_STRETCH = 20_000

Look = Callable[[bytes, Callable[[bytes], bytes | None]], Answer]
ToLine = Callable[[bytes, bytes], Line | None]


class Record(NamedTuple):
    """A line of a file; `wild`: there are few of its kind, so that all may be kept."""

    key: bytes
    value: bytes
    wild: bool = False


def opened(path: bytes) -> int:
    """A regular file, open; a fifo of that name is never waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file")


class _File:
    """A file that is ours to close where it was opened by its path."""

    def __init__(self, path: bytes | int) -> None:
        self._own = isinstance(path, bytes)
        self._called = shown(path) if isinstance(path, bytes) else "the new file"
        try:
            self._fd = opened(path) if isinstance(path, bytes) else path
        except OSError as error:
            raise UsageTrouble(f"{self._called}: {error.strerror}") from None

    def close(self) -> None:
        """Gives the file back."""
        if self._own:
            os.close(self._fd)


class CdbReader(_File):
    """A constant database as its consumer looks into it."""

    def __init__(self, path: bytes | int, look: Look, to_line: ToLine) -> None:
        super().__init__(path)
        self._look = look
        self._line = to_line
        try:
            # cdbx takes any file; the walk judges its tables, and the first records.
            next(read_cdb(self._fd, name=path if isinstance(path, bytes) else b""), None)
            # Never mapped: whoever truncates a mapped file ends the reader with SIGBUS.
            self._cdb = cdbx.CDB(self._fd, mmap=False)
        except (DamagedCdb, OSError) as error:
            super().close()
            raise UsageTrouble(f"not a cdb file: {error}") from None

    def _get(self, key: bytes) -> bytes | None:
        try:
            found: bytes | None = self._cdb.get(key)
        except OSError:
            return None  # a damaged place counts as not found, as in qmail-smtpd
        return found

    def answer(self, address: bytes) -> Answer:
        """What the consumer does with `address`."""
        return self._look(address, self._get)

    def answers(self, addresses: Sequence[bytes]) -> Iterator[Answer]:
        """The same for many."""
        return map(self.answer, addresses)

    def lines(self) -> Iterator[Line]:
        """Every rule in the file, in its order.  Raises DamagedCdb where it breaks off."""
        for key, value in read_cdb(self._fd):
            line = self._line(key, value)
            if line is not None:
                yield line

    def close(self) -> None:
        """Gives the file back."""
        self._cdb.close()
        super().close()


class TextReader(_File):
    """A file of lines as its consumer looks into it; of equal keys the first one counts.

    Reading many answers keeps the records that they need and the wild ones, not the file.
    """

    def __init__(
        self,
        path: bytes | int,
        name: str,
        parse: Callable[[bytes], Record | None],
        look: Look,
        to_line: ToLine,
        head: bytes,
        foot: bytes,
    ) -> None:
        super().__init__(path)
        self._name, self._parse, self._look, self._line = name, parse, look, to_line
        self._head, self._foot = head, foot
        size = os.fstat(self._fd).st_size
        whole = size >= len(head) + len(foot)
        if not whole or os.pread(self._fd, len(head), 0) != head:
            self.close()
            raise UsageTrouble(f"{self._called}: does not begin as a file of {name} does")
        if os.pread(self._fd, len(foot), size - len(foot)) != foot:
            self.close()
            raise UsageTrouble(f"{self._called}: does not end as a file of {name} does: cut off?")
        self._end = size - len(foot)

    def _lines(self) -> Iterator[bytes]:
        position, rest = len(self._head), b""
        while position < self._end:
            chunk = os.pread(self._fd, min(_CHUNK, self._end - position), position)
            if not chunk:
                raise UsageTrouble(f"{self._called}: became shorter while it was read")
            position += len(chunk)
            *whole, rest = (rest + chunk).split(b"\n")
            if len(rest) > LONGEST:
                raise UsageTrouble(f"{self._called}: a line of more than {LONGEST} bytes: no file of {self._name}")
            yield from whole
        if rest:
            yield rest

    def records(self) -> Iterator[Record]:
        """Every record, in the order of the file.  Raises UsageTrouble at a line that is none of the format."""
        for number, line in enumerate(self._lines(), 1 + self._head.count(b"\n")):
            try:
                record = self._parse(line)
            except ValueError as error:
                why_ = str(error) or f"not a line of {self._name}"
                raise UsageTrouble(f"{self._called}:{number}: {why_}") from None
            if record is not None:
                yield record

    def answer(self, address: bytes) -> Answer:
        """What the consumer does with `address`."""
        return next(self.answers([address]))

    def answers(self, addresses: Sequence[bytes]) -> Iterator[Answer]:
        """The same for many, in their order."""
        wanted: set[bytes] = set()

        def note(key: bytes) -> bytes | None:
            wanted.add(key)
            return None

        for address in addresses:
            self._look(address, note)
        found: dict[bytes, bytes] = {}
        for key, value, wild in self.records():
            if (wild or key in wanted) and key not in found:
                found[key] = value
        for address in addresses:
            yield self._look(address, found.get)

    def lines(self) -> Iterator[Line]:
        """Every rule in the file, in its order."""
        for key, value, _ in self.records():
            line = self._line(key, value)
            if line is not None:
                yield line


class TextWriter:
    """A file of lines on its way; nothing of it is kept in memory beyond a batch."""

    def __init__(
        self, descriptor: int, render: Callable[[Sequence[bytes], bytes], bytes], head: bytes, foot: bytes
    ) -> None:
        self._descriptor = descriptor
        self._render = render
        self._foot = foot
        self._size = 0
        self._held: list[bytes] = []
        self._holding = 0
        self.count = 0
        try:
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
        except OSError as error:
            raise PublishFailed(f"cannot write: {why(error)}") from error
        self._add(head)

    @property
    def position(self) -> int:
        """Where the next line will stand."""
        return self._size

    def copy(self, old: int, start: int, size: int, count: int) -> None:
        """Appends the lines, `count` of them records, that stand at `start` of the file behind `old`."""
        self.count += count
        for at in range(start, start + size, _CHUNK):
            data = os.pread(old, min(_CHUNK, start + size - at), at)
            if len(data) != min(_CHUNK, start + size - at):
                raise PublishFailed("the published file became shorter; nothing of it is published")
            self._add(data)

    def instead(self, start: int, size: int) -> None:
        """Lines are written as they are put, whatever they replace."""

    def put(self, keys: Sequence[bytes], value: bytes) -> None:
        """Appends a line for each key; without a value they are no records.

        Raises PublishFailed for any error of writing and past the limit.
        """
        if not keys:
            return
        self.count += len(keys) if value else 0
        for at in range(0, len(keys), _STRETCH):
            self._add(self._render(keys[at : at + _STRETCH], value))

    def _add(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > SIZE_LIMIT:
            raise PublishFailed(f"the file would grow beyond {SIZE_LIMIT} bytes; nothing of it is published")
        self._held.append(data)
        self._holding += len(data)
        if self._holding >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        view = memoryview(b"".join(self._held))
        self._held, self._holding = [], 0
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise PublishFailed(f"cannot write: {why(error)}") from error

    def finish(self) -> int:
        """The file is whole; returns how many records it has.  Raises PublishFailed."""
        self._add(self._foot)
        self._flush()
        return self.count
