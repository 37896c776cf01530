"""Who gives an order: the real uid, who called sudo, who logged in."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from rcptgen.publish.history import Who, clean

NOBODY = 0xFFFFFFFF
"""The login uid of what no login has started, such as a cron job."""

LOGIN = Path("/proc/self/loginuid")

_LONGEST = 64


def who() -> Who:
    """The person behind this process, for the history: what the system says, not proof against root."""
    login = _login()
    return Who(
        uid=os.getuid(),
        user=_name(os.getuid()),
        sudo_user=clean(os.environ.get("SUDO_USER", "")[:_LONGEST]),
        login=login,
        login_user="" if login is None else _name(login),
    )


def _name(uid: int) -> str:
    try:
        return clean(pwd.getpwuid(uid).pw_name[:_LONGEST])
    except KeyError:
        return ""


def _login() -> int | None:
    try:
        uid = int(LOGIN.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if uid == NOBODY else uid
