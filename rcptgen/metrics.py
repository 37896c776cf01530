"""`[metrics] textfile`: what node_exporter's textfile collector shows of the runs (prometheus-client does the format).

Alert on the age of `rcptgen_last_success_timestamp_seconds`, and on `rcptgen_held_removals` and
`rcptgen_stale_sources`; docs/watch.md has the whole list.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rcptgen import __version__
from rcptgen.config import Config
from rcptgen.errors import Busy, ConfigurationError, PublishFailed, RcptgenError
from rcptgen.publish.files import Publication, PublishedUnsynced
from rcptgen.reader import State
from rcptgen.request import Result
from rcptgen.rules.shown import safe, shown

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MODE = 0o644
"""The collector is no root."""

SUCCESSES = (0, 3)
"""The exit statuses of runs that could read everything; what is held has a number of its own."""

_MOST_READ = 1 << 20
_SHORTAGE = 1

Labels = tuple[str, ...]


@dataclass(slots=True)
class Service:
    """The service's own numbers: directories watched, paths swept instead, events since its start."""

    watches: int = 0
    swept: int = 0
    events: int = 0


def require(config: Config) -> None:
    """Raises ConfigurationError where a textfile is wanted and prometheus-client is not installed."""
    if not config.metrics.textfile:
        return
    try:
        import prometheus_client  # noqa: F401 - only asked for
    except ImportError:
        raise ConfigurationError("[metrics] textfile takes prometheus-client: pip install 'rcptgen[metrics]'") from None


def measured(config: Config, work: Callable[[], Result], service: Service | None = None) -> Result:
    """What `work` returns, or raises, with the textfile (if one is configured) written in either case.

    That it cannot be written is a warning of the result.  Raises ConfigurationError, before any
    work, where prometheus-client is missing.  A run that did not get the lock is none.
    """
    require(config)
    try:
        result = work()
    except Busy:
        raise
    except (RcptgenError, MemoryError) as error:
        write(config, None, status=error.status if isinstance(error, RcptgenError) else _SHORTAGE, service=service)
        raise
    warning = write(config, result, service=service)
    if warning:
        result.warnings.append(warning)
    return result


def write(
    config: Config,
    result: Result | None,
    *,
    status: int = 0,
    service: Service | None = None,
    now: float | None = None,
) -> str:
    """The textfile says what is known of a run; answers why it does not, or an empty text.

    Without a `result` the run failed with `status`; where nothing was published, what the file
    said of the lists stays.
    Counters go on from what the file says.  It is replaced by rename, and never by a link that
    the owner of its directory could have set: prometheus-client's own writer opens a name
    there that can be foreseen, which is not for root.
    """
    if not config.metrics.textfile:
        return ""
    path = os.fsencode(config.metrics.textfile)
    when = time.time() if now is None else now
    try:
        old = _read(path)
        families = list(_families(result, status, service, when, old))
        with Publication() as publication:
            publication.stage(path, MODE).write(
                [_rendered(families, old, keep=result is None or not _published(result))]
            )
            publication.commit()
    except PublishedUnsynced:
        # A power cut may bring the last numbers back.
        return ""
    except PublishFailed as error:
        return f"[metrics] {error}"
    except (OSError, ValueError) as error:
        return f"[metrics] {shown(path)}: {safe(str(error))}"
    return ""


@dataclass(frozen=True, slots=True)
class _Family:
    name: str
    help: str
    labels: Labels
    samples: Iterable[tuple[Labels, float]]
    counter: bool = False


def _one(name: str, help_: str, value: float, *, counter: bool = False) -> _Family:
    return _Family(name, help_, (), [((), value)], counter)


