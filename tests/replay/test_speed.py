"""A million lines take seconds, and memory that does not grow with them."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from runs import PROGRAM, Names, Site

NAMES: Names = {
    "passwd": {"joe": 1001},
    "control/me": "mail.example.org\n",
    "control/locals": "example.org\n",
    "control/virtualdomains": "shop.example:joe-shop\n",
    "~joe/.qmail-shop-default": "./Mailbox\n",
}

# Runs the program and says what it cost: its own memory, not that of whoever started it.
MEASURED = (
    "import resource, subprocess, sys\n"
    "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=False)\n"
    "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
    "print(done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss)\n"
)


def write(path: Path, size: int) -> int:
    """A log of about `size` lines with nearly as many recipients as deliveries; how many lines it has."""
    chance = random.Random(1)
    count = number = 0
    with path.open("wb") as file:
        while count < size:
            number += 1
            stamp = b"@40000000%08x00000000 " % (0x65A1B2C3 + number)
            message = 1000 + number % 500
            bounced = chance.random() < 0.3
            name = b"nosuch%d@example.org" if bounced else b"joe-shop-o%d@shop.example"
            lines = [
                b"new msg %d" % message,
                b"info msg %d: bytes 3000 from <x%d@far.example> qp 55 uid 89" % (message, number),
                b"starting delivery %d: msg %d to local " % (number, message) + name % chance.getrandbits(30),
                b"status: local 1/10 remote 0/20",
                b"delivery %d: " % number + (b"failure: Sorry/" if bounced else b"success: did_1+0+0/"),
                b"status: local 0/10 remote 0/20",
                *([b"bounce msg %d qp 3" % message] if bounced else []),
                b"end msg %d" % message,
            ]
            file.write(b"".join(stamp + line + b"\n" for line in lines))
            count += len(lines)
    return count


@pytest.mark.root
@pytest.mark.parametrize(
    ("size", "seconds"), [(50_000, 3.0), pytest.param(1_000_000, 20.0, marks=pytest.mark.slow)], ids=["50k", "million"]
)
@pytest.mark.parametrize("by", ["file", "host"])
def test_speed_and_memory(tmp_path: Path, size: int, seconds: float, by: str) -> None:
    """Four times what was measured, for machines that do other things too."""
    site = Site(tmp_path, NAMES)
    site.published("--force")
    log = tmp_path / "log"
    write(log, size)
    chosen = ["-t", site.output] if by == "file" else []
    command = [sys.executable, "-c", MEASURED, *PROGRAM, "--root", str(site.host.root), "replay", *chosen, str(log)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    status, used, memory = done.stdout.split()
    assert status == "0", done.stderr
    assert float(used) < seconds
    assert int(memory) < 120_000
