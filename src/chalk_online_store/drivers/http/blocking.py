"""The transport for threads: kept sockets, and deadlines that no piece of an answer renews."""

from __future__ import annotations

import math
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chalk_online_store.drivers.http.exchange import AnswerReader, BrokenAnswer
from chalk_online_store.drivers.http.shared import FAILURES, SOCKET_OPTIONS, Target, store_closed
from chalk_online_store.dynamodb.messages import Request, Response

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
        self._check()
        deadline = time.monotonic() + timeout
        source = self._credentials
        credentials = source.refresh(timeout) if request.renew else source.current(timeout)
        data = self._target.writer.write(request, credentials)
        self._target.left(deadline)
        try:
            return self._exchange(data, deadline)
        except FAILURES as error:
            raise self._target.failure(error) from None

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
                self._give_back(connection)
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

    def _exchange(self, data: bytes, deadline: float) -> Response:
        connection = self._take() or self._connect(deadline)
        try:
            answer = connection.exchange(data, deadline)
        except BaseException:
            connection.close()
            raise
        self._give_back(connection)
        return answer

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

    def _give_back(self, connection: Connection) -> None:
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

    def exchange(self, data: bytes, deadline: float) -> Response:
        """Send a request and read its answer.

        Raises `OSError` (`TimeoutError` at `deadline`) or `BrokenAnswer`; only `close` it then.
        """
        self._send_all(data, deadline)
        self._wait(select.POLLIN, deadline)
        while (answer := self._read(deadline)) is None:
            left_until(deadline)
        if self._on_first_answer is not None:
            self._on_first_answer(self._sock)
            self._on_first_answer = None
        return answer

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def _send_all(self, data: bytes, deadline: float) -> None:
        sent = self._perform(self._sock.send, data, select.POLLOUT, deadline)
        if sent < len(data):
            rest = memoryview(data)
            while sent < len(data):
                sent += self._perform(self._sock.send, rest[sent:], select.POLLOUT, deadline)

    def _read(self, deadline: float) -> Response | None:
        size = self._perform(self._sock.recv_into, self._buffer, select.POLLIN, deadline)
        if not size:
            raise BrokenAnswer.closed()
        return self._reader.feed(self._buffer[:size])

    def _perform(
        self, action: Callable[[Any], int], data: Any, direction: int, deadline: float
    ) -> int:
        while True:
            try:
                return action(data)
            except BlockingIOError:
                self._wait(direction, deadline)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, deadline)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, deadline)

    def _wait(self, direction: int, deadline: float) -> None:
        if direction != select.POLLIN:
            self._poll.modify(self._sock, direction)
        try:
            milliseconds = math.ceil(left_until(deadline) * 1000)
            if not self._poll.poll(min(milliseconds, LONGEST_WAIT)):
                raise TimeoutError
        finally:
            if direction != select.POLLIN:
                self._poll.modify(self._sock, select.POLLIN)


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


def left_until(deadline: float) -> float:
    """Seconds until `deadline`; raises `TimeoutError` when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
