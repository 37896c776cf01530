"""What is said of a host's SMTP servers: findings with a place, a code, a sentence, and lines to add."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from rcptgen import codepages
from rcptgen.source.tree import Identity

SUBJECTS = ("lists", "qmail", "postfix", "exim", "others", "vpopmail")
"""The files below pages/, in the order in which the host is gone through."""


class Severity(enum.StrEnum):
    """`ok`: it works; `hint`: worth knowing; `problem`: a list is not used, or mail is lost or let in."""

    OK = "ok"
    HINT = "hint"
    PROBLEM = "problem"


Page = codepages.Page[Severity]


@cache
def pages() -> dict[str, Page]:
    """Every page by its code, in the order of the files."""
    return codepages.read_pages("rcptgen.doctor", SUBJECTS, Severity)


def common_text() -> str:
    """The host on which all examples stand, as TOML."""
    return codepages.text_of("rcptgen.doctor", "host.toml")


@dataclass(frozen=True, slots=True)
class Lines:
    """Exactly what is to be added, as bytes: `lines` into `file`, at the place that `where` names.

    Without a file they are commands for root's shell.
    """

    file: bytes
    where: str
    lines: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was seen: `line` 0 is the whole file; `text` has no byte of the host unescaped."""

    code: str
    text: str
    file: bytes
    line: int = 0
    add: tuple[Lines, ...] = ()


@dataclass(frozen=True, slots=True)
class Who:
    """The account a server runs as; `sure` is false where it could not be read and the usual one is taken.

    `identity` None stands for root, who may read everything.
    """

    name: str
    identity: Identity | None
    sure: bool = True


ROOT = Who("root", None)


@dataclass(frozen=True, slots=True)
class Use:
    """A server that looks recipients up in a file.

    `kinds` are the formats it takes there (`Configured.kind`), none where that cannot be told.
    `file` and `line` are where it is told to; `who` opens the file.  `needed`: without the
    file the server refuses or defers mail.
    """

    server: str
    kinds: frozenset[str]
    path: bytes
    file: bytes
    line: int
    who: Who
    needed: bool = True


@dataclass(slots=True)
class Seen:
    """What a look at one sort of server came to.

    `servers` are those that are there, by the name under which `setup` knows them, each with
    the file that its lines belong into (empty: not known).  `told` are the kinds of list for
    which a finding has already said what to add.
    """

    uses: list[Use]
    findings: list[Finding]
    servers: dict[str, bytes]
    told: set[str]

    @classmethod
    def nothing(cls) -> Seen:
        """Nothing, to be added to."""
        return cls([], [], {}, set())

    def say(self, code: str, text: str, file: bytes, line: int = 0, add: Iterable[Lines] = ()) -> None:
        """One finding more."""
        self.findings.append(Finding(code, text, file, line, tuple(add)))

    def take(self, other: Seen) -> None:
        """All of another look, behind what is here."""
        self.uses += other.uses
        self.findings += other.findings
        self.servers = {**other.servers, **self.servers}
        self.told |= other.told
