"""`python -m benchmarks.routed`: what it costs a read to have a second region to go to.

The same reads from a store with one region, from one that may fail over to a second, and from one
that also hedges. All regions are one canned server, which answers at once: so hedges are as
frequent as their budget allows, which makes this the dear end.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any

import boto3

from benchmarks.canned import TABLE, USER, answers
from benchmarks.clients.base import ACCESS_KEY, SECRET_KEY
from benchmarks.inprocess import Call, Client, Contender, Sampled, a_core_for_servers, measure
from benchmarks.server import CannedServer
from benchmarks.table import as_table
from chalk_online_store import AsyncOnlineStore, Hedging, OnlineStore, Routing

READS = (Call("GetItem", 1), Call("BatchGetItem 100 x 20", 100))
WAYS: dict[str, tuple[int, Routing | None]] = {
    "one region": (1, None),
    "two, failing over": (2, Routing(hedging=None)),
    "two, hedging too": (2, Routing(hedging=Hedging())),
}
AT_ONCE = 16


def options(way: str, endpoint: str) -> dict[str, Any]:
    """How a store is opened in one of the ways, all regions at one endpoint."""
    regions, routing = WAYS[way]
    names = ("us-east-1", "us-west-2")[:regions]
    endpoints = ",".join([endpoint] * regions)
    return {
        "url": f"dynamodb:///{TABLE}?region={','.join(names)}&endpoint_url={endpoints}",
        "schema": [USER],
        "session": boto3.Session(ACCESS_KEY, SECRET_KEY),
        "routing": routing,
    }


class Threads(Client):
    """One thread."""

    def __init__(self, way: str, endpoint: str) -> None:
        self.name = f"{way}, thread"
        self._store = OnlineStore.open(**options(way, endpoint))

    def repeat(self, call: Call, times: int) -> Any:
        read, keys = self._store.read, list(range(call.entities))
        for _ in range(times):
            read(USER, keys)

    def close(self) -> None:
        self._store.close()


class Tasks(Client):
    """So many tasks on one event loop."""

    at_once = AT_ONCE

    def __init__(self, way: str, endpoint: str) -> None:
        self.name = f"{way}, {AT_ONCE} tasks"
        self._store = AsyncOnlineStore.open(**options(way, endpoint))
        self._loop = asyncio.new_event_loop()

    def repeat(self, call: Call, times: int) -> Any:
        self._loop.run_until_complete(self._repeat(call, times // AT_ONCE))

    async def _repeat(self, call: Call, share: int) -> None:
        await asyncio.gather(*(self._some(call, share) for _ in range(AT_ONCE)))

    async def _some(self, call: Call, times: int) -> None:
        read, keys = self._store.read, list(range(call.entities))
        for _ in range(times):
            await read(USER, keys)

    def close(self) -> None:
        self._loop.run_until_complete(self._store.close())
        self._loop.close()


def clients(endpoint: str) -> Iterator[Client]:
    """Every way, in threads and on asyncio."""
    for kind in (Threads, Tasks):
        for way in WAYS:
            yield kind(way, endpoint)


def as_text(sampled: Sequence[Sampled]) -> str:
    """Medians, and the median of what each takes more than one region does, in the same round."""
    times = {(line.call, line.client): line.microseconds for line in sampled}
    body = []
    for call, client, microseconds in sampled:
        single = times[call, f"one region,{client.rpartition(',')[2]}"]
        pairs = list(zip(microseconds, single, strict=True))
        more = statistics.median(one - other for one, other in pairs)
        ratio = statistics.median(one / other for one, other in pairs)
        median = statistics.median(microseconds)
        body.append([call, client, f"{median:,.0f}", f"{more:+.0f}", f"{ratio:.2f}"])
    return as_table(["read", "regions", "CPU us", "more", "x"], body, texts=2)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="samples of each (default: 15)")
    rounds = parser.parse_args().rounds
    with ExitStack() as stack:
        core = stack.enter_context(a_core_for_servers())
        server = stack.enter_context(CannedServer(answers(), core))
        taking_part = [stack.enter_context(closing(each)) for each in clients(server.url)]
        contenders = [Contender(call, client) for call in READS for client in taking_part]
        print(as_text(measure(contenders, rounds, seed=0)))


if __name__ == "__main__":
    main()
