"""Autoscaled capacity: by hand, minute by minute, and against a slow simulation of the rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store import InvalidValue
from chalk_online_store.planning.autoscaling import Decreases, TargetTracking, simulate
from chalk_online_store.planning.demand import Demand, diurnal, steady
from chalk_online_store.planning.runs import CapacityChange, ProvisionedRun

HOUR = 3_600
DAY = 86_400


def minutes(*blocks: tuple[float, int]) -> Demand:
    """A demand of blocks, each so many units a second for so many minutes."""
    return Demand(np.concatenate([np.full(count, float(units)) for units, count in blocks]))


def moves(run: ProvisionedRun) -> list[tuple[float, float, int]]:
    """Of each change: the second of the alarm, that of the effect, and the new capacity."""
    return [(change.alarm, change.effect, change.after) for change in run.changes]


# --- a load that rises from 100 to 1,000, by hand --------------------------------------------

STEP = minutes((100, 5), (1000, 40))
SCALING = TargetTracking(100, 2000, target=70)


def test_a_step_without_burst_capacity() -> None:
    """What is throttled does not count as consumed, so capacity climbs by 1 / 0.7 at a time."""
    run = simulate(STEP, SCALING, initial=143, burst_seconds=0)
    # 143 units: 100 are 69.9 %. Minute 5 serves 143 of 1,000: above 70 % (100.1), for one minute.
    # Minute 6: for two. The alarm at 420 s wants 143 / 0.7 = 204.3: 205, three minutes later.
    # Minute 10 serves 205, but minute 9 had 143: not above 143.5, 70 % of 205. So minute 11.
    assert moves(run) == [
        (420, 600, 205),
        (720, 900, 293),  # 205 / 0.7 = 292.9
        (1020, 1200, 419),  # 293 / 0.7 = 418.6
        (1320, 1500, 599),  # 419 / 0.7 = 598.6
        (1620, 1800, 856),  # 599 / 0.7 = 855.7
        (1920, 2100, 1223),  # 856 / 0.7 = 1,222.9
        (2220, 2400, 1429),  # 1,000 / 0.7 = 1,428.6: the load, all of it
    ]
    refused = [857, 795, 707, 581, 401, 144]  # 1,000 less the capacity, five minutes each
    assert run.throttled.tolist() == [0] * 5 + [units for units in refused for _ in range(5)] + (
        [0] * 10
    )
    assert run.throttled_units == sum(refused) * 5 * 60
    assert run.throttled_share == pytest.approx(sum(refused) * 5 / (5 * 100 + 40 * 1000))


def test_a_step_with_burst_capacity() -> None:
    """Burst capacity serves most of the first minute, and then is gone."""
    run = simulate(STEP, SCALING, initial=143)
    # 143 units keep 300 x 143 = 42,900. Minute 5 lacks 857 x 60 = 51,420: 8,520 are refused.
    assert run.burst[:7].tolist() == [42_900] * 5 + [0, 0]
    assert run.consumed[4:8].tolist() == [100, 858, 143, 143]
    assert run.throttled[5] == pytest.approx(8_520 / 60)
    # The alarm at 420 s sees minute 6, when burst capacity was used up: as without.
    assert moves(run)[0] == (420, 600, 205)


def test_a_smaller_step_with_burst_capacity() -> None:
    """While burst capacity lasts, the whole load is seen, and the first change is enough."""
    run = simulate(minutes((100, 5), (500, 20)), SCALING, initial=143)
    # It lacks 357 x 60 = 21,420 a minute: two minutes leave 42,900 - 42,840 = 60 units.
    assert run.burst[4:9].tolist() == [42_900, 21_480, 60, 0, 0]
    # The alarm at 420 s sees 500: 500 / 0.7 = 714.3. Until 600 s it serves 143 and those 60.
    assert moves(run) == [(420, 600, 715)]
    assert run.throttled[5:12].tolist() == [0, 0, 356, 357, 357, 0, 0]
    # From 600 s on 715 - 500 = 215 are left a second, and kept.
    assert run.burst[10:12].tolist() == [215 * 60, 2 * 215 * 60]


def test_knowledge_center_example() -> None:
    """AWS's own example: 150 units, five minutes idle, serve 200 for 15 minutes."""
    run = simulate(minutes((0, 5), (200, 17)), TargetTracking(150, 150), filled=0)
    assert run.burst[4] == 45_000
    assert run.throttled.tolist() == [0] * 20 + [50, 50]


