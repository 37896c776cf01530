"""control/recipients of s/qmail and indimail: which cdbs are asked, and which domains are open.

!domain   !*   domain:file.cdb   *:file.cdb   file.cdb   domain|program   *|program   @domain:...
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from rcptgen.doctor.findings import Lines, Seen
from rcptgen.doctor.setup import Configured, lines_for
from rcptgen.doctor.sight import Sight
from rcptgen.errors import RcptgenError
from rcptgen.rules.shown import shown

MOST_NAMED = 10


def routing(sight: Sight, seen: Seen, written: Configured | None) -> Iterator[tuple[bytes, int]]:
    """The paths of the cdbs and their lines; says what is wrong with the file beside the list that is written."""
    file = sight.qmail + b"/control/recipients"
    if sight.text(file) is None:
        lines = None if written is None else lines_for(written)
        seen.told.add("sqmail")
        add = [] if lines is None else [lines]
        seen.say("Q114", "control/recipients is not there: no recipient is checked", file, 0, add)
        return
    open_domains = set()
    for number, line in sight.lines(file):
        if line.startswith(b"#"):
            continue
        if line.startswith(b"!"):
            open_domains.add(line[1:].lower())
            continue
        _, colon, rest = line.partition(b":")
        path = rest.strip() if colon else line
        if b"|" not in line and path:
            yield os.path.normpath(os.path.join(sight.qmail, path)), number
    if written is not None and b"*" not in open_domains:
        _lacking(sight, seen, file, written, open_domains)


def _lacking(sight: Sight, seen: Seen, file: bytes, written: Configured, there: set[bytes]) -> None:
    """Open domains of the list that have no line of their own: the server refuses their other names."""
    descriptor = sight.file(written.path)
    if descriptor is None:
        return
    try:
        reader = written.target.open(descriptor)
        try:
            lacking = [
                one.domain for one in reader.lines() if one.domain and not one.name and one.domain.lower() not in there
            ]
        finally:
            reader.close()
    except RcptgenError:
        return  # said of the list itself
    finally:
        os.close(descriptor)
    if lacking:
        some = ", ".join(map(shown, lacking[:MOST_NAMED])) + (" ..." if len(lacking) > MOST_NAMED else "")
        add = Lines(file, "above the line with the cdb", tuple(b"!" + one for one in lacking))
        seen.say("Q116", f"open in the list, and without a line here: {some}", file, 0, [add])
