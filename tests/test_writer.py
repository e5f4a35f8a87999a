"""Persistence writers as their users see them, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from chalk_online_store import (
    AsyncOnlineStore,
    AsyncPersistenceWriter,
    BloomFilter,
    DeadLetter,
    DeadLetterFile,
    Feature,
    InvalidValue,
    LRUCache,
    Namespace,
    OnlineStore,
    OnlineStoreConfig,
    PersistenceWriter,
    Rows,
    RowsAbandoned,
    RowsPending,
    SpoolFull,
    SpoolInUse,
    StoreClosed,
    Writing,
    features,
)
from chalk_online_store.integrations.opentelemetry import observe_writer
from tests.test_opentelemetry import collected

T0 = datetime(2026, 1, 1, tzinfo=UTC)


@features
class User:
    id: int
    a: int
    b: str | None


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'features.db'}"


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "writer.spool"


def read(url: str, key: int, schema: Any = User) -> dict[str, Any]:
    with OnlineStore.open(url, [schema]) as store:
        rows: Rows = store.read(schema, [key])
        return rows[0].to_dict()


def row(key: int, a: int = 0, b: str | None = None) -> dict[str, Any]:
    return {"id": key, "a": a, "b": b}


# --- threads -------------------------------------------------------------------------------


def test_a_row_is_written_in_the_background(url: str, spool: Path) -> None:
    """From `submit` to the table, by way of the disk."""
    with (
        OnlineStore.open(url, [User]) as store,
        PersistenceWriter(store, spool=spool) as writer,
    ):
        ticket = writer.submit(User, [row(1, 7, "x")], T0)
        ticket.wait("durable", timeout=60)
        assert ticket.durable
        ticket.wait(timeout=60)
        assert (ticket.rows, ticket.written, ticket.dead, ticket.done) == (1, 1, 0, True)
    assert read(url, 1) == {"a": 7, "b": "x"}


def test_many_threads_share_a_writer(url: str, spool: Path) -> None:
    """What each of them submits is written once, and the account is right at every moment."""
    with (
        OnlineStore.open(url, [User]) as store,
        PersistenceWriter(store, spool=spool) as writer,
    ):

        def work(number: int) -> None:
            for key in range(number * 100, number * 100 + 100):
                writer.submit(User, [row(key, key)], T0)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            stats = writer.stats()
            assert stats.accepted == stats.written + stats.dead + stats.pending
        writer.flush(20)
        assert writer.stats().written == 800
        rows = store.read(User, range(800))
        assert [each["a"] for each in rows] == list(range(800))


def test_own_reads_see_what_was_written(url: str) -> None:
    """The store's cache hears of the writer's writes."""
    with (
        OnlineStore.open(url, [User], lru_cache=LRUCache(max_size=10)) as store,
        PersistenceWriter(store) as writer,
    ):
        for version in (1, 2):
            writer.submit(User, [row(1, version)], T0 + timedelta(seconds=version))
            writer.flush(5)
            assert store.read(User, [1])[0]["a"] == version


def test_bloom_filters_hear_of_new_entities(url: str) -> None:
    """What a writer writes is not hidden by the filter of those who read."""
    filtered = Namespace(
        "user",
        int,
        [Feature("a", int)],
        online_store_config=OnlineStoreConfig(bloom_filter=BloomFilter(1000, refresh="100ms")),
    )
    with (
        OnlineStore.open(url, [filtered]) as store,
        PersistenceWriter(store) as writer,
    ):
        store.warm()
        writer.submit(filtered, [{"id": 1, "a": 5}], T0)
        writer.flush(5)
        assert store.read(filtered, [1])[0]["a"] == 5


def test_a_closed_writer_takes_nothing(url: str) -> None:
    """It says so, and may be closed again."""
    with OnlineStore.open(url, [User]) as store:
        writer = PersistenceWriter(store)
        writer.submit(User, [row(1)])
        writer.close()
        writer.close()
        with pytest.raises(StoreClosed):
            writer.submit(User, [row(2)])
        assert writer.stats().written == 1


def test_a_drained_writer_has_written_all(url: str) -> None:
    """`drain` waits, and nothing comes after it."""
    with OnlineStore.open(url, [User]) as store, PersistenceWriter(store) as writer:
        for key in range(100):
            writer.submit(User, [row(key, key)])
        writer.drain(10)
        assert writer.stats().pending == 0
        with pytest.raises(StoreClosed):
            writer.submit(User, [row(1)])


def test_a_writer_without_work_has_no_thread(url: str) -> None:
    """Who makes one and never uses it pays nothing; a flush of nothing returns at once."""
    others = set(threading.enumerate())
    with OnlineStore.open(url, [User]) as store, PersistenceWriter(store) as writer:
        writer.flush(1)
        begun = {thread.name for thread in set(threading.enumerate()) - others}
        assert "chalk-online-store-writer" not in begun
        ticket = writer.submit(User, [])
        ticket.wait(timeout=1)
        assert (ticket.rows, ticket.done, ticket.durable) == (0, True, True)


def test_a_wait_that_is_too_short_says_what_is_pending(url: str) -> None:
    """`RowsPending` is a TimeoutError with a number, and costs nothing."""
    with OnlineStore.open(url, [User]) as store:
        store.write(User, [row(1)])
        with PersistenceWriter(store, Writing(wcu_per_second=1)) as writer:
            ticket = writer.submit(User, [row(key) for key in range(4)])
            with pytest.raises(RowsPending, match="of 4 rows are not done yet") as caught:
                ticket.wait(timeout=0.1)
            assert isinstance(caught.value, TimeoutError)
            assert 0 < caught.value.pending <= 4
            with pytest.raises(RowsPending):
                writer.flush(0.1)
            writer.flush(20)


def test_a_spool_and_shedding_do_not_go_together(url: str, spool: Path) -> None:
    """One keeps everything, the other does not; the spool is left for another writer."""
    with OnlineStore.open(url, [User]) as store:
        with pytest.raises(InvalidValue, match="lose nothing") as refused:
            PersistenceWriter(store, Writing(when_full="shed_oldest"), spool=spool)
        PersistenceWriter(store, spool=spool).close()
        assert refused.tb is not None  # What it had opened would not be closed before this.


def test_two_writers_do_not_share_a_spool(url: str, spool: Path) -> None:
    """The second one is refused before it has done anything."""
    with (
        OnlineStore.open(url, [User]) as store,
        PersistenceWriter(store, spool=spool),
        pytest.raises(SpoolInUse),
    ):
        PersistenceWriter(store, spool=spool)


def test_a_small_spool_delays_durability_alone(
    url: str, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows beyond its bound are written, and are durable then."""
    with (
        OnlineStore.open(url, [User]) as store,
        PersistenceWriter(store, spool=spool, spool_bytes=2000) as writer,
    ):
        ticket = writer.submit(User, [row(key, b="x" * 100) for key in range(100)])
        ticket.wait("durable", timeout=60)
        ticket.wait(timeout=60)
        assert writer.stats().spool_bytes <= 2000
    assert "takes 2,000 bytes" in caplog.text
    assert issubclass(SpoolFull, Exception)


