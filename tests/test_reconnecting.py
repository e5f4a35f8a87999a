"""After a response that does not match its request, no open connection is used again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chalk_online_store.dynamodb.credentials import Endpoint
from chalk_online_store.dynamodb.http import AsyncHttpTransport, HttpTransport
from tests import test_http
from tests.test_http import (
    GET,
    AsyncSource,
    Awaiting,
    AwaitingOnUvloop,
    Client,
    Server,
    Source,
    always,
    answer,
)

ON_NEW = replace(GET, reconnect=True)


connect = test_http.connect
"""The fixture makes clients of every kind."""


def test_the_idle_connections_are_closed(connect: Callable[[str], Client]) -> None:
    """A request that reconnects closes what is idle; later ones use its connection."""
    with Server(always(answer())) as server:
        client = connect(server.url)
        client.warm(3)
        client.send(ON_NEW)
        assert server.connections == 4
        for _ in range(3):
            client.send()
        assert server.connections == 4


def test_a_connection_in_use_is_closed_once_it_is_given_back() -> None:
    """A response that was awaited meanwhile counts, but its connection carries no other request."""
    with Server(always(answer())) as server:
        source: Any = Source()
        transport = HttpTransport(Endpoint("us-east-1", server.url), source)
        earlier = transport.begin(GET, 10)
        transport.send(ON_NEW, 10)
        while earlier.advance() is None:
            earlier.wait()
        for _ in range(3):
            transport.send(GET, 10)
        assert server.connections == 2
        transport.close()


@pytest.mark.parametrize("kind", [Awaiting, AwaitingOnUvloop])
def test_a_connection_in_use_by_a_task_is_closed_too(kind: type[Awaiting]) -> None:
    """The same holds for the pool of an event loop."""

    async def scenario(url: str) -> None:
        source: Any = AsyncSource()
        transport = AsyncHttpTransport(Endpoint("us-east-1", url), source)
        await asyncio.gather(*(transport.send(GET, 10) for _ in range(4)))
        earlier = [asyncio.create_task(transport.send(GET, 10)) for _ in range(4)]
        await asyncio.sleep(0)  # Each has taken a connection.
        await transport.send(ON_NEW, 10)
        await asyncio.gather(*earlier)
        for _ in range(3):
            await transport.send(GET, 10)
        await transport.close()

    with Server(always(answer())) as server:
        with asyncio.Runner(loop_factory=kind.new_loop) as runner:
            runner.run(scenario(server.url))
        assert server.connections == 5
