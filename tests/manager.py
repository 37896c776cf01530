"""A fake systemd: what a service tells behind NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket


class Manager:
    """A fake systemd: a datagram socket at `path`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.socket = self._bound()

    def _bound(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.bind(self.path)
        made.setblocking(False)
        return made

    def heard(self) -> list[str]:
        """Every message since the last call."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(8192).decode())
            except BlockingIOError:
                return found

    def vanish(self) -> None:
        """The socket is gone, and its name."""
        self.socket.close()
        if not self.path.startswith("\0"):
            os.unlink(self.path)

    def come_back(self) -> None:
        """Another socket has the name."""
        self.socket = self._bound()
