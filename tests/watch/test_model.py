"""Random edits, as real tools make them, against a running watch: it ends with what a fresh compile makes."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import parts
import pytest
from hosts import Dir
from watched import DOMAINS, Edits, domain_of
from watching import Watching

pytestmark = pytest.mark.root

EXAMPLES = 5
BURSTS = 5
CONTENTS = ("./Maildir/\n", "&x@far.example\n", "|bouncesaying gone\n", "", "# nobody\n", "|exit 100\n", "|nosuch\n")
PLACES = (
    f"{DOMAINS}/one.example",
    f"{DOMAINS}/two.example",
    "~joe",
    f"{DOMAINS}/one.example/ann",
    f"{DOMAINS}/two.example/tom",
    "alias",
)
NAMES = (".qmail", ".qmail-a", ".qmail-a-default", ".qmail-site-web", ".qmail-list", ".qmail-default", "other")
USERS = ("ann", "bob", "tom", "eve", "a", "list")
LINES = {
    "control/virtualdomains": ("more.example:joe-site", "one.example:one.example", "a@single.example:joe"),
    "control/locals": ("local.example", "mail.example"),
    "control/rcpthosts": ("more.example", "relay2.example", "local.example"),
    "control/percenthack": ("two.example",),
}


class Somebody:
    """Makes one random edit at a time; `done` says what it did, for a test that fails."""

    def __init__(self, edits: Edits, seed: int) -> None:
        self.edits = edits
        self.random = random.Random(seed)
        self.done: list[str] = []
        self.away: dict[Path, Path] = {}
        self.kinds: list[Callable[[], str]] = [
            self.file,
            self.file,
            self.file,
            self.mode,
            self.users,
            self.users,
            self.control,
            self.assigned,
            self.home,
            self.swap,
            self.directory,
        ]

    def edit(self) -> None:
        """One edit; none where what is to be edited is not there at the moment."""
        kind = self.random.choice(self.kinds)
        try:
            self.done.append(kind())
        except FileNotFoundError as error:
            self.done.append(f"{kind.__name__}: {error}")

    def file(self) -> str:
        name = f"{self.random.choice(PLACES)}/{self.random.choice(NAMES)}"
        content = self.random.choice(CONTENTS)
        how = self.random.choice(("renamed", "written", "appended", "removed"))
        if how == "removed":
            self.edits.removed(name)
        elif how == "appended" and self.edits.path(name).exists():
            self.edits.appended(name, content)
        else:
            getattr(self.edits, "written" if how == "appended" else how)(name, content)
        return f"{how} {name} {content!r}"

    def mode(self) -> str:
        place = self.random.choice(PLACES)
        path = self.edits.path(place)
        files = [path, *sorted(path.glob(".qmail*"))]
        chosen = self.random.choice(files)
        mode = (
            self.random.choice((0o700, 0o755, 0o777)) if chosen == path else self.random.choice((0o600, 0o644, 0o666))
        )
        chosen.chmod(mode)
        return f"chmod {mode:o} {chosen}"

    def users(self) -> str:
        domain = self.random.choice(("one.example", "two.example"))
        users = self.random.sample(USERS, self.random.randrange(len(USERS)))
        self.edits.users(domain, users, crypt=self.random.choice("xyz"))
        return f"users of {domain} {users}"

    def control(self) -> str:
        name = self.random.choice(sorted(LINES))
        line, there = self.random.choice(LINES[name]), self.random.random() < 0.6
        path = self.edits.path(name)
        if not path.exists():
            path.touch()
        self.edits.line(name, line, there=there)
        return f"{name} {line} {there}"

    def assigned(self) -> str:
        domains = [one for one in ("one.example", "two.example", "new.example") if self.random.random() < 0.7]
        self.edits.path(DOMAINS).stat()
        if not self.edits.path(f"{DOMAINS}/new.example").exists():
            for name, thing in domain_of("new.example", ("zoe",)).items():
                self.edits.host.write(name, thing)
        self.edits.assigned(*domains)
        there = "new.example" in domains
        self.edits.line("control/virtualdomains", "new.example:new.example", there=there)
        return f"users/assign {domains}"

    def home(self) -> str:
        """A whole directory is moved away, or comes back."""
        if self.away:
            path, where = self.away.popitem()
            os.rename(where, path)
            return f"{path} came back"
        path = self.edits.path(self.random.choice((*PLACES[:3], "/home/vpopmail", "~ann", "control/percenthack")))
        where = path.with_name(path.name + ".away")
        os.rename(path, where)
        self.away[path] = where
        return f"{path} moved away"

    def swap(self) -> str:
        """A directory becomes a link to where it was moved, or to the other of two such places."""
        path = self.edits.path(f"{DOMAINS}/two.example")
        if not path.is_symlink():
            os.rename(path, path.with_name("two.real"))
            path.symlink_to("two.real")
            return "two.example became a link"
        if not path.with_name("two.other").exists():
            for name, thing in domain_of("two.other", ("tim",)).items():
                self.edits.host.write(name, thing)
        target = self.random.choice(("two.real", "two.other"))
        new = path.with_name("link.new")
        new.symlink_to(target)
        new.rename(path)
        return f"two.example leads to {target}"

    def directory(self) -> str:
        """A user's own directory comes or goes."""
        self.edits.path(f"{DOMAINS}/one.example").stat()
        name = f"{DOMAINS}/one.example/{self.random.choice(USERS)}"
        if self.edits.path(name).exists():
            self.edits.host.remove(name)
            return f"rm -r {name}"
        self.edits.host.write(name, Dir(mode=0o700, uid=8989, gid=8989))
        return f"mkdir {name}"

    def rest(self) -> None:
        """What was moved away is where it was."""
        while self.away:
            self.done.append(self.home())


def sequence(top: Path, seed: int, bursts: int) -> None:
    """Some bursts of edits, each followed by a moment in which the published file must be true."""
    top.mkdir(mode=0o755)
    watching = Watching(top)
    somebody = Somebody(watching.edits, seed)
    try:
        with watching.running():
            for _ in range(bursts):
                for _ in range(somebody.random.randrange(1, 7)):
                    somebody.edit()
                if somebody.random.random() < 0.8:
                    somebody.rest()
                watching.looked()
                wrong = missing(watching)
                assert not wrong, f"seed {seed}: {wrong}: {somebody.done}\n{watching.said}"
            somebody.rest()
            assert watching.run("compile", "--force", "-t", watching.output).status in (0, 75)
            watching.signal(signal.SIGHUP)
            watching.looked()
            difference = watching.difference()
            assert not difference, f"seed {seed}: {difference}: {somebody.done}"
    finally:
        watching.kill()


def missing(watching: Watching) -> str:
    """What a fresh compile accepts, and the published file does not."""
    watching.fresh()
    done = watching.run("diff", "--addresses", "--json", str(watching.file), str(watching.top / "fresh.cdb"))
    added = [line for line in done.lines if line["change"] == "gained"]
    return str(added) if added else ""


@pytest.mark.parametrize("seed", range(EXAMPLES))
def test_random_edits(tmp_path: Path, seed: int) -> None:
    sequence(tmp_path / "top", seed, BURSTS)


@pytest.mark.slow
def test_many_random_edits(tmp_path: Path) -> None:
    for seed in range(100, 100 + 12 * parts.factor()):
        sequence(tmp_path / str(seed), seed, 4)
