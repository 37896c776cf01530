"""fastforward, as its source has it: keys, lists, programs, and the whole table against one address at a time."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fakehome import Files, situation, start
from hosts import cdb_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rcptgen.programs import fastforward as module
from rcptgen.programs.aliasesdb import MOST_PASSES, Aliases, read_aliases
from rcptgen.programs.fastforward import FastForward
from rcptgen.qmail.model import SIGNALLED, UNKNOWN, Derived, Effect, Effects, Free, Runner, Text
from rcptgen.rules.cdbwalk import CdbFile
from rcptgen.rules.outcome import Kind


def run(line: bytes, files: Files, model: FastForward | None = None, **variables: Text) -> Effect:
    runner: Runner = start
    return (model or FastForward()).run((b"fastforward", *line.split()), situation(files, **variables), runner)


def records(pairs: Sequence[tuple[str | bytes, bytes | list[bytes]]]) -> bytes:
    def packed(data: bytes | list[bytes]) -> bytes:
        return data if isinstance(data, bytes) else b"".join(one + b"\0" for one in data)

    return cdb_bytes([(name.encode() if isinstance(name, str) else name, packed(data)) for name, data in pairs])


ALIASES = records(
    [
        (":joe@", [b"&joe@far.example"]),
        (":mary@a.example", [b"&joe@"]),
        (":@b.example", [b"&all@far.example"]),
        (":special@b.example", [b"|exit 100"]),
        (":fails@", [b"|exit 100"]),
        (":leads@", [b"&x@far.example", b"&FAILS@"]),
        (":owned@", [b"&owner-has@"]),
        (":owner-has@", [b"|exit 100"]),
        ("?owner-has@", b"me@far.example"),
        (":empty@", b""),
        (":dup@", [b"&x@far.example"]),
        (":dup@", [b"|exit 100"]),
        (":Upper@", [b"&x@far.example"]),
        ("?onlyowner@", b"me@far.example"),
        (":99@", [b"|exit 99"]),
        (":soft@", [b"|exit 1", b"|exit 100"]),
        (":both@", [b"&x@far.example", b"!exit 65"]),
        (":killed@", [b"|exit -1"]),
        (":vague@", [b"|what"]),
        (":vaguefails@", [b"|what", b"|exit 100"]),
        (":list@", [b"|list"]),
        (":loop@", [b"&Loop@", b"&loop@"]),
        (":open@", [b"", b"&x"]),
        (":unended@", b"&x@far.example\0|exit 100"),
        (":junk@", [b"no command", b"", b"&" + b"x" * 900]),
        (":file@", [b"./list"]),
        (":nofile@", [b"&x@far.example", b"/none"]),
        (":private@", [b"./private"]),
        (":dir@", [b"./dir"]),
        (":fifo@", [b"./fifo"]),
        (":viafile@", [b"./leads"]),
        (":inlist@", [b"./inlist"]),
        (":a@b@a.example", [b"&x@far.example"]),
        (":@", [b"&x@far.example"]),
    ]
)
FILES: dict[bytes, bytes | int] = {
    b"db": ALIASES,
    b"list": b"&x@far.example\0&y@far.example\0",
    b"private": b"&x@far.example\0",
    b"dir": errno.EISDIR,
    b"fifo": errno.EPIPE,
    b"leads": b"&fails@\0",
    b"inlist": b"|exit 100\0",
}
VERDICTS = {
    "joe": 0,
    "JOE": 0,
    "mary": 100,
    "nobody": 100,
    "fails": 100,
    "leads": 100,
    "owned": 0,
    "owner-has": 100,
    "empty": 0,
    "dup": 0,
    "upper": 100,
    "onlyowner": 100,
    "99": 111,
    "soft": 111,
    "both": 100,
    "killed": 111,
    "list": 0,
    "loop": 0,
    "open": 0,
    "unended": 0,
    "junk": 0,
    "file": 0,
    "nofile": 111,
    "private": 111,
    "dir": 111,
    "fifo": 0,
    "viafile": 100,
    "inlist": 0,
    "": 0,
}


def home() -> Files:
    return Files(FILES, {b"private": 0o640})


@pytest.mark.parametrize("user", VERDICTS)
def test_the_target_decides(user: str) -> None:
    effect = run(b"-d db", home(), DEFAULT=user.encode(), HOST=b"h.example")
    assert effect.statuses == {VERDICTS[user]}
    assert not effect.approximate


def test_keys_in_their_order() -> None:
    def ends(user: bytes, host: bytes) -> int:
        (status,) = run(b"-d db", home(), DEFAULT=user, HOST=host).statuses
        return status

    assert ends(b"Mary", b"A.Example") == 0
    assert ends(b"special", b"b.example") == 100
    assert ends(b"fails", b"b.example") == 0  # @host comes before user@
    assert ends(b"anything", b"b.example") == 0
    assert ends(b"anything", b"sub.b.example") == 100
    assert ends(b"a@b", b"a.example") == 0
    assert ends(b"j\xc3\x96e", b"a.example") == 100


def test_a_program_that_nobody_knows() -> None:
    vague = run(b"-d db", home(), DEFAULT=b"vague", HOST=b"h.example")
    assert (vague.statuses, vague.kind, vague.approximate) == (frozenset({0, 100, 111}), Kind.ALIAS, True)
    assert vague.reason == "program without a model"
    assert run(b"-d db", home(), DEFAULT=b"vaguefails", HOST=b"h.example").statuses == {100, 111}


def test_a_mailing_list_behind_an_alias_is_one() -> None:
    assert run(b"-d db", home(), DEFAULT=b"list", HOST=b"h.example").kind is Kind.LIST
    assert run(b"-d db", home(), DEFAULT=b"joe", HOST=b"h.example").kind is Kind.ALIAS


@pytest.mark.parametrize(
    ("line", "found", "missing"),
    [
        (b"-d db", 0, 100),
        (b"-dp db", 99, 0),
        (b"-pd db", 99, 0),
        (b"-p -d -P db", 0, 100),
        (b"-pPp -d db more", 99, 0),
        (b"-d -- db", 0, 100),
        (b"-nd db", 0, 100),
        (b"-ndp db", 99, 0),
        (b"-dDd db", 0, 100),
    ],
)
def test_options(line: bytes, found: int, missing: int) -> None:
    assert run(line, home(), DEFAULT=b"joe", HOST=b"h.example").statuses == {found}
    assert run(line, home(), DEFAULT=b"nobody", HOST=b"h.example").statuses == {missing}


@pytest.mark.parametrize("line", [b"", b"-d", b"-x db", b"-dx db", b"-d --"])
def test_a_wrong_usage_bounces(line: bytes) -> None:
    assert run(line, home(), DEFAULT=b"joe", HOST=b"h.example").statuses == {100}


def test_a_dry_run_runs_nothing() -> None:
    assert run(b"-nd db", home(), DEFAULT=b"fails", HOST=b"h.example").statuses == {0}
    assert run(b"-nNd db", home(), DEFAULT=b"fails", HOST=b"h.example").statuses == {100}
    assert run(b"-nd db", home(), DEFAULT=b"nofile", HOST=b"h.example").statuses == {111}


def test_variables() -> None:
    assert run(b"-d db", home(), EXT=b"joe", HOST=b"h.example").statuses == {0}
    assert run(b"-d db", home(), EXT=b"joe", DEFAULT=b"nobody", HOST=b"h.example").statuses == {100}
    assert run(b"db", home(), RECIPIENT=b"joe@h.example", DEFAULT=b"nobody").statuses == {0}
    assert run(b"db", home(), RECIPIENT=b"alias-joe@h.example", DEFAULT=b"joe").statuses == {100}
    assert run(b"-d db", home(), HOST=b"h.example").reason == "fastforward without its variables"
    assert run(b"-d db", home(), EXT=b"joe").statuses == {100}
    assert run(b"db", home(), EXT=b"joe", HOST=b"h.example").statuses == {100}
    assert run(b"none", home()).statuses == {111}  # the database comes first
    assert run(b"db", home(), RECIPIENT=b"joe").statuses == {100}  # no @: only the exact key


@pytest.mark.parametrize("content", [errno.ENOENT, errno.EACCES, errno.EISDIR, errno.EIO])
@pytest.mark.parametrize("line", [b"-d db", b"-dp db"])
def test_a_database_that_cannot_be_opened_defers(content: int, line: bytes) -> None:
    effect = run(line, Files({b"db": content}), DEFAULT=b"joe", HOST=b"h.example")
    assert effect == Effect(frozenset({111}), Kind.PROGRAM, module.UNREADABLE, file=b"/home/db")


@pytest.mark.parametrize("content", [b"", b"joe: mary\n", bytes(3000), ALIASES[:-20], ALIASES[:2100]])
@pytest.mark.parametrize("line", [b"-d db", b"-dp db"])
def test_a_damaged_database_is_reported_and_takes_nobody_away(content: bytes, line: bytes) -> None:
    files = Files({b"db": content})
    run(line, files, DEFAULT=b"joe", HOST=b"h.example")
    assert set(files.said) == {b"suspect /home/db"}
    anything = every(line, files, b"h.example").match(b"anything")
    assert (anything.statuses, anything.widened) == (frozenset({111}), bool(content))


@pytest.mark.parametrize(("size", "joe"), [(0, 111), (4, 111), (2048, 111), (len(ALIASES) - 20, 0)])
def test_a_look_up_in_a_damaged_database_ends_as_it_does_really(size: int, joe: int) -> None:
    assert run(b"-d db", Files({b"db": ALIASES[:size]}), DEFAULT=b"joe", HOST=b"h.example").statuses == {joe}
    assert run(b"-d db", Files({b"db": bytes(3000)}), DEFAULT=b"joe", HOST=b"h.example").statuses == {100}


def test_a_target_that_no_look_up_finds_any_more_is_damage() -> None:
    files = Files({b"db": records([(":joe@h", [b"&a@b"]), (":ann@h", [b"&a@b"])]).replace(b":joe@h", b":jou@h")})
    table = every(b"-d db", files, b"h")
    assert files.said == [b"suspect /home/db"]
    assert table.match(b"ann").widened


def test_an_error_of_the_disk_is_none_of_the_database() -> None:
    files = Files({b"unreadable": ALIASES})
    assert run(b"-d unreadable", files, DEFAULT=b"joe", HOST=b"h.example").statuses == {111}
    assert set(files.said) == {b"failed /home/unreadable"}


def test_an_empty_database_knows_nobody() -> None:
    files = Files({b"db": cdb_bytes([])})
    assert run(b"-d db", files, DEFAULT=b"joe", HOST=b"h.example").statuses == {100}
    assert every(b"-d db", files, b"h.example").match(b"joe").statuses == {100}


# The whole table


def every(
    line: bytes,
    files: Files,
    host: bytes,
    model: FastForward | None = None,
    make: Callable[[Free], Text] | None = None,
) -> Effects:
    """The table that the command registers for a text that may be anything."""
    free = Free(choices={})
    texts: dict[str, Any] = {"DEFAULT" if line.startswith(b"-") else "RECIPIENT": make(free) if make else free}
    first = run(line, files, model, HOST=host, **texts)
    if not free.choices:
        return Effects({}, {b"": first})
    (effects,) = free.choices.values()
    for command in free.choices:
        free.chosen = {command: effects.prefixes[b""]}
    assert run(line, files, model, HOST=host, **texts) == effects.prefixes[b""]
    return effects


@pytest.mark.parametrize("host", [b"h.example", b"a.example", b"b.example", b"", b"x@y"])
@pytest.mark.parametrize("line", [b"-d db", b"-dp db", b"-nd db"])
def test_the_table_says_what_one_address_gets(host: bytes, line: bytes) -> None:
    table = every(line, home(), host)
    users = {key.partition(b"@")[0][1:].lower() for key, _ in CdbFile(_slice(ALIASES), len(ALIASES), "").records()}
    for user in [*users, b"", b"a@b", b"nobody", b"joe@h.example", b"@", b"joe@x", b"x"]:
        assert table.match(user) == run(line, home(), DEFAULT=user, HOST=host), user


def _slice(data: bytes) -> Callable[[int, int], bytes]:
    return lambda position, size: data[position : position + size]


def test_the_recipient_is_turned_into_extensions() -> None:
    pairs = [(":shop-joe@h.example", [b"&x@y"]), (":shop-fails@", [b"|exit 100"]), (":joe@h.example", [b"&x@y"])]
    files = Files({b"db": records([*pairs, (":sho@h.example", [b"&x@y"])])})
    table = every(b"db", files, b"h.example", make=lambda free: Derived(free, b"shop-", b"s-", b"@h.example"))
    assert {effect.reason: list(names) for effect, names in table.groups.items()} == {
        module.EXACT: [b"s-joe"],
        "fastforward runs a program: exit": [b"s-fails"],
    }
    assert table.match(b"s-nobody").statuses == {100}


def test_a_spelling_of_the_host_is_known_enough() -> None:
    free = Free(choices={})
    host = Free(lowered=b"b.example")
    run(b"-d db", home(), DEFAULT=free, HOST=host)
    assert free.choices
    assert host.looked
    assert not host.opaque
    assert run(b"-d db", home(), DEFAULT=Free(lowered=b"special"), HOST=host).statuses == {100}


def test_texts_that_nobody_knows() -> None:
    host, text = Free(), Free(choices={})
    assert run(b"-d db", home(), DEFAULT=text, HOST=host).approximate
    assert host.opaque
    assert not text.choices
    assert run(b"db", home(), RECIPIENT=UNKNOWN).approximate
    free = Free()
    assert run(b"-d db", home(), DEFAULT=free, HOST=b"h").approximate
    assert free.opaque
    name = Free()
    assert FastForward().run((b"fastforward", b"-d", name), situation(home(), DEFAULT=b"x"), start).approximate
    assert name.opaque
    assert FastForward().run((b"fastforward", name, b"db"), situation(home()), start).approximate


def test_one_walk_serves_every_domain() -> None:
    model, files = FastForward(), home()
    every(b"-d db", files, b"h.example", model)
    walked = files.fetched
    every(b"-d db", files, b"h.example", model)
    again = files.fetched - walked
    assert every(b"-d db", files, b"a.example", model).match(b"mary").statuses == {0}
    files.files[b"/home/db"] = records([(":new@", [b"&x@y"])])
    assert every(b"-d db", files, b"h.example", model).match(b"new").statuses == {0}
    assert again < walked


@pytest.mark.parametrize("trouble", ["damage", "a tangle"])
def test_a_database_in_trouble_is_walked_once_for_all_domains(trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    walked = []

    def counted(database: CdbFile) -> Aliases:
        walked.append(database)
        return read_aliases(database)

    monkeypatch.setattr(module, "read_aliases", counted)
    links = [(b":%06d@" % n, [b"&%06d@" % (n + 1)]) for n in range(MOST_PASSES + 2)]
    tangle = records([*links, (b":%06d@" % len(links), [b"|exit 100"])])
    damaged = records([(":joe@h", [b"&a@b"])]).replace(b":joe@h", b":jou@h")
    model, files = FastForward(), Files({b"db": damaged if trouble == "damage" else tangle})
    first = every(b"-d db", files, b"h.example", model)
    assert every(b"-d db", files, b"a.example", model).prefixes == first.prefixes
    assert len(walked) == 1


def test_a_tangle_of_aliases_is_accepted() -> None:
    links = [(b":%06d@" % n, [b"&%06d@" % (n + 1)]) for n in range(MOST_PASSES + 2)]
    deep = records([*links, (b":%06d@" % len(links), [b"|exit 100"])])
    files = Files({b"db": deep})
    assert run(b"-d db", files, DEFAULT=b"000000", HOST=b"h").statuses == {100}
    assert every(b"-d db", files, b"h").match(b"000000").reason == module.TANGLED
    wide = records([(":x@", [b"&a%d" % n for n in range(150_000)] * 3)])
    found = run(b"-d db", Files({b"db": wide}), DEFAULT=b"x", HOST=b"h")
    assert (found.reason, found.approximate) == (module.TANGLED, True)


def test_a_list_file_too_large_to_be_read_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rcptgen.programs.aliasesdb.LONGEST_LIST", 3)
    found = run(b"-d db", home(), DEFAULT=b"file", HOST=b"h")
    assert (found.statuses, found.approximate) == (frozenset({0, 100, 111}), True)


NAMES = st.sampled_from([b"a", b"b", b"A", b"a@b", b"", b"x.y", b"\xff"])
HOSTS = st.sampled_from([b"", b"h", b"g", b"H"])
ADDRESSES = st.builds(lambda user, host: user + b"@" + host, NAMES, HOSTS) | NAMES
COMMANDS = ADDRESSES.map(lambda address: b"&" + address) | st.sampled_from(
    [b"|exit 0", b"|exit 99", b"|exit 100", b"!exit 77", b"|what", b"|list", b"./l", b"/m", b"./n", b"", b"z"]
)
TARGETS = st.lists(
    st.tuples(
        st.builds(lambda mark, address: mark + address, st.sampled_from([b":", b":", b":", b"?", b"x"]), ADDRESSES),
        st.lists(COMMANDS, max_size=4),
    ),
    max_size=9,
)
LISTS = st.lists(COMMANDS, max_size=3).map(lambda commands: b"".join(one + b"\0" for one in commands))


@given(TARGETS, LISTS, LISTS, HOSTS, st.sampled_from([b"-d db", b"-dp db"]), st.lists(NAMES | ADDRESSES, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_table_says_what_one_address_gets(
    targets: list[tuple[bytes, list[bytes]]], one: bytes, two: bytes, host: bytes, line: bytes, more: list[bytes]
) -> None:
    files = Files({b"db": records(targets), b"l": one, b"/m": two})
    table = every(line, files, host.lower())
    asked = {key[1:].rpartition(b"@")[0].lower() for key, _ in targets} | {text.lower() for text in more}
    for text in asked:
        assert table.match(text) == run(line, files, DEFAULT=text, HOST=host.lower()), text


@given(TARGETS, st.sampled_from([b"", b"a", b"a@"]), st.sampled_from([b"", b"b"]), st.lists(NAMES, max_size=6))
def test_every_table_of_recipients_says_what_one_address_gets(
    targets: list[tuple[bytes, list[bytes]]], before: bytes, without: bytes, more: list[bytes]
) -> None:
    files = Files({b"db": records(targets)})
    table = every(b"db", files, b"h", make=lambda free: Derived(free, before, without, b"@h"))
    for rest in {text.lower() for text in more} | {key[1:].rpartition(b"@")[0].lower() for key, _ in targets}:
        recipient = before + rest + b"@h"
        assert table.match(without + rest) == run(b"db", files, RECIPIENT=recipient), rest


@given(st.data(), st.binary(max_size=40))
def test_no_bytes_break_it(data: st.DataObject, noise: bytes) -> None:
    whole = bytearray(ALIASES)
    for _ in range(data.draw(st.integers(0, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for content in (bytes(whole), bytes(whole[:cut]), noise, records([(b":" + noise, noise), (b":@h", noise)])):
        files = Files({b"db": content, b"list": noise})
        run(b"-d db", files, DEFAULT=noise.replace(b"\0", b""), HOST=b"h")
        every(b"-d db", files, b"h").match(b"joe")


def test_signals_are_temporary() -> None:
    assert SIGNALLED == -1  # what the shell of these tests calls `exit -1`