def test_one_minute_above_is_not_enough() -> None:
    """Peaks of a minute, each alone, never set off the alarm."""
    run = simulate(minutes(*[(90, 1), (60, 1)] * 30), TargetTracking(100, 1000))
    assert run.changes == ()


@pytest.mark.parametrize(("delay", "effect"), [(0, 120), (1, 180), (60, 180), (300, 420)])
def test_the_delay_is_whole_minutes(delay: float, effect: float) -> None:
    """The new capacity is there after the delay, at the begin of a minute."""
    run = simulate(minutes((90, 20)), TargetTracking(100, 1000, delay=delay))
    assert moves(run) == [(120, effect, 129)]
    assert run.capacity[int(effect) // 60 - 1 :][:2].tolist() == [100, 129]


def test_at_the_target_nothing_changes() -> None:
    """Neither just at the target nor 20 points below it: both alarms want more than that."""
    for units in (700, 500):
        assert simulate(minutes((units, 60)), SCALING, initial=1000).changes == ()


def test_it_stays_within_its_bounds() -> None:
    """What the load would need is cut off at the maximum, and filled up to the minimum."""
    scaling = TargetTracking(100, 500, delay=0)
    run = simulate(minutes((1000, 20), (0, 20)), scaling, burst_seconds=0)
    assert [change.after for change in run.changes] == [143, 205, 293, 419, 500, 100]
    assert (run.capacity.min(), run.capacity.max()) == (100, 500)


# --- scale-in --------------------------------------------------------------------------------


def test_capacity_falls_after_15_minutes() -> None:
    """Fifteen minutes below half of the capacity, for a target of 70 %."""
    run = simulate(minutes((499, 14), (100, 20)), SCALING, initial=1000)
    assert moves(run) == [(900, 1080, 143)]
    assert (run.increases, run.decreases) == (0, 1)


def test_one_minute_that_is_not_below_begins_anew() -> None:
    """The fifteen minutes have to follow each other."""
    run = simulate(minutes((100, 7), (500, 1), (100, 20)), SCALING, initial=1000)
    assert moves(run) == [(23 * 60, 26 * 60, 143)]


def test_scale_in_takes_burst_capacity_along() -> None:
    """Less capacity may keep less: 300 x 143 = 42,900 of 300,000 units."""
    run = simulate(minutes((100, 18), (3000, 1)), SCALING, initial=1000)
    assert (run.capacity[18], run.burst[17]) == (143, 300_000)
    assert run.consumed[18] == 143 + 42_900 / 60


def test_at_the_minimum_nothing_falls() -> None:
    """An idle table at its minimum stays as it is."""
    run = simulate(minutes((0, 60)), SCALING)
    assert (run.changes, run.refused_decreases) == ((), 0)


# --- cooldowns -------------------------------------------------------------------------------

FALLING = minutes((400, 15), (100, 30))


def test_scale_in_without_a_cooldown() -> None:
    """400 units want 572; then 100 units are below half of that for 15 minutes, and want 143."""
    run = simulate(FALLING, TargetTracking(100, 2000, delay=0), initial=1000)
    assert moves(run) == [(900, 900, 572), (1800, 1800, 143)]


def test_scale_in_waits_for_its_cooldown() -> None:
    """The cooldown begins when the change before is complete."""
    scaling = TargetTracking(100, 2000, delay=0, scale_in_cooldown=1200)
    assert moves(simulate(FALLING, scaling, initial=1000))[1] == (2100, 2100, 143)


def test_scale_out_ends_the_scale_in_cooldown() -> None:
    """A scale-out comes at once, and what is left of the cooldown does not matter any more."""
    scaling = TargetTracking(100, 2000, delay=0, scale_in_cooldown=2 * HOUR)
    run = simulate(minutes((400, 15), (1000, 2), (100, 20)), scaling, initial=1000)
    assert moves(run) == [(900, 900, 572), (1020, 1020, 1429), (1920, 1920, 143)]


def test_scale_out_waits_for_its_cooldown() -> None:
    """80 units want 115, 15 more. Then 85 want 122, which is 7 more: not before the cooldown."""
    scaling = TargetTracking(100, 2000, delay=0, scale_out_cooldown=600)
    run = simulate(minutes((80, 2), (85, 20)), scaling)
    assert moves(run) == [(120, 120, 115), (720, 720, 122)]


def test_a_larger_scale_out_does_not_wait() -> None:
    """Within the cooldown, 150 units want 215: 100 more, which is more than the 15 before."""
    scaling = TargetTracking(100, 2000, delay=0, scale_out_cooldown=600)
    run = simulate(minutes((80, 2), (85, 2), (150, 20)), scaling)
    assert moves(run) == [(120, 120, 115), (300, 300, 215)]


# --- decreases a day -------------------------------------------------------------------------

LADDER = minutes((4000, 15), (2400, 15), (1440, 15), (864, 15), (518, 90))
"""Each is below half of the capacity that the one before wants."""


def test_four_decreases_then_one_an_hour() -> None:
    """The fifth is due after 75 minutes, and made an hour after the fourth."""
    run = simulate(LADDER, TargetTracking(1, 10_000, delay=0), initial=10_000)
    assert moves(run) == [
        (900, 900, 5715),
        (1800, 1800, 3429),
        (2700, 2700, 2058),
        (3600, 3600, 1235),
        (7200, 7200, 740),  # 75 minutes is an hour after the first, not after the fourth
    ]
    assert run.refused_decreases == 45  # the minutes from 4,500 s to 7,140 s


def test_a_new_day_in_utc_has_its_own_decreases() -> None:
    """The same demand, begun so that the fifth is due at midnight, UTC."""
    late = Demand(LADDER.units, start=20_000 * DAY - 4_500.0)
    run = simulate(late, TargetTracking(1, 10_000, delay=0), initial=10_000)
    assert moves(run)[4] == (4500, 4500, 740)
    assert run.refused_decreases == 0


def test_decreases_by_the_clock() -> None:
    """The rule of the developer guide, moment by moment."""
    hours = [
        (0.0, True),  # the first of the day
        (0.5, True),
        (0.9, True),
        (0.95, True),  # the fourth, within an hour of the first
        (0.99, False),
        (1.0, False),  # 3 minutes after the fourth
        (1.95, True),
        (2.5, False),
        (23.0, True),
        (23.9, False),
        (24.0, True),  # the next day
        (24.1, True),
    ]
    decreases = Decreases()
    told = [_decrease(decreases, hour * HOUR) for hour, _ in hours]
    assert told == [allowed for _, allowed in hours]


def test_four_are_allowed_in_the_first_hour_alone() -> None:
    """After an hour, one decrease an hour is left, although there was one only."""
    decreases = Decreases()
    assert [_decrease(decreases, hour * HOUR) for hour in (2, 3.5, 3.6, 4.5)] == [
        True,
        True,
        False,
        True,
    ]


def test_27_decreases_a_day() -> None:
    """Whoever tries each minute makes 27 a day, and as many on the next."""
    decreases = Decreases()
    made = [second // DAY for second in range(0, 2 * DAY, 60) if _decrease(decreases, second)]
    assert (made.count(0), made.count(1)) == (27, 27)


@given(st.lists(st.integers(0, 2 * DAY - 1), max_size=300))
def test_never_more_than_27_a_day(moments: list[int]) -> None:
    """Whenever it is tried: at most 27 a day, and never five within an hour of a day."""
    decreases = Decreases()
    made = [moment for moment in sorted(moments) if _decrease(decreases, moment)]
    for day in (0, 1):
        today = [moment for moment in made if moment // DAY == day]
        assert len(today) <= 27
        assert all(later - first >= HOUR for first, later in zip(today, today[4:], strict=False))


def _decrease(decreases: Decreases, moment: float) -> bool:
    allowed = decreases.allows(moment)
    if allowed:
        decreases.add(moment)
    return allowed


# --- what always holds -----------------------------------------------------------------------

steps = st.sampled_from([60.0, 20.0])
units = st.one_of(st.integers(0, 300), st.integers(0, 3000)).map(float)


@st.composite
def demands(draw: Any) -> Demand:
    """Blocks of minutes, so that alarms have something to see; sometimes in finer steps."""
    step = draw(steps)
    blocks = draw(st.lists(st.tuples(units, st.integers(1, 20)), min_size=1, max_size=10))
    by_minute = [block for block, count in blocks for _ in range(count)]
    if step == 60:
        return Demand(np.array(by_minute))
    factors = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0]), min_size=3, max_size=3))
    return Demand(np.outer(by_minute, factors).ravel(), step)


