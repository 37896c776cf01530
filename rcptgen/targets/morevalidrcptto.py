"""validrcptto and morevalidrcptto.cdb of sagredo's qmail: refusals stand in the keys.

Look-up (vrtcheck in its qmail-smtpd.c): all of `user@domain`, `-user@domain`, `@domain` and
`-@domain` in both stores; then the first of these that was found accepts, refuses, accepts,
refuses.  Without any, chkuser decides: so every domain gets `@domain` or `-@domain`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rcptgen.rules.outcome import Outcome
from rcptgen.targets.addresses import Form, Lines
from rcptgen.targets.base import Answer, Batch, Line, Says, Widened
from rcptgen.targets.files import Record
from rcptgen.targets.formats import Get, Options
from rcptgen.targets.lowering import WIDER, Said

MARK = b"-"


class Morevalidrcptto(Lines):
    """The cdb, or (`form = "text"`) control/validrcptto."""

    name = "morevalidrcptto"
    options: ClassVar[type[Options]] = Form
    says = Says(refuse_exact=True, refuse_whole=True, undecided=True)
    lone = True

    def refused_keys(self, names: Iterable[bytes], domain: bytes) -> list[bytes]:
        """-user@domain."""
        return [MARK + key for key in self.keys(names, domain)]

    def refused_key(self, prefix: bytes, domain: bytes) -> bytes:
        """-@domain."""
        return MARK + self.key(prefix, domain)

    def value(self, outcome: Outcome) -> bytes:
        """Nobody reads it; a line has none."""
        return self.accept

    def adapt(self, said: Said) -> None:
        """The key of a name that begins with `-` refuses the name behind it.

        Below `@domain` the acceptance of such a name is left to that key.  A refusal there may
        be the key of a name that is refused too: this is reported.
        """
        domain = said.domain
        if said.whole.accepted:
            kept = []
            for outcome, names in said.accepted:
                marked = list(names.beginning_with(MARK))
                left = names.without(marked, ())
                if left:
                    kept.append((outcome, left))
            said.accepted = kept
            refused = {name: outcome for outcome, names in said.refused for name in names}
            for name, outcome in refused.items():
                if name.startswith(MARK) and name[1:] in refused:
                    self._met(said, name, outcome)
                if said.whole is WIDER and MARK + name not in refused:
                    self._met(said, MARK + name, outcome)
        else:
            dash = next((outcome for outcome, names in said.accepted if MARK in names), None)
            if dash is None:
                reason = "the key that refuses the domain's other names is this address, too"
                said.widened.append(Widened(MARK + b"@" + domain, b"!-@" + domain, reason, b"", 0))

    @staticmethod
    def _met(said: Said, name: bytes, outcome: Outcome) -> None:
        found = outcome.at(name.removeprefix(MARK))
        rule = b"!" + name + b"@" + said.domain
        reason = "the key that refuses the name behind its - is this address, too"
        said.widened.append(Widened(name + b"@" + said.domain, rule, reason, found.file, found.line))
        said.losses += 1

    def bare(self, names: Iterable[bytes]) -> Batch:
        """Addresses without a domain are looked up whole."""
        return sorted(names), self.accept

    def look(self, address: bytes, get: Get) -> Answer:
        """What vrtcheck() does."""
        address = address.lower()
        _, at, domain = address.rpartition(b"@")
        keys = [address] if not at else [address, MARK + address, b"@" + domain, MARK + b"@" + domain]
        found = [get(key) is not None for key in keys]
        for key, there, accepted in zip(keys, found, (True, False, True, False), strict=False):
            if there:
                return Answer(accepted, key)
        return Answer(False, None, undecided=True)

    def line(self, key: bytes, value: bytes) -> Line | None:
        """The rule; a key that begins with `-` is taken for a refusal."""
        accepted = not key.startswith(MARK)
        name = key.removeprefix(MARK)
        local, at, domain = name.rpartition(b"@")
        return Line(domain if at else None, local if at else name, bool(at) and not local, accepted)

    def parse(self, line: bytes) -> Record | None:
        """The whole line, without what stands behind it."""
        return super().parse(line.rstrip(b" \t"))
