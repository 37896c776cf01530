"""The parts of a machine that some tests need, and what is said when one is missing.

A test names what it needs (`@pytest.mark.needs("root", "tinycdb")`, or `part("tinycdb")` with
the fixture) and is skipped where the machine lacks it.  Every missing part is announced at
the end of the run.  RCPTGEN_REQUIRE (names, separated by commas or blanks) turns a missing
part into a failure: a CI that silently skips proves nothing.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from databases import missing_mariadb, missing_postgresql
from mailservers import missing_mailservers

import rcptgen

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent

CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_SETGID, CAP_SETUID = 0, 1, 6, 7


def _root() -> str:
    """Owners decide what qmail does, and only root can set them and become them."""
    if os.geteuid() != 0:
        return "not run as root: owners cannot be set, homes cannot be read as their owners"
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    held = int(status.partition("CapEff:")[2].split()[0], 16)
    lacking = [c for c in (CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_SETGID, CAP_SETUID) if not held >> c & 1]
    return f"root without the capabilities {lacking}" if lacking else ""


def _program(name: str, package: str, *trial: str) -> str:
    if shutil.which(name) is None:
        return f"no {name} (Debian: apt-get install {package})"
    if trial:
        done = subprocess.run([name, *trial], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            return f"{name} does not work here: {said[-1] if said else done.returncode}"
    return ""


def browse(*options: str) -> subprocess.CompletedProcess[str]:
    """Chromium, without a window, with a profile of its own.

    As root its own sandbox does not start; what it is shown here is ours.  It puts a socket
    below TMPDIR, whose name may have 107 bytes: that of a test's folder is too long.
    """
    found = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
    words = found, "--headless", "--no-sandbox", "--no-zygote", "--disable-gpu", "--disable-dev-shm-usage"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        return subprocess.run(
            [*words, "--hide-scrollbars", f"--user-data-dir={own}/profile", *options],
            cwd=own,
            env={**os.environ, "TMPDIR": "."},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def _chromium() -> str:
    try:
        done = browse("--dump-dom", "data:text/html,<p>It%20is%20alive.</p>")
    except OSError:
        return "no chromium (Debian: apt-get install chromium)"
    except subprocess.TimeoutExpired:
        return "chromium says nothing within two minutes"
    if "It is alive." in done.stdout:
        return ""
    return f"chromium ends with {done.returncode} and shows no page: {done.stderr[:1000]!r}"


def _wheel() -> str:
    if os.environ.get("RCPTGEN_TEST_WHEEL") != "1":
        return "the checkout is tested, not the wheel (script/test builds one)"
    where = Path(rcptgen.__file__).resolve()
    return "" if where.is_relative_to(Path(sys.prefix).resolve()) else f"rcptgen comes from {where}"


def _vectors() -> str:
    found = len(list((HERE / "vectors").glob("*/*.json")))
    return "" if found >= 126 else f"{found} vectors in tests/vectors, there should be 126 at least"


def _checkout() -> str:
    return "" if (CHECKOUT / "pyproject.toml").is_file() else "the tests do not stand in a checkout"


PARTS: dict[str, Callable[[], str]] = {
    "root": _root,
    "tinycdb": lambda: _program("cdb", "tinycdb"),
    "strace": lambda: _program("strace", "strace", "-o", "/dev/null", "true"),
    "systemd": lambda: _program("systemd-analyze", "systemd", "--version"),
    "groff": lambda: _program("groff", "groff-base"),
    "chromium": _chromium,
    "zsh": lambda: _program("zsh", "zsh", "-f", "-c", "true"),
    "fish": lambda: _program("fish", "fish", "--no-config", "-c", "true"),
    "mariadb": missing_mariadb,
    "postgresql": missing_postgresql,
    "mailservers": missing_mailservers,
    "wheel": _wheel,
    "vectors": _vectors,
    "checkout": _checkout,
}
"""Each part with what answers why it is missing; an empty answer: it is there."""


@functools.cache
def missing(name: str) -> str:
    """Why this machine lacks the part `name`; empty where it does not."""
    if name not in PARTS:
        raise LookupError(f"no part is called {name!r}; there are: {', '.join(PARTS)}")
    return PARTS[name]()


def required() -> list[str]:
    """The parts that RCPTGEN_REQUIRE names."""
    return os.environ.get("RCPTGEN_REQUIRE", "").replace(",", " ").split()


def factor() -> int:
    """How many times as long as an ordinary run this one is (script/long sets RCPTGEN_LONG)."""
    return int(os.environ.get("RCPTGEN_LONG", "") or 1)


def rounds(ordinary: int) -> int:
    """How often to repeat something: `ordinary` times, in a long run many times as often.

    Made for loops and for `@settings(max_examples=rounds(2000))`.
    """
    return ordinary * factor()
