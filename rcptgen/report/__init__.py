"""The report: one page that a person reads instead of a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from rcptgen.publish.files import Publication, PublishedUnsynced
from rcptgen.report.contents import Contents, gather
from rcptgen.report.page import rendered, require

__all__ = ["MODE", "Contents", "gather", "rendered", "require", "write"]

_PIECE = 1 << 16

MODE = 0o600
"""The page names addresses, homes and what is wrong with them: whom it concerns is for root to say."""


def write(path: bytes, contents: Contents, mode: int = MODE) -> list[str]:
    """The file at `path` is the whole page, with exactly `mode`; answers what is odd about its directory.

    Raises PublishFailed with the old file untouched.
    """
    with Publication() as publication:
        publication.stage(path, mode).write(_encoded(rendered(contents)))
        # That a power cut may bring the last page back harms nobody: no list hangs on it.
        with suppress(PublishedUnsynced):
            publication.commit()
        return publication.warnings


def _encoded(parts: Iterator[str]) -> Iterator[bytes]:
    """The page in pieces that are worth a write."""
    waiting: list[str] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= _PIECE:
            yield "".join(waiting).encode()
            waiting, size = [], 0
    yield "".join(waiting).encode()