scalings = st.builds(
    lambda low, more, **others: TargetTracking(low, low + more, **others),
    st.integers(1, 500),
    st.integers(0, 2000),
    target=st.sampled_from([20.0, 50.0, 70.0, 90.0]),
    scale_in_cooldown=st.sampled_from([0.0, 60.0, 2400.0]),
    scale_out_cooldown=st.sampled_from([0.0, 60.0, 600.0]),
    delay=st.sampled_from([0.0, 60.0, 180.0]),
)
saved = st.sampled_from([0.0, 300.0])


@given(demands(), scalings, saved)
def test_what_always_holds(demand: Demand, scaling: TargetTracking, burst: float) -> None:
    """All is served or throttled, and capacity and burst capacity stay within their bounds."""
    run = simulate(demand, scaling, burst_seconds=burst)
    assert run.consumed + run.throttled == pytest.approx(demand.units)
    assert (run.throttled >= 0).all()
    assert (run.capacity >= scaling.minimum).all()
    assert (run.capacity <= scaling.maximum).all()
    assert (run.burst >= 0).all()
    assert (run.burst <= run.capacity * burst + 1e-6).all()
    assert 0 <= run.throttled_share <= 1
    assert run.cost(2) == 2 * run.unit_hours


@given(demands(), scalings, saved)
def test_nothing_is_throttled_within_the_minimum(
    demand: Demand, scaling: TargetTracking, burst: float
) -> None:
    """Where the demand never exceeds the minimum, nothing is throttled."""
    least = Demand(np.minimum(demand.units, scaling.minimum), demand.step)
    assert simulate(least, scaling, burst_seconds=burst, filled=0).throttled_units == 0


