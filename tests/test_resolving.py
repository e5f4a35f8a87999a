"""Name resolution and addresses: a resolver that hangs, and addresses that do not answer."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest

from chalk_online_store import AsyncOnlineStore, OnlineStore, features
from chalk_online_store.errors import ConnectionFailed, RequestTimeout
from chalk_online_store.network import resolver
from chalk_online_store.network.resolver import Resolution, Resolver
from chalk_online_store.testing import Dynoxide
from chalk_online_store.testing.engines import local_session
from tests import test_http
from tests.test_given_up import until
from tests.test_http import (
    GET,
    HOST,
    Blocking,
    Connect,
    Server,
    always,
    answer,
    tasks_transport,
    waiting_at,
)

_numbers = count()


connect = test_http.connect
"""The fixture makes clients of every kind."""


class Names:
    """The system's resolver, for names that end in .test: each has the addresses given here."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[tuple[str, int]]] = {}
        self.errors: dict[str, Exception] = {}
        self.hanging: set[str] = set()
        self.released = threading.Event()
        self.lookups = 0
        self._resolve = socket.getaddrinfo

    def add(self, *ports: int | None) -> str:
        """Name a new host that has these ports of this machine for addresses."""
        name = f"host-{next(_numbers)}.test"
        self.addresses[name] = [(HOST, port) for port in ports if port is not None]
        return name

    def __call__(self, host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        """As `socket.getaddrinfo`."""
        if host not in self.addresses:
            return self._resolve(host, port, *arguments, **options)
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        self.lookups += 1
        if host in self.hanging:
            self.released.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if host in self.errors:
            raise self.errors[host]
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, address) for address in self.addresses[host]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """Resolve names by a table, and release the lookups that hang at the end."""
    found = Names()
    monkeypatch.setattr(socket, "getaddrinfo", found)
    monkeypatch.setattr(resolver, "FRESH_SECONDS", -1.0)
    yield found
    found.released.set()
    for thread in lookups():
        thread.join(60)


def lookups() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "chalk-online-store-dns"]


@contextmanager
def ends_soon() -> Iterator[None]:
    """Lookups hang for a minute here; what is done within must not wait for one."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 30


# --- a resolver that hangs -----------------------------------------------------------------


def test_a_lookup_that_hangs_does_not_outlast_the_request(connect: Connect, names: Names) -> None:
    """Requests end by their timeouts, and share one lookup of the name."""
    name = names.add(1)
    names.hanging.add(name)
    client = connect(f"http://{name}:80")
    with ends_soon():
        for _ in range(5):
            with pytest.raises(RequestTimeout):
                client.send(timeout=0.1)
    assert names.lookups == len(lookups()) == 1


def test_a_lookup_is_bounded_by_the_connect_timeout(connect: Connect, names: Names) -> None:
    """Resolving a name is a part of connecting."""
    name = names.add(1)
    names.hanging.add(name)
    with ends_soon(), pytest.raises(RequestTimeout):
        connect(f"http://{name}:80", connect_timeout=0.1).send(timeout=60)


def test_a_resolver_that_recovers_serves_those_who_wait(connect: Connect, names: Names) -> None:
    """A request waits for the lookup as long as it has time."""
    with Server(always(answer())) as server:
        name = names.add(server.port)
        ready = threading.Event()
        found = names.__call__

        def slow(*arguments: Any, **options: Any) -> Any:
            if not options.get("flags", 0):
                assert ready.wait(60)
            return found(*arguments, **options)

        socket.getaddrinfo = slow
        client = connect(f"http://{name}:80", connect_timeout=30)
        threading.Timer(0.2, ready.set).start()
        assert client.send(timeout=30).status == 200


def test_addresses_are_remembered(connect: Connect, names: Names) -> None:
    """While a lookup hangs, or fails for a moment, new connections use the last good addresses."""
    with Server(always(answer(b"{}", "200 OK", "Connection: close"))) as server:
        name = names.add(server.port)
        client = connect(f"http://{name}:80")
        assert client.send().status == 200
        names.errors[name] = socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
        assert client.send().status == 200
        names.hanging.add(name)
        with ends_soon():
            assert [client.send(timeout=20).status for _ in range(3)] == [200] * 3


def test_a_name_that_is_gone_is_not_remembered(connect: Connect, names: Names) -> None:
    """If the resolver says that a name does not exist, a new connection fails."""
    with Server(always(answer(b"{}", "200 OK", "Connection: close"))) as server:
        name = names.add(server.port)
        client = connect(f"http://{name}:80")
        client.send()
        names.errors[name] = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        with pytest.raises(ConnectionFailed, match="not known"):
            client.send()


def test_lookups_that_hang_do_not_pile_up(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lookup that has hung for long is not waited for alone, but few run at once."""
    monkeypatch.setattr(resolver, "LOOKUP_SECONDS", 0.0)
    name = names.add(1)
    names.hanging.add(name)
    found = Resolver()
    waits = [found.resolve(name, 80) for _ in range(50)]
    assert all(isinstance(each, Resolution) for each in waits)
    assert len(lookups()) == resolver.MAX_LOOKUPS


