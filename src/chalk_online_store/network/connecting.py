"""A connected socket for an event loop: the first address of a name that accepts.

asyncio's own race of addresses loses the socket of the winner when it is cancelled at that
moment, as timeouts and closing stores do.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from functools import partial

from chalk_online_store.network.resolver import RESOLVER, Address, Resolution, stagger_for
from chalk_online_store.network.tunnel import READ_SIZE, Tunnel


async def connected(
    loop: asyncio.AbstractEventLoop, host: str, port: int, deadline: float
) -> socket.socket:
    """Connect; raises `OSError`, or `UnicodeError` for what can be no host's name.

    The caller ends it at `deadline`, which is used here only to divide the time among addresses.
    """
    addresses = await _resolve(loop, host, port)
    if len(addresses) == 1:
        return await _connect(loop, addresses[0])
    stagger = stagger_for(len(addresses), deadline - time.monotonic())
    return await _Addresses(loop, addresses, stagger).first()


async def pass_through(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, tunnel: Tunnel
) -> None:
    """Have a proxy connect the socket to the endpoint. Raises `OSError` or `BrokenAnswer`."""
    await loop.sock_sendall(sock, tunnel.request)
    while not tunnel.feed(await loop.sock_recv(sock, READ_SIZE)):
        pass


async def _resolve(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[Address]:
    """Wait for the addresses without the loop's executor, which others may have filled."""
    found = RESOLVER.resolve(host, port)
    if isinstance(found, Resolution):
        return await _addresses_of(loop, found)
    return found


async def _addresses_of(loop: asyncio.AbstractEventLoop, resolution: Resolution) -> list[Address]:
    ended = asyncio.Event()
    wake = partial(loop.call_soon_threadsafe, ended.set)
    try:
        resolution.watch(wake)
        while (addresses := resolution.addresses()) is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(resolution.wake_at - time.monotonic()):
                    await ended.wait()
        return addresses
    finally:
        resolution.unwatch(wake)


async def _connect(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    family, kind, protocol, _, target = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, target)
    except BaseException:
        sock.close()
        raise
    return sock


class _Addresses:
    """Attempts at several addresses, each begun when the one before has failed or is slow."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, addresses: list[Address], stagger: float
    ) -> None:
        self._loop = loop
        self._stagger = stagger
        self._untried = addresses[::-1]
        self._attempts: set[asyncio.Task[socket.socket]] = set()

    async def first(self) -> socket.socket:
        """The socket of the first that accepts; raises what the last one failed with."""
        try:
            while True:
                failure = None
                for done in await self._next():
                    self._attempts.discard(done)
                    failure = done.exception()
                    if failure is None:
                        return done.result()
                if failure is not None and not self._attempts and not self._untried:
                    raise failure
        finally:
            await self._give_up()

    async def _next(self) -> set[asyncio.Task[socket.socket]]:
        if self._untried:
            attempt = _connect(self._loop, self._untried.pop())
            self._attempts.add(self._loop.create_task(attempt))
        done, _ = await asyncio.wait(
            self._attempts,
            timeout=self._stagger if self._untried else None,
            return_when=asyncio.FIRST_COMPLETED,
        )
        return done

    async def _give_up(self) -> None:
        for attempt in self._attempts:
            attempt.cancel()
            attempt.add_done_callback(_close)
        if self._attempts:
            await asyncio.wait(self._attempts)


def _close(attempt: asyncio.Task[socket.socket]) -> None:
    """It may have connected all the same."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
