"""The real watch on small hosts: whatever happens, it ends with the file that a compile would make."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hosts import Dir
from manager import Manager
from watched import DOMAINS, domain_of, vpasswd
from watching import LONG, Watching, limited

pytestmark = pytest.mark.root

ONE = f"{DOMAINS}/one.example"


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    found = Watching(tmp_path)
    yield found
    found.kill()


@pytest.fixture
def sweeping(tmp_path: Path) -> Iterator[Watching]:
    found = Watching(tmp_path, sweep=1)
    yield found
    found.kill()


def test_changes_as_tools_make_them(watching: Watching) -> None:
    """The sweep is an hour away: all of this is events."""
    edits, host = watching.edits, watching.host
    with watching.running():
        edits.written(f"{ONE}/.qmail-info", "&x@far.example\n")
        watching.becomes("info@one.example", True)
        edits.removed(f"{ONE}/.qmail-info")
        watching.becomes("info@one.example", False)

        edits.users("one.example", ("ann", "bob", "eve"))
        watching.becomes("eve@one.example", True)

        for name, thing in domain_of("new.example", ("zoe",)).items():
            host.write(name, thing)
        edits.assigned("one.example", "two.example", "new.example")
        edits.line("control/virtualdomains", "new.example:new.example", there=True)
        watching.becomes("zoe@new.example", True)
        edits.users("new.example", ("zoe", "yan"))
        watching.becomes("yan@new.example", True)
        edits.assigned("one.example", "two.example")
        edits.line("control/virtualdomains", "new.example:new.example", there=False)
        watching.becomes("zoe@new.example", False)
        watching.ends_true()

        home = host.path(ONE)
        home.rename(home.with_name("one.away"))
        watching.looked()
        home.with_name("one.away").rename(home)
        edits.users("one.example", ("ann", "max"))
        watching.becomes("max@one.example", True)

        home.rename(home.with_name("one.real"))
        home.symlink_to("one.real")
        watching.looked()
        edits.users("one.example", ("ann", "ian"))
        watching.becomes("ian@one.example", True)
        for name, thing in domain_of("one.other").items():
            host.write(name, thing)
        edits.renamed(f"{DOMAINS}/one.other/vpasswd.cdb", vpasswd("one.example", ("ola",)))
        link = home.with_name("link.new")
        link.symlink_to("one.other")
        link.rename(home)
        watching.becomes("ola@one.example", True)
        watching.becomes("ian@one.example", False)
        edits.written(f"{DOMAINS}/one.other/.qmail-sub", "&x@far.example\n")
        watching.becomes("sub@one.example", True)

        edits.written("~joe/.qmail-new", "./Maildir/\n")
        watching.becomes("joe-new@mail.example", True)
        host.path("~joe/.qmail-new").chmod(0o000)
        host.path("~joe").chmod(0o700)
        watching.ends_true()


def test_files_of_rules_are_watched(watching: Watching) -> None:
    """The sweep is an hour away: all of this is events, however the file comes and goes."""
    edits, host = watching.edits, watching.host
    host.write("/etc/mail/accept", "fred@one.example\n")
    host.write("/etc/mail/relay", "joe@relay.example\n")
    with watching.config.open("a") as file:
        file.write('[extra]\naccept_files = ["/etc/mail/accept"]\n[policy]\nrelay = "file"\n')
        file.write('[[relay]]\nfile = "/etc/mail/relay"\n')
    with watching.running():
        assert not watching.accepts("any@relay.example")
        edits.appended("/etc/mail/accept", "srs0-*\n")
        watching.becomes("srs0-1@two.example", True)
        edits.renamed("/etc/mail/accept", "fred@one.example\nnew@one.example\n")
        watching.becomes("new@one.example", True)
        watching.becomes("srs0-1@two.example", False)
        edits.renamed("/etc/mail/relay", "ann@relay.example\n")
        watching.becomes("ann@relay.example", True)
        watching.becomes("joe@relay.example", False)

        edits.removed("/etc/mail/accept")
        edits.written("~joe/.qmail-more", "./Maildir/\n")
        watching.becomes("joe-more@mail.example", True)
        watching.looked()
        assert watching.accepts("new@one.example")
        assert "/etc/mail/accept: failed: No such file or directory" in watching.said
        edits.written("/etc/mail/accept", "newer@one.example\n")
        watching.becomes("newer@one.example", True)
        watching.becomes("new@one.example", False)
        watching.ends_true()


def test_what_ends_where_it_began_publishes_nothing(watching: Watching) -> None:
    edits = watching.edits
    with watching.running():
        inode, said = watching.file.stat().st_ino, watching.said.count("published")
        edits.users("one.example", ("ann", "bob"), crypt="another")
        assert watching.looked() == 0
        os.utime(watching.host.path("~joe/.qmail-sales"))
        os.utime(watching.host.path("control/locals"))
        assert watching.looked() == 0
        edits.written(f"{ONE}/.qmail-brief", "&x@far.example\n")
        edits.removed(f"{ONE}/.qmail-brief")
        assert watching.looked() == 0
        watching.signal(signal.SIGHUP)
        assert watching.looked() == 0
        if watching.said.count("published") == said:
            assert watching.file.stat().st_ino == inode
        watching.ends_true()


def test_hangup_and_commands_beside_it(watching: Watching) -> None:
    edits = watching.edits
    edits.users("one.example", ("ann", "bob", "c1", "c2", "c3", "c4"))
    with watching.running():
        before = watching.workers()
        watching.signal(signal.SIGHUP)
        with watching.held_up(before):
            edits.users("two.example", ("tom", "late"))
            watching.signal(signal.SIGHUP)
        watching.becomes("late@two.example", True)
        watching.ends_true()

        # All users of a domain: held, until a person says so.
        watching.config.write_text(watching.config.read_text().replace("domain_loss = 1.0", "domain_loss = 0.5"))
        watching.signal(signal.SIGHUP)
        edits.users("one.example", ())
        watching.until(lambda: watching.looked() == 3, "a hold")
        assert watching.accepts("ann@one.example")
        assert watching.run("approve", "-t", watching.output).status == 0
        assert not watching.accepts("ann@one.example")
        edits.written("~joe/.qmail-after", "./Maildir/\n")
        watching.becomes("joe-after@mail.example", True)
        assert not watching.accepts("ann@one.example")

        edits.users("one.example", ("eve",))
        assert watching.run("compile", "--force", "-t", watching.output).status == 0
        assert watching.accepts("eve@one.example")
        watching.ends_true()

        assert watching.run("rollback", "-t", watching.output).status in (0, 3)
        edits.users("one.example", ("eve", "fay"))
        watching.becomes("fay@one.example", True)
        assert watching.run("resume", "-t", watching.output).status == 0
        watching.ends_true()


@pytest.mark.parametrize("first", [True, False])
def test_the_end_in_the_middle_of_a_look(watching: Watching, first: bool) -> None:
    def names() -> set[str]:
        return {str(path.relative_to(watching.top)) for path in watching.file.parent.rglob("*")}

    watching.start()
    old: set[int] = set()
    if not first:
        watching.until(watching.is_watching)
        old = watching.workers()
        watching.edits.users("one.example", ("ann", "eve"))
        watching.signal(signal.SIGHUP)
    before = names()
    content = watching.file.read_bytes() if not first else b""
    with watching.held_up(old):
        watching.signal(signal.SIGTERM)
    assert watching.process is not None
    assert watching.process.wait(LONG) == 0
    assert names() == before
    assert first or watching.file.read_bytes() == content
    with watching.running():
        watching.ends_true()


def test_what_systemd_hears(watching: Watching) -> None:
    manager = Manager("notify")
    heard: list[str] = []

    def hears(text: str) -> Callable[[], bool]:
        def found() -> bool:
            heard.extend(manager.heard())
            return any(text in one for one in heard)

        return found

    watching.start(environment={"NOTIFY_SOCKET": str(Path("notify").absolute()), "WATCHDOG_USEC": "400000"})
    try:
        watching.until(hears("READY=1"), "READY")
        assert watching.file.exists()
        (ready,) = [one for one in heard if "READY=1" in one]
        assert "recipients in 6 domains" in ready
        watching.until(hears("WATCHDOG=1"), "WATCHDOG")
        heard.clear()
        watching.signal(signal.SIGHUP)
        watching.until(hears("RELOADING=1"), "RELOADING")
        watching.until(hears("READY=1"), "READY after it")
        manager.vanish()
        watching.edits.users("one.example", ("ann", "eve"))
        watching.becomes("eve@one.example", True)
        manager.come_back()
        heard.clear()
        watching.until(hears("WATCHDOG=1"), "WATCHDOG once it is back")
        watching.ends_true()
        assert watching.stop() == 0
        assert hears("STOPPING=1")()
    finally:
        watching.kill()
        manager.socket.close()


def test_more_events_than_the_kernel_keeps(watching: Watching) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    if most > 1 << 17:
        pytest.skip(f"a queue of {most} events takes too long to fill")
    with watching.running():
        watching.signal(signal.SIGSTOP)
        home = watching.host.path("~joe")
        for number in range(most // 2 + 1):
            (home / f"x{number}").touch()
            (home / f"x{number}").unlink()
        watching.edits.written(f"{ONE}/.qmail-late", "&x@far.example\n")
        watching.signal(signal.SIGCONT)
        watching.becomes("late@one.example", True)
        watching.until(lambda: "overflowed" in watching.said)
        watching.ends_true()


def test_fewer_watches_than_directories(sweeping: Watching) -> None:
    sweeping.start(before=limited(4))
    assert sweeping.process is not None
    sweeping.until(
        lambda: sweeping.process is not None and (sweeping.process.poll() is not None or sweeping.file.exists())
    )
    if sweeping.process.poll() == 99:
        pytest.skip("SKIPPED PART: no user namespaces here")
    sweeping.until(sweeping.is_watching)
    sweeping.until(lambda: "no more inotify watches" in sweeping.said)
    for number in range(3):
        sweeping.edits.written(f"{ONE}/.qmail-n{number}", "&x@far.example\n")
        sweeping.becomes(f"n{number}@one.example", True)
    sweeping.ends_true()
    assert sweeping.said.count("no more inotify watches") == 1
    assert sweeping.stop() == 0


@contextmanager
def mounted(directory: Path) -> Iterator[None]:
    """A tmpfs lies over the directory."""
    done = subprocess.run(["mount", "-t", "tmpfs", "none", directory], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"SKIPPED PART: no mount here: {done.stderr.decode(errors='replace').strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def test_a_mount_that_comes_and_goes(sweeping: Watching) -> None:
    with sweeping.running():
        with mounted(sweeping.host.path(ONE)):
            for name, thing in domain_of("one.example", ("ann", "ram")).items():
                if name != ONE:
                    sweeping.host.write(name, thing)
            os.chown(sweeping.host.path(ONE), 8989, 8989)
            sweeping.host.path(ONE).chmod(0o700)
            sweeping.becomes("ram@one.example", True)
        sweeping.becomes("ram@one.example", False)
        sweeping.becomes("bob@one.example", True)
        sweeping.ends_true()


def test_deliveries_wake_nobody(watching: Watching) -> None:
    users = [f"u{number}" for number in range(20)]
    watching.edits.users("one.example", users)
    for user in users:
        for name in ("", "/Maildir", "/Maildir/tmp", "/Maildir/new", "/Maildir/cur"):
            watching.host.write(f"{ONE}/{user}{name}", Dir(mode=0o700, uid=8989, gid=8989))
    with watching.running():
        assert watching.process is not None

        def switches() -> int:
            threads = Path(f"/proc/{watching.process.pid}/task").iterdir() if watching.process else ()
            lines = [line for one in threads for line in (one / "status").read_text().splitlines()]
            return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))

        def quiet() -> bool:
            before = switches()
            time.sleep(2.5)  # longer than until the look at what has just changed
            return switches() == before

        watching.until(quiet, "quiet")
        before = switches()
        for number in range(2000):
            maildir = watching.host.path(f"{ONE}/{users[number % 20]}/Maildir")
            (maildir / "tmp" / str(number)).write_bytes(b"mail")
            (maildir / "tmp" / str(number)).rename(maildir / "new" / str(number))
        assert switches() == before
