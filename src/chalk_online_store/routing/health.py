"""The health of one region, as one process sees it.

```
            slow, or often overtaken            well for `return_after`
  HEALTHY ───────────────────────────> SLOW ──────────────────────────> RETURNING ──> HEALTHY
     │                                   │                               ^    │   over `return_over`
     │   failures in a row, or a share   v                               │    │
     └────────────────────────────────> DOWN ────────────────────────────┘    │
                                         ^ ────────────── failures ───────────┘
```

Failures are what an engine that is well does not do: no connection, no answer in time, 5xx, a
damaged answer, the refusal of a request that another region accepts. Throttles and other refusals
are answers: proof of life. Every change begins a new
generation; what was sent in an earlier one says nothing of this one.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Hashable
from enum import StrEnum

from chalk_online_store.routing.settings import Routing
from chalk_online_store.schema import seconds

# --- How long requests of one kind take in one region, and how long they usually do --------


RECENT_LATENCIES = 128
"""Requests that percentiles are of."""

_FRESH = 16
_FIRST = 4
"""Percentiles are reckoned anew after so many requests, and the first time after so many."""

_UPWARDS_SECONDS = 600.0
"""In about so long, what was slow becomes usual; what is faster becomes usual much sooner."""

_SLOW_FACTOR = 3.0
_SLOW_SECONDS = 0.02
"""A request is slow that takes so many times what is usual, and so much longer."""


class Latency:
    """The last requests of one kind; all in seconds, and None until enough were seen.

    `percentile`, from 0 to 1, is the one that `high` tells.
    """

    __slots__ = ("_fresh", "_percentile", "_recent", "_reckoned_at", "high", "slow_from", "usual")

    def __init__(self, percentile: float) -> None:
        self._percentile = percentile
        self._recent: deque[float] = deque(maxlen=RECENT_LATENCIES)
        self._fresh = 0
        self._reckoned_at = 0.0
        self.high: float | None = None
        self.usual: float | None = None
        self.slow_from = math.inf
        """A request that takes longer takes much longer than usual."""

    def add(self, seconds: float, now: float, well: bool) -> None:
        """Count a request; only of a region that is `well` it is learnt what is usual."""
        self._recent.append(seconds)
        self._fresh += 1
        if self._fresh >= (_FIRST if self.usual is None else _FRESH):
            self._recompute(now, well)

    def _recompute(self, now: float, well: bool) -> None:
        ordered = sorted(self._recent)
        median = ordered[len(ordered) // 2]
        self.high = ordered[int(len(ordered) * self._percentile)]
        if self.usual is None:
            self.usual = median
        elif median < self.usual:
            self.usual += (median - self.usual) / 2
        elif well:
            share = min(1.0, (now - self._reckoned_at) / _UPWARDS_SECONDS)
            self.usual += (median - self.usual) * share
        self.slow_from = max(self.usual * _SLOW_FACTOR, self.usual + _SLOW_SECONDS)
        self._fresh, self._reckoned_at = 0, now


FAILURES_IN_A_ROW = 3
FAILURES_OF_ONE_UNSURE = 2
"""Failures in a row that mark a region down: fewer of one that is slow, or just returning."""

FAILING_SHARE = 0.2
FAILURES_OF_A_SHARE = 4
"""Failures that a share of them is believed from."""

SLOW_OF_RECENT = 12
RECENT = 20
"""A region is slow when so many of its last requests were."""

_BY_CHANCE = 1e-6
_OVERTAKEN_SECONDS = 0.05
"""It is slow as well when others overtake so many in a row that this is no chance any more.

