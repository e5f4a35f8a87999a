"""What `store.stats()` tells, as OpenTelemetry metrics: read when they are collected.

    from chalk_online_store.integrations.opentelemetry import observe

    observe(store)

Each figure of a cache is `chalk.online_store.cache.<name>`, of a Bloom filter
`chalk.online_store.bloom.<name>`, with the attribute `chalk.namespace`. What only grows is a
counter, the rest a gauge. Needs `pip install 'chalk-online-store[otel]'`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Protocol

from chalk_online_store.cache.lru import CacheStats
from chalk_online_store.errors import MissingDependency
from chalk_online_store.operations.bloom.reads import FilterStats
from chalk_online_store.operations.tiers import StoreStats

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

PREFIX = "chalk.online_store"
NAMESPACE = "chalk.namespace"

_GAUGES = frozenset(
    (
        "entries",
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
_UNITS = {"bytes": "By", "bits_set": "bit", "rcu": "{RCU}"}


class HasStats(Protocol):
    """An `OnlineStore` or an `AsyncOnlineStore`."""

    def stats(self) -> StoreStats:
        """What its caches and filters did so far."""
        ...


def observe(store: HasStats, meter: Meter | None = None) -> None:
    """Have a store's statistics collected; by the global meter provider, unless stated.

    Raises `MissingDependency`.
    """
    try:
        from opentelemetry import metrics
    except ImportError as error:
        raise MissingDependency(
            "Metrics need opentelemetry-api: pip install 'chalk-online-store[otel]'."
        ) from error
    meter = meter or metrics.get_meter("chalk_online_store")
    for tier, name in _figures():
        create = meter.create_observable_counter
        if name in _GAUGES:
            create = meter.create_observable_gauge  # type: ignore[assignment]
        callback = _reader(store, tier, name, metrics.Observation)
        create(f"{PREFIX}.{tier}.{name}", callbacks=[callback], unit=_UNITS.get(name, ""))


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
