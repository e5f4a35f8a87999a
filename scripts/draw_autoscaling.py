"""Draw the image of docs/autoscaling.md: two days, and a crowd on the second night."""

from __future__ import annotations

from pathlib import Path

from chalk_online_store.cli.plots import plot_run
from chalk_online_store.planning.autoscaling import TargetTracking, simulate
from chalk_online_store.planning.demand import DAY, HOUR, diurnal, flash_crowd

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "autoscaling.png"


def main() -> None:
    """Simulate the page's two days, and draw them."""
    wave = diurnal(400, 2_000, days=2)
    crowd = flash_crowd(5_000, at=DAY + 3 * HOUR, seconds=2 * DAY)
    demand = (wave + crowd).with_noise(0.05, seed=1)
    run = simulate(demand, TargetTracking(minimum=500, maximum=10_000, target=70))
    plot_run(run, IMAGE, "500 to 10,000 units at 70 %, with a crowd of 5,000 at 3 o'clock")


if __name__ == "__main__":
    main()
