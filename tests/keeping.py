"""A host with its keeper (rcptgen.keeper), and what it reads of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inprocess
import pytest
from watched import Edits, laid

from rcptgen.compiler import compile_host
from rcptgen.config import Config
from rcptgen.keeper import Keeper
from rcptgen.reader import Reader
from rcptgen.request import Output, Request, Result
from rcptgen.targets import target


class Kept:
    """A host with its keeper, and which homes were read since somebody asked last."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.host = laid(top / "host")
        self.edits = Edits(self.host)
        self.config = Config()
        self.file = top / "list.cdb"
        self.files = {"validrcptto": self.file}
        self.homes: list[bytes] = []
        self.keeper = Keeper(bytes(self.host.root), self.configure)

    def configure(self) -> tuple[Config, Request]:
        outputs = tuple(Output(name, bytes(file)) for name, file in self.files.items())
        return self.config, Request(outputs, state=bytes(self.top / "state"))

    def start(self) -> Result:
        result = self.keeper.everything("start")
        assert result.status == 0, result
        self.keeper.read()
        self.homes.clear()
        return result

    def touched(self, *units: bytes) -> Result | None:
        self.homes.clear()
        return self.keeper.touched(set(units), "change")

    def accepts(self, address: str) -> bool:
        reader = target("validrcptto").open(bytes(self.file))
        try:
            return reader.answer(address.encode()).accepted
        finally:
            reader.close()

    def made(self) -> bytes:
        """The list that a compile without any memory makes of the host."""
        file = bytes(self.top / "made.cdb")
        compile_host(bytes(self.host.root), self.config, Request((Output("validrcptto", file),), force=True))
        return file

    def is_true(self) -> bool:
        """Whether the files are what a compile without any memory makes of the host."""
        fresh = [(self.top / f"fresh.{name}", name) for name in self.files]
        outputs = tuple(Output(name, bytes(file)) for file, name in fresh)
        compile_host(bytes(self.host.root), self.config, Request(outputs, force=True))
        return all(file.read_bytes() == self.files[name].read_bytes() for file, name in fresh)


def keeping(top: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """The same, for a fixture: its workers are threads of this process."""
    inprocess.use(monkeypatch)
    found = Kept(top)
    table = Reader.table

    def noted(self: Reader, owner: Any, views: Any) -> Any:
        found.homes.append(owner.home)
        return table(self, owner, views)

    monkeypatch.setattr(Reader, "table", noted)
    yield found
    found.keeper.close()
