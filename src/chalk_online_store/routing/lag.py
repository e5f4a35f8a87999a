"""How far each region's replication is behind the others, by heartbeats.

A heartbeat is an item of each region, written there with the time of its writer. What another
region shows of it tells up to when that region has what was written in the first. It is an
estimate: DynamoDB replicates item by item, in no order among items.
"""

from __future__ import annotations

from collections.abc import Mapping

_STOPPED_AFTER = 20_000_000
"""UTC us without a heartbeat, after which nobody writes any more who could be missed."""

_NOT_LOOKED = 2**63
"""When a region was left, as long as nobody has looked at a clock."""


class Lag:
    """What was seen of heartbeats, in each region of each. Times are UTC microseconds."""

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}
        self._behind: dict[tuple[str, str], float] = {}
        self._seen: dict[tuple[str, str], int] = {}
        self._left: dict[str, int] = {}

    @property
    def settled(self) -> bool:
        """Whether writes have never moved."""
        return not self._left

    def left(self, source: str) -> None:
        """Writes go elsewhere from now on: what was written in `source` has yet to arrive."""
        # Another dictionary: threads that read it hold no lock.
        self._left = {**self._left, source: _NOT_LOOKED}

    def may_lack(self, region: str) -> list[str]:
        """The sources that writes have left, not all of which is known to be in a region."""
        return [name for name, at in self._left.items() if self._seen.get((region, name), 0) < at]

    def saw(
        self, region: str, beats: Mapping[str, int], now: int, reached: Mapping[str, int]
    ) -> None:
        """A region showed these heartbeats at `now`, by the region that each was written in.

        `reached` says when each region last answered: what it has accepted later, nobody knows.
        """
        for source, at in self._left.items():
            self._left[source] = min(at, now)  # The first look since then: not before it.
        self._newest[region] = beats.get(region, 0)
        for source, seen in beats.items():
            until = min(now, reached.get(source, now))
            newest = self._newest.get(source, 0)
            if newest and until - newest > _STOPPED_AFTER:
                until = newest
            self._seen[region, source] = seen
            self._behind[region, source] = max(0, until - seen) / 1e6

    def behind(self, region: str, source: str) -> float | None:
        """Seconds by which a region may have been behind a source when it was last looked at.

        None where no heartbeat of the source has been seen in it.
        """
        return self._behind.get((region, source))
