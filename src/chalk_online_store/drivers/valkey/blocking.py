"""The transports for threads: one server, or the primary that sentinels name."""

from __future__ import annotations

import math
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from chalk_online_store.drivers.http.shared import store_closed
from chalk_online_store.drivers.valkey.shared import (
    ROLE,
    Address,
    Connection,
    Server,
    leads_astray,
    seconds_until,
)
from chalk_online_store.errors import RequestError
from chalk_online_store.valkey.commands import SIZE, Command, Reply, Request
from chalk_online_store.valkey.urls import ValkeyTarget


class ValkeyTransport:
    """Sends commands over kept connections, as many at once as there are threads that ask."""

    def __init__(self, target: ValkeyTarget) -> None:
        self.address = target.address
        self._server = Server(target)
        self._pool = Pool(self._server, target.nodes[0] if target.nodes else ("", 0))

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
    found = re.search(rb"used_memory_dataset:(\d+)", memory)
    return int(keys), int(found[1]) if found else 0


class Pool:
    """The connections to one address, or to whatever sentinels name."""

    def __init__(self, server: Server, address: Address) -> None:
        self._server = server
        self._address = address
        self._idle: list[Connection] = []
        self._pid = os.getpid()
        self._closed = False

    def exchange(self, commands: Sequence[Command], deadline: float) -> list[Reply]:
        """Send commands and read their replies; raises `RequestError`."""
        return self.finish(self.begin(commands, deadline), commands, deadline)

    def begin(self, commands: Sequence[Command], deadline: float) -> Connection:
        """Send commands, without waiting for their replies; raises `RequestError`."""
        try:
            connection = self._take(deadline)
            with _whole(connection):
                _send(connection, commands, deadline)
        except self._server.failures as error:
            raise self._server.failure(error) from error
        return connection

    def finish(
        self, connection: Connection, commands: Sequence[Command], deadline: float
    ) -> list[Reply]:
        """Read the replies to what was begun; raises `RequestError`."""
        try:
            with _whole(connection):
                _limit(connection, deadline)
                replies = [self._read(connection) for _ in commands]
        except self._server.failures as error:
            raise self._server.failure(error) from error
        if leads_astray(replies):
            connection.disconnect()
        else:
            self._give_back(connection)
        return replies

    def warm(self, connections: int, deadline: float) -> int:
        """Open so many connections; how many are idle then. Raises `RequestError`."""
        opened: list[Connection] = []
        try:
            for _ in range(connections):
                opened.append(self._take(deadline))
        except self._server.failures as error:
            if not opened:
                raise self._server.failure(error) from error
        finally:
            for connection in opened:
                self._give_back(connection)
        return len(self._idle)

    def close(self) -> None:
        """Close what is idle, and what is under way when it ends."""
        self._closed = True
        while self._idle:
            self._idle.pop().disconnect()

    # --- connections ---

    def _take(self, deadline: float) -> Connection:
        """One that idles, if it is still there, else a new one."""
        if self._closed:
            raise store_closed()
        if self._pid != os.getpid():  # What the parent of this fork has is not to be shared.
            self._pid, self._idle = os.getpid(), []
        while self._idle:
            connection = self._idle.pop()
            with suppress(*self._server.failures):
                _limit(connection, deadline)
                if not connection.can_read(0):
                    return connection
            connection.disconnect()
        return self._connect(deadline)

    def _give_back(self, connection: Connection) -> None:
        if self._closed or len(self._idle) >= self._server.target.max_pool_connections:
            connection.disconnect()
        else:
            self._idle.append(connection)

    def _connect(self, deadline: float) -> Connection:
        if not self._server.target.service:
            return self._open(self._address, deadline)
        connection = self._open(self._whereabouts(deadline), deadline)
        with _whole(connection):
            (role,) = self._ask(connection, ROLE, deadline)
            self._server.check_primary(role)
        return connection

    def _open(self, address: Address, deadline: float, *, login: bool = True) -> Connection:
        import redis

        connection = self._server.connection(redis, address, deadline, login=login)
        connection.connect()
        connection._sock = _Bounded(connection._sock)
        connection._parser.on_connect(connection)  # From now on it reads from that.
        return connection

    def _whereabouts(self, deadline: float) -> Address:
        """What the first sentinel says that knows."""
        for address in self._server.target.nodes:
            with suppress(*self._server.failures):
                sentinel = self._open(address, deadline, login=False)
                try:
                    (found,) = self._ask(sentinel, self._server.whereabouts, deadline)
                finally:
                    sentinel.disconnect()
                if (place := self._server.place(found)) is not None:
                    return place
        raise self._server.nowhere()

    # --- exchanges ---

    def _ask(self, connection: Connection, command: Command, deadline: float) -> list[Reply]:
        _send(connection, [command], deadline)
        return [self._read(connection)]

    def _read(self, connection: Connection) -> Reply:
        from redis import ResponseError

        try:
            return connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return self._server.failure(error)


@contextmanager
def _whole(connection: Connection) -> Iterator[None]:
    """Closes a connection of which something went wrong halfway: the next reply is unknown."""
    try:
        yield
    except BaseException:
        connection.disconnect()
        raise


def _send(connection: Connection, commands: Sequence[Command], deadline: float) -> None:
    packed = connection.pack_commands(commands)
    _limit(connection, deadline)
    connection.send_packed_command(packed, check_health=False)


def _limit(connection: Connection, deadline: float) -> None:
    """Have what comes next end by then."""
    connection._sock.deadline = deadline


class _Bounded:
    """A socket whose work ends by a deadline, in however many pieces an answer comes."""

    __slots__ = ("_socket", "deadline")

    def __init__(self, within: socket.socket) -> None:
        self._socket = within
        self.deadline = math.inf

    def recv(self, *options: int) -> bytes:
        """As a socket's."""
        return self._in_time().recv(*options)

    def recv_into(self, buffer: bytearray) -> int:
        """As a socket's."""
        return self._in_time().recv_into(buffer)

    def sendall(self, data: bytes) -> None:
        """As a socket's."""
        self._in_time().sendall(data)

    def _in_time(self) -> socket.socket:
        self._socket.settimeout(seconds_until(self.deadline))
        return self._socket

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)
