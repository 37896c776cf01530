"""Hooks: told what was held or published, without a lock, a shell or our environment; never in the way."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from runs import HERE, Names, Run, Site

from rcptgen import hooks
from rcptgen.config import Config, parse
from rcptgen.errors import ConfigurationError, PublishFailed
from rcptgen.hooks import HOLD, PUBLISH, run
from rcptgen.publish import files

MAILDIR = "./Maildir/\n"


def script(path: Path, text: str) -> tuple[str, ...]:
    """A program of Python that a hook may be, as its command."""
    path.write_text(f"import json, os, subprocess, sys, time\n{text}\n")
    return (sys.executable, str(path))


# --- one hook ------------------------------------------------------------------------------------


def test_what_a_hook_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCPTGEN_SECRET", "x")
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    told = (
        "told = [sys.stdin.read(), dict(os.environ), os.getcwd(), os.getsid(0) == os.getpid(), sys.argv[1:]]\n"
        f"open({str(out)!r}, 'w').write(json.dumps(told + [os.listdir('/proc/self/fd')]))"
    )
    command = (*script(tmp_path / "hook", told), "$HOME; one word")
    assert run(command, HOLD, b'{"a": 1}\n') == []
    stdin, environment, directory, leads, arguments, descriptors = json.loads(out.read_text())
    assert stdin == '{"a": 1}\n'
    assert {name for name in environment if name not in ("LC_CTYPE", "__CF_USER_TEXT_ENCODING")} == {
        "PATH",
        "LC_ALL",
        "RCPTGEN_HOOK",
    }
    assert (directory, leads, arguments) == ("/", True, ["$HOME; one word"])
    # 0 to 2, `out`, and the one that lists them.
    assert len(descriptors) == 5


def test_large_plan_that_nobody_reads(tmp_path: Path) -> None:
    assert run(("/bin/true",), HOLD, bytes(1 << 24)) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sys.exit(3)", "ended with status 3"),
        ("os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("os.close(1); os.close(2); sys.exit(3)", "ended with status 3"),
    ],
)
def test_failures_are_warnings(tmp_path: Path, text: str, words: str) -> None:
    assert run(script(tmp_path / "hook", text), PUBLISH, b"") == [f"[history] on_publish: {words}"]


def test_missing_program_is_a_warning(tmp_path: Path) -> None:
    (warning,) = run((str(tmp_path / "nothing"),), HOLD, b"")
    assert warning.startswith("[guard] on_hold: cannot run ")


def test_output_is_escaped_and_bounded(tmp_path: Path) -> None:
    text = "os.write(1, b'one\\x1b[2J\\n'); os.write(2, b'x' * 1000000); sys.exit(1)"
    failed, first, second = run(script(tmp_path / "hook", text), HOLD, b"")
    assert failed.endswith("status 1")
    assert first == "[guard] on_hold: one\\x1b[2J"
    assert len(second) < 20_000


def test_time_limit_ends_the_whole_group(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    text = (
        "subprocess.Popen([sys.executable, '-c', "
        f"\"import time; time.sleep(3); open({str(mark)!r}, 'w')\"])\nprint('started', flush=True)\ntime.sleep(60)"
    )
    begin = time.monotonic()
    warnings = run(script(tmp_path / "hook", text), HOLD, b"", limit=1)
    assert time.monotonic() - begin < 20
    assert warnings == [
        "[guard] on_hold: killed, since it did not end within 1 seconds",
        "[guard] on_hold: started",
    ]
    time.sleep(max(0.0, 4.5 - (time.monotonic() - begin)))
    assert not mark.exists()


def test_what_goes_on_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    """Although it has the output of the hook open."""
    text = "subprocess.Popen(['/bin/sleep', '30']); print('done')"
    begin = time.monotonic()
    assert run(script(tmp_path / "hook", text), HOLD, b"", limit=20) == ["[guard] on_hold: done"]
    assert time.monotonic() - begin < 15


@pytest.mark.parametrize(
    "table", ['[guard]\non_hold = ["mail"]', '[history]\non_publish = ["x"]', "[history]\nkeep = 1"]
)
def test_configuration(table: str) -> None:
    with pytest.raises(ConfigurationError):
        parse(table.encode(), "test")
    config: Config = parse(b'[guard]\non_hold = ["/bin/x", "a b"]\n[history]\nkeep = 2\n', "test")
    assert (config.guard.on_hold, config.history.keep, config.history.on_publish) == (("/bin/x", "a b"), 2, ())


# --- in a run ------------------------------------------------------------------------------------


class Told(Site):
    """A site whose configuration is not that of the host."""

    def run(self, *arguments: str | os.PathLike[str]) -> Run:
        """Any command with the configuration `top`/rcptgen.toml."""
        return super().run("--config", self.top / "rcptgen.toml", *arguments)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A host whose hooks each append a line to a file."""
    hook = script(tmp_path / "hook", "open(sys.argv[1], 'a').write(sys.stdin.read()); sys.exit(len(sys.argv) - 2)")
    configuration = (
        f"[guard]\non_hold = {json.dumps([*hook, str(tmp_path / 'told')])}\n"
        f"[history]\non_publish = {json.dumps([*hook, str(tmp_path / 'told'), 'fail'])}\n"
    )
    names: Names = {
        "passwd": {"joe": 1001},
        "control/me": "example.org\n",
        "control/locals": "",
        "control/virtualdomains": "shop.example:joe\n",
        **{f"~joe/.qmail-n{number:02}": MAILDIR for number in range(10)},
    }
    (tmp_path / "rcptgen.toml").write_text(configuration)
    return Told(tmp_path, names)


