"""How provisioned capacity follows a demand: target tracking, with burst capacity. A simulation.

One dimension, read or write, of one table or index in one region. The rules, each by its source:

- The developer guide, "DynamoDB metrics and dimensions": consumed capacity is told for periods of
  a minute. Capacity rises when it is above the target for two consecutive minutes, and falls when
  15 consecutive data points are below. The alarm may be late by up to a few minutes, and it takes
  several minutes more until the new capacity is there.
- AWS's knowledge center, "dynamodb-auto-scaling": it falls at 20 below the target: with 70 %, at
  50 %. The alarms that AWS makes show the same: of 12 units, below 360 a minute.
- Those alarms have the consumed units of a minute as their metric, and a threshold that follows
  the capacity: so minutes before a change are held to the capacity after it. Only what was served
  counts as consumed.
- CloudWatch, "Alarm actions": alarms of autoscaling act each minute for as long as they last.
- Application Auto Scaling, "Define cooldown periods", and the API's ScaleInCooldown and
  ScaleOutCooldown; both are 0 for DynamoDB unless stated.
- `Decreases`: at most 27 a day.
- The developer guide, "Burst capacity": up to 300 seconds of unused capacity are kept.

AWS does not say what a new capacity is computed of, nor how late it is. Assumed here: of what the
last minute before the alarm consumed, divided by the target and rounded up; `delay` later. While a
change is under way there is no other, since a table that is being updated refuses that. A minute
without any demand is a data point of 0.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from chalk_online_store.planning.demand import DAY, HOUR, MINUTE, Demand
from chalk_online_store.planning.runs import CapacityChange, ProvisionedRun
from chalk_online_store.planning.traffic import refuse

# --- How often AWS lets the provisioned capacity of a table be lowered in a day ------------


AT_FIRST = 4
MOST_A_DAY = 27


class Decreases:
    """The decreases made so far in a day, UTC, and whether one more is allowed.

    The developer guide, "Quotas", "Decreasing provisioned throughput": a day begins with up to
    four decreases within one hour, as long as none was made that day; after that one more is
    allowed an hour, as long as there was none in the preceding hour. That makes 27 a day at most:
    four in the first hour, and one in each of the other 23. Moments are seconds since 1970.
    """

    __slots__ = ("_day", "_first", "_last", "_made")

    def __init__(self) -> None:
        self._day = -math.inf
        self._first = self._last = 0.0
        self._made = 0

    def allows(self, moment: float) -> bool:
        """Whether a decrease at this moment is allowed."""
        if moment // DAY != self._day:
            return True
        if self._made < AT_FIRST and moment - self._first < HOUR:
            return True
        return self._made < MOST_A_DAY and moment - self._last >= HOUR

    def add(self, moment: float) -> None:
        """A decrease was made, no earlier than those before."""
        if moment // DAY != self._day:
            self._day, self._first, self._made = moment // DAY, moment, 0
        self._last = moment
        self._made += 1


MINUTES_ABOVE = 2
MINUTES_BELOW = 15
BURST_SECONDS = 300.0

_EXACT = 1 + 1e-9
"""A sum of floats may miss a threshold by less than this."""


@dataclass(frozen=True, slots=True)
class TargetTracking:
    """Autoscaling of one dimension. Raises `InvalidValue` for what AWS would refuse.

    `minimum` and `maximum` are units a second; the same for both is a fixed capacity. `target`
    is a share of what is provisioned, 20 to 90 %; capacity falls `scale_in_margin` points below
    it. Cooldowns are seconds. `delay` is assumed: seconds from an alarm to the new capacity,
    rounded up to minutes.
    """

    minimum: int
    maximum: int
    target: float = 70.0
    scale_in_cooldown: float = 0.0
    scale_out_cooldown: float = 0.0
    delay: float = 180.0
    scale_in_margin: float = 20.0

    def __post_init__(self) -> None:
        low, high, target = self.minimum, self.maximum, self.target
        refuse(
            [
                ("minimum", low, low >= 1, "1 unit or more"),
                ("maximum", high, high >= low, "the minimum or more"),
                ("target", target, 20 <= target <= 90, "from 20 to 90 %"),
                ("scale_in_cooldown", self.scale_in_cooldown, self.scale_in_cooldown >= 0, _TIME),
                (
                    "scale_out_cooldown",
                    self.scale_out_cooldown,
                    self.scale_out_cooldown >= 0,
                    _TIME,
                ),
                ("delay", self.delay, 0 <= self.delay < math.inf, _TIME),
                ("scale_in_margin", self.scale_in_margin, self.scale_in_margin >= 0, "0 or more"),
            ]
        )

    def wanted(self, consumed: float) -> int:
        """The capacity at which so many units a second are the target, within its bounds."""
        units = math.ceil(round(consumed * 100 / self.target, 6))
        return min(max(units, self.minimum), self.maximum)


_TIME = "0 seconds or more"


def simulate(
    demand: Demand,
    scaling: TargetTracking,
    initial: int | None = None,
    burst_seconds: float = BURST_SECONDS,
    filled: float = 1.0,
) -> ProvisionedRun:
    """What a provisioned table does with a demand.

    It begins with a capacity of `initial` units a second, the minimum unless stated, and with
    burst capacity `filled` to so much of what it may keep, 0 to 1. Burst capacity is kept for
    `burst_seconds`, and may be used at any rate. Steps of the demand are a minute or shorter;
    what varies within a step is averaged. Raises `InvalidValue`.
    """
    begin = scaling.minimum if initial is None else initial
    refuse(
        [
            ("initial", begin, scaling.minimum <= begin <= scaling.maximum, "within the bounds"),
            ("burst_seconds", burst_seconds, 0 <= burst_seconds < math.inf, _TIME),
            ("filled", filled, 0 <= filled <= 1, "a share from 0 to 1"),
        ]
    )
    scaler = _Scaler(scaling, begin, demand.start)
    table = _Table(demand, burst_seconds, begin * burst_seconds * filled)
    for minute in range(len(table.minutes)):
        scaler.begin(minute)
        scaler.end(minute, table.serve(minute, scaler.capacity))
    return table.run(scaler)


class _Table:
    """Serves minute after minute, out of its capacity and what was saved of it."""

    def __init__(self, demand: Demand, burst_seconds: float, burst: float) -> None:
        self.demand, self.step = demand, demand.step
        self.minutes = demand.by_minute()
        self.burst_seconds, self.burst = burst_seconds, burst
        self.means: list[float] = self.minutes.mean(axis=1).tolist()
        self.peaks: list[float] = self.minutes.max(axis=1).tolist()
        self.capacities: list[int] = []
        self.bursts: list[float] = []  # at the begin of each minute
        self.stressed: dict[int, tuple[list[float], list[float]]] = {}

    def serve(self, minute: int, capacity: int) -> float:
        """Units a second that are served in a minute."""
        most = capacity * self.burst_seconds
        self.burst = min(self.burst, most)
        self.capacities.append(capacity)
        self.bursts.append(self.burst)
        mean = self.means[minute]
        if self.peaks[minute] <= capacity:
            self.burst = min(most, self.burst + (capacity - mean) * MINUTE)
            return mean
        served, bursts = self._steps(self.minutes[minute].tolist(), capacity, most)
        self.stressed[minute] = served, bursts
        self.burst = bursts[-1]
        return sum(served) / len(served)

    def _steps(
        self, wanted: list[float], capacity: int, most: float
    ) -> tuple[list[float], list[float]]:
        """Serve steps of which some ask for more than the capacity."""
        step, burst = self.step, self.burst
        served, bursts = [], []
        for asked in wanted:
            units = min(asked, capacity + burst / step)
            burst = min(most, max(0.0, burst + (capacity - units) * step))
            served.append(units)
            bursts.append(burst)
        return served, bursts

    def run(self, scaler: _Scaler) -> ProvisionedRun:
        capacity = np.array(self.capacities, np.float64)[:, None]
        spared = np.cumsum((capacity - self.minutes) * self.step, axis=1)
        burst = np.minimum(np.array(self.bursts)[:, None] + spared, capacity * self.burst_seconds)
        consumed = self.minutes.copy()
        for minute, (served, bursts) in self.stressed.items():
            consumed[minute], burst[minute] = served, bursts
        return ProvisionedRun(
            demand=self.demand,
            capacity=np.repeat(capacity.ravel(), self.minutes.shape[1]),
            consumed=consumed.ravel(),
            throttled=(self.minutes - consumed).ravel(),
            burst=burst.ravel(),
            changes=tuple(scaler.changes),
            refused_decreases=scaler.refused,
        )


class _Scaler:
    """Watches consumed capacity minute by minute, and sets the capacity."""

    def __init__(self, scaling: TargetTracking, capacity: int, start: float) -> None:
        self.scaling, self.capacity, self.start = scaling, capacity, start
        self.minutes_late = math.ceil(scaling.delay / MINUTE)
        self.high = scaling.target / 100 * _EXACT
        self.low = (scaling.target - scaling.scale_in_margin) / 100 / _EXACT
        self.recent: deque[float] = deque(maxlen=MINUTES_BELOW)
        self.pending: CapacityChange | None = None
        self.out_until = self.in_until = -math.inf
        self.added = 0
        self.decreases = Decreases()
        self.changes: list[CapacityChange] = []
        self.refused = 0

    def begin(self, minute: int) -> None:
        """Let a change take effect that is due."""
        change = self.pending
        if change is None or minute * MINUTE < change.effect:
            return
        self.pending, self.capacity = None, change.after
        self.changes.append(change)
        if change.after > change.before:
            self.added = change.after - change.before
            self.out_until = change.effect + self.scaling.scale_out_cooldown
        else:
            self.in_until = change.effect + self.scaling.scale_in_cooldown

    def end(self, minute: int, consumed: float) -> None:
        """Look at what the minute consumed, and at those before."""
        self.recent.append(consumed)
        if self.pending is not None:
            return
        if consumed > self.high * self.capacity:
            self._scale_out(minute, consumed)
        elif consumed < self.low * self.capacity:
            self._scale_in(minute, consumed)

    def _scale_out(self, minute: int, consumed: float) -> None:
        recent, wanted = self.recent, self.scaling.wanted(consumed)
        if len(recent) < MINUTES_ABOVE or recent[-2] <= self.high * self.capacity:
            return
        more = wanted - self.capacity
        cooling = (minute + 1) * MINUTE < self.out_until
        if more <= 0 or (cooling and more <= self.added):
            return
        self.in_until = -math.inf
        self._change(minute, wanted)

    def _scale_in(self, minute: int, consumed: float) -> None:
        wanted, now = self.scaling.wanted(consumed), (minute + 1) * MINUTE
        if wanted >= self.capacity or now < self.in_until or not self._all_below():
            return
        if not self.decreases.allows(self.start + now):
            self.refused += 1
            return
        self.decreases.add(self.start + now)
        self._change(minute, wanted)

    def _all_below(self) -> bool:
        return len(self.recent) == MINUTES_BELOW and max(self.recent) < self.low * self.capacity

    def _change(self, minute: int, wanted: int) -> None:
        alarm = (minute + 1) * MINUTE
        effect = alarm + self.minutes_late * MINUTE
        self.pending = CapacityChange(alarm, effect, self.capacity, wanted)
