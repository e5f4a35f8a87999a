"""Statistics as OpenTelemetry metrics."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from chalk_online_store import (
    BloomFilter,
    LRUCache,
    MissingDependency,
    OnlineStore,
    OnlineStoreConfig,
    features,
)
from chalk_online_store.integrations.opentelemetry import NAMESPACE, observe


@features(online_store_config=OnlineStoreConfig(LRUCache(100), BloomFilter(1000)))
class User:
    id: int
    a: int


@features
class Plain:
    id: int
    a: int


def collected(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    """The points of each metric by its name."""
    data = reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_what_the_tiers_did_is_collected() -> None:
    """Hits, skips and bytes are there by namespace, as the store's own statistics say."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    with OnlineStore.open("sqlite://", [User, Plain]) as store:
        observe(store, provider.get_meter("test"))
        store.write(User, [{"id": 1, "a": 1}])
        store.warm()
        store.read(User, [1, 2, 3])
        store.read(User, [1])
        found = collected(reader)
    values = {name: [point.value for point in points] for name, points in found.items()}
    assert values["chalk.online_store.cache.hits"] == [2]
    assert values["chalk.online_store.cache.misses"] == [2]
    assert values["chalk.online_store.bloom.skips"] == [2]
    assert values["chalk.online_store.bloom.trusted"] == [1]
    assert values["chalk.online_store.bloom.bytes"][0] > 1000
    (point,) = found["chalk.online_store.cache.entries"]
    assert point.attributes == {NAMESPACE: "user"}
    provider.shutdown()


def test_without_the_package_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no OpenTelemetry is told what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with (
        OnlineStore.open("sqlite://", [User]) as store,
        pytest.raises(MissingDependency, match="otel"),
    ):
        observe(store)
