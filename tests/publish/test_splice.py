"""A cdb that is made of another one: the bytes that a writer makes of the same records, and a proof of them."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rcptgen.errors import PublishFailed
from rcptgen.publish import splice
from rcptgen.publish.alike import MOST_STRETCHES, alike
from rcptgen.publish.cdb import CdbWriter, read_cdb
from rcptgen.publish.splice import CdbSplice, Unfit

Records = list[tuple[bytes, bytes]]
NAMES = st.lists(st.tuples(st.binary(max_size=3), st.sampled_from([b"1", b"-", b""])), max_size=12)
DOMAINS = st.lists(NAMES, max_size=6)


@contextmanager
def _file() -> Iterator[int]:
    descriptor = os.memfd_create("cdb")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _bytes(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size + 1, 0)


def _write(descriptor: int, domains: list[Records]) -> list[tuple[int, int, int]]:
    """A cdb of the domains; where each begins, its size, and its records."""
    writer = CdbWriter(descriptor)
    places = []
    for records in domains:
        start = writer.position
        writer.add(records)
        places.append((start, writer.position - start, len(records)))
    writer.finish()
    return places


def _large(count: int, *, domain: int = 0) -> Records:
    return sorted((b"name%d@%d" % (number * 7919 % count, domain), b"1") for number in range(count))


@given(DOMAINS, st.data())
@example([], None)
def test_bytes_are_those_of_a_writer(old: list[Records], data: st.DataObject | None) -> None:
    """Whatever is copied, replaced, left out or put between."""
    with _file() as before, _file() as after, _file() as whole:
        places = _write(before, old)
        made = CdbSplice(after, before)
        new: list[Records] = []
        for records, (start, size, count) in zip(old, places, strict=True):
            assert data is not None
            what = data.draw(st.sampled_from(["copied", "replaced", "gone", "before"]))
            other = data.draw(NAMES) if what in ("replaced", "before") else []
            if what == "before":
                for key, value in other:
                    made.put([key], value)
                new.append(other)
            if what in ("copied", "before"):
                made.copy(before, start, size, count)
                new.append(records)
            elif what == "replaced":
                kept = data.draw(st.permutations(records)) if data.draw(st.booleans()) else records
                made.instead(start, size)
                for key, value in [*kept, *other]:
                    made.put([key], value)
                new.append([*kept, *other])
            assert made.position == 2048 + sum(8 + len(k) + len(v) for some in new for k, v in some)
        made.put([b"postmaster"], b"1")
        new.append([(b"postmaster", b"1")])
        assert made.finish() == sum(map(len, new)) == made.count
        _write(whole, new)
        assert _bytes(after) == _bytes(whole)


@pytest.mark.parametrize("changes", [1, 3, 500])
def test_large_domains(changes: int) -> None:
    """Tables that are moved in pieces, and records that are compared in pieces."""
    old = [_large(30_000), _large(50_000, domain=1), _large(40_000, domain=2)]
    fresh = sorted([*old[1][:: 1 if changes < 500 else 2], *((b"new%d@1" % number, b"1") for number in range(changes))])
    with _file() as before, _file() as after, _file() as whole:
        places = _write(before, old)
        made = CdbSplice(after, before)
        made.copy(before, *places[0])
        made.instead(*places[1][:2])
        for key, value in fresh:
            made.put([key], value)
        made.copy(before, *places[2])
        made.finish()
        _write(whole, [old[0], fresh, old[2]])
        assert _bytes(after) == _bytes(whole)


def test_writers_copy_too() -> None:
    """Where a file is made anew, what stands is read from the old one."""
    domains = [_large(100), _large(1000, domain=1), []]
    with _file() as before, _file() as after:
        places = _write(before, domains)
        writer = CdbWriter(after)
        for place in places:
            writer.copy(before, *place)
        assert writer.finish() == 1100
        assert _bytes(after) == _bytes(before)
        with pytest.raises(PublishFailed, match="not what it was"):
            CdbWriter(after).copy(before, places[1][0] + 1, places[1][1], 1000)


@pytest.mark.parametrize("damage", ["short", "table", "large"])
def test_files_that_makers_lay_out_otherwise(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is spliced: a writer makes the file from its beginning."""
    with _file() as before, _file() as after:
        _write(before, [_large(100)])
        if damage == "short":
            os.ftruncate(before, 100)
        elif damage == "table":
            numbers = struct.unpack("<512I", os.pread(before, 2048, 0))
            moved = (number + 8 * (place % 2 == 0) for place, number in enumerate(numbers))
            os.pwrite(before, struct.pack("<512I", *moved), 0)
        else:
            monkeypatch.setattr(splice, "LARGEST", 4096)
        with pytest.raises(Unfit):
            CdbSplice(after, before)


