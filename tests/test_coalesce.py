"""Reads that join each other: fewer requests, the same answers, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chalk_online_store import (
    AsyncOnlineStore,
    InvalidValue,
    LRUCache,
    OnlineStore,
    ReadFailed,
    Rows,
    Status,
    TableNotFound,
    features,
)
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.effects import Operation, Send, Sleep
from tests.fakes import FakeTable, SimulatedStore, answer, at_once, refusal


@features
class User:
    id: int
    a: int
    b: str


def store_of(count: int, coalesce: Any = "5ms", **options: Any) -> SimulatedStore:
    store = SimulatedStore([User], coalesce=coalesce, **options)
    store.write(User, [{"id": i, "a": i, "b": "b"} for i in range(count)])
    return store


def reading(
    store: SimulatedStore,
    keys: Sequence[int],
    names: Sequence[str] = ("a",),
    *,
    consistent: bool = False,
    timeout: float | None = None,
    after: float = 0.0,
) -> Operation[Rows]:
    yield Sleep(after)
    prepared = store.core.prepare(User, names, None)
    return (yield from store.core.read(prepared, keys, consistent, timeout))


def batches(store: SimulatedStore) -> list[int]:
    """How many keys each BatchGetItem had; 1 for a GetItem."""
    sent = [len(b["RequestItems"]["simulated"]["Keys"]) for _, b in store.sent("BatchGetItem")]
    return sent + [1] * len(store.sent("GetItem"))


def test_single_reads_become_one_batch() -> None:
    """Reads of one entity each, within the window, are one request; each gets its own row."""
    store = store_of(20)
    found = at_once(store, *(reading(store, [i]) for i in range(20)))
    assert [rows.column("a") for rows in found] == [[i] for i in range(20)]
    assert batches(store) == [20]
    assert sum(rows.report.requests for rows in found) == 1
    assert sum(rows.report.coalesced for rows in found) == 19


def test_without_a_window_each_read_is_its_own() -> None:
    """Coalescing is for the asking."""
    store = store_of(5, coalesce=None)
    at_once(store, *(reading(store, [i]) for i in range(5)))
    assert batches(store) == [1] * 5


def test_a_key_is_asked_for_once() -> None:
    """Many readers of one key, in the window or while it is on its way, share one request."""
    store = store_of(2)
    late = [reading(store, [1], after=after) for after in (0.0, 0.004, 0.0052, 0.008)]
    found = at_once(store, *late)
    assert [rows.column("a") for rows in found] == [[1]] * 4
    assert batches(store) == [1]


def test_after_the_answer_a_key_is_asked_for_again() -> None:
    """Nothing is kept beyond a flight: that is the cache's work."""
    store = store_of(2)
    at_once(store, reading(store, [1]), reading(store, [1], after=1.0))
    assert batches(store) == [1, 1]
    assert not store.core._tiers.coalescer._flying  # type: ignore[union-attr]
    assert not store.core._tiers.coalescer._open  # type: ignore[union-attr]


def test_a_full_batch_does_not_wait() -> None:
    """A hundred keys are sent at once, and those beyond are the next batch."""
    store = store_of(130)
    before = store.driver.now
    found = at_once(store, *(reading(store, [i]) for i in range(130)))
    assert [rows.column("a") for rows in found] == [[i] for i in range(130)]
    assert sorted(batches(store)) == [30, 100]
    first = min(time for time, _ in store.sent("BatchGetItem"))
    assert first == before


def test_larger_reads_go_by_themselves() -> None:
    """A read of many entities is a batch already."""
    store = store_of(30)
    at_once(store, reading(store, range(20)), reading(store, [1]))
    assert sorted(batches(store)) == [1, 20]


def test_only_like_reads_join() -> None:
    """Reads of other features, and strong ones, have requests of their own."""
    store = store_of(3)
    reads = [reading(store, [i], names) for i in range(3) for names in (["a"], ["a", "b"])]
    strong = [reading(store, [i], consistent=True) for i in range(3)]
    found = at_once(store, *reads, *strong)
    assert all(rows.statuses("a") == [Status.HIT] for rows in found)
    assert batches(store) == [3, 3, 3]


