"""Models of others: only those that the configuration names, and the documented example works."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hosts import File, Host

from rcptgen.compiler import Output, Request, compile_host
from rcptgen.config import Config, Plugins
from rcptgen.errors import ConfigurationError
from rcptgen.host import Host as Opened
from rcptgen.programs import builtin_models

DOCUMENT = Path(__file__).parents[2] / "docs" / "programs.md"
NAMED = Config(plugins=Plugins(programs=("ticketdesk",)))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The documentation's example, as pip would have put it there."""
    code = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    points = re.search(r'```toml\n\[project\.entry-points\."(.*?)"\]\n(.*?)```', DOCUMENT.read_text(), re.DOTALL)
    assert code is not None
    assert points is not None
    site = tmp_path / "site"
    info = site / "ticketdesk-1.dist-info"
    info.mkdir(parents=True)
    (site / "ticketdesk.py").write_text(code[1])
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ticketdesk\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{points[1]}]\n" + points[2].replace('"', ""))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "ticketdesk", raising=False)
    return site


def test_only_what_is_named_is_loaded(installed: Path) -> None:
    assert b"ticketdesk" not in builtin_models(Config())
    assert "ticketdesk" not in sys.modules
    assert b"ticketdesk" in builtin_models(NAMED)


@pytest.mark.root
def test_the_documented_example_decides(installed: Path, tmp_path: Path) -> None:
    host = Host(
        tmp_path / "root",
        {
            "passwd": {"joe": 1001},
            "control/me": "h.example\n",
            "alias/.qmail-postmaster": "joe\n",
            "~joe/.qmail-desk-default": "|/usr/bin/ticketdesk queues\n",
            "~joe/queues": "sales\nSupport\n",
            "/usr/bin/ticketdesk": File("#!/bin/sh\n", mode=0o755),
        },
    )
    file = bytes(tmp_path / "list.cdb")
    with Opened.open(host.root, NAMED) as opened:
        names = [b"joe-desk-sales", b"joe-desk-SUPPORT", b"joe-desk-jobs", b"joe-desk-"]
        verdicts = [opened.decide(name + b"@h.example").verdict for name in names]
        assert verdicts == ["deliver", "deliver", "bounce", "bounce"]
        assert [opened.rules("h.example").match(name).verdict for name in names] == verdicts
    result = compile_host(host.root, NAMED, Request((Output("validrcptto", file),), force=True))
    assert not result.outputs[0].widened


@pytest.mark.parametrize("trouble", ["absent", "twice", "broken", "no model"])
def test_a_plugin_that_is_not_as_it_should_be_is_a_matter_of_configuration(installed: Path, trouble: str) -> None:
    if trouble == "absent":
        (installed / "ticketdesk-1.dist-info" / "entry_points.txt").unlink()
    elif trouble == "twice":
        other = installed / "other-1.dist-info"
        other.mkdir()
        (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
        (other / "entry_points.txt").write_text("[rcptgen.programs]\nticketdesk = ticketdesk:Ticketdesk\n")
    elif trouble == "broken":
        (installed / "ticketdesk.py").write_text("raise ValueError('no')\n")
    else:
        (installed / "ticketdesk.py").write_text("class Ticketdesk:\n    names = ('text',)\n")
    with pytest.raises(ConfigurationError, match="ticketdesk"):
        builtin_models(NAMED)
