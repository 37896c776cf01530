"""What administrators of vpopmail domains and alias databases get wrong, told from lines and files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from rcptgen.programs.vdelivermail_one import BOUNCE_ALL, DELETE_ALL
from rcptgen.qmail.hostfiles import Finding
from rcptgen.rules.cdbwalk import CdbFile, DamagedCdb
from rcptgen.rules.shown import shown
from rcptgen.source.tree import Opened, SourceTree, Status

ALIAS = b".qmail-"


def vdelivermail_line(words: Sequence[bytes]) -> Iterator[tuple[str, str]]:
    """What is wrong with a call of vdelivermail (vdelivermail.c: get_arguments, usernotfound)."""
    if len(words) != 3:
        yield "V106", f"vdelivermail takes two arguments, not {len(words) - 1}: everybody's mail is deferred"
        return
    instruction = words[2]
    if instruction == DELETE_ALL:
        yield "V107", "mail for every name that is no user's is accepted and thrown away"
    elif instruction.startswith(b"/"):
        if instruction.rstrip(b"/").endswith(b"/Maildir"):
            text = f"mail for unknown names goes to {shown(instruction.rstrip(b'/'))}/Maildir/, and is deferred"
            yield "V108", text
    elif instruction != BOUNCE_ALL and b"@" not in instruction and instruction[:1] not in (b"|", b".", b"&"):
        text = f"{shown(instruction)!r} is no instruction: unknown names are forwarded to an address of that name"
        yield "V105", text


def domain_files(tree: SourceTree, directory: bytes) -> Iterator[Finding]:
    """vpasswd against the cdb that vpopmail makes of it; to be asked as the owner of the directory."""
    text, made = tree.status(directory + b"/vpasswd"), tree.status(directory + b"/vpasswd.cdb")
    if not isinstance(text, Status):
        return
    if not isinstance(made, Status):
        yield Finding("V104", "vpasswd has no cdb: the next delivery makes it", directory + b"/vpasswd")
    elif text.mtime_ns > made.mtime_ns:
        yield Finding(
            "V103", "vpasswd is newer than its cdb, and deliveries read the cdb alone", directory + b"/vpasswd"
        )


def hidden_mailboxes(tree: SourceTree, directory: bytes, names: Sequence[bytes]) -> Iterator[Finding]:
    """The alias files of a domain that are there for a name in its vpasswd.cdb; to be asked as its owner."""
    wanted = [name for name in names if name.startswith(ALIAS)]
    opened = tree.open(directory + b"/vpasswd.cdb") if wanted else None
    if not isinstance(opened, Opened):
        return
    try:
        cdb = CdbFile(opened.fetch, opened.status.size, "vpasswd.cdb")
        for name in wanted:
            user = name.removeprefix(ALIAS).replace(b":", b".")
            if cdb.get(user) is not None:
                text = f"the mailbox {shown(user)} gets no mail by this name: the alias file is found first"
                yield Finding("V110", text, directory + b"/" + name)
    except (DamagedCdb, OSError):
        # What is wrong with the file is told where its users are read.
        return
    finally:
        opened.close()


def older_database(tree: SourceTree, home: bytes, words: Sequence[bytes]) -> str:
    """Why the database of a call of fastforward should be made anew; empty where nothing says so."""
    database = next((word for word in words[1:] if not word.startswith(b"-")), b"")
    source = database.removesuffix(b".cdb")
    if source in (b"", database):
        return ""
    made, written = (tree.status(os.path.join(home, one)) for one in (database, source))
    if isinstance(made, Status) and isinstance(written, Status) and written.mtime_ns > made.mtime_ns:
        return f"{shown(database)} is older than {shown(source)}, and fastforward reads the database alone"
    return ""
