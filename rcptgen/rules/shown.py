"""Bytes from files as text that is safe to show: nothing reaches a terminal, a log or JSON unescaped."""

from __future__ import annotations

import base64


def shown(data: bytes) -> str:
    """`data` for a person: UTF-8 where it is printable, everything else as backslash escapes."""
    return "".join(_escaped(one) for one in data.decode("utf-8", "backslashreplace"))


def safe(text: str) -> str:
    """`text` for a person, whatever names it was made of: one line, without a control character."""
    return shown(text.encode("utf-8", "surrogateescape"))


def _escaped(one: str) -> str:
    if one.isprintable():
        return one
    number = ord(one)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def as_json(name: str, data: bytes) -> dict[str, str]:
    """`data` as a JSON member `name`; where it is not UTF-8, with the exact bytes in `name`_b64 beside it."""
    try:
        return {name: data.decode("utf-8")}
    except UnicodeDecodeError:
        text = data.decode("utf-8", "backslashreplace")
        return {name: text, f"{name}_b64": base64.b64encode(data).decode("ascii")}
