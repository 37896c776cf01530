"""Differences of lists, compiled files and hosts: applied to the old side they give the new one."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import everytarget
import parts
import pytest
import randomhosts
from applied import Applied, accepted, around
from hosts import Host as Laid
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from randomhosts import laid
from runs import called

from rcptgen.compiler import Output, Request, compile_host
from rcptgen.config import Config
from rcptgen.diff import CompiledSide, HostSide, compare
from rcptgen.diff.spool import listed
from rcptgen.host import Host
from rcptgen.policy import Policy
from rcptgen.request import target_for
from rcptgen.rules.change import Below, Change, What
from rcptgen.rules.names import Names
from rcptgen.rules.outcome import Kind, Outcome
from rcptgen.rules.shown import as_json
from rcptgen.rules.table import Table
from rcptgen.targets import target

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
FEW = settings(max_examples=parts.rounds(15), suppress_health_check=SLOW)
SOME = settings(max_examples=parts.rounds(60), suppress_health_check=SLOW)

Tables = dict[bytes, Table]


# --- through lists and JSON ----------------------------------------------------------------------

OUTCOMES = [listed(True, kind) for kind in (Kind.UNKNOWN, Kind.MAILBOX, Kind.CATCHALL)] + [listed(False)]
names = st.one_of(st.text("ab-", max_size=3).map(str.encode), st.sampled_from([b"a\xff", b"\x1b[31m", b"!a", b"a*"]))
some_rules = st.dictionaries(names, st.sampled_from(OUTCOMES), max_size=6)
domains = st.sampled_from([b"example.org", b"b.example", b"\xff.example"])
lists = st.dictionaries(domains, st.builds(Table, some_rules, some_rules), max_size=3)


def written(where: Path, given_tables: Tables) -> Path:
    """The rules as `list --json` writes them, domains in no order."""
    lines = []
    for domain, table in reversed(given_tables.items()):
        for rule in table.rules():
            members: dict[str, Any] = {"prefix": rule.prefix, "accepted": rule.outcome.accepted}
            members |= {"kind": rule.outcome.kind, **as_json("domain", domain), **as_json("name", rule.name)}
            lines.append(json.dumps(members) + "\n")
    descriptor, path = tempfile.mkstemp(dir=where)
    with open(descriptor, "w") as file:
        file.write("# rules\n" + "".join(lines))
    return Path(path)


def member(found: dict[str, Any], name: str) -> bytes:
    exact = found.get(f"{name}_b64")
    return base64.b64decode(exact) if exact is not None else found[name].encode()


def told(lines: Iterable[dict[str, Any]]) -> dict[bytes, list[Change]]:
    """The changes that JSON Lines speak of, by domain."""
    found: dict[bytes, list[Change]] = {}
    spared: list[tuple[bytes, bool]] = []
    for line in lines:
        if line.get("change") == "spared":
            spared.append((member(line, "name"), line["prefix"]))
        elif "change" in line:
            old, new = (listed(side["verdict"] == "deliver") if side else None for side in (line["old"], line["new"]))
            change = Change(What(line["change"]), member(line, "name"), line["prefix"], old, new)
            spared = []
            found.setdefault(member(line, "domain"), []).append(change)
        if spared:
            below = Below(Names(n for n, p in spared if not p), tuple(n for n, p in spared if p))
            some = found[member(line, "domain")]
            last = some[-1]
            some[-1] = Change(last.what, last.name, last.prefix, last.old, last.new, spares=below)
    return found


@SOME
@given(lists, lists)
def test_the_json_of_a_difference_makes_the_new_list_of_the_old_one(tmp_path: Path, old: Tables, new: Tables) -> None:
    done = called("diff", "--json", written(tmp_path, old), written(tmp_path, new))
    head, *lines, foot = done.lines
    assert head["version"] == 1
    changes = told(lines)
    same = True
    for domain in old.keys() | new.keys() | changes.keys():
        before, after = old.get(domain, Table({}, {})), new.get(domain, Table({}, {}))
        applied = Applied(before, changes.get(domain, []))
        for name in around(before, after):
            assert applied.accepts(name) == accepted(after.match(name)), (domain, name)
            same &= accepted(before.match(name)) == accepted(after.match(name))
    assert done.status == int(bool(foot["differing"]))
    assert same or done.status == 1


def addresses(table: Table, domain: bytes) -> Iterator[tuple[bytes, bytes]]:
    for name in around(table):
        yield name, name + b"@" + domain


@SOME
@given(lists, lists)
def test_an_address_of_one_side_alone_stands_in_addresses_or_under_a_wildcard_there(
    tmp_path: Path, old: Tables, new: Tables
) -> None:
    old, new = ({d: t for d, t in side.items() if d == b"example.org"} for side in (old, new))
    plain = [{d: Table(*map(dict, _printable(t))) for d, t in side.items()} for side in (old, new)]
    done = called("diff", "--addresses", *(written(tmp_path, side) for side in plain))
    lines = done.out.splitlines()
    assert all(line[0] in "+-" for line in lines)
    before, after = (side.get(b"example.org", Table({}, {})) for side in plain)
    for name in around(before, after):
        was, now = accepted(before.match(name)), accepted(after.match(name))
        if was != now and b"\n" not in name:
            sign, address = "-" if was else "+", name.decode() + "@example.org"
            assert any(
                line == sign + address
                or (line[0] == sign and "*@" in line and address.startswith(line[1:].split("*@")[0]))
                for line in lines
            ), address


def _printable(table: Table) -> tuple[list[tuple[bytes, Outcome]], list[tuple[bytes, Outcome]]]:
    wanted = b"ab-"
    exact = [(name, outcome) for name, outcome in table.exact() if not name.strip(wanted)]
    return exact, [(name, outcome) for name, outcome in table.prefixes.items() if not name.strip(wanted)]


# --- hosts -----------------------------------------------------------------------------------------


pairs = st.tuples(randomhosts.hosts(), st.one_of(randomhosts.hosts(), st.none()))


def tables(root: Path, config: Config) -> Tables:
    """What policy makes of every domain of a host."""
    with Host.open(root, config, look_at_mailboxes=False) as host:
        policy = Policy(host)
        return {one.name: policy.shape(one).table for one in policy.domains()}


@contextmanager
def both(tmp_path: Path, pair: tuple[randomhosts.Table, randomhosts.Table | None]) -> Iterator[tuple[Path, Path]]:
    """Two hosts; without a second one, the first with its dot-qmail files gone or opened."""
    first, second = pair
    # Where users/cdb is damaged qmail defers everything, and compile and diff end.
    assume("users/cdb" not in first and (second is None or "users/cdb" not in second))
    if second is None:
        second = {
            path: thing for number, (path, thing) in enumerate(first.items()) if number % 3 or "/.qmail" not in path
        }
        second["alias/.qmail-default"] = "./Mailbox\n"
    with laid(tmp_path, first) as old, laid(tmp_path, second) as new:
        yield old, new


def host(root: Path, config: Config) -> HostSide:
    return HostSide(bytes(root), config, None)


@pytest.mark.root
@pytest.mark.usefixtures("_in_this_process")
@FEW
@given(pairs, randomhosts.configs())
def test_between_hosts_the_changes_make_the_new_one_of_the_old(
    tmp_path: Path, pair: tuple[randomhosts.Table, randomhosts.Table | None], config: Config
) -> None:
    with both(tmp_path, pair) as (old, new):
        before, after = tables(old, config), tables(new, config)
        found = {one.place: list(one.changes) for one in compare(host(old, config), host(new, config))}
        assert found.keys() == {b"", *(b"@" + domain for domain in before.keys() | after.keys())}
        for domain in before.keys() | after.keys():
            one, other = before.get(domain, Table({}, {})), after.get(domain, Table({}, {}))
            applied = Applied(one, found[b"@" + domain])
            for name in around(one, other):
                assert applied.accepts(name) == accepted(other.match(name)), (domain, name)
        assert not any(list(one.changes) for one in compare(host(new, config), host(new, config)))


@pytest.mark.root
@pytest.mark.usefixtures("_in_this_process")
@pytest.mark.parametrize("name", ["validrcptto", "rcptgen", "text"])
@FEW
@given(pairs, randomhosts.configs())
def test_between_a_compiled_file_and_a_host_the_changes_are_those_of_the_next_compile(
    tmp_path: Path, name: str, pair: tuple[randomhosts.Table, randomhosts.Table | None], config: Config
) -> None:
    """And there are none where it was compiled from the host."""
    chosen = target(name, break_=config.qmail.break_.encode())
    with both(tmp_path, pair) as roots:
        files = [bytes(root.parent / "list") for root in roots]
        for root, file in zip(roots, files, strict=True):
            compile_host(root, config, Request((Output(name, file),), force=True))
        old, new = (CompiledSide(file, chosen) for file in files)
        for file, root in zip(files, roots, strict=True):
            compiled = CompiledSide(file, chosen)
            assert not any(list(one.changes) for one in compare(compiled, compiled))
            for one in compare(compiled, host(root, config)):
                assert list(one.changes) == [], one.place
            for one in compare(host(root, config), compiled):
                assert list(one.changes) == [], one.place
        reader = chosen.open(files[1])
        try:
            rules = {one.place: one.table for one in old.told(None, None)}
            for compared in (compare(old, new), compare(old, host(roots[1], config))):
                for one in compared:
                    applied = Applied(rules.get(one.place, Table({}, {})), list(one.changes))
                    for local in filter(
                        None, around(applied.old, Table({}, dict.fromkeys(applied.wildcards, listed(True))))
                    ):
                        address = local + one.place
                        if address == address.lower():
                            note(f"{address!r}")
                            assert applied.accepts(local) == reader.answer(address).accepted, address
        finally:
            reader.close()
            for file in files:
                os.unlink(file)


@pytest.mark.root
@pytest.mark.usefixtures("_in_this_process")
@pytest.mark.parametrize("variant", everytarget.VARIANTS, ids=everytarget.called)
def test_a_compiled_file_does_not_differ_from_itself(tmp_path: Path, variant: tuple[str, dict[str, Any]]) -> None:
    host_ = Laid(
        tmp_path / "host",
        {
            "control/me": "example.org\n",
            "control/locals": "example.org\nb.example\n",
            "control/rcpthosts": "example.org\nb.example\nrelay.example\n",
            "passwd": {"joe": 1001, "ann": 1002},
            "~joe/.qmail-default": "./Mailbox\n",
            "~joe/.qmail-spam": "|exit 100\n",
            "~joe/.qmail-a:b": "&x@far.example\n",
            "~joe/.qmail-a-default": "|exit 100\n",
            "~ann/.qmail-list-default": "&x@far.example\n",
            "alias/.qmail-postmaster": "admin@far.example\n",
            # Without a wildcard: every format has something to say of it.
            "control/virtualdomains": "v.example:alias-v\n",
            "alias/.qmail-v-info": "&x@far.example\n",
        },
    )
    name, options = variant
    file = bytes(tmp_path / "list")
    output = Output(name, file, options=options)
    compile_host(host_.root, Config(), Request((output,), force=True))
    side = CompiledSide(file, target_for(output, Config()))
    found = list(compare(side, CompiledSide(file, target_for(output, Config()))))
    assert found
    assert not any(list(one.changes) for one in found)
