"""Rules of domains as a stream of blobs, in a file that never hands out damage.

    rules     = magic   record...   index   trailer
    record    = domain length (32), blob length (32), CRC-32 of both lengths, domain and blob (32), domain, blob
    index     = the offset of every record (64)
    trailer   = count (64), offset of the index (64), CRC-32 of index, count and offset (32), magic

Numbers are little-endian.  A file that was cut has no trailer; a record that was damaged
fails its own CRC, so no damaged blob is ever handed out, even while streaming.
"""

from __future__ import annotations

import os
import struct
import sys
import weakref
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from zlib import crc32

from rcptgen.errors import RcptgenError
from rcptgen.publish.paths import above_standard, drop, why

FORMAT = 1
"""The version of a generation; another version is thrown away, never guessed at."""

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
CHUNK = 1 << 20

_MAGIC = b"rcptgen rules %03d\n" % FORMAT
_END = b"end of rules\n"
_RECORD = struct.Struct("<III")
_LENGTHS = struct.Struct("<II")
_TRAILER = struct.Struct("<QQI13s")


class DamagedState(RcptgenError):
    """A generation that cannot be trusted: cut, damaged, of another version, or gone."""


class RulesFile:
    """A complete file of rules, open for reading; it stays readable when it is removed."""

    def __init__(self, directory: int, name: bytes, label: str) -> None:
        """Open `name` below `directory`; raises DamagedState, beginning with `label`, unless it looks whole."""
        self._label = label
        try:
            self._descriptor = above_standard(os.open(name, READ, dir_fd=directory))
        except OSError as error:
            raise self._damaged(f"cannot read: {why(error)}") from error
        self._finalizer = weakref.finalize(self, drop, self._descriptor)
        try:
            self._offsets, self._end = self._read_index()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the descriptor back; harmless when done twice."""
        self._finalizer()

    def __len__(self) -> int:
        return len(self._offsets)

    def blobs(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (domain, blob), in ascending order of the domains; raises DamagedState at the first damaged one."""
        at, count = 0, len(self._offsets)
        while at < count:
            stop, start = at + 1, self._offsets[at]
            while stop < count and self._stop(stop) - start <= CHUNK:
                stop += 1
            chunk = self._fetch(start, self._stop(stop - 1) - start)
            for record in range(at, stop):
                yield self._split(chunk[self._offsets[record] - start : self._stop(record) - start])
            at = stop

    def blob(self, domain: bytes) -> bytes | None:
        """The blob of one domain, or None; raises DamagedState where it cannot be read."""
        at = bisect_left(range(len(self._offsets)), domain, key=self._domain)
        if at == len(self._offsets) or self._domain(at) != domain:
            return None
        return self._split(self._fetch(self._offsets[at], self._stop(at) - self._offsets[at]))[1]

    def check(self, known: int | None = None) -> bool:
        """Raises DamagedState unless every record is sound.

        `known` is the CRC-32 that its writer had of all of it: returns whether it is that file.
        """
        if known is not None and known == self.whole():
            return True
        for _ in self.blobs():
            pass
        return False

    def whole(self) -> int:
        """The CRC-32 of the whole file."""
        size = self._end + 8 * len(self._offsets) + _TRAILER.size
        check = 0
        for at in range(0, size, CHUNK):
            check = crc32(self._fetch(at, min(CHUNK, size - at)), check)
        return check

    def stretch(self, first: int, end: int) -> tuple[array[int], Iterator[bytes]]:
        """The domains from number `first` up to `end`: where each record begins, and all of them, for another file."""
        start, stop = (self._offsets[first], self._stop(end - 1)) if first < end else (0, 0)
        chunks = (self._fetch(at, min(CHUNK, stop - at)) for at in range(start, stop, CHUNK))
        return self._offsets[first:end], chunks

    def _stop(self, record: int) -> int:
        return self._offsets[record + 1] if record + 1 < len(self._offsets) else self._end

    def _domain(self, record: int) -> bytes:
        start = self._offsets[record]
        size = min(self._stop(record) - start, 512)
        head = self._fetch(start, size)
        length = _RECORD.unpack_from(head)[0] if size >= _RECORD.size else 0
        if _RECORD.size + length > size:
            head = self._fetch(start, self._stop(record) - start)
        return head[_RECORD.size : _RECORD.size + length]

    def _split(self, record: bytes) -> tuple[bytes, bytes]:
        if len(record) >= _RECORD.size:
            domain, blob, check = _RECORD.unpack_from(record)
            body = record[_RECORD.size :]
            if domain + blob == len(body) and crc32(body, crc32(_LENGTHS.pack(domain, blob))) == check:
                return body[:domain], body[domain:]
        raise self._damaged("a record is damaged")

    def _read_index(self) -> tuple[array[int], int]:
        try:
            size = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise self._damaged(why(error)) from error
        magic = self._fetch(0, min(len(_MAGIC), size))
        if magic != _MAGIC:
            raise self._damaged("its rules are of another version, or damaged")
        last = size - _TRAILER.size
        if last < len(_MAGIC):
            raise self._damaged("its rules were cut")
        trailer = self._fetch(last, _TRAILER.size)
        count, start, check, end = _TRAILER.unpack(trailer)
        if end != _END or start < len(_MAGIC) or start + count * 8 != last:
            raise self._damaged("its rules were cut")
        index = self._fetch(start, count * 8)
        if crc32(trailer[:16], crc32(index)) != check:
            raise self._damaged("its index is damaged")
        return _little(array("Q", index)), start

    def _fetch(self, start: int, size: int) -> bytes:
        parts: list[bytes] = []
        try:
            while size > 0:
                part = os.pread(self._descriptor, size, start)
                if not part:
                    raise self._damaged("its rules were cut")
                parts.append(part)
                start += len(part)
                size -= len(part)
        except (OSError, OverflowError) as error:
            raise self._damaged(f"cannot read: {error}") from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _damaged(self, words: str) -> DamagedState:
        return DamagedState(f"{self._label}: {words}")


