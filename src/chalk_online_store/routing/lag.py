"""How far each region's replication is behind the others, by heartbeats.

A heartbeat is an item of each region, written there with the time of its writer. What another
region shows of it tells up to when that region has what was written in the first. It is an
estimate: DynamoDB replicates item by item, in no order among items.
"""

from __future__ import annotations

from collections.abc import Mapping

_STOPPED_AFTER = 20_000_000
"""UTC us without a heartbeat, after which nobody writes any more who could be missed."""


class Lag:
    """What was seen of heartbeats, in each region of each. Times are UTC microseconds."""

    def __init__(self) -> None:
        self._looks: dict[str, tuple[int, Mapping[str, int]]] = {}

    def saw(self, region: str, beats: Mapping[str, int], now: int) -> None:
        """A region showed these heartbeats, by the region that each was written in."""
        self._looks[region] = now, beats

    def newest(self, region: str) -> int:
        """The newest heartbeat of a region that was seen there; 0 for none."""
        return self._looks.get(region, (0, {}))[1].get(region, 0)

    def behind(self, region: str, source: str, reached_at: int) -> float | None:
        """Seconds by which a region may have been behind a source when it was last looked at.

        `reached_at` is when the source last answered: what it has accepted later, nobody knows.
        None where no heartbeat of it has been seen in the region.
        """
        looked_at, beats = self._looks.get(region, (0, {}))
        seen = beats.get(source)
        if seen is None:
            return None
        until = min(looked_at, reached_at)
        newest = self.newest(source)
        if newest and until - newest > _STOPPED_AFTER:
            until = newest
        return max(0, until - seen) / 1e6
