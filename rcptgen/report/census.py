"""What is accepted, domain by domain: counted while a run goes through the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import nsmallest

from rcptgen.lint.wildcards import Wildcards
from rcptgen.rules.outcome import Kind
from rcptgen.rules.table import Table

OTHERS = "others"
COLUMN_OF: Mapping[Kind, str] = {
    Kind.MAILBOX: "mailboxes",
    Kind.DEFAULT_DELIVERY: "mailboxes",
    Kind.VPOPMAIL: "mailboxes",
    Kind.ALIAS: "aliases",
    Kind.VALIAS: "aliases",
    Kind.FORWARD: "forwards",
    Kind.LIST: "lists",
}
"""The kinds that have a column in the row of a domain; all others share one."""

COLUMNS = (*dict.fromkeys(COLUMN_OF.values()), OTHERS)


@dataclass(frozen=True, slots=True)
class DomainRow:
    """One domain: its class, and its accepted rules in the order of COLUMNS.

    `wildcards` of them stand for more names than one; `whole`: one of those stands for all names.
    """

    name: bytes
    kind: str
    counts: tuple[int, ...]
    wildcards: int
    whole: bool

    @property
    def accepted(self) -> int:
        """All accepted rules."""
        return sum(self.counts)


MOST_WILDCARDS = 20


class DomainCensus:
    """Every domain in a row of numbers, and the wildcards of all of them."""

    def __init__(self) -> None:
        self.rows: list[DomainRow] = []
        self.wildcards = Wildcards(MOST_WILDCARDS)

    def begin(self) -> None:
        """Nothing is counted yet."""
        self.rows, self.wildcards = [], Wildcards(MOST_WILDCARDS)

    def add(self, domain: bytes, kind: str, table: Table) -> None:
        """Counts one domain."""
        counts: Counter[str] = Counter()
        for outcome, names in table.groups.items():
            if outcome.accepted:
                counts[COLUMN_OF.get(outcome.kind, OTHERS)] += len(names)
        wild = Counter(COLUMN_OF.get(one.kind, OTHERS) for one in table.prefixes.values() if one.accepted)
        counts += wild
        whole = table.prefixes.get(b"")
        everything = whole is not None and whole.accepted
        row = tuple(counts[column] for column in COLUMNS)
        self.rows.append(DomainRow(domain, kind, row, wild.total(), everything))
        self.wildcards.add(domain, table)

    def largest(self, most: int) -> list[DomainRow]:
        """The domains with most accepted rules; of equal ones the first."""
        return nsmallest(most, self.rows, key=lambda row: (-row.accepted, row.name))
