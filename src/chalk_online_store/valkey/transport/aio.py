"""The transports for asyncio: a pool of connections for each event loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol, TypeVar, cast

from chalk_online_store.drivers.loops import EARLY, DeadlineTimer, PerLoop, fail
from chalk_online_store.errors import RequestError
from chalk_online_store.network.connecting import connected
from chalk_online_store.network.reuse import Reuse
from chalk_online_store.network.sockets import SOCKET_OPTIONS, store_closed
from chalk_online_store.valkey.commands import Reply, Request
from chalk_online_store.valkey.pipeline import Pipeline
from chalk_online_store.valkey.resp import BrokenReply, Command, ReplyReader, pack
from chalk_online_store.valkey.transport.shared import (
    FAILURES,
    LOGIN_BYTES,
    ROLE,
    Address,
    ConnectionEnded,
    Server,
    Stale,
    is_stale,
    leads_astray,
    share_of_time,
)
from chalk_online_store.valkey.urls import ValkeyTarget

_CLOSE_SECONDS = 5.0
"""How long `close` waits for an event loop in another thread."""

_NO_REPLIES = ReplyReader(0, 0)
"""The reader of a connection that has no request in flight."""


class AsyncValkeyTransport:
    """Sends commands over pooled connections, one pool for each event loop that it is used on.

    Requests beyond `max_pool_connections` wait for a connection, within their timeout.
    """

    def __init__(self, target: ValkeyTarget) -> None:
        self.address = target.address
        server = Server(target)
        address = target.nodes[0] if target.nodes else ("", 0)
        self._pools = PerLoop(lambda loop: AsyncPool(loop, server, address))
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
    """The connections of one event loop to one address, or to the server that sentinels name.

    As `blocking.Pool`, but that requests wait if all connections are in use.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, server: Server, address: Address) -> None:
        self._loop = loop
        self._server = server
        self._address = address
        self._size = server.target.max_pool_connections
        self._reuse = Reuse(server.target.keepalive_timeout, self._size)
        self._alarm = DeadlineTimer(loop)
        self._slots = asyncio.Semaphore(self._size)
        self._idle: deque[AsyncConnection] = deque()
        self._closed = False

    async def exchange(self, commands: Sequence[Command], deadline: float) -> list[Reply]:
        """Send commands and read their replies; raises `RequestError`."""
        try:
            await self._acquire(deadline)
            try:
                return await self._exchange(Pipeline(commands), deadline)
            finally:
                self._slots.release()
        except FAILURES as error:
            raise self._server.failure(error) from error

    async def warm(self, connections: int, deadline: float) -> int:
        """Open connections up to so many; how many are idle then. Raises `RequestError`."""
        missing = min(connections, self._size) - len(self._idle)
        opening = [self._open_one(deadline) for _ in range(missing)]
        failures = await asyncio.gather(*opening, return_exceptions=True)
        for error in filter(None, failures):
            if not isinstance(error, FAILURES):
                raise error
            raise self._server.failure(error) from error
        return len(self._idle)

    async def close(self) -> None:
        """Close what is idle, and what is under way when it ends."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()
        if not self._alarm.waiting:
            self._alarm.cancel()
        await asyncio.sleep(0)  # The event loop closes them at its next turn.

    # --- requests ---

    async def _acquire(self, deadline: float) -> None:
        """Wait until a connection may be used, which `release` ends."""
        if self._slots.locked():
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._slots.acquire()
        else:
            await self._slots.acquire()

    async def _exchange(self, pipeline: Pipeline, deadline: float) -> list[Reply]:
        connection = self._take()
        if connection is not None:
            connection.introduce(pipeline)
            reader = pipeline.reader()
            now = time.monotonic()
            doubted_at = now + self._reuse.silence_bound(deadline - now)
            try:
                return await self._run(connection, pipeline, reader, doubted_at, deadline)
            except FAILURES as error:
                if not is_stale(error, reader):
                    raise
                self._drop_older(connection)
                if time.monotonic() >= deadline:
                    raise Stale from error
        connection = await self._connect(deadline)
        connection.introduce(pipeline)
        return await self._run(connection, pipeline, pipeline.reader(), deadline, deadline)

    async def _run(
        self,
        connection: AsyncConnection,
        pipeline: Pipeline,
        reader: ReplyReader,
        first_by: float,
        deadline: float,
    ) -> list[Reply]:
        sent_at = time.monotonic()
        try:
            await connection.exchange(pipeline.data, reader, first_by, deadline)
            replies = self._server.replies(pipeline.check(reader.replies))
        except BaseException:
            connection.abort()
            raise
        self._reuse.responded(time.monotonic() - sent_at)
        self._give_back(connection, usable=not leads_astray(replies))
        return replies

    # --- connections ---

    def _take(self) -> AsyncConnection | None:
        """An idle connection that may be used."""
        while self._idle:
            connection = self._idle.pop()
            if self._reuse.has_expired(connection, time.monotonic()):
                self._drop_older(connection)
            elif connection.usable:
                return connection
            connection.abort()
        return None

    def _give_back(self, connection: AsyncConnection, *, usable: bool = True) -> None:
        self._reuse.stamp(connection)
        if usable and connection.usable and not self._closed and len(self._idle) < self._size:
            self._idle.append(connection)
        else:
            connection.abort()

    def _drop_older(self, connection: AsyncConnection) -> None:
        """Close the idle connections that were not used since this one was."""
        while self._idle and self._idle[0].idle_since <= connection.idle_since:
            self._idle.popleft().abort()

    async def _open_one(self, deadline: float) -> None:
        await self._acquire(deadline)
        try:
            self._give_back(await self._connect(deadline))
        finally:
            self._slots.release()

    async def _connect(self, deadline: float) -> AsyncConnection:
        if not self._server.target.service:
            return await self._open(self._address, deadline)
        connection = await self._open(await self._whereabouts(deadline), deadline)
        async with _whole(connection):
            (role,) = await self._ask(connection, ROLE, deadline)
            self._server.check_primary(role)
        return connection

    async def _open(
        self, address: Address, deadline: float, *, login: bool = True
    ) -> AsyncConnection:
        """Connect and log in, within the `connect_timeout` of the URL."""
        now = time.monotonic()
        until = min(deadline, now + self._server.target.connect_timeout)
        async with asyncio.timeout(until - now):
            connection = await self._open_socket(address, until)
        if login and (asked := self._server.login):
            async with _whole(connection):
                reader = ReplyReader(len(asked), LOGIN_BYTES)
                await connection.exchange(pack(asked), reader, until, until)
                self._server.check_login(asked, reader.replies)
        return connection

    async def _open_socket(self, address: Address, deadline: float) -> AsyncConnection:
        def connection() -> AsyncConnection:
            return AsyncConnection(self._alarm, self._reuse)

        target = self._server.target
        if target.path:
            return (await self._loop.create_unix_connection(connection, target.path))[1]
        tls = self._server.tls
        secured: Any = {} if tls is None else {"ssl": tls, "server_hostname": address[0]}
        sock = await connected(self._loop, *address, deadline)
        return (await self._loop.create_connection(connection, sock=sock, **secured))[1]

    async def _whereabouts(self, deadline: float) -> Address:
        """What the first sentinel says that knows."""
        sentinels = self._server.target.nodes
        for untried, address in zip(range(len(sentinels), 0, -1), sentinels, strict=True):
            until = share_of_time(deadline, untried)
            with suppress(*FAILURES, RequestError):
                sentinel = await self._open(address, until, login=False)
                try:
                    (found,) = await self._ask(sentinel, self._server.whereabouts, until)
                finally:
                    sentinel.abort()
                if (place := self._server.place(found)) is not None:
                    return place
        raise self._server.nowhere()

    async def _ask(
        self, connection: AsyncConnection, command: Command, deadline: float
    ) -> list[Reply]:
        pipeline = Pipeline([command])
        reader = pipeline.reader()
        await connection.exchange(pipeline.data, reader, deadline, deadline)
        return self._server.replies(pipeline.check(reader.replies))


@asynccontextmanager
async def _whole(connection: AsyncConnection) -> AsyncIterator[None]:
    """Close a connection if anything is raised: the next reply on it is unknown."""
    try:
        yield
    except BaseException:
        connection.abort()
        raise


class AsyncConnection(asyncio.Protocol):
    """One connection, for one task at a time."""

    _transport: asyncio.Transport

    def __init__(self, alarm: DeadlineTimer, reuse: Reuse) -> None:
        self._alarm = alarm
        self._reuse = reuse
        self._waiting: asyncio.Future[None] | None = None
        self._reader = _NO_REPLIES
        self._first_by = self._deadline = math.inf
        self._lost = False
        self._is_new = True
        self.idle_since = self.wall_offset = 0.0
        self.began_at = math.inf
        self.usable = False
        """True if a request may be sent on it."""

    def introduce(self, pipeline: Pipeline) -> None:
        """Have the first request name the library."""
        if self._is_new:
            self._is_new = False
            pipeline.introduce()

    async def exchange(
        self, data: bytes, reader: ReplyReader, first_by: float, deadline: float
    ) -> None:
        """Send a request, and read until the reader is done.

        As `BlockingConnection.receive`; only `abort` it after an error.
        """
        if self._lost:
            raise ConnectionEnded(reader)
        self._reader, self._first_by, self._deadline = reader, first_by, deadline
        alarm = self._alarm
        try:
            alarm.waiting.add(self)
            waiting = self._waiting = alarm.loop.create_future()
            alarm.set(first_by)
            self._transport.write(data)
            await waiting
        finally:
            alarm.waiting.discard(self)
            self._waiting = None
            self._reader = _NO_REPLIES  # An idle connection does not keep a response in memory.

    def abort(self) -> None:
        """Close at once."""
        self.usable = False
        self._transport.abort()

    @property
    def due(self) -> float:
        """When the response, or its first byte, has to be here: see `DeadlineTimer`."""
        return self._deadline if self._reader.has_begun else self._first_by

    def ring(self) -> None:
        """Fail the request, unless it may be late."""
        now = time.monotonic() + EARLY
        if now < self._deadline and not self._reuse.may_send_twice(now):
            # Many requests were sent a second time lately, so the server itself is slow.
            self._first_by = self._deadline
        else:
            self._first_by = self._deadline = math.inf
            self._fail(TimeoutError())

    def _fail(self, error: Exception) -> None:
        self.usable = False
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            fail(waiting, error)

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected, and the TLS handshake is done."""
        self._transport = cast(asyncio.Transport, transport)
        self.usable = True
        sock = transport.get_extra_info("socket")
        with suppress(OSError):  # A Unix socket has none, and one may be lost already.
            for option in SOCKET_OPTIONS:
                sock.setsockopt(*option)

    def data_received(self, data: bytes) -> None:
        """Something arrived; unasked, a server sends nothing but its end."""
        waiting = self._waiting
        if waiting is None or waiting.done():
            self.abort()
            return
        try:
            if self._reader.feed(data):
                waiting.set_result(None)
        except BrokenReply as error:
            self._fail(error)
        except BaseException:  # These bytes are lost: what follows them has no meaning.
            self.abort()
            raise

    def eof_received(self) -> None:
        """The server closes; asyncio then does so too."""
        self.usable = False

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._lost = True
        self._fail(exc if isinstance(exc, OSError) else ConnectionEnded(self._reader))


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