def events(site: Site) -> list[dict[str, object]]:
    """What the hooks were told since the last time."""
    path = site.top / "told"
    lines = path.read_text().splitlines() if path.exists() else []
    path.write_text("")
    return [json.loads(line) for line in lines]


def warned(done: Run) -> bool:
    return "[history] on_publish: ended with status 1" in done.json["warnings"]


@pytest.mark.root
def test_told_of_each_publication_and_hold(site: Site) -> None:
    done = site.compile("--dry-run")
    assert events(site) == []
    done = site.published()
    (told,) = events(site)
    assert (told["event"], told["generation"], told["gained"]) == ("publish", 1, 10)
    # That it fails is said, and changes nothing.
    assert (done.status, warned(done)) == (0, True)
    done = site.published()
    assert (events(site), warned(done)) == ([], False)
    for number in range(6):
        site.host.remove(f"~joe/.qmail-n{number:02}")
    assert site.compile().status == 3
    (told,) = events(site)
    assert told["event"] == "hold"
    held = told["held"]
    assert isinstance(held, list)
    assert [(one["domain"], one["count"], len(one["sample"])) for one in held] == [("shop.example", 6, 6)]
    # Once for each thing that is held, not every five minutes.
    assert site.compile().status == 3
    assert events(site) == []
    site.host.remove("~joe/.qmail-n06")
    site.compile()
    assert [one["event"] for one in events(site)] == ["hold"]
    assert site.approve().status == 0
    (told,) = events(site)
    assert (told["event"], told["reason"], told["lost"]) == ("publish", "approved", 7)
    assert isinstance(told["by"], dict)
    assert told["by"]["uid"] == os.getuid()


@pytest.mark.root
def test_told_of_a_rollback(site: Site) -> None:
    site.published()
    site.host.remove("~joe/.qmail-n00")
    site.published()
    events(site)
    assert site.run("rollback", "-t", site.output).status == 0
    (told,) = events(site)
    assert told["reason"] == "rollback"
    assert isinstance(told["rollback"], dict)
    assert told["rollback"]["generation"] == 1


@pytest.mark.root
def test_told_although_a_directory_cannot_be_synced(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(files, "_sync_directories", lambda done: (b"/out", OSError(5, "Input/output error")))
        assert site.compile().status == PublishFailed.status
    assert [one["event"] for one in events(site)] == ["publish"]


@pytest.mark.root
def test_not_told_where_nothing_is_published(site: Site) -> None:
    path = site.top / "rcptgen.toml"
    path.write_text(path.read_text().replace("[guard]\n", '[guard]\nmust_accept = ["nobody@nowhere.example"]\n'))
    assert site.compile().status == 1
    assert events(site) == []


@pytest.mark.root
def test_what_another_root_says_is_not_obeyed(site: Site) -> None:
    """Its hooks would run on this machine, as root."""
    site.host.write("/etc/rcptgen.toml", (site.top / "rcptgen.toml").read_text())
    assert Site.run(site, "compile", "-t", site.output).status == 0
    assert events(site) == []
    site.host.write("~joe/.qmail-new", MAILDIR)
    site.published()
    assert len(events(site)) == 1


@pytest.mark.root
def test_a_hook_may_call_rcptgen_itself(site: Site) -> None:
    """No lock is held; and what it publishes by that does not call it again."""
    site.published()
    inner = [sys.executable, "-P", "-m", "rcptgen", "--root", str(site.host.root), "--state", str(site.state)]
    inner += ["--config", str(site.top / "rcptgen.toml"), "approve", "-t", site.output]
    hook = script(
        site.top / "again", f"open({str(site.top / 'calls')!r}, 'a').write('x'); sys.exit(subprocess.call({inner!r}))"
    )
    both = json.dumps([*hook])
    (site.top / "rcptgen.toml").write_text(f"[guard]\non_hold = {both}\n[history]\non_publish = {both}\n")
    for number in range(6):
        site.host.remove(f"~joe/.qmail-n{number:02}")
    done = site.compile()
    assert done.status == 3
    assert not [one for one in done.json["warnings"] if "ended" in one or "killed" in one], done
    assert not site.accepts("n00@shop.example")
    # on_hold once, and on_publish once for what that approved.
    assert (site.top / "calls").read_text() == "xx"


def test_the_limit_is_the_documented_one() -> None:
    page = HERE.parent / "docs" / "guard.md"
    if page.exists():
        assert f"{hooks.TIME_LIMIT:.0f} seconds" in page.read_text()
