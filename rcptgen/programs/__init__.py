"""Models of the programs that dot-qmail files run."""

from __future__ import annotations

from rcptgen.config import Config
from rcptgen.programs.qmailtools import BounceSaying, CondRedirect, Except, Forward, Preline, QReceipt
from rcptgen.qmail.model import ProgramModel


def builtin_models(config: Config | None = None) -> dict[bytes, ProgramModel]:
    """The models that come with rcptgen, by the last part of the program's path, for a host configured so.

    Whoever adds models of others puts them into this mapping; the shell knows programs
    by nothing else.
    """
    config = config or Config()
    models: list[ProgramModel] = [
        BounceSaying(),
        Except(),
        CondRedirect(),
        Forward(),
        Preline(),
        QReceipt(),
    ]
    return {name: model for model in models for name in model.names}
