"""The transports for threads: one server, or the primary that sentinels name."""

from __future__ import annotations

import math
import os
import re
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from chalk_online_store.drivers.polling import milliseconds_until
from chalk_online_store.errors import RequestError
from chalk_online_store.network.opening import open_socket
from chalk_online_store.network.reuse import Reuse
from chalk_online_store.network.sockets import store_closed
from chalk_online_store.valkey.commands import SIZE, Reply, Request
from chalk_online_store.valkey.pipeline import Pipeline
from chalk_online_store.valkey.resp import Command, ReplyReader, pack
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

_READ_SIZE = 1 << 16
"""Bytes that a connection reads at once: most responses come in one piece."""

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class ValkeyTransport:
    """Sends commands over pooled connections, as many at once as there are threads that ask."""

    def __init__(self, target: ValkeyTarget) -> None:
        self.address = target.address
        self._pool = Pool(Server(target), target.nodes[0] if target.nodes else ("", 0))

    def send(self, request: Request, timeout: float) -> list[Reply]:
        """The reply to each command within `timeout` seconds; raises `errors.RequestError`."""
        return self._pool.exchange(request.commands, time.monotonic() + timeout)

    def warm(self, connections: int, timeout: float) -> int:
        """Open so many connections within `timeout` seconds; how many are idle then."""
        return self._pool.warm(connections, time.monotonic() + timeout)

    def size(self, timeout: float) -> tuple[int, int]:
        """How many keys the database has, and the bytes of all the server's data."""
        return size_of(self.send(Request(SIZE), timeout))

    def close(self) -> None:
        """Close the connections; a second call does nothing."""
        self._pool.close()


def size_of(replies: Sequence[Reply]) -> tuple[int, int]:
    """What the replies to `SIZE` say; raises `RequestError`."""
    for reply in replies:
        if isinstance(reply, RequestError):
            raise reply
    keys, memory = replies
    found = re.search(rb"used_memory_dataset:(\d{1,20})", memory)
    return int(keys), int(found[1]) if found else 0


class InFlight:
    """A request that was sent, and the connection that its response is awaited on."""

    __slots__ = ("connection", "deadline", "doubted_at", "pipeline", "reader", "sent_at")

    def __init__(
        self,
        pipeline: Pipeline,
        connection: BlockingConnection,
        deadline: float,
        doubted_at: float = math.inf,
    ) -> None:
        self.pipeline = pipeline
        self.connection = connection
        self.deadline = deadline
        self.doubted_at = min(doubted_at, deadline)
        """When a reused connection is given up that has not begun to respond."""
        self.sent_at = time.monotonic()
        self.reader = pipeline.reader()


