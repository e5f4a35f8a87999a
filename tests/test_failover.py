"""Stores on two real regions, one of which is lost, slow, or ordered away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalk_online_store import (
    AsyncOnlineStore,
    BloomFilter,
    Hedging,
    Namespace,
    OnlineStore,
    OnlineStoreConfig,
    RegionState,
    RegionUnavailable,
    RegistryError,
    RegistryUnavailable,
    Routing,
    WriteFailed,
    features,
)
from chalk_online_store.schema import Feature
from chalk_online_store.testing import (
    Blackhole,
    Latency,
    LocalGlobalTable,
    Refused,
    ServerFault,
    Throttling,
)

EAST, WEST = "us-east-1", "us-west-2"
QUICK = Routing(probe_every="200ms", return_after="1s", return_over="500ms")


@features
class User:
    id: int
    visits: int | None


ROWS = [{"id": n, "visits": n} for n in range(20)]


@pytest.fixture(scope="module")
def engines() -> Iterator[LocalGlobalTable]:
    """Two regions for all of these tests, each of which has its own namespaces' names."""
    with LocalGlobalTable() as table:
        yield table


@pytest.fixture
def table(engines: LocalGlobalTable) -> Iterator[LocalGlobalTable]:
    """Two regions that are well, and are so again afterwards."""
    yield engines
    for region in (EAST, WEST):
        engines.restore(region)
        engines.region(region).clear()
    engines.heal()
    with open_store(engines) as store:
        store.order_regions()
    engines.wait_until_replicated()


def open_store(
    table: LocalGlobalTable, schema: Any = User, routing: Routing = QUICK, **options: Any
) -> OnlineStore:
    """A store on both regions, the east preferred."""
    return OnlineStore.open(
        table.url(**options), [schema], session=table.session(), timeout=5, routing=routing
    )


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something holds; a test fails where it does not come to that."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "It did not come to that."
        time.sleep(0.05)


def served_by(store: OnlineStore, region: str) -> bool:
    """Whether a read is whole and comes from a region."""
    rows = store.read(User, range(20))
    assert rows.column("visits") == list(range(20))
    return rows.report.region == region


FAULTS = [Refused(), Blackhole(), Blackhole(connect=True), ServerFault(500), ServerFault(503)]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_no_read_fails_while_a_region_is_lost(table: LocalGlobalTable, fault: Any) -> None:
    """Every read is whole, reads and writes move, and both return when the region is well."""
    with open_store(table) as store:
        store.write(User, ROWS)
        table.wait_until_replicated()
        eventually(lambda: served_by(store, EAST))
        with table.region(EAST).fault(fault):
            eventually(lambda: served_by(store, WEST))
            eventually(lambda: store.write(User, ROWS[:1]).region == WEST)
            assert served_by(store, WEST)
        eventually(lambda: served_by(store, EAST))
        eventually(lambda: store.write(User, ROWS[:1]).region == EAST)


def test_no_read_fails_while_a_region_is_lost_on_asyncio(table: LocalGlobalTable) -> None:
    """The same for many tasks at once, in the moment of the loss."""

    async def main() -> set[str]:
        store = AsyncOnlineStore.open(
            table.url(), [User], session=table.session(), timeout=5, routing=QUICK
        )
        async with store:
            await store.write(User, ROWS)
            table.wait_until_replicated()
            regions = set()
            for number in range(30):
                if number == 5:
                    table.region(EAST).inject(Blackhole())
                found = await asyncio.gather(*(store.read(User, [n]) for n in range(20)))
                assert [rows[0]["visits"] for rows in found] == list(range(20))
                regions = {rows.report.region for rows in found}
            return regions

    assert asyncio.run(main()) == {WEST}


def test_a_slow_region_is_hedged_and_then_left(table: LocalGlobalTable) -> None:
    """Reads go to the other region as soon as the preferred one is overtaken time and again."""
    with open_store(table, routing=Routing(probe_every="200ms", return_after="60s")) as store:
        store.write(User, ROWS)
        table.wait_until_replicated()
        for _ in range(50):
            store.read(User, range(20))
        with table.region(EAST).fault(Latency(2.0)):  # more than any read takes on a busy machine
            hedges = 0
            deadline = time.monotonic() + 120
            while store.regions()[0].state is RegionState.HEALTHY:
                hedges += store.read(User, range(20)).report.hedges
                assert time.monotonic() < deadline
            assert hedges >= 1
            assert served_by(store, WEST)


