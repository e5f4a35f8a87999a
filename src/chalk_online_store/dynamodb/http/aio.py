"""The transport for tasks: a pool of connections for each event loop."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from chalk_online_store.drivers.loops import PerLoop
from chalk_online_store.dynamodb.http.pool import Pool
from chalk_online_store.dynamodb.http.target import FAILURES, Target
from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.network.reuse import KEEPALIVE_TIMEOUT, Reuse
from chalk_online_store.network.sockets import store_closed

if TYPE_CHECKING:
    from chalk_online_store.dynamodb.credentials import CredentialSource, Endpoint

CLOSE_SECONDS = 5.0
"""How long `close` waits for an event loop in another thread."""


class AsyncHttpTransport:
    """Sends requests over kept connections, one pool for each event loop that it is used on.

    Requests beyond `pool_size` wait for a connection, within their timeout.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: CredentialSource,
        *,
        connect_timeout: float = 1.0,
        pool_size: int = 32,
        keepalive_timeout: float = KEEPALIVE_TIMEOUT,
    ) -> None:
        """As `HttpTransport`; no event loop is needed yet."""
        self._target = Target(endpoint)
        self._credentials = credentials
        self._closed = False
        self.reuse = Reuse(keepalive_timeout, pool_size)
        self._pools = PerLoop(
            lambda loop: Pool(loop, self._target, connect_timeout, pool_size, self.reuse)
        )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the endpoint."""
        return self._target.address

    async def send(self, request: Request, timeout: float) -> Response:
        """As `HttpTransport.send`."""
        deadline = time.monotonic() + timeout
        source = self._credentials
        credentials = await (
            source.refresh_async(timeout) if request.renew else source.current_async(timeout)
        )
        pool = self._pool()
        data = self._target.writer.write(request, credentials)
        if time.monotonic() >= deadline:
            raise self._target.too_late()
        try:
            if request.reconnect:
                pool.drop_connections()
            return await pool.exchange(data, deadline, reconnect=request.reconnect)
        except FAILURES as error:
            raise self._target.failure(error) from None

    async def warm(self, connections: int, timeout: float) -> int:
        """As `HttpTransport.warm`, for the running event loop."""
        deadline = time.monotonic() + timeout
        await self._credentials.current_async(timeout)
        pool = self._pool()
        try:
            return await pool.warm(connections, deadline)
        except FAILURES as error:
            raise self._target.failure(error) from None

    async def close(self) -> None:
        """Close the connections; requests under way fail."""
        self._closed = True
        while self._pools.made:
            await close_pool(*self._pools.made.popitem())

    def _pool(self) -> Pool:
        """The running loop's; raises `StoreClosed`."""
        if self._closed:
            raise store_closed()
        return self._pools.here()


async def close_pool(loop: asyncio.AbstractEventLoop, pool: Pool) -> None:
    """Close a pool on the event loop that it belongs to."""
    if loop is asyncio.get_running_loop():
        await pool.close()
    elif loop.is_running():
        closing = asyncio.run_coroutine_threadsafe(pool.close(), loop)
        await asyncio.wait((asyncio.wrap_future(closing),), timeout=CLOSE_SECONDS)
