"""A port of 127.0.0.1 that can be listened on, refuse, or be deaf, and stays ours all the while."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

HOST = "127.0.0.1"
State = Literal["open", "refused", "deaf"]

_FILLERS = 4
"""Connections that fill the queue of a listener with a backlog of 0: one or two do."""


class Listener:
    """Hands connections to protocols that `factory` makes, while it is open."""

    def __init__(self, port: int, factory: Callable[[], asyncio.Protocol]) -> None:
        self._factory = factory
        # Bound but not listening, it keeps others from the port while nobody is to answer there.
        self._holder = _bound(port)
        self.port: int = self._holder.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._deaf: list[socket.socket] = []
        self._state: State = "refused"

    @property
    def refuses(self) -> bool:
        """Whether a connection that was accepted just before is too late."""
        return self._state == "refused"

    async def turn(self, state: State) -> None:
        """Be in a state; harmless when it is."""
        if state == self._state:
            return
        previous, self._state = self._state, state
        # Before the other one is closed: no connect is refused in between.
        if state == "deaf":
            self._deaf = [_unanswered(self.port)]
        if previous == "open":
            self._close_server()
        if state == "deaf":  # Not sooner: the other one would take some of the connections.
            self._deaf = [*_fillers(self.port), *self._deaf]
        if state == "open":
            await self._open_server()
        if previous == "deaf":
            _close(self._deaf)

    async def _open_server(self) -> None:
        sock = _bound(self.port)
        self._server = await asyncio.get_running_loop().create_server(
            self._factory, sock=sock, backlog=1024
        )

    def _close_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def close(self) -> None:
        """Give the port back."""
        self._state = "refused"
        self._close_server()
        _close(self._deaf)
        self._holder.close()


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        sock.bind((HOST, port))
    except OSError:
        sock.close()
        raise
    return sock


def _unanswered(port: int) -> socket.socket:
    """A listener that nobody accepts from. Once its queue is full, Linux drops further SYNs."""
    listener = _bound(port)
    listener.listen(0)
    return listener


def _fillers(port: int) -> list[socket.socket]:
    """What fills its queue."""
    fillers = [socket.socket() for _ in range(_FILLERS)]
    for filler in fillers:
        filler.setblocking(False)
        with suppress(BlockingIOError):
            filler.connect((HOST, port))
    return fillers


def _close(sockets: list[socket.socket]) -> None:
    while sockets:
        sockets.pop().close()
