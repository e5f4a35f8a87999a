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
from chalk_online_store.integrations.opentelemetry import observe
from chalk_online_store.integrations.opentelemetry.metrics import NAMESPACE
from chalk_online_store.routing.health import RegionState
from chalk_online_store.routing.router import RegionStatus
from chalk_online_store.routing.settings import Routing
from chalk_online_store.testing import LocalGlobalTable
from chalk_online_store.tiers.tiers import StoreStats

EAST, WEST = "us-east-1", "us-west-2"
REGIONS = "chalk.online_store.region"


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


def test_regions_are_collected() -> None:
    """State, probes, lag, hedges and failovers are there by region, as the store tells them."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    routing = Routing(hedging=None, probe_every="1h")
    with LocalGlobalTable() as table, OnlineStore.open(table.url(), [], routing=routing) as store:
        observe(store, provider.get_meter("test"))
        store.health()
        before = by_attributes(collected(reader))
        table.lose(EAST, "refused")
        store.health(timeout=2.0)
        after = by_attributes(collected(reader))
        table.restore(EAST)
    state, down = f"{REGIONS}.state", f"cloud.region={EAST} chalk.region.state=down"
    assert before[state][down] == 0
    assert before[state][down.replace("down", "healthy")] == 1
    assert after[state][down] == 1
    assert sum(after[state].values()) == 2
    assert before[f"{REGIONS}.probe.duration"].keys() == {f"cloud.region={n}" for n in (EAST, WEST)}
    assert before[f"{REGIONS}.hedges"] == {f"cloud.region={n}": 0 for n in (EAST, WEST)}
    provider.shutdown()


def by_attributes(found: dict[str, list[Any]]) -> dict[str, dict[str, float]]:
    return {
        name: {" ".join(f"{k}={v}" for k, v in p.attributes.items()): p.value for p in points}
        for name, points in found.items()
    }


def test_hedges_failovers_and_lag_of_regions() -> None:
    """What the router counted of each region is what is collected."""
    status = RegionStatus(
        EAST, RegionState.SLOW, "", 1.0, True, True, "", None, {WEST: 1.5, "eu-west-1": None}, 3, 2
    )

    class Store:
        def stats(self) -> StoreStats:
            return StoreStats({}, (status,))

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    observe(Store(), provider.get_meter("test"))
    found = by_attributes(collected(reader))
    here = f"cloud.region={EAST}"
    assert found[f"{REGIONS}.hedges"] == {here: 3}
    assert found[f"{REGIONS}.failovers"] == {here: 2}
    assert found[f"{REGIONS}.replication.lag"] == {f"{here} chalk.source.region={WEST}": 1.5}
    assert f"{REGIONS}.probe.duration" not in found
    provider.shutdown()


def test_without_the_package_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no OpenTelemetry is told what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with (
        OnlineStore.open("sqlite://", [User]) as store,
        pytest.raises(MissingDependency, match="otel"),
    ):
        observe(store)
