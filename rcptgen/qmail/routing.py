"""qmail-send's rewriting of an envelope recipient, and qmail-smtpd's list of domains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rcptgen.qmail.control import ConstMap, Mapped


@dataclass(frozen=True, slots=True)
class Local:
    """A recipient on the local channel: `name` goes to qmail-lspawn, `host` is its domain as given."""

    name: bytes
    host: bytes
    file: bytes
    line: int


@dataclass(frozen=True, slots=True)
class Remote:
    """A recipient that is not for this host; `file` and `line` where a control line says so."""

    host: bytes
    file: bytes = b""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Routing:
    """The control files that decide where an address goes; `locals_file` is `me` where that stood in for locals."""

    directory: bytes
    locals_: ConstMap
    locals_file: bytes
    virtualdomains: ConstMap
    percenthack: ConstMap
    envnoathost: bytes

    @property
    def virtualdomains_file(self) -> bytes:
        """The path of control/virtualdomains."""
        return self.directory + b"/control/virtualdomains"

    def route(self, address: bytes) -> Local | Remote:
        """Where `address` goes (qmail-send.c: rewrite)."""
        address = self.percent(address)
        local, _, host = address.rpartition(b"@")
        entry = self.locals_.get(host)
        if entry is not None:
            return Local(local, host, self.locals_file, entry.line)
        entry = self.virtual(local, host)
        if entry is None:
            return Remote(host)
        if not entry.value:
            return Remote(host, self.virtualdomains_file, entry.line)
        return Local(entry.value + b"-" + local, host, self.virtualdomains_file, entry.line)

    def percent(self, address: bytes) -> bytes:
        """`address` with a domain (envnoathost where it has none), after the percent hack."""
        local, at, host = address.rpartition(b"@")
        if not at:
            local, host = address, self.envnoathost
        while self.percenthack.get(host) is not None:
            left, percent, right = local.rpartition(b"%")
            if not percent:
                break
            local, host = left, right
        return local + b"@" + host

    def virtual(self, local: bytes | None, host: bytes) -> Mapped | None:
        """The virtualdomains entry for local@host: the address, the domain, its suffixes, the empty key.

        With `local` None the entry that decides for the domain as such.  An entry with an
        empty value hides the less specific ones: it is an answer, not a miss.
        """
        if local is not None:
            entry = self.virtualdomains.get(local + b"@" + host)
            if entry is not None:
                return entry
        for key in domain_keys(host):
            entry = self.virtualdomains.get(key)
            if entry is not None:
                return entry
        return None


def domain_keys(host: bytes) -> Iterator[bytes]:
    """The keys under which a domain is looked for in virtualdomains, most specific first."""
    yield host
    for at, byte in enumerate(host):
        if byte == 0x2E and at:
            yield host[at:]
    if host:
        yield b""


@dataclass(frozen=True, slots=True)
class RcptHosts:
    """control/rcpthosts and morercpthosts.cdb as qmail-smtpd reads them (rcpthosts.c).

    Without rcpthosts any domain is taken (`listed` is None).  Entries that begin with a
    dot stand for every domain below them.
    """

    listed: ConstMap | None
    more: Callable[[bytes], bool]
    more_keys: tuple[bytes, ...]
    file: bytes
    more_file: bytes

    def allows(self, host: bytes) -> tuple[bytes, int] | None:
        """The file and line (0 in the cdb) that let qmail-smtpd take mail for `host`; None where nothing does."""
        if self.listed is None:
            return self.file, 0
        host = host.lower()
        for key in self._keys(host):
            entry = self.listed.get(key)
            if entry is not None:
                return self.file, entry.line
        for key in self._keys(host):
            if self.more(key):
                return self.more_file, 0
        return None

    @staticmethod
    def _keys(host: bytes) -> Iterator[bytes]:
        # The C loop runs over the bytes of the domain, so an empty one is never looked up.
        for at, byte in enumerate(host):
            if not at or byte == 0x2E:
                yield host[at:]

    def domains(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Every entry, lower case, with its file and line; those that begin with a dot are suffixes."""
        if self.listed is not None:
            for entry in self.listed:
                yield entry.key, self.file, entry.line
            for key in self.more_keys:
                yield key, self.more_file, 0
