"""The space of local names against its own definition: whose a name is, found by trying one after the other."""

from __future__ import annotations

import pytest
from hosts import qmail_newu
from hypothesis import given
from hypothesis import strategies as st

from rcptgen.localspace import Claim, LocalSpace, Unsayable
from rcptgen.qmail.dotqmail import safe_extension
from rcptgen.qmail.hometable import MOST_COLONS, HomeTable
from rcptgen.qmail.passwd import Account
from rcptgen.qmail.users import UsersCdb
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.table import Table

ALIAS = Account(b"alias", 7790, 2108, b"/var/qmail/alias")
MAIL = Outcome(Verdict.DELIVER, Kind.MAILBOX, "mbox", b"/home/x/.qmail-", 1, named_from=0)
BOUNCE = Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, "no dot-qmail file for this name")
FAILED = Outcome(Verdict.DEFER, Kind.DEFERRAL, "the home directory cannot be looked at")

names = st.text("ab-.", max_size=4)
accounts = st.dictionaries(
    names.filter(bool).map(str.encode),
    st.sampled_from([Account(b"joe", 1001, 1001, b"/home/joe"), Account(b"ann", 1002, 1002, b"/home/ann"), FAILED]),
    max_size=3,
)
assigned = st.lists(
    st.builds(
        "{}{}:{}:{}:{}:/home/{}:{}:{}:\n".format,
        st.sampled_from("=++"),
        names,
        st.just("u"),
        st.sampled_from(["1001", "1001", "0"]),
        st.just("1001"),
        st.sampled_from(["u", "v"]),
        st.sampled_from(["-", "", "-x"]),
        names,
    ),
    max_size=5,
)


def space(lines: list[str] | None, found: dict[bytes, Account | Outcome], break_: bytes = b"-") -> LocalSpace:
    users = None if lines is None else UsersCdb(qmail_newu(("".join(lines) + ".\n").encode()))
    return LocalSpace(users, found, ALIAS, break_=break_, users_file=b"users/cdb", passwd_file=b"passwd")


def claimed_by_hand(
    lines: list[str] | None, found: dict[bytes, Account | Outcome], break_: bytes, local: bytes
) -> tuple[bytes, bytes, bytes]:
    """Whose a local name is, by home, dash and extension: users/cdb, then accounts, then ~alias."""
    if lines is not None:
        users = UsersCdb(qmail_newu(("".join(lines) + ".\n").encode()))
        hit = users.lookup(local)
        if hit is not None:
            assert hit.record is not None
            owner = hit.record.owner
            return owner.home, owner.dash, hit.record.extension(hit.tail)
    for end in range(len(local), -1, -1):
        if end < 32 and (end == len(local) or local[end : end + 1] == break_):
            account = found.get(local[:end].lower())
            if isinstance(account, Account):
                dash = b"" if end == len(local) else b"-"
                return account.home, dash, local[end + 1 :]
            if account is not None:
                return b"", b"", b""
    return ALIAS.home, b"-", local


@pytest.mark.parametrize("break_", [b"-", b".", b""])
@given(lines=st.one_of(st.none(), assigned), found=accounts, asked=st.lists(st.text("aAb-.", max_size=6)))
def test_every_name_belongs_to_whom_the_search_gives_it(
    break_: bytes, lines: list[str] | None, found: dict[bytes, Account | Outcome], asked: list[str]
) -> None:
    made = space(lines, found, break_)
    for local in [one.encode() for one in asked]:
        claim = made.claim(local)
        home, dash, extension = claimed_by_hand(lines, found, break_, local)
        if claim.fixed is not None:
            assert claim.failed == (claim.fixed is FAILED)
            assert claim.owner.uid == 0
            assert home in (claim.owner.home, b"")
            continue
        assert (claim.owner.home, claim.owner.dash, claim.extension(local)) == (home, dash, extension)


homes = st.builds(
    Table,
    st.dictionaries(st.text("ab-:", max_size=4).map(str.encode), st.just(MAIL), max_size=5),
    st.dictionaries(
        st.text("ab-:", max_size=3).map(lambda one: one.encode() + b"-"),
        st.sampled_from([BOUNCE, Outcome(Verdict.DELIVER, Kind.PROGRAM, "program")]),
        max_size=3,
    ).map(lambda found: {b"": BOUNCE, **found}),
)


