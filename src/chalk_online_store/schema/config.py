"""How a namespace is served: its cache and its Bloom filter."""

from __future__ import annotations

from dataclasses import dataclass

from chalk_online_store.arguments import check_flag, check_instance, finite_number, whole_number
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
        whole_number(self.max_size, "LRUCache(max_size=...)", fault=InvalidSchema)
        if self.max_bytes is not None:
            whole_number(self.max_bytes, "LRUCache(max_bytes=...)", fault=InvalidSchema)
        check_flag(self.store_cache_misses, "LRUCache(store_cache_misses=...)", InvalidSchema)
        for name in ("ttl_jitter", "refresh_ahead"):
            share = finite_number(
                getattr(self, name), f"LRUCache({name}=...)", most=1, fault=InvalidSchema
            )
            if share == 1:
                raise InvalidSchema(f"LRUCache({name}=1): it is a share of the ttl, below 1.")
        microseconds(self.ttl, "LRUCache(ttl=...)")  # Refuses what is no duration.
        microseconds(self.stale_while_revalidate, "LRUCache(stale_while_revalidate=...)")

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
        whole_number(
            self.expected_entities, "BloomFilter(expected_entities=...)", fault=InvalidSchema
        )
        finite_number(
            self.target_false_positive_rate,
            "BloomFilter(target_false_positive_rate=...)",
            least=1e-9,
            most=0.5,
            fault=InvalidSchema,
        )
        whole_number(
            self.partitions,
            "BloomFilter(partitions=...)",
            most=_MOST_LOG_PARTITIONS,
            fault=InvalidSchema,
        )
        # A duration that cannot be read is refused as well.
        if not microseconds(self.refresh, "BloomFilter(refresh=...)"):
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
        for name, kind in (("lru_cache", LRUCache), ("bloom_filter", BloomFilter)):
            check_instance(getattr(self, name), kind, f"OnlineStoreConfig({name}=...)")
        if self.max_future_skew is not None:  # Refuses what is not a duration.
            microseconds(self.max_future_skew, "OnlineStoreConfig(max_future_skew=...)")
