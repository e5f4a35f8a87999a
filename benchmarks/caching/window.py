"""How long a new entity may be taken for absent by another process, behind a Bloom filter.

One process writes new entities, another one reads each of them until it is there. The lag is from
the write's acknowledgement to the first read that began later and found it.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from chalk_online_store import (
    BloomFilter,
    Feature,
    Namespace,
    OnlineStore,
    OnlineStoreConfig,
)
from chalk_online_store.testing import Dynoxide, create_table

REFRESHES = (0.2, 1.0, 5.0)
ENTITIES = 200
"""How many are written, evenly over four refresh intervals."""


def run(refreshes: Sequence[float] = REFRESHES, entities: int = ENTITIES) -> list[dict[str, Any]]:
    """Lags in seconds for each refresh interval."""
    with Dynoxide() as engine:
        return [_lags(engine, refresh, entities) for refresh in refreshes]


def _lags(engine: Dynoxide, refresh: float, entities: int) -> dict[str, Any]:
    create_table(engine.endpoint_url, table := f"window-{uuid.uuid4().hex}")
    url = engine.url(table)
    user = schema(refresh)
    with OnlineStore.open(url, [user]) as store:  # So that both know the namespace.
        store.write(user, [{"id": -1, "a": 0}])
    ours, theirs = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    writer = context.Process(target=write, args=(url, refresh, entities, theirs))
    writer.start()
    theirs.close()
    lags = sorted(read(url, refresh, entities, ours))
    writer.join()
    return {
        "refresh": refresh,
        "entities": len(lags),
        "p50": statistics.median(lags),
        "p99": lags[int(len(lags) * 0.99)],
        "most": lags[-1],
    }


def schema(refresh: float) -> Namespace:
    """Users behind a filter that is refreshed so often."""
    config = OnlineStoreConfig(bloom_filter=BloomFilter(100_000, refresh=refresh))
    return Namespace("user", int, [Feature("a", int)], online_store_config=config)


def write(url: str, refresh: float, entities: int, acknowledged: Connection) -> None:
    """The writing process."""
    user = schema(refresh)
    with OnlineStore.open(url, [user]) as store:
        for key in range(entities):
            store.write(user, [{"id": key, "a": key}])
            acknowledged.send((key, time.monotonic()))
            time.sleep(4 * refresh / entities)


def read(url: str, refresh: float, entities: int, acknowledged: Connection) -> list[float]:
    """The reading process: each entity's lag in seconds."""
    user = schema(refresh)
    waiting: dict[int, float] = {}
    lags: list[float] = []
    with OnlineStore.open(url, [user]) as store:
        while len(lags) < entities:
            waiting.update(_heard(acknowledged))
            began = time.monotonic()
            for row in store.read(user, list(waiting)):
                if row["a"] is not None:
                    lags.append(max(0.0, began - waiting.pop(row.key)))
            time.sleep(0.002)
    return lags


def _heard(acknowledged: Connection) -> Iterator[tuple[int, float]]:
    """What was acknowledged since the last call."""
    with suppress(EOFError):  # The writer has ended.
        while acknowledged.poll():
            yield acknowledged.recv()
