"""recipients.cdb of s/qmail and of indimail.

Look-up: the lines of control/recipients in their order, of which `!domain` takes a whole
domain; in the cdb `:user@domain`, then `:user-@domain`, the text up to and including the
first break character.  The open domains stand in the cdb, too, under keys with `!` in
front, which the server never asks for: `rcptgen dump` shows them as `*@domain`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from rcptgen.targets.base import Answer, Line, Prefixes, Says
from rcptgen.targets.formats import CdbFormat, Get
from rcptgen.targets.lowering import Said

KEY, OPEN = b":", b"!"


class Sqmail(CdbFormat):
    """The cdb that qmail-recipients makes."""

    name = "sqmail"
    says = Says(prefixes=Prefixes.FIRST)
    bad_domain = re.compile(rb"[^!-~]|[:|]")

    def configure(self) -> None:
        """A name that ends in its first break character is the key of its extensions."""
        self.double_end = self.break_

    def key(self, prefix: bytes, domain: bytes) -> bytes:
        """:PREFIX@domain, or !domain."""
        return KEY + prefix + b"@" + domain if prefix else OPEN + domain

    def keys(self, names: Iterable[bytes], domain: bytes) -> list[bytes]:
        """:user@domain."""
        at = b"@" + domain
        return [KEY + name + at for name in names]

    def adapt(self, said: Said) -> None:
        """The line of an open domain answers before any key of the cdb."""
        if said.whole.accepted:
            said.widened = [replace(one, key=self.key(b"", said.domain)) for one in said.widened]

    def double(self, name: bytes) -> bytes | None:
        """The name itself, where its first break character is its last."""
        return name if name.find(self.break_) == len(name) - 1 else None

    def look(self, address: bytes, get: Get) -> Answer:
        """A line !domain, the address, the address up to its first break character."""
        address = address.lower()
        local, at, domain = address.rpartition(b"@")
        keys = [OPEN + domain] if at else []
        keys.append(KEY + address)
        cut = local.find(self.break_) + 1 if self.break_ else 0
        if cut:
            keys.append(KEY + local[:cut] + b"@" + domain)
        found = next((key for key in keys if get(key) is not None), None)
        return Answer(found is not None, found)

    def line(self, key: bytes, value: bytes) -> Line | None:
        """The rule that a record states."""
        if key.startswith(OPEN):
            return Line(key[1:], b"", True, True)
        local, at, domain = key[1:].rpartition(b"@")
        prefix = bool(self.break_) and local.endswith(self.break_) and self.double(local) is not None
        return Line(domain if at else None, local if at else key[1:], prefix, True)
