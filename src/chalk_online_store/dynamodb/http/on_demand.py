"""Transports that are made when they are first used.

A store has one to each region's endpoint for searches. Most stores never search, and must not
connect to a second host for nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chalk_online_store._fork import reset_after_fork
from chalk_online_store.network.sockets import store_closed

if TYPE_CHECKING:
    from chalk_online_store.drivers.aio import AsyncTransport
    from chalk_online_store.drivers.sync import Transport


class OnDemandTransport:
    """A transport for threads."""

    opens_on_warm = False

    def __init__(self, make: Callable[[], Transport]) -> None:
        self._make = make
        self._made: Transport | None = None
        self._closed = False
        self.reset()
        reset_after_fork(self)

    def reset(self) -> None:
        """Have a lock of one's own."""
        self._lock = threading.Lock()

    def send(self, request: Any, timeout: float) -> Any:
        """Send by the transport that is made for it; raises as that does."""
        transport = self._made
        if transport is None:
            with self._lock:
                if self._closed:
                    raise store_closed()
                transport = self._made = self._made or self._make()
        return transport.send(request, timeout)

    def warm(self, connections: int, timeout: float) -> int:
        """Do nothing: the first search opens the first connection."""
        return 0

    def close(self) -> None:
        """Close the transport, if it was made."""
        self._closed = True
        if self._made is not None:
            self._made.close()


class AsyncOnDemandTransport:
    """A transport for asyncio. Making one takes no time."""

    opens_on_warm = False

    def __init__(self, make: Callable[[], AsyncTransport]) -> None:
        self._make = make
        self._made: AsyncTransport | None = None
        self._closed = False

    async def send(self, request: Any, timeout: float) -> Any:
        """As `OnDemandTransport.send`."""
        if self._made is None:
            if self._closed:
                raise store_closed()
            self._made = self._make()
        return await self._made.send(request, timeout)

    async def warm(self, connections: int, timeout: float) -> int:
        """As `OnDemandTransport.warm`."""
        return 0

    async def close(self) -> None:
        """As `OnDemandTransport.close`."""
        self._closed = True
        if self._made is not None:
            await self._made.close()
