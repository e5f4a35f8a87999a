"""The curve of memory and read units as an image, by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from chalk_online_store.capacity.caching import Outcome
from chalk_online_store.errors import InvalidValue

_MEGABYTE = 1024 * 1024


def check_format(path: Path) -> None:
    """Refuse a file that is neither PNG nor SVG by its name."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise InvalidValue(f"--plot {path}: its name must end in .png or .svg.")


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
    try:
        figure.savefig(path, dpi=160)
    except OSError as error:
        raise InvalidValue(f"--plot {path} cannot be written: {error.strerror}.") from error
