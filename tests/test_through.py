"""Reads through the cache: one read for many who miss, renewal in the background, own deadlines."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chalk_online_store import (
    AsyncOnlineStore,
    LRUCache,
    OnlineStore,
    Rows,
    Status,
    TableNotFound,
    feature,
    features,
)
from chalk_online_store.drivers.aio import InThread
from chalk_online_store.drivers.simulated import Reply
from chalk_online_store.dynamodb.messages import Request
from chalk_online_store.effects import Operation, Send, Sleep
from tests.fakes import FakeTable, SimulatedStore, answer, at_once, refusal


@features
class User:
    id: int
    a: int
    b: int = feature(group="other")


CACHE = LRUCache(100, "10s", ttl_jitter=0)


def store_of(count: int = 3, cache: LRUCache = CACHE, **options: Any) -> SimulatedStore:
    """A store in virtual time whose cache has nothing yet."""
    store = SimulatedStore([User], cache, **options)
    store.write(User, [{"id": i, "a": i, "b": -i} for i in range(count)])
    store.core._tiers.caches["user"]._entries.clear()
    store.driver.sent.clear()
    return store


def reading(
    store: SimulatedStore, keys: Sequence[int], after: float = 0.0, timeout: float | None = None
) -> Operation[Rows]:
    yield Sleep(after)
    prepared = store.core.prepare(User, ["a"], None)
    return (yield from store.core.read(prepared, keys, consistent=False, timeout=timeout))


def slow(store: SimulatedStore, seconds: float) -> None:
    """Have reads take their time."""

    def fault(operation: str, body: dict[str, Any], now: float) -> Reply | None:
        if operation not in ("GetItem", "BatchGetItem"):
            return None
        reply = answer(200, getattr(store.table, f"_{operation}")(body))
        return Reply(reply.response, after=seconds)

    store.table.fault = fault


# --- single flight -------------------------------------------------------------------------


@pytest.mark.parametrize("coalesce", [None, "1ms"])
def test_a_thousand_misses_make_one_read(coalesce: str | None) -> None:
    """A thousand readers of one key that nobody knows share one request."""
    store = store_of(coalesce=coalesce)
    found = at_once(store, *(reading(store, [1], after=i * 1e-6) for i in range(1000)))
    assert [rows.column("a") for rows in found] == [[1]] * 1000
    assert len(store.driver.sent) == 1
    assert sum(rows.report.coalesced for rows in found) == 999


def test_overlapping_reads_ask_for_each_key_once() -> None:
    """Reads that share some keys ask for the others alone, and each gets all of its own."""
    store = store_of(5)
    found = at_once(store, reading(store, [0, 1, 2]), reading(store, [4, 2, 1, 3], after=0.001))
    assert [rows.column("a") for rows in found] == [[0, 1, 2], [4, 2, 1, 3]]
    asked = [
        key["pk"]["S"]
        for _, body in store.sent("BatchGetItem")
        for key in body["RequestItems"]["simulated"]["Keys"]
    ]
    assert sorted(asked) == [f"a:{i}" for i in range(5)]


def test_who_joined_reads_again_when_the_first_ran_out_of_time() -> None:
    """A joined read whose own deadline is later is not failed by another's short one."""
    store = store_of()
    slow(store, 1.0)
    hasty, *patient = at_once(
        store,
        reading(store, [1], timeout=0.5),
        *(reading(store, [1], after=0.1, timeout=5) for _ in range(10)),
    )
    assert hasty.statuses("a") == [Status.FAILED]
    assert [rows.column("a") for rows in patient] == [[1]] * 10
    assert len(store.driver.sent) == 2


def test_each_waits_no_longer_than_its_own_deadline() -> None:
    """Who joined a slow read fails in its own time, and the first goes on."""
    store = store_of()
    slow(store, 2.0)
    first, hasty = at_once(store, reading(store, [1]), reading(store, [1], after=0.1, timeout=0.5))
    assert first.column("a") == [1]
    assert hasty.statuses("a") == [Status.FAILED]


def test_an_error_that_no_retry_mends_is_raised_by_all() -> None:
    """Everybody who joined hears that the table is gone, at the price of one request."""
    store = store_of()
    store.table.fault = lambda *_: refusal("ResourceNotFoundException")

    def outcome() -> Operation[str]:
        try:
            yield from reading(store, [1])
        except TableNotFound:
            return "no table"
        return "nothing"

    assert at_once(store, *(outcome() for _ in range(20))) == ["no table"] * 20
    assert len(store.driver.sent) == 1


