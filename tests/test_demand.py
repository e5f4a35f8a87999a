"""Demands: the laws that make them, arithmetic, and files."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store import InvalidValue
from chalk_online_store.planning.demand import (
    Demand,
    demand_of,
    diurnal,
    flash_crowd,
    read_demand,
    spike,
    steady,
)
from chalk_online_store.planning.traffic import Workload, zipf
from tests.files import Write, check_refused, write_rows


def test_a_day() -> None:
    """Lowest twelve hours from the peak, highest at it, half way between in the middle."""
    day = diurnal(100, 500, days=1, peak_hour=15, step=3600)
    assert len(day.units) == 24
    assert day.seconds == 86_400
    # A step is as its middle: 14:30 and 15:30 are half an hour from the peak.
    assert day.units[14] == day.units[15] == day.peak
    assert day.units[14] == pytest.approx(300 + 200 * math.cos(math.tau / 48))
    assert day.units.mean() == pytest.approx(300)
    assert diurnal(100, 500, days=2).units[:1440] == pytest.approx(diurnal(100, 500).units)


def test_the_clock_is_utc() -> None:
    """Where the demand starts at noon, the peak at 15 o'clock comes after three hours."""
    units = diurnal(0, 1, step=3600, start=12 * 3600.0).units
    assert sorted(np.argsort(units)[-2:].tolist()) == [2, 3]


def test_a_spike() -> None:
    """A step that is in part within the spike has that part of it."""
    demand = spike(1_000, at=90, lasts=60, seconds=300, base=100)
    assert demand.units.tolist() == [100, 550, 550, 100, 100]
    assert demand.total == 300 * 100 + 60 * 900


def test_a_flash_crowd() -> None:
    """It rises in a line, and what is above the base halves again and again."""
    demand = flash_crowd(900, at=60, seconds=300, base=100, rise=60, half_life=60)
    # The middles of the minutes: 30 s before it, half way up, then half of a half life, and on.
    expected = [100, 500, *(100 + 800 * 2 ** -(0.5 + n) for n in range(3))]
    assert demand.units == pytest.approx(np.array(expected))
    sudden = flash_crowd(900, at=60, seconds=180, rise=0, half_life=1e9)
    assert sudden.units == pytest.approx(np.array([0, 900, 900]))


def test_demands_are_added() -> None:
    """Step by step; only those that fit each other."""
    total = steady(100, 300) + spike(50, at=60, lasts=60, seconds=300)
    assert total.units.tolist() == [100, 150, 100, 100, 100]
    for other in (steady(1, 240), steady(1, 300, step=30), steady(1, 300, start=60)):
        with pytest.raises(InvalidValue, match="start, step and number of steps"):
            steady(1, 300) + other


def test_noise() -> None:
    """It leaves the mean, has the deviation that was asked for, and is that of its seed."""
    demand = steady(100, 60 * 100_000)
    noisy = demand.with_noise(0.2, seed=1)
    assert noisy.units.mean() == pytest.approx(100, rel=0.01)
    assert noisy.units.std() == pytest.approx(20, rel=0.02)
    assert (noisy.units == demand.with_noise(0.2, seed=1).units).all()
    assert (noisy.units != demand.with_noise(0.2, seed=2).units).any()
    assert (demand.with_noise(0).units == 100).all()


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=20).filter(lambda units: len(units) % 2 == 0),
    st.sampled_from([(60, 120), (60, 30), (60, 1), (10, 20)]),
)
def test_other_steps_ask_for_as_much(units: list[float], steps: tuple[int, int]) -> None:
    """Longer steps are averages, shorter ones repeat: the total stays what it was."""
    demand = Demand(np.array(units), steps[0])
    other = demand.resampled(steps[1])
    assert other.step == steps[1]
    assert other.total == pytest.approx(demand.total)
    assert other.seconds == demand.seconds


@pytest.mark.parametrize(("step", "named"), [(90, "no multiple"), (180, "no whole number")])
def test_steps_that_do_not_fit(step: float, named: str) -> None:
    """A step that divides neither the old one nor the whole is refused."""
    with pytest.raises(InvalidValue, match=named):
        steady(1, 240).resampled(step)


