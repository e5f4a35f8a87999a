"""The way to an engine: kept connections, one request at a time on each."""

from __future__ import annotations

import asyncio

from httptools import HttpParserError

from .messages import Answer, ResponseReader


class EngineGone(OSError):
    """The engine cannot be reached, or the connection to it broke."""


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._reader = ResponseReader()
        self._waiting: asyncio.Future[Answer] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    async def ask(self, data: bytes) -> Answer:
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return await self._waiting

    def data_received(self, data: bytes) -> None:
        try:
            answer = self._reader.feed(data)
        except HttpParserError:
            self.transport.abort()
            return
        if answer is not None and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(EngineGone("the engine closed the connection"))


class Upstream:
    """An engine's address, and idle connections to it."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._idle: list[_Connection] = []

    async def ask(self, data: bytes) -> Answer:
        """Send a request and give the answer; raises `EngineGone`."""
        connection = self._take() or await self._connect()
        try:
            answer = await connection.ask(data)
        except BaseException:
            connection.transport.abort()
            raise
        if answer.keep_alive:
            self._idle.append(connection)
        else:
            connection.transport.close()
        return answer

    def _take(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(_Connection, self._host, self._port)
        except OSError as error:
            raise EngineGone(f"the engine cannot be reached: {error}") from error
        return connection

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().transport.abort()
