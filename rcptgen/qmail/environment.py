"""The variables that qmail-local gives a program (qmail-local.c: main), known or not."""

from __future__ import annotations

from collections.abc import Iterator

from rcptgen.qmail.model import UNKNOWN, Derived, Free, Text, View

__all__ = ["DTLINE", "Variables", "View"]

DTLINE = b"Delivered-To: "

_SENDER = (b"SENDER", b"NEWSENDER", b"RPLINE", b"UFLINE")
_HOST_PARTS = (b"HOST2", b"HOST3", b"HOST4")
_PARTS = (b"EXT2", b"EXT3", b"EXT4")
_ADDRESS = (b"EXT", *_PARTS, b"DEFAULT", b"HOST", *_HOST_PARTS, b"LOCAL", b"RECIPIENT", b"DTLINE")


class Variables:
    """One environment, and what a run of the lines took notice of in it."""

    __slots__ = ("_derived", "_frees", "_hosts", "host_compared", "texts")

    def __init__(self, path: bytes, user: bytes, home: bytes) -> None:
        self.texts: dict[bytes, Text] = {b"PATH": path, b"USER": user, b"HOME": home}
        for name in _SENDER:
            self.texts[name] = UNKNOWN
        self._frees: list[Free] = []
        self._hosts: list[Free] = []
        self._derived: list[Derived] = []
        self.host_compared: set[bytes] = set()
        """The constants that HOST, or the part of it in HOST2, HOST3 or HOST4, was compared with."""

    @classmethod
    def known(
        cls,
        path: bytes,
        user: bytes,
        home: bytes,
        local: bytes,
        host: bytes,
        extension: bytes,
        default: bytes | None,
    ) -> Variables:
        """The environment of one delivery; DEFAULT is unset where `default` is None."""
        self = cls(path, user, home)
        self._set_extension(extension)
        self._set_host(host)
        recipient = local + b"@" + host
        self.texts[b"LOCAL"] = local
        self.texts[b"RECIPIENT"] = recipient
        self.texts[b"DTLINE"] = DTLINE + recipient.replace(b"\n", b"_") + b"\n"
        if default is not None:
            self.texts[b"DEFAULT"] = default
        return self

    @classmethod
    def free(cls, path: bytes, user: bytes, home: bytes) -> Variables:
        """An environment in which everything about the address may be anything."""
        self = cls(path, user, home)
        for name in _ADDRESS:
            self.texts[name] = anything = Free()
            self._frees.append(anything)
        return self

    @classmethod
    def partly(
        cls,
        path: bytes,
        user: bytes,
        home: bytes,
        view: View,
        host: bytes | None,
        extension: bytes | Free,
        default: bytes | Free | None,
    ) -> Variables:
        """The environment of some of the deliveries that a view shows.

        `host` None stands for every spelling of the view's domain.  DEFAULT is unset where
        `default` is None.
        """
        self = cls(path, user, home)
        if isinstance(extension, Free):
            self.texts[b"EXT"] = extension
            self._frees.append(extension)
            for name in _PARTS:
                self.texts[name] = UNKNOWN
        else:
            self._set_extension(extension)
        if host is None:
            self._spell_host(view.host)
        else:
            self._set_host(host)
        for name, before, after in (
            (b"LOCAL", b"", b""),
            (b"RECIPIENT", b"", b"@" + view.host),
            (b"DTLINE", DTLINE.lower(), b"@" + view.host + b"\n"),
        ):
            self.texts[name] = self._local(view, extension, before, after)
        if isinstance(default, Free):
            self._frees.append(default)
        if default is not None:
            self.texts[b"DEFAULT"] = default
        return self

    def _local(self, view: View, extension: bytes | Free, before: bytes, after: bytes) -> Text:
        """A text with the local name in it, as far as the extension tells it."""
        if view.name is None:
            return UNKNOWN
        free = extension if isinstance(extension, Free) else Free(lowered=extension.lower())
        derived = Derived(free, before + view.name, view.pre, after)
        self._derived.append(derived)
        return derived

    def _set_extension(self, extension: bytes) -> None:
        self.texts[b"EXT"] = rest = extension
        for name in _PARTS:
            rest = rest.partition(b"-")[2]
            self.texts[name] = rest

    def _set_host(self, host: bytes) -> None:
        self.texts.update(_host_parts(host))

    def _spell_host(self, host: bytes) -> None:
        for name, part in _host_parts(host):
            self.texts[name] = free = Free(compared=self.host_compared, lowered=part)
            self._hosts.append(free)

    @property
    def host_told_apart(self) -> bool:
        """Whether spellings of the domain may make a difference."""
        return any(one.opaque or one.compared for one in self._hosts)

    @property
    def view_touched(self) -> bool:
        """Whether the domain or the local name, in whatever spelling, was looked at."""
        return any(one.touched for one in self._hosts) or any(one.looked for one in self._derived)

    @property
    def touched(self) -> bool:
        """Whether anything that was left open was looked at."""
        return any(one.touched for one in (*self._frees, *self._hosts))


def _host_parts(host: bytes) -> Iterator[tuple[bytes, bytes]]:
    yield b"HOST", host
    for name in _HOST_PARTS:
        # byte_rchr answers with the length where it finds no dot, so a bare name stays whole.
        host = host.rpartition(b".")[0] if b"." in host else host
        yield name, host
