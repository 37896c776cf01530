"""Control files and rewriting, one small host for each rule; numbers are the surprises of the rules."""

from __future__ import annotations

from pathlib import Path

import inprocess
import pytest
from smallhosts import MAIL, Case, judge

from rcptgen.config import Config, Qmail

pytestmark = pytest.mark.root

JOE = {"passwd": {"joe": 1001}, "~joe/.qmail-a": MAIL}
"""joe and joe-a are delivered, joe-b bounces; nobody else is there, so other names bounce too."""


def virtual(text: str | bytes, **more: str) -> dict[str, object]:
    return {**JOE, "control/virtualdomains": text, **{name.replace("_", "/"): data for name, data in more.items()}}


CASES = [
    Case(
        "01 an empty local part is delivered to nobody, even with a broken users/cdb",
        {"users/cdb": "junk"},
        {"@mail.example": "deliver discard", "joe@mail.example": "defer"},
    ),
    Case(
        "01 an empty local part is delivered to nobody, even with a catch-all in users/cdb",
        {"users/assign": "+:x:1001:1001:/nosuch:-::\n.\n"},
        {"@mail.example": "deliver discard", "x@mail.example": "defer"},
    ),
    Case(
        "02 the last of equal keys wins in virtualdomains",
        virtual("shop.example:nosuch\nSHOP.example:joe\nother.example:joe\nother.example:\n"),
        {"a@shop.example": "deliver", "a@other.example": "remote"},
    ),
    Case(
        "02 the first of equal names wins in users/assign",
        {**JOE, "users/assign": "=x:joe:1001:1001:/home/joe:-:a:\n=x:joe:1001:1001:/home/joe:-:b:\n.\n"},
        {"x@mail.example": "deliver"},
    ),
    Case(
        "03 an empty locals is not a missing one",
        {**JOE, "control/locals": ""},
        {"joe@mail.example": "remote", "joe": "remote"},
    ),
    Case("03 without locals, me is local", JOE, {"joe@mail.example": "deliver", "joe@MAIL.Example": "deliver"}),
    Case(
        "04 blanks go from the end of a line only, CR and comments stay",
        {**JOE, "control/locals": "a.example \t\n b.example\nc.example\r\nd.example # no\n#e.example\n\nf.example"},
        {
            "joe@a.example": "deliver",
            "joe@b.example": "remote",
            "joe@ b.example": "deliver",
            "joe@c.example": "remote",
            "joe@c.example\r": "deliver",
            "joe@d.example": "remote",
            "joe@d.example # no": "deliver",
            "joe@#e.example": "remote",
            "joe@f.example": "deliver",
        },
    ),
    Case(
        "04 a blank before the colon is part of the key, one after it part of the prepend",
        virtual("a.example :joe\nb.example: joe\n"),
        {"a@a.example": "remote", "a@a.example ": "deliver", "a@b.example": "bounce"},
    ),
    Case(
        "05 a suffix matches the domain that is the suffix itself, and dots at the end count",
        virtual(".shop.example:joe\n.:joe\n"),
        {
            "a@x.shop.example": "deliver",
            "a@x.y.shop.example": "deliver",
            "a@.shop.example": "deliver",
            "a@shop.example": "remote",
            "a@shop.example.": "deliver",
            "a@.": "deliver",
        },
    ),
    Case(
        "06 an empty prepend hides the wildcards above its own key only",
        virtual(".shop:\n:joe\n"),
        {"a@q.shop": "remote", "a@shop": "deliver", "a@q.other": "deliver", "a@": "deliver"},
    ),
    Case(
        "06 an empty prepend hides less specific entries",
        virtual("a.shop.example:\n.shop.example:joe\nx@b.shop.example:\n"),
        {"a@a.shop.example": "remote", "a@b.shop.example": "deliver", "x@b.shop.example": "remote"},
    ),
    Case(
        "07 user@domain keys work for whole addresses, but never for a domain in locals",
        virtual("x@mail.example:joe-a\nx@far.example:joe\na@b@far.example:joe\n@far.example:joe\nJ@far.example:joe\n"),
        {
            "x@mail.example": "bounce",
            "x@far.example": "bounce",
            "a@b@far.example": "bounce",
            "@far.example": "bounce",
            "y@far.example": "remote",
            "j@FAR.example": "bounce",
        },
    ),
    Case(
        "07 user@domain: the prepend, a dash, and the local part",
        {**virtual("x@far.example:joe\n"), "~joe/.qmail-x": MAIL},
        {"x@far.example": "deliver mailbox", "X@far.example": "deliver mailbox"},
    ),
    Case(
        "08 a prepend in capitals finds its account all the same",
        virtual("far.example:JOE\nother.example:Joe-A\n"),
        {"a@far.example": "deliver", "A@far.example": "deliver", "b@far.example": "bounce"},
    ),
    Case(
        "09 an empty local part in a virtual domain is the prepend and a dash",
        {**virtual("far.example:joe\nother.example:ann\n"), "passwd": {"joe": 1001, "ann": 1002}, "~ann/.qmail-": MAIL},
        {"@far.example": "bounce", "@other.example": "deliver"},
    ),
    Case(
        "10 a percent sign and nothing behind it make an empty domain",
        {**JOE, "control/percenthack": "mail.example\n"},
        {"x%@mail.example": "remote", "%@mail.example": "remote", "joe%mail.example@mail.example": "deliver"},
    ),
    Case(
        "10 with a catch-all the empty domain is a domain",
        {**virtual(":joe\n"), "control/percenthack": "mail.example\n"},
        {"a%@mail.example": "deliver", "b%@mail.example": "bounce", "a%far@mail.example": "deliver"},
    ),
    Case(
        "11 after the percent hack the last @ splits, so one in the local part stays",
        {**virtual("far.example:joe\n"), "control/percenthack": "mail.example\n", "~joe/.qmail-a@b": MAIL},
        {"a@b%far.example@mail.example": "deliver", "a@c%far.example@mail.example": "bounce"},
    ),
    Case(
        "11 the percent hack repeats while the domain is hacked",
        {**JOE, "control/percenthack": "a.example\nb.example\n", "control/locals": "mail.example\n"},
        {
            "joe%mail.example%b.example@a.example": "deliver",
            "joe%mail.example@b.example": "deliver",
            "joe@a.example": "remote",
            "joe%mail.example@c.example": "remote",
        },
    ),
    Case(
        "48 a NUL in a control file separates entries, and at the end makes the empty domain local",
        {**JOE, "control/locals": b"a.example\0b.example\nc.example\0\n\0d.example\n#x\0e.example\n"},
        {
            "joe@a.example": "deliver",
            "joe@b.example": "deliver",
            "joe@c.example": "deliver",
            "joe@": "deliver",
            "joe@d.example": "remote",
            "joe@e.example": "remote",
        },
    ),
    Case(
        "49 me has no comments, and is its first line only",
        {**JOE, "control/me": "#host\nmail.example\n"},
        {"joe@#host": "deliver", "joe@mail.example": "remote", "joe": "deliver"},
    ),
    Case("49 an empty me is the empty domain", {**JOE, "control/me": ""}, {"joe@": "deliver", "joe": "deliver"}),
    Case(
        "an address without a domain gets envnoathost, which may hold an @",
        {**virtual("far.example:joe\n"), "control/envnoathost": "x@far.example \n", "~joe/.qmail-a@x": MAIL},
        {"a": "deliver", "b": "bounce", "joe@mail.example": "deliver"},
    ),
    Case(
        "without me and envnoathost the domain is called envnoathost",
        {**JOE, "control/me": None, "control/locals": "envnoathost\n"},
        {"joe": "deliver", "joe@mail.example": "remote"},
    ),
    Case("an address with a NUL is none", JOE, {b"joe\0@mail.example": "bounce"}),
    Case(
        "virtualdomains: the address, the domain, its suffixes from the longest, the empty key",
        {
            **virtual("x@a.b.example:joe-1\na.b.example:joe-2\n.b.example:joe-3\n.example:joe-4\n:joe-5\n"),
            "~joe/.qmail-1-x": "./1\n",
            "~joe/.qmail-2-y": "./2\n",
            "~joe/.qmail-3-y": "./3\n",
            "~joe/.qmail-4-y": "./4\n",
            "~joe/.qmail-5-y": "./5\n",
        },
        {
            "x@a.b.example": "deliver",
            "y@a.b.example": "deliver",
            "y@c.b.example": "deliver",
            "y@b.example": "deliver",
            "y@other": "deliver",
            "x@c.b.example": "bounce",
        },
    ),
    Case(
        "a dot in the local part is no suffix",
        virtual(".a.example:joe\n"),
        {"x.a@far.example": "remote", "a.a.example": "bounce"},
    ),
    Case(
        "conf-break: another character ends the account's name",
        {**JOE},
        {"joe+a@mail.example": "deliver", "joe-a@mail.example": "bounce"},
        Config(qmail=Qmail(break_="+")),
    ),
    Case(
        "conf-break: with none there are no extensions of users",
        {**JOE, "alias/.qmail-joe-a": MAIL},
        {"joe@mail.example": "deliver", "joe-a@mail.example": "deliver mailbox", "joe-b@mail.example": "bounce"},
        Config(qmail=Qmail(break_="")),
    ),
    Case(
        "the qmail directory is a setting",
        {
            "passwd": {"joe": 1001},
            "/opt/qmail/control/locals": "other.example\n",
            "/opt/qmail/users/cdb": "junk",
        },
        {"joe@other.example": "defer", "joe@mail.example": "remote"},
        Config(qmail=Qmail(directory="/opt/qmail/")),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_control(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inprocess.use(monkeypatch)
    assert judge(tmp_path, case) == []
