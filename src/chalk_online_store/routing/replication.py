"""Detect replicas that no longer receive writes.

Problem. A replica that was disassociated from its Global Table, archived, or lost the authorisation
to replicate answers reads as before, with old values and no error. If writes fail over to it, the
two regions hold two different tables from then on.

Approach. Processes that write also write heartbeats in every region, and every process sees with
its probes which heartbeats each region shows. If a heartbeat that this process saw in a region A
has not arrived in B, although both regions were probed `STOPPED_AFTER_SECONDS` later, then B does
not receive A's writes.

Invariants.
- Only this process's monotonic clock counts, so skewed clocks of writers have no effect.
- The time is counted between two looks at A. While A cannot be reached, nothing can be said of B:
  the writes that A accepted last are missing there because of the loss.
- A pause of all writers adds no time to the count of a heartbeat that has arrived.

- After a region was unreachable for longer than `max_gap`, the count starts again at zero, so that
  the region can catch up.

Limits. A process that has just started needs that long to detect it, and without heartbeats
(`Routing(heartbeats=False)` everywhere) nothing is detected. See docs/decisions/0036.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

STOPPED_AFTER_SECONDS = 60.0
"""Global Tables usually need about a second, and AWS promises no bound. Below that, it is lag."""


@dataclass(slots=True)
class _Awaited:
    """A heartbeat (UTC us) that a source showed at `seen_at`, and a region has not shown yet."""

    heartbeat: int
    seen_at: float


Pair: TypeAlias = tuple[str, str]
"""A region, and the source whose writes it should receive."""


class ReplicationMonitor:
    """The pairs of regions between which replication has stopped. Times are monotonic seconds.

    `max_gap`, in seconds, is the longest time between two looks at a region for which earlier
    looks still count. Not thread-safe.
    """

    def __init__(self, max_gap: float = STOPPED_AFTER_SECONDS) -> None:
        self._max_gap = max_gap
        self._looked_at: dict[str, float] = {}
        self._newest: dict[str, int] = {}
        self._shown: dict[Pair, int] = {}
        self._awaited: dict[Pair, _Awaited] = {}
        self.stopped: frozenset[Pair] = frozenset()
        """Pairs of a region and a source whose writes it does not receive."""

    def saw(self, region: str, heartbeats: Mapping[str, int], now: float) -> frozenset[Pair]:
        """Record the heartbeats (UTC us) that a region showed. Return what `stopped` was before."""
        if now - self._looked_at.get(region, now) > self._max_gap:
            # It was unreachable, or this process was suspended: it may still have to catch up.
            self._awaited = {
                pair: awaited for pair, awaited in self._awaited.items() if region not in pair
            }
        self._looked_at[region] = now
        self._newest[region] = heartbeats.get(region, 0)
        for source in self._looked_at:
            self._shown[region, source] = heartbeats.get(source, 0)
        before = self.stopped
        affected = [
            pair
            for other in self._looked_at
            if other != region
            for pair in ((region, other), (other, region))
        ]
        stopped = {pair for pair in affected if self._has_stopped(pair, now)}
        self.stopped = (before - set(affected)) | stopped
        return before

    def sources_missing(self, region: str) -> tuple[str, ...]:
        """Return the regions from which a region receives no writes."""
        return tuple(sorted(source for target, source in self.stopped if target == region))

    def _has_stopped(self, pair: Pair, now: float) -> bool:
        target, source = pair
        shown, newest = self._shown.get(pair, 0), self._newest[source]
        awaited = self._awaited.get(pair)
        if awaited is not None and shown >= awaited.heartbeat:
            del self._awaited[pair]
            awaited = None
        if awaited is None:
            if shown < newest:
                self._awaited[pair] = _Awaited(newest, now)
            return False
        looked_at = min(self._looked_at[target], self._looked_at[source])
        return looked_at - awaited.seen_at >= STOPPED_AFTER_SECONDS


# --- How far each region's replication is behind the others, by heartbeats -----------------
#
# A heartbeat is an item of each region, written there with the time of its writer. What another
# region shows of it tells up to when that region has what was written in the first. It is an
# estimate: DynamoDB replicates item by item, in no order among items.


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
