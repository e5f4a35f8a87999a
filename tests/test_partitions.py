"""Partitions: by hand, and against the simulation of the whole table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store import InvalidValue
from chalk_online_store.planning import autoscaling
from chalk_online_store.planning.autoscaling import TargetTracking
from chalk_online_store.planning.demand import Demand, diurnal, flash_crowd, steady
from chalk_online_store.planning.partitions import (
    READ_LIMIT,
    WRITE_LIMIT,
    Keys,
    PartitionedRun,
    Partitions,
    hot_key,
    partition_count,
    simulate,
    zipf_keys,
)


def four(*shares: float) -> Keys:
    """Four keys, one in each quarter of the hashes."""
    return Keys(np.array([0.1, 0.3, 0.6, 0.8]), np.array(shares))


EVEN = four(0.25, 0.25, 0.25, 0.25)
QUARTERS = Partitions(4, READ_LIMIT)


def test_how_many_partitions() -> None:
    """One for 3,000 read units, 1,000 write units or 10 GB, begun or full, and mixes of units."""
    assert partition_count() == 1
    assert partition_count(read=3_000) == 1
    assert partition_count(read=3_001) == 2
    assert partition_count(read=1_500, write=500) == 1
    assert partition_count(read=6_000, write=2_000) == 4
    assert partition_count(read=100, gigabytes=40.5) == 5


# --- by hand ---------------------------------------------------------------------------------


def test_even_keys_serve_the_capacity() -> None:
    """Four partitions of 1,000 units each have a quarter of the demand, and throttle the rest."""
    run = simulate(steady(4_400, 120), 4_000, EVEN, QUARTERS, filled=0)
    assert run.consumed.tolist() == [4_000, 4_000]
    assert run.throttled.tolist() == [400, 400]
    assert run.key_range.tolist() == [0, 0]


def test_adaptive_capacity() -> None:
    """A hot partition uses what others leave, at once; without, it has its share alone."""
    keys, load = four(0.7, 0.1, 0.1, 0.1), steady(4_000, 60)
    adaptive = simulate(load, 4_000, keys, QUARTERS, filled=0)
    assert (adaptive.consumed[0], adaptive.throttled[0]) == (4_000, 0)
    rigid = simulate(load, 4_000, keys, Partitions(4, READ_LIMIT, adaptive=False), filled=0)
    assert rigid.consumed[0] == pytest.approx(1_000 + 3 * 400)


def test_the_limit_of_a_partition() -> None:
    """Beyond its limit a hot partition throttles, although the table has room and burst left."""
    keys = four(0.7, 0.1, 0.1, 0.1)
    run = simulate(steady(8_000, 120), 20_000, keys, QUARTERS)
    assert run.hottest.tolist() == [5_600, 5_600]
    assert run.key_range == pytest.approx([2_600, 2_600])
    assert run.throttled == pytest.approx([2_600, 2_600])
    table = autoscaling.simulate(steady(8_000, 120), TargetTracking(20_000, 20_000))
    assert table.throttled_units == 0


def test_burst_capacity_of_a_partition() -> None:
    """Each keeps 300 seconds of its share, and uses it beyond what the table has."""
    keys, load = four(0.7, 0.1, 0.1, 0.1), steady(4_400, 240)
    # A table of 4,000 lacks 400 a second. The first partition wants 3,080: the limit is 3,000.
    # The others use 440 each, and leave 1,680 to it: 1,000 + 1,680 = 2,680. Of its own burst
    # capacity, 300,000 units, it takes the 320 that it lacks: 19,200 a minute.
    run = simulate(load, 4_000, keys, QUARTERS)
    assert run.throttled == pytest.approx([80] * 4)
    short = simulate(load, 4_000, keys, QUARTERS, filled=0.1)  # 30,000 units: 93.75 seconds
    assert short.throttled == pytest.approx([80, 80 + 320 - 10_800 / 60, 400, 400])


def test_a_hot_partition_is_split() -> None:
    """Two hot keys of one partition are parted after ten minutes; then both are served."""
    keys = Keys(np.array([0.1, 0.2, 0.6, 0.8]), np.array([0.45, 0.45, 0.05, 0.05]))
    rules = Partitions(2, READ_LIMIT, split_after=600)
    run = simulate(steady(4_000, 1_200), 6_000, keys, rules)
    assert run.partitions.tolist() == [2] * 10 + [3] * 10
    assert run.key_range == pytest.approx([600] * 10 + [0] * 10)


def test_a_single_hot_key_is_not_split() -> None:
    """What a single key makes hot stays hot: the others leave it, and that is all."""
    keys = four(0.9, 0.02, 0.04, 0.04)
    rules = Partitions(2, READ_LIMIT, split_after=600)
    run = simulate(steady(5_000, 3_600), 9_000, keys, rules)
    assert run.partitions[-1] == 3
    assert run.key_range[-1] == pytest.approx(0.9 * 5_000 - READ_LIMIT)


@pytest.mark.parametrize(("units", "partitions"), [(2_399.0, 1), (2_400.0, 2)])
def test_when_a_partition_is_hot(units: float, partitions: int) -> None:
    """From 80 % of its limit on, and not before."""
    rules = Partitions(1, READ_LIMIT, split_after=60)
    run = simulate(steady(units, 120), 9_000, EVEN, rules)
    assert run.partitions.tolist() == [1, partitions]


def test_where_a_partition_is_split() -> None:
    """Where its parts differ least: keys of 40, 30 and 30 % become 40 and 60 %."""
    keys = Keys(np.array([0.2, 0.4, 0.6]), np.array([0.4, 0.3, 0.3]))
    run = simulate(steady(4_000, 120), 9_000, keys, Partitions(1, READ_LIMIT, split_after=60))
    assert run.hottest == pytest.approx([4_000, 2_400])


def test_a_split_shares_burst_capacity() -> None:
    """Both parts together keep what the whole had."""
    keys = Keys(np.array([0.2, 0.6]), np.array([0.5, 0.5]))
    load = Demand(np.array([2_400.0, 5_000.0]))
    run = simulate(load, 2_400, keys, Partitions(1, READ_LIMIT, split_after=60), filled=0.1)
    # 72,000 units, 1,200 a second for a minute, of the 2,600 a second that are missing.
    assert run.throttled == pytest.approx([0, 1_400])


def test_a_hot_key() -> None:
    """It takes the limit at most, whatever the table has, and less beside others."""
    keys = Keys(np.array([0.1, 0.3, 0.6, 0.8]), np.array([0.3, 0.2, 0.25, 0.25]))
    hot = hot_key(keys, Partitions(2, WRITE_LIMIT))
    assert (hot.share, hot.partition_share) == (0.3, 0.5)
    assert (hot.takes, hot.table_units) == (1_000, 2_000)
    assert hot.takes_beside == pytest.approx(600)
    assert hot.table_units_alone == pytest.approx(1_000 / 0.3)
    for units, throttles in ((1_999.0, False), (2_001.0, True)):
        run = simulate(steady(units, 60), 10_000, keys, Partitions(2, WRITE_LIMIT))
        assert (run.key_range[0] > 0) == throttles


# --- against the table -----------------------------------------------------------------------

CROWD = (
    diurnal(1_000, 9_000, days=1, step=20) + flash_crowd(8_000, 40_000, 86_400, step=20)
).with_noise(0.2)
TABLE = autoscaling.simulate(CROWD, TargetTracking(1_500, 10_000))
TOLERANCE = 0.001
"""Of the demand: so much the two simulations may differ where keys are alike."""


def parted(exponent: float, **rules: Any) -> PartitionedRun:
    """The same demand and capacity, with keys by Zipf's law."""
    keys = zipf_keys(100_000, exponent)
    count = partition_count(read=12_000, gigabytes=80)
    return simulate(CROWD, TABLE.capacity, keys, Partitions(count, READ_LIMIT, **rules))