def test_rows_of_a_feature_that_was_dropped_meanwhile_are_dead(url: str, spool: Path) -> None:
    """An id that means something else by now is never written under: the letter says why."""
    with OnlineStore.open(url, [User]) as store:
        store.write(User, [row(1)])
        writer = PersistenceWriter(store, Writing(wcu_per_second=1), spool=spool)
        for key in range(5):
            writer.submit(User, [row(key, 1, "later")], T0).wait("durable", timeout=60)
        writer.close(0)
        store.drop(User, ["b"])
    letters: list[DeadLetter] = []
    smaller = Namespace("user", int, [Feature("a", int)])
    with (
        OnlineStore.open(url, [smaller]) as store,
        PersistenceWriter(store, spool=spool, dead_letters=letters.extend) as writer,
    ):
        writer.flush(10)
        stats = writer.stats()
    assert stats.recovered == stats.dead == len(letters) > 0
    assert stats.spool_records == 0 or stats.pending == 0
    assert "user.b does not have the id" in str(letters[0].error)
    assert letters[0].row["b"] == "later"
    assert letters[0].observed_at == T0


def test_arrival_order_ends_with_the_process(url: str, spool: Path) -> None:
    """What was left in the spool is older than what is submitted now, and does not replace it."""
    with OnlineStore.open(url, [User]) as store:
        store.write(User, [row(1)], observed_at=T0 - timedelta(days=1))
        slow = Writing(ordering="arrival", wcu_per_second=1)
        writer = PersistenceWriter(store, slow, spool=spool)
        for key in range(8):
            writer.submit(User, [row(key, 1)], T0).wait("durable", timeout=60)
        writer.close(0)
        with PersistenceWriter(store, Writing(ordering="arrival"), spool=spool) as writer:
            later = T0 + timedelta(days=1)
            writer.submit(User, [row(key, 2) for key in range(8)], later)
            writer.flush(10)
            assert writer.stats().recovered > 0
        assert [each["a"] for each in store.read(User, range(8))] == [2] * 8


