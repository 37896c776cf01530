"""What was published last, as far as this run may rely on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rcptgen.publish.generation import Generation
from rcptgen.publish.packed import pack, unpack
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table
from rcptgen.targets.base import Reader


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
