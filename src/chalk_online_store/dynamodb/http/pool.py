"""The connections of one event loop: an asyncio protocol, the pool of them, one timer for all.

Every wait in here ends by the deadline of its request. A request waits for a slot, for a
connection to open, and for its response; each of these waits is registered with the loop's alarm,
or has a timer of its own. A response that will never come is settled by whichever is first: the
end of its connection, or the alarm.
"""

from __future__ import annotations

import asyncio
import math
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from chalk_online_store.drivers.loops import DeadlineTimer, Wait, fail
from chalk_online_store.dynamodb.http.exchange import ResponseReader
from chalk_online_store.dynamodb.http.target import FAILURES, Stale, Target
from chalk_online_store.dynamodb.messages import Response
from chalk_online_store.network.connecting import connected, pass_through
from chalk_online_store.network.reuse import TIDY_SECONDS, Reuse
from chalk_online_store.network.sockets import SOCKET_OPTIONS, BrokenResponse

CLOSED = "the store was closed"

_NEVER = -math.inf

_SURELY_READ_SECONDS = 0.001
"""A connection that was idle for less is used without another look at its socket: the event loop
has read it a moment ago, and looking costs a system call."""


class Pool:
    """The connections of one event loop: so many at once, the rest waits.

    `idle` is in the order of last use: requests take the latest one, and `reuse` says which of the
    older ones are closed. What a cancelled task leaves under way is parked: an answer that nobody
    waits for is read, which costs less than to open another connection.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        target: Target,
        connect_timeout: float,
        size: int,
        reuse: Reuse,
    ) -> None:
        self.idle: list[Connection] = []
        self.loop = loop
        self.alarm = DeadlineTimer(loop)
        self._target = target
        self._connect_timeout = connect_timeout
        self._size = size
        self.reuse = reuse
        self._busy = 0
        """Slots that are taken."""
        self._queue: deque[Wait] = deque()
        """Those who wait for a slot."""
        self._opening: set[asyncio.Task[Connection]] = set()
        self._parked: dict[object, Callable[[], object]] = {}
        """What was given up, the oldest first, and what ends it."""
        self._closed = False
        self._tidy_at = _NEVER
        """When to look for expired connections beside the one that is taken."""
        self.request_ids = target.request_ids
        self.generation = 0
        """Connections of an earlier one may be out of step, and are not used again."""

    async def exchange(self, data: bytes, deadline: float, *, reconnect: bool = False) -> Response:
        """Send a request and read its answer; with `reconnect`, on a new connection.

        Raises what `FAILURES` names: `TimeoutError` at `deadline`, and `Stale` if that passes on a
        connection that may have been lost while it was idle.
        """
        if self._busy < self._size:
            self._busy += 1
        else:
            await self._wait_for_slot(deadline)
        try:
            self._check_open()
            now = time.monotonic()
            connection = None if reconnect else self._take(now)
            if connection is None:
                connection = await self._connect(deadline)
                now = time.monotonic()
            try:
                answer = await connection.exchange(data, now, deadline)
            except asyncio.CancelledError:
                self._park(connection)
                raise
            except BaseException as error:
                connection.abort()
                self._raise_unless_stale(connection, error, deadline)
            else:
                if answer is None:
                    return await self._send_on_both(connection, data, deadline)
                self._give_back(connection)
                return answer
            return await self._send_on_new(data, deadline)
        finally:
            self._release()

    async def warm(self, connections: int, deadline: float) -> int:
        """Open connections up to so many, and answer how many are idle."""
        self._drop_expired(time.monotonic())
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
            if isinstance(connection, Connection):
                connection.abort(BrokenResponse(CLOSED))
        await asyncio.gather(*self._opening, return_exceptions=True)
        await asyncio.sleep(0)  # The event loop closes them at its next turn.

    # --- what connections tell ---

    def first_response(self, transport: asyncio.BaseTransport) -> None:
        """A new connection brought its first answer, and with it TLS's ticket for the next one."""
        if self._target.tls is not None:
            self._target.tls.keep_session(transport.get_extra_info("ssl_object"))

    def settled(self, connection: Connection) -> None:
        """A connection has the answer to a request that was given up."""
        if self._parked.pop(connection, None):
            self._give_back(connection)

    def lost(self, connection: Connection) -> None:
        """A connection is gone."""
        self.alarm.waiting.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        if self._parked.pop(connection, None) and connection.is_suspect:
            self._drop_stale(connection)

    # --- slots ---

    async def _wait_for_slot(self, deadline: float) -> None:
        """Wait until another request hands its slot over."""
        wait = Wait(self.alarm, deadline)
        try:
            self._queue.append(wait)
            await wait.ended()
        except BaseException:
            if wait.was_ended:  # The slot came at the moment of a cancellation.
                self._release()
            elif wait in self._queue:
                self._queue.remove(wait)
            raise

    def _release(self) -> None:
        """Hand a slot over to the first request that still waits for one, or give it back."""
        while self._queue:
            if self._queue.popleft().end():
                return
        self._busy -= 1

    def _check_open(self) -> None:
        if self._closed:
            raise BrokenResponse(CLOSED)

    # --- connections that may be stale ---

    def _raise_unless_stale(
        self, connection: Connection, error: BaseException, deadline: float
    ) -> None:
        """Return if the request is to be sent on a new connection, as this one was stale."""
        if self._closed or not connection.is_suspect or not isinstance(error, FAILURES):
            raise error
        self._found_stale(connection)
        if isinstance(error, TimeoutError) or time.monotonic() >= deadline:
            raise Stale from None

    async def _send_on_new(self, data: bytes, deadline: float) -> Response:
        connection = await self._connect(deadline)
        try:
            answer = await connection.exchange(data, time.monotonic(), deadline)
        except asyncio.CancelledError:
            self._park(connection)
            raise
        except BaseException:
            connection.abort()
            raise
        assert answer is not None  # Only a reused connection is doubted.
        self._give_back(connection)
        return answer

    async def _send_on_both(self, doubted: Connection, data: bytes, deadline: float) -> Response:
        """Send on a new connection as well, since a reused one is silent. The first answer counts.

        Either of the two fails by its own deadline, if nothing else happens.
        """
        later = doubted.response()
        fresh = self.loop.create_task(self._send_on_new(data, deadline))
        pending: set[asyncio.Future[Response]] = {later, fresh}
        winner: asyncio.Future[Response] | None = None
        try:
            while pending and winner is None:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                winner = next((each for each in done if _has_result(each)), None)
        except BaseException:
            later.cancel()
            self._park(doubted)
            raise
        finally:
            fresh.cancel()
            fresh.add_done_callback(_look_at)
        if winner is later:
            self._give_back(doubted)
            return later.result()
        later.cancel()
        doubted.abort()
        if doubted.is_suspect:
            self._found_stale(doubted)
        if winner is not None:
            return winner.result()
        if doubted.is_suspect and isinstance(fresh.exception(), TimeoutError):
            raise Stale
        return fresh.result()

    def _found_stale(self, connection: Connection) -> None:
        """Close what is stale along with a connection that has delayed a request."""
        self._drop_stale(connection)
        self.reuse.on_stale()

    def _drop_stale(self, connection: Connection) -> None:
        """Close the idle connections that were last used when a stale one was, or before."""
        while self.idle and self.idle[0].idle_since <= connection.idle_since:
            self.idle.pop(0).abort()

    def _drop_expired(self, now: float) -> None:
        while self.idle and self.reuse.has_expired(self.idle[0], now):
            self.idle.pop(0).abort()

    # --- the pool ---

    async def _open_one(self, deadline: float) -> None:
        if self._busy < self._size:
            self._busy += 1
        else:
            await self._wait_for_slot(deadline)
        try:
            self._check_open()
            self._give_back(await self._connect(deadline))
        finally:
            self._release()

    def _take(self, now: float) -> Connection | None:
        """Take the idle connection that was used last, if it may still be alive."""
        idle = self.idle
        if not idle:
            return None
        reuse = self.reuse
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_SECONDS
            self._drop_expired(now)
        suspect_until = self._suspect_until() if self._parked else _NEVER
        while idle and (since := idle[-1].idle_since) > suspect_until:
            connection = idle.pop()
            if reuse.has_expired(connection, now):
                self._drop_stale(connection)
            elif connection.usable and (
                now - since < _SURELY_READ_SECONDS or connection.lies_still()
            ):
                connection.reused = True
                return connection
            connection.abort()
        return None

    def drop_connections(self) -> None:
        """Close the connections: the idle ones now, the others when they are given back."""
        self.generation += 1
        while self.idle:
            self.idle.pop().abort()
        self._keep_parked(0)

    def _suspect_until(self) -> float:
        """Return the last use of the latest connection that was given up and is silent."""
        suspects = (
            each.idle_since
            for each in self._parked
            if isinstance(each, Connection) and each.is_suspect
        )
        return max(suspects, default=_NEVER)

    def _give_back(self, connection: Connection) -> None:
        self.reuse.stamp(connection)
        if (
            connection.usable
            and connection.generation == self.generation
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

    # --- connecting ---

    async def _connect(self, deadline: float) -> Connection:
        """Open a connection; one that is given up is opened all the same, for the next request."""
        self._keep_parked(self._size - self._busy - len(self.idle))
        opening = self.loop.create_task(self._open(deadline))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        wait = Wait(self.alarm, deadline)
        try:
            opening.add_done_callback(wait.end)
            await wait.ended()
        except BaseException:
            self._parked[opening] = opening.cancel
            opening.add_done_callback(self._opened)
            raise
        if opening.cancelled():
            raise BrokenResponse(CLOSED)
        return opening.result()

    def _opened(self, opening: asyncio.Task[Connection]) -> None:
        self._parked.pop(opening, None)
        if not opening.cancelled() and opening.exception() is None:
            self._give_back(opening.result())

    async def _open(self, deadline: float) -> Connection:
        target = self._target
        tls = target.tls
        secured: Any = {} if tls is None else {"ssl": tls.context, "server_hostname": tls.host}
        until = min(deadline, time.monotonic() + self._connect_timeout)
        async with asyncio.timeout(until - time.monotonic()):
            sock = await self._connected_socket(until)
            _, connection = await self.loop.create_connection(
                lambda: Connection(self), sock=sock, **secured
            )
        if self._closed:
            connection.abort()
            raise BrokenResponse(CLOSED)
        return connection

    async def _connected_socket(self, until: float) -> socket.socket:
        """Connect to the endpoint, through a proxy if there is one."""
        target = self._target
        try:
            sock = await connected(self.loop, target.host, target.port, until)
        except (OSError, UnicodeError) as error:
            raise target.connecting_failed(error) from None
        if tunnel := target.tunnel():
            try:
                await pass_through(self.loop, sock, tunnel)
            except BaseException:
                sock.close()
                raise
        return sock


def _has_result(future: asyncio.Future[Response]) -> bool:
    return not future.cancelled() and future.exception() is None


def _look_at(task: asyncio.Task[Response]) -> None:
    """Look at the exception, so that asyncio does not report it: the task was given up."""
    if not task.cancelled():
        task.exception()


class Connection(asyncio.Protocol):
    """One kept connection, for one task at a time."""

    _transport: asyncio.Transport
    _poll: select.poll

    def __init__(self, pool: Pool) -> None:
        self.usable = False
        """Whether it may carry a request."""
        self.reused = False
        """Whether it comes from the pool, so that it may have been lost while it was idle."""
        self.heard = False
        """Whether a byte has arrived since the last request."""
        self.idle_since = -math.inf
        self.wall_offset = 0.0
        self.began_at = math.inf
        """When the last request was sent, on the monotonic clock."""
        self._pool = pool
        self.generation = pool.generation
        self._reader = ResponseReader(pool.request_ids)
        self._waiting: asyncio.Future[Any] | None = None
        self._deadline = self._next_look = math.inf
        self._answered = False

    @property
    def is_suspect(self) -> bool:
        """Whether it may have been lost while it was idle: there is no sign of life since."""
        return self.reused and not self.heard

    def lies_still(self) -> bool:
        """Whether nothing has arrived unasked that the event loop has not read yet."""
        return not self._poll.poll(0)

    async def exchange(self, data: bytes, now: float, deadline: float) -> Response | None:
        """Send a request and read its answer. As `Pool.exchange`; only `abort` it after errors.

        Gives None if it was reused and is silent for too long: its `response` may still come.
        """
        if not self.usable:  # It was lost after it was opened, and nothing would tell of it again.
            raise BrokenResponse.closed()
        pool = self._pool
        self._waiting = waiting = pool.loop.create_future()
        self.heard = False
        self.began_at = now
        self._deadline = self._next_look = deadline
        if self.reused:
            self._next_look = now + pool.reuse.silence_bound(deadline - now)
        pool.alarm.set(self._next_look)
        self._transport.write(data)
        return await waiting  # type: ignore[no-any-return] # a response, or None

    def response(self) -> asyncio.Future[Response]:
        """Return the future of the response, after `exchange` gave None."""
        if self._waiting is not None:
            return self._waiting
        gone: asyncio.Future[Response] = self._pool.loop.create_future()
        gone.set_exception(BrokenResponse.closed())
        return gone

    @property
    def due(self) -> float:
        """When to look at it, or when what it waits for has to be there."""
        return math.inf if self._waiting is None else self._next_look

    def ring(self) -> None:
        """Give up waiting, or doubt it if it was reused and is silent."""
        if self._next_look >= self._deadline:
            self.abort(TimeoutError())
            return
        self._next_look = self._deadline
        waiting = self._waiting
        if (
            waiting is None
            or waiting.done()
            or self.heard
            or not self._pool.reuse.may_send_twice(time.monotonic())
        ):
            return
        self._waiting = self._pool.loop.create_future()
        waiting.set_result(None)

    def abort(self, why: Exception | None = None) -> None:
        """Close at once; a request under way fails with `why`."""
        self.usable = False
        if why is not None:
            self._fail(why)
        self._transport.abort()

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            fail(waiting, error)

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected, and the TLS handshake is done."""
        self._transport = cast(asyncio.Transport, transport)
        self.usable = True
        self._pool.alarm.waiting.add(self)
        sock = transport.get_extra_info("socket")
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        with suppress(OSError):  # It is lost already, which asyncio is about to tell.
            for option in SOCKET_OPTIONS:
                sock.setsockopt(*option)

    def data_received(self, data: bytes) -> None:
        """Something arrived; unasked, an engine sends nothing but its end."""
        self.heard = True
        try:
            answer = self._reader.feed(data)
        except BrokenResponse as error:
            self.abort(error)
            return
        waiting = self._waiting
        if waiting is None:
            self.abort()
        elif answer is not None:
            self._waiting = None
            self._finish(waiting, answer)

    def _finish(self, waiting: asyncio.Future[Any], answer: Response) -> None:
        self.usable = self.usable and self._reader.reusable
        if not self._answered:
            self._answered = True
            self._pool.first_response(self._transport)
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
        self._fail(exc if isinstance(exc, OSError) else BrokenResponse.closed())
