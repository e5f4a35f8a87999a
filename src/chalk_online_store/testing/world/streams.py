"""A proxy in front of a Valkey server: bytes in both directions, and the faults among them.

A client of Valkey sends its commands and waits for all replies before it sends more. So a request
is what comes from it until the server has answered, and the answer what comes from the server
until the client goes on.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field

from .active import NO_HITS, Hits
from .faults import (
    AcceptThenClose,
    Blackhole,
    LateDuplicates,
    LostAnswer,
    LostRequest,
    Reset,
    Slowdown,
    SlowDrip,
    SwappedResponses,
    Truncated,
)
from .front import Front, end, latency, reset

_DRIP = 0.01
"""Seconds from one piece of a slow answer to the next."""

_NAME = re.compile(rb"\*\d+\r\n\$\d+\r\n(\w+)|(\w+)")


def operation_of(data: bytes) -> str:
    """The name of the first command of a request."""
    found = _NAME.match(data)
    return (found[1] or found[2]).decode().upper() if found else ""


@dataclass(slots=True)
class _Turn:
    """A request, and how much of it was sent on; its answer, and how much of that."""

    operation: str = ""
    hits: Hits = NO_HITS
    began: float = field(default_factory=time.perf_counter)
    asked: int = 0
    answered: int = 0
    heard: bool = False
    """Whether the server has begun to answer."""
    to: asyncio.Transport | None = None
    """The connection that the answer goes to; None for that of the request."""


class StreamProxy(Front):
    """One proxy: a listener, the faults in force, and the address of the server behind."""

    def __init__(self, target: tuple[str, int], port: int, seed: int | None) -> None:
        super().__init__(port, seed, lambda: _Client(self))
        self.target = target
        self._waiting: tuple[asyncio.Transport, asyncio.Future[asyncio.Transport]] | None = None
        """A connection whose response waits to be exchanged with the next one."""

    async def swap(self, transport: asyncio.Transport, seconds: float) -> asyncio.Transport:
        """Return the connection that a response goes to: its own if no other response comes."""
        if self._waiting is not None:
            (other, exchanged), self._waiting = self._waiting, None
            exchanged.set_result(transport)
            return other
        mine: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()
        waiting = self._waiting = transport, mine
        try:
            await asyncio.wait((mine,), timeout=seconds)
        finally:
            if self._waiting is waiting:
                self._waiting = None
        return mine.result() if mine.done() else transport


class _Client(asyncio.Protocol):
    """A client's connection, and the one to the server that goes with it."""

    def __init__(self, proxy: StreamProxy) -> None:
        self._proxy = proxy
        self._turn = _Turn(heard=True)
        self._silent = self._doomed = self._forgotten = False
        self._ending: asyncio.Task[None] | None = None
        self._answers: asyncio.Queue[tuple[_Turn, bytes]] = asyncio.Queue()
        self._early: list[bytes] = []
        self._duplicate = b""
        self._duplicate_due: asyncio.TimerHandle | None = None
        self._server: asyncio.Transport | None = None
        self.transport: asyncio.Transport

    # --- what the client does ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._proxy.welcome(self)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._connect()), loop.create_task(self._deliver_all())]

    def connection_lost(self, error: Exception | None) -> None:
        self._proxy.connections.discard(self)
        for task in self._tasks:
            task.cancel()
        if self._server is not None:
            self._server.close()  # What was sent on arrives.

    def data_received(self, data: bytes) -> None:
        if self._forgotten or self._ending:
            if not self._silent and not self._ending:
                self.reset()
            return
        turn = self._turn
        if turn.heard:
            operation = operation_of(data)
            turn = self._turn = _Turn(operation, self._proxy.draw(operation))
        if turn.hits.first(Blackhole):
            self._silent = True
        lost = turn.hits.first(LostRequest)
        if lost is None:
            self._send_on(data)
            return
        part = data[: max(0, lost.after - turn.asked)]
        turn.asked += len(part)
        self._send_on(part)
        if len(part) < len(data):
            self._lose()

    def _lose(self) -> None:
        """End the connection, once the server has what was sent on."""
        if self._server is None:
            self._doomed = True
        else:
            self.reset()

    def _send_on(self, data: bytes) -> None:
        if self._silent:
            return
        if self._server is None:
            self._early.append(data)
        else:
            self._server.write(data)

    # --- what the server does ---

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            server, _ = await loop.create_connection(lambda: _Server(self), *self._proxy.target)
        except OSError:
            self.reset()
            return
        self._server = server
        server.write(b"".join(self._early))
        if self._doomed:
            self.reset()

    def answered(self, data: bytes) -> None:
        """The server has sent something; nothing where that was the last."""
        self._turn.heard = True
        self._answers.put_nowait((self._turn, data))

    async def _deliver_all(self) -> None:
        while not self.transport.is_closing():
            turn, data = await self._answers.get()
            if not data:
                self.transport.close()
            elif not self._silent and not self._forgotten:
                await self._deliver(turn, data)

    async def _deliver(self, turn: _Turn, data: bytes) -> None:
        """Send a piece of an answer, as far as the faults let it come."""
        hits = turn.hits
        if not turn.answered:
            await self._hold_back(turn)
            self._send_duplicate()
        if self.transport.is_closing():
            return
        if self._proxy.faults.swallow(turn.operation):
            self._silent = True
        elif hits.first(LostAnswer):
            self.transport.close()
        elif (cut := hits.first(Reset)) and turn.answered + len(data) > cut.after:
            self.transport.write(data[: cut.after - turn.answered])
            self.reset()
        elif truncated := hits.first(Truncated):
            self.transport.write(data[: int(len(data) * truncated.keep)])
            self.transport.close()
        elif drip := hits.first(SlowDrip):
            await self._drip(data, drip.bytes_per_second)
        else:
            self._write(turn, data)
        turn.answered += len(data)

    def _write(self, turn: _Turn, data: bytes) -> None:
        """Send a piece unharmed, to whoever gets this answer, and perhaps once more later."""
        transport = turn.to or self.transport
        if not transport.is_closing():
            transport.write(data)
        if duplicate := turn.hits.first(LateDuplicates):
            self._duplicate += data
            self._end_duplicate_timer()
            self._duplicate_due = asyncio.get_running_loop().call_later(
                duplicate.seconds, self._send_duplicate
            )

    def _send_duplicate(self) -> None:
        self._end_duplicate_timer()
        duplicate, self._duplicate = self._duplicate, b""
        if duplicate and not self.transport.is_closing() and not self._forgotten:
            self.transport.write(duplicate)

    def _end_duplicate_timer(self) -> None:
        if self._duplicate_due is not None:
            self._duplicate_due.cancel()

    async def _hold_back(self, turn: _Turn) -> None:
        took = time.perf_counter() - turn.began
        seconds = sum(took * (slow.factor - 1) for slow in turn.hits.every(Slowdown))
        if seconds := seconds + latency(turn.hits, self._proxy.faults):
            await asyncio.sleep(seconds)
        if swapped := turn.hits.first(SwappedResponses):
            turn.to = await self._proxy.swap(self.transport, swapped.wait)

    async def _drip(self, data: bytes, bytes_per_second: float) -> None:
        size = max(1, int(bytes_per_second * _DRIP))
        for start in range(0, len(data), size):
            await asyncio.sleep(size / bytes_per_second)
            self.transport.write(data[start : start + size])

    def reset(self) -> None:
        """End the connection by an RST."""
        reset(self.transport)

    def end(self, fault: AcceptThenClose) -> None:
        """End the connection as the fault says."""
        ending = end(self.transport, fault, self._proxy.faults.rng)
        self._ending = asyncio.get_running_loop().create_task(ending)

    def forget(self, *, silent: bool) -> None:
        """Answer what comes next by an RST, or by nothing; responses are lost as well."""
        self._forgotten, self._silent = True, self._silent or silent


class _Server(asyncio.Protocol):
    """The connection to the server, which goes with one of a client."""

    def __init__(self, client: _Client) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client.answered(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._client.answered(b"")
