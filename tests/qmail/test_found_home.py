"""Homes that mean no good, and program lines that look at how an address is spelled.

What a home may cost is limited; what is beyond a limit is accepted, and said to be.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import inprocess
import pytest
from hosts import Dir, Link, Thing
from hosts import Host as Laid

from rcptgen.config import Config
from rcptgen.host import Host
from rcptgen.programs import builtin_models
from rcptgen.programs.shell import run_line
from rcptgen.qmail import dotqmail, home, homewalk
from rcptgen.qmail.environment import View
from rcptgen.qmail.home import Home
from rcptgen.qmail.hometable import home_tables
from rcptgen.qmail.judged import Settings
from rcptgen.qmail.model import Effect, Presence, Situation
from rcptgen.qmail.users import Owner
from rcptgen.rules.outcome import Outcome, Verdict
from rcptgen.source import FailedForNow, Identity, SourceTree, Status
from rcptgen.source.tree import Failure

pytestmark = pytest.mark.root

MAIL = "./Mailbox\n"
CONTROL: dict[str, Thing | dict[str, int | str]] = {
    "control/me": "example.org\n",
    "control/locals": "example.org\nexample.net\n",
    "passwd": {"joe": 1001},
}
JOE = Owner(b"joe", 1001, 1001, b"/home/joe", b"-")
VIEW = View(b"example.org", b"joe-", b"")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    inprocess.use(monkeypatch)


@contextmanager
def mail_host(tmp_path: Path, files: dict[str, Thing]) -> Iterator[Host]:
    laid = Laid(tmp_path / "root", {**CONTROL, **{f"~joe/{name}": thing for name, thing in files.items()}})
    with Host.open(laid.root, Config()) as host:
        yield host


def listed(host: Host, address: str) -> Outcome:
    """What the list of all names says."""
    local, _, domain = address.partition("@")
    found = host.rules(domain).table()[0].match(local.lower().encode())
    assert found is not None
    return found


@contextmanager
def home_of_joe(root: Path, programs: dict[tuple[Identity, bytes], Presence] | None = None) -> Iterator[Home]:
    models = builtin_models()
    with SourceTree(bytes(root)) as tree:
        one = Home(tree, JOE, Settings(), lambda line, situation: run_line(line, situation, models), programs=programs)
        try:
            yield one
        finally:
            one.close()


# --- One spelling that is accepted is enough ---------------------------------------------------

SPELLINGS = [
    # file, its line, addresses that the host takes
    (".qmail-spam", '|case "$EXT" in spam) exit 100;; esac\n', ["joe-SPAM", "joe-Spam"]),
    (".qmail-default", '|case "$EXT" in spam) exit 100;; esac\n', ["joe-SPAM", "joe-other"]),
    (".qmail-p-default", '|test "$DEFAULT" = old && exit 100\n', ["joe-p-Old", "joe-p-new"]),
    (".qmail-p-default", '|test "$DEFAULT" = Old && exit 100\n', ["joe-p-old"]),
    (".qmail-p-default", '|test "$DEFAULT" = a && test "$EXT" = P-a && exit 0; exit 100\n', ["joe-P-a"]),
    (".qmail-p-default", '|test "$DEFAULT" = Default || exit 100\n', ["joe-p-Default"]),
    (".qmail-a:b", '|test "$EXT" = a.b && exit 100\n', ["joe-a:b", "joe-A.b"]),
    (".qmail-1:2", '|test "$EXT" = 1.2 && exit 100\n', ["joe-1:2"]),
    (".qmail-x-foo", '|test "$EXT2" = foo && exit 100\n', ["joe-x-FOO"]),
    (".qmail-x", '|case "$EXT" in X) exit 0;; esac; exit 100\n', ["joe-X"]),
]


@pytest.mark.parametrize(("file", "line", "taken"), SPELLINGS)
def test_a_name_is_listed_where_one_way_to_write_it_is_taken(
    tmp_path: Path, file: str, line: str, taken: list[str]
) -> None:
    with mail_host(tmp_path, {file: line + MAIL}) as host:
        for name in taken:
            assert host.decide(name + "@example.org").accepted, name
            assert listed(host, name.lower() + "@example.org").accepted, name


def test_what_other_spellings_get_is_reported(tmp_path: Path) -> None:
    with mail_host(tmp_path, {".qmail-spam": '|case "$EXT" in spam) exit 100;; esac\n' + MAIL}) as host:
        assert listed(host, "joe-spam@example.org").widened


REFUSED = [
    # every spelling of these is refused, or there is only one
    (".qmail-x", '|case "$EXT" in x|X) exit 100;; esac\n', "joe-x"),
    (".qmail-1-2", '|test "$EXT" = 1-2 && exit 100\n', "joe-1-2"),
    (".qmail-p-default", '|test "$DEFAULT" = 1 && exit 100\n', "joe-p-1"),
    (".qmail-p-default", '|test "$DEFAULT" = ok && exit 0; exit 100\n', "joe-p-no"),
    (".qmail-x", '|test "$EXT" = y || exit 100\n', "joe-x"),
]


@pytest.mark.parametrize(("file", "line", "name"), REFUSED)
def test_what_is_refused_in_every_spelling_is_not_listed(tmp_path: Path, file: str, line: str, name: str) -> None:
    with mail_host(tmp_path, {file: line + MAIL}) as host:
        assert not host.decide(name + "@example.org").accepted
        assert not listed(host, name + "@example.org").accepted


DOMAINS = [
    # a line, an address that the host takes, a domain that nobody's mail is taken for
    ('|test "$HOST" = Example.org || exit 100\n', "Example.org", "example.net"),
    ('|test "$HOST" = example.org && exit 100\n', "EXAMPLE.ORG", ""),
    ('|test "$HOST2" = Example || exit 100\n', "Example.org", ""),
    ('|test "$EXT" = x && test "$HOST" = example.org && exit 100\n', "Example.org", ""),
    ('|test "$HOST" = example.org || exit 100\n', "example.org", "example.net"),
]


@pytest.mark.parametrize("file", [".qmail-x", ".qmail-default"])
@pytest.mark.parametrize(("line", "taken", "refused"), DOMAINS)
def test_a_domain_may_be_written_in_any_case_too(
    tmp_path: Path, file: str, line: str, taken: str, refused: str
) -> None:
    with mail_host(tmp_path, {file: line + MAIL}) as host:
        assert host.decide("joe-x@" + taken).accepted
        found = listed(host, "joe-x@" + taken.lower())
        assert found.accepted
        assert found.widened
        assert not refused or not listed(host, "joe-x@" + refused).accepted


# --- What one user may cost --------------------------------------------------------------------


def test_lines_are_not_kept_where_the_outcome_is_known(tmp_path: Path) -> None:
    laid = Laid(tmp_path / "root", {**CONTROL, "~joe/.qmail-x": "a\n" * 900})
    with home_of_joe(laid.root) as joe:
        assert joe.judge(b"-", b"x", b"joe-x", b"example.org").accepted
        kept = joe.files[b".qmail-x"]
        assert kept is not None
        assert not kept.instructions.lines
    with home_of_joe(laid.root) as joe:
        home_tables(joe, b"-", [VIEW])[0]
        assert not joe.files


def test_a_file_of_too_many_lines_is_accepted_and_said_to_be(tmp_path: Path) -> None:
    many = dotqmail.MOST_LINES
    files: dict[str, Thing] = {".qmail-x": "|exit 100\n" * many, ".qmail-y": "|exit 100\n" * (many + 1)}
    with mail_host(tmp_path, files) as host:
        assert not listed(host, "joe-x@example.org").accepted
        found = listed(host, "joe-y@example.org")
        assert found.accepted
        assert found.widened
        assert host.decide("joe-y@example.org").accepted


def test_a_file_over_64_kib_is_accepted(tmp_path: Path) -> None:
    comment = "#" + "x" * 64 * 1024
    with mail_host(tmp_path, {".qmail-x": "|exit 100\n" + comment}) as host:
        assert host.decide("joe-x@example.org").accepted
        assert listed(host, "joe-x@example.org").accepted


@pytest.mark.parametrize(
    ("name", "limit", "content"),
    [
        ("MOST_BYTES", 10_000, "|exit 100\n#" + "x" * 8000),
        ("MOST_WORK", 2000, "|exit 100\n" * 200),
        ("MOST_NAMES", 2, "|exit 100\n"),
    ],
)
def test_a_home_that_costs_too_much_is_accepted_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: int, content: str
) -> None:
    monkeypatch.setattr(homewalk, name, limit)
    monkeypatch.setattr(home, "MOST_ALIKE", 0)
    with mail_host(tmp_path, {f".qmail-{n}": content for n in range(4)}) as host:
        found = listed(host, "joe-3@example.org")
        assert found.accepted
        assert found.widened


def test_ordinary_files_cost_a_home_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homewalk, "MOST_BYTES", 0)
    monkeypatch.setattr(homewalk, "MOST_WORK", 0)
    files: dict[str, Thing] = {f".qmail-{n}": f'|test "$EXT" = {n} && exit 100\n' for n in range(50)}
    with mail_host(tmp_path, files) as host:
        assert not listed(host, "joe-3@example.org").accepted
        assert not listed(host, "joe-none@example.org").accepted


def test_files_that_say_the_same_are_judged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    real = dotqmail.parse

    def parse(data: bytes, *, forward_only: bool) -> dotqmail.Instructions:
        parsed.append(data)
        return real(data, forward_only=forward_only)

    monkeypatch.setattr(home, "parse", parse)
    laid = Laid(tmp_path / "root", {**CONTROL, **{f"~joe/.qmail-{n}": "./a\n" * 100 for n in range(5)}})
    with home_of_joe(laid.root) as joe:
        table = home_tables(joe, b"-", [VIEW])[0].table
    assert len(parsed) == 1
    found = table.match(b"3")
    assert found is not None
    assert found.file == b"/home/joe/.qmail-3"


def test_directories_are_not_followed_out_of_the_home_s_file_system(tmp_path: Path) -> None:
    with mail_host(tmp_path, {".qmail-x": Dir(), ".qmail-x/note": "|exit 100\n"}) as host:
        assert not listed(host, "joe-x/none@example.org").accepted
    other = tmp_path / "root/home/joe/.qmail-y"
    other.mkdir()
    os.system(f"mount -t tmpfs none {other}")  # noqa: S605
    if not os.path.ismount(other):
        pytest.skip("nothing can be mounted here")
    try:
        with Host.open(tmp_path / "root", Config()) as host:
            found = listed(host, "joe-y/none@example.org")
            assert found.accepted
            assert found.widened
    finally:
        os.system(f"umount {other}")  # noqa: S605


def test_only_so_many_directories_are_looked_into(tmp_path: Path) -> None:
    names = [f".qmail-d{n:03}/note" for n in range(homewalk.MOST_DIRECTORIES + 10)]
    with mail_host(tmp_path, dict.fromkeys(names, "|exit 100\n")) as host:
        found = [listed(host, f"joe-d{n:03}/none@example.org") for n in range(len(names))]
        assert sum(one.accepted for one in found) == 10
        assert all(one.widened for one in found if one.accepted)


# --- What opens and cannot be read, and what leads through rcptgen itself --------------------------


def test_what_opens_but_cannot_be_read_is_deferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def content(fd: int, before: os.stat_result, limit: int) -> bytes:
        raise OSError(errno.EINVAL, "Invalid argument")

    home_of: dict[str, Thing] = {
        "~joe/.qmail-x": Link("there"),
        "~joe/there": MAIL,
        "~joe/.qmail-default": "|exit 100\n",
    }
    laid = Laid(tmp_path / "root", {**CONTROL, **home_of})
    monkeypatch.setattr("rcptgen.source.tree._content", content)
    monkeypatch.setattr("rcptgen.source.tree.direct", lambda name, directory, limit: None)
    with home_of_joe(laid.root) as joe:
        assert joe.judge(b"-", b"x", b"joe-x", b"example.org").verdict == "defer"
        found = home_tables(joe, b"-", [VIEW])[0].table.match(b"x")
        assert found is not None
        assert found.verdict == "defer"
        assert joe.failure is None


@pytest.mark.skipif(not os.path.exists("/sys/class/net/lo/speed"), reason="no such file in /sys")
def test_a_file_of_the_kernel_that_cannot_be_read_is_not_absent(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("/sys/class/net/lo/speed")
    with SourceTree(b"/") as tree:
        found = tree.read(bytes(tmp_path / "x"))
    assert type(found).__name__ in ("Refused", "Regular")
    assert not isinstance(found, FailedForNow)


def test_no_mail_address_shows_what_rcptgen_itself_has_open(tmp_path: Path) -> None:
    """A link into /proc/self/fd would lead through the descriptors of the reading process."""
    joes = tmp_path / "joe"
    joes.mkdir()
    (joes / "note").write_text("|exit 100\n")
    held = os.open(joes, os.O_PATH)
    try:
        (joes / ".qmail-p").symlink_to(f"/proc/self/fd/{held}/note")
        with SourceTree(b"/") as tree:
            one = Home(tree, Owner(b"joe", os.getuid(), os.getgid(), bytes(joes), b"-"), Settings(), _never)
            found = one.judge(b"-", b"p", b"joe-p", b"example.org")
            one.close()
    finally:
        os.close(held)
    assert found.verdict == "defer"


def _never(line: bytes, situation: Situation) -> Effect:
    raise AssertionError(line)


# --- An owner that nobody can become -------------------------------------------------------------


@pytest.mark.parametrize("calls_that_work", [0, 1, 2])
def test_an_identity_that_cannot_be_taken_defers_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls_that_work: int
) -> None:
    laid = Laid(tmp_path / "root", {**CONTROL, "~joe/.qmail-x": "|exit 100\n", "~joe/.qmail-default": "|exit 100\n"})
    real = os.seteuid
    taken = []

    def seteuid(uid: int) -> None:
        if uid == JOE.uid:
            taken.append(uid)
            if len(taken) > calls_that_work:
                raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        real(uid)

    with monkeypatch.context() as patch, home_of_joe(laid.root) as joe:
        patch.setattr(os, "seteuid", seteuid)
        if not calls_that_work:
            assert joe.state() is not None
        found = [joe.judge(b"-", b"x", b"joe-x", b"example.org") for _ in range(3)][-1]
        if calls_that_work < 2:
            assert found.verdict == "defer"
            assert found.reason == "its identity cannot be taken"
    taken.clear()
    with monkeypatch.context() as patch, home_of_joe(laid.root) as joe:
        patch.setattr(os, "seteuid", seteuid)
        table = home_tables(joe, b"-", [VIEW])[0].table
        one = table.match(b"anything")
        assert one is not None
        # A table takes it once for everything.
        assert (one.verdict == "defer") == (calls_that_work < 1)


# --- Directories that their owner may not enter --------------------------------------------------


@pytest.mark.parametrize("shut", [Dir(mode=0o700, uid=1002), Dir(mode=0o444), Dir(mode=0)])
@pytest.mark.parametrize("above", ["", "/b"])
def test_what_lies_below_a_shut_directory_rests_on_that(tmp_path: Path, shut: Dir, above: str) -> None:
    files: dict[str, Thing] = {f".qmail-a{above}": shut, ".qmail-default": "&x@far.example\n"}
    with mail_host(tmp_path, files) as host:
        for tail in ("/default", "/b", "/b-c", "/b/c", "/b-default"):
            address = f"joe-a{above}{tail}@example.org"
            one, all_ = host.decide(address), listed(host, address)
            assert (one.verdict, one.reason, one.file) == (all_.verdict, all_.reason, all_.file)
            assert (one.verdict, one.file) == (Verdict.DEFER, f"/home/joe/.qmail-a{above}".encode())


# --- What homes share --------------------------------------------------------------------------


def test_a_program_that_cannot_be_looked_up_fails_every_home_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid = Laid(tmp_path / "root", {**CONTROL, "~joe/.qmail-x": "|/nfs/deliver\n"})
    real = SourceTree.accessible

    def accessible(tree: SourceTree, path: bytes, mode: int) -> Status | Failure:
        return FailedForNow(errno.ESTALE) if path == b"/nfs/deliver" else real(tree, path, mode)

    monkeypatch.setattr(SourceTree, "accessible", accessible)
    known: dict[tuple[Identity, bytes], Presence] = {}
    for _ in range(2):
        with home_of_joe(laid.root, known) as joe:
            home_tables(joe, b"-", [VIEW])
            assert joe.failure is not None


def test_what_a_home_may_cost_holds_for_each_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = '|test "$HOST" = example.org || exit 100\n'
    laid = Laid(tmp_path / "root", {**CONTROL, "~joe/.qmail-x": line * 30})
    monkeypatch.setattr(homewalk, "MOST_WORK", 2500)
    with home_of_joe(laid.root) as joe:
        views = [View(host, b"joe-", b"") for host in (b"example.org", b"a.example", b"b.example", b"c.example")]
        found = [one.table.match(b"x") for one in home_tables(joe, b"-", views)]
    assert [one is not None and one.accepted for one in found] == [True, False, False, False]
