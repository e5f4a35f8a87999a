"""All faults over time, side by side: who answered, what failed, how long it took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.chaos.settings import PREFERRED, STANDBY
from benchmarks.plots import IMAGES, INK, in_style, save

COLOURS = {PREFERRED: "#2f81f7", STANDBY: "#c9a227", "failed": "#e5534b"}
READS, WRITES = "#8b5cf6", "#3fb950"
COLUMNS = 3
_MOST = 140
"""Calls a second that an axis goes to."""

Timeline = Mapping[str, Any]


def draw(timelines: Sequence[Timeline], directory: Path = IMAGES) -> None:
    """Draw them; nothing where matplotlib is not installed."""

    def paint() -> None:
        # No SVG: of so many steps it would be four times as large.
        save(_figure(timelines), directory / "failover-runs", (".png",))

    in_style(directory, paint)


def _figure(timelines: Sequence[Timeline]) -> Any:
    from matplotlib.figure import Figure

    rows = math.ceil(len(timelines) / COLUMNS)
    figure: Any = Figure(figsize=(11, 2.15 * rows + 0.8), layout="constrained")
    cells = figure.subfigures(rows, COLUMNS, squeeze=False).flat
    for cell, timeline in zip(cells, timelines, strict=False):
        cell.set_facecolor("none")
        _panel(cell, timeline)
    _legend(figure)
    return figure


def _panel(cell: Any, timeline: Timeline) -> None:
    traffic, pace = cell.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _traffic(traffic, timeline)
    _pace(pace, timeline)
    for panel in (traffic, pace):
        _fault(panel, *timeline["fault"])
        panel.tick_params(labelsize=7, length=2)
        panel.set_xlim(0, timeline["at"][-1])
    traffic.tick_params(labelbottom=False)
    traffic.set_title(timeline["title"], loc="left", fontweight="bold", fontsize=9)


def _fault(panel: Any, begun: float, healed: float) -> None:
    """Behind what is drawn, so as to leave the colours alone, with its edges in front."""
    panel.axvspan(begun, healed, color=INK, alpha=0.22, linewidth=0, zorder=0)
    for at in (begun, healed):
        panel.axvline(at, color=INK, linewidth=0.9, linestyle=(0, (2, 2)))


def _traffic(panel: Any, timeline: Timeline) -> None:
    """Reads upwards and writes downwards, stacked by who answered, failures outermost."""
    for kind, sign in (("reads", 1), ("writes", -1)):
        of = timeline[kind]
        floor = [0.0] * len(timeline["at"])
        for name, values in (*of["regions"].items(), ("failed", of["failed"])):
            top = [below + sign * value for below, value in zip(floor, values, strict=True)]
            panel.fill_between(
                timeline["at"], floor, top, step="post", color=COLOURS[name], linewidth=0
            )
            floor = top
    panel.axhline(0, color="white", linewidth=0.8)
    panel.set_ylim(-_MOST * 0.4, _MOST)  # Room for the fault above what is drawn.
    panel.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")


def _pace(panel: Any, timeline: Timeline) -> None:
    for kind, colour in (("reads", READS), ("writes", WRITES)):
        values = [math.nan if v is None else v for v in timeline[kind]["p99"]]
        panel.step(timeline["at"], values, where="post", color=colour, linewidth=1.1)
    panel.set_yscale("log")
    panel.set_ylim(1, 2_000)
    panel.set_yticks((1, 10, 100, 1_000), ("1", "10", "100", "1,000"))
    panel.minorticks_off()
    panel.grid(axis="y", color=INK, alpha=0.2)


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(color=COLOURS[PREFERRED], label=f"answered by {PREFERRED}"),
        Patch(color=COLOURS[STANDBY], label=f"by {STANDBY}"),
        Patch(color=COLOURS["failed"], label="failed"),
        Patch(color=INK, alpha=0.25, label="fault"),
        Line2D([], [], color=READS, label="p99 of reads"),
        Line2D([], [], color=WRITES, label="of writes"),
    ]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=6, frameon=False, labelcolor=INK
    )
    figure.supxlabel(
        "seconds; above: calls a second by who answered, reads upwards, writes downwards",
        fontsize=9,
    )
