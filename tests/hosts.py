"""Small mail hosts for tests, laid down as files below a directory.

Two ways to say what a host looks like:

* `Host` takes the words of an administrator and is what most tests want::

      host = Host(tmp_path / "host", {
          "passwd": {"joe": 1001, "ann": 1002},
          "control/me": "mail.example.org\\n",
          "control/virtualdomains": "shop.example:joe-shop\\n",
          "users/assign": "+info-:joe:1001:1001:/home/joe:-:info-:\\n.\\n",
          "alias/.qmail-postmaster": "joe\\n",
          "~joe/.qmail-list": "./Maildir/\\n",
          "~joe/.qmail-old": File("./Maildir/\\n", mode=0o666),
          "~ann": Dir(mode=0o700),
      })
      decide(host.root, b"joe-list@mail.example.org")

* `materialise` takes entries as the files in tests/vectors/ have them; their
  README describes the format.

Run as a program it lays a vector (or the example host) down:

    python3 tests/hosts.py tests/examples/host.json DIRECTORY

Only the standard library is needed for that, and root for the owners.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import socket
import stat
import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
VECTORS = HERE / "vectors"
EXAMPLE = HERE / "examples" / "host.json"

Entry = Mapping[str, Any]


# --- Trees as the vectors have them ------------------------------------------------------------


class BadTree(Exception):
    """A tree that cannot be laid down as it is written."""


def _plain_or_b64(entry: Entry, plain: str, b64: str) -> bytes | None:
    if b64 in entry:
        return base64.b64decode(entry[b64], validate=True)
    return os.fsencode(entry[plain]) if plain in entry else None


def entry_path(entry: Entry) -> bytes:
    """The path of an entry on its host; always absolute, without `.`, `..` or doubled slashes."""
    path = _plain_or_b64(entry, "path", "path_b64")
    if path is None:
        raise BadTree(f"no path: {entry!r}")
    if path == b"/":
        return path
    if not path.startswith(b"/") or any(part in (b"", b".", b"..") for part in path[1:].split(b"/")) or b"\0" in path:
        raise BadTree(f"not a plain absolute path: {path!r}")
    return path


def entry_content(entry: Entry) -> bytes:
    """What a file entry holds; nothing said is an empty file."""
    if "base64" in entry:
        return base64.b64decode(entry["base64"], validate=True)
    text: str = entry.get("text", "")
    return text.encode()


def may_chown() -> bool:
    """Whether this process may give files away."""
    return os.geteuid() == 0


def materialise(entries: Iterable[Entry], root: str | os.PathLike[str]) -> list[bytes]:
    """Lays down `entries` below `root`, and returns the paths whose owners could not be set.

    That list is empty for root.  Parents that nobody mentions are root:root 0755.  Owners and
    modes come last, those of a directory after its content, so a directory of mode 000 has
    all its files.  Nothing is written through a symbolic link or out of `root`, and nothing
    that stands there already is overwritten, directories excepted.
    """
    base = os.fsencode(root)
    os.makedirs(base, exist_ok=True)
    os.chmod(base, 0o755)
    wanted: dict[bytes, Entry] = {}
    for entry in entries:
        path = entry_path(entry)
        if path in wanted:
            raise BadTree(f"twice in one tree: {path!r}")
        wanted[path] = entry
    for path in list(wanted):
        parent = os.path.dirname(path)
        while parent != b"/" and parent not in wanted:
            wanted[parent] = {"type": "dir"}
            parent = os.path.dirname(parent)
    for path in sorted(wanted):
        for parent in _parents(path):
            if parent in wanted and wanted[parent].get("type", "file") != "dir":
                raise BadTree(f"{path!r} stands below {parent!r}, which is no directory")
        _make(base + path if path != b"/" else base, wanted[path])
    inner_first = sorted(wanted, reverse=True)
    unowned = [path for path in inner_first if not _own(base + path if path != b"/" else base, wanted[path])]
    return unowned[::-1]


def _parents(path: bytes) -> Iterable[bytes]:
    while (path := os.path.dirname(path)) != b"/":
        yield path


def _make(path: bytes, entry: Entry) -> None:
    kind = entry.get("type", "file")
    if kind == "dir":
        if not (os.path.isdir(path) and not os.path.islink(path)):
            os.mkdir(path, 0o700)
    elif kind == "file":
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as out:
            out.write(entry_content(entry))
    elif kind == "symlink":
        target = _plain_or_b64(entry, "target", "target_b64")
        if not target:
            raise BadTree(f"a link to nothing: {path!r}")
        os.symlink(target, path)
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind in ("char", "block"):
        device = os.makedev(int(entry["major"]), int(entry["minor"]))
        os.mknod(path, 0o600 | (stat.S_IFCHR if kind == "char" else stat.S_IFBLK), device)
    elif kind == "socket":
        _make_socket(path)
    else:
        raise BadTree(f"unknown type {kind!r}: {path!r}")


def _make_socket(path: bytes) -> None:
    """A socket file; bound by a short name, since the kernel takes 107 bytes and test directories are long."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
            made.bind(b"/proc/self/fd/%d/%s" % (directory, os.path.basename(path)))
    finally:
        os.close(directory)


