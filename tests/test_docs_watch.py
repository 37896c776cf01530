"""docs/watch.md: its script does what it says, its tables name what there is."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from rcptgen import metrics
from rcptgen.cli.install_units import UNITS
from rcptgen.config import Config, Metrics, parse
from rcptgen.metrics import Service, write
from rcptgen.request import Outcomes, Output, Result

PAGE = Path(__file__).parent.parent / "docs" / "watch.md"

pytestmark = pytest.mark.needs("checkout")


def block(language: str, beginning: str = "") -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (one,) = (text for text in found if text.startswith(beginning))
    assert isinstance(one, str)
    return one


@pytest.mark.parametrize(
    ("arguments", "domain"),
    [
        (["add_user", "joe@shop.example"], "shop.example"),
        (["add_domain", "shop.example"], "shop.example"),
        (["add_alias_domain", "alias.example", "shop.example"], "alias.example"),
        (["insert_alias", "joe@shop.example", "&x@y.example; rm -rf /"], "shop.example"),
        (["del_domain", "alias.example alias of shop.example"], "alias.example"),
        (["mod_user", "$(touch evil)@--wait"], "--wait"),
    ],
)
@pytest.mark.parametrize("status", [0, 75])
@pytest.mark.parametrize("uid", [0, 89])
def test_onchange_hands_the_domain_over(
    tmp_path: Path, arguments: list[str], domain: str, status: int, uid: int
) -> None:
    log = tmp_path / "log"
    for name, text in {
        "python": f'printf "%s\\n" "$@" >> {log}; echo noise; exit {status}',
        "sudo": f'echo sudo "$1" >> {log}; shift; exec "$@"',
        "id": f"echo {uid}",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = tmp_path / "onchange"
    script.write_text(block("sh", "#!/bin/sh").replace("/opt/rcptgen/bin/python", str(tmp_path / "python")))
    script.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run([script, *arguments], capture_output=True, check=False, env={"PATH": path}, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    before = [] if uid == 0 else ["sudo -n"]
    assert log.read_text().splitlines() == [*before, "-I", "-m", "rcptgen", "trigger", "--", domain]
    assert not (tmp_path / "evil").exists()


def test_every_metric_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "rcptgen.prom"
    one = Result(outputs=[Outcomes(Output("validrcptto", b"/x"), published=True)])
    assert write(Config(metrics=Metrics(textfile=str(file))), one, service=Service()) == ""
    written = set(re.findall(r"^# TYPE (\w+) ", file.read_text(), re.MULTILINE))
    table = "\n".join(line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `rcptgen_"))
    assert set(re.findall(r"`(rcptgen_\w+)`", table)) == written
    assert metrics.__doc__ is not None
    for name in re.findall(r"`(rcptgen_\w+)`", metrics.__doc__):
        assert name in written


def test_every_unit_is_explained() -> None:
    table = re.findall(r"^\| `(rcptgen[-\w]*\.\w+)` \| ", PAGE.read_text(), re.MULTILINE)
    assert set(table) == set(UNITS)


def test_the_configuration_is_valid() -> None:
    assert parse(block("toml").encode(), "watch.md").metrics.textfile.endswith(".prom")
