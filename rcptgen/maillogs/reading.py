"""Log files as lines: plain or compressed, of any size, with lines of any length."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from rcptgen.errors import UsageTrouble
from rcptgen.rules.shown import shown

BLOCK = 1 << 18
LONGEST = 1 << 16
"""A longer line is no line of a mail log: it is counted and passed over."""

OVERLONG = b"\n"
"""Stands for a line longer than that; no line holds a newline."""

DAMAGED = (EOFError, zlib.error, lzma.LZMAError, OSError)
"""What reading a damaged, truncated or vanishing file raises."""

_FOREIGN = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip", b"\x1f\x9d": "compress"}


@contextmanager
def opened(path: bytes) -> Iterator[io.BufferedIOBase]:
    """The log `path`, decompressed; `-` is stdin.  What it is stands in its first bytes, not in its name.

    Raises UsageTrouble where it cannot be opened, or is compressed as Python cannot read.
    """
    try:
        raw = _raw(path)
    except OSError as error:
        raise UsageTrouble(f"{shown(path)}: {error.strerror}") from None
    with raw:
        try:
            head = raw.peek(8)[:8]
        except OSError as error:
            raise UsageTrouble(f"{shown(path)}: {error.strerror}") from None
        for magic, called in _FOREIGN.items():
            if head.startswith(magic):
                raise UsageTrouble(f"{shown(path)}: compressed with {called}: unpack it into `rcptgen replay -`")
        if head.startswith(b"\x1f\x8b"):
            yield gzip.GzipFile(fileobj=raw)
        elif head.startswith(b"\xfd7zXZ\0"):
            yield lzma.LZMAFile(raw)  # noqa: SIM115 - it opens nothing
        elif head.startswith(b"BZh"):
            yield bz2.BZ2File(raw)
        else:
            yield raw


def _raw(path: bytes) -> io.BufferedReader:
    file: int | str = os.dup(0) if path == b"-" else os.fsdecode(path)
    return io.BufferedReader(io.FileIO(file), BLOCK)


def blocks(stream: io.BufferedIOBase, path: bytes) -> Iterator[list[bytes]]:
    """The lines of `stream`, some at a time, without their newlines; see OVERLONG.

    Raises UsageTrouble where the file breaks off or is damaged: every line before has been
    given then.
    """
    rest = b""
    dropping = False
    while True:
        try:
            data = stream.read1(BLOCK)  # read() would lose what stands before the damage
        except DAMAGED as error:
            reason = getattr(error, "strerror", None) or str(error) or "damaged"
            raise UsageTrouble(f"{shown(path)}: breaks off: {reason}") from None
        if not data:
            break
        first, *others = data.split(b"\n")
        if not others:
            rest = b"" if dropping else rest + first
        else:
            whole = [OVERLONG if dropping else rest + first, *others[:-1]]
            rest, dropping = others[-1], False
            yield [line if len(line) <= LONGEST else OVERLONG for line in whole]
        if len(rest) > LONGEST:
            rest, dropping = b"", True
    if rest or dropping:
        yield [OVERLONG if dropping else rest]