def _own(path: bytes, entry: Entry) -> bool:
    """Sets owner and mode; False where the owner should be another than it can be."""
    uid, gid = int(entry.get("uid", 0)), int(entry.get("gid", 0))
    owned = may_chown()
    if owned:
        os.chown(path, uid, gid, follow_symlinks=False)
    kind = entry.get("type", "file")
    if kind != "symlink":  # after the owner: chown takes setuid bits away
        mode = entry.get("mode", "0755" if kind == "dir" else "0644")
        os.chmod(path, int(mode, 8))
    return owned


def remove(root: str | os.PathLike[str]) -> None:
    """Takes a tree away again, directories that nobody may enter included."""
    base = os.fsencode(root)
    os.chmod(base, 0o700)
    for directory, inside, _ in os.walk(base):
        for name in inside:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(base)


# --- Vectors -----------------------------------------------------------------------------------


def vector_address(probe: Entry) -> bytes:
    """The envelope recipient of a probe, as the bytes that qmail-send sees."""
    address = _plain_or_b64(probe, "address", "address_b64")
    if address is None:
        raise BadTree(f"no address: {probe!r}")
    return address


@dataclass(frozen=True, slots=True)
class Probe:
    """One address and what the real programs did with it.

    `hangs_on` names what else the verdict depends on (the sender, the message ...); then the
    address is deliverable, whatever `verdict` says, and `expected` is what rcptgen answers.
    """

    address: bytes
    verdict: str
    hangs_on: str = ""
    detail: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """The verdict that rcptgen must give."""
        return "deliver" if self.hangs_on else self.verdict


@dataclass(frozen=True, slots=True)
class Vector:
    """One scenario of tests/vectors/."""

    path: Path
    name: str
    about: str
    tree: list[Entry]
    probes: list[Probe]
    settings: Mapping[str, Any] = field(default_factory=dict)
    sql: Mapping[str, str] | None = None

    def materialise(self, root: str | os.PathLike[str]) -> list[bytes]:
        """Lays the tree down below `root`; see `materialise`."""
        return materialise(self.tree, root)

    def content(self, path: str) -> bytes | None:
        """What the file `path` of the tree holds, or None where the tree has no such file."""
        for entry in self.tree:
            if entry.get("path") == path and entry.get("type", "file") == "file":
                return entry_content(entry)
        return None


def load_vector(path: str | os.PathLike[str]) -> Vector:
    """The scenario in one file."""
    where = Path(path)
    data = json.loads(where.read_bytes())
    if data.get("format") != "rcptgen-vectors-1":
        raise BadTree(f"{where}: not a vector")
    probes = [
        Probe(vector_address(p), p["verdict"], p.get("hangs_on", ""), tuple(p.get("detail", ())))
        for p in data["probes"]
    ]
    return Vector(
        path=where,
        name=data["name"],
        about=data["about"],
        tree=data["tree"],
        probes=probes,
        settings=data.get("settings", {}),
        sql=data.get("sql"),
    )


