"""vdelivermail with vpasswd.cdb: one name and all names, on hosts in memory; tests/vectors has the real verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import pytest
from fakelook import FakeLook
from hosts import cdb_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from rcptgen.config import Config
from rcptgen.programs import builtin_models
from rcptgen.programs.shell import run_line
from rcptgen.programs.vdelivermail import VDeliverMail
from rcptgen.programs.vdelivermail_lines import BOUNCES, Budget, Delivery
from rcptgen.qmail.look import Look
from rcptgen.qmail.model import Derived, Effect, Effects, Free, Presence, Situation, Text
from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind
from rcptgen.vpopmail.backend import Aliases, Domain, Noticed, Unavailable, User, Users
from rcptgen.vpopmail.vpasswd import VpasswdBackend

DIRECTORY = b"/d"
DOMAIN = b"example.org"
ASSIGN = b"\0".join((DOMAIN, b"89", b"89", DIRECTORY, b"-", b""))
VPASSWD = b"/d/vpasswd.cdb"


def assign(*lines: tuple[bytes, bytes]) -> bytes:
    return cdb_bytes([*((b"!" + name + b"-", record) for name, record in lines), (b"", b"-")])


def record(directory: bytes, gid: bytes = b"0") -> bytes:
    return b"pw:1:" + gid + b":gecos:" + directory + b":NOQUOTA"


def users(*names: bytes, **others: bytes) -> bytes:
    records = [(name, record(DIRECTORY + b"/" + name)) for name in names]
    return cdb_bytes(records + [(name.encode(), data) for name, data in others.items()])


@dataclass
class Site:
    """A domain, and what runs vdelivermail in its directory."""

    files: Mapping[bytes, bytes | None] = field(default_factory=dict)
    config: Config = field(default_factory=Config)
    instruction: bytes = b"bounce-no-mailbox"
    host: bytes = DOMAIN
    prefix: bytes = DOMAIN + b"-"
    uid: int = 89
    locked: frozenset[bytes] = frozenset()
    fixed: frozenset[bytes] = frozenset()
    broken: frozenset[bytes] = frozenset()
    aliases: Mapping[bytes, Sequence[bytes]] | None = None
    records: Sequence[tuple[bytes, bytes]] | None = None
    backend: VpasswdBackend | None = None

    def look(self) -> FakeLook:
        files: dict[bytes, bytes | None] = {
            b"/var/qmail/users/cdb": assign((DOMAIN, ASSIGN)),
            DIRECTORY + b"/": b"",
            **self.files,
        }
        if self.records is not None:
            files[VPASSWD] = cdb_bytes(self.records)
        look = FakeLook(files, DIRECTORY, locked=self.locked, fixed=self.fixed, broken=self.broken)
        look.identity = look.identity._replace(uid=self.uid)
        return look

    def _run(self, extension: Text, dtline: Text, look: Look | None = None) -> Effect:
        model = VDeliverMail(self.config)
        backend = self.backend if self.aliases is None else WithAliases(self.aliases)
        if backend is not None:
            model._vpopmail.backends._cdb = backend
        models = {**builtin_models(self.config), b"vdelivermail": model}
        variables: dict[bytes, Text] = {b"EXT": extension, b"HOST": self.host, b"DTLINE": dtline, b"PATH": b"/bin"}
        situation = Situation(variables, lambda command: Presence.FOUND, look or self.look())
        return run_line(b"/vdelivermail '' '" + self.instruction + b"'", situation, models)

    def one(self, extension: bytes) -> Effect:
        return self._run(extension, b"Delivered-To: " + self.prefix + extension + b"@" + self.host + b"\n")

    def every(self, look: Look | None = None) -> Effects:
        free = Free(choices={})
        dtline = Derived(free, b"delivered-to: " + self.prefix, b"", b"@" + self.host + b"\n")
        self._run(free, dtline, look)
        assert free.choices is not None
        (found,) = free.choices.values()
        return found


class WithAliases(VpasswdBackend):
    """valias rows beside a vpasswd.cdb."""

    def __init__(self, lines: Mapping[bytes, Sequence[bytes]]) -> None:
        self.lines = lines

    def alias(self, look: Look, domain: Domain, names: Iterable[bytes]) -> Sequence[bytes]:
        return next((self.lines[name] for name in names if self.lines.get(name)), ())

    def aliases(self, look: Look, domain: Domain) -> Aliases:
        return Aliases(self.lines)


def vpopmail(**keys: object) -> Config:
    return msgspec.convert({"vpopmail": keys}, Config)


BOUNCED, DELIVERED, DEFERRED = frozenset({100}), frozenset({0}), frozenset({111})


def agree(site: Site, *names: bytes) -> dict[bytes, Effect]:
    """What each of the names comes to, having seen that the table says the same of it."""
    every = site.every()
    found = {}
    for name in names:
        found[name] = one = site.one(name)
        same(every.match(name.lower()), one, name)
    return found


def same(told: Effect, one: Effect, name: bytes) -> None:
    """Holds what a table tells of a name against what the name comes to; a widened effect may only accept more."""
    if told.widened:
        assert not told.statuses <= BOUNCED, name
        assert told.statuses & {0, 99} or not one.statuses & {0, 99}, name
    elif told.statuses <= BOUNCED:
        assert one.statuses <= BOUNCED, name
    else:
        assert (told.statuses, told.kind, told.reason) == (one.statuses, one.kind, one.reason), name


def not_run(words: Sequence[Text]) -> Effect:
    raise AssertionError(words)


def test_a_user_whose_directory_is_not_there_yet_gets_one() -> None:
    found = agree(Site({VPASSWD: users(b"joe", b"ann")}), b"joe", b"JOE", b"bob")
    assert found[b"joe"] == Effect(DELIVERED, Kind.VPOPMAIL, "vpopmail mailbox", file=VPASSWD)
    assert found[b"JOE"] == found[b"joe"]
    assert found[b"bob"].statuses == BOUNCED


def test_all_plain_users_are_one_group_and_stay_joined() -> None:
    every = Site({VPASSWD: users(b"joe", b"ann", b"bob")}).every()
    assert [list(names) for names in every.groups.values()] == [[b"ann", b"bob", b"joe"]]
    assert not every.prefixes[b""].widened


def test_users_who_all_have_directories_stay_together() -> None:
    files = {VPASSWD: users(b"joe", b"ann", b"bob"), b"/d/ann/.qmail": b"|exit 100\n"}
    for name in (b"joe", b"ann", b"bob"):
        files[b"/d/" + name + b"/Maildir/tmp/"] = files[b"/d/" + name + b"/Maildir/new/"] = b""
    every = Site(files).every()
    assert sorted(list(names) for names in every.groups.values()) == [[b"ann"], [b"bob", b"joe"]]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_anything_but_two_arguments_defers(count: int) -> None:
    words: tuple[Text, ...] = (b"vdelivermail", b"", b"delete", b"more")
    variables: dict[bytes, Text] = {b"EXT": b"joe", b"HOST": DOMAIN}
    situation = Situation(variables, lambda command: Presence.FOUND, Site().look())
    assert VDeliverMail(Config()).run(words[:count], situation, not_run).statuses == DEFERRED


@pytest.mark.parametrize("missing", [b"EXT", b"HOST"])
def test_a_missing_variable_bounces(missing: bytes) -> None:
    variables: dict[bytes, Text] = {b"EXT": b"joe", b"HOST": DOMAIN}
    del variables[missing]
    situation = Situation(variables, lambda command: Presence.FOUND, Site().look())
    words: list[Text] = [b"vdelivermail", b"", b"delete"]
    assert VDeliverMail(Config()).run(words, situation, not_run).statuses == BOUNCED


def test_a_domain_that_is_free_is_looked_at_and_not_known() -> None:
    host = Free()
    situation = Situation({b"EXT": b"joe", b"HOST": host}, lambda command: Presence.FOUND, Site().look())
    found = VDeliverMail(Config()).run([b"vdelivermail", b"", b"delete"], situation, not_run)
    assert found.approximate
    assert host.opaque


def test_names_with_forbidden_bytes_bounce_before_delete() -> None:
    site = Site({VPASSWD: users(b"joe")}, instruction=b"delete")
    found = agree(site, b"a%b", b"a b", b"\xe9", b"a\n", b"joe", b"x", b"")
    assert [effect.statuses for effect in found.values()] == [BOUNCED] * 4 + [DELIVERED] * 3
    assert found[b"x"].kind is Kind.DISCARD
    assert site.every().prefixes[b""].widened


def test_a_domain_name_that_is_not_valid_bounces() -> None:
    site = Site({VPASSWD: users(b"joe")}, instruction=b"delete", host=b"a_b.example")
    assert agree(site, b"joe", b"x")[b"joe"].statuses == BOUNCED


def test_names_are_cut_to_156_bytes() -> None:
    long = b"x" * 156
    site = Site({VPASSWD: cdb_bytes([(long, record(b"/d/x")), (b"y" * 157, record(b"/d/y"))])})
    found = agree(site, long, long + b"z", long + b"%", long[1:], b"y" * 157, b"y" * 156)
    assert [effect.statuses for effect in found.values()] == [DELIVERED] * 3 + [BOUNCED] * 3


def test_a_prefixless_domain_loops() -> None:
    site = Site({VPASSWD: users(b"joe")}, instruction=b"delete", prefix=b"")
    assert agree(site, b"joe", b"x", b"")[b"joe"].reason == "mail is looping"


def test_an_alias_domain_does_not_loop() -> None:
    cdb = assign((DOMAIN, ASSIGN), (b"alias.example", ASSIGN))
    site = Site({VPASSWD: users(b"joe"), b"/var/qmail/users/cdb": cdb}, host=b"alias.example", prefix=b"")
    assert agree(site, b"joe", b"x")[b"joe"].statuses == DELIVERED


@pytest.mark.parametrize("site", [Site(uid=90), Site(files={b"/var/qmail/users/cdb": assign()})])
def test_the_wrong_uid_or_an_unknown_domain_has_no_users(site: Site) -> None:
    site = replace(site, records=[(b"joe", record(b"/d/joe"))])
    assert agree(site, b"joe")[b"joe"].statuses == BOUNCED
    assert agree(replace(site, instruction=b"delete"), b"joe")[b"joe"].statuses == DELIVERED


def test_a_source_that_fails_defers_everybody_and_is_told() -> None:
    site = Site({VPASSWD: users(b"joe")}, broken=frozenset({VPASSWD}))
    found = agree(site, b"joe", b"x")
    assert {effect.statuses for effect in found.values()} == {DEFERRED}


class Dead(VpasswdBackend):
    """A database that does not answer; `valias` rows are asked for first."""

    def __init__(self, noticed: Noticed, *, valias: bool) -> None:
        self.noticed = noticed
        self.valias = valias

    def _fails(self, look: Look) -> Unavailable:
        look.failed(b"/etc/vpopmail.pgsql", "dead")
        return Unavailable(b"db.example.org", "dead", self.noticed)

    def user(self, look: Look, domain: Domain, name: bytes) -> User | None:
        raise self._fails(look)

    def users(self, look: Look, domain: Domain) -> Users:
        raise self._fails(look)

    def alias(self, look: Look, domain: Domain, names: Iterable[bytes]) -> Sequence[bytes]:
        if self.valias:
            raise self._fails(look)
        return ()


@pytest.mark.parametrize("valias", [False, True])
@pytest.mark.parametrize("instruction", [b"bounce-no-mailbox", b"delete", b"catch@example.net", b"/d/catch"])
@pytest.mark.parametrize("noticed", Noticed)
def test_of_a_dead_database_only_those_are_deferred_for_whom_it_is_noticed(
    noticed: Noticed, instruction: bytes, valias: bool
) -> None:
    unnoticed = {b"bounce-no-mailbox": BOUNCED, b"/d/catch": DEFERRED}.get(instruction, DELIVERED)
    site = Site({}, vpopmail(qmail_ext=True), instruction, backend=Dead(noticed, valias=valias))
    found = agree(site, b"joe", b"a-b", b"a%b")
    assert found[b"joe"].statuses == (unnoticed if noticed is Noticed.NONE else DEFERRED)
    assert found[b"a-b"].statuses == (DEFERRED if noticed is Noticed.ALL else unnoticed)
    assert found[b"a%b"].statuses == BOUNCED
    assert found[b"joe"].file
    assert "dead" in found[b"joe"].reason
    assert "dead" in found[b"a-b"].reason
    assert not site.every().match(b"joe").statuses <= BOUNCED


def test_the_directory_field_decides() -> None:
    records = {
        b"empty": b"",
        b"outside": b"/elsewhere/outside",
        b"there": b"/srv/there",
        b"nomaildir": b"/d/nomaildir",
        b"up": b"/d/../up",
        b"deep": b"/d/a/b/c",
        b"slashes": b"/d//a///b",
        b"isfile": b"/d/file",
        b"belowfile": b"/d/file/x",
        b"relative": b"rel",
        b"dotted": b"./rel",
        b"room": b"/d/" + b"r" * 138,
        b"noroom": b"/d/" + b"r" * 139,
        b"dangling": b"/d/dangling",
    }
    files = {
        VPASSWD: cdb_bytes([(name, record(directory)) for name, directory in records.items()]),
        b"/srv/there/Maildir/tmp/": b"",
        b"/srv/there/Maildir/new/": b"",
        b"/d/nomaildir/": b"",
        b"/d/file": b"",
        b"/d/dangling": None,
    }
    found = agree(Site(files), *records)
    delivered = {b"there", b"deep", b"slashes", b"relative", b"room"}
    deferred = {b"nomaildir", b"isfile", b"noroom", b"dotted"}
    for name, effect in found.items():
        wanted = DELIVERED if name in delivered else DEFERRED if name in deferred else BOUNCED
        assert effect.statuses == wanted, name


class WithRows(VpasswdBackend):
    """Users of whom all are plain, whatever their names: a database may hold such."""

    def __init__(self, *names: bytes) -> None:
        self.names = names

    def user(self, look: Look, domain: Domain, name: bytes) -> User | None:
        return User(name, 0, DIRECTORY + b"/" + name) if name in self.names else None

    def users(self, look: Look, domain: Domain) -> Users:
        return Users({DIRECTORY: Names(self.names)}, ())


def test_names_that_are_no_single_part_of_a_path_are_looked_at_by_themselves() -> None:
    names = (b"joe", b".", b"a/b", b"a/c", b"z/x", b"ann")
    files: dict[bytes, bytes | None] = {b"/d/a/b/.qmail": b"|exit 100\n", b"/d/a/c/Maildir/new/": b""}
    files |= {b"/d/a/c/Maildir/tmp/": b"", b"/d/joe/.qmail": b"|exit 100\n"}
    assert {agree(Site(files, backend=WithRows(*names)), *names)[name].statuses for name in (b"joe", b"a/b")} == {
        BOUNCED
    }
    records = [(name, record(DIRECTORY + b"/" + name)) for name in names]
    found = agree(Site(files, records=records), *names)
    assert {name for name in names if found[name].statuses <= BOUNCED} == {b"joe", b"a/b"}


def test_hashed_directories_are_made_where_their_parents_are_not_there() -> None:
    names = [(b"u%d" % number, record(b"/d/%d/u%d" % (number % 3, number))) for number in range(9)]
    more = [(b"up", record(b"/d/4/../up")), (b"dot", record(b"/d/./4/dot")), (b"two", record(b"/d//5/two"))]
    files: dict[bytes, bytes | None] = {b"/d/1/": b"", b"/d/1/u4/.qmail": b"|exit 100\n"}
    site = Site(files, records=names + more)
    found = agree(site, *(name for name, _ in names + more))
    assert {name for name, effect in found.items() if effect.statuses <= BOUNCED} == {b"u4", b"up"}
    site.fixed = frozenset({DIRECTORY})
    found = agree(site, *(name for name, _ in names))
    assert {name for name, effect in found.items() if effect.statuses <= BOUNCED} == {
        *(name for name, _ in names if name not in (b"u1", b"u7"))
    }


def test_plain_users_with_and_without_directories() -> None:
    files = {
        VPASSWD: users(b"ann", b"bob", b"cat", b"dan"),
        b"/d/ann/Maildir/tmp/": b"",
        b"/d/ann/Maildir/new/": b"",
        b"/d/bob/.qmail": b"|exit 100\n",
        b"/d/cat/": b"",
        b"/d/dan": None,
    }
    found = agree(Site(files), b"ann", b"bob", b"cat", b"dan")
    assert [effect.statuses for effect in found.values()] == [DELIVERED, BOUNCED, DEFERRED, BOUNCED]


def test_directories_that_cannot_be_made_bounce() -> None:
    site = Site({VPASSWD: users(b"joe", b"ann")}, fixed=frozenset({DIRECTORY}))
    assert agree(site, b"joe", b"ann")[b"joe"].statuses == BOUNCED


def test_accept_looks_at_no_directory_below_the_domain() -> None:
    files = {
        VPASSWD: cdb_bytes([(b"joe", record(b"/d/joe")), (b"out", record(b"/gone/out"))]),
        b"/d/joe/.qmail": b"|exit 100\n",
    }
    site = Site(files, config=vpopmail(mailbox_dotqmail="accept"), broken=frozenset({b"/d/joe"}))
    found = agree(site, b"joe", b"out")
    assert [effect.statuses for effect in found.values()] == [DELIVERED, BOUNCED]


LINES = {
    b"": (DELIVERED, Kind.FORWARD),
    b"#": (DELIVERED, Kind.DISCARD),
    b"a@far.example": (DELIVERED, Kind.FORWARD),
    b"&a@far.example": (DELIVERED, Kind.FORWARD),
    b"./Mailbox": (DEFERRED, Kind.PROGRAM),
    b"./Maildir/": (DEFERRED, Kind.PROGRAM),
    b"/srv/ok/Maildir/": (DELIVERED, Kind.VPOPMAIL),
    b" ./Maildir/": (DELIVERED, Kind.FORWARD),
    b"|exit 0": (DELIVERED, Kind.PROGRAM),
    b"|| |exit 99\n|exit 100": (frozenset({99}), Kind.PROGRAM),
    b"|exit 1": (DEFERRED, Kind.PROGRAM),
    b"|exit 0\n|exit 64\na@b": (BOUNCED, Kind.PROGRAM),
    b"example.org-joe@example.org": (BOUNCED, Kind.PROGRAM),
    b"&EXAMPLE.org-JOE@example.org": (BOUNCED, Kind.PROGRAM),
    b"joe@example.org": (DELIVERED, Kind.FORWARD),
    b"a" * 499 + b"\n|exit 100": (BOUNCED, Kind.PROGRAM),
    b"a" * 499 + b"|exit 100": (BOUNCED, Kind.PROGRAM),
    b"a\0|b\n\0\n": (DELIVERED, Kind.FORWARD),
}


@pytest.mark.parametrize("lines", LINES)
def test_the_lines_of_a_users_dotqmail(lines: bytes) -> None:
    files = {
        VPASSWD: users(b"joe"),
        b"/d/joe/.qmail": lines + b"\n",
        b"/srv/ok/Maildir/tmp/": b"",
        b"/srv/ok/Maildir/new/": b"",
    }
    found = agree(Site(files), b"joe")[b"joe"]
    assert (found.statuses, found.kind) == LINES[lines]


def test_a_line_that_nobody_knows_about_is_approximate() -> None:
    found = agree(Site({VPASSWD: users(b"joe"), b"/d/joe/.qmail": b"|/bin/filter\n"}), b"joe")[b"joe"]
    assert found.statuses == {0, 99, 100, 111}
    assert found.approximate


def test_without_a_directory_to_enter_the_dotqmail_of_the_domain_counts() -> None:
    files = {VPASSWD: cdb_bytes([(b"joe", record(b"/d/file"))]), b"/d/file": b"", b"/d/.qmail": b"|exit 100\n"}
    assert agree(Site(files), b"joe")[b"joe"].statuses == BOUNCED


def test_a_user_with_very_many_programs_is_not_judged() -> None:
    files = {VPASSWD: users(b"joe"), b"/d/joe/.qmail": b"|:\n" * 21_800}
    found = Site(files).one(b"joe")
    assert found.approximate
    assert found.kind is Kind.UNKNOWN


INSTRUCTIONS = {
    b"bounce-no-mailbox": (BOUNCED, Kind.PROGRAM),
    b"delete": (DELIVERED, Kind.DISCARD),
    b"BOUNCE-NO-MAILBOX": (DELIVERED, Kind.CATCHALL),
    b"": (DELIVERED, Kind.CATCHALL),
    b"#": (DELIVERED, Kind.DISCARD),
    b"/srv/ok": (DELIVERED, Kind.CATCHALL),
    b"/srv/ok/Maildir": (DEFERRED, Kind.PROGRAM),
    b"/srv/gone/": (DEFERRED, Kind.PROGRAM),
    b"/srv/own": (BOUNCED, Kind.PROGRAM),
    b"./box": (DEFERRED, Kind.PROGRAM),
    b"|exit 100": (BOUNCED, Kind.PROGRAM),
    b"|exit 99": (frozenset({99}), Kind.CATCHALL),
}


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_the_instruction_decides_about_unknown_users(instruction: bytes) -> None:
    files = {
        VPASSWD: users(b"joe"),
        b"/srv/ok/Maildir/tmp/": b"",
        b"/srv/ok/Maildir/new/": b"",
        b"/srv/own/.qmail": b"|exit 100\n",
    }
    site = Site(files, instruction=instruction)
    found = agree(site, b"joe", b"x", b"a%b")
    assert (found[b"x"].statuses, found[b"x"].kind) == INSTRUCTIONS[instruction]
    assert site.every().prefixes[b""].widened == (found[b"x"].statuses != BOUNCED)


def test_an_instruction_that_names_an_internal_address_loops_for_that_name() -> None:
    site = Site({VPASSWD: users(b"joe")}, instruction=b"example.org-X@example.org")
    found = agree(site, b"x", b"y", b"joe")
    assert [effect.statuses for effect in found.values()] == [BOUNCED, DELIVERED, DELIVERED]


def test_extensions_go_by_the_first_dash() -> None:
    files = {
        VPASSWD: users(b"joe", b"joe-full", b"a-b", shut=record(b"/d/shut", b"16")),
        b"/d/joe/Maildir/tmp/": b"",
        b"/d/joe/Maildir/new/": b"",
        b"/d/joe/.qmail-closed": b"|exit 100\n",
        b"/d/joe/.qmail-full": b"|exit 100\n",
        b"/d/joe/.qmail-dot:ted": b"./box\n",
        b"/d/joe/.qmail-un.real": b"|exit 100\n",
        b"/d/joe/.qmail-list-default": b"|exit 100\n",
        b"/d/joe/.qmail-list-ok": b"a@far.example\n",
        b"/d/joe/.qmail-Case": b"|exit 100\n",
    }
    site = Site(files, config=vpopmail(qmail_ext=True))
    delivered = b"joe joe- joe-x joe-full joe-full-x a-b joe-un.real joe-case joe-list joe-list-ok".split()
    bounced = b"a a-c a-b-c shut shut-x joe-closed joe-list- joe-list-a joe-list-default joe-dot:ted".split()
    found = agree(site, *delivered, *bounced, b"joe-dot.ted")
    for name, effect in found.items():
        wanted = DELIVERED if name in delivered else BOUNCED if name in bounced else DEFERRED
        assert effect.statuses == wanted, name


def test_aliases_hide_users_and_their_extensions() -> None:
    aliases = {
        b"joe": [b"a@far.example"],
        b"shut": [b"#"],
        b"list-default": [b"|exit 100"],
        b"list-ok-default": [b"a@far.example", b"b@far.example"],
        b"default": [b"|exit 99"],
        b"base": [b"x@far.example"],
        b"none": [],
        b"a%b": [b"|exit 100"],
    }
    files = {VPASSWD: users(b"joe", b"list-", b"list-x", b"list", b"base-full", shut=record(b"/d/shut", b"16"))}
    names = (
        b"joe",
        b"shut",
        b"list",
        b"list-",
        b"list-x",
        b"list-ok-x",
        b"list-default",
        b"default",
        b"x",
        b"base-full",
    )
    for ext in (False, True):
        found = agree(Site(files, aliases=aliases, config=vpopmail(qmail_ext=ext)), *names, b"none", b"base-y", b"a%b")
        assert found[b"joe"].kind is found[b"shut"].kind is found[b"list-ok-x"].kind is Kind.VALIAS
        assert found[b"list"].kind is Kind.VPOPMAIL
        assert found[b"list-x"].statuses == found[b"list-default"].statuses == found[b"list-"].statuses == BOUNCED
        assert found[b"default"].statuses == {99}
        assert found[b"base-full"].kind is (Kind.VALIAS if ext else Kind.VPOPMAIL)


def test_a_default_alias_tells_its_programs_what_follows_the_dash() -> None:
    aliases = {b"list-default": [b'|test $DEFAULT = "it\'s" || exit 100']}
    site = Site({VPASSWD: users()}, aliases=aliases)
    assert site.one(b"list-It's").kind is Kind.VALIAS
    assert site.one(b"list-x").statuses == BOUNCED
    assert site.every().match(b"list-x").approximate


def test_default_delivery_takes_the_place_of_the_maildir() -> None:
    files = {
        VPASSWD: users(b"joe", b"ann", b"own"),
        b"/d/ann/": b"",
        b"/d/own/.qmail": b"|exit 100\n",
        b"/var/qmail/control/defaultdelivery": b"#\n./Maildir/\n",
    }
    site = Site(files, config=vpopmail(default_delivery=True))
    found = agree(site, b"joe", b"ann", b"own")
    assert [effect.statuses for effect in found.values()] == [DELIVERED, DEFERRED, BOUNCED]
    site = replace(site, files={**files, b"/var/qmail/control/defaultdelivery": b"|exit 100\n"})
    assert agree(site, b"joe")[b"joe"].statuses == BOUNCED
    lines = b"|/d/vdelivermail '' delete\n|exit 100\n"
    site = replace(site, files={**files, b"/var/qmail/control/defaultdelivery": lines})
    assert agree(site, b"joe")[b"joe"].statuses == DELIVERED


def test_records_that_are_too_short_defer() -> None:
    site = Site({VPASSWD: cdb_bytes([(b"one", b""), (b"three", b"pw:1"), (b"four", b"pw:1:0")])})
    found = agree(site, b"one", b"three", b"four")
    assert [effect.statuses for effect in found.values()] == [DEFERRED, DEFERRED, BOUNCED]


def test_sql_is_asked_only_for_domains_without_vpasswd(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    class Sql(VpasswdBackend):
        def user(self, look: Look, domain: Domain, name: bytes) -> User | None:
            asked.append(name)
            raise Unavailable(b"server", "down")

    monkeypatch.setattr("rcptgen.vpopmail.sql.backend", lambda *a: Sql())
    site = Site({VPASSWD: users(b"joe"), b"/home/vpopmail/etc/vpopmail.mysql": b"stale"})
    assert site.one(b"joe").statuses == DELIVERED
    assert not asked
    assert Site({b"/home/vpopmail/etc/vpopmail.mysql": b""}).one(b"joe").statuses == DEFERRED
    assert asked == [b"joe"]


# -- properties -----------------------------------------------------------------------------------

NAMES = st.sampled_from([b"joe", b"ann", b"a-b", b"a", b"a-", b"-", b"", b"a-b-c", b"x.y", b"Cap", b"b%d", b"z" * 156])
PROBES = [
    *(b"joe", b"ann", b"a-b", b"a", b"a-", b"-", b"", b"a-b-c", b"x.y", b"cap", b"b%d", b"z" * 156, b"z" * 157),
    *(b"a-q", b"a-b-q", b"joe-", b"joe-q", b"joe-q-r", b"q", b"default", b"a-default", b"a-b-default", b"x.y-q:r"),
    *(b"x.y-q.r", b"-q", b"--", b"z" * 155),
]
FIELD = st.sampled_from(
    [b"/d/joe", b"/d/ann/x", b"", b"/srv/out", b"/gone/x", b"rel", b"./rel", b"/d", b"/", b"/d/0/joe"]
)
GIDS = st.sampled_from([b"0", b"0", b"0", b"16", b" 16x", b"", b"-1", b"2"])
LINE = st.sampled_from([*LINES, b"|test $EXT = a-b", b"example.org-a-b@example.org", b"|test $EXT = q || exit 100"])
DOTQMAILS = st.sampled_from(
    [b".qmail", b".qmail-q", b".qmail-b", b".qmail-default", b".qmail-q-default", b".qmail-q:r"]
)


@st.composite
def sites(draw: st.DrawFn) -> Site:
    records: list[tuple[bytes, bytes]] = []
    directories = [b"/srv/out", b"/d/rel", b"/d"]
    for name in draw(st.lists(NAMES, max_size=8)):
        directory = draw(st.one_of(st.just(DIRECTORY + b"/" + name), FIELD, st.just(b"/d/0/" + name)))
        records.append((name, draw(st.one_of(st.just(record(directory, draw(GIDS))), st.just(b"short")))))
        directories.append(directory)
    files: dict[bytes, bytes | None] = {}
    for directory in draw(st.lists(st.sampled_from([one for one in directories if one.startswith(b"/")]), max_size=4)):
        where = directory.rstrip(b"/")
        match draw(st.integers(0, 3)):
            case 0:
                files[where + b"/"] = b""
            case 1:
                files[where + b"/Maildir/tmp/"] = files[where + b"/Maildir/new/"] = b""
            case _:
                files[where + b"/" + draw(DOTQMAILS)] = b"\n".join(draw(st.lists(LINE, max_size=2)))
    ext, judge, lda = draw(st.booleans()), draw(st.sampled_from(["judge", "judge", "accept"])), draw(st.booleans())
    aliases = draw(
        st.one_of(
            st.none(),
            st.dictionaries(
                st.one_of(NAMES.map(bytes.lower), NAMES.map(lambda name: name.lower() + b"-default")),
                st.lists(LINE, max_size=2),
                max_size=3,
            ),
        )
    )
    if lda:
        files[b"/var/qmail/control/defaultdelivery"] = b"\n".join(draw(st.lists(LINE, max_size=2)))
    return Site(
        files,
        vpopmail(qmail_ext=ext, mailbox_dotqmail=judge, default_delivery=lda),
        draw(st.sampled_from([*INSTRUCTIONS, b"example.org-q@example.org", b"/d", b"|test $EXT = q"])),
        uid=draw(st.sampled_from([89, 89, 89, 90])),
        prefix=draw(st.sampled_from([DOMAIN + b"-", DOMAIN + b"-", b""])),
        locked=frozenset(draw(st.lists(st.sampled_from([b"/d/joe", b"/srv", b"/d/0", b"/d/ann"]), max_size=1))),
        fixed=frozenset(draw(st.lists(st.sampled_from([b"/d", b"/d/0"]), max_size=1))),
        aliases=aliases,
        records=records,
    )


@given(site=sites())
@settings(deadline=None)
def test_the_table_says_of_every_name_what_it_comes_to_by_itself(site: Site) -> None:
    said = [site.instruction, *(content or b"" for content in site.files.values())]
    said += [line for lines in (site.aliases or {}).values() for line in lines]
    every = site.every()
    names = [name for group in every.groups.values() for name in group]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() for name in [*names, *every.prefixes])
    for name in {*PROBES, *names}:
        if len(name) > 156 and not site.prefix:
            continue  # a domain that loops does so for the names that are not cut
        told, one = every.match(name), site.one(name)
        if any(b"$EXT" in one for one in said):
            continue  # programs that ask for the extension have their say in the caller's further runs
        same(told, one, name)


@given(
    data=st.lists(st.sampled_from([b"|exit 1", b"#", b"\n", b"\0", b"/", b".", b"&", b"a" * 500, b"\xff", b"|'"])),
    limit=st.integers(0, 3),
)
def test_no_bytes_in_a_dotqmail_break_the_model(data: list[bytes], limit: int) -> None:
    files = {VPASSWD: users(b"joe"), b"/d/joe/.qmail": b"".join(data)}
    assert Site(files).one(b"joe").statuses <= {0, 99, 100, 111, 2}


def test_statuses_of_programs_are_mapped_as_run_command_does() -> None:
    for status in range(-1, 256):
        child = Effect(frozenset({status}), Kind.PROGRAM, "a child")
        delivery = Delivery(Site().look(), lambda line, child=child: child, lambda line: False, Budget())
        delivery.line(b"|a")
        wanted = status if status in (0, 99) else 100 if status in BOUNCES else 111
        assert delivery.effect().statuses == {wanted}
