#!/usr/bin/env python3
"""How long `rcptgen compile` takes, beside a C program that does nothing but what must be done.

A host of mktree.py's is compiled, and in turn tests/bench/limit.c lists the same directories,
opens and reads the same files and writes a cdb of the same number of keys.  What counts is
the ratio: seconds differ between machines and minutes.  Run by hand:

    tests/bench/compile_rate.py [--size small|medium|large|huge] [--rounds N] [--mailbox-dirs none sparse all]

Needs cc.  What is compiled is compared with what mktree.py says should come out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOCALS = (b"mail.host.example", b"host.example", b"localhost")


def directories(root: Path) -> list[str]:
    """Every home of the host, below `root`."""
    found = [line.split(":")[4] for line in (root / "var/qmail/users/assign").read_text().splitlines() if ":" in line]
    found += [line.split(":")[5] for line in (root / "etc/passwd").read_text().splitlines()]
    return [str(root) + path for path in dict.fromkeys(found)]


def own(domains: Path) -> None:
    """Gives vpopmail its big directories (0, 1 ...), which mktree.py leaves to root: it could make no mailbox there."""
    for domain in domains.iterdir():
        status = domain.stat()
        for depth in ("?", "?/?", "?/?/?"):
            for path in domain.glob(depth):
                os.chown(path, status.st_uid, status.st_gid)


def timed(command: list[str]) -> tuple[float, float, float]:
    """Seconds on the wall, seconds of processors, and MiB of the largest process."""
    before = os.times()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command}: status {process.returncode}")
    after = os.times()
    cpu = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return wall, cpu, usage.ru_maxrss / 1024


def by_product(rule: bytes, users_own: set[bytes]) -> bool:
    """What mktree.py does not count.

    Names of other domains in local ones, spellings with a colon, and what a user's
    .qmail-default takes in a virtual domain of the user's.
    """
    local, at, domain = rule.rpartition(b"@")
    return domain in LOCALS or b":" in rule or not at or (local == b"*" and domain in users_own)


def domains_of_users(root: Path) -> set[bytes]:
    """The virtual domains that are a user's, not vpopmail's."""
    lines = (root / "var/qmail/control/virtualdomains").read_bytes().splitlines()
    return {name for name, _, value in (line.partition(b":") for line in lines) if name != value}


def compared(made: Path, expected: Path, root: Path) -> str:
    """Whether the compiled file says what it should."""
    dump = subprocess.run([sys.executable, "-m", "rcptgen", "dump", str(made)], capture_output=True, check=True)
    have, want = set(dump.stdout.splitlines()), set(expected.read_bytes().splitlines())
    missing, extra = want - have, {rule for rule in have - want if not by_product(rule, domains_of_users(root))}
    if not missing and not extra:
        return f"{len(want)} rules as expected"
    return f"{len(missing)} MISSING {sorted(missing)[:3]}, {len(extra)} EXTRA {sorted(extra)[:3]}"


def main() -> int:
    """Runs the benchmark and prints a line for each sort of tree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="medium", choices=["small", "medium", "large", "huge"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mailbox-dirs", nargs="+", default=["none", "sparse", "all"])
    given = parser.parse_args()
    compiler = shutil.which("cc")
    if compiler is None:
        print("no cc: nothing to compare with")
        return 0
    failed = False
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        base = Path(scratch)
        base.chmod(0o755)
        subprocess.run([compiler, "-O2", "-o", str(base / "limit"), str(HERE / "limit.c")], check=True)
        for mailboxes in given.mailbox_dirs:
            root, expected = base / f"host-{mailboxes}", base / "expected"
            options = ["--size", given.size, "--mailbox-dirs", mailboxes, "--expected", str(expected)]
            subprocess.run(
                [sys.executable, str(HERE / "mktree.py"), str(root), *options], check=True, capture_output=True
            )
            own(root / "home/vpopmail/domains")
            (base / "directories").write_text("".join(f"{path}\n" for path in directories(root)))
            limit = [str(base / "limit"), str(base / "directories"), str(expected), str(base / "limit.cdb")]
            made = base / "made.cdb"
            compile_ = [sys.executable, "-m", "rcptgen", "--root", str(root), "compile", "--force"]
            compile_ += ["-t", f"validrcptto={made}"]
            timed(limit)
            timed(compile_)
            pairs = [(timed(limit), timed(compile_)) for _ in range(given.rounds)]
            ratio = statistics.median(ours[0] / limits[0] for limits, ours in pairs)
            limit_wall = statistics.median(limits[0] for limits, _ in pairs)
            wall = statistics.median(ours[0] for _, ours in pairs)
            cpu = statistics.median(ours[1] for _, ours in pairs)
            peak = max(ours[2] for _, ours in pairs)
            verdict = compared(made, expected, root)
            failed |= "as expected" not in verdict
            print(
                f"{given.size}, mailbox directories {mailboxes}: {ratio:.1f} times the limit "
                f"({wall:.2f} s, {cpu:.2f} s of processors, {peak:.0f} MiB; limit {limit_wall:.2f} s); {verdict}",
                flush=True,
            )
            shutil.rmtree(root)
    return failed


if __name__ == "__main__":
    sys.exit(main())
