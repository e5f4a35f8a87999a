"""Where vector searches go: DynamoDB has an endpoint of its own for them in every region.

That endpoint can fail while the region's reads and writes succeed, and the other way round. So its
failures do not count against the region. Which regions may be read, and in which order, is the
router's decision all the same: it knows an operator's orders and how far replication is behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from chalk_online_store.backend import Attempt, Call, RequestInfo
from chalk_online_store.effects import NOW, Instant, Operation
from chalk_online_store.errors import RegionUnavailable, RequestError, StaleConnection
from chalk_online_store.routing.router import Router

T = TypeVar("T")

RETRY_AFTER_SECONDS = 5.0
"""A failed endpoint is tried last for so long, then as before."""


class SearchRoute:
    """Sends each search to the first readable region whose endpoint for searches does not fail.

    Thread-safe.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self.home = router.home
        self._failed_at: dict[str, float] = {}
        """When an endpoint failed last, by the monotonic clock. Each access is one call into C."""

    @property
    def written(self) -> str:
        """See `backend.Route.written`."""
        return self._router.written

    def failing(self, region: str, now: float) -> bool:
        """Return True if the endpoint for searches of a region has failed a moment ago."""
        failed_at = self._failed_at.get(region)
        return failed_at is not None and now - failed_at < RETRY_AFTER_SECONDS

    def attempt(
        self, attempt: Attempt[T], asked: RequestInfo, now: Instant, call: Call
    ) -> Operation[T]:
        """See `backend.Route.attempt`. Each region gets its share of the time that is left."""
        regions = self._regions(asked, now, call)
        for place, region in enumerate(regions):
            left = call.deadline - now.monotonic
            until = now.monotonic + left / (len(regions) - place)
            try:
                answer = yield from attempt(region, until)
            except RequestError as error:
                now = yield NOW
                if error.engine_fault:
                    self._failed_at[region] = now.monotonic
                if place + 1 == len(regions) or not _may_succeed_elsewhere(error):
                    call.report.answered_by(region, None)
                    raise
                continue
            self._failed_at.pop(region, None)
            call.report.failovers += place > 0
            call.report.answered_by(region, self._router.behind(region))
            return answer
        raise AssertionError  # There is at least one region, and the last one returns or raises.

    def _regions(self, asked: RequestInfo, now: Instant, call: Call) -> Sequence[str]:
        if call.region:
            return (call.region,)
        regions = self._router.to_read(now)
        if not regions:
            raise RegionUnavailable(
                f"{asked.operation}: no region may be asked: all are evacuated, or their "
                "replication is further behind than max_lag. See store.regions()."
            )
        return sorted(regions, key=lambda region: self.failing(region, now.monotonic))


def _may_succeed_elsewhere(error: RequestError) -> bool:
    return (
        error.engine_fault
        or error.regional
        or error.quota_used_up
        or isinstance(error, StaleConnection)
    )
