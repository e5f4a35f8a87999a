"""How many read units remain behind a cache and a Bloom filter: a simulation.

A read asks the LRU cache, then the Bloom filter, then the table, as the store does. A hit makes
an item the most recent, not younger. An item expires `ttl` after it was filled, and keeps its
place until it is filled again or pushed out. That an entity is absent is kept only with
`store_cache_misses`, and never where the filter knew it.

Simulated are reads of one entity each, without writes between them, and a filter that has every
entity. A table answers item by item, as BatchGetItem does: where the store reads all groups of
an entity by one Query, it takes fewer units.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from chalk_online_store.planning.traffic import Flags, Numbers, Workload, refuse
from chalk_online_store.planning.units import read_units
from chalk_online_store.tiers.filter.bloom import BLOCK_BYTES, false_positive_rate, sizes_for

ENTRY_BYTES = 300
"""Memory of a cached absence: key, expiry and place in the order. Measured; an estimate."""

ROW_BYTES = 600
"""Memory of a cached item beside its content. Measured; an estimate."""

CONTENT_FACTOR = 3
"""Memory of an item's values for each byte stored. An estimate: 1 for a long string, 7 for small
numbers. `store.stats()` tells what items really take."""

LADDER = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""The cache sizes of a curve, as shares of all items."""


@dataclass(frozen=True, slots=True)
class Item:
    """What one entity's items take.

    `item_bytes` are the stored bytes of an item, `groups` the items of an entity that a read
    asks for. `cached_bytes` is the memory of one cached item; unless stated, the estimate
    `ROW_BYTES + CONTENT_FACTOR * item_bytes`. A `consistent` read takes twice the units, and
    goes past cache and filter.
    """

    item_bytes: int
    groups: int = 1
    cached_bytes: int | None = None
    consistent: bool = False

    def __post_init__(self) -> None:
        cached = self.cached_bytes
        refuse(
            [
                ("item_bytes", self.item_bytes, self.item_bytes >= 1, "1 or more"),
                ("groups", self.groups, self.groups >= 1, "1 or more"),
                ("cached_bytes", cached, cached is None or cached >= 1, "1 or more"),
            ]
        )

    @property
    def memory(self) -> int:
        """Bytes of memory that a cached item takes."""
        if self.cached_bytes is not None:
            return self.cached_bytes
        return ROW_BYTES + CONTENT_FACTOR * self.item_bytes

    def units(self, found: int, absent: int) -> float:
        """RCU of reading so many items that are there, and so many that are not."""
        strong = self.consistent
        there, nothing = (read_units(n, consistent=strong) for n in (self.item_bytes, 0))
        return found * there + absent * nothing


@dataclass(frozen=True, slots=True)
class Cache:
    """An LRU cache of at most `max_size` items, and at most `max_bytes` of memory if stated.

    An item is served for less than `ttl` seconds. With `store_cache_misses`, absence is kept as
    well. An item larger than `max_bytes` is not kept.
    """

    max_size: int
    max_bytes: int | None = None
    ttl: float = math.inf
    store_cache_misses: bool = False

    def __post_init__(self) -> None:
        limit = self.max_bytes
        refuse(
            [
                ("max_size", self.max_size, self.max_size >= 1, "1 or more"),
                ("max_bytes", limit, limit is None or limit >= 1, "1 or more"),
                ("ttl", self.ttl, self.ttl >= 0, "0 seconds or more"),
            ]
        )


