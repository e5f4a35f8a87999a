"""The transport for asyncio: a pool of connections for each event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from chalk_online_store.drivers.http.shared import store_closed
from chalk_online_store.drivers.loops import PerLoop
from chalk_online_store.drivers.valkey.shared import Connection, Server, leads_astray
from chalk_online_store.valkey.commands import Command, Reply, Request
from chalk_online_store.valkey.urls import ValkeyTarget

_CLOSE_SECONDS = 5.0
"""How long `close` waits for an event loop in another thread."""


class AsyncValkeyTransport:
    """Sends commands over kept connections, one pool for each event loop that it is used on.

    Requests beyond `max_pool_connections` wait for a connection, within their timeout.
    """

    def __init__(self, target: ValkeyTarget) -> None:
        self._server = Server(target)
        self._pools = PerLoop(lambda loop: _Pool(self._server))
        self._closed = False

    async def send(self, request: Request, timeout: float) -> list[Reply]:
        """The reply to each command; raises `errors.RequestError` where none was had."""
        pool = self._pool()
        try:
            async with asyncio.timeout(timeout):
                return await pool.exchange(request.commands, time.monotonic() + timeout)
        except self._server.failures as error:
            raise self._server.failure(error) from error

    async def warm(self, connections: int, timeout: float) -> int:
        """Open so many connections within `timeout` seconds; how many are idle then."""
        pool = self._pool()
        try:
            async with asyncio.timeout(timeout):
                return await pool.warm(connections, time.monotonic() + timeout)
        except self._server.failures as error:
            raise self._server.failure(error) from error

    async def close(self) -> None:
        """Close the connections; a second call does nothing."""
        self._closed = True
        while self._pools.made:
            loop, pool = self._pools.made.popitem()
            if loop is asyncio.get_running_loop():
                await pool.close()
            elif loop.is_running():
                closing = asyncio.run_coroutine_threadsafe(pool.close(), loop)
                await asyncio.wait((asyncio.wrap_future(closing),), timeout=_CLOSE_SECONDS)

    def _pool(self) -> _Pool:
        if self._closed:
            raise store_closed()
        return self._pools.here()


class _Pool:
    """The connections of one event loop."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._size = server.target.max_pool_connections
        self._slots = asyncio.Semaphore(self._size)
        self._idle: list[Connection] = []
        self._closed = False

    async def exchange(self, commands: Sequence[Command], deadline: float) -> list[Reply]:
        """Send commands and read their replies."""
        async with self._slots:
            connection = await self._take(deadline)
            try:
                await connection.send_packed_command(
                    connection.pack_commands(commands), check_health=False
                )
                replies = [await self._read(connection) for _ in commands]
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            if leads_astray(replies) or self._closed:
                await connection.disconnect(nowait=True)
            else:
                self._idle.append(connection)
            return replies

    async def warm(self, connections: int, deadline: float) -> int:
        """Open connections up to so many; how many are idle then."""
        missing = min(connections, self._size) - len(self._idle)
        opening = [self._connect(deadline) for _ in range(missing)]
        self._idle += await asyncio.gather(*opening)
        return len(self._idle)

    async def close(self) -> None:
        """Close what is idle, and what is under way when it ends."""
        self._closed = True
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)
        await asyncio.sleep(0)  # The event loop closes them at its next turn.

    async def _take(self, deadline: float) -> Connection:
        """One that idles, if it is still there, else a new one."""
        while self._idle:
            connection = self._idle.pop()
            if connection._reader is not None and not connection._reader.at_eof():
                return connection
            await connection.disconnect(nowait=True)
        return await self._connect(deadline)

    async def _connect(self, deadline: float) -> Connection:
        import redis.asyncio

        # The whole exchange has its time; a timer for each reply would cost more than the reply.
        connection = self._server.connection(redis.asyncio, deadline, socket_timeout=None)
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _read(self, connection: Connection) -> Reply:
        from redis import ResponseError

        try:
            return await connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return self._server.failure(error)
