"""text: the rules as `list` writes them, for people, diff and grep.

    joe@example.org
    joe-shop-*@example.org
    !joe-shop-spam@example.org
    *@backup.example

Whatever is not printable ASCII, and `\\`, `*`, `!` and `#` in a name, is written as `\\xHH`.
Lossless: the most specific rule decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rcptgen.targets.files import Record
from rcptgen.targets.listing import Rules, plainly
from rcptgen.targets.stated import EXACT, PREFIX

_ODD = re.compile(rb"[^!-~]|[\\*!#]")
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


class Text(Rules):
    """Rules as text."""

    name = "text"
    newlines = True

    def render(self, keys: Sequence[bytes], value: bytes) -> bytes:
        """One line for each key."""
        refusal = b"" if value.startswith(b"accept") else b"!"
        lines = plainly(keys, refusal + rb"\1@\2")
        if lines is not None:
            return lines
        return b"".join(refusal + _written(key) + b"\n" for key in keys)

    def parse(self, line: bytes) -> Record | None:
        """The rule that a line states."""
        if not line or line.startswith(b"#"):
            return None
        text = line.removeprefix(b"!")
        local, at, domain = text.rpartition(b"@")
        wild = bool(at) and local.endswith(b"*")
        name = local.removesuffix(b"*") if wild else text[: len(local)] if at else text
        rest = (name, domain)
        if any(_ODD.search(_ESCAPE.sub(b"", one)) for one in rest):
            raise ValueError("not user@domain, prefix*@domain or *@domain")
        key = (PREFIX if wild else EXACT) + _read(name) + (b"@" + _read(domain) if at else b"")
        return Record(key, b"accept,unknown" if text == line else b"refuse,refusal", wild)


def _written(key: bytes) -> bytes:
    local, at, domain = key[1:].rpartition(b"@")
    star = b"*" if key.startswith(PREFIX) else b""
    return _safe(local) + star + at + _safe(domain)


def _safe(name: bytes) -> bytes:
    return _ODD.sub(lambda found: b"\\x%02x" % found[0][0], name)


def _read(name: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), name)
