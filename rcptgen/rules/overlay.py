"""Lists of rules that a person or another host keeps, and what it means to lay rules over others; pure.

    rule    = name "@" domain | prefix "*@" domain | "*@" domain | pattern | pattern "*"
    pattern = a part of a local part: letters, digits, and ! # $ % & ' + - / = ? ^ _ ` { | } ~ .

A pattern stands for every domain of the host.  Case does not matter.  In a file a rule has a
line; blanks around it, a carriage return before its end and a byte order mark are passed over,
and so are empty lines and those that begin with `#`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rcptgen.rules.names import FEWER, Names
from rcptgen.rules.numbered import Numbered, Numbering
from rcptgen.rules.outcome import Outcome
from rcptgen.rules.table import Table

EVERYWHERE = b""
"""Stands for every domain of the host, which none is called."""

LONGEST = 1000
"""Bytes of a rule: no address that qmail takes is longer."""

MOST_STRANGE = 1000
"""Domains that nobody wants to hear of which are told one by one."""

WAITING = 200_000
"""Names that are kept as they came, before they are joined."""

NOT_AN_ADDRESS = "not user@domain, prefix*@domain or *@domain"
NOT_A_RULE = f"{NOT_AN_ADDRESS}, nor a local part for every domain"

BOM = b"\xef\xbb\xbf"

_PATTERN = re.compile(rb"[a-z0-9!#$%&'+/=?^_`{|}~.-]+")
_ORDINARY = re.compile(rb"((?!#)[a-z0-9!#$%&'+/=?^_`{|}~.-]+)@([a-z0-9.-]+)\r?")
"""What nearly every line of a long list is: found to be a rule by one match."""

_DOMAIN = re.compile(rb"[^\0-\x20\x7f*@]+")
_CHUNK = 1 << 20


class Rule(NamedTuple):
    """One rule; `prefix`: for every name that begins with `name`; the domain may be EVERYWHERE."""

    name: bytes
    prefix: bool
    domain: bytes


def rule(text: bytes, *, patterns: bool = True) -> Rule:
    """The rule that `text`, without blanks around it, states.  Raises ValueError, which says what it is not.

    `patterns`: whether it may be for every domain of the host.
    """
    text = text.lower()
    local, at, domain = text.rpartition(b"@")
    prefix = (local if at else domain).endswith(b"*")
    name = (local if at else domain).removesuffix(b"*")
    wrong = b"*" in name or b"\0" in name or b"\n" in name or len(text) > LONGEST
    if at:
        wrong |= not local or _DOMAIN.fullmatch(domain) is None
    else:
        wrong |= not patterns or _PATTERN.fullmatch(name) is None
    if wrong:
        raise ValueError(NOT_A_RULE if patterns else NOT_AN_ADDRESS)
    return Rule(name, prefix, domain if at else EVERYWHERE)


# --- What a file says ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """What a file says of one domain: the names it accepts and refuses, and for each prefix whether, and its line."""

    accepted: Numbered
    refused: Numbered
    prefixes: dict[bytes, tuple[bool, int]]


@dataclass(slots=True)
class Strange:
    """The rules for domains that were not wanted: how many in all, and by domain how many and where the first."""

    count: int = 0
    domains: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    def add(self, domain: bytes, line: int) -> None:
        """One more."""
        self.count += 1
        known = self.domains.get(domain)
        if known is not None:
            self.domains[domain] = known[0] + 1, known[1]
        elif len(self.domains) < MOST_STRANGE:
            self.domains[domain] = 1, line


@dataclass(slots=True)
class Listing:
    """What a file says, by domain; `problem` is why the file cannot be what was meant, with the line.

    `rules` is how many there are in all, wanted or not; `comments`: whether a comment stands
    in it, so that it is a file which somebody has written, however little it says.
    """

    parts: dict[bytes, Part] = field(default_factory=dict)
    strange: Strange = field(default_factory=Strange)
    rules: int = 0
    comments: bool = False
    problem: str = ""
    problem_line: int = 0

    @property
    def is_blank(self) -> bool:
        """Whether it says nothing at all, as a file that was truncated, or is yet to be written."""
        return not self.rules and not self.comments


class Collector:
    """Takes the rules of a file one by one; `wanted` says of a domain whether its rules are to be kept."""

    def __init__(self, wanted: Callable[[bytes], bool] = lambda domain: True) -> None:
        self._wanted = wanted
        self._known: dict[bytes, bool] = {}
        self._names: dict[tuple[bytes, bool], Numbering] = {}
        self._prefixes: dict[bytes, dict[bytes, tuple[bool, int]]] = {}
        self._bad = 0
        self.found = Listing()

    def add(self, one: Rule, line: int, *, accepted: bool = True) -> None:
        """One rule more; of two with one name the first counts."""
        found, domain = self.found, one.domain
        found.rules += 1
        wanted = self._known.get(domain)
        if wanted is None:
            wanted = self._known[domain] = self._wanted(domain)
        if not wanted:
            found.strange.add(domain, line)
        elif one.prefix:
            self._prefixes.setdefault(domain, {}).setdefault(one.name, (accepted, line))
        else:
            names = self._names.get((domain, accepted))
            if names is None:
                names = self._names[domain, accepted] = Numbering()
            names.add(one.name, line)
            if not found.rules % WAITING:
                for some in self._names.values():
                    some.settle()

    def add_name(self, name: bytes, domain: bytes, line: int) -> None:
        """The same for an accepted name."""
        names = self._names.get((domain, True))
        if names is None or not (self.found.rules + 1) % WAITING:
            self.add(Rule(name, False, domain), line)
        else:
            self.found.rules += 1
            names.add(name, line)

    def bad(self, line: int, reason: str) -> None:
        """A line that is no rule; the first one is told."""
        self._bad += 1
        if not self.found.problem_line:
            self.found.problem, self.found.problem_line = reason, line

    def done(self) -> Listing:
        """All of it."""
        if self._bad > 1:
            self.found.problem += f" (and {self._bad - 1} more lines)"
        empty = Numbering()
        for domain in {domain for domain, _ in self._names} | self._prefixes.keys():
            accepted, refused = (self._names.pop((domain, yes), empty).done() for yes in (True, False))
            self.found.parts[domain] = Part(accepted, refused, self._prefixes.get(domain, {}))
        return self.found


def parse(data: bytes, collector: Collector, *, patterns: bool) -> Listing:
    """What a file with a rule a line says; never raises.  `patterns` as in `rule`."""
    ordinary, add_name = _ORDINARY.fullmatch, collector.add_name
    for number, raw in lines(data):
        if (found := ordinary(raw)) is not None and len(raw) <= LONGEST:
            add_name(found[1], found[2], number)
            continue
        line = raw.strip(b" \t\r")
        if line.startswith(b"#"):
            collector.found.comments = True
        elif line:
            try:
                one = rule(line, patterns=patterns)
            except ValueError as error:
                collector.bad(number, str(error))
            else:
                collector.add(one, number)
    return collector.done()


def lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, without their newlines; never all of them at once."""
    at, number = len(BOM) if data.startswith(BOM) else 0, 0
    size = len(data) - data.endswith(b"\n")
    while at <= size and at < len(data):
        end = data.find(b"\n", at + _CHUNK, size)
        end = size if end < 0 else end
        some = data[at:end].split(b"\n")
        yield from enumerate(some, number + 1)
        number += len(some)
        at = end + 1


