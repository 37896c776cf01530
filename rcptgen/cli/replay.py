"""`rcptgen replay`: yesterday's mail as the test of today's list."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from typing import Any

import click

from rcptgen.cli import PATH, Globals
from rcptgen.cli.compile_ import asked_for
from rcptgen.config import Config
from rcptgen.errors import ConfigurationError, NeedsRoot, RcptgenError
from rcptgen.host import Host
from rcptgen.maillogs.events import What
from rcptgen.maillogs.logs import Logs, Statistics
from rcptgen.replay import FileJudge, Found, HostJudge, Origins, Recipient, Replay, Sort
from rcptgen.request import target_for
from rcptgen.rules.shown import as_json, shown

MOST_SHOWN = 20
SORTS = ("lost", "unsure", "submitted", "not_final", "avoided", "bounced", "turned_away", "let_in")


@click.command("replay")
@click.option(
    "-t",
    "--target",
    metavar="TARGET=PATH",
    help="Judge by this compiled file  [default: by the list that the host would get now].",
)
@click.option("--domain", "domains", metavar="DOMAIN", multiple=True, help="Only recipients in DOMAIN count.")
@click.option("--final", is_flag=True, help="What was handed on to another server says nothing.")
@click.option(
    "--local-uid",
    "uids",
    metavar="UID",
    type=click.IntRange(0),
    multiple=True,
    help="Messages of this account never passed an SMTP server  [default: root, alias and qmails].",
)
@click.option("--json", "as_object", is_flag=True, help="One JSON object on stdout.")
@click.argument("logs", metavar="LOG...", type=PATH, nargs=-1, required=True)
@click.pass_obj
def command(
    given: Globals,
    target: str | None,
    domains: tuple[str, ...],
    final: bool,
    uids: tuple[int, ...],
    as_object: bool,
    logs: tuple[str, ...],
) -> int:
    """Say which recipients that were delivered in the LOGs the list would refuse.

    Reads logs of qmail-send, of patched qmail-smtpds, of Postfix and of Exim, as multilog,
    syslog or the program itself write them, compressed or not; `-` is stdin.  Says also how
    many bounces the list would have avoided.

    Status 0 when the list refuses nothing that was delivered, 1 when it does, 2 when a log
    could not be read or understood.
    """
    config = given.config()
    paths = [os.fsencode(one) for one in logs]
    with ExitStack() as stack:
        host = _host(given, config, stack)
        if target is None:
            judge: HostJudge | FileJudge = HostJudge(_there(host))
        else:
            (output,) = asked_for([target])
            reader = target_for(output, config).open(output.path)
            stack.callback(reader.close)
            judge = FileJudge(reader)

        def origins() -> Origins:
            # What stands on qmail's local channel cannot be mapped back without virtualdomains.
            return Origins(_there(host).routing)

        reading = Logs(paths, _submitters(host, config, uids))
        wanted = frozenset(os.fsencode(one).lower() for one in domains)
        found = Replay(judge, origins, domains=wanted, final=final).run(reading.events())
    status = 1 if found.lost.count or found.unsure.count else 2 if reading.statistics.troubles else 0
    if as_object:
        click.echo(json.dumps(_json(status, found, reading.statistics)))
    else:
        _text(given, found)
    _talk(given, reading.statistics)
    return status


def _host(given: Globals, config: Config, stack: ExitStack) -> Host | RcptgenError:
    """The host, or why there is none: a server that only has the compiled file need not be a qmail host."""
    try:
        given.need_root()
        return stack.enter_context(Host.open(given.root, config))
    except (ConfigurationError, NeedsRoot) as error:
        return error


def _there(host: Host | RcptgenError) -> Host:
    """The host, where there must be one."""
    if isinstance(host, RcptgenError):
        raise host
    return host


def _submitters(host: Host | RcptgenError, config: Config, uids: tuple[int, ...]) -> set[bytes]:
    """The uids, as qmail-send logs them, of those who hand messages to qmail-queue without SMTP.

    Users may run anything, vpopmail's account often runs an SMTP server: they are not among them.
    """
    found = {0, *uids}
    if isinstance(host, Host):
        accounts = (host.accounts.get(os.fsencode(name)) for name in (config.qmail.alias, "qmails"))
        found |= {one.uid for one in accounts if one is not None}
    return {b"%d" % uid for uid in found}


# --- What is told ------------------------------------------------------------------------------


def _text(given: Globals, found: Found) -> None:
    for word, sort in (("refused", found.lost), ("unsure", found.unsure)):
        _listed(given, word, sort)
    if given.verbose:
        for word in SORTS[2:]:
            _listed(given, word.replace("_", "-"), getattr(found, word))
        _listed(given, "elsewhere", found.elsewhere)
    lines = [
        f"delivered: {found.delivered}, of which the list refuses {found.lost.count}"
        + (f", perhaps {found.unsure.count} more" if found.unsure.count else ""),
        f"bounced: {found.failed}, of which the list would have refused {found.avoided.count}",
    ]
    if found.submitted.count:
        lines.append(f"delivered from this machine itself, not asked of the list: {found.submitted.count} it refuses")
    if found.not_final.count:
        lines.append(f"handed on to another server: {found.not_final.count} that the list refuses")
    if found.bounces:
        unknown = f", {found.bounces_unknown} not known why" if found.bounces_unknown else ""
        lines.append(
            f"bounces sent: {found.bounces}, of which the list would have avoided {found.bounces_avoided}{unknown}"
        )
    if found.admitted:
        lines.append(f"taken by SMTP: {found.admitted}, of which the list would have refused {found.turned_away.count}")
    if found.refused:
        lines.append(f"refused by SMTP: {found.refused}, of which the list accepts {found.let_in.count}")
    least = "at least " if found.many else ""
    lines.append(f"unknown recipients turned away: {least}{found.unknown_recipients}")
    if found.elsewhere.count:
        lines.append(f"in domains the list does not speak of: {found.elsewhere.count}")
    left = {
        "without a domain": found.bare,
        "too long for the log": found.others.get(What.CUT, 0),
        "begun before the logs": found.others.get(What.UNPAIRED, 0),
    }
    lines += [f"not judged, {why}: {count}" for why, count in left.items() if count]
    click.echo("\n".join(lines))


def _listed(given: Globals, word: str, sort: Sort) -> None:
    most = None if given.verbose else MOST_SHOWN
    for one in list(sort.recipients.values())[:most]:
        times = "once" if one.count == 1 else f"{one.count} times"
        note = f"\t{one.note}" if one.note else ""
        click.echo(f"{word}\t{shown(one.address)}\t{times}\t{shown(one.file)}:{one.line}{note}")
    left = len(sort.recipients) - (most or len(sort.recipients))
    if left > 0 or sort.more:
        click.echo(f"{word}\t... and {'more than ' if sort.more else ''}{max(left, 0)} more recipients")


def _json(status: int, found: Found, statistics: Statistics) -> dict[str, Any]:
    return {
        "version": 1,
        "status": status,
        "delivered": found.delivered,
        "handed_on": found.handed_on,
        "failed": found.failed,
        "admitted": found.admitted,
        "refused": found.refused,
        "without_domain": found.bare,
        "bounces": found.bounces,
        "bounces_avoided": found.bounces_avoided,
        "bounces_unknown": found.bounces_unknown,
        "unknown_recipients": found.unknown_recipients,
        "unknown_recipients_at_least": found.many,
        **{name: _sort(getattr(found, name), "recipients", "address") for name in SORTS},
        "elsewhere": _sort(found.elsewhere, "domains", "domain"),
        "deferrals": found.others.get(What.DEFERRED, 0),
        "remote": found.others.get(What.REMOTE, 0) + found.others.get(What.FAILED_ELSEWHERE, 0),
        "unpaired": found.others.get(What.UNPAIRED, 0),
        "cut": found.others.get(What.CUT, 0),
        "files": statistics.files,
        "lines": statistics.lines,
        "overlong": statistics.overlong,
        "formats": statistics.known,
        "unknown_lines": statistics.unknown_lines,
        "unknown": [
            {
                **as_json("program", one.program),
                "count": one.count,
                **as_json("file", one.file),
                "line": one.line,
                **as_json("sample", one.sample),
            }
            for one in statistics.unknown.values()
        ],
        "troubles": statistics.troubles,
    }


def _sort(sort: Sort, several: str, called: str) -> dict[str, Any]:
    found = [_recipient(one, called) for one in sort.recipients.values()]
    return {"count": sort.count, several: found, "more": sort.more}


def _recipient(one: Recipient, called: str) -> dict[str, Any]:
    note = {"note": one.note} if one.note else {}
    where = {**as_json("file", one.file), "line": one.line}
    return {**as_json(called, one.address), "count": one.count, **where, **note}


def _talk(given: Globals, statistics: Statistics) -> None:
    for trouble in statistics.troubles:
        click.echo(f"rcptgen: {trouble}", err=True)
    if given.quiet:
        return
    known = ", ".join(f"{count} of {name}" for name, count in sorted(statistics.known.items())) or "none known"
    click.echo(f"{statistics.lines} lines in {statistics.files} logs: {known}", err=True)
    for one in statistics.unknown.values():
        by = f" of {shown(one.program)}" if one.program else ""
        where = f"{shown(one.file)}:{one.line}"
        click.echo(f"{one.count} lines{by} not understood, the first at {where}: '{shown(one.sample)}'", err=True)
