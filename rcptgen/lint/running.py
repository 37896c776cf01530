"""The running qmail-send, against the control files that it has read."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator

from rcptgen.host import Host
from rcptgen.qmail.hostfiles import Finding
from rcptgen.rules.shown import shown
from rcptgen.source.tree import Directory, Regular, SourceTree

CONTROLS = (b"locals", b"virtualdomains", b"me", b"envnoathost", b"percenthack")
_STARTED = 19
"""Where starttime stands in /proc/PID/stat, counted from what follows the name of the program."""


def control_files_in_force(host: Host) -> Iterator[Finding]:
    """The control files that are newer than the qmail-send that reads them."""
    started = _started(host.root)
    if started is None:
        return
    for name in CONTROLS:
        file = host.directory + b"/control/" + name
        found = host.units.read(file)
        if isinstance(found, Regular) and found.status.mtime_ns > started * 10**9:
            when = dt.datetime.fromtimestamp(started, dt.UTC)
            again = ", unless it got a HUP since" if name in (b"locals", b"virtualdomains") else ""
            text = f"{shown(name)} is newer than the qmail-send that runs since {when:%Y-%m-%d %H:%M} UTC"
            yield Finding("D111", f"{text}: it is not in force{again}", file)


def _started(root: bytes) -> float | None:
    """When the last qmail-send of the host started, in seconds since 1970; None where none runs, or nobody may see."""
    tree = SourceTree(root, access="bits", record=False)
    with tree:
        booted = _booted(tree)
        if booted is None:
            return None
        directory = tree.directory(b"/proc")
        if not isinstance(directory, Directory):
            return None
        with directory:
            names = directory.names()
        ticks = [_ticks(tree, name) for name, _ in names if name.isdigit()] if isinstance(names, list) else []
    return max((booted + one / os.sysconf("SC_CLK_TCK") for one in ticks if one is not None), default=None)


def _booted(tree: SourceTree) -> int | None:
    found = tree.read(b"/proc/stat")
    for line in found.data.splitlines() if isinstance(found, Regular) else ():
        key, _, value = line.partition(b" ")
        if key == b"btime" and value.strip().isdigit():
            return int(value)
    return None


def _ticks(tree: SourceTree, process: bytes) -> int | None:
    """The start of a process in ticks since the boot; None where it is no qmail-send."""
    found = tree.read(b"/proc/" + process + b"/stat")
    if not isinstance(found, Regular):
        return None
    head, _, rest = found.data.rpartition(b")")
    fields = rest.split()
    if head.partition(b"(")[2] != b"qmail-send" or len(fields) <= _STARTED or not fields[_STARTED].isdigit():
        return None
    return int(fields[_STARTED])
