"""goodrcptto of the qmail patch by Eben Pratt: addresses and @domain, as text or in a cdb.

Known from descriptions only: exact addresses and whole domains, in lower case; neither
wildcards nor refusals.
"""

from __future__ import annotations

from rcptgen.targets.addresses import Lines, TextForm


class Goodrcptto(Lines):
    """Text, or (`form = "cdb"`) a cdb with the same keys."""

    name = "goodrcptto"
    options = TextForm
    lone = True