def test_records_ascend() -> None:
    """Stretches are taken in the order of the old file."""
    with _file() as before, _file() as after:
        places = _write(before, [_large(10), _large(10, domain=1)])
        made = CdbSplice(after, before)
        made.copy(before, *places[1])
        with pytest.raises(ValueError, match="ascending"):
            made.copy(before, *places[0])


@pytest.mark.parametrize("at", ["record", "slot", "position"])
def test_what_is_wrong_is_found(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte that is not what it should be, wherever it comes from, and nothing is published."""
    with _file() as before, _file() as after:
        places = _write(before, [_large(5000), _large(10, domain=1)])
        made = CdbSplice(after, before)
        made.instead(*places[0][:2])
        for key, value in [(b"aaa", b"1"), *_large(5000)]:
            made.put([key], value)
        made.copy(before, *places[1])
        prove = CdbSplice._prove

        def spoilt(self: CdbSplice, size: int, wanted: int) -> None:
            place = {"record": 4000, "slot": size - 8000, "position": size - 7996}[at]
            while not any(os.pread(after, 4, place)):
                place += 8
            os.pwrite(after, bytes([os.pread(after, 1, place)[0] ^ 1]), place)
            prove(self, size, wanted)

        monkeypatch.setattr(CdbSplice, "_prove", spoilt)
        with pytest.raises(PublishFailed, match="nothing was published"):
            made.finish()


def test_a_new_record_that_no_look_up_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots may add up and stand in the wrong places: what is new is looked up."""
    with _file() as before, _file() as after:
        places = _write(before, [_large(1000)])
        made = CdbSplice(after, before)
        made.copy(before, *places[0])
        made.put([b"one"], b"1")
        order = CdbSplice._made
        monkeypatch.setattr(CdbSplice, "_made", lambda *one: order(*one)[32:] + order(*one)[:32])
        with pytest.raises(PublishFailed, match="not found"):
            made.finish()


def test_an_old_file_that_shrinks() -> None:
    """What is copied must be there."""
    with _file() as before, _file() as after:
        places = _write(before, [_large(1000)])
        made = CdbSplice(after, before)
        made.copy(before, *places[0])
        os.ftruncate(before, 4096)
        with pytest.raises(PublishFailed, match="became shorter"):
            made.finish()


def test_no_room() -> None:
    """A descriptor that cannot be written to."""
    with _file() as before:
        _write(before, [_large(10)])
        descriptor = os.open(os.devnull, os.O_RDONLY)
        try:
            with pytest.raises(PublishFailed, match="cannot write a cdb"):
                CdbSplice(descriptor, before)
        finally:
            os.close(descriptor)


def test_growing_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a position needs its highest bit."""
    with _file() as before, _file() as after:
        places = _write(before, [_large(10)])
        made = CdbSplice(after, before)
        monkeypatch.setattr(splice, "LARGEST", 4096)
        made.copy(before, *places[0])
        with pytest.raises(PublishFailed, match="beyond 4096"):
            made.put([b"x" * 2048], b"1")


@given(NAMES, NAMES)
def test_what_lists_have_in_common(old: Records, fresh: Records) -> None:
    """Stretches make up the new list, and those that are kept are those of the old one, in its order."""
    made: Records = []
    after = 0
    for kept, of_old, of_fresh in alike(old, fresh):
        made += [fresh[at] for at in of_fresh]
        if kept:
            assert [old[at] for at in of_old] == [fresh[at] for at in of_fresh]
            assert of_old.start >= after
            after = of_old.stop
    assert made == fresh


def test_most_stretches() -> None:
    """Very many differences are one."""
    old = _large(1000)
    fresh = sorted([*old, *((b"name%d@x" % number, b"1") for number in range(0, 1000, 10))])
    found = list(alike(old, fresh))
    assert len(found) == 3
    few = sorted([*old, (b"name1@x", b"1"), (b"name5@x", b"1")])
    assert sum(kept for kept, *_ in alike(old, few)) == 3
    assert len(list(alike(old, few))) == 5 < MOST_STRETCHES


def test_readers_read_it() -> None:
    """The file is one like others."""
    with _file() as before, _file() as after:
        places = _write(before, [_large(10)])
        made = CdbSplice(after, before)
        made.copy(before, *places[0])
        made.finish()
        assert list(read_cdb(after)) == _large(10)
