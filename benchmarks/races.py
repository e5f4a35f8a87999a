"""`python -m benchmarks.races`: CPU of what may be hedged, and of hedges that were cancelled.

A small read is asked for as it is, and as a race whose second leg is not needed. Then both legs
are asked at once over TLS, and the loser's connection is kept until its answer has come, or
closed as it would be without that.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any
from unittest import mock

import uvloop

from benchmarks.canned import answers
from benchmarks.clients.base import REGION
from benchmarks.inprocess import Call, Client, Contender, Sampled, a_core_for_servers, measure
from benchmarks.server import CannedServer
from benchmarks.table import as_table
from benchmarks.transports import ONE, AsyncSource, Source, request_of, trusted_certificate
from chalk_online_store.drivers.aio import AsyncDriver
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.dynamodb.credentials import Endpoint
from chalk_online_store.dynamodb.http import AsyncHttpTransport, HttpTransport
from chalk_online_store.dynamodb.http.pool import Pool
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


class Closing(Client):
    """A client whose losers' connections are closed instead."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.name = f"{client.name}, closed"
        self.at_once = client.at_once

    def repeat(self, call: Call, times: int) -> Any:
        with (
            mock.patch.object(HttpTransport, "park", lambda _, connection: connection.close()),
            mock.patch.object(Pool, "_park", lambda _, connection: connection.abort()),
        ):
            self._client.repeat(call, times)

    def close(self) -> None:
        self._client.close()


def on_asyncio(
    operation: Callable[[], Operation[Any]], url: str, at_once: int, name: str = "asyncio"
) -> Client:
    """Tasks on one of the event loops."""
    new_loop = uvloop.new_event_loop if name == "uvloop" else asyncio.new_event_loop
    return Tasks(f"{operation.__name__}, {name}", operation, url, new_loop, at_once)


def needless(url: str) -> Iterator[Client]:
    """A request, and a race that its first leg decides."""
    for operation in (alone, unneeded):
        yield Threads(operation.__name__, operation, url)
        for name in ("asyncio", "uvloop"):
            for at_once in (16, 1):
                yield on_asyncio(operation, url, at_once, name)


def cancelled(url: str) -> Iterator[Client]:
    """Two requests at once, whose loser is read in passing, or closed."""
    yield Threads("alone", alone, url)
    yield Threads("hedged", hedged, url)
    yield Closing(Threads("hedged", hedged, url))
    yield on_asyncio(alone, url, 1)
    yield on_asyncio(hedged, url, 1)
    yield Closing(on_asyncio(hedged, url, 1))


def run(clients: Callable[[str], Iterator[Client]], rounds: int, *, tls: bool) -> list[Sampled]:
    """Measure these clients."""
    with ExitStack() as stack:
        core = stack.enter_context(a_core_for_servers())
        certificate = stack.enter_context(trusted_certificate()) if tls else None
        server = stack.enter_context(CannedServer(answers(), core, certificate))
        taking_part = [stack.enter_context(closing(client)) for client in clients(server.url)]
        return measure([Contender(ONE, client) for client in taking_part], rounds, seed=0)


def as_text(sampled: Sequence[Sampled]) -> str:
    """Medians, and the median of what each takes more than the same without a race."""
    times = {line.client: line.microseconds for line in sampled}
    body = []
    for _, client, microseconds in sampled:
        single = times[re.sub("^(unneeded|hedged)|, closed", _as_alone, client)]
        pairs = list(zip(microseconds, single, strict=True))
        more = statistics.median(one - other for one, other in pairs)
        ratio = statistics.median(one / other for one, other in pairs)
        median = statistics.median(microseconds)
        body.append([client, f"{median:,.1f}", f"{more:+.1f}", f"{ratio:.2f}"])
    return as_table(["read", "CPU us", "more", "x"], body, texts=1)


def _as_alone(found: re.Match[str]) -> str:
    return "alone" if found[1] else ""


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.races", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="samples of each (default: 21)")
    options = parser.parse_args()
    print(f"plain HTTP\n\n{as_text(run(needless, options.rounds, tls=False))}\n")
    print(f"TLS\n\n{as_text(run(cancelled, options.rounds, tls=True))}")


if __name__ == "__main__":
    main()