def load_vectors(folder: str | os.PathLike[str]) -> list[Vector]:
    """Every scenario of a folder (`qmail`, `vpopmail` ... mean those of tests/vectors), by name; never none."""
    where = VECTORS / folder  # an absolute path replaces what is in front of it
    found = [load_vector(path) for path in sorted(where.glob("*.json"))]
    if not found:
        raise BadTree(f"{where}: no vectors")
    return found


# --- users/cdb ---------------------------------------------------------------------------------


class BadAssign(Exception):
    """users/assign as qmail-newu refuses it; no users/cdb comes of it."""


def assign_records(text: bytes) -> list[tuple[bytes, bytes]]:
    """The records that qmail-newu makes of a users/assign, in its order (qmail-newu.c: main).

    A line: `=name:user:uid:gid:home:dash:pre:` or `+wildcard:...`; any first character but
    `+` and a dot is an exact entry.  The first line that begins with a dot ends the file.
    """
    records: list[tuple[bytes, bytes]] = []
    last_characters = b""  # of the wildcards; as they are written, although the keys are lowered
    number = 0
    rest = text
    while True:
        number += 1
        line, newline, rest = rest.partition(b"\n")
        if line.startswith(b"."):
            break
        if not newline:
            raise BadAssign(f"line {number}: the file ends without a line that is a dot")
        if b"\0" in line:
            raise BadAssign(f"line {number}: a NUL")
        name, colon, fields = line.partition(b":")
        if not colon or not name:
            raise BadAssign(f"line {number}: no name before a colon")
        if fields.count(b":") < 6:
            raise BadAssign(f"line {number}: needs six more fields, each ended by a colon")
        key = b"!" + name[1:].lower()  # bytes.lower is ASCII only, as case_lowerb
        if name.startswith(b"+"):
            if len(name) > 1 and name[-1:] not in last_characters:
                last_characters += name[-1:]
        else:
            key += b"\0"
        records.append((key, b"\0".join(fields.split(b":", 6)[:6])))
    return [*records, (b"", last_characters)]


def cdb_bytes(records: Iterable[tuple[bytes, bytes]], *, signed: bool = False) -> bytes:
    """A constant database of these records, in this order, as D. J. Bernstein's cdbmake writes it.

    Written here once more, without a library, so that the tests do not take the word of the
    code they judge.  `signed`: by a machine, or a library, whose characters have a sign.
    """
    body = bytearray(2048)
    slots: list[list[tuple[int, int]]] = [[] for _ in range(256)]
    for key, data in records:
        mixed = 5381
        for byte in key:
            mixed = ((mixed << 5) + mixed & 0xFFFFFFFF) ^ (byte | 0xFFFFFF00 if signed and byte > 127 else byte)
        slots[mixed & 255].append((mixed, len(body)))
        body += struct.pack("<II", len(key), len(data)) + key + data
    for number, entries in enumerate(slots):
        size = 2 * len(entries)
        struct.pack_into("<II", body, 8 * number, len(body), size)
        table = [(0, 0)] * size
        for mixed, position in entries:
            at = (mixed >> 8) % size
            while table[at][1]:
                at = (at + 1) % size
            table[at] = (mixed, position)
        for pair in table:
            body += struct.pack("<II", *pair)
    return bytes(body)


def qmail_newu(text: bytes) -> bytes:
    """users/cdb, byte for byte as qmail-newu makes it of `text`; BadAssign where it refuses."""
    return cdb_bytes(assign_records(text))


