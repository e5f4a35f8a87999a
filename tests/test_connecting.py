"""Opening connections on an event loop: whatever interrupts it, no socket is left or lost."""

from __future__ import annotations

import asyncio
import gc
import math
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from chalk_online_store.dynamodb.credentials import Endpoint
from chalk_online_store.dynamodb.http import pool
from chalk_online_store.dynamodb.http.pool import Pool
from chalk_online_store.dynamodb.http.target import Target
from chalk_online_store.network import connecting, resolver
from chalk_online_store.network.connecting import connected
from chalk_online_store.network.resolver import Address, in_turns
from chalk_online_store.network.reuse import Reuse
from chalk_online_store.network.sockets import BrokenResponse

HOST = "127.0.0.1"


@pytest.fixture
def port() -> Iterator[int]:
    """One that is listened on; nobody accepts, which no client can tell."""
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def refusing() -> Iterator[int]:
    """One that is held, and not listened on."""
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        yield holder.getsockname()[1]


def pool_of(port: int, host: str = HOST) -> Pool:
    target = Target(Endpoint("us-east-1", f"http://{host}:{port}"))
    return Pool(asyncio.get_running_loop(), target, math.inf, 1, Reuse(math.inf, 1))


def in_ten_seconds() -> float:
    return time.monotonic() + 10


@pytest.mark.parametrize("turns", range(10))
@pytest.mark.parametrize("host", [HOST, "localhost"])
def test_a_store_that_closes_while_it_connects_loses_no_socket(
    host: str, turns: int, port: int
) -> None:
    """Also where the connection comes about in the turn of the loop that cancels it."""

    async def play() -> None:
        one = pool_of(port, host)
        asking = asyncio.create_task(one.exchange(b"", in_ten_seconds()))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await one.close()
        await asyncio.gather(asking, return_exceptions=True)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(play())
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_closing_fails_those_who_wait_for_a_connection(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connect that hangs is not waited for, and who asked for it is told, not cancelled."""

    async def hang(*_: object) -> socket.socket:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(pool, "connected", hang)

    async def play() -> None:
        one = pool_of(port)
        asking = asyncio.create_task(one.exchange(b"", math.inf))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await one.close()
        with pytest.raises(BrokenResponse, match="the store was closed"):
            await asyncio.wait_for(asking, 10)

    asyncio.run(asyncio.wait_for(play(), 10))


def names(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Let every name have these for its addresses."""
    found: list[Address] = [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", (HOST, port)) for port in ports
    ]

    async def resolve(*_: object) -> list[Address]:
        return found

    monkeypatch.setattr(connecting, "_resolve", resolve)


async def peer_of(host: str) -> Any:
    loop = asyncio.get_running_loop()
    with closing(await connected(loop, host, 0, in_ten_seconds())) as sock:
        return sock.getpeername()[1]


def test_an_address_that_refuses_is_followed_by_the_next(
    port: int, refusing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, without the time that a slow one is given."""
    monkeypatch.setattr(resolver, "NEXT_ADDRESS_SECONDS", 3600)
    names(monkeypatch, refusing, refusing, port)
    assert asyncio.run(asyncio.wait_for(peer_of("some.name"), 10)) == port


def test_an_address_that_hangs_is_joined_by_the_next(
    port: int, refusing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that accepts is taken, and the attempt at the other one is over then."""
    monkeypatch.setattr(resolver, "NEXT_ADDRESS_SECONDS", 0.01)
    names(monkeypatch, refusing, port)
    connect, ended = connecting._connect, []

    async def sometimes(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
        try:
            if address[-1][1] == refusing:
                await asyncio.Event().wait()
            return await connect(loop, address)
        finally:
            ended.append(address[-1][1])

    monkeypatch.setattr(connecting, "_connect", sometimes)
    assert asyncio.run(asyncio.wait_for(peer_of("some.name"), 10)) == port
    assert ended == [port, refusing]


def test_a_name_of_which_no_address_accepts_says_why(
    refusing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's own exception comes through."""
    names(monkeypatch, refusing, refusing)
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(peer_of("some.name"))


def test_families_take_turns() -> None:
    """A family that does not work costs one wait, not one for each of its addresses."""
    six, four = (
        [(family, socket.SOCK_STREAM, 0, "", n) for n in range(2)]
        for family in (socket.AF_INET6, socket.AF_INET)
    )
    assert in_turns([*six, *four]) == [six[0], four[0], six[1], four[1]]
