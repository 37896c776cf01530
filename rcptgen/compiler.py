"""From a host to published files: host, policy, guard, targets, proof, publication."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

from rcptgen.attempt import Attempt
from rcptgen.build import text_of
from rcptgen.config import Config
from rcptgen.errors import ConfigurationError, PublishFailed, RcptgenError, SourceFailed
from rcptgen.hooks import Hooks
from rcptgen.host import Host
from rcptgen.ledger import places_of
from rcptgen.memory import remember
from rcptgen.overlays import extra
from rcptgen.policy import Policy
from rcptgen.publish.lock import lock_path, publishing_lock
from rcptgen.publish.state import State
from rcptgen.request import Census, Held, Outcomes, Output, Progress, Request, Result, target_for
from rcptgen.rules.outcome import Kind
from rcptgen.run import Hold, Run, domain_key
from rcptgen.standing import Standings
from rcptgen.unchanged import keep, may_be_spared, unchanged

__all__ = ["Held", "Outcomes", "Output", "Progress", "Request", "Result", "compile_host"]


MOST_WORKERS = 4

GONE = "the domain is gone from the configuration, but hardly on purpose"
STILL_IN_USERS = "the domain is gone from the configuration, but users/cdb still has it"


def compile_host(
    root: str | bytes | os.PathLike[str],
    config: Config,
    request: Request,
    *,
    progress: Progress = lambda done, whole: None,
    census: Census | None = None,
) -> Result:
    """Reads the host below `root`, builds and verifies every output, and publishes them all or none.

    `census` is told of every domain.  Raises RcptgenError, with the exit status it stands for,
    where nothing was published and no result can be given; a Result with status 1 or 78 was
    not published either.
    """
    begun = time.monotonic()
    result = Result()
    with Hooks(config, request, result), ExitStack() as stack:
        _lock(request, stack)
        state = stack.enter_context(State.open(request.state)) if request.state and not request.dry_run else None
        spared = (
            unchanged(os.path.abspath(os.fsencode(root)), config, request, state)
            if state and may_be_spared(config, request)
            else None
        )
        if spared is None:
            host = stack.enter_context(host_for(root, config, record=state is not None))
            run = _run(host, config, request, progress, stack, result)
            run.census = census
            _compile(run)
            if state is not None:
                _keep(state, host, config, request, result)
    done = spared or result
    done.seconds = time.monotonic() - begun
    return done


def compile_open(
    host: Host, config: Config, request: Request, *, progress: Progress, standings: Standings | None = None
) -> Result:
    """As `compile_host`, for a host that is open already, and stays so.

    `standings` are the domains that need not be read again where nothing of them has changed;
    afterwards they are those of this run.
    """
    begun = time.monotonic()
    result = Result()
    with Hooks(config, request, result), ExitStack() as stack:
        _lock(request, stack)
        _compile(_run(host, config, request, progress, stack, result, standings))
    result.seconds = time.monotonic() - begun
    return result


def _keep(state: State, host: Host, config: Config, request: Request, result: Result) -> None:
    """Leaves what may spare the next run its work; what is published is published, whatever comes of that."""
    try:
        keep(state, host, config, request, result)
    except (RcptgenError, MemoryError):
        state.keep_inputs(b"")


def _lock(request: Request, stack: ExitStack) -> None:
    if request.dry_run:
        return
    if request.state is not None:
        # Where the lock is must not hang on which run is the first.
        State.open(request.state).close()
    place = lock_path(request.state, request.outputs[0].path)
    stack.enter_context(publishing_lock(place, request.wait))


def host_for(root: str | bytes | os.PathLike[str], config: Config, *, record: bool = False) -> Host:
    """The host below `root`, opened for a compile."""
    return Host.open(root, config, look_at_mailboxes=False, workers=workers(), record=record)


def workers() -> int:
    """How many processes may read homes."""
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS)


def _run(
    host: Host,
    config: Config,
    request: Request,
    progress: Progress,
    stack: ExitStack,
    result: Result,
    standings: Standings | None = None,
) -> Run:
    """One run, with what it remembers of the last one."""
    targets = [target_for(one, config, strict=request.strict) for one in request.outputs]
    state = None
    if request.state is not None and not (request.dry_run and not os.path.isdir(request.state)):
        state = stack.enter_context(State.open(request.state, config.history.keep))
    files = [(target, one.path) for target, one in zip(targets, request.outputs, strict=True)]
    places = places_of([one.path for one in request.outputs]) if standings is not None else None
    memory = remember(state, files, result.warnings, stack, standings.ledger if standings is not None else None)
    result.first = not memory.exists
    job = (config, request, time.time(), targets, state, memory, result)
    overlays = extra(host, memory.lists.blob, forced=request.force)
    domains = Policy(host, overlays=overlays).domains()
    run = Run(*job, host=host, progress=progress, domains=domains, extra=overlays)
    run.standings, run.places = standings, places
    return run


def _compile(run: Run) -> None:
    """The attempts that it takes: one, and another where the guard then holds what the first one let go."""
    host = run.host
    if run.request.resume and run.memory.rollback is None:
        raise RcptgenError("no rollback is in force; nothing was published")
    if run.request.seen is not None and list(run.request.seen) != run.memory.holds:
        run.result.warnings.append("what is held has changed since it was shown, and only what was shown is released")
    if _undecided(run):
        return
    if host.users_damage and not run.memory.exists and not run.request.force:
        raise SourceFailed(
            f"{os.fsdecode(host.users_file)}: {host.users_damage}; qmail defers all local mail, "
            "and nothing was published before: nothing is published (--force accepts what qmail defers)"
        )
    _lacking(run)
    _mounted(run)
    hold: Hold | None = Hold(_gone_held(run))
    while hold is not None:
        attempt = Attempt(run, hold)
        try:
            hold = attempt.build()
            if hold is None:
                attempt.finish()
        finally:
            attempt.close()


def _lacking(run: Run) -> None:
    """Raises SourceFailed where nothing is known of a file of `[extra]`, now or from before."""
    if run.extra.lacking and not run.request.force:
        said = "\n".join(f"{text_of(path)}: {why}" for path, why in sorted(run.extra.lacking.items()))
        raise SourceFailed(
            f"{said}\nand nothing of it was published before: nothing is published (--force does without)"
        )


def _mounted(run: Run) -> None:
    """Raises PublishFailed where something of `[guard] must_be_mounted` is not."""
    wanted = [os.fsencode(path) for path in run.config.guard.must_be_mounted]
    if wanted and not run.request.force:
        missing = run.host.units.mounted(wanted)
        if missing:
            names = ", ".join(text_of(path) for path in missing)
            raise PublishFailed(f"[guard] not mounted: {names}; nothing was published")


def _undecided(run: Run) -> bool:
    """Whether lines stand for domains that no list names; they are then the result's problems."""
    lines = run.host.uncovered()
    if not lines or run.request.force:
        return False
    run.result.status = ConfigurationError.status
    run.result.problems = [
        f"{os.fsdecode(one.file)}:{one.line}: {text_of(one.entry) or 'the empty entry'!r} stands for domains "
        "that no list names; name them in [policy] suffix_domains, or use --force"
        for one in lines
    ]
    run.result.outputs = [Outcomes(one) for one in run.request.outputs]
    return True


