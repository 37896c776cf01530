"""Back to an earlier generation: everything that it accepted is accepted again, at once, without reading the host."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import replace

from rcptgen.build import Blobs, Build, Job, side_by_side
from rcptgen.config import Config
from rcptgen.errors import PublishFailed, UsageTrouble
from rcptgen.hooks import Hooks
from rcptgen.memory import Memory, Rules, remember
from rcptgen.publish.generation import Generation, path_key
from rcptgen.publish.history import Rollback
from rcptgen.publish.lock import lock_path, publishing_lock
from rcptgen.publish.packed import unpack
from rcptgen.publish.state import State
from rcptgen.request import Request, Result, target_for
from rcptgen.rules.shown import shown


def roll_back(config: Config, request: Request, number: int | None = None) -> Result:
    """Publishes all that generation `number` published, and what is published now; nothing of it goes until a resume.

    Without a number the last generation is meant that had another list than the present one.
    The host is not read: what it has now comes with the next compile, and what only the
    present list has goes then, as the guard allows.  The outputs are built, proved and renamed as those
    of a compile are.  With `dry_run` all but that.

    Raises UsageTrouble where there is no such generation, DamagedState where it is damaged,
    PublishFailed where the published files are not those of the last generation (somebody
    has replaced them by hand; `force` overwrites them) and for every reason a compile has;
    nothing is published then.
    """
    begun = time.monotonic()
    assert request.state is not None
    result = Result()
    with Hooks(config, request, result), ExitStack() as stack:
        if not os.path.isdir(request.state):
            raise UsageTrouble(f"{shown(request.state)}: nothing was published yet, so there is nothing to go back to")
        if not request.dry_run:
            stack.enter_context(publishing_lock(lock_path(request.state, request.outputs[0].path), request.wait))
        state = stack.enter_context(State.open(request.state, config.history.keep))
        targets = [target_for(one, config, strict=request.strict) for one in request.outputs]
        last = _only_ours(state, request)
        files = [(target, one.path) for target, one in zip(targets, request.outputs, strict=True)]
        memory = remember(state, files, result.warnings, stack)
        chosen = stack.enter_context(_chosen(state, memory, last, number))
        now = time.time()
        order = Rollback(number=chosen.number, time=chosen.meta.time, since=now, by=request.by)
        memory = replace(memory, rollback=order, base=chosen, base_bare=Memory.of_generation(chosen).bare)
        job = Job(config, request, now, targets, state, memory, result)
        _publish(job)
    result.seconds = time.monotonic() - begun
    return result


def _only_ours(state: State, request: Request) -> int:
    """The number of the last generation; PublishFailed where an output is there, and is not what that published."""
    standing = state.standing()
    if standing is None:
        raise UsageTrouble("nothing was published yet, so there is nothing to go back to")
    with standing:
        known = [one.path for one in request.outputs if path_key(one.path) in standing.meta.digests]
        there = [one.path for one in request.outputs if one.path not in known and os.path.exists(one.path)]
        foreign = standing.differing(known) + there
    if foreign and not request.force:
        names = ", ".join(map(shown, foreign))
        raise PublishFailed(
            f"{names}: not as generation {standing.number} published it: replaced by hand?  "
            "A rollback would overwrite it; --force does, and keeps what it accepts until the next compile"
        )
    return standing.number


def _chosen(state: State, memory: Memory, last: int, number: int | None) -> Generation:
    """Generation `number`, or the one before the `last` one."""
    there = [one for one in state.generations() if one <= last]
    if number is None:
        if memory.rollback is not None:
            raise UsageTrouble(
                f"rolled back to generation {memory.rollback.number} already; name the generation to go back to"
            )
        return _before(state, there)
    if number not in there:
        raise UsageTrouble(f"there is no generation {number}; there are: {', '.join(map(str, there))}")
    found = state.generation(number)
    if found is None:
        raise PublishFailed(f"{state.warnings[-1]}; nothing was published")
    return found


def _before(state: State, there: list[int]) -> Generation:
    """The last generation whose files were others than those of the last one of all."""
    digests = None
    for number in reversed(there):
        found = state.generation(number)
        if found is None:
            continue
        digests = digests or found.meta.digests
        if found.meta.digests != digests:
            return found
        found.close()
    raise UsageTrouble("there is no generation with another list to go back to; see rcptgen history")


def _publish(job: Job) -> None:
    memory = job.memory
    published: Rules = memory.published
    build = Build(job)
    try:
        build.open()
        streams = (memory.live.blobs(), memory.base.blobs(), published.blobs(), memory.held_tables.blobs())
        for domain, (live, base, last, held) in side_by_side(*streams):
            old = Blobs(live or b"", base or b"", last or b"")
            build.emit(domain, unpack(live) if live else None, live or b"", old, held)
        build.bare(memory.bare)
        build.lists(dict(memory.lists.blobs()))
        build.written()
        build.report()
        build.prove()
        if not job.request.dry_run:
            known = {
                "units": sorted(unit.decode("latin-1") for unit in memory.units),
                "held": memory.held,
                "holds": memory.holds,
                "prepended": {"mode": memory.prepended},
            }
            build.publish(known, must_remember=True)
    finally:
        build.close()