def test_a_throttled_region_is_not_left(table: LocalGlobalTable) -> None:
    """Reads find what they need elsewhere, but the region counts as healthy all the time."""
    with open_store(table) as store:
        store.write(User, ROWS)
        table.wait_until_replicated()
        with table.region(EAST).fault(Throttling()):
            for _ in range(5):
                rows = store.read(User, range(20))
                assert rows.column("visits") == list(range(20))
                assert rows.report.region == WEST
            assert store.regions()[0].state is RegionState.HEALTHY
        eventually(lambda: served_by(store, EAST))


def test_one_region_is_hedged_over_a_second_connection(table: LocalGlobalTable) -> None:
    """With `routing`, a URL of one region asks that twice where the first answer is late."""
    routing = Routing(hedging=Hedging(percentile=0.5, budget=0.5))
    url = table.url([EAST])
    with OnlineStore.open(url, [User], session=table.session(), routing=routing) as store:
        store.write(User, ROWS)
        hedges = 0
        with table.region(EAST).fault(Latency(0.0, jitter=0.01)):
            for _ in range(100):
                rows = store.read(User, range(20))
                assert rows.column("visits") == list(range(20))
                hedges += rows.report.hedges
        assert hedges > 5


# --- what an operator orders ---------------------------------------------------------------


def test_orders_reach_every_process(table: LocalGlobalTable) -> None:
    """A pin, an evacuation and their end are followed by a store that was not told itself."""
    with open_store(table) as store, open_store(table) as operator:
        store.write(User, ROWS)
        table.wait_until_replicated()
        assert operator.order_regions(evacuated=[EAST]) == {EAST: "", WEST: ""}
        eventually(lambda: served_by(store, WEST))
        assert store.write(User, ROWS).region == WEST
        assert [region.orders for region in store.regions()] == ["evacuated", ""]
        table.wait_until_replicated()
        operator.order_regions()
        eventually(lambda: served_by(store, EAST))
        operator.order_regions(pinned=WEST)
        eventually(lambda: served_by(store, WEST))


def test_orders_are_given_while_a_region_is_lost(table: LocalGlobalTable) -> None:
    """The region that is evacuated need not hear of it; the answer says why it did not."""
    with open_store(table) as store:
        store.write(User, ROWS)
        table.wait_until_replicated()
        with table.region(EAST).fault(Refused()):
            told = store.order_regions(evacuated=[EAST], timeout=1)
        assert told[WEST] == ""
        assert "failed" in told[EAST]
        assert served_by(store, WEST)


def test_where_none_may_be_asked_it_is_said(table: LocalGlobalTable) -> None:
    """A local reader whose region is evacuated is told so at once."""
    routing = Routing(reads="local", probe_every="200ms")
    with open_store(table) as operator, open_store(table, routing=routing) as store:
        operator.write(User, ROWS)
        operator.order_regions(evacuated=[EAST])

        def refused() -> bool:
            try:
                store.read(User, [1])
            except RegionUnavailable:
                return True
            return False

        eventually(refused)


def test_health_is_a_real_read_of_every_region(table: LocalGlobalTable) -> None:
    """It tells which regions answer, and whether the store can serve."""
    with open_store(table) as store:
        health = store.health()
        assert (health.ok, health.preferred_ok) == (True, True)
        with table.region(EAST).fault(Blackhole()):
            health = store.health(timeout=0.5)
            assert (health.ok, health.preferred_ok) == (True, False)
            assert [check.ok for check in health.regions] == [False, True]
            with table.region(WEST).fault(Refused()):
                assert not store.health(timeout=0.5).ok


# --- lag -----------------------------------------------------------------------------------


def test_a_replica_says_how_far_it_is_behind(table: LocalGlobalTable) -> None:
    """While replication is cut, what a read reports grows; the written region lacks nothing."""
    with open_store(table) as store:
        store.write(User, ROWS)
        table.wait_until_replicated()
        eventually(lambda: store.regions()[1].behind[EAST] is not None and served_by(store, EAST))
        assert store.read(User, [1]).report.behind == 0.0
        table.partition(EAST, WEST)

        def well_behind() -> bool:
            served_by(store, EAST)  # Reads have regions probed.
            return (store.regions()[1].behind[EAST] or 0.0) > 2.0

        eventually(well_behind)
        with table.region(EAST).fault(Refused()):
            rows = store.read(User, [1])
            assert rows.report.region == WEST
            assert (rows.report.behind or 0.0) > 2.0


# --- the registry's home -------------------------------------------------------------------


def named(name: str, **config: Any) -> Namespace:
    """A namespace with one feature."""
    return Namespace(name, int, [Feature("visits", int)], **config)


