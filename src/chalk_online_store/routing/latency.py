"""How long requests of one kind take in one region, and how long they usually do."""

from __future__ import annotations

import math
from collections import deque

RECENT = 128
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
        self._recent: deque[float] = deque(maxlen=RECENT)
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
