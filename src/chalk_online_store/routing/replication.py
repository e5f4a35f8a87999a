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
