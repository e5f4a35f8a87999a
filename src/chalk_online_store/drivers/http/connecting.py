"""A connected socket for an event loop: the first address of a name that accepts.

asyncio's own race of addresses loses the socket of the winner when it is cancelled at that
moment, as timeouts and closing stores do.
"""

from __future__ import annotations

import asyncio
import socket
from itertools import chain, zip_longest
from typing import Any

NEXT_ADDRESS_SECONDS = 0.25
"""After how long another address of the name is tried beside the first: RFC 8305's advice."""

Address = tuple[int, int, int, str, Any]
"""As `socket.getaddrinfo` gives them."""


async def connected(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """Connect; raises `OSError`, or `UnicodeError` for what can be no host's name."""
    addresses = await _resolve(loop, host, port)
    if len(addresses) == 1:
        return await _connect(loop, addresses[0])
    return await _Addresses(loop, addresses).first()


async def _resolve(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[Address]:
    """The addresses, IPv6 and IPv4 by turns."""
    try:  # It costs a thread only where it is not an address already.
        found: Any = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except socket.gaierror:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families = dict.fromkeys(address[0] for address in found)
    by_family = ([each for each in found if each[0] == family] for family in families)
    return [each for each in chain(*zip_longest(*by_family)) if each is not None]


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

    def __init__(self, loop: asyncio.AbstractEventLoop, addresses: list[Address]) -> None:
        self._loop = loop
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
            timeout=NEXT_ADDRESS_SECONDS if self._untried else None,
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