def test_a_read_sees_every_write_before_it() -> None:
    """A read that begins after a write does not join one that was sent before it."""
    store = store_of(2)

    def slow_reads(operation: str, body: dict[str, Any], now: float) -> Any:
        if operation != "GetItem":
            return None
        reply = answer(200, store.table._GetItem(body))  # What is there when it is sent …
        return type(reply)(reply.response, after=1.0)  # … and arrives much later.

    store.table.fault = slow_reads

    def write_then_read() -> Operation[Rows]:
        yield Sleep(0.1)
        row = {"id": 1, "a": 99, "b": "new"}
        yield from store.core.write(User, [row], observed_at=None, ordering="arrival", timeout=None)
        return (yield from reading(store, [1]))

    before, after = at_once(store, reading(store, [1]), write_then_read())
    assert (before.column("a"), after.column("a")) == ([1], [99])


def test_a_cache_misses_once() -> None:
    """Concurrent misses of one key make one read, and all later ones are hits."""
    store = store_of(3, lru_cache=LRUCache(max_size=10, ttl="1m"))
    store.core._tiers.caches["user"]._entries.clear()
    found = at_once(store, *(reading(store, [1]) for _ in range(50)))
    assert [rows.column("a") for rows in found] == [[1]] * 50
    assert batches(store) == [1]
    assert at_once(store, reading(store, [1]))[0].report.cache_hits == 1


def test_each_waits_no_longer_than_its_own_deadline() -> None:
    """A read that joined a slow batch fails in its own time; the others get their rows."""
    store = store_of(3)

    def slow(operation: str, body: dict[str, Any], now: float) -> Any:
        if operation != "BatchGetItem":
            return None
        return type(answer(200, {}))(answer(200, store.table._BatchGetItem(body)).response, after=2)

    store.table.fault = slow
    patient, hasty = at_once(
        store, reading(store, [1], timeout=9), reading(store, [2], timeout=0.5)
    )
    assert patient.column("a") == [1]
    assert hasty.statuses("a") == [Status.FAILED]


def test_a_batch_that_fails_is_never_missing() -> None:
    """When the table cannot be reached in time, everybody who waits is told so."""
    store = store_of(3)
    store.table.fault = lambda operation, body, now: refusal("ThrottlingException")
    found = at_once(store, *(reading(store, [i], timeout=1) for i in range(3)))
    assert [rows.statuses("a") for rows in found] == [[Status.FAILED]] * 3


def test_an_error_that_no_retry_mends_is_raised_by_all() -> None:
    """Everybody who joined hears that the table is gone."""
    store = store_of(2)
    store.table.fault = lambda operation, body, now: refusal("ResourceNotFoundException")

    def outcome(key: int) -> Operation[str]:
        try:
            yield from reading(store, [key])
        except TableNotFound:
            return "no table"
        return "nothing"

    assert at_once(store, outcome(0), outcome(1)) == ["no table"] * 2


@pytest.mark.parametrize("window", ["infinity", "2s"])
def test_a_window_is_short(window: str) -> None:
    """A window that nobody can mean is refused when the store is opened."""
    with pytest.raises(InvalidValue, match="coalesce="):
        OnlineStore.open("sqlite://", schema=[User], coalesce=window)


# --- real threads and tasks ----------------------------------------------------------------


@pytest.fixture
def url(tmp_path: Any) -> str:
    url = f"sqlite:///{tmp_path}/features.db"
    with OnlineStore.open(url, schema=[User]) as store:
        store.write(User, [{"id": i, "a": i, "b": "b"} for i in range(200)])
    return url


