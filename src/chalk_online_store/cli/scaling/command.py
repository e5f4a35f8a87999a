"""The commands `autoscale simulate`, `autoscale search` and `autoscale on-demand`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from chalk_online_store.cli import require
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import Json
from chalk_online_store.cli.plots import check_format, plot_run
from chalk_online_store.cli.scaling.loads import (
    Base,
    Days,
    Dimension,
    Minutes,
    Noise,
    Of,
    Peak,
    Shape,
    ShapeOption,
    Trace,
    load_of,
)
from chalk_online_store.cli.terminal import print_table, say
from chalk_online_store.planning.autoscaling import BURST_SECONDS, TargetTracking, simulate
from chalk_online_store.planning.demand import Demand
from chalk_online_store.planning.on_demand import READ_WARM, WRITE_WARM, OnDemand
from chalk_online_store.planning.on_demand import simulate as simulate_on_demand
from chalk_online_store.planning.prices import SECONDS_A_MONTH, ClassPrices, read_prices
from chalk_online_store.planning.runs import ProvisionedRun, Run
from chalk_online_store.planning.search import search

app = typer.Typer(
    help="Simulate how capacity follows a load, for reads or writes.", no_args_is_help=True
)

Plot = Annotated[
    Path | None,
    typer.Option(help="File for a chart of load, capacity and throttles (.png or .svg)."),
]
Burst = Annotated[bool, typer.Option(help="Use burst capacity, which AWS does not promise.")]
Region = Annotated[str, typer.Option(help="Region of the prices.")]
PriceFile = Annotated[Path | None, typer.Option(help="Price file. Default: the bundled prices.")]


@app.command("simulate")
def simulate_autoscaling(
    minimum: Annotated[int, typer.Option("--min", min=1, help="Minimum capacity, in units.")],
    maximum: Annotated[int, typer.Option("--max", min=1, help="Maximum capacity, in units.")],
    target: Annotated[
        float, typer.Option(min=20, max=90, help="Target utilization, in percent.")
    ] = 70.0,
    scale_in_cooldown: Annotated[
        float, typer.Option(min=0, help="Scale-in cooldown, in seconds.")
    ] = 60.0,
    scale_out_cooldown: Annotated[
        float, typer.Option(min=0, help="Scale-out cooldown, in seconds.")
    ] = 60.0,
    burst: Burst = True,
    trace: Trace = None,
    shape: ShapeOption = Shape.diurnal,
    peak: Peak = None,
    base: Base = None,
    days: Days = 3.0,
    minutes: Minutes = 30.0,
    noise: Noise = 0.0,
    of: Of = Dimension.read,
    region: Region = "us-east-1",
    prices: PriceFile = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Simulate target tracking, and show throttles, cost and utilization.

    Example: chalk-online-store autoscale simulate --min 1000 --max 10000 --peak 7000 --plot run.png
    """
    _check_plot(plot)
    load = load_of(trace, shape, peak, base, days, minutes, noise)
    tracking = TargetTracking(minimum, maximum, target, scale_in_cooldown, scale_out_cooldown)
    run = simulate(load, tracking, burst_seconds=_burst_seconds(burst))
    told = _provisioned(run, _hourly(_class_prices(prices, region), of))
    _tell({"setting": asdict(tracking), **told}, as_json)
    if plot is not None:
        plot_run(run, plot, f"Autoscaled, {minimum:,} to {maximum:,} at {target:g} %")