Not within a moment, though, in which many that were under way had to wait for the same thing.
"""

GOOD_IN_A_ROW = 3
"""A region returns after so many good answers, if they come over `return_after`."""

_MEMORY_SECONDS = 5.0
"""After so long, an answer or a failure counts for a third in the share of failures."""

_FORGOTTEN = 0.01
_FIRST_SHARE = 0.05
_LONGEST_AFTER = 300.0
_FORGIVEN_AFTER = 600.0
"""Seconds of health after which it is forgotten how often a region has relapsed."""

_MOST_KINDS = 64
_NEWEST = 0.3


class RegionState(StrEnum):
    """What a region is used for: everything, only where nothing better is, or a share."""

    HEALTHY = "healthy"
    SLOW = "slow"
    DOWN = "down"
    RETURNING = "returning"


class RegionHealth:
    """One region's state. Times are readings of the monotonic clock, in seconds."""

    def __init__(self, name: str, routing: Routing, rng: random.Random) -> None:
        self.name = name
        self.state = RegionState.HEALTHY
        self.reason = ""
        self.generation = 0
        self.since = -math.inf
        self.reached_at = -math.inf
        """When it last answered."""
        self.distance: float | None = None
        """Seconds that a probe usually takes; None until there was one."""
        self.latest: float | None = None
        """Seconds that probes took last."""
        self.hedges = self.failovers = 0
        """Requests that came here because another region, or connection, took long or failed."""
        self.latencies: dict[Hashable, Latency] = {}
        self._rng = rng
        self._percentile = routing.hedging.percentile if routing.hedging else 0.95
        self._most_overtaken = math.ceil(math.log(_BY_CHANCE) / math.log(1 - self._percentile))
        self._return_after = seconds(routing.return_after)
        self._return_over = seconds(routing.return_over)
        self._relapses = 0
        self._after = self._over = self._counted_at = 0.0
        self._failures = self._attempts = self._overtaken_since = 0.0
        self._failed_in_a_row = self._good_in_a_row = self._overtaken = self._slow_ones = 0
        self._delayed = 0
        self._begin_anew(-math.inf)

    @property
    def well(self) -> bool:
        """Whether it is healthy, or about to be."""
        return self.state in (RegionState.HEALTHY, RegionState.RETURNING)

    @property
    def recovering(self) -> bool:
        """Whether the last that was heard of it is good."""
        return self._good_in_a_row > 0

    def share(self, now: float) -> float:
        """The part of the traffic that it may have, from 0 to 1."""
        if self.state is RegionState.HEALTHY:
            return 1.0
        if self.state is not RegionState.RETURNING:
            return 0.0
        return max(_FIRST_SHARE, (now - self.since) / self._over)

    def latency(self, kind: Hashable) -> Latency:
        """How long requests of a kind take."""
        found = self.latencies.get(kind)
        if found is None:
            if len(self.latencies) >= _MOST_KINDS:
                self.latencies.clear()
            found = self.latencies[kind] = Latency(self._percentile)
        return found

    # --- what happened ---------------------------------------------------------------------

    def answered(self, generation: int, kind: Hashable, took: float, now: float) -> None:
        """A request that was sent in `generation` got a good answer after `took` seconds."""
        latency = self.latencies.get(kind) or self.latency(kind)
        slow = took > latency.slow_from
        if slow and self._delayed:
            self._delayed -= 1
            self._alive(generation, now, slow=False)
            return
        latency.add(took, now, self.state is RegionState.HEALTHY)
        self._alive(generation, now, slow)

    def delayed(self) -> None:
        """A stale connection, not the region, has delayed a request: its answer is not slow."""
        self._delayed = min(self._delayed + 1, RECENT)

    def refused(self, generation: int, now: float) -> None:
        """A request was throttled, or refused for what it asks: whoever refuses is alive."""
        self._alive(generation, now, slow=False)

    def lost_hedge(self, generation: int, kind: Hashable, took: float, now: float) -> None:
        """After `took` seconds without an answer here, another region had answered."""
        latency = self.latency(kind)
        slow = took > latency.slow_from
        if took > (latency.high or 0.0):  # Else it is not known how long it would have taken.
            latency.add(took, now, self.state is RegionState.HEALTHY)
        if generation != self.generation:
            return
        if not self._overtaken:
            self._overtaken_since = now
        self._overtaken += 1
        self._spotless = False
        if slow:
            self._saw(slow)
        self._judge_pace(now)

    def failed(self, generation: int, why: str, now: float) -> None:
        """A request failed as none does where all is well."""
        if generation != self.generation:
            return
        self._forget(now)
        self._spotless = False
        self._failures += 1
        self._attempts += 1
        self._failed_in_a_row += 1
        self._good_in_a_row = 0
        if self.state is RegionState.DOWN:
            return
        sure = self.state is RegionState.HEALTHY
        most = FAILURES_IN_A_ROW if sure else FAILURES_OF_ONE_UNSURE
        often = (
            self._failures >= FAILURES_OF_A_SHARE
            and self._failures >= self._attempts * FAILING_SHARE
        )
        if self._failed_in_a_row >= most or often:
            self._become(RegionState.DOWN, why, now)

    def probed(self, took: float) -> None:
        """A probe, which is the same request everywhere, was answered after `took` seconds."""
        usual = self.distance
        self.latest = took if self.latest is None else _towards(self.latest, took)
        if usual is None or self.state is RegionState.HEALTHY or took < usual:
            self.distance = took if usual is None else _towards(usual, took)

    def tick(self, now: float) -> None:
        """Do what only the passing of time brings about."""
        if self.state is RegionState.RETURNING and now - self.since >= self._over:
            self._become(RegionState.HEALTHY, "", now)
        elif self.state is RegionState.HEALTHY and now - self.since > _FORGIVEN_AFTER:
            self._relapses = 0

    # --- judging ---------------------------------------------------------------------------

    def _alive(self, generation: int, now: float, slow: bool) -> None:
        self.reached_at = now
        if generation != self.generation:
            return
        self._forget(now)
        self._attempts += 1
        if self._spotless and not slow and self.state is RegionState.HEALTHY:
            return  # That is how it almost always is.
        self._failed_in_a_row = self._overtaken = 0
        if self.well:
            self._saw(slow)
            self._judge_pace(now)
            self._spotless = not self._slow_ones and self._failures < _FORGOTTEN
        else:
            self._judge_recovery(slow, now)

    def _judge_pace(self, now: float) -> None:
        if not self.well:
            return
        if (
            self._overtaken >= self._most_overtaken
            and now - self._overtaken_since >= _OVERTAKEN_SECONDS
        ):
            self._become(RegionState.SLOW, "others answer sooner, time and again", now)
        elif self._slow_ones >= SLOW_OF_RECENT:
            self._become(RegionState.SLOW, "most requests take several times as long as usual", now)

    def _judge_recovery(self, slow: bool, now: float) -> None:
        if slow:
            self._good_in_a_row = 0
            return
        if not self._good_in_a_row:
            self._good_since = now
        self._good_in_a_row += 1
        if self._good_in_a_row >= GOOD_IN_A_ROW and now - self._good_since >= self._after:
            self._become(RegionState.RETURNING, "well again", now)

    def _saw(self, slow: bool) -> None:
        recent = self._recent
        if len(recent) == RECENT:
            self._slow_ones -= recent[0]
        recent.append(slow)
        self._slow_ones += slow

    def _forget(self, now: float) -> None:
        """Let what was long ago count for less."""
        passed = now - self._counted_at
        if passed > _MEMORY_SECONDS / 8:
            factor = math.exp(-passed / _MEMORY_SECONDS)
            self._failures *= factor
            self._attempts *= factor
            self._counted_at = now

    def _become(self, state: RegionState, reason: str, now: float) -> None:
        if self.state is RegionState.RETURNING and state is not RegionState.HEALTHY:
            self._relapses += 1
        self.state, self.reason, self.since = state, reason, now
        self.generation += 1
        if not self.well:
            self.latest = None  # What probes took before says nothing of now.
        self._begin_anew(now)

    def _begin_anew(self, now: float) -> None:
        self._failures = self._attempts = 0.0
        self._counted_at = now
        self._failed_in_a_row = self._good_in_a_row = self._overtaken = 0
        self._good_since = now
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._delayed = 0
        """Slow answers to come that a stale connection has delayed."""
        self._spotless = True
        """Whether there is no failure, and nothing slow, that one more answer could be held to."""
        self._slow_ones = 0
        # At random, so that the processes of a fleet do not all return at the same moment.
        after = self._return_after * self._rng.uniform(1.0, 1.5) * 2.0**self._relapses
        self._after = min(after, max(_LONGEST_AFTER, self._return_after))
        self._over = self._return_over * self._rng.uniform(1.0, 1.5)


def _towards(usual: float, took: float) -> float:
    return usual + (took - usual) * _NEWEST
