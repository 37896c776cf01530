"""The programs of ezmlm-idx: options, flags, commands, and every table against one address at a time."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from fakelists import DIRECTORY, Home
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rcptgen.programs import builtin_models
from rcptgen.programs.ezmlm import MANAGED, PASSED_ON, GetSays, ManageSays, RequestSays, SplitSays
from rcptgen.programs.ezmlm_dispatch import MOST_LISTS
from rcptgen.programs.ezmlm_list import Ended, Usage, command_line, ends, hangs
from rcptgen.programs.ezmlm_posting import ReturnSays, WaitingSays
from rcptgen.programs.ezmlm_program import Says
from rcptgen.programs.shell import run_line
from rcptgen.qmail.model import UNKNOWN, Effect, Effects, Free, Presence, Situation, Text
from rcptgen.rules.outcome import Kind

LIST: dict[bytes, bytes | int] = {
    b"list/key": b"secret",
    b"list/outlocal": b"joe-list\n",
    b"list/outhost": b"example.org\n",
    b"list/headerremove": b"return-path\n",
    b"list/public": b"",
    b"list/archived": b"",
    b"list/indexed": b"",
    b"list/num": b"2:0\n",
}
MODELS = builtin_models()


def run(line: str, files: dict[bytes, bytes | int], default: Text | None = b"", **variables: Text) -> Effect:
    texts: dict[bytes, Text] = {b"SENDER": UNKNOWN, b"LOCAL": UNKNOWN, b"PATH": b"/bin"}
    texts |= {name.encode(): text for name, text in variables.items()}
    if default is not None:
        texts[b"DEFAULT"] = default
    return run_line(line.encode(), Situation(texts, lambda _: Presence.FOUND, Home(files)), MODELS)


def outcome(line: str, files: dict[bytes, bytes | int], default: Text | None = b"", **variables: Text) -> int | str:
    """The status a line ends with, `maybe` where it may be refused or not."""
    found = run(line, files, default, **variables)
    if found.approximate and 100 in found.statuses and found.statuses & {0, 99}:
        return "maybe"
    (status,) = found.statuses
    return status


def without(*names: bytes, **more: bytes) -> dict[bytes, bytes | int]:
    kept = {name: data for name, data in LIST.items() if name.removeprefix(b"list/") not in names}
    return kept | {b"list/" + name.encode(): data for name, data in more.items()}


# -- the list and the line -------------------------------------------------------------------


@pytest.mark.parametrize(
    "program", ["get", "split", "request", "manage", "return", "moderate", "send", "store", "clean"]
)
def test_a_list_without_its_essential_files_refuses_everything(program: str) -> None:
    for name in (b"key", b"outlocal", b"outhost"):
        assert outcome(f"ezmlm-{program} list", without(name), b"help") == 100
    assert outcome(f"ezmlm-{program} nowhere", LIST, b"help") == 111
    assert outcome(f"ezmlm-{program} list/key", LIST, b"help") == 111
    assert outcome(f"ezmlm-{program} ''", LIST, b"help") == 111
    assert outcome(f"ezmlm-{program}", LIST, b"help") == 100


@pytest.mark.parametrize("name", [b"key", b"outlocal", b"public", b"flags", b"config", b"remote"])
@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO])
def test_a_setting_that_cannot_be_read_defers(name: bytes, error: int) -> None:
    if name == b"public" and error == errno.EACCES:
        return  # a flag is only looked at
    assert outcome("ezmlm-manage list", {**LIST, b"list/" + name: error}, b"foo") == 111


def test_settings_are_found_elsewhere_too() -> None:
    other = without(b"outlocal", b"headerremove", ezmlmrc=b"/etc/ezmlm/fr\n")
    assert outcome("ezmlm-manage list", other, b"foo") == 100
    other |= {b"/etc/ezmlm/fr/outlocal": b"x\n", b"/etc/ezmlm/default/headerremove": b"x\n"}
    assert outcome("ezmlm-manage list", other, b"foo") == 0
    assert outcome("ezmlm-request list", other, b"request") == 99


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("ezmlm-manage -z list", 100),
        ("ezmlm-manage -lde -- list", 0),
        ("ezmlm-manage - list", 0),
        ("ezmlm-manage -v list", 0),
        ("ezmlm-get -f m list", 0),
        ("ezmlm-get -fm list", 0),
        ("ezmlm-get list -f", 0),
        ("ezmlm-get -f", 100),
        ("ezmlm-warn -t 3 list", 0),
        ("ezmlm-warn -t3x list", 100),
        ("ezmlm-dispatch -a .", 100),
        ("ezmlm-dispatch", 100),
    ],
)
def test_options(line: str, status: int) -> None:
    assert outcome(line, LIST, b"foo") == status


@given(st.lists(st.binary(max_size=4)), st.binary(max_size=4), st.binary(max_size=3))
def test_any_line_is_read_to_its_end(words: list[bytes], letters: bytes, texts: bytes) -> None:
    try:
        command_line([b"ezmlm-x", *words], Usage(letters, texts, b"n"))
    except Ended as ended:
        assert ended.effect.statuses == {100}


@pytest.mark.parametrize(
    ("files", "public"),
    [
        ({}, True),
        ({b"flags": b"P\n"}, False),
        ({b"flags": b"Pp\n"}, True),
        ({b"flags": b"-u\n", b"config": b"F:P\n"}, True),
        ({b"config": b"X:p\nF:-aP\nF:p\n"}, False),
        ({b"flags": b"# a comment\n\n aP \n"}, False),
        ({b"flags": b"\xff\0P"}, True),
    ],
)
def test_letters_of_older_releases(files: dict[bytes, bytes | int], public: bool) -> None:
    more: dict[bytes, bytes | int] = {b"list/" + name: data for name, data in files.items()}
    assert outcome("ezmlm-manage list", LIST | more, b"foo") == (0 if public else 100)
    assert outcome("ezmlm-manage list", without(b"public") | {b"list/flags": b"p"}, b"foo") == 0


@pytest.mark.parametrize("sender", [b"", b"#@[]", b"nobody"])
def test_a_sender_that_is_known_to_be_nobody(sender: bytes) -> None:
    assert outcome("ezmlm-manage list", LIST, b"help", SENDER=sender) == 100
    assert outcome("ezmlm-request list", LIST, b"request", SENDER=sender) == 99
    assert outcome("ezmlm-return list", LIST, b"1-", SENDER=sender) == 99


def test_words_that_are_not_known_leave_everything_open() -> None:
    free = Free()
    assert run('ezmlm-manage "$DEFAULT"', LIST, free).approximate
    assert free.opaque
    assert run('ezmlm-dispatch "$X"', LIST, b"x", X=UNKNOWN).approximate


# -- the manager -----------------------------------------------------------------------------

ALL = "ezmlm-get list && ezmlm-split list && ezmlm-request list && ezmlm-manage list"


@pytest.mark.parametrize(
    ("files", "answers"),
    [
        (
            LIST,
            {
                **dict.fromkeys(
                    (b"", b"foo", b"help", b"info", b"digest-", b"digest-x", b"list45", b"LIST.X", b"sc."), 0
                ),
                **dict.fromkeys((b"get", b"getting", b"GET.1", b"index", b"THREADS", b"request", b"digget"), 99),
                **dict.fromkeys((b"digest", b"digests", b"allow", b"denying", b"DENY", b"list", b"Listn-x"), 100),
                **dict.fromkeys(
                    (b"login", b"editor", b"edit.top", b"deny-help", b"dig-x", b"dig.", b"tc.1", b"ed."), 100
                ),
                **dict.fromkeys((b"subscribe-", b"subscribe-x", b"unsubscribe-nobody"), 100),
                **dict.fromkeys(
                    (b"subscribe", b"subscribe-a=b", b"TC.1", b"tc", b"allow-subscribe", b"subscriber-x"), 0
                ),
                b"tc.1700000000.abcdefghijklmnopqrst-u=h": "maybe",
                b"ed.1700000000.top.abcdefghijklmnopqrst": "maybe",
                b"allow-vc.1.abcdefghijklmnopqrst": "maybe",
            },
        ),
        (
            without(b"public"),
            {
                **dict.fromkeys((b"", b"foo", b"info", b"subscribe", b"get", b"helpx", b"deny-help", b"sc.1"), 100),
                **dict.fromkeys((b"help", b"HELP", b"help-x", b"digest-help", b"allow-help-x"), 0),
                b"request": 99,
                b"digest": 100,
            },
        ),
        (
            without(b"public", remote=b""),
            {
                **dict.fromkeys((b"", b"foo", b"get", b"list", b"deny-x"), "maybe"),
                b"help": 0,
                b"digest": 100,
                b"dig-x": 100,
            },
        ),
        (without(b"public", modsub=b""), {b"foo": 100, b"get": 100}),
        (
            without(remote=b"", modcanlist=b"", modcanedit=b""),
            {
                **dict.fromkeys(
                    (b"list", b"log", b"logs", b"edit", b"edit-x", b"edit.top", b"deny-x", b"tc."), "maybe"
                ),
                **dict.fromkeys((b"edits", b"edit.t0p", b"edit.a.b"), 100),
                b"foo": 0,
            },
        ),
        (
            without(modsub=b"", modcanlist=b""),
            {b"list": "maybe", b"digest-list": "maybe", b"log": 100, b"deny-list": 100},
        ),
        (without(b"archived"), {b"get": 100, b"index": 100, b"dig-x": 100}),
        (without(b"archived", digestcode=b"code\n"), {b"dig-code": 100, b"dig-x": 100}),
        (without(digestcode=b"Code\n"), {b"dig-code": 99, b"DIG.CODEx": 99, b"dig-cod": 100, b"dig": 0}),
        (without(digestcode=b"\n"), {b"dig-": 100}),
        (without(b"indexed"), {b"get": 99, b"index": 100, b"thread.1": 100}),
        (without(b"num"), {b"get": "maybe", b"index": "maybe"}),
        (without(subgetonly=b""), {b"get": "maybe"}),
        (without(modgetonly=b""), {b"get": 100, b"foo": 0}),
        (without(modgetonly=b"", remote=b""), {b"get": "maybe"}),
        (without(b"headerremove"), {b"request": 100, b"foo": 0}),
    ],
)
def test_commands(files: dict[bytes, bytes | int], answers: dict[bytes, int | str]) -> None:
    assert {text: outcome(ALL, files, text) for text in answers} == answers


def test_options_override_flags() -> None:
    assert outcome("ezmlm-get -C list", LIST, b"get") == 100
    assert outcome("ezmlm-get -C list", LIST, b"foo") == 0
    assert outcome("ezmlm-get -P list", LIST, b"get") == 100
    assert outcome("ezmlm-get -p list", without(b"public"), b"get") == 99
    assert outcome("ezmlm-get list CODE", without(digestcode=b"other"), b"dig-code") == 99
    assert outcome("ezmlm-manage -C list", LIST, b"getx") == 100
    assert outcome("ezmlm-manage -l list", without(remote=b""), b"list") == "maybe"
    assert outcome("ezmlm-manage -L list", without(remote=b"", modcanlist=b""), b"list") == 100
    assert outcome("ezmlm-manage -d list", without(remote=b""), b"edit") == "maybe"
    assert outcome("ezmlm-manage -eE list", without(remote=b""), b"edit") == 100
    assert outcome("ezmlm-split -D list", LIST, b"subscribe-x") == 0


def test_sublists_take_subscriptions() -> None:
    split = without(b"public", split=b"# comment\n\norg:0:52:other@far.example\n")
    assert run("ezmlm-split list", split, b"subscribe-a=b").statuses == {0, 99}
    assert outcome("ezmlm-split list", split, b"subscribe-a") == 100
    assert outcome("ezmlm-split list", split, b"foo") == 0
    assert outcome("ezmlm-split list other", split, b"subscribe-a=b") == 0


@pytest.mark.parametrize("program", ["split", "request", "manage", "return", "moderate", "confirm"])
def test_programs_that_need_default(program: str) -> None:
    assert outcome(f"ezmlm-{program} list", LIST, None) == 100


def test_get_makes_a_digest_without_default() -> None:
    assert outcome("ezmlm-get list", LIST, None) == 0
    assert outcome("ezmlm-get list", without(b"archived"), None) == 100


# -- bounces, replies, posts -----------------------------------------------------------------

TWENTY = b"abcdefghijklmnopqrst"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        *(
            (text, 99)
            for text in (b"", b"1-", b"-", b"12-u=h", b"warn-x", b"probe-", b"m-", b"g-", b"receipt-", b"receipt-m-")
        ),
        *((text, 100) for text in (b"x", b"1", b"12", b"warn", b"WARN-", b"probe", b"m-x", b"receipt-1-", b"1.-")),
        (b"receipt-" + TWENTY + b"-1-", 99),
        (b"receipt-" + TWENTY + b"-x-", 100),
        (b"m-" + TWENTY + b"-1-", 111),
        (b"receipt-" + TWENTY[1:] + b"-1-", 100),
    ],
)
def test_bounces(text: bytes, status: int) -> None:
    assert outcome("ezmlm-return -d list", LIST, text) == status


@pytest.mark.parametrize(
    ("program", "words"), [("moderate", (b"accept", b"reject")), ("confirm", (b"confirm", b"discard"))]
)
def test_replies(program: str, words: tuple[bytes, bytes]) -> None:
    good = b"1700000000.12." + TWENTY
    for word in words:
        assert outcome(f"ezmlm-{program} list", LIST, good, LOCAL=b"joe-list-" + word + b"-" + good) == "maybe"
        assert outcome(f"ezmlm-{program} list", LIST, good, LOCAL=b"joe-list-" + word.upper() + b"-" + good) == 100
        assert outcome(f"ezmlm-{program} list", LIST, b"x", LOCAL=b"joe-list-" + word + b"-x") == 100
    assert outcome(f"ezmlm-{program} list", LIST, good, LOCAL=b"joe-list-other-" + good) == 100
    assert outcome(f"ezmlm-{program} list", LIST, good, LOCAL=good) == 100
    assert outcome(f"ezmlm-{program} list", LIST, good) == "maybe"
    for text in (b"", b"1.2", b"1.2." + TWENTY[1:], b"x.2." + TWENTY, b"1.2." + TWENTY.upper()):
        assert outcome(f"ezmlm-{program} list", LIST, text) == 100


def test_posts() -> None:
    assert outcome("ezmlm-send list", LIST) == 0
    assert outcome("ezmlm-send list", without(sublist=b"parent@far.example")) == "maybe"
    assert outcome("ezmlm-send list", without(b"headerremove")) == 100
    assert outcome("ezmlm-send list", without(b"headerremove", headerkeep=b"x")) == 0
    assert outcome("ezmlm-store list", LIST) == 0
    waiting: dict[bytes, bytes | int] = {b"list/mod/pending": DIRECTORY, b"list/mod/unconfirmed": DIRECTORY}
    assert outcome("ezmlm-store list", without(modpost=b"")) == 111
    assert outcome("ezmlm-store list", without(modpost=b"") | waiting) == 0
    assert outcome("ezmlm-store -y list", LIST | waiting) == 0
    assert outcome("ezmlm-store list", without(modpost=b"", modpostonly=b"") | waiting) == "maybe"
    assert outcome("ezmlm-store -p list", without(modpost=b"", modpostonly=b"") | waiting) == 0
    assert outcome("ezmlm-store list", without(modpost=b"", flags=b"o") | waiting) == "maybe"
    assert outcome("ezmlm-store list", without(modpostonly=b"")) == 0
    assert outcome("ezmlm-gate list . digest", without(modpost=b"")) == 0
    assert outcome("ezmlm-gate list .", without(modpost=b"", modpostonly=b"")) == "maybe"
    assert outcome("ezmlm-checksub list . digest", LIST) == "maybe"
    assert outcome("ezmlm-checksub -n list deny", LIST | {b"list/deny/subscribers": DIRECTORY}) == 0
    assert outcome("ezmlm-checksub -n list deny", LIST | {b"list/deny/subscribers/A": b"T"}) == "maybe"
    assert outcome("ezmlm-reject list", LIST) == 0
    assert outcome("ezmlm-reject", {}) == 0
    assert outcome("ezmlm-weed", {}) == 0
    assert outcome("if ezmlm-tstdig list; then true; fi", LIST) == 0
    assert run("ezmlm-send list", LIST).kind is Kind.LIST


# -- tables ----------------------------------------------------------------------------------

BOOLEANS = [False, True]
SAYS: list[Says] = [
    ReturnSays(),
    WaitingSays(),
    SplitSays(PASSED_ON),
    RequestSays(ends(99, "x")),
    RequestSays(ends(100, "x")),
    *(
        GetSays(code, ends(99, "digest"), ends(99, "archive"), hangs(99, "index"))
        for code in (None, b"", b"code", b"-", b"get")
    ),
    *(
        ManageSays(public=public, remote=remote, lists=lists, logs=lists and remote, edits=edits and remote, gets=gets)
        for public in BOOLEANS
        for remote in BOOLEANS
        for lists in BOOLEANS
        for edits in BOOLEANS
        for gets in BOOLEANS
    ),
]
PARTS = [
    *(
        b"digest",
        b"allow",
        b"deny",
        b"-",
        b"-",
        b".",
        b"list",
        b"n",
        b"log",
        b"edit",
        b"ed.",
        b"get",
        b"help",
        b"x",
        b"/",
    ),
    *(b"index", b"thread", b"dig", b"code", b"subscribe", b"unsubscribe", b"request", b"return", b"warn-", b"probe-"),
    *(
        b"receipt-",
        b"m-",
        b"g-",
        b"1",
        b"1700000000",
        TWENTY,
        b"=",
        b"@",
        b"tc.",
        b"sc.",
        b"rc.",
        b"\xe9",
        b"\n",
        b"faq",
    ),
]
texts = st.lists(st.sampled_from(PARTS), max_size=6).map(b"".join) | st.binary(max_size=12)


def accepted(effect: Effect) -> bool:
    return effect.statuses != {100}


@settings(max_examples=600)
@given(st.sampled_from(SAYS), texts, st.booleans())
@example(ManageSays(public=True, remote=False, lists=False, logs=False, edits=False, gets=True), b"TC.x", False)
@example(ReturnSays(), b"WARN-", False)
def test_tables_say_what_is_said_of_each_text(says: Says, text: bytes, capitals: bool) -> None:
    text = text.upper() if capitals else text
    table = says.texts().effects().match(text.lower())
    one = says.one(text)
    if table.widened:
        assert accepted(table)
    else:
        assert replace(table, reason="") == replace(one, reason="")
    assert accepted(table) or not accepted(one)


@given(st.sampled_from(SAYS))
def test_every_text_of_a_table_is_in_lower_case(says: Says) -> None:
    table = says.texts()
    assert all(text == text.lower() for text in (*table.exact, *table.prefixes))


def test_a_free_default_is_answered_by_the_table() -> None:
    free = Free(choices={})
    run("ezmlm-manage list", LIST, free)
    assert free.choices is not None
    ((key, effects),) = free.choices.items()
    assert effects.match(b"list").statuses == {100}
    assert effects.match(b"foo") == MANAGED
    assert run("ezmlm-manage list", LIST, Free(choices={}, chosen={key: MANAGED})).statuses == {0}
    assert run("ezmlm-manage list", LIST, Free()).approximate
    assert outcome("ezmlm-manage list", LIST, Free(lowered=b"list")) == 100


# -- ezmlm-dispatch --------------------------------------------------------------------------


def dispatched(name: bytes, **more: bytes) -> dict[bytes, bytes | int]:
    where = b"lists/" + name + b"/"
    manager = b"\n".join(
        b"|ezmlm-%s '/home/lists/%s'" % (one, name) for one in (b"get", b"split", b"request", b"manage")
    )
    files: dict[bytes, bytes | int] = {
        where + b"editor": b"|ezmlm-send '/home/lists/" + name + b"'\n",
        where + b"owner": b"./Mailbox\n",
        where + b"manager": b"|ezmlm-weed\n" + manager + b"\n|ezmlm-warn '/home/lists/" + name + b"' || exit 0\n",
        where + b"bouncer": b"|ezmlm-return -D '/home/lists/" + name + b"'\n",
        where + b"moderator": b"# nobody\n|ezmlm-moderate '/home/lists/" + name + b"'\n",
    }
    files |= {where + one.removeprefix(b"list/"): data for one, data in LIST.items()}
    return files | {where + one.encode(): data for one, data in more.items()}


LISTS = (
    dispatched(b"talk")
    | dispatched(b"talk-dev", flags=b"P", owner=b"&me@far.example\n")
    | dispatched(b"get", owner=b"|exit 99\n|exit 100\n")
    | {b"lists/file": b"", b"lists/empty": DIRECTORY}
)
DISPATCH = "ezmlm-dispatch lists"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        *(
            (text, 0)
            for text in (b"talk", b"talk-", b"talk-foo", b"talk-HELP", b"talk-confirm-x", b"talk-dev", b"talk-dev-")
        ),
        *(
            (text, 0)
            for text in (b"talk-dev-help", b"talk-dev-owner", b"talk-dev-digest-owner", b"get-foo", b"talk-dev-HELP-x")
        ),
        *(
            (text, 99)
            for text in (b"talk-get", b"talk-return-1-", b"talk-request", b"get-get", b"get-owner", b"talk-dev-request")
        ),
        *(
            (text, 100)
            for text in (b"", b"other", b"talks", b"TALK", b"Talk-foo", b"talk/x", b"file", b"file-x", b"-talk")
        ),
        *(
            (text, 100)
            for text in (b"talk-owner", b"talk-digest-owner", b"talk-accept-x", b"talk-return-x", b"talk-dev-foo")
        ),
        *((text, 100) for text in (b"talk-digest", b"talk-subscribe-x", b"talk-deny-a'b")),
        *((text, 111) for text in (b"empty", b"empty-x", b".", b"..", b".-x")),
        (b"talk-accept-1.2." + TWENTY, "maybe"),
        (b"talk-it's", 0),
    ],
)
def test_dispatch(text: bytes, status: int | str) -> None:
    assert outcome(DISPATCH, LISTS, text) == status
    found = table(DISPATCH, LISTS).match(text.lower())
    assert found.widened or found.statuses == run(DISPATCH, LISTS, text).statuses


def test_a_name_that_is_too_long_for_a_directory_defers() -> None:
    assert outcome(DISPATCH, LISTS, b"x" * 300) == 111


def test_dispatch_to_one_list() -> None:
    assert outcome("ezmlm-dispatch lists talk", LISTS, b"") == 0
    assert outcome("ezmlm-dispatch lists talk", LISTS, None) == 0
    assert outcome("ezmlm-dispatch lists talk", LISTS, b"foo") == 0
    assert outcome("ezmlm-dispatch lists talk", LISTS, b"list") == 100
    assert outcome("ezmlm-dispatch lists talk", LISTS, b"owner") == 100
    assert outcome("ezmlm-dispatch lists none", LISTS, b"foo") == 100
    assert outcome("ezmlm-dispatch lists", LISTS, None) == 100
    assert outcome("ezmlm-dispatch nowhere", LISTS, b"foo") == 100
    assert outcome("ezmlm-dispatch lists/file", LISTS, b"foo") == 111


def table(line: str, files: dict[bytes, bytes | int]) -> Effects:
    free = Free(choices={})
    run(line, files, free, EXT=Free(choices={}))
    assert free.choices is not None
    (effects,) = free.choices.values()
    return effects


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b"talk", b"dev", b"get", b"empty", b".", *PARTS]), max_size=6).map(b"-".join))
def test_the_table_of_dispatch_says_what_is_said_of_each_text(text: bytes) -> None:
    if b"\n" in text:
        return  # the shell is not followed there
    for line in (DISPATCH, "ezmlm-dispatch lists talk-dev"):
        found = TABLES[line].match(text)
        one = run(line, LISTS, text)
        assert accepted(found) or not accepted(one), (line, text)
        if not found.widened:
            assert found.statuses == one.statuses, (line, text)


TABLES = {line: table(line, LISTS) for line in (DISPATCH, "ezmlm-dispatch lists talk-dev")}


def test_capitals_in_the_name_of_a_list() -> None:
    lists = dispatched(b"Talk")
    assert outcome(DISPATCH, lists, b"Talk-help") == 0
    assert outcome(DISPATCH, lists, b"talk-help") == 100
    found = table(DISPATCH, lists).match(b"talk-help")
    assert found.widened
    assert accepted(found)


def test_lists_that_run_themselves_come_to_an_end() -> None:
    lists: dict[bytes, bytes | int] = {
        b"lists/x/manager": b"|DEFAULT=x-y ezmlm-dispatch lists\n" * 3,
        b"lists/x/editor": b"|ezmlm-dispatch lists x\n",
    }
    assert run(DISPATCH, lists, b"x-y").approximate
    assert run(DISPATCH, lists, b"x").approximate
    assert accepted(table(DISPATCH, lists).match(b"x-y"))


def test_more_lists_than_are_looked_into() -> None:
    lists: dict[bytes, bytes | int] = {b"lists/l%d" % number: DIRECTORY for number in range(MOST_LISTS + 1)}
    found = table(DISPATCH, lists).match(b"anything")
    assert found.widened
    assert accepted(found)


hostile = st.dictionaries(
    st.sampled_from(
        [b"flags", b"config", b"digestcode", b"num", b"remote", b"split", b"manager", b"editor", b"ezmlmrc", b"owner"]
    ),
    st.binary(max_size=40) | st.sampled_from([errno.EACCES, errno.EISDIR, errno.EPIPE, errno.ELOOP, errno.EIO]),
)


@settings(max_examples=200, deadline=None)
@given(hostile, texts)
def test_nothing_in_a_list_breaks_the_models(files: dict[bytes, bytes | int], text: bytes) -> None:
    lists = dispatched(b"talk") | {b"lists/talk/" + name: data for name, data in files.items()}
    names: Sequence[str] = sorted({name.decode() for name in MODELS if name.startswith(b"ezmlm-")} - {"ezmlm-dispatch"})
    for name in names:
        assert run(f"{name} lists/talk", lists, text).statuses
        if re.search(r"get|split|request|manage", name):
            assert run(f"{name} lists/talk", lists, Free(choices={})).statuses
    assert run(DISPATCH, lists, b"talk-" + text).statuses
    assert table(DISPATCH, lists).match(b"talk-" + text.lower()).statuses
