"""Several logs as one stream of events: each line goes to the format it belongs to.

A line is known by what stands in front of it and by its first words:

    @4000000065a1b2c3112233aa starting delivery ...        multilog
    1700000000.123456 starting delivery ...                splogger without syslog, accustamp
    2026-11-22 10:00:00.123456789 starting delivery ...    tai64nlocal
    Nov 22 10:00:00 host qmail: 1700000000.123456 starting delivery ...
    2026-11-22T10:00:00.123456+01:00 host postfix/smtpd[17]: ...
    2026-11-22 10:00:00 1abcDE-000fgh-IJ => ...            Exim
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from rcptgen.errors import UsageTrouble
from rcptgen.maillogs import postfix
from rcptgen.maillogs.events import FOREIGN, Answer, Event, Format
from rcptgen.maillogs.exim import Exim
from rcptgen.maillogs.postfix import Postfix
from rcptgen.maillogs.qmailsend import QmailSend
from rcptgen.maillogs.qmailsmtpd import QmailSmtpd
from rcptgen.maillogs.reading import DAMAGED, LONGEST, OVERLONG, blocks, opened
from rcptgen.rules.shown import shown

MOST_INSTANCES = 1000
"""Hosts and programs of one syslog that are told apart."""
MOST_UNKNOWN = 20
SAMPLE = 100

_SYSLOG = re.compile(
    rb"(?:<\d{1,3}>)?(?:1 )?"
    rb"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?"
    rb"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)"
    rb" (\S{1,255}) ([^\s:\[]{1,100})(?:\[\d+\])?(?:: | \d+ \S+ (?:-|\[.*?\]) )(.*)",
    re.DOTALL,
)
_DATE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?(?: [+-]\d{4})? ")
_SECONDS = re.compile(rb"\d{9,10}\.\d{6} ")
_CONTINUED = re.compile(rb"\d{9,10}\.\d{6}\+")
_TAI = re.compile(rb"@[0-9a-f]{24} ")
_TAI_SIZE = 26

_MONTHS = {name: at for at, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
_MONTH_OF = re.compile(rb"(?:<\d{1,3}>)?([A-Z][a-z]{2}) ([ \d]\d) (\d\d:\d\d:\d\d)")
_ISO = re.compile(rb"(?:<\d{1,3}>)?(?:1 )?(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)")


@dataclass(slots=True)
class Unknown:
    """Lines that no format knows, by the program that wrote them; `sample` is the first of them."""

    program: bytes
    count: int
    file: bytes
    line: int
    sample: bytes


@dataclass(slots=True)
class Statistics:
    """What was read.  `known` counts lines by format; `troubles` are files that could not be read whole."""

    files: int = 0
    lines: int = 0
    overlong: int = 0
    known: dict[str, int] = field(default_factory=dict)
    unknown: dict[bytes, Unknown] = field(default_factory=dict)
    unknown_lines: int = 0
    troubles: list[str] = field(default_factory=list)


class Logs:
    """The events of log files; `submitters` are the uids whose messages never passed an SMTP server.

    Files are read in the order of their first time stamps, where all have one of a kind:
    `mail.log mail.log.1` is the wrong way round.
    """

    def __init__(self, paths: Sequence[bytes], submitters: Collection[bytes] = ()) -> None:
        self.statistics = Statistics()
        self._paths = paths
        self._submitters = submitters
        self._formats: dict[tuple[bytes, str], Format] = {}
        self._spare: dict[str, Format] = {}
        self._multilog: Format | None = None
        self._directory = b""
        self._ends: dict[bytes, Stamp | None] = {}

    def events(self) -> Iterator[tuple[Event, bytes, int]]:
        """Every event with its file and line.

        What stands across two files of one directory (a delivery begun in one, ended in the
        next) is put together where the second begins after the first ended.
        """
        for path in self._in_order():
            self.statistics.files += 1
            try:
                with opened(path) as stream:
                    yield from self._file(path, blocks(stream, path))
            except UsageTrouble as error:
                self.statistics.troubles.append(str(error))

    def _in_order(self) -> list[bytes]:
        if len(self._paths) < 2 or b"-" in self._paths:
            return list(self._paths)
        stamps = [_first_stamp(path) for path in self._paths]
        return [self._paths[at] for at in _order(stamps)]

    def _file(self, path: bytes, parts: Iterator[list[bytes]]) -> Iterator[tuple[Event, bytes, int]]:
        statistics = self.statistics
        self._directory = os.path.dirname(path)
        self._multilog = None
        known_before, unknown_before = sum(statistics.known.values()), statistics.unknown_lines
        number, last = 0, b""
        first_unknown: tuple[int, bytes] | None = None
        for lines in parts:
            if not number:
                self._joined(_stamp(lines[0]))
            for line in lines:
                number += 1
                name, said = self._read(line)
                if type(said) is Event:
                    yield said, path, number
                elif said is FOREIGN and line:
                    self._note(name, path, number, line)
                    first_unknown = first_unknown or (number, line)
            last = next((line for line in reversed(lines) if line), last)
            statistics.lines += len(lines)
        self._ends[self._directory] = _stamp(last)
        if first_unknown and sum(statistics.known.values()) == known_before:
            number, line = first_unknown
            count = statistics.unknown_lines - unknown_before
            statistics.troubles.append(
                f"{shown(path)}:{number}: not a mail log that is known ({count} lines): {_sample(line)}"
            )

    def _joined(self, begin: Stamp | None) -> None:
        """What is remembered of the directory's last file is kept only where this one goes on from there."""
        end = self._ends.get(self._directory)
        if end is None or begin is None or not end.before(begin):
            for (place, _), one in self._formats.items():
                if place.startswith(self._directory + b"\0"):
                    one.forget()

    def _note(self, program: bytes, path: bytes, number: int, line: bytes) -> None:
        self.statistics.unknown_lines += 1
        unknown = self.statistics.unknown
        if line == OVERLONG:
            return
        if program not in unknown:
            if len(unknown) >= MOST_UNKNOWN:
                return
            unknown[program] = Unknown(program, 0, path, number, line[:SAMPLE])
        unknown[program].count += 1

    # -- one line ------------------------------------------------------------------------------

    def _read(self, line: bytes) -> tuple[bytes, Answer]:
        """The program that wrote the line, where it says that, and what a format made of it."""
        if line[:1] == b"@":
            if self._multilog is not None and line[_TAI_SIZE - 1 : _TAI_SIZE] == b" ":
                # By far the most frequent lines.
                said = self._multilog.read(line[_TAI_SIZE:])
                if said is not FOREIGN:
                    self.statistics.known["qmail-send"] += 1
                    return b"", said
            if _TAI.match(line):
                said = self._qmail(b"", line[_TAI_SIZE:])
                self._multilog = self._formats.get((self._directory + b"\0", "qmail-send"))
                return b"", said
        elif found := _SYSLOG.match(line):
            host, tag, text = found.groups()
            return tag, self._syslog(host, tag, text)
        elif found := _DATE.match(line):
            text = line[found.end() :]
            if found[1] and len(found[1]) > 7:
                return b"", self._qmail(b"", text)
            return b"", self._ask(b"", "Exim", Exim, text)
        elif line == OVERLONG:
            self.statistics.overlong += 1
            return b"", FOREIGN
        return b"", self._qmail(b"", line)

    def _syslog(self, host: bytes, tag: bytes, text: bytes) -> Answer:
        if tag[:4] == b"exim":
            if found := _DATE.match(text):
                text = text[found.end() :]
            return self._ask(host, "Exim", Exim, text)
        if b"/" in tag:
            told = postfix.of(tag, text)
            if told is not None:
                return self._ask(host, "Postfix", Postfix, told)
        return self._qmail(host + b" " + tag, text)

    def _qmail(self, instance: bytes, text: bytes) -> Answer:
        if found := _SECONDS.match(text):
            text = text[found.end() :]
        elif _CONTINUED.match(text):
            text = b"warning: " + text  # the rest of a long line, of which the first part was read
        said = self._ask(instance, "qmail-send", self._send, text)
        return self._ask(instance, "qmail-smtpd", QmailSmtpd, text) if said is FOREIGN else said

    def _send(self) -> QmailSend:
        return QmailSend(self._submitters)

    def _ask(self, instance: bytes, name: str, make: Callable[[], Format], text: bytes) -> Answer:
        key = (self._directory + b"\0" + instance, name)
        one = self._formats.get(key)
        if one is None:
            # Only who has spoken once is remembered: the names in a syslog may be anything.
            one = self._spare.get(name) or self._spare.setdefault(name, make())
            said = one.read(text)
            if said is FOREIGN:
                return said
            del self._spare[name]
            if len(self._formats) >= MOST_INSTANCES:
                del self._formats[next(iter(self._formats))]
            self._formats[key] = one
        else:
            said = one.read(text)
            if said is FOREIGN:
                return said
        self.statistics.known[name] = self.statistics.known.get(name, 0) + 1
        return said


