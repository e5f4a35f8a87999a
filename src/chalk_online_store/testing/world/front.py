"""What every proxy has: a port, the faults in force, and the connections of its clients."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from .active import ActiveFaults, Hits, Injection
from .faults import AcceptThenClose, ForgottenConnections, Latency
from .listener import Listener

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Client(Protocol):
    """A client's connection."""

    def reset(self) -> None:
        """End it by an RST."""

    def end(self, fault: AcceptThenClose) -> None:
        """End it as the fault says."""

    def forget(self, *, silent: bool) -> None:
        """Answer what the client sends next by an RST, or if `silent` by nothing."""


class Front:
    """Listens, or does not, as the faults say; `factory` makes a protocol for each connection."""

    def __init__(
        self, port: int, seed: int | None, factory: Callable[[], asyncio.Protocol]
    ) -> None:
        self.faults = ActiveFaults(seed)
        self.connections: set[Client] = set()
        self._requests: Counter[str] = Counter()
        self._listener = Listener(port, factory)
        self.port = self._listener.port

    def welcome(self, client: Client) -> None:
        """A client has connected: too late, perhaps."""
        self.connections.add(client)
        if self._listener.refuses:
            client.reset()
        elif closing := self.faults.closing:
            client.end(closing)

    def draw(self, operation: str) -> Hits:
        """What hits a request that has just come."""
        self._requests[operation] += 1
        return self.faults.draw(operation)

    async def inject(self, injection: Injection) -> int:
        """Put a fault in force."""
        key = self.faults.add(injection)
        await self.listen()
        fault = injection.fault
        for client in list(self.connections):
            if isinstance(fault, ForgottenConnections):
                client.forget(silent=fault.silent)
            elif isinstance(fault, AcceptThenClose):
                client.end(fault)
        return key

    async def remove(self, key: int) -> None:
        """End a fault."""
        self.faults.remove(key)
        await self.listen()

    async def clear(self) -> None:
        """End all faults."""
        self.faults.clear()
        await self.listen()

    async def listen(self) -> None:
        """Listen, or not, as the faults say."""
        if self.faults.refused:
            await self._listener.turn("refused")
            for client in list(self.connections):
                client.reset()
        else:
            await self._listener.turn("deaf" if self.faults.deaf else "open")

    def close(self) -> None:
        """Stop at once."""
        self._listener.close()
        for client in list(self.connections):
            client.reset()

    def stats(self) -> dict[str, Any]:
        """What was seen since the start."""
        return {
            "requests": dict(self._requests),
            "faulted": dict(self.faults.counts),
            "connections": len(self.connections),
        }


def latency(hits: Hits, faults: ActiveFaults) -> float:
    """Seconds that an answer is held back."""
    return sum(fault.seconds + faults.rng.uniform(0, fault.jitter) for fault in hits.every(Latency))


async def end(transport: asyncio.Transport, fault: AcceptThenClose, rng: random.Random) -> None:
    """End a connection as the fault says, after the delay that it draws."""
    await asyncio.sleep(rng.uniform(0, fault.within))
    if transport.is_closing():
        return
    if fault.garbage:
        transport.write(rng.randbytes(fault.garbage))
    if fault.reset:
        reset(transport)
    else:
        transport.close()


def reset(transport: asyncio.Transport) -> None:
    """End a connection by an RST."""
    if not transport.is_closing():
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
