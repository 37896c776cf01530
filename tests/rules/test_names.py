"""Sets of names against Python's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.rules import names as module
from rcptgen.rules.names import Names

texts = st.lists(st.text("ab-\n", max_size=5).map(str.encode), max_size=40)
few = st.lists(st.text("ab-\n", max_size=3).map(str.encode), max_size=4)


@pytest.fixture(autouse=True, params=[20_000, 3])
def _stretch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stretch of three names everything is done in pieces."""
    monkeypatch.setattr(module, "STRETCH", request.param)
    monkeypatch.setattr(module, "SEARCHED", request.param)


@given(given_names=texts, asked=texts)
def test_a_set_of_names(given_names: list[bytes], asked: list[bytes]) -> None:
    names = Names(given_names)
    assert sorted(names) == sorted(set(given_names))
    assert len(names) == len(set(given_names))
    assert sorted(name for some in names.stretches() for name in some) == sorted(set(given_names))
    for name in [*asked, *given_names]:
        assert (name in names) == (name in given_names)


@given(given_names=texts, out=few, prefixes=few)
def test_names_without_others(given_names: list[bytes], out: list[bytes], prefixes: list[bytes]) -> None:
    left = Names(given_names).without(out, prefixes)
    wanted = {name for name in given_names if name not in out and not name.startswith(tuple(prefixes))}
    assert sorted(left) == sorted(wanted)
    assert len(left) == len(wanted)
    assert all(name in left for name in wanted)


@given(parts=st.lists(texts, min_size=1, max_size=3), others=st.lists(texts, min_size=1, max_size=3))
def test_union_and_difference(parts: list[list[bytes]], others: list[list[bytes]]) -> None:
    names = Names.union([Names(part) for part in parts])
    assert sorted(names) == sorted({name for part in parts for name in part})
    taken = {name for other in others for name in other}
    assert sorted(names.minus([Names(other) for other in others])) == sorted(set(names) - taken)


@given(given_names=texts, beginning=st.text("ab-", max_size=3).map(str.encode))
def test_names_below_a_beginning(given_names: list[bytes], beginning: bytes) -> None:
    names = Names(given_names)
    moved = names.below(beginning)
    assert sorted(moved) == sorted(beginning + name for name in set(given_names))
    assert sorted(moved.beginning_with(beginning)) == sorted(moved)
    assert names.ending_with(b"a") == [] or all(name.endswith(b"a") for name in names.ending_with(b"a"))
    assert len(names.ending_with(b"a")) == sum(name.endswith(b"a") for name in set(given_names))


@given(given_names=texts)
def test_the_empty_name_is_found_at_once(given_names: list[bytes]) -> None:
    assert Names(given_names).has_empty == (b"" in given_names)


@given(one=texts, other=st.one_of(texts, few), times=st.sampled_from([0, 20]))
def test_names_in_common(one: list[bytes], other: list[bytes], times: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEWER", times)
        assert sorted(Names(one).common(Names(other))) == sorted(set(one) & set(other))
        assert sorted(Names(other).common(Names(one))) == sorted(set(one) & set(other))
