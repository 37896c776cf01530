"""What stands is copied from the published files, and from nothing else than what was proved to be these."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from keeping import Kept, keeping
from watched import DOMAINS, domain_of

from rcptgen import attempt
from rcptgen.build import Build
from rcptgen.compiler import compile_host
from rcptgen.errors import PublishFailed
from rcptgen.ledger import Base
from rcptgen.publish.cdb import CdbWriter
from rcptgen.publish.splice import CdbSplice
from rcptgen.request import Request
from rcptgen.rules.table import Table
from rcptgen.targets.base import Lowered
from rcptgen.targets.formats import Format

pytestmark = pytest.mark.root

ONE = f"{DOMAINS}/one.example".encode()


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    yield from keeping(tmp_path, monkeypatch)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The domains that were built for a file."""
    found: list[bytes] = []
    lower = Format.lower

    def noted(self: Format, domain: bytes, table: Table) -> Lowered:
        found.append(domain)
        return lower(self, domain, table)

    monkeypatch.setattr(Format, "lower", noted)
    return found


def _started(kept: Kept, built: list[bytes]) -> None:
    # In a local domain the names of all virtual domains can be written to as well.
    kept.edits.written("control/locals", "#\n")
    for number in range(5):
        for name, thing in domain_of(f"d{number}.example", ("zoe",)).items():
            kept.host.write(name, thing)
    kept.edits.assigned("one.example", "two.example", *(f"d{number}.example" for number in range(5)))
    for number in range(5):
        kept.edits.line("control/virtualdomains", f"d{number}.example:d{number}.example", there=True)
    kept.start()
    built.clear()


def _changed(kept: Kept, built: list[bytes], *users: str) -> list[bytes]:
    """The domains that are built when one.example gets these users."""
    built.clear()
    kept.edits.users("one.example", ("ann", *users))
    result = kept.touched(ONE)
    assert result is not None
    assert result.status == 0, result
    found = sorted(set(built))
    assert kept.is_true()
    return found


