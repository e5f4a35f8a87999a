"""When a pooled connection may carry another request, and what its failure means.

Problem. Networks forget connections. A NAT gateway drops an idle one after 350 seconds, a load
balancer after 60, and DynamoDB itself closes one after 60 to 90 seconds. A frozen Lambda function
or a suspended machine notices none of it. The next request on such a connection is answered by a
reset, or by nothing at all. That says nothing about the engine: a new connection works at once.

Rules, the same for threads and for asyncio.
- A connection that was idle for longer than `keepalive_timeout` is closed and not used. The age is
  the larger one of two clocks, since the monotonic clock may stand still while a machine is frozen.
- A reused connection that breaks before the first byte of its response is stale. All idle
  connections that were last used at the same time or earlier are closed with it, and the request
  is sent again at once on a new connection. Any request may be sent twice, as retries do too.
- A reused connection that is silent for `silence_bound` seconds is doubted: the request is sent on
  a new connection as well, and the first response counts. If that is the new connection's, the
  other one is stale. A budget keeps this from doubling the load of an engine that is slow.
- A request that was given up, such as the loser of a hedge, leaves a silent connection behind.
  While it is silent, idle connections of its age or older are not used.
- None of this counts against a region: see `routing.attempts`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

KEEPALIVE_TIMEOUT = 50.0
"""Default of the URL option, in seconds. Users have seen DynamoDB close idle connections after 60
(aws/aws-sdk-java#1365) to 90 seconds (feast-dev/feast#5167). An Application Load Balancer closes
them after 60 seconds by default, NAT gateways and Network Load Balancers drop them after 350."""

TIDY_SECONDS = 1.0
"""How often a request looks for expired connections beside the one that it takes."""

_SHORTEST_BOUND = 0.1
_TIMES_USUAL = 4.0
_LARGEST_SHARE = 0.5
"""The bound of silence: so many times the peak of latency, within these limits."""

_KEPT_PER_SECOND = 0.9
"""Share of a peak that is left after a second without a higher one."""

_TWICE_PER_SECOND = 1.0
"""Requests per second that may be sent twice, beside a burst of one per connection."""


class Idle(Protocol):
    """A connection in a pool."""

    idle_since: float
    """When it was last used, on the monotonic clock."""
    wall_offset: float
    """How far the wall clock was ahead of the monotonic one then."""
    began_at: float
    """When its last request was sent, on the monotonic clock."""


def _ignore() -> None:
    pass


class Reuse:
    """The connections of one endpoint: how long they may be idle, and silent. Thread-safe."""

    def __init__(self, keepalive_timeout: float, pool_size: int) -> None:
        self.keepalive_timeout = keepalive_timeout
        self.on_stale: Callable[[], None] = _ignore
        """Called for each connection that proved stale, and so for each request that it delayed."""
        self._peak = 0.0
        self._bound = _SHORTEST_BOUND
        self._wall_offset = time.time() - time.monotonic()
        self._most_twice = self._may_be_twice = max(float(pool_size), 1.0)
        self._faded_at = self._counted_at = math.inf
        self._fades_at = -math.inf

    # --- how long a connection was idle ---

    def stamp(self, connection: Idle) -> None:
        """Note that a connection is idle from now on, and what its request took."""
        connection.idle_since = now = time.monotonic()
        connection.wall_offset = self._wall_offset
        if now - connection.began_at > self._peak:
            self._set_peak(now - connection.began_at)

    def responded(self, took: float) -> None:
        """Count a response that arrived `took` seconds after its request, as `stamp` does."""
        if took > self._peak:
            self._set_peak(took)

    def has_expired(self, connection: Idle, now: float) -> bool:
        """Return True if a connection was idle for too long at `now`, by either clock."""
        if now >= self._fades_at:
            self._fade(now)
        self._wall_offset = offset = time.time() - now
        age = now - connection.idle_since
        limit = self.keepalive_timeout
        return age > limit or age + offset - connection.wall_offset > limit

    # --- how long a connection may be silent ---

    def silence_bound(self, timeout: float) -> float:
        """Seconds that a reused connection may be silent in an attempt of `timeout` seconds."""
        largest = timeout * _LARGEST_SHARE
        return min(largest, self._bound)

    def _fade(self, now: float) -> None:
        """Let the peak of latency fade."""
        self._set_peak(self._peak * _KEPT_PER_SECOND ** max(0.0, now - self._faded_at))
        self._faded_at = now
        self._fades_at = now + 1.0

    def _set_peak(self, peak: float) -> None:
        self._peak = peak
        self._bound = max(_SHORTEST_BOUND, peak * _TIMES_USUAL)

    def may_send_twice(self, now: float) -> bool:
        """Return True if the request of a doubted connection may be sent on another one."""
        earned = max(0.0, now - self._counted_at) * _TWICE_PER_SECOND
        self._counted_at = now
        self._may_be_twice = min(self._most_twice, self._may_be_twice + earned)
        if self._may_be_twice < 1:
            return False
        self._may_be_twice -= 1
        return True
