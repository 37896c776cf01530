"""Random small hosts whose dot-qmail files run delivery programs, and the addresses that they are about.

As in randomhosts a host is a table as hosts.Host takes it; words collide on purpose, here in
the databases of the programs too.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import msgspec
import randomhosts
from hosts import Dir, File, Link, cdb_bytes
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from rcptgen.config import Config, Vpopmail

VPOPMAIL = "/home/vpopmail"
DOMAINS = f"{VPOPMAIL}/domains"
VDELIVERMAIL = f"{VPOPMAIL}/bin/vdelivermail"
EZMLM = "/usr/local/bin/ezmlm"
WORDS = ("a", "b", "joe", "list", "ann", "default", "owner", "help", "get", "digest")
ROLES = {
    "": "editor",
    "-default": "manager",
    "-owner": "owner",
    "-return-default": "bouncer",
    "-confirm-default": "confirmer",
    "-accept-default": "moderator",
    "-digest-owner": "owner",
    "-digest-return-default": "digest/bouncer",
}
PROGRAMS = (
    *(f"{EZMLM}/ezmlm-{name}" for name in ("get", "split", "request", "manage", "return", "confirm", "moderate")),
    *(f"{EZMLM}/ezmlm-{name}" for name in ("send", "store", "reject", "weed", "warn", "dispatch", "clean")),
    *("/var/qmail/bin/fastforward", "/usr/local/bin/vdeliver"),
)


@dataclass(frozen=True, slots=True)
class Made:
    """A host, and the names that its databases hold."""

    table: randomhosts.Table
    names: tuple[str, ...]

    wraps: bool
    """Whether lines make anything of how their programs end."""


def names() -> SearchStrategy[str]:
    """Names as databases hold them: some are none that an address can have, or a look-up asks for."""
    parts = st.lists(
        st.tuples(st.sampled_from(WORDS), st.sampled_from(["-"] * 4 + [".", ":", "", "+", "--"])), max_size=3
    )
    joined = parts.map(lambda found: "".join(word + mark for word, mark in found))
    odd = st.sampled_from(
        ["", "-", "Joe", "a/b", "x" * 155, "x" * 156, "joe-" + "x" * 153, "a b", "\xe9", "a%b", "..", "x@y"]
    )
    return st.one_of(joined.map(lambda name: name.rstrip("-.:+")), joined, joined.map(lambda name: "-" + name), odd)


def configs() -> SearchStrategy[Config]:
    """Those of randomhosts, with a vpopmail that was built in any way."""
    built = st.builds(
        Vpopmail,
        qmail_ext=st.booleans(),
        default_delivery=st.sampled_from([False, False, True]),
        mailbox_dotqmail=st.sampled_from(["judge", "judge", "accept"]),
        backend=st.just("cdb"),
    )
    return st.builds(lambda config, vpopmail: msgspec.structs.replace(config, vpopmail=vpopmail), _qmails(), built)


def _qmails() -> SearchStrategy[Config]:
    return st.one_of(st.just(Config()), st.just(Config()), st.just(Config()), randomhosts.configs())


@st.composite
def hosts(draw: DrawFn, *, asking: bool = True, slashes: bool = True) -> Made:
    """A host, with a vpopmail domain or two, databases of aliases, lists, and virtual users."""
    maker = _Maker(draw, asking)
    table = maker.table
    table["passwd"] = {"joe": 1001, "ann": 1002, "joe-list": 1003, "vpopmail": f"vpopmail:x:89:89::{VPOPMAIL}:"}
    for program in PROGRAMS:
        table[program] = File("", mode=0o755)
    table[VDELIVERMAIL] = File("", mode=0o711, uid=89)
    maker.control()
    maker.users()
    for home in maker.homes:
        table.setdefault(home, Dir())
        maker.databases(home)
        maker.lists(home)
        for _ in range(draw(st.integers(0, 3))):
            maker.dot_qmail(home, slashes=slashes)
        if home.startswith("~vpopmail") and draw(st.booleans()):
            maker.put(f"{home}/.qmail-default", File(f"| {VDELIVERMAIL} '' {maker.instruction(home)}\n"))
        elif draw(st.integers(0, 2)):
            maker.file(
                home,
                ".qmail-default"
                if draw(st.booleans())
                else draw(st.sampled_from([".qmail-default", ".qmail-default", ".qmail-a-default", ".qmail"])),
            )
    if draw(st.booleans()):
        table["control/defaultdelivery"] = maker.lines("alias")
    return Made(table, tuple(sorted(maker.names)), maker.wrapping)


class _Maker:
    """One host in the making."""

    def __init__(self, draw: DrawFn, asking: bool) -> None:
        self.draw = draw
        self.asking = asking
        self.wrapping = draw(st.booleans())
        self.table: randomhosts.Table = {}
        self.names: set[str] = set()
        self.vpopmail = draw(st.sampled_from([["shop.example"], ["shop.example", "b.example"], []]))
        directories = [f"~vpopmail/domains/{name}" for name in self.vpopmail]
        self.homes = [
            *directories,
            *draw(st.sampled_from([["~joe"], ["~joe", "alias"], ["alias"], ["~ann", "~joe-list"]])),
        ]

    def some(self, most: int = 6) -> list[str]:
        """Names for one database."""
        found = self.draw(st.lists(names(), max_size=most))
        self.names.update(found)
        return found

    def put(self, path: str, thing: object) -> None:
        """A thing that may be in the way of another."""
        randomhosts._put(self.table, path, thing)

    # -- control and users -------------------------------------------------------------------

    def control(self) -> None:
        """Which domain goes where."""
        draw, table = self.draw, self.table
        table["control/me"] = "mail.example\n"
        table["control/locals"] = draw(st.sampled_from(["mail.example\n", "mail.example\nexample\n", "\n"]))
        values = [
            "joe",
            "alias",
            "joe-list",
            "joe-a",
            "ann",
            "nosuch",
            "",
            *self.vpopmail,
            *(f"{one}-a" for one in self.vpopmail),
        ]
        domains = [*self.vpopmail, "a.example", "c.example", "alias.example"]
        lines = [
            f"{one}:{one}" if draw(st.integers(0, 7)) else f"{one}:{draw(st.sampled_from(values))}"
            for one in self.vpopmail
        ]
        some = st.builds(
            "{}:{}".format,
            st.sampled_from([*domains, ".example", "a@c.example", "joe@shop.example"]),
            st.sampled_from(values),
        )
        table["control/virtualdomains"] = "".join(line + "\n" for line in [*lines, *draw(st.lists(some, max_size=4))])
        if draw(st.booleans()):
            table["control/rcpthosts"] = "".join(f"{one}\n" for one in [*domains, "mail.example", "x.example"])

    def users(self) -> None:
        """users/assign with the domains of vpopmail, aliases of theirs, and claims below and beside them."""
        draw = self.draw
        lines = []
        for name in self.vpopmail:
            real = draw(st.sampled_from([name] * 8 + [name.upper(), self.vpopmail[0]]))
            pre = draw(st.sampled_from([""] * 8 + ["a-", "x"]))
            dash = draw(st.sampled_from(["-"] * 8 + ["", "--"]))
            lines.append(f"+{name}-:{real}:89:89:{DOMAINS}/{name}:{dash}:{pre}:")
        if self.vpopmail:
            lines += draw(
                st.sampled_from([[], [f"+alias.example-:{self.vpopmail[0]}:89:89:{DOMAINS}/{self.vpopmail[0]}:-::"]])
            )
        heads = ["", "", "joe-", "ann-", *(f"{one}-" for one in self.vpopmail)]
        line = st.builds(
            "{}{}{}:{}:{}:{}:{}:{}:".format,
            st.sampled_from("=+"),
            st.sampled_from(heads),
            names().map(lambda name: name.replace(":", ".").replace("\xe9", "e")).filter(bool),
            st.sampled_from(["joe:1001:1001:/home/joe", "ann:1002:1002:/home/ann", "alias:7790:2108:/var/qmail/alias"]),
            st.just("-"),
            st.sampled_from(["", "a-", "list", "list-", "joe."]),
            st.just(""),
            st.just(""),
        ).map(lambda text: text.replace(":::", "::"))
        lines += draw(st.lists(line, max_size=3))
        if draw(st.integers(0, 5)) or self.vpopmail:
            self.table["users/assign"] = "".join(one + "\n" for one in lines) + ".\n"

    # -- databases -----------------------------------------------------------------------------

    def databases(self, home: str) -> None:
        """What the programs of a home look up."""
        draw = self.draw
        if home.startswith("~vpopmail"):
            self.vpasswd(home)
        if draw(st.booleans()):
            self.put(f"{home}/aliases.cdb", File(self.aliases()))
        if draw(st.integers(0, 2)) == 2:
            self.put(f"{home}/passwd.cdb", File(self.virtual_users(), mode=0o600))
            for name in draw(st.lists(st.sampled_from(["mary", "bob"]), max_size=2)):
                for part in ("tmp", "new"):
                    self.put(f"{home}/users/{name}/{part}", Dir())
        if "/etc/aliases.cdb" not in self.table:
            self.table["/etc/aliases.cdb"] = File(self.aliases())

    def vpasswd(self, home: str) -> None:
        """vpasswd.cdb and directories of users."""
        draw = self.draw
        path = home.replace("~vpopmail", VPOPMAIL)
        records = []
        for name in self.some(8):
            where = draw(
                st.sampled_from([f"{path}/{name}"] * 8 + [f"{path}/0/{name}", f"{path}/joe", "", "/nowhere/x", "rel/x"])
            )
            gid = draw(st.sampled_from(["0"] * 6 + ["16", "2", "-1"]))
            data = draw(st.sampled_from([f"pw:1:{gid}:gecos:{where}:NOQUOTA"] * 12 + ["short", "pw:1:0", ""]))
            records.append((name.encode("latin-1"), data.encode("latin-1")))
            if "/" in name or not name.strip(".") or where != f"{path}/{name}":
                continue
            match draw(st.integers(0, 8)):
                case 0 | 1 | 2 | 7 | 8:
                    self.put(f"{home}/{name}/Maildir/tmp", Dir(mode=0o700))
                    self.put(f"{home}/{name}/Maildir/new", Dir(mode=0o700))
                case 3:
                    self.put(f"{home}/{name}", Dir(mode=draw(st.sampled_from([0o000, 0o755, 0o311]))))
                case 4 | 5:
                    own = draw(
                        st.sampled_from([".qmail", ".qmail", ".qmail-default", ".qmail-a", ".qmail-list-default"])
                    )
                    self.put(f"{home}/{name}/{own}", File(draw(st.sampled_from(OWN))))
                case _:
                    pass
        if draw(st.integers(0, 11)):
            self.put(
                f"{home}/vpasswd.cdb", File(cdb_bytes(records), mode=draw(st.sampled_from([0o600] * 12 + [0o000])))
            )
        if draw(st.integers(0, 5)) == 5:
            text = "".join(f"{name.decode('latin-1')}:{data.decode('latin-1')}\n" for name, data in records)
            self.put(f"{home}/vpasswd", File(text.encode("latin-1"), mode=0o600))

    def aliases(self) -> bytes:
        """A database of fastforward."""
        draw = self.draw
        records = []
        for name in self.some():
            host = draw(st.sampled_from(["", "", "", "shop.example", "mail.example", "c.example", "alias.example"]))
            mark = draw(st.sampled_from(":::::?"))
            commands = draw(st.sampled_from(COMMANDS)) if mark == ":" else "x@y"
            records.append((f"{mark}{name}@{host}".encode("latin-1").lower(), commands.encode()))
        if draw(st.integers(0, 5)) == 5:
            records.append(
                (
                    draw(st.sampled_from([b":@shop.example", b":@c.example", b":@mail.example", b":"])),
                    b"&x@far.example\0",
                )
            )
        return cdb_bytes(records)

    def virtual_users(self) -> bytes:
        """A table of vmailmgr, whose hash takes bytes for signed characters."""
        draw = self.draw
        numbers = b"-\0-\0-\0-\0001\0%b\0"
        pairs = []
        for name in [*self.some(5), *draw(st.sampled_from([[], [], ["+"]]))]:
            where, forwards = draw(
                st.sampled_from([(b"./users/mary", b""), (b"./users/bob", b""), (b"", b"x@y\0"), (b"", b"")])
            )
            data = b"\2\x08\1\x0a%b\0" % (b"\1" if where else b"\0")
            data += (
                b"pass\0" + where + b"\0" + forwards + b"\0me\0" + numbers % draw(st.sampled_from([b"-", b"-", b"5"]))
            )
            pairs.append((name.encode("latin-1"), data))
        return cdb_bytes(pairs, signed=True)

    # -- lists ----------------------------------------------------------------------------------

    def lists(self, home: str) -> None:
        """Lists of ezmlm, with dot-qmail files of their own in the old or the new layout, or for ezmlm-dispatch."""
        draw = self.draw
        where = self.path(home)
        dispatched = draw(st.integers(0, 3)) == 3
        for name in draw(
            st.lists(st.sampled_from(["list", "list-a", "ann", "a.b", "List", "joe"]), unique=True, max_size=2)
        ):
            directory = f"{home}/lists/{name}" if dispatched else f"{home}/{name}-dir"
            full = f"{where}/lists/{name}" if dispatched else f"{where}/{name}-dir"
            flags = draw(st.lists(st.sampled_from(FLAGS), unique=True, max_size=4))
            present = {*ALWAYS, "public", "archived"} ^ set(flags)
            for flag in sorted(present):
                self.put(
                    f"{directory}/{flag}",
                    File("2:0\n" if flag == "num" else "key\n" if flag in ALWAYS else "", mode=0o600),
                )
            lines = {role: text.replace("DIR", full) for role, text in ROLE_LINES.items()}
            new = dispatched or draw(st.booleans())
            for role, text in lines.items():
                if new and draw(st.integers(0, 9)):
                    self.put(f"{directory}/{role}", File(text, mode=0o600))
            self.names.update(
                f"{name}{text}" for text in ("-help", "-get", "-owner", "-subscribe-a=b", "-x", "-digest-x")
            )
            self.names.update(f"{name}-return-{text}" for text in ("1-x=y", "x", "1"))
            if dispatched:
                continue
            stem = f"{home}/.qmail-{name.replace('.', ':').lower()}"
            for tail, role in ROLES.items():
                if draw(st.integers(0, 5)) == 5:
                    continue
                self.put(stem + tail, Link(f"{full}/{role}") if new else File(lines[role], mode=0o600))

    def path(self, home: str) -> str:
        """A home as the host calls it."""
        if home == "alias":
            return "/var/qmail/alias"
        return home.replace("~", "/home/") if not home.startswith("~vpopmail") else home.replace("~vpopmail", VPOPMAIL)

    # -- dot-qmail files ----------------------------------------------------------------------------

    def instruction(self, home: str) -> str:
        """What vdelivermail is told to do with mail for nobody."""
        where = self.path(home)
        others = (
            "delete",
            "x@far.example",
            f"{where}/joe",
            "/nowhere/x",
            "|exit 99",
            "joe@shop.example",
            f"{where}/a-b/",
        )
        return f"'{self.draw(st.sampled_from(['bounce-no-mailbox'] * 8 + [*others]))}'"

    def command(self, home: str) -> str:
        """A program and its arguments."""
        draw = self.draw
        where = self.path(home)
        kinds = [*[1, 1, 1, 2, 3, 4], *([0] * 10 if home.startswith("~vpopmail") else [0])]
        match draw(st.sampled_from(kinds)):
            case 0:
                return f"{VDELIVERMAIL} '' {self.instruction(home)}"
            case 1:
                option = draw(st.sampled_from(["-d", "-d", "-d", "-dp", "-p", "", "-pd"]))
                file = draw(st.sampled_from(["/etc/aliases.cdb", "/etc/aliases.cdb", "aliases.cdb", "none.cdb"]))
                return f"fastforward {option} {file}".replace("  ", " ")
            case 2:
                return "vdeliver"
            case 3:
                name = draw(st.sampled_from(["list", "ann", "list-a"]))
                role = draw(st.sampled_from(["get", "request", "manage", "manage", "return", "confirm", "split"]))
                return f"{EZMLM}/ezmlm-{role} {where}/{name}-dir"
            case _:
                return f"{EZMLM}/ezmlm-dispatch {where}/lists"

    def line(self, home: str) -> str:
        """A line that runs a program, mostly with others around it."""
        wrapped = ["{}", "{}", "{} || exit 0"]
        if self.wrapping:
            wrapped = [*["{}"] * 6, *WRAPPED, *(ASKING if self.asking else ())]
        shape = self.draw(st.sampled_from(wrapped))
        return "|" + shape.replace("{}", self.command(home)).replace("[]", self.command(home))

    def lines(self, home: str) -> str:
        """A whole file."""
        draw = self.draw
        first = draw(
            st.sampled_from([""] * 8 + ["./Mailbox\n", "|exit 99\n", "&x@far.example\n", "|bouncesaying no true\n"])
        )
        last = draw(st.sampled_from([""] * 5 + ["|exit 100\n", "./Mailbox\n", "|exit 111\n", "|exit 99\n"]))
        return first + "".join(self.line(home) + "\n" for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3])))) + last

    def dot_qmail(self, home: str, *, slashes: bool) -> None:
        """A dot-qmail file of any name."""
        draw = self.draw
        found = randomhosts.names(slashes=slashes)
        name = draw(st.one_of(found, found.map(lambda one: one + "-default"), found.map(lambda one: one + "-default")))
        self.file(home, ".qmail-" + name.replace(".", ":").strip("/"))

    def file(self, home: str, name: str) -> None:
        """A dot-qmail file."""
        while "//" in name:
            name = name.replace("//", "/")
        draw = self.draw
        content = self.lines(home) if draw(st.integers(0, 4)) else draw(st.sampled_from(randomhosts.CONTENTS[:14]))
        self.put(f"{home}/{name}", File(content, mode=draw(st.sampled_from([0o644] * 30 + [0o744, 0o600, 0o666]))))


OWN = ("", "&x@far.example\n", "|exit 100\n", "# nobody\n", "|exit 99\n|exit 100\n", "|false\n", "delete\n")
COMMANDS = (
    "&x@far.example\0",
    "&x@far.example\0",
    "|exit 100\0",
    "|exit 0\0",
    "|false\0&x@y\0",
    "",
    "&joe@shop.example\0",
    "./none\0",
)
ALWAYS = ("key", "outlocal", "outhost", "headerremove", "num", "indexed")
FLAGS = (
    "public",
    "archived",
    "remote",
    "modsub",
    "modcanlist",
    "modcanedit",
    "indexed",
    "num",
    "key",
    "headerremove",
    "digestcode",
)
ROLE_LINES = {
    "manager": "".join(f"|{EZMLM}/ezmlm-{one} DIR\n" for one in ("get", "split", "request", "manage", "warn")),
    "editor": f"|{EZMLM}/ezmlm-send DIR\n|{EZMLM}/ezmlm-warn DIR || exit 0\n",
    "owner": "./Mailbox\n",
    "bouncer": f"|{EZMLM}/ezmlm-weed\n|{EZMLM}/ezmlm-return -D DIR\n",
    "digest/bouncer": f"|{EZMLM}/ezmlm-weed\n|{EZMLM}/ezmlm-return -d DIR\n",
    "confirmer": f"|{EZMLM}/ezmlm-confirm DIR\n",
    "moderator": f"|{EZMLM}/ezmlm-moderate DIR\n|{EZMLM}/ezmlm-clean DIR || exit 0\n",
}
WRAPPED = (
    "{} || exit 0",
    "{} || exit 100",
    "{} && exit 99",
    "{}; exit 0",
    "! {}",
    "if {}; then exit 99; else exit 100; fi",
    "{} && []",
    "{} || []",
    "bouncesaying no {}",
    "except {}",
    "except bouncesaying no {}",
    "condredirect y@far.example {}",
    "preline {}",
    "({}) && exit 99",
)
ASKING = (
    '[ "$DEFAULT" = a ] || {}',
    '[ "$EXT" = list-a ] && exit 100; {}',
    'case "$EXT" in a|joe) {};; *) [];; esac',
    'test "$HOST" = shop.example && {}',
    'if test "$HOST" = mail.example; then {}; else []; fi',
    'bouncesaying no test "$LOCAL" = joe-list; {}',
    "EXT=joe {}",
    'EXT="$DEFAULT" {}',
    'DEFAULT="$EXT" {}',
    'RECIPIENT="$DEFAULT@$HOST" {}',
    "unset DEFAULT; {}",
    'test -n "$DEFAULT" && {}',
    'case "$DEFAULT" in a*) {};; esac',
)


def aimed(made: Made, domains: list[tuple[str, str]], most: int) -> list[bytes]:
    """Addresses that the host is likely to have an opinion of; a domain comes with its prepend."""
    table = made.table
    stems = {"", *(f"{name}-" for name in table["passwd"])}
    stems |= {line.partition(":")[0][1:] for line in table.get("users/assign", "").splitlines()}
    tails = {""}
    heads = {""}
    for path in table:
        _, dotted, tail = path.partition("/.qmail")
        if dotted:
            tail = tail.removeprefix("-")
            tails.add(tail)
            heads |= {tail.removesuffix("default"), tail.removesuffix("default").replace(":", ".")}
    chance = random.Random(len(table) + len(made.names))
    owned, named, below = sorted(stems), sorted(tails), sorted(heads)
    known = [*made.names, "", "a", "joe", "list-help"]
    found: set[bytes] = set()
    for _ in range(8 * most):
        if len(found) >= most or not domains:
            break
        domain, prepend = chance.choice(domains)
        full = prepend if chance.random() < 0.7 else chance.choice(owned)
        if chance.random() < 0.2:
            full += chance.choice(named)
        else:
            full += (chance.choice(below) if chance.random() < 0.6 else "") + chance.choice(known)
        full += chance.choice(["", "", "", "", "", "-", "-x", "x", ".a", "-default"])
        local = full[len(prepend) :] if full.lower().startswith(prepend.lower()) else full
        others = [local.upper(), local.replace(".", ":"), local.replace(":", "."), local.title()]
        found.add(f"{chance.choice([local] * 5 + others)}@{domain}".encode("latin-1"))
    return sorted(found)
