"""Pooled connections that the network has forgotten: requests go on over new ones at once."""

from __future__ import annotations

import asyncio
import math
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from chalk_online_store import AsyncOnlineStore, OnlineStore, RegionState, Routing, features
from chalk_online_store.errors import (
    ConnectionFailed,
    RequestError,
    RequestTimeout,
    StaleConnection,
)
from chalk_online_store.network import reuse
from chalk_online_store.network.reuse import Reuse
from chalk_online_store.routing.health import RECENT, SLOW_OF_RECENT, RegionHealth
from chalk_online_store.routing.router import Router
from chalk_online_store.testing import Dynoxide
from tests import test_http
from tests.gateways import Gateway, reset_on_close
from tests.test_http import (
    Blocking,
    Connect,
    Server,
    always,
    answer,
    received,
    reset,
    silent,
)

STALE = 32


connect = test_http.connect
"""The fixture makes clients of every kind."""


class Forgetful:
    """Answers each request until connections are forgotten: those that are open then are stale."""

    def __init__(self, how: Callable[[socket.socket], None]) -> None:
        self._how = how
        self._forgotten = 0
        self.answered = 0
        self._lock = threading.Lock()

    def forget(self) -> None:
        self._forgotten += 1

    def __call__(self, connection: socket.socket) -> None:
        epoch = self._forgotten
        while True:
            data = received(connection)
            if epoch != self._forgotten:
                return self._how(connection)
            with self._lock:
                self.answered += 1
            connection.sendall(answer(data.partition(b"\r\n\r\n")[2]))


def break_off(connection: socket.socket) -> None:
    """Reset a connection at once."""
    reset_on_close(connection)


def swallow(connection: socket.socket) -> None:
    """Read, and answer nothing."""
    silent(connection)


def end(connection: socket.socket) -> None:
    """Close a connection without an answer."""


every_way = pytest.mark.parametrize("how", [break_off, swallow, end])


@every_way
def test_the_first_request_succeeds_on_a_new_connection(
    connect: Connect, how: Callable[[socket.socket], None]
) -> None:
    """One request finds 32 stale connections, and opens one new one that others then use."""
    behave = Forgetful(how)
    with Server(behave) as server:
        client = connect(server.url, pool_size=STALE)
        assert client.warm(STALE) == STALE
        assert client.send().status == 200
        behave.forget()
        for _ in range(5):
            assert client.send(timeout=10).status == 200
        assert client.warm(1) == 1
    assert server.connections == STALE + 1


@every_way
def test_every_request_at_once_has_a_new_connection(
    how: Callable[[socket.socket], None],
) -> None:
    """Threads that find stale connections at the same time each recover."""
    behave = Forgetful(how)
    with Server(behave) as server, ThreadPoolExecutor(8) as threads:
        client = Blocking(server.url, pool_size=STALE)
        client.warm(STALE)
        behave.forget()
        found = list(threads.map(lambda _: client.send(timeout=10).status, range(8)))
        client.close()
    assert found == [200] * 8


def test_a_new_connection_that_breaks_counts(connect: Connect) -> None:
    """A stale connection is replaced once: if the new one breaks too, the engine is at fault."""
    with Server(reset) as server:
        client = connect(server.url)
        assert client.warm(2) == 2
        with pytest.raises(ConnectionFailed):
            client.send()
    assert server.connections == 3


