"""The connections of one event loop: an asyncio protocol, the pool of them, one timer for all."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from chalk_online_store.drivers.http.connecting import connected
from chalk_online_store.drivers.http.exchange import AnswerReader, BrokenAnswer
from chalk_online_store.drivers.http.shared import SOCKET_OPTIONS, Target
from chalk_online_store.drivers.loops import Alarm
from chalk_online_store.dynamodb.messages import Response

CLOSED = "the store was closed"


class Pool:
    """The connections of one event loop: so many at once, the rest waits.

    What a cancelled task leaves under way is parked: an answer that nobody waits for is read,
    which costs less than to open another connection.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        target: Target,
        connect_timeout: float,
        size: int,
    ) -> None:
        self.idle: list[Connection] = []
        self.loop = loop
        self.alarm = Alarm(loop)
        self._target = target
        self._connect_timeout = connect_timeout
        self._size = size
        self._slots = asyncio.Semaphore(size)
        self._busy = 0
        self._opening: set[asyncio.Task[Connection]] = set()
        self._parked: dict[object, Callable[[], object]] = {}
        """What was given up, the oldest first, and what ends it."""
        self._closed = False
        self.generation = 0
        """Connections of an earlier one may be out of step, and are not used again."""

    async def exchange(self, data: bytes, deadline: float, *, reconnect: bool = False) -> Response:
        """Send a request and read its answer; with `reconnect`, on a new connection.

        Raises what `FAILURES` names, `TimeoutError` at `deadline`.
        """
        await self._acquire(deadline)
        try:
            connection = (None if reconnect else self._take()) or await self._connect(deadline)
            try:
                answer = await connection.exchange(data, deadline)
            except asyncio.CancelledError:
                self._park(connection)
                raise
            except BaseException:
                connection.abort()
                raise
            self._give_back(connection)
            return answer
        finally:
            self._release()

    async def warm(self, connections: int, deadline: float) -> int:
        """Open connections up to so many, and answer how many are idle."""
        missing = min(connections, self._size) - len(self.idle)
        fresh = await asyncio.gather(
            *(self._open_one(deadline) for _ in range(missing)), return_exceptions=True
        )
        for failure in fresh:
            if failure is not None:
                raise failure
        return len(self.idle)

    async def close(self) -> None:
        """Close every connection; what is under way or waits fails."""
        self._closed = True
        self.alarm.cancel()
        self._keep_parked(0)
        for opening in self._opening:
            opening.cancel()
        for connection in list(self.alarm.waiting):
            connection.abort(BrokenAnswer(CLOSED))
        await asyncio.gather(*self._opening, return_exceptions=True)
        await asyncio.sleep(0)  # The event loop closes them at its next turn.

    def answered_first(self, transport: asyncio.BaseTransport) -> None:
        """A new connection brought its first answer, and with it TLS's ticket for the next one."""
        if self._target.tls is not None:
            self._target.tls.keep_session(transport.get_extra_info("ssl_object"))

    def settled(self, connection: Connection) -> None:
        """A connection has the answer to a request that was given up."""
        if self._parked.pop(connection, None):
            self._give_back(connection)

    def lost(self, connection: Connection) -> None:
        """A connection is gone."""
        self._parked.pop(connection, None)
        self.alarm.waiting.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)

    async def _acquire(self, deadline: float) -> None:
        if self._slots.locked():
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._slots.acquire()
        else:
            await self._slots.acquire()
        self._busy += 1
        if self._closed:
            self._release()
            raise BrokenAnswer(CLOSED)

    def _release(self) -> None:
        self._busy -= 1
        self._slots.release()

    async def _open_one(self, deadline: float) -> None:
        await self._acquire(deadline)
        try:
            self._give_back(await self._connect(deadline))
        finally:
            self._release()

    def _take(self) -> Connection | None:
        while self.idle:
            connection = self.idle.pop()
            if connection.usable:
                return connection
        return None

    def drop_connections(self) -> None:
        """Close the connections: the idle ones now, the others when they are given back."""
        self.generation += 1
        while self.idle:
            self.idle.pop().abort()
        self._keep_parked(0)

    def _give_back(self, connection: Connection) -> None:
        if (
            connection.generation == self.generation
            and connection.usable
            and len(self.idle) < self._size
            and not self._closed
        ):
            self.idle.append(connection)
        else:
            connection.abort()

    def _park(self, connection: Connection) -> None:
        """Keep what a cancelled task leaves, until its answer has come or its time is up."""
        if connection.due == math.inf or self._closed:  # It has come already, or never will.
            self._give_back(connection)
        else:
            self._parked[connection] = connection.abort

    def _keep_parked(self, at_most: int) -> None:
        while len(self._parked) > max(at_most, 0):
            self._parked.pop(next(iter(self._parked)))()

    async def _connect(self, deadline: float) -> Connection:
        """Open a connection; one that is cancelled is opened all the same, for the next request."""
        self._keep_parked(self._size - self._busy - len(self.idle))
        opening = self.loop.create_task(self._open(deadline))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if opening.cancelled() and not _is_cancelled():
                raise BrokenAnswer(CLOSED) from None
            self._parked[opening] = opening.cancel
            opening.add_done_callback(self._opened)
            raise

    def _opened(self, opening: asyncio.Task[Connection]) -> None:
        self._parked.pop(opening, None)
        if not opening.cancelled() and opening.exception() is None:
            self._give_back(opening.result())

    async def _open(self, deadline: float) -> Connection:
        target = self._target
        tls = target.tls
        secured: Any = {} if tls is None else {"ssl": tls.context, "server_hostname": tls.host}
        async with asyncio.timeout(min(self._connect_timeout, deadline - time.monotonic())):
            sock = await connected(self.loop, target.host, target.port)
            _, connection = await self.loop.create_connection(
                lambda: Connection(self), sock=sock, **secured
            )
        if self._closed:
            connection.abort()
            raise BrokenAnswer(CLOSED)
        return connection


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Connection(asyncio.Protocol):
    """One kept connection, for one task at a time."""

    _transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self.usable = False
        """Whether it may carry a request."""
        self._pool = pool
        self.generation = pool.generation
        self._reader = AnswerReader()
        self._waiting: asyncio.Future[Response] | None = None
        self._deadline = math.inf
        self._answered = False

    async def exchange(self, data: bytes, deadline: float) -> Response:
        """Send a request and read its answer. As `Pool.exchange`; only `abort` it after errors."""
        waiting: asyncio.Future[Response] = self._pool.loop.create_future()
        self._waiting = waiting
        self._deadline = deadline
        self._pool.alarm.set(deadline)
        self._transport.write(data)
        return await waiting

    @property
    def due(self) -> float:
        """When what it waits for has to be there."""
        return math.inf if self._waiting is None else self._deadline

    def ring(self) -> None:
        """Give up waiting."""
        self.abort(TimeoutError())

    def abort(self, why: Exception | None = None) -> None:
        """Close at once; a request under way fails with `why`."""
        self.usable = False
        if why is not None:
            self._fail(why)
        self._transport.abort()

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected, and the TLS handshake is done."""
        self._transport = cast(asyncio.Transport, transport)
        self.usable = True
        self._pool.alarm.waiting.add(self)
        sock = transport.get_extra_info("socket")
        with suppress(OSError):  # It is lost already, which asyncio is about to tell.
            for option in SOCKET_OPTIONS:
                sock.setsockopt(*option)

    def data_received(self, data: bytes) -> None:
        """Something arrived; unasked, an engine sends nothing but its end."""
        try:
            answer = self._reader.feed(data)
        except BrokenAnswer as error:
            self.abort(error)
            return
        waiting = self._waiting
        if waiting is None:
            self.abort()
        elif answer is not None:
            self._waiting = None
            self._finish(waiting, answer)

    def _finish(self, waiting: asyncio.Future[Response], answer: Response) -> None:
        self.usable = self.usable and self._reader.reusable
        if not self._answered:
            self._answered = True
            self._pool.answered_first(self._transport)
        if waiting.done():  # Its task was cancelled.
            self._pool.settled(self)
        else:
            waiting.set_result(answer)

    def eof_received(self) -> None:
        """The engine closes; asyncio then does so too."""
        self.usable = False

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self.usable = False
        self._pool.lost(self)
        self._fail(exc if isinstance(exc, OSError) else BrokenAnswer.closed())
