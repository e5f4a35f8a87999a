"""Has a store traced."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

from chalk_online_store.errors import MissingDependency
from chalk_online_store.integrations.opentelemetry.tracing import (
    COUNTS,
    THROTTLING_REASONS,
    Tracing,
)
from chalk_online_store.operations.core import Core

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Meter, MeterProvider
    from opentelemetry.trace import TracerProvider

NAME = "chalk_online_store"
CALL = "chalk.online_store.call"

_UNITS = {"rcu": "{RCU}", "wcu": "{WCU}", "requests": "{request}"}

BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
"""Seconds. OpenTelemetry's semantic conventions prescribe them for database clients."""

SOONER = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
"""Seconds, for calls: those that a cache answers take microseconds."""


class Traceable(Protocol):
    """An `OnlineStore` or an `AsyncOnlineStore`."""

    @property
    def core(self) -> Core:
        """Its operations."""
        ...

    @property
    def driver(self) -> Any:
        """What performs them."""
        ...


def instrument(
    store: Traceable,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> None:
    """Have a store's calls and requests traced; by the global providers, unless stated.

    A call is a span named by what it does and its namespace, such as `read user`, with what it
    cost; a request is a client span within it, such as `BatchGetItem features`, by the semantic
    conventions for database clients. How long they take is in the histograms
    `chalk.online_store.call.duration` and `db.client.operation.duration`; what calls cost is in
    counters such as `chalk.online_store.call.rcu`. Requests of a
    `PersistenceWriter` on the store are traced as well. Neither keys nor values are in any of it.

    A second call replaces the first. Raises `MissingDependency`.
    """
    api = _api()
    meter = api.metrics.get_meter(NAME, meter_provider=meter_provider)
    store.core.watcher = Tracing(
        api,
        api.trace.get_tracer(NAME, tracer_provider=tracer_provider),
        meter.create_histogram(
            f"{CALL}.duration",
            unit="s",
            description="How long calls of the store take.",
            explicit_bucket_boundaries_advisory=SOONER,
        ),
        meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        ),
        {name: _counter(meter, name) for name in (*COUNTS, THROTTLING_REASONS)},
        _addresses(store.driver.transports),
        store.core.backend.home,
    )


def _counter(meter: Meter, name: str) -> Counter:
    counter = meter.create_counter(f"{CALL}.{name}", unit=_UNITS.get(name, ""))
    counter.add(0)  # What has not happened yet is exported as 0, not absent.
    return counter


def _api() -> Any:
    try:
        parts = {
            name: importlib.import_module(f"opentelemetry.{name}")
            for name in ("context", "metrics", "trace")
        }
    except ImportError as error:
        raise MissingDependency(
            "Traces need opentelemetry-api: pip install 'chalk-online-store[otel]'."
        ) from error
    return SimpleNamespace(**parts)


def _addresses(transports: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    found = {to: getattr(transport, "address", None) for to, transport in transports.items()}
    return {to: address for to, address in found.items() if address}