@pytest.mark.parametrize(
    ("limit", "most", "ways"),
    [("MOST_REWRITTEN", 64, {True}), ("MOST_REWRITTEN", 0, {False}), ("MOST_RECORDS", 0, {False})],
    ids=["spliced", "anew for many domains", "anew for large domains"],
)
def test_only_what_changes_is_built(
    kept: Kept, built: list[bytes], limit: str, most: int, ways: set[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, limit, most)
    spliced: set[bool] = set()
    opened = Build.open

    def noted(self: Build, base: Base | None = None, *, rewritten: bool = False) -> None:
        if base is not None:
            spliced.add(rewritten)
        opened(self, base, rewritten=rewritten)

    monkeypatch.setattr(Build, "open", noted)
    kept.files |= {name: kept.top / name for name in ("postfix", "json", "goodrcptto")}
    _started(kept, built)
    for users in (("eve",), ("eve", "tom", "ulf"), (), ("a", "zz")):
        assert b"d3.example" not in _changed(kept, built, *users)
        assert b"one.example" in built
    assert spliced == ways


def test_counts_are_those_of_a_compile(kept: Kept, built: list[bytes]) -> None:
    """What was copied is counted as what was built."""
    _started(kept, built)
    kept.edits.users("one.example", ("ann", "eve"))
    result = kept.touched(ONE)
    assert result is not None
    whole = compile_host(bytes(kept.host.root), kept.config, Request(kept.configure()[1].outputs))
    ours, theirs = result.outputs[0], whole.outputs[0]
    for name in ("records", "exact", "wildcards", "refusals", "widened_count", "unsayable_count", "left_out"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.widened == theirs.widened
    assert ours.unsayable == theirs.unsayable
    for name in ("domains", "classes", "recipients", "approximate"):
        assert getattr(result, name) == getattr(whole, name), name


def test_what_another_run_has_published_is_read_anew(kept: Kept, built: list[bytes]) -> None:
    """Then the files are not those that it is known of where everything stands; after one look they are."""
    _started(kept, built)
    kept.edits.users("two.example", ("sue", "una"))
    configuration, request = kept.configure()
    compile_host(bytes(kept.host.root), configuration, request)
    assert b"d3.example" in _changed(kept, built, "eve")
    homes = {home for home, _ in kept.keeper.read()[0]}
    assert f"{DOMAINS}/d3.example".encode() in homes, "what was read again is watched as it was read"
    assert b"d3.example" not in _changed(kept, built)


def test_a_look_at_everything_that_finds_nothing_new(kept: Kept, built: list[bytes]) -> None:
    """The generation stays, and may be copied from."""
    _started(kept, built)
    generation = kept.keeper.everything("hangup").generation
    assert kept.keeper.everything("hangup").generation == generation
    assert b"d3.example" not in _changed(kept, built, "eve")


@pytest.mark.parametrize("names", [("validrcptto", "rcptgen"), ("goodrcptto",)], ids=["constant databases", "text"])
def test_a_number_is_no_proof_of_a_generation(kept: Kept, built: list[bytes], names: tuple[str, ...]) -> None:
    """The state was lost, and another run has published: its numbers begin again."""
    kept.files = {name: kept.top / name for name in names}
    _started(kept, built)
    shutil.rmtree(kept.top / "state")
    kept.edits.users("two.example", ("tom", "amy", "ulf", "zed"))
    kept.edits.users("d3.example", ("zoe", "amy"))
    configuration, request = kept.configure()
    assert compile_host(bytes(kept.host.root), configuration, request).generation == 1
    assert b"d3.example" in _changed(kept, built, "eve")
    assert b"d3.example" not in _changed(kept, built)


def test_outputs_in_another_order(kept: Kept, built: list[bytes]) -> None:
    """Where a domain stands is known of each file, not of the first and the second."""
    kept.files |= {"rcptgen": kept.top / "own"}
    _started(kept, built)
    kept.files = dict(reversed(kept.files.items()))
    assert kept.keeper.everything("hangup").status == 0
    assert kept.is_true()
    assert b"d3.example" not in _changed(kept, built, "eve")


def test_an_output_in_place_of_another(kept: Kept, built: list[bytes]) -> None:
    """A file that was there before is not what the one in its place was."""
    kept.files |= {"rcptgen": kept.top / "own"}
    _started(kept, built)
    other = kept.top / "another"
    other.write_bytes(kept.file.read_bytes())
    kept.files["rcptgen"] = other
    assert kept.keeper.everything("hangup").status == 0
    assert kept.is_true()
    assert b"d3.example" not in _changed(kept, built, "eve")


@pytest.mark.parametrize("what", ["the list", "the rules"])
def test_what_is_not_what_it_was_is_not_copied(kept: Kept, built: list[bytes], what: str) -> None:
    _started(kept, built)
    file = kept.file if what == "the list" else kept.top / "state" / "generations" / "1" / "rules"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert b"d3.example" in _changed(kept, built, "eve")
    assert b"d3.example" not in _changed(kept, built)


def test_another_mode_is_no_other_list(kept: Kept, built: list[bytes]) -> None:
    """What it says was compared just before."""
    _started(kept, built)
    kept.file.chmod(0o600)
    assert b"d3.example" not in _changed(kept, built, "eve")


@pytest.mark.parametrize("when", ["before", "while"])
def test_written_to_while_it_is_copied(
    kept: Kept, built: list[bytes], when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is opened: all is built.  Afterwards nothing is published, and the next look sees to it."""
    _started(kept, built)
    with monkeypatch.context() as patch:
        if when == "before":
            patch.setattr("rcptgen.compiler.places_of", lambda paths: [(0, 0, 0, 0, 0) for _ in paths])
            assert b"d3.example" in _changed(kept, built, "eve")
            return
        finish = CdbSplice.finish

        def late(self: CdbSplice) -> int:
            done = finish(self)
            os.utime(kept.file)
            return done

        patch.setattr(CdbSplice, "finish", late)
        kept.edits.users("one.example", ("ann", "eve"))
        with pytest.raises(PublishFailed, match="while it was copied"):
            kept.touched(ONE)
    assert kept.touched() is not None
    assert kept.accepts("eve@one.example")
    assert kept.is_true()


def test_a_file_that_cannot_be_spliced(kept: Kept, built: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made anew, of the records of the old one."""
    _started(kept, built)
    copied: list[int] = []
    copy = CdbWriter.copy

    def noted(self: CdbWriter, old: int, start: int, size: int, count: int) -> None:
        copied.append(count)
        copy(self, old, start, size, count)

    monkeypatch.setattr("rcptgen.publish.splice.LARGEST", 4096)
    monkeypatch.setattr(CdbWriter, "copy", noted)
    assert b"d3.example" not in _changed(kept, built, "eve")
    assert copied


def test_what_cannot_be_made_of_copies_is_made_without(
    kept: Kept, built: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a copy fails for, it would fail for each time: no later change must wait for somebody to restart."""
    _started(kept, built)
    monkeypatch.setattr("rcptgen.publish.splice.alike", lambda old, fresh: iter(()))
    kept.edits.users("one.example", ("ann", "eve"))
    with pytest.raises(PublishFailed, match="nothing was published"):
        kept.touched(ONE)
    assert kept.touched() is not None
    assert kept.accepts("eve@one.example")
    assert kept.is_true()
