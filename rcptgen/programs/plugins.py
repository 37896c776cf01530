"""Models of others: packages that offer one under the entry-point group `rcptgen.programs`."""

from __future__ import annotations

from collections.abc import Sequence

from rcptgen.errors import ConfigurationError
from rcptgen.qmail.model import ProgramModel

GROUP = "rcptgen.programs"


def plugin_models(names: Sequence[str]) -> dict[bytes, ProgramModel]:
    """The models that `[plugins] programs` names, by the last part of the program's path; no others are loaded.

    What an entry point names is called without arguments and gives a ProgramModel.  Raises
    ConfigurationError where a name is offered by no package, or by several, or what it
    gives is no model.
    """
    found: dict[bytes, ProgramModel] = {}
    if not names:
        return found
    from importlib.metadata import entry_points  # takes longer to load than most hosts take to be read

    for name in names:
        offers = list(entry_points(group=GROUP, name=name))
        if len(offers) != 1:
            how = "no installed package offers it" if not offers else "several packages offer it"
            raise ConfigurationError(f"[plugins] programs: {name!r}: {how} (entry point group {GROUP})")
        try:
            model: ProgramModel = offers[0].load()()
            known: tuple[object, ...] = tuple(model.names)
        except Exception as error:  # whatever code of others raises, the run must say whose it was
            raise ConfigurationError(f"[plugins] programs: {name!r}: {type(error).__name__}: {error}") from error
        programs = [one for one in known if isinstance(one, bytes) and one and b"/" not in one]
        if not programs or len(programs) != len(known):
            raise ConfigurationError(f"[plugins] programs: {name!r}: `names` must be names of programs, as bytes")
        found.update(dict.fromkeys(programs, model))
    return found
