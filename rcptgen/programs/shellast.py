"""The parts of a shell line, as the parser finds them and the evaluator walks them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Literal:
    """Text that stands for itself; unquoted text may still be a pattern."""

    text: bytes
    quoted: bool


@dataclass(frozen=True, slots=True)
class Parameter:
    """`$NAME`, `${NAME}`, `${NAME:-argument}` and its kin; `operator` is `length` for `${#NAME}`."""

    name: bytes
    quoted: bool
    operator: bytes = b""
    argument: Word = ()


@dataclass(frozen=True, slots=True)
class Substitution:
    """The output of a command: a text that nobody knows."""

    quoted: bool


@dataclass(frozen=True, slots=True)
class Opaque:
    """An expansion that is not modelled (arithmetic, extensions of one shell) and may end the shell."""

    quoted: bool


Part = Literal | Parameter | Substitution | Opaque
Word = tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Redirection:
    """`operator` without its descriptor, and its target."""

    operator: bytes
    target: Word


@dataclass(frozen=True, slots=True)
class Assignment:
    """`NAME=value`."""

    name: bytes
    value: Word


@dataclass(frozen=True, slots=True)
class Simple:
    """A simple command; it may consist of assignments or redirections alone."""

    assignments: tuple[Assignment, ...]
    words: tuple[Word, ...]
    redirections: tuple[Redirection, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Subshell:
    """`( body )`."""

    body: List


@dataclass(frozen=True, slots=True)
class Group:
    """`{ body; }`."""

    body: List


@dataclass(frozen=True, slots=True)
class If:
    """Conditions with their bodies, and what stands after `else`."""

    branches: tuple[tuple[List, List], ...]
    otherwise: List | None


@dataclass(frozen=True, slots=True)
class Case:
    """A word, and the patterns with their bodies (None: nothing to do)."""

    subject: Word
    arms: tuple[tuple[tuple[Word, ...], List | None], ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop whose syntax is right; what it does is not modelled."""


@dataclass(frozen=True, slots=True)
class Redirected:
    """A compound command with redirections."""

    command: Command
    redirections: tuple[Redirection, ...]


Command = Simple | Subshell | Group | If | Case | Loop | Redirected


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands joined by `|`, perhaps with `!` in front."""

    negated: bool
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class AndOr:
    """Pipelines joined by `&&` and `||`, which bind alike, from left to right."""

    first: Pipeline
    rest: tuple[tuple[bytes, Pipeline], ...]
    background: bool


@dataclass(frozen=True, slots=True)
class List:
    """What `;` and `&` separate."""

    items: tuple[AndOr, ...]
