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

import time
from collections.abc import Callable
from typing import Protocol

from chalk_online_store.routing.hedging import HedgeBudget

KEEPALIVE_TIMEOUT = 50.0
"""Default of the URL option, in seconds. Users have seen DynamoDB close idle connections after 60
(aws/aws-sdk-java#1365) to 90 seconds (feast-dev/feast#5167). An Application Load Balancer closes
them after 60 seconds by default, NAT gateways and Network Load Balancers drop them after 350."""

_SHORTEST_BOUND = 0.1
_TIMES_USUAL = 4.0
_LARGEST_SHARE = 0.5
"""The bound of silence: this many times the usual peak of latency, within these limits."""

_DECAY = 0.01
"""Share by which each response lowers a peak that it does not reach."""

_BUDGET_SHARE = 0.05


class Idle(Protocol):
    """A connection in a pool."""

    idle_since: float
    """When it was last used, on the monotonic clock."""
    idle_since_wall: float
    """The same on the wall clock."""


def _ignore() -> None:
    pass


class Reuse:
    """The connections of one endpoint: how long they may be idle, and silent. Thread-safe."""

    def __init__(self, keepalive_timeout: float, pool_size: int) -> None:
        self.keepalive_timeout = keepalive_timeout
        self.on_stale: Callable[[], None] = _ignore
        """Called for each connection that proved stale, and so for each request that it delayed."""
        self._peak = 0.0
        self._budget = HedgeBudget(_BUDGET_SHARE, max(pool_size, 1))

    def has_expired(self, connection: Idle, now: float) -> bool:
        """Return True if a connection was idle for too long at `now`, by either clock."""
        limit = self.keepalive_timeout
        if now - connection.idle_since > limit:
            return True
        return time.time() - connection.idle_since_wall > limit

    def silence_bound(self, timeout: float) -> float:
        """Seconds that a reused connection may be silent in an attempt of `timeout` seconds."""
        return min(max(_SHORTEST_BOUND, self._peak * _TIMES_USUAL), timeout * _LARGEST_SHARE)

    def responded(self, took: float) -> None:
        """Count a response that arrived `took` seconds after its request."""
        self._budget.earn()
        peak = self._peak
        self._peak = took if took > peak else peak + (took - peak) * _DECAY

    def may_send_twice(self) -> bool:
        """Return True if the request of a doubted connection may be sent on another one."""
        return self._budget.take()