def test_the_registry_is_written_at_home_only(table: LocalGlobalTable) -> None:
    """Without the home region known features go on, and new ones are refused."""
    known, new = named("known"), named("unknown")
    with open_store(table, known) as store:
        store.write(known, [{"id": 1, "visits": 1}])
        table.wait_until_replicated()
        with table.region(EAST).fault(Refused()):
            eventually(lambda: succeeds(lambda: store.write(known, [{"id": 1, "visits": 2}])))
            assert store.read(known, [1])[0]["visits"] == 2
            with open_store(table, new) as other, pytest.raises(RegistryUnavailable):
                other.write(new, [{"id": 1, "visits": 1}], timeout=1)


def succeeds(call: Callable[[], Any]) -> bool:
    """Whether a write is done; one in the moment of a loss may not be."""
    try:
        call()
    except WriteFailed:
        return False
    return True


def test_another_home_is_refused(table: LocalGlobalTable) -> None:
    """Two processes cannot register features in two regions: the second is told where to."""
    first, second = named("homely"), named("wayward")
    with open_store(table, first) as store:
        store.write(first, [{"id": 1, "visits": 1}])
    table.wait_until_replicated()
    for url in (table.url([WEST, EAST]), table.url([WEST])):
        store = OnlineStore.open(url, [second], session=table.session())
        with store, pytest.raises(RegistryError, match=f"home={EAST}"):
            store.write(second, [{"id": 1, "visits": 1}])
    url = table.url([WEST, EAST], home=EAST)
    with OnlineStore.open(url, [second], session=table.session()) as store:
        report = store.write(second, [{"id": 1, "visits": 1}])
        assert WEST in report.regions


# --- Bloom filters -------------------------------------------------------------------------


def test_a_filter_follows_its_namespace_through_a_failover(table: LocalGlobalTable) -> None:
    """Entities announced in either region are found in both, before, during and after a loss."""
    filtered = named(
        "filtered",
        online_store_config=OnlineStoreConfig(bloom_filter=BloomFilter(1000, refresh="200ms")),
    )

    def found(store: OnlineStore, count: int) -> bool:
        return store.read(filtered, range(count)).column("visits") == list(range(count))

    now = datetime.now(UTC) - timedelta(minutes=1)
    with open_store(table, filtered) as writer, open_store(table, filtered) as reader:
        writer.write(filtered, [{"id": n, "visits": n} for n in range(10)], observed_at=now)
        table.wait_until_replicated()
        eventually(lambda: found(reader, 10))
        with table.region(EAST).fault(Refused()):
            rows = [{"id": n, "visits": n} for n in range(20)]
            eventually(lambda: succeeds(lambda: writer.write(filtered, rows, timeout=1)))
            eventually(lambda: found(reader, 20))
        rows = [{"id": n, "visits": n} for n in range(30)]
        eventually(lambda: succeeds(lambda: writer.write(filtered, rows, timeout=1)))
        table.wait_until_replicated()
        eventually(lambda: found(reader, 30))
        with OnlineStore.open(table.url([WEST]), [filtered], session=table.session()) as elsewhere:
            eventually(lambda: found(elsewhere, 30))
            eventually(lambda: elsewhere.read(filtered, [99]).report.bloom_skips == 1)


def test_orders_hold_though_earlier_ones_came_from_a_clock_that_is_ahead(
    table: LocalGlobalTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was ordered last holds, also where what held before is dated later than now."""
    with open_store(table) as store:
        store.write(User, ROWS)
        table.wait_until_replicated()
        with monkeypatch.context() as ahead:
            real = time.time_ns
            ahead.setattr(time, "time_ns", lambda: real() + 3600 * 10**9)
            store.order_regions(pinned=EAST)
        with open_store(table) as other:
            other.order_regions(evacuated=[EAST])
            eventually(lambda: served_by(other, WEST))
        eventually(lambda: served_by(store, WEST))


def test_a_filter_is_built_at_home_only(table: LocalGlobalTable) -> None:
    """A store that does not reach the home region is told so, before anything is scanned."""
    config = OnlineStoreConfig(bloom_filter=BloomFilter(1000))
    built = named("built", online_store_config=config)
    with open_store(table, built) as store:
        store.write(built, [{"id": 1, "visits": 1}])
        table.wait_until_replicated()
        assert store.build_bloom_filters([built], wait=0).entities == {"built": 1}
    store = OnlineStore.open(table.url([WEST]), [built], session=table.session())
    with store, pytest.raises(RegistryError, match=f"home={EAST}"):
        store.build_bloom_filters([built], wait=0)
