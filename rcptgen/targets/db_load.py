"""Berkeley DB's own text form, for `db_load -f FILE recipients.db`: for magic-smtpd and its like.

Keys are addresses and @domain in lower case, each followed by its value, both in hex.
"""

from __future__ import annotations

from collections.abc import Sequence

from rcptgen.targets.addresses import Lines
from rcptgen.targets.files import Record


class DbLoad(Lines):
    """A pair of key and value on one line of ours would be none of db_load's: two lines a record."""

    name = "db_load"
    head = b"VERSION=3\nformat=bytevalue\ntype=hash\nHEADER=END\n"
    foot = b"DATA=END\n"
    lone = True
    text_bad = None
    value_hex = b" 31"

    def configure(self) -> None:
        """Hex spells every byte."""
        super().configure()
        self.newlines = True
        self.bad_domain = None

    def render(self, keys: Sequence[bytes], value: bytes) -> bytes:
        """A line with the key and one with the value."""
        tail = b"\n" + self.value_hex + b"\n"
        return b"".join(b" " + key.hex().encode() + tail for key in keys)

    def parse(self, line: bytes) -> Record | None:
        """A key; the lines of values are all the same, and no key is that short."""
        if not line.startswith(b" "):
            raise ValueError
        return None if line == self.value_hex else Record(bytes.fromhex(line[1:].decode("ascii")), self.accept)
