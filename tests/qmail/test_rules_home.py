"""The home, the search for a dot-qmail file, and its instructions; numbers are the surprises of the rules."""

from __future__ import annotations

from pathlib import Path

import inprocess
import pytest
from hosts import Dir, Fifo, File, Link
from smallhosts import MAIL, Case, judge

from rcptgen.config import Config, Qmail

pytestmark = pytest.mark.root


def joe(**files: object) -> dict[str, object]:
    return {"passwd": {"joe": 1001}, **{f"~joe/{name}": thing for name, thing in files.items()}}


def ext(**files: object) -> dict[str, object]:
    """Files of joe, called by the extension (`_` for a dash)."""
    return joe(**{f".qmail-{name.replace('_', '-')}": thing for name, thing in files.items()})


def lines(**contents: str | bytes) -> dict[str, object]:
    return ext(**contents)


def answers(**wanted: str) -> dict[str | bytes, str]:
    """The answers to joe-EXT@mail.example (`_` for a dash)."""
    return {f"joe-{name.replace('_', '-')}@mail.example": verdict for name, verdict in wanted.items()}


CASES = [
    Case(
        "27 joe- has an empty extension with a dash",
        joe(**{".qmail": "|exit 100\n", ".qmail-default": MAIL}),
        {"joe-@mail.example": "deliver", "joe@mail.example": "bounce"},
    ),
    Case(
        "27 joe- finds .qmail- first",
        joe(**{".qmail-": "|exit 100\n", ".qmail-default": MAIL}),
        {"joe-@mail.example": "bounce", "joe-x@mail.example": "deliver"},
    ),
    Case(
        "28 joe-list is not in list-default, joe-list- is",
        ext(list_default=MAIL),
        answers(list="bounce", list_="deliver", list_x="deliver", list_x_y="deliver", listx="bounce"),
    ),
    Case(
        "29 a default file by its name",
        ext(list_default=MAIL),
        answers(list_default="deliver", default="bounce", list_default_default="deliver"),
    ),
    Case(
        "30 a dot and a colon reach the same file, a dot or a capital in its name is never reached",
        ext(**{"a:b": MAIL, "c.d": MAIL, "E": MAIL, "f:_default": MAIL}),
        {
            "joe-a.b@mail.example": "deliver",
            "joe-a:b@mail.example": "deliver",
            "JOE-A.B@mail.example": "deliver",
            "joe-c.d@mail.example": "bounce",
            "joe-e@mail.example": "bounce",
            "joe-E@mail.example": "bounce",
            "joe-f.-x@mail.example": "deliver",
            "joe-f:-x@mail.example": "deliver",
        },
    ),
    Case(
        "31 8-bit letters are not lowered",
        {"passwd": {"joe": 1001}, "~joe/.qmail-\udcf6": MAIL},
        {b"joe-\xf6@mail.example": "deliver", b"joe-\xd6@mail.example": "bounce"},
    ),
    Case(
        "32 only what others may write is refused",
        ext(a=File(MAIL, mode=0o664), b=File(MAIL, mode=0o646), c=File("|exit 100\n", mode=0o646)),
        answers(a="deliver", b="defer", c="defer"),
    ),
    Case(
        "32 a home that the group may write is fine",
        {**joe(), "~joe": Dir(mode=0o775)},
        {"joe@mail.example": "deliver", "joe-x@mail.example": "bounce"},
    ),
    Case(
        "33 a writable home defers what does not exist, too",
        {**joe(), "~joe": Dir(mode=0o757)},
        {"joe@mail.example": "defer", "joe-x@mail.example": "defer"},
    ),
    Case(
        "33 and so does a sticky one",
        {**joe(), "~joe": Dir(mode=0o1755)},
        {"joe@mail.example": "defer", "joe-x@mail.example": "defer"},
    ),
    Case(
        "a home that can be entered and not listed",
        {**ext(a=MAIL), "~joe": Dir(mode=0o311)},
        answers(a="deliver", b="bounce"),
    ),
    Case(
        "34 what cannot be read ends the search, also a directory, a fifo, or a link to it",
        ext(
            a=File(MAIL, mode=0o000),
            b=Dir(mode=0o300),
            c=Fifo(mode=0o000),
            d=Link(".qmail-a"),
            a_default=MAIL,
            default="|exit 100\n",
        ),
        answers(a="defer", b="defer", c="defer", d="defer", a_x="deliver", e="bounce"),
    ),
    Case(
        "34 what is no file lets it go on",
        ext(a=Dir(), b=Fifo(), c=Link("nosuch"), d=Link(".qmail-d"), e=Link("/dev/null"), default=MAIL)
        | {"/dev/null": Fifo(mode=0o666)},
        answers(a="deliver", b="deliver", c="deliver", d="deliver", e="deliver", f="deliver"),
    ),
    Case(
        "35 whether a file can be read depends on uid and the one gid, the owner's bits first",
        ext(
            a=File(MAIL, mode=0o044),
            b=File(MAIL, mode=0o640, uid=0),
            c=File(MAIL, mode=0o640, uid=0, gid=0),
            d=File(MAIL, mode=0o604, uid=0),
            e=File(MAIL, mode=0o400),
        ),
        answers(a="defer", b="deliver", c="defer", d="defer", e="deliver"),
    ),
    Case(
        "36 only comments are delivered to nobody, a blank first line defers",
        lines(a="# nothing\n", b="+list\n", c="\n|exit 100\n", d=" \t\nx\n", e="#\n\n./x\n", f="\n"),
        answers(a="deliver discard", b="deliver discard", c="defer", d="defer", e="deliver mailbox", f="defer"),
    ),
    Case(
        "37 the x bit: of the owner only, and not for an empty file",
        ext(
            a=File(MAIL, mode=0o744),
            b=File("", mode=0o744),
            c=File(MAIL, mode=0o655),
            d=File("x@far.example\n", mode=0o744),
            e=File("|true\n", mode=0o700),
        ),
        answers(a="defer", b="deliver default-delivery", c="deliver", d="deliver forward", e="defer"),
    ),
    Case(
        "38 what stands before the offending line counts",
        ext(
            a=File("|exit 99\n", mode=0o744),
            b="x@far.example\n+list\n|exit 99\n",
            c="|exit 99\n+list\n./x\n",
            d="|exit 100\n+list\n./x\n",
            e="|exit 0\n+list\n./x\n",
            f="+list\nx@far.example\n",
            g="+lists\n./x\n",
            h="+list \n./x\n",
        ),
        answers(
            a="defer", b="defer", c="deliver", d="bounce", e="defer", f="deliver list", g="deliver mailbox", h="defer"
        ),
    ),
    Case(
        "39 a blank before | or ./ makes it a forward",
        lines(a=" |exit 100\n", b=" ./Mailbox\n", c="\t|exit 100\n"),
        answers(a="deliver forward", b="deliver forward", c="deliver forward"),
    ),
    Case(
        "40 false, unknown commands and syntax errors defer",
        lines(a="|false\n", b="|nosuchcommand\n", c="|(\n", d="|/nosuch/command\n", e="|exit 111\n", f="|exit 1\n"),
        answers(a="defer", b="defer", c="defer", d="defer", e="defer", f="defer"),
    ),
    Case(
        "the exit codes that bounce",
        lines(**{f"e{code}": f"|exit {code}\n" for code in (100, 64, 65, 70, 76, 77, 78, 112)}),
        {f"joe-e{code}@mail.example": "bounce" for code in (100, 64, 65, 70, 76, 77, 78, 112)},
    ),
    Case(
        "and their neighbours, which defer",
        lines(**{f"e{code}": f"|exit {code}\n" for code in (63, 66, 69, 71, 75, 79, 98, 101, 111, 113)}),
        {f"joe-e{code}@mail.example": "defer" for code in (63, 66, 69, 71, 75, 79, 98, 101, 111, 113)},
    ),
    Case(
        "41 a lone &, no domain, <x>, ~/Mailbox: all are forwards",
        lines(a="&\n", b="x\n", c="<x>\n", d="~/Mailbox\n", e="&x@far.example\n"),
        answers(
            a="deliver forward", b="deliver forward", c="deliver forward", d="deliver forward", e="deliver forward"
        ),
    ),
    Case(
        "42 the last word counts: delivered and then bounced is a bounce",
        lines(a="./Mailbox\n|exit 100\n", b="|exit 0\nx@far.example\n|exit 100\n", c="./x\n|exit 99\n|exit 100\n"),
        answers(a="bounce", b="bounce", c="deliver"),
    ),
    Case(
        "43 bouncesaying with a program that does not exist goes on",
        lines(
            a="|bouncesaying no nosuchprogram\n./Mailbox\n",
            b="|bouncesaying no\n./Mailbox\n",
            c="|bouncesaying no true\n",
            d="|except nosuchprogram\n./Mailbox\n",
            e="|except true\n",
            f="|condredirect x@far.example true\n|exit 100\n",
            g="|condredirect x@far.example false\n|exit 100\n",
            h="|forward x@far.example\n",
        ),
        answers(
            a="deliver mailbox",
            b="bounce",
            c="bounce",
            d="deliver mailbox",
            e="bounce",
            f="deliver forward",
            g="bounce",
            h="deliver forward",
        ),
    ),
    Case(
        "44 CR: part of a file's name, and no number for exit",
        {**lines(a="./Maildir/\r\n", b="|exit 100\r\n", c="x@far.example\r\n"), "~joe/Maildir": Dir()},
        answers(a="deliver mailbox", b="defer", c="deliver forward"),
    ),
    Case(
        "45 NUL ends a line's text, and as its first byte makes it blank",
        lines(a=b"\0x\n", b=b"x@far.example\n\0\n", c=b"|exit 100\0 && true\n", d=b"#\0\n./x\n"),
        answers(a="defer", b="deliver forward", c="bounce", d="deliver mailbox"),
    ),
    Case(
        "46 a slash leads into a directory, and dots cannot climb",
        ext(**{"x": Dir(), "x/a": MAIL, "x/b_default": MAIL, "x/y": Dir(), "x/y/z": MAIL}),
        {
            "joe-x/a@mail.example": "deliver",
            "joe-x/A@mail.example": "deliver",
            "joe-x/c@mail.example": "bounce",
            "joe-x/b-c@mail.example": "deliver",
            "joe-x/y/z@mail.example": "deliver",
            "joe-x/y/../a@mail.example": "bounce",
            "joe-x@mail.example": "bounce",
            "joe-x/@mail.example": "bounce",
        },
    ),
    Case(
        "46 a directory that can be entered and not read ends the search by its own name only",
        ext(**{"x": Dir(mode=0o311), "x/a": MAIL, "y": Dir(mode=0o444), "y/a": MAIL, "z": Dir(mode=0), "z/a": MAIL}),
        {
            "joe-x@mail.example": "defer",
            "joe-x/a@mail.example": "deliver",
            "joe-x/b@mail.example": "bounce",
            "joe-y@mail.example": "bounce",
            "joe-y/a@mail.example": "defer",
            "joe-y/b@mail.example": "defer",
            "joe-z@mail.example": "defer",
            "joe-z/a@mail.example": "defer",
        },
    ),
    Case(
        "47 an extension too long for a file name: the search goes on",
        ext(a_default=MAIL),
        {f"joe-a-{'x' * 300}@mail.example": "deliver", f"joe-{'x' * 300}@mail.example": "bounce"},
    ),
    Case(
        "the search: the name, then every prefix that ends in a dash, the longest first",
        ext(a_b="./1\n", a_default="|exit 100\n", default="./3\n", a_b_c_default="./4\n"),
        answers(a_b="deliver", a_c="bounce", b="deliver", a_b_c_d="deliver", a_b_d="bounce", a="deliver", ab="deliver"),
    ),
    Case(
        "a forward that is too long for qmail-queue bounces",
        lines(a="x" * 1002 + "\n", b="x" * 1003 + "\n", c="&" + "x" * 1002 + "\n", d="|exit 99\n" + "x" * 1003 + "\n"),
        answers(a="deliver", b="bounce", c="deliver", d="deliver"),
    ),
    Case(
        "a mailbox that cannot be written defers",
        {
            **ext(a="./nosuch/box\n", b="./Dir/\n", c="./Dir\n", d="./Maildir/\n"),
            "~joe/Dir": Dir(),
            "~joe/Maildir/new": Dir(uid=1001),
            "~joe/Maildir/tmp": Dir(uid=1001),
            "~joe/Maildir/cur": Dir(uid=1001),
        },
        answers(a="defer", b="defer", c="defer", d="deliver mailbox"),
    ),
    Case(
        "the default delivery is a setting",
        {"passwd": {"joe": 1001}, "~joe/.qmail-a": ""},
        {"joe@mail.example": "bounce", "joe-a@mail.example": "bounce"},
        Config(qmail=Qmail(default_delivery="|exit 100")),
    ),
    Case(
        "the default delivery may be several lines",
        {"passwd": {"joe": 1001}},
        {"joe@mail.example": "deliver default-delivery"},
        Config(qmail=Qmail(default_delivery="|exit 0\n./Mailbox")),
    ),
    Case(
        "conf-patrn: what others or the group may write is a setting",
        {
            **ext(a=File(MAIL, mode=0o664), b=File(MAIL, mode=0o646)),
            "passwd": {"joe": 1001, "ann": 1002},
            "~ann": Dir(mode=0o775),
        },
        {**answers(a="defer", b="deliver"), "ann@mail.example": "defer", "ann-x@mail.example": "defer"},
        Config(qmail=Qmail(forbidden_modes=0o020)),
    ),
    Case(
        "conf-patrn: with none everything goes",
        {**ext(a=File(MAIL, mode=0o666))},
        answers(a="deliver", b="bounce"),
        Config(qmail=Qmail(forbidden_modes=0)),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_home(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inprocess.use(monkeypatch)
    assert judge(tmp_path, case) == []


def test_every_surprise_has_a_case() -> None:
    here = Path(__file__).parent
    text = "".join((here / f"test_rules_{name}.py").read_text("utf-8") for name in ("control", "users", "home"))
    missing = [number for number in range(1, 51) if f'"{number:02d} ' not in text]
    assert missing == []
