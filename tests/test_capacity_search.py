"""The search for minimum, maximum and target: what it chooses, and what it says."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from chalk_online_store import InvalidValue
from chalk_online_store.planning.autoscaling import TargetTracking, simulate
from chalk_online_store.planning.demand import Demand, diurnal, flash_crowd, steady
from chalk_online_store.planning.search import Choice, search

PRICE = 0.00013
BOUND = 0.001
CROWD = diurnal(200, 2_000, days=1) + flash_crowd(3_000, 30_000, 86_400)


@pytest.fixture(scope="module")
def choice() -> Choice:
    """The setting that is found for `CROWD`."""
    return search(CROWD, PRICE, BOUND, burst_seconds=300)


def test_the_choice_keeps_the_bound(choice: Choice) -> None:
    """What was chosen throttles no more than allowed, and is the cheapest that does so."""
    assert choice.meets
    assert choice.best.throttled_share <= BOUND
    cheaper = [tried for tried in choice.frontier if tried.cost < choice.best.cost]
    assert cheaper
    assert all(tried.throttled_share > BOUND for tried in cheaper)


def test_the_choice_is_what_its_run_says(choice: Choice) -> None:
    """Cost and throttled share are those of a simulation of the setting."""
    run = simulate(CROWD, choice.best.scaling)
    assert choice.best.cost == run.cost(PRICE) == choice.run.cost(PRICE)
    assert choice.best.throttled_share == run.throttled_share
    assert choice.best.changes == len(choice.run.changes)


def test_the_choice_beats_a_grid(choice: Choice) -> None:
    """It is no dearer than the best of a grid that somebody might try by hand."""
    costs = []
    for low, high, target in itertools.product((200, 500, 1_000, 2_000), (3_000, 5_000), (50, 70)):
        run = simulate(CROWD, TargetTracking(low, high, target))
        if run.throttled_share <= BOUND:
            costs.append(run.cost(PRICE))
    assert costs
    assert choice.best.cost <= min(costs)
    assert choice.best.cost < choice.fixed.cost


def test_the_frontier(choice: Choice) -> None:
    """Along it cost rises and throttling falls; none is dominated by another."""
    for one, other in itertools.pairwise(choice.frontier):
        assert one.cost < other.cost
        assert one.throttled_share > other.throttled_share
    assert choice.best in choice.frontier


def test_it_is_always_the_same(choice: Choice) -> None:
    """The same demand leads to the same choice, along the same way."""
    again = search(CROWD, PRICE, BOUND, burst_seconds=300)
    assert again.best == choice.best
    assert again.frontier == choice.frontier
    assert again.explain() == choice.explain()


def test_a_stricter_bound_costs_no_less(choice: Choice) -> None:
    """Nothing throttled costs at least as much as a little throttled."""
    strict = search(CROWD, PRICE, 0)
    assert strict.best.throttled_share == 0
    assert strict.best.cost >= choice.best.cost


def test_a_steady_demand() -> None:
    """A load that never changes needs what it asks for, and no autoscaling."""
    choice = search(steady(700, 86_400), PRICE, 0, burst_seconds=0)
    assert choice.best.throttled_share == 0
    assert choice.best.cost == pytest.approx(700 * 24 * PRICE)
    assert (choice.best.scaling.minimum, choice.best.changes) == (700, 0)


def test_without_burst_capacity_it_costs_more(choice: Choice) -> None:
    """Burst capacity is not promised: a setting that does without is dearer."""
    without = search(CROWD, PRICE, BOUND, burst_seconds=0)
    assert without.best.throttled_share <= BOUND
    assert without.best.cost > choice.best.cost
    assert without.run.burst.max() == 0


def test_a_bound_that_cannot_be_kept() -> None:
    """With a maximum below the demand, the least throttling is chosen, and it is said."""
    choice = search(CROWD, PRICE, 0, TargetTracking(1, 1_000))
    assert not choice.meets
    assert choice.best.throttled_share == min(one.throttled_share for one in choice.frontier)
    assert "None of" in choice.explain()
    assert "keeps the bound of 0.000%" in choice.explain()


def test_it_keeps_within_its_base() -> None:
    """Bounds, cooldowns and the delay are those of the base."""
    base = TargetTracking(300, 4_000, scale_in_cooldown=60, scale_out_cooldown=30, delay=60)
    choice = search(CROWD, PRICE, BOUND, base, tries=40)
    assert choice.tries == 40
    for tried in (choice.best, choice.fixed, *choice.frontier):
        scaling = tried.scaling
        assert 300 <= scaling.minimum <= scaling.maximum <= 4_000
        assert 20 <= scaling.target <= 90
        kept = (scaling.scale_in_cooldown, scaling.scale_out_cooldown, scaling.delay)
        assert kept == (60, 30, 60)


def test_it_explains_itself(choice: Choice) -> None:
    """The words name the setting, what it costs, and what a fixed capacity would."""
    said, best = choice.explain(), choice.best
    scaling = best.scaling
    assert said.startswith(
        f"{scaling.minimum:,} to {scaling.maximum:,} units at {scaling.target:g} % costs "
    )
    assert f"Of {choice.tries} settings tried, it is the cheapest that keeps 0.100%." in said
    assert f"A fixed capacity of {choice.fixed.scaling.minimum:,} costs" in said


@pytest.mark.parametrize(
    ("options", "named"),
    [({"price": 0}, "price=0"), ({"bound": 1.1}, r"bound=1\.1"), ({"tries": 0}, "tries=0")],
)
def test_bad_options_are_refused(options: dict[str, Any], named: str) -> None:
    """A search that has no sense is refused."""
    with pytest.raises(InvalidValue, match=named):
        search(Demand(np.ones(5)), **({"price": 1.0} | options))
