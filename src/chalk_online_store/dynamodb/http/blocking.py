"""The transport for threads: kept sockets, and deadlines that no piece of an answer renews.

The idle connections are kept in the order of their last use: requests take the latest one, and
`reuse` says which of the older ones are closed.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from chalk_online_store.drivers.polling import wait_for_any
from chalk_online_store.dynamodb.http.connection import Connection
from chalk_online_store.dynamodb.http.target import FAILURES, Target
from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.network.reuse import KEEPALIVE_TIMEOUT, TIDY_SECONDS, Reuse
from chalk_online_store.network.sockets import store_closed

if TYPE_CHECKING:
    from chalk_online_store.dynamodb.credentials import CredentialSource, Endpoint


class HttpTransport:
    """Sends requests over a pool of kept connections. Safe for threads, and after a fork.

    More than `pool_size` threads do not wait for each other: they open connections that are
    closed after use. Name resolution and connecting count as part of a request's timeout.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: CredentialSource,
        *,
        connect_timeout: float = 1.0,
        pool_size: int = 32,
        keepalive_timeout: float = KEEPALIVE_TIMEOUT,
    ) -> None:
        """Connect to `endpoint` when first needed.

        `connect_timeout`, in seconds, bounds connecting, name resolution and TLS included. A
        connection that was idle for longer than `keepalive_timeout` seconds is not used again.
        Raises `InvalidURL`, or `ConnectionFailed` when the certificate bundle cannot be read.
        """
        self._target = Target(endpoint)
        self._credentials = credentials
        self._connect_timeout = connect_timeout
        self._pool_size = pool_size
        self.reuse = Reuse(keepalive_timeout, pool_size)
        self._closed = False
        self._idle: deque[Connection] = deque()  # append and pop are atomic.
        self._parked: deque[Connection] = deque()
        self._pid = os.getpid()
        self._tidy_at = -math.inf
        """When to look for expired connections beside the one that is taken."""
        self._generation = 0
        """Connections of an earlier one may be out of step, and are not used again."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the endpoint."""
        return self._target.address

    def send(self, request: Request, timeout: float) -> Response:
        """Send once and give the whole answer, within `timeout` seconds.

        Raises `ConnectionFailed`, `RequestTimeout`, `InvalidCredentials`, or `StoreClosed`.
        """
        exchange = self.begin(request, timeout)
        while (answer := exchange.advance()) is None:
            exchange.wait()
        return answer

    def begin(self, request: Request, timeout: float) -> PendingRequest:
        """Take or make a connection for a request, of which nothing is sent yet.

        Whoever has several under way in one thread advances each as its socket is ready. Raises
        as `send` does.
        """
        self._check()
        deadline = time.monotonic() + timeout
        source = self._credentials
        credentials = source.refresh(timeout) if request.renew else source.current(timeout)
        data = self._target.writer.write(request, credentials)
        now = time.monotonic()
        if now >= deadline:
            raise self._target.too_late()
        if request.reconnect:
            self._drop_connections()
        connection = None if request.reconnect else self._take(now)
        if connection is None:
            connection = self.new(deadline)
        else:
            connection.doubt_at = now + self.reuse.silence_bound(deadline - now)
        connection.begin(data, now, deadline)
        return PendingRequest(self, connection, data, deadline)

    def _drop_connections(self) -> None:
        """Close the connections: the idle ones now, the others when they are given back."""
        self._generation += 1
        self._drop_all()

    def warm(self, connections: int, timeout: float) -> int:
        """Get credentials, and open connections up to so many, at most `pool_size`.

        All within `timeout` seconds. Answers how many are open and idle. Raises as `send`.
        """
        self._check()
        deadline = time.monotonic() + timeout
        self._credentials.current(timeout)
        self._drop_expired(time.monotonic())
        missing = min(connections, self._pool_size) - len(self._idle)
        fresh = [self.new(deadline) for _ in range(missing)]
        try:
            open_all(fresh)
        except FAILURES as error:
            raise self._target.failure(error) from None
        finally:
            for connection in fresh:
                if connection.is_open:
                    self.give_back(connection)
                else:
                    connection.close()
        return len(self._idle)

    def close(self) -> None:
        """Close the idle connections; requests under way come to their end and close theirs."""
        self._closed = True
        self._drop_all()

    def _check(self) -> None:
        if self._closed:
            raise store_closed()
        if self._pid != os.getpid():  # The parent's connections are not ours to speak on.
            self._drop_all()  # Only this process's handles of them.
            self._pid = os.getpid()

    # --- what exchanges ask of the pool ---

    @property
    def target(self) -> Target:
        """The endpoint."""
        return self._target

    def new(self, deadline: float) -> Connection:
        """Return a connection that is still to be opened."""
        until = min(deadline, time.monotonic() + self._connect_timeout)
        return Connection(self._target, until, self._generation)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, if it may carry one."""
        self.reuse.stamp(connection)
        self._keep(connection, self._idle if connection.reusable else None)

    def park(self, connection: Connection) -> None:
        """Keep a connection whose answer nobody waits for any more, until that has come.

        Opening another one would cost more than to read that answer in passing.
        """
        connection.give_up()
        self._keep(connection, self._parked)

    def found_stale(self, connection: Connection) -> None:
        """Close what is stale along with a connection that has delayed a request."""
        self._drop_stale(connection)
        self.reuse.on_stale()

    # --- the pool ---

    def _keep(self, connection: Connection, place: deque[Connection] | None) -> None:
        if connection.generation != self._generation:
            place = None
        while place is not None and len(self._idle) + len(self._parked) >= self._pool_size:
            oldest = _pop(self._parked.popleft)
            if oldest is None:
                place = None
            else:
                oldest.close()
        if place is None:
            connection.close()
            return
        place.append(connection)
        if self._closed:  # Meanwhile: `close` may have missed it.
            self._drop_all()

    def _drop_all(self) -> None:
        for place in (self._idle, self._parked):
            while (connection := _pop(place.pop)) is not None:
                connection.close()

    def _drop_stale(self, connection: Connection) -> None:
        """Close a stale connection, and the idle ones that were last used when it was or before."""
        connection.close()
        while (oldest := _pop(self._idle.popleft)) is not None:
            if oldest.idle_since > connection.idle_since:
                self._idle.appendleft(oldest)
                return
            oldest.close()

    def _drop_expired(self, now: float) -> None:
        while (oldest := _pop(self._idle.popleft)) is not None:
            if not self.reuse.has_expired(oldest, now):
                self._idle.appendleft(oldest)
                return
            oldest.close()

    def _take(self, now: float) -> Connection | None:
        """Take the idle connection that was used last, if it may still be alive."""
        suspect_until = self._tend() if self._parked else -math.inf
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_SECONDS
            self._drop_expired(now)
        while (connection := _pop(self._idle.pop)) is not None:
            if connection.idle_since <= suspect_until:
                self._idle.append(connection)
                return None
            if self.reuse.has_expired(connection, now):
                self._drop_stale(connection)
            elif connection.is_alive():
                connection.reused = True
                return connection
            else:
                connection.close()
        return None

    def _tend(self) -> float:
        """Go on with the connections that were given up.

        Returns the last use of the latest one that may be stale: idle connections that were not
        used after that may be stale as well.
        """
        suspect_until = -math.inf
        for _ in range(len(self._parked)):
            connection = _pop(self._parked.popleft)
            if connection is not None and self._settle(connection) and connection.is_suspect:
                suspect_until = max(suspect_until, connection.idle_since)
        return suspect_until

    def _settle(self, connection: Connection) -> bool:
        """Go on with one that was given up. Returns True if its response is still to come."""
        try:
            over = connection.settle()
        except FAILURES:
            if connection.is_suspect:
                self._drop_stale(connection)
            connection.close()
            return False
        except BaseException:
            connection.close()
            raise
        if over:
            self.give_back(connection)
        else:
            self._parked.append(connection)
        return not over


class PendingRequest:
    """One request in flight, and the connections that carry it: one, or two in doubt."""

    __slots__ = ("_connection", "_data", "_deadline", "_failure", "_fresh", "_transport")

    def __init__(
        self, transport: HttpTransport, connection: Connection, data: bytes, deadline: float
    ) -> None:
        self._transport = transport
        self._connection = connection
        self._fresh: Connection | None = None
        """A new connection, beside one that is doubted."""
        self._failure: Exception | None = None
        """Why the new connection failed."""
        self._data = data
        self._deadline = deadline

    @property
    def wake_at(self) -> float:
        """As `Connection.wake_at`."""
        connection = self._connection
        wake_at = connection.wake_at
        return wake_at if self._fresh is None else min(wake_at, self._fresh.wake_at)

    def sockets(self) -> Iterable[tuple[int, int]]:
        """As `Connection.sockets`."""
        if self._fresh is None:
            return self._connection.sockets()
        return (*self._connection.sockets(), *self._fresh.sockets())

    def advance(self) -> Response | None:
        """As `Connection.advance`; raises as `HttpTransport.send`."""
        if self._fresh is not None:
            return self._advance_both(self._fresh)
        connection = self._connection
        try:
            answer = connection.advance()
        except FAILURES as error:
            return self._recover(error)
        except BaseException:
            connection.close()
            raise
        if answer is not None:
            self._transport.give_back(connection)
        elif connection.doubt_at < math.inf and time.monotonic() >= connection.doubt_at:
            return self._doubt()
        return answer

    def wait(self, until: float = math.inf) -> None:
        """As `Connection.wait`."""
        try:
            if self._fresh is None:
                self._connection.wait(until)
            else:
                wait_for_any((self,), until)
        except BaseException:
            self._close()
            raise

    def abort(self) -> None:
        """Give up; what was sent may take effect all the same."""
        for connection in self._connections():
            self._transport.park(connection)

    # --- connections that may be stale ---

    def _recover(self, error: Exception) -> Response | None:
        """The only connection failed: send on a new one if it was stale, else raise."""
        transport, connection = self._transport, self._connection
        connection.close()
        if connection.is_suspect:
            transport.found_stale(connection)
            if self._failure is None:
                if time.monotonic() >= self._deadline:
                    raise transport.target.stale() from None
                return self._send_on_new()
        raise transport.target.failure(self._failure or error) from None

    def _send_on_new(self) -> Response | None:
        self._connection = self._new()
        return self.advance()

    def _doubt(self) -> Response | None:
        """Send the request on a new connection as well."""
        self._connection.doubt_at = math.inf
        if not self._transport.reuse.may_send_twice(time.monotonic()):
            return None
        self._fresh = fresh = self._new()
        return self._advance_both(fresh)

    def _new(self) -> Connection:
        connection = self._transport.new(self._deadline)
        connection.begin(self._data, time.monotonic(), self._deadline)
        return connection

    def _advance_both(self, fresh: Connection) -> Response | None:
        doubted, transport = self._connection, self._transport
        try:
            answer = doubted.advance()
        except FAILURES as error:
            self._connection, self._fresh = fresh, None
            doubted.close()
            if doubted.is_suspect:
                transport.found_stale(doubted)
                if isinstance(error, TimeoutError):
                    transport.park(fresh)
                    raise transport.target.stale() from None
            return self.advance()
        except BaseException:
            self._close()
            raise
        if answer is not None:
            transport.give_back(doubted)
            transport.park(fresh)
            return answer
        return self._advance_fresh(fresh)

    def _advance_fresh(self, fresh: Connection) -> Response | None:
        doubted, transport = self._connection, self._transport
        try:
            answer = fresh.advance()
        except FAILURES as error:
            # Its traceback would refer to this object, and keep both until garbage is collected.
            self._fresh, self._failure = None, error.with_traceback(None)
            fresh.close()
            return None
        except BaseException:
            self._close()
            raise
        if answer is not None:
            if doubted.is_suspect:
                transport.found_stale(doubted)
            else:
                transport.park(doubted)
            transport.give_back(fresh)
        return answer

    def _connections(self) -> list[Connection]:
        return [self._connection] if self._fresh is None else [self._connection, self._fresh]

    def _close(self) -> None:
        for connection in self._connections():
            connection.close()


def open_all(connections: Sequence[Connection]) -> None:
    """Open connections at once. Raises `OSError` where one cannot be opened."""
    while opening := [each for each in connections if not each.is_open and not each.open()]:
        wait_for_any(opening)


def _pop(pop: Callable[[], Connection]) -> Connection | None:
    try:
        return pop()
    except IndexError:
        return None