@app.command("search")
def search_settings(
    bound: Annotated[
        float, typer.Option(min=0, max=1, help="Maximum share of the load that may be throttled.")
    ] = 0.001,
    burst: Burst = False,
    trace: Trace = None,
    shape: ShapeOption = Shape.diurnal,
    peak: Peak = None,
    base: Base = None,
    days: Days = 3.0,
    minutes: Minutes = 30.0,
    noise: Noise = 0.0,
    of: Of = Dimension.read,
    region: Region = "us-east-1",
    prices: PriceFile = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Find the cheapest minimum, maximum and target that keep throttles below a bound.

    Burst capacity is ignored unless --burst is passed. The range shows the throttles of the setting
    if capacity follows an alarm sooner or later. Exits with status 1 if no tested setting keeps
    the bound.

    Example: chalk-online-store autoscale search --trace reads.csv --bound 0.0001
    """
    _check_plot(plot)
    load = load_of(trace, shape, peak, base, days, minutes, noise)
    price = _hourly(_class_prices(prices, region), of)
    found = search(load, price or 1.0, bound, burst_seconds=_burst_seconds(burst))
    told = {"setting": asdict(found.best.scaling), **_provisioned(found.run, price)}
    by_delay = [
        {
            "delay": each.delay,
            "throttled_share": each.throttled_share,
            "dollars_a_month": None if price is None else each.cost * _months(load),
        }
        for each in found.by_delay
    ]
    _tell({**told, "by_delay": by_delay, "why": found.explain()}, as_json)
    if plot is not None:
        plot_run(found.run, plot, "The cheapest setting within the bound")
    if not found.meets:
        raise typer.Exit(1)


@app.command("on-demand")
def on_demand(
    warm: Annotated[
        float | None,
        typer.Option(help="Warm throughput, in units per second. Default: that of a new table."),
    ] = None,
    maximum: Annotated[
        float,
        typer.Option(
            "--max",
            help="Maximum throughput, in units per second: the table's setting or its quota.",
        ),
    ] = 40_000.0,
    trace: Trace = None,
    shape: ShapeOption = Shape.diurnal,
    peak: Peak = None,
    base: Base = None,
    days: Days = 3.0,
    minutes: Minutes = 30.0,
    noise: Noise = 0.0,
    of: Of = Dimension.read,
    region: Region = "us-east-1",
    prices: PriceFile = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Simulate an on-demand table, which serves up to twice its previous peak at once.

    Example: chalk-online-store autoscale on-demand --shape flash-crowd --peak 30000
    """
    _check_plot(plot)
    load = load_of(trace, shape, peak, base, days, minutes, noise)
    usual = READ_WARM if of is Dimension.read else WRITE_WARM
    run = simulate_on_demand(load, OnDemand(usual if warm is None else warm, maximum))
    ours = _class_prices(prices, region)
    dollars = None
    if ours is not None:
        price = ours.million_rru if of is Dimension.read else ours.million_wru
        dollars = run.cost(price) * _months(load)
    _tell({**_common(run), "dollars_a_month": dollars}, as_json)
    if plot is not None:
        plot_run(run, plot, "On demand")


# --- telling -------------------------------------------------------------------------------


def _check_plot(path: Path | None) -> None:
    if path is not None:
        require("plots", "matplotlib")
        check_format(path)


def _burst_seconds(burst: bool) -> float:
    return BURST_SECONDS if burst else 0.0


def _class_prices(path: Path | None, region: str) -> ClassPrices | None:
    found = read_prices(path).get(region)
    if found is None:
        say(
            f"No prices for region {region!r}: capacity units only. Write a file with "
            "`chalk-online-store prices fetch` and pass it with --prices.",
            err=True,
        )
        return None
    return found.standard


def _hourly(prices: ClassPrices | None, of: Dimension) -> float | None:
    if prices is None:
        return None
    return prices.rcu_hour if of is Dimension.read else prices.wcu_hour


def _months(load: Demand) -> float:
    """How many times a load goes into a month."""
    return SECONDS_A_MONTH / load.seconds


def _common(run: Run) -> dict[str, Any]:
    return {
        "peak": run.demand.peak,
        "throttled_share": run.throttled_share,
        "throttled_units": run.throttled_units,
    }


def _provisioned(run: ProvisionedRun, price: float | None) -> dict[str, Any]:
    return {
        **_common(run),
        "utilisation": run.utilisation,
        "headroom": run.headroom,
        "increases": run.increases,
        "decreases": run.decreases,
        "refused_decreases": run.refused_decreases,
        "unit_hours_a_month": run.unit_hours * _months(run.demand),
        "dollars_a_month": None if price is None else run.cost(price) * _months(run.demand),
    }


_SHOWN = {
    "peak": "{:,.0f} units a second",
    "throttled_share": "{:.3%}",
    "throttled_units": "{:,.0f}",
    "utilisation": "{:.1%}",
    "headroom": "{:.1%}",
    "unit_hours_a_month": "{:,.0f}",
    "dollars_a_month": "{:,.2f}",
}


def _tell(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    by_delay = told.pop("by_delay", [])
    rows = [*told.pop("setting", {}).items(), *told.items()]
    print_table(
        ("what", "value"), [(name.replace("_", " "), _shown(name, value)) for name, value in rows]
    )
    if by_delay:
        print_table(
            ("delay, s", "throttled share", "dollars a month"),
            [tuple(_shown(name, value) for name, value in each.items()) for each in by_delay],
            title="If capacity follows an alarm sooner or later",
            numbers=True,
        )


def _shown(name: str, value: Any) -> str:
    return "no prices" if value is None else _SHOWN.get(name, "{}").format(value)
