"""Models of the programs that dot-qmail files run."""

from __future__ import annotations

from rcptgen.programs.qmailtools import BounceSaying, CondRedirect, Except, Forward, Preline, QReceipt
from rcptgen.qmail.model import ProgramModel

_MODELS: tuple[type[ProgramModel], ...] = (BounceSaying, Except, CondRedirect, Forward, Preline, QReceipt)


def builtin_models() -> dict[bytes, ProgramModel]:
    """The models that come with rcptgen, by the last part of the program's path.

    Whoever adds models of others puts them into this mapping; the shell knows programs
    by nothing else.
    """
    return {name: model for model in (kind() for kind in _MODELS) for name in model.names}
