"""The image of a run: what it shows, in which units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chalk_online_store import InvalidValue
from chalk_online_store.cli.plots import figure_of, plot_run
from chalk_online_store.planning import autoscaling, on_demand
from chalk_online_store.planning.autoscaling import TargetTracking
from chalk_online_store.planning.demand import Demand, flash_crowd, steady
from chalk_online_store.planning.on_demand import OnDemand

pytest.importorskip("matplotlib")

CROWD = flash_crowd(2_000, at=1_800, seconds=4 * 3_600, base=100)
RUN = autoscaling.simulate(CROWD, TargetTracking(100, 5_000))


def test_what_is_drawn_is_what_was_simulated() -> None:
    """Demand, capacity and throttling, step by step, over hours."""
    above, below = figure_of(RUN, "a crowd").axes
    drawn = [patch.get_data() for patch in (*above.patches, *below.patches)]
    for data, units in zip(drawn, (CROWD.units, RUN.capacity, RUN.throttled), strict=True):
        assert data.values.tolist() == units.tolist()
        assert (data.edges[0], data.edges[-1]) == (0, 4)


def test_axes_have_units() -> None:
    """Every axis says what it counts, and a legend what is what."""
    above, below = figure_of(RUN, "a crowd").axes
    assert above.get_ylabel() == "units a second"
    assert "units a second" in below.get_ylabel()
    assert below.get_xlabel() == "hours"
    assert above.get_title() == "a crowd"
    assert [text.get_text() for text in above.get_legend().get_texts()] == ["demand", "capacity"]


def test_a_long_run_keeps_its_peaks() -> None:
    """A second of throttling is seen in a week of seconds."""
    units = np.zeros(7 * 86_400)
    units[123_456] = 20_000
    run = on_demand.simulate(Demand(units, step=1), OnDemand(12_000))
    _, below = figure_of(run).axes
    values = below.patches[0].get_data().values
    assert len(values) <= 1_500
    assert values.max() == 8_000
    assert np.count_nonzero(values) == 1


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_it_is_written(suffix: str, begins: bytes, tmp_path: Path) -> None:
    """As PNG and as SVG, for autoscaled tables and for on-demand ones."""
    for name, run in (
        ("autoscaled", RUN),
        ("on-demand", on_demand.simulate(steady(5_000, 60), OnDemand(4_000))),
    ):
        path = tmp_path / f"{name}.{suffix}"
        plot_run(run, path)
        assert path.read_bytes().startswith(begins)


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    """A directory that is not there is named."""
    with pytest.raises(InvalidValue, match="cannot be written"):
        plot_run(RUN, tmp_path / "none" / "a.png")
