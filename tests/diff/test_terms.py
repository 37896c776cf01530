"""Rules against a file of whatever format: what it cannot say is no difference, what it can say is one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import everytarget
import parts
import pytest
import randomhosts
from applied import Applied, accepted, around
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from randomhosts import laid

from rcptgen.compiler import Output, Request, compile_host
from rcptgen.config import Config
from rcptgen.diff import CompiledSide, HostSide, Side, compare
from rcptgen.host import Host
from rcptgen.policy import Policy
from rcptgen.request import target_for
from rcptgen.rules.change import Change, What
from rcptgen.rules.table import Table
from rcptgen.targets.base import Answer, Target

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("_in_this_process")]

FEW = settings(
    max_examples=parts.rounds(3),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
HASHED = "dnset"
"""Its file has hashes for names: what only an old one refuses is not known."""

Variant = tuple[str, Mapping[str, Any]]


def variants() -> list[Variant]:
    """Every target, rcpt-map for a domain that the random hosts have."""
    return [(name, {"domain": "mail.example"} if name == "rcpt-map" else more) for name, more in everytarget.VARIANTS]


@dataclass(frozen=True)
class Published:
    """A host, its file of some format, the same rules in a file that states them, and what they are."""

    root: Path
    config: Config
    file: bytes
    stated: bytes
    target: Target
    tables: dict[bytes, Table]

    def compiled(self) -> Side:
        """The file."""
        return CompiledSide(self.file, self.target)

    def host(self) -> Side:
        """The host as it is now."""
        return HostSide(bytes(self.root), self.config, None)

    def rules(self) -> Side:
        """The rules as a file states them."""
        return CompiledSide(self.stated, target_for(Output("rcptgen", self.stated), self.config))

    def answers(self, addresses: list[bytes]) -> list[Answer]:
        """What the consumer of the file does."""
        reader = self.target.open(self.file)
        try:
            return list(reader.answers(addresses))
        finally:
            reader.close()


@contextmanager
def published(tmp_path: Path, table: randomhosts.Table, config: Config, variant: Variant) -> Iterator[Published]:
    name, options = variant
    with laid(tmp_path, table) as root:
        files = [bytes(root.parent / "file"), bytes(root.parent / "stated")]
        outputs = (Output(name, files[0], options=options), Output("rcptgen", files[1]))
        result = compile_host(root, config, Request(outputs, force=True))
        assert all(one.published for one in result.outputs)
        with Host.open(root, config, look_at_mailboxes=False) as host:
            policy = Policy(host)
            tables = {one.name: policy.shape(one).table for one in policy.domains()}
        try:
            yield Published(root, config, files[0], files[1], target_for(outputs[0], config), tables)
        finally:
            for file in files:
                os.unlink(file)


def differing(old: Side, new: Side) -> dict[bytes, list[Change]]:
    """The changes of each place that has any."""
    found = {one.place: list(one.changes) for one in compare(old, new)}
    return {place: changes for place, changes in found.items() if changes}


def hidden(name: str, local: bytes) -> bool:
    """Whether the key of a name is that of another's refusal."""
    return name == "morevalidrcptto" and local.startswith(b"-")


def edited(table: randomhosts.Table, which: int) -> randomhosts.Table:
    """The host without one of its dot-qmail files, and with an alias more."""
    files = sorted(path for path in table if "/.qmail" in path)
    gone = files[which % len(files)] if files else None
    return {path: thing for path, thing in table.items() if path != gone} | {"alias/.qmail-zz": randomhosts.MAIL}


