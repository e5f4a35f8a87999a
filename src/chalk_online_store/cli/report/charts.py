"""The charts of the page, by matplotlib, as SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from chalk_online_store.planning.caching import Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people tell apart however they see colours.
_BLUE, _ORANGE = "#0072B2", "#E69F00"


def cache_chart(curves: Mapping[str, Sequence[Outcome]], items: int) -> Figure:
    """The read units that remain, in percent, over the share of items that a cache holds.

    Two curves: without a Bloom filter, and with one.
    """
    figure = _figure(3.2)
    axes = figure.subplots()
    styles = ((_BLUE, "-"), (_ORANGE, "--"))
    for (name, outcomes), (colour, style) in zip(curves.items(), styles, strict=True):
        held = [100 * outcome.max_size / items for outcome in outcomes]
        remain = [100 * outcome.rcu / outcome.rcu_without for outcome in outcomes]
        axes.plot(held, remain, style, marker="o", label=name, color=colour)
    axes.set_xscale("log")
    axes.set_ylim(0, 100)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("items that the cache holds, percent of all (logarithmic)")
    axes.set_ylabel("RCUs that remain, percent")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(8, height), layout="constrained")


def data_url(figure: Figure) -> str:
    """A figure as an image that lies in its own address."""
    import matplotlib as mpl

    # Text stays text, and the same figure gives the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "chalk"}):
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(drawn.getvalue()).decode()