class Table:
    """A transport to a fake table that answers only while it is opened."""

    def __init__(self, table: FakeTable) -> None:
        self._table = table
        self.reads = 0
        self.opened = threading.Event()
        self.opened.set()
        self._lock = threading.Lock()

    def send(self, request: Request, timeout: float) -> Any:
        """Play the engine."""
        with self._lock:
            self.reads += request.operation in ("GetItem", "BatchGetItem")
        self.opened.wait(60)
        return self._table(Send(request, timeout), 0.0).response

    def warm(self, connections: int, timeout: float) -> int:
        """Nothing to open."""
        return 0

    def close(self) -> None:
        """Nothing to give back."""


def test_threads_that_miss_together_make_one_read() -> None:
    """A store shared by many threads asks once for what all of them miss."""
    simulated = store_of()
    table = Table(simulated.table)
    with OnlineStore(simulated.backend, {"": table}, [User], lru_cache=CACHE) as store:
        store.read(User, [0], ["a"])
        table.opened.clear()
        table.reads = 0
        with ThreadPoolExecutor(64) as threads:
            reads = [threads.submit(store.read, User, [1], ["a"]) for _ in range(64)]
            while store.stats().namespaces["user"].cache.joined < 63:  # type: ignore[union-attr]
                time.sleep(0.001)
            table.opened.set()
            found = [read.result() for read in reads]
    assert [rows.column("a") for rows in found] == [[1]] * 64
    assert table.reads == 1


def test_tasks_that_miss_together_make_one_read() -> None:
    """So do a thousand tasks; where the one that reads is cancelled, another one does."""
    simulated = store_of()
    table = Table(simulated.table)

    async def reads(count: int) -> None:
        while table.reads < count:  # noqa: ASYNC110 - it is counted in another thread
            await asyncio.sleep(0.001)

    async def main() -> None:
        transports = {"": InThread(table)}
        async with AsyncOnlineStore(
            simulated.backend, transports, [User], lru_cache=CACHE
        ) as store:
            await store.read(User, [0], ["a"])
            table.opened.clear()
            table.reads = 0
            tasks = [asyncio.create_task(store.read(User, [1], ["a"])) for _ in range(1000)]
            await reads(1)
            tasks[0].cancel()
            await reads(2)
            table.opened.set()
            found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert [rows.column("a") for rows in found[1:]] == [[1]] * 999  # type: ignore[union-attr]

    asyncio.run(main())
    assert table.reads == 2


def test_a_process_that_begins_reads_the_registry_once() -> None:
    """However many reads a new process begins with, the registry is loaded by one of them."""
    written = store_of()
    fresh = SimulatedStore([User])
    fresh.table.items = written.table.items
    found = at_once(fresh, *(reading(fresh, [i % 3]) for i in range(50)))
    assert [rows.column("a") for rows in found] == [[i % 3] for i in range(50)]
    assert len(fresh.sent("Query")) == 1


# --- renewal -------------------------------------------------------------------------------


def value_at(store: SimulatedStore, time: float) -> tuple[Any, int]:
    """What a read at a time of the virtual clock finds, and how many reads have been sent then."""
    store.driver.now = time
    store.driver.sent.clear()
    return store.read(User, [1], ["a"])[0]["a"], len(store.driver.sent)


def change(store: SimulatedStore, value: int) -> None:
    """As another process does it."""
    store.table.items["a:1", "a"]["a"] = {"N": str(value)}


@pytest.mark.parametrize(
    "cache",
    [
        LRUCache(9, "10s", ttl_jitter=0, refresh_ahead=0.5),
        LRUCache(9, "5s", ttl_jitter=0, stale_while_revalidate="5s"),
    ],
)
def test_a_hot_item_is_renewed_in_the_background(cache: LRUCache) -> None:
    """The read that meets an aged item gets it at once, and the next one what is there by then."""
    store = store_of(cache=cache)
    assert value_at(store, 100.0) == (1, 1)
    change(store, 2)
    assert value_at(store, 104.0) == (1, 0)
    assert value_at(store, 106.0) == (1, 1)  # Served first, then read.
    assert value_at(store, 110.5) == (2, 0)
    assert value_at(store, 130.0) == (2, 1)
    assert store.core._tiers.caches["user"].stats().refreshes == 1


def test_a_renewal_that_fails_harms_nobody() -> None:
    """While the table is away, an aged item is served to the end of its time, then read."""
    store = store_of(cache=LRUCache(9, "10s", ttl_jitter=0, refresh_ahead=0.5))
    value_at(store, 100.0)
    store.table.fault = lambda *_: refusal("ResourceNotFoundException")
    assert value_at(store, 106.0) == (1, 1)
    assert value_at(store, 109.0) == (1, 0)
    with pytest.raises(TableNotFound):
        value_at(store, 111.0)
