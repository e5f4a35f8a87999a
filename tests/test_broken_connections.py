"""Listeners that accept and break off: every call ends, nothing is held, and all is well after it.

`CHALK_STRESS=70` makes about 10,000 calls with each kind of client.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store import AsyncOnlineStore, OnlineStore, OnlineStoreError, features
from chalk_online_store.drivers.aio import AsyncDriver
from chalk_online_store.drivers.loops import DeadlineTimer
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.dynamodb.http import AsyncHttpTransport
from chalk_online_store.dynamodb.http.pool import Connection, Pool
from chalk_online_store.effects import All, Send
from chalk_online_store.errors import RequestTimeout
from chalk_online_store.network.reuse import Reuse
from chalk_online_store.network.sockets import BrokenResponse
from chalk_online_store.testing import Dynoxide
from chalk_online_store.valkey.transport.aio import AsyncConnection
from tests.gateways import BREAKS, STRESS, Gateway
from tests.test_http import (
    GET,
    NewLoop,
    Server,
    always,
    answer,
    new_loop,
    run,
    silent,
    tasks_transport,
)

__all__ = ["new_loop"]

CALLS = 150 * STRESS
AT_ONCE = 50
TIMEOUT = 0.5
SLACK = 10.0
"""Seconds that a busy machine may take longer. A call that nothing ends takes for ever."""


@features
class User:
    id: int
    visits: int


ROWS = [{"id": n, "visits": n} for n in range(10)]


def url_of(gateway: Gateway, table: str) -> str:
    return f"dynamodb:///{table}?region=us-east-1&endpoint_url={gateway.url}"


def open_sockets() -> int:
    """The number of sockets that this process has; libuv keeps pipes of its own."""
    found = 0
    for each in Path("/proc/self/fd").iterdir() if sys.platform == "linux" else ():
        with suppress(OSError):
            found += str(each.readlink()).startswith("socket")
    return found


def settles(condition: Callable[[], bool]) -> bool:
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


def ended_by(began: float) -> bool:
    return time.monotonic() - began < TIMEOUT + SLACK


def test_calls_of_threads_end_and_recover(dynoxide: Dynoxide, table: str) -> None:
    """Reads and writes end by their deadlines while connections break, and succeed afterwards."""
    late: list[int] = []

    def call(n: int) -> None:
        began = time.monotonic()
        with suppress(OnlineStoreError):
            store.read(User, [n % 10], timeout=TIMEOUT)
        if not ended_by(began):
            late.append(n)

    before = open_sockets()
    with Gateway(dynoxide.port) as gateway, ThreadPoolExecutor(AT_ONCE) as threads:
        with OnlineStore.open(url_of(gateway, table), schema=[User]) as store:
            store.write(User, ROWS)
            gateway.breaks = BREAKS
            gateway.forget("reset")
            list(threads.map(call, range(CALLS)))
            gateway.breaks = ()
            time.sleep(1)
            reads = list(threads.map(lambda n: store.read(User, [n % 10]), range(100)))
        threads.shutdown()
    assert not late
    assert [rows.statuses("visits")[0].value for rows in reads] == ["hit"] * 100
    assert settles(lambda: open_sockets() <= before)


def test_calls_of_tasks_end_and_recover(dynoxide: Dynoxide, table: str, new_loop: NewLoop) -> None:
    """The same on event loops; no slot of the pool and no task is left."""

    async def call(store: AsyncOnlineStore, limit: asyncio.Semaphore, n: int) -> bool:
        async with limit:
            began = time.monotonic()
            with suppress(OnlineStoreError):
                await store.read(User, [n % 10], timeout=TIMEOUT)
            return ended_by(began)

    async def scenario(gateway: Gateway) -> Any:
        store = AsyncOnlineStore.open(url_of(gateway, table), schema=[User])
        await store.write(User, ROWS)
        gateway.breaks = BREAKS
        gateway.forget("reset")
        limit = asyncio.Semaphore(AT_ONCE)
        calls = [asyncio.create_task(call(store, limit, n)) for n in range(CALLS)]
        ended, never = await asyncio.wait(calls, timeout=60 + CALLS * TIMEOUT / AT_ONCE * 4)
        assert not never
        gateway.breaks = ()
        await asyncio.sleep(1)
        found = await asyncio.gather(*(store.read(User, [n % 10]) for n in range(100)))
        pool = pool_of(store)
        assert (pool._busy, len(pool._queue)) == (0, 0)
        assert not pool._opening
        await store.close()
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert all(task.result() for task in ended)
        return [rows.statuses("visits")[0].value for rows in found]

    before = open_sockets()
    with Gateway(dynoxide.port) as gateway:
        assert run(scenario(gateway), new_loop) == ["hit"] * 100
    assert settles(lambda: open_sockets() <= before)


def pool_of(store: AsyncOnlineStore) -> Pool:
    driver: Any = store._driver
    assert isinstance(driver, AsyncDriver)
    transport = driver.transports[""]
    assert isinstance(transport, AsyncHttpTransport)
    return transport._pool()


# --- causes --------------------------------------------------------------------------------


def test_a_connection_that_was_lost_before_its_use_is_refused(new_loop: NewLoop) -> None:
    """A request on a connection that has ended fails at once: nothing would end its wait."""

    async def scenario(port: int) -> None:
        transport = tasks_transport(f"http://127.0.0.1:{port}")
        pool = transport._pool()
        connection = await pool._connect(time.monotonic() + 10)
        for _ in range(1000):
            if connection.usable:
                await asyncio.sleep(0.01)
        with pytest.raises(BrokenResponse):
            await asyncio.wait_for(connection.exchange(b"", 0.0, time.monotonic() + 10), 30)
        await transport.close()

    with Server(lambda connection: None) as server:
        run(scenario(server.port), new_loop)


def test_a_deadline_survives_the_loss_of_its_timer(new_loop: NewLoop) -> None:
    """A request ends in time although the timer of its loop's alarm was cancelled by something."""

    async def scenario(url: str) -> None:
        transport = tasks_transport(url)
        sending = asyncio.create_task(transport.send(GET, 0.2))
        await asyncio.sleep(0.05)
        timer = transport._pool().alarm._timer
        assert timer is not None
        timer.cancel()
        with pytest.raises(OnlineStoreError, match="in time"):
            await asyncio.wait_for(sending, 30)
        await transport.close()

    with Server(silent) as server:
        run(scenario(server.url), new_loop)


