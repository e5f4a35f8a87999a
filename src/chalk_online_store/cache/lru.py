"""Items by key, least recently used out first, each with its own expiry.

Coherence: a write tells the cache what it wrote, or that it wrote. A read that began before the
write and ended after it may bring an older item; it is turned away by its lease. So within this
process a read that begins after a write has returned never sees the item from before it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from cachetools import LRUCache as Bounded

from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.schema import LRUCache

MISS = object()
"""What `get_many` answers for a key of which nothing is known."""

_WRITES_REMEMBERED = 65_536


class ItemCache:
    """A namespace's rows (None for an entity without an item) by item key. Thread-safe.

    `now` is a reading of the monotonic clock, in seconds: one for a whole batch.
    """

    def __init__(self, config: LRUCache) -> None:
        self._ttl = config.ttl_seconds
        self._keep_misses = config.store_cache_misses
        self._entries: Bounded[tuple[str, str], tuple[float, Any]] = Bounded(config.max_size)
        self._lock = threading.Lock()
        self._writes = 0
        self._written: dict[ItemKey, int] = {}
        self._forgotten = 0

    def get_many(self, keys: Iterable[tuple[str, str]], now: float) -> list[Any]:
        """What is known of each key: a row, None, or `MISS`."""
        entries = self._entries
        found = []
        with self._lock:
            for key in keys:
                entry = entries.get(key)
                found.append(entry[1] if entry is not None and entry[0] > now else MISS)
        return found

    def lease(self) -> int:
        """A token for `fill`, to be taken before the read begins."""
        with self._lock:
            return self._writes

    def fill(self, rows: Mapping[ItemKey, Any], lease: int, now: float) -> None:
        """Keep what a read found, but for keys written since its lease."""
        with self._lock:
            for key, row in rows.items():
                if self._written.get(key, self._forgotten) <= lease:
                    self._put(key, row, now)

    def written(
        self,
        rows: Mapping[ItemKey, Any],
        unknown: Iterable[ItemKey],
        now: float,
        lease: int | None = None,
    ) -> None:
        """Account for writes: `rows` as they now are, and keys whose items are not known.

        With a `lease` from before the write was sent, a row is kept only where no other write
        of its key has returned since: which of the two came last is not known.
        """
        with self._lock:
            alone = {
                key: lease is None or self._written.get(key, self._forgotten) <= lease
                for key in rows
            }
            self._writes += 1
            for key, row in rows.items():
                self._mark(key)
                if alone[key]:
                    self._put(key, row, now)
                else:
                    self._entries.pop(key, None)
            for key in unknown:
                self._mark(key)
                self._entries.pop(key, None)

    def _put(self, key: ItemKey, row: Any, now: float) -> None:
        if row is None and not self._keep_misses:
            self._entries.pop(key, None)
        else:
            self._entries[key] = (now + self._ttl, row)

    def _mark(self, key: ItemKey) -> None:
        """Remember when a key was written; of the many, the oldest only as "before that"."""
        self._written.pop(key, None)
        self._written[key] = self._writes
        if len(self._written) > _WRITES_REMEMBERED:
            oldest = next(iter(self._written))
            self._forgotten = self._written.pop(oldest)
