"""Homes of the ordinary kind: small files for single names that only forward, and lines that are one program.

Nearly every virtual domain of a large host has such a home.  It is read in one go, without
an object for each file; whatever is unusual about it makes it no ordinary home, and then it
is walked (homewalk), which is slower and misses nothing.  The two give equal tables.
"""

from __future__ import annotations

import stat

from rcptgen.qmail.dotqmail import DEFAULT, MOST_LINES
from rcptgen.qmail.homewalk import is_default
from rcptgen.qmail.judged import FORWARDS, Settings
from rcptgen.qmail.users import Owner
from rcptgen.source.tree import Entered, SourceTree

MOST_NAMES = 4096
LONGEST_FILE = 4096

_STEM = b".qmail-"


class OrdinaryHome:
    """An ordinary home, open.

    `forwards` are the safe extensions of the files that only forward, by the line from which
    on they do; `programs` the extension and the content of each other file: one line without
    a newline in it, for a program.  `default` is such a line for all other extensions.
    """

    __slots__ = ("default", "entered", "forwards", "path", "programs")

    def __init__(self, entered: Entered, path: bytes) -> None:
        self.entered = entered
        self.path = path
        self.forwards: dict[int, list[bytes]] = {}
        self.programs: list[tuple[bytes, bytes]] = []
        self.default = b""

    @property
    def stem(self) -> bytes:
        """What the names of its files begin with, as a path."""
        return self.path.rstrip(b"/") + b"/" + _STEM

    def take(self, forbidden_modes: int) -> bool:
        """Reads every dot-qmail file that an extension can reach; whether all are ordinary."""
        entered = self.entered
        if entered.status.st_mode & (forbidden_modes | stat.S_ISVTX):
            return False
        skip = len(_STEM)
        files = [name for name in entered.regular if name.startswith(_STEM)]
        if len(files) != sum(1 for name in entered.names if name.startswith(_STEM)):
            return False
        files.sort()
        for name in files:
            extension = name[skip:]
            if extension != extension.lower() or b"." in extension:
                continue
            found = entered.read(name, LONGEST_FILE)
            if found is None or found[1].st_mode & (forbidden_modes | stat.S_IXUSR) or not found[0]:
                return False
            data = found[0]
            if is_default(extension):
                if extension != DEFAULT:
                    return False
                self.default = _program(data)
                continue
            plain = FORWARDS.fullmatch(data) if len(data) <= 2 * MOST_LINES else None
            if plain is not None:
                self.forwards.setdefault(plain[1].count(b"\n") + 1, []).append(extension)
                continue
            line = _program(data)
            if not line:
                return False
            self.programs.append((extension, line))
        return bool(self.default)


def _program(data: bytes) -> bytes:
    """The line of a file that is one line for a program, or nothing."""
    line = data.removesuffix(b"\n").rstrip(b" \t")
    return line[1:] if line.startswith(b"|") and b"\n" not in line and b"\0" not in line else b""


def ordinary_home(tree: SourceTree, owner: Owner, settings: Settings) -> OrdinaryHome | None:
    """The home of an owner whose identity is taken, or None where it is no ordinary one.  Close what it has entered."""
    if owner.dash != b"-" or not owner.home.startswith(b"/"):
        return None
    entered = tree.enter(owner.home, most=MOST_NAMES)
    if entered is None:
        return None
    home = OrdinaryHome(entered, owner.home)
    try:
        if home.take(settings.forbidden_modes):
            return home
    except BaseException:
        entered.close()
        raise
    entered.close()
    return None
