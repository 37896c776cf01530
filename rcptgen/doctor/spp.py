"""control/smtpplugins of qmail-spp: which programs it runs for a recipient.

[section]      of which [rcpt] is about recipients
:command       a colon in front: the plugin is off; blanks divide the words
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from rcptgen.doctor.sight import Sight
from rcptgen.rules.shown import shown


def plugins(sight: Sight) -> Iterator[tuple[str, bytes, int]]:
    """The name, as it is written, the path and the line of each plugin that runs at RCPT."""
    section = b""
    for number, line in sight.lines(sight.qmail + b"/control/smtpplugins"):
        if line.startswith(b"["):
            section = line
        elif section == b"[rcpt]" and line[:1] not in b"#:":
            word = line.split()[0]
            yield shown(word), os.path.normpath(os.path.join(sight.qmail, word)), number
