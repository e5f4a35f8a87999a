"""What a call cost and how it went: filled in by backends while the call runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter


@dataclass(slots=True)
class Report:
    """The account of one call.

    `rcu` and `wcu` are capacity units as the engine reported them; 0 for an engine that has
    none. A refused conditional write costs its units too, but engines do not report those, so
    they are not in `wcu`. `throttles` counts answers that asked for a slower pace, and
    `throttling_reasons` AWS's reasons for them. `retries_refused` counts retries that were not sent
    because the retry quota of a region was used up. `queries`
    counts the requests that read all groups of an entity at once, because that takes fewer units
    than item by item. `coalesced` counts items that came with the requests of other reads.
    `cache_hits` are items from memory, and `shared_hits` those from a cache that processes share,
    known absent ones included; `bloom_skips` items that were not asked for, because the Bloom
    filter did not have their entity, and `bloom_false_positives` entities that it let through in
    vain. `superseded` counts changes of items that came later than newer values and so changed
    nothing, and deletes of items that left a newer value. Each change of an item is counted in
    `items_written`, `superseded` or `failed`. Of a read, `failed` counts the items that could not
    be read, and those of which a value could not be decoded.

    Of a search, `search_bytes` are the bytes that the vector index examined and returned, as
    DynamoDB bills them, and `search_dropped` counts entities that it found and that were left out,
    because their vector or a filter is stale, gone or changed. Of a write, `index_write_bytes` are
    the bytes that vector indexes were written, as billed.

    Of a store on several regions: `hedges` counts requests that were sent a second time because
    the first answer took long, `failovers` those that another region answered after one had
    failed, and `regions` the answers of each region. `behind` is by how many seconds, about, the
    replication of a region that answered may be behind; None where that is not known, and 0
    where nothing can be missing.
    """

    requests: int = 0
    retries: int = 0
    retries_refused: int = 0
    queries: int = 0
    throttles: int = 0
    unprocessed: int = 0
    rcu: float = 0.0
    wcu: float = 0.0
    coalesced: int = 0
    cache_hits: int = 0
    shared_hits: int = 0
    bloom_skips: int = 0
    bloom_false_positives: int = 0
    items_read: int = 0
    items_written: int = 0
    superseded: int = 0
    failed: int = 0
    search_bytes: float = 0.0
    search_dropped: int = 0
    index_write_bytes: float = 0.0
    hedges: int = 0
    failovers: int = 0
    regions: dict[str, int] = field(default_factory=dict)
    throttling_reasons: dict[str, int] = field(default_factory=dict)
    behind: float | None = None

    @property
    def region(self) -> str:
        """The region that answered; several are joined by commas, "" where there are none."""
        return ",".join(self.regions)

    def answered_by(self, region: str, behind: float | None) -> None:
        """Count an answer of a region that is so many seconds behind."""
        self.regions[region] = self.regions.get(region, 0) + 1
        self._may_be_behind(behind)

    def count_throttle(self, reasons: Iterable[str]) -> None:
        """Count an answer that asked for a slower pace, and AWS's reasons for it."""
        self.throttles += 1
        _count(self.throttling_reasons, dict.fromkeys(reasons, 1))

    def _may_be_behind(self, seconds: float | None) -> None:
        if seconds is not None:
            self.behind = seconds if self.behind is None else max(self.behind, seconds)

    def add(self, other: Report) -> None:
        """Count what another report counted as well."""
        for name, amount in zip(_COUNTS, _amounts(other), strict=True):
            if amount:
                setattr(self, name, getattr(self, name) + amount)
        _count(self.regions, other.regions)
        _count(self.throttling_reasons, other.throttling_reasons)
        self._may_be_behind(other.behind)


def _count(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        counts[name] = counts.get(name, 0) + count


_NOT_COUNTS = ("regions", "throttling_reasons", "behind")
_COUNTS = tuple(field.name for field in fields(Report) if field.name not in _NOT_COUNTS)
_amounts = attrgetter(*_COUNTS)