@given(demands(), st.integers(1, 2000), st.integers(0, 500), saved)
def test_more_fixed_capacity_never_throttles_more(
    demand: Demand, low: int, more: int, burst: float
) -> None:
    """Of two fixed capacities, the higher throttles no more in any step's sum."""
    small, large = (
        simulate(demand, TargetTracking(fixed, fixed), burst_seconds=burst)
        for fixed in (low, low + more)
    )
    lost = np.cumsum(large.throttled) - np.cumsum(small.throttled)
    assert (lost <= 1e-6 * (1 + np.cumsum(demand.units))).all()


def test_more_minimum_may_throttle_more() -> None:
    """A higher minimum can lead to a scale-in that comes at the wrong time."""
    # Two full minutes of 200 lead from 100 to 143, and from 150 to 215. Of 143, 100 units are
    # more than half; of 215 they are less, and it falls to 150 after the peak. From 143 the peak
    # leads to 205, in time for the last 200.
    demand = minutes((200, 2), (100, 16), (1000, 1), (200, 1), (50, 5), (200, 5))
    low, high = (
        simulate(demand, TargetTracking(least, 2000), burst_seconds=0) for least in (100, 150)
    )
    assert (low.throttled_units, high.throttled_units) == (66_840, 68_100)


@given(demands(), scalings, saved)
def test_it_follows_the_rules(demand: Demand, scaling: TargetTracking, burst: float) -> None:
    """The quick simulation does what a slow one does that looks at all minutes again and again."""
    run = simulate(demand, scaling, burst_seconds=burst)
    capacity, consumed, changes = slowly(demand, scaling, burst)
    assert list(run.changes) == changes
    assert run.capacity.tolist() == capacity
    assert run.consumed == pytest.approx(np.array(consumed))


def slowly(
    demand: Demand, scaling: TargetTracking, burst_seconds: float
) -> tuple[list[int], list[float], list[CapacityChange]]:
    """The rules once more, one step after the other, for a demand of less than a day."""
    per_minute = round(60 / demand.step)
    capacity, burst = scaling.minimum, scaling.minimum * burst_seconds
    capacities: list[int] = []
    consumed: list[float] = []
    changes: list[CapacityChange] = []
    due: list[CapacityChange] = []
    means: list[float] = []
    for index, asked in enumerate(demand.units.tolist()):
        now = index * demand.step
        if due and due[0].effect <= now:
            changes.append(due.pop())
            capacity = changes[-1].after
            burst = min(burst, capacity * burst_seconds)
        served = min(asked, capacity + burst / demand.step)
        burst += (capacity - served) * demand.step
        burst = min(max(burst, 0), capacity * burst_seconds)
        capacities.append(capacity)
        consumed.append(served)
        if (index + 1) % per_minute == 0:
            means.append(sum(consumed[-per_minute:]) / per_minute)
            after = None if due else _decide(means, capacity, scaling, changes)
            if after is not None:
                end = len(means) * 60.0
                late = math.ceil(scaling.delay / 60) * 60
                due.append(CapacityChange(end, end + late, capacity, after))
    return capacities, consumed, changes


