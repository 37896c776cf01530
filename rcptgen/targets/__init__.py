"""Output formats: each a pair of a writer and a model of how its consumer looks an address up."""

from __future__ import annotations

from rcptgen.errors import ConfigurationError
from rcptgen.targets.base import Target
from rcptgen.targets.validrcptto import Validrcptto

__all__ = ["target", "target_names"]


def target_names() -> list[str]:
    """The names of every target, sorted."""
    return [Validrcptto.name]


def target(name: str, *, break_: bytes = b"-") -> Target:
    """The target called `name`, for a consumer built with the break character `break_`.

    Raises ConfigurationError with the known names.
    """
    if name == Validrcptto.name:
        return Validrcptto(break_)
    raise ConfigurationError(f"no target is called {name!r}; known are {', '.join(target_names())}")
