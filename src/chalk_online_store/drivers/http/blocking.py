"""The transport for threads: kept sockets, and deadlines that no piece of an answer renews."""

from __future__ import annotations

import math
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from chalk_online_store.drivers.http.exchange import AnswerReader, BrokenAnswer
from chalk_online_store.drivers.http.shared import FAILURES, SOCKET_OPTIONS, Target, store_closed
from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.errors import RequestError

if TYPE_CHECKING:
    from chalk_online_store.drivers.credentials import CredentialSource, Endpoint

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

READ_SIZE = 2**17
"""Bytes that a connection reads at once: most answers come in one piece or two."""

LONGEST_WAIT = 2**31 - 1
"""Milliseconds, the most that poll(2) takes."""


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
        self._idle: list[Connection] = []  # append and pop are atomic.
        self._pid = os.getpid()

    def send(self, request: Request, timeout: float) -> Response:
        """Send once and give the whole answer, within `timeout` seconds.

        Raises `ConnectionFailed`, `RequestTimeout`, `InvalidCredentials`, or `StoreClosed`.
        """
        exchange = self.begin(request, timeout)
        while (answer := exchange.advance()) is None:
            exchange.wait()
        return answer

    def begin(self, request: Request, timeout: float) -> Exchange:
        """Take or open a connection for a request, of which nothing is sent yet.

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
        try:
            connection = self._take() or self._connect(deadline)
        except FAILURES as error:
            raise self._target.failure(error) from None
        connection.begin(data, deadline)
        return Exchange(self, connection)

    def failure(self, error: Exception) -> RequestError:
        """What to raise instead of what a connection raised."""
        return self._target.failure(error)

    @property
    def idle(self) -> int:
        """How many kept connections nobody uses."""
        return len(self._idle)

    def warm(self, connections: int, timeout: float) -> int:
        """Get credentials, and open connections up to so many, at most `pool_size`.

        All within `timeout` seconds. Answers how many are open and idle. Raises as `send`.
        """
        self._check()
        deadline = time.monotonic() + timeout
        self._credentials.current(timeout)
        fresh: list[Connection] = []
        try:
            while len(self._idle) + len(fresh) < min(connections, self._pool_size):
                fresh.append(self._connect(deadline))
        except FAILURES as error:
            raise self._target.failure(error) from None
        finally:
            for connection in fresh:
                self.give_back(connection)
        return len(self._idle)

    def close(self) -> None:
        """Close the idle connections; requests under way come to their end and close theirs."""
        self._closed = True
        while (connection := self._pop()) is not None:
            connection.close()

    def _check(self) -> None:
        if self._closed:
            raise store_closed()
        if self._pid != os.getpid():  # The parent's connections are not ours to speak on.
            while (connection := self._pop()) is not None:
                connection.close()  # Only this process's handle of it.
            self._pid = os.getpid()

    def _take(self) -> Connection | None:
        """An idle connection that is still alive."""
        while (connection := self._pop()) is not None:
            if connection.is_alive():
                return connection
            connection.close()
        return None

    def _pop(self) -> Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, if it may carry one."""
        if not connection.reusable or len(self._idle) >= self._pool_size:
            connection.close()
            return
        self._idle.append(connection)
        if self._closed:  # Meanwhile: `close` may have missed it.
            self.close()

    def _connect(self, deadline: float) -> Connection:
        deadline = min(deadline, time.monotonic() + self._connect_timeout)
        target = self._target
        sock = connect(target.host, target.port, deadline)
        if target.tls is None:
            return Connection(sock)
        try:
            sock.settimeout(left_until(deadline))
            return Connection(target.tls.wrap(sock), target.tls.keep_session)
        except BaseException:
            sock.close()
            raise


