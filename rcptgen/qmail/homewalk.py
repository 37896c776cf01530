"""Walking a home: every dot-qmail file that an extension can reach, read and judged as far as no address is needed."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

from rcptgen.qmail.dotqmail import DEFAULT, safe_extension
from rcptgen.qmail.home import LONGEST_FILE, Home
from rcptgen.qmail.judged import Judged
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.source.tree import Directory, EntryType, FailedForNow, Reading, Refused, Regular, Status

MOST_NAMES = 2_000_000
DEEPEST = 40
MOST_DIRECTORIES = 256

BYTES_ALLOWED = 4096
MOST_BYTES = 64 << 20
WORK_ALLOWED = 200
MOST_WORK = 1_000_000
"""What the files of a home may cost beyond an allowance for each: bytes to read, and work with lines."""

_CROWDED = "more dot-qmail files than are judged one by one"


class Unlisted(Exception):
    """Something about a home that keeps its files from being judged one by one."""


class Budget:
    """What is left of what the files of a home may cost; raises Unlisted where it is used up."""

    __slots__ = ("_allowed", "_bytes", "_work")

    def __init__(self) -> None:
        self._bytes = MOST_BYTES
        self._work = MOST_WORK
        self._allowed = WORK_ALLOWED

    def read(self, judged: Judged) -> None:
        """A file was read, and its lines run once."""
        self._bytes -= max(judged.size - BYTES_ALLOWED, 0)
        if self._bytes < 0:
            raise Unlisted("longer dot-qmail files than are judged one by one")
        self.file()
        self.run(judged)

    def file(self) -> None:
        """Another file comes next, with an allowance of its own."""
        self._allowed = WORK_ALLOWED

    def run(self, judged: Judged) -> None:
        """The lines of a file are run."""
        self._allowed -= judged.work
        if self._allowed < 0:
            self._work += self._allowed
            self._allowed = 0
        if self._work < 0:
            raise Unlisted("more lines in dot-qmail files than are judged one by one")


class Walk:
    """One run through a home's directory for one dash.

    Afterwards `exact` and `prefixes` hold the outcomes that no address can change, and
    `open_files` the files that must be asked about addresses, with their safe extensions.
    Raises Unlisted where the home is more than can be judged.
    """

    def __init__(self, home: Home, dash: bytes) -> None:
        self.home = home
        self.dash = dash
        self.exact: dict[bytes, Outcome] = {}
        self.prefixes: dict[bytes, Outcome] = {}
        self.open_files: list[tuple[bytes, Judged]] = []
        self.budget = Budget()
        self._shared: dict[Outcome, Outcome] = {}
        # By the identity of an outcome, which is kept alive with it: that of most files is one object.
        self._shapes: dict[int, tuple[Outcome, Outcome]] = {}
        self._forwards: dict[int, Outcome] = {}
        self._stem = b".qmail" + dash
        self._device = -1
        self._run()

    def _run(self) -> None:
        home = self.home
        directory = home.directory()
        if isinstance(directory, Directory):
            self._device = directory.status.device
        where, _, first = self._stem.rpartition(b"/")
        listing = home.listing() if not where else None
        if not where and listing is None:
            raise Unlisted(_CROWDED if home.crowded else "the home directory cannot be listed")
        pending: list[tuple[bytes, bytes, tuple[tuple[int, int], ...]]] = []
        if listing is not None:
            self._take(listing.items(), b"", first, b"", pending, ())
        else:
            pending.append((where, b"", ()))
            self._walk(pending, first)
        walked = 0
        while pending and walked < MOST_DIRECTORIES:
            self._walk(pending, b"")
            walked += 1
        for relative, key, _ in pending:
            # Links between directories make a number of paths that has no end.
            self._open_below(key, relative, "more directories than are looked into")

    def _open_below(self, key: bytes, relative: bytes, reason: str) -> None:
        """The rule for everything below a directory that is not looked into."""
        where = self.home.path(relative)
        self.prefixes[key] = Outcome(Verdict.DELIVER, Kind.UNKNOWN, reason, where, widened=True)

    def _walk(self, pending: list[tuple[bytes, bytes, tuple[tuple[int, int], ...]]], first: bytes) -> None:
        """Looks into one directory below the home: extensions with slashes in them."""
        relative, key, above = pending.pop()
        home = self.home
        # The directory's own name, with the slash: found where it cannot be read, else the search goes on.
        itself = None if first else home.read(relative + b"/", EntryType.UNKNOWN)
        found = home.tree.directory(home.path(relative))
        if isinstance(found, FailedForNow):
            home.note_failure(found)
        if isinstance(found, Refused | FailedForNow):
            below = home.not_entered(relative)
            self.prefixes[key] = below if first or itself is not None else below._replace(widened=True)
            return
        if not isinstance(found, Directory):
            return
        with found:
            here = (found.status.device, found.status.inode)
            if found.status.device != self._device:
                self._open_below(key, relative, "a directory of another file system than the home's")
                return
            if here in above or len(above) >= DEEPEST:
                self._open_below(key, relative, "directories that lead into each other")
                return
            names = found.names(beginning=first, most=MOST_NAMES + 1)
        if isinstance(names, FailedForNow):
            home.note_failure(names)
        if isinstance(names, Refused | FailedForNow):
            self._open_below(key, relative, "the directory cannot be listed")
            return
        if len(names) > MOST_NAMES:
            raise Unlisted(_CROWDED)
        if itself is not None:
            self._add(key, itself)
        self._take(names, relative + b"/", first, key, pending, (*above, here))

    def _take(
        self,
        names: Iterable[tuple[bytes, EntryType]],
        where: bytes,
        first: bytes,
        key: bytes,
        pending: list[tuple[bytes, bytes, tuple[tuple[int, int], ...]]],
        above: tuple[tuple[int, int], ...],
    ) -> None:
        """Every name of one directory that an extension can reach."""
        skip, home = len(first), self.home
        dash = self.dash
        wanted: list[tuple[bytes, EntryType, bytes]] = []
        for name, entry in names:
            if not name.startswith(first):
                continue
            tail = name[skip:]
            extension = key + tail
            if tail == tail.lower() and b"." not in tail and safe_extension(extension, dash) == extension:
                wanted.append((name, entry, extension))
        wanted.sort(key=itemgetter(0))
        directory = home.directory() if not where else None
        # Nearly all files only forward, and there are very many: those are read and judged without a Judged for each.
        regular = (name for name, entry, _ in wanted if entry is EntryType.REGULAR)
        contents = directory.contents(regular, limit=LONGEST_FILE) if isinstance(directory, Directory) else None
        for name, entry, extension in wanted:
            relative = where + name
            content = next(contents) if contents is not None and entry is EntryType.REGULAR else None
            found: Reading
            if content is not None:
                data, status = content
                line = home.forwards_from(data, status.st_mode)
                if line and not is_default(extension):
                    self.exact[extension] = self._forwards.get(line) or self._forwarding(line)
                    continue
                found = Regular(data, Status.of(status))
            else:
                found = home.content(relative, entry if not where else EntryType.UNKNOWN)
            plain = home.only_forwards(found)
            if plain is not None and not is_default(extension):
                self.exact[extension] = self.shape(plain)
                continue
            judged = home.judged(relative, found)
            if judged is not None:
                self.budget.read(judged)
                self._add(extension, judged)
            # What cannot be read may be a directory; then the names below it cannot be read either.
            unread = judged is None or (judged.fixed is not None and judged.fixed.kind is Kind.DEFERRAL)
            if unread and entry is not EntryType.REGULAR and entry is not EntryType.OTHER:
                pending.append((relative, extension + b"/", above))

    def _forwarding(self, line: int) -> Outcome:
        """What stands for every file that forwards from this line on."""
        found = self._forwards[line] = self.shape(self.home.forwards(line))
        return found

    def _add(self, extension: bytes, judged: Judged) -> None:
        if judged.fixed is None:
            self.open_files.append((extension, judged))
        elif is_default(extension):
            answer = judged.answer()
            assert answer is not None
            self.prefixes[extension[: -len(DEFAULT)]] = answer
        else:
            self.exact[extension] = self.shape(judged.fixed, judged.file)
        if len(self.exact) + len(self.open_files) > MOST_NAMES:
            raise Unlisted(_CROWDED)

    def shape(self, found: Outcome, file: bytes = b"") -> Outcome:
        """One object for all files that say the same: the name completes the path (Outcome.named_from)."""
        known = self._shapes.get(id(found))
        if known is not None:
            return known[1]
        shape = found
        if found.file in (b"", file):
            shape = found._replace(file=self.home.path(self._stem), named_from=0)
        shape = self._shared.setdefault(shape, shape)
        self._shapes[id(found)] = found, shape
        return shape


def is_default(extension: bytes) -> bool:
    """Whether the file of a safe extension stands for all extensions with the same beginning."""
    return extension == DEFAULT or extension.endswith(b"-" + DEFAULT)
