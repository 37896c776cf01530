"""What a look at everything has freed goes back to the system."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from rcptgen.watch.memory import give_back

SCATTERED = """
import os
from rcptgen.watch.memory import give_back

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20

# Larger than what Python's own allocator takes care of, smaller than what is mapped by itself.
kept = [bytes(1000) for _ in range(60_000)][::30]
before = resident()
assert give_back()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can")
def test_it_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", SCATTERED], check=True, capture_output=True, text=True)
    assert int(done.stdout) > 20


def test_another_libc_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not give_back()
