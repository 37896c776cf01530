"""A small host of each kind that a watch has to do with, and edits of it as real tools make them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from hosts import Dir, File, Host, Thing, cdb_bytes

VPOPMAIL = 8989
DOMAINS = "/home/vpopmail/domains"
TOLD = "| /home/vpopmail/bin/vdelivermail '' bounce-no-mailbox\n"


def vpasswd(domain: str, users: Iterable[str], *, crypt: str = "x") -> bytes:
    """The vpasswd.cdb of a vpopmail domain, as vpopmail makes it."""
    names = list(dict.fromkeys(("postmaster", *users)))
    line = f"{crypt}:1:0:name:{DOMAINS}/{domain}/{{}}:NOQUOTA"
    return cdb_bytes((name.encode(), line.format(name).encode()) for name in names)


def domain_of(domain: str, users: Iterable[str] = ()) -> dict[str, Thing]:
    """A vpopmail domain as entries of hosts.Host."""

    def mine(content: str | bytes) -> File:
        return File(content, mode=0o600, uid=VPOPMAIL, gid=VPOPMAIL)

    directory = f"{DOMAINS}/{domain}"
    return {
        directory: Dir(mode=0o700, uid=VPOPMAIL, gid=VPOPMAIL),
        f"{directory}/.qmail-default": mine(TOLD),
        f"{directory}/vpasswd.cdb": mine(vpasswd(domain, users)),
    }


def assigned(*domains: str) -> str:
    """users/assign with these vpopmail domains, and an account by a line of its own."""
    lines = [f"+{one}-:{one}:{VPOPMAIL}:{VPOPMAIL}:{DOMAINS}/{one}:-::" for one in domains]
    return "\n".join([*lines, "=sales:joe:1001:1001:/home/joe:-:sales:", ".", ""])


def laid(root: Path, more: dict[str, Thing] | None = None) -> Host:
    """Two vpopmail domains, a user with a virtual domain of his own, a local domain, a single address."""
    return Host(
        root,
        {
            "passwd": {"joe": 1001, "ann": 1002},
            "control/me": "mail.example\n",
            "control/locals": "mail.example\n",
            "control/virtualdomains": "one.example:one.example\ntwo.example:two.example\njoe.example:joe-site\n"
            "info@single.example:joe-single\n",
            "control/rcpthosts": "mail.example\none.example\ntwo.example\njoe.example\nsingle.example\nrelay.example\n",
            "users/assign": assigned("one.example", "two.example"),
            "/home/vpopmail/bin/vdelivermail": File("", mode=0o755),
            "alias/.qmail-postmaster": "joe\n",
            "~joe/.qmail-sales": "./Maildir/\n",
            "~joe/.qmail-single-info": "./Maildir/\n",
            "~joe/.qmail-site-web": "./Maildir/\n",
            "~joe/.qmail-site-old": "|bouncesaying gone\n",
            "~ann": Dir(mode=0o755),
            **domain_of("one.example", ("ann", "bob")),
            **domain_of("two.example", ("tom",)),
            **(more or {}),
        },
    )


class Edits:
    """What tools and people do to a host's files, as they do it."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def path(self, name: str) -> Path:
        """See Host.path."""
        return self.host.path(name)

    def renamed(self, name: str, content: str | bytes) -> None:
        """A new file beside it, renamed over it: vpopmail, qmail-newu, most editors."""
        path = self.path(name)
        new = path.with_name(path.name + ".new")
        new.write_bytes(content if isinstance(content, bytes) else content.encode())
        self._own(path, new)
        new.rename(path)

    def _own(self, old: Path, new: Path) -> None:
        like = os.stat(old if old.exists() else old.parent)
        os.chown(new, like.st_uid, like.st_gid)
        new.chmod(like.st_mode & 0o777 if old.exists() else 0o600)

    def written(self, name: str, content: str) -> None:
        """Written where it is, whether or not it is there."""
        path = self.path(name)
        fresh = not path.exists()
        path.write_text(content)
        if fresh:
            self._own(path.with_name("none such"), path)

    def appended(self, name: str, content: str) -> None:
        """More at the end."""
        with self.path(name).open("a") as file:
            file.write(content)

    def removed(self, name: str) -> None:
        """Gone, if it was there."""
        self.path(name).unlink(missing_ok=True)

    def users(self, domain: str, users: Iterable[str], *, crypt: str = "x") -> None:
        """vpopmail's users of a domain are these."""
        self.renamed(f"{DOMAINS}/{domain}/vpasswd.cdb", vpasswd(domain, users, crypt=crypt))

    def assigned(self, *domains: str) -> None:
        """users/assign has these vpopmail domains, and qmail-newu was run."""
        self.renamed("users/assign", assigned(*domains))
        new = self.path("users/cdb.tmp")
        self.host.newu()  # in place of the file, by another one
        new.unlink(missing_ok=True)

    def line(self, name: str, line: str, *, there: bool) -> None:
        """A control file has the line, or does not have it."""
        lines = [one for one in self.path(name).read_text().splitlines() if one != line]
        self.renamed(name, "".join(f"{one}\n" for one in [*lines, *([line] if there else [])]))