# --- results of queries --------------------------------------------------------------------


def test_results_are_written_in_the_background(url: str, spool: Path) -> None:
    """`write_result` of a writer is that of its store, later."""
    with OnlineStore.open(url, [User]) as store:
        with PersistenceWriter(store, spool=spool) as writer:
            ticket = writer.write_result(
                "q", {"x": 1}, {"user.a": 5}, version="1", max_staleness="1h", observed_at=T0
            )
            ticket.wait(timeout=60)
        assert store.read_result("q", {"x": 1}, version="1").status == "stale"
        with PersistenceWriter(store) as writer:
            writer.write_result("q", {"x": 1}, {"user.a": 6}, version="1").wait(timeout=60)
        assert store.read_result("q", {"x": 1}, version="1")["user.a"] == 6


# --- dead letters --------------------------------------------------------------------------


def test_letters_of_any_value_are_lines_of_json(tmp_path: Path) -> None:
    """Whatever a row holds, its letter can be written and read."""
    path = tmp_path / "letters.jsonl"
    values = {
        "date": date(2026, 1, 1),
        "price": Decimal("1.10"),
        "raw": b"\xff",
        "vector": np.array([1.5, 2.5]),
        "tags": {"a"},
        "nested": {1: [None, {"x": (1, 2)}]},
        "surrogate": "\ud800",
        "odd": object,
    }
    sink = DeadLetterFile(path)
    sink([DeadLetter("user", values, T0, InvalidValue("bad"))])
    sink([DeadLetter("user", {}, T0, InvalidValue("bad"))])
    first, second = map(json.loads, path.read_text().splitlines())
    assert second == {
        "namespace": "user",
        "observed_at": "2026-01-01T00:00:00+00:00",
        "error": "InvalidValue",
        "message": "bad",
        "row": {},
    }
    assert first["row"]["vector"] == [1.5, 2.5]
    assert first["row"]["raw"] == "/w=="
    assert first["row"]["nested"] == {"1": [None, {"x": [1, 2]}]}


def test_without_a_sink_letters_are_counted_in_the_log(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is dropped in silence; nor are values told."""
    with OnlineStore.open(url, [User]) as store, PersistenceWriter(store) as writer:
        writer.submit(User, [{"id": 1, "a": "secret-value"}, {"id": 2, "a": "secret-value"}])
        writer.flush(5)
    assert "2 rows of user are dropped: InvalidValue." in caplog.text
    assert "secret-value" not in caplog.text


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, KeyboardInterrupt, MemoryError])
def test_a_sink_that_fails_holds_up_nobody(
    url: str, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    """A failure of the sink is logged, counted and raised by `close`; other rows are written."""

    def sink(letters: Any) -> None:
        raise kind("secret-value")

    with OnlineStore.open(url, [User]) as store:
        writer = PersistenceWriter(store, dead_letters=sink)
        writer.submit(User, [{"id": 1, "a": "bad"}, row(2, 5)])
        writer.submit(User, [row(3, 5)])
        writer.flush(5)
        stats = writer.stats()
        assert (stats.written, stats.dead, stats.undelivered) == (2, 1, 1)
        with pytest.raises(RowsAbandoned, match="1 dead letters could not be delivered") as caught:
            writer.close()
        assert caught.value.rows == 1
        writer.close()
    assert f"could not be delivered: {kind.__name__}" in caplog.text
    assert "secret-value" not in caplog.text


# --- metrics -------------------------------------------------------------------------------


def test_a_writers_figures_are_collected(url: str, spool: Path) -> None:
    """Each of them is a metric, as `stats` says it is."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    with (
        OnlineStore.open(url, [User]) as store,
        PersistenceWriter(store, spool=spool) as writer,
    ):
        observe_writer(writer, provider.get_meter("test"))
        writer.submit(User, [row(key) for key in range(30)])
        writer.flush(5)
        found = collected(reader)
        prefix = "chalk.online_store.writer"
        for name in ("accepted", "written", "pending", "batches", "spool_bytes", "oldest_seconds"):
            (point,) = found[f"{prefix}.{name}"]
            assert point.value == getattr(writer.stats(), name)
        assert found.get(f"{prefix}.wcu_per_second", []) == []  # Nothing bounds it.
    provider.shutdown()


# --- asyncio -------------------------------------------------------------------------------

