"""The reading parts of the demo: from threads, on asyncio, through the cache."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from chalk_online_store.async_store import AsyncOnlineStore
from chalk_online_store.cli.demo.account import Phase
from chalk_online_store.cli.demo.features import Aircraft
from chalk_online_store.cli.demo.stage import Keys, Stage
from chalk_online_store.operations.rows import Rows
from chalk_online_store.schema import LRUCache
from chalk_online_store.store import OnlineStore

_AT_ONCE = 100
_ROUNDS = 3
READERS = 16
"""Async reads under way at once."""

_HOT_READS = 200


def read_all(stage: Stage, store: OnlineStore) -> None:
    """Read every entity, some rounds, one call after the other."""
    phase, calls = stage.phase(f"read {_AT_ONCE}", stage.batches(_AT_ONCE) * _ROUNDS)
    for schema, keys in calls:
        stage.check(schema, _read(phase, store, schema, keys))


def read_concurrently(stage: Stage) -> None:
    """Read every entity, some rounds, many calls at once; check when all are there."""
    batches = stage.batches(_AT_ONCE) * _ROUNDS
    phase, calls = stage.phase(f"read {_AT_ONCE}, async", batches)
    for schema, rows in asyncio.run(_gather(stage, phase, calls)):
        stage.check(schema, rows)


def read_hot(stage: Stage) -> None:
    """Read the busiest aircraft again and again, through the cache."""
    busiest = sorted(stage.workloads[0].loaded, key=lambda row: int(row["flights"]))
    keys = [row["tailnum"] for row in busiest[-_AT_ONCE:]]
    phase, calls = stage.phase(f"read {_AT_ONCE}, cached", [keys] * _HOT_READS)
    with stage.open(LRUCache(max_size=_AT_ONCE)) as store:
        for hot in calls:
            stage.check(Aircraft, _read(phase, store, Aircraft, hot))
    stage.account.hot_items = len(keys) * _HOT_READS
    stage.account.cache_hits = phase.report.cache_hits


def _read(phase: Phase, store: OnlineStore, schema: type, keys: list[Any]) -> Rows:
    """One timed call: the time includes taking out every value."""
    with phase.call(len(keys)):
        rows: Rows = store.read(schema, keys)
        rows.to_dict()
    phase.report.add(rows.report)
    return rows


async def _gather(stage: Stage, phase: Phase, calls: Iterable[Keys]) -> list[tuple[type, Rows]]:
    found: list[tuple[type, Rows]] = []
    waiting = iter(calls)  # Shared: each reader takes the next call when it has done one.
    start = time.perf_counter()
    try:
        async with stage.open_async() as store, asyncio.TaskGroup() as readers:
            for _ in range(READERS):
                readers.create_task(_work(phase, store, waiting, found))
    except ExceptionGroup as failures:  # The first says it all.
        raise failures.exceptions[0] from None
    phase.elapsed = time.perf_counter() - start
    return found


async def _work(
    phase: Phase,
    store: AsyncOnlineStore,
    calls: Iterable[Keys],
    found: list[tuple[type, Rows]],
) -> None:
    for schema, keys in calls:
        with phase.call(len(keys)):
            rows: Rows = await store.read(schema, keys)
            rows.to_dict()
        phase.report.add(rows.report)
        found.append((schema, rows))
