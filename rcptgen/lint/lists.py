"""The files of rules that the configuration names, against the host's domains and the formats of its lists."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rcptgen.errors import ConfigurationError
from rcptgen.host import DomainKind, Host
from rcptgen.listfiles import ListFile
from rcptgen.qmail.hostfiles import Finding
from rcptgen.rules.overlay import EVERYWHERE
from rcptgen.rules.shown import shown
from rcptgen.targets import target
from rcptgen.targets.base import Prefixes
from rcptgen.targets.formats import Format


def files_of_rules(host: Host) -> Iterator[Finding]:
    """What is wrong in the files of `[extra]` and `[[relay]]`."""
    for one in [*host.extra_files.values(), *host.relay_files]:
        if one.damaged:
            yield Finding("X101", f"its rules cannot be used: {one.trouble}", one.path, one.line)
    yield from _foreign(host)
    yield from _unsaid(host)
    if host.config.relay:
        yield from _relayed(host)


def _foreign(host: Host) -> Iterator[Finding]:
    """Rules of `[extra]` for domains that the host takes no mail for."""
    known = {one.name for one in host.domains()} | {EVERYWHERE}
    for path, file in host.extra_files.items():
        for domain, part in sorted(file.listing.parts.items()):
            if domain not in known:
                lines = [part.accepted.first_line, *(line for _, line in part.prefixes.values())]
                count = len(part.accepted) + len(part.prefixes)
                text = f"{_counted(count)} for {shown(domain)}, for which this host takes no mail"
                yield Finding("X102", text, path, min(filter(None, lines)))


def _relayed(host: Host) -> Iterator[Finding]:
    """Recipients of domains that are not relayed, and relayed domains without any."""
    for file in host.relay_files:
        for domain, (count, line) in sorted(file.listing.strange.domains.items()):
            yield Finding("X103", f"{_counted(count)} for {shown(domain)}, which is not relayed here", file.path, line)
    if any(file.trouble for file in host.relay_files):
        return  # whom that file lists is not known
    listed = {domain for file in host.relay_files for domain in file.listing.parts}
    for one in host.domains():
        if one.kind is DomainKind.RELAY and one.name not in listed:
            text = f"no file of [[relay]] names {shown(one.name)}: all of it is accepted"
            yield Finding("X104", text, one.file, one.line)


def _unsaid(host: Host) -> Iterator[Finding]:
    """Accepted prefixes for which a list of the host has no words, so that more is accepted."""
    break_ = host.config.qmail.break_.encode()
    short = sorted({one.target for one in host.config.outputs if not _says_all(host, one.target)})
    if not short:
        return
    for path in dict.fromkeys(map(os.fsencode, host.config.extra.accept_files)):
        for name, line in _prefixes(host.extra_files[path]):
            if name and not (break_ and name.endswith(break_)):
                text = (
                    f"{shown(name)}* ends at no break character: {', '.join(short)} accepts more, or the whole domain"
                )
                yield Finding("X105", text, path, line)


def _says_all(host: Host, name: str) -> bool:
    """Whether a format can say any prefix; of one that is not known nothing is said."""
    try:
        found = target(name, plugins=host.config.plugins.targets)
    except ConfigurationError:
        return True
    return not isinstance(found, Format) or found.says.prefixes is Prefixes.ANY


def _prefixes(file: ListFile) -> list[tuple[bytes, int]]:
    found = {(name, line) for part in file.listing.parts.values() for name, (_, line) in part.prefixes.items()}
    return sorted(found, key=lambda one: one[1])


def _counted(count: int) -> str:
    return f"{count} rule{'s' if count != 1 else ''}"