@dataclass(frozen=True, slots=True)
class Filter:
    """A Bloom filter made for `expected_entities`.

    Whether it takes an absent entity for a present one is drawn once for each, by `seed`.
    """

    expected_entities: int
    target_false_positive_rate: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        expected, rate = self.expected_entities, self.target_false_positive_rate
        refuse(
            [
                ("expected_entities", expected, expected >= 1, "1 or more"),
                ("target_false_positive_rate", rate, 0 < rate < 1, "above 0 and below 1"),
            ]
        )

    def rate(self, entities: int) -> float:
        """The false-positive rate of a filter that has so many entities."""
        loads = [keys / blocks for blocks, keys in self._layers(entities) if keys]
        return 1 - math.prod(1 - false_positive_rate(load) for load in loads)

    def memory(self, entities: int) -> int:
        """Bytes of memory of a filter that has so many entities."""
        return sum(blocks for blocks, _ in self._layers(entities)) * BLOCK_BYTES

    def _layers(self, entities: int) -> Iterator[tuple[int, int]]:
        """Blocks and keys of each layer: when one is full, a larger one is begun."""
        *sizes, largest = sizes_for(self.expected_entities, self.target_false_positive_rate)
        for size in sizes:
            keys = min(size.capacity, entities)
            yield size.blocks, keys
            entities -= keys
            if not entities:
                return
        yield largest.blocks, entities


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a workload came to. But for `reads`, items are counted: one entity, one group.

    Each item asked for is a hit, a Bloom skip or read from the table.

    - `reads`: reads of an entity.
    - `hits`: served by the cache, `negative_hits` included: those were known to be absent.
    - `bloom_skips`: absent, and not read since the filter knew.
    - `items_read`: asked of the table, `false_positives` included: those the filter took for
      present.
    - `rcu`: read units consumed; `rcu_without`: with neither cache nor filter.
    - `max_size`: the most items that the cache may have, 0 without one; `entries`: the most that
      it had.
    - `cache_bytes`, `filter_bytes`: memory of the cache at its fullest, and of the filter.
    """

    reads: int
    hits: int
    negative_hits: int
    bloom_skips: int
    items_read: int
    false_positives: int
    rcu: float
    rcu_without: float
    max_size: int
    entries: int
    cache_bytes: int
    filter_bytes: int

    @property
    def saved(self) -> float:
        """The share of the read units that is saved, 0 to 1."""
        return 1 - self.rcu / self.rcu_without

    @property
    def memory(self) -> int:
        """Bytes of memory of cache and filter together."""
        return self.cache_bytes + self.filter_bytes

    def dollars_per_million(self, price: float) -> float:
        """Dollars of a million reads of an entity, at a price of a million read units."""
        return self.rcu / self.reads * price


def simulate(
    workload: Workload, item: Item, cache: Cache | None = None, bloom: Filter | None = None
) -> Outcome:
    """What the reads of a workload come to behind a cache, a filter, both or neither."""
    return _outcome(workload, item, cache, bloom, _skips(workload, item, bloom))


def memory_curve(
    workload: Workload,
    item: Item,
    sizes: Sequence[int] | None = None,
    ttl: float = math.inf,
    store_cache_misses: bool = False,
    bloom: Filter | None = None,
) -> list[Outcome]:
    """The outcome for each size of the cache, in items: what memory buys.

    Unless stated, sizes go from a thousandth of all items there are to all of them. `ttl` is in
    seconds.
    """
    skips = _skips(workload, item, bloom)
    caches = [
        Cache(size, ttl=ttl, store_cache_misses=store_cache_misses)
        for size in sizes or ladder(workload, item)
    ]
    return [_outcome(workload, item, cache, bloom, skips) for cache in caches]


def ladder(workload: Workload, item: Item) -> list[int]:
    """Sizes of a cache, in items: from a thousandth of all there are to all of them."""
    every = max(1, workload.existing * item.groups)
    return sorted({math.ceil(every * share) for share in LADDER})


def _skips(workload: Workload, item: Item, bloom: Filter | None) -> Flags:
    """Of which reads the filter says that the entity is absent."""
    skips = ~workload.present
    if bloom is None or item.consistent:
        return np.zeros_like(skips)
    absent, places = np.unique(workload.entities[skips], return_inverse=True)
    draws = np.random.default_rng(bloom.seed).random(len(absent))
    skips[skips] = (draws >= bloom.rate(workload.existing))[places]
    return skips


def _outcome(
    workload: Workload, item: Item, cache: Cache | None, bloom: Filter | None, skips: Flags
) -> Outcome:
    entries = _replay(workload, item, cache, skips) if cache else _Entries(Cache(1), item)
    there = int(workload.present.sum()) * item.groups
    absent = workload.reads * item.groups - there
    skipped = int(skips.sum()) * item.groups
    found = there - (entries.hits - entries.negative_hits)
    in_vain = absent - skipped - entries.negative_hits
    return Outcome(
        reads=workload.reads,
        hits=entries.hits,
        negative_hits=entries.negative_hits,
        bloom_skips=skipped,
        items_read=found + in_vain,
        false_positives=in_vain if bloom and not item.consistent else 0,
        rcu=item.units(found, in_vain),
        rcu_without=item.units(there, absent),
        max_size=cache.max_size if cache else 0,
        entries=entries.most,
        cache_bytes=entries.most_bytes,
        filter_bytes=bloom.memory(workload.existing) if bloom else 0,
    )


def _replay(workload: Workload, item: Item, cache: Cache, skips: Flags) -> _Entries:
    """Let the cache see the reads whose items it may keep: of others it never knows anything."""
    kept = workload.present | (~skips & cache.store_cache_misses)
    codes, times = workload.codes[kept], workload.times[kept].tolist()
    entries = _Entries(cache, item)
    if item.groups == 1:
        entries.read_items(codes.tolist(), times)
    else:
        entries.read_entities(_items(codes, item.groups), times)
    return entries


def _items(codes: Numbers, groups: int) -> Iterator[range]:
    """The codes of the items of each entity: below 0 those of absent ones, as the entity's."""
    for code in codes.tolist():
        if code >= 0:
            yield range(code * groups, (code + 1) * groups)
        else:
            first = ~(~code * groups)
            yield range(first, first - groups, -1)