@given(
    lines=st.one_of(st.none(), assigned),
    found=accounts,
    home=homes,
    view=names.map(str.encode),
    asked=st.lists(st.text("ab-.:", max_size=5).map(str.encode)),
)
def test_the_flat_table_answers_as_the_claims_do(
    lines: list[str] | None,
    found: dict[bytes, Account | Outcome],
    home: Table,
    view: bytes,
    asked: list[bytes],
) -> None:
    made = space(lines, found)
    table, unsayable = made.flatten(view, lambda claim: HomeTable(home))
    assert unsayable == [] or all(one.rule.count(b":") > MOST_COLONS for one in unsayable)
    for local in [*asked, *(rule.name for rule in table.rules())]:
        claim = made.claim(view + local)
        wanted = claim.fixed
        if wanted is None:
            wanted = home.match(safe_extension(claim.extension(view + local), claim.owner.dash))
        assert wanted is not None
        if b":" in local and local not in (rule.name for rule in table.rules() if not rule.prefix):
            # The file's name has colons, the address may have dots: the path is told from the spelling.
            assert wanted.verdict is (table.match(local) or wanted).verdict
            continue
        got = table.match(local)
        assert got is not None
        assert (got.verdict, got.kind, got.reason) == (wanted.verdict, wanted.kind, wanted.reason)


def flat(home: Table) -> tuple[dict[bytes, Outcome], list[Unsayable]]:
    made = space(None, {b"joe": Account(b"joe", 1001, 1001, b"/home/joe")})
    table, unsayable = made.flatten(b"", lambda claim: HomeTable(home))
    return {name: outcome.at(name) for name, outcome in table.exact()}, unsayable


def test_every_spelling_of_up_to_four_colons_is_written() -> None:
    found, unsayable = flat(Table({b"a:b:a:b:a": MAIL}, {b"": BOUNCE}))
    assert sum(name.startswith(b"joe-a") for name in found) == 2**MOST_COLONS
    assert {found[name].file for name in found if name.startswith(b"joe-")} == {b"/home/x/.qmail-a:b:a:b:a"}
    assert unsayable == []


def test_beyond_four_colons_the_two_plain_spellings_are_written_and_it_is_said() -> None:
    found, unsayable = flat(Table({b"a:b:a:b:a:b": MAIL}, {b"": BOUNCE}))
    assert {name for name in found if name.startswith(b"joe-")} == {b"joe-a.b.a.b.a.b", b"joe-a:b:a:b:a:b"}
    reason = "more than four dots or colons in one name: not every spelling is written"
    assert Unsayable(b"joe-a:b:a:b:a:b", reason, b"/home/x/.qmail-a:b:a:b:a:b", 1) in unsayable


def test_a_claim_that_policy_skips_is_one_rule_and_its_home_is_not_read() -> None:
    made = space(None, {b"joe": Account(b"joe", 1001, 1001, b"/home/joe")})
    read: list[bytes] = []

    def table_of(claim: Claim) -> HomeTable:
        read.append(claim.owner.home)
        return HomeTable(Table({}, {b"": BOUNCE}))

    wide = Outcome(Verdict.DELIVER, Kind.UNKNOWN, "whole", widened=True)
    table, _ = made.flatten(b"", table_of, skip=lambda claim: wide if claim.name == b"joe-" else None)
    assert table.match(b"joe-x") == wide
    assert table.match(b"joe") == BOUNCE
    assert sorted(read) == [b"/home/joe", ALIAS.home]


def test_without_an_alias_account_what_is_nobodys_defers() -> None:
    made = LocalSpace(None, {}, None, break_=b"-", users_file=b"users/cdb", passwd_file=b"passwd")
    claim = made.claim(b"nosuch")
    assert claim.fixed == Outcome(Verdict.DEFER, Kind.DEFERRAL, "there is no alias account", b"passwd")
    assert made.flatten(b"", lambda one: HomeTable(Table({}, {b"": BOUNCE})))[0].match(b"x") == claim.fixed
