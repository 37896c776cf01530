"""All targets, each as a test wants it, and tables whose names are as hostile as names can be."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table
from rcptgen.targets import target, target_names
from rcptgen.targets.base import Reader, Target, Unsayable, Widened

ACCEPT = Outcome(Verdict.DELIVER, Kind.MAILBOX, "maildir", b"/home/joe/.qmail", 1)
DEFER = Outcome(Verdict.DEFER, Kind.DEFERRAL, "the file is writable", b"/home/ann/.qmail")
REFUSE = Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "no dot-qmail file for this name", b"/home/joe/.qmail-default")

DOMAINS = (b"example.org", b"shop.example.org")
LOSSLESS = ("csv", "json", "text", "rcptgen", "exim-wildlsearch", "postfix-pcre", "rcpt-regexp")

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in target_names() if name != "rcpt-map"),
    ("rcpt-map", {"domain": "example.org"}),
    ("exim", {"form": "text"}),
    ("goodrcptto", {"form": "cdb"}),
    ("goodrcptto-qpsmtpd", {"extn": "-"}),
    ("goodrcptto-qpsmtpd", {"extn": "+"}),
    ("morevalidrcptto", {"form": "text"}),
    ("opensmtpd", {"sub_addr_delim": "-"}),
    ("postfix", {"form": "text"}),
    ("postfix-access", {"form": "text"}),
    ("sql", {"dialect": "mysql"}),
]
"""Every target, with options where they change the format."""


def called(variant: tuple[str, Mapping[str, Any]]) -> str:
    """A variant as the command line spells it."""
    name, options = variant
    return ",".join([name, *(f"{key}={value}" for key, value in options.items())])


HOSTILE = (
    *("a b", "a\tb", "a\nb", "a:b", 'a"b', "a'b", "a\\", "\\n", "#a", "$a", "${a}", "a|b", "a/b", "/a/", "a;b", "[a]"),
    *("*", "a*", "*@", "!a", "!", "+", "a+", "a+b", "-", "-a", "--a", "a-", "=a", "@", "a@b", "a.b", ".*", "^a$", "(a"),
    *("a,b", "(?i)", "cdb;/etc/passwd", "lsearch;/x", "\x01", "\x7f", "a%b", "default", "a-default", "if /x/", "endif"),
    *("\xc3\xa9", "\xff", "To:a", "dn: x", "' OR 1=1 --", "a');", "{}", "<a>", "a&b", "~a", "`a`", "joe ok", "\r", "0"),
)
"""Local parts that mean something to some format, as characters that stand for bytes."""

pieces = st.sampled_from(["a", "b", "-", "-", "+", "-default", "x", *HOSTILE])
names = st.lists(pieces, min_size=1, max_size=3).map(lambda parts: "".join(parts).lower().encode("latin-1"))
outcomes = st.sampled_from([ACCEPT, ACCEPT, DEFER, REFUSE])
prefixes = st.one_of(st.just(b""), names, names.map(lambda name: name + b"-"), st.sampled_from([b"a-", b"a-b-", b"a+"]))
tables = st.builds(
    Table,
    st.dictionaries(names, outcomes, max_size=6),
    st.dictionaries(prefixes, st.sampled_from([ACCEPT, REFUSE, REFUSE]), max_size=3),
)


@dataclass
class Compiled:
    """A file in memory with what its target said of it."""

    target: Target
    descriptor: int
    reader: Reader
    widened: list[Widened] = field(default_factory=list)
    unsayable: list[Unsayable] = field(default_factory=list)
    left_out: set[bytes] = field(default_factory=set)
    losses: int = 0

    @property
    def content(self) -> bytes:
        """The bytes of the file."""
        return os.pread(self.descriptor, 1 << 24, 0)


@contextmanager
def compiled(
    name: str, rules: Mapping[bytes, Table], options: Mapping[str, Any] | None = None, **more: Any
) -> Iterator[Compiled]:
    """The rules of some domains, written by a target and opened by its reader."""
    chosen = target(name, options=options, **more)
    descriptor = os.memfd_create("rcptgen-test")
    try:
        writer = chosen.writer(descriptor)
        lowered = [(domain, chosen.lower(domain, rules[domain])) for domain in sorted(rules)]
        for _, low in lowered:
            for keys, value in low.batches:
                writer.put(keys, value)
        writer.finish()
        found = Compiled(chosen, descriptor, chosen.open(descriptor))
        for domain, low in lowered:
            found.widened += low.widened
            found.unsayable += low.unsayable
            found.losses += low.losses
            if low.left_out:
                found.left_out.add(domain)
        try:
            yield found
        finally:
            found.reader.close()
    finally:
        os.close(descriptor)


def accepts(table: Table, name: bytes) -> bool:
    """What the rules say of a name."""
    found = table.match(name)
    return found is not None and found.accepted


def beside(table: Table) -> list[bytes]:
    """Names at, above, beside and below every rule, the empty one left out."""
    known = {rule.name for rule in table.rules()} | {b"a", b"z"}
    known |= {name[:-1] for name in known} | {name.partition(b"-")[0] for name in known}
    tails = (b"", b"z", b"-", b"-z", b"+z", b"-default")
    found = {name + tail for name in known for tail in tails} | {b"-" + name for name in known}
    return sorted(found - {b""})
