"""What memory buys, how capacity follows a demand, and latencies, as images by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chalk_online_store.cli import WrongUsage
from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.caching import Outcome
from chalk_online_store.planning.demand import Units
from chalk_online_store.planning.runs import Run

_MEGABYTE = 1024 * 1024

# Okabe and Ito's colours, which the colour-blind tell apart; lines differ in style as well.
_DEMAND, _CAPACITY, _THROTTLED = "#56b4e9", "#000000", "#d55e00"

_COLUMNS = 1_500
"""So many steps an image shows; more are drawn as the highest of each few."""


def check_format(path: Path) -> None:
    """Refuse a file that is neither PNG nor SVG by its name."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise WrongUsage(f"--plot {path}: its name must end in .png or .svg.")


def plot_curves(curves: Mapping[str, Sequence[Outcome]], path: Path) -> None:
    """Draw the read units that remain, in per cent, over the memory, in MiB: a line for each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, outcomes in curves.items():
        memory = [outcome.memory / _MEGABYTE for outcome in outcomes]
        remain = [100 * outcome.rcu / outcome.rcu_without for outcome in outcomes]
        axes.plot(memory, remain, marker="o", label=name)
    axes.set_xscale("log")
    axes.set_ylim(0, 100)
    axes.set_xlabel("memory of cache and filter, MiB, logarithmic")
    axes.set_ylabel("RCUs that remain, per cent of those without either")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def plot_latencies(latencies: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """Draw which share of the calls kept within a latency: a line for each kind, seconds given."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, seconds in latencies.items():
        shares = np.arange(1, len(seconds) + 1) * 100 / len(seconds)
        axes.step(np.sort(seconds) * 1e3, shares, where="post", label=name)
    axes.set_xscale("log")
    axes.set_ylim(0, 101)
    axes.set_xlabel("latency, ms, logarithmic")
    axes.set_ylabel("per cent of the calls within it")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    _save(figure, path)


def plot_run(run: Run, path: Path, title: str = "") -> None:
    """Draw demand, capacity and what was throttled over time, in hours from the start."""
    _save(figure_of(run, title), path)


def figure_of(run: Run, title: str = "") -> Any:
    """A figure of two panels: demand and capacity, and below what was throttled."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    demand, capacity, throttled = map(_thinned, (run.demand.units, run.capacity, run.throttled))
    hours = np.linspace(0, run.demand.seconds / 3600, len(demand) + 1)
    above.stairs(demand, hours, fill=True, color=_DEMAND, alpha=0.6, label="demand")
    above.stairs(capacity, hours, baseline=None, color=_CAPACITY, linewidth=1.5, label="capacity")
    below.stairs(throttled, hours, fill=True, color=_THROTTLED, label="throttled")
    above.set_title(title)
    above.set_ylabel("units a second")
    below.set_ylabel("throttled,\nunits a second")
    below.set_xlabel("hours")
    for axes in (above, below):
        axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
        axes.grid(alpha=0.3)
    above.legend(loc="upper left")
    return figure


def _thinned(units: Units) -> Units:
    """So few steps that an image can show them; none of the peaks is lost."""
    each = -(-len(units) // _COLUMNS)
    filled = np.pad(units, (0, -len(units) % each), mode="edge")
    return np.asarray(filled.reshape(-1, each).max(axis=1))


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, dpi=160)
    except OSError as error:
        raise InvalidValue(f"--plot {path} cannot be written: {error.strerror}.") from error
