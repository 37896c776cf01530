"""Accounts of the system, as getpwnam(3) finds them in a passwd file."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = re.compile(rb"[ \t\n\v\f\r]*([+-]?)([0-9]+)")
_MAX_ID = 0xFFFFFFFF
_MAX_LONG = 0xFFFFFFFFFFFFFFFF
_MOST_DIGITS = 21


@dataclass(frozen=True, slots=True)
class Account:
    """One account; `line` is 0 where the system's account database gave it."""

    name: bytes
    uid: int
    gid: int
    home: bytes
    line: int = 0


def accounts(data: bytes) -> dict[bytes, Account]:
    """The accounts of a passwd file by name; the first of two entries with one name counts.

    As glibc's "files" service reads it: blank lines and lines that begin with `#` are
    skipped, leading blanks go, a uid or gid that is no number drops the line, fields may
    be missing at the end, and names that begin with `+` or `-` are never found.
    """
    found: dict[bytes, Account] = {}
    for number, raw in enumerate(data.split(b"\n"), 1):
        # A NUL ends a C string; what follows it is never seen.
        account = _account(raw.split(b"\0", 1)[0].lstrip(b" \t\v\f\r"), number)
        if account is not None:
            found.setdefault(account.name, account)
    return found


def _account(line: bytes, number: int) -> Account | None:
    if not line or line[:1] in b"#+-":
        return None
    name, _, rest = line.partition(b":")
    _, _, rest = rest.partition(b":")
    uid, rest, ok = _id(rest)
    if not ok:
        return None
    gid, rest, ok = _id(rest)
    if not ok:
        return None
    _, _, rest = rest.partition(b":")
    home, _, _ = rest.partition(b":")
    return Account(name, uid, gid, home, number)


def _id(text: bytes) -> tuple[int, bytes, bool]:
    """The number a field begins with, as strtoul(3) takes it; the rest; whether the field is well formed.

    glibc has no use for a number of more than 32 bits, and a minus sign makes one of nearly every number.
    """
    match = _NUMBER.match(text)
    if match is None or text[match.end() : match.end() + 1] not in (b":", b""):
        return 0, b"", False
    digits = match[2].lstrip(b"0")[:_MOST_DIGITS]
    value = int(digits or b"0")
    if match[1] == b"-" and value <= _MAX_LONG:
        value = -value & _MAX_LONG
    return value, text[match.end() + 1 :], value <= _MAX_ID


def group_id(data: bytes, name: bytes) -> int | None:
    """The number of group `name` in a group file, or None."""
    for raw in data.split(b"\n"):
        fields = raw.lstrip(b" \t").split(b":")
        if len(fields) >= 3 and fields[0] == name and fields[2].isdigit():
            number = int(fields[2].lstrip(b"0")[:_MOST_DIGITS] or b"0")
            if number <= _MAX_ID:
                return number
    return None