class Connection:
    """One kept connection, for one thread at a time.

    Its socket never blocks: poll(2) does, and so waits for what is left of the whole time.
    """

    def __init__(
        self, sock: socket.socket, on_first_answer: Callable[[Any], None] | None = None
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_first_answer = on_first_answer
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._reader = AnswerReader()
        self._unsent: bytes | memoryview = b""
        self.deadline = math.inf
        """When the answer has to be whole, on the monotonic clock."""
        self.waits_for = select.POLLIN
        """What the socket has to be ready for before it is worth while to `advance`."""

    @property
    def reusable(self) -> bool:
        """Whether it may carry another request, once it has carried one."""
        return self._reader.reusable

    def is_alive(self) -> bool:
        """Whether it lies still: unasked, an engine sends nothing but its end."""
        if not self._poll.poll(0):
            return True
        try:
            self._sock.recv(1)
        except WOULD_BLOCK:
            return True  # It was TLS's own business, such as a session ticket.
        except OSError:
            return False
        return False

    def begin(self, data: bytes, deadline: float) -> None:
        """Have a request to send; `advance` sends it."""
        self.deadline = deadline
        self._unsent = data

    def advance(self) -> Response | None:
        """Go on as far as that needs no waiting; give the answer when it is whole.

        Raises `OSError` (`TimeoutError` at the deadline) or `BrokenAnswer`; only `close` it then.
        """
        try:
            if not self._unsent:
                return self._receive()
            self._send()
        except BlockingIOError:
            self._wait_for(select.POLLOUT if self._unsent else select.POLLIN)
        except ssl.SSLWantReadError:
            self._wait_for(select.POLLIN)
        except ssl.SSLWantWriteError:
            self._wait_for(select.POLLOUT)
        return None

    def _wait_for(self, direction: int) -> None:
        left_until(self.deadline)
        self.waits_for = direction

    def wait(self) -> None:
        """Wait until it can advance; raises `TimeoutError` at the deadline."""
        if self.waits_for != select.POLLIN:
            self._poll.modify(self._sock, self.waits_for)
        try:
            if not self._poll.poll(milliseconds_until(self.deadline)):
                raise TimeoutError
        finally:
            if self.waits_for != select.POLLIN:
                self._poll.modify(self._sock, select.POLLIN)

    def fileno(self) -> int:
        """The socket's."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def _send(self) -> None:
        while (sent := self._sock.send(self._unsent)) < len(self._unsent):
            left_until(self.deadline)
            self._unsent = memoryview(self._unsent)[sent:]
        self._unsent = b""
        self.waits_for = select.POLLIN  # There cannot be an answer yet.

    def _receive(self) -> Response:
        while (answer := self._read()) is None:
            left_until(self.deadline)
        if self._on_first_answer is not None:
            self._on_first_answer(self._sock)
            self._on_first_answer = None
        return answer

    def _read(self) -> Response | None:
        size = self._sock.recv_into(self._buffer)
        if not size:
            raise BrokenAnswer.closed()
        return self._reader.feed(self._buffer[:size])


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

    def wait(self) -> None:
        """As `Connection.wait`; raises as `HttpTransport.send`."""
        try:
            self.connection.wait()
        except BaseException as error:
            self._fail(error)

    def abort(self) -> None:
        """Give up; what was sent may take effect all the same."""
        self.connection.close()

    def _fail(self, error: BaseException) -> NoReturn:
        self.connection.close()
        if isinstance(error, FAILURES):
            raise self._transport.failure(error) from None
        raise error


def connect(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first address of `host` that accepts; raises `OSError`."""
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        sock = socket.socket(family, kind, protocol)
        try:
            for option in SOCKET_OPTIONS:
                sock.setsockopt(*option)
            sock.settimeout(left_until(deadline))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure or OSError("the name has no address")


def milliseconds_until(deadline: float) -> int:
    """As poll(2) takes them; 0 when there are none."""
    return min(max(0, math.ceil((deadline - time.monotonic()) * 1000)), LONGEST_WAIT)


def left_until(deadline: float) -> float:
    """Seconds until `deadline`; raises `TimeoutError` when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
