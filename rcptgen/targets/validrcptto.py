"""validrcptto.cdb for the later qmail-smtpd patch, which can say nearly everything.

Look-up: the address in lower case; then, cutting the local part at each break character
from the right, `LEFT-default@domain`; then `@domain`.  The first key that exists decides,
and a value that begins with `-` refuses.  An address without `@` is only looked up whole.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from itertools import groupby

import cdbx

from rcptgen.errors import UsageTrouble
from rcptgen.publish.cdb import CdbWriter, DamagedCdb, read_cdb
from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Outcome
from rcptgen.rules.table import Table
from rcptgen.targets.base import Answer, Batch, Line, Lowered, Unsayable, Widened, rule_text

DEFAULT = b"default"
# Readers such as Postfix stumble over an empty value, so an acceptance has one.
ACCEPT = b"1"
REFUSE = b"-"
BATCH = 20_000


class Validrcptto:
    """Writer and reader of validrcptto.cdb for a qmail-smtpd with the break character `break_`."""

    name = "validrcptto"

    def __init__(self, break_: bytes = b"-") -> None:
        self._break = break_

    def lower(self, domain: bytes, table: Table) -> Lowered:
        """The records that say `table` for `domain`, sorted by key but for very many names; see `Lowering`."""
        return Lowering(self._break, domain, table).run()

    def bare(self, names: Iterable[bytes]) -> Batch:
        """The records for addresses without a domain, which are looked up whole."""
        return sorted(names), ACCEPT

    def writer(self, descriptor: int) -> CdbWriter:
        """A cdb of the records, in their order."""
        return CdbWriter(descriptor)

    def open(self, path: bytes | int) -> ValidrcpttoReader:
        """The cdb at `path`.  Raises UsageTrouble where it is none."""
        return ValidrcpttoReader(path, self._break)


class Lowering:
    """One domain's rules turned into keys.

    A prefix rule can be said when its prefix is empty or ends at a break character.  Any
    other prefix is covered by the nearest such prefix above it: an acceptance widens that
    one, a refusal below an acceptance is lost.  A name that ends in `-default` has the key
    of its prefix: accepting it accepts the prefix, and refusing it is never written.
    Every accepted name is written; a refusal only where it hides an acceptance.
    """

    def __init__(self, break_: bytes, domain: bytes, table: Table) -> None:
        self._break = break_
        self._domain = domain
        self._table = table
        self._said: dict[bytes, bool] = {}
        self._widened: list[Widened] = []
        self._unsayable: list[Unsayable] = []

    def run(self) -> Lowered:
        """The records, what they widen and what they leave out."""
        doubles: dict[bytes, Outcome] = {}
        for outcome, names in self._table.groups.items():
            if self._break:
                doubles.update((name, outcome) for name in names.ending_with(self._break + DEFAULT))
        self._prefixes()
        # Acceptances first: they widen what a refusal is then measured against.
        for name, outcome in sorted(doubles.items(), key=lambda pair: (not pair[1].accepted, pair[0])):
            self._double(name, outcome)
        self._lost()
        at = b"@" + self._domain
        accepted: list[bytes] = []
        refused: list[bytes] = []
        for prefix, said in self._kept():
            (accepted if said else refused).append(self._key(prefix))
        wildcards, exact = len(accepted), 0
        many: list[Names] = []
        left_out = {b"", *doubles}
        hides = any(self._said.values())
        for outcome, names in self._table.groups.items():
            if names.has_empty:
                self._empty(outcome)
            if outcome.widened and outcome.accepted:
                for name in names:
                    if name not in doubles:
                        self._widen(name + at, name, False, outcome, outcome.reason)
            if not outcome.accepted:
                if hides:
                    refused += [n + at for n in names if n not in left_out and self._answer(n)[1]]
                continue
            plain = names.without(left_out, ()) if doubles or names.has_empty else names
            exact += len(plain)
            if len(plain) > BATCH:
                many.append(plain)
            else:
                accepted += plain.with_end(at)
        batches = self._batches(accepted, refused, many)
        return Lowered(batches, self._widened, self._unsayable, exact, wildcards, len(refused))

    def _batches(self, accepted: list[bytes], refused: list[bytes], many: list[Names]) -> Iterator[Batch]:
        if not refused:
            yield sorted(accepted), ACCEPT
        else:
            values = dict.fromkeys(accepted, ACCEPT) | dict.fromkeys(refused, REFUSE)
            for value, keys in groupby(sorted(values), values.__getitem__):
                yield list(keys), value
        at = b"@" + self._domain
        # A million names are never spelled out at once, nor put in one order with the others.
        for names in many:
            for some in names.stretches():
                yield [name + at for name in some], ACCEPT

    def _empty(self, outcome: Outcome) -> None:
        """The empty local part: its key is the one for the whole domain."""
        if outcome.accepted != self._said.get(b"", False):
            reason = "the key of the empty local part is the key of the whole domain"
            self._leave(b"", outcome, reason)

    # -- prefixes ------------------------------------------------------------------------

    def _sayable(self, prefix: bytes) -> bool:
        return not prefix or (bool(self._break) and prefix.endswith(self._break))

    def _above(self, name: bytes) -> bytes:
        """The longest sayable prefix that is shorter than `name`, whether or not a rule stands there."""
        return name[: name.rfind(self._break, 0, len(name) - 1) + 1] if self._break else b""

    def _prefixes(self) -> None:
        """What is said at each sayable prefix: the rules that stand there, then the widenings from below."""
        rules = sorted(self._table.prefixes.items())
        for prefix, outcome in rules:
            if self._sayable(prefix):
                self._said[prefix] = outcome.accepted
                if outcome.widened and outcome.accepted:
                    self._widen(self._key(prefix), prefix, True, outcome, outcome.reason)
        for prefix, outcome in rules:
            if self._sayable(prefix) or not outcome.accepted:
                continue
            above = self._above(prefix)
            key, said = self._answer(above)
            if not said:
                key, self._said[above] = self._key(above), True
            if not self._truth(above):
                reason = "a prefix that does not end at a break character"
                self._widen(key, prefix, True, outcome, reason)
            elif outcome.widened:
                self._widen(key, prefix, True, outcome, outcome.reason)

    def _lost(self) -> None:
        """Refused prefixes that no key can say, below something that is accepted."""
        for prefix, outcome in sorted(self._table.prefixes.items()):
            if self._sayable(prefix) or outcome.accepted:
                continue
            key, said = self._answer(self._above(prefix))
            if said:
                reason = "a refused prefix that does not end at a break character"
                self._widen(key, prefix, True, outcome, reason)

    def _truth(self, prefix: bytes) -> bool:
        covering = self._table.covering(prefix)
        return covering is not None and covering[1].accepted

    def _answer(self, name: bytes) -> tuple[bytes, bool]:
        """The key that answers for `name` when it has none of its own, and what it says."""
        cut = len(name)
        while self._break:
            cut = name.rfind(self._break, 0, cut)
            if cut < 0:
                break
            said = self._said.get(name[: cut + 1])
            if said is not None:
                return self._key(name[: cut + 1]), said
        return self._key(b""), self._said.get(b"", False)

    def _kept(self) -> Iterator[tuple[bytes, bool]]:
        """Every acceptance, and the refusals that hide one."""
        for prefix, said in self._said.items():
            if said or (prefix and self._answer(prefix[: -len(self._break)])[1]):
                yield prefix, said

    def _key(self, prefix: bytes) -> bytes:
        return prefix + DEFAULT + b"@" + self._domain if prefix else b"@" + self._domain

    # -- names that end in -default --------------------------------------------------------

    def _double(self, name: bytes, outcome: Outcome) -> None:
        prefix = name[: -len(DEFAULT)]
        key, said = self._answer(prefix)
        if outcome.accepted and not said:
            self._said[prefix] = True
            reason = "a name that ends in -default has the key of its prefix"
            self._widen(self._key(prefix), name, False, outcome, reason)
        elif outcome.accepted and outcome.widened:
            self._widen(key, name, False, outcome, outcome.reason)
        elif not outcome.accepted and said:
            reason = "a refused name that ends in -default has the key of its prefix"
            self._widen(key, name, False, outcome, reason)

    # -- reports ---------------------------------------------------------------------------

    def _widen(self, key: bytes, name: bytes, prefix: bool, outcome: Outcome, reason: str) -> None:
        found = outcome if prefix else outcome.at(name)
        rule = rule_text(name, prefix, outcome, self._domain)
        self._widened.append(Widened(key, rule, reason, found.file, found.line))

    def _leave(self, name: bytes, outcome: Outcome, reason: str) -> None:
        found = outcome.at(name)
        rule = rule_text(name, False, outcome, self._domain)
        self._unsayable.append(Unsayable(rule, reason, found.file, found.line))


def _opened(path: bytes) -> int:
    """A regular file, open; a fifo of that name is never waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file")


