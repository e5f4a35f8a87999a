"""Which minimum, maximum and target serve a demand at the least cost.

A bounded search by simulation, always the same for the same demand. First a grid: capacities that
never change; targets from 20 to 90 %, minimums from the demand's lowest minute to its highest,
maximums that take all of it or cut it off. Then the best so far is varied, one setting at a time,
in ever smaller steps, until nothing is better or `tries` simulations are done. What is best among
all settings there are is not known: throttling is no smooth function of them, nor does more
minimum always throttle less.

Burst capacity is not counted on unless the caller says so: AWS does not promise it. Nor does AWS
say how late an alarm is, so the choice comes with what it does over a range of delays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from chalk_online_store.planning.autoscaling import TargetTracking, simulate
from chalk_online_store.planning.demand import MINUTE, Demand, Units
from chalk_online_store.planning.runs import ProvisionedRun
from chalk_online_store.planning.traffic import refuse

TARGETS = (20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0)
LEVELS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Shares of all minutes: the demand that so many stay at or below is tried as a minimum."""

TRIES = 300

DELAY_SECONDS = (60.0, 180.0, 300.0, 600.0)
"""Delays from an alarm to the new capacity that a choice is tried with. The developer guide says
"up to a few minutes" for the alarm, and as much again for the change."""

_STEPS = ((8.0, 1.3), (4.0, 1.15), (2.0, 1.07), (1.0, 1.03))
"""Points of target, and factors of minimum and maximum, by which the best is varied."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A setting and what it came to: its cost, the share throttled, changes and utilisation."""

    scaling: TargetTracking
    cost: float
    throttled_share: float
    utilisation: float
    changes: int


