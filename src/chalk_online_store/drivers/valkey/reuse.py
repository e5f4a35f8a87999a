"""When a pooled connection to a server may carry another request, and how long it may be silent.

The rules are those of `drivers.http.reuse`, which gives the reasons. Here a doubted connection is
closed when the request is sent on another one: its response is not awaited any more.
"""

from __future__ import annotations

import time
from typing import Protocol

_SHORTEST_BOUND = 0.1
_TIMES_USUAL = 4.0
_LARGEST_SHARE = 0.5
"""The bound of silence: so many times the peak of latency, within these limits."""

_DECAY = 0.01
"""Share by which each response lowers a peak that it does not reach."""

_SENT_TWICE = 0.05
"""Requests that may be sent twice for each response, beside a burst of one per connection."""


class Idle(Protocol):
    """A connection in a pool."""

    idle_since: float
    """When it was last used, on the monotonic clock."""
    idle_since_wall: float
    """The same on the wall clock."""


class Reuse:
    """The connections to one server: how long they may be idle, and silent. Thread-safe."""

    def __init__(self, keepalive_timeout: float, pool_size: int) -> None:
        self._keepalive_timeout = keepalive_timeout
        self._peak = 0.0
        self._burst = self._sent_twice_left = float(max(pool_size, 1))

    def has_expired(self, connection: Idle, now: float) -> bool:
        """Return True if a connection was idle for too long at `now`, by either clock.

        The monotonic clock may stand still while a machine is frozen.
        """
        limit = self._keepalive_timeout
        if now - connection.idle_since > limit:
            return True
        return time.time() - connection.idle_since_wall > limit

    def silence_bound(self, timeout: float) -> float:
        """Seconds that a reused connection may be silent in an attempt of `timeout` seconds."""
        return min(max(_SHORTEST_BOUND, self._peak * _TIMES_USUAL), timeout * _LARGEST_SHARE)

    def responded(self, took: float) -> None:
        """Count a response that arrived `took` seconds after its request."""
        self._sent_twice_left = min(self._burst, self._sent_twice_left + _SENT_TWICE)
        peak = self._peak
        self._peak = took if took > peak else peak + (took - peak) * _DECAY

    def may_send_twice(self) -> bool:
        """Return True if the request of a doubted connection may be sent on another one."""
        if self._sent_twice_left < 1:
            return False
        self._sent_twice_left -= 1
        return True
