"""What a worker process meets in tests: loaded by the worker itself, before its first request."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

from rcptgen.source.outcomes import failure
from rcptgen.source.tree import Directory, SourceTree


def install(
    *,
    eio: tuple[bytes, ...] = (),
    looks: tuple[bytes, ...] = (),
    hang: tuple[bytes, ...] = (),
    kill: tuple[bytes, ...] = (),
    slow: tuple[bytes, ...] = (),
    seconds: float = 0.4,
    spare: int | None = None,
    shuffle: int | None = None,
) -> None:
    """From now on SourceTree meets faults at the given paths of the host.

    `eio`: directories and files that give EIO when they are opened; `looks`: paths that give
    EIO to stat, as qmail-getpw does it; `hang`: never answer; `slow`: answer after `seconds`;
    `kill`: the worker is killed there; `spare`: so many descriptors are left; `shuffle`:
    directories list their names in an order that hangs on the number.
    """

    def met(path: bytes) -> int:
        if _below(path, kill):
            os.kill(os.getpid(), signal.SIGKILL)
        if _below(path, hang):
            time.sleep(3600)
        if _below(path, slow):
            time.sleep(seconds)
        return errno.EIO if _below(path, eio) else 0

    def wrap(name: str) -> None:
        real: Callable[..., Any] = getattr(SourceTree, name)

        def replaced(tree: SourceTree, path: bytes, *rest: Any, **named: Any) -> Any:
            number = met(path) if name != "status" else errno.EIO if _below(path, looks) else 0
            return failure(number) if number else real(tree, path, *rest, **named)

        setattr(SourceTree, name, replaced)

    for name in ("read", "directory", "accessible", "status"):
        wrap(name)
    real_read = Directory.read

    def read(directory: Directory, name: bytes, **named: Any) -> Any:
        number = met(os.path.join(directory.path, name))
        return failure(number) if number else real_read(directory, name, **named)

    Directory.read = read  # type: ignore[method-assign,assignment]
    _leave_to_the_full_way((*eio, *looks, *hang, *kill, *slow))
    if shuffle is not None:
        chance = random.Random(shuffle)
        real_names = Directory.names

        def names(directory: Directory, **named: Any) -> Any:
            found = real_names(directory, **named)
            if isinstance(found, list):
                chance.shuffle(found)
            return found

        Directory.names = names  # type: ignore[method-assign,assignment]
    if spare is not None:
        lowest = os.dup(0)
        os.close(lowest)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, hard))


def _leave_to_the_full_way(tops: tuple[bytes, ...]) -> None:
    """Where anything is wrong nothing is ordinary: the full way is taken, and meets the fault."""
    real_contents, real_enter = Directory.contents, SourceTree.enter

    def contents(directory: Directory, names: Iterable[bytes], **named: Any) -> Any:
        for name in names:
            if _below(os.path.join(directory.path, name), tops):
                yield None
            else:
                yield from real_contents(directory, [name], **named)

    def enter(tree: SourceTree, path: bytes, **named: Any) -> Any:
        if _below(path, tops) or any(_below(top, (path,)) for top in tops):
            return None
        return real_enter(tree, path, **named)

    Directory.contents = contents  # type: ignore[method-assign,assignment]
    SourceTree.enter = enter  # type: ignore[method-assign,assignment]


def _below(path: bytes, tops: tuple[bytes, ...]) -> bool:
    return any(path == top or path.startswith(top + b"/") for top in tops)
