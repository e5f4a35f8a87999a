"""`python -m benchmarks.races`: CPU of what may be hedged, and of hedges that were cancelled.

A small read is asked for as it is, and as a race whose second leg is not needed. Then both legs
are asked at once over TLS, and the loser's connection is kept until its answer has come, or
closed as it would be without that.
"""

from __future__ import annotations

import argparse
import asyncio
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any

import uvloop

from benchmarks.canned import answers
from benchmarks.clients.base import REGION
from benchmarks.inprocess import Call, Client, Contender, Sampled, a_core_for_servers, measure
from benchmarks.server import CannedServer
from benchmarks.transports import ONE, AsyncSource, Source, request_of, trusted_certificate
from chalk_online_store.drivers.aio import AsyncDriver
from chalk_online_store.drivers.credentials import Endpoint
from chalk_online_store.drivers.http import AsyncHttpTransport, HttpTransport
from chalk_online_store.drivers.http.blocking import Exchange
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.effects import Operation, Race, Send

REQUEST = request_of(ONE)
REGIONS = ("a", "b")


def attempt(to: str = "a") -> Operation[Any]:
    """One request."""
    return (yield Send(REQUEST, 5.0, to))


def alone() -> Operation[Any]:
    """A request as the leg of no race, but as many generators deep."""
    return (yield from attempt())


def unneeded() -> Operation[Any]:
    """A race that its first leg wins at once."""
    return (yield Race([attempt(), attempt("b")], 0.5))


def hedged() -> Operation[Any]:
    """Both legs at once: the sooner answer counts."""
    return (yield Race([attempt(), attempt("b")], 0.0))


class Running(Client):
    """Runs one operation again and again."""

    def __init__(self, name: str, operation: Callable[[], Operation[Any]]) -> None:
        self.name = name
        self._operation = operation

    @abstractmethod
    def repeat(self, call: Call, times: int) -> Any: ...


class Threads(Running):
    """One thread."""

    def __init__(self, name: str, operation: Callable[[], Operation[Any]], url: str) -> None:
        super().__init__(name, operation)
        source: Any = Source()
        transports = {to: HttpTransport(Endpoint(REGION, url), source) for to in REGIONS}
        self._driver = SyncDriver(transports)

    def repeat(self, call: Call, times: int) -> Any:
        run, operation = self._driver.run, self._operation
        for _ in range(times):
            run(operation())

    def close(self) -> None:
        self._driver.close()


class Closing(Threads):
    """The same, where a loser's connection is closed."""

    def repeat(self, call: Call, times: int) -> Any:
        park, Exchange.abort = Exchange.abort, lambda self: self.connection.close()  # type: ignore[method-assign]
        try:
            super().repeat(call, times)
        finally:
            Exchange.abort = park  # type: ignore[method-assign]


class Tasks(Running):
    """So many tasks on one event loop."""

    def __init__(
        self,
        name: str,
        operation: Callable[[], Operation[Any]],
        url: str,
        new_loop: Callable[[], asyncio.AbstractEventLoop],
        at_once: int,
    ) -> None:
        super().__init__(f"{name} x {at_once}", operation)
        self.at_once = at_once
        source: Any = AsyncSource()
        self._driver = AsyncDriver(
            {to: AsyncHttpTransport(Endpoint(REGION, url), source) for to in REGIONS}
        )
        self._loop = new_loop()

    def repeat(self, call: Call, times: int) -> Any:
        self._loop.run_until_complete(self._repeat(times // self.at_once))

    async def _repeat(self, share: int) -> None:
        await asyncio.gather(*(self._some(share) for _ in range(self.at_once)))

    async def _some(self, times: int) -> None:
        run, operation = self._driver.run, self._operation
        for _ in range(times):
            await run(operation())

    def close(self) -> None:
        self._loop.run_until_complete(self._driver.close())
        self._loop.close()


def unhedged_pairs(url: str) -> Iterator[Client]:
    """A request, and a race that is decided by its first leg."""
    yield Threads("Send", alone, url)
    yield Threads("Race", unneeded, url)
    for name, new_loop in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
        for at_once in (16, 1):
            yield Tasks(f"Send, {name}", alone, url, new_loop, at_once)
            yield Tasks(f"Race, {name}", unneeded, url, new_loop, at_once)


def hedged_pairs(url: str) -> Iterator[Client]:
    """Two requests at once, whose loser is read in passing, or closed."""
    yield Threads("Send", alone, url)
    yield Threads("hedged, parked", hedged, url)
    yield Closing("hedged, closed", hedged, url)
    yield Tasks("Send, asyncio", alone, url, asyncio.new_event_loop, 1)
    yield Tasks("hedged, asyncio, parked", hedged, url, asyncio.new_event_loop, 1)


def run(clients: Callable[[str], Iterator[Client]], rounds: int, *, tls: bool) -> Sequence[Sampled]:
    """Measure these clients."""
    with ExitStack() as stack:
        core = stack.enter_context(a_core_for_servers())
        certificate = stack.enter_context(trusted_certificate()) if tls else None
        server = stack.enter_context(CannedServer(answers(), core, certificate))
        taking_part = [stack.enter_context(closing(client)) for client in clients(server.url)]
        return measure([Contender(ONE, client) for client in taking_part], rounds, 0)


def main() -> None:
    """Print both tables."""
    import statistics

    parser = argparse.ArgumentParser(prog="python -m benchmarks.races", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    found = run(unhedged_pairs, options.rounds, tls=False)
    for (_, n1, one), (_, n2, two) in zip(found[::2], found[1::2]):
        print(
            n1,
            statistics.median(one),
            n2,
            statistics.median(b - a for a, b in zip(one, two)),
            statistics.median(b / a for a, b in zip(one, two)),
        )
    for _, n, us in run(hedged_pairs, options.rounds, tls=True):
        print(n, statistics.median(us))


if __name__ == "__main__":
    main()
