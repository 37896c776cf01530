"""The users of a vpasswd.cdb of the ordinary kind, taken apart as a whole.

As `gathered` would sort them; None wherever a name or a record is out of the ordinary.
"""

from __future__ import annotations

import struct

from rcptgen.rules.cdbproof import Proof
from rcptgen.rules.cdbwalk import HEADER, RECORD, SLOT, CdbFile, DamagedCdb, bounds
from rcptgen.rules.names import SEPARATOR
from rcptgen.vpopmail.assign import LONGEST_NAME
from rcptgen.vpopmail.gathered import BETWEEN, BOUNCE_FLAG, FIELDS_OF_USER, are_ordinary
from rcptgen.vpopmail.text import atoi

_LENGTHS = struct.Struct("<II")


class OrdinaryUsers:
    """The users of one domain.

    `open` are those without the bounce flag, sorted; `parents` what their directories, each of
    the user's own name, are in; `locked` those with the flag.
    """

    __slots__ = ("_cdb", "file", "locked", "open", "parents")

    def __init__(self, cdb: CdbFile, file: bytes, parents: set[bytes], names: list[bytes], locked: list[bytes]) -> None:
        self._cdb = cdb
        self.file = file
        self.parents = parents
        self.open = names
        self.locked = locked

    def has(self, name: bytes) -> bool:
        """Whether a look-up finds the name; raises DamagedCdb."""
        return self._cdb.get(name) is not None


def ordinary_users(data: bytes, file: bytes) -> OrdinaryUsers | None:
    """The users of a whole vpasswd.cdb, or None where it is out of the ordinary or damaged."""
    try:
        end, slots = bounds(data[:HEADER], len(data), "")
    except DamagedCdb:
        return None
    unpack = _LENGTHS.unpack_from
    keys: list[bytes] = []
    values: list[bytes] = []
    add_key, add_value = keys.append, values.append
    at, last = HEADER, end - RECORD
    while at <= last:
        key_size, value_size = unpack(data, at)
        key = at + RECORD
        value = key + key_size
        at = value + value_size
        add_key(data[key:value])
        add_value(data[value:at])
    # Every step goes forward: where the last record ends with the records, all of them lie within.
    if at != end or not keys or len(keys) > slots:
        return None
    proof = Proof()
    proof.add(keys, values)
    # As vpasswd does: hash tables that do not lead to these records are damage.
    if end + SLOT * slots != len(data) or not proof.holds(iter([data[end:]])):
        return None
    if len(set(keys)) != len(keys) or not are_ordinary(keys, SEPARATOR.join(keys)):
        return None
    columns = _columns(values)
    if columns is None:
        return None
    flags, directories = columns
    shut = {flag for flag in set(flags) if atoi(flag) & BOUNCE_FLAG}
    locked: list[bytes] = []
    if shut:
        locked = [key for key, flag in zip(keys, flags, strict=True) if flag in shut]
        if max(map(len, locked)) >= LONGEST_NAME:
            return None
        directories = [one for one, flag in zip(directories, flags, strict=True) if flag not in shut]
        keys = [key for key, flag in zip(keys, flags, strict=True) if flag not in shut]
    parents = _parents(keys, directories) if keys else set()
    if parents is None:
        return None

    def fetch(position: int, size: int) -> bytes:
        return data[position : position + size]

    cdb = CdbFile(fetch, len(data), "", whole=data)
    keys.sort()
    return OrdinaryUsers(cdb, file, parents, keys, locked)


def _columns(values: list[bytes]) -> tuple[list[bytes], list[bytes]] | None:
    """The gid fields and the directories of all records, where those have equally many fields."""
    text = BETWEEN.join(values)
    count = len(values)
    if b"\0" in text or text.count(SEPARATOR) != count - 1:
        return None
    width = values[0].count(b":") + 2
    fields = text.split(b":")
    if width <= FIELDS_OF_USER or len(fields) != count * width - 1:
        return None
    # No record holds a newline: those between two records stand in their places.
    if fields[width - 1 :: width].count(SEPARATOR) != count - 1:
        return None
    return fields[2::width], fields[4::width]


def _parents(keys: list[bytes], directories: list[bytes]) -> set[bytes] | None:
    """What the directories are in, where each has the name of its user."""
    parent = directories[0].removesuffix(keys[0])
    if parent.endswith(b"/") and SEPARATOR.join(directories) == parent + (SEPARATOR + parent).join(keys):
        return {parent[:-1]}
    if not all(map(bytes.endswith, directories, keys)):
        return None
    parents = {directory[: -len(key)] for key, directory in zip(keys, directories, strict=True)}
    return {parent[:-1] for parent in parents} if all(parent.endswith(b"/") for parent in parents) else None
