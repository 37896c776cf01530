"""The programs that a shell line may start, as far as their names stand there in so many letters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from rcptgen.programs.shellast import (
    AndOr,
    Case,
    Command,
    Group,
    If,
    List,
    Literal,
    Pipeline,
    Redirected,
    Simple,
    Subshell,
    Word,
)
from rcptgen.programs.shellparse import parse
from rcptgen.programs.shellscan import ShellSyntaxError, Unsupported

_STARTS_ANOTHER = {b"bouncesaying": 2, b"except": 1, b"condredirect": 2, b"exec": 1, b"command": 1}
"""Commands that run one of their words, and which."""


@lru_cache(maxsize=4096)
def calls(line: bytes) -> tuple[bytes, ...]:
    """The commands of a line that are written out, in their order, each once.

    Raises ShellSyntaxError where no shell takes the line; knows of none where that cannot be told.
    """
    try:
        tree = parse(line)
    except Unsupported:
        return ()
    return tuple(dict.fromkeys(_of_list(tree))) if tree else ()


@lru_cache(maxsize=4096)
def plain_words(line: bytes) -> tuple[bytes, ...] | None:
    """The words of a line that is one command, all written out; None where it is anything else."""
    try:
        tree = parse(line)
    except (ShellSyntaxError, Unsupported):
        return None
    match tree:
        case List(items=(AndOr(first=Pipeline(commands=(Simple(assignments=(), words=words),)), rest=()),)):
            constants = tuple(map(_constant, words))
            return tuple(one for one in constants if one is not None) if constants and None not in constants else None
        case _:
            return None


def _of_list(tree: List | None) -> Iterator[bytes]:
    for item in tree.items if tree is not None else ():
        for pipeline in (item.first, *(one for _, one in item.rest)):
            for command in pipeline.commands:
                yield from _of_command(command)


def _of_command(tree: Command) -> Iterator[bytes]:
    match tree:
        case Simple(words=words):
            yield from _of_words(words)
        case Group(body) | Subshell(body):
            yield from _of_list(body)
        case If(branches, otherwise):
            yield from _of_lists(one for branch in branches for one in branch)
            yield from _of_list(otherwise)
        case Case(_, arms):
            yield from _of_lists(body for _, body in arms)
        case Redirected(command, _):
            yield from _of_command(command)


def _of_lists(trees: Iterable[List | None]) -> Iterator[bytes]:
    for tree in trees:
        yield from _of_list(tree)


def _of_words(words: tuple[Word, ...]) -> Iterator[bytes]:
    """The command, and what it starts itself."""
    at = 0
    while at < len(words):
        name = _constant(words[at])
        if not name:
            return
        yield name
        base = name.rpartition(b"/")[2]
        if base == b"preline":
            at += 1
            while at < len(words) and (_constant(words[at]) or b"").startswith(b"-"):
                at += 1
            continue
        skip = _STARTS_ANOTHER.get(base)
        if skip is None or (base in (b"exec", b"command") and (_next(words, at) or b"-").startswith(b"-")):
            return
        at += skip


def _next(words: tuple[Word, ...], at: int) -> bytes | None:
    return _constant(words[at + 1]) if at + 1 < len(words) else None


def _constant(word: Word) -> bytes | None:
    """The text of a word in which nothing is expanded; None where something is."""
    text = b""
    for part in word:
        if not isinstance(part, Literal) or (not part.quoted and any(one in b"*?[~" for one in part.text)):
            return None
        text += part.text
    return text
