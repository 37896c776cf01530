"""One published generation: what the rules were, and what is known about them.

rules       what was published, by domain (see rulesfile)
live        while a rollback is in force: what would have been published without it
base        while a rollback is in force: the rules of the generation that was gone back to
bare        what is accepted without a domain, postmaster aside
held        the tables that a person is asked to approve, of the domains whose removals are held
lists       what the files of `[extra]` held, by their paths
meta.json   what is known about them, and which of the files there are
"""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Self
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from rcptgen.publish.digest import digest
from rcptgen.publish.history import Changes, Rollback, Who, Withheld
from rcptgen.publish.paths import above_standard, drop, why
from rcptgen.publish.rulesfile import CHUNK, FORMAT, READ, DamagedState, RulesFile

RULES = b"rules"
LIVE = b"live"
BASE = b"base"
HELD = b"held"
BARE = b"bare"
LISTS = b"lists"
SAME = b"same"
META = b"meta.json"
SIDES = (LIVE, BASE, HELD, BARE, LISTS)

_META_LIMIT = 64 << 20


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a generation.  What an older version did not write has its default.

    `digests` holds the SHA-256 of every published file by `path_key`; `units` those that
    were healthy or kept; `held` since when a domain's removals are held, `holds` the same
    for a person.  `same`: the published files are those of the generation before, and only
    what is known has changed.  `changes` compares with the generation before.
    `released` are the domains whose removals `by` has approved.  `lists` has a digest of each
    of the files of `[extra]`.
    """

    format: int = FORMAT
    number: int = 0
    time: float
    reason: str = ""
    digests: dict[str, str] = {}
    counts: dict[str, int] = {}
    units: list[str] = []
    held: dict[str, float] = {}
    prepended: dict[str, str] = {}
    notes: dict[str, str] = {}
    by: Who | None = None
    same: bool = False
    kinds: dict[str, int] = {}
    changes: Changes | None = None
    holds: list[Withheld] = []
    released: list[str] = []
    rollback: Rollback | None = None
    sides: list[str] = []
    lists: dict[str, str] = {}


def path_key(path: bytes) -> str:
    """`path` as text, one text for one path: what is not printable ASCII is percent-encoded, and so is `%`."""
    return quote_from_bytes(path, safe="/ !\"#$&'()*+,:;<=>?@[\\]^`{|}")


class Generation:
    """A complete generation, open for reading; it stays readable when its files are removed.

    `live`, `base`, `held`, `bare` and `lists` are None where there is no such file.
    """

    def __init__(self, directory: int, number: int) -> None:
        """Open generation `number` below `directory`; raises DamagedState unless it is whole as far as can be seen."""
        self.number = number
        self.meta = read_meta(directory, number)
        with ExitStack() as stack:

            def opened(name: bytes) -> RulesFile:
                found = RulesFile(directory, b"%d/%s" % (number, name), f"generation {number}")
                stack.callback(found.close)
                return found

            self.rules = opened(RULES)
            sides = {name: opened(name) for name in SIDES if name.decode() in self.meta.sides}
            self.live, self.base, self.held, self.bare, self.lists = (sides.get(name) for name in SIDES)
            self._finalizer = weakref.finalize(self, stack.pop_all().close)

    def close(self) -> None:
        """Give the descriptors back; harmless when done twice."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.rules)

    def matches(self, paths: Iterable[bytes]) -> bool:
        """Whether every one of `paths` (at least one) is on disk what this generation published there."""
        wanted = list(paths)
        return bool(wanted) and not self.differing(wanted)

    def differing(self, paths: Iterable[bytes]) -> list[bytes]:
        """Those of `paths` that this generation did not publish, or that are not now what it published."""
        return [path for path in paths if self.meta.digests.get(path_key(path)) != _digest_now(path)]

    @property
    def paths(self) -> list[bytes]:
        """The files that it published."""
        return [unquote_to_bytes(key) for key in self.meta.digests]

    def blobs(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (domain, blob) as published, in ascending order; raises DamagedState at the first damaged one."""
        return self.rules.blobs()

    def blob(self, domain: bytes) -> bytes | None:
        """The published blob of one domain, or None; raises DamagedState where it cannot be read."""
        return self.rules.blob(domain)

    def check(self, known: int | None = None) -> bool:
        """Raises DamagedState unless every record of every file is sound; `known` as in RulesFile.check."""
        is_known = self.rules.check(known)
        for rules in (self.live, self.base, self.held, self.bare, self.lists):
            if rules is not None:
                rules.check()
        return is_known


class Orders:
    """What a generation that need not be whole says of holds, a rollback and lists; None for what cannot be read."""

    def __init__(self, directory: int, number: int) -> None:
        """Open what is left of generation `number` below `directory`; raises DamagedState without its meta.json."""
        self.meta = read_meta(directory, number)
        kept = (BASE, HELD, BARE, LISTS)
        self.base, self.held, self.bare, self.lists = (_sound(directory, number, name) for name in kept)

    def close(self) -> None:
        """Give the descriptors back; harmless when done twice."""
        for rules in (self.base, self.held, self.bare, self.lists):
            if rules is not None:
                rules.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _sound(directory: int, number: int, name: bytes) -> RulesFile | None:
    """A file of rules without any damage, or None."""
    with suppress(DamagedState):
        rules = RulesFile(directory, b"%d/%s" % (number, name), "")
        try:
            rules.check()
        except DamagedState:
            rules.close()
            raise
        return rules
    return None


class _Version(msgspec.Struct):
    format: int


def read_meta(directory: int, number: int) -> Meta:
    """What is known of generation `number`; raises DamagedState where that cannot be read, or is another version's."""
    data = _meta_bytes(directory, number)
    try:
        # The version first: the fields of another one may be of other types.
        version = msgspec.json.decode(data, type=_Version).format
        if version != FORMAT:
            raise DamagedState(f"generation {number}: is of version {version}, not {FORMAT}")
        meta = msgspec.json.decode(data, type=Meta)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise DamagedState(f"generation {number}: its meta.json is damaged: {error}") from error
    if meta.number != number:
        raise DamagedState(f"generation {number}: its meta.json is that of generation {meta.number}")
    return meta


def _meta_bytes(directory: int, number: int) -> bytearray:
    data = bytearray()
    try:
        descriptor = above_standard(os.open(b"%d/%s" % (number, META), READ, dir_fd=directory))
        try:
            if os.fstat(descriptor).st_size > _META_LIMIT:
                raise DamagedState(f"generation {number}: its meta.json is too large")
            while part := os.read(descriptor, CHUNK):
                data += part
        finally:
            drop(descriptor)
    except OSError as error:
        raise DamagedState(f"generation {number}: cannot read: {why(error)}") from error
    return data


def _digest_now(path: bytes) -> str:
    """The digest of the file as it is now; empty, which no file has, where it cannot be read."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return digest(descriptor)
        finally:
            drop(descriptor)
    return ""
