"""Files of rules as bytes: whatever stands in them, they are read or named, and nothing else is raised."""

from __future__ import annotations

import csv
import io

import pytest
from everytarget import HOSTILE
from hosts import cdb_bytes
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.config import Relay
from rcptgen.listfiles import CUT_OFF, ListFile, overlay_of, relay_file
from rcptgen.qmail.hostfiles import Found
from rcptgen.rules.overlay import Part
from rcptgen.source.tree import Identity, Regular, Status

FORMATS = (
    Relay(file="/x"),
    Relay(file="/x", format="csv"),
    Relay(file="/x", format="csv", column="mail", delimiter=";"),
    Relay(file="/x", format="csv", column=2, header=True, delimiter="\t"),
    Relay(file="/x", format="cdb"),
)


def relayed(relay: Relay, data: bytes) -> ListFile:
    """What a file with this content says of far.example."""

    def read(path: bytes, identity: Identity | None = None, limit: int = 0) -> Found:
        return Regular(data, Status(0o100644, 0, 0, len(data), 0, 0, 0, 0))

    return relay_file(relay, read, b"far.example".__eq__, b"-")


def accepted(found: ListFile) -> list[bytes]:
    assert found.trouble == ""
    part = found.listing.parts.get(b"far.example")
    return list(part.accepted.names) if isinstance(part, Part) else []


pieces = st.sampled_from(
    [b"joe@far.example", b"mail", b"\n", b"\r\n", b";", b"\t", b",", b'"', b"*", b"\0", b"#", b"\xff"]
)
contents = st.one_of(st.binary(max_size=80), st.lists(pieces, max_size=12).map(b"".join))


@pytest.mark.parametrize("relay", FORMATS)
@given(data=contents)
def test_any_bytes_are_read_or_named(relay: Relay, data: bytes) -> None:
    found = relayed(relay, data)
    if found.trouble:
        assert found.damaged
        assert found.listing.parts == {}
    else:
        assert relay.format == "cdb" or not data or data.endswith(b"\n")


@given(contents)
def test_any_bytes_are_overlays_or_named(data: bytes) -> None:
    found = overlay_of(b"/x", data)
    assert bool(found.trouble) is not bool(found.data or not data)
    if data and not data.endswith(b"\n"):
        assert (found.trouble, found.line) == (CUT_OFF, data.count(b"\n") + 1)


COMPILED = cdb_bytes(
    [(b"joe@far.example", b"1"), (b"list-default@far.example", b"1"), (b"list-no@far.example", b"-"), (b"x@far", b"1")]
)


def told(found: ListFile) -> tuple[set[bytes], set[bytes], int]:
    """The names and prefixes, accepted or not."""
    part = found.listing.parts[b"far.example"]
    return {*part.accepted.names, *part.refused.names}, {*part.prefixes}, found.listing.strange.count


@given(st.integers(0, len(COMPILED) - 1), st.integers(1, 255))
def test_no_damaged_byte_of_a_compiled_list_changes_a_name(at: int, change: int) -> None:
    """Values have no proof in such a file; keys, lengths and hash tables prove each other."""
    data = bytearray(COMPILED)
    data[at] ^= change
    relay = Relay(file="/x", format="cdb")
    found = relayed(relay, bytes(data))
    assert found.trouble or told(found) == told(relayed(relay, COMPILED))


plain = st.text(st.characters(codec="latin-1", exclude_characters="\0\r\n*"), min_size=1, max_size=6)
spelled = st.one_of(plain, st.sampled_from([one for one in HOSTILE if not {*"\0\r\n*"} & {*one}]))


@given(st.lists(spelled.map(str.strip).filter(bool), max_size=6), st.sampled_from([",", ";", "\t"]))
def test_what_a_spreadsheet_writes_is_read(names: list[str], delimiter: str) -> None:
    wanted = sorted({f"{name}@far.example".encode("latin-1").lower().rpartition(b"@")[0] for name in names})
    sheet = io.StringIO()
    writer = csv.writer(sheet, delimiter=delimiter)
    writer.writerow(["name", "mail"])
    for name in names:
        writer.writerow([name, f" {name}@far.example"])
    relay = Relay(file="/x", format="csv", column="Mail", delimiter=delimiter)
    found = relayed(relay, sheet.getvalue().encode("latin-1"))
    assert accepted(found) == wanted


def test_a_record_of_another_format_among_ours_is_damage() -> None:
    data = cdb_bytes([(b"=joe@far.example", b"f1 mailbox"), (b"ann@far.example", b"1")])
    assert relayed(Relay(file="/x", format="cdb"), data).trouble == "records of two formats"


def test_names_that_look_like_ours_are_those_of_the_other_format() -> None:
    data = cdb_bytes([(b"=joe@far.example", b"1"), (b"=ann@far.example", b"f1 mailbox")])
    assert accepted(relayed(Relay(file="/x", format="cdb"), data)) == [b"=ann", b"=joe"]