class Pool:
    """The connections to one address, or to the server that sentinels name.

    Every connection in it is idle and in step: one that raised is closed, whatever it raised.
    Connections are taken from the end that was used last. See `network.reuse` for those
    that the network has forgotten.
    """

    def __init__(self, server: Server, address: Address) -> None:
        self._server = server
        self._address = address
        self._size = server.target.max_pool_connections
        self._reuse = Reuse(server.target.keepalive_timeout, self._size)
        self._idle: deque[BlockingConnection] = deque()  # append and pop are atomic.
        self._pid = os.getpid()
        self._closed = False

    def exchange(self, commands: Sequence[Command], deadline: float) -> list[Reply]:
        """Send commands and read their replies; raises `RequestError`."""
        return self.finish(self.begin(commands, deadline))

    def begin(self, commands: Sequence[Command], deadline: float) -> InFlight:
        """Send commands, without waiting for their replies; raises `RequestError`."""
        try:
            return self._begin(Pipeline(commands), deadline)
        except FAILURES as error:
            raise self._server.failure(error) from error

    def finish(self, sent: InFlight) -> list[Reply]:
        """Read the replies to what was begun; raises `RequestError`."""
        try:
            return self._receive(sent)
        except FAILURES as error:
            if not (sent.connection.reused and is_stale(error, sent.reader)):
                raise self._server.failure(error) from error
            self._drop_older(sent.connection)
            if time.monotonic() >= sent.deadline:
                raise self._server.failure(Stale()) from error
        try:
            return self._receive(self._begin_new(sent.pipeline, sent.deadline))
        except FAILURES as error:
            raise self._server.failure(error) from error

    def warm(self, connections: int, deadline: float) -> int:
        """Open so many connections; how many are idle then. Raises `RequestError`."""
        opened: list[BlockingConnection] = []
        try:
            for _ in range(min(connections, self._size)):
                opened.append(self._take() or self._connect(deadline))
        except FAILURES as error:
            if not opened:
                raise self._server.failure(error) from error
        finally:
            for connection in opened:
                self._give_back(connection)
        return len(self._idle)

    def close(self) -> None:
        """Close what is idle, and what is under way when it ends."""
        self._closed = True
        self._drop(self._idle.pop)

    # --- requests ---

    def _begin(self, pipeline: Pipeline, deadline: float) -> InFlight:
        connection = self._take()
        if connection is None:
            return self._begin_new(pipeline, deadline)
        now = time.monotonic()
        doubted_at = now + self._reuse.silence_bound(deadline - now)
        connection.introduce(pipeline)
        sent = InFlight(pipeline, connection, deadline, doubted_at)
        try:
            connection.send(pipeline.data, sent.doubted_at)
        except OSError as error:
            connection.close()
            self._drop_older(connection)
            if time.monotonic() >= deadline:
                raise Stale from error
            return self._begin_new(pipeline, deadline)
        except BaseException:
            connection.close()
            raise
        return sent

    def _begin_new(self, pipeline: Pipeline, deadline: float) -> InFlight:
        connection = self._connect(deadline)
        connection.introduce(pipeline)
        with _whole(connection):
            connection.send(pipeline.data, deadline)
        return InFlight(pipeline, connection, deadline)

    def _receive(self, sent: InFlight) -> list[Reply]:
        connection = sent.connection
        try:
            self._read(sent)
            replies = self._server.replies(sent.pipeline.check(sent.reader.replies))
        except BaseException:  # The next reply on this connection would be unknown.
            connection.close()
            raise
        self._reuse.responded(time.monotonic() - sent.sent_at)
        if leads_astray(replies):
            connection.close()
        else:
            self._give_back(connection)
        return replies

    def _read(self, sent: InFlight) -> None:
        try:
            sent.connection.receive(sent.reader, sent.doubted_at, sent.deadline)
        except TimeoutError:
            now = time.monotonic()
            if sent.reader.has_begun or now >= sent.deadline or self._reuse.may_send_twice(now):
                raise
            # Many requests were sent a second time lately, so the server itself is slow.
            sent.connection.receive(sent.reader, sent.deadline, sent.deadline)

    # --- connections ---

    def _take(self) -> BlockingConnection | None:
        """An idle connection that may be used."""
        if self._closed:
            raise store_closed()
        if self._pid != os.getpid():  # The connections of the parent are not to be shared.
            self._pid, self._idle = os.getpid(), deque()
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if self._reuse.has_expired(connection, time.monotonic()):
                    self._drop_older(connection)
                elif connection.is_quiet():
                    return connection
                connection.close()
        return None

    def _give_back(self, connection: BlockingConnection) -> None:
        connection.rest()
        self._reuse.stamp(connection)
        if len(self._idle) >= self._size or connection.pid != os.getpid():
            connection.close()
            return
        self._idle.append(connection)
        if self._closed:  # Meanwhile: `close` may have missed it.
            self._drop(self._idle.pop)

    def _drop_older(self, connection: BlockingConnection) -> None:
        """Close the idle connections that were not used since this one was."""

        def oldest() -> BlockingConnection:
            if self._idle[0].idle_since > connection.idle_since:
                raise IndexError
            return self._idle.popleft()

        self._drop(oldest)

    def _drop(self, pop: Callable[[], BlockingConnection]) -> None:
        with suppress(IndexError):
            while True:
                pop().close()

    def _connect(self, deadline: float) -> BlockingConnection:
        if not self._server.target.service:
            return self._open(self._address, deadline)
        connection = self._open(self._whereabouts(deadline), deadline)
        with _whole(connection):
            (role,) = self._ask(connection, ROLE, deadline)
            self._server.check_primary(role)
        return connection

    def _open(self, address: Address, deadline: float, *, login: bool = True) -> BlockingConnection:
        """Connect and log in, within the `connect_timeout` of the URL."""
        until = min(deadline, time.monotonic() + self._server.target.connect_timeout)
        connection = BlockingConnection(_open_socket(self._server, address, until))
        if login and (asked := self._server.login):
            with _whole(connection):
                reader = ReplyReader(len(asked), LOGIN_BYTES)
                connection.send(pack(asked), until)
                connection.receive(reader, until, until)
                self._server.check_login(asked, reader.replies)
        return connection

    def _whereabouts(self, deadline: float) -> Address:
        """What the first sentinel says that knows."""
        sentinels = self._server.target.nodes
        for untried, address in zip(range(len(sentinels), 0, -1), sentinels, strict=True):
            until = share_of_time(deadline, untried)
            with suppress(*FAILURES, RequestError):
                sentinel = self._open(address, until, login=False)
                try:
                    (found,) = self._ask(sentinel, self._server.whereabouts, until)
                finally:
                    sentinel.close()
                if (place := self._server.place(found)) is not None:
                    return place
        raise self._server.nowhere()

    def _ask(
        self, connection: BlockingConnection, command: Command, deadline: float
    ) -> list[Reply]:
        pipeline = Pipeline([command])
        reader = pipeline.reader()
        connection.send(pipeline.data, deadline)
        connection.receive(reader, deadline, deadline)
        return self._server.replies(pipeline.check(reader.replies))


