"""Output formats: each a pair of a writer and a model of how its consumer looks an address up.

A target is imported when it is asked for: a compile from cron does not pay for the others.
Targets of other packages come from the entry-point group `rcptgen.targets`, and only those
that `[plugins] targets` names are loaded.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rcptgen.errors import ConfigurationError
from rcptgen.targets.base import Target

if TYPE_CHECKING:
    from rcptgen.targets.formats import Format

__all__ = ["option_names", "target", "target_names"]

GROUP = "rcptgen.targets"

TARGETS = {
    "csv": "listing:Csv",
    "db_load": "db_load:DbLoad",
    "dnset": "dnset:Dnset",
    "exim": "exim:Exim",
    "exim-wildlsearch": "exim_wildlsearch:EximWildlsearch",
    "goodrcptto": "goodrcptto:Goodrcptto",
    "goodrcptto-qpsmtpd": "goodrcptto_qpsmtpd:GoodrcpttoQpsmtpd",
    "haraka": "haraka:Haraka",
    "json": "json_:Json",
    "ldif": "ldif:Ldif",
    "morevalidrcptto": "morevalidrcptto:Morevalidrcptto",
    "opensmtpd": "opensmtpd:Opensmtpd",
    "postfix": "postfix:Postfix",
    "postfix-access": "postfix_access:PostfixAccess",
    "postfix-pcre": "postfix_pcre:PostfixPcre",
    "rcpt-map": "rcpt_map:RcptMap",
    "rcpt-regexp": "rcpt_regexp:RcptRegexp",
    "rcptgen": "rcptgen_:Rcptgen",
    "rspamd-map": "rspamd_map:RspamdMap",
    "sendmail-access": "sendmail_access:SendmailAccess",
    "sql": "sql:Sql",
    "sqmail": "sqmail:Sqmail",
    "text": "text:Text",
    "validrcptto": "validrcptto:Validrcptto",
}
"""Every target of our own: the module and the class."""


def target_names(plugins: Sequence[str] = ()) -> list[str]:
    """The names of every target, sorted; `plugins` are those of others that may be loaded."""
    return sorted({*TARGETS, *plugins})


def target(
    name: str,
    *,
    break_: bytes = b"-",
    wildcards: str = "widen",
    options: Mapping[str, Any] | None = None,
    plugins: Sequence[str] = (),
) -> Target:
    """The target called `name`, for a consumer built with the break character `break_`.

    `plugins` names the targets of other packages that may be loaded.  Raises
    ConfigurationError with the known names, for options that the target does not have or
    that do not fit, and where the code of others fails.
    """
    import msgspec

    found = _called(name, plugins)
    given = dict(options or {})
    known = [*found.options.__struct_encode_fields__]
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            near = f"; the nearest one is {close[0]!r}" if close else f"; it has {', '.join(known) or 'none'}"
            raise ConfigurationError(f"target {name}: unknown option {key!r}{near}")
    try:
        values = msgspec.convert(given, found.options, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"target {name}: {error}") from None
    return found(break_, wildcards, values)


def option_names(name: str, plugins: Sequence[str] = ()) -> list[str]:
    """The options of the target called `name`.  Raises ConfigurationError with the known names."""
    return [*_called(name, plugins).options.__struct_encode_fields__]


def _called(name: str, plugins: Sequence[str]) -> type[Format]:
    own = TARGETS.get(name)
    if own is not None:
        module, _, called = own.partition(":")
        found: type[Format] = getattr(importlib.import_module(f"rcptgen.targets.{module}"), called)
        return found
    if name in plugins:
        return _plugin(name)
    raise ConfigurationError(f"no target is called {name!r}; known are {', '.join(target_names(plugins))}")


def _plugin(name: str) -> type[Format]:
    """The target that an installed package offers under `name`.

    What the entry point names is a subclass of `rcptgen.targets.formats.Format`.
    """
    from importlib.metadata import entry_points  # takes longer to load than most hosts take to be read

    from rcptgen.targets.formats import Format

    offers = list(entry_points(group=GROUP, name=name))
    if len(offers) != 1:
        how = "no installed package offers it" if not offers else "several packages offer it"
        raise ConfigurationError(f"[plugins] targets: {name!r}: {how} (entry point group {GROUP})")
    try:
        found = offers[0].load()
    except Exception as error:  # whatever code of others raises, the run must say whose it was
        raise ConfigurationError(f"[plugins] targets: {name!r}: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Format)):
        raise ConfigurationError(f"[plugins] targets: {name!r}: not a class of rcptgen.targets.formats.Format")
    return found
