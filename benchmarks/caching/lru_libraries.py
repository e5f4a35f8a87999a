"""LRU caches of other libraries beside ours; one that is not installed is left out.

Each is asked for 100 keys at once and safe for threads. What it misses is kept by a second call,
as if it had been read meanwhile. Rows have an expiry that each look holds against the clock: in
the entry, where the library has none.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle
from typing import Any

from benchmarks.caching.turns import Way, take_turns
from chalk_online_store import LRUCache
from chalk_online_store.tiers.lru import InFlightRead, ItemCache

ENTRIES = 10_000
KEYS = 100
MISSES = 20
"""Of the keys of a lookup that misses some."""
OURS = "ours"
HITS, MIXED = "hits", "mixed"
_LIFE = 3_600.0
_ROW = ("a", "row")
_CYCLE = 3 * ENTRIES // MISSES
"""After so many lookups keys are missed again: long since pushed out."""


class Cache(ABC):
    """A cache of rows."""

    name: str

    @abstractmethod
    def read(self, keys: list[str]) -> list[Any]:
        """The rows of some keys, of which those that are not there are then kept."""


class Ours(Cache):
    """`ItemCache`: with statistics, jitter, and reads that others join."""

    name = OURS

    def __init__(self) -> None:
        self._cache = ItemCache(LRUCache(ENTRIES, ttl="1h"))
        self._shape = object()

    def read(self, keys: list[str]) -> list[Any]:
        trip, cache = InFlightRead(), self._cache
        now = time.monotonic()
        look = cache.look(keys, "s", self._shape, now, trip)
        if look.missed:
            brought = [(keys[position], "s") for position in look.missed]
            cache.land(trip, brought, [_ROW] * len(brought), now)
            for position in look.missed:
                look.found[position] = _ROW
        return look.found


class Mapped(Cache):
    """A cache that is a mapping of keys to (expiry, row), here under a lock."""

    def __init__(self, entries: Any) -> None:
        self._entries = entries
        self._lock = threading.Lock()

    def read(self, keys: list[str]) -> list[Any]:
        found: list[Any] = []
        missed: list[int] = []
        now = time.monotonic()
        with self._lock:
            get = self._entries.get
            for key in keys:
                entry = get(key)
                if entry is not None and entry[0] > now:
                    found.append(entry[1])
                else:
                    missed.append(len(found))
                    found.append(None)
        if missed:
            self._keep([keys[position] for position in missed], now)
            for position in missed:
                found[position] = _ROW
        return found

    def _keep(self, keys: list[str], now: float) -> None:
        with self._lock:
            for key in keys:
                self._entries[key] = now + _LIFE, _ROW


class CachetoolsLRU(Mapped):
    """Of Python."""

    name = "cachetools.LRUCache"

    def __init__(self) -> None:
        from cachetools import LRUCache as Entries

        super().__init__(Entries(ENTRIES))


class CacheboxLRU(Mapped):
    """Of Rust."""

    name = "cachebox.LRUCache"

    def __init__(self) -> None:
        from cachebox import LRUCache as Entries

        super().__init__(Entries(ENTRIES))


class CachetoolsTTL(Mapped):
    """Of Python, with an expiry of its own."""

    name = "cachetools.TTLCache"

    def __init__(self) -> None:
        from cachetools import TTLCache

        super().__init__(TTLCache(ENTRIES, _LIFE))

    def read(self, keys: list[str]) -> list[Any]:
        with self._lock:
            found: list[Any] = [*map(self._entries.get, keys)]
        missed = [position for position, row in enumerate(found) if row is None]
        if missed:
            with self._lock:
                for position in missed:
                    self._entries[keys[position]] = found[position] = _ROW
        return found


class Ordered(Mapped):
    """What the standard library has, by hand."""

    name = "OrderedDict"

    def __init__(self) -> None:
        super().__init__(OrderedDict())

    def read(self, keys: list[str]) -> list[Any]:
        found: list[Any] = []
        missed: list[int] = []
        now = time.monotonic()
        with self._lock:
            get, renew = self._entries.get, self._entries.move_to_end
            for key in keys:
                entry = get(key)
                if entry is not None and entry[0] > now:
                    renew(key)
                    found.append(entry[1])
                else:
                    missed.append(len(found))
                    found.append(None)
        if missed:
            self._keep([keys[position] for position in missed], now)
            for position in missed:
                found[position] = _ROW
        return found

    def _keep(self, keys: list[str], now: float) -> None:
        super()._keep(keys, now)
        while len(self._entries) > ENTRIES:
            self._entries.popitem(last=False)


CACHES: tuple[type[Any], ...] = (Ours, Ordered, CachetoolsLRU, CachetoolsTTL, CacheboxLRU)


def run(rounds: int = 15, seed: int = 0) -> list[dict[str, Any]]:
    """A line for each library."""
    kinds = list(_installed())
    ways: dict[str, tuple[Way, int]] = {}
    for kind in kinds:
        ways[f"{kind.name}, {HITS}"] = _hits(kind()), KEYS
        ways[f"{kind.name}, {MIXED}"] = _mixed(kind()), KEYS
    turns = take_turns(ways, rounds, seed)
    return [
        {
            "library": kind.name,
            "look_us": {what: turns[f"{kind.name}, {what}"].median for what in (HITS, MIXED)},
            "look_ratio": {
                what: turns[f"{kind.name}, {what}"].times(turns[f"{OURS}, {what}"])
                for what in (HITS, MIXED)
            },
        }
        for kind in kinds
    ]


def _installed() -> Iterator[type[Any]]:
    for kind in CACHES:
        with suppress(ImportError):
            kind()
            yield kind


def _hits(cache: Cache) -> Way:
    """Every key is there."""
    held = [f"user:{number}" for number in range(ENTRIES)]
    cache.read(held)
    some = held[:: ENTRIES // KEYS]
    return lambda: cache.read(some)


def _mixed(cache: Cache) -> Way:
    """Some are not, and push others out."""
    hot = [f"hot:{number}" for number in range(KEYS - MISSES)]
    fresh = [[f"user:{n * MISSES + i}" for i in range(MISSES)] for n in range(_CYCLE)]
    lookups = [_mingled(hot, some) for some in fresh]
    for keys in lookups:  # Until the cache is full.
        cache.read(keys)
    following = cycle(lookups)
    return lambda: cache.read(next(following))


def _mingled(hot: list[str], fresh: list[str]) -> list[str]:
    """Each fifth key is a fresh one."""
    each = len(hot) // len(fresh)
    parts = ([one, *hot[i * each : (i + 1) * each]] for i, one in enumerate(fresh))
    return [key for part in parts for key in part]
