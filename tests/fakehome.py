"""What models of programs are given in tests: a home that is a table of files, and a shell that knows little."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from rcptgen.qmail.look import NoLook
from rcptgen.qmail.model import UNKNOWN, Effect, Presence, Situation, Text, unknown_effect
from rcptgen.rules.cdbwalk import CdbFile
from rcptgen.rules.outcome import Kind
from rcptgen.source.tree import (
    DEFAULT_LIMIT,
    Absent,
    FailedForNow,
    Failure,
    NotRegular,
    Reading,
    Refused,
    Regular,
    Status,
    TooLarge,
)

HERE = b"/home"


class Files(NoLook):
    """A home with these files, and what was said about them."""

    home = HERE

    def __init__(self, files: dict[bytes, bytes | int], modes: dict[bytes, int] | None = None) -> None:
        self.files = {self.path(name): data for name, data in files.items()}
        self.modes = {self.path(name): mode for name, mode in (modes or {}).items()}
        self.said: list[bytes] = []
        self.fetched = 0

    def path(self, name: bytes) -> bytes:
        return os.path.normpath(super().path(name))

    def status(self, name: bytes) -> Status | Failure:
        found = self.files.get(self.path(name))
        if not isinstance(found, bytes):
            return Absent(errno.ENOENT)
        mode = stat.S_IFREG | self.modes.get(self.path(name), 0o644)
        return Status(mode, 0, 0, len(found), 1, hash(found) & 0xFFFF, 0, 0)

    def read(self, name: bytes, limit: int = DEFAULT_LIMIT) -> Reading:
        path = self.path(name)
        found = self.files.get(path, errno.ENOENT)
        if isinstance(found, int):
            return _failed(found)
        status = self.status(name)
        assert isinstance(status, Status)
        return TooLarge(len(found)) if len(found) > limit else Regular(found, status)

    def cdb(self, name: bytes) -> CdbFile | Failure | NotRegular:
        found = self.files.get(self.path(name), errno.ENOENT)
        if isinstance(found, int):
            return _failed(found)

        def fetch(position: int, size: int) -> bytes:
            self.fetched += 1
            if b"unreadable" in name and position:
                raise OSError(errno.EIO, "broken")
            return found[position : position + size]

        return CdbFile(fetch, len(found), os.fsdecode(name))

    def failed(self, path: bytes, reason: str) -> None:
        self.said.append(b"failed " + path)

    def suspect(self, path: bytes, reason: str) -> None:
        self.said.append(b"suspect " + path)


def _failed(number: int) -> Failure | NotRegular:
    if number == errno.EISDIR:
        return NotRegular(stat.S_IFDIR | 0o755)
    if number == errno.EPIPE:
        return NotRegular(stat.S_IFIFO | 0o644)
    return (
        Refused(number) if number == errno.EACCES else FailedForNow(number) if number == errno.EIO else Absent(number)
    )


def shell(line: bytes) -> Effect:
    """A shell that knows `exit`, a program that nobody knows, and a mailing list."""
    word, _, number = line.partition(b" ")
    if word == b"exit":
        return Effect(frozenset({int(number) if number.isdigit() else 2 * bool(number)}), Kind.PROGRAM, "exit")
    if word == b"list":
        return Effect(frozenset({0}), Kind.LIST, "list")
    return unknown_effect("program without a model")


def start(words: Sequence[Text]) -> Effect:
    assert words[:3] == (b"preline", b"sh", b"-c")
    assert isinstance(words[3], bytes)
    return shell(words[3])


def situation(files: Files, **variables: Text) -> Situation:
    texts: dict[bytes, Text] = {b"SENDER": UNKNOWN}
    texts |= {name.encode(): text for name, text in variables.items()}
    return Situation(texts, lambda _: Presence.FOUND, files, shell)
