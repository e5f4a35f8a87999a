"""Requests that fail over and are hedged: one attempt, in as many regions as it takes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from chalk_online_store.backend import Attempt, Call, RequestInfo
from chalk_online_store.effects import NOW, Instant, Operation, Race, Spawn
from chalk_online_store.errors import RegionUnavailable, RequestError, StaleConnection
from chalk_online_store.routing.router import Router

T = TypeVar("T")

_HEDGED = frozenset(("GetItem", "BatchGetItem", "Query", "MGET"))

Probe = Callable[[str], Operation[None]]
"""Reads a region's heartbeats, so that the router learns how it is."""


class RoutedAttempts:
    """Sends each request where a router says. `probe` is set by whoever can read heartbeats."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.home = router.home
        self.probe: Probe | None = None

    @property
    def written(self) -> str:
        """See `backend.Route.written`."""
        return self.router.written

    def attempt(
        self, attempt: Attempt[T], asked: RequestInfo, now: Instant, call: Call
    ) -> Operation[T]:
        """See `backend.Route.attempt`."""
        if self.probe is not None and not call.region:
            for region in self.router.due(now.monotonic):
                yield Spawn(self.probe(region))
        regions = self._regions(asked, now, call)
        trip = _RoutedRequest(self.router, attempt, asked, call)
        strong = asked.strong or call.consistent
        if asked.operation in _HEDGED and not call.region and not strong:
            after = self.router.hedge_after(regions[0], trip.kind)
            if after is not None:
                return (yield from trip.hedge(list(regions), after, now))
        return (yield from self._ask(trip, regions, now))

    def _regions(self, asked: RequestInfo, now: Instant, call: Call) -> Sequence[str]:
        if call.region:
            return (call.region,)
        if asked.writes or asked.strong or call.consistent:
            return (self.router.to_write(now),)
        regions = self.router.to_read(now)
        if not regions:
            raise RegionUnavailable(
                f"{asked.operation}: no region may be asked: all are evacuated, or their "
                "replication is further behind than max_lag. See store.regions()."
            )
        return regions

    def _ask(self, trip: _RoutedRequest[T], regions: Sequence[str], now: Instant) -> Operation[T]:
        """Ask one region; the others only where it fails, and there are some.

        A write has one: it is not sent elsewhere as soon as it fails, see docs/failover.md.
        """
        first = _Attempt(regions[0])
        # Where a write may move to, it keeps time for that.
        elsewhere = regions if self.router.single_writer else self.router.regions
        others = 0 if trip.call.region else len(elsewhere) - 1
        try:
            until = trip.begin(first, others, now)
            answer = yield from trip.attempt(first.region, until)
        except RequestError as error:
            now = yield NOW
            trip.fail(first, error, now)
            return (yield from trip.fail_over(list(regions[1:]), error, first))
        now = yield NOW
        trip.succeed(first, now)
        return answer


class _Attempt:
    """One region's part in an attempt."""

    __slots__ = ("attempt_timeout", "began", "ended", "error", "generation", "region")

    generation: int
    attempt_timeout: float

    def __init__(self, region: str) -> None:
        self.region = region
        self.began = -1.0
        self.ended = False
        self.error: RequestError | None = None


class _NotHedged(Exception):
    """There was no hedge left to spend."""