def test_a_deadline_that_raises_does_not_keep_others_from_theirs(new_loop: NewLoop) -> None:
    """Whatever one wait does at its deadline, the others of the loop end at theirs."""
    reported: list[Any] = []

    class Bad:
        due = 0.0

        def ring(self) -> None:
            self.due = float("inf")
            raise RuntimeError("bad")

    async def scenario(url: str) -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(context)
        )
        transport = tasks_transport(url)
        sending = [asyncio.create_task(transport.send(GET, 0.1 + n / 50)) for n in range(3)]
        await asyncio.sleep(0.01)
        alarm = transport._pool().alarm
        alarm.waiting |= {Bad() for _ in range(10)}
        found = await asyncio.wait_for(asyncio.gather(*sending, return_exceptions=True), 30)
        assert all(isinstance(each, OnlineStoreError) for each in found)
        await transport.close()

    with Server(silent) as server:
        run(scenario(server.url), new_loop)
    assert len(reported) == 10


def test_a_connect_that_ignores_its_end_does_not_hold_the_request(
    new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that waits for a connection ends by its own deadline, whatever connecting does."""
    released = asyncio.Event()

    async def stubborn(*_: object) -> Any:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        raise OSError("released")

    monkeypatch.setattr(Pool, "_open", stubborn)

    async def scenario() -> None:
        transport = tasks_transport("http://127.0.0.1:9")
        with pytest.raises(OnlineStoreError, match="in time"):
            await asyncio.wait_for(transport.send(GET, 0.1), 30)
        assert transport._pool()._busy == 0
        released.set()
        await transport.close()

    run(scenario(), new_loop)


@pytest.mark.parametrize("hold", [0.0, 0.001])
def test_cancelled_requests_give_back_their_slots(new_loop: NewLoop, hold: float) -> None:
    """Requests that are cancelled at any moment leave the pool as it was."""

    async def scenario(url: str) -> None:
        # On a busy machine the server's backlog fills up, and TCP tries again after a second.
        transport = tasks_transport(url, pool_size=4, connect_timeout=60)
        for turn in range(40):
            sending = [asyncio.create_task(transport.send(GET, 60)) for _ in range(8)]
            for _ in range(turn):
                await asyncio.sleep(0)
            await asyncio.sleep(hold)
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
        pool = transport._pool()
        assert (pool._busy, len(pool._queue)) == (0, 0)
        assert (await transport.send(GET, 60)).status == 200
        await transport.close()

    with Server(always(answer())) as server:
        run(scenario(server.url), new_loop)


def test_a_blocking_transport_does_not_outlast_the_request() -> None:
    """A request that runs in another thread ends by its timeout, also while it waits for one."""
    ends = threading.Event()

    class Stuck:
        sent = 0

        def send(self, request: Any, timeout: float) -> Any:
            self.sent += 1
            ends.wait(60)

        def warm(self, connections: int, timeout: float) -> int:
            return 0

        def close(self) -> None:
            ends.set()

    def ask(n: int) -> Any:
        return (yield Send(n, 0.2))

    def main() -> Any:
        return (yield All([ask(n) for n in range(8)], 8))

    stuck = Stuck()
    driver = SyncDriver({"": stuck}, max_threads=2)
    began = time.monotonic()
    with pytest.raises(RequestTimeout):
        driver.run(main())
    assert time.monotonic() - began < 30
    ends.set()
    driver.close()
    assert stuck.sent == 2, "requests that no thread had begun were sent after their time"


def test_a_failed_response_that_nobody_awaits_is_not_reported() -> None:
    """The response of a doubted connection may fail after its call has ended."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        reports: list[Any] = []
        loop.set_exception_handler(lambda _, context: reports.append(context))
        transport = tasks_transport("http://127.0.0.1:1")
        over_http = Connection(transport._pool())
        over_valkey = AsyncConnection(DeadlineTimer(loop), Reuse(50, 1))
        for connection in (over_http, over_valkey):
            connection._waiting = loop.create_future()
            connection._fail(TimeoutError())
            connection._waiting = None
        gc.collect()
        await asyncio.sleep(0)
        assert reports == []
        await transport.close()

    asyncio.run(scenario())
