"""What a generation tells of its making: who asked for it, what it changed, what was held back."""

from __future__ import annotations

import msgspec


def clean(text: str) -> str:
    """`text` without the halves of characters that stand for bytes of no text: JSON cannot hold them."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Who(msgspec.Struct, frozen=True, kw_only=True):
    """A person as far as the system knows: the real uid, who called sudo, who logged in (None: nobody did)."""

    uid: int
    user: str = ""
    sudo_user: str = ""
    login: int | None = None
    login_user: str = ""

    def __str__(self) -> str:
        user = self.user or f"uid {self.uid}"
        others = []
        if self.sudo_user and self.sudo_user != user:
            others.append(f"sudo by {self.sudo_user}")
        login = "" if self.login is None else self.login_user or f"uid {self.login}"
        if login and login not in (user, self.sudo_user):
            others.append(f"logged in as {login}")
        return f"{user} ({', '.join(others)})" if others else user


class Rollback(msgspec.Struct, frozen=True, kw_only=True):
    """The order that nothing of generation `number`, which is of `time`, may be refused; in force since `since`."""

    number: int
    time: float
    since: float
    by: Who | None = None


class Withheld(msgspec.Struct, frozen=True, kw_only=True):
    """Removals of a domain, or its new catch-all, that were held; names are latin-1, one character a byte.

    `check` tells two sets of removals apart that are alike in all else.
    """

    domain: str
    catch_all: bool = False
    since: float
    reason: str
    count: int
    sample: list[str] = []
    check: int = 0


class DomainChange(msgspec.Struct, frozen=True, kw_only=True):
    """How many rules of one domain (latin-1) were gained, lost, or are now of another kind."""

    domain: str
    gained: int
    lost: int
    changed: int = 0


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What one publication changed for recipients; `most` are the domains with most of it, at most MOST_AFFECTED."""

    gained: int = 0
    lost: int = 0
    changed: int = 0
    domains: int = 0
    most: list[DomainChange] = []


MOST_AFFECTED = 20
