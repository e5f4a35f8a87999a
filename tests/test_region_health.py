"""The health of one region: what marks it slow or down, and how it comes back."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from chalk_online_store import Hedging, RegionState, Routing
from chalk_online_store.routing.health import (
    FAILURES_IN_A_ROW,
    FAILURES_OF_ONE_UNSURE,
    GOOD_IN_A_ROW,
    RECENT,
    SLOW_OF_RECENT,
    RegionHealth,
)

HEALTHY, SLOW, DOWN, RETURNING = (
    RegionState.HEALTHY,
    RegionState.SLOW,
    RegionState.DOWN,
    RegionState.RETURNING,
)
LONGEST = 1.5
"""By so much, at most, a process draws out the times of its routing."""


def region(**routing: object) -> RegionHealth:
    """A region that returns after 10 s, over 10 s."""
    settings = {"return_after": "10s", "return_over": "10s", **routing}
    return RegionHealth("east", Routing(**settings), random.Random(3))  # type: ignore[arg-type]


def answer(health: RegionHealth, now: float, took: float = 0.01, times: int = 1) -> None:
    """Good answers."""
    for _ in range(times):
        health.answered(health.generation, "Get", took, now)


def fail(health: RegionHealth, now: float, times: int = 1) -> None:
    """Failures."""
    for _ in range(times):
        health.failed(health.generation, "ConnectionFailed", now)


def down(now: float = 0.0) -> RegionHealth:
    """A region that is down since `now`."""
    health = region()
    fail(health, now, FAILURES_IN_A_ROW)
    assert health.state is DOWN
    return health


def returning(now: float = 20.0) -> RegionHealth:
    """A region that came up again at `now`."""
    health = down()
    answer(health, 1.0, times=GOOD_IN_A_ROW)
    answer(health, now)
    assert health.state is RETURNING
    return health


def test_failures_in_a_row_mark_it_down() -> None:
    """Three failures with nothing good between them, and not two, say that it is down, and why."""
    health = region()
    fail(health, 0.0, FAILURES_IN_A_ROW - 1)
    assert health.state is HEALTHY
    fail(health, 0.0)
    assert (health.state, health.reason, health.since) == (DOWN, "ConnectionFailed", 0.0)


@pytest.mark.parametrize(
    "alive", [answer, lambda health, now: health.refused(health.generation, now)]
)
def test_whoever_answers_is_not_down(alive: Callable[[RegionHealth, float], None]) -> None:
    """A good answer, a throttle or a refusal between failures is proof of life."""
    health = region()
    for number in range(3):
        fail(health, number * 10.0, FAILURES_IN_A_ROW - 1)
        alive(health, number * 10.0)
    assert health.state is HEALTHY


def test_throttles_alone_change_nothing() -> None:
    """However many requests are throttled, the region is healthy."""
    health = region()
    for number in range(1000):
        health.refused(health.generation, number / 100)
    assert (health.state, health.generation) == (HEALTHY, 0)


def test_a_share_of_failures_marks_it_down() -> None:
    """A fifth of the requests failing is enough, though never several in a row."""
    health = region()
    for number in range(40):
        answer(health, number / 100, times=4)
        fail(health, number / 100)
    assert health.state is DOWN


def test_a_few_failures_among_many_do_not() -> None:
    """One in a hundred is what retries are for."""
    health = region()
    for number in range(200):
        answer(health, number / 10, times=99)
        fail(health, number / 10)
    assert health.state is HEALTHY


def test_failures_of_long_ago_do_not_count() -> None:
    """A failure now and then, while little is asked, is no outage."""
    health = region()
    for number in range(20):
        fail(health, number * 60.0)
        answer(health, number * 60.0)
    assert health.state is HEALTHY


def test_late_news_of_an_earlier_generation_is_not_heard() -> None:
    """What was sent before a change marks nobody down, and brings nobody back."""
    health = returning()
    for _ in range(10):
        health.failed(0, "RequestTimeout", 21.0)
        health.lost_hedge(0, "Get", 1.0, 21.0)
    assert health.state is RETURNING
    health = down()
    for number in range(100):
        health.answered(0, "Get", 0.01, float(number))
    assert health.state is DOWN


def test_it_returns_only_after_sustained_health() -> None:
    """Good answers over the time that is stated, at most half as long again, and enough of them."""
    health = down()
    answer(health, 5.0, times=100)
    answer(health, 5.0 + 9.9)
    assert health.state is DOWN
    answer(health, 5.0 + 10 * LONGEST)
    assert health.state is RETURNING


def test_two_good_answers_are_not_enough() -> None:
    """However long the time between them: little was asked of it."""
    health = down()
    answer(health, 1.0)
    answer(health, 100.0)
    assert health.state is DOWN
    answer(health, 100.0)
    assert health.state is RETURNING


def test_one_failure_begins_the_wait_anew() -> None:
    """Health is sustained only without failures in between."""
    health = down()
    answer(health, 1.0, times=10)
    fail(health, 9.0)
    answer(health, 18.0, times=10)
    assert health.state is DOWN
    answer(health, 18.0 + 10 * LONGEST)
    assert health.state is RETURNING


def test_its_traffic_comes_back_gradually() -> None:
    """The share grows from a twentieth to the whole, and then it is healthy."""
    health = returning(now=20.0)
    shares = [health.share(20.0 + second) for second in range(16)]
    assert shares[0] == 0.05
    assert shares == sorted(shares)
    assert shares[15] >= 1
    health.tick(20.0 + 10 * LONGEST)
    assert health.state is HEALTHY


def wait(health: RegionHealth, now: float, state: RegionState) -> float:
    """Have it answer until it is in a state; how many seconds that takes."""
    began = now
    while health.state is not state:
        now += 0.1
        answer(health, now)
        health.tick(now)
    return now - began


def relapse(health: RegionHealth, now: float, times: int) -> list[float]:
    """Have a region that is down return, and fail at once, so many times; the waits."""
    waits = []
    for _ in range(times):
        waits.append(wait(health, now, RETURNING))
        now += waits[-1]
        fail(health, now, FAILURES_OF_ONE_UNSURE)
    return waits


def test_relapses_make_it_wait_longer() -> None:
    """Each time it fails again while it returns, twice the time of health is asked for."""
    for number, waited in enumerate(relapse(down(), 0.0, 4)):
        assert 10 * 2**number <= waited <= 10 * 2**number * LONGEST + 1


def test_it_waits_some_minutes_at_most() -> None:
    """However often it has relapsed."""
    assert 290 < relapse(down(), 0.0, 8)[-1] < 301


def test_relapses_are_forgiven_after_a_time_of_health() -> None:
    """After ten minutes of health, and not sooner, the next wait is as short as the first."""
    for healthy, shortest, longest in ((599.0, 40, 62), (601.0, 10, 16)):
        health = down()
        relapse(health, 0.0, 2)
        now = 500.0 + wait(health, 500.0, HEALTHY)
        health.tick(now + healthy)
        fail(health, now + healthy, FAILURES_IN_A_ROW)
        assert shortest <= wait(health, now + healthy, RETURNING) <= longest


@pytest.mark.parametrize(("begins", "ends"), [(DOWN, RETURNING), (RETURNING, HEALTHY)])
def test_processes_return_at_different_times(begins: RegionState, ends: RegionState) -> None:
    """The waits of a fleet, and how gradually it returns, are spread: it does not as one."""
    waits = set()
    for seed in range(50):
        routing = Routing(return_after="10s", return_over="10s")
        health = RegionHealth("east", routing, random.Random(seed))
        fail(health, 0.0, FAILURES_IN_A_ROW)
        waits.add(round(wait(health, wait(health, 0.0, begins), ends), 2))
    assert len(waits) > 25
    assert max(waits) - min(waits) > 3


def test_four_times_as_long_as_usual_is_slow() -> None:
    """A brown-out need not be a standstill."""
    health = region()
    answer(health, 0.0, took=0.01, times=100)
    answer(health, 1.0, took=0.025, times=20)
    assert health.state is HEALTHY
    answer(health, 1.0, took=0.04, times=20)
    assert health.state is SLOW


def test_what_is_quicker_is_soon_usual() -> None:
    """A region that was slow at first is held to what it is when it has become quick."""
    health = region()
    answer(health, 0.0, took=0.1, times=100)
    answer(health, 1.0, took=0.01, times=200)
    answer(health, 2.0, took=0.06, times=SLOW_OF_RECENT)
    assert health.state is SLOW


def test_what_probes_took_before_an_outage_is_forgotten() -> None:
    """It says nothing of how long they take now."""
    health = region()
    health.probed(0.01)
    fail(health, 1.0, FAILURES_IN_A_ROW)
    assert health.latest is None
    assert health.distance == 0.01


def test_being_overtaken_soon_is_not_being_quick() -> None:
    """Of an answer that was not waited for, it is not known how long it would have taken."""
    health = region()
    answer(health, 0.0, took=0.01, times=16)
    for number in range(200):
        health.lost_hedge(health.generation, "Get", 0.001, number / 1e4)
    assert health.latency("Get").high == 0.01


def test_requests_slower_than_usual_mark_it_slow() -> None:
    """Most of the last requests taking several times as long as usual is a brown-out."""
    health = region()
    answer(health, 0.0, took=0.01, times=100)
    answer(health, 1.0, took=0.1, times=SLOW_OF_RECENT - 1)
    assert health.state is HEALTHY
    answer(health, 1.0, took=0.1)
    assert health.state is SLOW


def test_some_slow_requests_do_not() -> None:
    """A tail is no brown-out."""
    health = region()
    for number in range(200):
        answer(health, number / 10, took=0.2 if number % RECENT < 8 else 0.01)
    assert health.state is HEALTHY


def test_a_few_milliseconds_are_no_brown_out() -> None:
    """What takes thrice of very little is not worth another region."""
    health = region()
    answer(health, 0.0, took=0.001, times=100)
    answer(health, 1.0, took=0.005, times=100)
    assert health.state is HEALTHY


def test_kinds_of_requests_are_not_compared() -> None:
    """Large batches that take long, as they always do, are not slow."""
    health = region()
    for number in range(100):
        answer(health, number / 10, took=0.005, times=3)
        health.answered(health.generation, "Batch", 0.1, number / 10)
    assert health.state is HEALTHY


def test_while_it_is_slow_nobody_gets_used_to_it() -> None:
    """A region that stays slow stays away, however long that is."""
    health = region()
    answer(health, 0.0, took=0.01, times=100)
    answer(health, 1.0, took=0.1, times=50)
    for number in range(1000):
        answer(health, 2.0 + number, took=0.1)
        assert health.state is SLOW
    for number in range(30):
        answer(health, 2000.0 + number, took=0.01)
    assert health.state is RETURNING


@pytest.mark.parametrize(("percentile", "most"), [(0.5, 20), (0.95, 5), (0.99, 3)])
def test_whoever_is_always_overtaken_is_slow(percentile: float, most: int) -> None:
    """Hedges that win so often in a row that it cannot be chance say that it does not answer."""
    health = region(hedging=Hedging(percentile=percentile))
    for number in range(1, most + 1):
        assert health.state is HEALTHY
        health.lost_hedge(health.generation, "Get", 0.02, float(number))
    assert health.state is SLOW


def test_being_overtaken_now_and_then_is_nothing() -> None:
    """One good answer in between, and the count begins anew."""
    health = region()
    for number in range(100):
        for _ in range(4):
            health.lost_hedge(health.generation, "Get", 0.02, float(number))
        answer(health, float(number))
    assert health.state is HEALTHY


def test_what_happens_to_many_at_one_moment_happened_once() -> None:
    """All that were under way in a short stall are overtaken, and the region stays healthy."""
    health = region()
    for number in range(100):
        health.lost_hedge(health.generation, "Get", 0.02, number / 2000)
    assert health.state is HEALTHY
    health.lost_hedge(health.generation, "Get", 0.02, 0.2)
    assert health.state is SLOW


def test_a_slow_region_is_sooner_down() -> None:
    """Where most is slow already, two failures in a row are enough."""
    health = region()
    for number in range(5):
        health.lost_hedge(health.generation, "Get", 0.02, float(number))
    fail(health, 5.0)
    assert health.state is SLOW
    fail(health, 5.0)
    assert health.state is DOWN
