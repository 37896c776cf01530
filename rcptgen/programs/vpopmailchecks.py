"""What administrators of vpopmail domains get wrong, told from the line and the files themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rcptgen.programs.vdelivermail_one import BOUNCE_ALL, DELETE_ALL
from rcptgen.qmail.hostfiles import Finding
from rcptgen.rules.shown import shown
from rcptgen.source.tree import SourceTree, Status


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
