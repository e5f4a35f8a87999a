"""The load to simulate: recorded, or of a shape."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from chalk_online_store.cli import WrongUsage
from chalk_online_store.planning.demand import (
    DAY,
    HOUR,
    Demand,
    diurnal,
    flash_crowd,
    read_demand,
    spike,
)


class Shape(StrEnum):
    """What a load looks like, where none was recorded."""

    diurnal = "diurnal"
    spike = "spike"
    flash_crowd = "flash-crowd"


class Dimension(StrEnum):
    """What the units are of."""

    read = "read"
    write = "write"


Trace: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Recorded load: .csv, .jsonl or .parquet with the columns time and units."),
]
Peak: TypeAlias = Annotated[
    float | None, typer.Option(help="Highest load in units per second, instead of --trace.")
]
Base: TypeAlias = Annotated[
    float | None,
    typer.Option(help="Lowest load in units per second. Default: a tenth of the peak."),
]
ShapeOption: TypeAlias = Annotated[
    Shape,
    typer.Option(
        help="Shape of the load: a daily wave, or a wave with a spike or a flash crowd"
        " on the last day."
    ),
]
Days: TypeAlias = Annotated[float, typer.Option(min=0.1, max=400, help="Duration of the load.")]
Minutes: TypeAlias = Annotated[float, typer.Option(min=1, help="Duration of a spike.")]
Noise: TypeAlias = Annotated[
    float, typer.Option(min=0, help="Noise from minute to minute, as a share such as 0.1.")
]
Of: TypeAlias = Annotated[
    Dimension, typer.Option(help="Kind of the units, which selects the price.")
]


def load_of(
    trace: Path | None,
    shape: Shape,
    peak: float | None,
    base: float | None,
    days: float,
    minutes: float,
    noise: float,
) -> Demand:
    """The load that options describe; raises `WrongUsage`, `InvalidValue`."""
    if (trace is None) == (peak is None):
        raise WrongUsage("Say what the load is: give either --trace or --peak.")
    if trace is not None:
        return read_demand(trace)
    highest = peak or 0.0
    lowest = highest / 10 if base is None else base
    return _shaped(shape, lowest, highest, days, minutes).with_noise(noise)


def _shaped(shape: Shape, base: float, peak: float, days: float, minutes: float) -> Demand:
    """A spike or a crowd comes to the peak on top of a quiet wave, at noon of the last day."""
    if shape is Shape.diurnal:
        return diurnal(base, peak, days)
    quiet = diurnal(base, 2 * base, days)
    at, seconds = max(0.0, (days - 0.5) * DAY), quiet.seconds
    rest = max(0.0, peak - 2 * base)
    if shape is Shape.spike:
        return quiet + spike(rest, at, minutes * 60, seconds)
    return quiet + flash_crowd(rest, at, seconds, half_life=HOUR / 2)
