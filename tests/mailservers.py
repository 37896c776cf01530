"""Mail servers of the distribution, fetched and unpacked, and run from there on a loopback port.

Debian's mail servers conflict as packages, so none is installed: `apt-get download` and
`dpkg -x` below a directory of the test run.  Each has a configuration of the test's own, and
sees its own accounts and working directories (a mount namespace); it is gone when its test
ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

PACKAGES = (
    *("postfix", "postfix-cdb", "postfix-pcre", "postfix-lmdb", "liblmdb0"),
    *("exim4-daemon-heavy", "libidn12", "libspf2-2"),
    *("opensmtpd", "rbldnsd", "qpsmtpd"),
)
ACCOUNTS = {"Debian-exim": 977, "opensmtpq": 976, "opensmtpd": 975, "postfix": 974, "postdrop": 973}
PATIENCE = 15.0


def missing_mailservers() -> str:
    """Why mail servers cannot be fetched and run here; empty where they can."""
    if os.geteuid() != 0:
        return "not run as root: mail servers need accounts and directories of their own"
    for program in ("apt-get", "dpkg", "unshare", "mount"):
        if shutil.which(program) is None:
            return f"no {program}"
    done = subprocess.run(["unshare", "--mount", "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return "" if done.returncode == 0 else "no mount namespaces"


class CannotFetch(Exception):
    """The packages cannot be had; the message says why."""


class MailServers:
    """The unpacked packages, below `where`."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self._fetched = False

    @property
    def tree(self) -> Path:
        """Where everything is unpacked."""
        return self.where / "tree"

    def fetch(self) -> None:
        """Everything is unpacked.  Raises CannotFetch."""
        if self._fetched:
            return
        self.where.chmod(0o755)
        packages = self.where / "packages"
        packages.mkdir(exist_ok=True)
        done = subprocess.run(
            ["apt-get", "-qq", "download", *PACKAGES], cwd=packages, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise CannotFetch(f"apt-get download: {done.stderr.strip().splitlines()[-1:]}")
        for package in sorted(packages.glob("*.deb")):
            subprocess.run(["dpkg", "-x", package, self.tree], check=True)
        accounts = "".join(
            f"{name}:x:{number}:{number}::/nonexistent:/bin/false\n" for name, number in ACCOUNTS.items()
        )
        groups = "".join(f"{name}:x:{number}:\n" for name, number in ACCOUNTS.items())
        (self.where / "passwd").write_text(Path("/etc/passwd").read_text(encoding="utf-8") + accounts, encoding="utf-8")
        (self.where / "group").write_text(Path("/etc/group").read_text(encoding="utf-8") + groups, encoding="utf-8")
        self._fetched = True

    @property
    def libraries(self) -> str:
        """What LD_LIBRARY_PATH must be."""
        parts = [*self.tree.glob("usr/lib/*-linux-gnu*"), self.tree / "usr/lib", self.tree / "usr/lib/postfix"]
        return ":".join(str(part) for part in parts)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a program from the tree."""
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH": self.libraries, "LC_ALL": "C"}

    def program(self, path: str) -> str:
        """The path of an unpacked program."""
        return str(self.tree / path)

    def run(self, path: str, *arguments: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Runs an unpacked program to its end, among the accounts of the servers."""
        command = [*self._inside(()), self.program(path), *map(str, arguments)]
        return subprocess.run(command, input=given, capture_output=True, env=self.environment, check=False)

    def _inside(self, mounts: Iterable[str]) -> list[str]:
        lines = [f"mount --bind {self.where}/{name} /etc/{name}" for name in ("passwd", "group")]
        return ["unshare", "--mount", "sh", "-ec", "\n".join([*lines, *mounts, 'exec "$@"']), "sh"]

    @contextlib.contextmanager
    def running(
        self, log: Path, ports: Sequence[int], path: str, *arguments: str | Path, mounts: Iterable[str] = ()
    ) -> Iterator[None]:
        """An unpacked server runs, and answers at all `ports`, as long as the context lasts."""
        command = [*self._inside(mounts), self.program(path), *map(str, arguments)]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.environment,
                cwd=log.parent,
                start_new_session=True,
            )
        try:
            for port in ports:
                _await(process, port, log)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"the server does not come up: {log.read_text(errors='replace')[-2000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody has just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


# --- SMTP ----------------------------------------------------------------------------------------

ATOM = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~.")


def spelled(address: bytes) -> bytes | None:
    """An address as a RCPT command has it, quoted where it must be; None for what SMTP cannot carry."""
    local, _, domain = address.rpartition(b"@")
    if not local or any(byte < 0x20 or byte > 0x7E for byte in local):
        return None
    plain = set(local) <= ATOM and not local.startswith(b".") and not local.endswith(b".") and b".." not in local
    if not plain:
        local = b'"' + local.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
    return local + b"@" + domain


def asked(port: int, addresses: Iterable[bytes]) -> dict[bytes, bytes]:
    """The reply to a RCPT of each address that SMTP can carry, in sessions of some hundred each."""
    wanted = [(address, text) for address in addresses if (text := spelled(address)) is not None]
    replies: dict[bytes, bytes] = {}
    for at in range(0, len(wanted), 400):
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            stream = connection.makefile("rwb")
            _reply(stream)
            for line in (b"EHLO test.invalid", b"MAIL FROM:<a@test.invalid>"):
                stream.write(line + b"\r\n")
                stream.flush()
                _reply(stream)
            for address, text in wanted[at : at + 400]:
                stream.write(b"RCPT TO:<" + text + b">\r\n")
                stream.flush()
                replies[address] = _reply(stream)
            stream.close()
    return replies


def _reply(stream: object) -> bytes:
    while True:
        line: bytes = stream.readline()  # type: ignore[attr-defined]
        if line[3:4] != b"-":
            return line


# --- DNS -----------------------------------------------------------------------------------------


def resolved(port: int, name: bytes) -> str | None:
    """The A record that a server has for a name; None: it has none."""
    labels = b"".join(bytes([len(label)]) + label for label in name.split(b"."))
    query = struct.pack(">6H", 7, 0, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(("127.0.0.1", port))
        connection.send(query)
        reply = connection.recv(4096)
    answers: int = struct.unpack(">6H", reply[:12])[3]
    return socket.inet_ntoa(reply[-4:]) if answers else None
