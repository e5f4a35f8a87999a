"""Connections that the network has forgotten, and responses that are not those to the request.

A case runs against one server, replicas, sentinels and a cluster, with threads and with asyncio.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from chalk_online_store import AsyncOnlineStore, OnlineStore, Status, features
from chalk_online_store.connect import connect
from chalk_online_store.errors import StaleConnection
from chalk_online_store.network.reuse import Reuse
from chalk_online_store.testing import (
    ForgottenConnections,
    LateDuplicates,
    Latency,
    SwappedResponses,
    Valkey,
    ValkeyFaultProxy,
    ValkeySentinels,
)
from chalk_online_store.valkey.commands import Request
from chalk_online_store.valkey.resp import Command
from chalk_online_store.valkey.transport import AsyncValkeyTransport, ValkeyTransport
from chalk_online_store.valkey.urls import ValkeyTarget
from tests.contract.conftest import AnyStore

STRESS = int(os.environ.get("CHALK_STRESS", "1"))
POOLED = 32


@features
class User:
    id: int
    a: int


KEYS = range(64)
ROWS: list[dict[str, Any]] = [{"id": key, "a": 1000 + key} for key in KEYS]


@pytest.fixture(params=[OnlineStore, AsyncOnlineStore])
def kind(request: pytest.FixtureRequest) -> type:
    found: type = request.param
    return found


@pytest.fixture(scope="module")
def valkey_sentinels() -> Iterator[ValkeySentinels]:
    with ValkeySentinels() as group:
        yield group


@contextmanager
def opened(kind: type, url: str, **options: Any) -> Iterator[AnyStore]:
    """A store of either kind."""
    with asyncio.Runner() as runner:
        store = AnyStore(kind.open(url, [User], **options), runner)  # type: ignore[attr-defined]
        try:
            yield store
        finally:
            store.close()


@contextmanager
def proxies(*servers: Valkey) -> Iterator[list[ValkeyFaultProxy]]:
    """A proxy before each server."""
    with ExitStack() as stack:
        yield [stack.enter_context(ValkeyFaultProxy(server)) for server in servers]


def wait_until(is_so: Callable[[], bool]) -> None:
    """Return once it is so."""
    until = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def warm(store: AnyStore, fronts: Sequence[ValkeyFaultProxy]) -> None:
    """Pool 32 connections through each proxy, which knows them all."""
    assert store.warm(POOLED) >= POOLED
    wait_until(lambda: all(front.stats().connections >= POOLED for front in fronts))


def first_read(store: AnyStore, keys: Any = (7,)) -> Any:
    """A read of one second, which has to be a hit without a retry."""
    rows = store.read(User, list(keys), timeout=1)
    assert rows.statuses("a") == [Status.HIT] * len(rows)
    assert (rows.report.retries, rows.report.failovers) == (0, 0)
    return rows


@pytest.mark.parametrize("silent", [False, True])
def test_forgotten_connections_to_one_server_cost_no_retry(
    kind: type, valkey: Valkey, silent: bool
) -> None:
    """With 32 stale connections and one second, the first read is a hit on a new connection."""
    with proxies(valkey) as (proxy,), opened(kind, proxy.url(f"{kind.__name__}:")) as store:
        store.write(User, ROWS)
        warm(store, [proxy])
        proxy.inject(ForgottenConnections(silent=silent))
        for key in KEYS:
            first_read(store, [key])
        wait_until(lambda: proxy.stats().connections < 5)  # The stale ones are closed.


@pytest.mark.parametrize("silent", [False, True])
def test_forgotten_connections_do_not_count_against_a_node(
    kind: type, valkey: Valkey, silent: bool
) -> None:
    """The primary stays healthy and is read from, and no replica is."""
    with proxies(valkey, valkey) as (primary, replica):
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{replica.port}"
        url = f"valkey://{hosts}/0?prefix=two-{kind.__name__}:"
        with opened(kind, url) as store:
            store.write(User, ROWS)
            warm(store, [primary])
            primary.inject(ForgottenConnections(silent=silent))
            rows = first_read(store)
            assert rows.report.region == f"127.0.0.1:{primary.port}" or rows.report.hedges
            assert next(each.state for each in store.regions()) == "healthy"


@pytest.mark.parametrize("silent", [False, True])
def test_forgotten_connections_to_a_cluster_cost_no_retry(
    kind: type, valkey_cluster: Any, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read of all nodes goes on over one new connection to each."""
    prefix = f"stale-{kind.__name__}-{silent}:"
    with proxies(*valkey_cluster.nodes) as fronts:
        nodes = valkey_cluster.nodes
        ways = {node.port: front.port for node, front in zip(nodes, fronts, strict=True)}
        _lead_through(monkeypatch, ways)
        with opened(kind, valkey_cluster.url(prefix)) as store:
            store.write(User, ROWS)
            warm(store, fronts)
            for front in fronts:
                front.inject(ForgottenConnections(silent=silent))
            first_read(store, KEYS)


