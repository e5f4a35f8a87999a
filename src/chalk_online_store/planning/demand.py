"""Demand for capacity over time: made by a few laws, read from a file, or of a workload."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.files import FileFormat, read_rows, seconds_of, wrong
from chalk_online_store.planning.traffic import Workload, refuse

Units: TypeAlias = NDArray[np.float64]

MINUTE = 60.0
HOUR = 3_600.0
DAY = 86_400.0

_FORM = FileFormat(
    kind="demand",
    needed=("time", "units"),
    columns=("time", "units"),
    moments="time",
    rule="a demand has time and units",
)


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """Capacity units asked for, read or write, in equal steps.

    `units` are units a second, on average over each step of `step` seconds. `start` is the
    first step's begin in seconds since 1970, UTC: it tells where days begin. Two that are equal
    in step, start and length can be added. Raises `InvalidValue` for units below 0.
    """

    units: Units
    step: float = MINUTE
    start: float = 0.0

    def __post_init__(self) -> None:
        units, step = np.asarray(self.units, np.float64), self.step
        if units.ndim != 1 or not len(units):
            raise InvalidValue("A demand has at least one step, in one dimension.")
        if not (np.isfinite(units) & (units >= 0)).all():
            raise InvalidValue("A demand's units are numbers of 0 or more.")
        refuse(
            [
                ("step", step, 0 < step < math.inf, "above 0 seconds"),
                ("start", self.start, math.isfinite(self.start), "seconds since 1970"),
            ]
        )
        units = units.copy()
        units.flags.writeable = False
        object.__setattr__(self, "units", units)

    def __add__(self, other: Demand) -> Demand:
        mine, its = (len(self.units), self.step, self.start), (len(other.units), other.step)
        if mine != (*its, other.start):
            raise InvalidValue(
                "Two demands are added if start, step and number of steps agree: make them so, "
                "or use resampled()."
            )
        return Demand(self.units + other.units, self.step, self.start)

    @property
    def seconds(self) -> float:
        """How long it lasts, in seconds."""
        return len(self.units) * self.step

    @property
    def total(self) -> float:
        """All units asked for."""
        return float(self.units.sum()) * self.step

    @property
    def peak(self) -> float:
        """The highest step, in units a second."""
        return float(self.units.max())

    def with_noise(self, share: float, seed: int | np.random.Generator = 0) -> Demand:
        """The same with noise: each step times a lognormal factor of mean 1.

        `share` is the factor's standard deviation: 0.1 for 10 %. A seed gives the same noise.
        """
        refuse([("share", share, 0 <= share < math.inf, "0 or more")])
        sigma = math.sqrt(math.log1p(share * share))
        rng = np.random.default_rng(seed)
        factors = rng.lognormal(-sigma * sigma / 2, sigma, len(self.units))
        return Demand(self.units * factors, self.step, self.start)

    def resampled(self, step: float) -> Demand:
        """The same in steps of so many seconds: averaged into longer ones, or repeated.

        The longer step has to be a multiple of the shorter, and the demand to last a whole
        number of steps. Raises `InvalidValue` otherwise.
        """
        if step < self.step:
            return Demand(np.repeat(self.units, _multiple(self.step, step)), step, self.start)
        times = _multiple(step, self.step)
        if len(self.units) % times:
            raise InvalidValue(
                f"A demand of {self.seconds:g} s is no whole number of steps of {step:g} s: "
                "make it longer or shorter."
            )
        return Demand(self.units.reshape(-1, times).mean(axis=1), step, self.start)

    def by_minute(self) -> Units:
        """Its units, a row for each minute, as CloudWatch counts.

        Raises `InvalidValue` for steps longer than a minute, or that do not fill minutes.
        """
        if self.step > MINUTE:
            raise InvalidValue(
                f"Steps of {self.step:g} s hide what a minute asks for: use resampled(60)."
            )
        times = _multiple(MINUTE, self.step)
        if len(self.units) % times:
            raise InvalidValue(f"A demand of {self.seconds:g} s is no whole number of minutes.")
        return self.units.reshape(-1, times)


def steady(units: float, seconds: float, step: float = MINUTE, start: float = 0.0) -> Demand:
    """The same number of units a second, all the time."""
    return Demand(np.full(_steps(seconds, step), units), step, start)


def diurnal(
    trough: float,
    peak: float,
    days: float = 1.0,
    peak_hour: float = 15.0,
    step: float = MINUTE,
    start: float = 0.0,
) -> Demand:
    """A wave a day between `trough` and `peak` units a second, highest at `peak_hour`, UTC."""
    refuse([("peak", peak, 0 <= trough <= peak, "the trough or more, both 0 or more")])
    hours = (start + (np.arange(_steps(days * DAY, step)) + 0.5) * step) / HOUR
    wave = (1 + np.cos((hours - peak_hour) * (2 * np.pi / 24))) / 2
    return Demand(trough + (peak - trough) * wave, step, start)


def spike(
    height: float,
    at: float,
    lasts: float,
    seconds: float,
    base: float = 0.0,
    step: float = MINUTE,
    start: float = 0.0,
) -> Demand:
    """`base` units a second, and `height` from second `at` on for `lasts` seconds.

    A step that is in part within the spike takes that part of it.
    """
    begins = np.arange(_steps(seconds, step)) * step
    within = np.clip(np.minimum(begins + step, at + lasts) - np.maximum(begins, at), 0, None)
    return Demand(base + (height - base) * within / step, step, start)


def flash_crowd(
    peak: float,
    at: float,
    seconds: float,
    base: float = 0.0,
    rise: float = 60.0,
    half_life: float = 1_800.0,
    step: float = MINUTE,
    start: float = 0.0,
) -> Demand:
    """A crowd that comes suddenly and leaves slowly.

    From second `at` the demand rises in a line from `base` to `peak` units a second within
    `rise` seconds; then what is above `base` halves every `half_life` seconds.
    """
    refuse(
        [
            ("rise", rise, 0 <= rise < math.inf, "0 seconds or more"),
            ("half_life", half_life, half_life > 0, "above 0 seconds"),
        ]
    )
    since = (np.arange(_steps(seconds, step)) + 0.5) * step - at
    rising = np.clip(since / rise, 0, 1) if rise else (since >= 0).astype(np.float64)
    falling = np.exp2(-np.clip(since - rise, 0, None) / half_life)
    units = base + (peak - base) * rising * falling
    return Demand(units.astype(np.float64), step, start)


def demand_of(workload: Workload, units: float = 0.5, step: float = MINUTE) -> Demand:
    """What the reads of a workload ask for, at so many units each, in whole minutes.

    Half a unit is an eventually consistent read of up to 4 KB. A step that divides a minute
    shows bursts within it.
    """
    refuse([("units", units, 0 <= units < math.inf, "0 or more")])
    per_minute = _multiple(MINUTE, step)
    start = math.floor(workload.times[0] / MINUTE) * MINUTE
    places = ((workload.times - start) / step).astype(np.int64)
    steps = math.ceil((int(places[-1]) + 1) / per_minute) * per_minute
    reads = np.bincount(places, minlength=steps).astype(np.float64)
    return Demand(reads * (units / step), step, start)


def read_demand(path: str | Path) -> Demand:
    """The demand that a file recorded, a row for each step.

    The suffix tells the format, as for `read_trace`. Columns: `time`, the begin of the step, in
    seconds since 1970 or ISO 8601 (UTC unless it says otherwise); `units`, units a second on
    average over the step. CloudWatch's ConsumedReadCapacityUnits is such a file once its Sum is
    divided by its period. Times have to be evenly apart. Raises `InvalidValue`,
    `MissingDependency`.
    """
    path = Path(path)
    times: list[float] = []
    units: list[float] = []
    for place, row in read_rows(path, _FORM):
        times.append(seconds_of(path, place, "time", row.get("time")))
        units.append(_units_of(path, place, row))
        _check_even_steps(path, place, times)
    if len(times) < 2:
        raise InvalidValue(f"{path} has fewer than two rows: they tell how long a step is.")
    return Demand(np.array(units), times[1] - times[0], times[0])


def _units_of(path: Path, place: str, row: Mapping[str, Any]) -> float:
    try:
        units = float(row.get("units"))  # type: ignore[arg-type]  # None is refused as well.
    except (TypeError, ValueError):
        raise wrong(path, place, "units", "is not a number") from None
    if not 0 <= units < math.inf:
        raise wrong(path, place, "units", "is not 0 or more")
    return units


def _check_even_steps(path: Path, place: str, times: list[float]) -> None:
    if len(times) < 2:
        return
    step = times[1] - times[0]
    if not step > 0:
        raise wrong(path, place, "time", "is not after the one before: sort the rows")
    if abs(times[-1] - times[-2] - step) > 1e-6 * step:
        raise wrong(path, place, "time", f"is not {step:g} s after the one before, as others are")


def _steps(seconds: float, step: float) -> int:
    refuse(
        [
            ("step", step, 0 < step < math.inf, "above 0 seconds"),
            ("seconds", seconds, 0 < seconds < math.inf, "above 0"),
        ]
    )
    return max(1, round(seconds / step))


def _multiple(longer: float, shorter: float) -> int:
    refuse([("step", shorter, 0 < shorter < math.inf, "above 0 seconds")])
    times = round(longer / shorter)
    if not times or abs(times * shorter - longer) > 1e-9 * longer:
        raise InvalidValue(f"A step of {longer:g} s is no multiple of one of {shorter:g} s.")
    return times