def test_with_even_keys_both_agree() -> None:
    """Keys asked for alike: the table throttles what its partitions do, within the tolerance."""
    run = parted(0)
    assert TABLE.throttled_share > 8 * TOLERANCE
    assert abs(run.throttled_share - TABLE.throttled_share) < TOLERANCE
    assert run.key_range.sum() == 0


def test_with_hot_keys_the_partition_throttles() -> None:
    """Keys by a steep law: partitions refuse much that the table has room for."""
    run = parted(1.5)
    assert run.throttled_share > TABLE.throttled_share + 0.02
    assert run.key_range.sum() > 0
    room = run.capacity - run.consumed
    assert room[run.key_range > 0].max() > 1_000


def test_splitting_helps_a_little() -> None:
    """Splits leave the hottest key alone on a partition, and no more can be done."""
    split, whole = parted(1.5, split_after=600), parted(1.5)
    assert split.partitions[-1] > whole.partitions[-1]
    assert split.key_range.sum() < whole.key_range.sum()
    assert split.key_range.sum() > 0


demands = st.lists(st.floats(0, 5_000), min_size=1, max_size=40).map(
    lambda units: Demand(np.array(units))
)


@given(
    demands,
    st.floats(1, 5_000),
    st.integers(1, 6),
    st.sampled_from([0.0, 1.0, 2.0]),
    st.sampled_from([math.inf, 60.0]),
    st.booleans(),
)
def test_what_always_holds(
    demand: Demand, capacity: float, count: int, exponent: float, split: float, adaptive: bool
) -> None:
    """All is served or throttled; none beyond limits; never more in all than the table would."""
    rules = Partitions(count, READ_LIMIT, split_after=split, adaptive=adaptive)
    run = simulate(demand, capacity, zipf_keys(50, exponent), rules)
    assert run.consumed + run.throttled == pytest.approx(demand.units)
    assert (run.key_range <= run.throttled + 1e-6).all()
    assert (run.consumed <= run.partitions * READ_LIMIT + 1e-6).all()
    fixed = math.ceil(capacity)
    table = autoscaling.simulate(demand, TargetTracking(fixed, fixed))
    assert run.consumed.sum() <= table.consumed.sum() * (1 + 1e-9) + 1e-6


@given(demands, st.integers(1, 5_000))
def test_one_partition_is_the_table(demand: Demand, capacity: int) -> None:
    """A single partition without a limit that binds does just what the table does."""
    run = simulate(demand, capacity, zipf_keys(10), Partitions(1, 1e9))
    table = autoscaling.simulate(demand, TargetTracking(capacity, capacity))
    assert run.consumed == pytest.approx(table.consumed)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Partitions(0), "count=0"),
        (lambda: Partitions(1, 0), "limit=0"),
        (lambda: Partitions(1, split_after=0), "split_after=0"),
        (lambda: Partitions(1, burst_seconds=-1), "burst_seconds=-1"),
        (lambda: zipf_keys(0), "keys=0"),
        (lambda: zipf_keys(1, -1), "exponent=-1"),
        (lambda: partition_count(read=-1), "read=-1"),
        (lambda: partition_count(gigabytes=math.nan), "gigabytes=nan"),
        (lambda: simulate(steady(1, 60), 0, EVEN, QUARTERS), "capacity=0"),
        (lambda: simulate(steady(1, 60), 1, EVEN, QUARTERS, filled=2), "filled=2"),
    ],
)
def test_bad_settings_are_refused(make: Any, named: str) -> None:
    """What cannot be is refused by name."""
    with pytest.raises(InvalidValue, match=named):
        make()