@dataclass(frozen=True, slots=True)
class DelayOutcome:
    """What a setting comes to with another delay, in seconds, from alarm to new capacity."""

    delay: float
    cost: float
    throttled_share: float


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The setting that was found, its run, and what else was tried.

    `best` is the cheapest that throttles at most `bound` of the demand; where none does,
    `meets` is False and it is the one that throttles least. `frontier` has all that no other is
    both cheaper and throttles less than, cheapest first. `fixed` is a capacity that never
    changes, for the highest minute: what autoscaling is to beat.
    """

    best: Tried
    run: ProvisionedRun
    bound: float
    frontier: tuple[Tried, ...]
    fixed: Tried
    tries: int
    by_delay: tuple[DelayOutcome, ...] = ()

    @property
    def meets(self) -> bool:
        """Whether the bound is kept."""
        return self.best.throttled_share <= self.bound

    def explain(self) -> str:
        """Why this one, in a few sentences; cost is in the unit of the price."""
        best, fixed = self.best, self.fixed
        what = (
            f"{_settings(best)} costs {best.cost:,.2f}, throttles {best.throttled_share:.3%} and "
            f"uses {best.utilisation:.0%} of what is provisioned, with {best.changes} changes."
        )
        beside = (
            f"A fixed capacity of {fixed.scaling.minimum:,} costs {fixed.cost:,.2f} and "
            f"throttles {fixed.throttled_share:.3%}."
        )
        return f"{what} {self._why()} {beside} {self._over_delays()}".rstrip()

    def _over_delays(self) -> str:
        """Say what the setting does over the range of delays."""
        if not self.by_delay:
            return ""
        first, last = self.by_delay[0], self.by_delay[-1]
        shares = [each.throttled_share for each in self.by_delay]
        text = (
            f"If capacity follows an alarm after {first.delay:g} to {last.delay:g} s, which AWS "
            f"does not tell, it throttles {min(shares):.3%} to {max(shares):.3%}."
        )
        late = [each.delay for each in self.by_delay if each.throttled_share > self.bound]
        return f"{text} The bound is broken from {min(late):g} s on." if late else text

    def _why(self) -> str:
        if not self.meets:
            return (
                f"None of {self.tries} settings tried keeps the bound of {self.bound:.3%}: this "
                "one throttles least."
            )
        why = f"Of {self.tries} settings tried, it is the cheapest that keeps {self.bound:.3%}."
        cheaper = [tried for tried in self.frontier if tried.cost < self.best.cost]
        if cheaper:
            why += (
                f" The next cheaper one, {_settings(cheaper[-1])}, throttles "
                f"{cheaper[-1].throttled_share:.3%}."
            )
        return why


def _settings(tried: Tried) -> str:
    scaling = tried.scaling
    return f"{scaling.minimum:,} to {scaling.maximum:,} units at {scaling.target:g} %"


def search(
    demand: Demand,
    price: float,
    bound: float = 0.001,
    base: TargetTracking | None = None,
    tries: int = TRIES,
    burst_seconds: float = 0.0,
) -> Choice:
    """The settings that keep the throttled share at or below `bound` at least cost.

    `price` is that of a unit for an hour. `base` gives what is not searched for: cooldowns, the
    delay, and the bounds that minimum and maximum have to stay in; unless stated, 1 to 40,000
    units. Up to `tries` simulations, each with burst capacity of `burst_seconds` (default: 0,
    since AWS does not promise it; `autoscaling.BURST_SECONDS` is what it usually keeps). Raises
    `InvalidValue`.
    """
    refuse(
        [
            ("price", price, 0 < price < math.inf, "above 0"),
            ("bound", bound, 0 <= bound <= 1, "a share from 0 to 1"),
            ("tries", tries, tries >= 1, "1 or more"),
        ]
    )
    within = base or TargetTracking(1, 40_000)
    trials = _Trials(demand, price, bound, tries, burst_seconds)
    for scaling in _grid(demand, within):
        trials.add(scaling)
    for points, factor in _STEPS:
        trials.improve(within, points, factor)
    return trials.choice(within)


class _Trials:
    """What was tried so far; each setting once."""

    def __init__(
        self, demand: Demand, price: float, bound: float, tries: int, burst_seconds: float
    ) -> None:
        self.demand, self.price, self.bound, self.limit = demand, price, bound, tries
        self.burst_seconds = burst_seconds
        self.tried: dict[TargetTracking, Tried] = {}

    def add(self, scaling: TargetTracking) -> None:
        if scaling not in self.tried and len(self.tried) < self.limit:
            self.tried[scaling] = self.trial(scaling)

    def trial(self, scaling: TargetTracking) -> Tried:
        run = self.run(scaling)
        return Tried(
            scaling, run.cost(self.price), run.throttled_share, run.utilisation, len(run.changes)
        )

    def run(self, scaling: TargetTracking) -> ProvisionedRun:
        return simulate(self.demand, scaling, burst_seconds=self.burst_seconds)

    def best(self) -> Tried:
        return min(self.tried.values(), key=self._rank)

    def _rank(self, tried: Tried) -> tuple[float, ...]:
        """What is better comes first: what keeps the bound, by cost; then, by throttling."""
        scaling = tried.scaling
        ties = (scaling.maximum, scaling.minimum, scaling.target)
        if tried.throttled_share <= self.bound:
            return (0.0, tried.cost, tried.throttled_share, *ties)
        return (1.0, tried.throttled_share, tried.cost, *ties)

    def improve(self, within: TargetTracking, points: float, factor: float) -> None:
        """Vary the best by these steps until none of its neighbours is better."""
        before = None
        while (best := self.best()) is not before and len(self.tried) < self.limit:
            before = best
            for scaling in _neighbours(best.scaling, within, points, factor):
                self.add(scaling)

    def choice(self, within: TargetTracking) -> Choice:
        best = self.best()
        peak = _clamp(float(_by_minute(self.demand).max()), within)
        return Choice(
            best=best,
            run=self.run(best.scaling),
            bound=self.bound,
            frontier=tuple(_frontier(list(self.tried.values()))),
            fixed=self.trial(replace(within, minimum=peak, maximum=peak)),
            tries=len(self.tried),
            by_delay=tuple(self.delay_outcomes(best.scaling)),
        )

    def delay_outcomes(self, scaling: TargetTracking) -> Iterator[DelayOutcome]:
        for delay in sorted({*DELAY_SECONDS, scaling.delay}):
            run = self.run(replace(scaling, delay=delay))
            yield DelayOutcome(delay, run.cost(self.price), run.throttled_share)


def _by_minute(demand: Demand) -> Units:
    return demand.resampled(MINUTE).units


def _grid(demand: Demand, within: TargetTracking) -> Iterator[TargetTracking]:
    """The settings tried first: fixed ones, then each target with each minimum and maximum."""
    minutes = _by_minute(demand)
    lows = sorted({_clamp(level, within) for level in np.quantile(minutes, LEVELS)})
    for low in lows:
        yield replace(within, minimum=low, maximum=low)
    for target in reversed(TARGETS):
        for high in (math.inf, float(minutes.max()), float(np.quantile(minutes, 0.99))):
            for low in lows:
                maximum = max(_clamp(high / target * 100, within), low)
                yield replace(within, minimum=low, maximum=maximum, target=target)


def _clamp(units: float, within: TargetTracking) -> int:
    return math.ceil(min(max(units, within.minimum), within.maximum))


def _neighbours(
    best: TargetTracking, within: TargetTracking, points: float, factor: float
) -> Iterator[TargetTracking]:
    for target in (best.target - points, best.target + points):
        yield replace(best, target=min(max(target, 20.0), 90.0))
    for low in (best.minimum / factor, best.minimum * factor):
        minimum = _clamp(low, within)
        yield replace(best, minimum=minimum, maximum=max(minimum, best.maximum))
    for high in (best.maximum / factor, best.maximum * factor):
        maximum = _clamp(high, within)
        yield replace(best, minimum=min(best.minimum, maximum), maximum=maximum)


def _frontier(tried: Sequence[Tried]) -> Iterator[Tried]:
    """Those that no other one is at least as good as in both, cheapest first."""
    least = math.inf
    for one in sorted(tried, key=lambda one: (one.cost, one.throttled_share)):
        if one.throttled_share < least:
            least = one.throttled_share
            yield one