class RulesWriter:
    """Writes the `rules` of a generation to a descriptor, which stays the caller's; errors are OSErrors."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._parts: list[bytes] = [_MAGIC]
        self._waiting = self._size = len(_MAGIC)
        self._offsets: array[int] = array("Q")
        self._last: bytes | None = None
        self.check = 0
        """The CRC-32 of what is written; of the whole file after `end`."""
        self._ended = False

    def add(self, domain: bytes, blob: bytes) -> None:
        """Append a domain, which must be greater than the one before (ValueError)."""
        if self._last is not None and domain <= self._last:
            raise ValueError("domains must be added in ascending order")
        self._last = domain
        lengths = _LENGTHS.pack(len(domain), len(blob))
        check = crc32(blob, crc32(domain, crc32(lengths)))
        self._offsets.append(self._size)
        self._put(_RECORD.pack(len(domain), len(blob), check), domain, blob)

    def copy(self, rules: RulesFile, first: int, end: int, last: bytes) -> None:
        """Append the domains number `first` up to `end` of another file, the last of which is `last`."""
        offsets, chunks = rules.stretch(first, end)
        if not offsets:
            return
        self._last = last
        self._offsets.extend(map((self._size - offsets[0]).__add__, offsets))
        for chunk in chunks:
            self._put(chunk)

    def finish(self) -> None:
        """The stream is whole and on disk."""
        self.end()
        os.fsync(self._descriptor)

    def end(self) -> None:
        """The stream is whole; harmless when done twice."""
        if self._ended:
            return
        self._ended = True
        start = self._size
        index = _little(self._offsets).tobytes()
        numbers = struct.pack("<QQ", len(self._offsets), start)
        self._put(index, _TRAILER.pack(len(self._offsets), start, crc32(numbers, crc32(index)), _END))
        self._flush()

    def _put(self, *parts: bytes) -> None:
        size = sum(map(len, parts))
        self._parts += parts
        self._size += size
        self._waiting += size
        if self._waiting >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        data, self._parts, self._waiting = b"".join(self._parts), [], 0
        self.check = crc32(data, self.check)
        write_all(self._descriptor, data)


def write_all(descriptor: int, data: bytes) -> None:
    """All of `data` is written, short writes or not; errors are OSErrors."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _little(numbers: array[int]) -> array[int]:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers
