"""On-demand capacity: doubling of the previous peak, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store import InvalidValue
from chalk_online_store.planning.demand import Demand
from chalk_online_store.planning.on_demand import READ_WARM, WRITE_WARM, OnDemand, simulate


def minutes(*blocks: tuple[float, int]) -> Demand:
    """A demand of blocks, each so many units a second for so many minutes."""
    return Demand(np.concatenate([np.full(count, float(units)) for units, count in blocks]))


UNBOUND = OnDemand(READ_WARM, maximum=math.inf)


def test_a_new_table_serves_its_warm_throughput() -> None:
    """12,000 reads and 4,000 writes a second at once, and no more."""
    for warm in (READ_WARM, WRITE_WARM):
        run = simulate(minutes((warm, 1), (warm + 500, 1)), OnDemand(warm))
        assert run.throttled.tolist() == [0, 500]
    assert (READ_WARM, WRITE_WARM) == (12_000, 4_000)


def test_double_the_previous_peak() -> None:
    """What was reached 30 minutes ago may be doubled, again and again."""
    run = simulate(minutes((12_000, 30), (24_000, 30), (50_000, 31)), UNBOUND)
    # 12,000 until minute 30. Then minute 0, of 12,000, is the previous peak: 24,000. So minute
    # 30 is at minute 60: 48,000 of 50,000. What was served then, 48,000, counts at minute 90.
    assert run.capacity.tolist() == [12_000] * 30 + [24_000] * 30 + [48_000] * 30 + [96_000]
    assert run.throttled.tolist() == [0] * 60 + [2_000] * 30 + [0]


def test_more_than_double_within_30_minutes() -> None:
    """AWS's example: from a peak of 50,000 reads, 100,000 are served; more are not at once."""
    run = simulate(minutes((50_000, 1), (100_000, 1), (150_000, 30)), OnDemand(100_000, math.inf))
    # Minute 1, of 100,000, is the previous peak from minute 31 on.
    assert run.throttled.tolist() == [0, 0] + [50_000] * 29 + [0]


def test_a_peak_is_not_forgotten() -> None:
    """What was once reached can be reached again at once, however long ago."""
    run = simulate(minutes((12_000, 1), (0, 600), (24_000, 1)), UNBOUND)
    assert run.throttled_units == 0


def test_warm_throughput_set_ahead() -> None:
    """A table that was warmed takes the whole crowd at once."""
    crowd = minutes((1_000, 5), (30_000, 10))
    assert simulate(crowd, OnDemand(30_000)).throttled_units == 0
    assert simulate(crowd, OnDemand(12_000)).throttled_units == 18_000 * 10 * 60


def test_a_maximum_throttles() -> None:
    """Neither warm throughput nor peaks help beyond the table's maximum, or the quota."""
    run = simulate(minutes((12_000, 40)), OnDemand(12_000, maximum=5_000))
    assert set(run.throttled.tolist()) == {7_000}
    quota = simulate(minutes((50_000, 40)), OnDemand(60_000))
    assert set(quota.consumed.tolist()) == {40_000}


def test_a_peak_is_an_average_of_a_minute() -> None:
    """A second of 12,000 within a minute is served, and raises nothing."""
    units = np.zeros(31 * 60)
    units[0], units[-1] = 12_000, 20_000
    run = simulate(Demand(units, step=1), OnDemand(12_000))
    assert np.flatnonzero(run.throttled).tolist() == [31 * 60 - 1]
    assert run.throttled[-1] == 8_000


def test_what_is_served_is_paid() -> None:
    """A million units served cost the price; what was throttled costs nothing."""
    run = simulate(minutes((20_000, 10)), OnDemand(12_000))
    assert run.consumed_units == 12_000 * 600
    assert run.cost(0.125) == pytest.approx(0.9)
    assert run.throttled_share == pytest.approx(0.4)


@given(
    st.lists(st.floats(0, 200_000), min_size=1, max_size=100),
    st.sampled_from([4_000.0, 12_000.0, 50_000.0]),
    st.sampled_from([5_000.0, 40_000.0, math.inf]),
)
def test_what_always_holds(units: list[float], warm: float, maximum: float) -> None:
    """All is served or throttled; capacity never falls; within the warm one nothing throttles."""
    demand = Demand(np.array(units))
    run = simulate(demand, OnDemand(warm, maximum))
    assert run.consumed + run.throttled == pytest.approx(demand.units)
    assert (run.consumed <= run.capacity).all()
    assert (np.diff(run.capacity) >= 0).all()
    assert run.capacity[0] == min(warm, maximum)
    assert not run.throttled[demand.units <= min(warm, maximum)].any()


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"warm": 0}, "warm=0"), ({"maximum": 0}, "maximum=0"), ({"settling": -1}, "settling=-1")],
)
def test_bad_settings_are_refused(settings: dict[str, Any], named: str) -> None:
    """A table that cannot be is refused."""
    with pytest.raises(InvalidValue, match=named):
        OnDemand(**settings)