def test_a_demand_of_reads() -> None:
    """Each read takes half a unit, in whole minutes, from the one in which the first was."""
    reads = Workload(np.zeros(4, np.int64), np.array([125.0, 125, 130, 190]), np.ones(4, bool), 1)
    demand = demand_of(reads)
    assert (demand.start, demand.step) == (120, 60)
    assert demand.units == pytest.approx(np.array([1.5, 0.5]) / 60)
    fine = demand_of(reads, units=2, step=10)
    assert fine.units == pytest.approx(np.array([4, 2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]) / 10)
    assert demand_of(zipf(600, 10, reads_per_second=1)).total == pytest.approx(300)


def test_what_it_holds_does_not_change() -> None:
    """A demand keeps its own units, which cannot be written."""
    units = np.ones(3)
    demand = Demand(units)
    units[0] = 5
    assert demand.units.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="read-only"):
        demand.units[0] = 5


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Demand(np.array([])), "at least one step"),
        (lambda: Demand(np.ones((2, 2))), "one dimension"),
        (lambda: Demand(np.array([1, -1])), "0 or more"),
        (lambda: Demand(np.array([1, math.nan])), "0 or more"),
        (lambda: Demand(np.ones(1), step=0), "step=0"),
        (lambda: Demand(np.ones(1), start=math.inf), "start=inf"),
        (lambda: diurnal(5, 4), "peak=4: it must be the trough"),
        (lambda: diurnal(1, 2, days=0), "seconds=0"),
        (lambda: steady(1, 60, step=0), "step=0"),
        (lambda: flash_crowd(1, 0, 60, rise=-1), "rise=-1"),
        (lambda: flash_crowd(1, 0, 60, half_life=0), "half_life=0"),
        (lambda: steady(1, 60).with_noise(-1), "share=-1"),
        (lambda: demand_of(zipf(1, 1), units=-1), "units=-1"),
        (lambda: demand_of(zipf(1, 1), step=7), "no multiple"),
    ],
)
def test_what_is_no_demand_is_refused(make: Callable[[], Any], named: str) -> None:
    """The setting at fault is named."""
    with pytest.raises(InvalidValue, match=named):
        make()


# --- files -----------------------------------------------------------------------------------

ROWS = [{"time": 120 + 60 * n, "units": units} for n, units in enumerate([5, 7.5, 0])]


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    """Writes rows as a file, in each format."""
    return partial(write_rows, tmp_path / f"demand.{request.param}")


def test_a_file_is_read(write: Write) -> None:
    """Each format gives the same demand, whose step is the distance of its rows."""
    demand = read_demand(write(ROWS))
    assert demand.units.tolist() == [5, 7.5, 0]
    assert (demand.step, demand.start) == (60, 120)


def test_a_file_of_moments(write: Write) -> None:
    """Times in ISO 8601 are UTC unless they say otherwise."""
    moments = ["1970-01-01T00:00:00", "1970-01-01T01:05:00+01:00"]
    demand = read_demand(write([{"time": moment, "units": 1} for moment in moments]))
    assert (demand.step, demand.start) == (300, 0)


@pytest.mark.parametrize(
    ("rows", "place", "column"),
    [
        ([{"time": 0, "units": 1}, {"time": 60, "units": -1}], 2, "column units: it is not 0"),
        ([{"time": "secret", "units": "1"}], 1, "column time: it is neither"),
        ([{"time": "0", "units": "secret"}], 1, "column units: it is not a number"),
        ([{"time": 1.7e12, "units": 1}], 1, "column time: it is not seconds"),
        ([{"time": 60, "units": 1}, {"time": 0, "units": 1}], 2, "column time: it is not after"),
        (
            [{"time": at, "units": 1} for at in (0, 60, 180)],
            3,
            "column time: it is not 60 s after the one before",
        ),
    ],
)
def test_a_bad_row_is_refused(
    write: Write, rows: list[dict[str, Any]], place: int, column: str
) -> None:
    """The message names file, line and column, and what to do; never what stands there."""
    check_refused(read_demand, write(rows), place, column)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.txt", "", "is no demand: its name must end in .csv"),
        ("d.csv", "time\n1\n", "no column units: a demand has time and units"),
        ("d.csv", "time,units\n1,1\n", "fewer than two rows"),
        ("d.jsonl", "[1]", 'write an object a line, as {"time": 1}'),
    ],
)
def test_what_is_no_file_of_demand_is_refused(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    """A file of another kind, or one that says too little, is told from a bad row."""
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InvalidValue) as refused:
        read_demand(path)
    assert message in str(refused.value)
