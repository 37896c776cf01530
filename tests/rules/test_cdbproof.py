"""What proves that the hash tables of a cdb lead to the records that stand in it."""

from __future__ import annotations

import pytest
from hosts import cdb_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from rcptgen.rules.cdbproof import FEW, proved, sum_of_hashes
from rcptgen.rules.cdbwalk import CdbFile, DamagedCdb, hash_of

RECORDS = [*((b"u%d" % number, b"v" * number) for number in range(30)), (b"", b"empty"), (b"u1", b"again")]
WHOLE = cdb_bytes(RECORDS)


def opened(content: bytes) -> CdbFile:
    return CdbFile(lambda at, size: content[at : at + size], len(content), "cdb")


def walked(content: bytes) -> dict[bytes, bytes]:
    """The first record of each name; raises DamagedCdb."""
    found: dict[bytes, bytes] = {}
    for keys, values in proved(opened(content)):
        for key, value in zip(keys, values, strict=True):
            found.setdefault(key, value)
    return found


def looked_up(content: bytes, key: bytes) -> bytes | None:
    try:
        return opened(content).get(key)
    except DamagedCdb:
        return None


@given(st.lists(st.binary(max_size=6) | st.sampled_from([b"abc", b"\xff\xff\xff"]), max_size=5 * FEW))
def test_keys_are_hashed_together_as_they_are_one_by_one(keys: list[bytes]) -> None:
    assert sum_of_hashes(keys) == sum(map(hash_of, keys))


@given(st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=4)), max_size=20))
def test_a_whole_cdb_is_walked(records: list[tuple[bytes, bytes]]) -> None:
    found = [pair for batch in proved(opened(cdb_bytes(records))) for pair in zip(*batch, strict=True)]
    assert found == records


@pytest.mark.parametrize("large", [300_000, 1_100_000])
def test_records_larger_than_what_is_read_at_once(large: int) -> None:
    records = [(b"k%d" % number, b"v" * large) for number in range(8)]
    assert walked(cdb_bytes(records)) == dict(records)


@settings(max_examples=500)
@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=9))
def test_damage_that_parts_the_walk_from_the_look_ups_is_found(at: int, patch: bytes) -> None:
    content = WHOLE[:at] + patch + WHOLE[at + len(patch) :]
    try:
        found = walked(content)
    except DamagedCdb:
        return
    for key in {key for key, _ in RECORDS} | found.keys():
        assert looked_up(content, key) == found.get(key), key


def test_two_slots_that_were_never_written_are_found() -> None:
    at = WHOLE.rindex(hash_of(b"u7").to_bytes(4, "little"))
    with pytest.raises(DamagedCdb, match="do not lead to its records"):
        walked(WHOLE[:at] + bytes(8) + WHOLE[at + 8 :])
