"""The transports for asyncio: a pool of connections for each event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol, TypeVar

from chalk_online_store.drivers.http.shared import store_closed
from chalk_online_store.drivers.loops import PerLoop
from chalk_online_store.drivers.valkey.shared import (
    ROLE,
    Address,
    Connection,
    Server,
    leads_astray,
)
from chalk_online_store.valkey.commands import Command, Reply, Request
from chalk_online_store.valkey.urls import ValkeyTarget

_CLOSE_SECONDS = 5.0
"""How long `close` waits for an event loop in another thread."""


class AsyncValkeyTransport:
    """Sends commands over kept connections, one pool for each event loop that it is used on.

    Requests beyond `max_pool_connections` wait for a connection, within their timeout.
    """

    def __init__(self, target: ValkeyTarget) -> None:
        self.address = target.address
        server = Server(target)
        address = target.nodes[0] if target.nodes else ("", 0)
        self._pools = PerLoop(lambda loop: AsyncPool(server, address))
        self._closed = False

    async def send(self, request: Request, timeout: float) -> list[Reply]:
        """The reply to each command; raises `errors.RequestError` where none was had."""
        return await self._pool().exchange(request.commands, time.monotonic() + timeout)

    async def warm(self, connections: int, timeout: float) -> int:
        """Open so many connections within `timeout` seconds; how many are idle then."""
        return await self._pool().warm(connections, time.monotonic() + timeout)

    async def close(self) -> None:
        """Close the connections; a second call does nothing."""
        self._closed = True
        await close_all(self._pools)

    def _pool(self) -> AsyncPool:
        if self._closed:
            raise store_closed()
        return self._pools.here()


class AsyncPool:
    """The connections of one event loop to one address, or to whatever sentinels name."""

    def __init__(self, server: Server, address: Address) -> None:
        self._server = server
        self._address = address
        self._size = server.target.max_pool_connections
        self._slots = asyncio.Semaphore(self._size)
        self._idle: list[Connection] = []
        self._closed = False

    async def exchange(self, commands: Sequence[Command], deadline: float) -> list[Reply]:
        """Send commands and read their replies; raises `RequestError`."""
        async with self._limited(deadline), self._slots:
            connection = await self._take(deadline)
            async with _whole(connection):
                replies = await self._ask(connection, commands)
            if leads_astray(replies) or self._closed:
                await drop(connection)
            else:
                self._idle.append(connection)
            return replies

    async def warm(self, connections: int, deadline: float) -> int:
        """Open connections up to so many; how many are idle then. Raises `RequestError`."""
        async with self._limited(deadline):
            missing = min(connections, self._size) - len(self._idle)
            opening = [self._connect(deadline) for _ in range(missing)]
            self._idle += await asyncio.gather(*opening)
        return len(self._idle)

    async def close(self) -> None:
        """Close what is idle, and what is under way when it ends."""
        self._closed = True
        idle, self._idle = self._idle, []
        ends = (connection.disconnect() for connection in idle)  # TLS takes leave, if it can.
        await asyncio.gather(*ends, return_exceptions=True)

    # --- connections ---

    async def _take(self, deadline: float) -> Connection:
        """One that idles, if it is still there, else a new one."""
        while self._idle:
            connection = self._idle.pop()
            if connection._reader is not None and not connection._reader.at_eof():
                return connection
            await drop(connection)
        return await self._connect(deadline)

    async def _connect(self, deadline: float) -> Connection:
        if not self._server.target.service:
            return await self._open(self._address, deadline)
        connection = await self._open(await self._whereabouts(deadline), deadline)
        async with _whole(connection):
            (role,) = await self._ask(connection, [ROLE])
            self._server.check_primary(role)
        return connection

    async def _open(self, address: Address, deadline: float, *, login: bool = True) -> Connection:
        import redis.asyncio

        # The whole exchange has its time; a timer for each reply would cost more than the reply.
        connection = self._server.connection(
            redis.asyncio, address, deadline, login=login, socket_timeout=None
        )
        async with _whole(connection):
            await connection.connect()
        return connection

    async def _whereabouts(self, deadline: float) -> Address:
        """What the first sentinel says that knows."""
        for address in self._server.target.nodes:
            with suppress(*self._server.failures):
                sentinel = await self._open(address, deadline, login=False)
                try:
                    (found,) = await self._ask(sentinel, [self._server.whereabouts])
                finally:
                    await drop(sentinel)
                if (place := self._server.place(found)) is not None:
                    return place
        raise self._server.nowhere()

    # --- exchanges ---

    async def _ask(self, connection: Connection, commands: Sequence[Command]) -> list[Reply]:
        packed = connection.pack_commands(commands)
        await connection.send_packed_command(packed, check_health=False)
        return [await self._read(connection) for _ in commands]

    async def _read(self, connection: Connection) -> Reply:
        from redis import ResponseError

        try:
            return await connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return self._server.failure(error)

    @asynccontextmanager
    async def _limited(self, deadline: float) -> AsyncIterator[None]:
        """Bounds what is done within; raises `RequestError` for what fails."""
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                yield
        except self._server.failures as error:
            raise self._server.failure(error) from error


@asynccontextmanager
async def _whole(connection: Connection) -> AsyncIterator[None]:
    """Closes a connection of which something went wrong halfway: the next reply is unknown."""
    try:
        yield
    except BaseException:
        await drop(connection)
        raise


async def drop(connection: Connection) -> None:
    """Close a connection at once, whatever it has still to send."""
    if connection._writer is not None:
        connection._writer.transport.abort()
    await connection.disconnect(nowait=True)


class Closing(Protocol):
    """What is closed on its event loop."""

    async def close(self) -> None:
        """Give everything back."""


C = TypeVar("C", bound=Closing)


async def close_all(pools: PerLoop[C]) -> None:
    """Close pools, each on the event loop that it belongs to."""
    while pools.made:
        loop, pool = pools.made.popitem()
        if loop is asyncio.get_running_loop():
            await pool.close()
        elif loop.is_running():
            closing = asyncio.run_coroutine_threadsafe(pool.close(), loop)
            await asyncio.wait((asyncio.wrap_future(closing),), timeout=_CLOSE_SECONDS)
