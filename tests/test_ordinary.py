"""Homes judged in one go: on ordinary and nearly ordinary ones the tables are those of the full way."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import parts
import pytest
from hosts import Dir, File, Link, cdb_bytes, remove
from hosts import Host as Laid
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from rcptgen.config import Config
from rcptgen.qmail.environment import View
from rcptgen.qmail.hometable import HomeTable
from rcptgen.qmail.judged import Settings
from rcptgen.qmail.users import Owner
from rcptgen.reader import Reader, Report, Session
from rcptgen.rules.table import Table
from rcptgen.source.tree import Identity

pytestmark = pytest.mark.root

DOMAIN, ALIAS = "shop.example", "alias.example"
PATH = f"/home/vpopmail/domains/{DOMAIN}"
HOME = f"~vpopmail/domains/{DOMAIN}"
PROGRAM = "/home/vpopmail/bin/vdelivermail"
NAMES = ("a", "joe", "ann", "joe.b", "a-b", "list", "sales", "x" * 150, "0")

Answer = tuple[list[HomeTable], Report]


def line(instruction: str) -> str:
    return f"| {PROGRAM} '' {instruction}\n"


INSTRUCTIONS = (
    "bounce-no-mailbox",
    "delete",
    f"joe@{DOMAIN}",
    "joe",
    f"{DOMAIN}-joe@{DOMAIN}",
    f"{PATH}/joe",
    "'|true'",
)
FILES = (
    "&x@far.example\n",
    "# nobody\nx@far.example\n&y@far.example\n",
    "x@far.example",
    *(line(one) for one in INSTRUCTIONS),
    "",
    "./Maildir/\n",
    "|exit 100\n",
    line("delete") + "x@far.example\n",
    "&\n",
)
EXTENSIONS = ("sales", "joe", "joe:b", "a:b:c", "Big", "a.b", "list-default", "x-default", "default", "0", "q" * 156)
RECORDS = ("pw:1:{gid}:gecos:{where}:NOQUOTA", "pw:1:{gid}:gecos:{where}:NOQUOTA:clear", "short", "")


@st.composite
def homes(draw: DrawFn) -> dict[str, Any]:
    """The files of one host with one domain: most of them as vpopmail leaves them."""
    odd = draw(st.integers(0, 3)) == 3

    def one(usual: Any, *others: Any) -> Any:
        return draw(st.sampled_from([usual] * 6 + list(others))) if odd else usual

    table: dict[str, Any] = {
        "passwd": {"vpopmail": "vpopmail:x:89:89::/home/vpopmail:/bin/sh"},
        "control/me": "mail.example\n",
        "control/virtualdomains": f"{DOMAIN}:{DOMAIN}\n{ALIAS}:{ALIAS}\n",
        "users/assign": "".join(
            f"+{name}-:{DOMAIN}:{uid}:89:{PATH}:-::\n" for name, uid in ((DOMAIN, one(89, 90)), (ALIAS, 89))
        )
        + ".\n",
        PROGRAM: File("", mode=0o711),
        HOME: Dir(mode=one(0o700, 0o500, 0o300, 0o702, 0o1700)),
    }
    records: list[tuple[bytes, bytes]] = []
    for name in draw(st.lists(st.sampled_from(NAMES), unique=not odd, max_size=6)):
        name = one(name, name.upper(), name + "/x", "..", "j\nx", "j%x")
        where = one(f"{PATH}/{name}", f"{PATH}/{name}x", "", f"/nowhere/{name}", f"{PATH}/../{name}")
        where = draw(st.sampled_from([where, where, f"{PATH}/0/{name}"]))
        gid = draw(st.sampled_from(["0", "0", "0", "16", "2"]))
        records.append((name.encode(), one(RECORDS[0], *RECORDS[1:]).format(gid=gid, where=where).encode()))
        if one(0, 1) and name in NAMES:
            table[f"{HOME}/{name}"] = one(Dir(mode=0o700), File(""), Link("nowhere"))
    data = cdb_bytes(records)
    table[f"{HOME}/vpasswd.cdb"] = File(one(data, data[:-3], bytes(2048) + data[2048:], b""), mode=one(0o600, 0o000))
    if draw(st.booleans()):
        table[f"{HOME}/vpasswd"] = one(File("", mode=0o600), Link("vpasswd.cdb"), Dir())
    instruction = draw(st.sampled_from(INSTRUCTIONS[:4] if not odd else INSTRUCTIONS))
    table[f"{HOME}/.qmail-default"] = File(line(instruction), mode=one(0o600, 0o602, 0o700))
    usual = FILES[:6]
    for extension in draw(st.lists(st.sampled_from(EXTENSIONS[:5]), unique=True, max_size=4)):
        extension = one(extension, *EXTENSIONS)
        content = one(draw(st.sampled_from(usual)), *FILES)
        path = f"{HOME}/.qmail-{extension}"
        table[path] = one(File(content, mode=0o600), Link("nowhere"), Dir(), File(content, mode=0o000))
    return table


def told(table: Table) -> tuple[object, object]:
    return {outcome: list(names) for outcome, names in table.groups.items()}, table.prefixes


def shown(answer: Answer) -> object:
    tables, report = answer
    return report, [
        (told(one.table), one.view_matters, {head: told(tail) for head, tail in one.tails.items()}, one.split)
        for one in tables
    ]


def judged(root: Path, check: Callable[[Reader, list[tuple[Owner, list[View]]]], None], config: Config) -> None:
    reader = Reader(Session(os.fsencode(root), "switch", Settings(look_at_mailboxes=False), config))
    owner = Owner(DOMAIN.encode(), 89, 89, PATH.encode(), b"-")
    wanted = [(owner, [View(name.encode(), name.encode() + b"-", b"")]) for name in (DOMAIN, ALIAS, "other.example")]
    try:
        check(reader, wanted)
    finally:
        reader._tree.close()


@given(table=homes())
@settings(
    max_examples=parts.rounds(150),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
def test_both_ways_give_equal_tables(tmp_path: Path, table: dict[str, Any]) -> None:
    where = Path(tempfile.mkdtemp(dir=tmp_path))
    where.chmod(0o755)

    def check(reader: Reader, wanted: list[tuple[Owner, list[View]]]) -> None:
        full = [shown(reader.table(*one)) for one in wanted]
        assert [shown(one) for one in reader.tables(wanted)] == full
        with reader._tree.acting_as(Identity(89, 89)):
            event(f"in one go: {reader._ordinary(Identity(89, 89), *wanted[0]) is not None}")

    try:
        judged(Laid(where / "root", table).root, check, Config())
    finally:
        remove(where)


def ordinary(records: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """A domain as vpopmail leaves it."""
    return {
        "passwd": {"vpopmail": "vpopmail:x:89:89::/home/vpopmail:/bin/sh"},
        "control/me": "mail.example\n",
        "control/virtualdomains": f"{DOMAIN}:{DOMAIN}\n",
        "users/assign": f"+{DOMAIN}-:{DOMAIN}:89:89:{PATH}:-::\n.\n",
        PROGRAM: File("", mode=0o711),
        HOME: Dir(mode=0o700),
        f"{HOME}/.qmail-default": File(line("bounce-no-mailbox"), mode=0o600),
        f"{HOME}/vpasswd.cdb": File(cdb_bytes(records), mode=0o600),
    }


def test_an_ordinary_home_is_judged_in_one_go(tmp_path: Path) -> None:
    users = [(f"u{number}", "16" if number == 7 else "0") for number in range(20)]
    records = [(name.encode(), f"pw:1:{gid}:g:{PATH}/{name}:NOQUOTA".encode()) for name, gid in users]
    table = ordinary(records) | {
        f"{HOME}/.qmail-sales": File(line(f"u1@{DOMAIN}"), mode=0o600),
        f"{HOME}/.qmail-joe:b": File("&u1@far.example\n", mode=0o600),
    }

    def check(reader: Reader, wanted: list[tuple[Owner, list[View]]]) -> None:
        reader.table(*wanted[0])
        with reader._tree.acting_as(Identity(89, 89)):
            found = reader._ordinary(Identity(89, 89), *wanted[0])
        assert found is not None
        assert found[0][0].match(b"u3", b"-").accepted
        assert not found[0][0].match(b"u7", b"-").accepted
        assert not found[0][0].match(b"nobody", b"-").accepted
        assert found[0][0].match(b"joe.b", b"-").accepted

    judged(Laid(tmp_path / "root", table).root, check, Config())


@pytest.mark.parametrize("spoilt", [False, True], ids=["in one go", "the full way"])
def test_a_domain_costs_one_look_into_its_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: bool
) -> None:
    records = [(b"u%d" % n, f"pw:1:0:g:{PATH}/u{n}:NOQUOTA".encode()) for n in range(3000)]
    more = {f"{HOME}/.qmail-x": File("|true; exit 0\n", mode=0o600)} if spoilt else {}
    table = ordinary(records) | more
    opened = []
    real = os.open

    def open_(path: Any, *arguments: Any, **named: Any) -> int:
        opened.append(os.fsencode(path) if isinstance(path, str | bytes) else b"")
        return real(path, *arguments, **named)

    def check(reader: Reader, wanted: list[tuple[Owner, list[View]]]) -> None:
        reader.table(*wanted[0])
        monkeypatch.setattr(os, "open", open_)
        ((found, _),) = reader.tables(wanted[:1])
        monkeypatch.undo()
        assert found[0].match(b"u2999", b"-").accepted
        assert sum(path.endswith(b"vpasswd.cdb") for path in opened) == 1

    judged(Laid(tmp_path / "root", table).root, check, Config())
