"""Where the instructions for one address lead: what they forward to, and what else takes the message."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Forwarded:
    """An address that a message is forwarded to, as the envelope gets it, and the line that says so."""

    address: bytes
    file: bytes = b""
    line: int = 0

    def __reduce__(self) -> tuple[type[Forwarded], tuple[object, ...]]:
        # See Outcome.__reduce__.
        return Forwarded, (self.address, self.file, self.line)


@dataclass(slots=True)
class Leads:
    """What is noted while the lines for one address are run.

    `other` says what besides forwards may take the message (a mailbox, a program that nobody
    knows, the void), the first of it; empty where every way leads to `forwards`.  `varies`:
    another address that the same file answers may be forwarded to other addresses.
    `file` and `line` are those of the line that is run; `hear`, where somebody listens, is
    told what programs come to, and the file and line that rests on.
    """

    forwards: list[Forwarded] = field(default_factory=list)
    other: str = ""
    varies: bool = False
    file: bytes = b""
    line: int = 0
    hear: Callable[[str, bytes, int], None] | None = None

    def __reduce__(self) -> tuple[type[Leads], tuple[object, ...]]:
        # See Outcome.__reduce__.
        return Leads, (self.forwards, self.other, self.varies)

    def forward(self, address: object, where: tuple[bytes, int] = (b"", 0)) -> None:
        """The message may be forwarded to `address`; what is not bytes is an address that nobody knows."""
        if not isinstance(address, bytes):
            self.elsewhere("an address that nobody knows")
            return
        file, line = where if where[0] else (self.file, self.line)
        self.forwards.append(Forwarded(address.partition(b"\0")[0], file, line))

    def forward_all(self, addresses: Iterable[object]) -> None:
        """The message may be forwarded to each of `addresses`."""
        for address in addresses:
            self.forward(address)

    def elsewhere(self, what: str) -> None:
        """Something that is no forward may take the message."""
        self.other = self.other or what
