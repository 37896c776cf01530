"""Constant databases: tinycdb's bytes when written, a diagnosis for every damage when read."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import parts
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.errors import PublishFailed
from rcptgen.publish.cdb import RECORD_LIMIT, SIZE_LIMIT, DamagedCdb, read_cdb, walk_cdb, write_cdb

Records = list[tuple[bytes, bytes]]
RECORDS = st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=40)), max_size=60)


def _made(records: Records) -> bytes:
    descriptor = os.memfd_create("cdb")
    try:
        assert write_cdb(descriptor, iter(records)) == len(records)
        return os.pread(descriptor, os.fstat(descriptor).st_size + 1, 0)
    finally:
        os.close(descriptor)


def _tinycdb(records: Records, path: Path) -> bytes:
    lines = b"".join(b"+%d,%d:%s->%s\n" % (len(k), len(v), k, v) for k, v in records)
    subprocess.run(["cdb", "-c", str(path), "-"], input=lines + b"\n", check=True)
    return path.read_bytes()


@pytest.mark.needs("tinycdb")
def test_the_bytes_of_tinycdb(tmp_path: Path) -> None:
    chance = random.Random(1)
    sets: list[Records] = [
        [],
        [(b"", b"")],
        [(b"a", b"1"), (b"a", b"2"), (b"b", b""), (b"a", b"1")],
        [(b"user%d@example%d.org" % (i, i % 7), b"") for i in range(20000)],
        [(chance.randbytes(chance.randrange(30)), chance.randbytes(chance.randrange(3000))) for _ in range(500)],
    ]
    for number, records in enumerate(sets):
        assert _made(records) == _tinycdb(records, tmp_path / str(number))


@pytest.mark.needs("tinycdb")
@given(RECORDS)
def test_the_bytes_of_tinycdb_for_any_records(records: Records) -> None:
    path = Path(f"any-{os.getpid()}")
    assert _made(records) == _tinycdb(records, path)
    path.unlink()


@given(RECORDS)
def test_what_was_written_is_read(records: Records) -> None:
    data = _made(records)
    assert list(walk_cdb(data)) == records
    assert list(walk_cdb(memoryview(data))) == records


def test_read_from_path_and_descriptor(tmp_path: Path) -> None:
    records = [(b"k%d" % i, b"v%d" % i) for i in range(1000)]
    path = tmp_path / "v.cdb"
    path.write_bytes(_made(records))
    assert list(read_cdb(os.fsencode(path))) == records
    with path.open("rb") as file:
        file.seek(5)
        assert list(read_cdb(file.fileno())) == records
        assert file.tell() == 5


def test_records_around_the_size_of_a_chunk() -> None:
    mebibyte = 1 << 20
    for size in (mebibyte - 9, mebibyte - 8, mebibyte - 7, mebibyte, 3 * mebibyte):
        records = [(b"a", b"x"), (b"key", bytes(size)), (b"b", b"y"), (bytes(size), b"value"), (b"", b"")]
        assert list(walk_cdb(_made(records))) == records


def test_a_record_beyond_the_limit_is_damage() -> None:
    assert len(list(walk_cdb(_made([(b"", bytes(RECORD_LIMIT))])))) == 1
    with pytest.raises(DamagedCdb, match="not ours"):
        list(walk_cdb(_made([(b"", bytes(RECORD_LIMIT + 1))])))


def test_old_content_is_replaced() -> None:
    descriptor = os.memfd_create("cdb")
    try:
        os.write(descriptor, bytes(100000))
        write_cdb(descriptor, [(b"a", b"")])
        assert os.pread(descriptor, 200000, 0) == _made([(b"a", b"")])
    finally:
        os.close(descriptor)


def test_size_limit_before_writing() -> None:
    one = 2048 + 1 + 24
    descriptor = os.memfd_create("cdb")
    try:
        assert write_cdb(descriptor, [(b"a", b"")], limit=one) == 1
        assert os.fstat(descriptor).st_size == one
        with pytest.raises(PublishFailed, match="beyond"):
            write_cdb(descriptor, [(b"a", b"")], limit=one - 1)
        assert os.fstat(descriptor).st_size <= 2048
    finally:
        os.close(descriptor)


def test_limit_of_a_giant_set_is_found_without_writing_it() -> None:
    def records() -> Iterator[tuple[bytes, bytes]]:
        value = bytes(1 << 30)
        for i in range(10):
            yield b"%d" % i, value

    descriptor = os.memfd_create("cdb")
    try:
        with pytest.raises(PublishFailed, match=str(SIZE_LIMIT)):
            write_cdb(descriptor, records())
        assert os.fstat(descriptor).st_size < 1 << 20
    finally:
        os.close(descriptor)


def test_errors_of_the_records_go_through() -> None:
    def records() -> Iterator[tuple[bytes, bytes]]:
        yield b"a", b""
        raise KeyboardInterrupt

    descriptor = os.memfd_create("cdb")
    try:
        with pytest.raises(KeyboardInterrupt):
            write_cdb(descriptor, records())
        os.fstat(descriptor)
    finally:
        os.close(descriptor)


def test_descriptor_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "v").touch()
    descriptor = os.open(tmp_path / "v", os.O_RDONLY)
    try:
        with pytest.raises(PublishFailed):
            write_cdb(descriptor, [(b"k%d" % i, b"") for i in range(10000)])
    finally:
        os.close(descriptor)


# --- Damage --------------------------------------------------------------------------------------

SOUND: Records = [(b"user%d@example.org" % i, b"value" * (i % 5)) for i in range(40)] + [
    (b"", b""),
    (b"user1", b"again"),
]


def _outcome(data: bytes) -> Records | None:
    """The records, or None for a diagnosis; anything else is a bug."""
    try:
        return list(walk_cdb(data))
    except DamagedCdb:
        return None


def test_mutations_never_crash() -> None:
    sound = _made(SOUND)
    chance = random.Random(2)
    begin = time.monotonic()
    diagnosed = 0
    for _ in range(parts.rounds(4000)):
        data = bytearray(sound)
        for _ in range(chance.choice((1, 1, 2, 8))):
            at = chance.choice((chance.randrange(len(data)), chance.randrange(2048), chance.randrange(2048, 2100)))
            match chance.randrange(5):
                case 0:
                    data[at] = chance.randrange(256)
                case 1:
                    data[at : at + 4] = struct.pack("<I", chance.choice((0, 1, 2**31, 2**32 - 1, len(data), 2048)))
                case 2:
                    del data[at:]
                case 3:
                    data[at:at] = chance.randbytes(chance.randrange(20))
                case _:
                    del data[at : at + chance.randrange(1, 20)]
            if len(data) < 2100:
                break
        diagnosed += _outcome(bytes(data)) is None
    assert diagnosed > 1000
    assert time.monotonic() - begin < parts.rounds(20)


def test_every_truncation_is_found() -> None:
    sound = _made(SOUND)
    for size in range(len(sound)):
        assert _outcome(sound[:size]) is None, size


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"#!/bin/sh\n",
        bytes(2047),
        bytes(2048),
        bytes(5000),
        b"\xff" * 5000,
        struct.pack("<II", 2048, 1) * 256 + bytes(8),
        struct.pack("<II", 0, 1) * 256 + bytes(4096),
        struct.pack("<II", 2056, 1) + struct.pack("<II", 2064, 0) * 255 + struct.pack("<II", 1, 0) + bytes(8),
    ],
)
def test_damaged(data: bytes) -> None:
    assert _outcome(data) is None


def test_records_that_no_slot_points_to() -> None:
    data = struct.pack("<II", 2048 + 16, 1) + struct.pack("<II", 2072, 0) * 255 + bytes(16) + bytes(8)
    assert _outcome(data) is None


def test_empty_cdb_is_sound() -> None:
    assert _outcome(_made([])) == []


def test_sparse_giant_is_quick(tmp_path: Path) -> None:
    path = tmp_path / "v.cdb"
    with path.open("wb") as file:
        file.write(struct.pack("<II", 3 << 30, 1000) * 256)
        file.truncate(SIZE_LIMIT)
    begin = time.monotonic()
    with pytest.raises(DamagedCdb):
        list(read_cdb(os.fsencode(path)))
    with path.open("ab") as file:
        file.truncate(SIZE_LIMIT + 1)
    with pytest.raises(DamagedCdb, match="more than"):
        list(read_cdb(os.fsencode(path)))
    assert time.monotonic() - begin < 20


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, tmp_path / "absent", Path("/dev/zero")):
        with pytest.raises(DamagedCdb):
            list(read_cdb(os.fsencode(path)))
    with pytest.raises(DamagedCdb, match="cannot read"):
        list(read_cdb(999))


def test_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "v.cdb"
    path.write_bytes(_made([(b"%d" % i, bytes(1000)) for i in range(5000)]))
    walk = read_cdb(os.fsencode(path))
    next(walk)
    os.truncate(path, 4000)
    with pytest.raises(DamagedCdb, match="shorter"):
        list(walk)


def test_the_diagnosis_ends_a_comparison_with_trouble() -> None:
    assert DamagedCdb.status == 2
