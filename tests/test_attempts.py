"""One attempt in several regions: what is learnt of them, and what it reports."""

from __future__ import annotations

import random

import pytest

from chalk_online_store import RegionState, Routing
from chalk_online_store.backend import Call, RequestInfo
from chalk_online_store.drivers.simulated import Reply, SimulatedDriver
from chalk_online_store.effects import NOW, Instant, Operation, Sleep
from chalk_online_store.errors import ConnectionFailed, RequestError, Throttled
from chalk_online_store.routing.attempts import RoutedAttempts
from chalk_online_store.routing.router import Router


class TwoRegions:
    """A near and a far region, in virtual time; `near` is how long the near one takes next."""

    def __init__(self) -> None:
        self.router = Router(["near", "far"], "near", Routing(), random.Random(1))
        self.near = 0.0
        self.failing: tuple[str, ...] = ()
        self.asked: list[str] = []
        self.until = 0.0
        self.error: RequestError = ConnectionFailed("refused")
        self._attempts = RoutedAttempts(self.router)
        self._driver = SimulatedDriver(lambda send, now: Reply())

    def _ask(self, region: str, until: float) -> Operation[str]:
        self.asked.append(region)
        self.until = until
        yield Sleep(self.near if region == "near" else 0.07)
        if region in self.failing:
            raise self.error
        return region

    def _perform(self, call: Call, asked: RequestInfo) -> Operation[str]:
        now: Instant = yield NOW
        call.deadline = now.monotonic + 1
        return (yield from self._attempts.attempt(self._ask, asked, now, call))

    def settle(self) -> None:
        """Let it learn what is usual: 5 ms, and 6 for one in ten."""
        for number in range(40):
            self.near = 0.005 if number % 10 else 0.006
            self.read()

    def read(self, consistent: bool = False) -> Call:
        """Read once."""
        call = Call(0, consistent)
        self._driver.run(self._perform(call, RequestInfo("GetItem", 100, writes=False)))
        return call

    def write(self) -> Call:
        """Write once."""
        call = Call(0)
        self._driver.run(self._perform(call, RequestInfo("PutItem", 100, writes=True)))
        return call


def test_a_hedge_that_lost_says_nothing_of_its_region() -> None:
    """It was asked later, and given up after a moment: that is no sign that it is slow."""
    regions = TwoRegions()
    regions.settle()
    regions.near = 0.008
    calls = [regions.read() for _ in range(6)]
    assert all(call.report.hedges == 1 for call in calls)
    assert all(call.report.region == "near" for call in calls)
    far = regions.router.health["far"]
    assert far.state is RegionState.HEALTHY
    assert not far.latencies


def test_a_region_that_was_asked_first_and_overtaken_is_slow() -> None:
    """It had the whole time of the hedge besides, and did not answer."""
    regions = TwoRegions()
    regions.settle()
    regions.near = 0.5
    calls = [regions.read() for _ in range(5)]
    assert all(call.report.region == "far" for call in calls)
    assert regions.router.health["near"].state is RegionState.SLOW


def test_a_strong_read_is_not_hedged() -> None:
    """One region alone may answer it, and that has it under way already."""
    regions = TwoRegions()
    regions.settle()
    regions.near = 0.5
    assert regions.read(consistent=True).report.hedges == 0


def test_what_has_just_failed_is_not_asked_again_at_once() -> None:
    """Where no other region is well a hedge goes to the same one, but not after it has failed."""
    regions = TwoRegions()
    regions.settle()
    for _ in range(3):
        regions.router.raised("far", 0, "Get", ConnectionFailed("refused"), 1.0, 0.0)
    regions.failing = ("near",)
    regions.near = 0.001
    regions.asked.clear()
    assert regions.read().report.region == "far"
    assert regions.asked == ["near", "far"]


def test_a_hedge_that_failed_is_not_asked_again() -> None:
    """When the first one fails as well, all of them have been asked."""
    regions = TwoRegions()
    regions.settle()
    regions.failing = ("near", "far")
    regions.near = 0.2
    regions.asked.clear()
    with pytest.raises(ConnectionFailed):
        regions.read()
    assert regions.asked == ["near", "far"]


def test_a_write_keeps_time_for_another_region() -> None:
    """It does not wait for one that is silent until its deadline: it may be sent elsewhere then."""
    regions = TwoRegions()
    call = regions.write()
    assert regions.until == call.deadline - 0.5


def test_what_was_written_is_not_behind() -> None:
    """A read tells how far its region is behind; of a write there is nothing to tell."""
    regions = TwoRegions()
    assert regions.read().report.behind == 0.0
    assert regions.write().report.behind is None


def test_a_throttle_does_not_end_a_hedge() -> None:
    """Another region that has the request already may answer it."""
    regions = TwoRegions()
    regions.settle()
    regions.failing, regions.error, regions.near = ("near",), Throttled("slow down"), 0.02
    assert regions.read().report.region == "far"