def _gone_held(run: Run) -> dict[bytes, str]:
    """The published domains that are gone from the configuration, but hardly on purpose, each with the reason."""
    if not run.memory.exists:
        return {}
    now = {one.name for one in run.domains}
    ledger = run.ledger
    before = [domain for domain, _ in run.memory.live.blobs()] if ledger is None else ledger.names
    gone = [domain for domain in before if domain not in now]
    limits = run.limits
    if len(gone) > max(limits.gone_domains, int(limits.gone_share * len(before))):
        return dict.fromkeys(gone, GONE)
    reasons = ((domain, _why_held(run, domain)) for domain in gone)
    return {domain: reason for domain, reason in reasons if reason}


def _why_held(run: Run, domain: bytes) -> str:
    """Why a domain that is gone from the configuration is held; empty: it is not.

    A domain may leave virtualdomains first and users/cdb a moment later, and a watch sees
    both: that reason ends by itself.  All others stand until a person approves.
    """
    held_for = {one.reason for one in run.memory.holds if one.domain == domain_key(domain) and not one.catch_all}
    if run.is_held(domain) and not run.released(domain) and held_for != {STILL_IN_USERS}:
        return GONE
    host = run.host
    if host.users_damage or host.cut_off or _vanished(run, b"locals", b"virtualdomains"):
        return GONE
    if (host.files.relays_cut_off or _vanished(run, b"rcpthosts", b"morercpthosts.cdb")) and _was_relayed(run, domain):
        return GONE
    return STILL_IN_USERS if host.users is not None and host.users.has_wildcard(domain + b"-") else ""


def _vanished(run: Run, *names: bytes) -> bool:
    """Whether any of the control files was there for the last publication, and is not now."""
    files = [run.host.directory + b"/control/" + name for name in names]
    return any(one in run.memory.units and one not in run.host.units.reports for one in files)


def _was_relayed(run: Run, domain: bytes) -> bool:
    """Whether the domain was published as one that this host only relays to."""
    table = run.memory.table(domain)
    base = None if table is None else table.prefixes.get(b"")
    return base is not None and base.kind is Kind.RELAY
