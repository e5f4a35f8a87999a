"""Item by item, or all groups of an entity by one Query: which takes fewer read units.

AWS: BatchGetItem rounds each item up to 4 KB by itself, Query adds the items up first. So five
small groups of an entity take 2.5 units item by item, and 0.5 by Query. But a Query also pays for
whatever else lies between its first and its last sort key, so what a Query of these groups was
seen to consume counts for more than what is reckoned.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from chalk_online_store.backend import GroupKeys
from chalk_online_store.codec.shapes import Shape

MOST_QUERIES = 8
"""Entities that are queried at once: each takes a request of its own."""

_UNIT_BYTES = 4096
_BYTES_PER_JSON_BYTE = 0.75
_WEIGHT = 0.2
_MOST_KEPT = 4096


class ReadCosts:
    """What reads of this process were seen to cost, in read units an item or an entity.

    Units are those of eventually consistent reads: a strong read takes twice as many.
    """

    def __init__(self) -> None:
        self._units: dict[Hashable, float] = {}
        self._bytes: dict[Hashable, float] = {}

    def saw_items(self, shape: Shape, units: float, size: int, count: int) -> None:
        """Items of a shape took so many units, and so many bytes of JSON, all together."""
        if count:
            _learn(self._units, shape, units / count)
            _learn(self._bytes, shape, size / count)

    def saw_query(self, wanted: Sequence[GroupKeys], units: float) -> None:
        """A Query of the groups of one entity took so many units."""
        _learn(self._units, _name(wanted), units)

    def favour_query(self, wanted: Sequence[GroupKeys]) -> bool:
        """Whether these groups are better read by Query, an entity at a time."""
        pks = wanted[0].pks
        if not 0 < len(pks) <= MOST_QUERIES or any(w.pks != pks for w in wanted):
            return False
        by_item = [self._units.get(w.shape, 0.0) for w in wanted]
        if not all(by_item):  # Never read, or by an engine that counts no units.
            return False
        return self._query_units(wanted) < sum(by_item)

    def _query_units(self, wanted: Sequence[GroupKeys]) -> float:
        seen = self._units.get(_name(wanted))
        if seen is not None:
            return seen
        # An item's JSON is longer than what DynamoDB counts, by a third if it is binary data. So a
        # Query is tried once if it can take fewer units. What it consumes then counts.
        size = sum(self._bytes[w.shape] for w in wanted) * _BYTES_PER_JSON_BYTE
        return math.ceil(size / _UNIT_BYTES) / 2


def _name(wanted: Sequence[GroupKeys]) -> Hashable:
    return tuple(w.shape for w in wanted)


def _learn(known: dict[Hashable, float], what: Hashable, seen: float) -> None:
    """Let what was seen last count, and what was seen before it."""
    if len(known) > _MOST_KEPT:
        known.clear()
    before = known.get(what, seen)
    known[what] = before + _WEIGHT * (seen - before)
