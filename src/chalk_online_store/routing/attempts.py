"""Requests that fail over and are hedged: one attempt, in as many regions as it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from chalk_online_store.backend import Asked, Attempt, Call
from chalk_online_store.effects import NOW, Instant, Operation, Race, Spawn
from chalk_online_store.errors import RegionUnavailable, RequestError
from chalk_online_store.routing.router import Router

T = TypeVar("T")

_HEDGED = frozenset(("GetItem", "BatchGetItem", "Query"))

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

    def attempt(self, attempt: Attempt[T], asked: Asked, now: Instant, call: Call) -> Operation[T]:
        """See `backend.Route.attempt`."""
        if self.probe is not None and not call.region:
            for region in self.router.due(now.monotonic):
                yield Spawn(self.probe(region))
        regions = self._regions(asked, now, call)
        trip = _Trip(self.router, attempt, asked, call)
        if len(regions) == 1 and (asked.writes or call.region or not trip.hedged):
            # A write is not sent elsewhere as soon as it fails: see docs/failover.md.
            return (yield from trip.ask_one(regions[0], now))
        return (yield from trip.ask(regions, now))

    def _regions(self, asked: Asked, now: Instant, call: Call) -> Sequence[str]:
        if call.region:
            return (call.region,)
        if asked.writes or call.consistent:
            return (self.router.to_write(now),)
        regions = self.router.to_read(now)
        if not regions:
            raise RegionUnavailable(
                f"{asked.operation}: no region may be asked: all are evacuated, or their "
                "replication is further behind than max_lag. See store.regions()."
            )
        return regions


class _Leg:
    """One region's part in an attempt."""

    __slots__ = ("began", "ended", "error", "generation", "region")

    def __init__(self, region: str) -> None:
        self.region = region
        self.generation = 0
        self.began = -1.0
        self.ended = False
        self.error: RequestError | None = None


class _NotHedged(Exception):
    """There was no hedge left to spend."""


class _Trip(Generic[T]):
    """One attempt on its way through the regions."""

    def __init__(self, router: Router, attempt: Attempt[T], asked: Asked, call: Call) -> None:
        self._router = router
        self._attempt = attempt
        self._call = call
        # Requests of about the same size take about the same time.
        self._kind = (asked.operation, asked.size.bit_length())
        self._writes = asked.writes
        self.hedged = (
            router.hedges is not None
            and asked.operation in _HEDGED
            and not call.region
            and not call.consistent
        )

    def ask_one(self, region: str, now: Instant) -> Operation[T]:
        """Ask one region alone, with patience for the others where it is not the only one."""
        others = 0 if self._call.region else len(self._router.regions) - 1
        leg = _Leg(region)
        answer = yield from self._run(leg, others, now)
        self._won(leg, (yield NOW))
        return answer

    def ask(self, regions: Sequence[str], now: Instant | None) -> Operation[T]:
        """Ask the regions one after the other, as each fails, or takes too long."""
        untried = list(regions)
        failed = False
        while True:
            first = _Leg(untried.pop(0))
            second = None
            after = self._hedge_after(first.region)
            try:
                if after is None:
                    answer = yield from self._run(first, len(untried), now)
                else:
                    second = _Leg(self._hedge_to(first.region, untried))
                    answer = yield from self._race(first, second, after, untried, now)
            except RequestError as error:
                if second is not None and second.ended and second.region in untried:
                    untried.remove(second.region)
                if not untried or not self._goes_elsewhere(error):
                    raise
                failed, now = True, None
            else:
                ended: Instant = yield NOW
                if failed or first.error is not None:
                    self._failed_over(first, second)
                if second is None or second.began < 0:
                    self._won(first, ended)
                else:
                    self._settle(first, second, ended)
                return answer

    def _hedge_to(self, region: str, untried: list[str]) -> str:
        """The next region that is well; where there is none, the same by another connection."""
        well = (name for name in untried if self._router.health[name].well)
        return next(well, region)

    def _goes_elsewhere(self, error: RequestError) -> bool:
        """Whether another region may answer better: also where this one is throttled again."""
        return error.engine_fault or (error.throttle and self._call.report.retries > 0)

    def _hedge_after(self, region: str) -> float | None:
        if not self.hedged or self._router.hedges is None:
            return None
        self._router.hedges.earn()
        return self._router.hedge_after(region, self._kind)

    def _race(
        self, first: _Leg, second: _Leg, after: float, untried: list[str], now: Instant | None
    ) -> Operation[T]:
        legs = [
            self._first(first, second, len(untried), now),
            self._second(second, first, len(set(untried) - {second.region})),
        ]
        answer = yield Race(legs, after)
        if isinstance(answer, RequestError):
            raise answer
        return answer  # type: ignore[no-any-return] # an operation's T

    def _first(
        self, leg: _Leg, other: _Leg, others: int, now: Instant | None
    ) -> Operation[T | RequestError]:
        try:
            return (yield from self._run(leg, others, now))
        except RequestError as error:
            if other.began >= 0 or self._goes_elsewhere(error):
                raise
            return error

    def _second(self, leg: _Leg, first: _Leg, others: int) -> Operation[T]:
        if first.error is None:
            assert self._router.hedges is not None
            if not self._router.hedges.take():
                raise _NotHedged
            self._call.report.hedges += 1
            self._router.hedged(leg.region)
        elif leg.region == first.region:
            raise _NotHedged  # It has just failed: retrying it waits a little.
        return (yield from self._run(leg, others, None))

    def _run(self, leg: _Leg, others: int, now: Instant | None) -> Operation[T]:
        """Ask a region, and tell the router of its failure."""
        if now is None:
            now = yield NOW
        call, router = self._call, self._router
        leg.began = now.monotonic
        leg.generation = router.health[leg.region].generation
        left = call.deadline - leg.began
        patience = router.patience(leg.region, self._kind, left, others)
        try:
            answer = yield from self._attempt(leg.region, leg.began + patience)
        except RequestError as error:
            leg.ended, leg.error = True, error
            ended: Instant = yield NOW
            if not error.retryable:  # A refusal for good is an answer.
                call.report.answered_by(leg.region, None)
            router.raised(leg.region, leg.generation, self._kind, error, patience, ended.monotonic)
            raise
        leg.ended = True
        return answer

    def _settle(self, first: _Leg, second: _Leg, now: Instant) -> None:
        """Tell the router who answered, and that the first was overtaken, if it was."""
        if first.ended and first.error is None:
            self._won(first, now)
            return
        self._won(second, now)
        if not first.ended and first.region != second.region:
            took = now.monotonic - first.began
            self._router.overtaken(first.region, first.generation, self._kind, took, now.monotonic)

    def _failed_over(self, first: _Leg, second: _Leg | None) -> None:
        """Count what one region answered after another had failed."""
        winner = first if second is None or (first.ended and first.error is None) else second
        self._call.report.failovers += 1
        self._router.failed_over(winner.region)

    def _won(self, leg: _Leg, now: Instant) -> None:
        took = now.monotonic - leg.began
        self._router.answered(leg.region, leg.generation, self._kind, took, now.monotonic)
        behind = None if self._writes else self._router.behind(leg.region)
        self._call.report.answered_by(leg.region, behind)