class ValidrcpttoReader:
    """The look-up of the patched qmail-smtpd.c, over one cdb."""

    def __init__(self, path: bytes | int, break_: bytes) -> None:
        self._break = break_
        self._own = isinstance(path, bytes)
        try:
            self._fd = _opened(path) if isinstance(path, bytes) else path
        except OSError as error:
            assert isinstance(path, bytes)
            raise UsageTrouble(f"{os.fsdecode(path)}: {error.strerror}") from None
        try:
            # cdbx takes any file; the walk judges its tables, and the first records.
            next(read_cdb(self._fd, name=path if isinstance(path, bytes) else b""), None)
            # Never mapped: whoever truncates a mapped file ends the reader with SIGBUS.
            self._cdb = cdbx.CDB(self._fd, mmap=False)
        except (DamagedCdb, OSError) as error:
            self._release()
            raise UsageTrouble(f"not a cdb file: {error}") from None

    def answer(self, address: bytes) -> Answer:
        """What qmail-smtpd does with `address`; a damaged place counts as not found, as there."""
        address = address.lower()
        for key in self._keys(address):
            try:
                value = self._cdb.get(key)
            except OSError:
                value = None
            if value is not None:
                return Answer(not value.startswith(REFUSE), key)
        return Answer(False, None)

    def _keys(self, address: bytes) -> Iterator[bytes]:
        yield address
        local, at, domain = address.rpartition(b"@")
        if not at:
            return
        cut = len(local)
        while self._break:
            cut = local.rfind(self._break, 0, cut)
            if cut < 0:
                break
            yield local[: cut + 1] + DEFAULT + b"@" + domain
        yield b"@" + domain

    def lines(self) -> Iterator[Line]:
        """Every rule in the file, in its order.  Raises DamagedCdb where it breaks off."""
        for key, value in read_cdb(self._fd):
            local, at, domain = key.rpartition(b"@")
            accepted = not value.startswith(REFUSE)
            if not at:
                yield Line(None, key, False, accepted)
            elif not local:
                yield Line(domain, b"", True, accepted)
            elif self._break and local.endswith(self._break + DEFAULT):
                yield Line(domain, local[: -len(DEFAULT)], True, accepted)
            else:
                yield Line(domain, local, False, accepted)

    def close(self) -> None:
        """Gives the file back."""
        self._cdb.close()
        self._release()

    def _release(self) -> None:
        if self._own:
            os.close(self._fd)
