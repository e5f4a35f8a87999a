"""What a call cost and how it went: filled in by backends while the call runs."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter


@dataclass(slots=True)
class Report:
    """The account of one call.

    `rcu` and `wcu` are capacity units as the engine reported them; 0 for an engine that has
    none. A refused conditional write costs its units too, but engines do not report those, so
    they are not in `wcu`. `queries` counts the requests that read all groups of an entity at
    once, because that takes fewer units than item by item. `coalesced` counts items that came
    with the requests of other reads. `cache_hits` are items from memory, known absent ones
    included; `bloom_skips` items that were not asked for, because the Bloom filter did not have
    their entity, and `bloom_false_positives` entities that it let through in vain. `superseded`
    counts changes that came later than newer values and so changed nothing.
    """

    requests: int = 0
    retries: int = 0
    queries: int = 0
    unprocessed: int = 0
    rcu: float = 0.0
    wcu: float = 0.0
    coalesced: int = 0
    cache_hits: int = 0
    bloom_skips: int = 0
    bloom_false_positives: int = 0
    items_read: int = 0
    items_written: int = 0
    superseded: int = 0
    failed: int = 0

    def add(self, other: Report) -> None:
        """Count what another report counted as well."""
        for name, amount in zip(self.__slots__, _amounts(other), strict=True):
            if amount:
                setattr(self, name, getattr(self, name) + amount)


_amounts = attrgetter(*Report.__slots__)
