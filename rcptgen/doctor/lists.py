"""The configured lists beside the servers that use lists: who uses which, and whether he can."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import islice

from rcptgen.doctor.findings import Finding, Lines, Seen, Use
from rcptgen.doctor.setup import SETUPS, TAKES, Configured, lines_for, output_lines, quoted
from rcptgen.doctor.sight import Sight
from rcptgen.errors import RcptgenError
from rcptgen.generations import History
from rcptgen.publish.digest import digest
from rcptgen.publish.generation import Meta, path_key
from rcptgen.rules.shown import safe, shown

MOST_RULES = 100_000
"""Rules of a list that are read back; a cdb's tables are looked at as a whole all the same."""


class Lists:
    """What is to be said of the configured outputs, and of the lists that servers use."""

    def __init__(self, sight: Sight, outputs: Sequence[Configured], seen: Seen, state: bytes | None) -> None:
        self._sight = sight
        self._outputs = outputs
        self._seen = seen
        self._last = _last(state)
        self._places = {one.path: self._place(one.path) for one in outputs}
        self._judged: dict[bytes, Finding | None] = {}

    def findings(self) -> list[Finding]:
        """Everything, with what `seen` has found already in front."""
        pairs = [(use, self._output(use)) for use in self._seen.uses]
        for use, output in pairs:
            self._use(use, output)
        used = {output.path for _, output in pairs if output is not None}
        for output in self._outputs:
            if output.path not in used:
                self._unused(output, others=bool(used))
        self._strangers(used)
        return self._seen.findings

    def _place(self, path: bytes) -> tuple[int, int] | None:
        status = self._sight.status(path)
        return None if status is None else (status.device, status.inode)

    def _output(self, use: Use) -> Configured | None:
        """The output whose file a server uses, be it by another path."""
        place = self._place(use.path)
        for one in self._outputs:
            if one.path == use.path or (place is not None and self._places[one.path] == place):
                return one
        return None

    # -- lists that are used -----------------------------------------------------------------

    def _use(self, use: Use, output: Configured | None) -> None:
        if output is None:
            self._unwritten(use)
            return
        named = f"{shown(output.path)} ({output.kind})"
        if use.kinds and output.kind not in use.kinds:
            wanted = " or ".join(sorted(use.kinds))
            text = f"{use.server} takes {wanted} here, and {named} is written"
            self._say("R103", text, use, _suggested(use, output.path))
            return
        faults = [one for one in (self._file(use, output), self._barred(use, output)) if one is not None]
        if not faults:
            by = f"as {use.who.name}" if use.who.sure else f"as {use.who.name}, so far as can be seen"
            self._say("R100", f"{use.server} uses {named} {by}; {self._age(output)}", use)
        self._seen.findings += [one for one in faults if one not in self._seen.findings]

    def _say(self, code: str, text: str, use: Use, add: Iterable[Lines] = ()) -> None:
        self._seen.say(code, text, use.file, use.line, add)

    def _unwritten(self, use: Use) -> None:
        """A list that no output writes; one that is not there either matters only where it is needed."""
        if not use.needed and self._sight.status(use.path) is None:
            return
        text = f"{use.server} uses {shown(use.path)}, which no configured output writes"
        self._say("R108", text, use, _suggested(use, use.path))

    def _file(self, use: Use, output: Configured) -> Finding | None:
        """What is wrong with the list itself, whoever uses it; the same object each time."""
        if output.path not in self._judged:
            self._judged[output.path] = self._judge(use, output)
        return self._judged[output.path]

    def _judge(self, use: Use, output: Configured) -> Finding | None:
        descriptor = self._sight.file(output.path)
        if descriptor is None:
            lost = "mail is deferred" if use.needed else "it checks nobody"
            text = f"{use.server} is set up for {shown(output.path)}, and the file is not there: {lost}"
            return Finding("R104", text, use.file, use.line, (Lines(b"", "", (b"rcptgen compile",)),))
        try:
            return self._content(output, descriptor)
        finally:
            os.close(descriptor)

    def _content(self, output: Configured, descriptor: int) -> Finding | None:
        compile_ = (Lines(b"", "", (b"rcptgen compile --full",)),)
        try:
            reader = output.target.open(descriptor)
            try:
                some = next(islice(reader.lines(), MOST_RULES, None), None) or next(reader.lines(), None)
            finally:
                reader.close()
        except RcptgenError as error:
            said = safe(str(error).removeprefix("the new file").lstrip(": "))
            return Finding("R105", f"no whole file of {output.kind}: {said}", output.path, 0, compile_)
        if some is None:
            return Finding("R107", "the list is whole, and holds no rule", output.path)
        return self._foreign(output, descriptor)

    def _foreign(self, output: Configured, descriptor: int) -> Finding | None:
        """A file that is not what was published last, where that is remembered."""
        wanted = None if self._last is None else self._last.digests.get(self._key(output))
        if self._last is None or wanted is None or wanted == digest(descriptor):
            return None
        text = f"not the file that was published as generation {self._last.number}: something else has written it"
        return Finding("R109", text, output.path, 0, (Lines(b"", "", (b"rcptgen compile --full",)),))

    def _key(self, output: Configured) -> str:
        return path_key(self._sight.machine_path(output.path))

    def _age(self, output: Configured) -> str:
        """When the list was written, and which generation it is."""
        status = self._sight.status(output.path)
        try:
            moment = time.localtime(0 if status is None else status.mtime_ns // 10**9)
        except (OverflowError, OSError):
            return "written at no time that a calendar has"
        written = time.strftime("written %Y-%m-%d %H:%M", moment)
        if self._last is None or self._key(output) not in self._last.digests:
            return written
        return f"{written}, generation {self._last.number}"

    def _barred(self, use: Use, output: Configured) -> Finding | None:
        barrier = self._sight.barrier(use.path, use.who)
        if barrier is None:
            return None
        what = "may not enter" if barrier.directory else "may not read"
        text = f"{use.server} runs as {use.who.name}, who {what} {shown(barrier.path)}"
        command = (b"chmod o+x " if barrier.directory else b"chmod o+r ") + quoted(barrier.path)
        add = [Lines(b"", "", (command,))]
        if not barrier.directory and not output.output.mode & 0o004:
            add.append(Lines(b"/etc/rcptgen.toml", "in the [[output]] of this file", (b"mode = 0o644",)))
        return Finding("R106", text, use.file, use.line, tuple(add))

    # -- lists that are not ------------------------------------------------------------------

    def _unused(self, output: Configured, *, others: bool) -> None:
        """A list that no server uses; `others`: some other list is used."""
        if output.kind in self._seen.told:
            return
        named = f"the list {shown(output.path)} ({output.kind})"
        here = sorted(self._seen.servers)
        if not output.server:
            self._seen.say("R102", f"{named} is for programs that cannot be seen from here", output.path)
            return
        lines = lines_for(output, self._seen.servers.get(output.server, b""))
        add = [] if lines is None else [lines]
        if output.server in here:
            self._seen.say("R101", f"{output.server} is here, and does not use {named}", output.path, 0, add)
        elif others or any(one.server in here for one in self._outputs):
            self._seen.say("R102", f"{named} is for {output.server}, which is not to be seen here", output.path, 0, add)
        elif here:
            text = f"{named} is for {output.server}, and here is {' and '.join(here)}"
            self._seen.say("R101", text, output.path, 0, [output_lines(*TAKES[one]) for one in here])
        else:
            self._seen.say("R101", f"no SMTP server that uses {named} is to be seen here", output.path, 0, add)

    # -- who writes ----------------------------------------------------------------------------

    def _strangers(self, used: set[bytes]) -> None:
        """Whether anything runs rcptgen now and then, and nothing else writes its lists."""
        regular = False
        for file in _crontabs(self._sight):
            for number, line in self._sight.lines(file):
                if line.startswith(b"#"):
                    continue
                regular = regular or b"rcptgen" in line
                if b"mkvalidrcptto" in line and any(path in line for path in used):
                    self._seen.say("R111", "mkvalidrcptto writes a list that rcptgen writes, too", file, number)
        if used and not regular and not _watched(self._sight):
            python = os.fsencode(sys.executable) if self._sight.root == b"/" else b"/opt/rcptgen/bin/python"
            entry = Lines(b"/etc/crontab", "", (b"*/5 * * * * root %s -I -m rcptgen compile" % python,))
            self._seen.say("R110", "nothing to be seen here runs rcptgen now and then", b"/etc/crontab", 0, (entry,))


def _suggested(use: Use, path: bytes) -> list[Lines]:
    """The output that a server would take at a path, where one of ours is meant."""
    kinds = [kind for kind in sorted(use.kinds) if kind in SETUPS]
    return [output_lines(kind, path) for kind in kinds[:1]]


def _last(state: bytes | None) -> Meta | None:
    """What is remembered of the last publication."""
    if state is None:
        return None
    with History.open(state) as history:
        return next((one for one in history.metas() if one.number == history.last), None)


def _crontabs(sight: Sight) -> list[bytes]:
    found = [b"/etc/crontab", b"/var/spool/cron/crontabs/root", b"/var/spool/cron/root"]
    for directory in (b"/etc/cron.d", b"/etc/cron.hourly", b"/etc/cron.daily"):
        found += [directory + b"/" + name for name in sight.names(directory)]
    return found


def _watched(sight: Sight) -> bool:
    """Whether a unit of ours is enabled, or a supervised service runs the watch."""
    units = b"/etc/systemd/system"
    wanted = [name for name in sight.names(units) if name.endswith((b".wants", b".requires"))]
    if any(name.startswith(b"rcptgen") for each in wanted for name in sight.names(units + b"/" + each)):
        return True
    return any(
        b"rcptgen" in (sight.text(directory + b"/" + name + b"/run") or b"")
        for directory in (b"/service", b"/etc/service", b"/var/service", b"/etc/sv")
        for name in sight.names(directory)
    )
