"""config/goodrcptto of the qpsmtpd plugin check_goodrcptto.

Look-up, without regard to case: the address; with `extn CHAR`, the address without what
follows the first CHAR; `@domain`.  (It takes bare users, too; none is written, for they
would stand for every domain.)  A file without an entry makes the plugin decline.
"""

from __future__ import annotations

from rcptgen.targets.addresses import one_character
from rcptgen.targets.extended import Extended
from rcptgen.targets.formats import Options


class Extn(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`extn`: the character that the plugin is configured with."""

    extn: str = ""


class GoodrcpttoQpsmtpd(Extended):
    """A line an address."""

    name = "goodrcptto-qpsmtpd"
    options = Extn

    def configure(self) -> None:
        """The plugin's own option."""
        super().configure()
        self.extend(one_character(self.given.extn, "extn"))
