"""The example host gets the verdicts that its README explains."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest
from hosts import EXAMPLE, load_vector

RCPTGEN = Path(sysconfig.get_path("scripts")) / "rcptgen"


@pytest.mark.root
def test_every_address_of_the_example_is_judged_as_written(tmp_path: Path) -> None:
    example = load_vector(EXAMPLE)
    example.materialise(tmp_path / "host")
    addresses = [probe.address for probe in example.probes]
    done = subprocess.run(
        [RCPTGEN, "--root", tmp_path / "host", "check", *addresses], capture_output=True, text=True, check=False
    )
    assert [line.split("\t")[:2] for line in done.stdout.splitlines()] == [
        [probe.expected, probe.address.decode()] for probe in example.probes
    ]
    assert (done.returncode, done.stderr) == (1, "")  # some bounce
