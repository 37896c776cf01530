"""Whole synthetic hosts: what is compiled is exactly what the generator says should come out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

MKTREE = Path(__file__).parents[1] / "bench" / "mktree.py"
LOCALS = (b"mail.host.example", b"host.example", b"localhost")


def made(where: Path, *options: str) -> tuple[Path, set[bytes]]:
    """A tree, and the rules that it stands for."""
    root, expected = where / "host", where / "expected"
    command = [sys.executable, str(MKTREE), str(root), "--expected", str(expected), *options]
    subprocess.run(command, check=True, capture_output=True)
    return root, set(expected.read_bytes().splitlines())


def compiled(root: Path, file: Path) -> set[bytes]:
    command = [sys.executable, "-m", "rcptgen", "--root", str(root), "compile", "-t", f"validrcptto={file}"]
    subprocess.run(command, check=True, capture_output=True)
    dump = subprocess.run([sys.executable, "-m", "rcptgen", "dump", str(file)], check=True, capture_output=True)
    return set(dump.stdout.splitlines())


def by_product(rule: bytes, root: Path) -> bool:
    """What the generator's docstring leaves uncounted; and postmaster without a domain.

    Nor does it count what a user's .qmail-default takes in a virtual domain of the user's.
    """
    local, at, domain = rule.rpartition(b"@")
    lines = (root / "var/qmail/control/virtualdomains").read_bytes().splitlines()
    if local == b"*" and domain + b":" + domain not in lines:
        return True
    if domain in LOCALS and (b"." in local or local.removeprefix(b"!").startswith(b"alias-")):
        return True
    return b":" in local or not at


@pytest.mark.parametrize(
    "options",
    [
        ("--size", "small"),
        ("--size", "small", "--layout", "hashed", "--seed", "2"),
        ("--domains", "3", "--mailboxes", "2000", "--alias-domains", "5", "--mailbox-dirs", "all", "--zipf", "0"),
    ],
    ids=" ".join,
)
def test_the_compiled_rules_are_those_of_the_generator(tmp_path: Path, options: tuple[str, ...]) -> None:
    tmp_path.chmod(0o755)
    root, expected = made(tmp_path, *options)
    found = compiled(root, tmp_path / "list.cdb")
    assert expected - found == set()
    assert {rule for rule in found - expected if not by_product(rule, root)} == set()


@pytest.mark.slow
@pytest.mark.parametrize("size", ["medium", "large"])
def test_large_hosts_too_in_a_bounded_memory(tmp_path: Path, size: str) -> None:
    tmp_path.chmod(0o755)
    root, expected = made(tmp_path, "--size", size)
    found = compiled(root, tmp_path / "list.cdb")
    assert expected - found == set()
    assert {rule for rule in found - expected if not by_product(rule, root)} == set()


@pytest.mark.slow
def test_a_domain_of_a_million_mailboxes_stays_within_the_memory(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    root, expected = made(tmp_path, "--domains", "1", "--mailboxes", "1000000")
    file = tmp_path / "list.cdb"
    # A child of a child: what this process has started before must not count.
    code = (
        "import resource, subprocess, sys; "
        "subprocess.run([sys.executable, '-m', 'rcptgen', *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, "--root", str(root), "compile", "-t", f"validrcptto={file}"]
    peak = int(subprocess.run(command, check=True, capture_output=True).stdout)
    assert peak < 100 * 1024
    assert len(expected) > 900_000