class _Entries:
    """What the cache has: of each item the second at which it expires, least recent first."""

    def __init__(self, cache: Cache, item: Item) -> None:
        # What a consistent read brings is kept, but never served to another.
        self.ttl = 0.0 if item.consistent else cache.ttl
        self.max_size = cache.max_size
        self.max_bytes = math.inf if cache.max_bytes is None else cache.max_bytes
        self.memory = item.memory
        self.expiries: OrderedDict[int, float] = OrderedDict()
        self.hits = self.negative_hits = 0
        self.bytes = self.most = self.most_bytes = 0

    def read_items(self, codes: Iterable[int], times: Iterable[float]) -> None:
        """Read entities of one group: the same as `read_entities`, and quicker."""
        expiry_of, touch, fill = self.expiries.get, self.expiries.move_to_end, self._fill
        hits = negative = 0
        for code, now in zip(codes, times, strict=True):
            expiry = expiry_of(code)
            if expiry is not None:
                touch(code)
                if expiry > now:
                    hits += 1
                    negative += code < 0
                    continue
            fill(code, now)
        self.hits += hits
        self.negative_hits += negative

    def read_entities(self, entities: Iterable[range], times: Iterable[float]) -> None:
        """Read entities: all their items are looked up before what was missed is filled."""
        for codes, now in zip(entities, times, strict=True):
            missed = [code for code in codes if not self._serves(code, now)]
            for code in missed:
                self._fill(code, now)

    def _serves(self, code: int, now: float) -> bool:
        expiry = self.expiries.get(code)
        if expiry is None:
            return False
        self.expiries.move_to_end(code)
        if expiry <= now:
            return False
        self.hits += 1
        self.negative_hits += code < 0
        return True

    def _fill(self, code: int, now: float) -> None:
        size = self._size(code)
        if size > self.max_bytes:
            return
        expiries = self.expiries
        if code not in expiries:
            self.bytes += size
        expiries[code] = now + self.ttl
        while len(expiries) > self.max_size or self.bytes > self.max_bytes:
            self.bytes -= self._size(expiries.popitem(last=False)[0])
        self.most = max(self.most, len(expiries))
        self.most_bytes = max(self.most_bytes, self.bytes)

    def _size(self, code: int) -> int:
        return self.memory if code >= 0 else ENTRY_BYTES
