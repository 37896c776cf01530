"""Which programs say where their mail goes: what forwards are followed through, and what is not.

A line that is one command can be followed.  One with branches, loops or pipes may go
different ways for addresses that are written in another case, or for other messages: what
it does not forward counts as taken by somebody.
"""

from __future__ import annotations

from collections.abc import Mapping

from rcptgen.programs.shellparse import one_command
from rcptgen.qmail.leads import Leads
from rcptgen.qmail.model import Effect, ProgramModel
from rcptgen.rules.shown import shown

KEEPS_NOTHING = frozenset((b"exit", b"true", b"false", b"test", b"[", b":", b"echo"))
"""Commands that take no message."""


def tell_program(name: bytes, leads: Leads, models: Mapping[bytes, ProgramModel]) -> None:
    """Notes that a program of this name is started, if it does not tell by itself where the message goes."""
    model = models.get(name)
    if model is None and name in KEEPS_NOTHING:
        return
    if not getattr(model, "tells_leads", False):
        leads.elsewhere("a program takes the message")


def tell_effect(name: bytes, effect: Effect, leads: Leads) -> None:
    """Says what a program comes to, to whoever listens."""
    if leads.hear is not None:
        ends = " or ".join("a signal" if one < 0 else str(one) for one in sorted(effect.statuses))
        leads.hear(f"{shown(name)}: {effect.reason}: exit {ends}", effect.file, effect.line)


def tell_line(line: bytes, leads: Leads, models: Mapping[bytes, ProgramModel]) -> None:
    """Notes that /bin/sh is given `line`: what its command is, and whether its words vary."""
    words = one_command(line)
    if words is None or words[0] is None:
        leads.elsewhere("a shell line takes the message")
        return
    leads.varies |= None in words
    tell_program(words[0].rpartition(b"/")[2], leads, models)