@pytest.mark.parametrize("silent", [False, True])
def test_forgotten_connections_behind_sentinels_cost_no_retry(
    kind: type, valkey_sentinels: Any, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentinel is asked again, and the read goes on over a new connection."""
    with proxies(valkey_sentinels.primary) as (front,):
        _lead_through(monkeypatch, {valkey_sentinels.primary.port: front.port})
        prefix = f"stale-{kind.__name__}-{silent}:"
        with opened(kind, valkey_sentinels.url(prefix)) as store:
            store.write(User, ROWS)
            warm(store, [front])
            front.inject(ForgottenConnections(silent=silent))
            first_read(store)


def _lead_through(monkeypatch: pytest.MonkeyPatch, ways: dict[int | None, int | None]) -> None:
    """Connect to proxies where servers name themselves."""
    from chalk_online_store.valkey.transport import aio, blocking

    for pool in (blocking.Pool, aio.AsyncPool):
        original: Any = pool._open

        def led(self: Any, address: Any, *rest: Any, _original: Any = original, **more: Any) -> Any:
            host, port = address
            return _original(self, (host, ways.get(port, port)), *rest, **more)

        monkeypatch.setattr(pool, "_open", led)


def test_a_slow_server_is_not_sent_everything_twice(kind: type, valkey: Valkey) -> None:
    """While a server answers slowly, a budget bounds the requests that are sent a second time."""
    url = f"slow-{kind.__name__}:"
    with proxies(valkey) as (proxy,), opened(kind, proxy.url(url)) as store:
        store.write(User, ROWS)
        store.read(User, [1])
        before = proxy.stats().requests["MGET"]
        with proxy.fault(Latency(0.15)):
            for _ in range(12):
                assert store.read(User, [7], timeout=5)[0]["a"] == 1007
        assert proxy.stats().requests["MGET"] - before < 20


@pytest.mark.parametrize("transport", [ValkeyTransport, AsyncValkeyTransport])
def test_time_that_ends_on_a_silent_reused_connection_is_no_fault_of_the_server(
    transport: Any, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no time is left for a new connection, the error says so; the next request gets one."""
    monkeypatch.setattr(Reuse, "may_send_twice", lambda self, now: False)
    with proxies(valkey) as (front,), asyncio.Runner() as runner:
        carrier = transport(ValkeyTarget((("127.0.0.1", front.port or 0),)))

        def ask(timeout: float) -> Any:
            found = carrier.send(Request([("MGET", "a")]), timeout)
            return runner.run(found) if asyncio.iscoroutine(found) else found

        assert ask(30) == [[None]]
        front.inject(ForgottenConnections(silent=True))
        with pytest.raises(StaleConnection) as caught:
            ask(0.3)
        assert not caught.value.engine_fault
        assert ask(30) == [[None]]
        closing = carrier.close()
        if asyncio.iscoroutine(closing):
            runner.run(closing)


def test_an_idle_connection_keeps_no_response(valkey: Valkey) -> None:
    """The last response of a pooled connection, which may be large, can be freed."""

    async def main() -> None:
        carrier = AsyncValkeyTransport(ValkeyTarget((("127.0.0.1", valkey.port or 0),)))
        replies = await carrier.send(Request([("MGET", "idle")]), 30)
        (pool,) = carrier._pools.made.values()
        assert replies == [[None]]
        assert not any(connection._reader.replies for connection in pool._idle)
        await carrier.close()

    asyncio.run(main())


@pytest.mark.parametrize("transport", [ValkeyTransport, AsyncValkeyTransport])
def test_connections_idle_for_too_long_are_dropped(transport: Any, valkey: Valkey) -> None:
    """A connection that was idle for `keepalive_timeout` is closed, and another one opened."""
    target = ValkeyTarget((("127.0.0.1", valkey.port or 0),), keepalive_timeout=0.05)
    kept = replace(target, keepalive_timeout=60)
    ids: Command = ("CLIENT", "ID")
    with asyncio.Runner() as runner:

        def ask(carrier: Any) -> int:
            found = carrier.send(Request([ids]), 5)
            replies = runner.run(found) if asyncio.iscoroutine(found) else found
            return int(replies[0])

        for each, same in ((target, False), (kept, True)):
            carrier = transport(each)
            first = ask(carrier)
            time.sleep(0.1)
            assert (ask(carrier) == first) is same
            closing = carrier.close()
            if asyncio.iscoroutine(closing):
                runner.run(closing)


def test_the_option_is_named_as_for_dynamodb() -> None:
    """`keepalive_timeout` is an option of a Valkey URL, in seconds."""
    connected = connect("valkey://localhost?keepalive_timeout=240", None)
    connected.transports[""].close()


# --- responses to other requests -----------------------------------------------------------


def wrong_cells(found: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Cells that are neither right nor failed."""
    return [
        (key, row.status("a"))
        for key, row in found
        if row.status("a") is not Status.FAILED
        and (row.status("a") is not Status.HIT or row["a"] != 1000 + key)
    ]


@pytest.mark.parametrize("fault", [SwappedResponses(0.02), LateDuplicates(0.002)])
def test_responses_to_other_requests_are_never_served_by_threads(
    valkey: Valkey, fault: Any
) -> None:
    """While responses are swapped or come twice, each cell is right or failed."""
    with (
        proxies(valkey) as (proxy,),
        OnlineStore.open(proxy.url("swap:"), [User], timeout=2) as store,
    ):
        store.write(User, ROWS)

        def read(key: int) -> tuple[int, Any]:
            return key, store.read(User, [key])[0]

        with proxy.fault(fault), ThreadPoolExecutor(8) as pool:
            found = list(pool.map(read, list(KEYS) * 2 * STRESS))
        assert wrong_cells(found) == []
        assert proxy.stats().faulted[type(fault).__name__] > 0
        assert wrong_cells([read(key) for key in KEYS]) == []


@pytest.mark.parametrize("fault", [SwappedResponses(0.02), LateDuplicates(0.002)])
def test_responses_to_other_requests_are_never_served_by_tasks(valkey: Valkey, fault: Any) -> None:
    """The same with asyncio."""

    async def main(proxy: ValkeyFaultProxy) -> None:
        async with AsyncOnlineStore.open(proxy.url("swap:"), [User], timeout=2) as store:
            await store.write(User, ROWS)

            async def read(key: int) -> tuple[int, Any]:
                return key, (await store.read(User, [key]))[0]

            with proxy.fault(fault):
                for _ in range(2 * STRESS):
                    found = await asyncio.gather(*map(read, KEYS))
                    assert wrong_cells(found) == []
            assert wrong_cells([await read(key) for key in KEYS]) == []

    with proxies(valkey) as (proxy,):
        asyncio.run(main(proxy))