def test_threads_join_each_other(url: str) -> None:
    """A store shared by many threads answers each of them, with fewer requests than reads."""
    with (
        OnlineStore.open(url, schema=[User], coalesce="20ms") as store,
        ThreadPoolExecutor(16) as threads,
    ):
        found = list(threads.map(lambda i: store.read(User, [i % 200], ["a"]), range(400)))
        assert [rows.column("a") for rows in found] == [[i % 200] for i in range(400)]
        assert sum(rows.report.requests for rows in found) < 200


def test_tasks_join_each_other(url: str) -> None:
    """The same on asyncio, where a cancelled reader harms nobody who joined it."""

    async def main() -> None:
        async with AsyncOnlineStore.open(url, schema=[User], coalesce="200ms") as store:
            await store.read(User, [0])
            first = asyncio.create_task(store.read(User, [1], ["a"]))
            await asyncio.sleep(0.005)
            rest = [asyncio.create_task(store.read(User, [i], ["a"])) for i in range(1, 50)]
            await asyncio.sleep(0)
            first.cancel()
            found = await asyncio.gather(*rest)
            assert [rows.column("a") for rows in found] == [[i] for i in range(1, 50)]
            assert sum(rows.report.requests for rows in found) == 0  # The cancelled one's.
            with pytest.raises(asyncio.CancelledError):
                await first

    asyncio.run(main())


def test_closing_the_store_ends_a_batch_that_waits() -> None:
    """Who waits in a window hears of the close at once, and no task is left behind."""

    async def main() -> None:
        store = AsyncOnlineStore.open("sqlite://", schema=[User], coalesce="1s")
        await store.write(User, [{"id": 1, "a": 1, "b": "b"}])
        read = asyncio.create_task(store.read(User, [1], ["a"]))
        await asyncio.sleep(0.01)
        await store.close()
        assert (await read).statuses("a") == [Status.FAILED]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


class Gate:
    """A transport that holds its requests back until it is opened, and then fails them."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def send(self, request: Request, timeout: float) -> Response:
        self.opened.wait(timeout)
        return Response(500, {}, b"{}")

    def warm(self, connections: int, timeout: float) -> int:
        return 0

    def close(self) -> None:
        self.opened.set()


class Table:
    """A transport to a fake table, without a network."""

    def __init__(self, table: FakeTable) -> None:
        self._table = table

    def send(self, request: Request, timeout: float) -> Any:
        return self._table(Send(request, timeout), 0.0).response

    def warm(self, connections: int, timeout: float) -> int:
        return 0

    def close(self) -> None:
        """Nothing to give back."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_waits_for_nothing_of_its_parent() -> None:
    """A child forked while a batch is open, and threads idle, reads by batches of its own."""
    simulated = store_of(3, coalesce="20ms")
    backend, table = simulated.backend, simulated.table
    with OnlineStore(backend, {"": Table(table)}, [User], coalesce="20ms") as store:
        assert store.read(User, [1], ["a"]).column("a") == [1]  # Leaves an idle thread.
        threading.Thread(target=store.read, args=(User, [2], ["a"])).start()
        while not store._core._tiers.coalescer._open:  # type: ignore[union-attr]
            time.sleep(0.001)
        child = os.fork()
        if child == 0:
            found = store.read(User, [2], ["a"], timeout=5).statuses("a")
            os._exit(0 if found == [Status.HIT] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_closed_driver_leaves_nobody_waiting() -> None:
    """Where a batch can no longer be sent, its readers hear of it at once."""
    simulated = store_of(1)
    driver = SyncDriver({"": Gate()})
    driver.close()
    with pytest.raises(RuntimeError, match="stopped"):
        driver.run(reading(simulated, [0]))
    assert not simulated.core._tiers.coalescer._open  # type: ignore[union-attr]


def test_a_value_that_failed_says_why() -> None:
    """The cause of a joined read's failure is in its error."""
    store = store_of(2)
    store.table.fault = lambda operation, body, now: refusal("ThrottlingException")
    first, _ = at_once(store, *(reading(store, [i], timeout=1) for i in range(2)))
    with pytest.raises(ReadFailed, match="Throttling"):
        first[0]["a"]