class _RoutedRequest(Generic[T]):
    """One attempt on its way through the regions."""

    __slots__ = ("_router", "_writes", "attempt", "call", "kind")

    def __init__(self, router: Router, attempt: Attempt[T], asked: RequestInfo, call: Call) -> None:
        self._router = router
        self._writes = asked.writes
        self.attempt = attempt
        self.call = call
        # Requests of about the same size take about the same time.
        self.kind: Hashable = (asked.operation, asked.size.bit_length())

    # --- one after the other ---------------------------------------------------------------

    def fail_over(self, untried: list[str], error: RequestError, *tried: _Attempt) -> Operation[T]:
        """Ask the regions that are left, after those of `tried` failed, the last with `error`.

        If a region accepts what others have refused, the refusals count against these. If none
        does, the first refusal is raised, unless a later error may pass.
        """
        first, legs = error, list(tried)
        while True:
            if not untried or not self._goes_elsewhere(error):
                raise self._final(error if error.retryable or not first.regional else first, legs)
            leg = _Attempt(untried.pop(0))
            legs.append(leg)
            try:
                answer = yield from self._run(leg, len(untried), None)
            except RequestError as failure:
                error = failure
            else:
                now: Instant = yield NOW
                self._refused_alone(legs, now)
                self._failed_over(leg, now)
                return answer

    def _final(self, error: RequestError, legs: Sequence[_Attempt]) -> RequestError:
        """The error to raise: a refusal is the answer of its region."""
        if error.regional:
            self.call.report.answered_by(next(g.region for g in legs if g.error is error), None)
        return error

    def _goes_elsewhere(self, error: RequestError) -> bool:
        """Whether another region may answer better: also if this one throttles again.

        A throttled region that may not be asked again, by its retry quota, counts as one that does.
        """
        if error.throttle:
            return self.call.report.retries > 0 or error.quota_used_up
        return error.engine_fault or error.regional or isinstance(error, StaleConnection)

    def _refused_alone(self, legs: Sequence[_Attempt], now: Instant) -> None:
        """Count refusals against their regions: another region has accepted the same request."""
        for leg in legs:
            if leg.error is not None and leg.error.regional:
                self._router.refused_alone(leg.region, leg.generation, leg.error, now.monotonic)

    def _run(self, leg: _Attempt, others: int, now: Instant | None) -> Operation[T]:
        """Ask a region, and tell the router of its failure."""
        if now is None:
            now = yield NOW
        try:
            answer = yield from self.attempt(leg.region, self.begin(leg, others, now))
        except RequestError as error:
            failed_at: Instant = yield NOW
            self.fail(leg, error, failed_at)
            raise
        leg.ended = True
        return answer

    # --- two at once -----------------------------------------------------------------------

    def hedge(self, untried: list[str], after: float, now: Instant) -> Operation[T]:
        """Ask the first region, and another one where it takes longer than `after` seconds."""
        assert self._router.hedges is not None
        self._router.hedges.earn()
        first = _Attempt(untried.pop(0))
        second = _Attempt(self._hedge_to(first.region, untried))
        legs = [
            self._first(first, second, len(untried), now),
            self._second(second, first, len(set(untried) - {second.region})),
        ]
        try:
            answer: T | RequestError = yield Race(legs, after)
            if isinstance(answer, RequestError):
                raise answer
        except RequestError as error:
            if second.ended and second.region in untried:
                untried.remove(second.region)
            return (yield from self.fail_over(untried, error, first, second))
        now = yield NOW
        self._settle(first, second, now)
        return answer

    def _hedge_to(self, region: str, untried: list[str]) -> str:
        """The next region that is well; where there is none, the same by another connection."""
        for name in untried:
            if self._router.may_hedge_to(name):
                return name
        return region

    def _first(
        self, leg: _Attempt, other: _Attempt, others: int, now: Instant
    ) -> Operation[T | RequestError]:
        try:
            return (yield from self._run(leg, others, now))
        except RequestError as error:
            if other.began >= 0 or self._goes_elsewhere(error):
                raise
            return error

    def _second(self, leg: _Attempt, first: _Attempt, others: int) -> Operation[T]:
        if first.error is None:
            assert self._router.hedges is not None
            if not self._router.hedges.take():
                raise _NotHedged
            self.call.report.hedges += 1
            self._router.hedged(leg.region)
        elif leg.region == first.region:
            raise _NotHedged  # It has just failed: retrying it waits a little.
        return (yield from self._run(leg, others, None))

    def _settle(self, first: _Attempt, second: _Attempt, now: Instant) -> None:
        """Tell the router who answered, and that the first was overtaken, if it was."""
        if first.ended and first.error is None:
            self.succeed(first, now)
        elif first.error is not None:
            self._refused_alone([first], now)
            self._failed_over(second, now)
        else:
            self.succeed(second, now)
            if first.region != second.region:
                took = now.monotonic - first.began
                self._router.lost_hedge(
                    first.region, first.generation, self.kind, took, now.monotonic
                )

    # --- what the router is told -----------------------------------------------------------

    def begin(self, leg: _Attempt, others: int, now: Instant) -> float:
        """A region is asked; until when, while `others` are still to be asked."""
        leg.began = now.monotonic
        leg.generation = self._router.health[leg.region].generation
        left = self.call.deadline - leg.began
        leg.attempt_timeout = self._router.attempt_timeout(leg.region, self.kind, left, others)
        return leg.began + leg.attempt_timeout

    def succeed(self, leg: _Attempt, now: Instant) -> None:
        """A region's answer is the one that counts."""
        took = now.monotonic - leg.began
        self._router.answered(leg.region, leg.generation, self.kind, took, now.monotonic)
        behind = None if self._writes else self._router.behind(leg.region)
        self.call.report.answered_by(leg.region, behind)

    def fail(self, leg: _Attempt, error: RequestError, now: Instant) -> None:
        """A region failed, or refused."""
        leg.ended, leg.error = True, error
        if not error.retryable and not error.regional:  # A refusal for good is an answer.
            self.call.report.answered_by(leg.region, None)
        self._router.raised(
            leg.region, leg.generation, self.kind, error, leg.attempt_timeout, now.monotonic
        )

    def _failed_over(self, leg: _Attempt, now: Instant) -> None:
        """A region answered after another one had failed."""
        self.call.report.failovers += 1
        self._router.failed_over(leg.region)
        self.succeed(leg, now)
