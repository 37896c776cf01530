"""Where a home leads the mail of one address: what its instructions forward to, to be followed by others."""

from __future__ import annotations

from dataclasses import replace

from rcptgen.qmail.dotqmail import Action, Instruction, Instructions, parse, safe_extension
from rcptgen.qmail.environment import Variables
from rcptgen.qmail.home import Home
from rcptgen.qmail.judged import Judged
from rcptgen.qmail.leads import Leads
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.source.tree import EntryType, IdentityUnavailable, Regular

FORWARDING = frozenset({Kind.FORWARD, Kind.ALIAS, Kind.VALIAS, Kind.LIST, Kind.CATCHALL})
"""The kinds that a delivery by nothing but forwards may be of."""

NOBODY = "accepted and thrown away"
HANGS = "the message or the sender decides"


def is_forwarding(outcome: Outcome) -> bool:
    """Whether it may be a delivery by nothing but forwards, for certain and for every name that it stands for."""
    sure = not outcome.approximate and not outcome.widened
    return outcome.verdict is Verdict.DELIVER and outcome.kind in FORWARDING and sure


def leads(
    home: Home, dash: bytes, extension: bytes, local: bytes, host: bytes, *, whole: bool = False
) -> tuple[Outcome, Leads]:
    """What Home.judge says of an address, and where its mail goes.

    Whatever is no delivery by forwards alone has something in `Leads.other`, a bounce
    nothing at all.  Forwards beside a mailbox are only looked at with `whole`.  The lines
    are read again: homes do not keep them.
    """
    state = home.state()
    if state is not None:
        return _without(state)
    # What other addresses of the home ran into says nothing about this one.
    known, home.troubles = home.troubles, []
    try:
        outcome, found = _leads(home, dash, extension, local, host, whole=whole, anew=bool(known))
        doubtful = bool(home.troubles)
    except IdentityUnavailable:
        return _without(home.without_identity())
    finally:
        home.troubles = known + [one for one in home.troubles if one not in known]
    if home.failure is not None or doubtful:
        found.elsewhere("a source in this home cannot be trusted for now")
    return outcome, found


def _without(outcome: Outcome) -> tuple[Outcome, Leads]:
    """An outcome that comes without any forwards."""
    return outcome, Leads(other="" if outcome.verdict is Verdict.BOUNCE else outcome.reason)


def _leads(
    home: Home, dash: bytes, extension: bytes, local: bytes, host: bytes, *, whole: bool, anew: bool
) -> tuple[Outcome, Leads]:
    """`anew`: a refusal that was found earlier may rest on a source in trouble, and is looked at again."""
    judged, default_at = home.search(b".qmail" + dash, safe_extension(extension, dash), None)
    if judged is None and not dash:
        judged = home.default_delivery()
    answer = None if judged is None else judged.answer()
    wanted = {Verdict.DELIVER: whole, Verdict.BOUNCE: anew}
    if judged is None or (answer is not None and not is_forwarding(answer) and not wanted.get(answer.verdict)):
        return _without(answer or home.judge(dash, extension, local, host))
    instructions = judged.instructions if answer is None else _again(home, judged)
    if instructions is None:
        outcome = home.judge(dash, extension, local, host)
        return outcome, Leads(other=outcome.reason or "the file has changed meanwhile")
    default = extension[default_at:] if default_at >= 0 else None
    settings = home.settings
    variables = Variables.known(settings.path, home.user, home.home, local, host, extension, default)
    return _run(home, replace(judged, instructions=instructions, fixed=None), variables)


def _again(home: Home, judged: Judged) -> Instructions | None:
    """The lines of a file that only its outcome was kept of, or None where it is gone."""
    if judged.default_delivery:
        return parse(home.settings.default_delivery, forward_only=False)
    name = judged.file[len(home.path(b"")) :]
    with home.as_owner():
        found = home.content(name, EntryType.UNKNOWN)
    if not isinstance(found, Regular):
        return None
    return parse(found.data, forward_only=bool(found.status.mode & 0o100))


def _run(home: Home, judged: Judged, variables: Variables) -> tuple[Outcome, Leads]:
    noted = Leads(file=judged.file)

    def reached(one: Instruction) -> None:
        noted.line = one.line
        if one.action is Action.FORWARD:
            noted.forward(one.text)
        elif one.action is not Action.PROGRAM:
            noted.elsewhere(one.action.value)

    outcome = home.ending(judged, variables, home.mailboxes.deliverable, noted, reached)
    if outcome.verdict is Verdict.BOUNCE:
        return outcome, Leads(noted.forwards, "", noted.varies)
    if outcome.verdict is Verdict.DEFER:
        noted.elsewhere(outcome.reason)
    elif not noted.forwards:
        noted.elsewhere(NOBODY)
    elif outcome.approximate or outcome.widened:
        noted.elsewhere(HANGS)
    return outcome, noted
