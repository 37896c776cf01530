"""Man pages and shell completion: what share/ holds is what the commands and docs/configuration.md say."""

from __future__ import annotations

import os
import pty
import re
import resource
import select
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from runs import called

from rcptgen import config
from rcptgen.cli import COMMANDS

TOP = Path(__file__).resolve().parent.parent
SHARE = TOP / "share"
CONFIGURATION = TOP / "docs" / "configuration.md"
SCRIPTS = Path(sys.executable).parent
COMPLETION = {
    "bash": SHARE / "bash-completion/completions/rcptgen",
    "fish": SHARE / "fish/vendor_completions.d/rcptgen.fish",
}

pytestmark = pytest.mark.needs("checkout")


def page(name: str, section: int = 1) -> str:
    """A man page's source with roff's escapes taken out."""
    text = (SHARE / f"man/man{section}/{name}.{section}").read_text()
    for escape, letter in (("\\-", "-"), ("\\(aq", "'"), ("\\(ga", "`"), ("\\(ti", "~"), ("\\(ha", "^"), ("\\&", "")):
        text = text.replace(escape, letter)
    return re.sub(r"\\f[BIR]", "", text).replace("\\e", "\\")


def parts(text: str) -> dict[str, str]:
    """The sections of a page."""
    return dict(re.findall(r"^\.SH (.*)\n((?:(?!\.SH ).*\n)*)", text, re.MULTILINE))


# --- Man pages ---------------------------------------------------------------------------------


