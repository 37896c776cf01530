"""tcpserver's rules: what a client's address does to the variables of the server (ucspi-tcp's rules.c, tcprules.c).

text     ADDRESS:allow,NAME="value",...      ADDRESS:deny      the value between two equal characters
cdb      key ADDRESS; data "D" to deny, and "+NAME=value" with a NUL behind it, once for each variable
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from rcptgen.doctor.sight import Sight
from rcptgen.publish.cdb import DamagedCdb, read_cdb

MOST_RULES = 100_000

_RANGE = re.compile(rb"[0-9]-[0-9]")


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for the clients of one address, which is empty for all others; `line` is that of the text."""

    address: bytes
    environment: dict[bytes, bytes] = field(default_factory=dict)
    deny: bool = False
    line: int = 0


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules in force, by address; `source` is the text beside the cdb, `stale` are its rules that differ."""

    file: bytes
    rules: dict[bytes, Rule]
    source: bytes
    stale: list[Rule]

    def place(self, rule: Rule) -> tuple[bytes, int]:
        """Where a person finds a rule."""
        return (self.source, rule.line) if rule.line else (self.file, 0)


def read(sight: Sight, path: bytes) -> Rules | None:
    """The rules of the cdb at `path`; None where it cannot be read."""
    descriptor = sight.file(path)
    if descriptor is None:
        return None
    found: dict[bytes, Rule] = {}
    try:
        for key, value in read_cdb(descriptor, name=path):
            found.setdefault(key, _packed(key, value))
            if len(found) > MOST_RULES:
                break
    except DamagedCdb:
        return None
    finally:
        os.close(descriptor)
    source = path.removesuffix(b".cdb")
    written = _source(sight, source) if source != path else {}
    stale = [one for one in written.values() if not _RANGE.search(one.address) and not _same(found, one)]
    lined = {key: Rule(key, one.environment, one.deny, _line(written, key)) for key, one in found.items()}
    return Rules(path, lined, source, stale)


def _packed(key: bytes, data: bytes) -> Rule:
    environment: dict[bytes, bytes] = {}
    deny = False
    while data:
        kind, data = data[:1], data[1:]
        if kind == b"D":
            deny = True
        elif kind == b"+":
            one, _, data = data.partition(b"\0")
            name, _, value = one.partition(b"=")
            environment[name] = value
        else:
            break
    return Rule(key, environment, deny)


def _source(sight: Sight, path: bytes) -> dict[bytes, Rule]:
    """The rules of the text, as tcprules would take them; of several for one address the first counts."""
    found: dict[bytes, Rule] = {}
    for number, line in sight.lines(path):
        address, colon, rest = line.partition(b":")
        if line.startswith(b"#") or not colon:
            continue
        environment: dict[bytes, bytes] = {}
        instruction, _, rest = rest.partition(b",")
        while rest:
            name, equals, rest = rest.partition(b"=")
            if not equals or not rest:
                break
            value, _, rest = rest[1:].partition(rest[:1])
            environment[name] = value
            rest = rest.removeprefix(b",")
        found.setdefault(address, Rule(address, environment, instruction == b"deny", number))
    return found


def _same(found: dict[bytes, Rule], one: Rule) -> bool:
    other = found.get(one.address)
    return other is not None and (other.environment, other.deny) == (one.environment, one.deny)


def _line(written: dict[bytes, Rule], key: bytes) -> int:
    one = written.get(key)
    return 0 if one is None else one.line
