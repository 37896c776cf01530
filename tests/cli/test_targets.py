"""Targets on the command line and in the configuration: options, policies, targets of others."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from runs import Names, Site, called

from rcptgen.config import parse
from rcptgen.errors import ConfigurationError
from rcptgen.targets import option_names, target

pytestmark = pytest.mark.root

DOCUMENT = Path(__file__).parents[2] / "docs" / "targets.md"
NAMES: Names = {
    "passwd": {"joe": 1001, "ann": 1002},
    "control/me": "mail.example.org\n",
    "control/locals": "example.org\nmail.example.org\n",
    "control/virtualdomains": "shop.example:joe-shop\n",
    "control/rcpthosts": "example.org\nshop.example\nmail.example.org\n",
    "~joe/.qmail-list": "./Maildir/\n",
    "~joe/.qmail-shop-default": "ann\n",
    "~joe/.qmail-shop-spam": "|bouncesaying no\n",
    "alias/.qmail-postmaster": "joe\n",
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, NAMES)


def test_each_loss_is_named_with_its_rule_and_place(site: Site) -> None:
    done = site.run("compile", "--json", "-t", f"postfix={site.file}")
    assert done.status == 0
    output = json.loads(done.out)["outputs"][0]
    assert output["left_out"] == []
    lost = {one["rule"]: one for one in output["widened"]}
    # In its own virtual domain joe-shop-* is the whole of it; what is refused there cannot be.
    assert lost["!spam@shop.example"]["key"] == "@shop.example"
    assert lost["!spam@shop.example"]["file"].endswith("/.qmail-shop-spam")
    assert lost["joe-shop-*@example.org"]["key"] == "@example.org"
    assert lost["joe-shop-*@example.org"]["reason"] == "a prefix, and the format has none"
    assert lost["joe-shop-*@example.org"]["file"].endswith("/.qmail-shop-default")
    assert site.run("verify", "--target", "postfix", site.file).status == 0


def test_strict_publishes_nothing_that_has_lost_something(site: Site) -> None:
    done = site.run("compile", "--strict", "-t", f"postfix={site.file}")
    assert done.status == 1
    assert "cannot be said in this format (" in done.err
    assert not site.file.exists()
    assert site.run("compile", "--strict", "-t", f"rcptgen={site.file}").status == 0


def test_options_stand_behind_the_name(site: Site) -> None:
    text = site.top / "out" / "a=b,c"
    done = site.run("compile", "-t", f"postfix-access,form=text={text}")
    assert done.status == 0, done
    assert b"joe@example.org DUNNO\n" in text.read_bytes()
    shown = called("dump", "--target", "postfix-access,form=text", text)
    assert "!spam@shop.example" in shown.out
    asked = called("query", "--target", "postfix-access,form=text", text, "spam@shop.example", "x@elsewhere.example")
    assert asked.status == 1
    assert [line.split("\t")[0] for line in asked.out.splitlines()] == ["refuse", "undecided"]
    wrong = site.run("compile", "-t", f"postfix,fork=text={text}")
    assert wrong.status == 78
    assert "unknown option 'fork'; the nearest one is 'form'" in wrong.err
    assert called("dump", "--target", "postfix,form", text).status == 2
    assert called("dump", "--target", "nosuch", text).status == 2


def test_options_and_policies_of_the_configuration(tmp_path: Path) -> None:
    text = (
        '[[output]]\ntarget = "morevalidrcptto"\npath = "/x"\nform = "text"\nwildcards = "drop-domain"\n'
        '[[output]]\ntarget = "goodrcptto-qpsmtpd"\npath = "/y"\nextn = "-"\n'
    )
    outputs = parse(text.encode(), "c", option_names).outputs
    assert [(one.target, one.options, one.wildcards) for one in outputs] == [
        ("morevalidrcptto", {"form": "text"}, "drop-domain"),
        ("goodrcptto-qpsmtpd", {"extn": "-"}, "widen"),
    ]
    with pytest.raises(ConfigurationError, match=r"unknown key 'extm' in \[output\]"):
        parse(b'[[output]]\ntarget = "goodrcptto-qpsmtpd"\npath = "/y"\nextm = "-"\n', "c", option_names)
    with pytest.raises(ConfigurationError, match="wildcards"):
        parse(b'[[output]]\ntarget = "text"\npath = "/y"\nwildcards = "open"\n', "c", option_names)


def test_a_configured_output_is_known_by_its_path(site: Site) -> None:
    conf = site.top / "c.toml"
    conf.write_text(f'[[output]]\ntarget = "postfix-access"\npath = "{site.file}"\nform = "text"\n')
    assert site.run("compile", "-t", f"postfix-access,form=text={site.file}").status == 0
    asked = called("--config", conf, "query", site.file, "joe@example.org", "spam@shop.example")
    assert [line.split("\t") for line in asked.out.splitlines()] == [
        ["accept", "joe@example.org", "joe@example.org"],
        ["refuse", "spam@shop.example", "spam@shop.example"],
    ]
    assert "!spam@shop.example" in called("--config", conf, "dump", site.file).out
    assert site.run("--config", conf, "verify", site.file).status == 0


def test_a_domain_is_left_to_the_next_checker(site: Site) -> None:
    conf = site.top / "c.toml"
    conf.write_text(f'[[output]]\ntarget = "morevalidrcptto"\npath = "{site.file}"\nwildcards = "drop-domain"\n')
    done = site.run("--config", conf, "compile", "--json", "--dry-run")
    output = json.loads(done.out)["outputs"][0]
    assert output["left_out"] == ["example.org", "mail.example.org"]
    reasons = {one["reason"] for one in output["unsayable"]}
    assert "left out, so that another checker decides: a prefix, and the format has none" in reasons


@pytest.mark.parametrize("name", ["dnset", "haraka", "postfix", "json", "postfix-pcre"])
def test_a_file_without_its_state_is_no_reason_to_hold_anything(site: Site, name: str) -> None:
    """What a lossy file says is not what the rules were."""
    first = site.run("compile", "-t", f"{name}={site.file}")
    content = site.content
    shutil.rmtree(site.state)
    again = site.run("compile", "-t", f"{name}={site.file}")
    assert (first.status, again.status) == (0, 0), again
    assert site.content == content


def test_every_target_has_its_section() -> None:
    from rcptgen.targets import target_names

    words = " ".join(re.findall(r"^## (.*)$", DOCUMENT.read_text(), re.MULTILINE)).replace(",", "").split()
    assert set(target_names()) <= set(words)


# --- Targets of others ---------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The documentation's example, as pip would have put it there."""
    text = DOCUMENT.read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    points = re.search(r'```toml\n\[project\.entry-points\."(.*?)"\]\n(.*?)```', text, re.DOTALL)
    assert code is not None
    assert points is not None
    found = tmp_path / "packages"
    info = found / "ourformat-1.dist-info"
    info.mkdir(parents=True)
    (found / "ourformat.py").write_text(code[1] + "\nWrong = dict\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ourformat\nVersion: 1\n")
    more = 'wrong = "ourformat:Wrong"\nbroken = "ourformat:nosuch"\n'
    (info / "entry_points.txt").write_text(f"[{points[1]}]\n" + (points[2] + more).replace('"', ""))
    monkeypatch.syspath_prepend(str(found))
    monkeypatch.delitem(sys.modules, "ourformat", raising=False)
    return found


def test_only_what_is_named_is_loaded(installed: Path) -> None:
    with pytest.raises(ConfigurationError, match="no target is called 'ourformat'"):
        target("ourformat")
    assert "ourformat" not in sys.modules
    assert target("ourformat", plugins=["ourformat"]).name == "ourformat"
    for name, message in (("absent", "no installed package"), ("wrong", "not a class"), ("broken", "AttributeError")):
        with pytest.raises(ConfigurationError, match=message):
            target(name, plugins=[name])


def test_the_documented_example_is_compiled_and_proved(installed: Path, site: Site) -> None:
    conf = site.top / "c.toml"
    conf.write_text('[plugins]\ntargets = ["ourformat"]\n')
    done = site.run("--config", conf, "compile", "--full", "-t", f"ourformat={site.file}")
    assert done.status == 0, done
    assert b"+@example.org\n" in site.content
    assert site.run("--config", conf, "verify", "--target", "ourformat", site.file).status == 0
    assert "ann@mail.example.org" in called("--config", conf, "dump", "--target", "ourformat", site.file).out
