"""Results to images, legible on light and on dark pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.clients import OURS
from benchmarks.curves import CLIENTS as CURVE_CLIENTS
from benchmarks.server import ROOT

IMAGES = ROOT / "docs" / "images"

INK = "#7d8590"
"""A grey that can be read on white and on black."""
OURS_COLOUR = "#2f81f7"
THEIRS_COLOUR = "#9aa4af"
FLOOR_COLOUR = "#c9a227"
CURVE_COLOURS = ("#2f81f7", "#3fb950", "#c9a227")

PANELS = (
    "BatchGetItem 100 x 20",
    "GetItem 1 x 20",
    "BatchGetItem 50 x 200",
    "BatchWriteItem 25 x 20",
)
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",  # The same results give the same file.
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(kept: Mapping[str, Any], directory: Path = IMAGES) -> None:
    """Draw what was kept; nothing where matplotlib is not installed."""

    def paint() -> None:
        if "cpu" in kept:
            save(_bars(kept["cpu"]["results"]), directory / "benchmark")
        if "curves" in kept:
            save(_curves(kept["curves"]["results"]), directory / "curves")

    in_style(directory, paint)


def in_style(directory: Path, paint: Callable[[], None]) -> None:
    """Paint images into a directory; not where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no images: matplotlib is not installed")
        return
    mpl.use("agg")
    directory.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        paint()


def save(figure: Any, path: Path, suffixes: Sequence[str] = (".png", ".svg")) -> None:
    """Keep a figure, as PNG and as SVG."""
    options: dict[str, Any] = {".png": {"dpi": 160}, ".svg": {"metadata": {"Date": None}}}
    for suffix in suffixes:
        name = path.with_suffix(suffix)
        figure.savefig(name, transparent=True, bbox_inches="tight", **options[suffix])


def _bars(results: Sequence[Mapping[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    panels = figure.subplots(2, 2)
    for panel, workload in zip(panels.flat, PANELS, strict=True):
        _panel(panel, workload, [r for r in results if r["workload"] == workload])
    figure.supxlabel("client CPU a call, microseconds, logarithmic; shorter is better")
    return figure


def _panel(panel: Any, workload: str, results: Sequence[Mapping[str, Any]]) -> None:
    ranked = sorted(results, key=lambda r: -r["cpu_us"])
    names = [r["client"] for r in ranked]
    bars = panel.barh(names, [r["cpu_us"] for r in ranked], color=[_colour(n) for n in names])
    panel.bar_label(bars, [f"{r['cpu_us']:,.0f}" for r in ranked], padding=3, color=INK)
    panel.set_xscale("log")
    panel.set_xlim(10, max(r["cpu_us"] for r in ranked) * 4)  # Room for the labels.
    panel.margins(y=0.02)
    _plain(panel.xaxis)
    panel.set_title(workload, loc="left", fontweight="bold")
    for label in panel.get_yticklabels():
        if _ours(label.get_text()):
            label.set(fontweight="bold", color=OURS_COLOUR)


def _plain(axis: Any) -> None:
    """Ticks at powers of ten, written as 10,000 and not as a power."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(10))
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.set_minor_locator(NullLocator())


def _ours(client: str) -> bool:
    return client.startswith(tuple(OURS.values()))


def _colour(client: str) -> str:
    if client == "floor":
        return FLOOR_COLOUR
    return OURS_COLOUR if _ours(client) else THEIRS_COLOUR


def _curves(results: Sequence[Mapping[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for panel, axis in zip(panels, ("keys", "features", "callers"), strict=True):
        for client, colour in zip(CURVE_CLIENTS, CURVE_COLOURS, strict=True):
            curve = [r for r in results if (r["axis"], r["client"]) == (axis, client)]
            sizes, costs = [r["size"] for r in curve], [r["cpu_us"] for r in curve]
            panel.loglog(sizes, costs, marker="o", markersize=4, color=colour, label=client)
        panel.set_title(axis, loc="left", fontweight="bold")
        panel.grid(color=INK, alpha=0.2)
        _plain(panel.xaxis)
        _plain(panel.yaxis)
    figure.axes[0].set_ylabel("client CPU a call, microseconds")
    figure.axes[0].legend(frameon=False, labelcolor=INK)
    return figure
