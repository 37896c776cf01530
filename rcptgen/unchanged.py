"""A run in which nothing has changed: it looks at metadata alone, and writes nothing.

A run that has published everything, with nothing held, kept or in trouble, puts down in the
state directory what all of it was read from (rcptgen.source.looked) and which files came of
it.  The next one asks whether any of that is not what it was.  In any doubt everything is
read: that costs seconds, and a list that is not true costs mail.
"""

from __future__ import annotations

import os
import time
from hashlib import blake2b

import msgspec

from rcptgen import __version__
from rcptgen.config import Config
from rcptgen.host import Host, settings_of
from rcptgen.publish.state import State
from rcptgen.qmail.accounts import Accounts, SystemAccounts
from rcptgen.reader import Account
from rcptgen.request import Outcomes, Request, Result
from rcptgen.source.tree import Identity
from rcptgen.units import Units
from rcptgen.vpopmail.settings import FILES
from rcptgen.worker import Worker

AT_MOST = 86400.0
"""Seconds for which metadata is believed before everything is read once more."""

_Place = tuple[int, int, int, int, int]


class Kept(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a run has left for the next one.

    `job` tells what it was asked for, `files` the published files as they then were, `seen`
    what was looked at, with whose eyes; `homes` the accounts, and whether each is a user for
    qmail-getpw.  `counts` are those members of every Outcomes that are numbers.
    """

    job: bytes
    time: float
    generation: int
    files: list[_Place]
    seen: list[tuple[int, int, bytes, bytes]]
    common: list[bytes]
    homes: list[tuple[bytes, int, bool]]
    getpw: tuple[int, int]
    accounts: bytes
    numbers: dict[str, int]
    classes: dict[str, int]
    recipients: list[tuple[str, str, int]]
    counts: list[dict[str, int]]


def may_be_spared(config: Config, request: Request) -> bool:
    """Whether a run may be one that only looks: nobody wants to know more than that all is as it was."""
    asked = request.force or request.full or request.dry_run or request.resume or request.approve is not None
    # What plugins look at is not known, and a mount is to be looked at each time.
    return bool(
        request.brief
        and request.state
        and not asked
        and not (config.plugins.programs or config.plugins.targets or config.guard.must_be_mounted)
    )


def keep(state: State, host: Host, config: Config, request: Request, result: Result) -> None:
    """Leaves what the next run may be spared by; nothing where this one is no ground to build on."""
    seen = sorted((owner.uid, owner.gid, owner.home, packed) for owner, packed in host.units.looked_at.items())
    settings = [os.fsencode(config.vpopmail.directory.rstrip("/")) + b"/" + name for name in FILES.values()]
    files = [_place(one.path) for one in request.outputs]
    sound = result.status == 0 and all(one.published for one in result.outputs) and None not in files
    troubled = result.held or result.kept or result.units or result.rollback or result.problems
    of_database = any(name in packed for *_, packed in seen for name in settings)
    if not sound or troubled or of_database or host.units.forgetful:
        state.keep_inputs(b"")
        return
    kept = Kept(
        job=_job(config, request),
        time=time.time(),
        generation=result.generation,
        files=[one for one in files if one is not None],
        seen=seen,
        common=host.units.common(),
        homes=host.qualified(),
        getpw=host.getpw_identity,
        accounts=accounts_digest(host.accounts),
        numbers={name: getattr(result, name) for name in _NUMBERS},
        classes=result.classes,
        recipients=[(*key, count) for key, count in result.recipients.items()],
        counts=[{name: getattr(one, name) for name in _COUNTS} for one in result.outputs],
    )
    data = msgspec.msgpack.encode(kept)
    state.keep_inputs(_check(data) + data)


_NUMBERS: tuple[str, ...] = ("domains", "approximate", "units_read", "generation")
_COUNTS = ("records", "exact", "wildcards", "refusals", "widened_count", "unsayable_count")


def unchanged(root: bytes, config: Config, request: Request, state: State) -> Result | None:
    """The result of a run in which nothing has changed, or None where everything must be read."""
    data = state.kept_inputs()
    if data is None or data[:_CHECK] != _check(data[_CHECK:]):
        return None
    try:
        kept = msgspec.msgpack.decode(data[_CHECK:], type=Kept)
    except msgspec.DecodeError:
        return None
    if kept.job != _job(config, request) or not 0 <= time.time() - kept.time < AT_MOST:
        return None
    if state.number() != kept.generation or [_place(one.path) for one in request.outputs] != kept.files:
        return None
    units = Units(Worker(root, settings_of(config), config))
    try:
        if not _is_as_it_was(units, config, kept):
            return None
    finally:
        units.close()
    outputs = [Outcomes(one, published=True) for one in request.outputs]
    for one, counts in zip(outputs, kept.counts, strict=True):
        for name, count in counts.items():
            setattr(one, name, count)
    result = Result(outputs=outputs, classes=kept.classes)
    result.recipients = {(domain, kind): count for domain, kind, count in kept.recipients}
    for name, number in kept.numbers.items():
        setattr(result, name, number)
    return result


def _is_as_it_was(units: Units, config: Config, kept: Kept) -> bool:
    looked: list[tuple[Identity | None, bytes, bytes]] = [(None, b"/", packed) for packed in kept.common]
    looked += [(Identity(uid, gid), home, packed) for uid, gid, home, packed in kept.seen]
    if any(units.changed(looked)):
        return False
    directory = os.fsencode(config.qmail.directory.rstrip("/") or "/")
    accounts = [Account(home, uid) for home, uid, _ in kept.homes]
    answers = units.qualify(accounts, Identity(*kept.getpw), directory)
    if [answer is True for answer in answers] != [qualified for *_, qualified in kept.homes]:
        return False
    return not kept.accounts or kept.accounts == accounts_digest(SystemAccounts())


def accounts_digest(accounts: Accounts) -> bytes:
    """All accounts of the system as a digest; empty for those of a file, which is looked at itself."""
    if not isinstance(accounts, SystemAccounts):
        return b""
    digest = blake2b(digest_size=16)
    for account in accounts.all():
        digest.update(repr(account).encode())
    return digest.digest()


def _job(config: Config, request: Request) -> bytes:
    """What tells one job from another: the version, the configuration, the outputs."""
    outputs = [(one.target, one.path, one.mode, one.wildcards, sorted(one.options.items())) for one in request.outputs]
    said = repr((__version__, outputs, request.strict)).encode()
    return blake2b(msgspec.json.encode(config) + said, digest_size=16).digest()


def _place(path: bytes) -> _Place | None:
    """What tells a published file from one that took its place."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


_CHECK = 32


def _check(data: bytes) -> bytes:
    """What a file that was cut, or only half written, does not begin with."""
    return blake2b(data, digest_size=_CHECK).digest()
