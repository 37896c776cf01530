"""Who gives an order: the real uid, who called sudo, who logged in."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from rcptgen.publish.history import Who

NOBODY = 0xFFFFFFFF
"""The login uid of what no login has started, such as a cron job."""

_LONGEST = 64


def who() -> Who:
    """The person behind this process, for the history: what the system says, not proof against root."""
    login = _login()
    return Who(
        uid=os.getuid(),
        user=_name(os.getuid()),
        sudo_user=os.fsencode(os.environ.get("SUDO_USER", ""))[:_LONGEST].decode("utf-8", "backslashreplace"),
        login=login,
        login_user="" if login is None else _name(login),
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name[:_LONGEST]
    except KeyError:
        return ""


def _login() -> int | None:
    try:
        uid = int(Path("/proc/self/loginuid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if uid == NOBODY else uid