@pytest.mark.parametrize("variant", variants(), ids=everytarget.called)
@FEW
@given(randomhosts.hosts(), randomhosts.configs(), st.integers(0, 50))
def test_only_what_the_consumer_does_otherwise_is_told(
    tmp_path: Path, variant: Variant, table: randomhosts.Table, config: Config, which: int
) -> None:
    # Where users/cdb is damaged qmail defers everything, and compile and diff end.
    assume("users/cdb" not in table)
    with (
        published(tmp_path, table, config, variant) as old,
        published(tmp_path, edited(table, which), config, variant) as new,
    ):
        for one in (old, new):
            for other in (one.host(), one.rules(), one.compiled()):
                assert differing(one.compiled(), other) == {}
                assert differing(other, one.compiled()) == {}
        before = {one.place: one.table for one in old.compiled().told(None, None)}
        by_host, by_rules = differing(old.compiled(), new.host()), differing(old.compiled(), new.rules())
        for domain in old.tables.keys() | new.tables.keys():
            place = b"@" + domain
            names = around(*(one.tables.get(domain, Table({}, {})) for one in (old, new)))
            locals_ = [name for name in names if name and name == name.lower()]
            asked = [name + place for name in locals_]
            rules = new.tables.get(domain, Table({}, {}))
            pairs = list(zip(locals_, old.answers(asked), new.answers(asked), strict=True))
            # What a look-up takes in beside the rules is not compared.
            pairs = [one for one in pairs if not (one[1].step or one[2].step or hidden(variant[0], one[0]))]
            if variant[0] == HASHED:
                pairs = [one for one in pairs if rules.exactly(one[0]) is not None]
            # What the old file and the new rules refuse is no change, though a new file may accept it.
            unlike = [one for one in pairs if one[1].accepted or accepted(rules.match(one[0]))]
            for found, some in ((by_host, pairs), (by_rules, unlike)):
                if any(was.accepted != now.accepted for _, was, now in some):
                    assert place in found
                if variant[0] == HASHED:
                    continue
                applied = Applied(before.get(place, Table({}, {})), found.get(place, []))
                for local, _, now in some:
                    note(f"{local!r} {place!r}")
                    assert applied.accepts(local) == now.accepted


def test_hashes_are_told_as_the_names_that_the_other_side_knows(tmp_path: Path) -> None:
    """What a wildcard in the zone stands for already is no change."""
    table = {
        "passwd": {"joe": 1001, "ann": 1002},
        "control/me": "mail.example\n",
        "~joe/.qmail-list-default": randomhosts.MAIL,
        "~joe/.qmail-old": randomhosts.MAIL,
    }
    more = {"~joe/.qmail-list-x": randomhosts.MAIL, "~ann/.qmail-new": randomhosts.MAIL}
    less = {path: thing for path, thing in table.items() if path != "~joe/.qmail-old"}
    variant: Variant = (HASHED, {})
    with (
        published(tmp_path, table, Config(), variant) as old,
        published(tmp_path, {**less, **more}, Config(), variant) as new,
    ):
        for other in (new.host(), new.rules()):
            (place, changes), *others = differing(old.compiled(), other).items()
            assert (place, others) == (b"@mail.example", [])
            known = {one.name: one.what for one in changes if len(one.name) < 40}
            assert known == {b"ann-new": What.GAINED}
            assert [one.what for one in changes if one.name not in known] == [What.LOST]
        assert [one.name for one in differing(new.host(), old.compiled())[b"@mail.example"] if len(one.name) < 40] == [
            b"ann-new"
        ]


def test_a_refusal_that_a_file_of_rules_does_not_state_is_no_difference(tmp_path: Path) -> None:
    """The zone is open for joe*, and refuses alias-*, which hides nothing among the rules; what is new is told."""
    table = {
        "passwd": {"joe": 1001},
        "control/me": "mail.example\n",
        "users/assign": "+joe:joe:1001:1001:/home/joe:-::\n=alias:alias:7790:2108:/var/qmail/alias:::\n.\n",
        "~joe/.qmail-default": randomhosts.MAIL,
    }
    with (
        published(tmp_path, table, Config(), (HASHED, {})) as old,
        published(tmp_path, {**table, "alias/.qmail-zz": randomhosts.MAIL}, Config(), (HASHED, {})) as new,
    ):
        assert differing(old.compiled(), old.rules()) == differing(old.rules(), old.compiled()) == {}
        for other in (new.host(), new.rules()):
            changes = differing(old.compiled(), other)[b"@mail.example"]
            assert {(one.what, one.name, one.prefix) for one in changes} == {(What.GAINED, b"alias-zz", False)}
