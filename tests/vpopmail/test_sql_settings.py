"""The settings files, as vpopmail's own parsers take them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.vpopmail.settings import BadSettings, Server, mysql, postgresql


def test_the_line_for_updates_counts_where_there_is_one() -> None:
    text = b"# host|port|user\n\nlocalhost|3306|u|p|d\n# updates\nmaster|3307|v|q|e\nthird|1|x|y|z\n"
    assert mysql(text) == Server("mysql", b"master", 3307, b"", b"v", b"q", b"e")
    assert mysql(text.partition(b"# updates")[0]) == Server("mysql", b"localhost", 3306, b"", b"u", b"p", b"d")


def test_a_socket_counts_for_localhost_alone() -> None:
    assert mysql(b"localhost|/run/s|u|p|d").socket == b"/run/s"
    assert mysql(b"127.0.0.1|/run/s|u|p|d\n") == Server("mysql", b"127.0.0.1", 0, b"", b"u", b"p", b"d")


def test_separators_in_a_row_are_one() -> None:
    assert mysql(b"|localhost||0|u|p|d|more\n").database == b"d"
    with pytest.raises(BadSettings):
        mysql(b"localhost|0|u||d\n")


def test_what_is_left_of_an_overlong_line_is_the_line_for_updates() -> None:
    first = b"localhost|0|u|p|d|"
    text = first.ljust(255, b"x") + b"other|1|v|q|e\n"
    assert mysql(text).host == b"other"


@pytest.mark.parametrize("text", [b"", b"#\n", b"\n\n", b"\0localhost|0|u|p|d\n", b"x\n", b"localhost|0|u|p|d\nx\n"])
def test_no_settings_are_no_server(text: bytes) -> None:
    with pytest.raises(BadSettings):
        mysql(text)


def test_empty_fields_are_the_defaults_of_postgresql() -> None:
    assert postgresql(b"||||\n") == Server("postgresql", b"localhost", 0, b"", b"postgres", b"", b"vpopmail")
    assert postgresql(b"/run/pg|5432|u|p|d\n").socket == b"/run/pg"


def test_postgresql_takes_no_line_without_its_end() -> None:
    with pytest.raises(BadSettings):
        postgresql(b"localhost|5432|u|p|d")


def test_fields_mean_to_libpq_what_they_mean_in_a_connection_string() -> None:
    assert postgresql(rb"h|1|u|a\ b\\|d" + b"\n").password == rb"a b" + b"\\"
    assert postgresql(b"h|1|u|'a b' sslmode=require|d\n") == Server(
        "postgresql", b"h", 1, b"", b"u", b"a b", b"d", b"require"
    )
    for broken in (b"h|1|u|a b|d\n", b"h|1|u|'a|d\n"):
        with pytest.raises(BadSettings):
            postgresql(broken)


def test_a_list_of_hosts_holds_no_directories() -> None:
    with pytest.raises(BadSettings):
        postgresql(b"h,/run/pg|1|u|p|d\n")


@given(st.lists(st.sampled_from([b"|", b"\n", b"#", b"\0", b"'", b"\\", b"=", b" ", b"a", b"/s", b"9" * 30, b"\xff"])))
def test_no_bytes_are_too_much_for_either(parts: list[bytes]) -> None:
    for parser in (mysql, postgresql):
        try:
            found = parser(b"".join(parts))
        except BadSettings:
            continue
        assert found.name.isascii()
