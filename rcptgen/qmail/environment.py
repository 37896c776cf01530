"""The variables that qmail-local gives a program (qmail-local.c: main), known or not."""

from __future__ import annotations

from rcptgen.qmail.model import UNKNOWN, Free, Text

_SENDER = (b"SENDER", b"NEWSENDER", b"RPLINE", b"UFLINE")
_RECIPIENT = (b"LOCAL", b"RECIPIENT", b"DTLINE")
_HOST_PARTS = (b"HOST2", b"HOST3", b"HOST4")
_PARTS = (b"EXT2", b"EXT3", b"EXT4")


class Variables:
    """One environment, and what a run of the lines took notice of in it."""

    __slots__ = ("_default", "_extension", "_host", "_others", "texts")

    def __init__(self, path: bytes, user: bytes, home: bytes) -> None:
        self.texts: dict[bytes, Text] = {b"PATH": path, b"USER": user, b"HOME": home}
        for name in _SENDER:
            self.texts[name] = UNKNOWN
        self._extension: Free | None = None
        self._default: Free | None = None
        self._host: Free | None = None
        self._others: Free | None = None

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
        self.texts[b"DTLINE"] = b"Delivered-To: " + recipient.replace(b"\n", b"_") + b"\n"
        if default is not None:
            self.texts[b"DEFAULT"] = default
        return self

    @classmethod
    def free(cls, path: bytes, user: bytes, home: bytes) -> Variables:
        """An environment in which everything about the address may be anything."""
        self = cls.partly(path, user, home, None, None, None, has_default=True)
        self._others = Free()
        for name in (*_RECIPIENT, *_PARTS):
            self.texts[name] = self._others
        return self

    @classmethod
    def partly(
        cls,
        path: bytes,
        user: bytes,
        home: bytes,
        host: bytes | None,
        extension: bytes | None,
        default: bytes | None,
        *,
        has_default: bool,
    ) -> Variables:
        """An environment in which what is None may be anything; LOCAL and RECIPIENT are not known at all."""
        self = cls(path, user, home)
        for name in _RECIPIENT:
            self.texts[name] = UNKNOWN
        if extension is None:
            self._extension = self.texts[b"EXT"] = Free()
            for name in _PARTS:
                self.texts[name] = UNKNOWN
        else:
            self._set_extension(extension)
        if host is None:
            self._host = Free()
            for name in (b"HOST", *_HOST_PARTS):
                self.texts[name] = self._host
        else:
            self._set_host(host)
        if default is not None:
            self.texts[b"DEFAULT"] = default
        elif has_default:
            self._default = self.texts[b"DEFAULT"] = Free()
        return self

    def _set_extension(self, extension: bytes) -> None:
        self.texts[b"EXT"] = rest = extension
        for name in _PARTS:
            rest = rest.partition(b"-")[2]
            self.texts[name] = rest

    def _set_host(self, host: bytes) -> None:
        self.texts[b"HOST"] = rest = host
        for name in _HOST_PARTS:
            # byte_rchr answers with the length where it finds no dot, so a bare name stays whole.
            rest = rest.rpartition(b".")[0] if b"." in rest else rest
            self.texts[name] = rest

    @property
    def compared(self) -> set[bytes]:
        """The constants that EXT was compared with."""
        return self._extension.compared if self._extension else set()

    @property
    def default_compared(self) -> set[bytes]:
        """The constants that DEFAULT was compared with."""
        return self._default.compared if self._default else set()

    @property
    def host_compared(self) -> set[bytes]:
        """The constants that HOST, or the part of it in HOST2, HOST3 or HOST4, was compared with."""
        return self._host.compared if self._host else set()

    @property
    def host_touched(self) -> bool:
        """Whether HOST, left open, was looked at."""
        return self._host is not None and _touched(self._host)

    @property
    def touched(self) -> bool:
        """Whether anything that was left open was looked at."""
        frees = (self._extension, self._default, self._host, self._others)
        return any(one is not None and _touched(one) for one in frees)


def _touched(one: Free) -> bool:
    return one.opaque or bool(one.compared)
