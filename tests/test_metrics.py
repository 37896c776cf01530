"""The Prometheus textfile: what it says of good and bad runs, and that it never fails one."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from runs import Site

from rcptgen.cli import Globals
from rcptgen.cli.compile_ import compiled
from rcptgen.compiler import compile_host
from rcptgen.config import Config, Metrics
from rcptgen.errors import Busy, ConfigurationError, PublishFailed
from rcptgen.metrics import Service, measured, write
from rcptgen.publish.history import Rollback
from rcptgen.reader import Report, State
from rcptgen.request import Held, Outcomes, Output, Request, Result

NAMES = {
    "control/me": "mail.example\n",
    "control/locals": "mail.example\n",
    "control/virtualdomains": "shop.example:alias-shop\n",
    "control/rcpthosts": "mail.example\nshop.example\nbackup.example\n",
    "alias/.qmail-info": "./Mailbox\n",
    "alias/.qmail-postmaster": "&root@elsewhere.example\n",
    "alias/.qmail-shop-default": "./Mailbox\n",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rcptgen.prom"


@pytest.fixture
def config(file: Path) -> Config:
    return Config(metrics=Metrics(textfile=str(file)))


def samples(file: Path) -> dict[str, float]:
    """Every sample as it stands in the file."""
    found = {}
    for family in text_string_to_metric_families(file.read_text()):
        for one in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in one.labels.items())
            found[one.name + (f"{{{labels}}}" if labels else "")] = one.value
    return found


def result(status: int = 0, *, published: bool = True) -> Result:
    """A run with one of everything."""
    one = Outcomes(Output("validrcptto", b"/var/qmail/control/a\nb.cdb"), records=7, published=published, changed=True)
    one.widened_count, one.unsayable_count = 2, 1
    held = [Held(b"a.example", 1.0, "", 3, ()), Held(b"a.example", 1.0, "", 4, ()), Held(b"b.example", 1.0, "", 1, ())]
    units = [Report(b"/a", State.FAILED), Report(b"/b", State.DEFERRING), Report(b"/c", State.SUSPECT)]
    return Result(
        status,
        [one],
        units,
        9,
        held=held,
        kept={b"/a": "gone"},
        classes={"local": 1, "virtual": 2},
        recipients={("local", "mailbox"): 5, ("virtual", "catch-all"): 2},
        approximate=6,
        rollback=Rollback(number=1, time=40.0, since=50.0),
        seconds=1.5,
    )


def test_what_a_run_says(config: Config, file: Path) -> None:
    service = Service(watches=20, swept=3, events=99)
    assert write(config, result(3), service=service, now=1000.0) == ""
    output = "path=/var/qmail/control/a\\x0ab.cdb,target=validrcptto"
    found = samples(file)
    assert [name for name in found if name.startswith("rcptgen_build_info{version=")] != []
    assert {name: value for name, value in found.items() if "build_info" not in name} == {
        "rcptgen_last_run_timestamp_seconds": 1000.0,
        "rcptgen_last_run_status": 3.0,
        "rcptgen_last_success_timestamp_seconds": 1000.0,
        "rcptgen_runs_total": 1.0,
        "rcptgen_publishes_total": 1.0,
        "rcptgen_guard_refusals_total": 1.0,
        "rcptgen_watches": 20.0,
        "rcptgen_swept_paths": 3.0,
        "rcptgen_events_total": 99.0,
        "rcptgen_compile_duration_seconds": 1.5,
        "rcptgen_rolled_back_since_timestamp_seconds": 50.0,
        "rcptgen_domains{class=local}": 1.0,
        "rcptgen_domains{class=virtual}": 2.0,
        "rcptgen_recipients{class=local,kind=mailbox}": 5.0,
        "rcptgen_recipients{class=virtual,kind=catch-all}": 2.0,
        f"rcptgen_records{{{output}}}": 7.0,
        f"rcptgen_over_acceptances{{{output}}}": 2.0,
        f"rcptgen_unsayable{{{output}}}": 1.0,
        "rcptgen_stale_sources{state=failed}": 1.0,
        "rcptgen_stale_sources{state=suspect}": 1.0,
        "rcptgen_stale_sources{state=kept}": 1.0,
        "rcptgen_deferring_sources": 1.0,
        "rcptgen_sources": 9.0,
        "rcptgen_approximate_rules": 6.0,
        "rcptgen_held_removals": 8.0,
        "rcptgen_held_domains": 2.0,
    }


def test_everybody_may_read_it_and_nothing_is_left_beside_it(config: Config, file: Path) -> None:
    before = os.umask(0o077)
    try:
        write(config, result())
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    first = file.stat().st_ino
    write(config, result())
    assert file.stat().st_ino != first
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize("failed", [None, result(1, published=False)], ids=["error", "refused"])
def test_a_failed_run_keeps_what_is_known_of_the_lists(config: Config, file: Path, failed: Result | None) -> None:
    write(config, result(0), now=1000.0)
    before = samples(file)
    write(config, failed, status=1, now=2000.0)
    after = samples(file)
    changed = {name for name in before if before[name] != after[name]}
    assert changed >= {"rcptgen_last_run_timestamp_seconds", "rcptgen_last_run_status", "rcptgen_runs_total"}
    assert changed - {"rcptgen_publishes_total", "rcptgen_guard_refusals_total"} == {
        "rcptgen_last_run_timestamp_seconds",
        "rcptgen_last_run_status",
        "rcptgen_runs_total",
    }
    assert after["rcptgen_last_success_timestamp_seconds"] == 1000.0
    assert after.keys() == before.keys()


def test_kept_rules_are_no_success(config: Config, file: Path) -> None:
    write(config, result(75), now=1000.0)
    assert "rcptgen_last_success_timestamp_seconds" not in samples(file)
    write(config, result(0), now=2000.0)
    write(config, result(75), now=3000.0)
    assert samples(file)["rcptgen_last_success_timestamp_seconds"] == 2000.0


def test_counters_go_on_and_the_numbers_of_a_service_do_not(config: Config, file: Path) -> None:
    for _ in range(3):
        write(config, result(), service=Service(events=5))
    found = samples(file)
    assert (found["rcptgen_runs_total"], found["rcptgen_events_total"]) == (3.0, 5.0)
    write(config, result())
    assert "rcptgen_watches" not in samples(file)


@pytest.mark.parametrize(
    "text", [b"rubbish {{{\n", b"\xff\xfe", b"rcptgen_runs_total\n", b"rcptgen_runs_total{a=\n", b""]
)
def test_a_file_that_is_none_of_ours_is_replaced(config: Config, file: Path, text: bytes) -> None:
    file.write_bytes(text)
    assert write(config, result()) == ""
    assert samples(file)["rcptgen_runs_total"] == 1.0


@pytest.mark.needs("root")
def test_a_link_where_others_write_is_not_followed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    theirs = tmp_path / "collector"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    (theirs / "rcptgen.prom").symlink_to(tmp_path / "precious")
    warning = write(Config(metrics=Metrics(textfile=str(theirs / "rcptgen.prom"))), result())
    assert "symbolic link" in warning
    assert (tmp_path / "precious").read_text() == "precious"
    (theirs / "rcptgen.prom").unlink()
    assert write(Config(metrics=Metrics(textfile=str(theirs / "rcptgen.prom"))), result()) == ""


def test_nowhere_to_write_is_a_warning(tmp_path: Path) -> None:
    done = measured(Config(metrics=Metrics(textfile=str(tmp_path / "no" / "a.prom"))), result)
    assert done.status == 0
    assert [one for one in done.warnings if re.match(r"\[metrics\] .*No such file", one)] == done.warnings != []


def test_unconfigured_it_costs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert measured(Config(), result).warnings == []
    assert os.listdir(tmp_path) == []


def test_without_the_library_nothing_is_begun(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'rcptgen\[metrics\]'"):
        measured(config, _raising(AssertionError("it was begun")))


def _raising(error: BaseException) -> Callable[[], Result]:
    def work() -> Result:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status"), [(PublishFailed("x"), 1), (ConfigurationError("x"), 78), (MemoryError(), 1)]
)
def test_an_error_is_told_and_goes_through(config: Config, file: Path, error: Exception, status: int) -> None:
    with pytest.raises(type(error)):
        measured(config, _raising(error))
    assert samples(file)["rcptgen_last_run_status"] == status


def test_a_run_that_did_not_get_the_lock_is_none(config: Config, file: Path) -> None:
    with pytest.raises(Busy):
        measured(config, _raising(Busy("locked")))
    assert not file.exists()


def test_a_real_compile_counts_by_class_and_kind(tmp_path: Path, config: Config, file: Path) -> None:
    site = Site(tmp_path, NAMES)
    request = Request((Output("validrcptto", os.fsencode(site.file)),), os.fsencode(site.state))
    done = measured(config, lambda: compile_host(site.host.root, Config(), request))
    found = samples(file)
    assert found["rcptgen_last_run_status"] == done.status == 0
    assert {name: value for name, value in found.items() if name.startswith("rcptgen_domains")} == {
        "rcptgen_domains{class=local}": 1.0,
        "rcptgen_domains{class=virtual}": 1.0,
        "rcptgen_domains{class=relay}": 1.0,
    }
    recipients = {name: value for name, value in found.items() if name.startswith("rcptgen_recipients")}
    assert recipients["rcptgen_recipients{class=relay,kind=relay}"] == 1.0
    assert recipients["rcptgen_recipients{class=virtual,kind=mailbox}"] == 1.0
    assert recipients["rcptgen_recipients{class=local,kind=alias}"] == 2.0
    assert sum(recipients.values()) == sum(done.recipients.values())


def test_a_domain_that_is_held_after_it_has_gone_is_counted_so(tmp_path: Path) -> None:
    names = {**NAMES, "control/virtualdomains": "".join(f"v{n}.example:alias-shop\n" for n in range(20))}
    site = Site(tmp_path, names)
    request = Request((Output("validrcptto", os.fsencode(site.file)),), os.fsencode(site.state))
    compile_host(site.host.root, Config(), request)
    (site.host.root / "var/qmail/control/virtualdomains").write_text("")
    done = compile_host(site.host.root, Config(), request)
    assert done.status == 3
    assert done.classes["gone"] == 20


@pytest.mark.parametrize(
    ("root", "request_", "written"),
    [
        (b"/", Request(()), True),
        (b"/", Request((), dry_run=True), False),
        (b"/elsewhere", Request(()), False),
    ],
)
def test_the_command_line_writes_it_for_the_live_host(
    config: Config, file: Path, monkeypatch: pytest.MonkeyPatch, root: bytes, request_: Request, written: bool
) -> None:
    monkeypatch.setattr("rcptgen.cli.compile_.compile_host", lambda *_, **__: result())
    assert compiled(Globals(root=root, quiet=True), config, request_, as_object=False) == 0
    assert file.exists() == written
