"""The transport for threads: kept sockets, and deadlines that no piece of an answer renews."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from chalk_online_store.drivers.http.connection import Connection
from chalk_online_store.drivers.http.shared import FAILURES, Target, store_closed
from chalk_online_store.drivers.polling import milliseconds_until, poll_of
from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.errors import RequestError

if TYPE_CHECKING:
    from chalk_online_store.drivers.credentials import CredentialSource, Endpoint


class HttpTransport:
    """Sends requests over a pool of kept connections. Safe for threads, and after a fork.

    More than `pool_size` threads do not wait for each other: they open connections that are
    closed after use. Time passes unbounded in name resolution alone, which Python cannot stop.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: CredentialSource,
        *,
        connect_timeout: float = 1.0,
        pool_size: int = 32,
    ) -> None:
        """Connect to `endpoint` when first needed.

        `connect_timeout`, in seconds, bounds connecting, TLS included. Raises `InvalidURL`, or
        `ConnectionFailed` when the certificate bundle cannot be read.
        """
        self._target = Target(endpoint)
        self._credentials = credentials
        self._connect_timeout = connect_timeout
        self._pool_size = pool_size
        self._closed = False
        self._idle: deque[Connection] = deque()  # append and pop are atomic.
        self._parked: deque[Connection] = deque()
        self._pid = os.getpid()
        self._generation = 0
        """Connections of an earlier one may be out of step, and are not used again."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the endpoint."""
        return self._target.host, self._target.port

    def send(self, request: Request, timeout: float) -> Response:
        """Send once and give the whole answer, within `timeout` seconds.

        Raises `ConnectionFailed`, `RequestTimeout`, `InvalidCredentials`, or `StoreClosed`.
        """
        exchange = self.begin(request, timeout)
        while (answer := exchange.advance()) is None:
            exchange.wait()
        return answer

    def begin(self, request: Request, timeout: float) -> Exchange:
        """Take or make a connection for a request, of which nothing is sent yet.

        Whoever has several under way in one thread advances each as its socket is ready. Raises
        as `send` does.
        """
        self._check()
        deadline = time.monotonic() + timeout
        source = self._credentials
        credentials = source.refresh(timeout) if request.renew else source.current(timeout)
        data = self._target.writer.write(request, credentials)
        if timeout <= 0:
            raise self._target.too_late()
        if request.reconnect:
            self._drop_connections()
        connection = (None if request.reconnect else self._take()) or self._new(deadline)
        connection.begin(data, deadline)
        return Exchange(self, connection)

    def _drop_connections(self) -> None:
        """Close the connections: the idle ones now, the others when they are given back."""
        self._generation += 1
        self._drop_all()

    def failure(self, error: Exception) -> RequestError:
        """What to raise instead of what a connection raised."""
        return self._target.failure(error)

    def warm(self, connections: int, timeout: float) -> int:
        """Get credentials, and open connections up to so many, at most `pool_size`.

        All within `timeout` seconds. Answers how many are open and idle. Raises as `send`.
        """
        self._check()
        deadline = time.monotonic() + timeout
        self._credentials.current(timeout)
        missing = min(connections, self._pool_size) - len(self._idle)
        fresh = [self._new(deadline) for _ in range(missing)]
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

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, if it may carry one."""
        self._keep(connection, self._idle if connection.reusable else None)

    def park(self, connection: Connection) -> None:
        """Keep a connection whose answer nobody waits for any more, until that has come.

        Opening another one would cost more than to read that answer in passing.
        """
        connection.give_up()
        self._keep(connection, self._parked)

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

    def _take(self) -> Connection | None:
        """An idle connection that is still alive."""
        if self._parked:
            self._tend()
        while (connection := _pop(self._idle.pop)) is not None:
            if connection.is_alive():
                return connection
            connection.close()
        return None

    def _tend(self) -> None:
        """Go on with the one that has waited longest of those that were given up."""
        connection = _pop(self._parked.popleft)
        if connection is None:
            return
        try:
            over = connection.settle()
        except FAILURES:
            connection.close()
        else:
            if over:
                self.give_back(connection)
            else:
                self._parked.append(connection)

    def _new(self, deadline: float) -> Connection:
        """A connection that is still to be opened."""
        until = min(deadline, time.monotonic() + self._connect_timeout)
        return Connection(self._target, until, self._generation)


class Exchange:
    """One request under way, and the connection that carries it."""

    __slots__ = ("_transport", "connection")

    def __init__(self, transport: HttpTransport, connection: Connection) -> None:
        self._transport = transport
        self.connection = connection

    def advance(self) -> Response | None:
        """As `Connection.advance`; raises as `HttpTransport.send`."""
        try:
            answer = self.connection.advance()
        except BaseException as error:
            self._fail(error)
        if answer is not None:
            self._transport.give_back(self.connection)
        return answer

    def wait(self, until: float = math.inf) -> None:
        """As `Connection.wait`."""
        try:
            self.connection.wait(until)
        except BaseException as error:
            self._fail(error)

    def abort(self) -> None:
        """Give up; what was sent may take effect all the same."""
        self._transport.park(self.connection)

    def _fail(self, error: BaseException) -> NoReturn:
        self.connection.close()
        if isinstance(error, FAILURES):
            raise self._transport.failure(error) from None
        raise error


def open_all(connections: Sequence[Connection]) -> None:
    """Open connections at once. Raises `OSError` where one cannot be opened."""
    while opening := [each for each in connections if not each.is_open and not each.open()]:
        deadline = min(each.deadline for each in opening)
        poll_of(opening).poll(milliseconds_until(deadline))


def _pop(pop: Callable[[], Connection]) -> Connection | None:
    try:
        return pop()
    except IndexError:
        return None
