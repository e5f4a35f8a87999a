"""How fast a writer goes: write units a second, requests at once, waits after failures."""

from __future__ import annotations

import math
import random

import pytest

from chalk_online_store.retry import RetryPolicy
from chalk_online_store.writer.sending import Concurrency, Retries, WriteRate


def drive(rate: WriteRate, until: float, *, backfill: bool = False, start: float = 0.0) -> float:
    """Spend single units as fast as the rate allows; how many, from a second after `start` on."""
    now, spent = start, 0.0
    while now < until:
        wait = rate.wait(now, backfill)
        now += wait
        if not wait:
            rate.spend(1)
            rate.settle(1, 1, throttled=False, now=now)
            spent += now >= start + 1
            now += 1e-4
    return spent


def test_a_rate_is_kept() -> None:
    """Over ten seconds, as many units are spent as ten seconds allow."""
    assert drive(WriteRate(100), 11) == pytest.approx(1000, rel=0.03)


def test_what_the_engine_consumed_counts() -> None:
    """Where updates take more than was estimated, the bucket owes, and fewer are sent."""
    rate, now, sent = WriteRate(100), 0.0, 0
    while now < 11:
        wait = rate.wait(now, False)
        now += wait
        if not wait:
            rate.spend(1)
            rate.settle(1, 4, throttled=False, now=now)
            sent += now >= 1
    assert sent == pytest.approx(250, rel=0.05)


def test_a_large_item_may_owe() -> None:
    """An item of more units than a second has is sent all the same, and waited for after."""
    rate = WriteRate(10)
    assert rate.wait(0, False) < 1e-6
    rate.spend(400)
    assert rate.wait(0, False) == pytest.approx(40, abs=0.1)


def test_a_throttle_lowers_the_rate_once_a_second() -> None:
    """Many throttles of one moment are one; the next second's are another."""
    rate = WriteRate(100)
    for now in (5.0, 5.1, 5.9):
        rate.settle(1, 0, throttled=True, now=now)
    assert rate.rate == pytest.approx(70)
    rate.settle(1, 0, throttled=True, now=6.0)
    assert rate.rate == pytest.approx(49)


def test_the_rate_recovers_to_its_ceiling_and_no_further() -> None:
    """Without throttles, a part of the ceiling is added each second."""
    rate = WriteRate(90)
    rate.wait(0, False)
    rate.settle(1, 0, throttled=True, now=0.0)
    low = rate.rate
    rate.wait(5, False)
    assert rate.rate == pytest.approx(low + 5 * 90 / 30)
    rate.wait(500, False)
    assert rate.rate == 90


def test_the_rate_never_falls_to_nothing() -> None:
    """However long everything is throttled, a unit a second is tried."""
    rate = WriteRate(100)
    for second in range(100):
        rate.settle(1, 0, throttled=True, now=float(second))
    assert rate.rate == 1


def test_without_a_bound_throttles_find_it() -> None:
    """A writer that was told no rate goes on with less than what it wrote when it was throttled."""
    rate = WriteRate(None)
    assert rate.rate == math.inf
    for moment in range(2000):
        assert rate.wait(moment / 1000, False) == 0
        rate.settle(1, 1, throttled=False, now=moment / 1000)
    rate.settle(1, 0, throttled=True, now=2.0)
    assert rate.rate == pytest.approx(700, rel=0.01)
    rate.wait(10, False)
    assert rate.rate > 900


def test_backfills_leave_half_of_the_bucket_to_live_rows() -> None:
    """Whenever a backfill is sent, a live row of half a second's units can follow at once."""
    rate = WriteRate(100)
    drive(rate, 3, backfill=True)
    sent = 0
    while not rate.wait(3.0, False):
        rate.spend(1)
        sent += 1
    assert sent >= 50


def test_backfills_rest_after_a_throttle() -> None:
    """For a second after a throttle, what the table takes is for live rows."""
    rate = WriteRate(100)
    rate.settle(1, 0, throttled=True, now=5.0)
    assert rate.wait(5.5, False) < 0.1
    assert rate.wait(5.5, True) >= 0.5


def requests(pace: Concurrency, latency: float, times: int) -> None:
    for _ in range(times):
        while pace.free:
            pace.began(1)
        for _ in range(pace.under_way):
            pace.ended(1, latency, well=True)


def test_concurrency_grows_while_answers_stay_quick() -> None:
    """As long as requests do not queue, more of them are sent at once."""
    pace = Concurrency(32)
    requests(pace, 0.01, 50)
    assert pace.limit == 32


def test_concurrency_falls_when_requests_queue() -> None:
    """Where twice as many only take twice as long, fewer are sent."""
    pace = Concurrency(32)
    requests(pace, 0.01, 50)
    requests(pace, 0.02, 50)
    assert 6 <= pace.limit <= 13


def test_concurrency_falls_at_a_failure() -> None:
    """A batch that failed, or was throttled, makes room at once; one request stays."""
    pace = Concurrency(10)
    pace.began(1)
    pace.ended(1, 0.01, well=False)
    assert pace.limit == pytest.approx(8 * 0.7)
    for _ in range(50):
        pace.began(1)
        pace.ended(1, 0.01, well=False)
    assert (pace.limit, pace.free) == (1, 1)


def retries() -> Retries:
    return Retries(RetryPolicy(base=0.1, cap=5.0), random.Random(3))


def test_waits_grow_while_everything_fails() -> None:
    """Backoff is jittered, doubles, and is capped; a success ends it."""
    pace, waits = retries(), []
    for _ in range(200):
        pace.failed(1, wholly=True, now=0.0)
        waits.append(pace.not_before)
    assert waits[0] <= 0.1
    assert max(waits) <= 5
    assert sum(waits[20:]) / 180 == pytest.approx(2.5, rel=0.2)
    was_ill = pace.ill
    pace.succeeded(1)
    assert (was_ill, pace.ill) == (True, False)
    pace.failed(1, wholly=True, now=0.0)
    assert pace.not_before <= 0.1


def test_retries_have_a_budget() -> None:
    """A hundred changes may be tried again at once; after that, a fifth of what succeeds."""
    pace = retries()
    for _ in range(100):
        pace.failed(1, wholly=False, now=7.0)
    assert pace.not_before == 0
    pace.failed(1, wholly=False, now=7.0)
    assert pace.not_before > 7
    assert not pace.ill
    before = pace.not_before
    pace.succeeded(20)
    pace.failed(2, wholly=False, now=9.0)
    assert pace.not_before == before


def test_a_writer_waits_as_long_as_aws_asks() -> None:
    """`x-amz-retry-after` postpones the next batch, even if only some changes of a batch failed."""
    for wholly in (True, False):
        retries = Retries(RetryPolicy(base=0.1), random.Random(1))
        retries.failed(1, wholly, 100.0, retry_after=3.0)
        assert retries.not_before == 103.0
    retries = Retries(RetryPolicy(base=0.1), random.Random(1))
    retries.failed(1, True, 100.0, retry_after=60.0)
    assert 105.0 <= retries.not_before <= 105.1