def test_share_is_up_to_date() -> None:
    """A new command, option or key: run script/make_docs.py and commit what it writes."""
    command = [sys.executable, str(TOP / "script" / "make_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def names(terms: list[str]) -> set[str]:
    """The options in the left column of a help, or in the terms of a page."""
    return {one for term in terms for one in re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", term)}


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_a_page_has_what_help_has(name: str | None) -> None:
    shown = called(*([name] if name else []), "--help").out
    found = parts(page(f"rcptgen-{name}" if name else "rcptgen"))
    options = shown.partition("\nOptions:\n")[2].partition("\nCommands:\n")[0]
    wanted = names(re.findall(r"^  (-.*?)(?:  |$)", options, re.MULTILINE))
    assert {"-h", "--help"} < wanted or name is not None
    assert names(re.findall(r"^\.TP\n(.*)", found["OPTIONS"], re.MULTILINE)) == wanted
    if name is not None:
        usage = " ".join(shown.partition("\n\n")[0].split())
        # click 8.1 does not say that a command below may be left out.
        said = usage.partition("[OPTIONS]")[2].strip().replace("[COMMAND]", "COMMAND")
        written = found["SYNOPSIS"].partition(f" {name} [options]")[2].strip().replace("[COMMAND]", "COMMAND")
        assert said == written


def test_every_command_stands_in_the_first_page() -> None:
    listed = re.findall(r"^rcptgen-([\w-]+)\(1\)$", parts(page("rcptgen"))["COMMANDS"], re.MULTILINE)
    assert listed == list(COMMANDS)
    statuses = re.findall(r"^(\d+)$", parts(page("rcptgen"))["EXIT STATUS"], re.MULTILINE)
    assert statuses == re.findall(r"^\| ([0-9]+) \|", (TOP / "README.md").read_text(), re.MULTILINE)


def test_the_same_pages_every_day() -> None:
    """No dates: a package that is built twice is the same."""
    for path in (SHARE / "man").rglob("*.?"):
        assert re.match(r'\.\\" .*\n\.TH \S+ [15] "" "rcptgen [\d.]+"\n', path.read_text())


@pytest.mark.needs("groff")
@pytest.mark.parametrize("path", sorted(SHARE.rglob("man/**/*.?")), ids=lambda path: path.name)
def test_pages_are_sound(path: Path) -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-P-cbou", "-ww", "-b", path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "NAME" in done.stdout


@pytest.mark.needs("wheel")
def test_the_wheel_installs_them() -> None:
    wanted = [path.relative_to(SHARE) for path in SHARE.rglob("*") if path.is_file()]
    have = Path(sys.prefix) / "share"
    assert len(wanted) > len(COMMANDS)
    for path in wanted:
        assert (have / path).read_bytes() == (SHARE / path).read_bytes()


# --- The configuration -------------------------------------------------------------------------


def documented() -> dict[str, dict[str, str]]:
    """The keys of each section of docs/configuration.md with the defaults they are said to have."""
    found: dict[str, dict[str, str]] = {}
    for part in re.split(r"^## ", CONFIGURATION.read_text(), flags=re.MULTILINE)[1:]:
        name = part.partition("\n")[0].strip("[]")
        assert name not in found
        keys = re.findall(r"^### `(\w+)`(?: = `(.*)`)?\n\n\S", part, re.MULTILINE)
        assert len(keys) == part.count("\n### ") == len(dict(keys))
        found[name] = dict(keys)
    return found


def known() -> dict[str, dict[str, Any]]:
    """The keys of each section with their defaults; NODEFAULT for those that must be given."""
    found: dict[str, dict[str, Any]] = {name: {} for name in config.Config.__struct_encode_fields__}
    for name, section in config._SECTIONS.items():
        found[name] = {one.encode_name: one.default for one in msgspec.structs.fields(section)}
    # What holds a target's own options, which stand in the section by their own names (docs/targets.md).
    del found["output"]["options"]
    return found


def test_every_section_and_key_is_documented_and_no_other() -> None:
    assert {name: set(keys) for name, keys in documented().items()} == {
        name: set(keys) for name, keys in known().items()
    }


def test_the_documented_defaults_are_those() -> None:
    defaults = known()
    for section, keys in documented().items():
        for key, written in keys.items():
            value = defaults[section][key]
            if not written:
                assert value is msgspec.NODEFAULT, f"[{section}] {key}"
                continue
            said = tomllib.loads(f"x = {written}")["x"]
            assert (said, type(said)) == (list(value) if isinstance(value, tuple) else value, type(said)), (
                f"[{section}] {key}"
            )


# --- Completion --------------------------------------------------------------------------------


def completed(*words: str, shell: str = "bash") -> list[str]:
    """What the program answers to a shell: `type,value`."""
    environment = {
        **os.environ,
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_RCPTGEN_COMPLETE": f"{shell}_complete",
    }
    done = subprocess.run([SCRIPTS / "rcptgen"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_words_are_completed() -> None:
    assert completed("rcptgen", "comp") == ["plain,compile"]
    assert completed("rcptgen", "") == [f"plain,{name}" for name in COMMANDS]
    assert completed("rcptgen", "verify", "--f") == ["plain,--full"]
    assert completed("rcptgen", "verify", "--target", "val") == ["plain,validrcptto"]


@pytest.mark.parametrize(
    "words", [("dump", ""), ("verify", ""), ("query", ""), ("replay", "/var/"), ("--root", ""), ("--config", "")]
)
def test_files_are_left_to_the_shell(words: tuple[str, ...]) -> None:
    assert [one.partition(",")[0] for one in completed("rcptgen", *words)] == ["file"]


def test_completing_does_not_look_at_the_host(tmp_path: Path) -> None:
    """A host that could not even be opened, and a configuration with an error, change nothing."""
    (tmp_path / "bad.toml").write_text("[nonsense]\n")
    begun = spent()
    words = ("--root", str(tmp_path / "gone"), "--config", str(tmp_path / "bad.toml"), "compile", "--dry")
    assert completed("rcptgen", *words) == ["plain,--dry-run"]
    assert spent() - begun < 2


def spent() -> float:
    """The seconds that programs started from here have worked."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_bash_loads_it() -> None:
    script = (
        f"PATH={SCRIPTS}:$PATH; . {COMPLETION['bash']}; complete -p rcptgen; "
        'COMP_WORDS=(rcptgen exp); COMP_CWORD=1; _rcptgen_completion rcptgen; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[1:] == ["explain"]
    assert "_rcptgen_completion" in done.stdout


def test_a_person_at_a_terminal_presses_tab() -> None:
    """The whole way: bash, its line editor, the script, the program."""
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {"PATH": f"{SCRIPTS}:/usr/bin:/bin", "TERM": "dumb", "PS1": "> ", "HISTFILE": ""}
        arguments = ["bash", "--norc", "--noprofile", "-i"]
        os.execve("/bin/bash", arguments, environment)  # noqa: S606 - the shell is what is tested
    try:
        os.write(terminal, f". {COMPLETION['bash']}\n".encode())
        os.write(terminal, b"rcptgen comp\t--dry\t\x01echo got: \n")
        shown = b""
        end = time.monotonic() + 30
        while b"\ngot: rcptgen compile --dry-run" not in shown:
            assert time.monotonic() < end, shown
            if select.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 4096)
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


@pytest.mark.needs("zsh")
def test_zsh_loads_it() -> None:
    functions = SHARE / "zsh" / "site-functions"
    script = (
        f"fpath=({functions} $fpath); autoload -Uz compinit; compinit -u -D; "
        "print $_comps[rcptgen]; autoload +X _rcptgen"
    )
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "_rcptgen\n", "")


@pytest.mark.needs("fish")
def test_fish_completes() -> None:
    script = f"set -gx PATH {SCRIPTS} $PATH; source {COMPLETION['fish']}; complete -C 'rcptgen expl'"
    done = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout.split()[:1], done.stderr) == (["explain"], "")