Script = Callable[[AsyncOnlineStore, Path], Any]


def run(script: Script, url: str, spool: Path) -> None:
    async def whole() -> None:
        async with AsyncOnlineStore.open(url, [User]) as store:
            await script(store, spool)

    asyncio.run(whole())


def test_an_async_writer_does_the_same(url: str, spool: Path) -> None:
    """Submit, wait for the disk, for the table, flush, and close."""

    async def script(store: AsyncOnlineStore, spool: Path) -> None:
        async with AsyncPersistenceWriter(store, spool=spool) as writer:
            ticket = await writer.submit(User, [row(1, 7)], T0)
            await ticket.wait("durable", timeout=60)
            await ticket.wait(timeout=60)
            assert (ticket.written, ticket.done) == (1, True)
            tickets = await asyncio.gather(
                *(writer.submit(User, [row(key, key)], T0) for key in range(2, 200))
            )
            await writer.flush(10)
            assert all(each.done for each in tickets)
            await writer.write_result("q", {}, {"x": 1})
            await writer.drain(5)
            stats = writer.stats()
            assert stats.accepted == stats.written == 200
            with pytest.raises(StoreClosed):
                await writer.submit(User, [row(1)])
        assert (await store.read_result("q", {}))["x"] == 1

    run(script, url, spool)
    assert read(url, 199) == {"a": 199, "b": None}


def test_an_async_submit_waits_for_room(url: str, spool: Path) -> None:
    """With a full queue others go on while one waits; nothing is lost."""

    async def script(store: AsyncOnlineStore, spool: Path) -> None:
        async with AsyncPersistenceWriter(store, Writing(max_rows=5)) as writer:
            await asyncio.gather(*(writer.submit(User, [row(key, key)]) for key in range(50)))
            await writer.flush(10)
            assert writer.stats().written == 50

    run(script, url, spool)


def test_an_async_wait_may_be_cancelled(url: str, spool: Path) -> None:
    """The row goes on without whoever waited."""

    async def script(store: AsyncOnlineStore, spool: Path) -> None:
        await store.write(User, [row(9)])
        async with AsyncPersistenceWriter(store, Writing(wcu_per_second=2)) as writer:
            ticket = await writer.submit(User, [row(key, 1) for key in range(5)])
            with pytest.raises(RowsPending):
                await ticket.wait(timeout=0.05)
            waiting = asyncio.create_task(ticket.wait())
            await asyncio.sleep(0.05)
            waiting.cancel()
            await ticket.wait(timeout=60)

    run(script, url, spool)
    assert read(url, 4)["a"] == 1


def test_an_async_writer_belongs_to_one_loop(url: str) -> None:
    """In another event loop it says so instead of hanging."""
    store = AsyncOnlineStore.open(url, [User])
    with asyncio.Runner() as first:
        writer = AsyncPersistenceWriter(store)
        first.run(writer.submit(User, [row(1)]))
        with asyncio.Runner() as second, pytest.raises(StoreClosed, match="another event loop"):
            second.run(writer.submit(User, [row(2)]))
        first.run(writer.close())
        first.run(store.close())


def test_an_async_writer_that_nobody_closed_leaves_its_rows_in_the_spool(
    url: str, spool: Path
) -> None:
    """The loop is gone at the end of the interpreter, but what was durable is not."""
    code = f"""
import asyncio
from chalk_online_store import *
from tests.test_writer import User, row, T0
async def main():
    store = AsyncOnlineStore.open({url!r}, [User])
    await store.write(User, [row(0)])
    writer = AsyncPersistenceWriter(store, Writing(wcu_per_second=1), spool={str(spool)!r})
    ticket = await writer.submit(User, [row(key, 3) for key in range(9)], T0)
    await ticket.wait("durable", timeout=60)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr, done.stderr
    with (
        OnlineStore.open(url, [User]) as store,
        PersistenceWriter(store, spool=spool) as writer,
    ):
        writer.flush(10)
    assert read(url, 8)["a"] == 3


def test_the_log_has_no_values(url: str, spool: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong, what is logged says nothing of keys and values."""
    caplog.set_level(logging.DEBUG, "chalk_online_store")
    with (
        OnlineStore.open(url, [User]) as store,
        PersistenceWriter(store, spool=spool, spool_bytes=1) as writer,
    ):
        writer.submit(User, [row(987_654, 1, "secret-value"), {"id": 987_654, "a": "secret"}])
        writer.flush(5)
    assert "secret" not in caplog.text
    assert "987654" not in caplog.text