@contextmanager
def _whole(connection: BlockingConnection) -> Iterator[None]:
    """Close a connection if anything is raised: the next reply on it is unknown."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


class BlockingConnection:
    """One connection, for one thread at a time. It waits by poll(2), and so never too long."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self.pid = os.getpid()
        self.reused = False
        """True once it was idle."""
        self._is_new = True
        self.idle_since = self.wall_offset = 0.0
        self.began_at = math.inf

    def introduce(self, pipeline: Pipeline) -> None:
        """Have the first request name the library."""
        if self._is_new:
            self._is_new = False
            pipeline.introduce()

    def rest(self) -> None:
        """Begin to be idle."""
        self.reused = True

    def is_quiet(self) -> bool:
        """Return True if nothing arrived: a server sends nothing unasked but its end."""
        if not self._poll.poll(0):
            return True
        if not self._is_tls:
            return False
        try:
            self._sock.recv(1)
        except ssl.SSLWantReadError:  # It was TLS's own, such as a session ticket.
            return True
        except OSError:
            return False
        return False

    def send(self, data: bytes, deadline: float) -> None:
        """Send all of it; raises `OSError`, `TimeoutError` at the deadline."""
        left: bytes | memoryview = data
        while True:
            try:
                sent = self._sock.send(left)
            except WOULD_BLOCK as error:
                self._wait(_event(error, select.POLLOUT), deadline)
            else:
                if sent == len(left):
                    return
                left = memoryview(left)[sent:]
                _check_time(deadline)

    def receive(self, reader: ReplyReader, first_by: float, deadline: float) -> None:
        """Read until the reader is done.

        The first byte has to be there at `first_by`. Raises `OSError`, `BrokenReply`, and
        `TimeoutError` at the deadline.
        """
        event = 0 if self._is_tls else select.POLLIN  # TLS may have read it already.
        until = first_by
        while True:
            if event:
                self._wait(event, until)
            try:
                data = self._sock.recv(_READ_SIZE)
            except WOULD_BLOCK as error:
                event = _event(error, select.POLLIN)
                continue
            if not data:
                raise ConnectionEnded(reader)
            if reader.feed(data):
                return
            _check_time(deadline)
            event, until = 0, deadline

    def _wait(self, event: int, deadline: float) -> None:
        """Wait until the socket is ready; raises `TimeoutError` at the deadline."""
        if event == select.POLLIN:
            ready = self._poll.poll(milliseconds_until(deadline))
        else:
            self._poll.modify(self._sock, event)
            try:
                ready = self._poll.poll(milliseconds_until(deadline))
            finally:
                self._poll.modify(self._sock, select.POLLIN)
        if not ready:
            raise TimeoutError

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def __del__(self) -> None:
        # An exception of a signal handler may arrive where nobody has the connection yet.
        self._sock.close()


def _check_time(deadline: float) -> None:
    """Raise `TimeoutError` at the deadline, also if the socket is ready all the time."""
    if time.monotonic() >= deadline:
        raise TimeoutError


def _event(error: Exception, usual: int) -> int:
    """What to wait for: TLS may have to write before it reads, and the other way round."""
    if isinstance(error, ssl.SSLWantReadError):
        return select.POLLIN
    return select.POLLOUT if isinstance(error, ssl.SSLWantWriteError) else usual


# --- sockets -------------------------------------------------------------------------------


def _open_socket(server: Server, address: Address, deadline: float) -> socket.socket:
    """Connect, TLS included, by a deadline; raises `OSError` or `UnicodeError`."""
    if server.target.path:
        return _open_unix_socket(server.target.path, deadline)
    opening = open_socket(_Place(server, address), deadline)
    try:
        while True:
            waiting = next(opening)
            poll = select.poll()
            for descriptor, events in waiting.sockets:
                poll.register(descriptor, events)
            poll.poll(milliseconds_until(min(waiting.until, deadline)))
            if time.monotonic() >= deadline:
                raise TimeoutError
    except StopIteration as stop:
        sock: socket.socket = stop.value
        return sock
    finally:
        opening.close()


def _open_unix_socket(path: str, deadline: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        sock.connect(path)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


class _Place:
    """A host, its port, and the TLS to speak with it."""

    def __init__(self, server: Server, address: Address) -> None:
        self.host, self.port = address
        self.tls: Any = None if server.tls is None else self
        self._context = server.tls

    def wrap(self, sock: socket.socket) -> ssl.SSLSocket:
        """Make TLS of a connected socket; the handshake is still to be done."""
        assert self._context is not None
        return self._context.wrap_socket(
            sock, do_handshake_on_connect=False, server_hostname=self.host
        )
