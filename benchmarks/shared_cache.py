"""What a cache that processes share costs and saves: reads that hit and miss, and writes.

`python -m benchmarks.shared_cache` reads 100 entities of 20 features of a table on dynoxide, with
and without a cache on Valkey before it, in interleaved rounds. It prints the client's CPU, in
microseconds for all 100, and Valkey's. Read the ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import redis

from benchmarks.entities import OBSERVED, entities, namespace
from chalk_online_store import OnlineStore
from chalk_online_store.testing import Dynoxide, Valkey, create_table

FEATURES = 20
ROUNDS, CALLS = 15, 20
TABLE = "shared-cache"


class Bench:
    """A table and a cache, on engines of their own."""

    def __init__(self, opened: ExitStack) -> None:
        engine, valkey = opened.enter_context(Dynoxide()), opened.enter_context(Valkey())
        create_table(engine.endpoint_url, TABLE, region="us-east-1")
        url = f"dynamodb:///{TABLE}?region=us-east-1&endpoint_url={engine.endpoint_url}"
        cached = f"{url}&shared_cache_timeout=5&shared_cache={valkey.url()}"
        self.schema = namespace(FEATURES)
        self.rows = entities(FEATURES)
        self.keys = [row[self.schema.key_name] for row in self.rows]
        self.part = next(iter(self.schema.by_name))
        self.client = redis.Redis(port=valkey.port or 0)
        self.plain = opened.enter_context(OnlineStore.open(url, [self.schema]))
        self.cached = opened.enter_context(OnlineStore.open(cached, [self.schema]))
        self.plain.write(self.schema, self.rows, observed_at=OBSERVED)

    def mend(self) -> None:
        """Have every item of one observed-at again, and the cache full."""
        self.write(self.cached)
        self.read(self.cached)

    def read(self, store: OnlineStore) -> None:
        store.read(self.schema, self.keys)

    def miss(self) -> None:
        self.client.flushdb()
        self.read(self.cached)

    def write(self, store: OnlineStore) -> None:
        store.write(self.schema, self.rows)

    def write_parts(self, store: OnlineStore) -> None:
        key = self.schema.key_name
        store.write(self.schema, [{key: row[key], self.part: row[self.part]} for row in self.rows])

    def cpu_of_valkey(self) -> float:
        found = self.client.info("cpu")
        assert isinstance(found, dict)
        return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])

    def time(self, act: Callable[[], None]) -> tuple[float, float]:
        """CPU of the client and of Valkey, in microseconds a call."""
        server, client = self.cpu_of_valkey(), time.process_time()
        for _ in range(CALLS):
            act()
        client = time.process_time() - client
        return 1e6 * client / CALLS, 1e6 * (self.cpu_of_valkey() - server) / CALLS


def main() -> None:
    """Measure, and print a table."""
    with ExitStack() as opened:
        bench = Bench(opened)
        acts: dict[str, Callable[[], None]] = {
            "read, from the table alone": partial(bench.read, bench.plain),
            "read, all in the cache": partial(bench.read, bench.cached),
            "read, nothing in the cache": bench.miss,
            "read, a feature written apart, from the table alone": partial(bench.read, bench.plain),
            "read, a feature written apart, all in the cache": partial(bench.read, bench.cached),
            "write, the table alone": partial(bench.write, bench.plain),
            "write, the cache is told": partial(bench.write, bench.cached),
            "write a feature, the table alone": partial(bench.write_parts, bench.plain),
            "write a feature, the cache is told": partial(bench.write_parts, bench.cached),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in acts}
        bench.read(bench.cached)
        for _ in range(ROUNDS):
            for name, act in acts.items():
                bench.mend()
                if "apart" in name:
                    bench.write_parts(bench.cached)
                found[name].append(bench.time(act))
        print("| 100 entities of 20 features | client | Valkey |\n|---|--:|--:|")
        for name, rounds in found.items():
            client, server = (statistics.median(column) for column in zip(*rounds, strict=True))
            print(f"| {name} | {client:,.0f} | {server:,.0f} |")


if __name__ == "__main__":
    main()
