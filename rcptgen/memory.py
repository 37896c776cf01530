"""What was published last, as far as this run may rely on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from rcptgen.errors import RcptgenError
from rcptgen.publish.generation import DamagedState, Generation, path_key
from rcptgen.publish.packed import pack, unpack
from rcptgen.publish.state import State
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table
from rcptgen.targets.base import Reader, Target


@dataclass(slots=True)
class Memory:
    """The rules of the last publication by domain, packed; the homes they came from; what was held since when.

    `exists` is False where nothing was published before: a first publish.
    """

    exists: bool = False
    units: frozenset[bytes] = frozenset()
    held: dict[str, float] = field(default_factory=dict)
    prepended: str = ""
    _generation: Generation | None = None
    _blobs: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def from_state(self) -> bool:
        """Whether a generation of the state directory stands behind it."""
        return self._generation is not None

    def blobs(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (domain, packed table) in ascending order of the domains."""
        if self._generation is not None:
            return self._generation.blobs()
        return iter(sorted(self._blobs.items()))

    def table(self, domain: bytes) -> Table | None:
        """What was published for `domain`, or None."""
        blob = self._generation.blob(domain) if self._generation is not None else self._blobs.get(domain)
        return None if blob is None else unpack(blob)

    @classmethod
    def of_generation(cls, generation: Generation) -> Memory:
        """The memory that a generation of the state directory holds."""
        meta = generation.meta
        return cls(
            exists=True,
            units=frozenset(unit.encode("latin-1") for unit in meta.units),
            held=dict(meta.held),
            prepended=meta.prepended.get("mode", ""),
            _generation=generation,
        )

    @classmethod
    def of_file(cls, reader: Reader) -> Memory:
        """The memory that a published file itself is: for a first run with a state directory."""
        exact: dict[bytes, dict[bytes, Outcome]] = {}
        prefixes: dict[bytes, dict[bytes, Outcome]] = {}
        accept = Outcome(Verdict.DELIVER, Kind.UNKNOWN, "as it was published")
        refuse = Outcome(Verdict.BOUNCE, Kind.REFUSAL, "as it was published")
        for line in reader.lines():
            if line.domain is not None:
                where = prefixes if line.prefix else exact
                where.setdefault(line.domain.lower(), {})[line.name.lower()] = accept if line.accepted else refuse
        domains = exact.keys() | prefixes.keys()
        blobs = {one: pack(Table(exact.get(one, {}), prefixes.get(one, {}))) for one in domains}
        return cls(exists=bool(blobs), _blobs=blobs)


def remember(
    state: State | None, files: Sequence[tuple[Target, bytes]], warnings: list[str], stack: ExitStack
) -> Memory:
    """What was published last: from the state where it made the files, else from the first of the files that can tell.

    Without a state directory nothing is remembered.  What was opened stays open as long as
    `stack`; why something was not used is added to `warnings`.
    """
    if state is None:
        return Memory()
    generation = _last_generation(state, [path for _, path in files], warnings)
    if generation is not None:
        return Memory.of_generation(stack.enter_context(generation))
    for target, path in files:
        if not target.remembers or not os.path.exists(path):
            continue
        try:
            reader = target.open(path)
            try:
                return Memory.of_file(reader)
            finally:
                reader.close()
        except RcptgenError as error:
            warnings.append(f"the published file cannot be compared with: {error}")
    return Memory()


def _last_generation(state: State, paths: list[bytes], warnings: list[str]) -> Generation | None:
    """The generation that made the published files, if nothing in it is damaged."""
    found = _matching(state, paths)
    if found is None:
        return None
    try:
        # All of it now: damage must show before anything is built on it.
        for _ in found.blobs():
            pass
    except DamagedState as error:
        found.close()
        warnings.append(f"{os.fsdecode(state.path)}: {error}; the state is not used")
        return None
    return found


def _matching(state: State, paths: list[bytes]) -> Generation | None:
    """The generation of the published files; an output that is new in the configuration does not count."""
    named = state.current()
    if named is not None:
        if named.matches(path for path in paths if path_key(path) in named.meta.digests):
            return named
        named.close()
    return state.current(paths)
