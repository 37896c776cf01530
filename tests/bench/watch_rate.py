#!/usr/bin/env python3
"""What a watch of a large host costs: a change until it is published, its start, deliveries, and doing nothing.

The host is one of mktree.py's (`mktree.py host --size large`), whose vpasswd.cdb files are
changed and put back.  The watch runs with its own defaults, as a process of its own; the
machine should do nothing else.  Run by hand, as root:

    tests/bench/watch_rate.py HOST [--changes N] [--deliveries N] [--idle SECONDS]

Bars, on --size large: 0.2 s (debounce) and 0.6 s from the rename to the new file, the median
of 20; no wake-up for a delivery; nothing while idle but the sweep; 150 MiB.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cdbx

TICKS = os.sysconf("SC_CLK_TCK")
LONGEST = 600.0


class Watch:
    """The process, and what it uses."""

    def __init__(self, host: Path, top: Path) -> None:
        self.file = top / "list.cdb"
        self.log = top / "log"
        with self.log.open("wb") as log:
            arguments = ["--root", str(host), "--state", str(top / "state"), "watch", "-t", f"validrcptto={self.file}"]
            self.process = subprocess.Popen([sys.executable, "-m", "rcptgen", *arguments], stderr=log)

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    def cpu(self) -> float:
        """Seconds of processor time of the watch and its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        total = 0.0
        for pid in (str(self.process.pid), *children.split()):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / TICKS
        return total

    def wakeups(self) -> int:
        """How often its threads have waited for something."""
        found = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            lines = (task / "status").read_text(encoding="ascii").splitlines()
            found += next(int(line.split()[1]) for line in lines if line.startswith("voluntary"))
        return found

    def memory(self, most: str = "VmHWM") -> float:
        """MiB at most (VmHWM) or now (VmRSS)."""
        return self._status(most) / 1024

    def quiet(self, seconds: float = 7.0) -> None:
        """Waits until it has done nothing for so long."""
        last, since = self.wakeups(), time.monotonic()
        while time.monotonic() < since + seconds:
            time.sleep(0.5)
            if (now := self.wakeups()) != last:
                last, since = now, time.monotonic()


def until(condition: Callable[[], bool]) -> None:
    """Waits for it."""
    end = time.monotonic() + LONGEST
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("watch_rate: that never came about")
        time.sleep(0.002)


def changed(path: Path, users: int) -> bytes:
    """A vpasswd.cdb with so many users more."""
    with tempfile.TemporaryFile() as made, path.open("rb") as old:
        maker = cdbx.CDB.make(made)
        for key, value in cdbx.CDB(old).items(all=True):
            maker.add(key, value)
        for number in range(users):
            # As the host itself names it, wherever it is laid.
            home = b"/home/vpopmail/domains/" + os.fsencode(path.parent.name)
            maker.add(b"watchrate%d" % number, b"x:1:0:g:%s/watchrate%d:NOQUOTA" % (home, number))
        maker.commit()
        made.seek(0)
        return made.read()


def renamed(path: Path, content: bytes) -> None:
    """The content, in a file that is renamed over the one at `path`, as vpopmail does it."""
    like, new = path.stat(), path.with_name("vpasswd.cdb.tmp")
    new.write_bytes(content)
    os.chown(new, like.st_uid, like.st_gid)
    new.chmod(like.st_mode & 0o777)
    new.rename(path)


def changes(watch: Watch, domains: list[Path], count: int) -> None:
    """From the rename of a vpasswd.cdb to the new file in its place."""
    walls, cpus = [], []
    for number in range(count):
        path = domains[number * 97 % len(domains)] / "vpasswd.cdb"
        old, new = path.read_bytes(), changed(path, 1)
        for content in (new, old):
            watch.quiet()
            inode, cpu = watch.file.stat().st_ino, watch.cpu()
            begun = time.monotonic()
            renamed(path, content)
            until(lambda inode=inode: watch.file.stat().st_ino != inode)  # type: ignore[misc]
            walls.append(time.monotonic() - begun)
            cpus.append(watch.cpu() - cpu)
    print(
        f"rename to new file   {statistics.median(walls):6.2f} s (median of {len(walls)}; {min(walls):.2f} to", end=""
    )
    print(f" {max(walls):.2f}), {statistics.median(cpus):.2f} s of processor time")


def deliveries(watch: Watch, domains: list[Path], count: int) -> None:
    """Mail into Maildirs below watched directories."""
    maildir = domains[0] / "watchrate" / "Maildir"
    for name in ("tmp", "new", "cur"):
        (maildir / name).mkdir(parents=True)
    watch.quiet()
    before = watch.wakeups()
    for number in range(count):
        (maildir / "tmp" / str(number)).write_bytes(b"mail")
        (maildir / "tmp" / str(number)).rename(maildir / "new" / str(number))
    print(f"{count} deliveries   {watch.wakeups() - before} wake-ups (those of the sweep included)")
    subprocess.run(["rm", "-r", maildir.parent], check=True)


def main() -> int:
    """Measures, and prints what it measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host", type=Path)
    parser.add_argument("--changes", type=int, default=10, help="each is made, and taken back")
    parser.add_argument("--deliveries", type=int, default=20_000)
    parser.add_argument("--idle", type=float, default=60.0)
    options = parser.parse_args()
    domains = sorted(path.parent for path in options.host.glob("home/vpopmail/domains/*/vpasswd.cdb"))
    with tempfile.TemporaryDirectory() as top:
        begun = time.monotonic()
        watch = Watch(options.host, Path(top))
        try:
            until(lambda: b"published" in watch.log.read_bytes() or watch.process.poll() is not None)
            print(f"first compile        {time.monotonic() - begun:6.2f} s, {watch.cpu():.2f} s of processor time")
            cpu = watch.cpu()
            watch.quiet()
            print(f"watches, two looks   {watch.cpu() - cpu:6.2f} s of processor time")
            changes(watch, domains, options.changes)
            deliveries(watch, domains, options.deliveries)
            watch.quiet()
            cpu = watch.cpu()
            time.sleep(options.idle)
            print(f"idle {options.idle:3.0f} s           {watch.cpu() - cpu:6.2f} s of processor time (with a sweep)")
            print(f"memory               {watch.memory('VmRSS'):6.0f} MiB, {watch.memory():.0f} at most")
        finally:
            watch.process.send_signal(signal.SIGTERM)
            watch.process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