def test_a_response_that_breaks_off_is_not_stale(connect: Connect) -> None:
    """A reused connection that breaks after the first byte fails as a new one would."""

    def behave(connection: socket.socket) -> None:
        received(connection)
        connection.sendall(answer())
        received(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")

    with Server(behave) as server:
        client = connect(server.url)
        client.send()
        with pytest.raises(ConnectionFailed):
            client.send()
    assert server.connections == 1


def test_a_slow_response_is_not_lost(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reused connection that answers late counts if the new one has not answered before."""
    monkeypatch.setattr(reuse, "_SHORTEST_BOUND", 0.0)
    doubted = threading.Event()
    connections: list[int] = []

    def behave(connection: socket.socket) -> None:
        connections.append(1)
        if len(connections) > 1:  # The new one never answers.
            doubted.set()
            silent(connection)
        received(connection)
        connection.sendall(answer(b"first"))
        received(connection)
        assert doubted.wait(60)
        connection.sendall(answer(b"late"))

    with Server(behave) as server:
        client = connect(server.url)
        assert [client.send(timeout=20).body for _ in range(2)] == [b"first", b"late"]
    assert server.connections == 2


def test_a_silent_connection_and_no_new_one_say_why(connect: Connect) -> None:
    """If new connections are refused, the failure is that, and not the stale connection's."""
    behave = Forgetful(swallow)
    with Server(behave) as server:
        client = connect(server.url)
        client.send()
        behave.forget()
        server._listener.shutdown(socket.SHUT_RDWR)
        server._listener.close()
        with pytest.raises(ConnectionFailed):
            client.send(timeout=0.5)


def test_no_time_for_a_new_connection_is_no_fault_of_the_engine(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request whose time passes on a silent reused connection says so by its class."""
    monkeypatch.setattr(Reuse, "may_send_twice", lambda *_: False)
    behave = Forgetful(swallow)
    with Server(behave) as server:
        client = connect(server.url)
        assert client.warm(3) == 3
        client.send()
        behave.forget()
        with pytest.raises(StaleConnection) as caught:
            client.send(timeout=0.2)
        assert not caught.value.engine_fault
        assert client.send().status == 200
    assert server.connections == 4


# --- idle connections ----------------------------------------------------------------------


def test_connections_that_were_idle_for_too_long_are_dropped(connect: Connect) -> None:
    """After `keepalive_timeout` a request opens a new connection, and the old ones are closed."""
    with Server(always(answer())) as server:
        client = connect(server.url, keepalive_timeout=0.2)
        assert client.warm(3) == 3
        client.pause(0.3)
        client.send()
        assert server.connections == 4
        assert client.warm(1) == 1


@contextmanager
def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Iterator[None]:
    """Let the wall clock be ahead, and the monotonic one as it is: a machine was frozen."""
    now = time.time
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: now() + seconds)
        yield


def test_a_thawed_process_drops_what_it_had(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Lambda function's monotonic clock stands still while it is frozen; the wall clock tells."""
    with Server(always(answer())) as server:
        client = connect(server.url)
        client.send()
        with later(monkeypatch, 60):
            client.send()
        assert server.connections == 2
        client.send()
    assert server.connections == 2


def test_a_wall_clock_that_is_set_back_does_no_harm(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections stay usable: the monotonic clock still bounds their age."""
    with Server(always(answer())) as server:
        client = connect(server.url)
        client.send()
        with later(monkeypatch, -3600):
            client.send()
    assert server.connections == 1


def test_the_bound_of_silence_follows_the_usual_latency() -> None:
    """The bound is 4 times the peak of latency, at least 100 ms, at most half of the timeout."""
    found = Reuse(50, 32)
    connection = SimpleNamespace(began_at=time.monotonic() - 0.5)
    assert found.silence_bound(10) == 0.1
    assert found.silence_bound(0.1) == 0.05
    found.stamp(connection)
    assert 2.0 <= found.silence_bound(100) < 10
    assert found.silence_bound(1) == 0.5
    found.has_expired(connection, time.monotonic() + 100)
    found.has_expired(connection, time.monotonic() + 200)
    assert found.silence_bound(10) == 0.1


def test_a_slow_engine_is_not_asked_twice_each_time() -> None:
    """One request per second may be sent twice, after one for each connection of the pool."""
    found = Reuse(50, 10)
    sent = [found.may_send_twice(turn / 64) for turn in range(64 * 10 + 1)]
    assert sent[:10] == [True] * 10
    assert sum(sent) == 10 + 10


# --- bytes that nobody asked for -----------------------------------------------------------


@pytest.mark.parametrize("together", [True, False], ids=["in one piece", "a moment later"])
@pytest.mark.parametrize(
    "more", [answer(b"duplicate"), b"HTTP/1.1 200 OK\r\n", b"\x00garbage"], ids=repr
)
def test_a_connection_with_unasked_bytes_carries_nothing_more(
    connect: Connect, more: bytes, together: bool
) -> None:
    """Bytes that follow a response, at once or later, end the connection and not a request."""
    sent = threading.Event()

    def behave(connection: socket.socket) -> None:
        _, _, body = received(connection).partition(b"\r\n\r\n")
        if together:
            connection.sendall(answer(body) + more)
        else:
            connection.sendall(answer(body))
            time.sleep(0.02)
            connection.sendall(more)
        sent.set()
        received(connection)

    with Server(behave) as server:
        client = connect(server.url)
        for n in range(1, 4):
            assert client.send().status == 200
            assert sent.wait(60)
            sent.clear()
            time.sleep(0.02)  # The event loop does not run meanwhile.
            assert server.connections == n


# --- two regions ---------------------------------------------------------------------------


@features
class User:
    id: int
    visits: int


QUIET = Routing(hedging=None, probe_every="1h")
Read = tuple[str, str, int]


def _read(rows: Any) -> Read:
    return rows.statuses("visits")[0].value, rows.report.region, rows.report.retries


def _threads(url: str, gateway: Gateway, how: str, routing: Routing | None) -> Any:
    with OnlineStore.open(url, schema=[User], timeout=10, routing=routing) as store:
        store.write(User, [{"id": n, "visits": n} for n in range(20)])
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda n: store.read(User, [n % 20]), range(60)))
        assert gateway.forget(how) > 1
        reads = [_read(store.read(User, [n], timeout=5)) for n in range(6)]
        return reads, store.regions()


async def _tasks(url: str, gateway: Gateway, how: str, routing: Routing | None) -> Any:
    async with AsyncOnlineStore.open(url, schema=[User], timeout=10, routing=routing) as store:
        await store.write(User, [{"id": n, "visits": n} for n in range(20)])
        for _ in range(5):
            await asyncio.gather(*(store.read(User, [n]) for n in range(12)))
        assert gateway.forget(how) > 1
        reads = [_read(await store.read(User, [n], timeout=5)) for n in range(6)]
        return reads, store.regions()


@pytest.mark.parametrize("hedged", [False, True], ids=["no hedges", "hedged"])
@pytest.mark.parametrize("how", ["reset", "silent"])
@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_reads_stay_in_a_region_whose_connections_were_lost(
    dynoxide: Dynoxide, table: str, kind: str, how: str, hedged: bool
) -> None:
    """Neither failures nor failovers are counted: new connections to the region work at once."""
    with Gateway(dynoxide.port, pause=0.05) as gateway:
        url = (
            f"dynamodb:///{table}?region=us-east-1,us-west-2&"
            f"endpoint_url={gateway.url},{dynoxide.endpoint_url}"
        )
        routing = None if hedged else QUIET
        if kind == "threads":
            reads, regions = _threads(url, gateway, how, routing)
        else:
            reads, regions = asyncio.run(_tasks(url, gateway, how, routing))
    if hedged:  # Any of them may have been answered by its hedge.
        assert [(status, retries) for status, _, retries in reads] == [("hit", 0)] * 6
    else:
        assert reads == [("hit", "us-east-1", 0)] * 6
    assert regions[0].state is RegionState.HEALTHY
    assert regions[1].failovers == 0


def _health() -> RegionHealth:
    return RegionHealth("a", Routing(), random.Random(1))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StaleConnection("late"), RegionState.HEALTHY),
        (RequestTimeout("late"), RegionState.DOWN),
        (ConnectionFailed("broken"), RegionState.DOWN),
    ],
    ids=lambda found: type(found).__name__,
)
def test_a_stale_connection_does_not_count(error: RequestError, expected: RegionState) -> None:
    """Other failures mark a region down; a stale connection is neither good nor bad."""
    router = Router(["a", "b"], "a")
    for turn in range(10):
        generation = router.health["a"].generation
        router.raised("a", generation, "kind", error, math.inf, float(turn))
    assert router.health["a"].state is expected
    assert router.health["a"].reached_at == -math.inf


def test_answers_that_a_stale_connection_delayed_are_not_slow() -> None:
    """As many slow answers as connections were stale are excused, and no more."""
    excused, judged = _health(), _health()
    for health in (excused, judged):
        for turn in range(100):
            health.answered(0, "kind", 0.01, turn / 100)
    for _ in range(RECENT):
        excused.delayed()
    for turn in range(RECENT):
        for health in (excused, judged):
            health.answered(0, "kind", 0.3, 2 + turn / 100)
    assert (excused.state, judged.state) == (RegionState.HEALTHY, RegionState.SLOW)
    for turn in range(SLOW_OF_RECENT):
        excused.answered(0, "kind", 0.3, 4 + turn / 100)
    assert excused.state is RegionState.SLOW
