"""Generations: what was written is read, damage is found, and the digests decide what is trusted."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.errors import ConfigurationError
from rcptgen.publish.files import Publication
from rcptgen.publish.history import Rollback, Who
from rcptgen.publish.state import DamagedState, Generation, GenerationWriter, Meta, State, path_key

BLOBS = [(b"a.example", b"first"), (b"b.example", b""), (b"c.example", bytes(range(256)) * 9)]


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    # test_crash.py looks at what is synced, and when.
    monkeypatch.setattr(os, "fsync", os.fstat)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(os.fsencode(tmp_path / "state")) as opened:
        yield opened


def _meta(*paths: Path, reason: str = "") -> Meta:
    digests = {path_key(os.fsencode(path)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    return Meta(time=1.5, reason=reason, digests=digests)


def _write(state: State, blobs: list[tuple[bytes, bytes]], meta: Meta) -> GenerationWriter:
    writer = state.begin()
    for domain, blob in blobs:
        writer.add(domain, blob)
    writer.finish(meta)
    return writer


def _keep(state: State, blobs: list[tuple[bytes, bytes]], meta: Meta) -> int:
    writer = _write(state, blobs, meta)
    assert state.accept(writer) is None
    return writer.number


def _current(state: State, paths: list[bytes] | None = None) -> Generation:
    generation = state.current(paths)
    assert generation is not None, state.warnings
    return generation


def test_made_private_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0, 0o022, 0o777):
        old = os.umask(umask)
        try:
            with State.open(os.fsencode(tmp_path / f"{umask}")) as state:
                _keep(state, BLOBS, _meta())
        finally:
            os.umask(old)
        for directory, _, files in os.walk(tmp_path / f"{umask}"):
            assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
            for name in files:
                assert not stat.S_IMODE(os.stat(os.path.join(directory, name)).st_mode) & 0o077


def test_nothing_yet(state: State) -> None:
    assert state.current() is None
    assert state.current([b"/etc/hostname"]) is None
    assert state.warnings == []
    assert state.generations() == []


def test_what_was_written_is_read(state: State) -> None:
    meta = Meta(
        time=1700000000.25,
        reason="compile",
        digests={path_key(b"/v\xff"): "00"},
        counts={"names": 3},
        units=["home:joe"],
        held={"a.example": 12.5},
        prepended={"joe-a": "a.example"},
        notes={"x": "y\n\x1b"},
    )
    number = _keep(state, BLOBS, meta)
    with _current(state) as generation:
        assert generation.number == generation.meta.number == number == 1
        assert list(generation.blobs()) == BLOBS
        assert len(generation) == 3
        for domain, blob in BLOBS:
            assert generation.blob(domain) == blob
        for absent in (b"", b"a", b"aa", b"b.exampl", b"b.example1", b"z"):
            assert generation.blob(absent) is None
        assert generation.meta.time == meta.time
        assert generation.meta.held == meta.held
        assert generation.meta.notes == meta.notes
        assert generation.meta.units == meta.units
    assert state.warnings == []


def test_no_domain_at_all(state: State) -> None:
    _keep(state, [], _meta())
    with _current(state) as generation:
        assert list(generation.blobs()) == []
        assert generation.blob(b"a") is None


def test_large_blobs_and_long_names(state: State) -> None:
    blobs = [(b"%05d" % i, os.urandom(700)) for i in range(5000)]
    blobs += [(b"9" * 1000 + b"%d" % i, bytes(3 << 20)) for i in range(3)]
    _keep(state, blobs, _meta())
    with _current(state) as generation:
        assert list(generation.blobs()) == blobs
        assert generation.blob(b"04999") == blobs[4999][1]
        assert generation.blob(b"9" * 1000 + b"2") == bytes(3 << 20)


def test_two_readers_at_once(state: State) -> None:
    blobs = [(b"%05d" % i, bytes(2000)) for i in range(2000)]
    _keep(state, blobs, _meta())
    with _current(state) as generation:
        for left, right in zip(generation.blobs(), generation.blobs(), strict=True):
            assert left == right


@pytest.mark.parametrize("second", [b"a", b"b"])
def test_domains_must_ascend(state: State, second: bytes) -> None:
    with state.begin() as writer:
        writer.add(b"b", b"")
        with pytest.raises(ValueError, match="ascending"):
            writer.add(second, b"")
    assert state.generations() == []


@given(st.dictionaries(st.binary(max_size=300), st.binary(max_size=300), max_size=20))
def test_any_blobs(blobs: dict[bytes, bytes]) -> None:
    path = Path(f"any-{os.getpid()}")
    try:
        with State.open(os.fsencode(path)) as state:
            _keep(state, sorted(blobs.items()), _meta())
            with _current(state) as generation:
                assert list(generation.blobs()) == sorted(blobs.items())
                for domain, blob in blobs.items():
                    assert generation.blob(domain) == blob
    finally:
        shutil.rmtree(path)


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_one_key_for_one_path(one: bytes, two: bytes) -> None:
    assert path_key(one).isascii()
    assert path_key(one).isprintable()
    assert (path_key(one) == path_key(two)) == (one == two)


def test_stays_readable_while_it_is_removed(state: State) -> None:
    _keep(state, BLOBS, _meta())
    with _current(state) as generation:
        shutil.rmtree(state.path + b"/generations/1")
        assert list(generation.blobs()) == BLOBS


# --- Damage --------------------------------------------------------------------------------------


def _read_all(state: State) -> list[tuple[bytes, bytes]] | None:
    generation = state.current()
    if generation is None:
        assert state.warnings
        return None
    with generation:
        seen = []
        try:
            for domain, blob in generation.blobs():
                seen.append((domain, blob))
                assert (domain, blob) in BLOBS
        except DamagedState:
            return None
        for domain, blob in BLOBS:
            assert generation.blob(domain) == blob
        return seen


def test_every_truncation_and_every_flipped_byte_is_found(state: State, tmp_path: Path) -> None:
    _keep(state, BLOBS, _meta())
    rules = tmp_path / "state" / "generations" / "1" / "rules"
    sound = rules.read_bytes()
    with rules.open("r+b", buffering=0) as file:
        for at in range(len(sound)):
            os.pwrite(file.fileno(), bytes([sound[at] ^ 0x41]), at)
            assert _read_all(state) is None, at
            os.pwrite(file.fileno(), sound[at : at + 1], at)
        assert _read_all(state) == BLOBS
        os.pwrite(file.fileno(), b"x", len(sound))
        assert _read_all(state) is None
        for size in reversed(range(len(sound))):
            os.truncate(rules, size)
            assert _read_all(state) is None, size


def test_damaged_record_is_not_looked_up(state: State, tmp_path: Path) -> None:
    _keep(state, BLOBS, _meta())
    rules = tmp_path / "state" / "generations" / "1" / "rules"
    rules.write_bytes(rules.read_bytes().replace(b"first", b"worst"))
    with _current(state) as generation, pytest.raises(DamagedState):
        generation.blob(b"a.example")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "damaged"),
        (b"{", "damaged"),
        (b"\xff", "damaged"),
        (b"[]", "damaged"),
        (b'{"format": 1}', "damaged"),
        (b'{"format": 2, "time": "never"}', "version 2"),
        (b'{"format": 1, "number": 7, "time": 1}', "generation 7"),
        (b'{"format": 1, "number": 1, "time": 1, "units": 5}', "damaged"),
    ],
)
def test_damaged_meta(state: State, tmp_path: Path, text: bytes, words: str) -> None:
    _keep(state, BLOBS, _meta())
    (tmp_path / "state" / "generations" / "1" / "meta.json").write_bytes(text)
    assert state.current() is None
    assert words in state.warnings[-1]
    # And the next run goes on.
    assert _keep(state, BLOBS, _meta()) == 2
    _current(state).close()


@pytest.mark.parametrize(
    "text", [b"", b"1", b"x\n", b"-1\n", b"01\n", b"1\n1\n", b"9" * 40 + b"\n", b"7\n", b"\0" * 10]
)
def test_damaged_current(state: State, tmp_path: Path, text: bytes) -> None:
    _keep(state, BLOBS, _meta())
    (tmp_path / "state" / "current").write_bytes(text)
    assert state.current() is None
    assert state.warnings
    assert _keep(state, BLOBS, _meta()) > 1
    _current(state).close()


# --- What is trusted -----------------------------------------------------------------------------


def test_trusted_only_while_the_files_are_the_same(state: State, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    paths = [os.fsencode(one), os.fsencode(two)]
    _keep(state, BLOBS, _meta(one, two))
    with _current(state, paths) as generation:
        assert generation.matches(paths)
        assert generation.matches(paths[:1])
        assert not generation.matches([])
        assert generation.differing([*paths, b"/other"]) == [b"/other"]
        two.write_bytes(b"x")
        assert generation.differing(paths) == [os.fsencode(two)]
    assert state.current(paths) is None
    assert "not those of generation 1" in state.warnings[-1]
    two.unlink()
    assert state.current(paths) is None
    os.mkfifo(two)
    assert state.current(paths) is None
    two.unlink()
    two.symlink_to("/dev/zero")
    assert state.current(paths) is None


def _publish(target: Path, content: bytes) -> None:
    with Publication() as publication:
        publication.stage(os.fsencode(target), 0o600).write([content])
        publication.commit()


def _meta_of(content: bytes, target: Path) -> Meta:
    return Meta(time=1, digests={path_key(os.fsencode(target)): hashlib.sha256(content).hexdigest()})


def test_killed_before_the_files_were_renamed(state: State, tmp_path: Path) -> None:
    target = tmp_path / "v"
    _publish(target, b"one")
    _keep(state, [(b"d", b"one")], _meta_of(b"one", target))
    _write(state, [(b"d", b"two")], _meta_of(b"two", target))
    with State.open(state.path) as later, _current(later, [os.fsencode(target)]) as generation:
        assert generation.blob(b"d") == b"one"


def test_killed_between_the_files_and_current(state: State, tmp_path: Path) -> None:
    target = tmp_path / "v"
    _publish(target, b"one")
    _keep(state, [(b"d", b"one")], _meta_of(b"one", target))
    _write(state, [(b"d", b"two")], _meta_of(b"two", target))
    _publish(target, b"two")
    with State.open(state.path) as later:
        with _current(later, [os.fsencode(target)]) as generation:
            assert generation.blob(b"d") == b"two"
        assert later.warnings == []
        later.begin().abandon()
        with _current(later) as generation:
            assert generation.blob(b"d") == b"two"


def test_current_before_the_files_is_not_trusted(state: State, tmp_path: Path) -> None:
    target = tmp_path / "v"
    _publish(target, b"one")
    _keep(state, [(b"d", b"two")], _meta_of(b"two", target))
    assert state.current([os.fsencode(target)]) is None


# --- History -------------------------------------------------------------------------------------


def test_keeps_the_last_generations(tmp_path: Path) -> None:
    with State.open(os.fsencode(tmp_path / "state"), keep=3) as state:
        for i in range(6):
            _keep(state, [(b"d", b"%d" % i)], _meta(reason=str(i)))
        assert state.generations() == [4, 5, 6]
        generation = state.generation(5)
        assert generation is not None
        with generation:
            assert generation.blob(b"d") == b"4"
        assert state.generation(1) is None
        assert state.warnings


def test_the_previous_one_is_always_kept(tmp_path: Path) -> None:
    with State.open(os.fsencode(tmp_path / "state"), keep=0) as state:
        for _ in range(4):
            _keep(state, BLOBS, _meta())
        assert state.generations() == [3, 4]


def test_unfinished_and_refused_ones_go(state: State, tmp_path: Path) -> None:
    _keep(state, BLOBS, _meta())
    unfinished = state.begin()
    unfinished.add(b"d", b"")
    assert state.generations() == [1, 2]
    with State.open(state.path) as later:
        assert later.generations() == [1, 2]
        refused = _write(later, BLOBS, _meta())
        assert (refused.number, later.generations()) == (2, [1, 2])
        refused.abandon()
        assert later.generations() == [1]
        _write(later, BLOBS, _meta())
        (tmp_path / "state" / "generations" / "junk").touch()
        assert _keep(later, BLOBS, _meta()) == 2
        assert later.generations() == [1, 2]
    unfinished._close()


def test_block_left_by_an_exception_leaves_nothing(state: State) -> None:
    def fail() -> None:
        with state.begin() as writer:
            writer.add(b"d", b"")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert state.generations() == []


def test_unfinished_is_not_accepted(state: State) -> None:
    with state.begin() as writer:
        writer.add(b"d", b"")
        warning = state.accept(writer)
        assert warning is not None
        assert "not finished" in warning
    assert state.current() is None


# --- Refusals and shortages ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o1777])
def test_not_private(tmp_path: Path, mode: int) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)
    with pytest.raises(ConfigurationError, match="0700"):
        State.open(os.fsencode(tmp_path / "state"))


@pytest.mark.root
def test_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    os.chown(tmp_path / "state", 1234, 1234)
    with pytest.raises(ConfigurationError, match="belong to root"):
        State.open(os.fsencode(tmp_path / "state"))


def test_not_made_where_others_write(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    with pytest.raises(ConfigurationError, match="others may write"):
        State.open(os.fsencode(tmp_path / "shared" / "state"))
    assert os.listdir(tmp_path / "shared") == []


def test_not_through_a_link_of_others(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    (tmp_path / "shared" / "state").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="symbolic link"):
        State.open(os.fsencode(tmp_path / "shared" / "state"))
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_is_no_state_directory(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(ConfigurationError, match="must be a directory"):
        State.open(os.fsencode(tmp_path / "state"))


def test_directory_that_cannot_be_made_is_a_warning(tmp_path: Path) -> None:
    with State.open(os.fsencode(tmp_path / "no" / "state")) as state:
        assert "cannot be used" in state.warnings[0]
        assert state.current() is None
        assert state.current([b"/x"]) is None
        with state.begin() as writer:
            writer.add(b"d", b"")
            writer.finish(_meta())
            warning = state.accept(writer)
        assert warning is not None
        assert "No such file" in warning


def test_meta_that_cannot_be_written_is_a_warning(state: State) -> None:
    writer = _write(state, BLOBS, Meta(time=1, notes={"x": "\udcff"}))
    assert state.accept(writer) is not None
    assert state.generations() == []


def test_refreshes_are_not_counted(tmp_path: Path) -> None:
    """Generations that only know more of the same files: the last one of a row stays, the others go."""
    with State.open(os.fsencode(tmp_path / "state"), keep=2) as state:
        for same in (False, True, True, False, True, True, True):
            _keep(state, BLOBS, Meta(time=1, same=same))
        assert state.generations() == [1, 3, 4, 7]
        _keep(state, BLOBS, Meta(time=1))
        assert state.generations() == [4, 7, 8]


def test_what_cannot_be_read_just_now_is_not_removed(state: State, tmp_path: Path) -> None:
    _keep(state, BLOBS, _meta())
    _keep(state, BLOBS, _meta())
    (tmp_path / "state" / "generations" / "1" / "meta.json").write_bytes(b"damaged")
    _keep(state, BLOBS, _meta())
    assert state.generations() == [1, 2, 3]


# --- Side files ----------------------------------------------------------------------------------


def _sided(state: State) -> int:
    with state.begin() as writer:
        writer.add(b"a.example", b"all", live=b"part", base=b"old")
        writer.add(b"b.example", b"all", live=b"part", held=b"asked")
        writer.add_bare(b"published", b"names")
        writer.finish(Meta(time=1, rollback=Rollback(number=1, time=1, since=2, by=Who(uid=0))))
        assert state.accept(writer) is None
    return writer.number


def test_side_files(state: State) -> None:
    _sided(state)
    with _current(state) as generation:
        found = {
            name: None if rules is None else list(rules.blobs())
            for name, rules in (
                ("live", generation.live),
                ("base", generation.base),
                ("held", generation.held),
                ("bare", generation.bare),
            )
        }
        assert found == {
            "live": [(b"a.example", b"part"), (b"b.example", b"part")],
            "base": [(b"a.example", b"old")],
            "held": [(b"b.example", b"asked")],
            "bare": [(b"published", b"names")],
        }
        assert generation.meta.rollback is not None
        assert generation.meta.rollback.by == Who(uid=0)
        generation.check()
    _keep(state, BLOBS, _meta())
    with _current(state) as generation:
        assert (generation.live, generation.base, generation.held, generation.bare) == (None,) * 4


def test_side_files_go_with_their_generation(tmp_path: Path) -> None:
    with State.open(os.fsencode(tmp_path / "state"), keep=2) as state:
        _sided(state)
        for _ in range(2):
            _keep(state, BLOBS, _meta())
        assert sorted(os.listdir(tmp_path / "state" / "generations")) == ["2", "3"]
        with state.begin() as writer:
            writer.add(b"d", b"", held=b"x")
        assert state.generations() == [2, 3]


@pytest.mark.parametrize("name", ["rules", "live", "base", "held", "bare"])
@pytest.mark.parametrize("change", ["cut", "flipped", "gone"])
def test_damaged_side_files_are_found_and_orders_survive(state: State, tmp_path: Path, name: str, change: str) -> None:
    _sided(state)
    path = tmp_path / "state" / "generations" / "1" / name
    data = bytearray(path.read_bytes())
    if change == "gone":
        path.unlink()
    else:
        data[40] ^= 1
        path.write_bytes(data if change == "flipped" else data[:-1])
    generation = state.current()
    if generation is not None:
        with generation, pytest.raises(DamagedState):
            generation.check()
    orders = state.orders()
    assert orders is not None
    with orders:
        assert orders.meta.rollback is not None
        whole = {one: getattr(orders, one) is not None for one in ("base", "held", "bare")}
        assert whole == {one: one != name for one in whole}


def test_orders_of_nothing(state: State, tmp_path: Path) -> None:
    assert state.orders() is None
    _keep(state, BLOBS, _meta())
    (tmp_path / "state" / "generations" / "1" / "meta.json").write_bytes(b"{")
    assert state.orders() is None


def test_meta_of_an_earlier_version(state: State, tmp_path: Path) -> None:
    """What it did not write yet has its default."""
    _keep(state, BLOBS, _meta())
    text = b'{"format":1,"number":1,"time":1.5,"reason":"compile","digests":{},"held":{"a.example":12.5}}'
    (tmp_path / "state" / "generations" / "1" / "meta.json").write_bytes(text)
    with _current(state) as generation:
        meta = generation.meta
        assert (meta.held, meta.holds, meta.rollback, meta.by, meta.same) == (
            {"a.example": 12.5},
            [],
            None,
            None,
            False,
        )
        assert list(generation.blobs()) == BLOBS


# --- What stands ---------------------------------------------------------------------------------


def test_standing_is_what_the_files_are(state: State, tmp_path: Path) -> None:
    assert state.standing() is None
    target = tmp_path / "v"
    _publish(target, b"one")
    _keep(state, [(b"d", b"one")], _meta_of(b"one", target))
    _write(state, [(b"d", b"two")], _meta_of(b"two", target))
    for content, number, warned in ((b"one", 1, False), (b"two", 2, False), (b"three", 1, True)):
        _publish(target, content)
        with State.open(state.path) as later:
            standing = later.standing()
            assert standing is not None
            with standing:
                assert standing.number == number
            assert bool(later.warnings) == warned
            # Looking changes nothing.
            assert later.generations() == [1, 2]