def _decide(
    means: Sequence[float],
    capacity: int,
    scaling: TargetTracking,
    changes: Sequence[CapacityChange],
) -> int | None:
    now = len(means) * 60
    shares = [100 * mean / capacity for mean in means]
    after = math.ceil(round(100 * means[-1] / scaling.target, 6))
    after = min(max(after, scaling.minimum), scaling.maximum)
    outs = [change for change in changes if change.after > change.before]
    if len(shares) >= 2 and min(shares[-2:]) > scaling.target * (1 + 1e-9):
        if after <= capacity:
            return None
        if outs and now < outs[-1].effect + scaling.scale_out_cooldown:
            return after if after - capacity > outs[-1].after - outs[-1].before else None
        return after
    if len(shares) >= 15 and max(shares[-15:]) < (scaling.target - 20) * (1 - 1e-9):
        cooling = bool(changes) and changes[-1].after < changes[-1].before
        if cooling and now < changes[-1].effect + scaling.scale_in_cooldown:
            return None
        made = [change.alarm for change in changes if change.after < change.before]
        allowed = not made or now - made[-1] >= HOUR or (len(made) < 4 and now - made[0] < HOUR)
        return after if after < capacity and allowed else None
    return None


def test_steps_of_a_second_agree_with_minutes() -> None:
    """A demand that is the same within each minute comes to the same in steps of a second."""
    coarse = diurnal(100, 2000, days=1)
    fine = coarse.resampled(1)
    one, other = (simulate(demand, SCALING, initial=300) for demand in (coarse, fine))
    assert one.changes == other.changes
    assert one.throttled_units == pytest.approx(other.throttled_units)
    assert one.burst == pytest.approx(other.burst[59::60])


def test_bursts_within_a_minute_throttle() -> None:
    """A burst of a few seconds throttles where its minute on average would not."""
    second = np.zeros(60)
    second[:6] = 500  # 50 units a second on average, of 100
    run = simulate(Demand(second, step=1), TargetTracking(100, 100), filled=0)
    assert run.throttled.tolist() == [400] * 6 + [0] * 54
    assert run.burst[-1] == 54 * 100


def test_sums_of_a_run() -> None:
    """Cost, utilisation and headroom, of an hour at 60 of 100 units and one at 90."""
    run = simulate(minutes((60, 60), (90, 60)), TargetTracking(100, 100))
    assert run.unit_hours == pytest.approx(200)
    assert run.cost(0.5) == pytest.approx(100)
    assert run.utilisation == pytest.approx(0.75)
    assert run.headroom == pytest.approx(0.1)
    assert run.consumed_units == pytest.approx((60 + 90) * HOUR)
    assert simulate(minutes((0, 2)), SCALING).throttled_share == 0


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"minimum": 0}, "minimum=0: it must be 1"),
        ({"maximum": 99}, "maximum=99: it must be the minimum"),
        ({"target": 19}, "target=19: it must be from 20 to 90"),
        ({"target": 91}, "target=91"),
        ({"scale_in_cooldown": -1}, "scale_in_cooldown=-1"),
        ({"scale_out_cooldown": -1}, "scale_out_cooldown=-1"),
        ({"delay": math.nan}, "delay=nan"),
        ({"scale_in_margin": -1}, "scale_in_margin=-1"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], named: str) -> None:
    """What AWS would refuse is named."""
    with pytest.raises(InvalidValue, match=named):
        TargetTracking(**({"minimum": 100, "maximum": 1000} | settings))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"initial": 99}, "initial=99"),
        ({"burst_seconds": -1}, "burst_seconds=-1"),
        ({"filled": 1.5}, "filled=1.5"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], named: str) -> None:
    """A simulation that could not begin so is refused."""
    with pytest.raises(InvalidValue, match=named):
        simulate(steady(10, 600), SCALING, **options)


@pytest.mark.parametrize(
    ("demand", "named"),
    [
        (Demand(np.ones(3), step=300), r"use resampled\(60\)"),
        (Demand(np.ones(6), step=7), "no multiple"),
        (Demand(np.ones(5), step=30), "no whole number of minutes"),
    ],
)
def test_steps_that_do_not_fill_minutes_are_refused(demand: Demand, named: str) -> None:
    """CloudWatch counts minutes: a demand has to tell what each asks for."""
    with pytest.raises(InvalidValue, match=named):
        simulate(demand, SCALING)