# --- Hosts in an administrator's words ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class File:
    """A file with more to say than its content; the owner is the home's where nothing is said."""

    content: str | bytes = ""
    mode: int = 0o644
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class Dir:
    """A directory (`"~joe": Dir(mode=0o700)` for a home)."""

    mode: int = 0o755
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link; an absolute target is a path of the host."""

    target: str | bytes


@dataclass(frozen=True, slots=True)
class Fifo:
    """A fifo, which nobody may wait for."""

    mode: int = 0o644


Thing = str | bytes | File | Dir | Link | Fifo

SYSTEM_ACCOUNTS = (
    "root:x:0:0:root:/root:/bin/sh",
    "daemon:x:1:1::/usr/sbin:/usr/sbin/nologin",
    "alias:x:7790:2108::/var/qmail/alias:/bin/true",
    "qmaild:x:7791:2108::/var/qmail:/bin/true",
    "qmaill:x:7792:2108::/var/qmail:/bin/true",
    "qmailp:x:7793:2108::/var/qmail:/bin/true",
    "qmailq:x:7794:2107::/var/qmail:/bin/true",
    "qmailr:x:7795:2107::/var/qmail:/bin/true",
    "qmails:x:7796:2107::/var/qmail:/bin/true",
    "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin",
)
GROUP = "root:x:0:\nqmail:x:2107:\nnofiles:x:2108:\n"


class Host:
    """A host below `root`, described by a table of names.

    The names, and where they lead:

    * `control/...`, `users/...`, `alias/...`: below /var/qmail; `alias/` belongs to alias.
    * `~joe/...`: below joe's home, owned by joe; `~joe`: the home itself (a `Dir`).
    * `/...`: any other path of the host, owned by root.
    * `passwd`: `{name: uid}`, or `{name: "line in passwd format"}`, or the whole file as a text.
        Unless it is a text, the accounts of the system and of qmail are there too.  `{name: uid}`
      means the home /home/name, which is made; other homes are made when something stands in
      them.  Directories on the way from a home to a file belong to the home's owner.

    A value is the content of a file, or a `File`, `Dir`, `Link` or `Fifo`.  `users/assign`
    brings the users/cdb that qmail-newu makes of it, unless `users/cdb` is in the table too;
    the value None leaves a file out (`"users/cdb": None`, `"/etc/passwd": None`).
    """

    def __init__(self, root: Path, names: Mapping[str, Thing | Mapping[str, int | str] | None]) -> None:
        self.root = root
        self.accounts: dict[str, tuple[int, int, str]] = {}
        given = dict(names)
        defaults: dict[str, Thing] = {}
        accounts = given.pop("passwd", {})
        defaults["/etc/passwd"] = self._passwd(accounts)
        defaults["/etc/group"] = GROUP
        defaults["alias"] = Dir(mode=0o2755)
        if isinstance(accounts, Mapping):
            defaults.update({f"~{name}": Dir() for name, how in accounts.items() if isinstance(how, int)})
        assign = given.get("users/assign")
        if assign is not None and "users/cdb" not in given:
            defaults["users/cdb"] = qmail_newu(_bytes(assign.content if isinstance(assign, File) else assign))
        self._things: dict[bytes, Entry] = {}
        for name, thing in given.items():
            path = self._where(name)[0]
            if path in self._things:
                raise BadTree(f"{name}: {path!r} stands in the table under another name too")
            if isinstance(thing, Mapping):
                raise BadTree(f"{name}: only passwd takes a table")
            if thing is not None:
                self._things[path] = self._entry(name, thing)
        for name, default in defaults.items():
            if name not in given:
                self._things.setdefault(self._where(name)[0], self._entry(name, default))
        for name in given:
            for directory in self._between(name):
                self._things.setdefault(self._where(directory)[0], self._entry(directory, Dir()))
        materialise(self.entries, root)

    @property
    def entries(self) -> list[Entry]:
        """The host as a vector would have it."""
        return list(self._things.values())

    def path(self, name: str) -> Path:
        """Where `name` (as in the table) is on this machine."""
        return Path(os.fsdecode(os.fsencode(self.root) + self._where(name)[0]))

    def write(self, name: str, thing: Thing) -> Path:
        """Puts a thing there, in place of what was there; users/cdb is not made anew."""
        self.remove(name)
        entry = self._entry(name, thing)
        path = self.path(name)
        for directory in self._between(name):
            if not self.path(directory).exists():
                self.write(directory, Dir())
        path.parent.mkdir(parents=True, exist_ok=True)
        _make(os.fsencode(path), entry)
        _own(os.fsencode(path), entry)
        return path

    def remove(self, name: str) -> None:
        """Takes a file, link or whole directory away, where there is one."""
        path = self.path(name)
        if path.is_dir() and not path.is_symlink():
            remove(path)
        else:
            path.unlink(missing_ok=True)

    def newu(self) -> None:
        """Runs qmail-newu: users/cdb is made of users/assign as it is now."""
        self.write("users/cdb", qmail_newu(self.path("users/assign").read_bytes()))

    def _passwd(self, said: Thing | Mapping[str, int | str] | None) -> str:
        if isinstance(said, str):
            lines = said.splitlines()
        elif isinstance(said, Mapping):
            lines = [*SYSTEM_ACCOUNTS]
            for name, how in said.items():
                lines.append(how if isinstance(how, str) else f"{name}:x:{how}:{how}::/home/{name}:/bin/sh")
        else:
            raise BadTree("passwd: a table of accounts or a text")
        for line in lines:
            fields = line.split(":")
            if len(fields) >= 6 and fields[2].isdigit() and fields[3].isdigit():
                self.accounts.setdefault(fields[0], (int(fields[2]), int(fields[3]), fields[5]))
        return "".join(line + "\n" for line in lines)

    def _where(self, name: str) -> tuple[bytes, int, int]:
        """Path on the host, and whose it is."""
        if name.startswith("/"):
            return os.fsencode(name), 0, 0
        if name.startswith("~"):
            user, slash, rest = name[1:].partition("/")
            if user not in self.accounts:
                raise BadTree(f"{name}: no account {user!r} in passwd")
            uid, gid, home = self.accounts[user]
            return os.fsencode(home + slash + rest), uid, gid
        if name == "alias" or name.startswith("alias/"):
            uid, gid, _ = self.accounts.get("alias", (0, 0, ""))
            return os.fsencode("/var/qmail/" + name), uid, gid
        if name.partition("/")[0] in ("control", "users", "bin"):
            return os.fsencode("/var/qmail/" + name), 0, 0
        raise BadTree(f"{name}: begins with none of control/ users/ alias/ bin/ ~user /")

    def _entry(self, name: str, thing: Thing) -> Entry:
        path, uid, gid = self._where(name)
        entry: dict[str, Any] = {"path_b64": base64.b64encode(path).decode(), "uid": uid, "gid": gid}
        if isinstance(thing, str | bytes):
            thing = File(thing)
        if isinstance(thing, Link):
            target = base64.b64encode(_bytes(thing.target)).decode()
            return {**entry, "type": "symlink", "target_b64": target}
        entry["mode"] = f"{thing.mode:04o}"
        if isinstance(thing, Fifo):
            return {**entry, "type": "fifo"}
        entry["uid"] = uid if thing.uid is None else thing.uid
        entry["gid"] = gid if thing.gid is None else thing.gid
        if isinstance(thing, Dir):
            return {**entry, "type": "dir"}
        return {**entry, "base64": base64.b64encode(_bytes(thing.content)).decode()}

    def _between(self, name: str) -> list[str]:
        """The names of the directories from a home (itself included) to `name`, outermost first."""
        if not name.startswith("~"):
            return []
        parts = name.split("/")
        return ["/".join(parts[:length]) for length in range(1, len(parts))]


def _bytes(content: object) -> bytes:
    if isinstance(content, str):
        return os.fsencode(content)
    if isinstance(content, bytes):
        return content
    raise BadTree(f"not the content of a file: {content!r}")


def main() -> int:
    """Lays the host of a vector down below a directory."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("vector", type=Path)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    try:
        unowned = load_vector(options.vector).materialise(options.directory)
    except FileExistsError as error:
        print(f"{error.filename!r} is there already: give an empty directory", file=sys.stderr)
        return 1
    if unowned:
        print(
            f"without root the owners of {len(unowned)} files and directories could not be set:\n"
            "homes then look as if they belonged to somebody else, and their mail goes to ~alias",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
