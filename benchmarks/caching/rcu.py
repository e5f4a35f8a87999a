"""Read units that a cache and a Bloom filter save, as the engine counts them.

Reads by Zipf's law, a share of them of entities that do not exist, in batches. All stores are
open at once over one table and read each batch in turn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks.caching.stores import FALSE_POSITIVES, Served, fill, opened, schema
from benchmarks.inprocess import a_core_for_servers
from chalk_online_store import BloomFilter, LRUCache, Namespace, OnlineStore
from chalk_online_store.planning.traffic import zipf
from chalk_online_store.report import Report
from chalk_online_store.testing import Dynoxide

BATCH = 100
ABSENT_SHARE = 0.3
CACHED_SHARE = 0.1
"""What part of the entities a cache has room for."""

NEITHER = "neither"
LRU = "LRU cache"
LRU_OF_MISSES = "LRU cache, absent ones too"
BLOOM = "Bloom filter"
BOTH = "both"
_WITHOUT_FILTER = {BLOOM: NEITHER, BOTH: LRU}


@dataclass
class Reader:
    """One store and what its reads took."""

    namespace: Namespace
    store: OnlineStore
    report: Report = field(default_factory=Report)
    seconds: float = 0.0

    def read(self, keys: list[int]) -> None:
        started = time.process_time()
        rows = self.store.read(self.namespace, keys)
        self.seconds += time.process_time() - started
        self.report.add(rows.report)

    def refreshing(self) -> float:
        """The units that its filter took."""
        stats = self.store.stats().namespaces.get(self.namespace.name)
        return stats.bloom.rcu if stats and stats.bloom else 0.0


def run(entities: int = 20_000, batches: int = 1_000, seed: int = 0) -> list[dict[str, Any]]:
    """A line for each way to be served."""
    wanted = list(_batches(entities, batches, seed))
    bloom = BloomFilter(entities, FALSE_POSITIVES)
    with ExitStack() as stack:
        core = stack.enter_context(a_core_for_servers())
        engine = stack.enter_context(Dynoxide())
        if core is not None:
            os.sched_setaffinity(engine.pid, {core})
        fill(engine.endpoint_url, entities, bloom)
        readers = {
            name: _reader(engine.endpoint_url, served, stack)
            for name, served in _ways(entities, bloom).items()
        }
        absent = _reader(engine.endpoint_url, (None, None), stack)
        for keys in wanted:
            for reader in readers.values():
                reader.read(keys)
            absent.read([key for key in keys if key >= entities])
        return [_line(name, readers, absent.report.rcu, batches) for name in readers]


def _ways(entities: int, bloom: BloomFilter) -> dict[str, Served]:
    size = max(1, int(entities * CACHED_SHARE))
    lru = LRUCache(size, ttl="1h")
    of_misses = LRUCache(size, ttl="1h", store_cache_misses=True)
    return {
        NEITHER: (None, None),
        LRU: (lru, None),
        LRU_OF_MISSES: (of_misses, None),
        BLOOM: (None, bloom),
        BOTH: (lru, bloom),
    }


def _reader(url: str, served: Served, stack: ExitStack) -> Reader:
    namespace = schema(served)
    return Reader(namespace, stack.enter_context(opened(url, namespace)))


def _batches(entities: int, batches: int, seed: int) -> Iterator[list[int]]:
    """Keys; those from `entities` on do not exist."""
    reads = zipf(batches * BATCH, entities, absent_share=ABSENT_SHARE, seed=seed)
    for keys in reads.entities.reshape(batches, BATCH):
        yield keys.tolist()


def _line(name: str, readers: dict[str, Reader], absent: float, batches: int) -> dict[str, Any]:
    reader = readers[name]
    report, refreshing = reader.report, reader.refreshing()
    line = {
        "with": name,
        "rcu": report.rcu,
        "saved": 1 - (report.rcu + refreshing) / readers[NEITHER].report.rcu,
        "refreshing_rcu": refreshing,
        "cache_hits": report.cache_hits,
        "bloom_skips": report.bloom_skips,
        "false_positives": report.bloom_false_positives,
        "cpu_us": reader.seconds / (batches * BATCH) * 1e6,
    }
    if name in _WITHOUT_FILTER:
        without = readers[_WITHOUT_FILTER[name]].report.rcu
        line["absent_saved"] = (without - report.rcu) / absent
    return line
