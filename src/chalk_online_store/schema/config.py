"""How a namespace is served: its cache."""

from __future__ import annotations

from dataclasses import dataclass

from chalk_online_store.errors import InvalidSchema
from chalk_online_store.schema.durations import Duration, microseconds


@dataclass(frozen=True, slots=True)
class LRUCache:
    """A cache in this process, least recently used item out first.

    `max_size` counts items (one entity, one group). An item is served from it for at most
    `ttl`. With `store_cache_misses`, that an entity has no item is remembered as well. The
    three names are Chalk's.
    """

    max_size: int
    ttl: Duration = "infinity"
    store_cache_misses: bool = False

    def __post_init__(self) -> None:
        if self.max_size < 1:
            raise InvalidSchema(f"LRUCache(max_size={self.max_size}): it must be 1 or more.")
        microseconds(self.ttl)  # Refuses what is no duration.

    @property
    def ttl_seconds(self) -> float:
        """How long an item is served, in seconds; infinite where `ttl` is."""
        exact = microseconds(self.ttl)
        return float("inf") if exact is None else exact / 1e6


@dataclass(frozen=True, slots=True)
class OnlineStoreConfig:
    """How a namespace is served; attached with `@features(online_store_config=...)`."""

    lru_cache: LRUCache | None = None
