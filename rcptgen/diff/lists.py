"""Lists of rules as text.

    rule    = ["!"] name ["*"] ["@" domain]      as `rcptgen list` and `rcptgen dump` write it
    line    = rule | JSON object                 as `rcptgen list --json` writes it

`user@domain`, `prefix*@domain`, `*@domain`; `!` refuses; a rule without `@` is for addresses
without a domain.  Blank lines, and lines that begin with `# `, say nothing.  Escapes are those
of `shown`: a byte that is not printable as `\\x1b`, a character as `\\u202e`.  As text cannot
tell a byte from a backslash in all cases, nor a name that begins with `!` or ends in `*` from
a rule, such names are only safe in JSON, which gives the kinds, too.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from typing import Any

from rcptgen.diff.spool import Spool, listed
from rcptgen.errors import UsageTrouble
from rcptgen.rules.outcome import Kind, Outcome
from rcptgen.rules.shown import shown

LONGEST = 1 << 20
"""A line with more bytes is none of a list."""

_ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")


def read(lines: Iterable[bytes], called: str, spool: Spool) -> None:
    """Puts every rule in `lines` into `spool`.

    Raises UsageTrouble, with the number of the line, for one that is no rule.
    """
    for number, line in enumerate(lines, 1):
        text = line.rstrip(b"\r\n")
        try:
            if text.startswith(b"{") and text.endswith(b"}"):
                spool.add(*_object(text))
            elif text.strip() and not text.startswith(b"# "):
                spool.add(*_rule(text))
        except ValueError as error:
            raise UsageTrouble(f"{called}:{number}: {error}") from None


_Found = tuple[bytes, bytes, bool, Outcome]


def _rule(text: bytes) -> _Found:
    if len(text) > LONGEST or b"\0" in text:
        raise ValueError("this is no list of rules")
    accepted = not text.startswith(b"!")
    text = text if accepted else text[1:]
    if b"\\" in text:
        text = _ESCAPE.sub(_unescaped, text)
    local, at, domain = text.rpartition(b"@")
    if not at:
        local, domain = domain, b""
    elif not domain:
        raise ValueError(f"no domain after the @ of {shown(text)!r}")
    prefix = local.endswith(b"*")
    if not at and (prefix or not local):
        raise ValueError(f"{shown(text)!r} is not user@domain, prefix*@domain or *@domain")
    name = local[:-1] if prefix else local
    return (at + domain).lower(), name.lower(), prefix, listed(accepted)


def _unescaped(found: re.Match[bytes]) -> bytes:
    """The byte or the character that `shown` would have written so; what it would not have, as it stands."""
    byte, *characters = found.groups()
    number = int(byte or next(filter(None, characters)), 16)
    if number > 0x10FFFF or (number < 0x80 and chr(number).isprintable()):
        return found[0]
    if byte:
        return bytes([number])
    if chr(number).isprintable():
        return found[0]
    return chr(number).encode("utf-8", "surrogatepass")


def _object(text: bytes) -> _Found:
    try:
        found = json.loads(text)
    except ValueError:
        raise ValueError("neither a rule nor JSON as `rcptgen list --json` writes it") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    accepted, prefix = found.get("accepted"), found.get("prefix")
    if not isinstance(accepted, bool) or not isinstance(prefix, bool):
        raise ValueError("a JSON object without the members of `rcptgen list --json`")
    domain, name = _member(found, "domain"), _member(found, "name")
    kind = Kind(found["kind"]) if found.get("kind") is not None else Kind.UNKNOWN
    return b"@" + domain.lower(), name.lower(), prefix, listed(accepted, kind)


def _member(found: dict[str, Any], member: str) -> bytes:
    """The bytes of a member that `as_json` made."""
    exact, text = found.get(f"{member}_b64"), found.get(member)
    if isinstance(exact, str):
        try:
            return base64.b64decode(exact, validate=True)
        except binascii.Error:
            raise ValueError(f"{member}_b64 is not base64") from None
    if not isinstance(text, str):
        raise ValueError(f"a JSON object without {member!r}")
    return text.encode("utf-8", "surrogatepass")
