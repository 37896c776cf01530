"""Replay over logs that were written from known deliveries finds every planted loss and invents none."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import inprocess
import maillogs
import parts
import pytest
import randomhosts
from hosts import Host as Laid
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from maillogs import FRAMES, Delivery
from randomhosts import laid
from runs import Names, Site, called, forked_workers

from rcptgen.config import Config, Extra
from rcptgen.host import Host
from rcptgen.maillogs.logs import Logs
from rcptgen.qmail.routing import Local
from rcptgen.replay import Found, HostJudge, Origins, Replay
from rcptgen.rules.outcome import Verdict
from rcptgen.rules.shown import shown

DOMAINS = {b"example.org": b"", b"shop.example": b"joe-shop-", b"club.example": b"club.example-"}


class Known:
    """A list that accepts the addresses it is made of, in the domains above."""

    def __init__(self, accepted: Sequence[bytes]) -> None:
        self.accepted = {one.lower() for one in accepted}
        self.asked: list[bytes] = []

    def accepts(self, addresses: Sequence[bytes]) -> list[bool | None]:
        self.asked += addresses
        known = [one.lower().rpartition(b"@")[2] in DOMAINS for one in addresses]
        return [one.lower() in self.accepted if here else None for one, here in zip(addresses, known, strict=True)]


def rewrite(address: bytes) -> bytes | None:
    prepend = DOMAINS.get(address.rpartition(b"@")[2].lower())
    return None if prepend is None else prepend + address


NAMES: Names = {
    "passwd": {"joe": 1001, "ann": 1002},
    "control/me": "mail.example.org\n",
    "control/locals": "example.org\n",
    "control/virtualdomains": "shop.example:joe-shop\nclub.example:club.example\n",
    "~joe/.qmail-list": "ann\n",
    "~joe/.qmail-shop-orders": "ann\n",
    "alias/.qmail-postmaster": "joe\n",
    "alias/.qmail-club:example-info": "joe\n",
}


@pytest.fixture
def origins(tmp_path: Path) -> Iterator[Origins]:
    with forked_workers(), Host.open(Laid(tmp_path / "host", NAMES).root) as host:
        yield Origins(host.routing)


def a_day(chance: random.Random, size: int = 400) -> tuple[list[Delivery], list[bytes]]:
    """A day's deliveries, and every address that a right list accepts."""
    names = [name + b"%d" % at for name in (b"Joe", b"ann.b", b"x-y-") for at in range(9)]
    people = [name + b"@" + domain for name in names for domain in DOMAINS]
    nobody = [b"nosuch%d@%s" % (at, domain) for at in range(50) for domain in DOMAINS]
    day = []
    for _ in range(size):
        fate = chance.choice(["delivered"] * 6 + ["bounced"] * 3 + ["deferred", "remote"])
        address = {"bounced": chance.choice(nobody), "remote": b"x@far.example"}.get(fate, chance.choice(people))
        day.append(Delivery(address, fate, submitted=fate == "delivered" and chance.random() < 0.1))
    return day, people


def run(tmp_path: Path, judge: Known, origins: Origins, *logs: bytes) -> Found:
    paths = []
    for at, log in enumerate(logs):
        path = tmp_path / f"log{at}"
        path.write_bytes(log)
        paths.append(os.fsencode(path))
    logs_ = Logs(paths, {b"%d" % maillogs.LOCAL_UID})
    found = Replay(judge, lambda: origins).run(logs_.events())
    assert logs_.statistics.troubles == []
    assert logs_.statistics.unknown_lines == 0
    return found


def expect(found: Found, day: Sequence[Delivery], planted: set[bytes]) -> None:
    """Every planted loss, how often it was delivered, and nothing else."""
    lost: dict[bytes, int] = {}
    for one in day:
        if one.fate == "delivered" and one.address in planted and not one.submitted:
            lost[one.address] = lost.get(one.address, 0) + 1
    assert {one.address: one.count for one in found.lost.recipients.values()} == lost
    assert found.lost.count == sum(lost.values())
    assert found.unsure.count == 0
    assert found.delivered == sum(one.fate == "delivered" for one in day)
    assert found.failed == found.avoided.count == sum(one.fate == "bounced" for one in day)
    assert found.unknown_recipients == len({one.address for one in day if one.fate == "bounced"})
    assert found.submitted.count == sum(one.submitted and one.address in planted for one in day)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("frame", FRAMES)
