"""How C reads the texts in vpopmail's files, and which names it takes."""

from __future__ import annotations

import re

_NUMBER = re.compile(rb"[ \t\n\v\f\r]*([+-]?)0*([0-9]*)")
_LONGEST = 19
_HIGHEST = (1 << 63) - 1
_NAME = bytes(
    one for one in range(33, 127) if one in b"!#$&'*+=?" or 45 <= one <= 57 or 65 <= one <= 90 or 94 <= one <= 126
)
_DOMAIN = b"-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def atoi(text: bytes) -> int:
    """The number that the text begins with, as an int of 32 bits (atoi of the C library: strtol, cut)."""
    found = _NUMBER.match(text)
    assert found is not None
    sign, digits = found[1], found[2]
    value = int(digits or b"0") if len(digits) <= _LONGEST else _HIGHEST + 1
    value = -min(value, _HIGHEST + 1) if sign == b"-" else min(value, _HIGHEST)
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def c_string(text: bytes) -> bytes:
    """What is left of a text that ends at its first NUL."""
    return text.partition(b"\0")[0]


def is_username_valid(name: bytes) -> bool:
    """Whether vdelivermail looks such a name up at all (vpopmail.c: is_username_valid)."""
    return not name.translate(None, _NAME)


def is_domain_valid(name: bytes) -> bool:
    """The same for domains (vpopmail.c: is_domain_valid)."""
    return not name.translate(None, _DOMAIN)


def all_valid(joined: bytes) -> bool:
    """Whether all of several names, joined by newlines, could be looked up."""
    return not joined.translate(None, _NAME + b"\n")
