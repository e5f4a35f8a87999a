"""CPU of each way that a read can go, and of the bare checks, for 100 keys and for one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

from benchmarks.caching.stores import FALSE_POSITIVES, Served, fill, opened, schema
from benchmarks.caching.turns import Turns, Way, take_turns
from benchmarks.canned import DATA, ROWS
from benchmarks.clients.with_boto3 import Boto3Resource
from benchmarks.inprocess import a_core_for_servers
from benchmarks.server import CannedServer
from chalk_online_store import BloomFilter, LRUCache, OnlineStore
from chalk_online_store.testing import Dynoxide
from chalk_online_store.tiers.filter.bloom import KeyFilter, hash_keys
from chalk_online_store.tiers.lru import InFlightRead, ItemCache

SIZES = (100, 1)
ABSENT = 30
"""Of the keys of a mixed read."""
ENTITIES = 1_000
CACHED = 10_000
_CACHE = LRUCache(CACHED, ttl="1h", store_cache_misses=True)
_FILTER = BloomFilter(ENTITIES, FALSE_POSITIVES, refresh="1h")


class Path(NamedTuple):
    """One way that a read of `keys` keys goes."""

    title: str
    keys: int
    way: Way


def run(rounds: int = 15, seed: int = 0, keys: int = 1_000_000) -> list[dict[str, Any]]:
    """A line for each path, with the CPU microseconds of one key by the size of the read."""
    with ExitStack() as stack:
        core = stack.enter_context(a_core_for_servers())
        engine = stack.enter_context(Dynoxide())
        if core is not None:
            os.sched_setaffinity(engine.pid, {core})
        canned = stack.enter_context(CannedServer(core=core))
        fill(engine.endpoint_url, ENTITIES, _FILTER)
        paths = [
            *_bare(keys),
            *_reads(engine.endpoint_url, stack),
            *_reference(canned.url, stack),
        ]
        ways = {f"{path.title}, {path.keys}": (path.way, path.keys) for path in paths}
        turns = take_turns(ways, rounds, seed)
    return [_line(title, turns) for title in dict.fromkeys(path.title for path in paths)]


def _line(title: str, turns: dict[str, Turns]) -> dict[str, Any]:
    named = {str(size): f"{title}, {size}" for size in SIZES}
    medians = {size: turns[name].median for size, name in named.items() if name in turns}
    return {"path": title, "cpu_us": medians}


def _bare(keys: int) -> Iterator[Path]:
    """The filter and the cache by themselves."""
    known = KeyFilter.sized(keys, FALSE_POSITIVES)
    known.add(hash_keys([f"a:{number}" for number in range(keys)]))
    asked = [f"a:{number * keys // 50}" for number in range(100)]  # Every other one is absent.
    cache, shape = ItemCache(LRUCache(CACHED, ttl="1h")), object()
    held = [f"a:{number}" for number in range(CACHED)]
    _keep(cache, held, shape)
    some = held[:: CACHED // 100]
    for size in SIZES:
        yield Path(
            f"`KeyFilter.might_contain`, {keys:,} keys",
            size,
            lambda few=asked[-size:]: known.might_contain(few),  # type: ignore[misc]
        )
        yield Path(
            f"`ItemCache.look`, {CACHED:,} items, all hits",
            size,
            lambda few=some[-size:]: cache.look(few, "s", shape, time.monotonic(), InFlightRead()),  # type: ignore[misc]
        )


def _keep(cache: ItemCache, pks: list[str], shape: Any) -> None:
    trip, now = InFlightRead(), time.monotonic()
    cache.look(pks, "s", shape, now, trip)
    cache.land(trip, [(pk, "s") for pk in pks], [(pk,) for pk in pks], now)


def _reads(url: str, stack: ExitStack) -> Iterator[Path]:
    """Whole reads, of entities that are there and of others."""

    def store(*served: Any) -> tuple[OnlineStore, Any]:
        pair: Served = served
        namespace = schema(pair)
        return stack.enter_context(opened(url, namespace)), namespace

    cached, with_cache = store(_CACHE, None)
    filtered, with_filter = store(None, _FILTER)
    plain, without = store(None, None)
    crowded, with_none = store(LRUCache(1, ttl="1h"), None)
    here, absent = [row["id"] for row in ROWS], _surely_absent(filtered, with_filter)
    for size in SIZES:
        some, none = here[:size], absent[:size]
        yield from (
            Path(title, size, way)
            for title, way in {
                "cache hit, rows only": lambda k=some: cached.read(with_cache, k),
                "cache hit, all 20 columns": lambda k=some: cached.read(with_cache, k).to_dict(),
                "negative cache hit": lambda k=none: cached.read(with_cache, k),
                "Bloom skip": lambda k=none: filtered.read(with_filter, k),
                "past the Bloom filter, rows only": lambda k=some: filtered.read(with_filter, k),
                "from the table, absent": lambda k=none: plain.read(without, k),
                "from the table, rows only": lambda k=some: plain.read(without, k),
                "from the table, all 20 columns": lambda k=some: plain.read(without, k).to_dict(),
            }.items()
        )

    yield Path("cache miss, rows only", len(here), lambda: crowded.read(with_none, here))
    mixed = here[: max(SIZES) - ABSENT] + absent[:ABSENT]
    yield Path(
        f"past the Bloom filter, {ABSENT} of 100 absent",
        len(mixed),
        lambda: filtered.read(with_filter, mixed),
    )
    yield Path(
        f"from the table, {ABSENT} of 100 absent", len(mixed), lambda: plain.read(without, mixed)
    )


def _surely_absent(store: OnlineStore, namespace: Any) -> list[int]:
    """100 keys that the filter knows are not there."""
    found: list[int] = []
    key = ENTITIES
    while len(found) < max(SIZES):
        found += [key] * store.read(namespace, [key]).report.bloom_skips
        key += 1
    return found


def _reference(url: str, stack: ExitStack) -> Iterator[Path]:
    """What most Python code does: finished dictionaries of a resource's items, kept for a time."""
    client = stack.enter_context(closing(Boto3Resource(url, "reference")))
    client.writer(DATA, ROWS)()
    for size in SIZES:
        read = client.cached_reader(DATA, [row["id"] for row in ROWS[:size]])
        yield Path("boto3 resource and `cachetools.TTLCache`, hit", size, read)
