"""Sizes and monthly prices of a vector index.

Prices are those of us-east-1, standard table class, August 2026, in US dollars. AWS bills an index
by bytes, not by capacity units: writes and searches of less than 1 KB count as 1 KB. The table is
billed as usual beside it, on demand.
"""

from __future__ import annotations

from dataclasses import dataclass

from chalk_online_store.arguments import finite_number, whole_number

SECONDS_PER_MONTH = 730 * 3600
MIN_REQUEST_BYTES = 1024
"""AWS: the least that is billed for a write to indexes, and for a search."""

_GB = 1e9


@dataclass(frozen=True, slots=True)
class VectorPrices:
    """Prices in US dollars: per GB searched, per GB written, and per GB and month stored."""

    search_gb: float = 0.002
    write_gb: float = 0.52
    storage_gb_month: float = 0.25


@dataclass(frozen=True, slots=True)
class VectorCost:
    """What a vector index costs per month, in US dollars, in all regions."""

    storage: float
    writes: float
    searches: float

    @property
    def total(self) -> float:
        """The sum."""
        return self.storage + self.writes + self.searches


def vector_cost(
    entities: int,
    index_bytes: int,
    *,
    writes_per_second: float,
    searches_per_second: float,
    bytes_per_search: float,
    regions: int = 1,
    prices: VectorPrices | None = None,
) -> VectorCost:
    """Compute the monthly cost of a vector index.

    `index_bytes` is the size of one entry, as `explain(...).items[0].vectors[0].index_bytes` has
    it. `bytes_per_search` is what searches report as `search_bytes`: it grows with the logarithm of
    the entities and in proportion to `k`, so measure it. Every write of an item with a vector
    writes the index. Each region of a Global Table has an index of its own: storage and writes are
    paid in each, searches where they are made.

    Raises `InvalidValue` for numbers below zero.
    """
    prices = prices or VectorPrices()
    count = whole_number(entities, "entities", least=0)
    size = whole_number(index_bytes, "index_bytes", least=0)
    places = whole_number(regions, "regions")
    writes = finite_number(writes_per_second, "writes_per_second", least=0)
    searches = finite_number(searches_per_second, "searches_per_second", least=0)
    examined = finite_number(bytes_per_search, "bytes_per_search", least=0)
    per_month = SECONDS_PER_MONTH / _GB
    return VectorCost(
        storage=count * size / _GB * prices.storage_gb_month * places,
        writes=writes * max(size, MIN_REQUEST_BYTES) * per_month * prices.write_gb * places,
        searches=searches * max(examined, MIN_REQUEST_BYTES) * per_month * prices.search_gb,
    )
