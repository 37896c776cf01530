"""Recipients of the domains that this host only relays to, from the files of `[[relay]]`.

A relayed domain that a file names has the recipients of all files that do; one that none
names is accepted whole.  A file that cannot be used, or was emptied, says what was published
of it last; where nothing was, what it may have listed is accepted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from rcptgen.host import Host
from rcptgen.listfiles import ListFile
from rcptgen.publish.guard import union
from rcptgen.reader import Report, State
from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind, Outcome, Verdict
from rcptgen.rules.overlay import Part, laid, table
from rcptgen.rules.table import Table

EMPTIED = "it has no recipients, and had some when it was published last"

LISTED, UNLISTED = "relayed, and in the file", "relayed, and not in the file"


@dataclass(frozen=True, slots=True)
class Recipients:
    """What the files say of one domain.

    `table` holds the names, None where nobody knows them: then all are accepted.  `claims` are
    the files behind it, each with the domain, to be known by the next run.  `kept`: whether what
    was published is to be kept beside `table`, since a file of these cannot be used.
    """

    table: Table | None
    claims: list[bytes]
    kept: bool


class Relays:
    """The files of a host.  `known` are the units and claims of the last publication, `forced` as in overlays."""

    def __init__(self, host: Host, known: Collection[bytes] = (), *, forced: bool = False) -> None:
        self.troubles: dict[bytes, str] = {}
        self._known = known
        self._files = host.relay_files
        self._last: dict[bytes, Recipients] = {}
        for one in self._files:
            if one.trouble:
                self.troubles[one.path] = one.why
            elif one.listing.is_blank and not forced and self._had_some(one):
                self.troubles[one.path] = EMPTIED
                host.units.note(Report(one.path, State.SUSPECT, EMPTIED))

    def _had_some(self, one: ListFile) -> bool:
        beginning = one.path + b"\0"
        return any(unit.startswith(beginning) for unit in self._known)

    def recipients(self, domain: bytes) -> Recipients:
        """What is known of a relayed domain; many addresses of one are asked for in a row."""
        if domain not in self._last:
            self._last = {domain: self._recipients(domain)}
        return self._last[domain]

    def _recipients(self, domain: bytes) -> Recipients:
        found: Table | None = None
        claims: list[bytes] = []
        kept = open_ = False
        for one in self._files:
            claim = one.path + b"\0" + domain
            part = one.listing.parts.get(domain)
            if one.path in self.troubles:
                if claim in self._known:
                    claims.append(claim)
                    kept = True
                # It may list the domain, where it was never read.
                open_ |= one.path not in self._known
            elif part is not None:
                claims.append(claim)
                mine = _table(one.path, part)
                found = mine if found is None else union(found, mine)
        return Recipients(None, claims, kept=False) if open_ else Recipients(found, claims, kept)

    def digest(self, domain: bytes) -> bytes:
        """What tells that the recipients of a domain are others; empty where they are not all known.

        The lines of single names do not count, as in Overlays.digest.
        """
        if self.troubles:
            return b""
        found = [(one.path, one.listing.parts[domain]) for one in self._files if domain in one.listing.parts]
        digest = blake2b(digest_size=16)
        for path, part in found:
            digest.update(repr((path, len(part.accepted), len(part.refused), sorted(part.prefixes.items()))).encode())
            digest.update((part.accepted.names.joined or b"") + b"\0" + (part.refused.names.joined or b""))
        return digest.digest() if found else b""

    def strange_counts(self) -> Iterator[tuple[bytes, int]]:
        """The files that have rules for domains that are not relayed here, with their number."""
        for one in self._files:
            if one.listing.strange.count:
                yield one.path, one.listing.strange.count


def _table(path: bytes, part: Part) -> Table:
    """What one file says of one domain; whom it does not list it refuses."""
    groups: list[tuple[Outcome, Names]] = [
        (Outcome(Verdict.DELIVER, Kind.RELAY, LISTED, path, lines=part.accepted), part.accepted.names),
        (Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, UNLISTED, path), part.refused.names),
    ]
    prefixes = {b"": Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, UNLISTED, path)}
    for name, (accepted, line) in part.prefixes.items():
        listed = Outcome(Verdict.DELIVER, Kind.RELAY, LISTED, path, line)
        prefixes[name] = listed if accepted else Outcome(Verdict.BOUNCE, Kind.NO_MAILBOX, UNLISTED, path, line)
    return table(groups, prefixes)


def relayed(rules: Table, recipients: Table) -> Table:
    """The rules of a domain in which what is remote is decided by `recipients`."""
    exact = {
        name: (recipients.match(name) or outcome) if outcome.verdict is Verdict.REMOTE else outcome.at(name)
        for name, outcome in rules.exact()
    }
    base = rules.prefixes.get(b"")
    if base is not None and base.verdict is Verdict.REMOTE:
        # Nothing of the domain is at home but single names.
        return laid(recipients, Table(exact, {}))
    return Table(exact, rules.prefixes)
