#!/usr/bin/env python3
"""How many addresses a second `rcptgen check -` answers, and in how much memory.

The host: 2,000 system users, 10,000 dot-qmail files, 500 virtual domains.  The addresses:
a shuffled mix of names that exist, extensions, and names that nobody has.  Run by hand:

    tests/bench/check_rate.py [--addresses N] [--users N] [--domains N]
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILES_A_USER = 5


def make_host(root: Path, users: int, domains: int) -> None:
    """Lays the host down below `root`; as root, the homes belong to their users."""
    control = root / "var/qmail/control"
    control.mkdir(parents=True)
    (control / "me").write_text("mail.example.org\n")
    (control / "locals").write_text("mail.example.org\nexample.org\n")
    virtual = [f"d{n}.example:u{n % users}-d{n}" for n in range(domains)]
    (control / "virtualdomains").write_text("\n".join(virtual) + "\n")
    (root / "etc").mkdir()
    lines = ["alias:x:7790:2108::/var/qmail/alias:/bin/true", "qmailp:x:7793:2108::/var/qmail:/bin/true"]
    (root / "etc/group").write_text("qmail:x:2107:\nnofiles:x:2108:\n")
    alias = root / "var/qmail/alias"
    alias.mkdir(parents=True)
    (alias / ".qmail-postmaster").write_text("&joe@elsewhere.example\n")
    for n in range(users):
        home = root / f"home/u{n}"
        home.mkdir(parents=True)
        lines.append(f"u{n}:x:{20000 + n}:{20000 + n}::/home/u{n}:/bin/sh")
        for k in range(FILES_A_USER - 1):
            (home / f".qmail-list{k}").write_text("./Mailbox\n" if k else "|bouncesaying closed\n")
        (home / f".qmail-d{n}-default").write_text("&someone@elsewhere.example\n")
        if os.geteuid() == 0:
            for path in (home, *home.iterdir()):
                os.chown(path, 20000 + n, 20000 + n)
    (root / "etc/passwd").write_text("\n".join(lines) + "\n")


def make_addresses(count: int, users: int, domains: int, seed: int) -> bytes:
    """`count` addresses, one a line, half of them of names that exist."""
    dice = random.Random(seed)
    found = []
    for _ in range(count):
        user, word = dice.randrange(users), dice.randrange(10**9)
        found.append(
            dice.choice(
                (
                    f"u{user}@example.org",
                    f"u{user}-list{dice.randrange(FILES_A_USER - 1)}@example.org",
                    f"x{word}@d{dice.randrange(domains)}.example",
                    f"u{user}-n{word}@mail.example.org",
                    f"nobody{word}@example.org",
                    f"sales-{word}@elsewhere.example",
                )
            )
        )
    return "\n".join(found).encode() + b"\n"


def main() -> int:
    """Runs the benchmark and prints one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--addresses", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--domains", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        root = Path(directory) / "host"
        make_host(root, given.users, given.domains)
        addresses = make_addresses(given.addresses, given.users, given.domains, given.seed)
        command = [sys.executable, "-m", "rcptgen", "--root", str(root), "check", "-"]
        begun = time.perf_counter()
        done = subprocess.run(command, input=addresses, stdout=subprocess.PIPE, check=False)
        seconds = time.perf_counter() - begun
    lines = done.stdout.count(b"\n")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"{lines} addresses in {seconds:.2f} s: {lines / seconds:,.0f} a second; largest process {peak} MiB")
    return 0 if lines == given.addresses and done.returncode in (0, 1) else 1


if __name__ == "__main__":
    sys.exit(main())