def _families(
    result: Result | None,
    status: int,
    service: Service | None,
    now: float,
    old: Mapping[str, Metric],
) -> Iterator[_Family]:
    last = status if result is None else result.status
    yield _Family("rcptgen_build_info", "The version that ran.", ("version",), [((__version__,), 1)])
    yield _one("rcptgen_last_run_timestamp_seconds", "When the last run ended.", now)
    yield _one("rcptgen_last_run_status", "The exit status of the last run.", last)
    success = now if last in SUCCESSES else _value(old, "rcptgen_last_success_timestamp_seconds")
    if success is not None:
        yield _one("rcptgen_last_success_timestamp_seconds", "When a run last could read everything.", success)
    counted = {
        "rcptgen_runs_total": ("Runs of the compiler.", 1),
        "rcptgen_publishes_total": ("Runs that replaced a file.", result is not None and result.changed),
        "rcptgen_guard_refusals_total": ("Runs in which the guard held something back.", _refused(result)),
    }
    for name, (help_, more) in counted.items():
        yield _one(name, help_, (_value(old, name) or 0) + more, counter=True)
    if service is not None:
        yield _one("rcptgen_watches", "Directories that are watched.", service.watches)
        yield _one("rcptgen_swept_paths", "Paths that are looked at again and again instead.", service.swept)
        yield _one("rcptgen_events_total", "Events since the service started.", service.events, counter=True)
    if result is not None and _published(result):
        yield _one("rcptgen_compile_duration_seconds", "Duration of the last run.", result.seconds)
        yield _one("rcptgen_rolled_back_since_timestamp_seconds", "Since when, or 0.", result.rolled_back_since)
        yield from _lists(result)


def _refused(result: Result | None) -> bool:
    """Whether the guard held something, or refused a first publish."""
    return result is not None and bool(result.held or (result.first and result.problems and result.status == 1))


def _published(result: Result) -> bool:
    return any(one.published for one in result.outputs)


def _lists(result: Result) -> Iterator[_Family]:
    """What is known of the lists after a run that built them."""
    by_class = [((name,), count) for name, count in result.classes.items()]
    yield _Family("rcptgen_domains", "Domains by class.", ("class",), by_class)
    yield _Family("rcptgen_recipients", "Accepted rules.", ("class", "kind"), result.recipients.items())
    per_output = {
        "rcptgen_records": ("Records in the file.", [one.records for one in result.outputs]),
        "rcptgen_over_acceptances": (
            "Rules that the file widens: it accepts more than the host.",
            [one.widened_count for one in result.outputs],
        ),
        "rcptgen_unsayable": ("Rules that the file leaves out.", [one.unsayable_count for one in result.outputs]),
    }
    names = [(one.output.target, shown(one.output.path)) for one in result.outputs]
    for name, (help_, numbers) in per_output.items():
        yield _Family(name, help_, ("target", "path"), list(zip(names, numbers, strict=True)))
    states = Counter(one.state for one in result.units)
    stale = [(("failed",), states[State.FAILED]), (("suspect",), states[State.SUSPECT]), (("kept",), len(result.kept))]
    yield _Family("rcptgen_stale_sources", "Sources whose last published rules count.", ("state",), stale)
    yield _one("rcptgen_deferring_sources", "Homes for which qmail defers.", states[State.DEFERRING])
    yield _one("rcptgen_sources", "Sources read.", result.units_read)
    yield _one("rcptgen_approximate_rules", "Rules that hang on more than the address.", result.approximate)
    yield _one("rcptgen_held_removals", "Names that wait for approve.", sum(one.count for one in result.held))
    yield _one("rcptgen_held_domains", "Domains that wait for approve.", len({one.domain for one in result.held}))


# -- the format -------------------------------------------------------------------------------


def _rendered(families: list[_Family], old: Mapping[str, Metric], *, keep: bool) -> bytes:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector

    class Collected(Collector):
        def collect(self) -> Iterator[Metric]:
            made = {_bare(one.name) for one in families}
            for one in families:
                kind: Callable[..., CounterMetricFamily | GaugeMetricFamily]
                kind = CounterMetricFamily if one.counter else GaugeMetricFamily
                family = kind(one.name, one.help, labels=one.labels)
                for labels, value in sorted(one.samples):
                    family.add_metric(labels, value)
                yield family
            yield from (metric for name, metric in old.items() if keep and name not in made)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected())
    return generate_latest(registry)


def _bare(name: str) -> str:
    """What prometheus-client calls a family: counters without their suffix."""
    return name.removesuffix("_total")


def _read(path: bytes) -> dict[str, Metric]:
    """The families of the file as it is; none where it cannot be read or is none of ours."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            text = file.read(_MOST_READ).decode()
        return {one.name: one for one in text_string_to_metric_families(text) if one.name.startswith("rcptgen_")}
    except (OSError, ValueError, KeyError, IndexError):
        return {}


def _value(old: Mapping[str, Metric], name: str) -> float | None:
    """The one sample of a family without labels."""
    metric = old.get(_bare(name))
    return metric.samples[0].value if metric is not None and metric.samples else None
