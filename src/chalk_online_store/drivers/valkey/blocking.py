"""The transport for threads."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress

from chalk_online_store.drivers.http.shared import store_closed
from chalk_online_store.drivers.valkey.shared import Connection, Server, leads_astray
from chalk_online_store.errors import RequestError
from chalk_online_store.valkey.commands import Command, Reply, Request
from chalk_online_store.valkey.urls import ValkeyTarget


class ValkeyTransport:
    """Sends commands over kept connections, as many at once as there are threads that ask."""

    def __init__(self, target: ValkeyTarget) -> None:
        self._server = Server(target)
        self._pool_size = target.max_pool_connections
        self._idle: list[Connection] = []
        self._pid = os.getpid()
        self._closed = False

    def send(self, request: Request, timeout: float) -> list[Reply]:
        """The reply to each command; raises `errors.RequestError` where none was had.

        Waits `timeout` seconds at most for the connection, and for each part of the answer only
        as long as is left of them.
        """
        deadline = time.monotonic() + timeout
        try:
            connection = self._take(deadline)
            try:
                replies = self._exchange(connection, request.commands, deadline)
            except BaseException:
                connection.disconnect()
                raise
        except self._server.failures as error:
            raise self._server.failure(error) from error
        if leads_astray(replies):
            connection.disconnect()
        else:
            self._give_back(connection)
        return replies

    def warm(self, connections: int, timeout: float) -> int:
        """Open so many connections within `timeout` seconds; how many are idle then."""
        deadline = time.monotonic() + timeout
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

    def size(self, timeout: float) -> tuple[int, int]:
        """How many keys the database has, and the bytes of all the server's data."""
        keys, memory = self.send(Request([("DBSIZE",), ("INFO", "memory")]), timeout)
        for reply in (keys, memory):
            if isinstance(reply, RequestError):
                raise reply
        found = re.search(rb"used_memory_dataset:(\d+)", memory)
        return int(keys), int(found[1]) if found else 0

    def close(self) -> None:
        """Close the connections; a second call does nothing."""
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
                if not connection.can_read(0):
                    return connection
            connection.disconnect()
        return self._connect(deadline)

    def _give_back(self, connection: Connection) -> None:
        if self._closed or len(self._idle) >= self._pool_size:
            connection.disconnect()
        else:
            self._idle.append(connection)

    def _connect(self, deadline: float) -> Connection:
        import redis

        connection = self._server.connection(redis, deadline)
        connection.connect()
        return connection

    def _exchange(
        self, connection: Connection, commands: Sequence[Command], deadline: float
    ) -> list[Reply]:
        packed = connection.pack_commands(commands)
        _wait_until(connection, deadline)
        connection.send_packed_command(packed, check_health=False)
        return [self._read(connection, deadline) for _ in commands]

    def _read(self, connection: Connection, deadline: float) -> Reply:
        from redis import ResponseError

        _wait_until(connection, deadline)
        try:
            return connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return self._server.failure(error)


def _wait_until(connection: Connection, deadline: float) -> None:
    """Have what comes next end by then."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection._sock.settimeout(left)
