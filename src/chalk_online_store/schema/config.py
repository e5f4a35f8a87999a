"""How a namespace is served: its cache and its Bloom filter."""

from __future__ import annotations

from dataclasses import dataclass

from chalk_online_store.errors import InvalidSchema
from chalk_online_store.schema.durations import Duration, microseconds, seconds


@dataclass(frozen=True, slots=True)
class LRUCache:
    """A cache in this process, least recently used item out first.

    `max_size` counts items (one entity, one group). An item is served from it for at most
    `ttl`. With `store_cache_misses`, that an entity has no item is remembered as well. These
    three names are Chalk's.

    `max_bytes` bounds the memory that the items take, about, too. `ttl_jitter` is the share of
    the ttl by which an item may expire earlier, at random, so that what was read together is
    not read again together.

    For hot items: with `refresh_ahead=0.2`, the first read that meets an item in the last fifth
    of its ttl has it read anew in the background. With `stale_while_revalidate="10s"`, an item
    is served for ten seconds beyond its ttl, while it is read anew. Neither ever serves a value
    beyond its feature's `max_staleness`.
    """

    max_size: int
    ttl: Duration = "infinity"
    store_cache_misses: bool = False
    max_bytes: int | None = None
    ttl_jitter: float = 0.1
    refresh_ahead: float = 0.0
    stale_while_revalidate: Duration = "0s"

    def __post_init__(self) -> None:
        for name in ("max_size", "max_bytes"):
            bound = getattr(self, name)
            if bound is not None and bound < 1:
                raise InvalidSchema(f"LRUCache({name}={bound}): it must be 1 or more.")
        for name in ("ttl_jitter", "refresh_ahead"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise InvalidSchema(f"LRUCache({name}={share}): it is a share of the ttl, below 1.")
        microseconds(self.ttl)  # Refuses what is no duration.
        microseconds(self.stale_while_revalidate)

    @property
    def ttl_seconds(self) -> float:
        """How long an item is served, in seconds; infinite where `ttl` is."""
        return seconds(self.ttl)

    @property
    def grace_seconds(self) -> float:
        """How long it is served beyond that, while it is read anew, in seconds."""
        return seconds(self.stale_while_revalidate)


_MOST_LOG_PARTITIONS = 64


@dataclass(frozen=True, slots=True)
class BloomFilter:
    """A filter of a namespace's entities, shared by all processes through the table.

    A read of an entity that is surely absent answers `missing` without asking the table. Of
    `expected_entities`, about `target_false_positive_rate` of the absent ones are asked for all
    the same; with more entities the filter grows.

    An entity that another process wrote is known after at most `refresh`; until then it may be
    taken for absent. Every process that writes to the namespace has to know of the filter: see
    docs/caching.md. `partitions` is over how many partitions a region's writers spread the news
    of new entities: more where very many of them meet new entities at once.
    """

    expected_entities: int
    target_false_positive_rate: float = 0.01
    refresh: Duration = "5s"
    partitions: int = 1

    def __post_init__(self) -> None:
        if self.expected_entities < 1:
            raise InvalidSchema("BloomFilter(expected_entities=...): it must be 1 or more.")
        if not 1e-9 <= self.target_false_positive_rate <= 0.5:
            raise InvalidSchema(
                "BloomFilter(target_false_positive_rate=...): it lies between 1e-9 and 0.5."
            )
        if not 1 <= self.partitions <= _MOST_LOG_PARTITIONS:
            raise InvalidSchema(
                f"BloomFilter(partitions=...): it lies between 1 and {_MOST_LOG_PARTITIONS}."
            )
        if not microseconds(self.refresh):  # Refuses what is no duration as well.
            raise InvalidSchema('BloomFilter(refresh=...): it is a time such as "5s".')

    @property
    def refresh_seconds(self) -> float:
        """How old what the filter knows may be, in seconds."""
        return seconds(self.refresh)


@dataclass(frozen=True, slots=True)
class OnlineStoreConfig:
    """How a namespace is served; attached with `@features(online_store_config=...)`.

    `max_future_skew` is how far ahead of the process's clock an observed-at may be; None for what
    `OnlineStore.open(max_future_skew=...)` says.
    """

    lru_cache: LRUCache | None = None
    bloom_filter: BloomFilter | None = None
    max_future_skew: Duration | None = None

    def __post_init__(self) -> None:
        if self.max_future_skew is not None:
            microseconds(self.max_future_skew)  # Refuses what is not a duration.
