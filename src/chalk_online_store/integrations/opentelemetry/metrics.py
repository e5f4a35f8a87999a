"""What `store.stats()` tells, as OpenTelemetry metrics: read when they are collected.

Each figure of a cache is `chalk.online_store.cache.<name>`, of a Bloom filter
`chalk.online_store.bloom.<name>`, with the attribute `chalk.namespace`; of a shared cache it is
`chalk.online_store.shared_cache.<name>`. What only grows is a counter, the rest a gauge.

Of each region, with the attribute `cloud.region`, and `chalk.online_store.region.` before them:

| metric | unit | what |
|---|---|---|
| `state` | 1 | 1 for the state in `chalk.region.state`, 0 for the others |
| `probe.duration` | s | how long probes took last |
| `replication.lag` | s | how far it may be behind the region in `chalk.source.region` |
| `hedges`, `failovers` | {request} | requests that came here as another was slow, or failed |

`observe_writer(writer)` has every figure of `writer.stats()` collected as
`chalk.online_store.writer.<name>`.

`observe_dual_store(store)` exports the report of a `DualStore`, under
`chalk.online_store.migration.`: its counts of reads and writes; `outstanding` by `chalk.store`; and
`values` by `chalk.feature` and `chalk.result`: `equal`, `status`, `value`, ….
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from chalk_online_store.errors import MissingDependency
from chalk_online_store.routing.health import RegionState
from chalk_online_store.routing.router import RegionStatus
from chalk_online_store.tiers.filter.reads import FilterStats
from chalk_online_store.tiers.lru import CacheStats
from chalk_online_store.tiers.shared_cache import SharedCacheStats
from chalk_online_store.tiers.tiers import StoreStats
from chalk_online_store.writer.settings import WriterStats

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

    from chalk_online_store.migration.report import DualReport

PREFIX = "chalk.online_store"
NAMESPACE = "chalk.namespace"
REGION = "cloud.region"
STATE = "chalk.region.state"
SOURCE = "chalk.source.region"
STORE = "chalk.store"
FEATURE = "chalk.feature"
RESULT = "chalk.result"

Figures: TypeAlias = Iterable[tuple[float, dict[str, str]]]
"""Numbers, each with its attributes."""

_GAUGES = frozenset(
    (
        "entries",
        "untold",
        "bytes",
        "generation",
        "trusted",
        "entities",
        "capacity",
        "layers",
        "bits_set",
        "estimated_false_positive_rate",
        "empirical_false_positive_rate",
    )
)
_GAUGES_OF_WRITERS = frozenset(
    (
        "pending",
        "pending_bytes",
        "queued",
        "waiting",
        "oldest_seconds",
        "requests_under_way",
        "concurrency",
        "wcu_per_second",
        "replay_bytes",
        "replay_owed",
        "spool_records",
        "spool_bytes",
    )
)
_COUNTS_OF_DUAL_STORES = (
    *("reads_sampled", "reads_compared", "reads_dropped", "reads_failed"),
    *("writes", "writes_failed", "writes_skipped", "outstanding_dropped"),
)
_UNITS = {
    "bytes": "By",
    "bits_set": "bit",
    "rcu": "{RCU}",
    "wcu": "{WCU}",
    "wcu_per_second": "{WCU}/s",
    "pending_bytes": "By",
    "replay_bytes": "By",
    "spool_bytes": "By",
    "oldest_seconds": "s",
}


class HasWriterStats(Protocol):
    """A `PersistenceWriter` or an `AsyncPersistenceWriter`."""

    def stats(self) -> WriterStats:
        """What it did so far."""
        ...


class HasDualReport(Protocol):
    """A `DualStore` or an `AsyncDualStore`."""

    def report(self) -> DualReport:
        """What it has counted."""
        ...


class HasStats(Protocol):
    """An `OnlineStore` or an `AsyncOnlineStore`."""

    def stats(self) -> StoreStats:
        """What its caches and filters did so far."""
        ...


def observe(store: HasStats, meter: Meter | None = None) -> None:
    """Have a store's statistics collected; by the global meter provider, unless stated.

    Raises `MissingDependency`.
    """
    metrics = _metrics()
    meter = meter or metrics.get_meter("chalk_online_store")
    for tier, name in _figures():
        callback = _reader(store, tier, name, metrics.Observation)
        _observe(meter, f"{tier}.{name}", name, callback, gauge=name in _GAUGES)
    for found in fields(SharedCacheStats):
        callback = _account_reader(
            lambda: store.stats().shared_cache, found.name, metrics.Observation
        )
        gauge = found.name in _GAUGES
        _observe(meter, f"shared_cache.{found.name}", found.name, callback, gauge=gauge)
    _observe_regions(store, meter, metrics.Observation)


def observe_writer(writer: HasWriterStats, meter: Meter | None = None) -> None:
    """As `observe`, for a persistence writer. Raises `MissingDependency`."""
    metrics = _metrics()
    meter = meter or metrics.get_meter("chalk_online_store")
    for found in fields(WriterStats):
        callback = _account_reader(writer.stats, found.name, metrics.Observation)
        gauge = found.name in _GAUGES_OF_WRITERS
        _observe(meter, f"writer.{found.name}", found.name, callback, gauge=gauge)


def observe_dual_store(store: HasDualReport, meter: Meter | None = None) -> None:
    """As `observe`, for a `DualStore`. Raises `MissingDependency`."""
    metrics = _metrics()
    meter = meter or metrics.get_meter("chalk_online_store")
    for name in _COUNTS_OF_DUAL_STORES:
        callback = _dual_reader(store, partial(_count_of, name), metrics.Observation)
        _observe(meter, f"migration.{name}", name, callback, gauge=False)
    for name, figures, gauge in (("outstanding", _outstanding, True), ("values", _values, False)):
        callback = _dual_reader(store, figures, metrics.Observation)
        _observe(meter, f"migration.{name}", name, callback, gauge=gauge)


def _count_of(name: str, report: DualReport) -> Figures:
    return [(getattr(report, name), {})]


def _outstanding(report: DualReport) -> Figures:
    return [(count, {STORE: side}) for side, count in report.outstanding.items()]


def _values(report: DualReport) -> Figures:
    return [
        (getattr(counts, result.name), {FEATURE: name, RESULT: result.name})
        for name, counts in report.features.items()
        for result in fields(counts)
    ]


def _dual_reader(
    store: HasDualReport,
    figures: Callable[[DualReport], Figures],
    observation: type[Observation],
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(_: CallbackOptions) -> Iterator[Observation]:
        for value, attributes in figures(store.report()):
            yield observation(value, attributes)

    return read


def _metrics() -> Any:
    try:
        from opentelemetry import metrics
    except ImportError as error:
        raise MissingDependency(
            "Metrics need opentelemetry-api: pip install 'chalk-online-store[otel]'."
        ) from error
    return metrics


def _observe(meter: Meter, metric: str, name: str, callback: Any, *, gauge: bool) -> None:
    create: Any = meter.create_observable_gauge if gauge else meter.create_observable_counter
    create(f"{PREFIX}.{metric}", callbacks=[callback], unit=_UNITS.get(name, ""))


def _account_reader(
    account: Callable[[], WriterStats | SharedCacheStats | None],
    name: str,
    observation: type[Observation],
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(_: CallbackOptions) -> Iterator[Observation]:
        stats = account()
        # A pace that nothing bounds is none.
        if stats is not None and (value := getattr(stats, name)) < math.inf:
            yield observation(value, {})

    return read


def _observe_regions(store: HasStats, meter: Meter, observation: type[Observation]) -> None:
    count, gauge = meter.create_observable_counter, meter.create_observable_gauge
    # As `hw.status` and its like in the semantic conventions: they can be added up.
    state = meter.create_observable_up_down_counter
    for name, unit, create, figures in (
        ("state", "1", state, _states),
        ("probe.duration", "s", gauge, _probes),
        ("replication.lag", "s", gauge, _lags),
        ("hedges", "{request}", count, lambda region: [(region.hedges, {})]),
        ("failovers", "{request}", count, lambda region: [(region.failovers, {})]),
    ):
        callback = _region_reader(store, figures, observation)
        create(f"{PREFIX}.region.{name}", callbacks=[callback], unit=unit)


def _states(region: RegionStatus) -> Figures:
    return [(int(state is region.state), {STATE: state.value}) for state in RegionState]


def _probes(region: RegionStatus) -> Figures:
    return [] if region.probe_seconds is None else [(region.probe_seconds, {})]


def _lags(region: RegionStatus) -> Figures:
    return [(lag, {SOURCE: source}) for source, lag in region.behind.items() if lag is not None]


def _region_reader(
    store: HasStats, figures: Callable[[RegionStatus], Figures], observation: type[Observation]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(_: CallbackOptions) -> Iterator[Observation]:
        for region in store.stats().regions:
            for value, attributes in figures(region):
                yield observation(value, {REGION: region.name, **attributes})

    return read


def _figures() -> Iterator[tuple[str, str]]:
    """Tier and name of every number in the statistics."""
    for tier, kind in (("cache", CacheStats), ("bloom", FilterStats)):
        for found in fields(kind):
            if found.type != "str":
                yield tier, found.name


def _reader(
    store: HasStats, tier: str, name: str, observation: type[Observation]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(_: CallbackOptions) -> Iterator[Observation]:
        for namespace, stats in store.stats().namespaces.items():
            figures: Any = getattr(stats, tier)
            if figures is not None:
                yield observation(getattr(figures, name) + 0, {NAMESPACE: namespace})

    return read