# --- Rules over others ---------------------------------------------------------------------------


def laid(under: Table, over: Table) -> Table:
    """The table in which `over` decides wherever it says anything: a prefix takes everything below it.

    A million names of either that the other does not speak of are not looked at one by one.
    """
    if b"" in over.prefixes:
        return over
    names = list(over.groups.values())
    groups = {outcome: left(some, names, over.prefixes) for outcome, some in under.groups.items()}
    prefixes = {name: outcome for name, outcome in under.prefixes.items() if over.covering(name) is None}
    kept = {outcome: some for outcome, some in groups.items() if some}
    for outcome, some in over.groups.items():
        kept[outcome] = Names.union([kept[outcome], some]) if outcome in kept else some
    return Table.of_groups(kept, {**prefixes, **over.prefixes})


def left(names: Names, others: Sequence[Names], prefixes: Collection[bytes] = ()) -> Names:
    """`names` but for those that one of `others` has, and those below one of `prefixes`."""
    if prefixes:
        names = names.without((), prefixes)
    if not others or not names:
        return names
    if sum(map(len, others)) * FEWER < len(names):
        return names.without({name for some in others for name in some}, ())
    return names.less(others)


def table(groups: Sequence[tuple[Outcome, Names]], prefixes: dict[bytes, Outcome]) -> Table:
    """The table of these names; of a name in two groups the first decides."""
    found: dict[Outcome, Names] = {}
    for outcome, names in groups:
        rest = left(names, list(found.values()))
        if rest:
            found[outcome] = Names.union([found[outcome], rest]) if outcome in found else rest
    return Table.of_groups(found, prefixes)
