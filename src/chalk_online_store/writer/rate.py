"""How fast a writer may go: write units a second, requests at once, and when to try again.

Every time is given: seconds on the monotonic clock.
"""

from __future__ import annotations

import math
import random

from chalk_online_store.retry import RetryPolicy, raise_delay
from chalk_online_store.routing.hedging import HedgeBudget

_DECREASE = 0.7
_A_SECOND = 1.0
_SLOWEST = 1.0
"""WCU a second: throttles do not lower the rate below this."""

_RECOVERY = 30.0
"""Seconds, about, from nothing to the full rate."""


class WriteRate:
    """A token bucket of write units, lowered by throttles.

    `ceiling` is in WCU a second; None for none, until a throttle tells of one. Additive increase,
    multiplicative decrease: D.-M. Chiu and R. Jain, "Analysis of the Increase and Decrease
    Algorithms for Congestion Avoidance in Computer Networks", 1989. Units are spent as they are
    estimated, and settled once the engine has told: the bucket may owe.
    """

    def __init__(self, ceiling: float | None) -> None:
        self._ceiling = math.inf if ceiling is None else ceiling
        self.rate = self._ceiling
        self._level = 0.0 if self.rate == math.inf else self.rate
        self._at: float | None = None
        self._slowed_at = -math.inf
        self._increase = 0.0 if self.rate == math.inf else self.rate / _RECOVERY
        self._second = _Second()

    def wait(self, now: float, backfill: bool) -> float:
        """Seconds until something may be sent; 0 for now.

        Backfills leave half of the bucket to live rows, and all of it for a second after a
        throttle.
        """
        if not self.bounded:
            return 0.0
        self._refill(now)
        held_back = self._slowed_at + _A_SECOND - now if backfill else 0.0
        reserve = self.rate / 2 if backfill else 0.0
        missing = reserve - self._level
        return max(0.0, held_back, (missing + 1e-9) / self.rate if missing >= 0 else 0.0)

    @property
    def bounded(self) -> bool:
        """Whether there is a rate to keep."""
        return self.rate < math.inf

    @property
    def most(self) -> float:
        """WCU that may be sent in one go: a tenth of a second's."""
        return self.rate / 10

    def _refill(self, now: float) -> None:
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        self.rate = min(self._ceiling, self.rate + self._increase * passed)
        self._level = min(self.rate, self._level + self.rate * passed)

    def spend(self, units: float) -> None:
        """So many units are sent, by estimate."""
        if self.bounded:
            self._level -= units

    def settle(self, estimated: float, consumed: float, throttled: bool, now: float) -> None:
        """What was sent has consumed this; whether the engine asked for a slower pace."""
        if consumed and self.bounded:
            self._level -= consumed - estimated
        self._second.count(consumed or estimated, now)
        if throttled and now - self._slowed_at >= _A_SECOND:
            self._slow(now)

    def _slow(self, now: float) -> None:
        """At most once a second: what is under way then is throttled for the same reason."""
        self._slowed_at = now
        base = self._second.units(now) if self.rate == math.inf else self.rate
        if self._increase == 0.0:
            self._increase = max(_SLOWEST, base) / _RECOVERY
            self._at = now
        self.rate = max(_SLOWEST, min(base, self.rate) * _DECREASE)
        self._level = min(self._level, 0.0)


class _Second:
    """How many units went out in the last whole second, about."""

    def __init__(self) -> None:
        self._began = -math.inf
        self._now = 0.0
        self._last = 0.0

    def count(self, units: float, now: float) -> None:
        if now - self._began >= _A_SECOND:
            self._last = self._now if now - self._began < 2 * _A_SECOND else 0.0
            self._now, self._began = 0.0, now
        self._now += units

    def units(self, now: float) -> float:
        return max(self._last, self._now)


class Concurrency:
    """How many requests may be under way: by TCP Vegas' rule, from what they take.

    L. Brakmo, S. O'Malley and L. Peterson, "TCP Vegas", 1994: with `n` under way, of which each
    takes `t` where the quickest took `b`, about `n * (1 - b / t)` are waiting in a queue. There
    should be a few.
    """

    _FEW, _MANY = 3.0, 6.0
    _FORGET = 1.0001

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(min(8, most))
        self.under_way = 0
        self._quickest = math.inf

    @property
    def free(self) -> int:
        """How many more may begin."""
        return max(0, int(self.limit) - self.under_way)

    def began(self, requests: int) -> None:
        """So many have begun."""
        self.under_way += requests

    def ended(self, requests: int, took: float, well: bool) -> None:
        """They have ended, together, after so many seconds."""
        busy = self.under_way >= self.limit - requests
        self.under_way -= requests
        if not well:
            self.limit = max(1.0, self.limit * _DECREASE)
            return
        self._quickest = min(self._quickest * self._FORGET, took)
        queued = self.limit * (1 - self._quickest / took) if took > 0 else 0.0
        if queued < self._FEW and busy:
            self.limit = min(float(self.most), self.limit + 1)
        elif queued > self._MANY:
            self.limit = max(1.0, self.limit - 1)


class Retries:
    """When a writer may send again after failures.

    As long as everything fails, one batch at a time is tried, after jittered backoff. Where only
    some fail, each retry takes a token of which successes bring a few: with none left, it waits.
    """

    def __init__(self, policy: RetryPolicy, rng: random.Random) -> None:
        self._policy = policy
        self._rng = rng
        self._budget = HedgeBudget(0.2, 100)
        self._failures = 0
        self.not_before = 0.0
        self.ill = False
        """Whether the last that was tried has failed altogether."""

    def succeeded(self, changes: int) -> None:
        """So many changes are in the table."""
        for _ in range(changes):
            self._budget.earn()
        self.ill, self._failures = False, 0

    def failed(
        self, changes: int, wholly: bool, now: float, retry_after: float | None = None
    ) -> None:
        """So many changes of a batch have failed, or all of them.

        `retry_after` is how many seconds AWS asks to wait, if it does.
        """
        spent = [self._budget.take() for _ in range(changes)]
        if not wholly and all(spent) and retry_after is None:
            return
        self.ill = self.ill or wholly
        ceiling = min(self._policy.cap, self._policy.base * 2.0**self._failures)
        self._failures = min(self._failures + 1, 30)
        self.not_before = now + raise_delay(self._rng.uniform(0, ceiling), retry_after)