def test_a_day_of_qmail(tmp_path: Path, origins: Origins, frame: str, seed: int) -> None:
    chance = random.Random(seed)
    day, people = a_day(chance)
    planted = set(chance.sample(people, 5))
    log = maillogs.text(maillogs.qmail_lines(day, rewrite, chance), FRAMES[frame])
    found = run(tmp_path, Known([one for one in people if one not in planted]), origins, log)
    expect(found, day, planted)
    assert found.bounces == found.bounces_avoided == found.failed


@pytest.mark.parametrize("frame", ["multilog", "syslog"])
def test_a_day_in_several_files_given_in_any_order(tmp_path: Path, origins: Origins, frame: str) -> None:
    """Deliveries that begin in one file and end in the next are put together."""
    chance = random.Random(7)
    day, people = a_day(chance)
    planted = set(chance.sample(people, 5))
    log = maillogs.text(maillogs.qmail_lines(day, rewrite, chance), FRAMES[frame]).splitlines(keepends=True)
    pieces = [b"".join(log[at : at + 97]) for at in range(0, len(log), 97)]
    chance.shuffle(pieces)
    expect(run(tmp_path, Known([one for one in people if one not in planted]), origins, *pieces), day, planted)


def test_a_log_that_begins_in_the_middle(tmp_path: Path, origins: Origins) -> None:
    """What has no beginning is not paired with anything; the rest is found."""
    chance = random.Random(3)
    day, people = a_day(chance)
    log = maillogs.text(maillogs.qmail_lines(day, rewrite, chance), FRAMES["multilog"]).splitlines(keepends=True)
    found = run(tmp_path, Known(people), origins, b"".join(log[len(log) // 2 :]))
    assert found.lost.count == found.unsure.count == 0
    assert found.bounces == found.bounces_avoided + found.bounces_unknown


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("program", ["Postfix", "Exim"])
def test_a_day_of_others(tmp_path: Path, origins: Origins, program: str, seed: int) -> None:
    chance = random.Random(seed)
    day, people = a_day(chance)
    planted = set(chance.sample(people, 5))
    if program == "Postfix":
        lines = maillogs.postfix_lines(day, chance)
        log = b"".join(maillogs.postfix_frame(at, line) + b"\n" for at, line in enumerate(lines))
    else:
        log = maillogs.text(maillogs.exim_lines(day, chance), maillogs.exim_frame)
    found = run(tmp_path, Known([one for one in people if one not in planted]), origins, log)
    expect(found, day, planted)
    assert found.elsewhere.count == sum(one.fate == "remote" for one in day)
    assert found.bounces == found.bounces_avoided == found.failed


@pytest.mark.parametrize("frame", FRAMES)
def test_a_day_of_smtp_servers(tmp_path: Path, origins: Origins, frame: str) -> None:
    """What they took is no delivery, and so no loss."""
    chance = random.Random(5)
    day, people = a_day(chance)
    day = [one for one in day if one.fate in ("delivered", "bounced")]
    refused = set(people[:40])
    log = maillogs.text(maillogs.smtpd_lines(day, chance), FRAMES[frame])
    found = run(tmp_path, Known(people[40:]), origins, log)
    assert found.lost.count == found.delivered == 0
    assert found.admitted == sum(one.fate == "delivered" for one in day)
    assert found.turned_away.count == sum(one.fate == "delivered" and one.address in refused for one in day)
    assert (found.refused, found.let_in.count) == (sum(one.fate == "bounced" for one in day), 0)


def test_each_recipient_is_looked_up_once(tmp_path: Path, origins: Origins) -> None:
    day, people = a_day(random.Random(1), 9000)
    judge = Known(people)
    run(
        tmp_path,
        judge,
        origins,
        maillogs.text(maillogs.qmail_lines(day, rewrite, random.Random(1)), FRAMES["multilog"]),
    )
    assert len(judge.asked) == len(set(judge.asked))


# --- Random hosts ------------------------------------------------------------------------------


def plantable(address: bytes) -> bool:
    """Whether [extra] can refuse the address, and a log can spell it."""
    local, at, domain = address.rpartition(b"@")
    return (
        bool(at and local and domain)
        and maillogs.logsafe(address) == address
        and b"*" not in address
        and b"%" not in address
    )


@pytest.mark.root
@settings(
    max_examples=parts.rounds(40),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(table=randomhosts.hosts(), data=st.data())
def test_random_hosts(table: randomhosts.Table, data: st.DataObject, tmp_path: Path) -> None:
    """What a host delivered is never a loss of its own list; what the list was made to refuse always is."""
    with pytest.MonkeyPatch.context() as patch, laid(tmp_path, table) as root:
        inprocess.use(patch)
        with Host.open(root) as host:
            prepends = [(one.name, host.rules(one.name).prepend) for one in host.domains()]
            domains = [(name.decode("latin-1"), put.decode("latin-1")) for name, put in prepends if put is not None]
            aimed = randomhosts.aimed(table, domains)
            asked = data.draw(st.lists(randomhosts.addresses(), max_size=10))
            asked += random.Random(len(aimed)).sample(aimed, min(len(aimed), 40))
            addresses = list(dict.fromkeys(one for one in asked if plantable(one)))
            fates = {Verdict.DELIVER: "delivered", Verdict.DEFER: "deferred", Verdict.BOUNCE: "bounced"}
            outcomes = [one.verdict for one in host.decide_many(addresses)]
            day = [Delivery(a, fates.get(v, "remote")) for a, v in zip(addresses, outcomes, strict=True)]
            lines = maillogs.qmail_lines(day, local_name(host), random.Random(len(day)))
            log = maillogs.text(lines, FRAMES["multilog"])
            origins = Origins(host.routing)
        delivered = [one.address for one in day if one.fate == "delivered"]
        planted = set(data.draw(st.lists(st.sampled_from(delivered), max_size=3))) if delivered else set()
        config = Config(extra=Extra(reject=tuple(os.fsdecode(one) for one in planted)))
        note(log.decode("latin-1"))
        with Host.open(root, config) as host:
            named = {one.name for one in host.domains()}
            path = root.parent / "log"
            path.write_bytes(log)
            found = Replay(HostJudge(host), lambda: origins).run(Logs([os.fsencode(path)]).events())
    lowered = {one.lower() for one in planted}
    # A domain that only a .suffix line stands for is in no list.
    unnamed = {one.lower() for one in delivered if one.lower().rpartition(b"@")[2] not in named}
    wanted = {one.lower() for one in delivered} & lowered | unnamed
    lost = {one.lower() for one in found.lost.recipients}
    unsure = [f"{shown(one.address)} {one.note}".lower() for one in found.unsure.recipients.values()]
    assert lost <= wanted
    assert [one for one in wanted - lost if not any(shown(one) in text for text in unsure)] == []
    assert [text for text in unsure if not any(shown(one) in text for one in wanted)] == []


def local_name(host: Host) -> maillogs.Rewrite:
    """qmail-send's rewriting on this host."""

    def name(address: bytes) -> bytes | None:
        route = host.routing.route(address)
        return route.name + b"@" + route.host if isinstance(route, Local) else None

    return name


# --- The command line --------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, NAMES)


def write(site: Site, *lines: bytes) -> Path:
    path = site.top / "current"
    path.write_bytes(b"".join(FRAMES["multilog"](at, line) + b"\n" for at, line in enumerate(lines)))
    return path


def delivery(number: int, name: bytes, how: bytes = b"success: did_1+0+0/") -> tuple[bytes, bytes]:
    return b"starting delivery %d: msg 7 to local %s" % (number, name), b"delivery %d: " % number + how


FAILED = b"failure: Sorry,_no_mailbox_here_by_that_name._(#5.1.1)/"


@pytest.mark.root
def test_a_loss_is_named_with_file_and_line(site: Site) -> None:
    log = write(
        site,
        *delivery(1, b"joe-shop-orders@shop.example"),
        *delivery(2, b"joe-shop-gone@shop.example"),
        *delivery(3, b"joe-shop-gone@shop.example"),
        *delivery(4, b"nobody@example.org", FAILED),
        b"bounce msg 7 qp 8",
    )
    done = site.run("replay", log)
    assert done.status == 1
    assert done.out.splitlines() == [
        f"refused\tgone@shop.example\t2 times\t{log}:4",
        "delivered: 3, of which the list refuses 2",
        "bounced: 1, of which the list would have refused 1",
        "bounces sent: 1, of which the list would have avoided 1",
        "unknown recipients turned away: 1",
    ]
    assert done.err == "9 lines in 1 logs: 9 of qmail-send\n"
    found = site.run("replay", "--json", log).json
    assert (found["version"], found["status"], found["lines"]) == (1, 1, 9)
    assert found["lost"]["recipients"] == [{"address": "gone@shop.example", "count": 2, "file": str(log), "line": 4}]
    assert found["avoided"]["recipients"][0]["address"] == "nobody@example.org"


@pytest.mark.root
def test_a_compiled_file_is_asked_instead_of_the_host(site: Site) -> None:
    site.published()
    site.host.write("~joe/.qmail-new", "ann\n")
    log = write(site, *delivery(1, b"joe-new@example.org"), *delivery(2, b"joe-shop-orders@Shop.Example"))
    assert site.run("replay", log).status == 0
    done = site.run("replay", "-t", site.output, log)
    assert (done.status, done.out.splitlines()[0].split("\t")[:2]) == (1, ["refused", "joe-new@example.org"])


@pytest.mark.root
def test_a_server_without_qmail_needs_the_file_alone(site: Site) -> None:
    """For Postfix; what stands on qmail's local channel means nothing without virtualdomains."""
    site.published()
    empty = site.top / "empty"
    empty.mkdir()
    log = site.top / "mail.log"
    line = maillogs.postfix_frame(
        0, (b"virtual", b"A1: to=<list@example.org>, relay=virtual, delay=1, status=sent (ok)")
    )
    log.write_bytes(line + b"\n")
    done = called("--root", empty, "replay", "-t", site.output, log)
    assert (done.status, done.out.splitlines()[0]) == (1, "refused\tlist@example.org\tonce\t" + f"{log}:1")
    done = called("--root", empty, "replay", "-t", site.output, write(site, *delivery(1, b"joe@example.org")))
    assert (done.status, done.out) == (78, "")


@pytest.mark.root
def test_a_domain_that_is_gone_is_a_loss(site: Site) -> None:
    done = site.run("replay", "--json", write(site, *delivery(1, b"old.example-joe@old.example")))
    (one,) = done.json["lost"]["recipients"]
    assert (done.status, one["address"]) == (1, "joe@old.example")
    assert one["note"] == "its domain is not of this list any more"


@pytest.mark.root
def test_a_domain_that_no_list_names_is_a_loss(site: Site) -> None:
    """A .suffix line brings it here, and the host delivers; the list has it when suffix_domains does."""
    site.host.write("control/virtualdomains", ".shop.example:joe-shop\n")
    log = write(site, *delivery(1, b"joe-shop-orders@eu.shop.example"))
    done = site.run("replay", log)
    assert (done.status, done.out.split("\t")[1]) == (1, "orders@eu.shop.example")
    config = site.top / "config.toml"
    config.write_text('[policy]\nsuffix_domains = ["eu.shop.example"]\n')
    assert site.run("--config", config, "replay", log).status == 0


@pytest.mark.root
def test_what_is_not_judged_is_said(site: Site) -> None:
    log = site.top / "mail.log"
    lines = [
        (b"virtual", b"A1: to=<joe@old.example>, relay=virtual, delay=1, status=sent (ok)"),
        (b"local", b"A2: to=<root>, relay=local, delay=1, status=sent (ok)"),
    ]
    qmail = [b"delivery 4: success: did_1+0+0/", *delivery(5, b"x" * 900 + b"@example.org")]
    text = [maillogs.postfix_frame(0, line) for line in lines] + [FRAMES["syslog"](0, line) for line in qmail]
    log.write_bytes(b"\n".join(text) + b"\n")
    done = site.run("replay", log)
    assert done.status == 0
    assert done.out.splitlines()[-4:] == [
        "in domains the list does not speak of: 1",
        "not judged, without a domain: 1",
        "not judged, too long for the log: 1",
        "not judged, begun before the logs: 1",
    ]
    found = site.run("replay", "--json", log).json["elsewhere"]
    assert found == {
        "count": 1,
        "domains": [{"domain": "old.example", "count": 1, "file": str(log), "line": 1}],
        "more": False,
    }


@pytest.mark.root
def test_hostile_names_are_escaped(site: Site) -> None:
    log = site.top / "main\x1b]0;log"
    log.write_bytes(b"2026-11-22 10:00:00 1rABcD-000abc-Zz => \x1b[31m\xffred@example.org R=a T=b\n")
    done = site.run("-v", "replay", log)
    assert (done.status, "\x1b" in done.out + done.err) == (1, False)
    assert done.out.startswith("refused\t\\x1b[31m\\xffred@example.org\tonce\t")
    (one,) = site.run("replay", "--json", log).json["lost"]["recipients"]
    assert (one["address"], one["address_b64"]) == ("\x1b[31m\\xffred@example.org", "G1szMW3/cmVkQGV4YW1wbGUub3Jn")


@pytest.mark.root
def test_a_prepend_that_has_changed_is_not_called_a_loss(site: Site) -> None:
    done = site.run("replay", "--json", write(site, *delivery(1, b"ann-orders@shop.example")))
    assert (done.status, done.json["lost"]["count"], done.json["unsure"]["count"]) == (1, 0, 1)
    assert "virtualdomains" in done.json["unsure"]["recipients"][0]["note"]


@pytest.mark.root
def test_two_addresses_with_one_local_name(site: Site) -> None:
    """x@shop.example goes to joe-shop-a, and so does a@shop.example: the log cannot tell."""
    site.host.write("control/virtualdomains", "shop.example:joe-shop\nx@shop.example:joe-shop-a\n")
    site.host.write("~joe/.qmail-shop-a-x", "ann\n")
    log = write(site, *delivery(1, b"joe-shop-a-x@shop.example"))
    assert site.run("replay", log).status == 0
    config = site.top / "config.toml"
    config.write_text('[extra]\nreject = ["x@shop.example"]\n')
    done = site.run("--config", config, "replay", "--json", log)
    assert (done.status, done.json["lost"]["count"]) == (1, 0)
    (one,) = done.json["unsure"]["recipients"]
    assert "a-x@shop.example or x@shop.example" in one["note"]


@pytest.mark.root
def test_what_the_log_writes_as_another_character_is_unsure(site: Site) -> None:
    done = site.run("replay", "--json", write(site, *delivery(1, b"no_body@example.org")))
    assert (done.status, done.json["lost"]["count"], done.json["unsure"]["count"]) == (1, 0, 1)


@pytest.mark.root
@pytest.mark.parametrize(("uid", "status"), [(0, 0), (7791, 1), (1001, 1)])
def test_messages_of_this_machine(site: Site, uid: int, status: int) -> None:
    """root's cron never asked the list: told apart, and no loss.  Users' messages may have come by SMTP."""
    info = b"info msg 7: bytes 1 from <> qp 3 uid %d" % uid
    done = site.run("replay", "--json", write(site, info, *delivery(1, b"joe-nosuch@example.org")))
    assert (done.status, done.json["submitted"]["count"]) == (status, 1 - status)
    assert site.run("replay", "--local-uid", "1001", write(site, info, *delivery(1, b"x@example.org"))).status == (
        uid == 7791
    )


@pytest.mark.root
def test_what_was_handed_on(site: Site) -> None:
    """A front end that takes everything hands on what the next server bounces: --final leaves that out."""
    log = site.top / "mail.log"
    text = (
        b"A1: to=<nosuch@example.org>, relay=mail.example.org[192.0.2.1]:25, delay=1, dsn=2.0.0, status=sent (250 ok)"
    )
    log.write_bytes(maillogs.postfix_frame(0, (b"smtp", text)) + b"\n")
    done = site.run("replay", "--json", log)
    assert (done.status, done.json["handed_on"]) == (1, 1)
    assert done.json["lost"]["recipients"][0]["note"] == "handed on to another server"
    done = site.run("replay", "--json", "--final", log)
    assert (done.status, done.json["not_final"]["count"]) == (0, 1)
    log.write_bytes(log.read_bytes().replace(b"mail.example.org[192.0.2.1]", b"127.0.0.1[127.0.0.1]"))
    assert site.run("replay", log).status == 0  # a content filter: the message comes back


@pytest.mark.root
def test_one_domain_only(site: Site) -> None:
    log = write(site, *delivery(1, b"joe-nosuch@example.org"), *delivery(2, b"joe-shop-no@shop.example"))
    found = site.run("replay", "--json", "--domain", "Shop.Example", log).json
    assert [one["address"] for one in found["lost"]["recipients"]] == ["no@shop.example"]
    assert found["delivered"] == 1


@pytest.mark.root
def test_one_bounce_for_a_recipient_that_stays_is_not_avoided(site: Site) -> None:
    """A bounce tells of all failed recipients of a message: the list must refuse each of them."""
    site.host.write("~joe/.qmail-full", "ann\n")
    log = write(
        site,
        *delivery(1, b"nosuch@example.org", FAILED),
        *delivery(2, b"joe-full@example.org", b"failure: mailbox_full/"),
        b"bounce msg 7 qp 9",
        *delivery(3, b"nosuch@example.org", FAILED),
        b"bounce msg 7 qp 9",
        *delivery(4, b"nosuch@example.org", FAILED),
        b"starting delivery 5: msg 7 to remote x@far.example",
        b"delivery 5: failure: no_such_user/",
        b"bounce msg 7 qp 9",
        b"bounce msg 8 qp 9",
        *delivery(6, b"joe-full@example.org", b"failure: mailbox_full/"),
        b"triple bounce: discarding bounce/7",
        b"end msg 7",
        *delivery(7, b"nosuch@example.org", FAILED),  # the inode is of another message now
        b"bounce msg 7 qp 9",
    )
    found = site.run("replay", "--json", log).json
    assert (found["bounces"], found["bounces_avoided"], found["bounces_unknown"]) == (5, 2, 1)
    assert (found["failed"], found["avoided"]["count"], found["unknown_recipients"]) == (6, 4, 1)


@pytest.mark.root
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_compressed(site: Site, pack: Callable[[bytes], bytes]) -> None:
    """By what is in the file, whatever it is called."""
    log = write(site, *delivery(1, b"joe-nosuch@example.org"))
    log.write_bytes(pack(log.read_bytes()))
    assert site.run("replay", log).out.startswith("refused\tjoe-nosuch@example.org")


@pytest.mark.root
def test_stdin(site: Site) -> None:
    log = write(site, *delivery(1, b"joe-nosuch@example.org"))
    keep = os.dup(0)
    try:
        with log.open("rb") as file:
            os.dup2(file.fileno(), 0)
        done = site.run("replay", "-")
    finally:
        os.dup2(keep, 0)
        os.close(keep)
    assert (done.status, done.out.split("\t")[3].split("\n")[0]) == (1, "-:2")


@pytest.mark.root
def test_many_losses_are_counted_and_some_are_shown(site: Site) -> None:
    lines = [line for at in range(2000) for line in delivery(at, b"joe-no%d@example.org" % at)]
    done = site.run("replay", write(site, *lines))
    assert done.out.count("refused\t") == 21
    assert "refused\t... and more than 980 more recipients\n" in done.out
    assert "of which the list refuses 2000\n" in done.out
    found = json.loads(site.run("replay", "--json", site.top / "current").out)
    assert (len(found["lost"]["recipients"]), found["lost"]["more"], found["lost"]["count"]) == (1000, True, 2000)
