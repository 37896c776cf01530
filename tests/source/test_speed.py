"""What reading through the tree costs beside the bare calls.  Only in script/long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: the guards of the tests watch every open of this one.
MEASURE = """
import os, sys, time
from rcptgen.source import EntryType, Identity, SourceTree

root = sys.argv[1].encode()
home = root + b"/joe"
os.mkdir(home)
names = [b".qmail-%d" % number for number in range(10_000)]
for name in names:
    with open(home + b"/" + name, "wb") as file:
        file.write(b"./Maildir/\\n")

def bare():
    directory = os.open(home, os.O_RDONLY)
    for name in names:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        status = os.fstat(fd)
        os.read(fd, status.st_size + 1)
        os.close(fd)
    os.close(directory)

def ours(record):
    with SourceTree(root, record=record) as tree, tree.acting_as(Identity(1001, 1001)):
        with tree.directory(b"/joe") as directory:
            for name in names:
                directory.read(name, entry=EntryType.REGULAR)

def measured(work, *arguments):
    begin = time.process_time()
    work(*arguments)
    return time.process_time() - begin

# In turns, so that what else the machine does falls on all of them.
rounds = [(measured(bare), measured(ours, False), measured(ours, True)) for _ in range(9)]
base, silent, recording = map(min, zip(*rounds))
print(silent / base, recording / base)
"""


@pytest.mark.root
@pytest.mark.slow
def test_reading_many_small_files_is_near_the_bare_calls(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, os.fspath(tmp_path)], check=True, capture_output=True, text=True
    )
    silent, recording = map(float, done.stdout.split())
    assert silent < 2.5, done.stdout
    assert recording < 3, done.stdout
