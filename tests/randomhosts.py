"""Random small hosts and addresses, for tests that hold one answer against another.

A host is a table as hosts.Host takes it, so that a failing example can be read.  The names
come from a few words that collide on purpose.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hosts import BadTree, Dir, Fifo, File, Host, Link, remove
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from rcptgen.config import Config, Qmail

Table = dict[str, Any]

WORDS = ("a", "b", "joe", "list", "default", "ann")
LONG = "ann-" + "x" * 27
ACCOUNTS = {
    "joe": 1001,
    "ann": 1002,
    "a": 1003,
    "joe-list": 1004,
    "a-b": 1005,
    "default": 1006,
    "joe.b": 1007,
    LONG: 1008,
    LONG + "x": 1009,
}
DOMAINS = ("mail.example", "shop.example", "a.shop.example", "b.example", "example")

MAIL = "./Mailbox\n"
CONTENTS = (
    MAIL,
    "./Maildir/\n",
    "",
    "&x@far.example\n",
    "+list\nx@far.example\n",
    "+list\n./Mailbox\n",
    "# nobody\n",
    "\n./Mailbox\n",
    "|exit 100\n",
    "|exit 99\n|exit 100\n",
    "|bouncesaying 'no such user'\n",
    "|bouncesaying gone false\n./Mailbox\n",
    "|except true\n",
    "|condredirect y@far.example true\n",
    "|false\n",
    "|nosuchprogram\n",
    "|/opt/filter\n|exit 100\n",
    "./nosuchdir/x\n|exit 100\n",
    "./Mailbox\n|exit 100\n",
    "\0x\n",
    "x" * 1003 + "\n",
)
ASKING = (
    '|test "$EXT" = list\n|exit 100\n',
    '|case "$DEFAULT" in a) exit 100;; esac\n./Mailbox\n',
    '|test "$HOST" = mail.example || exit 100\n./Mailbox\n',
    '|test "$EXT" != b-a || exit 100\n./Mailbox\n',
    '|bouncesaying no test "$LOCAL" = joe-list\n./Mailbox\n',
)
MODES = (0o644, 0o644, 0o644, 0o644, 0o600, 0o666, 0o664, 0o000, 0o044, 0o744, 0o611)
TARGETS = (".qmail-a", ".qmail-joe", ".", "/home/joe/.qmail-list", ".qmail-b-default")
HOME_MODES = (*[0o755] * 12, 0o700, 0o711, 0o311, 0o775, 0o777, 0o1755, 0o000)


@contextmanager
def laid(tmp_path: Path, table: Table) -> Iterator[Path]:
    """The host on disk, for one example."""
    where = Path(tempfile.mkdtemp(dir=tmp_path))
    where.chmod(0o755)
    try:
        try:
            yield Host(where / "root", table).root
        except BadTree:
            assume(False)
    finally:
        remove(where)


def names(*, slashes: bool = True) -> SearchStrategy[str]:
    """Local parts and extensions: words with something between them."""
    between = ["-", "-", "-", "-", ".", ":", "", "--", "-.", "+", *(["/"] if slashes else [])]
    parts = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(between)), min_size=1, max_size=4)
    plain = parts.map(lambda found: "".join(w + s for w, s in found[:-1]) + found[-1][0])
    odd = parts.map(lambda found: "".join(w + s for w, s in found))
    return st.one_of(plain, plain, odd, odd.map(lambda name: "-" + name))


def spelled() -> SearchStrategy[str]:
    """Local parts as senders write them."""
    long = st.sampled_from(["a.b.a.b.a.b", "joe-a:b.a:b.a:b", "a" * 31, "joe-" + "a" * 300, "joe-\xe9", "\n"])
    return st.one_of(names(), names(), names().map(str.upper), names().map(str.title), long, st.just(""))


def configs() -> SearchStrategy[Config]:
    """Mostly the defaults, and builds of qmail with another conf-break, conf-patrn, alias or default delivery."""
    built = st.builds(
        Qmail,
        break_=st.sampled_from(["-", "+", ".", "", "a"]),
        forbidden_modes=st.sampled_from([0o002, 0o022, 0]),
        alias=st.sampled_from(["alias", "joe"]),
        default_delivery=st.sampled_from(["./Mailbox", "|exit 100", "", '|test "$EXT" = a || exit 100']),
    )
    return st.one_of(st.just(Config()), st.just(Config()), built.map(lambda qmail: Config(qmail=qmail)))


def domains() -> SearchStrategy[str]:
    return st.one_of(st.sampled_from(DOMAINS), st.sampled_from(["Shop.Example", "far.example", ".shop.example", ""]))


def addresses() -> SearchStrategy[bytes]:
    plain = st.builds("{}@{}".format, spelled(), domains())
    odd = st.one_of(
        spelled(),
        st.builds("{}%{}@{}".format, names(), domains(), domains()),
        st.builds("{}@{}@{}".format, names(), domains(), domains()),
    )
    return st.one_of(plain, plain, plain, odd).map(lambda text: text.encode("latin-1"))


def aimed(table: Table, domains: list[tuple[str, str]]) -> list[bytes]:
    """Addresses that a host is likely to have an opinion of; a domain comes with its prepend."""
    stems = {"", "alias-", *(f"{name}-" for name in table["passwd"])}
    stems |= {line.partition(":")[0][1:] for line in table.get("users/assign", "").splitlines()}
    tails = {""}
    for path in table:
        _, found, tail = path.partition("/.qmail")
        if found:
            tail = tail.removeprefix("-")
            tails |= {tail, tail.replace(":", "."), tail.removesuffix("default") + "b", tail + "-a"}
    names = {stem + tail for stem in stems for tail in tails} | {stem.removesuffix("-") for stem in stems}
    found_ = {
        f"{name[len(prepend) :]}@{domain}"
        for domain, prepend in domains
        for name in names
        if name.lower().startswith(prepend.lower())
    }
    return [one.encode("latin-1") for one in sorted(found_)]


@st.composite
def hosts(draw: DrawFn, *, asking: bool = True, slashes: bool = True) -> Table:
    """A host as hosts.Host takes it."""
    table: Table = {}
    several = st.lists(st.sampled_from(sorted(ACCOUNTS)), unique=True, max_size=4)
    accounts = draw(st.one_of(several, st.just(["joe", "joe-list"]), st.just(["a", "a-b", "joe"])))
    passwd: dict[str, int | str] = {}
    for name in accounts:
        uid = ACCOUNTS[name]
        how = draw(st.sampled_from(["own"] * 12 + ["gone", "root", "relative", "file"]))
        if how == "own":
            passwd[name] = uid
            table[f"~{name}"] = Dir(mode=draw(st.sampled_from(HOME_MODES)))
        elif how == "root":
            passwd[name] = f"{name}:x:0:0::/home/{name}:"
        elif how == "relative":
            passwd[name] = f"{name}:x:{uid}:{uid}::home-{name}:"
            table[f"/var/qmail/home-{name}"] = Dir(uid=uid, gid=uid)
        else:
            passwd[name] = f"{name}:x:{uid}:{uid}::/home/{name}:"
            if how == "file":
                table[f"~{name}"] = File("", mode=0o644)
    if draw(st.integers(0, 9)) == 9:
        passwd["alias"] = 0
        table["/etc/passwd"] = "".join(
            (how if isinstance(how, str) else f"{name}:x:{how}:{how}::/home/{name}:") + "\n"
            for name, how in passwd.items()
            if name != "alias"
        )
        del passwd["alias"]
    table["passwd"] = passwd
    _control(draw, table)
    _users(draw, table, accounts)
    homes = [f"~{name}" for name in accounts if isinstance(table.get(f"~{name}"), Dir)] + ["alias"]
    contents = CONTENTS + (ASKING if asking else ())
    for home in homes:
        for _ in range(draw(st.integers(0, 6))):
            _dot_qmail(draw, table, home, contents, slashes=slashes)
    if draw(st.booleans()):
        table["/opt/filter"] = File("#!/bin/sh\n", mode=0o755)
    return table


def _lines(draw: DrawFn, one: SearchStrategy[str], most: int) -> str:
    return "".join(line + "\n" for line in draw(st.lists(one, max_size=most)))


def _control(draw: DrawFn, table: Table) -> None:
    table["control/me"] = "mail.example\n"
    if draw(st.integers(0, 4)):
        table["control/locals"] = _lines(draw, st.sampled_from([*DOMAINS, "# no", "Example ", "x@example"]), 3)
    keys = st.one_of(
        st.sampled_from([*DOMAINS, ".example", ".shop.example", "", ".", "Shop.Example"]),
        st.builds("{}@{}".format, st.one_of(names(slashes=False), st.just("")), st.sampled_from(DOMAINS)),
    )
    values = st.one_of(st.sampled_from(["", "joe", "ann", "alias", "nosuch", "Joe-List", "a", "a-b"]), names())
    table["control/virtualdomains"] = _lines(draw, st.builds("{}:{}".format, keys, values), 5)
    if draw(st.integers(0, 3)) == 3:
        table["control/percenthack"] = _lines(draw, st.sampled_from(DOMAINS), 2)
    if draw(st.integers(0, 3)) == 3:
        table["control/envnoathost"] = draw(st.sampled_from([*DOMAINS, "x@shop.example", ""])) + "\n"
    if draw(st.booleans()):
        table["control/rcpthosts"] = _lines(draw, st.sampled_from([*DOMAINS, "far.example", ".example", ".far"]), 4)


def _users(draw: DrawFn, table: Table, accounts: list[str]) -> None:
    how = draw(st.sampled_from(["none", "none", "assign", "assign", "assign", "broken"]))
    if how == "none":
        return
    if how == "broken" and draw(st.integers(0, 5)) == 5:
        table["users/cdb"] = draw(st.binary(max_size=20))
        return
    homes = [*(f"/home/{name}" for name in accounts), "/var/qmail/alias", "/home/nosuch", "home"]
    line = st.builds(
        "{}{}:{}:{}:{}:{}:{}:{}:\n".format,
        st.sampled_from("==+++#"),
        st.one_of(names(), names(), st.just(""), st.sampled_from(["A-List-", "joe-A", "B"])),
        st.sampled_from([*accounts, "joe", "alias"]),
        st.sampled_from(["1001", "1001", "1002", "1004", "7790", "0", "-1"]),
        st.sampled_from(["1001", "2108"]),
        st.sampled_from(homes),
        st.sampled_from(["-", "-", "-", "-", "", "--", "-A", "/", "-a/"]),
        st.one_of(st.just(""), names().map(lambda name: name + "-"), names()),
    )
    lines = draw(st.lists(line, max_size=5))
    table["users/assign"] = "".join(lines) + ".\n"


def _dot_qmail(draw: DrawFn, table: Table, home: str, contents: tuple[str, ...], *, slashes: bool) -> None:
    name = draw(st.one_of(names(slashes=slashes), names(slashes=slashes).map(lambda one: one + "-default")))
    if draw(st.integers(0, 7)):
        name = name.replace(".", ":").lower()
    stem = draw(st.sampled_from([".qmail-"] * 8 + [".qmail", ".qmail--", ".qmail-A", ".qmail-a/"]))
    path = (
        f"{home}/{stem}{name}"
        if draw(st.integers(0, 7))
        else f"{home}/" + draw(st.sampled_from([".qmail", ".qmail-default", ".qmaildefault", ".qmail-"]))
    )
    path = path.rstrip("/")
    while "//" in path:
        path = path.replace("//", "/")
    kind = draw(st.sampled_from(["file"] * 12 + ["dir", "dir", "link", "fifo"]))
    uid = draw(st.sampled_from([None] * 5 + [0, 1002]))
    thing: Any
    if kind == "file":
        thing = File(draw(st.sampled_from(contents)), mode=draw(st.sampled_from(MODES)), uid=uid)
    elif kind == "dir":
        thing = Dir(mode=draw(st.sampled_from([0o755, 0o755, 0o000, 0o311, 0o444, 0o700])), uid=uid)
    elif kind == "link":
        thing = Link(draw(st.sampled_from(TARGETS)))
    else:
        thing = Fifo(mode=draw(st.sampled_from([0o644, 0o000])))
    _put(table, path, thing)


def _put(table: Table, path: str, thing: Any) -> None:
    """Adds a thing, unless something there makes that impossible."""
    above = path.rpartition("/")[0]
    while "/" in above:
        if not isinstance(table.get(above, Dir()), Dir):
            return
        table.setdefault(above, Dir())
        above = above.rpartition("/")[0]
    if path in table or any(one.startswith(path + "/") for one in table):
        return
    table[path] = thing
