"""Tables as bytes: what is accepted and as what kind, without where each rule came from.

Equal sets of rules give equal bytes, however the rules were found.
"""

from __future__ import annotations

import msgspec

from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table

_Group = tuple[bool, str, bytes | None, list[bytes]]
_Prefix = tuple[bytes, bool, str]
_Packed = tuple[list[_Group], list[_Prefix]]


def pack(table: Table) -> bytes:
    """`table` as bytes."""
    groups: dict[tuple[bool, str], list[Names]] = {}
    for outcome, names in table.groups.items():
        groups.setdefault((outcome.accepted, outcome.kind.value), []).append(names)
    packed: list[_Group] = []
    for (accepted, kind), parts in sorted(groups.items()):
        names = Names.union(parts)
        packed.append((accepted, kind, names.joined, list(names.odd)))
    prefixes = [(name, outcome.accepted, outcome.kind.value) for name, outcome in sorted(table.prefixes.items())]
    return msgspec.msgpack.encode((packed, prefixes))


def unpack(data: bytes) -> Table:
    """The table that `pack` made `data` from.  Raises ValueError for bytes that it did not make."""
    try:
        groups, prefixes = msgspec.msgpack.decode(data, type=_Packed)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a packed table: {error}") from None
    return Table.of_groups(
        {_outcome(accepted, kind): Names.of_sorted(joined, odd) for accepted, kind, joined, odd in groups},
        {name: _outcome(accepted, kind) for name, accepted, kind in prefixes},
    )


def _outcome(accepted: bool, kind: str) -> Outcome:
    return Outcome(Verdict.DELIVER if accepted else Verdict.BOUNCE, Kind(kind), "as it was published")
