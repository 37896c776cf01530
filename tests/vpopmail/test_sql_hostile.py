"""A server that nobody vouches for: whatever it sends, there is an answer, or Trouble."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rcptgen.vpopmail.settings import Server
from rcptgen.vpopmail.sqlrows import Session, Trouble

GREETING = (
    b"\x0a5.5.5-10.11.6-MariaDB\0\x01\0\0\0abcdefgh\0\xfe\xf7\x08\x02\0\xbf\x81\x15\0\0\0\0\0\0\x1d\0\0\0"
    b"abcdefghijkl\0mysql_native_password\0"
)


def packet(number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


OK = packet(2, b"\0\0\0\2\0\0\0") + packet(1, b"\0\0\0\2\0\0\0") * 3
WELCOME = packet(0, GREETING) + OK
FILE = packet(1, b"\xfb/etc/passwd")


@contextmanager
def saying(path: Path, said: bytes) -> Iterator[None]:
    """A socket that answers every connection with `said`, whatever it is asked."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer() -> None:
            try:
                while True:
                    with listening.accept()[0] as peer:
                        peer.sendall(said)
                        peer.shutdown(socket.SHUT_WR)
                        peer.settimeout(2)
                        while peer.recv(4096):
                            pass
            except OSError:
                return

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def ask_everything(session: Session) -> None:
    for ask in (
        session.columns,
        lambda: session.user(b"vpopmail", b"joe", b"example.org"),
        lambda: session.alias(b"joe", b"example.org"),
        session.begin,
        lambda: list(session.users(b"vpopmail", domains=True)),
        lambda: list(session.aliases()),
    ):
        try:
            ask()
        except Trouble:
            return


BYTES = st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda rest: WELCOME + rest))


@pytest.mark.needs("mariadb")
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BYTES)
@example(WELCOME + FILE)
@example(WELCOME + packet(1, b"\x01") + b"\xff" * 50)
def test_nothing_that_a_mysql_server_says_is_too_much(tmp_path: Path, said: bytes) -> None:
    from rcptgen.vpopmail.sql_mysql import MySQL

    server = Server("mysql", b"localhost", 0, b"", b"u", b"p", b"d")
    with saying(tmp_path / "s", said):
        try:
            session = MySQL(server, str(tmp_path / "s"))
        except Trouble:
            return
        ask_everything(session)
        session.close()


READY = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"


@pytest.mark.needs("postgresql")
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda rest: READY + rest)))
@example(READY + b"H\0\0\0\x07\0\0\0d\0\0\0\x05x")
def test_nothing_that_a_postgresql_server_says_is_too_much(tmp_path: Path, said: bytes) -> None:
    from rcptgen.vpopmail.sql_postgresql import PostgreSQL

    server = Server("postgresql", b"/", 5432, b"/", b"u", b"p", b"d")
    with saying(tmp_path / ".s.PGSQL.5432", said):
        try:
            session = PostgreSQL(server, str(tmp_path))
        except Trouble:
            return
        ask_everything(session)
        session.close()
