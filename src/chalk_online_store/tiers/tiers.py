"""What stands between a store's namespaces and its table: coalescing, Bloom filters, caches."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chalk_online_store.backend import Backend, Call
from chalk_online_store.codec.namespaces import NamespaceCodec, Planned
from chalk_online_store.effects import Instant, Operation, Spawn
from chalk_online_store.errors import RequestError, WriteFailed
from chalk_online_store.routing.router import RegionStatus
from chalk_online_store.schema import LRUCache, Namespace
from chalk_online_store.tiers.cached_reads import CachedReads, Reads
from chalk_online_store.tiers.coalescing import Coalescer
from chalk_online_store.tiers.filter.keeper import FilterKeeper
from chalk_online_store.tiers.filter.log import FilterLog
from chalk_online_store.tiers.filter.reads import FilteredReads, FilterStats
from chalk_online_store.tiers.filter.snapshots import merge_apart, merge_is_due
from chalk_online_store.tiers.lru import KNOWN_ABSENT, CacheStats, ItemCache
from chalk_online_store.tiers.shared_cache import SharedCacheBackend, SharedCacheStats

_MERGE_TIMEOUT = 60.0
"""Seconds; a snapshot of many megabytes takes its time."""


@dataclass(frozen=True, slots=True)
class NamespaceStats:
    """The accounts of one namespace; None for what it does not have."""

    cache: CacheStats | None = None
    bloom: FilterStats | None = None


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store's caches and filters did since it was opened, by namespace; and its regions.

    `shared_cache` is None where there is none.
    """

    namespaces: Mapping[str, NamespaceStats] = field(default_factory=dict)
    regions: Sequence[RegionStatus] = ()
    shared_cache: SharedCacheStats | None = None


class Tiers:
    """The tiers of every namespace. `window` is the coalescer's, in seconds; None for without."""

    def __init__(
        self,
        backend: Backend,
        schema: Mapping[str, Namespace],
        *,
        timeout: float,
        lru_cache: LRUCache | None,
        window: float | None,
        rng: random.Random | None,
    ) -> None:
        self._backend = backend
        self._timeout = timeout
        self._lru_cache = lru_cache
        self._rng = rng
        self.coalescer = None if window is None else Coalescer(backend, window)
        self.caches: dict[str, ItemCache] = {}
        self.filtered: dict[str, FilteredReads] = {}
        self._keepers: dict[str, FilterKeeper] = {}
        self._reads: dict[str, Reads] = {}
        for namespace in schema.values():
            self.add(namespace)

    def add(self, namespace: Namespace) -> None:
        """Make the tiers of a namespace."""
        name = namespace.name
        config = namespace.online_store_config.lru_cache or self._lru_cache
        if config:
            self.caches[name] = ItemCache(config, self._rng)
        self._reads[name] = self._reads_of(namespace)

    def _reads_of(self, namespace: Namespace) -> Reads:
        name, config = namespace.name, namespace.online_store_config.bloom_filter
        reads: Reads = self.coalescer or self._backend
        cache = self.caches.get(name)
        if config is not None:
            absent = None if cache is None else KNOWN_ABSENT
            reads = self.filtered[name] = FilteredReads(reads, config, self._timeout, absent)
        if cache is None:
            return reads
        return CachedReads(reads, cache, self._timeout, filtered=config is not None)

    def reads(self, codec: NamespaceCodec) -> Reads:
        """What a namespace's items are read through."""
        name = codec.namespace.name
        filtered = self.filtered.get(name)
        if filtered is not None and filtered.keeper is None:
            filtered.keeper = self.keeper(codec)
        return self._reads[name]

    def keeper(self, codec: NamespaceCodec) -> FilterKeeper | None:
        """The keeper of a namespace's filter; None where it has none, or no id yet."""
        namespace = codec.namespace
        has_one = namespace.name in codec.registry.filtered  # Whether this process knows or not.
        if not (has_one or namespace.online_store_config.bloom_filter) or codec.prefix is None:
            return None
        keeper = self._keepers.get(namespace.name)
        if keeper is None:
            log = FilterLog(self._backend, codec.prefix.removesuffix(":"))
            # Of two threads that make one, the first decides.
            keeper = self._keepers.setdefault(namespace.name, FilterKeeper(log, self._rng))
        return keeper

    def refresh(self, codec: NamespaceCodec) -> Operation[None]:
        """Look at a namespace's filter now, as the first read would in the background."""
        self.reads(codec)
        filtered = self.filtered.get(codec.namespace.name)
        if filtered is not None and filtered.keeper is not None:
            yield from filtered.refresh(filtered.keeper)

    def announce(
        self, codec: NamespaceCodec, planned: Sequence[Planned], call: Call
    ) -> Operation[None]:
        """Announce the entities that changes give values; raises `WriteFailed`."""
        keeper = self.keeper(codec)
        pks = {change.key.pk: None for _, change in planned if change.form.kept}
        if keeper is None or not pks:
            return
        try:
            yield from keeper.announce(list(pks), call)
        except RequestError as error:
            if not error.retryable:
                raise
            positions = dict.fromkeys(position for position, _ in planned)
            call.report.failed += len(positions)
            raise WriteFailed(
                f"{len(positions)} rows of {codec.namespace.name!r} were not written: its Bloom "
                f"filter could not hear of new entities: {error} Writing them again is safe.",
                dict.fromkeys(positions, error),
                call.report,
            ) from error
        at_home = codec.registry.may_be_written_in(self._backend.home)
        if at_home and merge_is_due(keeper):
            try:
                keeper.merging = True
                yield Spawn(merge_apart(keeper, _MERGE_TIMEOUT))
            except BaseException:
                keeper.merging = False
                raise

    def stats(self, now: Instant) -> StoreStats:
        """The accounts of every namespace that has a cache or a filter, and of what they share."""
        shared = self._backend
        names = self.caches | self.filtered
        return StoreStats(
            {
                name: NamespaceStats(
                    self.caches[name].stats() if name in self.caches else None,
                    self.filtered[name].stats(now) if name in self.filtered else None,
                )
                for name in names
            },
            shared_cache=shared.stats() if isinstance(shared, SharedCacheBackend) else None,
        )
