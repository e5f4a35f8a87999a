"""Takes orders from the tests: a line of JSON each, on stdin, and one in answer on stdout."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from .active import Injection
from .faults import load
from .proxy import Proxy
from .replication import Replicator
from .streams import StreamProxy

_KINDS: dict[str, type[Proxy] | type[StreamProxy]] = {"http": Proxy, "stream": StreamProxy}


class World:
    """Everything there is in this process. The methods named `do_…` are the orders."""

    def __init__(self) -> None:
        self._proxies: dict[int, Proxy | StreamProxy] = {}
        self._replicator: Replicator | None = None

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out an order; an error is an answer too."""
        do: Callable[..., Coroutine[Any, Any, Any]] = getattr(self, f"do_{order.pop('do')}")
        try:
            return {"result": await do(**order)}
        except Exception as error:  # noqa: BLE001 - whoever gave the order is to hear of it
            return {"error": f"{type(error).__name__}: {error}"}

    async def do_start(self, kind: str, host: str, target: int, port: int, seed: int | None) -> int:
        """Start a proxy; its port is its name from then on."""
        proxy = _KINDS[kind]((host, target), port, seed)
        await proxy.listen()
        self._proxies[proxy.port] = proxy
        return proxy.port

    async def do_stop(self, proxy: int) -> None:
        """Stop a proxy."""
        self._proxies.pop(proxy).close()

    async def do_inject(
        self, proxy: int, fault: dict[str, Any], share: float, operations: list[str] | None
    ) -> int:
        """Put a fault in force."""
        names = None if operations is None else frozenset(operations)
        return await self._proxies[proxy].inject(Injection(load(fault), share, names))

    async def do_remove(self, proxy: int, injection: int) -> None:
        """End a fault."""
        await self._proxies[proxy].remove(injection)

    async def do_clear(self, proxy: int) -> None:
        """End all faults of a proxy."""
        await self._proxies[proxy].clear()

    async def do_stats(self, proxy: int) -> dict[str, Any]:
        """What a proxy has seen."""
        return self._proxies[proxy].stats()

    async def do_replicate(
        self, table: str, engines: dict[str, int], proxies: dict[str, int], lag: float
    ) -> None:
        """Begin to replicate a table between engines, by the ports of each region."""
        replicator = self._replicator = Replicator(table, engines, lag)
        for name, port in proxies.items():
            proxy = self._proxies[port]
            assert isinstance(proxy, Proxy)
            proxy.watcher = replicator.watcher(name)
        replicator.start()

    async def do_lag(self, seconds: float, links: list[tuple[str, str]]) -> None:
        """Set the lag of some links."""
        self._replication.links.lag.update(dict.fromkeys(((a, b) for a, b in links), seconds))

    async def do_cut(self, links: list[tuple[str, str]]) -> None:
        """Cut these links and no others; those that were cut before catch up."""
        self._replication.cut({(a, b) for a, b in links})

    async def do_pending(self) -> dict[str, int | None]:
        """What each region lacks, after a fresh look at all of them."""
        return await self._replication.pending()

    @property
    def _replication(self) -> Replicator:
        if self._replicator is None:
            raise LookupError("nothing is replicated")
        return self._replicator


async def _take_orders() -> None:
    world = World()
    orders = asyncio.StreamReader(limit=2**24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print(json.dumps({"pid": os.getpid()}), flush=True)
    while line := await orders.readline():
        print(json.dumps(await world.obey(json.loads(line))), flush=True)


def main() -> None:
    """Obey until stdin ends, which it also does when whoever started this process dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests; they end this.
    asyncio.run(_take_orders())