def _sample(line: bytes) -> str:
    if line == OVERLONG:
        return f"a line of more than {LONGEST} bytes"
    return f"'{shown(line[:SAMPLE])}{'...' if len(line) > SAMPLE else ''}'"


# --- Time stamps -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a line was written, as far as to order files; syslog's usual form (`BSD`) has no year."""

    form: str
    text: bytes
    month: int = 0

    def before(self, other: Stamp) -> bool:
        """Whether `other` is the same moment or a later one, and of the same form."""
        if self.form != other.form:
            return False
        if self.form == "BSD" and abs(self.month - other.month) > 6:
            return self.month > other.month  # over New Year
        return self.text <= other.text


def _stamp(line: bytes) -> Stamp | None:
    if _TAI.match(line):
        return Stamp("TAI64N", line[1:25])
    if found := _ISO.match(line):
        return Stamp("ISO", found[1] + found[2])
    if found := _MONTH_OF.match(line):
        month = _MONTHS.get(found[1], 0)
        return Stamp("BSD", b"%02d" % month + found[2] + found[3], month)
    if _SECONDS.match(line):
        return Stamp("seconds", line.partition(b" ")[0].rjust(20))
    return None


def _first_stamp(path: bytes) -> Stamp | None:
    try:
        with opened(path) as stream:
            return _stamp(stream.readline(1 << 10))
    except (UsageTrouble, *DAMAGED):
        return None  # it is told when the file is read


def _order(stamps: Sequence[Stamp | None]) -> list[int]:
    """The order in which to read files that begin with `stamps`; as they are, where these cannot be compared."""
    known = [one for one in stamps if one is not None]
    if len(known) < len(stamps) or len({one.form for one in known}) > 1:
        return list(range(len(stamps)))
    months = {one.month for one in known}
    new_year = bool(months & {10, 11, 12}) and bool(months & {1, 2, 3})
    return sorted(range(len(known)), key=lambda at: (new_year and known[at].month <= 6, known[at].text))