def test_names_of_connections_at_once_are_looked_up_once(
    connect: Connect, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that are opened together share the lookup of their host."""
    monkeypatch.setattr(resolver, "FRESH_SECONDS", 60.0)
    with Server(always(answer())) as server:
        name = names.add(server.port)
        assert connect(f"http://{name}:80").warm(10) == 10
        until(lambda: server.connections == 10)
    assert names.lookups == 1


def test_without_a_thread_a_request_fails_as_any_other(
    connect: Connect, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup that cannot start raises `ConnectionFailed`, and the next one starts."""

    def fail(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    with Server(always(answer())) as server:
        client = connect(f"http://{names.add(server.port)}:80")
        with monkeypatch.context() as patched:
            patched.setattr(resolver._Lookup, "start", fail)
            with pytest.raises(ConnectionFailed, match="thread"):
                client.send()
        assert client.send().status == 200


def test_a_full_executor_does_not_keep_a_task_from_connecting(names: Names) -> None:
    """Names are not resolved in the loop's default executor, which other code can fill."""
    done = threading.Event()

    async def scenario(url: str) -> int:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        filling = [asyncio.create_task(asyncio.to_thread(done.wait, 60)) for _ in range(3)]
        transport = tasks_transport(url)
        response = await transport.send(GET, 30)
        await transport.close()
        done.set()
        await asyncio.gather(*filling)
        return response.status

    with Server(always(answer())) as server, ends_soon():
        assert asyncio.run(scenario(f"http://{names.add(server.port)}:80")) == 200


def test_an_event_loop_ends_while_a_lookup_hangs(names: Names) -> None:
    """`asyncio.run` joins the threads of the default executor: no lookup is in one of them."""
    name = names.add(1)
    names.hanging.add(name)

    async def scenario() -> None:
        transport = tasks_transport(f"http://{name}:80")
        with pytest.raises(RequestTimeout):
            await transport.send(GET, 0.1)
        await transport.close()

    with ends_soon():
        asyncio.run(scenario())
    assert lookups()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_wait_for_its_parents_lookup(names: Names) -> None:
    """The thread of a lookup is not in a fork: the child looks the name up itself."""
    with Server(always(answer())) as server:
        name = names.add(server.port)
        names.hanging.add(name)
        client = Blocking(f"http://{name}:80")
        with pytest.raises(RequestTimeout):
            client.send(timeout=0.1)
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            names.hanging.clear()
            os._exit(0 if client.send(timeout=20).status == 200 else 1)
        assert os.waitpid(child, 0)[1] == 0
        client.close()


@features
class User:
    id: int
    visits: int


def _threads(url: str, session: Any) -> str:
    with OnlineStore.open(url, schema=[User], session=session, timeout=4) as store:
        return store.read(User, [1]).statuses("visits")[0].value


def _tasks(url: str, session: Any) -> str:
    async def scenario() -> str:
        async with AsyncOnlineStore.open(url, schema=[User], session=session, timeout=4) as store:
            return (await store.read(User, [1])).statuses("visits")[0].value

    return asyncio.run(scenario())


@pytest.mark.parametrize("read", [_threads, _tasks], ids=["threads", "tasks"])
def test_a_region_whose_name_does_not_resolve_is_failed_over(
    read: Callable[[str, Any], str], dynoxide: Dynoxide, table: str, names: Names
) -> None:
    """A read reaches the second region within its time while the first one's lookup hangs."""
    with OnlineStore.open(dynoxide.url(table), schema=[User]) as store:
        store.write(User, [{"id": 1, "visits": 1}])
    east, west = names.add(dynoxide.port), names.add(dynoxide.port)
    names.hanging.add(east)
    url = (
        f"dynamodb:///{table}?region=us-east-1,us-west-2&"
        f"endpoint_url=http://{east}:{dynoxide.port},http://{west}:{dynoxide.port}"
    )
    with ends_soon():
        assert read(url, local_session()) == "hit"


# --- several addresses ---------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ignores what its queue is full for")
def test_a_second_address_is_tried_beside_a_silent_one(connect: Connect, names: Names) -> None:
    """The first of two addresses swallows connects; the second one answers, within the timeout."""
    with (
        socket.create_server((HOST, 0), backlog=0) as listener,
        waiting_at(listener),
        Server(always(answer())) as server,
    ):
        name = names.add(listener.getsockname()[1], server.port)
        assert connect(f"http://{name}:80", connect_timeout=10).send(timeout=10).status == 200
    assert server.connections == 1


def test_an_address_that_refuses_is_followed_by_the_next(connect: Connect, names: Names) -> None:
    """A refused connect costs no time, and the last refusal is what a request fails with."""
    with socket.socket() as holder, Server(always(answer())) as server:
        holder.bind((HOST, 0))
        refusing: int = holder.getsockname()[1]
        client = connect(f"http://{names.add(refusing, refusing, server.port)}:80")
        assert client.send().status == 200
        with pytest.raises(ConnectionFailed, match=r"refused|Connect call failed"):
            connect(f"http://{names.add(refusing, refusing)}:80").send()


def test_each_of_many_addresses_has_its_time() -> None:
    """Little time is divided among the addresses; else each has 250 ms, as RFC 8305 advises."""
    assert resolver.stagger_for(2, 10.0) == 0.25
    assert resolver.stagger_for(4, 0.5) == 0.1
