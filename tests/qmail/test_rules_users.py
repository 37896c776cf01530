"""Who owns a local name: users/cdb, the accounts of the system, ~alias; numbers are the surprises of the rules."""

from __future__ import annotations

from pathlib import Path

import inprocess
import pytest
from hosts import Dir, File, Link, qmail_newu
from smallhosts import MAIL, Case, judge

from rcptgen.config import Config, Qmail

pytestmark = pytest.mark.root

JOE = {"passwd": {"joe": 1001, "ann": 1002}, "~joe/.qmail-a": MAIL}
TO_JOE = "joe:1001:1001:/home/joe"


def assign(*lines: str, **more: str) -> dict[str, object]:
    """Lines with `JOE` for joe's account fields."""
    text = "".join(line.replace("JOE", TO_JOE) + "\n" for line in lines) + ".\n"
    return {**JOE, "users/assign": text, **more}


CASES = [
    Case(
        "12 users/assign without users/cdb is not looked at",
        {**assign("=info:JOE:-:a:"), "users/cdb": None},
        {"info@mail.example": "bounce"},
    ),
    Case(
        "12 users/cdb counts, whatever became of users/assign",
        {**assign("=new:JOE:-:a:"), "users/cdb": qmail_newu(f"=old:{TO_JOE}:-:a:\n.\n".encode())},
        {"old@mail.example": "deliver", "new@mail.example": "bounce"},
    ),
    Case(
        "13 what users/cdb does not have falls through to the accounts",
        assign("=ann:JOE:-:a:", "+info-:JOE:-::"),
        {
            "joe@mail.example": "deliver default-delivery",
            "ann@mail.example": "deliver mailbox",
            "ann-x@mail.example": "bounce",
            "info-a@mail.example": "deliver mailbox",
            "info-b@mail.example": "bounce",
        },
    ),
    Case(
        "13 ann-x still reaches ann's own home, when only ann was given away",
        assign("=ann:JOE:-:a:") | {"~ann/.qmail-x": MAIL},
        {"ann-x@mail.example": "deliver mailbox"},
    ),
    Case(
        "a wildcard hides every account that begins with it",
        assign("+j:JOE:-::") | {"~joe/.qmail-oe": MAIL},
        {"joe@mail.example": "deliver", "joe-a@mail.example": "bounce", "ja@mail.example": "deliver"},
    ),
    Case(
        "14 a wildcard that ends in a capital is not found",
        assign("+INFO:JOE:-::"),
        {"infoa@mail.example": "bounce", "INFOa@mail.example": "bounce"},
    ),
    Case(
        "14 unless another wildcard ends in that small letter",
        assign("+INFO:JOE:-::", "+go:JOE:-::"),
        {"infoa@mail.example": "deliver", "INFOA@mail.example": "deliver"},
    ),
    Case("15 a comment in users/assign is none", assign("#info:JOE:-:a:"), {"info@mail.example": "deliver"}),
    Case(
        "16 an empty dash: no bounce but the default delivery, and .qmaildefault",
        assign("+info-:JOE:::", "+b-:ann:1002:1002:/home/ann:::") | {"~ann/.qmaildefault": "|exit 100\n"},
        {
            "info-x@mail.example": "deliver default-delivery",
            "info-@mail.example": "deliver default-delivery",
            "info--a@mail.example": "deliver mailbox",
            "b-x@mail.example": "bounce refusal",
        },
    ),
    Case(
        "17 a user's own address: .qmail, or .qmaildefault, never .qmail-default",
        {
            "passwd": {"joe": 1001, "ann": 1002},
            "~joe/.qmaildefault": "|exit 100\n",
            "~joe/.qmail-default": MAIL,
            "~ann/.qmail-default": "|exit 100\n",
        },
        {
            "joe@mail.example": "bounce refusal",
            "joe-x@mail.example": "deliver mailbox",
            "ann@mail.example": "deliver default-delivery",
        },
    ),
    Case(
        "18 the rest of a wildcard's name follows pre with nothing between",
        assign("+inf:JOE:-:x:") | {"~joe/.qmail-xo": MAIL},
        {"info@mail.example": "deliver", "infa@mail.example": "bounce", "inf@mail.example": "bounce"},
    ),
    Case(
        "19 dash is taken as it is, pre is lowered and its dots are changed",
        assign("+a-:JOE:--:B.c:", "+b-:JOE:-X:Y:", "+c-:JOE:+.::")
        | {"~joe/.qmail--b:ca": MAIL, "~joe/.qmail-Xya": MAIL, "~joe/.qmail+.a": MAIL, "~joe/.qmail-xyb": MAIL},
        {
            "a-A@mail.example": "deliver",
            "a-b@mail.example": "bounce",
            "b-a@mail.example": "deliver",
            "b-b@mail.example": "bounce",
            "c-a@mail.example": "deliver",
        },
    ),
    Case(
        "19 a dash that is a slash leads into a directory",
        assign("+a-:JOE:/::") | {"~joe/.qmail/x": MAIL, "~joe/.qmail/y-default": MAIL},
        {"a-x@mail.example": "deliver", "a-y-1@mail.example": "deliver", "a-z@mail.example": "bounce"},
    ),
    Case(
        "20 a uid that does not begin with a digit is root's, and root gets no mail",
        assign(
            "=a:joe:x:1001:/home/joe:::",
            "=b:joe:-1:1001:/home/joe:::",
            "=c:joe:0:1:/home/joe:::",
            "=d:joe:1001x:1001:/home/joe:::",
        ),
        {"a@mail.example": "defer", "b@mail.example": "defer", "c@mail.example": "defer", "d@mail.example": "deliver"},
    ),
    Case(
        "20 a relative home bounces, a missing one defers",
        assign("=a:joe:1001:1001:home/joe:::", "=b:joe:1001:1001:/nosuch:::", "=c:joe:1001:1001::::"),
        {"a@mail.example": "bounce", "b@mail.example": "defer", "c@mail.example": "bounce"},
    ),
    Case(
        "21 a corrupt users/cdb defers all local mail",
        {**JOE, "users/cdb": b"x" * 3000},
        {"joe@mail.example": "defer", "nosuch@mail.example": "defer", "joe@far.example": "remote"},
    ),
    Case("21 an empty users/cdb too", {**JOE, "users/cdb": ""}, {"joe@mail.example": "defer"}),
    Case(
        "21 a dangling link is as good as no file",
        {**JOE, "users/cdb": Link("nosuch")},
        {"joe@mail.example": "deliver", "nosuch@mail.example": "bounce"},
    ),
    Case("21 a users/cdb that is a directory is an error", {**JOE, "users/cdb": Dir()}, {"joe@mail.example": "defer"}),
    Case(
        "22 an account whose home is missing, not its own, hidden, or root's is no user",
        {
            "passwd": {
                "joe": 1001,
                "joe-gone": "joe-gone:x:1003:1003::/home/gone:",
                "thief": "thief:x:1004:1004::/home/joe:",
                "toor": "toor:x:0:0::/root:",
                "hid": "hid:x:1005:1005::/hidden/hid:",
                "bare": "bare:x:1006:1006:::",
            },
            "/hidden": Dir(mode=0o700),
            "~hid": Dir(),
            "~joe/.qmail-gone": MAIL,
            "alias/.qmail-thief": MAIL,
            "alias/.qmail-toor": MAIL,
            "alias/.qmail-hid": MAIL,
        },
        {
            "joe-gone@mail.example": "deliver mailbox",
            "thief@mail.example": "deliver mailbox",
            "thief-x@mail.example": "bounce",
            "toor@mail.example": "deliver mailbox",
            "hid@mail.example": "deliver mailbox",
            "bare@mail.example": "bounce",
        },
    ),
    Case(
        "22 an empty home is none, even where qmail's directory would be the account's own",
        {"passwd": {"bare": "bare:x:1006:1006:::"}, "/var/qmail": Dir(uid=1006), "alias/.qmail-bare": MAIL},
        {"bare@mail.example": "deliver mailbox"},
    ),
    Case(
        "23 a home that is a file, or that only its user cannot enter, is still a user's",
        {
            "passwd": {"joe": 1001, "ann": "ann:x:1002:1002::/home/ann:"},
            "~joe": Dir(mode=0o000),
            "/home/ann": File("", uid=1002),
            "alias/.qmail-default": MAIL,
        },
        {"joe@mail.example": "defer", "joe-x@mail.example": "defer", "ann@mail.example": "defer"},
    ),
    Case(
        "24 the name of an account ends before 32 characters",
        {"passwd": {"a" * 31: 1001, "b" * 32: 1002, "b": 1003}},
        {
            f"{'a' * 31}@mail.example": "deliver",
            f"{'b' * 32}@mail.example": "bounce",
            f"{'a' * 31}-x@mail.example": "bounce",
        },
    ),
    Case(
        "24 account names with capitals are never found",
        {"passwd": {"Dora": 1001}},
        {"Dora@mail.example": "bounce", "dora@mail.example": "bounce"},
    ),
    Case(
        "25 a name below a user never reaches ~alias",
        {"passwd": {"joe": 1001}, "alias/.qmail-default": MAIL, "alias/.qmail-joe-nosuch": MAIL},
        {"joe-nosuch@mail.example": "bounce", "other@mail.example": "deliver", "joe@mail.example": "deliver"},
    ),
    Case(
        "26 alias-x reaches what x reaches, alias is a mailbox",
        {"alias/.qmail-x": "joe\n"},
        {
            "x@mail.example": "deliver alias",
            "alias-x@mail.example": "deliver alias",
            "alias@mail.example": "deliver default-delivery",
            "alias-y@mail.example": "bounce",
        },
    ),
    Case(
        "50 the alias account needs no home of its own",
        {"alias": Dir(uid=4000), "alias/.qmail-x": "joe\n"},
        {"x@mail.example": "deliver", "alias-x@mail.example": "bounce", "y@mail.example": "bounce"},
    ),
    Case(
        "50 no alias account, or one that is root, defers what is no user's",
        {"passwd": "joe:x:1001:1001::/home/joe:\nalias:x:0:0::/var/qmail/alias:\n", "/home/joe": Dir(uid=1001)},
        {"joe@mail.example": "deliver", "x@mail.example": "defer"},
    ),
    Case(
        "50 no alias account at all",
        {"passwd": "joe:x:1001:1001::/home/joe:\n", "/home/joe": Dir(uid=1001)},
        {"joe@mail.example": "deliver", "joe-x@mail.example": "bounce", "x@mail.example": "defer"},
    ),
    Case(
        "the longest name of an account wins",
        {"passwd": {"joe": 1001, "joe-ann": 1002}, "~joe/.qmail-ann-x": MAIL, "~joe-ann/.qmail-y": MAIL},
        {"joe-ann@mail.example": "deliver", "joe-ann-y@mail.example": "deliver", "joe-ann-x@mail.example": "bounce"},
    ),
    Case(
        "the longest wildcard wins, and an exact name before it",
        assign("+:JOE:-:1-:", "+a-:JOE:-:2-:", "+a-b-:JOE:-:3-:", "=a-b-c:JOE:-:4:")
        | {"~joe/.qmail-1-x": MAIL, "~joe/.qmail-2-x": MAIL, "~joe/.qmail-3-x": MAIL, "~joe/.qmail-4": MAIL},
        {
            "x@mail.example": "deliver",
            "a-x@mail.example": "deliver",
            "a-b-x@mail.example": "deliver",
            "a-b-c@mail.example": "deliver",
            "a-b-d@mail.example": "bounce",
            "b-x@mail.example": "bounce",
        },
    ),
    Case(
        "another alias account",
        {"passwd": {"postie": 1001}, "~postie/.qmail-x": "joe\n", "alias/.qmail-y": MAIL},
        {"x@mail.example": "deliver alias", "y@mail.example": "bounce"},
        Config(qmail=Qmail(alias="postie")),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_users(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inprocess.use(monkeypatch)
    assert judge(tmp_path, case) == []
