"""vdelivermail, which delivers to the users of vpopmail (vdelivermail.c).

It takes $EXT for a user of $HOST, and does what its instruction says with users that it
does not find.  Others carry out what follows: vdelivermail_one for one name,
vdelivermail_table for all of them, with vdelivermail_users for the users that are found and
vdelivermail_lines for delivery lines.
"""

from __future__ import annotations

from collections.abc import Sequence

from rcptgen.config import Config
from rcptgen.programs.shell import ended
from rcptgen.programs.vdelivermail_lines import BOUNCE, DEFER, LONGEST_PATH
from rcptgen.programs.vdelivermail_one import DtLine, Process, Vpopmail, ends
from rcptgen.programs.vdelivermail_ordinary import OrdinaryDomains
from rcptgen.programs.vdelivermail_table import every
from rcptgen.qmail.look import Look
from rcptgen.qmail.model import (
    Effect,
    Effects,
    Free,
    NotTold,
    Runner,
    Situation,
    Text,
    Told,
    View,
    effect_of,
    lowered,
    unknown_effect,
)
from rcptgen.vpopmail.assign import Assignments, lowerit
from rcptgen.vpopmail.choice import Backends
from rcptgen.vpopmail.text import c_string


class VDeliverMail:
    """`vdelivermail ignored instruction`.

    `look_at_mailboxes` False takes every Maildir for one that can be written to: deferred
    or delivered, its mail is accepted either way.
    """

    names: tuple[bytes, ...] = (b"vdelivermail",)
    tells_leads = True

    def __init__(self, config: Config, root: bytes = b"/", *, look_at_mailboxes: bool = True) -> None:
        directory = config.qmail.directory.encode()
        self._vpopmail = Vpopmail(
            config.vpopmail,
            directory,
            Assignments(directory),
            Backends(config, root),
            look_at_mailboxes,
            config.policy.dead_forwards == "accept",
        )
        self._last: Process | None = None

    def prepare(self) -> None:
        """See Backend.prepare."""
        self._vpopmail.backends.prepare()

    def is_stale(self) -> bool:
        """See qmail.model.Preparing."""
        return self._vpopmail.backends.is_stale()

    def ordinary(self) -> OrdinaryDomains:
        """What judges whole homes of the ordinary kind."""
        return OrdinaryDomains(self._vpopmail)

    def tells(self, words: Sequence[bytes]) -> bool:
        """See Teller."""
        return len(words) == 3

    def told(self, words: Sequence[bytes], look: Look, view: View) -> Told:
        """See Teller.  The lines of one home share what they find out about the domain."""
        host, instruction = lowerit(c_string(view.host)), c_string(words[2])[:LONGEST_PATH]
        process = Process(self._vpopmail, look, _no_shell, host, instruction, DtLine.seen(view))
        if self._last is not None and self._last.look is look and self._last.host == host:
            process.shares(self._last)
        self._last = process
        return _Told(process)

    def run(self, words: Sequence[Text], situation: Situation, execute: Runner) -> Effect:
        """What becomes of mail for the user that $EXT names (vdelivermail.c: main, get_arguments)."""
        if len(words) != 3:
            return ends(DEFER, "usage of vdelivermail")
        variables = situation.variables
        if b"EXT" not in variables or b"HOST" not in variables:
            return ends(BOUNCE, "vdelivermail without its variables")
        extension, instruction = variables[b"EXT"], words[2]
        host = lowered(variables[b"HOST"])
        if host is None or not isinstance(instruction, bytes):
            for text in (variables[b"HOST"], instruction):
                if isinstance(text, Free):
                    text.opaque = True
            return unknown_effect("the domain or the instruction of vdelivermail")
        dtline = DtLine.of(variables.get(b"DTLINE"), extension)
        process = Process(
            self._vpopmail,
            situation.look,
            situation.shell,
            lowerit(c_string(host)),
            c_string(instruction)[:LONGEST_PATH],
            dtline,
            situation.leads,
        )
        command = (self.names, process.instruction, host, dtline.key)
        return effect_of(extension, command, process.one, lambda: every(process), "a vpopmail user")


class _Told:
    """vdelivermail for the addresses of one view, while no line of its own and no loop is in sight."""

    __slots__ = ("_process",)

    def __init__(self, process: Process) -> None:
        self._process = process

    def every(self) -> Effects:
        """See Told."""
        return every(self._process)

    def one(self, text: bytes) -> Effect:
        """See Told."""
        effect = self._process.one(text)
        if self._process.looped:
            # In some spellings the address in $DTLINE is known, in others it is not.
            raise NotTold
        return ended(effect)


def _no_shell(line: bytes) -> Effect:
    raise NotTold
