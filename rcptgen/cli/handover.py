"""A compile beside a running watch leaves the work to it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import click

from rcptgen.cli import Globals, safe
from rcptgen.config import Config
from rcptgen.errors import NeedsRoot
from rcptgen.request import Request
from rcptgen.watch.ask import NotRunning, ask
from rcptgen.watch.trigger import Job, socket_path

PATIENCE = 240.0
"""Seconds that a compile waits for the watch, or longer where `--wait` says so: less than cron's usual five minutes."""


def left_to_watch(
    given: Globals, config: Config, request: Request, *, as_object: bool, own_targets: bool
) -> int | None:
    """The exit status of a compile that a running watch has done, or None: it is to be done here.

    Only a plain `rcptgen compile` of the live host may be left to the watch: it asks for
    nothing but the true files.  Done here is

    * what says where to write, or to write nothing (`--root`, `-t`, `--dry-run`): the watch
      would publish something else, or at all;
    * what asks for more than the watch does (`--force` overrules the guard, `--full` proves
      every rule, an approval releases what is held);
    * what wants to see more than a line (`--json`, `-v`);
    * what the watch would do otherwise (other outputs, another `--state` or another
      configuration: a watch that has not read the changed file yet must be told to; another
      version);
    * what a hook starts (RCPTGEN_HOOK): the watch waits for the hook's end;
    * all, where the watch ends meanwhile or cannot be asked.

    Raises Busy where the watch does not answer in time: it is at work, and holds the lock.
    """
    plain = Request(outputs=request.outputs, state=request.state, reason=request.reason, brief=request.brief)
    wants_more = replace(request, wait=plain.wait) != plain
    if given.root != b"/" or own_targets or as_object or given.verbose or wants_more or "RCPTGEN_HOOK" in os.environ:
        return None
    path = socket_path(given.root, given.state(), config)
    if path is None:
        return None
    job = Job.of(config, request.outputs, request.state)
    try:
        reply = ask(path, wait=max(PATIENCE, request.wait), job=job)
    except (NotRunning, NeedsRoot):
        return None
    if reply.other:
        if reply.other != "output":
            do = "reload" if reply.other == "configuration" else "restart"
            _say(f"a watch is running with another {reply.other}: systemctl {do} rcptgen-watch; compiled without it")
        return None
    if reply.text and (reply.status or (sys.stderr.isatty() and not given.quiet)):
        _say(reply.text)
    return reply.status


def _say(text: str) -> None:
    click.echo(f"rcptgen: {safe(text)}", err=True)
